"""The Stable-Baselines3 callback against the installed library: each fault in the right signal, at the right update."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.monitor import Monitor as EpisodeMonitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from gradwatch_agent.adapters import sb3
from gradwatch_agent.adapters.sb3 import GradwatchCallback
from gradwatch_contracts.columns import RowFlag, Status
from harness.adapters import Walk, Watching

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS, BATCH, EPOCHS = 16, 8, 3
MINIBATCHES = STEPS // BATCH * EPOCHS


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    """Own errors are raised, and nothing is sent anywhere."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    torch.set_num_threads(1)
    found = Watching()
    monkeypatch.setattr(sb3, "watch", found)
    return found


def make_model(kind: type[Any] = PPO, env: Any = None, **given: Any) -> Any:
    """A tiny model."""
    own: dict[str, Any] = {"n_steps": STEPS, "batch_size": BATCH, "n_epochs": EPOCHS} if kind is not A2C else {"n_steps": STEPS}
    policy = "MlpLstmPolicy" if kind is RecurrentPPO else "MlpPolicy"
    net = {"lstm_hidden_size": 8, "net_arch": [8]} if kind is RecurrentPPO else {"net_arch": [8]}
    return kind(policy, env or Walk(), policy_kwargs=net, device="cpu", seed=0, **{**own, **given})


class Act(BaseCallback):
    """Does something to the model when a rollout begins, given the number of the rollout."""

    def __init__(self, act: Callable[[Any, int], None]) -> None:
        super().__init__()
        self._act, self._rollout = act, -1

    def _on_rollout_start(self) -> None:
        self._rollout += 1
        self._act(self.model, self._rollout)

    def _on_step(self) -> bool:
        return True


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


