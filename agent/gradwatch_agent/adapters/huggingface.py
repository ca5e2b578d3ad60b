"""Hugging Face Trainer, and TRL's trainers: one update is an optimizer step; what is logged goes along under `hf/`.

The Trainer logs a step after it has ended, TRL's PPO before; and unless told otherwise it replaces a loss that is no number.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from gradwatch_agent.arguments import stepping
from gradwatch_agent.collect.host import to_float
from gradwatch_agent.entry import check_options, watch
from gradwatch_agent.guard import guarded

if TYPE_CHECKING:
    from gradwatch_agent.monitor import Monitor

LOGGER = logging.getLogger("gradwatch")
PREFIX = "hf/"
SETTINGS = ("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "max_grad_norm", "num_train_epochs")
MORE_SETTINGS = (
    "max_steps",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "bf16",
    "fp16",
    "seed",
    "logging_steps",
)
LAUNDERED = (
    "the Trainer replaces a loss that is NaN or infinite in what it logs (logging_nan_inf_filter=True): `hf/loss` will look "
    "healthy when it is not. Set logging_nan_inf_filter=False. Gradients are seen as they are."
)


class GradwatchCallback(TrainerCallback):
    """`Trainer(..., callbacks=[GradwatchCallback("sft")])`. Further arguments go to `gradwatch_agent.watch`."""

    def __init__(self, run: str | None = None, **options: Any) -> None:
        self.monitor: Monitor | None = None
        check_options(options)
        self._run, self._options = run, options
        self._begins = self._over = False

    def _on_own_error(self, place: str, text: str) -> None:
        if self.monitor is not None:
            self.monitor._on_own_error(place, text)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimizer is there: wrapped by accelerate, or DeepSpeed's own, which has no hooks and is not watched."""
        if getattr(args, "logging_nan_inf_filter", False):
            LOGGER.warning("gradwatch: %s", LAUNDERED)
        given = {
            "config": {name: getattr(args, name) for name in (*SETTINGS, *MORE_SETTINGS) if hasattr(args, name)},
            "updates_total": state.max_steps if state.max_steps > 0 else None,
            "update_start": state.global_step,
        }
        optimizer = stepping(kwargs.get("optimizer"))
        self.monitor = watch(kwargs.get("model"), optimizer, run=self._run, **{**given, **self._options})
        self._begins = self._over = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What the last step had to log is logged. TRL's PPO never says this."""
        self._begins = True
        self._end()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Of the Trainer for the step that is over, of TRL's PPO for the one under way."""
        self._take(logs or {})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step is over; where no beginning is told, so is its log."""
        self._over = True
        if not self._begins:
            self._end()
        if self.monitor is not None and self.monitor.should_stop:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The run is over; the summary that the Trainer logs last goes with its last step."""
        self._end()
        if self.monitor is not None:
            self.monitor.close()

    @guarded
    def _take(self, logs: dict[str, Any]) -> None:
        numbers = {PREFIX + name: number for name, value in logs.items() if (number := to_float(value)) is not None}
        if self.monitor is not None:
            self.monitor.log(numbers)

    @guarded
    def _end(self) -> None:
        if self._over and self.monitor is not None:
            self._over = False
            self.monitor.step(**self._told())

    def _told(self) -> dict[str, Any]:
        """What else is known of the step that ends."""
        return {}
