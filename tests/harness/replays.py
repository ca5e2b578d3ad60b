"""Replaying what a store of a test holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.records.replayed import Window
from gradwatch_daemon.replay.run import replay_run

if TYPE_CHECKING:
    from gradwatch_daemon.records.replayed import Replayed
    from gradwatch_daemon.store.recording import RecordingReader


def clock() -> float:
    """No time passes."""
    return 0.0


def whole(reader: RecordingReader, run: str, profile: str = "default", window: Window | None = None) -> Replayed:
    """A run of a store replayed."""
    recording = reader.recording(run)
    return replay_run(recording, reader.blocks, load_profile(profile), window=window or Window(), clock=clock)
