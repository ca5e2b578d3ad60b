"""One session cannot take a tick for itself, and a tick costs no more with many sessions than it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_daemon.ingest.socket import IngestSocket
from gradwatch_daemon.ingest.turns import WAITING_BYTES_MAX, Turns
from gradwatch_daemon.pipeline import pipeline as pipeline_module
from gradwatch_daemon.pipeline.detection import BROUGHT_BACK_MAX
from gradwatch_daemon.pipeline.pipeline import SWEEP_S, SWEPT_EACH_TICK
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
    turns, frame = Turns(), b"x" * (WAITING_BYTES_MAX // 4)
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
