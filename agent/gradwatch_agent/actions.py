"""Commands carried out: what the daemon asked for meets what the trainer offers, between two updates, on its own thread.

Nothing here ends, interrupts or waits for anything: a trainer that is asked to stop stops itself, when it next looks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gradwatch_agent.collect.host import LOGGER
from gradwatch_agent.commands import OWN_VERBS, Commands, StopFlag, Verbs
from gradwatch_agent.guard import text_of
from gradwatch_contracts import limits
from gradwatch_contracts.control import Verb
from gradwatch_contracts.messages import Result
from gradwatch_contracts.names import VERB

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_agent.collect.host import Hints
    from gradwatch_agent.outbox import Outbox
    from gradwatch_contracts.messages import Command, Scalar

    Handler = Callable[[dict[str, Scalar]], object]
    """What a trainer does on a command: takes its arguments, returns what it did."""


class Actions:
    """What can be asked of one run and what of it is under way.

    `tell` is called when a verb was added, so that the daemon hears of it. `world` and `agree` as of `watch`.
    """

    def __init__(self, outbox: Outbox, hints: Hints, tell: Callable[[], None], world: int, agree: object) -> None:
        self.commands, self.verbs = Commands(), Verbs()
        self._stop = StopFlag()
        self._outbox, self._hints, self._tell = outbox, hints, tell
        self._world, self._agree = world, agree
        self._looked = False

    @property
    def stopped(self) -> bool:
        """Whether the trainer has heard that it shall stop."""
        return self._stop.heard

    def should_stop(self) -> bool:
        """See `Monitor.should_stop`. A trainer that looks can be stopped: the first look declares the verb."""
        if not self._looked:
            self._looked = True
            if self._world > 1 and self._agree is None:
                self._hints.say(
                    "should_stop",
                    f"should_stop stays False with {self._world} ranks, which might not stop together. Give watch(agree=…) a "
                    "function that is the same on all of them: it takes this rank's bool and returns that of any.",
                )
            else:
                self._declare(Verb.STOP.value, self._stop.begin, self._stop.drop)
        asked = self._stop.asked()
        if not callable(self._agree):
            return asked
        agreed = bool(self._agree(asked))
        self._stop.heard = asked and agreed
        return agreed

    def offer(self, verb: object, handler: object) -> None:
        """See `Monitor.on_command`."""
        if not isinstance(verb, str) or not VERB.fullmatch(verb) or verb in OWN_VERBS or not callable(handler):
            word = text_of(verb)[:40]
            self._hints.say(
                f"on_command {word}",
                f"on_command takes a word ({VERB.pattern}, none of {', '.join(sorted(OWN_VERBS))}) and a function of the "
                f"command's arguments; got {word!r} and {text_of(handler)[:80]}. This command is not offered.",
            )
            return
        if verb not in self.verbs.names and len(self.verbs.names) >= limits.VERBS_MAX - len(OWN_VERBS):
            self._hints.say("on_command", f"on_command {verb} is one more than is kept. This command is not offered.")
            return
        self._declare(verb, lambda command, update: _said(handler(dict(command.args))))

    def _declare(
        self, verb: str, begin: Callable[[Command, int], str | None], stop: Callable[[str], None] | None = None
    ) -> None:
        new = self.verbs.add(verb, begin) if stop is None else self.verbs.add(verb, begin, stop)
        if new:
            self._tell()

    def boundary(self, update: int, now_unix_ns: int) -> None:
        """Do what is due before `update` begins, and answer for it."""
        due = self.commands.due(update, now_unix_ns, self.verbs)
        for id_, why in due.refused:
            self._outbox.put_result(id_, "rejected", update, why)
        for command in due.stop:
            self.verbs.stop(command)
            self._outbox.put_result(command.id, "ended", update, "cancelled")
        for command in due.begin:
            self._begin(command, update)

    def end(self, id_: str, update: int, outcome: str) -> None:
        """Say that a command that went on is done."""
        if self.commands.end(id_):
            self._outbox.put_result(id_, "ended", update, outcome)

    def fail(self, id_: str, update: int, why: str) -> None:
        """Say that a command that went on has failed."""
        if self.commands.end(id_):
            self._outbox.put_result(id_, "rejected", update, f"failed: {why}")

    def last_word(self, id_: str, state: str, update: int, reason: str) -> tuple[Result, ...]:
        """The end of a command that was handed over to another thread, for who says it there; nothing where it is over."""
        return (Result(0, id_, state, update, reason),) if self.commands.end(id_) else ()

    def close(self, update: int) -> None:
        """The trainer ends: so does everything that was under way, and its functions are let go of."""
        for command in self.commands.running:
            if command.verb == Verb.STOP:
                self.end(command.id, update, self._stop.outcome)
            else:
                self.fail(command.id, update, "the trainer ended first")
        self.verbs.clear()

    def _begin(self, command: Command, update: int) -> None:
        LOGGER.info("gradwatch: %s, asked for by command %s", command.verb, command.id)
        self._outbox.put_result(command.id, "applied", update)
        try:
            outcome = self.verbs.begin(command, update)
        except Exception as error:
            # Mostly the trainer's own function: its fault is for whoever asked, and not for the training that goes on.
            said = re.sub(r"\s+", " ", f"{type(error).__name__}: {text_of(error)}")[:500]
            LOGGER.warning("gradwatch: command %s (%s) failed: %s", command.id, command.verb, said)
            self.fail(command.id, update, said)
            return
        if outcome is not None:
            self.end(command.id, update, outcome)


def _said(result: object) -> str:
    """What a trainer's function returned, as the outcome of its command."""
    return "done" if result is None else text_of(result)[: limits.NAME_CHARS_MAX]
