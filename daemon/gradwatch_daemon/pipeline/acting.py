"""What the daemon asks of trainers by itself when an anomaly fires: done, written down as a shadow, or why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.escalate.actions import due
from gradwatch_daemon.records import EventRecord, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.escalate.actions import Action
    from gradwatch_daemon.pipeline.control import Control
    from gradwatch_daemon.pipeline.runs import Runs, RunState
    from gradwatch_daemon.pipeline.work import Now, Work
    from gradwatch_daemon.records import Anomaly
    from gradwatch_daemon.store.protocol import StoreReader

SHADOW = "shadow"
"""Kind of the events that say what an action would have done."""

UNMET = "unmet"
"""Kind of the events that say why an action that is enabled cannot be asked for yet."""

UNMET_READ = 1000
"""Events of a run, newest first, among which those of kind `unmet` are looked for after a restart."""


class Acting:
    """The actions of all runs."""

    def __init__(self, runs: Runs, control: Control, actions: Sequence[Action]) -> None:
        self._runs, self._control, self._actions = runs, control, tuple(actions)

    def act(self, work: Work, now: Now) -> None:
        """Do what an anomaly that fires asks for, each once; of an action that is not enabled, write down that it would have
        been done, whether or not the trainer takes it, and of one that cannot be asked for, why."""
        for anomaly in work.anomalies.values():
            state = self._runs.states[anomaly.run]
            if anomaly.attempt != state.run.attempt or not self._control.listens(state):
                continue
            state.acted = {(verb, id_) for verb, id_ in state.acted if id_ in state.open}
            state.unmet = {(verb, id_) for verb, id_ in state.unmet if id_ in state.open}
            state.spared = {id_: None for id_ in state.spared if id_ in state.open}
            for action in due(self._actions, anomaly):
                if (action.verb, anomaly.id) in state.acted:
                    continue
                state.acted.add((action.verb, anomaly.id))
                if action.enabled:
                    self._ask(state, action.verb, anomaly, work, now)
                else:
                    said = f"would have asked for {action.verb}: {_why(anomaly)}"
                    work.events.append(_event(anomaly, SHADOW, action.verb, said, now))

    def retry(self, work: Work, now: Now) -> None:
        """Ask again where something may have come free: a command of the run changed, or its trainer greeted."""
        for run in {command.run for command in work.commands.values()} | {one.stream.run for one in work.welcomes}:
            state = self._runs.states[run]
            for verb, id_ in sorted(state.unmet):
                anomaly = state.open.get(id_)
                if anomaly is not None and self._control.listens(state):
                    self._ask(state, verb, anomaly, work, now)

    def restore(self, reader: StoreReader) -> None:
        """After a restart: what anomalies that fire already asked for was done, written down, or is still unmet."""
        for run, state in self._runs.states.items():
            wanted = {(action.verb, anomaly.id) for anomaly in state.open.values() for action in due(self._actions, anomaly)}
            state.acted |= wanted
            if any(action.enabled for action in self._actions) and wanted:
                events = reader.events(run, UNMET_READ)
                unmet = {(str(e.detail.get("verb")), str(e.detail.get("anomaly"))) for e in events if e.kind == UNMET}
                state.unmet = wanted & unmet

    def _ask(self, state: RunState, verb: str, anomaly: Anomaly, work: Work, now: Now) -> None:
        refused = self._control.issue(verb, anomaly, _why(anomaly), work, now)
        if not refused:
            state.unmet.discard((verb, anomaly.id))
        elif (verb, anomaly.id) not in state.unmet:
            state.unmet.add((verb, anomaly.id))
            said = f"cannot ask for {verb} now, and will when it can be: {refused} Wanted for {_why(anomaly)}"
            work.events.append(_event(anomaly, UNMET, verb, said, now))


def _event(anomaly: Anomaly, kind: str, verb: str, said: str, now: Now) -> EventRecord:
    stream, detail = Stream(anomaly.run, anomaly.attempt, anomaly.rank), {"verb": verb, "anomaly": anomaly.id}
    return EventRecord(stream, "", -1, anomaly.update_last, now.unix_ns, kind, said, detail)


def _why(anomaly: Anomaly) -> str:
    return f"{anomaly.severity.value} {anomaly.kind}: {anomaly.sentence}"
