"""What of a run is under somebody's control: what each level costs, what rules may still do, what actions would have done."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from gradwatch_contracts.collectors import COLLECTORS, CORE, COST, COSTS
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS, SIGNALS
from gradwatch_daemon.api.context import ActionInfo, ApiContext
from gradwatch_daemon.api.kept import Shares
from gradwatch_daemon.api.numbers import medians_by_level
from gradwatch_daemon.api.run_models import ActionView, AllowanceView, LevelCost
from gradwatch_daemon.records import ALL_RANKS, EventRecord, RunView, SignalKey, Stream
from gradwatch_daemon.records.commands import Allowance

COSTS_UPDATES = 512
"""Newest updates whose cost is looked at: a second of a fast trainer, half a day of a slow one."""

SHARE = SignalKey("sys.agent_share")


def read_control(context: ApiContext, view: RunView, events: Sequence[EventRecord]) -> dict[str, Any]:
    """The fields `levels`, `allowance` and `actions` of a run. Reads the store: for a worker thread."""
    shares: Shares = {}
    if view.update_last is not None:
        stream = Stream(view.run.run, view.run.attempt, 0 if view.run.world == 1 else ALL_RANKS)
        bounds = max(0, view.update_last - COSTS_UPDATES + 1), view.update_last

        def read() -> Shares:
            return medians_by_level(context.reader.blocks_between(stream, *bounds, COSTS_UPDATES), SHARE)

        shares = context.kept.shares(stream, view.update_last, COSTS_UPDATES, read)
    return {
        "levels": [level_cost(level, shares.get(int(level)), newest_costs(view, events, level)) for level in Level],
        "allowance": None if view.allowance is None else allowance_view(view.allowance),
        "actions": action_views(context.actions, view, context.reader.shadows(view.run.run)),
    }


def newest_costs(view: RunView, events: Iterable[EventRecord], level: Level) -> dict[str, float]:
    """The newest word of the present attempt about what a level took, by collector; `events` come newest first."""
    attempt = view.run.attempt
    for event in events:
        if event.kind == COSTS and event.stream.attempt == attempt and event.detail.get("level") == int(level):
            told = {name.removeprefix(COST): share for name, share in event.detail.items() if name.startswith(COST)}
            # An event is what a trainer says.
            return {name: share for name, share in told.items() if isinstance(share, float) and math.isfinite(share)}
    return {}


def level_cost(level: Level, measured: tuple[int, float] | None, costs: Mapping[str, float]) -> LevelCost:
    """One level; `measured` are the updates at it and the median share of their time, `costs` the shares of collectors."""
    running = {CORE: "what cannot be switched off but by the level"}
    running |= {name: collector.cost.value for name, collector in COLLECTORS.items() if collector.level <= level}
    collectors = [{"name": name, "cost": words, "share": costs.get(name)} for name, words in running.items()]
    updates, share = measured if measured is not None else (0, None)
    words = {"level": level.name.lower(), "collectors": collectors, "signals": list(added(level))}
    return LevelCost.model_validate({**words, "updates": updates, "share": share})


@cache
def added(level: Level) -> tuple[str, ...]:
    """The signals that are measured from a level on."""
    return tuple(s.name for s in SIGNALS.values() if max(COLUMNS[name].level for name in s.columns) is level)


def allowance_view(allowance: Allowance) -> AllowanceView:
    """What rules may still do."""
    return AllowanceView(spent=allowance.spent, may=allowance.may, window=allowance.window, refill_update=allowance.refill)


def action_views(actions: Sequence[ActionInfo], view: RunView, shadows: Mapping[str, int]) -> list[ActionView]:
    """Each action, with how often it would have been done."""
    return [
        ActionView(
            verb=action.verb,
            when=action.when,
            enabled=action.enabled,
            declared=action.verb in view.verbs,
            would_have=shadows.get(action.verb, 0),
        )
        for action in actions
    ]
