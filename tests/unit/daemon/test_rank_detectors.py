"""The detectors of ranks: flags of the combined row, by k of n."""

from __future__ import annotations

import pytest

from gradwatch_contracts.columns import RowFlag
from gradwatch_daemon.anomalies.lifecycle import end_whole
from gradwatch_daemon.detect.view import CLEAR
from harness.blocks import Watch, signal_block

CASES = [
    ("rank_missing", RowFlag.RANKS_MISSING, 3, 5),
    ("rank_desync", RowFlag.RANKS_DIFFER, 3, 5),
    ("rank_slow", RowFlag.RANK_SLOW, 8, 10),
]


def fired(flags: list[int], kind: str, *, single: bool) -> list[tuple[str, int, int]]:
    """Severity, onset and update of the anomaly of a kind over a run with these flags, fed whole or row by row."""
    watch = Watch()
    block = signal_block(len(flags), flags=flags)
    pieces = [block.select(slice(row, row + 1)) for row in range(len(flags))] if single else end_whole(block)
    found = {anomaly.id: anomaly for piece in pieces for anomaly in watch.feed(piece) if anomaly.kind == kind}
    return [(one.severity.value, one.update_onset, one.update_fired) for one in found.values()]


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(("kind", "flag", "k", "n"), CASES)
def test_rank_detector_fires_at_k_of_n_marked_updates_and_not_below(kind: str, flag: int, k: int, n: int, single: bool) -> None:
    """One fewer, or as many that lie further apart, are nothing; other flags are not meant."""
    quiet = [0] * 20
    assert fired(quiet + [flag] * (k - 1) + quiet, kind, single=single) == []
    assert fired(quiet + ([flag] + [0] * (n - k + 1)) * k, kind, single=single) == []
    assert fired(quiet + [flag] * k + quiet, kind, single=single) == [("warning", 20, 19 + k)]
    others = RowFlag.RANKS_MISSING | RowFlag.RANKS_DIFFER | RowFlag.RANK_SLOW
    assert fired([int(others) & ~flag] * 30, kind, single=single) == []


@pytest.mark.parametrize("kind", [case[0] for case in CASES])
def test_rank_detector_of_a_run_without_flags_is_clear_from_its_first_update(kind: str) -> None:
    """One rank is never missing: that is known and not blind."""
    assert (Watch().check(signal_block(5))[kind].code == CLEAR).all()


def test_rank_kinds_are_of_the_profile_in_use() -> None:
    """What the daemon watches with unless it is told otherwise."""
    assert {case[0] for case in CASES} <= Watch().profile.rules.keys()
