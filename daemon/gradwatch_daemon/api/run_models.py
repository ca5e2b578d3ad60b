"""What the API answers about one run, beyond what lists show of it. See `models`."""

from typing import Any

from pydantic import Field

from gradwatch_daemon.api.models import DetectorStanding, Model, RunSummary, Time


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


class RunDetail(RunSummary):
    """A run with everything known of it."""

    launch_id: str
    agent_version: str = Field(
        description="Version of gradwatch in the trainer; empty when it has not greeted since we started"
    )
    verbs: list[str] = Field(description="Commands its trainer takes now; empty when none is connected", examples=[["stop"]])
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
