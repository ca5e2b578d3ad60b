"""TRL's own trainers with the callback, on a model of a few hundred weights that nobody downloads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_agent.adapters import huggingface
from gradwatch_contracts.columns import Status
from harness.adapters import Watching
from harness.trl_trainer import COMPLETIONS, TOKENS, Reward, make_trainer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries advise on devices, hubs and much else


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    """Own errors are raised, and nothing is sent anywhere."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    found = Watching()
    monkeypatch.setattr(huggingface, "watch", found)
    return found


def train(trainer: Any, *callbacks: Any) -> list[dict[str, Any]]:
    """Train; what the trainer logged of each step."""
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "grad_norm" in entry]


def test_grpo_fault_is_in_the_signals_of_its_update(watching: Watching, tmp_path: Path) -> None:
    """Every generation is trained on twice; the rewards of the third one are a thousand times as large, and the learning rate
    of the step after is. What TRL logs is as it was, and beside it the same figures measured token by token."""
    from transformers import TrainerCallback

    from gradwatch_agent.adapters.trl import GradwatchCallback

    class Burst(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """The step from number 4 on has another learning rate, which shows from the next one on."""
            if state.global_step == 4:
                kwargs["optimizer"].param_groups[0]["lr"] = 0.5

    trainer = make_trainer("GRPO", tmp_path, Reward(spoilt=2), max_steps=6, beta=0.1)
    logged = train(trainer, Burst(), GradwatchCallback("grpo", trainer=trainer))

    rows = watching.rows
    assert watching.updates == [0, 1, 2, 3, 4, 5]
    assert [row["episode.return"][0] if isinstance(row["episode.return"], tuple) else 0 for row in rows] == [4, 0, 4, 0, 4, 0]
    for row, entry in zip(rows, logged, strict=True):
        assert {name for name in entry if name not in {"epoch", "step"}} <= {name.removeprefix("user/hf/") for name in row}
        assert row["policy.entropy"][1] == pytest.approx(entry["entropy"], rel=1e-4)
        assert row["loss.total"][1] == pytest.approx(entry["loss"], abs=1e-4)
        assert row["grad.norm"][1] == pytest.approx(entry["grad_norm"], rel=1e-4)  # before clipping, both
        assert row["user/hf/kl"] == entry["kl"]  # to the reference model: k3, and no signal of ours
        assert (row["opt.steps"], row["opt.skipped"]) == (1.0, 0.0)
        assert 0 < row["policy.kl.k3"][0] <= COMPLETIONS * TOKENS  # padding is no token
    for row, entry in zip(rows[::2], logged[::2], strict=True):
        assert row["reward.step"][1] == row["episode.return"][1] == pytest.approx(entry["reward"])
        assert row["policy.ratio.first_mb_dev"] < 1e-5  # the policy that generated
    returns = [row["episode.return"][1] for row in rows[::2]]
    assert returns[2] > 100 * max(returns[:2])
    assert rows[2]["policy.kl.k3"][1] < rows[3]["policy.kl.k3"][1] < 0.01
    assert rows[5]["policy.kl.k3"][1] > 20 * rows[3]["policy.kl.k3"][1]  # one step of the burst away
    assert rows[5]["policy.clipped"] > 0
    assert not vars(trainer).keys() & {"_compute_loss", "_calculate_rewards", "_get_per_token_logps_and_entropies"}


@pytest.mark.campaign
def test_grpo_reward_that_is_no_number_is_counted(watching: Watching, tmp_path: Path) -> None:
    """TRL takes a completion that no function rewards for one without a number and leaves it out of what it logs. Two
    micro-batches make a step; without old log-probabilities nothing is said of ratios."""
    from gradwatch_agent.adapters.trl import GradwatchCallback

    trainer = make_trainer("GRPO", tmp_path, Reward(silent=1), max_steps=3, num_iterations=1, gradient_accumulation_steps=2)
    train(trainer, GradwatchCallback(trainer=trainer))

    assert [row["reward.step.nonfinite"] for row in watching.rows] == [0.0, 2 * COMPLETIONS, 0.0]
    for row in watching.rows:
        assert (row["opt.steps"], row["opt.skipped"], row["policy.minibatches"]) == (1.0, 0.0, 2.0)
        assert row["policy.kl.k3"] is Status.NOT_CALLED


@pytest.mark.campaign
def test_rloo_ratio_is_that_of_a_whole_completion(watching: Watching, tmp_path: Path) -> None:
    """As its loss takes it; and training is bit for bit what it is alone."""
    from gradwatch_agent.adapters.trl import GradwatchCallback

    given = {"max_steps": 3, "learning_rate": 0.05}
    alone = make_trainer("RLOO", tmp_path / "alone", Reward(), **given)
    train(alone)
    seen = make_trainer("RLOO", tmp_path / "seen", Reward(), **given)
    logged = train(seen, GradwatchCallback(trainer=seen))

    assert [row["policy.kl.k3"][0] for row in watching.rows] == [COMPLETIONS] * 3
    assert watching.rows[1]["policy.kl.k3"][1] > watching.rows[0]["policy.kl.k3"][1]
    assert watching.rows[0]["policy.ratio.first_mb_dev"] < 1e-5  # both sums are over all tokens: before a step they are equal
    assert [row["user/hf/clip_ratio/region_mean"] for row in watching.rows] == [e["clip_ratio/region_mean"] for e in logged]
    assert all(math.isfinite(row["policy.entropy"][1]) for row in watching.rows)
    assert all(map(torch.equal, alone.model.state_dict().values(), seen.model.state_dict().values()))
