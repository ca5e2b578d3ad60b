"""Who comes and goes: HELLO, BYE and silence, and what they make of runs, attempts and sessions."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.greeting import check_extent
from gradwatch_contracts.names import ID, RUN, check_name
from gradwatch_daemon.anomalies.closing import ANOTHER_ATTEMPT
from gradwatch_daemon.anomalies.liveness import Vital, describe_end, judge_silent
from gradwatch_daemon.ingest.session import LiveSession
from gradwatch_daemon.pipeline.beside import Beside
from gradwatch_daemon.pipeline.runs import NO_ANSWER, PROCESS_ENDED, PROCESS_GONE, Silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_daemon.ingest.gate import Passed
    from gradwatch_daemon.ingest.processes import Processes
    from gradwatch_daemon.ingest.session import Sessions
    from gradwatch_daemon.pipeline.pace import Pace
    from gradwatch_daemon.pipeline.runs import Runs, RunState
    from gradwatch_daemon.pipeline.work import Now, Work
    from gradwatch_daemon.records import Counters, Session


STATE_AFTER = {
    "exception": "crashed",
    "interrupted": "stopped",
    "stopped": "stopped",
    "imported": "imported",
    "lost": "lost",
}
"""Reason of a BYE → state of the run; any other reason is a normal end."""


class Reception:
    """Greets and says goodbye. `recorded` finds a session that is not connected, whose last sequence number decides what is
    a duplicate. `secret` is what a HELLO over TCP must hold; '' where file permissions already decide."""

    def __init__(
        self,
        sessions: Sessions,
        runs: Runs,
        senses: tuple[Pace, Processes],
        recorded: Callable[[str], Session | None],
        counters: Counters,
        *,
        secret: str,
    ) -> None:
        self._sessions = sessions
        self._pace, self._processes = senses
        self._runs = runs
        self._recorded = recorded
        self._counters = counters
        self._secret = secret
        self.beside = Beside(sessions, runs)

    def greet(self, passed: Passed, work: Work, now: Now) -> None:
        """Open a session for every HELLO, or refuse it. The WELCOME goes out after the commit."""
        for peer, hello in passed.hellos:
            refusal = self._refusal(peer, hello)
            if refusal is None:
                self._open(peer, hello, work, now)
                continue
            self._counters.refused[refusal.code] = self._counters.refused.get(refusal.code, 0) + 1
            passed.replies.append((peer, refusal))

    def part(self, passed: Passed, work: Work, now: Now) -> None:
        """Close the sessions that said BYE or fell silent; a run with none left has ended, or is lost."""
        ended = [(session, STATE_AFTER.get(bye.reason, "finished")) for session, bye in passed.byes]
        ended += [(session, "lost") for session in self._sessions.silent(now.mono_s)]
        for session, how in ended:
            self._sessions.close(session)
            state = self._runs.states[session.stream.run]
            self._pace.leave(state.judged(session.stream), session.stream.rank)
            if session.stream.attempt == state.run.attempt:
                self._leave(state, session, how, work, now)
                if how != "lost" or session.gone:
                    state.lose(session.stream.rank, PROCESS_GONE if session.gone else PROCESS_ENDED, work)
            else:
                self.beside.part(session, how, work, now)
            if session.id not in state.silent:
                self._processes.forget(session.id)
        for session, how in ended:
            # All of a run may fall silent at once, with their network; they may yet do what they were asked for.
            state = self._runs.states[session.stream.run]
            unseen = how == "lost" and not session.gone and session.id not in state.silent
            if unseen and state.live and session.stream.attempt == state.run.attempt:
                state.lose(session.stream.rank, NO_ANSWER, work)

    def _leave(self, state: RunState, session: LiveSession, how: str, work: Work, now: Now) -> None:
        """One process of the present attempt is gone. The run ends with the last, as badly as the worst of them."""
        run = state.run.run
        state.live = self._sessions.count(run, state.run.attempt)
        state.crashed |= how == "crashed"
        heard_ns = now.unix_ns - int((now.mono_s - session.heard_s) * 1e9)
        if how == "lost" and not session.gone and self._processes.state(session.id):
            state.silent[session.id] = Silent(session.hello.pid, heard_ns, session.stream.rank)
        if state.live == 0:
            how = "crashed" if state.crashed else how
            if how == "lost":
                # What is recorded must still be true when the daemon is back and can no longer see the process.
                state.end(judge_silent("gone" if session.gone else "", session.hello.pid, heard_ns), now.unix_ns)
            else:
                state.end(Vital(how, describe_end(how, state.update_last, state.exception, now.unix_ns)), now.unix_ns)
        work.runs[run] = state.run
        work.changed.add(run)

    def _refusal(self, peer: bytes, hello: m.Hello) -> m.Refuse | None:
        if self._secret and not hmac.compare_digest(hello.secret.encode(), self._secret.encode()):
            return m.Refuse("secret-wrong", "HELLO.secret")
        try:
            check_name(hello.run, RUN, "HELLO.run")
            check_name(hello.session, ID, "HELLO.session")
            check_extent(hello)
        except GradwatchError as error:
            return m.Refuse(error.code.slug, error.detail)
        if self._sessions.is_full(peer, hello.session):
            most = limits.SESSIONS_OF_PEER_MAX
            return m.Refuse("invalid-argument", f"HELLO.session: expected at most {most} of one connection, got one more")
        return None

    def _open(self, peer: bytes, hello: m.Hello, work: Work, now: Now) -> None:
        known = self._runs.states.get(hello.run)
        attempt_before = known.run.attempt if known is not None else 0
        live = self._sessions.by_id.get(hello.session)
        recorded = live.record if live is not None else self._recorded(hello.session)
        state, session = self._runs.greet(hello, recorded, now.unix_ns)
        if attempt_before and state.run.attempt != attempt_before:
            state.begun_s = now.mono_s
            work.escalated(state.escalations.lose_all(ANOTHER_ATTEMPT))
            work.commanded(state.commands.lose_all(ANOTHER_ATTEMPT))
            work.noted(state.close_anomalies(ANOTHER_ATTEMPT))
            for before in state.silent:
                self._processes.forget(before)
            state.silent.clear()
        opened = LiveSession(hello.session, peer, session.stream, hello, session.last_seq, session.last_seq, now.mono_s)
        if live is not None and live.peer == peer:
            # A HELLO that was repeated because we were slow: rows that are on their way behind it name schemas we know, and
            # each one refused would count against an honest sender.
            opened.schemas.update(live.schemas)
        self._sessions.open(opened)
        self._processes.watch(opened.id, hello.host, hello.pid, hello.started_unix_ns)
        self._pace.greet(state.judged(session.stream), session.stream.rank, now)
        state.silent.pop(opened.id, None)
        if not hello.replay and session.stream.attempt == state.run.attempt:
            work.escalated(state.escalations.rejoin(hello.rank))
            work.commanded(state.commands.rejoin(hello.rank))
        if hello.replay and session.stream.attempt == state.run.attempt:
            state.vital = Vital("live", "Records of an earlier time come in.")
        state.live = self._sessions.count(hello.run, state.run.attempt)
        work.runs[hello.run] = state.run
        work.sessions[session.session] = session
        work.changed.add(hello.run)
        work.welcomes.append(opened)
