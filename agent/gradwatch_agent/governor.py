"""Keeps the agent within its share of the trainer's own time: which optional collectors rest in an update, and why.

Pure: times come as arguments. What an update would cost at other paces is predicted from what each collector took when it
ran, so a decision is right at once and needs no trial. Medians over a few updates decide, because one slow update on a busy
machine says nothing; the way back is slower than the way down, so nothing flaps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gradwatch_contracts.collectors import CORE
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHARES: Mapping[Level, float] = {Level.OFF: 0.01, Level.MINIMAL: 0.01, Level.NORMAL: 0.01, Level.DEBUG: 0.05}
"""Share of an update's time that the agent may take at a level."""

WARM_UP = 2
"""Updates at a level that are not judged: buffers are made in them, and code runs for the first time."""

JUDGED_MIN = 3
"""Updates seen before the first decision. With the warm-up, an escalation of five updates is hardly ever thinned."""

REMEMBERED = 8
"""Updates that a median is taken over."""

TURNED, TURNED_BY = 4, 2.0
"""So many runs in a row that each took more than so many times the median before them are no noise, and what was before is
forgotten. A median over both would thin to half of what is needed, and learn the rest as seldom as the collector then runs."""

TELL_FIRST, TELL_TIMES = 4, 16
"""Updates at a level after which its costs are told, and how many times as many until the next time: a short look tells once,
and a run of months some six times."""

EVERY_MAX = 64
"""The slowest pace: every 64th update, and of a collector that runs by itself now and then every 64th time."""

WORTH = 0.02
"""Share of the budget below which thinning a collector would blind its readers for nothing."""

EAGER, JUDGE_EVERY = 10, 4
"""Updates at a level that are each judged at once; later so many are judged together: that takes as long as a tenth of a
`step()` may, and a median of eight hardly moves by one."""

RELIEF = 0.7
"""Share of the budget that the faster pace must stay below, for `CALM` judgements in a row, before it is taken."""

CALM = 16 // JUDGE_EVERY
"""Judgements; 16 updates later on."""

NOBODY: frozenset[str] = frozenset()


class Taken(NamedTuple):
    """What an update took, what of it the agent, and what each optional collector that ran."""

    update_ms: float
    agent_ms: float
    collectors_ns: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Thinning:
    """What holds from the next update on. `share`: predicted, of an update's time; `was`: what it takes at the paces until now;
    `every`: collector → it runs in every so many-th update, only those that do not run in all."""

    share: float
    was: float
    budget: float
    every: dict[str, int]

    @property
    def sentence(self) -> str:
        """For people."""
        resting = ", ".join(f"{name} in one update of {every}" for name, every in sorted(self.every.items()))
        held = f"the agent takes {self.was:.1%} of an update's time, {self.budget:.1%} are allowed"
        return f"{held}; with {resting} {self.share:.1%}" if resting else f"{held}; every collector runs in every update"


def _recent() -> deque[float]:
    return deque(maxlen=REMEMBERED)


