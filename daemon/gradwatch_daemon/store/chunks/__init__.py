"""Rows of signals as bytes: tails as committed, chunks of 1,024 rows, roll-ups of 64, and reading them back.

The only part of the store that uses numpy. All arrays are little-endian; values and statuses survive bit by bit, NaN payloads
and signed zeros included.
"""
