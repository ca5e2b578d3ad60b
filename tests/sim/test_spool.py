"""Trainers with a spool on a disk that fails, killed or ended before a daemon took what they had, and attempts that deliver it:
each record is committed once or covered by a LOSS, whatever happens."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gradwatch_agent.session import State
from gradwatch_agent.spool.disk import SPOOL_FULL
from gradwatch_agent.spool.spilling import RETRY_S
from gradwatch_contracts import limits
from gradwatch_daemon.detect.catalogue import load_profile
from harness.simulation import KL_BREACH
from harness.spool_simulation import SpoolWorld
from harness.spools import told
from sim.test_faults import bounded, longer

PROFILE = load_profile("classic")
SEGMENT_BYTES = 12_000
ATTEMPTS_MAX = 4


class SpooledFaults(RuleBasedStateMachine):
    """One run of several attempts."""

    @initialize(outbox=st.sampled_from([20_000, 60_000]), room=st.sampled_from([50_000, 400_000]))
    def begin(self, outbox: int, room: int) -> None:
        self._segment_bytes, limits.SPOOL_SEGMENT_BYTES = limits.SPOOL_SEGMENT_BYTES, SEGMENT_BYTES
        self.world = SpoolWorld(PROFILE, outbox, room)

    @rule(number=st.integers(0, 2**32))
    def train(self, number: int) -> None:
        """Updates while links are cut, frames are lost and said twice, the daemon goes away, comes back and is killed, the disk
        fails, and the trainer ends. A number stands for all of it, or most plans are too short to meet anything."""
        world, chance = self.world, random.Random(number)
        for _ in range(chance.randint(4, 16)):
            for _ in range(chance.randint(0, 12)):
                world.trainer.step(KL_BREACH if chance.random() < 0.2 else None)
            if chance.random() < 0.3:
                world.trainer.note()
            self._meet(
                chance.choice(["none"] * 6 + ["cut", "kill", "drop", "repeat", "away", "away", "back", "disk", "end"]), chance
            )
            world.turn(chance.choice([0.1, 0.3, 1.0, 2.0]), chance.choice([64, 64, 3]))

    def _meet(self, fault: str, chance: random.Random) -> None:
        world = self.world
        if fault == "end" and len(world.trainers) < ATTEMPTS_MAX:
            world.end_trainer(politely=chance.random() < 0.5, torn=chance.random())
            world.start_trainer()
        elif fault == "disk":
            world.trainer.files.failing = not world.trainer.files.failing
        elif fault in ("away", "kill", "back"):
            world.open_daemon()
            world.away = fault == "away"
        for party in world.parties:
            down = party.link.down
            if fault == "cut":
                party.link.cut()
            elif fault == "drop" and down:
                del down[chance.randrange(len(down))]
            elif fault == "repeat" and down:
                down.append(chance.choice(down))

    @rule(seconds=st.sampled_from([limits.SPOOL_AFTER_S + 0.1, RETRY_S, 70.0]))
    def wait(self, seconds: float) -> None:
        for _ in range(4):
            self.world.turn(seconds / 4)

    @invariant()
    def nothing_is_kept_twice_or_out_of_order(self) -> None:
        for updates in self.world.stored_updates().values():
            assert all(one < two for one, two in itertools.pairwise(updates))

    @invariant()
    def disks_say_of_each_record_once_what_became_of_it(self) -> None:
        for trainer in self.world.trainers:
            told(message for segment in trainer.files.segments() for message in segment.messages)

    @invariant()
    def thinning_keeps_what_stands_out(self) -> None:
        for trainer in self.world.trainers:
            assert not trainer.files.flattened

    @invariant()
    def nothing_is_both_kept_and_lost(self) -> None:
        for trainer in self.world.trainers:
            stream, lost = self.world.stream_of(trainer.name), self.world.lost_seqs(trainer.name)
            assert not lost or max(lost.values()) == 1
            if stream is not None:
                kept = [trainer.updates[update] for update in self.world.stored_updates().get(stream.attempt, [])]
                assert not lost.keys() & set(kept)

    def teardown(self) -> None:
        world = self.world
        settled = world.settle()
        limits.SPOOL_SEGMENT_BYTES = self._segment_bytes
        assert settled, [(party.link.name, party.session.state) for party in world.parties]
        assert all(party.session.state is State.CLOSED for party in world.parties)
        event(f"{world.delivered} spools delivered")
        event("a spool was full" if any(loss.reason == SPOOL_FULL for loss in world.memory.losses) else "no spool was full")
        for trainer in world.trainers:
            self._check(trainer.name)
            assert not trainer.files.segments(), f"the disk of {trainer.name} keeps what was acked"
        assert sum(map(len, world.stored_updates().values())) == world.pipeline.snapshots["ant-ppo"].rows

    def _check(self, name: str) -> None:
        """Each record up to what was promised is there, or told to be lost, and not both."""
        trainer = next(one for one in self.world.trainers if one.name == name)
        stream, lost = self.world.stream_of(name), self.world.lost_seqs(name)
        assert trainer.promised < 0 or stream is not None, f"nothing of {name} arrived"
        kept = {noted.seq for noted in self.world.memory.events if noted.session == name and noted.seq >= 0}
        if stream is not None:
            kept |= {trainer.updates[update] for update in self.world.stored_updates().get(stream.attempt, [])}
        assert max([*kept, *lost], default=-1) <= trainer.promised, f"{name}: more is told than was ever whole"
        for seq, kind in enumerate(trainer.kinds[: trainer.promised + 1]):
            if kind != "result":
                assert (seq in kept) != (lost[seq] == 1), f"{name}, {kind} {seq}: kept {seq in kept}, lost {lost[seq]}"


TestSpooledFaults = SpooledFaults.TestCase
TestSpooledFaults.settings = settings(bounded(25, 8), derandomize=True)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_spooled_faults_for_longer_and_from_another_seed_each_time() -> None:
    """`SIM_SEED=N pytest -m campaign tests/sim` runs the same again."""
    longer(SpooledFaults)
