"""Suite of every store, 2: what a batch carries besides rows comes back equal, in its order, once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts.control import ControlState, Severity
from gradwatch_daemon.records import Attached, Commit, EventRecord, LossRecord, Session, Stream, TableRecord
from gradwatch_daemon.records.attention import Acknowledgement, Attention, Silence
from gradwatch_daemon.records.notices import Delivery
from gradwatch_daemon.store.protocol import AnomalyFilter
from harness.signal_blocks import STREAM
from harness.stores import ANOMALY, COMMAND, ESCALATION, RUN, SEQ_MAX, everything

if TYPE_CHECKING:
    from gradwatch_daemon.records import Anomaly
    from gradwatch_daemon.store.protocol import Store, StoreReader
    from harness.stores import Opened


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


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (AnomalyFilter(), ["d", "c", "b", "a"]),
        (AnomalyFilter(run="bee"), ["b"]),
        (AnomalyFilter(among=("bee", "no-run")), ["b"]),
        (AnomalyFilter(among=()), []),
        (AnomalyFilter(apart=("bee",)), ["d", "c", "a"]),
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


def test_command_comes_back_equal_and_open_until_its_end(opened: Opened, reader: StoreReader) -> None:
    """Every field, each rank's word too; open in order of the requests; the newest of an id wins."""
    made = [replace(COMMAND, id=f"c-{state.value}", state=state, requested_ns=i) for i, state in enumerate(ControlState)]
    opened.store.commit(Commit(commands=(COMMAND, *made)))
    open_ids = [f"c-{state.value}" for state in ControlState if state.open]
    assert [c.id for c in opened.again().open_commands()] == [*open_ids, "c1"]
    assert opened.store.command("ant-ppo", "c1") == COMMAND
    assert opened.store.command("bee", "c1") is None
    ended = replace(COMMAND, state=ControlState.ENDED, update_ended=9, ended_why="done", rank=None)
    opened.store.commit(Commit(commands=(ended,)))
    assert opened.store.command("ant-ppo", "c1") == ended
    assert reader.command("ant-ppo", "c1") == ended
    assert reader.command("bee", "c1") is None
    assert reader.commands("ant-ppo") == [ended, *made[::-1]]
    assert reader.commands("bee") == []


def test_escalation_comes_back_equal_and_open_until_its_end(opened: Opened, reader: StoreReader) -> None:
    """Each open state is listed at start; an id belongs to its run."""
    states = list(ControlState)
    made = [replace(ESCALATION, id=state.value, state=state, requested_ns=k) for k, state in enumerate(states)]
    opened.store.commit(Commit(escalations=(ESCALATION, *made)))
    open_ids = [state.value for state in states if state.open]
    assert [e.id for e in opened.again().open_escalations()] == [*open_ids, "e1"]
    assert opened.store.escalation("ant-ppo", "e1") == ESCALATION
    assert opened.store.escalation("bee", "e1") is None
    ended = replace(ESCALATION, state=ControlState.ENDED, update_ended=18, ended_why="done")
    opened.store.commit(Commit(escalations=(ended,)))
    assert opened.store.escalation("ant-ppo", "e1") == ended
    assert reader.escalation("ant-ppo", "e1") == ended
    assert reader.escalation("bee", "e1") is None
    assert reader.escalations("ant-ppo") == [ended, *made[::-1]]
    assert reader.escalations("bee") == []


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


