"""The Trainer callback against the installed library: each fault in the right signal, at the right update."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerControl, TrainingArguments

from gradwatch_agent.adapters import huggingface
from gradwatch_agent.adapters.huggingface import GradwatchCallback
from gradwatch_agent.monitor import Monitor
from gradwatch_contracts.columns import Status
from harness.adapters import Watching

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # the library advises on devices, hubs and much else


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    """Own errors are raised, and nothing is sent anywhere."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    torch.set_num_threads(1)
    found = Watching()
    monkeypatch.setattr(huggingface, "watch", found)
    return found


class Model(nn.Module):
    """A regression; `factors` scale the loss of some batches, counted from 0."""

    def __init__(self, factors: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 1)
        self._factors, self._batch = factors or {}, 0

    def forward(self, x: Any) -> dict[str, Any]:
        """The loss alone."""
        loss = self.net(x).square().mean() * self._factors.get(self._batch, 1.0)
        self._batch += 1
        return {"loss": loss}


def fit(folder: Path, model: nn.Module, *callbacks: Any, steps: int = 4, **given: Any) -> Trainer:
    """A run, logged at every step."""
    quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "logging_steps": 1}
    own = {"per_device_train_batch_size": 4, "learning_rate": 0.01, "max_grad_norm": 0.05, "logging_nan_inf_filter": False}
    arguments = TrainingArguments(output_dir=str(folder), max_steps=steps, **{**quiet, **own, **given})
    data = [{"x": torch.rand(3, generator=torch.Generator().manual_seed(place))} for place in range(32)]
    trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=list(callbacks))  # type: ignore[arg-type]
    trainer.train()
    return trainer


def test_each_step_is_an_update_with_what_was_logged_of_it(watching: Watching, tmp_path: Path) -> None:
    """The Trainer logs a step after it has ended, and its gradient norm is the one before clipping: ours is the same."""
    trainer = fit(tmp_path, Model(), GradwatchCallback("sft"))

    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert watching.updates == [0, 1, 2, 3]
    assert [row.flags for row in watching.records[0].rows] == [0] * 4
    for row, entry in zip(watching.rows, logged, strict=True):
        assert row["user/hf/loss"] == entry["loss"]
        assert row["grad.norm"][:2] == (1.0, pytest.approx(float(entry["grad_norm"]), rel=1e-5))
        assert row["opt.steps"] == 1.0
        assert row["opt.skipped"] == 0.0
    assert watching.given[0]["updates_total"] == 4
    assert watching.given[0]["config"]["max_grad_norm"] == 0.05
    assert not watching.monitors[0].active


def test_log_of_the_trainer_with_the_callback_is_what_it_is_alone(watching: Watching, tmp_path: Path) -> None:
    """Entry by entry, but for what the clock says."""
    logs = [fit(tmp_path / str(n), Model(), *([GradwatchCallback()] if n else [])).state.log_history for n in range(2)]
    timed = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
    alone, watched = ([{k: v for k, v in entry.items() if k not in timed} for entry in log] for log in logs)

    assert len(alone) == 5
    assert watched == alone


def test_faults_are_in_the_update_of_their_batch(watching: Watching, tmp_path: Path) -> None:
    """A loss a thousand times as large, and later one that is no number."""
    fit(tmp_path, Model({1: 1000.0, 3: math.nan}), GradwatchCallback(), steps=5, learning_rate=1e-6)

    norms = [row["grad.norm"][1] for row in watching.rows]
    assert norms[1] > 100 * max(norms[0], norms[2])
    assert [row["grad.norm.nonfinite"] for row in watching.rows] == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert math.isnan(watching.rows[3]["user/hf/loss"])


def test_loss_that_is_laundered_is_warned_of(watching: Watching, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By default a NaN is replaced in what the Trainer logs; the gradients tell."""
    fit(tmp_path, Model({1: math.nan}), GradwatchCallback(), steps=3, logging_nan_inf_filter=True)

    assert "logging_nan_inf_filter=True" in caplog.text
    assert math.isfinite(watching.rows[1]["user/hf/loss"])  # the trap, as installed
    assert watching.rows[1]["grad.norm.nonfinite"] == 1.0


def test_accumulated_batches_are_one_step(watching: Watching, tmp_path: Path) -> None:
    """And no skipped ones."""
    fit(tmp_path, Model(), GradwatchCallback(), steps=3, gradient_accumulation_steps=2)

    assert [(row["opt.steps"], row["opt.skipped"], row["grad.norm"][0]) for row in watching.rows] == [(1.0, 0.0, 1.0)] * 3


def test_parameters_with_and_without_the_callback_are_bit_identical(watching: Watching, tmp_path: Path) -> None:
    """Two runs of one seed."""
    left, right = Model(), Model()
    fit(tmp_path / "left", left)
    fit(tmp_path / "right", right, GradwatchCallback())

    assert all(map(torch.equal, left.state_dict().values(), right.state_dict().values()))


def test_stop_that_is_wanted_ends_training(watching: Watching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step after the one in which it was asked for is the last."""
    monkeypatch.setattr(Monitor, "should_stop", property(lambda monitor: monitor.update == 1))

    assert fit(tmp_path, Model(), GradwatchCallback(), steps=8).state.global_step == 2
    assert watching.updates == [0, 1]


def test_trainer_that_logs_before_its_step_ends_has_it_in_that_update(watching: Watching) -> None:
    """TRL's PPO tells only of logs and ends: what it logs belongs to the step that is about to end."""
    callback, args, control = GradwatchCallback(), SimpleNamespace(), TrainerControl()
    state = SimpleNamespace(max_steps=2, global_step=0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    callback.on_train_begin(args, state, control, model=model, optimizer=SimpleNamespace(optimizer=optimizer))
    for number in range(2):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        callback.on_log(args, state, control, logs={"policy/approxkl_avg": float(number), "words": "x"})
        callback.on_step_end(args, state, control)
    callback.on_train_end(args, state, control)

    assert [row["user/hf/policy/approxkl_avg"] for row in watching.rows] == [0.0, 1.0]
    assert [row["opt.steps"] for row in watching.rows] == [1.0, 1.0]


def test_optimizer_without_hooks_is_not_watched_and_stops_nothing(watching: Watching) -> None:
    """DeepSpeed's is none of torch's; the model is watched all the same."""
    callback, args, state = GradwatchCallback(), SimpleNamespace(), SimpleNamespace(max_steps=1, global_step=0)
    callback.on_train_begin(args, state, TrainerControl(), model=nn.Linear(2, 1), optimizer=object())
    callback.on_step_end(args, state, TrainerControl())
    callback.on_train_end(args, state, TrainerControl())

    assert watching.rows[0]["opt.steps"] is Status.NOT_CALLED
    assert watching.rows[0]["param.norm"] > 0
