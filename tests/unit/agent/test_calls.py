"""A call that is made wrong is the trainer's mistake: said in a line, never raised, and the updates go on."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest

from gradwatch_agent import Monitor
from gradwatch_agent.guard import own_errors
from harness.recording import monitoring

CALLS = sorted(
    name
    for name, method in vars(Monitor).items()
    if inspect.isfunction(method) and not name.startswith(("_", "take_")) and name != "profile"
)
"""Every public call but the one that says that it raises, and those that only adapters make."""


class BadError(Exception):
    """What a broken object raises."""


class Broken:
    """Something of the trainer's that can be neither shown, hashed, compared, measured nor asked for anything."""

    def _fail(self, *given: object) -> Any:
        raise BadError

    __repr__ = __hash__ = __eq__ = __bool__ = __len__ = __iter__ = __float__ = __getattribute__ = _fail


def test_every_public_call_is_tried() -> None:
    """The list below is not empty, and what users call most is in it."""
    assert {"rollout", "ppo", "recurrent", "log", "phase", "step", "close", "on_command"} <= set(CALLS)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((), {}),
        ((1,) * 7, {}),
        ((Broken(),) * 7, {}),
        ((Broken(),), {}),
        (([], {}), {"nonsense": 1}),
        ((), {"nonsense": Broken(), "env_steps": Broken(), "phase": Broken(), "clip": Broken(), "loss": Broken()}),
    ],
    ids=["nothing", "seven", "seven broken", "broken", "unknown", "broken by name"],
)
def test_call_whatever_it_is_given_raises_nothing(call: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """A trainer must not end by its telemetry, least of all at the end of its first update; what comes after is measured."""
    with monitoring() as (monitor, record):
        made = getattr(monitor, call)(*given, **named)
        if call == "phase":
            with made:
                pass
        monitor.log(after=1.0)
        monitor.step()
        assert call == "close" or record.last["user/after"] == 1.0


@pytest.mark.parametrize("name", ["should_stop", "active"])
def test_property_raises_nothing(name: str) -> None:
    """Also of a monitor that is closed."""
    with monitoring() as (monitor, _):
        assert getattr(monitor, name) is (name == "active")
    assert getattr(monitor, name) is False


@pytest.mark.parametrize(
    ("call", "given", "words"),
    [
        ("recurrent", (1, 2, "update", None, 5), "recurrent() takes from 1 to 5 positional arguments but 6 were given"),
        ("log", ({"a": 1.0}, 3), "log() takes from 1 to 2 positional arguments but 3 were given"),
        ("on_command", ("save",), "on_command() missing 1 required positional argument: 'handler'"),
        ("close", (1,), "close() takes 1 positional argument but 2 were given"),
        ("step", (7, [1.0], [10]), "step() takes env_steps and episode_returns without a name; 1 more not measured"),
        ("phase", ("update", 3), "phase(…) is 'rollout' or 'update' or 'eval' or 'checkpoint', got \"('update', 3)\""),
    ],
)
def test_wrong_call_is_told_once_and_is_no_bug_of_ours(
    call: str, given: tuple[Any, ...], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is asked to report what Python says of their own line."""
    with monitoring() as (monitor, _):
        for _ in range(3):
            getattr(monitor, call)(*given)
    assert own_errors(monitor) == {}
    (line,) = [record for record in caplog.records if record.name == "gradwatch"]
    assert words in line.getMessage()
    assert line.levelno == logging.WARNING


def test_step_with_too_much_ends_the_update_with_what_is_known() -> None:
    """Else the run is one update that never ends."""
    with monitoring() as (monitor, record):
        monitor.step(7, [1.0, 3.0], [10, 12])
        assert (record.rows[0].env_steps, record.last["episode.return"]) == (7, (2.0, 2.0, 2.0))
        assert monitor.update == 1
