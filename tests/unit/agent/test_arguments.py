"""What `watch` refuses before training starts, and what it makes of the rest."""

from __future__ import annotations

import inspect
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from gradwatch_agent import GradwatchError, arguments, watch
from gradwatch_agent.arguments import check_overhead
from gradwatch_agent.collect.host import Hints
from gradwatch_contracts import limits
from gradwatch_contracts.control import Level

ENDPOINT = "ipc:///nowhere/gradwatch"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": 3}, "watch(model): expected a torch.nn.Module"),
        ({"model": [torch.nn.Linear(1, 1), None]}, "watch(model)"),
        ({"optimizer": torch.nn.Linear(1, 1)}, "watch(optimizer): expected a torch.optim.Optimizer"),
        ({"run": "Ant PPO"}, "(try 'ant-ppo')"),
        ({"run": 7}, "watch(run)"),
        ({"run": "x" * 65}, "watch(run)"),
        ({"group": 3}, "watch(group)"),
        ({"tags": "fast"}, "watch(tags)"),
        ({"tags": {"a": object()}}, "watch(tags)"),
        ({"tags": {"": "b"}}, "watch(tags)"),
        ({"tags": {f"t{i}": "" for i in range(limits.TAGS_MAX + 1)}}, "watch(tags)"),
        ({"config": [1]}, "watch(config): expected a mapping such as vars(args)"),
        ({"updates_total": 0}, "watch(updates_total): expected a whole number from 1 or None, got 0"),
        ({"updates_total": 1.5}, "watch(updates_total)"),
        ({"updates_total": True}, "watch(updates_total)"),
        ({"update_start": -1}, "watch(update_start)"),
        ({"update_start": None}, "watch(update_start)"),
        ({"level": "debgu"}, "did you mean debug?"),
        ({"level": 9}, "watch(level)"),
        ({"mode": "fast"}, "watch(mode): expected async or sync"),
        ({"max_staged_bytes": 10}, "watch(max_staged_bytes)"),
        ({"endpoint": "http://x"}, "endpoint: expected auto"),
        ({"endpoint": 5}, "endpoint: expected auto, ipc://PATH or tcp://HOST:PORT, got 5"),
        ({"endpoint": None}, "endpoint: expected auto, ipc://PATH or tcp://HOST:PORT, got None"),
        ({"off_policy": "false"}, "watch(off_policy): expected True or False, got 'false'"),
        ({"off_policy": None}, "watch(off_policy)"),
        ({"action_space": 5}, "watch(action_space): expected a space of gymnasium"),
        ({"action_space": np.int64(4)}, "Pass env.action_space"),
        ({"action_space": "Discrete(4)"}, "watch(action_space)"),
        ({"model": torch.optim.SGD([torch.zeros(1)], lr=0.1)}, "The model comes first: watch(model, optimizer)."),
        ({"updates": 5}, "Did you mean updates_total=?"),
        ({"optimiser": None}, "Did you mean optimizer=?"),
        ({"frequency": 5}, "help(gradwatch_agent.watch) lists what it takes."),
    ],
)
def test_watch_bad_argument_is_refused_in_a_sentence(given: dict[str, Any], words: str) -> None:
    """Where, what was expected, what came; and nothing of ours is left behind."""
    with pytest.raises(GradwatchError) as caught:
        watch(given.pop("model", None), **{"endpoint": ENDPOINT, **given})
    assert words in str(caught.value)
    assert caught.value.code.slug == "invalid-argument"
    assert caught.value.next_step != caught.value.code.hint  # each says what to do about itself


def test_watch_given_too_much_without_a_name_is_refused_in_a_sentence() -> None:
    """The run's name is a likely third."""
    with pytest.raises(GradwatchError, match=r"2 positional arguments but 3 were given.*all else by name"):
        watch(None, None, "ant-ppo")  # type: ignore[misc]


def test_watch_that_fails_within_is_not_called_a_wrong_call() -> None:
    """A TypeError of what it is given is that."""

    class Odd:
        def parameters(self) -> None:
            raise TypeError("odd")

    with pytest.raises(TypeError, match="odd"):
        watch(Odd(), endpoint=ENDPOINT)


