"""What the API says of commands, field by field."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gradwatch_contracts.limits import CONTROL_EXPIRES_S, CONTROL_EXPIRES_S_MAX
from gradwatch_daemon.api.models import ControlStateName, Model, Time


class RankItem(Model):
    """How one rank stands to a command or an escalation."""

    rank: int
    state: ControlStateName
    update: int | None = Field(description="Update of its last word; null before any")
    reason: str


class CommandItem(Model):
    """Something a run was asked to do. Only the trainer's own answer makes it applied, ended or rejected."""

    id: str
    run: str
    verb: str = Field(examples=["stop"])
    args: dict[str, Any]
    origin: str = Field(description="`operator`, or `anomaly:ID`", examples=["operator"])
    reason: str
    state: ControlStateName
    requested_at: Time
    expires_at: Time = Field(description="Not begun by then, it is given up")
    update_applied: int | None = Field(description="First update after it was begun, on all its ranks; null before that")
    update_ended: int | None = Field(description="null while not ended, and where nobody said so")
    ended_why: str = Field(description="The outcome, or why there is none")
    ranks: list[RankItem] = Field(description="Those that were asked, each with its own word")
    sentence: str


class CommandList(Model):
    """Commands of a run, newest first."""

    items: list[CommandItem]
    next: str | None


class CommandBody(BaseModel):
    """What POST …/commands takes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"verb": "checkpoint", "reason": "before the maintenance"}]}
    )

    verb: str = Field(description="One the trainer declares: GET runs/{run} lists them")
    args: dict[str, str | bool | int | float | None] = Field(default_factory=dict, description="What the verb takes")
    reason: str = Field(default="", max_length=500)
    rank: int | None = Field(default=None, strict=True, ge=0, description="One rank only; all when not given")
    expires_s: float = Field(
        default=CONTROL_EXPIRES_S,
        gt=0,
        le=CONTROL_EXPIRES_S_MAX,
        allow_inf_nan=False,
        description="Given up when the trainer has not begun it by then",
    )
    id: str | None = Field(default=None, description="Made by the client: the same request sent again changes nothing")
