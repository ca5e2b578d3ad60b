"""The overhead budget: who rests, how soon, and that it comes back. No clock: every time is given."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from gradwatch_agent.governor import CALM, EVERY_MAX, Governor, Taken, Thinning
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Mapping

UPDATE_MS = 100.0
BUDGET_MS = 1.0
"""At NORMAL."""


class Agent:
    """Collectors that take what they are said to, each update."""

    def __init__(self, core_ms: float, costs_ms: Mapping[str, float], periods: Mapping[str, int] | None = None) -> None:
        self.governor = Governor()
        self.periods = periods or {}
        self.core_ms, self.costs_ms = core_ms, dict(costs_ms)
        self.decisions: list[Thinning] = []
        self.taken_ms: list[float] = []
        self.ran: list[frozenset[str]] = []
        self.update = 0

    def run(self, updates: int, level: Level = Level.NORMAL, noise: random.Random | None = None) -> None:
        """So many updates."""
        for _ in range(updates):
            resting = self.governor.begin(self.update, level)
            turn = {name for name in self.costs_ms if self.update % self.periods.get(name, 1) == 0}
            costs = {name: cost for name, cost in self.costs_ms.items() if name in turn - resting}
            slow = 1.0 if noise is None else noise.choice((1.0, 1.0, 1.0, 1.2, 4.0))
            total = slow * (self.core_ms + sum(costs.values()))
            charged = {name: round(slow * cost * 1e6) for name, cost in costs.items()}
            due = self.governor.end(level, Taken(slow * UPDATE_MS + total, total, charged))
            found = self.governor.decide(level, self.periods) if due else None
            if found is not None:
                self.decisions.append(found)
            self.taken_ms.append(total)
            self.ran.append(frozenset(costs))
            self.update += 1

    def mean_ms(self, updates: int) -> float:
        """Of the last ones."""
        return sum(self.taken_ms[-updates:]) / updates


def test_governor_tells_what_a_level_took_after_4_and_64_updates_at_it_and_a_short_look_too() -> None:
    """The core, and each collector at the pace it has; nothing between, and nothing of a level that was not measured."""
    agent = Agent(0.3, {"cheap": 0.1, "rare": 0.8}, {"rare": 4})
    told = {}
    for update in range(64):
        agent.run(1)
        found = agent.governor.costs(Level.NORMAL)
        if found is not None:
            told[update + 1] = found
    agent.run(3, Level.DEBUG)
    assert agent.governor.costs(Level.DEBUG) is None
    agent.run(1, Level.DEBUG)
    assert agent.governor.costs(Level.DEBUG) is not None

    assert [(at, updates) for at, (updates, _) in told.items()] == [(4, 4), (64, 64)]
    costs = told[64][1]
    assert costs == {"core": pytest.approx(0.003), "cheap": pytest.approx(0.001), "rare": pytest.approx(0.002)}


def test_governor_slow_collector_is_under_budget_within_ten_updates() -> None:
    """Five times the budget; the cheap ones go on as before."""
    agent = Agent(0.3, {"slow": 5.0, "cheap": 0.1})
    agent.run(10)
    assert [decision.every for decision in agent.decisions] == [{"slow": 16}]
    agent.run(64)
    assert agent.mean_ms(64) <= BUDGET_MS
    assert sum("slow" in ran for ran in agent.ran[-64:]) == 4
    assert all("cheap" in ran for ran in agent.ran)
    assert len(agent.decisions) == 1


@pytest.mark.parametrize("quick_updates", [11, 12, 13, 14, 41, 42, 43, 44])
@pytest.mark.parametrize("slow_ms", [0.8, 1.4, 5.0, 40.0])
def test_governor_collector_that_turns_slow_late_is_under_budget_within_ten_updates(quick_updates: int, slow_ms: float) -> None:
    """Wherever in a group of judged updates it turns: what is decided by then holds, and is not made of quick and slow ones."""
    agent = Agent(0.3, {"slow": 0.1, "cheap": 0.1})
    agent.run(quick_updates)
    assert agent.decisions == []
    agent.costs_ms["slow"] = slow_ms
    agent.run(10)
    paces = [decision.every for decision in agent.decisions]
    agent.run(128)
    assert agent.mean_ms(128) <= BUDGET_MS
    assert [decision.every for decision in agent.decisions] == paces
    assert len(paces) == 1
    assert agent.decisions[0].was == pytest.approx((0.4 + slow_ms) / UPDATE_MS)


def test_governor_three_slow_runs_are_no_turn() -> None:
    """The machine was busy; what takes fifty times as long for so short a while is not thinned."""
    agent = Agent(0.3, {"slow": 0.1})
    agent.run(41)
    for cost_ms in (5.0, 5.0, 5.0, 0.1):
        agent.costs_ms["slow"] = cost_ms
        agent.run(1)
    agent.run(40)
    assert agent.decisions == []


def test_governor_says_what_it_thinned_and_why() -> None:
    """Measured before, predicted after, and what is allowed."""
    agent = Agent(0.5, {"slow": 1.0})
    agent.run(10)
    (decision,) = agent.decisions
    assert (decision.was, decision.share, decision.budget) == pytest.approx((0.015, 0.01, 0.01))
    assert decision.sentence == (
        "the agent takes 1.5% of an update's time, 1.0% are allowed; with slow in one update of 2 1.0%"
    )


def test_governor_within_budget_thins_nothing() -> None:
    """Also when single updates are slow."""
    agent = Agent(0.3, {"a": 0.2, "b": 0.2})
    agent.run(300, noise=random.Random(3))
    assert agent.decisions == []
    assert all(ran == {"a", "b"} for ran in agent.ran)


def test_governor_core_above_budget_rests_what_counts_and_no_more() -> None:
    """Nothing can bring it under; a collector of a hundredth of the budget would be blinded for nothing."""
    agent = Agent(3.0, {"slow": 1.0, "crumb": 0.01})
    agent.run(10)
    assert agent.decisions[0].every.keys() == {"slow"}
    assert agent.decisions[0].every["slow"] == EVERY_MAX
    assert agent.decisions[0].share > 0.03


def test_governor_dearest_rests_first() -> None:
    """One of the two is enough."""
    agent = Agent(0.2, {"dear": 1.0, "less": 0.3})
    agent.run(10)
    assert agent.decisions[-1].every == {"dear": 2}


def test_governor_brings_a_collector_back_when_it_is_cheap_again() -> None:
    """Step by step, and it stays."""
    agent = Agent(0.2, {"slow": 5.0})
    agent.run(40)
    assert agent.decisions[-1].every == {"slow": 8}
    agent.costs_ms["slow"] = 0.1
    agent.run(CALM * 8 * 8)
    assert agent.decisions[-1].every == {}
    assert [max(decision.every.values(), default=1) for decision in agent.decisions] == [8, 4, 2, 1]
    before = len(agent.decisions)
    agent.run(200)
    assert len(agent.decisions) == before
    assert all("slow" in ran for ran in agent.ran[-200:])


def test_governor_collector_of_a_pace_of_its_own_counts_by_what_it_takes_on_average() -> None:
    """A probe in every 32nd update: what it takes hides from a median of updates. It comes half as often, and no less often
    than its own pace once it is cheap."""
    agent = Agent(0.3, {"probe": 32.0, "cheap": 0.1}, {"probe": 32})
    agent.run(40)
    assert [decision.every for decision in agent.decisions] == [{"probe": 64}]
    agent.run(256)
    assert agent.mean_ms(256) <= BUDGET_MS
    assert sum("probe" in ran for ran in agent.ran[-256:]) == 4
    agent.costs_ms["probe"] = 1.0
    agent.run(1024)
    assert agent.decisions[-1].every == {}
    assert sum("probe" in ran for ran in agent.ran[-256:]) == 8


def test_governor_does_not_flap_near_the_budget() -> None:
    """A cost that fits at half the pace and not at the full one settles."""
    agent = Agent(0.45, {"edge": 0.6})
    agent.run(500, noise=random.Random(7))
    assert [decision.every for decision in agent.decisions] == [{"edge": 2}]


def test_governor_levels_have_budgets_and_paces_of_their_own() -> None:
    """What DEBUG allows is not thinned there; back at NORMAL the old pace holds at once."""
    agent = Agent(0.2, {"slow": 2.0})
    agent.run(10)
    thinned = agent.decisions[-1].every
    agent.run(10, Level.DEBUG)
    assert all("slow" in ran for ran in agent.ran[10:])
    agent.run(16)
    assert agent.decisions[-1].every == thinned == {"slow": 4}
    assert sum("slow" in ran for ran in agent.ran[20:]) == 4


def test_governor_escalation_of_five_updates_is_not_thinned() -> None:
    """It is there to look closely."""
    agent = Agent(1.0, {"slow": 50.0})
    agent.run(5, Level.DEBUG)
    assert all("slow" in ran for ran in agent.ran)
