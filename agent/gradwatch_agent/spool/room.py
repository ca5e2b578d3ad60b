"""The bounds of a whole spool: a trainer that is restarted for ever without a daemon must not fill the disk.

Each session has its own bound; of all sessions together the oldest give way. Sessions of processes that live are left alone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_agent.spool.disk import SPOOL_FULL
from gradwatch_agent.spool.files import SessionDirectory
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.segments import BOX, SUFFIX, read_segment, seqs_of

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Kept:
    """A session's directory: when it was last written to, in unix seconds, and the bytes of its files."""

    written_s: float
    path: str
    size: int


def make_room(root: str, now_unix_s: float, tell: Callable[[str], None]) -> None:
    """Bring a spool within its bounds, the oldest session first. `tell` gets one sentence, if anything was given up.

    Too many bytes: a session keeps of its records only that they are lost, so that the daemon is still told. Too old, or more
    sessions than may be: it goes as a whole.
    """
    kept = sorted(_sessions(root), key=lambda session: (session.written_s, session.path))
    total, gone, emptied, freed = sum(session.size for session in kept), 0, 0, 0
    for place, session in enumerate(kept):
        old = now_unix_s - session.written_s > limits.SPOOL_AGE_S or len(kept) - place > limits.SPOOL_SESSIONS_MAX
        if not old and total <= limits.SPOOL_ROOT_BYTES:
            break
        left = _give_up(session, whole=old)
        if left < session.size:
            gone, emptied = gone + (left == 0), emptied + (left > 0)
            freed += session.size - left
        total -= session.size - left
    if gone or emptied:
        tell(
            f"the spool {root} gave up {freed} bytes that no daemon took, the oldest first: {emptied} sessions are told as "
            f"lost, {gone} are gone (at most {limits.SPOOL_ROOT_BYTES >> 20} MiB, {limits.SPOOL_SESSIONS_MAX} sessions, "
            f"{limits.SPOOL_AGE_S // 86_400:.0f} days)"
        )


def _sessions(root: str) -> list[Kept]:
    """All that can be looked at."""
    found = []
    for run in _listed(root):
        for path in _listed(run):
            files = _listed(path)
            if not files or not all(file.removesuffix(".new").endswith((SUFFIX, BOX)) for file in files):
                continue  # not ours: somebody named a directory that holds other things too
            try:
                facts = [os.stat(file) for file in files]
            except OSError:  # its trainer has just sent it
                continue
            found.append(Kept(max(fact.st_mtime for fact in facts), path, sum(fact.st_size for fact in facts)))
    return found


def _listed(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)]
    except OSError:
        return []


def _give_up(session: Kept, *, whole: bool) -> int:
    """Make a session small, or delete it; the bytes that are left, all of them where it is not ours or its process lives."""
    try:
        files = SessionDirectory(session.path)
        if not files.lock():
            return session.size
        made = os.stat(session.path).st_mtime
        try:
            left = _empty(files, whole=whole)
        finally:
            files.end()
        if left:  # it is as old as before, and goes in its order
            for file in _listed(session.path):
                os.utime(file, (session.written_s, session.written_s))
            os.utime(session.path, (made, made))
        return left
    except OSError:
        return session.size


def _empty(files: SessionDirectory, *, whole: bool) -> int:
    """Keep of all records only that they are lost, and how the session ended; nothing where `whole`, or where no HELLO can be
    read. Returns the bytes that are left.

    Raises:
        OSError: it could not be written; then all is still there, but for the black box.
    """
    with suppress(OSError):
        files.remove(BOX)
    names = files.names()
    told = b"" if whole else _told_as_lost(files, names)
    if told:  # before the others go: whoever reads them now leaves out what this tells of
        files.replace(names[0], told)
    for name in names[1:] if told else names:
        with suppress(OSError):
            files.remove(name)
    return len(told)


def _told_as_lost(files: SessionDirectory, names: list[str]) -> bytes:
    """A segment in the place of all: HELLO, LOSS, and the BYE if there was one; empty where no record can be read.

    Read from the end only as far as the last record: the rest of a session may be 256 MiB.
    """
    greeting: m.Hello | None = None
    bye: m.Bye | None = None
    for name in reversed(names):
        try:
            segment = read_segment(files.read(name))
        except OSError:
            continue
        if segment is None:
            continue
        greeting, bye = greeting or segment.hello, bye or segment.bye
        last = max((seqs[1] for message in segment.messages if (seqs := seqs_of(message)) is not None), default=-1)
        if last >= 0:
            loss = m.Loss(min(int(names[0].split(".")[0]), last), last, SPOOL_FULL)
            return b"".join(encode(message) for message in (greeting, loss, bye) if message is not None)
    return b""
