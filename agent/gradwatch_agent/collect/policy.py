"""What `ppo()` observes: log-probability ratios, entropy, values, advantages and loss of every minibatch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gradwatch_agent.collect.host import Tally, add_first, add_series, to_float
from gradwatch_agent.collect.staging import Layout, Segment
from gradwatch_agent.device.reduce import Plan, least, set_grad
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import COLUMNS, Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeGuard

    from gradwatch_agent.collect.staging import Staging
    from gradwatch_agent.device.reduce import RatioFacts

FLOATS = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})
"""What a log-probability, value, advantage or loss may be; an integer there is a mistake of the trainer."""

HEADS_MAX = 64
"""Action heads of one policy."""

LAYOUTS_MAX = 256
"""Layouts kept; an annealed clip makes a new one each update."""

PPO_COLUMNS = tuple(name for name, spec in COLUMNS.items() if spec.call == "ppo" and not spec.per)
RATIO_COLUMNS = tuple(
    name
    for name in PPO_COLUMNS
    if name.startswith(("policy.logratio", "policy.ratio", "policy.kl")) or name == "policy.clipped"
)
VALUE, ERROR, ADVANTAGE, LOSS = (
    (name, f"{name}.nonfinite", f"{name}.nonfinite_mb") for name in ("value.new", "value.new.error", "adv.used", "loss.total")
)
NONFINITE = {name: (f"{name}.nonfinite", f"{name}.nonfinite_mb") for name in PPO_COLUMNS if f"{name}.nonfinite" in COLUMNS}
LOSS_AT = 6
"""Place of the loss among the tensors of a minibatch."""

PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
"""A subclass (a DTensor, a masked tensor) does with our calls what it likes, even a collective."""

LOGRATIO, K3, ENTROPY = "policy.logratio", "policy.kl.k3", "policy.entropy"


@dataclass(slots=True)
class Minibatch:
    """Channels of one call that passed: tensors of one shape and device, and tensors of one element."""

    shape: torch.Size
    device: torch.device
    samples: list[torch.Tensor] = field(default_factory=list)
    columns: list[tuple[str, str]] = field(default_factory=list)
    scalars: list[torch.Tensor] = field(default_factory=list)
    scalar_columns: list[tuple[str, str]] = field(default_factory=list)
    ratio: bool = False
    error: bool = False
    layout: Layout | None = None
    dtype: torch.dtype = torch.float32

    def refuse(self, tally: Tally, status: Status) -> None:
        """Refuse every per-sample channel, also those accepted before."""
        _refuse(tally, self.columns, status)
        self.samples.clear()
        self.columns.clear()
        self.ratio = self.error = False

    def fault(self, tensor: object) -> Status | None:
        """Why a tensor cannot stand beside the others, None when it can."""
        if not _is_plain(tensor) or tensor.dtype not in FLOATS or tensor.layout is not torch.strided:
            return Status.DTYPE
        if tensor.device != self.device:
            return Status.DEVICE
        return None if tensor.shape == self.shape else Status.SHAPE


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the last minibatch was staged, so that one like it need not be examined again: `kinds` are type and dtype of
    each tensor in the order of channels, None where there was none."""

    layout: Layout
    kinds: list[tuple[type, torch.dtype] | None]
    shape: torch.Size
    clip: object
    dtype: torch.dtype
    device: torch.device


