"""The overlay in the pipeline: requests of people, silences whose time is over, and anomalies that change meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.anomalies.overlay import Overlay
from gradwatch_daemon.records.attention import Acknowledge, Attention, CreateSilence, Silence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradwatch_daemon.pipeline.runs import Runs
    from gradwatch_daemon.pipeline.work import Now, Work
    from gradwatch_daemon.records import Anomaly
    from gradwatch_daemon.records.attention import AttentionRequest
    from gradwatch_daemon.store.protocol import Store


class Attending:
    """What people did about anomalies."""

    def __init__(self, runs: Runs, store: Store) -> None:
        self._runs, self._store = runs, store
        self._overlay = Overlay()
        self._silences_changed = False

    def restore(self, now: Now) -> None:
        """Take up what is recorded: active silences, and what was done about the anomalies that are open.

        Those that expired while nobody served are as good as active until the first tick tells of their end.
        """
        silences = [silence for silence in reversed(self._store.silences()) if silence.ended_ns is None]
        known = self._store.attention([anomaly.id for anomaly in self._open()])
        muting = {attention.silence for attention in known.values()}
        kept = [s for s in silences if s.state(now.unix_ns) == "active" or s.id in muting]
        self._overlay = Overlay(kept, known.values())

    def grant(self, request: AttentionRequest, work: Work, now: Now) -> Attention | Silence:
        """Do as asked; the record as it will be committed.

        Raises:
            GradwatchError: `anomaly-not-found`, `silence-not-found`, or what the overlay refuses.
        """
        if isinstance(request, Acknowledge):
            return self._acknowledge(request, work, now)
        stored = self._stored(request.id)
        if isinstance(request, CreateSilence):
            known = self._overlay.create(request, now.unix_ns, stored)
            if known.created_ns != now.unix_ns or stored is not None:
                return known
        else:
            ended = self._overlay.end(request.id, now.unix_ns)
            if ended is None:
                if stored is None:
                    raise GradwatchError("silence-not-found", where="id", got=repr(request.id[:80]))
                return stored
            known = ended
        work.silences[known.id] = known
        self._silences_changed = True
        return known

    def silencing(self, run: str, kind: str) -> str:
        """Id of the oldest silence of everything of a kind that is about a run as a whole; '' for none."""
        covers = (s for s in self._overlay.active if s.run in {None, run} and s.kind in {None, kind} and not s.subject)
        return next((silence.id for silence in covers), "")

    def silence_over(self, anomaly: str) -> str:
        """Id of the silence that mutes an open anomaly, '' for none."""
        return self._overlay.of(anomaly).silence

    def follow(self, work: Work, now: Now) -> None:
        """Mute what changed in this tick, and everything open anew where silences came or went."""
        for over in self._overlay.expire(now.unix_ns):
            work.silences.setdefault(over.id, over)
            self._silences_changed = True
        changed = list(work.anomalies.values())
        self._learn(changed)
        if self._silences_changed:
            others = [anomaly for anomaly in self._open() if anomaly.id not in work.anomalies]
            self._learn(others)
            changed += others
            self._silences_changed = False
        attention, silences = self._overlay.mute(changed)
        work.attended(attention)
        for silence in silences:
            work.silences[silence.id] = silence
        for one in attention:
            if one.anomaly not in work.anomalies:
                work.shown[one.anomaly] = self._find(one.anomaly)
        for id_, anomaly in {**work.shown, **work.anomalies}.items():
            work.attention_of[id_] = self._overlay.of(id_)
            if anomaly.state == "resolved":
                self._overlay.forget(id_)

    def _acknowledge(self, request: Acknowledge, work: Work, now: Now) -> Attention:
        anomaly = self._find(request.anomaly)
        self._learn([anomaly])
        changed = self._overlay.acknowledge(request, now.unix_ns)
        work.attended([changed])
        work.shown[anomaly.id] = anomaly
        return changed

    def _find(self, id_: str) -> Anomaly:
        for state in self._runs.states.values():
            if id_ in state.open:
                return state.open[id_]
        stored = self._store.anomaly(id_)
        if stored is None:
            raise GradwatchError("anomaly-not-found", where="id", expected="the id of an anomaly", got=repr(id_[:80]))
        return stored

    def _stored(self, id_: str) -> Silence | None:
        return self._store.silence(id_)

    def _learn(self, anomalies: Iterable[Anomaly]) -> None:
        """Read what is recorded of those met for the first time: one that opens again may have been acknowledged before."""
        new = [anomaly.id for anomaly in anomalies if not self._overlay.knows(anomaly.id)]
        recorded = self._store.attention(new) if new else {}
        for id_ in new:
            self._overlay.learn(recorded.get(id_) or Attention(id_))

    def _open(self) -> list[Anomaly]:
        return [anomaly for state in self._runs.states.values() for anomaly in state.open.values()]
