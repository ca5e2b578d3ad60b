"""TRL's own trainers with the callback, on a model of a few hundred weights that nobody downloads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_agent.adapters import huggingface
from gradwatch_contracts.columns import Status
from harness.adapters import Watching

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries advise on devices, hubs and much else

WORDS = ("<pad>", "<eos>", *(f"w{number}" for number in range(14)))
COMPLETIONS, TOKENS = 4, 6


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    """Own errors are raised, and nothing is sent anywhere."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    found = Watching()
    monkeypatch.setattr(huggingface, "watch", found)
    return found


def make_trainer(kind: str, folder: Path, reward: Any, **given: Any) -> Any:
    """A trainer of a model with one layer, which prints one of sixteen words after another."""
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=16, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1, pad_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder / "model")
    quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "bf16": False, "logging_steps": 1}
    sizes = {"per_device_train_batch_size": COMPLETIONS, "num_generations": COMPLETIONS, "max_completion_length": TOKENS}
    own = {"num_iterations": 2, "learning_rate": 1e-3, "max_grad_norm": 0.05, "logging_nan_inf_filter": False}
    own |= {"disable_dropout": True, "seed": 3}  # with dropout no policy is twice the same
    arguments = getattr(trl, f"{kind}Config")(output_dir=str(folder / "out"), **{**quiet, **sizes, **own, **given})
    return getattr(trl, f"{kind}Trainer")(
        model=str(folder / "model"),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["w1 w2", "w4 w5", "w6 w7", "w8 w9"] * 4}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"),
    )


class Reward:
    """How often one word is said, times a thousand in the calls of `spoilt`, NaN (nothing to say) in those of `silent`."""

    __name__ = "says"

    def __init__(self, spoilt: int = -1, silent: int = -1) -> None:
        self.calls, self._spoilt, self._silent = -1, spoilt, silent

    def __call__(self, completions: Any, **_: Any) -> list[float | None]:
        self.calls += 1
        if self.calls == self._silent:
            return [None] * len(completions)
        return [
            float(text.count("w3") + place) * (1000 if self.calls == self._spoilt else 1)
            for place, text in enumerate(completions)
        ]


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
    assert [row["user/hf/clip_ratio/region_mean"] for row in watching.rows] == [e["clip_ratio/region_mean"] for e in logged]
    assert all(math.isfinite(row["policy.entropy"][1]) for row in watching.rows)
    assert all(map(torch.equal, alone.model.state_dict().values(), seen.model.state_dict().values()))
