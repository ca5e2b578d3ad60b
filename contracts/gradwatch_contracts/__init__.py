"""What the agent and the daemon agree on: frames, messages, columns, signals, control. Pure; no I/O."""

__version__ = "0.1.0"
PROTOCOL_MAJOR = 1
"""Incompatible wire changes only. Both sides refuse another major and say so."""
