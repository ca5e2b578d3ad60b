"""Columns to signals."""
