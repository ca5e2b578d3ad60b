"""What the API takes and answers about what people do: acknowledge and silence. See `models`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gradwatch_contracts.limits import NOTE_CHARS_MAX, SILENCE_S_MAX
from gradwatch_daemon.api.models import Model, Time

SilenceStateName = Literal["active", "expired", "ended"]


class AnomalyBody(BaseModel):
    """What PATCH /anomalies/{id} takes; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"acknowledged": True, "note": "seed 3 again"}]})

    acknowledged: bool | None = Field(default=None, strict=True, description="true: seen, by whoever asks; false: not any more")
    note: str | None = Field(default=None, max_length=NOTE_CHARS_MAX, description="Shown with the acknowledgement")


class SilenceBody(BaseModel):
    """What POST /silences takes; a run, kind or subject that is left out or null is any."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"run": "ant-ppo", "kind": "kl_spike", "reason": "new clip", "lifetime_s": 14400}]},
    )

    run: str | None = None
    kind: str | None = Field(default=None, description="Kind of the anomaly's root")
    subject: str | None = Field(default=None, max_length=128, description='Head, layer or key; "" is what has none')
    reason: str = Field(min_length=1, max_length=NOTE_CHARS_MAX, description="Why; kept with it")
    lifetime_s: float = Field(gt=0, le=SILENCE_S_MAX, allow_inf_nan=False, description="Seconds until it expires")
    id: str | None = Field(default=None, description="Made by the client: the same request sent again changes nothing")


class SilenceItem(Model):
    """Anomalies that are not delivered for a while. They stay in every list, with the id of their silence."""

    id: str
    run: str | None = Field(description="null: any")
    kind: str | None = Field(description="null: any")
    subject: str | None = Field(description="null: any")
    reason: str
    author: str = Field(description="Name of the token that made it", examples=["owner"])
    created_at: Time
    expires_at: Time
    state: SilenceStateName
    muted: int = Field(description="Anomalies it kept from being delivered")


class SilenceList(Model):
    """Silences, newest first."""

    items: list[SilenceItem]
    next: str | None
