"""The Stable-Baselines3 callback against the installed library: each fault in the right signal, at the right update."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.monitor import Monitor as EpisodeMonitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from gradwatch_agent.adapters.sb3 import GradwatchCallback
from gradwatch_contracts.columns import Status
from harness.adapters import Walk, Watching
from harness.sb3_models import BATCH, EPOCHS, MINIBATCHES, STEPS, Act, make_model


class Dumps(KVWriter):
    """What each dump of the library's logger holds."""

    def __init__(self) -> None:
        self.dumps: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        """See KVWriter."""
        self.dumps.append(dict(key_values))

    def close(self) -> None:
        """See KVWriter."""


def test_ppo_every_update_the_last_too_has_what_its_own_train_logged(watching: Watching) -> None:
    """The library dumps `train/*` one rollout late and the last ones never: here each is in the row of its update."""
    trained: list[dict[str, Any]] = []
    dumps = Dumps()

    class Spy(PPO):
        def train(self) -> None:
            """See PPO."""
            super().train()
            trained.append({key: value for key, value in self.logger.name_to_value.items() if key.startswith("train/")})

    model = make_model(Spy, learning_rate=0.01)
    model.learn(4 * STEPS, [Act(lambda model, at: at or model.logger.output_formats.append(dumps)), GradwatchCallback("walk")])

    assert watching.updates == [0, 1, 2, 3]
    assert [row.flags for row in watching.records[0].rows] == [0, 0, 0, 0]
    for row, logged in zip(watching.rows, trained, strict=True):
        told = {key.removeprefix("user/sb3/"): value for key, value in row.items() if key.startswith("user/sb3/train/")}
        assert told == {key: pytest.approx(float(value)) for key, value in logged.items()}
    kls = [logged["train/approx_kl"] for logged in trained]
    assert [dump.get("train/approx_kl") for dump in dumps.dumps] == [None, *kls[:3]]  # the trap, as installed


@pytest.mark.parametrize("kind", [PPO, RecurrentPPO])
def test_logger_of_the_library_writes_with_the_callback_what_it_writes_alone(watching: Watching, kind: type[Any]) -> None:
    """Every dump, key by key, but for what the clock says."""
    written = []
    for callbacks in ([], [GradwatchCallback("walk")]):
        dumps = Dumps()
        keep = Act(lambda model, at, dumps=dumps: at or model.logger.output_formats.append(dumps))  # type: ignore[misc]
        make_model(kind, EpisodeMonitor(Walk())).learn(3 * STEPS, [keep, *callbacks])
        written.append([{key: value for key, value in dump.items() if key != "time/fps"} for dump in dumps.dumps])

    alone, watched = ([{k: v for k, v in dump.items() if k != "time/time_elapsed"} for dump in one] for one in written)
    assert len(alone) == 3
    assert "train/loss" in alone[-1]
    assert repr(watched) == repr(alone)  # NaN is NaN


def test_ppo_signals_are_measured_over_the_whole_update(watching: Watching) -> None:
    """KL, clip fraction and entropy over all minibatches, with our signs; the library's own figures only beside them."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Spy(PPO):
        def train(self) -> None:
            """See PPO."""
            seen.clear()
            super().train()

    model = make_model(Spy, learning_rate=0.05)
    original, get = model.policy.evaluate_actions, model.rollout_buffer.get
    olds: list[torch.Tensor] = []

    def evaluate(*given: Any) -> Any:
        found = original(*given)
        seen.append((found[1].detach().clone(), olds.pop()))
        return found

    def hand_out(size: int) -> Any:
        for sample in get(size):
            olds.append(sample.old_log_prob)
            yield sample

    model.policy.evaluate_actions, model.rollout_buffer.get = evaluate, hand_out
    model.learn(2 * STEPS, GradwatchCallback())

    row = watching.rows[-1]
    log_ratio = torch.cat([new - old for new, old in seen])
    k3 = (log_ratio.exp() - 1 - log_ratio).mean().item()
    assert len(seen) == MINIBATCHES
    assert row["policy.kl.k3"][:2] == (MINIBATCHES * BATCH, pytest.approx(k3, rel=1e-4))
    assert row["user/sb3/train/approx_kl"] != pytest.approx(k3, rel=1e-2)  # the last epoch alone
    assert row["policy.entropy"][1] == pytest.approx(-row["user/sb3/train/entropy_loss"], rel=1e-4)
    assert row["policy.clipped"] / (MINIBATCHES * BATCH) == pytest.approx(row["user/sb3/train/clip_fraction"], abs=1e-6)
    assert row["policy.ratio.first_mb_dev"] < 1e-5
    assert row["policy.entropy.limit"] == math.log(2)
    assert row["opt.steps"] == MINIBATCHES
    assert row["grad.norm"][0] == MINIBATCHES
    assert row["grad.clip_limit"] == 0.5
    assert row["adv.used"][1] == pytest.approx(0, abs=1e-5)  # normalised, as the loss sees them
    assert row["adv.raw"][1] != pytest.approx(0, abs=1e-3)
    assert row["loss.total"] is Status.NOT_CALLED  # the library logs that of the last minibatch only


def test_ppo_rollout_is_that_of_the_update(watching: Watching) -> None:
    """Rewards as the environment gave them, though the library adds a value to them where an episode is truncated."""
    model = make_model(env=EpisodeMonitor(Walk(length=8, truncates=True)))
    model.learn(2 * STEPS, GradwatchCallback())

    for row in watching.rows:
        assert row["reward.step"] == (STEPS, 1.0, 0.0)
        assert row["episode.return"] == row["episode.length"] == (2.0, 8.0, 0.0)
        assert row["episode.truncated"] == (2.0, 1.0, 0.0)
        assert row["sys.phase_ms/rollout"] > 0
        assert row["sys.phase_ms/update"] > 0
    assert watching.rows[-1]["value.target"][1] == pytest.approx(float(model.rollout_buffer.returns.mean()), rel=1e-5)
    assert (model.rollout_buffer.rewards != 1.0).any()  # the trap, as installed
    assert [row.env_steps for row in watching.records[0].rows] == [STEPS, 2 * STEPS]


def test_ppo_nan_reward_is_counted_in_its_update(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """It spoils the weights in `train()`, so the next rollout raises: the last row still says where it began."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)  # python -O turns it off
    with pytest.raises(ValueError, match="Expected parameter"):
        make_model(env=Walk(spoilt={STEPS + 3: math.nan})).learn(4 * STEPS, GradwatchCallback())
    watching.monitors[0].close()

    counts = [row["reward.step.nonfinite"] for row in watching.rows[:2]]
    assert counts == [0.0, 1.0]
    assert watching.rows[0]["param.nonfinite"] == 0.0
    assert watching.rows[1]["param.nonfinite"] > 0


