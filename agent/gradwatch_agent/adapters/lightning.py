"""Lightning: one update is a number of optimizer steps; the module's gradients, and what it logs under `lightning/`."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from gradwatch_agent.entry import check_options, watch
from gradwatch_agent.guard import guarded

if "pytorch_lightning" in sys.modules and "lightning" not in sys.modules:  # the other name of the same library
    from pytorch_lightning.callbacks import Callback
else:
    from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_agent.monitor import Monitor

LOGGER = logging.getLogger("gradwatch")
PREFIX = "lightning/"


class GradwatchCallback(Callback):
    """`Trainer(callbacks=[GradwatchCallback("resnet")])`. Further arguments go to `gradwatch_agent.watch`.

    `steps`: optimizer steps that make one update; more than one where a step takes only a few milliseconds.
    """

    def __init__(self, run: str | None = None, *, steps: int = 1, **options: Any) -> None:
        super().__init__()
        self.monitor: Monitor | None = None
        check_options(options)
        self._run, self._steps, self._options = run, steps, options
        self._told = 0

    def _on_own_error(self, place: str, text: str) -> None:
        if self.monitor is not None:
            self.monitor._on_own_error(place, text)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Optimizers are there. Several processes are told apart by RANK, which only some launchers set."""
        if trainer.world_size > 1 and "RANK" not in os.environ:
            LOGGER.warning("gradwatch does not watch: %d processes without RANK; start with torchrun.", trainer.world_size)
            return
        self._told = trainer.global_step
        total = trainer.estimated_stepping_batches
        given = {
            "config": dict(getattr(pl_module, "hparams", {})),
            "updates_total": max(1, int(total) // self._steps) if 0 < total < float("inf") else None,
            "update_start": self._told // self._steps,
        }
        optimizers = [one for one in trainer.optimizers if hasattr(one, "register_step_pre_hook")]
        self.monitor = watch(pl_module, optimizers, run=self._run, **{**given, **self._options})
        if trainer.gradient_clip_algorithm == "value" and trainer.gradient_clip_val:
            LOGGER.warning("gradwatch: clipping by value is not seen, so gradient norms are those after it.")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch; with accumulated gradients some of them are a step."""
        if self.monitor is not None:
            self._look(self.monitor, trainer, outputs)
            if self.monitor.should_stop:
                trainer.should_stop = True

    @guarded
    def _look(self, monitor: Monitor, trainer: Any, outputs: Any) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            monitor.log({f"{PREFIX}loss": loss})
        if trainer.global_step - self._told >= self._steps:
            self._told = trainer.global_step
            self._take(monitor, trainer.logged_metrics)
            monitor.step()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """What was logged of it; not before training, when Lightning only tries it out."""
        if self.monitor is not None:
            self._take(self.monitor, trainer.callback_metrics)

    @guarded
    def _take(self, monitor: Monitor, metrics: Mapping[str, object]) -> None:
        monitor.log({PREFIX + name: value for name, value in metrics.items()})

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Lightning ends the process itself, or lets the exception out: tell of it here."""
        if self.monitor is not None:
            self.monitor.close_with(exception, "exception" if isinstance(exception, Exception) else "interrupted")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The run is over."""
        if self.monitor is not None:
            self.monitor.close()
