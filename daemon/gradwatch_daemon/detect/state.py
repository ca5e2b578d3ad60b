"""What detection remembers of one stream between blocks, and its bytes.

Everything here is a function of the rows and recorded events seen, never of how they were batched; `dump` is canonical, so
equal states have equal bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgpack

from gradwatch_daemon.detect.arrivals import Arrivals
from gradwatch_daemon.detect.board import Board
from gradwatch_daemon.detect.context import Context
from gradwatch_daemon.detect.ema import Average, Ema
from gradwatch_daemon.detect.frozen import Frozen
from gradwatch_daemon.detect.own_memory import Memory as OwnMemory
from gradwatch_daemon.detect.presence import Presence
from gradwatch_daemon.detect.returns import EpisodeWindow, Held, RollingBest
from gradwatch_daemon.detect.steps import StepWindow
from gradwatch_daemon.detect.trend import Best, Rise, Trend

if TYPE_CHECKING:
    from gradwatch_daemon.detect.lanes import Plan
    from gradwatch_daemon.detect.layout import Layout
    from gradwatch_daemon.detect.memory import Memory
    from gradwatch_daemon.detect.waiting import Waiting

    M = TypeVar("M", bound=Memory)

FORMAT = 4
"""Of `dump`. Another one is not read: the pipeline then replays from the store."""

_KINDS: dict[str, type[Memory]] = {
    kind.TAG: kind
    for kind in (
        Arrivals,
        Average,
        Best,
        Context,
        Ema,
        EpisodeWindow,
        Frozen,
        Held,
        OwnMemory,
        Presence,
        Rise,
        RollingBest,
        StepWindow,
        Trend,
    )
}


class StreamState:
    """The board, other memories and the known subjects of one stream. Owned by the pipeline thread.

    `rows` counts those judged. `plans` is derived: how the lanes stand for the layouts in use. `waiting` are rows that came one
    by one and have not taught yet: whoever reads the rest calls `catch_up` before.
    """

    __slots__ = ("_memories", "board", "plans", "rows", "subjects", "update_last", "waiting")

    def __init__(self) -> None:
        self.board = Board()
        self.rows = 0
        self.plans: dict[int, tuple[Layout, Plan]] = {}
        self._memories: dict[tuple[str, str, str], Memory] = {}
        self.subjects: dict[str, tuple[str, ...]] = {}
        self.update_last: int | None = None
        self.waiting: Waiting | None = None

    def catch_up(self) -> None:
        """Let the rows that wait teach."""
        if self.waiting:
            self.waiting.learn(self.board)

    def memory(self, kind: type[M], name: str, subject: str = "") -> M:
        """The one memory of its kind under a name, made on first use."""
        key = (kind.TAG, name, subject)
        found = self._memories.get(key)
        if found is None:
            found = self._memories[key] = kind()
        return found  # type: ignore[return-value]

    def rewind(self, update: int) -> None:
        """The trainer goes on from `update`, which is not after the last one: what hangs on update numbers follows."""
        self.catch_up()
        self.board.rewind()
        for memory in self._memories.values():
            memory.rewind(update)

    def learn_subject(self, name: str, subject: str) -> None:
        """Add a subject that a detector met by itself."""
        known = self.subjects.get(name, ())
        if subject not in known:
            self.subjects[name] = (*known, subject)

    def dump(self) -> bytes:
        """Canonical bytes: equal states give equal bytes."""
        self.catch_up()
        return cast(
            "bytes",
            msgpack.packb(
                [
                    FORMAT,
                    self.update_last,
                    self.rows,
                    self.board.state(),
                    [[*key, memory.state()] for key, memory in sorted(self._memories.items())],
                    [[name, list(subjects)] for name, subjects in sorted(self.subjects.items())],
                ]
            ),
        )

    def load(self, data: bytes) -> None:
        """Become the state that gave these bytes.

        Raises:
            ValueError: for bytes of another format; the stream must then be replayed.
        """
        unpacked: list[Any] = msgpack.unpackb(data)
        if unpacked[0] != FORMAT:
            raise ValueError(f"detector state: expected format {FORMAT}, got {unpacked[0]!r}; replay the stream")
        _, self.update_last, self.rows, board, memories, subjects = unpacked
        self.board = Board.restored(board)
        self._memories = {(tag, name, subject): _KINDS[tag].restored(kept) for tag, name, subject, kept in memories}
        self.subjects = {name: tuple(known) for name, known in subjects}
        self.plans, self.waiting = {}, None
