"""What every store must do: one suite over the protocol. A new implementation joins by adding how it is opened."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts.control import EscalationState, Level, Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import (
    Anomaly,
    Attached,
    Checkpoint,
    Commit,
    Escalation,
    EventRecord,
    LossRecord,
    Run,
    Session,
    SignalKey,
    Stream,
    TableRecord,
)
from gradwatch_daemon.store.protocol import AnomalyFilter
from gradwatch_daemon.store.reader import Decoded
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import KEYS, STREAM, make_block, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gradwatch_daemon.store.protocol import Store, StoreReader

OPENERS = {"sqlite": SqliteStore.open}
SEQ_MAX = 2**64 - 1

RUN = Run(
    "ant-ppo",
    2,
    "launch-7",
    "sweep",
    {"team": "robots"},
    {"node": "n1"},
    {"lr": 3e-4, "clip": math.inf, "seed": 7, "amp": True, "note": "NaN", "none": None},
    500,
    4,
    "live",
    Level.MINIMAL,
    Level.DEBUG,
    9,
    1_000,
    2_000,
)
ANOMALY = Anomaly(
    "a1",
    "ant-ppo",
    1,
    0,
    "kl_spike",
    "arm",
    Severity.WARNING,
    "firing",
    10,
    12,
    14,
    None,
    3,
    0.25,
    0.1,
    0.05,
    2,
    "policy",
    "KL of 0.25 is above 0.1.",
    (Attached("ratio_explosion", "", Severity.CRITICAL, 11, 12, math.inf, 5.0),),
    ("lower the learning rate", "fewer epochs"),
    "rules-1",
    5_000,
)
ESCALATION = Escalation(
    "e1", "ant-ppo", Level.DEBUG, 5, "anomaly:a1", "kl_spike", EscalationState.APPLIED, 77, 13, None, "not yet"
)


class Opened:
    """A store in a directory that can be closed and opened again."""

    def __init__(self, opener: Callable[[Path], Store], path: Path) -> None:
        self._opener, self._path = opener, path
        self.store = opener(path)

    def again(self) -> Store:
        """Close it, and open what it left."""
        self.store.close()
        self.store = self._opener(self._path)
        return self.store


@pytest.fixture(params=sorted(OPENERS))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """One implementation in an empty directory."""
    subject = Opened(OPENERS[request.param], tmp_path / "data")
    yield subject
    subject.store.close()


@pytest.fixture
def store(opened: Opened) -> Store:
    """The store itself."""
    return opened.store


@pytest.fixture
def reader(opened: Opened) -> Iterator[StoreReader]:
    """A reader of it."""
    reading = opened.store.reader()
    yield reading
    reading.close()


def everything() -> Commit:
    """A batch with one of each."""
    return Commit(
        (make_block(range(3)),),
        (RUN,),
        (Session("s1", STREAM, "launch-7", 2, "host", 123, ("profile",)),),
        (ANOMALY,),
        (ESCALATION,),
        (EventRecord(STREAM, "s1", 0, 2, 30, "note", "hi", {"x": 1}),),
        (LossRecord(STREAM, "s1", 5, 9, "outbox full"),),
        (TableRecord(STREAM, "s1", 1, "layers", 2, ("l1",), ("norm",), b"\0" * 8),),
        (Checkpoint(STREAM, 2, "rules-1", b"state"),),
    )


def fill(store: Store, rows: int, *, per_block: int = 512) -> None:
    """Updates 0 to `rows` - 1, compacted as far as it goes."""
    for first in range(0, rows, per_block):
        store.commit(Commit((make_block(range(first, min(first + per_block, rows))),)))
    while store.compact():
        pass


# A batch that fails


def test_commit_that_fails_at_its_end_leaves_nothing(opened: Opened, reader: StoreReader) -> None:
    """The last record cannot be written: no row, run, session, anomaly, event, loss or table of the batch is there."""
    bad = replace(everything(), checkpoints=(Checkpoint(STREAM, 2, "rules-1", object()),))  # type: ignore[arg-type]
    with pytest.raises((sqlite3.Error, TypeError)):
        opened.store.commit(bad)
    store = opened.store
    assert not any([store.runs(), store.session("s1"), store.open_anomalies(), store.open_escalations(), store.row_counts()])
    assert store.lost_count("ant-ppo") == 0
    assert not any([reader.events("ant-ppo", 9), reader.tables("ant-ppo", 9), reader.signals(*STREAM)])
    assert not list(store.blocks_after(STREAM, -1))


def test_commit_after_a_failed_one_writes_the_same_batch(opened: Opened) -> None:
    """Streams and signal sets numbered in the failed transaction are numbered anew."""
    bad = replace(everything(), checkpoints=(Checkpoint(STREAM, 2, "rules-1", object()),))  # type: ignore[arg-type]
    opened.store.commit(Commit((make_block(range(3), stream=Stream("other", 1, 0)),)))
    for _ in range(2):
        with pytest.raises((sqlite3.Error, TypeError)):
            opened.store.commit(bad)
    opened.store.commit(everything())
    store = opened.again()
    assert store.row_counts() == {Stream("other", 1, 0): (3, 2), STREAM: (3, 2)}
    assert rows_of(store.blocks_after(STREAM, -1)) == rows_of([make_block(range(3))])


def test_commit_of_a_block_that_does_not_fit_itself_is_refused(store: Store) -> None:
    """Fewer values than rows would shift every later row."""
    block = make_block(range(4))
    with pytest.raises(ValueError, match=r"3 signals x 4 rows: values \(3, 3\)"):
        store.commit(Commit((replace(block, values=block.values[:, :3]),)))
    assert store.row_counts() == {}


# Rows


def test_blocks_after_gives_back_rows_bit_by_bit_before_and_after_compaction(opened: Opened) -> None:
    """NaN payloads, infinities, negative zero, statuses and a changed signal set survive in order of arrival."""
    odd = np.array([0x7FC00001, 0xFF800000, 0x7F800000, 0x80000000, 0x7F800001, 1], np.uint32).view(np.float32)
    values, status = np.tile(odd, (3, 1)), np.arange(18, dtype=np.uint8).reshape(3, 6) % 12
    wider = (*KEYS, SignalKey("user", "lr"))
    blocks = [
        make_block(range(6), values=values, status=status),
        make_block(range(6, 1500)),
        make_block(range(1490, 1600), signals=wider),
        make_block(range(1600, 2100), signals=wider[::-1]),
    ]
    for block in blocks:
        opened.store.commit(Commit((block,)))
    before = rows_of(opened.store.blocks_after(STREAM, -1))
    assert opened.store.compact() == 2
    assert before == rows_of(blocks)
    assert rows_of(opened.store.blocks_after(STREAM, -1)) == before
    assert rows_of(opened.again().blocks_after(STREAM, -1)) == before


def test_blocks_after_an_update_gives_only_later_updates(store: Store) -> None:
    """Whole chunks are skipped, and one is cut."""
    fill(store, 3000)
    for update in (-1, 0, 1021, 1022, 1023, 1024, 1500, 2998, 2999, 10_000):
        assert rows_of(store.blocks_after(STREAM, update)) == rows_of([make_block(range(update + 1, 3000))])


def test_blocks_after_while_rows_are_compacted_loses_and_repeats_none(store: Store) -> None:
    """The tails read first are gone when the walk goes on."""
    for first in range(0, 2500, 100):
        store.commit(Commit((make_block(range(first, first + 100)),)))
    walk = store.blocks_after(STREAM, -1)
    got = [next(walk)]
    assert store.compact() == 2
    store.commit(Commit((make_block(range(2500, 2600)),)))
    assert rows_of([*got, *walk]) == rows_of([make_block(range(2600))])


def test_blocks_of_other_streams_do_not_mix(store: Store) -> None:
    """The same updates in another attempt, rank and run."""
    streams = [STREAM, Stream("ant-ppo", 2, 0), Stream("ant-ppo", 1, 1), Stream("bee", 1, 0)]
    for k in range(1100 // 50):
        store.commit(Commit(tuple(make_block(range(k * 50 + j, k * 50 + j + 50), stream=s) for j, s in enumerate(streams))))
    assert store.compact() == 4
    for j, stream in enumerate(streams):
        got = [row[1] for row in rows_of(store.blocks_after(stream, -1))]
        assert got == [u + j for u in range(1100)]
    assert store.row_counts() == {stream: (1100, 1099 + j) for j, stream in enumerate(streams)}


def test_compact_with_nothing_full_does_nothing(store: Store) -> None:
    """1,023 rows stay tails; one more makes a chunk."""
    fill(store, 1023)
    assert store.compact() == 0
    store.commit(Commit((make_block([1023]),)))
    assert store.compact() == 1
    assert store.compact() == 0


def test_compact_of_more_than_its_bound_goes_on_when_called_again(store: Store) -> None:
    """One call keeps commits waiting for a bounded time."""
    store.commit(Commit((make_block(range(40 * 1024)),)))
    made = []
    while count := store.compact():
        made.append(count)
    assert sum(made) == 40
    assert len(made) > 1
    assert store.row_counts() == {STREAM: (40 * 1024, 40 * 1024 - 1)}


def test_full_tails_found_at_start_are_compacted(opened: Opened) -> None:
    """A daemon killed before compaction leaves the work to the next one."""
    opened.store.commit(Commit((make_block(range(2100)),)))
    assert opened.again().compact() == 2


def test_empty_block_is_no_row(store: Store) -> None:
    """Nothing is made of it."""
    store.commit(Commit((make_block([]),)))
    assert not list(store.blocks_after(STREAM, -1))


# What else a batch carries


def test_run_comes_back_equal_and_is_replaced_by_its_newer_self(opened: Opened) -> None:
    """Every field, maps with non-finite numbers included."""
    opened.store.commit(everything())
    assert opened.again().runs() == [RUN]
    newer = replace(RUN, attempt=3, state="lost", pin=None, updates_total=None, tags={}, last_seen_ns=3_000)
    opened.store.commit(Commit(runs=(newer, replace(RUN, run="aaa"))))
    assert opened.store.runs() == [replace(RUN, run="aaa"), newer]


def test_session_seq_moves_with_its_rows(opened: Opened) -> None:
    """The seq of the newest commit, up to the largest a uint64 holds."""
    session = everything().sessions[0]
    opened.store.commit(everything())
    assert opened.store.session(session.session) == session
    assert opened.store.session("never") is None
    other = Session("s0", Stream("ant-ppo", 1, 1), "launch-7", -1, "", 0)
    opened.store.commit(Commit(sessions=(replace(session, last_seq=SEQ_MAX), other)))
    again = opened.again()
    assert again.session(session.session) == replace(session, last_seq=SEQ_MAX)
    assert again.session("s0") == other


def test_anomaly_with_numbers_that_are_not_finite_comes_back_equal(opened: Opened, reader: StoreReader) -> None:
    """SQLite alone would turn NaN into NULL."""
    odd = replace(ANOMALY, id="a2", value=math.inf, limit=-math.inf, baseline=None, update_resolved=40, t_ns=6_000)
    opened.store.commit(Commit(anomalies=(ANOMALY, odd, replace(ANOMALY, id="a3", value=math.nan, baseline=math.nan))))
    assert reader.anomaly("a1") == ANOMALY
    assert reader.anomaly("a2") == odd
    got = reader.anomaly("a3")
    assert got is not None
    assert math.isnan(got.value)
    assert got.baseline is not None
    assert math.isnan(got.baseline)
    assert replace(got, value=0.0, baseline=None) == replace(ANOMALY, id="a3", value=0.0, baseline=None)
    assert reader.anomaly("nope") is None


def test_anomaly_resolved_leaves_the_open_ones(opened: Opened) -> None:
    """Pending and firing are open, oldest first; the same id again replaces."""
    pending = replace(ANOMALY, id="a0", state="pending", t_ns=4_000)
    opened.store.commit(Commit(anomalies=(ANOMALY, pending)))
    assert opened.again().open_anomalies() == [pending, ANOMALY]
    opened.store.commit(Commit(anomalies=(replace(ANOMALY, state="resolved", update_resolved=20, count=9),)))
    assert opened.store.open_anomalies() == [pending]


def test_anomalies_paged_by_cursor_come_each_once_newest_first(store: Store, reader: StoreReader) -> None:
    """Several share a time, and one fires between two pages."""
    made = [replace(ANOMALY, id=f"a{i:02d}", t_ns=5_000 + i // 4) for i in range(30)]
    store.commit(Commit(anomalies=tuple(made)))
    got: list[Anomaly] = []
    while page := reader.anomalies(AnomalyFilter(limit=7, cursor=(got[-1].t_ns, got[-1].id) if got else None)):
        got.extend(page)
        store.commit(Commit(anomalies=(replace(ANOMALY, id=f"new{len(got)}", t_ns=9_000),)))
    assert got == sorted(made, key=lambda a: (a.t_ns, a.id), reverse=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": math.nextafter(0.25, 1.0)},
        {"limit": math.nan},
        {"baseline": None},
        {"state": "resolved", "update_resolved": 20},
        {"sentence": 'Two\nlines, "quoted".'},
        {"attached": ()},
        {"tries": ("fewer epochs",)},
    ],
)
def test_anomalies_read_again_show_what_changed(store: Store, reader: StoreReader, changes: dict[str, object]) -> None:
    """Any field, by the least that it can change: nothing kept from the read before stands for the row of now."""
    old = replace(ANOMALY, id="a0", value=0.1 + 0.2, t_ns=4_000)
    store.commit(Commit(anomalies=(ANOMALY, old)))
    assert reader.anomalies(AnomalyFilter()) == [ANOMALY, old]
    changed = replace(ANOMALY, **changes)  # type: ignore[arg-type]
    store.commit(Commit(anomalies=(changed,)))
    assert repr(reader.anomalies(AnomalyFilter())) == repr([changed, old])
    assert repr(reader.anomalies(AnomalyFilter(limit=10**6))) == repr([changed, old])


def test_anomalies_unchanged_are_the_same_objects_again(store: Store, reader: StoreReader) -> None:
    """So that whoever describes them can keep the description, also of one whose numbers are NaN."""
    store.commit(Commit(anomalies=(replace(ANOMALY, value=math.nan), replace(ANOMALY, id="a0", t_ns=4_000))))
    first = reader.anomalies(AnomalyFilter())
    store.commit(Commit(anomalies=(replace(ANOMALY, value=math.nan, count=4),)))
    again = reader.anomalies(AnomalyFilter())
    assert [new is old for new, old in zip(again, first, strict=True)] == [False, True]
    assert [anomaly.count for anomaly in again] == [4, 3]


def test_decoded_anomalies_beyond_the_size_are_forgotten_oldest_first() -> None:
    """Least recently asked for, not least recently kept; a batch larger than the size does not stay."""
    kept = Decoded(2)
    kept.keep({"a": ANOMALY, "b": ANOMALY})
    kept.find(["a"])
    kept.keep({"c": ANOMALY})
    assert set(kept.find(["a", "b", "c"])) == {"a", "c"}
    kept.keep(dict.fromkeys("defg", ANOMALY))
    assert set(kept.find(list("abcdefg"))) == {"f", "g"}


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (AnomalyFilter(), ["d", "c", "b", "a"]),
        (AnomalyFilter(run="bee"), ["b"]),
        (AnomalyFilter(kind="entropy_low"), ["c"]),
        (AnomalyFilter(kind="gradient_drift"), ["d", "b"]),
        (AnomalyFilter(kind="gradient_drift", severity="critical"), ["d"]),
        (AnomalyFilter(kind="norm"), []),
        (AnomalyFilter(severity="critical"), ["d"]),
        (AnomalyFilter(state="resolved"), ["a"]),
        (AnomalyFilter(since_ns=3), ["d", "c"]),
        (AnomalyFilter(limit=1), ["d"]),
        (AnomalyFilter(since_ns=2**70), []),
        (AnomalyFilter(cursor=(2**70, "")), ["d", "c", "b", "a"]),
        (AnomalyFilter(run="ant-ppo", severity="warning", since_ns=2), ["c"]),
        (AnomalyFilter(run="nobody"), []),
    ],
)
def test_anomalies_filtered_gives_those_that_match(
    store: Store, reader: StoreReader, wanted: AnomalyFilter, ids: list[str]
) -> None:
    """Each filter alone, and together; a kind is also that of an attached finding, whose limit may be none."""
    drift = Attached("gradient_drift", "norm", Severity.WARNING, 4, 6, 0.7, math.nan)
    made = (
        replace(ANOMALY, id="a", state="resolved", t_ns=1),
        replace(ANOMALY, id="b", run="bee", t_ns=2, attached=(drift,)),
        replace(ANOMALY, id="c", kind="entropy_low", t_ns=3),
        replace(ANOMALY, id="d", severity=Severity.CRITICAL, t_ns=4, attached=(replace(drift, kind="kl_spike"), drift)),
    )
    store.commit(Commit(anomalies=made))
    assert [anomaly.id for anomaly in reader.anomalies(wanted)] == ids


def test_escalation_comes_back_equal_and_open_until_its_end(opened: Opened, reader: StoreReader) -> None:
    """Each open state is listed at start; an id belongs to its run."""
    states = list(EscalationState)
    made = [replace(ESCALATION, id=state.value, state=state, requested_ns=k) for k, state in enumerate(states)]
    opened.store.commit(Commit(escalations=(ESCALATION, *made)))
    open_ids = [state.value for state in states if state.open]
    assert [e.id for e in opened.again().open_escalations()] == [*open_ids, "e1"]
    assert opened.store.escalation("ant-ppo", "e1") == ESCALATION
    assert opened.store.escalation("bee", "e1") is None
    ended = replace(ESCALATION, state=EscalationState.ENDED, update_ended=18, ended_why="done")
    opened.store.commit(Commit(escalations=(ended,)))
    assert opened.store.escalation("ant-ppo", "e1") == ended
    assert reader.escalations("ant-ppo") == [ended, *made[::-1]]
    assert reader.escalations("bee") == []


def test_marks_are_the_events_that_detection_made_of_one_stream_oldest_first(store: Store) -> None:
    """Neither an agent's event of the same kind, nor another stream's, nor another kind of our own."""
    gap = EventRecord(STREAM, "s1", -1, 7, 70, "gap", "outbox full", {"records": 3, "rows": 8, "mark": 0})
    tick = EventRecord(STREAM, "", -1, 9, 90, "tick", "", {"rows": 10, "mark": 1})
    others = (
        replace(gap, seq=4),
        replace(tick, stream=Stream("ant-ppo", 2, 0)),
        EventRecord(STREAM, "", -1, 9, 90, "level", "to debug", {}),
    )
    store.commit(Commit(events=(gap, *others)))
    store.commit(Commit(events=(tick,)))
    assert store.marks(STREAM) == [gap, tick]
    assert store.marks(Stream("nobody", 1, 0)) == []


def test_events_come_back_equal_newest_first_and_each_once(store: Store, reader: StoreReader) -> None:
    """A record with a seq is kept once; those that the daemon makes (seq -1) are all kept; other runs are not mixed in."""
    made = [
        EventRecord(STREAM, "s1", 4, 7, 70, "exception", "Traceback…", {"nan": 1.5, "ok": False, "none": None}),
        EventRecord(Stream("ant-ppo", 2, 3), "s2", SEQ_MAX, 8, 80, "note", "", {}),
        EventRecord(STREAM, "", -1, 9, 90, "level", "to debug", {}),
        EventRecord(STREAM, "", -1, 9, 90, "level", "to debug", {}),
    ]
    store.commit(Commit(events=(*made, made[0], replace(made[0], stream=Stream("bee", 1, 0), session="s3"))))
    store.commit(Commit(events=(made[1],)))
    assert reader.events("ant-ppo", 10) == made[::-1]
    assert reader.events("ant-ppo", 2) == made[:1:-1]
    assert reader.events("nobody", 10) == []


def test_losses_are_listed_and_each_lost_record_counted_once(opened: Opened, reader: StoreReader) -> None:
    """A loss sent again or joined to a wider one is not counted twice; other runs and sessions are apart."""
    made = [
        LossRecord(STREAM, "s1", 0, 4, "outbox full"),
        LossRecord(STREAM, "s1", 10, 19, "device busy"),
        LossRecord(STREAM, "s1", 3, 11, "outbox full"),
        LossRecord(Stream("ant-ppo", 1, 1), "s2", SEQ_MAX - 1, SEQ_MAX, "outbox full"),
    ]
    opened.store.commit(Commit(losses=(*made, made[0], LossRecord(Stream("bee", 1, 0), "s3", 0, 99, "x"))))
    assert reader.losses("ant-ppo") == made
    assert opened.again().lost_count("ant-ppo") == 20 + 2
    assert opened.store.lost_count("bee") == 100
    assert opened.store.lost_count("nobody") == 0


def test_tables_come_back_equal_newest_first(store: Store, reader: StoreReader) -> None:
    """Values are bytes and stay so."""
    values = np.array([[1.0, np.nan], [np.inf, -0.0]]).tobytes()
    first = TableRecord(STREAM, "s1", 3, "layers", 9, ("l1", "l2"), ("norm", "max"), values)
    second = replace(first, seq=8, kind="episodes", index=(), names=("return",), values=b"")
    store.commit(Commit(tables=(first, second, first)))
    assert reader.tables("ant-ppo", 10) == [second, first]
    assert reader.tables("ant-ppo", 1) == [second]


def test_checkpoint_is_the_newest_of_its_stream(opened: Opened) -> None:
    """An older one is replaced."""
    other = Checkpoint(Stream("bee", 1, 0), 5, "rules-1", b"")
    opened.store.commit(Commit(checkpoints=(Checkpoint(STREAM, 255, "rules-1", b"old"), other)))
    newest = Checkpoint(STREAM, 511, "rules-2", b"\0new")
    opened.store.commit(Commit(checkpoints=(newest,)))
    assert opened.again().checkpoint(STREAM) == newest
    assert opened.store.checkpoint(other.stream) == other
    assert opened.store.checkpoint(Stream("nobody", 1, 0)) is None


def test_blocks_since_checkpoint_are_those_that_arrived_later_whatever_their_updates(opened: Opened) -> None:
    """A trainer that went back repeats updates below the checkpoint's; they were not in its state."""
    store = opened.store
    assert not list(store.blocks_since_checkpoint(STREAM))
    store.commit(Commit((make_block(range(200, 1000)),)))
    assert rows_of(store.blocks_since_checkpoint(STREAM)) == rows_of([make_block(range(200, 1000))])
    store.commit(Commit((make_block(range(1000, 1230)),), checkpoints=(Checkpoint(STREAM, 1229, "rules-1", b"s"),)))
    assert not list(store.blocks_since_checkpoint(STREAM))
    later = make_block([*range(900, 1000), 1229, 1230])
    store.commit(Commit((later,)))
    assert rows_of(store.blocks_since_checkpoint(STREAM)) == rows_of([later])
    assert store.compact() == 1
    assert rows_of(opened.again().blocks_since_checkpoint(STREAM)) == rows_of([later])


