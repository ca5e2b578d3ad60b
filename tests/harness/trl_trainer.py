"""TRL's trainers on a model of a few hundred weights that nobody downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("<pad>", "<eos>", *(f"w{number}" for number in range(14)))
COMPLETIONS, TOKENS = 4, 6


def make_trainer(kind: str, folder: Path, reward: Any, **given: Any) -> Any:
    """A trainer of a model with one layer, which prints one of sixteen words after another."""
    import trl  # with its parts it takes seconds
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
