"""A replay finds bit for bit what live found, and says what it could not see; comparisons; damage."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from gradwatch_daemon.records import Stream
from gradwatch_daemon.records.replayed import Difference, Window
from gradwatch_daemon.replay.compare import alike, compare
from gradwatch_daemon.replay.run import check_size, compare_profiles, compare_with_live, replay_run
from gradwatch_daemon.replay.stream import replay
from gradwatch_daemon.store.protocol import Keep
from gradwatch_daemon.store.recording import RecordingReader
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.blocks import STREAM, signal_block
from harness.replays import clock, whole
from harness.rows import BROKEN, FULL, RowMaker, hello
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


NAN = float("nan")


SPIKED = {"policy.kl.k3": (1024.0, 0.9, 2.0), "policy.ratio.max": (40.0,)}

FLAT = {"policy.entropy": (1024.0, 0.01, 1.0)}


def faulty(world: World, seed: int = 0) -> None:
    """Two attempts: noise, spikes, NaN, a loss in the middle of a tick, a stall, a restart of the daemon, repeated and earlier
    updates, and an end with records unsent."""
    chance = random.Random(seed)

    def noisy(n: int, **changed: tuple[float, ...]) -> list[m.Message]:
        return [
            world.rows.samples(1, changed={"policy.kl.k3": (1024.0, 0.004 * chance.uniform(0.5, 2.0), 0.02), **changed})
            for _ in range(n)
        ]

    world.greet()
    world.tick(*noisy(90))
    world.tick(*noisy(3, **SPIKED), *noisy(40))
    first = world.rows.seq
    world.rows.seq += 5
    world.tick(*noisy(4), m.Loss(first, first + 4, "outbox full"))  # out of order: the gate asks again
    world.rows.seq, world.rows.update = first, world.rows.update - 4
    messages = noisy(4)
    lost = world.rows.seq
    world.rows.seq += 6
    world.tick(*messages, m.Loss(lost, lost + 5, "outbox full"), *noisy(6), *noisy(2, **BROKEN))
    for _ in range(30):
        world.now_s += 1.0
        world.tick(m.Ping(0))
    world.restart()
    world.greet()
    world.tick(*noisy(300))
    world.rows.update -= 50
    world.tick(*noisy(20), *noisy(30, **FLAT))
    world.tick(m.Bye(world.rows.seq + 3, "exception"))
    world.rows = RowMaker(t_ns=world.rows.t_ns + 10**12)
    world.greet(session="s2")
    world.tick(*noisy(40), *noisy(3, **BROKEN), *noisy(7))


@pytest.fixture
def reader(tmp_path: Path, world: World) -> Iterator[RecordingReader]:
    """A replay's view of the same directory, while the daemon has it."""
    reader = RecordingReader(tmp_path)
    yield reader
    reader.close()


@pytest.mark.parametrize("profile", PROFILES)
def test_replay_of_a_faulty_run_finds_bit_for_bit_what_live_found(tmp_path: Path, profile: str) -> None:
    """Ids, onsets, counts, numbers, sentences, states, and where every detector stands; beside the daemon that recorded it."""
    world = World(tmp_path, profile=profile)
    faulty(world)
    reader = RecordingReader(tmp_path)
    recording = reader.recording("ant-ppo")
    found = compare_with_live(whole(reader, "ant-ppo", profile), recording)
    assert found.difference is not None
    assert not found.difference, found.difference
    assert found.difference.same == len(recording.anomalies) > 4
    assert {mark.kind for recorded in recording.streams for mark in recorded.marks} == {"gap", "tick"}
    told = {a.kind for a in found.anomalies} | {f.kind for a in found.anomalies for f in a.attached}
    assert told >= {"nonfinite", "telemetry_gap", "stall"}
    assert found.streams[-1].detectors == world.view().detectors  # type: ignore[attr-defined]
    assert [(s.stream.attempt, s.backward > 0) for s in found.streams] == [(1, True), (2, False)]
    assert any("records were lost" in why for why in found.inconclusive)
    reader.close()
    world.close()


