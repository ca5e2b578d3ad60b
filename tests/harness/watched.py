"""Healthy training as a detector sees it, and how what follows is judged."""

from __future__ import annotations

import numpy as np

from gradwatch_daemon.records import Verdict
from harness.blocks import Watch, signal_block


def wobble(n: int, level: float, noise: float = 0.05, seed: int = 3) -> list[float]:
    """A positive signal with log-noise."""
    return (level * np.exp(noise * np.random.default_rng(seed).normal(size=n))).tolist()


def learned(n: int = 80, profile: str = "default", **given: object) -> Watch:
    """A watch after `n` healthy updates."""
    watch = Watch(profile)
    usual = {"value__nmse": wobble(n, 0.4), "grad__norm__mean": wobble(n, 0.4)}
    watch.check(signal_block(n, **{**usual, **given}))
    return watch


def severities(watch: Watch, kind: str, n: int, start: int = 80, **given: object) -> list[int]:
    """Rank of each row in breach, -1 of the others."""
    found = watch.check(signal_block(n, start=start, **given))[kind]
    return [int(s) if c == Verdict.BREACH else -1 for c, s in zip(found.code, found.severity, strict=True)]
