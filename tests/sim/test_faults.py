"""A trainer, a link that loses, repeats, swaps, delays and cuts, and a daemon that is killed: nothing is lost silently, nothing
is kept twice, control happens once, and what was found live is what a replay finds.

The oracle is `harness.simulation.Trainer`, which knows what it put, and the promises of docs/protocol.md. A failing run is
printed as the calls that made it, with a line that replays it; `make test-all` runs longer ones and prints their seed.
"""

from __future__ import annotations

import itertools
import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, event, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from gradwatch_agent.session import State
from gradwatch_contracts.control import ControlState, Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.records.commands import CancelEscalation, RequestEscalation
from gradwatch_daemon.replay.run import compare_with_live, replay_run
from gradwatch_daemon.store.recording import RecordedStream, Recording
from harness.simulation import KL_BREACH, RUN, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gradwatch_daemon.records import SignalBlock

PROFILE = load_profile("default")
SWAPS_MAX = 4
"""No transport swaps frames within a connection; each swap may cost refusals, and eight of those close it for a minute."""


FAULTS = ("none",) * 12 + ("drop", "repeat", "repeat", "swap", "cut", "kill")
MANY = (64, 64, 64, 3, 1, 0)
"""How many frames arrive at once: mostly all."""


class Faults(RuleBasedStateMachine):
    """One run through whatever can happen to it."""

    @initialize(outbox=st.sampled_from([30_000, 1 << 20]))
    def begin(self, outbox: int) -> None:
        self.world = World(outbox, PROFILE)
        self.swaps = 0

    # The trainer and the link.

    @rule(number=st.integers(0, 2**32))
    def train(self, number: int) -> None:
        """Updates over a bad link: what is on its way meets faults, and only a part of it arrives in time. A number stands for
        all of it: drawn one by one, Hypothesis makes most plans too short to meet anything."""
        world, chance = self.world, random.Random(number)
        for _ in range(chance.randint(3, 12)):
            changed = KL_BREACH if chance.random() < 0.4 else None
            for _ in range(chance.randint(0, 4)):
                world.trainer.step(changed)
            world.trainer.outbox.absorb()
            world.pump(8)
            self._spoil(world.link.up, chance)
            world.arrive(chance.choice(MANY))
            self._spoil(world.link.down, chance)
            world.answer(chance.choice(MANY))
            world.now_s += 0.3

    def _spoil(self, frames: list[tuple[bytes, bytes]], chance: random.Random) -> None:
        fault = chance.choice(FAULTS)
        if fault == "cut":
            self.world.link.cut()
        elif fault == "kill":
            self.world.kill_daemon()
        elif frames and fault == "drop":
            del frames[chance.randrange(len(frames))]
        elif frames and fault == "repeat":
            frames.append(chance.choice(frames))
        elif len(frames) > 1 and fault == "swap" and self.swaps < SWAPS_MAX:
            at = chance.randrange(len(frames) - 1)
            frames[at : at + 2] = frames[at + 1], frames[at]
            self.swaps += 1

    @rule(count=st.integers(0, 3))
    def note(self, count: int) -> None:
        self.world.trainer.note()
        self.world.trainer.lose(count)
        self.world.trainer.outbox.absorb()

    @rule()
    def greet(self) -> None:
        for _ in range(4):
            self.world.flow()

    @precondition(lambda self: len(self.world.trainers) < 3)
    @rule(really=st.integers(0, 3))
    def trainer_dies(self, really: int) -> None:
        if not really:
            self.world.start_trainer()

    # Time and the daemon.

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5, 9.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.world.now_s += seconds

    @rule(name=st.sampled_from("abc"), updates=st.integers(1, 8))
    def ask(self, name: str, updates: int) -> None:
        id_ = f"{name}-{len(self.world.trainers)}"
        self._submit(RequestEscalation(RUN, id_, Level.DEBUG, updates, "sim"), "run-not-live", "idempotency-mismatch")

    @rule(name=st.sampled_from("abc"))
    def cancel(self, name: str) -> None:
        self._submit(CancelEscalation(RUN, f"{name}-{len(self.world.trainers)}"), "escalation-not-found")

    def _submit(self, request: RequestEscalation | CancelEscalation, *allowed: str) -> None:
        """Ask as HTTP does; what may be refused for is `allowed`, or that nobody greeted yet."""
        answer = self.world.pipeline.mailbox.submit(request)
        self.world.arrive(0)
        refused = answer.exception(0)
        assert refused is None or (isinstance(refused, GradwatchError) and refused.code.slug in ("run-not-found", *allowed))

    # What holds at every moment.

    @invariant()
    def acked_is_committed(self) -> None:
        trainer = self.world.trainer
        record = self.world.memory.sessions.get(trainer.name)
        assert trainer.outbox._acked_seq <= (-1 if record is None else record.last_seq)

    @invariant()
    def nothing_is_kept_twice_or_out_of_order(self) -> None:
        for updates in self.world.stored_updates().values():
            assert all(one < two for one, two in itertools.pairwise(updates))

    @invariant()
    def nothing_is_both_kept_and_lost(self) -> None:
        for trainer in self.world.trainers:
            stream = self.world.stream_of(trainer.name)
            if stream is None:
                continue
            lost = self.world.lost_seqs(trainer.name)
            assert not lost or max(lost.values()) == 1
            kept = [trainer.updates[update] for update in self.world.stored_updates().get(stream.attempt, [])]
            assert not lost.keys() & set(kept)

    # What holds in the end, when the link is whole again.

    def teardown(self) -> None:
        world = self.world
        assert world.settle(), (
            f"the trainer is {world.trainer.session.state} and has not said all: {world.trainer.outbox.pending}"
        )
        assert world.trainer.session.state is State.LIVE, world.trainer.session.refusal
        self._check_control()
        world.part()
        assert world.trainer.session.state is State.CLOSED
        self._check_each_record_is_kept_or_lost()
        self._check_a_replay_finds_the_same()

    def _check_control(self) -> None:
        """What the trainer did is what the store says it did, unless a RESULT was lost: then that is a LOSS like any other."""
        trainer, lost = self.world.trainer, self.world.lost_seqs(self.world.trainer.name)
        if any(trainer.kinds[seq] == "result" for seq in lost):
            return
        for record in self.world.memory.escalations.values():
            applied, (ended, why) = trainer.applied.get(record.id), trainer.ended.get(record.id, (None, ""))
            if record.state in (ControlState.CANCELLED, ControlState.LOST):
                # Taken back, or of another attempt, while the trainer began it: its end is that of the store.
                assert record.update_applied in (None, applied) or record.id not in trainer.applied
            elif ended is not None:
                event("an escalation ended")
                assert (record.state, record.update_applied, record.update_ended) == (ControlState.ENDED, applied, ended)
                assert why != "done" or ended - (applied or 0) == record.updates
            elif applied is not None:
                event("an escalation applies")
                assert (record.state, record.update_applied) == (ControlState.APPLIED, applied)
            elif not any(record.id in older.applied for older in self.world.trainers[:-1]):
                assert record.state not in (ControlState.APPLIED, ControlState.ENDED)

    def _check_each_record_is_kept_or_lost(self) -> None:
        world, trainer = self.world, self.world.trainer
        stream = world.stream_of(trainer.name)
        assert stream is not None
        assert trainer.outbox.accepted == len(trainer.kinds)
        assert world.memory.sessions[trainer.name].last_seq == len(trainer.kinds) - 1
        kept = {trainer.updates[update] for update in world.stored_updates().get(stream.attempt, [])}
        kept |= {noted.seq for noted in world.memory.events if noted.session == trainer.name and noted.seq >= 0}
        lost = world.lost_seqs(trainer.name)
        for seq, kind in enumerate(trainer.kinds):
            if kind == "lost":
                assert lost[seq] == 1
            elif kind != "result":
                assert (seq in kept) != (lost[seq] == 1), f"{kind} {seq}: kept {seq in kept}, lost {lost[seq]}"
        assert world.view is not None
        event("losses" if lost else "no loss")
        event(f"{len(world.trainers)} attempts")
        assert world.view.rows == sum(map(len, world.stored_updates().values()))
        assert world.view.lost == world.store.lost_count(RUN)
        assert world.view.run.state == "finished"

    def _check_a_replay_finds_the_same(self) -> None:
        memory, store = self.world.memory, self.world.store
        streams = tuple(
            RecordedStream(stream, 0, kept.count, tuple(store.marks(stream))) for stream, kept in sorted(memory.streams.items())
        )
        run = memory.runs[RUN]
        recording = Recording(run, streams, tuple(memory.anomalies.values()), tuple(memory.losses))

        def blocks(recorded: RecordedStream) -> Iterator[SignalBlock]:
            return store.blocks_after(recorded.stream, -1)

        replayed = compare_with_live(replay_run(recording, blocks, PROFILE, clock=lambda: 0.0), recording)
        event("anomalies" if memory.anomalies else "no anomaly")
        assert not replayed.difference, replayed.difference


def bounded(examples: int, steps: int, *phases: Phase) -> settings:
    """So many runs of so many steps; what fails is printed with a blob that replays it."""
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        suppress_health_check=slow,
        database=None,
        phases=(Phase.generate, *phases),
    )


def longer(machine: type[RuleBasedStateMachine]) -> None:
    """Many runs of many steps, from a seed that is printed."""
    chosen = int(os.environ.get("SIM_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SIM_SEED={chosen}")
    run_state_machine_as_test(seed(chosen)(machine), settings=bounded(300, 40))  # type: ignore[no-untyped-call]


TestFaults = Faults.TestCase
TestFaults.settings = settings(bounded(100, 12), derandomize=True)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_faults_for_longer_and_from_another_seed_each_time() -> None:
    """`SIM_SEED=N pytest -m campaign tests/sim` runs the same again."""
    longer(Faults)
