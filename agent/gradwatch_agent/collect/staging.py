"""The bounded device area where the tensors of every minibatch gather, so that one pass reduces all of them.

Reducing each minibatch as it comes costs some twenty kernel launches a call; one `stack` into a preallocated row costs
one, and `finish` reduces all rows of one shape together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from gradwatch_agent.device.plan import BlockFacts, Plan, read_block
from gradwatch_agent.device.reduce import Reducer
from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from gradwatch_agent.collect.host import Key, Tally
    from gradwatch_contracts.signals import Source

stack: Callable[..., Tensor] = torch.stack
"""A name less to look for in torch at every minibatch."""

ROWS_START = 16
"""Rows of a first block; the next update's block has the rows this one needed."""

NUMBERS_MAX = 524_288
"""Numbers one update may send to the host (4 MB, some 10,000 minibatches), the second half of them kept for `finish`. A
trainer that never calls `step` must not fill the device."""

OPEN_BLOCKS_MAX = 256
"""Shapes staged at once: a trainer with minibatches of any length makes one block for each length."""


class Channel(NamedTuple):
    """The columns of one channel: its moments and, where the registry has them, the number of non-finite values and the
    first minibatch that held one."""

    moments: Key
    nonfinite: Key | None
    first: Key | None

    @classmethod
    def of(cls, name: str, subject: str = "") -> Channel:
        """The channel whose moments are column `name`."""
        count, first = f"{name}.nonfinite", f"{name}.nonfinite_mb"
        known = [(column, subject) if column in COLUMNS else None for column in (count, first)]
        return cls((name, subject), known[0], known[1])


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """A plan, the columns of its moment channels, and which call they come from; `rows`: those of a first block. Compared by
    identity, so make each once."""

    plan: Plan
    channels: tuple[Channel, ...]
    source: Source
    rows: int = ROWS_START


class Segment(NamedTuple):
    """What `length` numbers of a packed vector are: `minibatches` names the rows of the block, `before_step` says how
    many of them precede the first optimizer step. `whole` is False for a slice of a minibatch too large to be staged."""

    layout: Layout
    minibatches: tuple[int, ...]
    samples: int
    before_step: int
    whole: bool

    @property
    def length(self) -> int:
        """Numbers taken."""
        return self.layout.plan.numbers(len(self.minibatches))

    def read(self, values: Sequence[float]) -> BlockFacts:
        """Name them."""
        return read_block(values, self.layout.plan, len(self.minibatches), self.samples, self.before_step)

    def tell(self, tally: Tally, facts: BlockFacts) -> None:
        """Add the columns that every channel has."""
        put, minibatches = tally.put, self.minibatches
        columns = zip(self.layout.channels, facts.n, facts.total, facts.m2, facts.nonfinite, facts.first_row, strict=True)
        for (moments, nonfinite, first), n, total, m2, bad, row in columns:
            if not n:
                for key in (moments, nonfinite, first):
                    if key is not None:
                        tally.refuse(key[0], Status.UNDEFINED, key[1])
                continue
            put(moments, (n, total / n, m2))
            if nonfinite is not None:
                put(nonfinite, (bad,))
            if first is not None and row is None:
                tally.reasons.setdefault(first, Status.UNDEFINED)
            elif first is not None and row is not None:
                put(first, (float(minibatches[row]),))
        self._tell_extremes(tally, facts)

    def _tell_extremes(self, tally: Tally, facts: BlockFacts) -> None:
        plan, channels = self.layout.plan, self.layout.channels
        if facts.saturated is not None:
            name, subject = channels[0].moments
            tally.put((f"{name}.saturated", subject), (facts.saturated,))
        if plan.batch is not None and facts.between is not None:
            (name, subject), n, mean = channels[0].moments, facts.n[0], facts.total[0] / facts.n[0]
            if math.isnan(facts.between) and not self.whole:
                tally.refuse(f"{name}.within", Status.THINNED, subject)
            else:  # the sum of all squares less that of the means over sequences
                tally.put((f"{name}.within", subject), (facts.m2[0] + n * mean * mean - facts.between / plan.batch[1],))
        if facts.leaked is not None and plan.reset is not None:
            name, subject = channels[plan.reset].moments
            tally.put((f"{name}.violations", subject), (facts.leaked,))
        if facts.peak is not None and plan.peak is not None:
            name, subject = channels[plan.peak].moments
            tally.put((f"{name}.absmax", subject), (facts.peak,))