def test_algorithm_without_rollouts_trains_unwatched(watching: Watching, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so."""
    DQN("MlpPolicy", Walk(), learning_starts=4, buffer_size=64).learn(16, GradwatchCallback())

    assert watching.monitors == []
    assert "does not watch DQN" in caplog.text


@pytest.mark.parametrize("kind", [PPO, RecurrentPPO])
def test_parameters_with_and_without_the_callback_are_bit_identical(watching: Watching, kind: type[Any]) -> None:
    """The state of the random generators too."""

    def train(callback: Any) -> tuple[list[torch.Tensor], Any]:
        model = make_model(kind, env=Walk(continuous=True))
        model.learn(3 * STEPS, callback)
        return [*model.policy.state_dict().values(), torch.rand(1)], np.random.rand()

    (left, left_draw), (right, right_draw) = train(None), train(GradwatchCallback())
    assert all(map(torch.equal, left, right))
    assert left_draw == right_draw
    assert watching.updates == [0, 1, 2]


def test_training_end_restores_everything(watching: Watching) -> None:
    """Methods, the logger's outputs, torch's clipping."""
    from torch.nn.utils import clip_grad

    total, outputs = clip_grad._get_total_norm, []
    model = make_model()
    model.learn(2 * STEPS, [GradwatchCallback(), Act(lambda model, at: outputs.append(list(model.logger.output_formats)))])

    assert "evaluate_actions" not in vars(model.policy)
    assert "get" not in vars(model.rollout_buffer)
    assert [type(output) for output in outputs[0]][-1] is sb3.Forwarder
    assert [type(output) for output in model.logger.output_formats] == [type(output) for output in outputs[0]][:-1]
    assert clip_grad._get_total_norm is total
    assert not watching.monitors[0].active


def test_policy_copied_while_training_works_on_its_own_weights(watching: Watching) -> None:
    """Self-play copies policies; a copy that asked the watched one would train on the wrong weights."""
    copies: list[Any] = []
    model = make_model()
    keep = Act(lambda model, at: at or copies.append(copy.deepcopy(model.policy)))
    model.learn(2 * STEPS, [GradwatchCallback(), keep])

    twin = copies[0]
    twin.action_net.weight.data.add_(1.0)
    obs, actions = torch.rand(4, 3), torch.zeros(4)
    by_twin, by_class = twin.evaluate_actions(obs, actions), type(twin).evaluate_actions(twin, obs, actions)
    assert torch.equal(by_twin[1], by_class[1])
    assert not torch.equal(by_twin[1], model.policy.evaluate_actions(obs, actions)[1])
    assert watching.rows[0]["policy.kl.k3"][0] == MINIBATCHES * BATCH


def test_learn_again_goes_on_counting_updates(watching: Watching) -> None:
    """`reset_num_timesteps=False`: another attempt, whose updates follow those before; also after a `learn` that raised."""
    model, callback = make_model(), GradwatchCallback()

    def fail(model: Any, rollout: int) -> None:
        if rollout == 1:
            raise RuntimeError("the trainer's own")

    with pytest.raises(RuntimeError, match="own"):
        model.learn(4 * STEPS, [callback, Act(fail)])
    watching.monitors[0].close()
    model.learn(2 * STEPS, callback, reset_num_timesteps=False)

    assert watching.updates == [1, 2]
    assert watching.given[-1]["updates_total"] == 3
    assert watching.rows[0]["policy.kl.k3"][0] == MINIBATCHES * BATCH  # looked at once, not twice
    assert "evaluate_actions" not in vars(model.policy)


def test_dump_in_the_middle_of_a_rollout_takes_no_value_of_another_update(watching: Watching) -> None:
    """EvalCallback dumps by itself, and with it what `train()` of the update before has logged."""
    evaluate = EvalCallback(EpisodeMonitor(Walk()), n_eval_episodes=1, eval_freq=STEPS + 4, verbose=0)
    kls: list[float] = []

    class Spy(PPO):
        def train(self) -> None:
            """See PPO."""
            super().train()
            kls.append(float(self.logger.name_to_value["train/approx_kl"]))

    make_model(Spy, learning_rate=0.01).learn(3 * STEPS, [evaluate, GradwatchCallback()])

    assert [row["user/sb3/train/approx_kl"] for row in watching.rows] == [pytest.approx(kl) for kl in kls]
    assert ["user/sb3/eval/mean_reward" in row for row in watching.rows] == [False, True, True]
    assert watching.rows[1]["user/sb3/eval/mean_reward"] == 5.0
    assert watching.rows[2]["user/sb3/eval/mean_reward"] is not None


def test_explained_variance_that_is_undefined_is_left_out(watching: Watching) -> None:
    """All returns equal, or none of them a number: the library logs NaN, which is no value."""
    callback = GradwatchCallback()
    make_model().learn(STEPS, callback)
    callback._train.ran = True
    sent: list[dict[str, float]] = []
    callback.monitor = watching.monitors[0]
    callback.monitor.log = lambda values, /, **_: sent.append(dict(values))  # type: ignore[assignment, method-assign]
    callback.take({"train/explained_variance": math.nan, "train/loss": 1.0, "rollout/text": "x"})

    assert sent == [{"sb3/train/loss": 1.0}]


def test_our_own_failure_leaves_training_as_it_was(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every hook fails; parameters are those of a training without it."""

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.delenv("GRADWATCH_STRICT")
    alone = make_model()
    alone.learn(2 * STEPS)
    monkeypatch.setattr(sb3, "to_float", fail)
    monkeypatch.setattr("gradwatch_agent.adapters.sb3_train.normalise", fail)
    model = make_model(env=EpisodeMonitor(Walk()))
    monkeypatch.setattr(GradwatchCallback, "_episodes", property(fail, lambda *_: None), raising=False)
    model.learn(2 * STEPS, GradwatchCallback())

    assert all(map(torch.equal, alone.policy.state_dict().values(), model.policy.state_dict().values()))
    assert "gradwatch failed in" in caplog.text
    assert len(watching.records[0].events) >= 3  # each place once
    assert not watching.monitors[0].active


def test_stop_that_is_wanted_ends_learning(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a rollout; what was begun is told as partial."""
    from gradwatch_agent.monitor import Monitor

    monkeypatch.setattr(Monitor, "should_stop", property(lambda monitor: monitor.update == 1))
    model = make_model()
    model.learn(8 * STEPS, GradwatchCallback())

    assert model.num_timesteps == STEPS + 1
    assert [row.flags & RowFlag.PARTIAL for row in watching.records[0].rows][:1] == [0]


def test_config_is_an_allowed_list(watching: Watching) -> None:
    """Hyper-parameters, schedules at both ends; nothing else of the model."""
    make_model(learning_rate=lambda left: 0.1 * left, tensorboard_log=None).learn(STEPS, GradwatchCallback())

    config = watching.given[0]["config"]
    assert (config["algorithm"], config["n_steps"], config["max_grad_norm"]) == ("PPO", STEPS, 0.5)
    assert (config["lr_schedule.start"], config["lr_schedule.end"]) == (0.1, 0.0)
    assert config["clip_range.start"] == 0.2
    assert watching.given[0]["updates_total"] == 1
