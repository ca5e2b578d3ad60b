"""What the configuration says of escalations and actions: unknown names are errors, what is not said is as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.control import Level, Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.config import Config, check_kinds, load_config
from gradwatch_daemon.escalate.actions import SHADOWS, Action
from gradwatch_daemon.escalate.policy import Policy, Response
from gradwatch_daemon.responses import actions_of, policy_of

if TYPE_CHECKING:
    from pathlib import Path


def config(home: Path, text: str) -> Config:
    """The configuration of a file."""
    (home / "gradwatch.toml").write_text(text, encoding="utf-8")
    return load_config({}, {"HOME": str(home)}, home)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[escalation.default]\nlevel = "loud"', "escalation.default.level"),
        ("[escalation.default]\nupdates = 0", "escalation.default.updates"),
        ("[escalation.default]\nupdates = 100000", "escalation.default.updates"),
        ("[escalation.default]\nshare = 1.5", "escalation.default.share"),
        ("[escalation.default]\nfor = 5", "escalation.default.for"),
        ("[actions.stop]\nenable = true", "actions.stop.enable"),
        ('[actions.stop]\nseverity = "bad"', "actions.stop.severity"),
        ("escalation = 3", "escalation"),
    ],
)
def test_response_that_is_none_is_refused_naming_its_key(tmp_path: Path, text: str, said: str) -> None:
    """Where it stands and what was expected."""
    with pytest.raises(GradwatchError) as error:
        config(tmp_path, text)
    assert error.value.code.slug == "config-invalid"
    assert said in error.value.where


@pytest.mark.parametrize(
    "text", ["[escalation.kl_spke]\nupdates = 3", '[actions.stop]\nkinds = ["kl_spke"]'], ids=["escalation", "actions"]
)
def test_response_of_an_unknown_kind_is_refused_with_the_nearest(tmp_path: Path, text: str) -> None:
    """A mistyped kind must not be a rule that never fires."""
    with pytest.raises(GradwatchError, match="Did you mean kl_spike"):
        check_kinds(config(tmp_path, text), {"kl_spike": (), "nonfinite": ()})


def test_responses_without_a_word_in_the_file_are_those_of_the_code(tmp_path: Path) -> None:
    """And every action is a shadow."""
    plain = config(tmp_path, "")
    assert policy_of(plain) == Policy()
    assert actions_of(plain) == SHADOWS
    assert not any(action.enabled for action in SHADOWS)


def test_responses_of_the_file_reach_the_policy_each_over_the_default(tmp_path: Path) -> None:
    """What a kind does not say is as the default has it."""
    text = """
        [escalation.default]
        updates = 7
        share = 0.2
        [escalation.kl_spike]
        level = "normal"
        extension = 0
        cooldown = 30
        [actions.stop]
        enabled = true
        severity = "warning"
        kinds = ["nonfinite"]
        [actions.notify]
        enabled = false
    """
    made = config(tmp_path, text)
    default = Response(updates=7, share=0.2)
    assert policy_of(made) == Policy(default, {"kl_spike": Response(Level.NORMAL, 7, 0, 30, 0.2)})
    found: dict[str, Any] = {action.verb: action for action in actions_of(made)}
    assert found["stop"] == Action("stop", Severity.WARNING, ("nonfinite",), True)
    assert found["notify"] == Action("notify", Severity.CRITICAL, (), False)
    assert found["checkpoint"] == next(action for action in SHADOWS if action.verb == "checkpoint")
    assert found["stop"].when == "warning nonfinite"
