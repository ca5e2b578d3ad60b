"""What the configuration says of escalations and actions, as the pipeline takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity, parse_level
from gradwatch_daemon.escalate.actions import SHADOWS, Action
from gradwatch_daemon.escalate.policy import Policy, Response

if TYPE_CHECKING:
    from gradwatch_daemon.config import Config, RaiseConfig


def policy_of(config: Config) -> Policy:
    """When rules raise the level. What a kind does not say is as the default has it."""
    default = config.escalation.get("default")
    base = _response(default) if default is not None else Response()
    kinds = {kind: raised for kind, raised in config.escalation.items() if kind != "default"}
    return Policy(base, {kind: _response(raised, default) for kind, raised in kinds.items()})


def _response(raised: RaiseConfig, default: RaiseConfig | None = None) -> Response:
    said = raised.model_dump(include=raised.model_fields_set)
    before = default.model_dump(include=default.model_fields_set) if default is not None else {}
    merged = {**before, **said}
    if "level" in merged:
        merged["level"] = parse_level(merged["level"])
    return Response(**merged)


def actions_of(config: Config) -> tuple[Action, ...]:
    """What the daemon does to jobs by itself: those configured, and in the shadow those that everybody has."""
    own = tuple(Action(verb, Severity(one.severity), one.kinds, one.enabled) for verb, one in sorted(config.actions.items()))
    return own + tuple(action for action in SHADOWS if action.verb not in config.actions)
