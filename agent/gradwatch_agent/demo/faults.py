"""The faults the demo can plant: which knob of the trainer, from which update, and what must be found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted fault. `expected` is the anomaly kind it must raise, None for a healthy run.

    `update` is where it begins. A fault changes the trainer or its environment, never an argument of the monitor.
    """

    name: str
    what: str
    expected: str | None
    update: int = 90


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("none", "nothing is broken", None),
        Fault("nan", "one environment returns a NaN reward once", "nonfinite"),
        Fault("ratio", "the learning rate is 100 times too high for 3 updates", "ratio_explosion"),
    )
}
"""Name → fault."""
