"""The Stable-Baselines3 callback leaves training as it is: same parameters, everything restored, stops and restarts."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor as EpisodeMonitor

from gradwatch_agent.adapters import sb3
from gradwatch_agent.adapters.sb3 import GradwatchCallback
from gradwatch_contracts.columns import RowFlag
from harness.adapters import Walk, Watching
from harness.sb3_models import BATCH, MINIBATCHES, STEPS, Act, make_model


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
