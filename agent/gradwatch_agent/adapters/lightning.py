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
        self._due = False
        """Whether an update is over but for the validation that may follow it."""
        self._before: dict[str, object] = {}
        self._validated: set[str] = set()
        """What validation logs: Lightning keeps it among the metrics of later steps."""

    def _on_own_error(self, place: str, text: str) -> None:
        if self.monitor is not None:
            self.monitor._on_own_error(place, text)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Optimizers are there. Several processes are told apart by RANK, which only some launchers set."""
        if trainer.world_size > 1 and "RANK" not in os.environ:
            LOGGER.warning("gradwatch does not watch: %d processes without RANK; start with torchrun.", trainer.world_size)
            return
        self._told, self._due = trainer.global_step, False
        total = trainer.estimated_stepping_batches
        given = {
            "config": dict(getattr(pl_module, "hparams", {})),
            "updates_total": max(1, int(total) // self._steps) if 0 < total < float("inf") else None,
            "update_start": self._told // self._steps,
        }
        optimizers = [one for one in trainer.optimizers if hasattr(one, "register_step_pre_hook")]
        self.monitor = watch(pl_module, optimizers, run=self._run, **{**given, **self._options})

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The update before is over, with the validation that ran behind it."""
        self._end()

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
            self._told, self._due = trainer.global_step, True
            logged = trainer.logged_metrics
            self._take(monitor, {name: value for name, value in logged.items() if name not in self._validated})

    def _end(self) -> None:
        if self.monitor is not None and self._due:
            self._due = False
            self.monitor.step()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """What was logged before it."""
        self._before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """What was logged of it; not before training, when Lightning only tries it out."""
        if self.monitor is not None:
            metrics = trainer.callback_metrics.items()
            found = {name: value for name, value in metrics if self._before.get(name) is not value}
            self._validated |= set(found)
            self._take(self.monitor, found)

    @guarded
    def _take(self, monitor: Monitor, metrics: Mapping[str, object]) -> None:
        monitor.log({PREFIX + name: value for name, value in metrics.items()})

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Lightning ends the process itself, or lets the exception out: tell of it here."""
        self._end()
        if self.monitor is not None:
            self.monitor.close_with(exception, "exception" if isinstance(exception, Exception) else "interrupted")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The run is over."""
        self._end()
        if self.monitor is not None:
            self.monitor.close()
