"""The Lightning callback against the installed library: each fault in the right signal, at the right update."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from gradwatch_agent.adapters import lightning
from gradwatch_agent.adapters.lightning import GradwatchCallback
from gradwatch_agent.monitor import Monitor
from gradwatch_contracts.columns import RowFlag
from harness.adapters import Watching

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # the library advises on workers, loggers and much else


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    """Own errors are raised, and nothing is sent anywhere."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    torch.set_num_threads(1)
    found = Watching()
    monkeypatch.setattr(lightning, "watch", found)
    return found


class Module(LightningModule):
    """A regression; `factor` scales the loss of some batches, counted from 0."""

    def __init__(self, lr: float = 0.01, factors: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters("lr")
        self.net = nn.Linear(3, 1)
        self.norms: list[float] = []
        self._factors, self._batch = factors or {}, 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """See LightningModule."""
        loss = self.net(batch).square().mean() * self._factors.get(self._batch, 1.0)
        self.log("train_loss", loss)
        self._batch += 1
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """See LightningModule."""
        self.log("val_loss", self.net(batch).square().mean())

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Before clipping, as the library promises."""
        self.norms.append(float(torch.cat([p.grad.reshape(-1) for p in self.parameters() if p.grad is not None]).norm()))

    def configure_optimizers(self) -> Any:
        """See LightningModule."""
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


def fit(module: Module, *callbacks: Any, steps: int = 4, **given: Any) -> Trainer:
    """A run on eight batches an epoch."""
    torch.manual_seed(0)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_steps=steps, accelerator="cpu", devices=1, callbacks=list(callbacks), **{**quiet, **given})
    data = torch.utils.data.DataLoader(torch.rand(32, 3), batch_size=4)
    trainer.fit(module, data, data)
    return trainer


def test_logger_of_the_trainer_writes_with_the_callback_what_it_writes_alone(watching: Watching, tmp_path: Path) -> None:
    """Line by line."""
    written = []
    for name in ("alone", "watched"):
        torch.manual_seed(1)
        logger = CSVLogger(str(tmp_path), name=name, version="", flush_logs_every_n_steps=1)
        fit(Module(), *([GradwatchCallback("fit")] if name == "watched" else []), logger=logger, log_every_n_steps=1)
        written.append((tmp_path / name / "metrics.csv").read_text().splitlines())

    assert len(written[0]) > 4
    assert written[1] == written[0]


@pytest.mark.parametrize("clip", [0.05, None])
def test_each_step_is_an_update_with_its_norm_before_clipping(watching: Watching, clip: float | None) -> None:
    """Lightning computes gradients within the optimizer's step, and zeroes them there: they are seen once, whole."""
    module = Module()
    fit(module, GradwatchCallback("fit"), gradient_clip_val=clip)

    assert watching.updates == [0, 1, 2, 3]
    assert [row["grad.norm"][:2] for row in watching.rows] == [(1.0, pytest.approx(norm, rel=1e-5)) for norm in module.norms]
    assert all(row["opt.steps"] == 1.0 and row["opt.skipped"] == 0.0 for row in watching.rows)
    assert watching.given[0]["config"] == {"lr": 0.01}
    assert watching.given[0]["updates_total"] == 4
    assert not watching.monitors[0].active


def test_faults_are_in_the_update_of_their_batch(watching: Watching) -> None:
    """A loss a thousand times as large, and later one that is no number."""
    fit(Module(lr=1e-6, factors={1: 1000.0, 3: math.nan}), GradwatchCallback(), steps=5, gradient_clip_val=0.5)

    norms = [row["grad.norm"][1] for row in watching.rows]
    assert norms[1] > 100 * max(norms[0], norms[2])
    assert [row["grad.norm.nonfinite"] for row in watching.rows] == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert watching.rows[2]["param.nonfinite"] == 0.0
    assert watching.rows[3]["param.nonfinite"] > 0
    assert math.isnan(watching.rows[3]["user/lightning/loss"])
    assert watching.rows[1]["user/lightning/train_loss"] == pytest.approx(watching.rows[1]["user/lightning/loss"])


def test_accumulated_batches_are_one_step(watching: Watching) -> None:
    """And no skipped ones."""
    module = Module()
    fit(module, GradwatchCallback(), steps=3, accumulate_grad_batches=2, gradient_clip_val=0.05)

    assert watching.updates == [0, 1, 2]
    assert [row["grad.norm"][:2] for row in watching.rows] == [(1.0, pytest.approx(norm, rel=1e-5)) for norm in module.norms]
    assert [row["opt.skipped"] for row in watching.rows] == [0.0] * 3


def test_several_steps_may_be_one_update(watching: Watching) -> None:
    """Where a step is shorter than what looking at it costs."""
    fit(Module(), GradwatchCallback(steps=3), steps=7)

    assert [row["opt.steps"] for row in watching.rows] == [3.0, 3.0, 1.0]
    assert watching.given[0]["updates_total"] == 2


def test_validation_is_in_the_update_after_which_it_ran(watching: Watching) -> None:
    """Once, and not again in every row; what Lightning tries out before training is none."""
    fit(Module(), GradwatchCallback(), steps=8, val_check_interval=3)

    told = ["user/lightning/val_loss" in row and not isinstance(row["user/lightning/val_loss"], int) for row in watching.rows]
    assert told == [update in {2, 5} for update in range(8)]
    assert not any(row.flags & RowFlag.PARTIAL for row in watching.records[0].rows)


def test_parameters_with_and_without_the_callback_are_bit_identical(watching: Watching) -> None:
    """The data too: its order is drawn."""
    torch.manual_seed(1)
    left = Module()
    fit(left, gradient_clip_val=0.05)
    torch.manual_seed(1)
    right = Module()
    fit(right, GradwatchCallback(), gradient_clip_val=0.05)

    assert all(map(torch.equal, left.state_dict().values(), right.state_dict().values()))


def test_exception_is_told_and_let_out(watching: Watching) -> None:
    """With the update it happened in."""

    class Failing(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            """See LightningModule."""
            if self._batch == 2:
                raise ValueError("the module's own")
            return super().training_step(batch, batch_idx)

    with pytest.raises(ValueError, match="own"):
        fit(Failing(), GradwatchCallback())

    assert [(kind, update) for kind, update, _, _ in watching.records[0].events] == [("exception", 2)]
    assert not watching.monitors[0].active


def test_stop_that_is_wanted_ends_training(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step later, since an update is over when the next one begins."""
    monkeypatch.setattr(Monitor, "should_stop", property(lambda monitor: monitor.update == 2))

    assert fit(Module(), GradwatchCallback(), steps=8).global_step == 3


def test_clipping_by_value_is_seen_before_it_clips(watching: Watching) -> None:
    """The norms are those from before it, and there is no limit to compare them with."""
    module = Module()
    fit(module, GradwatchCallback(), steps=1, gradient_clip_val=1e-3, gradient_clip_algorithm="value")

    assert watching.rows[0]["grad.norm"][1] == pytest.approx(module.norms[0], rel=1e-5)
    assert module.norms[0] > 0.01


def test_processes_that_cannot_be_told_apart_are_not_watched(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two ranks that both say they are the first would overwrite each other."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(Trainer, "world_size", property(lambda _: 2))
    fit(Module(), GradwatchCallback(), steps=1)

    assert watching.monitors == []
    assert "2 processes without RANK" in caplog.text
