"""Columns and signals by what they are about; signals.py joins them into the registry, after its own."""
