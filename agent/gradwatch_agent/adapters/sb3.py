"""Stable-Baselines3 and sb3-contrib: PPO, RecurrentPPO and A2C, seen from inside the update.

`learn()` logs an update one rollout later, and the last one never; of what it logs the KL is that of the last epoch, the loss
that of the last minibatch and the entropy negated. So what detectors judge is measured here, minibatch by minibatch, and
what the library logs goes along as the trainer's own scalars under `sb3/`. See docs/adapters.md.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter

from gradwatch_agent.adapters.sb3_train import TrainLook
from gradwatch_agent.collect.host import to_float
from gradwatch_agent.entry import watch
from gradwatch_agent.guard import guarded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_agent.monitor import Monitor

LOGGER = logging.getLogger("gradwatch")
PREFIX, TRAIN = "sb3/", "train/"
SETTINGS = ("n_steps", "n_envs", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm")
MORE_SETTINGS = ("target_kl", "normalize_advantage", "use_sde", "seed")
SCHEDULES = ("lr_schedule", "clip_range", "clip_range_vf")
STATES_PER_ROLLOUT = 8
"""How often the recurrent state is looked at while collecting: it changes slowly, and each look is a copy."""

UNDEFINED_AS_NAN = "train/explained_variance"
"""NaN where all returns are equal: not defined, and no fault."""


class GradwatchCallback(BaseCallback):
    """`model.learn(..., callback=GradwatchCallback("ant-ppo"))`. Further arguments go to `gradwatch_agent.watch`.

    One update is a rollout and the `train()` that follows it. `monitor` is there while `learn()` runs.
    """

    def __init__(self, run: str | None = None, *, verbose: int = 0, **options: Any) -> None:
        super().__init__(verbose)
        self.monitor: Monitor | None = None
        self._run, self._options = run, options
        self._silent = False
        self._returns: list[float] = []

    def _on_own_error(self, place: str, text: str) -> None:
        if self.monitor is not None:
            self.monitor._on_own_error(place, text)

    def _on_training_start(self) -> None:
        model = self.model
        self.monitor = None
        if getattr(model, "rollout_buffer", None) is None:
            LOGGER.warning("gradwatch does not watch %s: it has no rollouts (PPO, RecurrentPPO, A2C do).", type(model).__name__)
            return
        size = model.n_steps * model.n_envs
        given = {
            "config": read_config(model),
            "updates_total": max(1, math.ceil(self.locals["total_timesteps"] / size)),
            "update_start": model.num_timesteps // size,
            "action_space": model.action_space,
        }
        self.monitor = watch(model.policy, model.policy.optimizer, run=self._run, **{**given, **self._options})
        self._train = TrainLook(model, self.monitor)
        self._forwarder = Forwarder(self)
        self.logger.output_formats.append(self._forwarder)

    @guarded
    def _on_rollout_start(self) -> None:
        if self.monitor is not None:
            self._finish(self.monitor)
            self._rewards = self.model.rollout_buffer.rewards.copy()

    def _on_step(self) -> bool:
        if self.monitor is None:
            return True
        self._look(self.monitor)
        return not self.monitor.should_stop

    @guarded
    def _look(self, monitor: Monitor) -> None:
        """One step of all environments. Rewards are copied: what a truncated episode would still have earned is added to them
        in place, for the critic's sake."""
        step = self.locals["n_steps"]
        self._rewards[step] = self.locals["rewards"]
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done and "episode" in info:
                self._returns.append(float(info["episode"]["r"]))
            elif done:
                self._silent = True  # no Monitor around the environment: nobody adds rewards up
        states = self.locals.get("lstm_states")
        if states is not None and step % max(1, self.model.n_steps // STATES_PER_ROLLOUT) == 0:
            monitor.recurrent(states.pi, phase="rollout")

    @guarded
    def _on_rollout_end(self) -> None:
        if self.monitor is not None:
            buffer = self.model.rollout_buffer
            told = {name: getattr(buffer, name) for name in ("values", "returns", "advantages", "observations")}
            self.monitor.rollout(rewards=self._rewards, **told)

    @guarded
    def _on_training_end(self) -> None:
        if self.monitor is not None:
            self._train.remove()
            if self._forwarder in self.logger.output_formats:
                self.logger.output_formats.remove(self._forwarder)
            self._finish(self.monitor)
            self.monitor.close()

    def _finish(self, monitor: Monitor) -> None:
        """End the update whose `train()` is over; its `train/*` are still in the logger, waiting for the next dump."""
        if self._train.ran:
            self.take(self.logger.name_to_value)
            returns = None if self._silent and not self._returns else self._returns
            self._train.ran, self._returns = False, []
            monitor.step(env_steps=self.num_timesteps, episode_returns=returns)

    @guarded
    def take(self, logged: Mapping[str, object]) -> None:
        """Send what the library logs. `train/*` only after the `train()` it is about: the next dump has it once more."""
        numbers = {key: number for key, value in logged.items() if (number := to_float(value)) is not None}
        kept = {key: number for key, number in numbers.items() if self._train.ran or not key.startswith(TRAIN)}
        if math.isnan(kept.get(UNDEFINED_AS_NAN, 0.0)):
            del kept[UNDEFINED_AS_NAN]
        if self.monitor is not None:
            self.monitor.log({PREFIX + key: number for key, number in kept.items()})


class Forwarder(KVWriter):
    """One more output of the library's logger, beside those it has."""

    def __init__(self, callback: GradwatchCallback) -> None:
        self._callback = callback

    def write(self, key_values: dict[str, Any], key_excluded: object, step: int = 0) -> None:
        """A dump: `rollout/`, `time/`, `eval/` and the trainer's own keys as they are now."""
        self._callback.take(key_values)

    def close(self) -> None:
        """Nothing is held."""


def read_config(model: Any) -> dict[str, object]:
    """What a run is configured with, by a list of names: a model holds much that is nobody's business. A schedule is its
    value at the start and at the end of training."""
    found: dict[str, object] = {"algorithm": type(model).__name__, "policy": type(model.policy).__name__}
    found |= {name: getattr(model, name) for name in (*SETTINGS, *MORE_SETTINGS) if hasattr(model, name)}
    for name in SCHEDULES:
        schedule = getattr(model, name, None)
        if callable(schedule):
            found |= {f"{name}.start": schedule(1.0), f"{name}.end": schedule(0.0)}
    return found
