"""What the API answers, field by field: the source of /openapi.json and of every example in it.

Handlers build these models; series and anomalies, which may be large or many, are written as plain documents of the same
shape, and tests hold the two together. Every field is always present; `null` has one meaning per field, and its description
says which.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[
    Annotated[float, Field(allow_inf_nan=False)] | Literal["NaN", "Infinity", "-Infinity"] | None,
    Field(description='null = not measured; "NaN", "Infinity", "-Infinity" = measured so'),
]
LevelName = Literal["off", "minimal", "normal", "debug"]
SeverityName = Literal["info", "warning", "critical"]
AnomalyStateName = Literal["pending", "firing", "ended", "resolved"]
ControlStateName = Literal[
    "requested", "delivered", "applied", "ended", "rejected", "expired", "superseded", "cancelled", "lost"
]
Time = Annotated[str, Field(description="RFC 3339, UTC, milliseconds", examples=["2026-01-31T12:00:00.000Z"])]


class Model(BaseModel):
    """Base of all answers: an unknown field is a bug."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Coverage(Model):
    """How much of what the trainer made has arrived. What was lost is never part of an answer's data."""

    received: int = Field(description="Rows received")
    lost: int = Field(description="Records that never came")
    share: float | None = Field(description="received / (received + lost); null when nothing was made yet", examples=[0.998])
    thinned: int = Field(description="Of the received rows those that retention left as roll-ups of 64 only", examples=[0])


class LevelView(Model):
    """The telemetry level of a run."""

    base: LevelName
    pin: LevelName | None = Field(description="null = not pinned")
    effective: LevelName | None = Field(description="What the agent last confirmed; null before it confirmed any")
    revision: int = Field(description="Grows with every change of what should hold")


class DetectorCounts(Model):
    """How many detectors (a kind on a subject) are in which state. A blind or learning one says nothing about health."""

    armed: int
    learning: int
    blind: int
    firing: int


class DetectorStanding(Model):
    """One detector in a run; `reason` says why it is blind or how far learning is."""

    kind: str
    subject: str
    state: Literal["armed", "learning", "blind", "firing"]
    reason: str
    add: str = Field(description="Line for the trainer that opens its eyes; empty when no line would", examples=[""])


class RunSummary(Model):
    """A run as lists show it."""

    run: str = Field(examples=["ant-ppo"])
    attempt: int
    group: str
    state: str = Field(description="live, slow, stalled, lost, crashed, finished, stopped or imported", examples=["live"])
    evidence: str = Field(description="How we know that, in one sentence")
    sentence: str = Field(examples=["Training, update 120 of 500. No anomaly seen by the 5 of 8 detectors that can see."])
    level: LevelView
    live: bool
    sessions: int
    world: int
    update_last: int | None = Field(description="null before the first update came")
    updates_total: int | None = Field(description="null when the trainer did not say")
    first_seen_at: Time
    last_seen_at: Time
    coverage: Coverage
    detectors: DetectorCounts
    anomalies_open: int
    beside: list[int] = Field(
        description="Older attempts whose trainers still send: two trainers share the name", examples=[[]]
    )


class SignalItem(Model):
    """One signal a run has. `status` is that of the newest row; `value_last` is the last measured value."""

    signal: str = Field(examples=["policy.kl.k3"])
    subject: str = Field(description="Head, layer or key; empty for none")
    stage: str
    unit: str
    estimator: str
    window: str
    sign: str
    source: str
    level: LevelName | None = Field(description="Lowest level that collects it; null when this version does not know it")
    call: str = Field(description="Agent call that feeds it")
    update_last: int
    value_last: Number
    status: str = Field(examples=["measured"])
    reason: str
    measured: int = Field(description="Updates with a measured value, finite or not")
    nonfinite: int


class SeriesEnd(Model):
    """The last row of the range asked for, as it is, whatever the zoom."""

    update: int
    at: Time
    env_steps: int | None = Field(description="null where the trainer did not give it")
    value: Number
    status: str


