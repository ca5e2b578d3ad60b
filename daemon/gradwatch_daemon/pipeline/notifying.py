"""Which notifications are made, in the transaction of what they are about: none is lost, and none tells what was not stored.

A channel is told once that something fires, again when it got worse or when a silence over it ends, and that it is resolved if
it was ever told that it fires. What a silence covers is recorded as muted in place of being sent. Nothing of a run that is over
fires for ever: its channels are told that it is over, and the record of the anomaly stays as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.notify.notifier import Notifier
from gradwatch_daemon.notify.payload import anomaly_body, run_body, store_body, write
from gradwatch_daemon.pipeline.work import Work
from gradwatch_daemon.records.notices import RUN_DOWN, STORE_DOWN, Delivery
from gradwatch_daemon.records.run import AWAY_S, FINAL

if TYPE_CHECKING:
    from gradwatch_daemon.pipeline.attending import Attending
    from gradwatch_daemon.pipeline.runs import Runs, RunState
    from gradwatch_daemon.pipeline.work import Now
    from gradwatch_daemon.records import Anomaly
    from gradwatch_daemon.records.notices import Outcome
    from gradwatch_daemon.store.protocol import Store

PENDING_MAX = 256
"""For each channel; beyond it the oldest is dropped, and the log says so."""

NOBODY = Notifier((), lambda outcome: None)
"""No channel is configured."""

OUTAGE_TOLD_S = 5.0
"""How long the store may fail before people are told of it."""

ALARMING = ("crashed", "lost")
"""States of a run that people are told of; it is resolved when the run is there again."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a channel knows of a subject: at which severity it fires, -1 for never told; `muted`: and was silenced since."""

    rank: int = -1
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Matter:
    """Something to tell: about what, whether it is over, the silence that covers it ('' for none), and the document."""

    subject: str
    run: str
    severity: Severity
    over: bool
    silence: str
    body: dict[str, Any]


