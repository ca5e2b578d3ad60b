"""What earlier attempts of a run left in the spool, sent before this attempt's own session: each on a connection of its own.

With the HELLO of the old session, marked as a replay: the daemon takes what it does not have yet, judges it as the past, and
raises nothing. Driven by the link's thread; each session that is sent has a link of its own.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_agent.desired import DesiredState
from gradwatch_agent.spool.files import SessionDirectory, sessions_left
from gradwatch_agent.spool.leftover import Leftover
from gradwatch_agent.spool.room import make_room
from gradwatch_contracts import limits
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_agent.link import Link
    from gradwatch_agent.session import Outgoing
    from gradwatch_contracts.messages import Hello

    Connect = Callable[[Callable[[], Hello], Outgoing, DesiredState], Link]
    """Makes the link of a HELLO, what it sends from, and what it tells of the daemon's wishes."""

LOGGER = logging.getLogger("gradwatch")


class Delivery:
    """The sessions of a run that are left in `root`, oldest first, one at a time.

    `connect` makes the link of one. Sessions whose process still lives are locked, and are left alone. `tell` hears, on the
    link thread, of what is given up or cannot be read, in a sentence; so does the log.
    """

    def __init__(self, root: str, run: str, connect: Connect, tell: Callable[[str], None]) -> None:
        self._connect, self._root, self._tell_daemon = connect, root, tell
        self._roomy = False
        self._left = list(sessions_left(root, run))
        self._link: Link | None = None
        self._welcomed_at: float | None = None

    def goes_first(self, now: float) -> bool:
        """Go on; whether the new session should still wait. Not longer than `limits.SPOOL_FIRST_S` once a daemon is there."""
        if not self._roomy:  # not when it is made: that is the trainer's thread
            self._roomy = True
            make_room(self._root, time.time(), self._tell)
        if self._link is not None and self._link.state in ("closed", "refused"):
            self._link = None
        while self._link is None and self._left:
            self._link = self._begin(self._left.pop(0))
        if self._link is not None and self._link.welcomed and self._welcomed_at is None:
            self._welcomed_at = now
        late = self._welcomed_at is not None and now - self._welcomed_at > limits.SPOOL_FIRST_S
        return self._link is not None and not late

    @property
    def welcomed(self) -> bool:
        """Whether a daemon takes what is sent."""
        return self._welcomed_at is not None

    def leave(self) -> None:
        """The process ends: what is not delivered stays for the next."""
        self._left.clear()
        if self._link is not None:
            self._link.leave()

    def _tell(self, sentence: str) -> None:
        LOGGER.warning("gradwatch: %s", sentence)
        self._tell_daemon(sentence)

    def _begin(self, path: str) -> Link | None:
        """Start to send one; None when it cannot be read, or another process has it."""
        try:
            files = SessionDirectory(path)
            if not files.lock():
                return None
            left = Leftover(files)
        except FileNotFoundError:  # another rank has sent it, or it made room
            return None
        except OSError as error:
            self._tell(f"what an earlier attempt left in {path} cannot be read: {error}")
            return None
        greeting = left.greeting
        if greeting is None:
            if left.bytes_held:
                self._tell(
                    f"what an earlier attempt left in {path} cannot be read, {left.bytes_held} bytes: no segment there begins "
                    "with a whole HELLO, so nobody knows how many records are lost. Delete it, or it goes when it is too old"
                )
            left.discard()
            return None
        hello = replace(greeting, replay=True)
        link = self._connect(lambda: hello, left, DesiredState(Level.OFF))
        LOGGER.info("gradwatch: sending what an earlier attempt of %s left in the spool", hello.run)
        link.deliver(left.reason)
        return link
