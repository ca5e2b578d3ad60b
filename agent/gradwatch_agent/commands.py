"""What this process is asked to do, each thing once and only between two updates: commands, and the verbs they name.

The link thread takes commands in, the trainer thread does them. Pure: the update and the time are arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts.control import CANCEL, Verb
from gradwatch_contracts.messages import Command

if TYPE_CHECKING:
    from collections.abc import Iterable

INBOX_MAX = 64
"""Commands taken in between two updates; the daemon has at most 16 open ones, and says those again that are not answered."""

SEEN_MAX = 1024
"""Ids remembered, newest kept: a command that is said again on a new connection is not done again."""

Begin = Callable[[Command, int], "str | None"]
"""Begins a command at an update. Returns what was done, or None where it goes on and its end is told later; whatever it
raises is told as the failure of the command."""

Stop = Callable[[str], None]
"""Ends what goes on under this id of a command, early."""


def _no_stop(id_: str) -> None:
    """Of a verb that is done as soon as it has begun."""


class Verbs:
    """What this trainer can be asked for: verb → how it begins, and how it is ended early where it goes on."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Begin, Stop]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What HELLO declares, in order of their names."""
        return tuple(sorted(self._known))

    def add(self, name: str, begin: Begin, stop: Stop = _no_stop) -> bool:
        """Declare a verb, or give a known one another beginning. Returns whether it is new: then the daemon is to be told."""
        new = name not in self._known
        self._known[name] = begin, stop
        return new

    def clear(self) -> None:
        """Nothing can be asked for any more: forget the functions, and what they hold of a trainer that is over."""
        self._known.clear()

    def begin(self, command: Command, update: int) -> str | None:
        """Begin a command; see `Begin`. KeyError for a verb that was never added."""
        return self._known[command.verb][0](command, update)

    def stop(self, command: Command) -> None:
        """End it early."""
        self._known[command.verb][1](command.id)

    def __contains__(self, name: object) -> bool:
        return name in self._known


@dataclass(frozen=True, slots=True)
class Due:
    """What an update boundary has to do: begin these, end those early, and say of the others why they are never begun."""

    begin: tuple[Command, ...] = ()
    stop: tuple[Command, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


NOTHING = Due()


class Commands:
    """The commands of this process. `receive` belongs to the link thread, all else to the trainer's."""

    def __init__(self) -> None:
        self._inbox: deque[Command] = deque()
        self._waiting: list[Command] = []
        self._running: dict[str, Command] = {}
        self._handed: dict[str, Command] = {}
        self._seen: dict[str, None] = {}

    @property
    def running(self) -> Iterable[Command]:
        """Those that were begun and are not over, but for those handed over."""
        return tuple(self._running.values())

    @property
    def idle(self) -> bool:
        """Whether `due` would find nothing: no command came, and none waits."""
        return not (self._inbox or self._waiting)

    def is_running(self, id_: str) -> bool:
        """Whether it was begun and is neither over nor taken back."""
        return id_ in self._running

    def receive(self, command: Command) -> None:
        """Take a command in. One that is too many is dropped: it was not answered, so the daemon says it again."""
        if len(self._inbox) < INBOX_MAX:
            self._inbox.append(command)

    def due(self, update: int, now_unix_ns: int, verbs: Verbs) -> Due:
        """What is to be done before `update` begins; each id at most once in the life of this object. What is more than a
        daemon may have open is refused, so at most `INBOX_MAX` at a time."""
        if self.idle:
            return NOTHING
        # The thread that packs a trace may end one between a look and a pop.
        stop = [command for id_ in self._take_in() if (command := self._running.pop(id_, None)) is not None]
        begin: list[Command] = []
        refused: list[tuple[str, str]] = []
        waiting: list[Command] = []
        for command in self._waiting:
            if 0 < command.expires_unix_ns <= now_unix_ns:
                refused.append((command.id, "expired: it came, or its update came, after its deadline"))
            elif command.verb not in verbs:
                refused.append((command.id, f"this trainer has no {command.verb}"))
            elif len(waiting) + len(self._running) + len(self._handed) >= limits.COMMANDS_OPEN_MAX:
                refused.append((command.id, f"more than {limits.COMMANDS_OPEN_MAX} commands at once"))
            elif command.not_before_update > update:
                waiting.append(command)
            else:
                begin.append(command)
                self._running[command.id] = command
        self._waiting = waiting
        return Due(tuple(begin), tuple(stop), tuple(refused))

    def hand_over(self, id_: str) -> None:
        """From now on another thread ends it, soon, unless it has done so already."""
        command = self._running.get(id_)
        if command is not None:
            self._handed[id_] = command
            if self._running.pop(id_, None) is None:  # ended meanwhile
                self._handed.pop(id_, None)

    def end(self, id_: str) -> bool:
        """Say that one is over; whether it was under way."""
        found = self._running.pop(id_, None), self._handed.pop(id_, None)
        return found != (None, None)

    def _take_in(self) -> list[str]:
        """Empty the inbox into what waits; the ids that are taken back."""
        back: list[str] = []
        for _ in range(len(self._inbox)):
            command = self._inbox.popleft()
            if command.verb == CANCEL:
                self._waiting = [other for other in self._waiting if other.id != command.id]
                self._remember(command.id)  # a cancellation may overtake what it cancels
                back.append(command.id)
            elif command.id not in self._seen:
                self._remember(command.id)
                self._waiting.append(command)
        return back

    def _remember(self, id_: str) -> None:
        self._seen[id_] = None
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]


class StopFlag:
    """Whether the trainer was asked to stop, and whether it has heard. `id` is that of the command, '' while there is none."""

    def __init__(self) -> None:
        self.id = ""
        self.heard = False

    def begin(self, command: Command, update: int) -> None:
        """Raise it. It stays up until the trainer ends, or the command is taken back."""
        self.id = command.id

    def drop(self, id_: str) -> None:
        """Take it back, unless another command asks for it."""
        if self.id == id_:
            self.id, self.heard = "", False

    def asked(self) -> bool:
        """The trainer looks."""
        self.heard = bool(self.id)
        return self.heard

    @property
    def outcome(self) -> str:
        """How a command ends that the trainer's end has ended."""
        return "the trainer stopped" if self.heard else "the trainer ended without looking at should_stop again"


OWN_VERBS = frozenset({Verb.STOP.value, Verb.DUMP.value, Verb.PROFILE.value, CANCEL})
"""Verbs of ours: a trainer cannot give them another meaning. `checkpoint` is the trainer's to give."""
