"""What the API takes and answers about notifications. See `models`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gradwatch_daemon.api.models import Model, SeverityName, Time

ChannelKind = Literal["webhook", "alertmanager", "apprise"]
DeliveryStateName = Literal["pending", "delivered", "failed", "dropped", "muted"]


class ChannelItem(Model):
    """Where notifications go, and how many of those in the log stand how."""

    name: str = Field(examples=["ops"])
    kind: ChannelKind
    address: str = Field(description="Scheme and host alone: the rest may hold a secret", examples=["https://hooks.lab"])
    severity: SeverityName = Field(description="What is less severe is not told")
    deliveries: dict[DeliveryStateName, int]


class ChannelList(Model):
    """All configured channels; `next` is always null."""

    items: list[ChannelItem]
    next: None


class TestBody(BaseModel):
    """What POST /notify/test takes."""

    __test__ = False  # not a test of pytest's
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"channel": "ops"}]})

    channel: str | None = Field(default=None, description="Only this one; null: all")


class TriedItem(Model):
    """What came back from one channel."""

    channel: str
    kind: ChannelKind
    ok: bool
    answer: str = Field(description="What the receiver said", examples=["200 OK"])
    took_ms: float


class TriedList(Model):
    """A test of one or all channels; `next` is always null."""

    items: list[TriedItem]
    next: None


class DeliveryItem(Model):
    """One notification to one channel."""

    id: str
    channel: str
    subject: str = Field(description="Id of an anomaly, or RUN/ATTEMPT for how a run is")
    event: Literal["firing", "resolved"]
    severity: SeverityName
    run: str
    state: DeliveryStateName = Field(description="failed: given up; dropped: too many were pending; muted: by a silence")
    attempts: int
    made_at: Time
    changed_at: Time
    answer: str = Field(description="What the receiver said last, or why nothing was sent")
    silenced: str | None = Field(description="Id of the silence that muted it")
    body: dict[str, Any] = Field(description="The document that is sent")


class DeliveryList(Model):
    """The log of notifications, newest first."""

    items: list[DeliveryItem]
    next: str | None
