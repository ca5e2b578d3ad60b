"""Signals to verdicts: the engine, the baselines, and a file per anomaly kind."""
