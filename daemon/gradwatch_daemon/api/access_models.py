"""What the API takes and answers about tokens and the audit. See `models`."""

from typing import Literal

from pydantic import Field

from gradwatch_contracts.names import ID
from gradwatch_daemon.api.models import Model, Time

LIFETIME_S_MAX = 10 * 366 * 86_400

ScopeName = Literal["read", "operate", "admin"]


class TokenBody(Model):
    """A token to make."""

    name: str = Field(
        description="What it is for; unique", examples=["grafana"], json_schema_extra={"pattern": f"^{ID.pattern}$"}
    )
    scope: ScopeName = Field(default="read", description="read; operate: also escalate; admin: also tokens and the audit")
    lifetime_s: float | None = Field(
        default=None, gt=0, le=LIFETIME_S_MAX, allow_inf_nan=False, description="Seconds until it expires; null: it does not"
    )


class TokenItem(Model):
    """A token without its secret."""

    id: str
    name: str
    scope: ScopeName
    created_at: Time
    expires_at: Time | None


class TokenMade(TokenItem):
    """A new token, with the secret that is shown this once."""

    token: str


class TokenList(Model):
    """All tokens made for others."""

    items: list[TokenItem]
    next: None


class SessionView(Model):
    """Who asks."""

    name: str = Field(description="Name of the token behind it", examples=["owner"])
    scope: ScopeName
    expires_at: Time | None = Field(description="When the browser's session ends; null where a token was sent")


class SessionCode(Model):
    """A code for `POST /session`, in place of a token. The dashboard takes it from its address: `/#code=CODE`."""

    code: str
    expires_at: Time
    public_url: str = Field(description="Where people reach this daemon, as configured; empty for none", examples=[""])


class KeyBody(Model):
    """An agent of another machine to let in."""

    name: str = Field(
        description="Which trainer or machine it is; unique",
        examples=["gpu7"],
        json_schema_extra={"pattern": f"^{ID.pattern}$"},
    )


class KeyItem(Model):
    """A registered agent key."""

    name: str
    public: str = Field(description="Its public key, 64 hex digits")
    created_at: Time


class KeyMade(KeyItem):
    """A new agent key, with the endpoint that is shown this once."""

    endpoint: str = Field(description="For GRADWATCH_ENDPOINT of the trainer; holds its secret key")


class KeyList(Model):
    """All registered agent keys."""

    items: list[KeyItem]
    next: None


class AuditItem(Model):
    """One request that changed something, or would have."""

    at: Time
    who: str | None = Field(description="Name of the token; null when it was nobody's")
    from_: str | None = Field(alias="from", description="Address it came from")
    method: str
    path: str
    body: str = Field(description="The first 1,024 bytes of the body")
    status: int = Field(description="HTTP status of the answer")
    unwritten: int = Field(
        default=0, description="Refused requests before this one that were too many to be written down, of anybody"
    )


class AuditList(Model):
    """The newest entries; `next` is always null."""

    items: list[AuditItem]
    next: None
