"""One session cannot take a tick for itself, and a tick costs no more with many sessions than it must."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import zmq
from hypothesis import given
from hypothesis import strategies as st

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_daemon.ingest.session import LiveSession, Sessions
from gradwatch_daemon.ingest.socket import IngestSocket
from gradwatch_daemon.ingest.turns import FRAME_COST_BYTES, WAITING_BYTES_MAX, Turns
from gradwatch_daemon.pipeline import pipeline as pipeline_module
from gradwatch_daemon.pipeline.detection import BROUGHT_BACK_MAX
from gradwatch_daemon.pipeline.pipeline import SWEEP_S, SWEPT_EACH_TICK
from gradwatch_daemon.records import Stream
from harness.rows import FULL, RowMaker, hello
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_receive_takes_turns_and_stops_at_its_bytes(tmp_path: Path) -> None:
    """Behind a hundred large frames of one peer, the small frame of another is in the first or second lot."""
    endpoint = f"ipc://{tmp_path / 'i.ipc'}"
    context = zmq.Context()
    with IngestSocket(endpoint) as socket:
        loud, quiet = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
        for peer in (loud, quiet):
            peer.setsockopt(zmq.LINGER, 0)
            peer.connect(endpoint)
        for _ in range(100):
            loud.send(b"x" * 100_000)
        first = socket.receive(5_000, 512, 300_000)
        quiet.send(b"y")
        lots = [first]
        while not any(frame == b"y" for lot in lots for _, frame in lot):
            assert len(lots) < 60
            lots.append(socket.receive(1_000, 512, 300_000))
        left = 100 - sum(frame != b"y" for lot in lots for _, frame in lot)
        assert all(len(lot) <= 4 for lot in lots)
        assert left > 0, "the small frame waited for all the large ones"
        loud.close()
        quiet.close()
    context.term()


def test_turns_of_a_loud_and_of_quiet_peers_give_the_quiet_all_they_have() -> None:
    """By bytes: a large frame counts as many small ones; order within a peer is kept; the loud one gets what is left."""
    turns = Turns()
    for number in range(20):
        turns.put(b"loud", b"%02d" % number + b"x" * 998)
    for peer in (b"a", b"b"):
        for number in range(10):
            turns.put(peer, b"%d" % number)
    taken = turns.take(100, 3_000)
    assert [frame for peer, frame in taken if peer == b"a"] == [b"%d" % number for number in range(10)]
    assert [frame for peer, frame in taken if peer == b"b"] == [b"%d" % number for number in range(10)]
    assert [frame[:2] for peer, frame in taken if peer == b"loud"] == [b"00", b"01", b"02"]
    assert turns
    rest = [frame[:2] for _, frame in turns.take(100, 10**6)]
    assert rest == [b"%02d" % number for number in range(3, 20)]
    assert not turns


def test_turns_bound_what_waits_of_one_peer_and_not_of_the_others() -> None:
    """Beyond the bytes of a window frames are dropped and counted; room that was taken is there again."""
    turns, frame = Turns(), b"x" * (WAITING_BYTES_MAX // 4 - FRAME_COST_BYTES)
    for _ in range(6):
        turns.put(b"loud", frame)
    turns.put(b"quiet", frame)
    assert turns.dropped == 2
    assert len(turns.take(2, 10**9)) == 2
    turns.put(b"loud", frame)
    assert turns.dropped == 2
    assert len(turns.take(100, 10**9)) == 4


def test_turns_of_frames_without_a_byte_end() -> None:
    """A peer may send empty ones for ever: a call still takes a bounded number."""
    turns = Turns()
    for _ in range(50):
        turns.put(b"p", b"")
    assert len(turns.take(20, 1000)) == 20
    assert len(turns.take(100, 1000)) == 30


def test_turns_charge_what_a_frame_costs_to_keep() -> None:
    """Frames of two bytes, or of none, held 30 times the memory that their bytes said."""
    turns = Turns()
    for _ in range(WAITING_BYTES_MAX // FRAME_COST_BYTES + 10):
        turns.put(b"p", b"")
    assert turns.dropped == 10
    turns.take(10, 10**9)
    turns.put(b"p", b"")
    assert turns.dropped == 10


def test_hello_of_any_size_is_refused_and_keeps_nothing(tmp_path: Path) -> None:
    """Agents keep to the bound by themselves; a foreign client would fill memory and store for good."""
    world = World(tmp_path)
    world.tick(replace(hello("greedy"), config={"a": "x" * 60_000, "b": "x" * 60_000}))

    (refusal,) = world.socket.of(m.Refuse)
    assert isinstance(refusal, m.Refuse)
    assert (refusal.code, "HELLO.config" in refusal.detail) == ("invalid-argument", True)
    assert not world.pipeline.snapshots
    world.close()


def test_sessions_of_one_connection_are_bounded(tmp_path: Path) -> None:
    """Each holds memory and a place in every tick; who greets again, or another connection, is not kept out."""
    world = World(tmp_path)
    most = limits.SESSIONS_OF_PEER_MAX
    for number in range(most + 1):
        world.tick(hello("many", f"s{number}"), peer=b"p")
    world.tick(hello("many", "s0"), peer=b"p")

    (refusal,) = world.socket.of(m.Refuse)
    assert isinstance(refusal, m.Refuse)
    assert f"at most {most} of one connection" in refusal.detail
    world.tick(hello("many", f"s{most}"), peer=b"q")
    assert len(world.pipeline._sessions.by_id) == most + 1
    assert len(world.socket.of(m.Refuse)) == 1
    world.close()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 2), st.booleans()), max_size=40))
def test_sessions_found_by_attempt_are_those_of_a_look_at_all(steps: list[tuple[int, int, int, bool]]) -> None:
    """Whatever opens, comes back by another connection or attempt, and closes."""
    sessions, opened = Sessions(), []
    for id_, peer, attempt, closes in steps:
        if closes and opened:
            sessions.close(opened[id_ % len(opened)])
        else:
            greeting = hello("r", f"s{id_}")
            opened.append(LiveSession(f"s{id_}", b"%d" % peer, Stream("r", attempt, 0), greeting, -1, -1, 0.0))
            sessions.open(opened[-1])
        for number in (1, 2):
            all_of = {s.id for s in sessions.by_id.values() if s.stream.attempt == number}
            assert {s.id for s in sessions.of_attempt("r", number)} == all_of
            assert sessions.count("r", number) == len(all_of)
        held = Counter(session.peer for session in sessions.by_id.values())
        assert sessions._held == dict(held)


def test_daemon_with_many_sessions_looks_at_all_of_them_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tick looked at all, a thousand trainers would cost a tick a tenth of a second; silence is still noticed."""
    world = World(tmp_path)
    looks: list[float] = []
    monkeypatch.setattr(world.pipeline._detection, "watch_pace", lambda _, now: looks.append(now.mono_s))
    for number in range(SWEPT_EACH_TICK + 1):
        world.tick(hello(f"run-{number}", f"s{number}"), peer=b"%d" % number)
    looks.clear()
    world.now_s += SWEEP_S
    for _ in range(20):
        world.tick()
    assert len(looks) == 1
    world.now_s += limits.HEARTBEAT_S * (limits.HEARTBEATS_MISSED_MAX + 1)
    world.tick()
    assert len(looks) == 2
    assert world.view("run-0").run.state == "lost"
    world.close()


