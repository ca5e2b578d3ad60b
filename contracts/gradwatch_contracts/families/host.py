"""Of the trainer's process: episodes beyond their returns, time by phase, memory."""

from __future__ import annotations

from gradwatch_contracts.columns import Kind, RankRule
from gradwatch_contracts.control import Level
from gradwatch_contracts.definitions import ColumnSpec, Signal
from gradwatch_contracts.vocabulary import Source, Unit


def _episodes(name: str) -> ColumnSpec:
    return ColumnSpec(name, Kind.MOMENTS, RankRule.MERGE, Level.MINIMAL, Source.HOST, "step")


COLUMNS: tuple[ColumnSpec, ...] = (
    _episodes("episode.length"),
    _episodes("episode.truncated"),
    _episodes("episode.eval_return"),
    ColumnSpec("sys.phase_ms", Kind.SUM, RankRule.MAX, Level.MINIMAL, Source.HOST, "phase", "phase"),
    ColumnSpec("sys.host_bytes", Kind.LAST, RankRule.MAX, Level.MINIMAL, Source.HOST, "step"),
    ColumnSpec("sys.device_bytes", Kind.LAST, RankRule.MAX, Level.NORMAL, Source.HOST, "step"),
)

SIGNALS: tuple[Signal, ...] = (
    Signal("episode.length.mean", Unit.STEPS, "mean", ("episode.length",), "mean length of the episodes finished in it"),
    Signal(
        "episode.length.std",
        Unit.STEPS,
        "std",
        ("episode.length",),
        "population standard deviation of the length of the episodes finished in this update",
    ),
    Signal(
        "episode.truncated.share",
        Unit.FRACTION,
        "mean",
        ("episode.truncated",),
        "share of the episodes finished in this update that a limit cut off",
    ),
    Signal(
        "episode.eval_return.mean",
        Unit.RETURN,
        "mean",
        ("episode.eval_return",),
        "mean return of the evaluation episodes given in this update",
        sign="signed",
    ),
    Signal(
        "episode.eval_return.std",
        Unit.RETURN,
        "std",
        ("episode.eval_return",),
        "population standard deviation of the returns of the evaluation episodes",
    ),
    Signal("sys.phase_ms", Unit.MILLISECONDS, "value", ("sys.phase_ms",), "wall time inside phase() in this update"),
    Signal(
        "sys.host_bytes",
        Unit.BYTES,
        "value",
        ("sys.host_bytes",),
        "resident memory of the trainer; it is read once a second at the most, and updates between tell what was read last",
        window="end of update, up to 1 s old",
    ),
    Signal(
        "sys.device_bytes",
        Unit.BYTES,
        "value",
        ("sys.device_bytes",),
        "memory that torch has allocated on the model's CUDA devices",
        window="end of every 16th update",
    ),
)