# What readers see


def test_signals_of_an_unknown_stream_is_empty(store: Store, reader: StoreReader) -> None:
    """Also for another rank of a known run."""
    fill(store, 3)
    assert reader.signals("ant-ppo", 1, 1) == []
    assert reader.signals("nobody", 1, 0) == []


def test_signals_says_last_value_status_and_counts_over_chunks_and_tail(store: Store, reader: StoreReader) -> None:
    """The last measured value outlives unmeasured rows; a signal never measured has none; non-finite is counted."""
    fill(store, 1100)
    values = np.array([[1, 2, np.nan], [5, 0, 0], [0, 0, 0]], np.float32)
    status = np.array([[0, 0, 0], [0, 2, 4], [1, 1, 2]], np.uint8)
    late = SignalKey("user", "late")
    store.commit(Commit((make_block([1100, 1101, 1102], signals=(*KEYS[:2], late), values=values, status=status),)))
    first, second, third, fourth = reader.signals(*STREAM)
    assert (first.key, first.update_last, first.status_last, first.measured, first.nonfinite) == (KEYS[0], 1102, 0, 1103, 1)
    assert first.value_last is not None
    assert math.isnan(first.value_last)
    assert (second.key, second.update_last, second.status_last, second.value_last) == (KEYS[1], 1100, 4, 5.0)
    assert (second.measured, second.nonfinite) == (1101, 0)
    assert (third.key, third.update_last, third.value_last, third.measured) == (KEYS[2], 1099, 1099.25, 1100)
    assert (fourth.key, fourth.update_last, fourth.status_last, fourth.value_last) == (late, 1102, 2, None)
    assert (fourth.measured, fourth.nonfinite) == (0, 0)