@pytest.mark.parametrize(
    "space",
    [
        None,
        spaces.Discrete(2),
        spaces.Box(0, 1),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(2),
        spaces.Dict(a=spaces.Discrete(2)),
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Text(3),
        spaces.Graph(spaces.Box(0, 1), None),
    ],
    ids=str,
)
def test_every_space_of_gymnasium_is_one(space: object) -> None:
    """Also those whose entropy has no limit that we know."""
    assert arguments.check_space(space) is space


@pytest.mark.parametrize("name", ["sb3", "lightning", "huggingface"])
def test_callback_with_an_unknown_option_is_refused_when_it_is_made(name: str) -> None:
    """Not hours later, when the library calls it."""
    adapter = pytest.importorskip(f"gradwatch_agent.adapters.{name}")
    with pytest.raises(GradwatchError, match="Did you mean updates_total="):
        adapter.GradwatchCallback("run", updates=5)


class Wrapping(torch.optim.Optimizer):
    """As accelerate and others wrap: an optimizer by its class, whose constructor was never called."""

    def __init__(self, optimizer: object) -> None:
        self.optimizer = optimizer
        self.param_groups: list[dict[str, Any]] = []


def test_optimizer_that_wraps_one_is_the_one_that_steps() -> None:
    """Accelerate's own and one like it; the hook that was tried is gone."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    inner = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), 0.1)
    wrapped = accelerate.Accelerator(cpu=True).prepare(inner)
    assert arguments.check_optimizers([wrapped, Wrapping(Wrapping(inner))]) == (inner, inner)
    assert not inner._optimizer_step_pre_hooks


@pytest.mark.parametrize("given", [Wrapping(None), Wrapping(object()), [torch.optim.SGD([torch.ones(1)], 0.1), object()]])
def test_optimizer_without_steps_to_hear_of_is_refused_in_a_sentence(given: Any) -> None:
    """It is one of torch by its class alone, or none at all."""
    with pytest.raises(GradwatchError, match=r"watch\(optimizer\): expected a torch.optim.Optimizer"):
        watch(None, given, endpoint=ENDPOINT)


@pytest.mark.parametrize(("name", "value"), [("GRADWATCH_MODE", "maybe"), ("GRADWATCH_LEVEL", "loud"), ("RANK", "one")])
def test_watch_bad_environment_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The sentence names the variable."""
    monkeypatch.setenv(name, value)
    with pytest.raises(GradwatchError, match=name):
        watch(endpoint=ENDPOINT)


def test_run_is_argument_then_environment_then_script() -> None:
    """The first that is there."""
    env = {"GRADWATCH_RUN_ID": "from-env"}
    assert arguments.check_run("given", env, "train.py") == "given"
    assert arguments.check_run(None, env, "train.py") == "from-env"
    assert arguments.check_run(None, {}, "/home/me/My Train.py") == "my-train"
    assert arguments.check_run(None, {}, "") == "run"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--seed", "1"], "ppo-seed1"),
        (["--lr", "1e-3", "--seed=42", "--cuda"], "ppo-seed42"),
        (["env=ant", "seed=7"], "ppo-seed7"),
        ([], None),
        (["--seed", "x"], None),
        (["--seed", "1.5"], None),
        (["--env-seed", "3"], None),
        (["--eval.seed=3"], None),
    ],
)
def test_unnamed_script_with_a_seed_is_a_run_of_that_seed(words: list[str], name: str | None) -> None:
    """Two seeds of one script are two runs; the environment's name goes before."""
    assert arguments.name_seeded({}, ["/home/me/ppo.py", *words]) == name
    assert arguments.name_seeded({"GRADWATCH_RUN_ID": "mine"}, ["/home/me/ppo.py", *words]) is None


def test_name_with_a_seed_is_a_run_key_however_long_the_script() -> None:
    """The seed is never what is cut."""
    name = arguments.name_seeded({}, ["x" * 90 + ".py", "--seed", "12"])
    assert arguments.check_run(name, {}, "") == "x" * 57 + "-seed12"


def test_run_from_environment_is_checked_too() -> None:
    """`GRADWATCH_RUN_ID` may be anything."""
    with pytest.raises(GradwatchError, match="try 'a-b'"):
        arguments.check_run(None, {"GRADWATCH_RUN_ID": "A B"}, "")


