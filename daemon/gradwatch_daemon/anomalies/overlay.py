"""Acknowledgements and silences over the open anomalies: a pure machine beside detection, which never reads it.

An anomaly has at most one silence at a time, the oldest that covers it. It is asked anew whenever the anomaly changes, a
silence is made, or one is over: a root that becomes another kind is no longer muted by what was said of the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.limits import SILENCES_ACTIVE_MAX
from gradwatch_daemon.records.attention import Acknowledgement, Attention, Silence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradwatch_daemon.records import Anomaly
    from gradwatch_daemon.records.attention import Acknowledge, CreateSilence


class Overlay:
    """The silences that are active and what is known of the anomalies they may mute."""

    def __init__(self, silences: Iterable[Silence] = (), known: Iterable[Attention] = ()) -> None:
        self._active = {silence.id: silence for silence in silences}
        self._known = {attention.anomaly: attention for attention in known}
        self._counted = {(a.silence, a.anomaly) for a in self._known.values() if a.silence}

    @property
    def active(self) -> tuple[Silence, ...]:
        """Oldest first."""
        return tuple(self._active.values())

    def of(self, anomaly: str) -> Attention:
        """What people did about an open anomaly; nothing for one that nobody looked at."""
        return self._known.get(anomaly) or Attention(anomaly)

    def knows(self, anomaly: str) -> bool:
        """Whether `learn` was told of it."""
        return anomaly in self._known

    def learn(self, attention: Attention) -> None:
        """What is recorded of an anomaly that changes or that somebody looks at."""
        self._known[attention.anomaly] = attention
        if attention.silence:
            self._counted.add((attention.silence, attention.anomaly))

    def forget(self, anomaly: str) -> None:
        """It is resolved: nothing mutes it any more."""
        self._known.pop(anomaly, None)
        self._counted = {pair for pair in self._counted if pair[1] != anomaly}

    def acknowledge(self, request: Acknowledge, now_ns: int) -> Attention:
        """Mark as seen or not, and note. Whoever marks again what is marked changes at most the note.

        Raises:
            GradwatchError: `invalid-body` for a note about an anomaly that is not, and shall not be, acknowledged.
        """
        before = self.of(request.anomaly)
        was = before.acknowledged
        if request.acknowledged is False:
            now = None
        elif was is not None:
            now = replace(was, note=was.note if request.note is None else request.note)
        elif request.acknowledged:
            now = Acknowledgement(request.by, now_ns, request.note or "")
        else:
            expected = "acknowledged beside a note, for an anomaly that nobody acknowledged"
            raise GradwatchError("invalid-body", where=f"anomaly {request.anomaly}", expected=expected, got="a note alone")
        self._known[request.anomaly] = replace(before, acknowledged=now)
        return self._known[request.anomaly]

    def create(self, request: CreateSilence, now_ns: int, stored: Silence | None) -> Silence:
        """Begin a silence; the same id with the same content again gives the one that exists. `stored` is the store's.

        Raises:
            GradwatchError: `idempotency-mismatch` for an id with other content, `too-many-silences`.
        """
        known = self._active.get(request.id, stored)
        if known is not None:
            mine, theirs = _said(request, request.lifetime_ns), _said(known, known.expires_ns - known.created_ns)
            if mine != theirs:
                raise GradwatchError("idempotency-mismatch", where=f"silence {request.id}", expected=theirs, got=mine)
            return known
        if len(self._active) >= SILENCES_ACTIVE_MAX:
            got = f"{len(self._active)} active"
            raise GradwatchError("too-many-silences", where="silences", expected=f"at most {SILENCES_ACTIVE_MAX}", got=got)
        made = Silence(
            request.id,
            request.run,
            request.kind,
            request.subject,
            request.reason,
            request.author,
            now_ns,
            now_ns + request.lifetime_ns,
        )
        self._active[made.id] = made
        return made

    def end(self, id_: str, now_ns: int) -> Silence | None:
        """End an active one; None for any other."""
        known = self._active.pop(id_, None)
        return None if known is None else replace(known, ended_ns=now_ns)

    def expire(self, now_ns: int) -> list[Silence]:
        """Those whose time is over since the last call."""
        over = [silence for silence in self._active.values() if now_ns >= silence.expires_ns]
        for silence in over:
            del self._active[silence.id]
        return over

    def mute(self, anomalies: Iterable[Anomaly]) -> tuple[list[Attention], list[Silence]]:
        """Ask anew which silence mutes these; what changed of them, and the silences that mute one more.

        A resolved one keeps the silence it had: it was muted to its end.
        """
        changed: list[Attention] = []
        counted: dict[str, Silence] = {}
        for anomaly in anomalies:
            before = self.of(anomaly.id)
            if anomaly.state == "resolved" and before.silence:
                continue
            silence = next((s.id for s in self._active.values() if s.covers(anomaly)), "")
            if silence == before.silence:
                continue
            self._known[anomaly.id] = replace(before, silence=silence)
            changed.append(self._known[anomaly.id])
            if silence and (silence, anomaly.id) not in self._counted:
                self._counted.add((silence, anomaly.id))
                known = self._active[silence]
                counted[silence] = self._active[silence] = replace(known, muted=known.muted + 1)
        return changed, list(counted.values())


def _said(of: CreateSilence | Silence, lifetime_ns: int) -> str:
    """All that makes two silences the same."""
    matched = ((name, getattr(of, name)) for name in ("run", "kind", "subject"))
    covered = ", ".join(f"any {name}" if value is None else f"{name} {value!r}" for name, value in matched)
    return f"{covered} for {lifetime_ns / 1e9:g} s ({of.author}: {of.reason})"