def test_signals_keeps_the_last_value_through_chunks_without_one(store: Store, reader: StoreReader) -> None:
    """Three chunks: measured, not measured, and a tail that is not."""
    missing = np.full((3, 1024), 2, np.uint8)
    store.commit(Commit((make_block(range(1024)), make_block(range(1024, 2048), status=missing))))
    assert store.compact() == 2
    store.commit(Commit((make_block([2048], status=missing[:, :1]),)))
    summary = reader.signals(*STREAM)[0]
    assert (summary.update_last, summary.status_last, summary.value_last, summary.measured) == (1023, 2, 1023.0, 1024)


def test_series_with_points_below_one_is_refused(reader: StoreReader) -> None:
    """There is no series without points."""
    with pytest.raises(GradwatchError) as refused:
        reader.series(STREAM, KEYS[0], None, None, 0)
    assert refused.value.code.slug == "invalid-argument"


def test_series_of_an_unknown_stream_or_signal_is_empty(store: Store, reader: StoreReader) -> None:
    """Not zero, not an error."""
    fill(store, 2)
    for stream, key in (
        (Stream("nobody", 1, 0), KEYS[0]),
        (STREAM, SignalKey("grad.norm.max")),
        (STREAM, SignalKey("user", "x")),
    ):
        got = reader.series(stream, key, None, None, 10)
        assert (len(got.update), got.rows, got.bucket, dict(got.unmeasured)) == (0, 0, 1, {})


