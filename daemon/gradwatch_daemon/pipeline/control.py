"""Between HTTP or a rule and the trainers: who may be asked for what, who is told of it, and what became of it."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.control import CANCEL, ControlState, Severity, Verb
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_daemon.escalate.commands import check_same, is_taken_back
from gradwatch_daemon.escalate.policy import Policy
from gradwatch_daemon.records.commands import (
    ANOMALY_ORIGIN,
    OPERATOR,
    ArtifactRecord,
    Calm,
    CancelCommand,
    CancelEscalation,
    RequestCommand,
    RequestEscalation,
)
from gradwatch_daemon.store.artifacts import safe_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gradwatch_daemon.ingest.session import LiveSession, Sessions
    from gradwatch_daemon.pipeline.runs import Runs, RunState
    from gradwatch_daemon.pipeline.work import Now, Work
    from gradwatch_daemon.records import Anomaly, Escalation, RunView, Stream
    from gradwatch_daemon.records.commands import CommandRecord, CommandRequest, ControlRequest, SetLevel
    from gradwatch_daemon.store.artifacts import ArtifactFiles
    from gradwatch_daemon.store.protocol import Keep, Store


WARNING = Severity.WARNING.rank

LOG = logging.getLogger("gradwatch.daemon")

EXPIRE_S = 1.0
"""How late a deadline may be noticed."""


class Control:
    """The commands and escalations of all runs. `send` hands a frame to a peer, and says whether it took it; `same_update` says
    from which update on all ranks of a run can do something alike."""

    def __init__(
        self,
        runs: Runs,
        sessions: Sessions,
        store: Store,
        send: Callable[[bytes, bytes], bool],
        *,
        files: ArtifactFiles | None = None,
        policy: Policy | None = None,
        same_update: Callable[[RunState], int],
    ) -> None:
        self._runs, self._sessions, self._store, self._send, self._files = runs, sessions, store, send, files
        self._policy, self._same_update = policy or Policy(), same_update
        self._looked_s = -math.inf
        if files is not None:
            files.under_way = self._under_way

    def grant(self, request: ControlRequest, work: Work, now: Now) -> object:
        """Do what was asked for over HTTP; the record as it is now: a command, an escalation or a view of the run.

        Raises:
            GradwatchError: `run-not-found`, or what of the run or of the request is in the way; then nothing has changed.
        """
        state = self._runs.states.get(request.run)
        if state is None:
            raise GradwatchError("run-not-found", where="run", got=repr(request.run))
        if isinstance(request, (RequestCommand, CancelCommand)):
            return self._command(state, request, work, now)
        if isinstance(request, (RequestEscalation, CancelEscalation)):
            record: object = self._escalation(state, request, work, now)
        else:
            record = self._level(state, request, work)
        work.redeliver.add(request.run)
        work.changed.add(request.run)
        return record

    def meet(self, work: Work) -> None:
        """Trainers greeted, who say where they are: one that went on while there was no daemon is past the update that its
        ranks should have begun at together, and all get another."""
        for session in work.welcomes:
            state = self._runs.states[session.stream.run]
            if state.run.world == 1 or session.hello.replay or session.stream.attempt != state.run.attempt:
                continue
            state.running = max(state.running, session.hello.update_next)
            if state.escalations.move_on(session.hello.update_next, self._same_update(state)):
                work.redeliver.add(session.stream.run)
                work.changed.add(session.stream.run)

    def _command(self, state: RunState, request: CommandRequest, work: Work, now: Now) -> CommandRecord:
        known = state.commands.get(request.id) or self._store.command(request.run, request.id)
        if isinstance(request, CancelCommand):
            if known is None:
                raise GradwatchError("command-not-found", where="id", got=repr(request.id))
            changed = state.commands.cancel(request.id, "cancelled by an operator") if known.state.open else []
            work.commanded(changed)
            return changed[-1] if changed else known
        if known is not None:
            check_same(known, request, OPERATOR)
            return known
        changed = state.commands.request(
            request, OPERATOR, now.unix_ns, self._targets(state, request), self._same_update(state)
        )
        work.commanded(changed)
        return changed[-1]

    def _escalation(self, state: RunState, request: RequestEscalation | CancelEscalation, work: Work, now: Now) -> Escalation:
        known = state.escalations.get(request.id) or self._store.escalation(request.run, request.id)
        if isinstance(request, CancelEscalation):
            if known is None:
                raise GradwatchError("escalation-not-found", where="id", got=repr(request.id))
            changed = state.escalations.cancel(request.id, "cancelled by an operator") if known.state.open else []
            work.escalated(changed)
            return changed[-1] if changed else known
        kind = self._kind(state, request.origin)
        if known is None:
            self._need_trainer(state)
            if request.origin != OPERATOR:
                self._policy.check(request, kind, state.escalations.records(), state.update_last or 0)
        same_update = self._same_update(state)
        record = state.escalations.request(request, request.origin, now.unix_ns, known, same_update=same_update, kind=kind)
        if known is None:
            work.escalated([record])
        return record

    def _kind(self, state: RunState, origin: str) -> str:
        """The kind of the anomaly in whose name something is asked for, '' for an operator."""
        id_ = origin.removeprefix(ANOMALY_ORIGIN)
        anomaly = None if id_ == origin else state.open.get(id_) or self._store.anomaly(id_)
        return "" if anomaly is None else anomaly.kind

    def _level(self, state: RunState, request: Calm | SetLevel, work: Work) -> RunView:
        if isinstance(request, Calm):
            work.escalated(state.escalations.calm("cancelled by an operator", self._same_update(state)))
            state.run = replace(state.run, pin=None)
            return state.view()
        if request.base is not None or request.pin is not None:
            self._need_trainer(state)
        revision = state.escalations.desired().revision
        if request.revision is not None and request.revision != revision:
            raise GradwatchError("level-changed", where=request.run, expected=f"revision {revision}", got=str(request.revision))
        if request.base is not None:
            state.escalations.set_base(request.base, self._same_update(state))
        if request.pin is not None or request.unpin:
            state.escalations.set_pin(request.pin, self._same_update(state))
        desired = state.escalations.desired()
        state.run = replace(state.run, base=desired.base, pin=desired.pin, revision=desired.revision)
        return state.view()

    def _need_trainer(self, state: RunState) -> None:
        if not state.live:
            got = f"a run that is {state.run.state}"
            raise GradwatchError("run-not-live", where=state.run.run, expected="a connected trainer", got=got)

    def issue(self, verb: str, anomaly: Anomaly, reason: str, work: Work, now: Now) -> str:
        """Ask the trainer of an anomaly's run for something by ourselves, once; why that cannot be now, '' where it was."""
        state = self._runs.states[anomaly.run]
        request = RequestCommand(anomaly.run, f"{verb}-{anomaly.id}"[:64], verb, {}, reason)
        if state.commands.get(request.id) or self._store.command(request.run, request.id):
            return ""
        origin = f"{ANOMALY_ORIGIN}{anomaly.id}"
        try:
            targets = self._targets(state, request)
            changed = state.commands.request(request, origin, now.unix_ns, targets, self._same_update(state))
        except GradwatchError as error:
            return error.sentence
        work.commanded(changed)
        return ""

    def look_back(self, work: Work, now: Now) -> None:
        """Ask for the black box where an anomaly of warning or above fires: it holds the updates before the fault, and costs
        the trainer next to nothing, so no budget bounds it."""
        for anomaly in work.anomalies.values():
            state = self._runs.states[anomaly.run]
            state.looked_back &= state.open.keys()
            if anomaly.attempt != state.run.attempt or anomaly.id in state.looked_back:
                continue
            if anomaly.state == "firing" and anomaly.severity.rank >= WARNING:
                state.looked_back.add(anomaly.id)
                self.issue(Verb.DUMP.value, anomaly, f"{anomaly.severity.value} {anomaly.kind}", work, now)

    def restore(self) -> None:
        """After a restart: parts of files that nobody asks for any more are of trainers that died."""
        if self._files is not None:
            self._files.forget_parts(self._under_way())

    def _under_way(self) -> set[tuple[str, str]]:
        return {(record.run, record.id) for state in self._runs.states.values() for record in state.commands.open()}

    def thin_files(self, keep: Keep, now: Now) -> None:
        """Let retention take files; it is tried again in a minute where the disk refuses."""
        try:
            taken = 0 if self._files is None else self._files.thin(keep, now.unix_ns)
        except OSError as error:
            LOG.error("old files of commands cannot be deleted: %s", error)
            return
        if taken:
            LOG.info("%d files of commands were too old or too many, and are deleted", taken)

    def hear(self, stream: Stream, result: m.Result | m.Artifact, work: Work) -> None:
        """What a trainer says became of an escalation or a command, or a part of the file that it sends for one."""
        if isinstance(result, m.Artifact):
            self._store_chunk(stream, result, work)
            return
        state, said = self._runs.states[stream.run], (result.state, result.update, result.reason)
        if stream.attempt == state.run.attempt:
            work.escalated(state.escalations.result(result.id, *said, rank=stream.rank))
            work.commanded(state.commands.result(result.id, stream.rank, *said))

    def _store_chunk(self, stream: Stream, chunk: m.Artifact, work: Work) -> None:
        """Write a chunk; one that nobody asked this rank for is dropped. A file that cannot be written fails its command."""
        state = self._runs.states[stream.run]
        record = state.commands.get(chunk.id)
        asked = record is not None and record.state.open and _of_rank(record, stream.rank) is ControlState.APPLIED
        if not asked or self._files is None or stream.attempt != state.run.attempt:
            return
        try:
            size = self._files.write(stream.run, chunk.id, chunk.index, chunk.count, chunk.data)
        except OSError as error:
            LOG.error("the file of command %s of %s cannot be stored: %s", chunk.id, stream.run, error)
            return
        if size is not None:
            work.commanded(state.commands.received(chunk.id, ArtifactRecord(safe_name(chunk.name), size)))

    def expire(self, work: Work, now: Now) -> None:
        """Give up what no rank has begun by its deadline, and the ranks that hold up what others began; looks once in
        `EXPIRE_S`."""
        if now.mono_s - self._looked_s < EXPIRE_S:
            return
        self._looked_s = now.mono_s
        connected: dict[str, set[int]] = {}
        for session in self._sessions.by_id.values():
            stream = session.stream
            if stream.attempt == self._runs.states[stream.run].run.attempt and not session.hello.replay:
                connected.setdefault(stream.run, set()).add(stream.rank)
        for run, state in self._runs.states.items():
            heard = connected.get(run, set())
            work.commanded(state.commands.expire(now.unix_ns, heard))
            late = state.escalations.expire(now.unix_ns, heard)
            if late:
                work.escalated(late)
                work.redeliver.add(state.run.run)

    def deliver_level(self, work: Work) -> list[Escalation]:
        """Send the desired state where it changed. Delivered means: handed to the connection of a live session."""
        delivered: list[Escalation] = []
        for run in work.redeliver:
            state = self._runs.states[run]
            frame = encode(m.LevelMessage(state.escalations.desired()))
            live = self._sessions.of_attempt(run, state.run.attempt)
            told = [session.stream.rank for session in live if self._send(session.peer, frame)]
            if told:
                delivered += state.escalations.delivered(told)
        return delivered

    def deliver(self, work: Work) -> list[CommandRecord]:
        """Tell the trainers, after the commit, of what is new or taken back, and those who greeted of all that is open.

        Returns what is delivered by it: handed to the connection of a live session.
        """
        delivered: list[CommandRecord] = []
        for record in list(work.commands.values()):
            state = self._runs.states[record.run]
            for session in self._live(state):
                if is_taken_back(record):
                    self._take_back(session, [record])
                elif _of_rank(record, session.stream.rank) is ControlState.REQUESTED:
                    delivered += self._tell(state, session, [record])
        for session in work.welcomes:
            state = self._runs.states[session.stream.run]
            if session.stream.attempt == state.run.attempt:
                delivered += self._tell(state, session, state.commands.waiting_for(session.stream.rank))
                self._take_back(session, state.commands.taken_back_from(session.stream.rank))
        return delivered

    def _tell(self, state: RunState, session: LiveSession, records: Iterable[CommandRecord]) -> list[CommandRecord]:
        changed: list[CommandRecord] = []
        for record in records:
            command = m.Command(record.id, record.verb, dict(record.args), record.not_before, record.expires_ns)
            if self._send(session.peer, encode(command)):
                changed += state.commands.delivered(record.id, session.stream.rank)
        return changed

    def _take_back(self, session: LiveSession, records: Iterable[CommandRecord]) -> None:
        for record in records:
            if _of_rank(record, session.stream.rank) is not None:
                self._send(session.peer, encode(m.Command(record.id, CANCEL)))

    def listens(self, state: RunState) -> bool:
        """Whether a trainer is there: rows that were recorded earlier have nobody who could do anything."""
        return bool(self._live(state))

    def _live(self, state: RunState) -> list[LiveSession]:
        return [s for s in self._sessions.of_attempt(state.run.run, state.run.attempt) if not s.hello.replay]

    def _targets(self, state: RunState, request: RequestCommand) -> list[int]:
        """The ranks to ask.

        Raises:
            GradwatchError: `run-not-live`, `rank-not-live` or `unsupported-by-run`.
        """
        live = self._live(state)
        if not live:
            got = f"a run that is {state.run.state}"
            raise GradwatchError("run-not-live", where=request.run, expected="a connected trainer", got=got)
        ranks = sorted(session.stream.rank for session in live)
        if request.rank is not None and request.rank not in ranks:
            expected = f"one of {', '.join(map(str, ranks[:20]))}"
            raise GradwatchError("rank-not-live", where=f"{request.run} rank", expected=expected, got=str(request.rank))
        rank = ranks[0] if request.rank is None and request.verb == Verb.PROFILE else request.rank
        wanted = [session for session in live if rank in (None, session.stream.rank)]
        for session in wanted:
            if request.verb not in session.hello.verbs:
                raise _unsupported(request, session)
        return [session.stream.rank for session in wanted]


def _of_rank(record: CommandRecord, rank: int) -> ControlState | None:
    """How a rank stands to a command; None for one that was not asked."""
    return next((one.state for one in record.ranks if one.rank == rank), None)


DECLARED_BY = {
    "stop": "The trainer must look at `mon.should_stop`; with several ranks it needs watch(agree=...).",
    "checkpoint": 'Add `mon.on_command("checkpoint", save)` to the trainer.',
    "dump": "Its agent is older than this verb, or its level is OFF: upgrade it.",
    "profile": "It needs torch in the trainer, and an agent that is not older than this verb.",
}
"""Verb → what makes a trainer declare it."""


def _unsupported(request: RequestCommand, session: LiveSession) -> GradwatchError:
    verbs = session.hello.verbs
    hint = nearest(request.verb, verbs)
    own = f'Add `mon.on_command("{request.verb}", function)` to the trainer.'
    return GradwatchError(
        "unsupported-by-run",
        where=f"{request.run} rank {session.stream.rank}",
        expected=f"one of {', '.join(verbs)}" if verbs else "a verb the trainer declares; it declares none",
        got=repr(request.verb),
        next_step=f"Did you mean {hint}?" if hint else DECLARED_BY.get(request.verb, own),
    )
