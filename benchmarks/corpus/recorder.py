"""Records runs with the real agent, in this process: its rows are caught where they would go to the socket.

A run is keyed by the columns the agent can send and by the source of the trainers and of its own case: what changed is
recorded again, and nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import torch

from benchmarks.corpus.cases import CASES
from benchmarks.corpus.recording import CorpusError, Part, Recording, read_case, rounded, write_case
from benchmarks.corpus.trainer import Trainer, run_trainer
from gradwatch_agent.arguments import STAGED_BYTES, Settings
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.exits import Exits
from gradwatch_agent.monitor import Monitor
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.row import Row
from gradwatch_contracts.columns import WIDTH, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.corpus.cases import Case
    from gradwatch_agent.inbox import Draft
    from gradwatch_contracts.columns import Schema

HERE = Path(__file__).parent
TRAINER_FILES = (
    "environments.py",
    "policies.py",
    "trainer.py",
    "truth.py",
    "disturbance.py",
    "faults.py",
    "stresses.py",
    "sb3.py",
)
T0_NS = 1_700_000_000_000_000_000


class Catch(Outbox):
    """An outbox from which nothing is sent; it makes the rows at once and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []

    def put_draft(self, draft: Draft) -> None:
        """Keep its row."""
        self.rows += [record for record in draft.make() if isinstance(record, Row)]


def run_key(case: Case, seed: int) -> str:
    """What a recording depends on, as a hash."""
    columns = [[c.name, c.kind.value, int(c.level), c.call, c.per] for c in COLUMNS.values()]
    declared = [case.id, case.arm, repr(case.setup), case.disturbance.__qualname__, case.inject, case.resume, seed]
    return hashlib.blake2b(msgpack.packb([columns, declared]) + _source(), digest_size=8).hexdigest()


@functools.cache
def _source() -> bytes:
    """Hash of what trains, as it was when this process first asked: what runs is what was loaded then."""
    return hashlib.blake2b(b"".join((HERE / name).read_bytes() for name in TRAINER_FILES)).digest()


def record_run(case: Case, seed: int) -> Recording:
    """Train one run and return what the agent saw of it at NORMAL, the level of a run that nobody looks at.

    Its clock is the CPU time of the trainer, with the pauses a case declares: the machine that records is shared.
    """
    torch.set_num_threads(1)  # the tensors are small; more threads only wait for each other
    if case.arm == "sb3":
        parts, truth = _record_library(case, seed)
    else:
        parts, truth = _record_own(case, seed)
    return Recording(case.id, seed, run_key(case, seed), case.setup.updates, tuple(parts), rounded(np.array(truth)))


def _record_own(case: Case, seed: int) -> tuple[list[Part], list[list[float]]]:
    trainer = Trainer(case.setup, seed, case.disturbance(case.inject))
    clock: list[float] = []
    if case.resume is None:
        return _watch(trainer, 0, case.setup.updates, 1, clock), trainer.truth.rows
    killed, checkpoint = case.resume
    parts = _watch(trainer, 0, checkpoint, 1, clock)
    saved = trainer.saved()
    parts += _watch(trainer, checkpoint, killed, 1, clock)
    again = Trainer(case.setup, seed + 1000, case.disturbance(case.inject))
    again.restore(saved)
    parts += _watch(again, checkpoint, case.setup.updates, 2, clock)
    return parts, trainer.truth.rows + again.truth.rows


def _record_library(case: Case, seed: int) -> tuple[list[Part], list[list[float]]]:
    from benchmarks.corpus import sb3  # noqa: PLC0415 - only this arm needs the library

    outbox = Catch()

    def opener(policy: object, optimizer: object, *, run: str, **given: Any) -> Monitor:
        return _monitor(outbox, (policy, optimizer), case.setup.updates, given["update_start"], given["action_space"])

    arm = sb3.train(case.setup, seed, case.disturbance(case.inject), opener)
    return _parts(outbox.rows, 1, arm.clock, 0.0), arm.truth


