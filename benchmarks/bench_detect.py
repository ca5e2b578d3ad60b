"""What detection costs: engine and lifecycle, in us an update, in blocks of 256 and singly, for both profiles.

A healthy stream of all signals, in CPU time of this process. The baseline is what people write by hand: 15 comparisons of
floats with fixed limits, update by update.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from feed import SCHEMA, frames, values_of
from gradwatch_contracts.codec import decode
from gradwatch_contracts.messages import Samples
from gradwatch_daemon.anomalies.lifecycle import Lifecycle
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from gradwatch_daemon.detect.engine import Engine, StreamState
from gradwatch_daemon.ingest.gate import row_block
from gradwatch_daemon.records import SignalBlock, Stream
from table import Figure, arguments, median, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

STREAM = Stream("bench", 1, 0)
BLOCK = 256
CHECKS = 15
UPDATES_TOTAL = 1_000_000
BUDGET_US = {("classic", BLOCK): 3.0, ("default", BLOCK): 20.0, ("classic", 1): 80.0, ("default", 1): 80.0}


def signal_blocks(updates: int, size: int) -> list[SignalBlock]:
    """The same rows for every size, derived as the daemon does it."""
    deriver, found = Deriver(), []
    for _, frame in frames(values_of(np.random.default_rng(3), updates), size):
        message = decode(frame)
        if isinstance(message, Samples):
            found.append(deriver.derive(row_block(STREAM, "bench", SCHEMA, message)))
    return found


def detect_us(blocks: Sequence[SignalBlock], profile: str) -> tuple[float, float, int]:
    """(engine, lifecycle) in us an update over a fresh stream, and how many anomalies changed."""
    engine, state = Engine(load_profile(profile)), StreamState()
    lifecycle = Lifecycle(STREAM, engine.profile.rules, engine.profile.rules_hash)
    engine_s = lifecycle_s = 0.0
    changed = 0
    for block in blocks:
        start = time.process_time()
        verdicts = engine.check(state, block, UPDATES_TOTAL)
        checked = time.process_time()
        changed += len(lifecycle.step(block, verdicts))
        lifecycle_s += time.process_time() - checked
        engine_s += checked - start
    updates = sum(len(block) for block in blocks)
    return engine_s / updates * 1e6, lifecycle_s / updates * 1e6, changed


def checks_us(block: SignalBlock) -> float:
    """15 comparisons an update over plain floats, in us an update."""
    rows = block.values[:CHECKS].T.tolist()
    limits = [1e9] * CHECKS
    start = time.process_time()
    found = [[value > limit for value, limit in zip(row, limits, strict=True)] for row in rows]
    return (time.process_time() - start) / len(found) * 1e6


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    rounds = 2 if args.quick else 7
    updates = {BLOCK: BLOCK * (8 if args.quick else 40), 1: 300 if args.quick else 1500}
    blocks = {size: signal_blocks(count, size) for size, count in updates.items()}
    taken: dict[tuple[str, int], list[tuple[float, float, int]]] = {}
    plain = []
    for _ in range(rounds):
        plain.append(median([checks_us(block) for block in blocks[BLOCK]]))
        for size, stream in blocks.items():
            for profile in PROFILES:
                taken.setdefault((profile, size), []).append(detect_us(stream, profile))
    baseline = (f"{CHECKS} comparisons", median(plain))
    figures = []
    for (profile, size), results in sorted(taken.items(), key=lambda item: (-item[0][1], item[0][0])):
        said = f"blocks of {size}" if size > 1 else "singly"
        total = median([engine + lifecycle for engine, lifecycle, _ in results])
        figures.append(Figure(f"{profile}, {said}", total, "us", BUDGET_US[profile, size], baseline=baseline))
        figures.append(Figure(f"  of it engine, {profile}, {said}", median([engine for engine, _, _ in results]), "us"))
    signals, detectors = len(blocks[1][0].signals), len(load_profile("default").detectors)
    changes = max(count for results in taken.values() for _, _, count in results)
    notes = [
        f"{signals} signals, {detectors} detectors, {rounds} rounds, CPU time; at most {changes} changes of anomalies a run"
    ]
    print_table("detection an update", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
