"""What `rollout()` observes: rewards, values, returns, advantages and observations of one collection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from gradwatch_agent.collect.block_facts import EXTRA, tell_extra, want
from gradwatch_agent.collect.collectors import Switches
from gradwatch_agent.collect.staging import Channel, Layout
from gradwatch_agent.collect.tensors import numbers_of
from gradwatch_agent.device.plan import Plan
from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import COLUMNS, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.staging import Segment, Staging

WIDE = frozenset({torch.float64, torch.int32, torch.int64})
"""What float32 does not hold exactly."""

LAYOUTS_MAX = 64
"""Layouts kept; which collectors rest may change from update to update."""

look = attrgetter("dtype", "shape", "device", "layout")
"""What says of a plain tensor how it is to be staged."""

ROLLOUT_COLUMNS = tuple(name for name, spec in COLUMNS.items() if spec.call == "rollout")
VALUE, TARGET, ERROR, OBSERVATION = "value.pred", "value.target", "value.error", "obs.input"


class Usual(NamedTuple):
    """A rollout all of which was staged, so that one like it need not be examined. `looks` of what was given, None where that
    was None; `ways`: where its tensors went, by their places."""

    looks: list[Any]
    clip: float | None
    ways: tuple[tuple[Layout, torch.dtype, tuple[int, ...]], ...]
    lead: torch.Size


class RolloutCollector:
    """Stages rollout tensors, as the trainer may change them right after the call; what is too large is reduced at once."""

    __slots__ = ("_layouts", "_switches", "_usual", "staging")

    def __init__(self, staging: Staging, switches: Switches | None = None) -> None:
        self.staging = staging
        self._switches = switches or Switches()
        self._layouts: dict[tuple[tuple[str, ...], float | None, frozenset[str]], Layout] = {}
        self._usual: dict[tuple[tuple[str, ...], frozenset[str]], Usual] = {}
        """By what was given, and the collectors that rest."""

    def observe(
        self, tally: Tally, tensors: Mapping[str, object], observations: object = None, obs_clip: float | None = None
    ) -> tuple[dict[str, torch.Tensor], torch.Size]:
        """Stage `tensors` (column → tensor, numpy array or sequence; any shape) and observations (or a dict of them), whose
        elements at `obs_clip` or beyond are counted. Return the observations that can be used, and the shape of the others.

        Gradients must be off. What cannot be used is refused in `tally`.
        """
        given: tuple[Any, ...] = (*tensors.values(), observations)
        usual = self._usual.get((tuple(tensors), self._switches.resting))
        if usual is None or usual.clip != obs_clip or _looks(given) != usual.looks:
            return self._examine(tally, tensors, observations, obs_clip)
        for layout, dtype, places in usual.ways:
            self.staging.stage(layout, [given[place].reshape(-1) for place in places], dtype, 0, before=False)
        return {} if observations is None else {"": given[-1]}, usual.lead

    def _examine(
        self, tally: Tally, tensors: Mapping[str, object], observations: object, obs_clip: float | None
    ) -> tuple[dict[str, torch.Tensor], torch.Size]:
        """Look at every tensor, refuse what cannot be used, stage the rest."""
        names, ways = tuple(tensors), []
        groups: dict[tuple[torch.Size, torch.device], dict[str, torch.Tensor]] = {}
        for name, given in tensors.items():
            tensor = self._usable(tally, name, given)
            if tensor is not None:
                groups.setdefault((tensor.shape, tensor.device), {})[name] = tensor
        for group in groups.values():
            if VALUE in group and TARGET in group:
                group[ERROR] = group[TARGET]
            columns = [name for name in group if name != ERROR] + [ERROR] * (ERROR in group)
            layout, dtype = self._stage(tuple(columns), [group[name].reshape(-1) for name in columns])
            ways.append((layout, dtype, tuple([names.index(TARGET if name == ERROR else name) for name in columns])))
        self._explain_error(tally, tensors, groups)
        found: dict[str, torch.Tensor] = {}
        for key, given in (observations if isinstance(observations, Mapping) else {"": observations}).items():
            tensor = self._usable(tally, OBSERVATION, given)
            if tensor is not None:
                found[str(key)] = tensor
                for part in _parts(tensor, self.staging.scratch):
                    ways.append((*self._stage((OBSERVATION,), [part.reshape(-1)], obs_clip), (len(names),)))
        lead = next(iter(groups), (torch.Size(), None))[0]
        self._remember(names, (*tensors.values(), observations), Usual([], obs_clip, tuple(ways), lead))
        return found, lead

    def _remember(self, names: tuple[str, ...], given: tuple[object, ...], usual: Usual) -> None:
        """Keep how a rollout was staged, if all of it was, side by side, and none is so large that another one may be split."""
        looks, staged = _looks(given), {place for _, _, places in usual.ways for place in places}
        if len(self._usual) >= LAYOUTS_MAX:
            self._usual.clear()
        if looks is None or staged != {place for place, one in enumerate(given) if one is not None}:
            return
        small = all(one.nbytes <= self.staging.scratch for one in given if isinstance(one, torch.Tensor))
        if small and len({one[1:3] for one in looks[:-1] if one is not None}) <= 1:
            self._usual[names, self._switches.resting] = usual._replace(looks=looks)

    def _usable(self, tally: Tally, name: str, given: object) -> torch.Tensor | None:
        if given is None:
            return None
        tensor = numbers_of(given)
        if tensor is not None and tensor.numel():
            return tensor
        for column in _family(name):
            tally.refuse(column, Status.DTYPE if tensor is None else Status.UNDEFINED)
        return None

    def _explain_error(
        self, tally: Tally, given: Mapping[str, object], groups: Mapping[tuple[torch.Size, torch.device], Mapping[str, object]]
    ) -> None:
        """Say why return - value is missing although both were passed."""
        places = {name: place for place, group in groups.items() for name in group}
        if ERROR in places or given.get(VALUE) is None or given.get(TARGET) is None:
            return
        if VALUE in places and TARGET in places:
            same_device = places[VALUE][1] == places[TARGET][1]
            tally.refuse(ERROR, Status.SHAPE if same_device else Status.DEVICE)
        else:
            tally.refuse(ERROR, tally.reasons[VALUE if VALUE not in places else TARGET, ""])

    def _stage(
        self, columns: tuple[str, ...], tensors: list[torch.Tensor], clip: float | None = None
    ) -> tuple[Layout, torch.dtype]:
        """Stage tensors of one length, and say how."""
        key = (columns, clip, self._switches.resting)
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= LAYOUTS_MAX:
                self._layouts.clear()
            errors = ((len(columns) - 1, columns.index(VALUE)),) if columns[-1] == ERROR else ()
            at_clip = None if clip is None else math.nextafter(clip, 0.0)
            plan = Plan(len(columns), errors=errors, saturation=at_clip, **want(columns, self._switches))
            layout = Layout(plan, tuple(Channel.of(name) for name in columns), Source.ROLLOUT, rows=1)
            self._layouts[key] = layout
        wide = any(tensor.dtype in WIDE for tensor in tensors)
        dtype = torch.float64 if wide else torch.float32
        self.staging.stage(layout, tensors, dtype, 0, before=False)
        return layout, dtype


def _looks(given: Sequence[object]) -> list[Any] | None:
    """How each looks, None for None; None in all if one of them is no plain tensor."""
    found = [None if one is None else look(one) if type(one) is torch.Tensor else Ellipsis for one in given]
    return None if Ellipsis in found else found


def tell_segment(tally: Tally, segment: Segment, values: Sequence[float]) -> None:
    """Turn one reduced block of rollout tensors into columns."""
    facts = segment.read(values)
    segment.tell(tally, facts)
    tell_extra(tally, segment.layout, facts)


def _family(name: str) -> tuple[str, ...]:
    """The moments column and, where the registry has them, its count of non-finite values and what else comes from it."""
    counted = (f"{name}.nonfinite",) if f"{name}.nonfinite" in COLUMNS else ()
    return (name, *counted, *EXTRA.get(name, ()))


def _parts(tensor: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """The tensor, in pieces of its first dimension when flattening it would copy more than `size` bytes."""
    if tensor.is_contiguous() or tensor.dim() == 0 or tensor.numel() * tensor.element_size() <= size:
        yield tensor
    else:
        yield from torch.split(tensor, max(1, size * len(tensor) // (tensor.numel() * tensor.element_size())))
