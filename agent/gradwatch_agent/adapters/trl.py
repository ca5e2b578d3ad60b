"""TRL's GRPOTrainer and RLOOTrainer, seen from inside the optimizer step: a token is a sample of the policy.

What TRL logs is a mean of means, without its NaN: ratios, KL to the policy that generated and the rewards of each completion
are measured here instead, where the loss is made; what it logs goes along under `hf/`. See docs/adapters.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch_agent.adapters import huggingface
from gradwatch_agent.adapters.method import look_into
from gradwatch_agent.guard import guarded

if TYPE_CHECKING:
    from collections.abc import Callable

INSIDE = ("_compute_loss", "_get_per_token_logps_and_entropies", "_calculate_rewards")
"""Methods of the trainer that are looked into."""


class GradwatchCallback(huggingface.GradwatchCallback):
    """`trainer.add_callback(GradwatchCallback("grpo", trainer=trainer))`. Further arguments go to `gradwatch_agent.watch`.

    An episode is a completion, and its return the reward that the trainer makes its advantage of, before it is held against
    the other completions of its prompt.
    """

    def __init__(self, run: str | None = None, *, trainer: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self._trainer = trainer
        self._undo: list[Callable[[], None]] = []
        self._asked: tuple[Any, Any] | None = None
        self._completions: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look in from now on."""
        super().on_train_begin(args, state, control, **kwargs)
        looks = (self._see_loss, self._see_logps, self._see_rewards)
        present = all(callable(getattr(self._trainer, name, None)) for name in INSIDE)
        if not present:
            huggingface.LOGGER.warning("gradwatch does not see inside %s: GRPO and RLOO.", type(self._trainer).__name__)
            return
        self._undo = [look_into(self._trainer, name, see) for name, see in zip(INSIDE, looks, strict=True)]

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the methods back."""
        for undo in self._undo:
            undo()
        super().on_train_end(args, state, control, **kwargs)

    def _told(self) -> dict[str, Any]:
        """The completions scored since the last step. Some steps train on those of a step before, and have none."""
        found, self._completions = self._completions, []
        return {"episode_returns": found[0] if len(found) == 1 else [float(one) for part in found for one in part]}

    def _see_loss(self, original: Callable[..., Any], model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """One micro-batch; in an evaluation nothing is trained."""
        self._asked = None
        loss = original(model, inputs, *args, **kwargs)
        if self._asked is not None and self._trainer.model.training:
            self._tell(inputs, *self._asked, loss)
        self._asked = None
        return loss

    def _see_logps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Also asked of the reference model and of the policy that generates, both outside of a loss."""
        found = original(*args, **kwargs)
        if isinstance(found, tuple) and len(found) > 1:
            self._asked = found[0], found[1]
        return found

    @guarded
    def _tell(self, inputs: Any, logps: Any, entropies: Any, loss: Any) -> None:
        """Log-probabilities f[B, T] of completions and what the loss holds them against: those of each token, or (RLOO) their
        sum over a completion. Where the trainer keeps no old ones they are the same by construction: nothing is told."""
        if self.monitor is None:
            return
        trainer, advantages = self._trainer, inputs["advantages"]
        mask = inputs["completion_mask"]
        mask = (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()
        old, whole = inputs.get("old_per_token_logps"), inputs.get("old_logps")
        told = {"new_logp": logps, "old_logp": old, "entropy": entropies, "mask": mask}
        if whole is not None:
            weight = mask.to(logps.dtype)
            share = weight.sum(1).clamp(min=1.0)
            told = {"new_logp": (logps * weight).sum(1), "old_logp": whole, "entropy": (entropies * weight).sum(1) / share}
        elif advantages.dim() == 1:
            advantages = advantages.unsqueeze(1).expand_as(logps)
        low, high = trainer.epsilon_low, trainer.epsilon_high
        scale = trainer.current_gradient_accumulation_steps
        self.monitor.ppo(**told, advantages=advantages, clip=low if low == high else None, loss=loss * scale)

    def _see_rewards(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Rewards f[completions of all processes, reward functions]."""
        found = original(*args, **kwargs)
        if self._trainer.model.training:
            self._reward(found)
        return found

    @guarded
    def _reward(self, found: Any) -> None:
        """Weighted and added up as the trainer does: a function that had nothing to say of a completion (NaN) is left out, but
        one of which none has is no reward of 0."""
        accelerator = self._trainer.accelerator
        share = len(found) // accelerator.num_processes
        mine = found[accelerator.process_index * share :][:share]
        total = (mine * self._trainer.reward_weights.to(mine.device)).nansum(dim=1)
        rewards = total.masked_fill(mine.isnan().all(dim=1), float("nan"))
        self._completions.append(rewards.detach())
        if self.monitor is not None:
            self.monitor.rollout(rewards=rewards)
