"""What runs/{run}/layers, /snapshot and /timeline answer: everything of one moment, and all moments on one axis."""

from typing import Literal

from pydantic import Field

from gradwatch_daemon.api.models import Coverage, LevelName, Model, Number, SeverityName, Time

TimelineWhat = Literal["attempt", "anomaly", "level", "gap", "rewind", "event"]


class LayersAnswer(Model):
    """Norms of every layer at some updates, `[update][layer]`, oldest first. Layers are named as the trainer's model names
    its parameters."""

    run: str
    attempt: int
    rank: int
    layers: list[str] = Field(examples=[["actor.0.weight", "actor.0.bias"]])
    update: list[int] = Field(description="Updates of the tables; empty when there is none", examples=[[118, 119]])
    grad_norm: list[list[Number]] = Field(description="Largest norm of the gradient before clipping, within each update")
    weight_norm: list[list[Number]] = Field(description="Norm of the parameter at the end of each update")
    updates: list[int] = Field(description="Every update of this attempt and rank that has a table")
    sentence: str = Field(examples=["2 layers at update 119."])
    coverage: Coverage


class SnapshotSignal(Model):
    """One signal over the rows of a snapshot."""

    signal: str = Field(examples=["policy.kl.k3"])
    subject: str = Field(description="Head, layer or key; empty for none")
    unit: str
    values: list[Number]
    status: list[str] = Field(description="`measured`, why there is no value, or `absent`: that row did not have the signal")


class SnapshotAnswer(Model):
    """Every signal around one update, row by row as stored; a row is at the same place in every list."""

    run: str
    attempt: int
    rank: int | None = Field(description="null: all ranks together")
    around: int | None = Field(description="The update asked for, or the newest; null when there is none yet")
    first: int | None = Field(description="First update of the window; null as above")
    last: int | None
    update: list[int] = Field(description="Of each row, in order of arrival: a trainer that went back has an update twice")
    at: list[Time]
    env_steps: list[int | None] = Field(description="null where the trainer did not give it")
    level: list[LevelName] = Field(description="What the row was collected at")
    partial: list[bool] = Field(description="Whether the update ended before its time, by an exception or an exit")
    signals: list[SnapshotSignal]
    truncated: bool = Field(description="Whether there are more rows in the window than were answered; then the newest are")
    coverage: Coverage


class TimelineItem(Model):
    """One thing on the axis of updates."""

    what: TimelineWhat
    id: str = Field(description="Unique in this list; that of the anomaly where it is one")
    update: int = Field(description="Where it begins: of a gap the first update that is missing")
    update_end: int | None = Field(description="Where it ends, included; null while it lasts, or where it is over at once")
    at: Time | None = Field(description="Of its begin, by the trainer's clock; null where no row tells")
    kind: str = Field(description="Kind of the anomaly or event, or the level", examples=["nonfinite"])
    subject: str = Field(description="Of the anomaly; empty for none")
    severity: SeverityName | None = Field(description="Of an anomaly; null for anything else")
    sentence: str = Field(examples=["Gradient norm is NaN at update 119."])
    link: str | None = Field(description="Address of the thing itself; null where this item is all there is")


class TimelineAnswer(Model):
    """Everything that happened in one attempt, on the axis of updates, newest first."""

    run: str
    attempt: int
    rank: int | None = Field(description="null: all ranks together")
    items: list[TimelineItem]
    next: str | None
    truncated: bool = Field(description="Whether the run has more events or anomalies than were looked at; the newest were")
    coverage: Coverage
