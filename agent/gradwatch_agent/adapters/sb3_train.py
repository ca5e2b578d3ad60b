"""Inside `train()` of Stable-Baselines3, which has no callback: the minibatches, as the policy is asked about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch_agent.adapters.method import look_into
from gradwatch_agent.guard import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gradwatch_agent.collect.phases import Phase
    from gradwatch_agent.monitor import Monitor


class TrainLook:
    """Pairs each minibatch that the rollout buffer hands out with what the policy then says of it.

    `ran` is True from the first minibatch of a `train()` until `end`.
    """

    def __init__(self, model: Any, monitor: Monitor) -> None:
        self.ran = False
        self._model, self._monitor = model, monitor
        self._sample: Any = None
        self._timed: Phase | None = None
        self._clip: float | None = None
        self._undo = [
            look_into(model.policy, "evaluate_actions", self._evaluate),
            look_into(model.rollout_buffer, "get", self._get),
        ]

    def begin(self) -> None:
        """The rollout is over; what follows is the update."""
        self._timed = self._monitor.phase("update")
        self._timed.__enter__()

    def end(self) -> None:
        """The update is over."""
        self.ran = False
        if self._timed is not None:
            self._timed.__exit__()

    def remove(self) -> None:
        """Give both methods back."""
        for undo in self._undo:
            undo()

    def _on_own_error(self, place: str, text: str) -> None:
        self._monitor._on_own_error(place, text)

    def _get(self, original: Callable[..., Iterator[Any]], *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The minibatches of an epoch; the one under way is remembered for `_evaluate`."""
        self._begin_epoch()
        for self._sample in original(*args, **kwargs):
            yield self._sample

    @guarded
    def _begin_epoch(self) -> None:
        self.ran = True
        schedule = getattr(self._model, "clip_range", None)
        self._clip = None if schedule is None else schedule(self._model._current_progress_remaining)

    def _evaluate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Log-probabilities of the policy as it is now."""
        found = original(*args, **kwargs)
        sample, self._sample = self._sample, None
        if sample is not None and self._monitor.active:
            self._tell(sample, *found)
        return found

    @guarded
    def _tell(self, sample: Any, values: Any, logp: Any, entropy: Any) -> None:
        mask = sample.mask > 1e-8 if hasattr(sample, "mask") else None
        advantages = sample.advantages
        if getattr(self._model, "normalize_advantage", False) and (mask is not None or len(advantages) > 1):
            advantages = normalise(advantages, mask)
        self._monitor.ppo(
            new_logp=logp,
            old_logp=sample.old_log_prob,
            entropy=entropy,
            values=values.flatten(),
            returns=sample.returns,
            advantages=advantages,
            clip=self._clip,
            actions=sample.actions,
            mask=mask,
            std=self._deviations(),
        )

    def _deviations(self) -> Any:
        """Standard deviations of a Gaussian policy, as it was just asked; with gSDE they are no parameter."""
        from torch.distributions import Normal

        distribution = getattr(self._model.policy.action_dist, "distribution", None)
        return distribution.stddev if isinstance(distribution, Normal) else None


def normalise(advantages: Any, mask: Any) -> Any:
    """Advantages as `train()` passes them to the loss. Weighted by the mask, where the library picks by it and so would wait
    for the device."""
    if mask is None:
        return (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    weight = mask.to(advantages.dtype)
    count = weight.sum()
    centred = advantages - (advantages * weight).sum() / count
    return centred / (((centred.square() * weight).sum() / (count - 1)).sqrt() + 1e-8)