def record(directory: Path, only: Iterable[str] = (), seeds: int | None = None, first: int = 1) -> int:
    """Record every run that is missing or stale; returns how many there were. May be stopped and started again."""
    chosen = [case for case in CASES.values() if not only or case.id in only]
    todo: list[tuple[Case, int]] = []
    kept: dict[str, list[Recording]] = {}
    for case in chosen:
        count = case.seeds if seeds is None else min(seeds, case.seeds)
        kept[case.id] = [r for r in _readable(directory / f"{case.id}.corpus") if r.key == run_key(case, r.seed)]
        have = {recording.seed for recording in kept[case.id]}
        todo += [(case, seed) for seed in range(first, first + count) if seed not in have]
    # Seed by seed through all cases: a recording cut short is then a smaller corpus, not a part of one.
    todo.sort(key=lambda item: item[1])
    total, done, begin = sum(case.setup.updates for case, _ in todo), 0, time.monotonic()
    for case, seed in todo:
        kept[case.id].append(record_run(case, seed))
        write_case(directory / f"{case.id}.corpus", kept[case.id])
        done += case.setup.updates
        _show(done, total, time.monotonic() - begin, f"{case.id} seed {seed}")
    if todo:
        print(file=sys.stderr)
    return len(todo)


def _watch(trainer: Trainer, first: int, last: int, attempt: int, clock: list[float]) -> list[Part]:
    """Run updates under a monitor of their own."""
    outbox = Catch()
    space = trainer.envs.SPACE
    monitor = _monitor(outbox, (trainer.policy, trainer.optimizer), trainer.setup.updates, first, space)
    begun = len(clock)
    try:
        run_trainer(trainer, monitor, first, last, clock)
    finally:
        monitor.close()
    return _parts(outbox.rows, attempt, clock[begun:], sum(clock[:begun]))


def _monitor(outbox: Catch, watched: tuple[object, object], total: int, first: int, space: object) -> Monitor:
    """What `watch` would have opened, less the thread with the socket."""
    settings = Settings(
        run="corpus",
        modules=watched[:1],
        optimizers=watched[1:],
        group="",
        tags={},
        config={},
        updates_total=total,
        update_start=first,
        action_space=space,
        level=Level.NORMAL,
        sync=True,
        off_policy=False,
        max_staged_bytes=STAGED_BYTES,
        probe=getattr(watched[0], "probe", None),
    )
    monitor = Monitor(settings, outbox, DesiredState(Level.NORMAL), None, Exits())
    monitor.open()
    return monitor


def _parts(rows: list[Row], attempt: int, clock_ms: list[float], before_ms: float) -> list[Part]:
    """Rows as arrays, a part for each stretch of one schema. The clock is put in the place of the wall's."""
    times = T0_NS + ((before_ms + np.cumsum(clock_ms)) * 1e6).astype(np.int64)
    found, begin = [], 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and rows[end].schema.id == rows[begin].schema.id:
            continue
        part, schema = rows[begin:end], rows[begin].schema
        values = np.array([struct.unpack(f"<{schema.slots}d", row.values) for row in part])
        status = np.array([list(row.status) for row in part], np.uint8)
        for column, at, place in zip(schema.columns, schema.offsets, range(len(schema.columns)), strict=True):
            if column.name == "sys.update_ms":
                values[:, at] = clock_ms[begin:end]
            elif column.name == "sys.agent_ms":
                status[:, place] = Status.NOT_CALLED
        values = np.where(np.repeat(status, _widths(schema), axis=1) == 0, values, 0.0)
        longs = (np.array([getattr(row, name) for row in part], np.int64) for name in ("update", "env_steps"))
        update, env_steps = longs
        level, flags = (np.array([getattr(row, name) for row in part], np.uint8) for name in ("level", "flags"))
        found.append(Part(attempt, schema, update, times[begin:end], env_steps, level, flags, rounded(values), status))
        begin = end
    return found


def _widths(schema: Schema) -> list[int]:
    return [WIDTH[column.kind] for column in schema.columns]


def _readable(path: Path) -> list[Recording]:
    """What is there already; a damaged file is said and recorded again."""
    if not path.exists():
        return []
    try:
        return read_case(path)
    except CorpusError as error:
        print(f"{error}; recording it again", file=sys.stderr)
        return []


def _show(done: int, total: int, seconds: float, what: str) -> None:
    """One line of progress; on a terminal it is written over itself."""
    share = done / total
    bar = "#" * int(30 * share)
    left = seconds / share * (1 - share)
    end = "\r" if sys.stderr.isatty() else "\n"
    said = f"[{bar:<30}] {100 * share:5.1f} % {done}/{total} updates, {left / 60:4.0f} min left, {what:<24}"
    print(said, end=end, file=sys.stderr, flush=True)
