"""The commands of one run: a pure machine over their records.

requested → delivered → applied → ended. Only RESULTs of the agent make one applied, ended or rejected; the daemon may take
back what has not begun, let it expire, put another in its place, or lose it with the attempt. A state never goes back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts.control import ControlState, Verb
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.escalate import ranks as of_ranks
from gradwatch_daemon.records.commands import OPERATOR, ArtifactRecord, CommandRecord

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from gradwatch_daemon.records.commands import RequestCommand

State = ControlState

CLOSED_MAX = 64
"""Commands that are over and kept per run, oldest given up first; an id that is older is found in the store."""


class Commands:
    """All open commands of one run, and those that ended last."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._records: dict[str, CommandRecord] = {}

    def load(self, records: Iterable[CommandRecord]) -> None:
        """Take over records from the store."""
        self._records.update({record.id: record for record in records})

    def records(self) -> tuple[CommandRecord, ...]:
        """Open and recently ended ones, oldest first."""
        return tuple(self._records.values())

    def open(self) -> list[CommandRecord]:
        """Those that anything may still become of, oldest first."""
        return [record for record in self._records.values() if record.state.open]

    def get(self, id_: str) -> CommandRecord | None:
        """The record of an id, or None when it is not known here (the store may know it)."""
        return self._records.get(id_)

    def of_verb(self, verb: str) -> CommandRecord | None:
        """The open command of a verb."""
        return next((record for record in self.open() if record.verb == verb), None)

    def request(
        self, request: RequestCommand, origin: str, now_ns: int, ranks: Iterable[int], not_before: int = 0
    ) -> list[CommandRecord]:
        """Open a command for these ranks; what changed, the new one last. It must not be known yet.

        One of a verb at a time: a person's request puts itself in the place of a rule's that has not begun.

        Raises:
            GradwatchError: `command-under-way`.
        """
        other = self.of_verb(request.verb)
        changed = []
        if other is not None:
            if other.state is State.APPLIED or other.origin == OPERATOR or origin != OPERATOR:
                raise GradwatchError(
                    "command-under-way",
                    where=f"{self._run} {request.verb}",
                    expected="none of this verb open",
                    got=f"{other.id}, asked for by {other.origin} and {other.state.value}",
                )
            changed.append(self._close(other, State.SUPERSEDED, f"superseded by {request.id}"))
        if len(self.open()) >= limits.COMMANDS_OPEN_MAX:
            expected = f"at most {limits.COMMANDS_OPEN_MAX} open commands"
            raise GradwatchError("command-under-way", where=self._run, expected=expected, got=f"{len(self.open())}")
        made = CommandRecord(
            request.id,
            self._run,
            request.verb,
            dict(request.args),
            origin,
            request.reason,
            State.REQUESTED,
            now_ns,
            now_ns + int(request.expires_s * 1e9),
            request.rank,
            not_before,
            ranks=of_ranks.asked(ranks),
        )
        return [*changed, self._keep(made)]

    def waiting_for(self, rank: int) -> list[CommandRecord]:
        """Those that a rank has not answered yet: what to say to it when it connects."""
        states = (State.REQUESTED, State.DELIVERED)
        return [record for record in self.open() if any(one.rank == rank and one.state in states for one in record.ranks)]

    def taken_back_from(self, rank: int) -> list[CommandRecord]:
        """Those that a rank was told of, or has begun, and shall not do: what to say to it when it connects."""
        states = (State.DELIVERED, State.APPLIED)
        return [
            record
            for record in self._records.values()
            if is_taken_back(record) and any(one.rank == rank and one.state in states for one in record.ranks)
        ]

    def delivered(self, id_: str, rank: int) -> list[CommandRecord]:
        """A rank was told. Returns what changed."""
        record = self._records.get(id_)
        return [] if record is None else self._sum_up(record, of_ranks.told(record.ranks, rank))

    def result(self, id_: str, rank: int, state: str, update: int, reason: str) -> list[CommandRecord]:
        """What a rank says became of one: "applied", "ended" or "rejected" at an update. Returns what changed.

        A repeat changes nothing. What a rank still did with one that was taken back is noted with that rank, and does not
        bring it back.
        """
        record = self._records.get(id_)
        if record is None:
            return []
        empty = record.verb == Verb.PROFILE and record.artifact is None and not record.ended_why
        if empty and state == State.ENDED.value:
            state, reason = State.REJECTED.value, f"failed: the trace did not come whole ({reason})"
        return self._sum_up(record, of_ranks.heard(record.ranks, rank, State(state), update, reason))

    def received(self, id_: str, artifact: ArtifactRecord) -> list[CommandRecord]:
        """All of its file has come. Returns what changed."""
        record = self._records.get(id_)
        return [] if record is None else [self._keep(replace(record, artifact=artifact))]

    def cancel(self, id_: str, why: str) -> list[CommandRecord]:
        """Take one back. One that has not begun is cancelled at once; one that has ends when the agent says so.

        Returns what changed: nothing for an unknown, ended or already taken back one.
        """
        record = self._records.get(id_)
        if record is None or not record.state.open or record.ended_why:
            return []
        if any(one.state is State.APPLIED for one in record.ranks):
            return [self._keep(replace(record, ended_why=why))]
        return [self._close(record, State.CANCELLED, why)]

    def rejoin(self, rank: int) -> list[CommandRecord]:
        """A rank that was given up has greeted again, and is asked anew. Returns what changed."""
        joined = [(record, of_ranks.back(record.ranks, rank)) for record in self.open()]
        return [self._keep(replace(record, ranks=ranks)) for record, ranks in joined if ranks != record.ranks]

    def expire(self, now_ns: int, heard: Container[int]) -> list[CommandRecord]:
        """Give up at its deadline what no rank has begun, and of what one has, the ranks that have not or are not `heard` (the
        connected ones). Returns what changed."""
        changed = []
        for record in [record for record in self.open() if record.expires_ns <= now_ns]:
            if any(one.applied is not None for one in record.ranks):
                changed += self._sum_up(record, of_ranks.overdue(record.ranks, heard))
            else:
                changed.append(self._close(record, State.EXPIRED, of_ranks.NOT_BEGUN))
        return changed

    def lose_rank(self, rank: int, why: str) -> list[CommandRecord]:
        """A process ended: it will not answer any more. Returns what changed."""
        changed = []
        for record in self.open():
            changed += self._sum_up(record, of_ranks.gone(record.ranks, rank, why))
        return changed

    def lose_all(self, why: str) -> list[CommandRecord]:
        """The attempt is over: nothing more can become of the open ones. Returns them."""
        return [self._close(record, State.LOST, why) for record in self.open()]

    def _sum_up(self, record: CommandRecord, ranks: of_ranks.Ranks) -> list[CommandRecord]:
        if ranks == record.ranks:
            return []
        changed = replace(record, ranks=ranks)
        if record.state.open:
            state, applied, ended, why = of_ranks.summary(ranks)
            state, applied = of_ranks.onward(record.state, state), record.update_applied if applied is None else applied
            changed = replace(
                changed, state=state, update_applied=applied, update_ended=ended, ended_why=record.ended_why or why
            )
        return [self._keep(changed)]

    def _close(self, record: CommandRecord, state: State, why: str) -> CommandRecord:
        return self._keep(replace(record, state=state, ended_why=why))

    def _keep(self, record: CommandRecord) -> CommandRecord:
        self._records[record.id] = record
        if not record.state.open:
            closed = [other for other in self._records.values() if not other.state.open]
            if len(closed) > CLOSED_MAX:
                del self._records[closed[0].id]
        return record


def is_taken_back(record: CommandRecord) -> bool:
    """Whether its trainer shall no longer do it, or end what it does."""
    return bool(record.ended_why) if record.state.open else record.state in _TAKEN_BACK


_TAKEN_BACK = (State.CANCELLED, State.EXPIRED, State.SUPERSEDED)


def check_same(known: CommandRecord, request: RequestCommand, origin: str) -> None:
    """Refuse another content under an id that was used.

    Raises:
        GradwatchError: `idempotency-mismatch`, with both.
    """
    was = (known.verb, dict(known.args), known.reason, known.rank, known.origin)
    asked = (request.verb, dict(request.args), request.reason, request.rank, origin)
    if was != asked:
        raise GradwatchError(
            "idempotency-mismatch",
            where=f"command {request.id}",
            expected=f"{known.verb} {dict(known.args)} ({known.origin}: {known.reason})"[:200],
            got=f"{request.verb} {dict(request.args)} ({origin}: {request.reason})"[:200],
        )