def test_replay_of_compacted_rows_equals_that_of_tails(tmp_path: Path) -> None:
    """Chunks of 1,024 rows and single tails are read back as the same stream."""
    world = World(tmp_path)
    world.greet()
    for _ in range(30):
        world.tick(world.rows.samples(99), world.rows.samples(1, changed=SPIKED))
    reader = RecordingReader(tmp_path)
    found = compare_with_live(whole(reader, "ant-ppo"), reader.recording("ant-ppo"))
    assert found.rows == 3000
    assert found.difference is not None
    assert not found.difference
    assert found.difference.same > 0
    assert reader.blocks(reader.recording("ant-ppo").streams[0])
    reader.close()
    world.close()


def test_replay_of_any_split_is_the_same(world: World, reader: RecordingReader) -> None:
    """A bulk read hands over blocks that live never saw."""
    faulty(world)
    recording = reader.recording("ant-ppo")
    recorded = recording.streams[0]
    bulk = list(reader.blocks(recorded))
    single = [block.select(slice(row, row + 1)) for block in bulk for row in range(len(block))]
    profile = load_profile("default")
    ways = [replay(recorded.stream, blocks, profile, marks=recorded.marks) for blocks in (bulk, single)]
    assert repr(ways[0]) == repr(ways[1])


def test_replay_of_two_ranks_is_that_of_the_rows_they_were_judged_by(world: World, reader: RecordingReader) -> None:
    """Each rank's rows are stored too, and count for nothing here; a loss of one rank is a mark of the whole."""
    ranks = {b"p": RowMaker(), b"q": RowMaker()}
    for rank, peer in enumerate(ranks):
        world.tick(hello(session=f"s{rank}", rank=rank, world=2, launch_id="l"), peer=peer)
        world.tick(m.SchemaMessage(FULL.columns), peer=peer)
    for step in range(60):
        for peer, maker in ranks.items():
            world.tick(maker.samples(1, changed=BROKEN if (step, peer) == (50, b"q") else None), peer=peer)
    world.tick(m.Loss(60, 69, "outbox full"), peer=b"q")
    recording = reader.recording("ant-ppo")
    found = compare_with_live(whole(reader, "ant-ppo"), recording)
    assert (len(found.streams), found.rows) == (1, 60)
    assert found.difference is not None
    assert not found.difference, found.difference
    told = {a.kind for a in found.anomalies} | {f.kind for a in found.anomalies for f in a.attached}
    assert told >= {"nonfinite", "telemetry_gap"}
    assert found.streams[0].detectors == world.view().detectors  # type: ignore[attr-defined]


def test_replay_of_a_run_that_grows_sees_one_moment(world: World, reader: RecordingReader) -> None:
    """Rows that come while it reads belong to the next replay."""
    world.greet()
    world.tick(world.rows.samples(20))
    recording = reader.recording("ant-ppo")
    rows = reader.blocks(recording.streams[0])
    world.tick(world.rows.samples(20))
    assert sum(len(block) for block in rows) == 20


def test_diff_against_other_rules_names_new_lost_and_moved(world: World, reader: RecordingReader) -> None:
    """A stricter threshold finds more, and some of it earlier."""
    world.greet()
    slow = [(1024.0, 0.05 * step, 0.02) for step in range(1, 16)]
    world.tick(world.rows.samples(60))
    world.tick(*(world.rows.samples(1, changed={"policy.kl.k3": kl}) for kl in slow))
    recording = reader.recording("ant-ppo")
    plain = replay_run(recording, reader.blocks, load_profile("classic"), clock=clock)

    def under(**thresholds: dict[str, float]) -> Difference:
        rules = load_profile("classic", thresholds)
        found = compare_profiles(replay_run(recording, reader.blocks, rules, clock=clock), plain)
        assert found.difference is not None
        return found.difference

    more = under(ratio_explosion={"max": 1.2})
    assert (more.against, more.new[0].kind) == ("classic", "ratio_explosion")
    (moved,) = [pair for pair in under(kl_spike={"k3": 0.3}).moved if pair.after.kind == "kl_spike"]
    assert moved.after.update_onset == moved.before.update_onset + 4
    less = under(kl_spike={"k3": 9.0}, kl_extreme={"k3": 9.0})
    assert (less.new, {a.kind for a in less.lost}) == ((), {"kl_spike"})


