"""What can be switched off by `watch(collect={name: False})`, and what each collector costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Tally


class Cost(str, Enum):
    """What a collector takes of one update."""

    HOST = "arithmetic on the host, some microseconds"
    PASS = "a few kernels in the one pass that reduces an update"
    INPUT = "a pass of its own over one tensor, bounded in size"
    MODEL = "a pass over every parameter"
    PROBE = "a forward pass of a small batch, in few updates"


@dataclass(frozen=True, slots=True)
class Collector:
    """One switch: the columns it fills and its cost class. The level is that of its columns."""

    columns: tuple[str, ...]
    cost: Cost

    @property
    def level(self) -> Level:
        """The lowest level that runs it. What fills a table and no column is for DEBUG."""
        return min((COLUMNS[name].level for name in self.columns), default=Level.DEBUG)


COLLECTORS: dict[str, Collector] = {
    "sample_size": Collector(("policy.ratio",), Cost.PASS),
    "ranges": Collector(
        (
            "policy.logp.min",
            "policy.logp.max",
            "adv.used.absmax",
            "value.pred.min",
            "value.pred.max",
            "value.target.min",
            "value.target.max",
            "reward.step.absmax",
        ),
        Cost.PASS,
    ),
    "reward_zeros": Collector(("reward.step.zeros",), Cost.PASS),
    "advantage_shape": Collector(("adv.used.shape",), Cost.PASS),
    "diversity": Collector(("rnn.h.within",), Cost.PASS),
    "action_use": Collector(("policy.action.dominance", "policy.action", "policy.action.saturated"), Cost.INPUT),
    "action_std": Collector(("policy.std", "policy.std.min", "policy.std.max"), Cost.INPUT),
    "observation_features": Collector(
        ("obs.drift", "obs.drift.max", "obs.normalizer.drift", "obs.constant", "obs.features"), Cost.INPUT
    ),
    "probe": Collector(
        ("param.features.dormant", "param.features.units", "param.features.norm", "param.features.rank"), Cost.PROBE
    ),
    "second_moments": Collector(("opt.adam.rms", "opt.adam.v_max"), Cost.MODEL),
    "host_memory": Collector(("sys.host_bytes",), Cost.HOST),
    "device_memory": Collector(("sys.device_bytes",), Cost.HOST),
    "exemplars": Collector((), Cost.INPUT),
    "update_ratio": Collector(("opt.update_ratio",), Cost.MODEL),
}
"""Name in `collect=` → collector. What is not listed here is the core and cannot be switched off but by the level."""


@dataclass(slots=True)
class Switches:
    """Which collectors run: not those that are `off` for good, nor those that rest in this update to stay within the budget.

    A collector that asks `on` in every update and says by `charge` what it took may be told to rest. `periods`: of those that
    run by themselves in every so many-th update only, or when that is possible again.
    """

    off: frozenset[str] = frozenset()
    resting: frozenset[str] = frozenset()
    spent_ns: dict[str, int] = field(default_factory=dict)
    periods: dict[str, int] = field(default_factory=dict)

    def on(self, name: str) -> bool:
        """Whether a collector runs in this update."""
        return name not in self.off and name not in self.resting

    def charge(self, name: str, ns: int, period: int = 1) -> None:
        """Say what a collector took of the trainer's thread, and in how many updates it takes that once."""
        self.spent_ns[name] = self.spent_ns.get(name, 0) + ns
        if period > 1:
            self.periods[name] = period

    def take_spent_ms(self) -> dict[str, float]:
        """What each took since the last call."""
        spent, self.spent_ns = self.spent_ns, {}
        return {name: ns / 1e6 for name, ns in spent.items()}

    def refuse(self, tally: Tally, level: Level) -> None:
        """Say of each column without a subject why it is missing, in an update at `level`."""
        for name in self.off:
            for column in COLLECTORS[name].columns:
                if COLUMNS[column].level <= level and not COLUMNS[column].per:
                    tally.refuse(column, Status.SWITCHED_OFF)

    @property
    def resting_columns(self) -> frozenset[str]:
        """The columns that rest with their collectors, whatever their subjects."""
        return frozenset([column for name in self.resting - self.off for column in COLLECTORS[name].columns])