class Notifying:
    """Makes deliveries, and keeps what is pending. `url` is where people reach this daemon."""

    def __init__(
        self, notifier: Notifier, store: Store, runs: Runs, attending: Attending, *, away: list[str], now: Now
    ) -> None:
        self._notifier, self._runs, self._attending = notifier, runs, attending
        self._least = {channel.name: Severity(channel.severity).rank for channel in notifier.channels}
        self._told: dict[tuple[str, str], Told] = {}
        self._pending: dict[str, OrderedDict[str, Delivery]] = {name: OrderedDict() for name in self._least}
        self._away = dict.fromkeys(away, now.mono_s + AWAY_S)
        self._down: dict[str, set[int]] = {}
        self._ends_s: dict[str, float] = {}
        self._over: set[str] = set()
        self._store_told = False
        self._count = 0
        if self._least:
            self._restore(store)
            for state in runs.states.values():
                self._watch_end(state, Work(), now)

    def _restore(self, store: Store) -> None:
        """Go on with what was pending, and with what each channel was told of that is still open."""
        open_now = {anomaly.id for state in self._runs.states.values() for anomaly in state.open.values()}
        standing: dict[tuple[str, str], Delivery] = {}
        for delivery in reversed(store.deliveries()):
            if delivery.channel not in self._least:
                continue
            if delivery.state == "pending":
                self._pending[delivery.channel][delivery.id] = delivery
                self._notifier.put(delivery)
            if delivery.subject in open_now or _attempt_of(delivery):
                self._learn(delivery)
                standing[delivery.channel, delivery.subject] = delivery
        for delivery in standing.values():
            attempt = _attempt_of(delivery)
            if attempt and delivery.event == "firing":
                self._down.setdefault(delivery.run, set()).add(attempt)
            if delivery.state == "delivered":
                self._notifier.put(delivery)

    def _learn(self, delivery: Delivery) -> None:
        key, rank = (delivery.channel, delivery.subject), Severity(delivery.severity).rank
        if delivery.event == "resolved":
            self._told.pop(key, None)
        elif delivery.state == "muted":
            self._told[key] = replace(self._told.get(key, Told()), muted=True)
        else:
            self._told[key] = Told(rank)

    def follow(self, work: Work, now: Now) -> None:
        """Make what this tick is to tell."""
        if not self._least:
            return
        for id_, anomaly in {**work.shown, **work.anomalies}.items():
            silence = work.attention_of[id_].silence if id_ in work.attention_of else ""
            over = anomaly.state == "resolved" or (id_ not in work.anomalies and anomaly.run in self._over)
            self._tell(self._matter_of_anomaly(anomaly, over, silence), work, now)
        late = {run for run, until_s in self._away.items() if now.mono_s >= until_s}
        for run in {*work.changed, *late}:
            state = self._runs.states[run]
            if run not in self._away or run in late or state.vital.state != "lost":
                self._away.pop(run, None)
                self._tell_run(state, work, now)
            self._watch_end(state, work, now)
        self._close_ended(work, now)

    def _tell_run(self, state: RunState, work: Work, now: Now) -> None:
        """How a run is; and of the attempts before, that another one has begun."""
        run, attempt, over = state.run.run, state.run.attempt, state.vital.state not in ALARMING
        down = self._down.pop(run, set())
        for before in sorted(down - {attempt}):
            self._tell(self._matter_of_run(run, before, True, f"attempt {attempt} began"), work, now)
        self._tell(self._matter_of_run(run, attempt, over, f"{state.vital.state}: {state.vital.evidence}"), work, now)
        if not over:
            self._down[run] = {attempt}

    def _matter_of_run(self, run: str, attempt: int, over: bool, said: str) -> Matter:
        body = run_body(run, attempt, said, "resolved" if over else "firing", self._notifier.url)
        return Matter(body["id"], run, Severity.CRITICAL, over, self._attending.silencing(run, RUN_DOWN), body)

    def _matter_of_anomaly(self, anomaly: Anomaly, over: bool, silence: str) -> Matter:
        if over and anomaly.state != "resolved":
            anomaly = replace(anomaly, sentence=f"{anomaly.sentence} It was firing when the run ended.")
        body = anomaly_body(anomaly, "resolved" if over else "firing", self._notifier.url)
        return Matter(anomaly.id, anomaly.run, anomaly.severity, over, silence, body)

    def _watch_end(self, state: RunState, work: Work, now: Now) -> None:
        """Note when a run is over; of one that is there again, tell anew what fires."""
        run, how = state.run.run, state.vital.state
        if how == "lost":
            self._ends_s.setdefault(run, now.mono_s + AWAY_S)
        elif how in FINAL:
            self._ends_s[run] = now.mono_s
        else:
            self._ends_s.pop(run, None)
            if run in self._over:
                self._over.remove(run)
                self._tell_open(state, work, now)

    def _close_ended(self, work: Work, now: Now) -> None:
        for run in [run for run, ends_s in self._ends_s.items() if ends_s <= now.mono_s]:
            del self._ends_s[run]
            self._over.add(run)
            self._tell_open(self._runs.states[run], work, now)

    def _tell_open(self, state: RunState, work: Work, now: Now) -> None:
        for anomaly in state.open.values():
            over = state.run.run in self._over
            self._tell(self._matter_of_anomaly(anomaly, over, self._attending.silence_over(anomaly.id)), work, now)

    def store_fails(self, since_s: float, now: Now) -> None:
        """Tell every channel when the store has failed for a while. None of it can be recorded: it goes past the store, and is
        lost with the daemon."""
        if not self._store_told and now.mono_s - since_s >= OUTAGE_TOLD_S:
            self._store_told = True
            if not self._attending.silencing("", STORE_DOWN):
                self._tell_store("The daemon's store cannot be written: nothing is acked.", "firing", now)

    def store_works(self, outage_s: float, now: Now) -> None:
        """Tell that it is over, if anybody was told."""
        if self._store_told:
            said = f"The store can be written again, after {outage_s:.1f} s; nothing acked is lost."
            self._tell_store(said, "resolved", now)
        self._store_told = False

    def _tell_store(self, said: str, event: str, now: Now) -> None:
        id_, body = f"{STORE_DOWN}-{now.unix_ns:016x}", write(store_body(said, event, self._notifier.url))
        for channel in self._least:
            severity = Severity.CRITICAL.value
            self._notifier.put(Delivery(id_, channel, "store", event, severity, "", now.unix_ns, body, "pending"))

    def _tell(self, matter: Matter, work: Work, now: Now) -> None:
        for channel, least in self._least.items():
            key, rank = (channel, matter.subject), matter.severity.rank
            told = self._told.get(key, Told())
            if matter.over:
                self._told.pop(key, None)
                if told.rank >= 0:
                    self._make(channel, replace(matter, silence=""), work, now)
            elif rank >= least and (not told.muted if matter.silence else told.muted or rank > told.rank):
                self._told[key] = replace(told, muted=True) if matter.silence else Told(rank)
                self._make(channel, matter, work, now)

    def _make(self, channel: str, matter: Matter, work: Work, now: Now) -> None:
        self._count += 1
        id_ = f"{now.unix_ns:016x}{self._count % 0x10000:04x}"
        state, answer = ("muted", f"silenced by {matter.silence}") if matter.silence else ("pending", "")
        made = Delivery(
            id=id_,
            channel=channel,
            subject=matter.subject,
            event=matter.body["event"],
            severity=matter.severity.value,
            run=matter.run,
            made_ns=now.unix_ns,
            body=write(matter.body),
            state=state,
            changed_ns=now.unix_ns,
            answer=answer,
            silence=matter.silence,
        )
        work.deliveries[id_] = made
        if state != "pending":
            return
        pending = self._pending[channel]
        pending[id_] = made
        if len(pending) > PENDING_MAX:
            _, oldest = pending.popitem(last=False)
            dropped = f"more than {PENDING_MAX} were pending"
            work.deliveries[oldest.id] = replace(oldest, state="dropped", changed_ns=now.unix_ns, answer=dropped)

    def settle(self, outcome: Outcome, work: Work) -> Delivery:
        """Note what became of a delivery.

        Raises:
            GradwatchError: `internal` for one that is not pending.
        """
        for pending in self._pending.values():
            if outcome.id in pending:
                known = pending[outcome.id]
                changed = replace(
                    known, state=outcome.state, attempts=outcome.attempts, answer=outcome.answer, changed_ns=outcome.at_ns
                )
                pending[outcome.id] = changed
                if outcome.state != "pending":
                    del pending[outcome.id]
                work.deliveries[outcome.id] = changed
                return changed
        raise GradwatchError("internal", where=f"delivery {outcome.id}", expected="a pending one", got="none")

    def hand_over(self, work: Work) -> None:
        """After the commit: to the threads that deliver."""
        for delivery in work.deliveries.values():
            if delivery.attempts == 0 and delivery.state in {"pending", "muted"}:
                self._notifier.put(delivery)
            elif delivery.state == "dropped":
                self._notifier.drop(delivery)


def _attempt_of(delivery: Delivery) -> int:
    """The attempt that a delivery is about, 0 where it is about an anomaly."""
    run, _, attempt = delivery.subject.rpartition("/")
    return int(attempt) if run == delivery.run and attempt.isdecimal() else 0