def test_diff_of_equal_onsets_with_another_count_is_changed_and_nan_is_nan() -> None:
    """NaN is not equal to itself, and must not look like a change."""
    found = replay(STREAM, [signal_block(40), signal_block(3, start=40, loss__total=NAN)], load_profile("default")).anomalies
    (anomaly,) = found
    assert anomaly.value != anomaly.value
    assert compare("x", found, found).same == 1
    assert alike(anomaly, replace(anomaly, rules_hash="other"))
    changed = compare("x", found, [replace(anomaly, count=anomaly.count + 1)])
    assert (len(changed.changed), changed.same, bool(changed)) == (1, 0, True)


def test_live_record_of_other_rules_is_said(world: World, reader: RecordingReader) -> None:
    """A difference may be one of rules and not of data."""
    faulty(world)
    found = compare_with_live(whole(reader, "ant-ppo", "classic"), reader.recording("ant-ppo"))
    assert any("other rules" in note for note in found.notes)


def test_window_replays_its_updates_only_and_says_what_it_did_not_see(world: World, reader: RecordingReader) -> None:
    """Both bounds belong to it."""
    world.greet()
    world.tick(world.rows.samples(30), m.Loss(30, 31, "outbox full"))
    world.rows.seq = 32
    world.tick(world.rows.samples(70))
    found = whole(reader, "ant-ppo", window=Window(40, 59))
    (stream,) = found.streams
    assert (stream.update_first, stream.update_last, stream.rows, stream.unseen) == (40, 59, 20, 40)
    assert not [a for a in found.anomalies if a.kind == "telemetry_gap"]
    assert any("40 rows before update 40" in note for note in found.notes)
    earlier = whole(reader, "ant-ppo", window=Window(10, 29))
    assert [a.kind for a in earlier.anomalies if a.kind == "telemetry_gap"]
    assert whole(reader, "ant-ppo", window=Window(20, 99)).streams[0].rows == 80


def test_window_beyond_the_run_is_inconclusive(world: World, reader: RecordingReader) -> None:
    """No rows, no verdict."""
    world.greet()
    world.tick(world.rows.samples(30))
    found = whole(reader, "ant-ppo", window=Window(1000, None))
    assert (found.rows, found.inconclusive) == (0, ("there are no rows to replay",))


def test_rows_no_longer_stored_are_said_and_inconclusive(tmp_path: Path) -> None:
    """Live learned from rows that retention has since taken away."""
    world = World(tmp_path)
    world.greet()
    for _ in range(30):
        world.tick(world.rows.samples(100))
    world.close()
    store = SqliteStore.open(tmp_path)
    assert store.thin(Keep(bytes_max=1), 0) == {Stream("ant-ppo", 1, 0): 2048}
    store.close()
    reader = RecordingReader(tmp_path)
    found = whole(reader, "ant-ppo")
    reader.close()
    assert found.rows == 3000 - 2048
    assert found.streams[0].update_first == 2048
    assert any("2048 rows are no longer stored" in why for why in found.inconclusive)


def test_run_above_the_limit_is_refused(world: World, reader: RecordingReader) -> None:
    """A preview is bounded."""
    world.greet()
    world.tick(world.rows.samples(30))
    recording = reader.recording("ant-ppo")
    check_size(recording, 30)
    with pytest.raises(GradwatchError, match="at most 29 stored updates, got 30"):
        check_size(recording, 29)


def test_unknown_run_names_the_nearest(world: World, reader: RecordingReader) -> None:
    """A typo is no empty run."""
    world.greet()
    with pytest.raises(GradwatchError, match=r"Did you mean ant-ppo\?"):
        reader.recording("ant-pp")
