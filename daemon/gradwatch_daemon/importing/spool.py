"""The spool of a trainer: sessions that no daemon took, each a directory of segments, as messages to send again."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from gradwatch_contracts import messages as m
from gradwatch_contracts.segments import BOX, SUFFIX, read_box, read_segment, seqs_of, without_gaps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOST = "lost"
"""Reason of the BYE of a session that ended without one."""


@dataclass(frozen=True, slots=True)
class SpooledSession:
    """One session. `files` are its segments, oldest first; `records` those that can be read of them, or are told as lost
    there; `unread` the bytes that cannot; `box` the black box of one that was killed, its last records."""

    path: Path
    files: tuple[Path, ...]
    hello: m.Hello
    bye: m.Bye | None
    first_seq: int
    last_seq: int
    unread: int
    box: tuple[m.Table, ...] = ()

    @property
    def last_word(self) -> m.Bye:
        """How it ended. What it made after the last segment will never come."""
        last = max(self.last_seq, self.bye.last_seq if self.bye is not None else -1)
        return m.Bye(last, self.bye.reason if self.bye is not None else LOST)

    def messages(self, after: int) -> Iterator[m.Message]:
        """What follows record `after`, read as it is sent; a LOSS stands for what is missing in between."""
        stored = (message for file in self.files for message in _read(file))
        return without_gaps(chain(stored, self.box), after)


def is_spool(path: Path) -> bool:
    """Whether there are segments in this directory, or below it, as deep as a spool has them."""
    return path.is_dir() and bool(_sessions_in(path))


def _sessions_in(path: Path) -> list[Path]:
    """Of a spool, of a run in it, or of one session."""
    found = {file.parent for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}*{SUFFIX}")}
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


@dataclass(frozen=True, slots=True)
class UnreadSession:
    """A directory of which nothing can be told, and its bytes: no segment begins with a whole HELLO."""

    path: Path
    unread: int


def read_spool(path: Path) -> tuple[list[SpooledSession], list[UnreadSession], list[Path]]:
    """The sessions below a path, those last written to last; those of which nothing can be told; and the directories that a
    trainer still writes to."""
    sessions, unread, busy = [], [], []
    for folder in _sessions_in(path):
        if _is_locked(folder):
            busy.append(folder)
            continue
        session = _session(folder)
        if isinstance(session, UnreadSession):
            unread.append(session)
        else:
            sessions.append(session)
    return sessions, unread, busy


def _session(folder: Path) -> SpooledSession | UnreadSession:
    files = tuple(sorted(folder.glob(f"*{SUFFIX}")))
    hello, bye, unread = None, None, 0
    seqs: list[int] = []
    for file in files:
        data = file.read_bytes()
        segment = read_segment(data)
        if segment is None:
            unread += len(data)
            continue
        hello, bye, unread = segment.hello, segment.bye or bye, unread + segment.unread
        seqs += [seq for message in segment.messages for seq in seqs_of(message) or ()]
    if hello is None:
        return UnreadSession(folder, unread)
    last = max(seqs, default=-1)
    box = read_box(_bytes(folder / BOX), last + 1) if bye is None and seqs else ()
    hello = replace(hello, replay=True)
    return SpooledSession(folder, files, hello, bye, min(seqs, default=0), last + len(box), unread, box)


def _bytes(file: Path) -> bytes:
    """None of a file that is not there."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _read(file: Path) -> tuple[m.Message, ...]:
    segment = read_segment(file.read_bytes())
    return segment.messages if segment is not None else ()


def _is_locked(folder: Path) -> bool:
    """Whether the trainer that writes here is alive."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
