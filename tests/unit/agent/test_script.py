"""A script watched from outside, in this process: what is looked into, what is kept until there is a monitor."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from torch import nn
from torch.optim import optimizer as optimizers

from gradwatch_agent.adapters import script
from gradwatch_agent.adapters.parameters import OptimizerParameters
from gradwatch_agent.adapters.scalars import forward_scalars, parse_table
from gradwatch_agent.adapters.script import ScriptWatch
from gradwatch_agent.device.clip import CLIP_WATCH
from gradwatch_contracts.columns import Status
from harness.adapters import Watching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ScriptWatch, Watching]]:
    """Looks into everything until the test ends."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setattr(optimizers.Optimizer, "__init__", optimizers.Optimizer.__init__)
    for hooks in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"):
        monkeypatch.setattr(optimizers, hooks, OrderedDict())
    watching, watch = Watching(), ScriptWatch()
    monkeypatch.setattr(script, "watch", watching)
    monkeypatch.setattr(script.atexit, "register", lambda _: None)
    watch.arm(("gradients", "scalars", "exceptions"))
    yield watch, watching
    for monitor in watching.monitors:
        monitor.close()
    CLIP_WATCH.forget(watch)


def train(model: nn.Module, *optimizers_: torch.optim.Optimizer, clip: float | None = 0.1) -> float:
    """One minibatch; the norm before clipping."""
    model.zero_grad()
    model(torch.ones(4, 3)).square().sum().backward()
    norm = torch.linalg.vector_norm(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers_:
        optimizer.step()
    return float(norm)


def test_first_gradient_is_that_before_clipping(armed: tuple[ScriptWatch, Watching]) -> None:
    """The monitor is made within the first clip; seen at the step, the norm would be that after it."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    norms = [train(model, optimizer) for _ in range(2)]
    watch.on_scalar("losses/a", 1.0, 8)
    norms.append(train(model, optimizer))
    watch.on_scalar("losses/a", 1.0, 16)
    watch.settle()

    assert [row["grad.norm"][0] for row in watching.rows] == [2.0, 1.0]
    assert watching.rows[0]["grad.norm"][1] == pytest.approx(sum(norms[:2]) / 2, rel=1e-5)
    assert watching.rows[1]["grad.norm"][1] == pytest.approx(norms[2], rel=1e-5)
    assert [row["opt.steps"] for row in watching.rows] == [2.0, 1.0]


def test_script_that_does_not_clip_is_seen_at_its_first_step(armed: tuple[ScriptWatch, Watching]) -> None:
    """And with several optimizers, all that are alive by then."""
    watch, watching = armed
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    torch.optim.SGD(model.parameters(), 0.1)  # made and dropped
    pair = [torch.optim.SGD(part.parameters(), 0.01) for part in model]
    train(model, *pair, clip=None)
    watch.on_scalar("losses/a", 1.0, 8)
    watch.settle()

    assert watching.rows[0]["grad.norm"][0] == 2.0
    assert watching.rows[0]["opt.steps"] == 2.0
    assert len(list(watching.monitors[0]._settings.modules[0].parameters())) == 4


def test_scalars_before_the_first_gradient_are_kept_for_it(armed: tuple[ScriptWatch, Watching]) -> None:
    """CleanRL logs episodes of the first rollout, and its arguments, before anything is trained."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    watch.on_config("|param|value|\n|-|-|\n|seed|1|\n|anneal|True|\n|env_id|CartPole-v1|")
    watch.on_scalar("charts/episodic_return", np.array([3.0], np.float32), 4)
    watch.on_scalar("charts/episodic_length", 7, 4)
    train(model, optimizer)
    watch.on_scalar("losses/tensor", torch.tensor(2.5), 8)
    watch.on_scalar("words", "no number", 8)
    watch.settle()

    row = watching.rows[0]
    assert watching.given[0]["config"] == {"seed": 1, "anneal": True, "env_id": "CartPole-v1"}
    assert (row["user/charts/episodic_return"], row["user/charts/episodic_length"], row["user/losses/tensor"]) == (3, 7, 2.5)
    assert row["episode.return"] == (1.0, 3.0, 0.0)
    assert row["episode.length"] == (1.0, 7.0, 0.0)
    assert watching.records[0].rows[0].env_steps == 8


def test_global_step_of_another_kind_is_not_taken_for_environment_steps(armed: tuple[ScriptWatch, Watching]) -> None:
    """It may count anything; nor is a missing return one of no episodes."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    train(model, torch.optim.SGD(model.parameters(), 0.01))
    watch.on_scalar("loss", 1.0, 8)
    watch.settle()

    assert watching.records[0].rows[0].env_steps == -1
    assert watching.rows[0]["episode.return"] is Status.NOT_CALLED


def test_exception_hook_is_left_alone_when_it_is_not_named(
    armed: tuple[ScriptWatch, Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor places one of its own."""
    watch, watching = armed
    monkeypatch.setattr(sys, "excepthook", mine := lambda *_: None)
    watch._patches = ("gradients",)

    def hooking(*given: Any, **named: Any) -> Any:
        sys.excepthook = lambda *_: None
        return watching(*given, **named)

    monkeypatch.setattr(script, "watch", hooking)
    model = nn.Linear(3, 1)
    train(model, torch.optim.SGD(model.parameters(), 0.01))

    assert watch.monitor is not None
    assert sys.excepthook is mine


def test_names_of_parameters_are_the_optimizer_s_or_place_and_shape() -> None:
    """Newer versions of torch let an optimizer know names."""
    model = nn.Linear(3, 2)
    nameless, named = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(model.named_parameters(), 0.1)

    assert [name for name, _ in OptimizerParameters([nameless]).named_parameters()] == ["0.0[2x3]", "0.1[2]"]
    assert [name for name, _ in OptimizerParameters([nameless, named]).named_parameters()][2:] == ["1.weight", "1.bias"]


def test_table_of_anything_else_is_no_configuration() -> None:
    """Only rows count, and a value that is no literal is its text."""
    assert parse_table("no table") == {}
    assert parse_table("|a|b|\n|-|-|\n|path|/x|y|\n|none|None|") == {"a": "b", "path": "/x|y", "none": None}


def test_writer_of_tensorboardx_is_forwarded_and_writes_what_it_writes_alone(
    armed: tuple[ScriptWatch, Watching], tmp_path: Path
) -> None:
    """With an argument that torch's writer does not take; what is no scalar is written and not sent."""
    from tensorboardX import SummaryWriter

    class Forwarding(SummaryWriter):
        pass

    watch, watching = armed
    forward_scalars(Forwarding, watch)
    files = []
    for kind in (SummaryWriter, Forwarding):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with kind(str(tmp_path / kind.__name__)) as writer:
            writer.add_text("hyperparameters", "|param|value|\n|-|-|\n|seed|1|", walltime=1.0)
            for update in range(3):
                train(model, optimizer)
                writer.add_scalar("losses/loss", update / 2, 8 * update, walltime=1.0, display_name="loss")
                writer.add_histogram("weights", model.weight.detach(), 8 * update, walltime=1.0)
        (file,) = (tmp_path / kind.__name__).iterdir()
        files.append(list(RawEventFileLoader(str(file)).Load())[1:])  # the first holds the time of the file
    watch.settle()

    assert files[0] == files[1]
    assert len(files[0]) == 7
    assert watching.given[0]["config"] == {"seed": 1}
    assert [row["user/losses/loss"] for row in watching.rows][-3:] == [0.0, 0.5, 1.0]
    assert "user/weights" not in watching.rows[-1]
