"""Losses and deadlines beside the rows: what they fire, when they end, and that a replay of rows and marks is the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch_contracts.columns import RowFlag
from gradwatch_contracts.control import Severity
from gradwatch_daemon.detect.arrivals import NS
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from gradwatch_daemon.detect.engine import Engine, StreamState
from gradwatch_daemon.pipeline.stream import CHECKPOINT_UPDATES, StreamDetection
from gradwatch_daemon.records import Anomaly, Checkpoint, EventRecord, LossRecord, SignalBlock
from harness.blocks import STREAM, signal_block

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW_NS = 5 * NS
GAP_NS = 2 * NS


def rows(n: int, start: int = 0, **given: object) -> SignalBlock:
    """Healthy updates, two seconds apart."""
    block = signal_block(n, start=start, **given)
    block.t_ns[:] = (block.update + 1) * GAP_NS
    return block


def loss(count: int, reason: str = "outbox full", first: int = 0) -> LossRecord:
    """`count` records that never came."""
    return LossRecord(STREAM, "s", first, first + count - 1, reason)


def detection(profile: str = "default") -> StreamDetection:
    """A fresh one."""
    return StreamDetection(STREAM, Engine(load_profile(profile)), 1000)


@dataclass
class Shelf:
    """The part of a store that detection reads."""

    blocks: list[SignalBlock] = field(default_factory=list)
    events: list[EventRecord] = field(default_factory=list)
    saved: Checkpoint | None = None
    saved_blocks: int = 0

    def checkpoint(self, _: object) -> Checkpoint | None:
        return self.saved

    def marks(self, _: object) -> list[EventRecord]:
        return self.events

    def raw_begin(self, _: object) -> int:
        return 0

    def blocks_after(self, _: object, update: int) -> Iterator[SignalBlock]:
        assert update == -1
        return iter(self.blocks)

    def blocks_since_checkpoint(self, _: object) -> Iterator[SignalBlock]:
        return iter(self.blocks[self.saved_blocks :])


def revived(shelf: Shelf) -> StreamDetection:
    """What another process makes of the shelf."""
    found = detection()
    found.restore(shelf)  # type: ignore[arg-type]
    return found


def standing(found: StreamDetection) -> object:
    """Everything that can be seen of it, and its next moves."""
    return repr((found.detector_states, found._lifecycle.open, found._state.dump(), found._lifecycle.dump(), found._marks))


# -- losses ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("count", "severity"), [(1, Severity.INFO), (2, Severity.INFO), (3, Severity.WARNING)])
def test_loss_is_info_and_beyond_one_percent_of_two_hundred_records_a_warning(
    profile: str, count: int, severity: Severity
) -> None:
    """2 of 200 are exactly 1 %."""
    found = detection(profile)
    found.advance(rows(300))
    ((anomaly,), mark) = found.lose(loss(count), NOW_NS)
    assert (anomaly.kind, anomaly.subject, anomaly.severity) == ("telemetry_gap", "outbox full", severity)
    assert (anomaly.value, anomaly.update_onset, anomaly.stage) == (count / 200, 299, "telem")
    assert (mark.kind, mark.seq, mark.update, mark.t_ns) == ("gap", -1, 299, 300 * GAP_NS)
    assert dict(mark.detail) == {"records": count, "rows": 300, "mark": 0}
    assert anomaly.sentence.startswith("Lost share of the last 200 records (outbox full): ")


def test_loss_before_the_first_row_counts_and_has_the_time_it_came() -> None:
    """A run whose very first records were lost."""
    ((anomaly,), mark) = detection().lose(loss(5), NOW_NS)
    assert (anomaly.severity, anomaly.update_onset, mark.t_ns) == (Severity.WARNING, 0, NOW_NS)


def test_loss_ends_after_twenty_updates_without_another() -> None:
    """Each reason by itself; the second is not explained by the first."""
    found = detection()
    found.advance(rows(300))
    found.lose(loss(4), NOW_NS)
    (other,), _ = found.lose(loss(1, "device busy"), NOW_NS)
    assert other.subject == "device busy"
    assert found.advance(rows(19, 300)) == []
    assert [(a.subject, a.state) for a in found.advance(rows(1, 319))] == [
        ("outbox full", "resolved"),
        ("device busy", "resolved"),
    ]


def test_loss_reasons_of_a_hostile_agent_are_bounded() -> None:
    """Long ones are cut, and of very many the rest is 'other'."""
    found = detection()
    for number in range(40):
        found.lose(loss(1, f"{number} " + "x" * 5000), NOW_NS)
    subjects = {a.subject for a in found._lifecycle.open}
    assert len(subjects) == 17
    assert "other" in subjects
    assert max(len(subject) for subject in subjects) <= 64


# -- stalls ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_stall_fires_beyond_ten_times_the_usual_gap_and_ends_with_the_next_update(profile: str) -> None:
    """Two seconds an update: 20 s are no stall, 20 s and a nanosecond are; told once; the next row ends it."""
    found = detection(profile)
    found.advance(rows(50))
    assert found.deadline_ns == 50 * GAP_NS + 20 * NS
    assert found.tick(20 * NS) is None
    told = found.tick(20 * NS + 1)
    assert told is not None
    ((anomaly,), mark) = told
    assert (anomaly.kind, anomaly.severity, anomaly.limit, anomaly.baseline) == ("stall", Severity.WARNING, 20.0, 2.0)
    assert (anomaly.update_onset, anomaly.t_ns, anomaly.stage) == (49, 50 * GAP_NS + 20 * NS + 1, "sys")
    assert anomaly.sentence == "No update for 20 s (10x its usual 2) after update 49, limit 20 s."
    assert (mark.kind, mark.update, dict(mark.detail)) == ("tick", 49, {"rows": 50, "mark": 0})
    assert found.deadline_ns is None
    assert found.tick(1000 * NS) is None
    assert {s.kind for s in found.detector_states if s.state == "firing"} == {"stall"}
    (over,) = found.advance(rows(1, 50))
    assert (over.state, over.update_resolved) == ("resolved", 50)
    assert found.deadline_ns is not None


def test_stall_is_judged_strictly_on_replayed_ticks_too() -> None:
    """A recorded tick that is not past the deadline, under whatever rules, is no stall."""
    engine, state = Engine(load_profile("default")), StreamState()
    engine.check(state, rows(50), 1000)
    deadline = engine.deadline_ns(state)
    assert deadline == 50 * GAP_NS + 20 * NS
    assert engine.tick(state, deadline) == []
    assert len(engine.tick(state, deadline + 1)) == 1
    assert engine.tick(state, deadline + 2) == []


def test_stall_of_a_fast_trainer_takes_at_least_five_seconds() -> None:
    """Ten times a millisecond is nothing."""
    found, block = detection(), rows(50)
    block.t_ns[:] = block.update * 1_000_000
    found.advance(block)
    assert found.deadline_ns == 49 * 1_000_000 + 5 * NS


def test_stall_is_not_known_before_the_pace_is() -> None:
    """Eight gaps, nine rows."""
    found = detection()
    found.advance(rows(8))
    assert found.deadline_ns is None
    assert found.tick(10**6 * NS) is None
    states = {state.kind: state for state in found.detector_states}
    assert (states["stall"].state, states["stall"].reason) == ("learning", "7 of 8 updates to learn from")
    found.advance(rows(1, 8))
    assert found.deadline_ns is not None


# -- replay ---------------------------------------------------------------------------------------------------------------


def test_restored_from_a_checkpoint_made_while_it_stalled_does_not_tell_again() -> None:
    """The state knows what was told; the next row ends it in the other process too."""
    found, shelf = detection(), Shelf()
    block = rows(CHECKPOINT_UPDATES)
    found.advance(block)
    shelf.blocks.append(block)
    told = found.tick(100 * NS)
    assert told is not None
    shelf.events.append(told[1])
    shelf.saved, shelf.saved_blocks = found.checkpoint_if_due(), 1
    other = revived(shelf)
    assert standing(other) == standing(found)
    assert other.tick(200 * NS) is None
    after = rows(1, CHECKPOINT_UPDATES)
    assert repr(other.advance(after)) == repr(found.advance(after))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_replay_of_rows_and_marks_in_any_blocks_and_from_any_checkpoint_is_the_same(data: st.DataObject) -> None:
    """Rows, losses and ticks live; then from the shelf with the rows in other blocks."""
    found, shelf, at = detection(), Shelf(), 0
    anomalies: dict[str, Anomaly] = {}
    for _ in range(data.draw(st.integers(1, 12), label="moves")):
        move = data.draw(st.sampled_from(["rows", "rows", "many", "loss", "tick"]), label="move")
        changed: list[Anomaly] = []
        if move in ("rows", "many"):
            n = data.draw(st.integers(200, 300) if move == "many" else st.integers(1, 30), label="n")
            block = rows(n, at, policy__kl__k3=np.where(np.arange(at, at + n) % 37 == 0, 0.9, 0.01).tolist())
            at += n
            changed = found.advance(block)
            shelf.blocks.append(block)
            saved = found.checkpoint_if_due()
            if saved is not None:
                shelf.saved, shelf.saved_blocks = saved, len(shelf.blocks)
        elif move == "loss":
            reason = data.draw(st.sampled_from(["outbox full", "device busy"]), label="reason")
            changed, mark = found.lose(loss(data.draw(st.integers(1, 5), label="lost"), reason), NOW_NS)
            shelf.events.append(mark)
        elif (told := found.tick(60 * NS)) is not None:
            changed, mark = told
            shelf.events.append(mark)
        anomalies.update({anomaly.id: anomaly for anomaly in changed})
    assert standing(revived(shelf)) == standing(found)
    cut = []
    for block in shelf.blocks[shelf.saved_blocks :]:
        middle = data.draw(st.integers(0, len(block)), label="cut")
        cut += [part for part in (block.select(slice(0, middle)), block.select(slice(middle, None))) if len(part)]
    shelf.blocks[shelf.saved_blocks :] = cut
    other = revived(shelf)
    assert standing(other) == standing(found)
    assert all(anomaly == anomalies[anomaly.id] for anomaly in other._lifecycle.open)


def test_restored_under_other_rules_replays_marks_from_the_start() -> None:
    """A checkpoint of other rules is not read; what happened is."""
    found, shelf = detection(), Shelf()
    block = rows(CHECKPOINT_UPDATES)
    found.advance(block)
    _, mark = found.lose(loss(9), NOW_NS)
    shelf.blocks.append(block)
    shelf.events.append(mark)
    shelf.saved, shelf.saved_blocks = found.checkpoint_if_due(), 1
    classic = detection("classic")
    classic.restore(shelf)  # type: ignore[arg-type]
    assert [(a.kind, a.severity) for a in classic._lifecycle.open] == [("telemetry_gap", Severity.WARNING)]


# -- updates that were cut short ------------------------------------------------------------------------------------------

CUT = RowFlag.PARTIAL


@pytest.mark.parametrize("flags", [[0] * 40 + [CUT], [0] * 40 + [CUT, CUT], [CUT, 0, CUT, *[0] * 58]])
@pytest.mark.parametrize("size", [1, 7, 41, 100])
def test_standing_is_that_of_the_last_whole_update_however_blocks_fall(flags: list[int], size: int) -> None:
    """A crash's last row shows most detectors nothing: what they saw before stands, and is not called blind."""
    whole = rows(len(flags), flags=flags, policy__ratio__first_mb_dev=0.1, drop=["policy.ratio.min"])
    found = detection()
    for start in range(0, len(flags), size):
        found.advance(whole.select(slice(start, start + size)))
    states = {state.kind: state for state in found.detector_states}
    assert {states[kind].state for kind in ("kl_extreme", "entropy_low", "nonfinite", "gradient_vanishing")} == {"armed"}
    assert (states["rollout_mismatch"].state, states["ratio_collapse"].state) == ("firing", "blind")
    assert not [state for state in states.values() if "cut short" in state.reason]
    other = detection()
    other.advance(whole)
    assert standing(found) == standing(other)


def test_standing_of_a_run_that_has_only_updates_cut_short_is_blind_and_says_so() -> None:
    """It died in its first update: nobody saw a whole one."""
    found = detection()
    found.advance(rows(1, flags=CUT, policy__logratio__nonfinite=3))
    found.advance(rows(1, 1, flags=CUT))
    states = {state.kind: state for state in found.detector_states}
    assert (states["kl_extreme"].state, states["kl_extreme"].reason) == ("blind", "the last update was cut short")
    assert states["nonfinite"].state == "firing"
