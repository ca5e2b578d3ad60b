"""The record: one writer, many readers, SQLite underneath."""