def test_series_in_a_range_is_raw_across_chunk_and_tail(store: Store, reader: StoreReader) -> None:
    """Both ends belong to the range; every field of a row is there."""
    fill(store, 1500)
    block = make_block(range(1000, 1101))
    got = reader.series(STREAM, KEYS[1], 1000, 1100, 101)
    assert (got.bucket, got.rows) == (1, 101)
    for name in ("update", "t_ns", "env_steps"):
        assert getattr(got, name).tolist() == getattr(block, name).tolist()
    assert got.last.tolist() == got.low.tolist() == got.high.tolist() == block.values[1].tolist()
    assert got.measured.tolist() == [1] * 101


def test_series_of_a_signal_that_appears_late_starts_where_it_appears(store: Store, reader: StoreReader) -> None:
    """In the middle of a roll-up entry, whose own first row does not have it."""
    store.commit(Commit((make_block(range(100), signals=KEYS[:1]), make_block(range(100, 5000)))))
    while store.compact():
        pass
    got = reader.series(STREAM, KEYS[1], None, None, 10)
    assert (int(got.update[0]), got.rows, got.bucket, int(got.measured[0])) == (100, 4900, 512, 412)


def test_series_bounds_beyond_any_update_are_no_bounds(store: Store, reader: StoreReader) -> None:
    """A number that no int64 holds comes from a query string."""
    fill(store, 5)
    assert reader.series(STREAM, KEYS[0], -(2**70), 2**70, 10).rows == 5
    assert reader.series(STREAM, KEYS[0], 2**70, None, 10).rows == 0
    assert reader.series(STREAM, KEYS[0], None, -(2**70), 10).rows == 0


def test_reader_closed_refuses(store: Store) -> None:
    """Rather than to open a new connection."""
    reading = store.reader()
    assert reading.signals(*STREAM) == []
    reading.close()
    reading.close()
    with pytest.raises(GradwatchError) as refused:
        reading.signals(*STREAM)
    assert refused.value.code.slug == "not-ready"


def test_store_closed_refuses_commits(opened: Opened) -> None:
    """Closing again is harmless."""
    opened.store.close()
    opened.store.close()
    with pytest.raises(GradwatchError) as refused:
        opened.store.commit(everything())
    assert refused.value.code.slug == "not-ready"