def test_level_is_argument_then_environment_then_normal() -> None:
    """Names in any case and numbers."""
    assert arguments.check_level("DEBUG", {"GRADWATCH_LEVEL": "off"}) is Level.DEBUG
    assert arguments.check_level(None, {"GRADWATCH_LEVEL": "off"}) is Level.OFF
    assert arguments.check_level(None, {}) is Level.NORMAL


def test_config_keeps_scalars_and_redacts_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot travel is named once; a secret never leaves the process."""
    config = {
        "lr": 1e-3,
        "seed": 7,
        "anneal": True,
        "name": "ant",
        "nothing": None,
        "huge": 2**80,
        "bad\udcff": "text\udcff",
        "tensor": torch.tensor(1.0),
        "layers": [64, 64],
        "path": Path("x"),
        "wandb_api_key": "abc",
        "GITHUB_TOKEN": "def",
        "password": ["p"],
        "aws-credentials": "ghi",
    }
    kept = arguments.check_config(config, Hints())
    assert kept == {
        "lr": 1e-3,
        "seed": 7,
        "anneal": True,
        "name": "ant",
        "nothing": None,
        "huge": str(2**80),
        "bad?": "text?",
        **dict.fromkeys(("wandb_api_key", "GITHUB_TOKEN", "password", "aws-credentials"), "[redacted]"),
    }
    assert caplog.messages == ["gradwatch: config keys not sent, as they are no scalars or too large: tensor, layers, path."]


def test_config_beyond_the_limit_keeps_what_fits() -> None:
    """A value that is too large does not take the others with it."""
    kept = arguments.check_config({"a": 1, "blob": "x" * limits.CONFIG_BYTES_MAX, "b": 2}, Hints())
    assert kept == {"a": 1, "b": 2}


def test_tags_may_be_words_or_pairs() -> None:
    """A list of words, a mapping of text and numbers."""
    assert arguments.check_tags(["fast", "ant"]) == {"fast": "", "ant": ""}
    assert arguments.check_tags({"seed": 3}) == {"seed": "3"}
    assert arguments.check_tags(None) == {}


def test_watch_with_mode_off_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread, no hook; every call returns; arguments are still checked."""
    monkeypatch.setenv("GRADWATCH_MODE", "off")
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else []
    monitor = watch(network, optimizer, endpoint=ENDPOINT)
    monitor.rollout(rewards=[1.0])
    monitor.ppo(loss=1.0)
    monitor.log(a=1.0)
    monitor.step()
    assert not monitor.active
    assert monitor.should_stop is False
    assert len(optimizer._optimizer_step_pre_hooks) == 0
    assert (os.listdir("/proc/self/task") if before else []) == before
    monitor.close()
    with pytest.raises(GradwatchError):
        watch(3)


@pytest.mark.parametrize(
    ("given", "env", "normal"),
    [
        ("auto", {}, 0.01),
        ("auto", {"GRADWATCH_OVERHEAD": "0.02"}, 0.02),
        ("auto", {"GRADWATCH_OVERHEAD": "off"}, None),
        ("auto", {"GRADWATCH_OVERHEAD": "AUTO"}, 0.01),
        (0.03, {"GRADWATCH_OVERHEAD": "off"}, 0.03),
        (1, {}, 1.0),
        (None, {"GRADWATCH_OVERHEAD": "0.02"}, None),
    ],
)
def test_overhead_is_the_argument_else_the_environment(given: object, env: dict[str, str], normal: float | None) -> None:
    """Five times as much at DEBUG, and never more than all."""
    found = check_overhead(given, env)
    if normal is None:
        assert found is None
    else:
        assert found is not None
        assert (found[Level.NORMAL], found[Level.DEBUG]) == (normal, min(1.0, 5 * normal))


@pytest.mark.parametrize("given", ["much", 0, -0.1, 1.5, True, math.nan, [0.01]])
def test_overhead_that_is_none_is_refused_by_name(given: object) -> None:
    """Before training starts."""
    with pytest.raises(GradwatchError, match=r"watch\(overhead\)"):
        check_overhead(given, {})
    with pytest.raises(GradwatchError, match="GRADWATCH_OVERHEAD"):
        check_overhead("auto", {"GRADWATCH_OVERHEAD": "plenty"})


def test_watch_stages_as_much_by_default_as_the_checks_say() -> None:
    """`watch` is told without loading what checks its arguments."""
    assert inspect.signature(watch).parameters["max_staged_bytes"].default == arguments.STAGED_BYTES