class PolicyCollector:
    """The minibatches of the running update."""

    __slots__ = (
        "_before_first_only",
        "_cuda",
        "_layouts",
        "_limits",
        "_recipe",
        "host_losses",
        "minibatches",
        "off_policy",
        "staging",
        "stepped",
        "tally",
    )

    def __init__(
        self, staging: Staging, limits_: Mapping[str, float | None] | None, *, off_policy: bool, optimizer: bool
    ) -> None:
        self.staging = staging
        self._limits = limits_
        self._layouts: dict[object, Layout] = {}
        self._before_first_only = not optimizer
        self._cuda = torch.cuda.is_available()
        self.off_policy = off_policy
        self.begin(Tally())

    def begin(self, tally: Tally) -> None:
        """A new update: no minibatch, no optimizer step."""
        self.tally = tally
        self.minibatches = 0
        self.stepped = False
        self.host_losses: tuple[list[float], list[int]] = ([], [])
        self._recipe: Recipe | None = None

    def observe(
        self,
        *,
        new_logp: object = None,
        old_logp: object = None,
        entropy: object = None,
        values: object = None,
        returns: object = None,
        advantages: object = None,
        clip: object = None,
        mask: object = None,
        loss: object = None,
    ) -> None:
        """Stage one minibatch. What cannot be used is refused in `tally` with its reason."""
        if self._cuda and torch.cuda.is_current_stream_capturing():
            for name in PPO_COLUMNS:  # what we launched would become a part of the graph
                self.tally.refuse(name, Status.CAPTURING)
            return
        minibatch = self.minibatches
        self.minibatches = minibatch + 1
        given = (new_logp, old_logp, values, returns, advantages, entropy, loss, mask)
        enabled = torch.is_grad_enabled()
        set_grad(False)
        try:
            if not self._observe_again(given, clip, minibatch):
                self._examine(given, clip, minibatch)
        finally:
            set_grad(enabled)

    def _observe_again(self, given: tuple[Any, ...], clip: object, minibatch: int) -> bool:
        """Stage a minibatch like the last one: half the cost of examining it. False when it is another, or nothing is known.

        `stack` itself refuses tensors of different shapes or devices; then the examination says what is wrong.
        """
        recipe = self._recipe
        if recipe is None or recipe.clip != clip or given[0].shape != recipe.shape:
            return False
        try:
            if [None if tensor is None else (type(tensor), tensor.dtype) for tensor in given] != recipe.kinds:
                return False
            tensors = [tensor for tensor in given if tensor is not None]
            loss = given[LOSS_AT]
            if loss is not None:
                if loss.dim():
                    return False
                tensors[-1 if given[-1] is None else -2] = loss.expand(recipe.shape)
            key = (recipe.layout, recipe.shape[0], recipe.dtype, recipe.device)
            return self.staging.stage_again(key, tensors, minibatch, recipe.layout.plan.ratio and self._before(minibatch))
        except (AttributeError, RuntimeError):
            return False

    def _before(self, minibatch: int) -> bool:
        """Whether the policy is still the one that collected: no optimizer step was taken in this update."""
        return not self.off_policy and (minibatch == 0 if self._before_first_only else not self.stepped)

    def _examine(self, given: tuple[Any, ...], clip: object, minibatch: int) -> None:
        """Look at every tensor, refuse what cannot be used, stage the rest."""
        new_logp, old_logp, values, returns, advantages, entropy, loss, mask = given
        tally = self.tally
        heads = entropy if isinstance(entropy, Mapping) else {} if entropy is None else {"": entropy}
        reference = _reference(new_logp, old_logp, values, advantages, *heads.values(), loss)
        if reference is None:
            reference = torch.empty(0)
        batch = Minibatch(reference.shape, reference.device)
        self._take_ratio(batch, tally, new_logp, old_logp)
        self._take_values(batch, tally, values, returns)
        if advantages is not None:
            self._take(batch, tally, advantages, ADVANTAGE)
        self._take_entropy(batch, tally, heads)
        self._take_loss(batch, tally, loss, minibatch)
        bound = self._bound(tally, clip) if batch.ratio else None
        masked = mask is not None and bool(batch.samples) and self._take_mask(batch, tally, mask)
        if batch.samples and reference.numel() == 0:
            batch.refuse(tally, Status.UNDEFINED)
            masked = False
        self._stage(batch, bound, minibatch, masked=masked)
        self._note(batch, given, clip)

    def _note(self, batch: Minibatch, given: tuple[Any, ...], clip: object) -> None:
        """Remember a minibatch of flat tensors all of which were accepted, so that the next one like it is known."""
        accepted = len(batch.samples) + len(batch.scalars)
        plain = batch.layout is not None and len(batch.shape) == 1 and accepted == sum(tensor is not None for tensor in given)
        self._recipe = None
        if plain and batch.layout is not None and len(batch.scalars) == (given[LOSS_AT] is not None) and _is_plain(given[0]):
            kinds = [None if tensor is None else (type(tensor), tensor.dtype) for tensor in given]
            if clip is None or type(clip) in {float, int}:
                self._recipe = Recipe(batch.layout, kinds, batch.shape, clip, batch.dtype, batch.device)

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
                batch.scalars.append(tensor)
                batch.scalar_columns.append((ENTROPY, head))
            else:
                tally.refuse(ENTROPY, fault or Status.DTYPE, head)
            self._tell_limit(tally, head)

    def _tell_limit(self, tally: Tally, head: str) -> None:
        """The largest entropy a head can have, once an update: ln of its number of actions."""
        name = f"{ENTROPY}.limit"
        if (name, head) in tally.parts or (name, head) in tally.reasons:
            return
        limit = None if self._limits is None else self._limits.get(head)
        if limit is not None:
            tally.add(name, (limit,), head)
        else:
            tally.refuse(name, Status.NOT_CALLED if self._limits is None else Status.UNDEFINED, head)

    def _take_loss(self, batch: Minibatch, tally: Tally, loss: object, minibatch: int) -> None:
        if loss is None:
            return
        number = to_float(loss)
        if number is not None:
            self.host_losses[0].append(number)
            self.host_losses[1].append(minibatch)
            return
        fault = batch.fault(loss)
        if fault in {None, Status.SHAPE} and isinstance(loss, torch.Tensor):
            fault = None if loss.numel() == 1 else Status.SHAPE
            if fault is None:
                batch.scalars.append(loss.reshape(()))
                batch.scalar_columns.append((LOSS[0], ""))
        for name in LOSS if fault is not None else ():
            tally.refuse(name, fault or Status.DTYPE)

    def _bound(self, tally: Tally, clip: object) -> float | None:
        bound = to_float(clip)
        if clip is not None and bound is None:
            tally.refuse("policy.clipped", Status.DTYPE)
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
        count = batch.shape.numel() if batch.samples else 1
        samples = batch.samples
        if len(batch.shape) != 1:
            samples = [tensor.reshape(-1) for tensor in samples]
        if batch.scalars:
            at = len(batch.columns)
            samples = [*samples[:at], *(tensor.expand(count) for tensor in batch.scalars), *samples[at:]]
        if not samples:
            return
        wide = any(tensor.dtype is torch.float64 for tensor in samples)  # a list: half the time of a generator
        layout = self._layout(batch, clip, masked=masked)
        before = not self.off_policy and (minibatch == 0 if self._before_first_only else not self.stepped)
        self.staging.stage(layout, samples, torch.float64 if wide else torch.float32, minibatch, batch.ratio and before)

    def _layout(self, batch: Minibatch, clip: float | None, *, masked: bool) -> Layout:
        columns = (*batch.columns, *batch.scalar_columns)
        key = (columns, clip, masked, batch.ratio, batch.error)
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= LAYOUTS_MAX:
                self._layouts.clear()
            at = columns.index((ERROR[0], "")) if batch.error else 0
            plan = Plan(
                moments=len(columns),
                scalars=len(batch.scalars),
                ratio=batch.ratio,
                errors=((at, at - 1),) if batch.error else (),
                clip=clip,
                masked=masked,
            )
            layout = self._layouts[key] = Layout(plan, columns, Source.UPDATE)
        return layout

    def finish(self) -> None:
        """Add what was known on the host alone."""
        add_series(self.tally, LOSS[0], *self.host_losses)
        if self.off_policy and self.minibatches:
            self.tally.refuse("policy.ratio.first_mb_dev", Status.UNDEFINED)


