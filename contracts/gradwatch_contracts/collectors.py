"""What can be switched off by `watch(collect={name: False})`, at which level each collector runs, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

CORE = "core"
"""All that is not listed below, by the name under which its cost is told."""

COSTS = "costs"
"""Kind of the event that tells what a level took: `level`, `updates` seen at it, and `cost.NAME`, the share of the trainer's
own time, of the core and of each collector that is timed apart; the others are within the core."""

COST = "cost."


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
