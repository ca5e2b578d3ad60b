"""Any history of requests, restarts, repeats and words: a command is done at most once, and its state only goes forward."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gradwatch_agent.commands import Commands as AgentCommands
from gradwatch_agent.commands import Verbs
from gradwatch_contracts.control import CANCEL, ControlState
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.messages import Command
from gradwatch_daemon.escalate.commands import Commands, is_taken_back
from gradwatch_daemon.records.commands import RequestCommand

IDS = st.sampled_from([f"c{number}" for number in range(8)])
VERBS = st.sampled_from(["dump", "profile"])
STEP = {ControlState.REQUESTED: 0, ControlState.DELIVERED: 1, ControlState.APPLIED: 2}
SECOND_NS = 1_000_000_000


class DaemonAndTrainer(RuleBasedStateMachine):
    """Both machines, and between them a connection that repeats, delays and breaks, but keeps what the trainer said."""

    @initialize()
    def begin(self) -> None:
        self.daemon, self.trainer = Commands("run"), AgentCommands()
        self.verbs = Verbs()
        for verb in ("dump", "profile"):
            self.verbs.add(verb, lambda command, update: None)
        self.now_ns, self.update = SECOND_NS, 0
        self.used: set[str] = set()
        self.begun: list[str] = []
        self.words: list[tuple[str, str, int]] = []
        self.seen: dict[str, ControlState] = {}

    @rule(
        id_=IDS,
        verb=VERBS,
        origin=st.sampled_from(["operator", "anomaly:a"]),
        expires_s=st.sampled_from([1.0, 99.0]),
        ranks=st.sampled_from([[0], [0, 1]]),
    )
    def ask(self, id_: str, verb: str, origin: str, expires_s: float, ranks: list[int]) -> None:
        if id_ in self.used:
            return
        before = self.daemon.records()
        try:
            self.daemon.request(RequestCommand("run", id_, verb, expires_s=expires_s), origin, self.now_ns, ranks)
            self.used.add(id_)
        except GradwatchError:
            assert self.daemon.records() == before
        open_verbs = [record.verb for record in self.daemon.open()]
        assert len(set(open_verbs)) == len(open_verbs), "two of a verb at once"

    @rule()
    def connect(self) -> None:
        for record in self.daemon.waiting_for(0):
            self.trainer.receive(Command(record.id, record.verb, {}, record.not_before, record.expires_ns))
            self.daemon.delivered(record.id, 0)
        for record in self.daemon.taken_back_from(0):
            assert is_taken_back(record)
            self.trainer.receive(Command(record.id, CANCEL))

    @rule(finish=st.booleans())
    def boundary(self, finish: bool) -> None:
        self.update += 1
        due = self.trainer.due(self.update, self.now_ns, self.verbs)
        self.words += [(id_, "rejected", self.update) for id_, _ in due.refused]
        self.words += [(command.id, "ended", self.update) for command in due.stop]
        for command in due.begin:
            self.begun.append(command.id)
            self.words.append((command.id, "applied", self.update))
        for command in self.trainer.running if finish else ():
            self.trainer.end(command.id)
            self.words.append((command.id, "ended", self.update))
        assert len(set(self.begun)) == len(self.begun), "done twice"

    @rule(count=st.integers(1, 5), repeat=st.booleans())
    def hear(self, count: int, repeat: bool) -> None:
        for id_, state, update in self.words[:count]:
            for _ in range(1 + repeat):
                self.daemon.result(id_, 0, state, update, "")
        del self.words[:count]

    @rule(id_=IDS)
    def cancel(self, id_: str) -> None:
        self.daemon.cancel(id_, "no")

    @rule(seconds=st.integers(0, 3), heard=st.booleans())
    def wait(self, seconds: int, heard: bool) -> None:
        self.now_ns += seconds * SECOND_NS
        self.daemon.expire(self.now_ns, {0} if heard else ())
        late = [record for record in self.daemon.open() if record.expires_ns <= self.now_ns]
        assert all(one.state is ControlState.APPLIED and heard for record in late for one in record.ranks if one.state.open)
        assert all(any(one.state.open for one in record.ranks) for record in late), "nobody is left who could end it"

    @rule(word=st.sampled_from(["applied", "ended", "rejected"]), id_=IDS)
    def hear_other(self, word: str, id_: str) -> None:
        """A second rank, of which nothing is simulated but its words."""
        self.daemon.delivered(id_, 1)
        self.daemon.result(id_, 1, word, self.update, "")

    @rule(rank=st.sampled_from([0, 1]))
    def lose_rank(self, rank: int) -> None:
        """It falls silent; what it does meanwhile it still says."""
        self.daemon.lose_rank(rank, "it does not answer")
        assert all(one.rank != rank or not one.state.open for record in self.daemon.open() for one in record.ranks)

    @rule(rank=st.sampled_from([0, 1]))
    def rejoin(self, rank: int) -> None:
        self.daemon.rejoin(rank)

    @rule()
    def restart(self) -> None:
        fresh = Commands("run")
        fresh.load(self.daemon.open())
        self.daemon = fresh

    def teardown(self) -> None:
        """Left alone, everything comes to an end."""
        if not hasattr(self, "daemon"):
            return
        self.daemon.rejoin(0)
        self.daemon.lose_rank(1, "it is gone")
        for _ in range(3):
            self.connect()
            self.boundary(finish=True)
            self.hear(len(self.words) or 1, repeat=False)
        assert self.daemon.open() == []

    def check_invariants(self, *args: object, **kwargs: object) -> None:
        """After every step."""
        super().check_invariants(*args, **kwargs)
        for record in self.daemon.records() if hasattr(self, "daemon") else ():
            before = self.seen.get(record.id, ControlState.REQUESTED)
            if not before.open:
                assert record.state is before, "what is over came back"
            elif record.state.open:
                assert STEP[record.state] >= STEP[before], "a state went back"
            self.seen[record.id] = record.state


TestCommands = DaemonAndTrainer.TestCase
TestCommands.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