@dataclass(slots=True)
class SlicedRows:
    """Sums of k3 over the slices of minibatches too large to be staged: minibatch → (sum, samples)."""

    sums: dict[int, tuple[float, float]] = field(default_factory=dict)

    def add(self, minibatch: int, mean: float, n: float) -> None:
        """Add one slice."""
        held, count = self.sums.get(minibatch, (0.0, 0.0))
        if n > 0:
            self.sums[minibatch] = (held + mean * n, count + n)

    def tell(self, tally: Tally) -> None:
        """Their means, as rows."""
        for minibatch, (total, n) in self.sums.items():
            _tell_k3(tally, [total / n], [minibatch])


def tell_segment(tally: Tally, segment: Segment, values: Sequence[float], sliced: SlicedRows) -> None:
    """Turn one reduced block of minibatches into columns."""
    facts = segment.read(values)
    for channel, (name, subject) in enumerate(segment.layout.columns):
        tally.add_moments(name, facts.n[channel], facts.total[channel], facts.m2[channel], subject)
        if name in {K3, ENTROPY}:
            continue
        nonfinite, first = NONFINITE[name]
        if facts.n[channel] > 0:
            tally.add(nonfinite, (facts.nonfinite[channel],))
        else:
            tally.refuse(nonfinite, Status.UNDEFINED)
        row = facts.first_row[channel]
        add_first(tally, first, None if row is None else segment.minibatches[row])
    if facts.ratio is None:
        return
    if facts.n[0] == 0:
        for name in RATIO_COLUMNS:
            tally.refuse(name, Status.UNDEFINED)
        return
    _tell_ratio(tally, facts.ratio)
    rows = [(mean, minibatch) for mean, minibatch in zip(facts.ratio.k3, segment.minibatches, strict=True) if mean is not None]
    if segment.whole:
        _tell_k3(tally, [mean for mean, _ in rows], [minibatch for _, minibatch in rows])
    else:
        for mean, minibatch in rows:
            sliced.add(minibatch, mean, facts.n[0])