def test_ppo_learning_rate_times_a_hundred_is_a_kl_spike_of_that_update(watching: Watching) -> None:
    """And of no other."""

    def burst(model: Any, rollout: int) -> None:
        model.lr_schedule = lambda _: 0.3 if rollout == 2 else 0.0003

    make_model().learn(4 * STEPS, [Act(burst), GradwatchCallback()])

    kl = [row["policy.kl.k3"][1] for row in watching.rows]
    assert [value > 0.02 for value in kl[:3]] == [False, False, True]
    assert [row["opt.lr"] for row in watching.rows] == [0.0003, 0.0003, 0.3, 0.0003]


def test_ppo_log_std_forced_down_shows_in_entropy_of_that_update(watching: Watching) -> None:
    """A Gaussian policy; its entropy is not bounded below, so it has no normalised one."""

    def narrow(model: Any, rollout: int) -> None:
        if rollout == 2:
            model.policy.log_std.data.fill_(-4.0)

    make_model(env=Walk(continuous=True)).learn(4 * STEPS, [Act(narrow), GradwatchCallback()])

    entropy = [row["policy.entropy"][1] for row in watching.rows]
    assert [value < -2 for value in entropy] == [False, False, True, True]
    assert watching.rows[2]["policy.entropy.limit"] is Status.UNDEFINED
    assert watching.rows[1]["policy.std.min"] == pytest.approx(1.0, abs=0.05)
    assert watching.rows[2]["policy.std.min"] == pytest.approx(math.exp(-4), rel=0.05)


def test_ppo_with_state_dependent_noise_has_the_deviations_of_its_actions(watching: Watching) -> None:
    """Its `log_std` is a matrix of the noise, and no deviation of an action."""
    model = make_model(env=Walk(continuous=True), use_sde=True)
    model.learn(STEPS, GradwatchCallback())

    largest = model.policy.action_dist.distribution.stddev.detach().max()
    assert watching.rows[0]["policy.std.max"] == pytest.approx(float(largest), rel=1e-5)


def test_ppo_observations_of_a_normaliser_are_held_against_its_bound(watching: Watching) -> None:
    """VecNormalize clips at a bound; near it a feature says nothing any more."""
    env = VecNormalize(DummyVecEnv([Walk]), clip_obs=0.1)
    make_model(env=env).learn(2 * STEPS, GradwatchCallback())

    saturated, elements = watching.rows[-1]["obs.input.saturated"], watching.rows[-1]["obs.input"][0]
    assert 0.5 < saturated / elements < 1


def test_ppo_actions_are_those_of_the_rollout(watching: Watching) -> None:
    """One action whatever is seen: its share says so."""

    def insist(model: Any, rollout: int) -> None:
        model.policy.action_net.bias.data[0] = 50.0 if rollout else 0.0

    make_model().learn(2 * STEPS, [Act(insist), GradwatchCallback()])

    shares = [row["policy.action.dominance"] for row in watching.rows]
    assert shares[0] < 1.0
    assert shares[1] == 1.0


def test_ppo_stopped_early_by_target_kl_has_no_skipped_step(watching: Watching) -> None:
    """The minibatch that is too far away is looked at and dropped before its gradient is computed: that is no fault."""
    make_model(learning_rate=0.05, target_kl=1e-6).learn(2 * STEPS, GradwatchCallback())

    row = watching.rows[-1]
    assert (row["opt.steps"], row["opt.skipped"]) == (1.0, 0.0)
    assert row["policy.kl.k3"][0] == 2 * BATCH


def test_recurrent_ppo_leaves_padding_out_and_sends_the_state(watching: Watching) -> None:
    """Sequences are padded to one length; a ratio of padding would be a ratio of nothing."""
    model = make_model(RecurrentPPO, env=EpisodeMonitor(Walk(length=5)))
    model.learn(2 * STEPS, GradwatchCallback())

    for row in watching.rows:
        assert row["policy.kl.k3"][0] == EPOCHS * STEPS
        assert row["policy.ratio.first_mb_dev"] < 1e-4
        assert row["rnn.h/rollout"][0] == 8 * 8  # looks, units
        assert row["rnn.c.absmax/rollout"] > 0
        assert row["adv.used"][1] == pytest.approx(0, abs=1e-4)
        assert row["adv.used"][2] / row["adv.used"][0] == pytest.approx(1, rel=0.2)


def test_a2c_without_ratio_bound_is_watched(watching: Watching) -> None:
    """It has no clip range; what needs one says so."""
    make_model(A2C).learn(2 * STEPS, GradwatchCallback())

    assert watching.updates == [0, 1]
    assert watching.rows[0]["opt.steps"] == 1.0
    assert watching.rows[0]["policy.clipped"] is Status.NOT_CALLED
