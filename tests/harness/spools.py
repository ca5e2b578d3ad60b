"""Spools for tests: files in memory that can fail, and rows as messages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from gradwatch_agent.row import pack_rows
from gradwatch_agent.spool.disk import Spool
from gradwatch_contracts import messages as m
from gradwatch_contracts.segments import SUFFIX, seqs_of
from harness.outgoing import NARROW, hello, row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradwatch_contracts.columns import Schema


class MemoryFiles:
    """`spool.files.SpoolFiles` in a dict. `failing`: the next writes raise, as a full disk does."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.failing = False
        self.ended = False

    def names(self) -> list[str]:
        return sorted(name for name in self.data if name.endswith(SUFFIX))

    def read(self, name: str) -> bytes:
        if name not in self.data:
            raise FileNotFoundError(2, "No such file", name)
        return self.data[name]

    def append(self, name: str, data: bytes) -> None:
        self._check()
        self.data[name] = self.data.get(name, b"") + data

    def replace(self, name: str, data: bytes) -> None:
        self._check()
        self.data[name] = data

    def remove(self, name: str) -> None:
        del self.data[name]

    def end(self) -> None:
        self.ended = True

    def _check(self) -> None:
        if self.failing:
            raise OSError(28, "No space left on device")


def spool(files: MemoryFiles, bytes_max: int = 1 << 30) -> Spool:
    """A spool of the session of `harness.outgoing.hello`."""
    return Spool(files, hello, bytes_max)


def rows(first: int, count: int, schema: Schema = NARROW) -> list[m.Message]:
    """Records `first` to `first + count - 1`, each an update of that number, behind their schema."""
    packed = [row(update, schema) for update in range(first, first + count)]
    return [m.SchemaMessage(schema.columns), *(pack_rows(first + at, packed[at : at + 32]) for at in range(0, count, 32))]


def told(messages: Iterable[m.Message]) -> dict[int, object]:
    """What is said of each record: its update, the reason of its loss, or the message itself; in order, each once."""
    found: dict[int, object] = {}
    for message in messages:
        seqs = seqs_of(message)
        for seq in range(seqs[0], seqs[1] + 1) if seqs else ():
            assert seq not in found, f"record {seq} is there twice"
            assert not found or seq == max(found) + 1, f"record {seq} is out of order"
            if isinstance(message, m.Samples):
                found[seq] = struct.unpack_from("<q", message.update, 8 * (seq - message.first_seq))[0]
            else:
                found[seq] = message.reason if isinstance(message, m.Loss) else message
    return found


def drain(disk: Spool, before: Iterable[m.Message] = (), window: int = 10_000) -> list[m.Message]:
    """Everything that is still to be sent, acked as it comes; rows only under a schema that went ahead, perhaps `before`."""
    sent: list[m.Message] = []
    schemas = {str(message.columns) for message in before if isinstance(message, m.SchemaMessage)}
    while taken := disk.take(window):
        for message in taken:
            if isinstance(message, m.SchemaMessage):
                schemas.add(str(message.columns))
            assert not isinstance(message, m.Samples) or schemas, "rows without their schema"
        sent += taken
        last = max((seqs[1] for message in taken if (seqs := seqs_of(message))), default=-1)
        disk.ack(last)
    return sent