def test_receive_with_more_than_a_tick_takes_names_who_waits(tmp_path: Path) -> None:
    """So that nobody counts as silent whose frames have arrived."""
    endpoint = f"ipc://{tmp_path / 'i.ipc'}"
    context = zmq.Context()
    with IngestSocket(endpoint) as socket:
        peer = context.socket(zmq.DEALER)
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(endpoint)
        peer.send(b"a")
        (first,) = socket.receive(5_000, 512)
        assert socket.waiting == ()
        for frame in (b"b", b"c"):
            peer.send(frame)
        taken: list[tuple[bytes, bytes]] = []
        while len(taken) < 1:
            taken += socket.receive(5_000, 1)
        while not socket.waiting:
            socket.receive(5_000, 0)
        assert socket.waiting == (first[0],)
        assert socket.receive(0, 1) == [(first[0], b"c")]
        assert socket.waiting == ()
        peer.close()
    context.term()


def test_daemon_behind_with_the_frames_of_a_trainer_does_not_call_it_lost(tmp_path: Path) -> None:
    """What has arrived was heard, though it is not read yet; without it the trainer is lost."""
    world = World(tmp_path)
    world.greet()
    world.now_s += limits.HEARTBEAT_S * (limits.HEARTBEATS_MISSED_MAX + 1)
    world.pipeline.tick([], [b"p"])
    assert world.view().live
    world.now_s += limits.HEARTBEAT_S * (limits.HEARTBEATS_MISSED_MAX + 1)
    world.pipeline.tick([])
    assert not world.view().live
    world.close()


def test_daemon_to_which_many_come_back_brings_their_detectors_back_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart hundreds greet in one tick, and none is welcome before its end."""
    monkeypatch.setattr(pipeline_module, "RESTORED_RUNS_MAX", 0)
    many = BROUGHT_BACK_MAX + 2
    world = World(tmp_path)
    for number in range(many):
        world.tick(hello(f"run-{number}", f"s{number}"), peer=b"%d" % number)
        world.tick(m.SchemaMessage(FULL.columns), RowMaker().samples(), peer=b"%d" % number)
    world.restart()
    counts = []
    for number in range(many):
        world.tick(hello(f"run-{number}", f"s{number}"), peer=b"%d" % number)
    for _ in range(3):
        counts.append(len(world.pipeline._detection._streams))
        world.now_s += 1.5
        world.tick()
    world.close()

    assert counts == [0, BROUGHT_BACK_MAX, many]
