"""What the daemon knows of each run: its attempts, how many are connected, its escalations, its newest numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from gradwatch_contracts.control import Level
from gradwatch_daemon.anomalies.closing import close
from gradwatch_daemon.anomalies.liveness import Vital
from gradwatch_daemon.escalate.commands import Commands
from gradwatch_daemon.escalate.desired import Escalations
from gradwatch_daemon.escalate.lead import common_update
from gradwatch_daemon.records import ALL_RANKS, Run, RunView, Session, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradwatch_contracts.messages import Hello
    from gradwatch_daemon.pipeline.work import Work
    from gradwatch_daemon.records import Anomaly, DetectorState, Newest
    from gradwatch_daemon.records.commands import Allowance


PAST_MAX = 64
"""Launches remembered that came from a spool beside a live trainer: their ranks arrive within minutes of each other."""

UNSEEN = Vital("", "")

PROCESS_ENDED = "its process ended"
PROCESS_GONE = "its process is gone, without a last word"
NO_ANSWER = "it does not answer, and its process cannot be seen from here"


class Silent(NamedTuple):
    """A process that does not answer: which, since when in unix ns, and the rank it was."""

    pid: int
    since_ns: int
    rank: int


@dataclass(slots=True)
class RunState:
    """One run, as the pipeline thread holds it.

    `live` counts the connected processes of the present attempt, `ranks` are those that ever lived in it, `crashed` says
    whether one of them ended by an exception, `exception` by which; `running` is the newest update that one of them was in
    when it greeted; `attempts` is the highest number given, `past` those that came from a spool while a later one was live, by
    launch id; `effective` is the level of the newest row, the agent's own word. `vital` is how it is; `silent` are those of
    the sessions that do not answer and can be seen. `looked_back` are the open anomalies for which the black box was asked
    for, `acted` the actions they asked for, `unmet` those of them that could not be asked for yet, `spared` those whose raise
    was refused, `refill` and `allowance` what is shown of that. `begun_s` is when the present attempt began, on the monotonic
    clock, and `beside` are older ones whose trainers live all the same.
    """

    run: Run
    escalations: Escalations
    commands: Commands
    live: int = 0
    attempts: int = 1
    past: dict[str, tuple[int, set[int]]] = field(default_factory=dict)
    begun_s: float = 0.0
    beside: tuple[int, ...] = ()
    ranks: set[int] = field(default_factory=set)
    crashed: bool = False
    rows: int = 0
    thinned: int = 0
    lost: int = 0
    update_last: int | None = None
    running: int = 0
    effective: Level | None = None
    detectors: tuple[DetectorState, ...] = ()
    open: dict[str, Anomaly] = field(default_factory=dict)
    agent_version: str = ""
    verbs: tuple[str, ...] = ()
    newest: Newest | None = None
    exception: str = ""
    vital: Vital = UNSEEN
    silent: dict[str, Silent] = field(default_factory=dict)
    spared: dict[str, None] = field(default_factory=dict)
    refill: int | None = None
    allowance: Allowance | None = None
    acted: set[tuple[str, str]] = field(default_factory=set)
    unmet: set[tuple[str, str]] = field(default_factory=set)
    looked_back: set[str] = field(default_factory=set)

    def judged(self, stream: Stream) -> Stream:
        """The stream that detection runs on for rows of `stream`: that of all ranks together where there are several."""
        return stream if self.run.world == 1 else stream._replace(rank=ALL_RANKS)

    def same_update(self, usual_s: float | None) -> int:
        """The update from which on all ranks can do something alike, where one usually takes `usual_s`; 0 for a single rank,
        and where none has begun."""
        newest = max(-1 if self.update_last is None else self.update_last, self.running - 1)
        return 0 if self.run.world == 1 or newest < 0 else common_update(newest, usual_s)

    def view(self) -> RunView:
        """The immutable picture for HTTP."""
        desired = self.escalations.desired()
        return RunView(
            run=self.run,
            live=self.live > 0,
            sessions=self.live,
            update_last=self.update_last,
            effective=self.effective,
            rows=self.rows,
            lost=self.lost,
            detectors=self.detectors,
            open_anomalies=tuple(self.open.values()),
            agent_version=self.agent_version,
            verbs=self.verbs if self.live else (),
            allowance=self.allowance,
            thinned=self.thinned,
            state=self.vital.state or self.run.state,
            evidence=self.vital.evidence,
            newest=self.newest,
            beside=self.beside,
            raised=frozenset(active.level for active in desired.active),
            level_from=desired.not_before,
        )

    def remember(self, anomalies: Iterable[Anomaly]) -> None:
        """Keep the open ones, drop the resolved."""
        for anomaly in anomalies:
            if anomaly.state == "resolved":
                self.open.pop(anomaly.id, None)
            else:
                self.open[anomaly.id] = anomaly

    def lose(self, rank: int, why: str, work: Work) -> None:
        """A process ended, or is waited for no longer beside others that live. With the last of the attempt, what nobody was
        told of yet is lost too."""
        work.commanded(self.commands.lose_rank(rank, why))
        work.escalated(self.escalations.lose_rank(rank, why))
        if self.live == 0 and not self.silent:
            work.commanded(self.commands.lose_all(why))
            work.escalated(self.escalations.lose_all(why))

    def close_anomalies(self, why: str) -> list[Anomaly]:
        """Resolve what is open because nothing can be said of it any more; returns the closed."""
        closed = [close(anomaly, why) for anomaly in self.open.values()]
        self.open.clear()
        return closed

    def saw(self, now_ns: int) -> None:
        """A trainer is there."""
        self.run = replace(self.run, state="live", evidence="", last_seen_ns=now_ns)

    def end(self, vital: Vital, now_ns: int) -> None:
        """The last trainer is gone."""
        self.vital = vital
        self.run = replace(self.run, state=vital.state, evidence=vital.evidence, last_seen_ns=now_ns)


class Runs:
    """All runs."""

    def __init__(self, runs: Iterable[Run], streams: Iterable[Stream]) -> None:
        self.states = {run.run: _state_of(run) for run in runs}
        for state in self.states.values():
            state.attempts = state.run.attempt
        for stream in streams:
            state = self.states[stream.run]
            state.attempts = max(state.attempts, stream.attempt)
            if stream.attempt == state.run.attempt and stream.rank != ALL_RANKS:
                state.ranks.add(stream.rank)

    def greet(self, hello: Hello, known: Session | None, now_ns: int) -> tuple[RunState, Session]:
        """Find or make the run, the attempt and the session of a HELLO; `known` is what is recorded of its session, if any.

        The same session resumes. The same launch joins the attempt, unless its rank already lived in it: that is
        another life. Anything else starts the next attempt; a replay beside a live trainer gets a number of its own, and
        the run stays with the trainer.
        """
        state = self.states.get(hello.run)
        if known is not None and known.stream.run == hello.run and state is not None:
            if known.stream.attempt == state.run.attempt:
                state.saw(now_ns)
                state.agent_version, state.verbs = hello.agent_version, hello.verbs
            return state, replace(known, verbs=hello.verbs)
        if state is not None and hello.replay and state.live and state.run.launch_id != hello.launch_id:
            attempt = self._past_attempt(state, hello)
        else:
            state = self._attempt_of(hello, now_ns)
            attempt = state.run.attempt
            state.ranks.add(hello.rank)
            state.agent_version, state.verbs = hello.agent_version, hello.verbs
        stream = Stream(hello.run, attempt, hello.rank)
        return state, Session(hello.session, stream, hello.launch_id, -1, hello.host, hello.pid, hello.verbs)

    @staticmethod
    def _past_attempt(state: RunState, hello: Hello) -> int:
        """The number of an attempt that is over, sent while a later one lives; its ranks share it."""
        attempt, ranks = state.past.get(hello.launch_id, (0, set()))
        if not attempt or hello.rank in ranks:
            state.attempts += 1
            attempt, ranks = state.attempts, set()
            state.past[hello.launch_id] = attempt, ranks
            if len(state.past) > PAST_MAX:
                del state.past[next(iter(state.past))]
        ranks.add(hello.rank)
        return attempt

    def _attempt_of(self, hello: Hello, now_ns: int) -> RunState:
        state = self.states.get(hello.run)
        if state is None:
            run = _described(hello, attempt=1, base=Level(hello.level), first_seen_ns=now_ns, now_ns=now_ns)
            state = self.states[hello.run] = _state_of(run)
            return state
        if state.run.launch_id == hello.launch_id and hello.rank not in state.ranks:
            state.saw(now_ns)
            return state
        old, base = state.run, Level(hello.level)
        state.attempts += 1
        state.escalations.begin_attempt(base)
        state.run = replace(
            _described(hello, state.attempts, base, old.first_seen_ns, now_ns), pin=old.pin, revision=old.revision
        )
        state.update_last, state.effective, state.detectors, state.newest = None, None, (), None
        state.running = 0
        state.crashed, state.exception, state.ranks = False, "", set()
        return state


def _state_of(run: Run) -> RunState:
    escalations = Escalations(run.run, run.base, run.pin, run.revision)
    return RunState(run, escalations, Commands(run.run), vital=Vital(run.state, run.evidence))


def _described(hello: Hello, attempt: int, base: Level, first_seen_ns: int, now_ns: int) -> Run:
    return Run(
        run=hello.run,
        attempt=attempt,
        launch_id=hello.launch_id,
        group=hello.group,
        tags=dict(hello.tags),
        labels=dict(hello.labels),
        config=dict(hello.config),
        updates_total=hello.updates_total,
        world=hello.world,
        state="live",
        base=base,
        pin=None,
        revision=0,
        first_seen_ns=first_seen_ns,
        last_seen_ns=now_ns,
    )