ShapeKey = tuple[int, int, torch.dtype, torch.device]


@dataclass(slots=True)
class Block:
    """Rows of one `shape`: the buffer [rows, channels, samples] as [channels, rows, samples], a view of each row, and the
    minibatches in it."""

    buffer: Tensor
    rows: tuple[Tensor, ...]
    shape: ShapeKey
    minibatches: list[int] = field(default_factory=list)
    before_step: int = 0

    def put(self, tensors: Sequence[Tensor], minibatch: int, before: bool) -> None:
        """Copy a minibatch into the next row, of which there is one.

        Raises:
            RuntimeError: the tensors differ in shape or device; nothing was copied.
        """
        stack(tensors, out=self.rows[len(self.minibatches)])
        self.minibatches.append(minibatch)
        self.before_step += before

    @property
    def nbytes(self) -> int:
        """Device memory taken."""
        return self.buffer.numel() * self.buffer.element_size()


BlockKey = tuple[Layout, int, torch.dtype, torch.device]
Part = tuple["Tensor", Segment]
"""A reduced vector, on the device, and what it is."""


class Staging:
    """Blocks under one byte bound: half of `bytes_max` holds rows, the rest is for the temporaries of a reduction."""

    __slots__ = (
        "_free",
        "_full",
        "_numbers",
        "_open",
        "_parts",
        "_reducers",
        "_rows_last",
        "_rows_used",
        "bytes_staged",
        "overflowed",
        "scratch",
        "staged_max",
    )

    def __init__(self, bytes_max: int) -> None:
        self.staged_max = bytes_max // 2
        self.scratch = bytes_max // 8
        self.bytes_staged = 0
        self.overflowed = False
        self._parts: list[Part] = []
        self._reducers: dict[torch.device, Reducer] = {}
        self._open: dict[BlockKey, Block] = {}
        self._full: list[tuple[BlockKey, Block]] = []
        self._free: dict[ShapeKey, Block] = {}
        self._rows_used: dict[ShapeKey, int] = {}
        self._rows_last: dict[ShapeKey, int] = {}
        self._numbers = 0

    def reducer(self, device: torch.device) -> Reducer:
        """The reducer of a device."""
        found = self._reducers.get(device)
        if found is None:
            found = self._reducers[device] = Reducer(device)
        return found

    def take_spent_ns(self) -> dict[str, int]:
        """What the optional parts of all reductions took since the last call, by field of `Plan`."""
        spent: dict[str, int] = {}
        for reducer in self._reducers.values():
            for part, ns in reducer.spent_ns.items():
                spent[part] = spent.get(part, 0) + ns
            reducer.spent_ns.clear()
        return spent

    @property
    def empty(self) -> bool:
        """Whether nothing was staged or reduced since `finish`."""
        return not self._open and not self._parts

    def stage(self, layout: Layout, tensors: Sequence[Tensor], dtype: torch.dtype, minibatch: int, before: bool) -> None:
        """Copy one minibatch: a 1-D tensor per channel, all of one length of at least 1. Gradients must be off.

        `before`: no optimizer step was taken yet. What exceeds the scratch area is reduced at once.
        """
        first = tensors[0]
        key = (layout, first.shape[0], dtype, first.device)
        block = self._open.get(key)
        if block is None or len(block.minibatches) == len(block.rows):
            if 8 * key[1] * len(tensors) > self.scratch:
                self.reduce_now(layout, tensors, minibatch, before)
                return
            block = self._make_room(key)
        if block is None:
            self.overflowed = True
        else:
            block.put(tensors, minibatch, before)

    def room(self, key: BlockKey) -> Block | None:
        """A block of `key` with a free row, to be filled by the caller; None when there is none, or such minibatches are not to
        be staged. It has no free row any more once it is reduced."""
        block = self._open.get(key)
        if block is not None and len(block.minibatches) < len(block.rows):
            return block
        return None if 8 * key[1] * key[0].plan.channels > self.scratch else self._make_room(key)

    def reduce_now(self, layout: Layout, tensors: Sequence[Tensor], minibatch: int, before: bool = False) -> None:
        """Reduce one minibatch without staging it, in slices that fit the scratch area."""
        samples = tensors[0].shape[0]
        size = max(1, self.scratch // (8 * len(tensors)))
        if samples <= size:
            self._reduce(stack(tensors).unsqueeze(1), layout, [minibatch], int(before), whole=True)
            return
        for start in range(0, samples, size):
            sliced = torch.stack([tensor[start : start + size] for tensor in tensors]).unsqueeze(1)
            self._reduce(sliced, layout, [minibatch], int(before), whole=False)

    def finish(self) -> list[Part]:
        """Reduce what is staged; return every reduced vector of the update, and begin anew.

        `overflowed` says that some were left out; the caller reads it and clears it.
        """
        self._numbers -= NUMBERS_MAX // 2
        self._flush_all()
        for shape in [shape for shape in self._free if shape not in self._rows_used]:
            self._forget(self._free.pop(shape))
        parts, self._parts, self._numbers = self._parts, [], 0
        self._rows_last, self._rows_used = self._rows_used, {}
        return parts

    def _make_room(self, key: BlockKey) -> Block | None:
        """Return a block of `key` with a free row: a new one, else an old one after reducing it; None when full."""
        if self._numbers > NUMBERS_MAX // 2:
            return None
        layout, samples, dtype, device = key
        shape = (layout.plan.channels, samples, dtype, device)
        block = self._open.get(key)
        if block is not None:
            fresh = self._allocate(shape, max(ROWS_START, 2 * len(block.rows)))
            if fresh is None:
                self._flush(key, block)
                return block
            self._full.append((key, block))
        else:
            if len(self._open) >= OPEN_BLOCKS_MAX:
                self._flush_all()
            wanted = self._rows_last.get(shape) or layout.rows
            fresh = self._take_free(shape) or self._allocate(shape, wanted)
            if fresh is None:
                self._flush_all()
                for idle in list(self._free):
                    self._forget(self._free.pop(idle))
                fresh = self._allocate(shape, wanted)
        if fresh is not None:
            self._open[key] = fresh
        return fresh

    def _take_free(self, shape: ShapeKey) -> Block | None:
        """The block left by the last update, unless it was too small for it."""
        block = self._free.pop(shape, None)
        if block is not None and len(block.rows) < self._rows_last.get(shape, 0):
            self._forget(block)
            return None
        return block

    def _allocate(self, shape: ShapeKey, rows: int) -> Block | None:
        channels, samples, dtype, device = shape
        row_bytes = channels * samples * dtype.itemsize
        rows = min(rows, (self.staged_max - self.bytes_staged) // row_bytes)
        if rows < 1:
            return None
        with torch.inference_mode(False):  # a buffer made inside inference mode could not be written outside it
            buffer = torch.empty((rows, channels, samples), dtype=dtype, device=device)
        block = Block(buffer.permute(1, 0, 2), tuple(buffer.unbind(0)), shape)
        self.bytes_staged += block.nbytes
        return block

    def _flush_all(self) -> None:
        """Reduce every block and keep the largest of each shape."""
        for key, given in (*self._full, *self._open.items()):
            self._flush(key, given)
            # Whoever still has it must ask for room again.
            block, given.rows = Block(given.buffer, given.rows, given.shape), ()
            idle = self._free.get(block.shape)
            if idle is not None:
                self._forget(min(idle, block, key=_capacity))
            self._free[block.shape] = block if idle is None else max(block, idle, key=_capacity)
        self._full.clear()
        self._open.clear()

    def _flush(self, key: BlockKey, block: Block) -> None:
        """Reduce the rows of a block, in chunks that fit the scratch area, and empty it."""
        layout = key[0]
        done, before = block.minibatches, block.before_step
        self._rows_used[block.shape] = self._rows_used.get(block.shape, 0) + len(done)
        size = max(1, self.scratch // (8 * key[1] * layout.plan.channels))
        for start in range(0, len(done), size):
            chunk = done[start : start + size]
            rows = block.buffer if len(chunk) == len(block.rows) else block.buffer[:, start : start + len(chunk)]
            self._reduce(rows, layout, chunk, max(0, min(before - start, len(chunk))), whole=True)
        block.minibatches, block.before_step = [], 0

    def _reduce(self, rows: Tensor, layout: Layout, minibatches: list[int], before: int, *, whole: bool) -> None:
        segment = Segment(layout, tuple(minibatches), rows.shape[2], before, whole)
        self._numbers += segment.length
        if self._numbers > NUMBERS_MAX // 2:
            self.overflowed = True
            return
        vector = self.reducer(rows.device).block(rows, layout.plan)
        self._parts.append((vector, segment))

    def _forget(self, block: Block) -> None:
        self.bytes_staged -= block.nbytes


def _capacity(block: Block) -> int:
    return len(block.rows)
