"""What a replay found, as plain records: made by `replay`, shown by HTTP and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_daemon.records.anomaly import Anomaly
    from gradwatch_daemon.records.blocks import Stream
    from gradwatch_daemon.records.run import DetectorState


@dataclass(frozen=True, slots=True)
class Window:
    """Updates to replay, both included; None for no bound. It opens at the first row at or after `first` and closes before
    the first later row above `last`: what the trainer did again after going back behind it is not in it."""

    first: int | None = None
    last: int | None = None

    def __bool__(self) -> bool:
        return self.first is not None or self.last is not None


@dataclass(frozen=True, slots=True)
class StreamReplay:
    """One (run, attempt, rank): what detection makes of its rows.

    `rows` were replayed, of updates `update_first` to `update_last` in order of arrival (None where there was none).
    `unseen` rows came before them: outside the window, or no longer stored. `backward` rows had an update that was not
    after the one before it; `missing` counts updates left out between two rows. `trouble` says why it ended early, ''
    where it did not. `anomalies` are in order of their firing, each in its last state.
    """

    stream: Stream
    rows: int
    update_first: int | None
    update_last: int | None
    unseen: int
    backward: int
    missing: int
    trouble: str
    anomalies: tuple[Anomaly, ...]
    detectors: tuple[DetectorState, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The same finding on both sides of a comparison."""

    before: Anomaly
    after: Anomaly


@dataclass(frozen=True, slots=True)
class Difference:
    """A replay beside something else (`against`: `live`, or the name of a profile).

    `new` are found by the replay only, `lost` by the other only; `moved` are of one kind and subject at another onset,
    `changed` have one onset but another severity, count, end or number; `same` counts those that are equal in all.
    """

    against: str
    new: tuple[Anomaly, ...]
    lost: tuple[Anomaly, ...]
    moved: tuple[Pair, ...]
    changed: tuple[Pair, ...]
    same: int

    def __bool__(self) -> bool:
        return bool(self.new or self.lost or self.moved or self.changed)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A whole run replayed under one profile.

    `received` rows of the whole run had come, in all attempts and ranks; `lost` records of it never came, and of `thinned` rows
    only roll-ups are left. `inconclusive` says why finding nothing would not mean that there was nothing;
    `notes` what else to know. `seconds` is the time it took, reading included.
    """

    run: str
    profile: str
    rules_hash: str
    streams: tuple[StreamReplay, ...]
    lost: int
    inconclusive: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    difference: Difference | None = None
    received: int = 0
    thinned: int = 0

    @property
    def rows(self) -> int:
        """Rows replayed in all streams."""
        return sum(stream.rows for stream in self.streams)

    @property
    def anomalies(self) -> tuple[Anomaly, ...]:
        """Of all streams, in their order."""
        return tuple(anomaly for stream in self.streams for anomaly in stream.anomalies)

    @property
    def detectors(self) -> tuple[DetectorState, ...]:
        """Of all streams, in their order."""
        return tuple(state for stream in self.streams for state in stream.detectors)


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """A replay that HTTP asks for. `profile` None is the daemon's own, `thresholds` go over what it is configured with;
    `against` is `live`, the name of a profile, or '' for no comparison."""

    run: str
    profile: str | None
    thresholds: Mapping[str, Mapping[str, float]]
    window: Window
    against: str
