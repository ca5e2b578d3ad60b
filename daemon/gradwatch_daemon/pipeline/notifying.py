"""Which notifications are made, in the transaction of what they are about: none is lost, and none tells what was not stored.

A channel is told once that something fires, again when it got worse or when a silence over it ends, and that it is resolved if
it was ever told that it fires. What a silence covers is recorded as muted in place of being sent.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.notify.notifier import Notifier
from gradwatch_daemon.notify.payload import anomaly_body, run_body, write
from gradwatch_daemon.records.notices import RUN_DOWN, Delivery

if TYPE_CHECKING:
    from gradwatch_daemon.pipeline.attending import Attending
    from gradwatch_daemon.pipeline.runs import Runs, RunState
    from gradwatch_daemon.pipeline.work import Now, Work
    from gradwatch_daemon.records.notices import Outcome
    from gradwatch_daemon.store.protocol import Store

PENDING_MAX = 256
"""For each channel; beyond it the oldest is dropped, and the log says so."""

AWAY_S = 60.0
"""After a start: a run that was live and whose trainer does not come back within this time is told of as lost."""

NOBODY = Notifier((), lambda outcome: None)
"""No channel is configured."""

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
        self._count = 0
        self._restore(store)

    def _restore(self, store: Store) -> None:
        """Go on with what was pending, and with what each channel was told of that is still open."""
        open_now = {anomaly.id for state in self._runs.states.values() for anomaly in state.open.values()}
        open_now |= {_subject(state) for state in self._runs.states.values()}
        standing: dict[tuple[str, str], Delivery] = {}
        for delivery in reversed(store.deliveries()):
            if delivery.channel not in self._least:
                continue
            if delivery.state == "pending":
                self._pending[delivery.channel][delivery.id] = delivery
                self._notifier.put(delivery)
            if delivery.subject in open_now:
                self._learn(delivery)
                standing[delivery.channel, delivery.subject] = delivery
        for delivery in standing.values():
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
            over = anomaly.state == "resolved"
            body = anomaly_body(anomaly, "resolved" if over else "firing", self._notifier.url)
            self._tell(Matter(id_, anomaly.run, anomaly.severity, over, silence, body), work, now)
        late = {run for run, until_s in self._away.items() if now.mono_s >= until_s}
        for run in {*work.changed, *late}:
            state = self._runs.states[run]
            if run not in self._away or run in late or state.vital.state != "lost":
                self._away.pop(run, None)
                self._tell(self._matter_of(state), work, now)

    def _matter_of(self, state: RunState) -> Matter:
        """How a run is, as something to tell."""
        vital, run, over = state.vital, state.run, state.vital.state not in ALARMING
        said, event = f"{vital.state}: {vital.evidence}", "resolved" if over else "firing"
        body = run_body(run.run, run.attempt, said, event, self._notifier.url)
        return Matter(_subject(state), run.run, Severity.CRITICAL, over, self._attending.silencing(run.run, RUN_DOWN), body)

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


def _subject(state: RunState) -> str:
    return f"{state.run.run}/{state.run.attempt}"