def _tell_ratio(tally: Tally, ratio: RatioFacts) -> None:
    low, high = ratio.logratio_min, ratio.logratio_max
    tally.add("policy.logratio.absmax", (math.nan if math.isnan(low) or math.isnan(high) else max(abs(low), abs(high)),))
    tally.add("policy.ratio.max", (_exp(high),))
    tally.add("policy.ratio.min", (_exp(low),))
    if ratio.clipped is not None:
        tally.add("policy.clipped", (ratio.clipped,))
    if ratio.first_dev is not None:
        tally.add("policy.ratio.first_mb_dev", (ratio.first_dev,))
    else:
        tally.refuse("policy.ratio.first_mb_dev", Status.UNDEFINED)


def _tell_k3(tally: Tally, means: list[float], minibatches: list[int]) -> None:
    """Largest and last of minibatch means; there is at least one."""
    tally.add("policy.kl.k3.max", (-least([-mean for mean in means]),))
    tally.add_last("policy.kl.k3.last", minibatches[-1], means[-1])


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _is_plain(tensor: object) -> TypeGuard[torch.Tensor]:
    return type(tensor) in PLAIN


def _reference(*candidates: object) -> torch.Tensor | None:
    """The tensor whose shape and device the others must have: the first one given."""
    for candidate in candidates:
        if isinstance(candidate, torch.Tensor):
            return candidate
    return None


def _refuse(tally: Tally, columns: Sequence[tuple[str, str]], status: Status) -> None:
    """Refuse every column of these channels."""
    for name, subject in columns:
        if name in {LOGRATIO, K3}:
            for ratio in RATIO_COLUMNS:
                tally.refuse(ratio, status)
        elif name == ENTROPY:
            tally.refuse(name, status, subject)
        else:
            for part in (name, f"{name}.nonfinite", f"{name}.nonfinite_mb"):
                tally.refuse(part, status)


def entropy_limits(action_space: object) -> dict[str, float | None] | None:
    """Largest entropy per head in nats, read from a gymnasium space by its attributes; None when there is no space.

    One head per component ("0", "1", … or the keys of a Dict), and '' for the joint policy, which is their sum, as the
    components are independent. None for a head without a bound, a Box.
    """
    if action_space is None:
        return None
    spaces = getattr(action_space, "spaces", None)
    heads: dict[str, float | None] = {}
    if isinstance(spaces, Mapping):
        heads = {str(key): _limit(space) for key, space in spaces.items()}
    elif isinstance(spaces, (tuple, list)):
        heads = {str(key): _limit(space) for key, space in enumerate(spaces)}
    elif getattr(action_space, "nvec", None) is not None:
        heads = {str(key): _ln(n) for key, n in enumerate(_flat(getattr(action_space, "nvec", ())))}
    joint = _limit(action_space)
    return {**heads, "": joint}


def _limit(space: object) -> float | None:
    """Entropy limit of a whole space."""
    spaces = getattr(space, "spaces", None)
    if isinstance(spaces, Mapping):
        return _sum([_limit(part) for part in spaces.values()])
    if isinstance(spaces, (tuple, list)):
        return _sum([_limit(part) for part in spaces])
    if getattr(space, "nvec", None) is not None:
        return _sum([_ln(n) for n in _flat(getattr(space, "nvec", ()))])
    if type(space).__name__ == "MultiBinary":
        return math.prod(getattr(space, "shape", ())) * math.log(2.0)
    return _ln(getattr(space, "n", None))


def _ln(n: object) -> float | None:
    """ln n of at least two actions: with one the entropy is 0 and no share of it is defined."""
    number = to_float(n)
    return math.log(number) if number is not None and number >= 2 else None


def _sum(limits_: list[float | None]) -> float | None:
    known = [limit for limit in limits_ if limit is not None]
    return sum(known) if known and len(known) == len(limits_) else None


def _flat(nvec: object) -> list[object]:
    """The entries of a vector or matrix of action counts."""
    flattened = getattr(nvec, "flatten", None)
    entries = flattened() if callable(flattened) else nvec
    return list(entries) if hasattr(entries, "__iter__") else []
