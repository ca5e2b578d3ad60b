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

from gradwatch_agent.adapters.sb3_model import read_config, read_obs_clip
from gradwatch_agent.adapters.sb3_train import TrainLook
from gradwatch_agent.collect.host import to_float
from gradwatch_agent.entry import check_options, watch
from gradwatch_agent.guard import guarded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_agent.monitor import Monitor

LOGGER = logging.getLogger("gradwatch")
PREFIX, TRAIN = "sb3/", "train/"
STATES_PER_ROLLOUT = 8
"""How often the recurrent state is looked at while collecting: it changes slowly, and each look is a copy."""

EPISODES = ("episode_returns", "episode_lengths", "truncated")
UNDEFINED_AS_NAN = "train/explained_variance"
"""NaN where all returns are equal: not defined, and no fault."""


class GradwatchCallback(BaseCallback):
    """`model.learn(..., callback=GradwatchCallback("ant-ppo"))`. Further arguments go to `gradwatch_agent.watch`.

    One update is a rollout and the `train()` that follows it. `monitor` is there while `learn()` runs.
    """

    def __init__(self, run: str | None = None, *, verbose: int = 0, **options: Any) -> None:
        super().__init__(verbose)
        self.monitor: Monitor | None = None
        check_options(options)
        self._run, self._options = run, options
        self._silent = False
        self._episodes: list[tuple[float, float, bool]] = []

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
        self._obs_clip = read_obs_clip(model)
        self._forwarder = Forwarder(self)
        self.logger.output_formats.append(self._forwarder)

    @guarded
    def _on_rollout_start(self) -> None:
        if self.monitor is not None:
            self._finish(self.monitor)
            self._rewards = self.model.rollout_buffer.rewards.copy()
            self._collecting = self.monitor.phase("rollout")
            self._collecting.__enter__()

    def _on_step(self) -> bool:
        if self.monitor is not None:
            self._look(self.monitor)
        return self.monitor is None or not self.monitor.should_stop

    @guarded
    def _look(self, monitor: Monitor) -> None:
        """One step of all environments. Rewards are copied: what a truncated episode would still have earned is added to them
        in place, for the critic's sake."""
        step = self.locals["n_steps"]
        self._rewards[step] = self.locals["rewards"]
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done and "episode" in info:
                episode = info["episode"]
                self._episodes.append((float(episode["r"]), float(episode["l"]), bool(info.get("TimeLimit.truncated"))))
            elif done:
                self._silent = True  # no Monitor around the environment: nobody adds rewards up
        states = self.locals.get("lstm_states")
        if states is not None and step % max(1, self.model.n_steps // STATES_PER_ROLLOUT) == 0:
            monitor.recurrent(states.pi, phase="rollout")

    @guarded
    def _on_rollout_end(self) -> None:
        if self.monitor is not None:
            self._collecting.__exit__()
            buffer = self.model.rollout_buffer
            told = {name: getattr(buffer, name) for name in ("values", "returns", "advantages", "observations", "actions")}
            self.monitor.rollout(rewards=self._rewards, obs_clip=self._obs_clip, **told)
            self._train.begin()

    @guarded
    def _on_training_end(self) -> None:
        if self.monitor is not None:
            self._train.remove()
            if self._forwarder in self.logger.output_formats:
                self.logger.output_formats.remove(self._forwarder)
            try:
                self._finish(self.monitor)
            finally:
                self.monitor.close()

    def _finish(self, monitor: Monitor) -> None:
        """End the update whose `train()` is over; its `train/*` are still in the logger, waiting for the next dump."""
        if self._train.ran:
            self.take(self.logger.name_to_value)
            self._train.end()
            nothing: dict[str, Any] = {} if self._silent else {EPISODES[0]: ()}
            told = dict(zip(EPISODES, zip(*self._episodes, strict=True), strict=True)) if self._episodes else nothing
            monitor.step(env_steps=self.num_timesteps, **told)
            self._episodes = []

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
