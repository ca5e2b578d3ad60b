"""Verdicts to anomalies: votes, causes, resolution."""