def test_events_of_one_kind_are_found_among_any_number_and_only_the_daemons_own_shadows_count(
    opened: Opened, reader: StoreReader
) -> None:
    """A trainer may send events of any kind; those that the daemon made have no seq."""
    shadow = EventRecord(STREAM, "", -1, 3, 5, "shadow", "would have", {"verb": "stop", "anomaly": "a1"})
    forged = replace(shadow, session="s", seq=1, detail={"verb": "stop", "odd": math.nan})
    noise = [replace(shadow, kind="tick", detail={}) for _ in range(1_200)]
    pause = EventRecord(STREAM, "s", 2, 3, 5, "phase", "", {"phase": "eval", "n": 1, "over": True, "seconds": 7.5})
    elsewhere = replace(shadow, stream=STREAM._replace(run="other"))
    other_verb = replace(shadow, detail={"verb": "checkpoint", "anomaly": "a1"})
    opened.store.commit(Commit(events=(shadow, other_verb, forged, pause, *noise, shadow, elsewhere)))
    assert reader.shadows(STREAM.run) == {"stop": 2, "checkpoint": 1}
    assert reader.shadows("nobody") == {}
    assert opened.again().pauses() == [pause]


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


def test_tables_of_a_kind_are_found_by_their_updates(store: Store, reader: StoreReader) -> None:
    """Of another kind, stream or update is not meant; a table sent again for an update replaces the one before it."""
    first = TableRecord(STREAM, "s1", 3, "layers", 9, ("l1",), ("norm",), b"\1" * 8)
    again, later = replace(first, seq=5, values=b"\2" * 8), replace(first, seq=7, update=12)
    others = (
        replace(first, seq=8, kind="episodes", update=9),
        replace(first, seq=9, stream=Stream("ant-ppo", 1, 1), update=10),
    )
    store.commit(Commit(tables=(later, first, again, *others)))
    assert reader.table_updates(STREAM, "layers") == [9, 12]
    assert reader.tables_at(STREAM, "layers", [9, 10, 11, 12]) == [again, later]
    assert reader.tables_at(STREAM, "layers", []) == []
    assert reader.tables_between(STREAM, "layers", 9, 12, 9) == [later, first, again]
    assert reader.tables_between(STREAM, "layers", 0, 11, 1) == [again]
    nobody = Stream("nobody", 1, 0)
    assert reader.tables_between(nobody, "layers", 9, 12, 9) == []
    assert reader.table_updates(nobody, "layers") == reader.tables_at(nobody, "layers", [9]) == []


def test_attention_and_silences_come_back_as_they_were_and_the_newest_wins(opened: Opened, reader: StoreReader) -> None:
    """Every field, with and without an acknowledgement; an upsert by key; unknown ids are left out, not empty."""
    seen = Attention("a1", Acknowledgement("owner", 7, "seed 3 ☂"), "s1")
    muted = Attention("a2", None, "s1")
    old = Silence("s0", None, None, "", "all of it", "owner", 1, 2, 2, 4)
    new = Silence("s1", "ant-ppo", "kl_spike", None, "new clip", "grafana", 3, 2**62, None, 1)
    opened.store.commit(Commit(attention=(replace(seen, acknowledged=None), muted), silences=(replace(new, muted=0), old)))
    opened.store.commit(Commit(attention=(seen,), silences=(new,)))
    for source in (opened.again(), reader):
        assert dict(source.attention(["a1", "a2", "a3"])) == {"a1": seen, "a2": muted}
        assert list(source.silences()) == [new, old]
        assert dict(source.attention([])) == {}
    assert opened.store.silence("s1") == new
    assert opened.store.silence("s9") is None
    assert opened.store.anomaly("a1") is None
    opened.store.commit(Commit(anomalies=(ANOMALY,)))
    assert opened.store.anomaly("a1") == ANOMALY


def test_deliveries_are_kept_newest_first_and_counted(opened: Opened, reader: StoreReader) -> None:
    """Every field; an upsert by id."""
    first = Delivery("01", "ops", "a1", "firing", "warning", "ant-ppo", 5, "{}", "pending", 2, 6, "503 ☂", "")
    second = replace(first, id="02", state="muted", silence="s1")
    opened.store.commit(Commit(deliveries=(first, second)))
    opened.store.commit(Commit(deliveries=(replace(first, state="delivered"),)))
    for source in (opened.again(), reader):
        assert list(source.deliveries()) == [second, replace(first, state="delivered")]
    assert reader.delivery_counts() == {("ops", "delivered"): 1, ("ops", "muted"): 1}
