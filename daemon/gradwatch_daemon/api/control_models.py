"""What the API says of commands and escalations, field by field."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gradwatch_contracts.limits import CONTROL_EXPIRES_S, CONTROL_EXPIRES_S_MAX, ESCALATION_UPDATES_MAX
from gradwatch_contracts.names import ID, VERB
from gradwatch_daemon.api.models import ControlStateName, LevelName, Model, Time


class RankItem(Model):
    """How one rank stands to a command or an escalation."""

    rank: int
    state: ControlStateName
    update: int | None = Field(description="Update of its last word; null before any")
    reason: str
    applied: int | None = Field(description="Update it began at; null before it did")
    late: int | None = Field(description="Updates it began after the first of the ranks; null before it did")


class ArtifactItem(Model):
    """The file that came for a command."""

    name: str = Field(examples=["trace-ant-ppo-updates-12-14.json.gz"])
    bytes: int
    url: str = Field(description="Where to get it; 410 once retention has deleted it")


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
    artifact: ArtifactItem | None = Field(description="null while no whole file has come")
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

    verb: str = Field(
        description="One the trainer declares: GET runs/{run} lists them", json_schema_extra={"pattern": f"^{VERB.pattern}$"}
    )
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
    id: str | None = Field(
        default=None,
        description="Made by the client: the same request sent again changes nothing",
        json_schema_extra={"pattern": f"^{ID.pattern}$"},
    )


class EscalationItem(Model):
    """A time-boxed raise of the level. Only the agent's own answer makes it applied or ended."""

    id: str
    run: str
    level: LevelName
    updates: int
    origin: str = Field(description="`operator`, or `anomaly:ID`", examples=["operator"])
    reason: str
    state: ControlStateName
    requested_at: Time
    update_applied: int | None = Field(description="First update collected wholly at the level; null before that")
    update_ended: int | None = Field(description="null while not ended")
    ended_why: str
    expires_at: Time | None = Field(description="Not begun by then, it is given up; null for never")
    ranks: list[RankItem] = Field(description="Those that were told, each with its own word")
    sentence: str


class EscalationList(Model):
    """Escalations of a run, newest first."""

    items: list[EscalationItem]
    next: str | None


class EscalationBody(BaseModel):
    """What POST …/escalations takes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"level": "debug", "updates": 50, "reason": "watching the KL"}]},
    )

    # Bounds are told by the document and checked by the route, whose refusal names the nearest word.
    level: str = Field(description="minimal, normal or debug", json_schema_extra={"enum": ["minimal", "normal", "debug"]})
    updates: int = Field(
        strict=True,
        description="How many updates the level holds, from the one it is applied at",
        json_schema_extra={"minimum": 1, "maximum": ESCALATION_UPDATES_MAX},
    )
    reason: str = Field(default="", max_length=500)
    anomaly: str | None = Field(
        default=None,
        max_length=64,
        description="For programs: in the name of this anomaly, within the budget of the rules",
    )
    expires_s: float = Field(
        default=CONTROL_EXPIRES_S,
        gt=0,
        le=CONTROL_EXPIRES_S_MAX,
        allow_inf_nan=False,
        description="Given up when the trainer has not begun it by then",
    )
    id: str | None = Field(
        default=None,
        description="Made by the client: the same request sent again changes nothing",
        json_schema_extra={"pattern": f"^{ID.pattern}$"},
    )
