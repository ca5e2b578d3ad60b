"""What `ppo()` observes: log-probability ratios, entropy, values, advantages and loss of every minibatch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from gradwatch_agent.collect.block_facts import want
from gradwatch_agent.collect.collectors import Switches
from gradwatch_agent.collect.host import Tally, to_float
from gradwatch_agent.collect.minibatch import ADVANTAGE, ERROR, LOSS, VALUE, Minibatch
from gradwatch_agent.collect.policy_facts import ENTROPY, K3, LOGRATIO, PPO_COLUMNS, RATIO_COLUMNS
from gradwatch_agent.collect.recipe import Given, Recipe, dtype_of
from gradwatch_agent.collect.series import NUMBERS_MAX, Series
from gradwatch_agent.collect.staging import Channel, Layout, stack
from gradwatch_agent.collect.tensors import FLOATS, is_plain
from gradwatch_agent.device.plan import Plan
from gradwatch_agent.device.reduce import is_grad_enabled, set_grad
from gradwatch_agent.device.transfer import host_value
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.series import Known
    from gradwatch_agent.collect.staging import Block, Staging

is_capturing = torch.cuda.is_current_stream_capturing

HEADS_MAX = 64
"""Action heads of one policy."""

LAYOUTS_MAX = 256
"""Layouts kept; an annealed clip makes a new one each update."""


class PolicyCollector:
    """The minibatches of the running update."""

    __slots__ = (
        "_before_first_only",
        "_cuda",
        "_layouts",
        "_limits",
        "_losses",
        "_recipe",
        "_resting",
        "_series",
        "_switches",
        "minibatches",
        "off_policy",
        "staging",
        "stepped",
        "tally",
    )

    def __init__(
        self,
        staging: Staging,
        limits_: Mapping[str, float | None] | None,
        *,
        off_policy: bool,
        optimizer: bool,
        switches: Switches | None = None,
    ) -> None:
        self.staging = staging
        self._switches = switches or Switches()
        self._resting: frozenset[str] = frozenset()
        self._limits = limits_
        self._layouts: dict[object, Layout] = {}
        self._before_first_only = not optimizer
        self._cuda = torch.cuda.is_available()
        self._recipe: Recipe | None = None
        self.off_policy = off_policy
        self.begin(Tally())

    def begin(self, tally: Tally) -> None:
        """A new update: no minibatch, no optimizer step."""
        self.tally = tally
        self.minibatches = 0
        self.stepped = False
        self._series: dict[tuple[str, str], Series] = {}
        self._losses: list[Known] = []
        if self._recipe is not None:
            self._recipe.block = None
        if self._resting != self._switches.resting:
            self._resting, self._recipe = self._switches.resting, None

    def repeat(self, given: Given, clip: Any, loss: Any) -> bool:
        """Stage a minibatch like the last one. False when it is another one; then nothing was done, and `observe` is to do it.

        One flat function that touches little: right after a minibatch of training each function and object that is touched
        costs what ten do in a loop. `stack` itself refuses tensors of different shapes or devices.
        """
        recipe = self._recipe
        if recipe is None or tuple(map(type, given)) != recipe.types or (self._cuda and is_capturing()):
            return False
        tensors = recipe.pick(given)
        if (
            tuple(map(dtype_of, tensors)) != recipe.dtypes
            or tensors[0].shape != recipe.shape
            # The type first: a tensor would be waited for.
            or (clip is not recipe.clip and (type(clip) is not type(recipe.clip) or clip != recipe.clip))
        ):
            return False
        block, minibatch = recipe.block, self.minibatches
        if block is None or len(block.minibatches) == len(block.rows):
            block = self._make_room(recipe, minibatch)
            if block is None:
                return False
        enabled = is_grad_enabled()
        try:
            set_grad(False)
            stack(tensors, out=block.rows[len(block.minibatches)])
        except RuntimeError:
            return False
        finally:
            set_grad(enabled)
        block.minibatches.append(minibatch)
        self.minibatches = minibatch + 1
        if not self.stepped:
            block.before_step += recipe.ratio and self._before(minibatch)
        number = host_value(loss) if type(loss) is torch.Tensor else None
        if number is not None:
            self._losses.append((number, minibatch, None))
        elif loss is not None:
            self._take_loss(loss, minibatch)
        return True

    def _make_room(self, recipe: Recipe, minibatch: int) -> Block | None:
        """A block for more minibatches of this recipe; None when these are not to be staged, or cannot be any more."""
        if minibatch >= NUMBERS_MAX:  # of the losses no more are kept
            return None
        with torch.no_grad():
            recipe.block = self.staging.room(recipe.key)
        if recipe.entropy and recipe.block is not None:
            self._tell_limit(self.tally, "")
        return recipe.block

    def observe(self, given: Given, clip: object = None, loss: object = None) -> None:
        """Stage one minibatch of any kind. What cannot be used is refused in `tally` with its reason."""
        if self._cuda and is_capturing():
            for name in PPO_COLUMNS:  # what we launched would become a part of the graph
                self.tally.refuse(name, Status.CAPTURING)
            return
        minibatch = self.minibatches
        self.minibatches = minibatch + 1
        enabled = is_grad_enabled()
        try:
            set_grad(False)
            self._examine(given, clip, minibatch)
            if loss is not None:
                self._take_loss(loss, minibatch)
        finally:
            set_grad(enabled)

    def _before(self, minibatch: int) -> bool:
        """Whether the policy is still the one that collected: no optimizer step was taken in this update."""
        return not self.off_policy and (minibatch == 0 if self._before_first_only else not self.stepped)

    def _examine(self, given: Given, clip: object, minibatch: int) -> None:
        """Look at every tensor, refuse what cannot be used, stage the rest."""
        new_logp, old_logp, values, returns, advantages, entropy, mask = given
        tally = self.tally
        heads = entropy if isinstance(entropy, Mapping) else {} if entropy is None else {"": entropy}
        reference = _reference(new_logp, old_logp, values, advantages, *heads.values())
        if reference is None:
            reference = torch.empty(0)
        batch = Minibatch(reference.shape, reference.device)
        self._take_ratio(batch, tally, new_logp, old_logp)
        self._take_values(batch, tally, values, returns)
        if advantages is not None:
            self._take(batch, tally, advantages, ADVANTAGE)
        self._take_entropy(batch, tally, heads)
        bound = self._bound(tally, clip) if batch.ratio else None
        masked = mask is not None and bool(batch.samples) and self._take_mask(batch, tally, mask)
        if batch.samples and reference.numel() == 0:
            batch.refuse(tally, Status.UNDEFINED)
            masked = False
        self._stage(batch, bound, minibatch, masked=masked)
        self._note(batch, given, clip)

    def _note(self, batch: Minibatch, given: Given, clip: object) -> None:
        """Remember a minibatch of flat tensors all of which were accepted, so that the next one like it is known."""
        self._recipe = None
        whole = len(batch.shape) == 1 and len(batch.samples) == sum(tensor is not None for tensor in given)
        if whole and batch.layout is not None:
            key = (batch.layout, batch.shape[0], batch.dtype, batch.device)
            self._recipe = Recipe.of(given, clip, key)

    def _take(self, batch: Minibatch, tally: Tally, tensor: object, columns: Sequence[str]) -> bool:
        """Accept a per-sample tensor as the channel of `columns[0]`, or refuse all of them."""
        fault = batch.fault(tensor)
        if fault is not None or not isinstance(tensor, torch.Tensor):
            for name in columns:
                tally.refuse(name, fault or Status.DTYPE)
            return False
        batch.samples.append(tensor)
        batch.columns.append((columns[0], ""))
        return True

    def _take_ratio(self, batch: Minibatch, tally: Tally, new_logp: object, old_logp: object) -> None:
        if new_logp is None or old_logp is None:
            return
        fault = batch.fault(new_logp) or batch.fault(old_logp)
        if fault is None and isinstance(new_logp, torch.Tensor) and isinstance(old_logp, torch.Tensor):
            batch.samples += (new_logp, old_logp)
            batch.columns += ((LOGRATIO, ""), (K3, ""))
            batch.ratio = True
        for name in RATIO_COLUMNS if fault is not None else ():
            tally.refuse(name, fault or Status.DTYPE)

    def _take_values(self, batch: Minibatch, tally: Tally, values: object, returns: object) -> None:
        if values is None:
            return
        if not self._take(batch, tally, values, VALUE):
            for name in ERROR:
                tally.refuse(name, tally.reasons[VALUE[0], ""])
        elif returns is not None:
            batch.error = self._take(batch, tally, returns, ERROR)

    def _take_entropy(self, batch: Minibatch, tally: Tally, heads: Mapping[object, object]) -> None:
        for key, tensor in list(heads.items())[:HEADS_MAX]:
            head = str(key)[: limits.NAME_CHARS_MAX]
            number = to_float(tensor)
            fault = None if number is not None else batch.fault(tensor)
            if number is not None:
                tally.add(ENTROPY, (1.0, number, 0.0), head)
            elif fault is None and isinstance(tensor, torch.Tensor):
                batch.samples.append(tensor)
                batch.columns.append((ENTROPY, head))
            elif fault is Status.SHAPE and isinstance(tensor, torch.Tensor) and tensor.dim() == 0:
                self._add(ENTROPY, head, tensor, self.minibatches - 1)
            else:
                tally.refuse(ENTROPY, fault or Status.DTYPE, head)
            self._tell_limit(tally, head)

    def _tell_limit(self, tally: Tally, head: str) -> None:
        """The largest entropy a head can have, once an update: ln of its number of actions. Not defined where nothing says how
        many: the entropy was passed, so what is lacking is no call."""
        name = f"{ENTROPY}.limit"
        if (name, head) in tally.parts or (name, head) in tally.reasons:
            return
        limit = None if self._limits is None else self._limits.get(head)
        if limit is not None:
            tally.add(name, (limit,), head)
        else:
            tally.refuse(name, Status.UNDEFINED, head)

    def _take_loss(self, loss: object, minibatch: int) -> None:
        fault: Status | None = Status.DTYPE
        number: torch.Tensor | float | None = None
        if is_plain(loss):
            if loss.dtype in FLOATS and loss.layout is torch.strided:
                fault = None if loss.numel() == 1 else Status.SHAPE
            if fault is None:
                number = host_value(loss)
                number = loss if number is None else number
        else:
            number = to_float(loss)
        if number is not None:
            self._add(LOSS[0], "", number, minibatch)
            return
        for name in LOSS:
            self.tally.refuse(name, fault or Status.DTYPE)

    def _add(self, name: str, subject: str, number: torch.Tensor | float, minibatch: int) -> None:
        if not self._series_of(name, subject).add(number, minibatch):
            self.tally.refuse(name, Status.INCOMPLETE, subject)

    def _series_of(self, name: str, subject: str) -> Series:
        series = self._series.get((name, subject))
        if series is None:
            series = self._series[name, subject] = Series(self.staging, name, subject)
        return series

    def _bound(self, tally: Tally, clip: object) -> float | None:
        bound = to_float(clip)
        if clip is not None and bound is None:
            for name in ("policy.clipped", "policy.clipped.high", "policy.clipped.low"):
                tally.refuse(name, Status.DTYPE)
        return bound

    def _take_mask(self, batch: Minibatch, tally: Tally, mask: object) -> bool:
        """Accept a mask, or refuse everything it was to apply to: unmasked numbers would be wrong ones."""
        status = Status.DTYPE
        if isinstance(mask, torch.Tensor) and mask.dtype is torch.bool and mask.layout is torch.strided:
            status = Status.DEVICE if mask.device != batch.device else Status.SHAPE
            if mask.device == batch.device and mask.shape == batch.shape:
                batch.samples.append(mask)
                return True
        batch.refuse(tally, status)
        return False

    def _stage(self, batch: Minibatch, clip: float | None, minibatch: int, *, masked: bool) -> None:
        samples = batch.samples
        if len(batch.shape) != 1:
            samples = [tensor.reshape(-1) for tensor in samples]
        if not samples:
            return
        if any(tensor.dtype is torch.float64 for tensor in samples):
            batch.dtype = torch.float64
        batch.layout = self._layout(batch, clip, masked=masked)
        self.staging.stage(batch.layout, samples, batch.dtype, minibatch, batch.ratio and self._before(minibatch))

    def _layout(self, batch: Minibatch, clip: float | None, *, masked: bool) -> Layout:
        columns = tuple(batch.columns)
        key = (columns, clip, masked, batch.ratio, batch.error, self._resting)
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= LAYOUTS_MAX:
                self._layouts.clear()
            at = columns.index((ERROR[0], "")) if batch.error else 0
            plan = Plan(
                moments=len(columns),
                ratio=batch.ratio,
                errors=((at, at - 1),) if batch.error else (),
                clip=clip,
                masked=masked,
                weights=batch.ratio and self._switches.on("sample_size"),
                **want([name for name, _ in columns], self._switches),
            )
            layout = self._layouts[key] = Layout(plan, tuple(Channel.of(*column) for column in columns), Source.UPDATE)
        return layout

    def finish(self, parts: Parts) -> None:
        """Hand over losses and entropies; what was known on the host goes into the tally."""
        if self.minibatches:
            self.tally.add("policy.minibatches", (float(self.minibatches),))
        if self.off_policy and self.minibatches:
            self.tally.refuse("policy.ratio.first_mb_dev", Status.UNDEFINED)
        if self._losses:
            self._series_of(LOSS[0], "").extend(self._losses)
            self._losses = []
        for (name, subject), series in self._series.items():
            series.finish(self.tally, parts)
            for column in (LOSS if name == LOSS[0] else (name,)) if series.overwritten else ():
                self.tally.refuse(column, Status.INCOMPLETE, subject)
        self._series = {}


def _reference(*candidates: object) -> torch.Tensor | None:
    """The tensor whose shape and device the others must have: the first one given."""
    for candidate in candidates:
        if isinstance(candidate, torch.Tensor):
            return candidate
    return None
