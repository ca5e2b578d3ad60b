"""The service: receives rows, derives signals, detects anomalies, escalates, stores, answers. Never imports torch."""

from gradwatch_contracts import __version__

__all__ = ["__version__"]
