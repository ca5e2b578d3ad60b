"""The escalations of one run: a pure machine over their records, and the desired state that follows from them.

requested → delivered → applied → ended. Only the agents' RESULTs make one applied, ended or rejected; the daemon may
cancel one that has not applied or let it expire, take an applied one back (the agent then ends it and says so), or lose them
all with the attempt. A state never goes back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts.control import Active, ControlState, Desired, Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.escalate import ranks as of_ranks
from gradwatch_daemon.records import Escalation

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from gradwatch_daemon.records.commands import RequestEscalation

State = ControlState
_WORDS = {state.value: state for state in (State.APPLIED, State.ENDED, State.REJECTED)}

CLOSED_MAX = 256
"""Ended escalations kept per run, oldest given up first: the budget of the rules looks back over at most 10 of its own,
and an id that is older is found in the store."""


class Escalations:
    """All open escalations of one run, and the recently ended ones."""

    def __init__(self, run: str, base: Level = Level.NORMAL, pin: Level | None = None, revision: int = 0) -> None:
        self._run = run
        self._base = base
        self._pin = pin
        self._revision = revision
        self._records: dict[str, Escalation] = {}
        self._taken_back: set[str] = set()
        self._not_before: dict[str, int] = {}
        self._resumed: set[str] = set()
        self._level_from = 0

    def load(self, records: Iterable[Escalation]) -> None:
        """Take over records from the store. An applied one that was cancelled before stays taken back."""
        for record in records:
            self._records[record.id] = record
            if record.state is State.APPLIED and record.ended_why:
                self._taken_back.add(record.id)

    def records(self) -> tuple[Escalation, ...]:
        """Open and recently ended ones, oldest first."""
        return tuple(self._records.values())

    def get(self, id_: str) -> Escalation | None:
        """The record of an id, or None when it is not known here (the store may know it)."""
        return self._records.get(id_)

    def desired(self) -> Desired:
        """What the agent shall hold: base, pin and every open escalation that was not taken back."""
        wanted = [record for record in self._records.values() if self._wanted(record)]
        active = tuple(Active(e.id, e.level, e.updates, self._not_before.get(e.id, 0)) for e in wanted)
        return Desired(self._revision, self._base, self._pin, active, self._level_from)

    def resume(self, same_update: int) -> None:
        """After a restart: what no rank has begun waits for `same_update` again; what one has, the others may begin too. A rank
        at which base and pin hold already goes on with them meanwhile."""
        self._level_from = same_update
        for record in self._open():
            begun = [one.applied for one in record.ranks if one.applied is not None]
            self._not_before[record.id] = min(begun, default=same_update)
            if not begun:
                self._resumed.add(record.id)

    def move_on(self, running: int, same_update: int) -> bool:
        """A trainer greets in update `running`. What was resumed and begun by no rank waits for `same_update` instead,
        where that trainer is past the update it waited for; whether anything does."""
        late = [id_ for id_ in self._resumed if self._not_before[id_] <= running]
        self._not_before.update(dict.fromkeys(late, same_update))
        self._revision += bool(late)
        return bool(late)

    def request(
        self,
        request: RequestEscalation,
        origin: str,
        now_ns: int,
        stored: Escalation | None = None,
        *,
        same_update: int = 0,
        kind: str = "",
    ) -> Escalation:
        """Open an escalation; the same id with the same content again gives the record that exists.

        `stored` is what the store has under this id, for ids that are no longer known here. `same_update` is the update before
        which no rank begins with it; `kind` that of the anomaly in whose name this is asked for.

        Raises:
            GradwatchError: `idempotency-mismatch` for an id with other content, `too-many-escalations`, or
                `invalid-argument` for a duration out of range.
        """
        known = self._records.get(request.id, stored)
        if known is not None:
            same = (known.level, known.updates, known.reason, known.origin)
            if same != (request.level, request.updates, request.reason, origin):
                raise GradwatchError(
                    "idempotency-mismatch",
                    where=f"escalation {request.id}",
                    expected=f"{known.level.name.lower()} for {known.updates} updates ({known.origin}: {known.reason})",
                    got=f"{request.level.name.lower()} for {request.updates} updates ({origin}: {request.reason})",
                )
            return known
        if not 1 <= request.updates <= limits.ESCALATION_UPDATES_MAX:
            expected = f"1 to {limits.ESCALATION_UPDATES_MAX}"
            raise GradwatchError("invalid-argument", where="updates", expected=expected, got=str(request.updates))
        count = len(self._open())
        if count >= limits.ESCALATIONS_ACTIVE_MAX:
            expected = f"at most {limits.ESCALATIONS_ACTIVE_MAX} open escalations"
            raise GradwatchError("too-many-escalations", where=self._run, expected=expected, got=f"{count} open")
        record = Escalation(
            request.id,
            self._run,
            request.level,
            request.updates,
            origin,
            request.reason,
            State.REQUESTED,
            now_ns,
            expires_ns=now_ns + int(request.expires_s * 1e9),
            kind=kind,
        )
        self._revision += 1
        self._not_before[record.id] = same_update
        return self._keep(record)

    def delivered(self, ranks: Iterable[int] = (0,)) -> list[Escalation]:
        """The desired state was sent to these ranks: every one that waits is delivered. Returns those that changed."""
        changed = []
        for record in self._open():
            told = record.ranks
            for rank in ranks:
                told = of_ranks.told(of_ranks.joined(told, rank), rank)
            if told != record.ranks or record.state is State.REQUESTED:
                state = State.DELIVERED if record.state is State.REQUESTED else record.state
                changed.append(self._keep(replace(record, ranks=told, state=state)))
        return changed

    def cancel(self, id_: str, why: str = "cancelled") -> list[Escalation]:
        """End one early. One not applied yet is cancelled at once; an applied one only when the agent says it ended.

        Returns what changed: nothing for an unknown, ended or already taken back one.
        """
        record = self._records.get(id_)
        if record is None or not self._wanted(record):
            return []
        self._revision += 1
        if record.state is State.APPLIED:
            self._taken_back.add(id_)
            return [self._keep(replace(record, ended_why=why))]
        return [self._keep(replace(record, state=State.CANCELLED, ended_why=why))]

    def result(self, id_: str, state: str, update: int, reason: str, rank: int = 0) -> list[Escalation]:
        """What a rank says became of one: "applied", "ended" or "rejected" at an update. Returns what changed.

        A repeat changes nothing. What the agent still did with one that was cancelled or lost in the meantime is noted
        in its update fields, but does not bring it back.
        """
        record = self._records.get(id_)
        if record is None or state not in _WORDS:
            return []
        return self._sum_up(record, of_ranks.heard(of_ranks.joined(record.ranks, rank), rank, _WORDS[state], update, reason))

    def lose_rank(self, rank: int, why: str) -> list[Escalation]:
        """A process ended: it will not answer any more. Returns what changed."""
        changed = []
        for record in self._open():
            changed += self._sum_up(record, of_ranks.gone(record.ranks, rank, why))
        return changed

    def rejoin(self, rank: int) -> list[Escalation]:
        """A rank that was given up has greeted again, and is told the desired state. Returns what changed."""
        joined = [(record, of_ranks.back(record.ranks, rank)) for record in self._open()]
        return [self._keep(replace(record, ranks=ranks)) for record, ranks in joined if ranks != record.ranks]

    def expire(self, now_ns: int, heard: Container[int]) -> list[Escalation]:
        """Give up at its deadline what no rank has begun, and of what one has, the ranks that have not or are not `heard` (the
        connected ones). Returns what changed."""
        changed = []
        for record in [record for record in self._open() if 0 < record.expires_ns <= now_ns]:
            if any(one.applied is not None for one in record.ranks):
                changed += self._sum_up(record, of_ranks.overdue(record.ranks, heard))
            else:
                self._revision += self._wanted(record)
                changed.append(self._keep(replace(record, state=State.EXPIRED, ended_why=of_ranks.NOT_BEGUN)))
        return changed

    def calm(self, why: str, same_update: int = 0) -> list[Escalation]:
        """Take back every one and let go of the pin. Returns the escalations that changed."""
        self.set_pin(None, same_update)
        return [changed for record in self._open() for changed in self.cancel(record.id, why)]

    def _sum_up(self, record: Escalation, ranks: of_ranks.Ranks) -> list[Escalation]:
        if ranks == record.ranks:
            return []
        state, applied, ended, why = of_ranks.summary(ranks)
        state = of_ranks.onward(record.state, state)
        if any(one.applied is not None for one in ranks):
            self._resumed.discard(record.id)
        changed = replace(
            record,
            ranks=ranks,
            state=state if record.state.open else record.state,
            update_applied=applied if applied is not None else record.update_applied,
            update_ended=ended if state is State.ENDED else record.update_ended,
            ended_why=record.ended_why or why,
        )
        if self._wanted(record) and not changed.state.open:
            self._revision += 1
        return [self._keep(changed)]

    def lose_all(self, why: str) -> list[Escalation]:
        """The attempt is over: nothing more can become of the open ones. Returns them.

        What ended before is forgotten here: update numbers begin again, so it says nothing about the next attempt's budget.
        """
        self._records = {id_: record for id_, record in self._records.items() if record.state.open}
        lost = self._open()
        self._revision += bool(lost)
        return [self._keep(replace(record, state=State.LOST, ended_why=why)) for record in lost]

    def begin_attempt(self, base: Level) -> None:
        """Another attempt, with the base its trainer asks for and the pin there is, both from its first update on."""
        self.set_base(base)
        self._level_from = 0

    def set_base(self, base: Level, same_update: int = 0) -> None:
        """Change the level that holds without escalations, on no rank before `same_update`."""
        self._change(base, self._pin, same_update)

    def set_pin(self, pin: Level | None, same_update: int = 0) -> None:
        """Hold one level whatever is active, on no rank before `same_update`; None lets go."""
        self._change(self._base, pin, same_update)

    def _change(self, base: Level, pin: Level | None, same_update: int) -> None:
        if (base, pin) != (self._base, self._pin):
            self._revision += 1
            self._base, self._pin, self._level_from = base, pin, same_update

    def _open(self) -> list[Escalation]:
        return [record for record in self._records.values() if record.state.open]

    def _wanted(self, record: Escalation) -> bool:
        return record.state.open and record.id not in self._taken_back

    def _keep(self, record: Escalation) -> Escalation:
        self._records[record.id] = record
        if not record.state.open:
            self._taken_back.discard(record.id)
            self._resumed.discard(record.id)
            self._not_before.pop(record.id, None)
            self._forget()
        return record

    def _forget(self) -> None:
        closed = [record for record in self._records.values() if not record.state.open]
        if len(closed) > CLOSED_MAX:
            # Operators' first: what the rules have spent decides what they may still do.
            oldest = next((record for record in closed if record.origin == "operator"), closed[0])
            del self._records[oldest.id]
