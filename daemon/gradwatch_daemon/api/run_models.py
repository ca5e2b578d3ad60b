"""What the API answers about one run, beyond what lists show of it. See `models`."""

from typing import Any

from pydantic import Field

from gradwatch_daemon.api.models import DetectorStanding, LevelName, Model, RunSummary, Time


class LossReason(Model):
    """How many records never came, for one reason."""

    reason: str = Field(examples=["outbox full"])
    records: int


class RowTimes(Model):
    """When the trainer made a row, by its clock, and when it came here, by ours."""

    made_at: Time
    received_at: Time


class CrashView(Model):
    """The exception that ended a run, as its trainer told it."""

    type: str = Field(examples=["ValueError"])
    message: str
    traceback: str = Field(description="Its end is the line that raised; the middle may be cut")
    update: int = Field(description="The update it was in, which is stored as far as it came")
    rank: int | None
    at: Time
    updates: str = Field(description="Address of the last updates before it")


class OverheadView(Model):
    """The newest decision of the agent about what it may take of the trainer's time, from its `overhead` event."""

    update: int = Field(description="Last update before it held")
    share_before: float = Field(description="What all calls of the agent took of an update's time", examples=[0.024])
    share: float = Field(description="What they are to take from then on", examples=[0.009])
    budget: float = Field(examples=[0.01])
    thinned: dict[str, int] = Field(
        description="Collector → it runs in one update of so many, its signals say `thinned` in the others",
        examples=[{"exemplars": 4}],
    )
    sentence: str


class AllowanceView(Model):
    """What rules may raise the level of a run for; people are not bound by it."""

    spent: int = Field(description="Updates rules held the level for in the last `window`")
    may: int = Field(description="Updates they may")
    window: int
    refill_update: int | None = Field(
        description="Update from which on there is room for what was refused last; null where nothing was"
    )


class ActionView(Model):
    """Something the daemon would ask the trainer for by itself."""

    verb: str = Field(examples=["stop"])
    when: str = Field(examples=["critical nonfinite"])
    enabled: bool = Field(description="false: a shadow, which only counts what it would have done")
    declared: bool = Field(description="Whether the trainer takes the verb")
    would_have: int = Field(description="Times it would have been asked for in this run")


class CollectorCost(Model):
    """One collector at one level."""

    name: str = Field(description="As in watch(collect=...); core: all that cannot be switched off", examples=["probe"])
    cost: str = Field(description="What it takes, in words")
    share: float | None = Field(
        description="Mean share of the trainer's own time that it took at it; null where not timed, or a part of core"
    )


class LevelCost(Model):
    """One level: its collectors, the signals that it adds to the levels below, and what it cost on this run."""

    level: LevelName
    collectors: list[CollectorCost] = Field(description="All that run at it")
    signals: list[str] = Field(description="What it adds to the level below")
    updates: int = Field(description="Updates measured at it, of the newest 512")
    share: float | None = Field(
        description="Median share of an update's time that the agent took at it; null where none of them was measured",
        examples=[0.004],
    )


class RunDetail(RunSummary):
    """A run with everything known of it."""

    launch_id: str
    agent_version: str = Field(
        description="Version of gradwatch in the trainer; empty when it has not greeted since we started"
    )
    verbs: list[str] = Field(description="Commands its trainer takes now; empty when none is connected", examples=[["stop"]])
    levels: list[LevelCost] = Field(description="From OFF to DEBUG")
    allowance: AllowanceView | None = Field(description="null while no rule has asked for a higher level in this attempt")
    actions: list[ActionView] = Field(description="What an anomaly may bring about by itself")
    row_last: RowTimes | None = Field(description="Newest row; null when none came since the daemon started")
    tags: dict[str, str]
    labels: dict[str, str]
    config: dict[str, Any]
    standings: list[DetectorStanding]
    losses: list[LossReason]
    crash: CrashView | None = Field(description="null: the present attempt told of no exception")
    overhead: OverheadView | None = Field(
        description="What the agent thinned to stay within its budget; null when every collector always ran in this attempt"
    )
