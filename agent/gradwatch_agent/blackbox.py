"""The black box: the norms of every tensor in the last updates, kept on the host for the day something breaks.

It holds what travels to the host anyway, in the one copy of an update, so evidence from before a fault needs no raised level.
Nothing in it is looked at until it is sent. Pure; the link thread alone uses it.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from gradwatch_contracts import limits

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Sequence

UPDATES_MAX = 64
"""Updates kept: a fault is found within a few updates of its onset, and what was usual takes some dozens to say."""

BYTES_MAX = 2 * 1024 * 1024
"""Bytes of numbers kept, where fewer updates reach it."""

SENT_BYTES_MAX = 1024 * 1024
"""Bytes of numbers sent at once, the newest: half of what the outbox keeps for evidence, so that the rest has room too."""

LAYERS_MAX = 4096
"""Tensors of one vector; with more, nothing is kept. In the table of layers: 128 kB, and names of some 60 characters make it
0.5 MB of the 2 MiB that the outbox keeps for evidence; later tensors are left out of that."""

KIND = "blackbox"

GRADIENT, WEIGHT, BROKEN = "grad", "weight", "bad"
"""What a row of the table is: norms before clipping, norms of the weights at the end of the update, or, beside norms that are
the largest of their update, the first step at which each was not finite (NaN for one that always was). Rows with one label
are of two parts of an update that were counted apart."""

FOREIGN = "(not of the model)"


class Norms(NamedTuple):
    """Norms of one update, of the tensors with numbers `members` (-1 for one that is not of the model). `values` is
    f64[len(steps) x len(members)], row-major: at which clipping or optimizer step of these tensors, from 0. No `steps`: one
    row, of the update as a whole."""

    what: str
    members: tuple[int, ...]
    steps: tuple[int, ...]
    values: array[float]


class Block(NamedTuple):
    """One table to send: rows `labels` in order of time, columns `names`; see `Outbox.put_table`."""

    update: int
    labels: tuple[str, ...]
    names: tuple[str, ...]
    values: bytes


class BlackBox:
    """The ring. An update that is put again (a trainer that went back) stands behind what it undid, as it happened."""

    __slots__ = ("_bytes", "_kept")

    def __init__(self) -> None:
        self._kept: deque[tuple[int, list[Norms]]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, update: int, norms: list[Norms]) -> None:
        """Keep what was found of one update; the oldest gives way."""
        kept = self._kept
        kept.append((update, norms))
        self._bytes += _size(norms)
        while len(kept) > UPDATES_MAX or (self._bytes > BYTES_MAX and len(kept) > 1):
            self._bytes -= _size(kept.popleft()[1])

    def freeze(self, names: Sequence[str]) -> tuple[int, list[Block]]:
        """How many updates fit, the newest, and these as tables, one for each set of tensors; `names` by number. The ring stays
        as it is."""
        first, room, rows = len(self._kept), SENT_BYTES_MAX, 0
        for _, norms in reversed(self._kept):
            room -= _size(norms)
            rows += sum(max(1, len(one.steps)) for one in norms)
            if room < 0 or rows > limits.BODY_ITEMS_MAX:
                break
            first -= 1
        sets: dict[tuple[int, ...], tuple[list[str], list[bytes], int]] = {}
        for update, norms in list(self._kept)[first:]:
            for one in norms:
                labels, values, _ = sets.get(one.members, ([], [], 0))
                labels.extend(_labels(update, one))
                values.append(_little_endian(one.values))
                sets[one.members] = (labels, values, update)
        return len(self._kept) - first, [
            Block(update, tuple(labels), tuple(_named(members, names)), b"".join(values))
            for members, (labels, values, update) in sets.items()
        ]


def _size(norms: list[Norms]) -> int:
    return sum(8 * len(one.values) for one in norms)


def _labels(update: int, norms: Norms) -> Iterator[str]:
    """`grad@120.3` is step 3 of update 120; `grad@120` its largest, `weight@120` at its end."""
    if not norms.steps:
        yield f"{norms.what}@{update}"
    for step in norms.steps:
        yield f"{norms.what}@{update}.{step}"


def _named(members: tuple[int, ...], names: Sequence[str]) -> Iterator[str]:
    for member in members:
        yield (names[member][: limits.NAME_CHARS_MAX] or FOREIGN) if 0 <= member < len(names) else FOREIGN


def _little_endian(values: array[float]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