class SeriesAnswer(Model):
    """One signal over updates, column by column: raw points (`bucket` 1), or buckets of `bucket` consecutive updates.

    `low` and `high` are over the finite values of a bucket (null when it has none), `last` is its last measured value: no
    extreme, no non-finite value and not the last point is hidden at any zoom. `update`, `at` and `env_steps` are three x axes.
    """

    run: str
    attempt: int
    rank: int | None = Field(description="null: all ranks together")
    signal: str
    subject: str
    unit: str
    estimator: str
    window: str
    bucket: int
    update: list[int] = Field(description="First update of each point or bucket")
    at: list[Time]
    env_steps: list[int | None] = Field(description="null where the trainer did not give it")
    low: list[Number]
    high: list[Number]
    last: list[Number]
    measured: list[int]
    nonfinite: list[int]
    status: list[str]
    end: SeriesEnd | None = Field(description="null when the range has no row of this signal")
    rows: int = Field(description="Stored rows in the range asked for")
    thinned: int = Field(description="Of these those left as roll-ups only: then `bucket` is 64 or more", examples=[0])
    coverage: Coverage


class AnomalyRoot(Model):
    """The earliest place the fault was seen at."""

    update: int
    minibatch: int | None = Field(description="null = not tied to one minibatch")
    stage: str = Field(examples=["grad"])


class AttachedFinding(Model):
    """A finding that the root explains."""

    kind: str
    subject: str
    severity: SeverityName
    update_onset: int
    update_fired: int
    value: Number
    limit: Number


class Evidence(Model):
    """Where the data behind an anomaly is; each link is an address of this API."""

    series: list[str]
    events: str
    rules_hash: str = Field(description="The rules that judged")
    playbook: str | None = Field(
        description="Page on its kind, which needs no token; null for a kind of other rules", examples=["/playbook/kl_spike"]
    )


class AcknowledgedView(Model):
    """Who has seen an anomaly, when, and what they say of it."""

    by: str = Field(description="Name of their token", examples=["owner"])
    at: Time
    note: str


class AnomalyItem(Model):
    """Findings of one cause in one run."""

    id: str
    run: str
    attempt: int
    rank: int | None = Field(description="null: all ranks together")
    kind: str = Field(examples=["nonfinite"])
    subject: str
    severity: SeverityName
    state: AnomalyStateName = Field(description="ended: it stood when its run ended, and is not going on")
    update_onset: int
    update_fired: int
    update_last: int
    update_resolved: int | None = Field(description="null while not resolved")
    fired_at: Time
    count: int
    value: Number
    limit: Number
    baseline: Number
    status: dict[str, str] = Field(description="For each of value, limit and baseline that is null: why")
    sentence: str
    root: AnomalyRoot
    attached: list[AttachedFinding]
    tries: list[str] = Field(alias="try", description="What to try, most likely first")
    evidence: Evidence
    acknowledged: AcknowledgedView | None = Field(description="null: nobody said that they have seen it")
    silenced: str | None = Field(description="Id of the silence that mutes it, or did until it resolved; null: none")
    coverage: Coverage | None = Field(description="Of its run; null when the daemon no longer holds the run")


class EventItem(Model):
    """Something that happened in a run."""

    attempt: int
    rank: int | None = Field(description="null: all ranks together")
    session: str
    seq: int
    update: int
    at: Time
    kind: str = Field(examples=["exception"])
    text: str
    detail: dict[str, Any]


class RunList(Model):
    """Runs, last seen first."""

    items: list[RunSummary]
    next: str | None


class SignalList(Model):
    """Signals of a run, in the order of the registry."""

    items: list[SignalItem]
    next: str | None
    coverage: Coverage


class AnomalyList(Model):
    """Anomalies, newest first. An empty list means nothing while `detectors` has blind ones or `coverage` is short."""

    items: list[AnomalyItem]
    next: str | None
    coverage: Coverage
    detectors: DetectorCounts


class EventList(Model):
    """Events of a run, newest first."""

    items: list[EventItem]
    next: str | None
    coverage: Coverage