def _median(values: Sequence[float]) -> float:
    """As of `statistics`, whose import takes as long as that of half the agent."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(slots=True)
class Pace:
    """What is known of one level: recent shares of the trainer's own time, and the pace of each collector. `periods`: updates
    from one run to the next of those that have a pace of their own; `untold`: updates that are yet to be looked at."""

    seen: int = 0
    core: deque[float] = field(default_factory=_recent)
    costs: dict[str, deque[float]] = field(default_factory=dict)
    periods: dict[str, int] = field(default_factory=dict)
    every: dict[str, int] = field(default_factory=dict)
    untold: list[Taken] = field(default_factory=list)
    calm: int = 0
    tell_at: int = TELL_FIRST

    def remember(self, periods: Mapping[str, int]) -> None:
        """Take in the updates since the last time. Shares, not times: what slows the machine down slows the trainer down as
        well. Of what the trainer takes without us, so that resting does not change the measure."""
        for update_ms, agent_ms, collectors_ns in self.untold:
            own_ms = update_ms - agent_ms
            whole, optional = agent_ms / own_ms, 0.0
            for name, cost_ns in collectors_ns.items():
                cost = cost_ns / 1e6 / own_ms
                optional += cost
                seen = self.costs.get(name)
                if seen is None:
                    seen = self.costs[name] = _recent()
                seen.append(cost)
                self.periods[name] = periods.get(name, 1)
            self.core.append(max(0.0, whole - optional))
        self.untold.clear()

    def forget(self) -> None:
        """Of collectors that have turned slow, keep only what they took since."""
        for costs in self.costs.values():
            if costs[-1] <= TURNED_BY * min(costs):
                continue  # as nearly always
            values = list(costs)
            before, since = values[:-TURNED], values[-TURNED:]
            if before and min(since) > TURNED_BY * _median(before):
                costs.clear()
                costs.extend(since)

    def predict(self, every: Mapping[str, int]) -> float:
        """What the agent takes on average at these paces."""
        return _median(self.core) + sum(self.mean(name, every) for name in self.costs)

    def mean(self, name: str, every: Mapping[str, int]) -> float:
        """What a collector takes on average at its pace."""
        return _median(self.costs[name]) / every.get(name, self.periods[name])

    def halve(self, name: str, every: dict[str, int]) -> None:
        """Let a collector run half as often."""
        every[name] = 2 * every.get(name, self.periods[name])


class Governor:
    """Decides, after an update, who rests in the next ones. `shares`: of an update's time, by level."""

    __slots__ = ("_paces", "_shares")

    def __init__(self, shares: Mapping[Level, float] = SHARES) -> None:
        self._shares = shares
        self._paces = {level: Pace() for level in Level}

    def begin(self, update: int, level: Level) -> frozenset[str]:
        """The collectors that rest in `update`, which runs at `level`; each level has its own paces."""
        every = self._paces[level].every
        return frozenset([name for name, pace in every.items() if update % pace]) if every else NOBODY

    def end(self, level: Level, taken: Taken) -> bool:
        """Take what an update at `level` took; whether it is time to `decide`."""
        pace = self._paces[level]
        pace.seen += 1
        if pace.seen <= WARM_UP or taken.update_ms <= taken.agent_ms:
            return False
        pace.untold.append(taken)
        return pace.seen <= EAGER or len(pace.untold) >= JUDGE_EVERY

    def decide(self, level: Level, periods: Mapping[str, int] | None = None) -> Thinning | None:
        """Look at the updates at `level` since the last time; the decision when it differs from the last one. `periods`: see
        `Switches`."""
        pace = self._paces[level]
        pace.remember(periods or {})
        if len(pace.core) < JUDGED_MIN:
            return None
        budget = self._shares[level]
        if not pace.every and max(pace.core) + sum(map(max, pace.costs.values())) <= budget:
            return None  # nobody rests, and nobody has to
        pace.forget()
        wanted = _relax(pace, budget)
        if wanted is None:
            wanted = _tighten(pace, budget)
        if wanted == pace.every:
            return None
        was, pace.every = pace.predict(pace.every), wanted
        return Thinning(pace.predict(wanted), was, budget, dict(wanted))

    def costs(self, level: Level) -> tuple[int, dict[str, float]] | None:
        """What `level` took where that is due to be told: updates seen at it, and the mean share of the trainer's own time by
        collector, `core` for all that is not timed apart."""
        pace = self._paces[level]
        if pace.seen < pace.tell_at or not pace.core:
            return None
        while pace.tell_at <= pace.seen:
            pace.tell_at *= TELL_TIMES
        return pace.seen, {CORE: _median(pace.core), **{name: pace.mean(name, pace.every) for name in sorted(pace.costs)}}


def _tighten(pace: Pace, budget: float) -> dict[str, int]:
    """Halve the pace of whoever takes most, again and again, until the budget holds or nothing more can rest."""
    every = dict(pace.every)
    while pace.predict(every) > budget:
        able = [name for name in sorted(pace.costs) if every.get(name, 1) < EVERY_MAX * pace.periods[name]]
        dearest = max(able, key=lambda name: pace.mean(name, every), default=None)
        if dearest is None or pace.mean(dearest, every) < WORTH * budget:
            break
        pace.halve(dearest, every)
    return every


def _relax(pace: Pace, budget: float) -> dict[str, int] | None:
    """Double the pace of the cheapest that rests, once that has fitted well within the budget for long enough. None when it
    would not fit; the present paces while it is still being waited for."""
    if not pace.every:
        return None
    cheapest = min(sorted(pace.every), key=lambda name: pace.mean(name, {}))
    faster = {**pace.every, cheapest: pace.every[cheapest] // 2}
    if pace.predict(faster) > RELIEF * budget:
        pace.calm = 0
        return None
    pace.calm += 1
    if pace.calm < CALM:
        return pace.every
    pace.calm = 0
    return {name: every for name, every in faster.items() if every > pace.periods[name]}
