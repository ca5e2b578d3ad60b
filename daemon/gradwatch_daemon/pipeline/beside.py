"""Two living trainers under one name: each launch is an attempt, the run is the newest, and the older must not vanish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.records import EventRecord, Stream
from gradwatch_daemon.records.run import describe_beside

if TYPE_CHECKING:
    from gradwatch_contracts.messages import Scalar
    from gradwatch_daemon.ingest.session import LiveSession, Sessions
    from gradwatch_daemon.pipeline.runs import Runs, RunState
    from gradwatch_daemon.pipeline.work import Now, Work

KIND = "beside"
"""Of the events here. The daemon's own, for people: detection does not read it."""

SURE_S = 1.0
"""Who is heard that long after the next attempt began lives beside it: the last frames of a killed trainer are read by then."""


class Beside:
    """Finds trainers of older attempts that are still heard, and says when they come and go."""

    def __init__(self, sessions: Sessions, runs: Runs) -> None:
        self._sessions, self._runs = sessions, runs

    def watch(self, work: Work, now: Now) -> None:
        """Say of attempts that live beside the newest of their run, once each."""
        for session in self._sessions.by_id.values():
            state, attempt = self._runs.states[session.stream.run], session.stream.attempt
            if attempt == state.run.attempt or session.hello.replay or attempt in state.beside:
                continue
            if session.heard_s > state.begun_s + SURE_S:
                state.beside = (*state.beside, attempt)
                _tell(
                    state,
                    f"{describe_beside(state.beside, state.run.attempt)} Likely two seeds of one script.",
                    attempt,
                    work,
                    now,
                )

    def part(self, session: LiveSession, how: str, work: Work, now: Now) -> None:
        """A process of an older attempt is gone: say so with the last of it, since the run's state is not about it."""
        state, attempt = self._runs.states[session.stream.run], session.stream.attempt
        if attempt in state.beside and not self._sessions.of_attempt(session.stream.run, attempt):
            state.beside = tuple(other for other in state.beside if other != attempt)
            text = f"Attempt {attempt}, which trained beside attempt {state.run.attempt}, is over: {how}."
            _tell(state, text, attempt, work, now)


def _tell(state: RunState, text: str, attempt: int, work: Work, now: Now) -> None:
    stream = Stream(state.run.run, state.run.attempt, min(state.ranks, default=0))
    detail: dict[str, Scalar] = {"attempt": attempt}
    work.events.append(EventRecord(stream, "", -1, state.update_last or 0, now.unix_ns, KIND, text, detail))
    work.changed.add(state.run.run)
