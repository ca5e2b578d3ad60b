"""The layer and the signal that deviated first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.signals import SIGNALS as REGISTRY
from gradwatch_contracts.vocabulary import Stage
from gradwatch_daemon.evidence.deviation import NORMS, SIGNALS, UPDATES_LEAST, Deviations, deviations, on_scale, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradwatch_daemon.evidence.deviation import Mask
    from gradwatch_daemon.evidence.norms import BlackBox, UpdateNorms
    from gradwatch_daemon.records import F64, I64, SignalBlock, SignalKey

ALIKE = float(np.log(3.0))
"""A layer stands out from those that deviate with it when its norm rose by three times more than that of any other."""

LAYERS_NAMED = 8
NO_STEP = 1 << 62
"""Sorts what has no step behind whatever has one: weights are as they are at the end of their update."""

OURS = frozenset({Stage.SYS, Stage.TELEM, Stage.USER})
"""Stages that are not a part of learning: what of them moves says nothing of where a fault in it began."""


SET = frozenset({"opt.lr", "grad.clip_limit"})
"""What the trainer sets and no learning moves: where it left its usual in one update with others, they followed from it."""


@dataclass(frozen=True, slots=True)
class FirstLayer:
    """Where in the model it began. `layers` deviated at the same place, the most deviating first; `layer` is that of them which
    stands out, '' where none does. `what` is `gradient` or `weight`, `step` is counted in the update from 0 (None where only
    the update is known). `score` is None for a norm that is not finite. `total` counts the layers that were looked at."""

    rank: int
    update: int
    step: int | None
    what: str
    layer: str
    layers: tuple[str, ...]
    value: float
    usual: float
    score: float | None
    total: int


@dataclass(frozen=True, slots=True)
class FirstSignal:
    """The signal that deviated first, and at that update the causally first. `score` is None for a value that is not finite."""

    key: SignalKey
    update: int
    value: float
    usual: float
    score: float | None


@dataclass(frozen=True, slots=True)
class _Place:
    """A layer that deviates, where, how much: `rise` on the logarithmic scale."""

    step: int
    what: str
    layer: str
    value: float
    usual: float
    score: float
    rise: float


def too_few(held: int) -> str:
    """Why nothing can be said of what is usual."""
    return f"{held} update{'' if held == 1 else 's'} before the onset are held; {UPDATES_LEAST} are needed to say what is usual"


def first_layer(box: BlackBox, onset: int, rank: int = 0) -> FirstLayer | str:
    """The layer that deviated first, from the black box of one rank; or why there is none."""
    held = np.array(list(box.updates), np.int64)
    if not len(held):
        return "no black box holds the updates around the onset"
    parts = split(held, onset)
    if parts is None:
        return too_few(int(np.searchsorted(held, onset)))
    base, end = parts
    before = int(np.searchsorted(held, onset))
    found: dict[str, tuple[list[str], F64, Deviations]] = {}
    for what in ("gradient", "weight"):
        layers, _, values, measured = box.matrix(what)
        judged = deviations(values[:end], measured[:end], base, NORMS)
        begins = _begins(values[:end], judged, measured[:end], before)
        found[what] = layers, values[base:end], replace(judged, beyond=begins)
    some = np.array([d.beyond.any(axis=1) for _, _, d in found.values()]).any(axis=0)
    if not some.any():
        return "no layer's norm left what was usual for it"
    at = int(some.argmax())
    update = int(held[base + at])
    places = [place for what, of in found.items() for place in _places(what, of, at, box.updates[update])]
    named, chosen = _choose(places)
    return FirstLayer(
        rank,
        update,
        None if named.step == NO_STEP else named.step,
        named.what,
        named.layer if _stands_out(named, chosen) else "",
        tuple(place.layer for place in chosen[:LAYERS_NAMED]),
        named.value,
        named.usual,
        None if np.isinf(named.score) else named.score,
        len(found[named.what][0]),
    )


def _begins(values: F64, judged: Deviations, measured: Mask, before: int) -> Mask:
    """Where a series begins to deviate: it left in one go what it was in the updates just before as well, and stays off until
    the onset. So a run that learns, and drifts away from what it was, begins nothing. `values` f64[updates, series] and
    `measured` are those of the base too; `before` counts the updates before the onset. What is not finite begins at once.
    """
    x = on_scale(np.where(measured, values, np.nan), judged.scale)
    x = np.where(np.isfinite(x), x, judged.usual)
    first = len(x) - len(judged.beyond)
    near = np.array([np.median(x[at - UPDATES_LEAST : at], axis=0) for at in range(first, len(x))]).reshape(judged.beyond.shape)
    away = np.abs(x[first:] - near)
    leaves = (away >= judged.scale.step) & (away >= judged.bound * judged.spread)
    stays = np.ones_like(leaves)
    for at in range(min(before - first, len(stays) - 1) - 1, -1, -1):
        stays[at] = stays[at + 1] & (judged.beyond[at + 1] | ~measured[first + at + 1])
    begins: Mask = judged.beyond & ((stays & leaves) | np.isinf(judged.score))
    return begins


def _places(what: str, of: tuple[list[str], F64, Deviations], at: int, norms: UpdateNorms) -> list[_Place]:
    """The layers that deviate at an update, each at its first step."""
    layers, values, judged = of
    rises = on_scale(values[at], NORMS) - judged.usual
    places = []
    for number in np.flatnonzero(judged.beyond[at]).tolist():
        layer = layers[number]
        step = _step_of(layer, number, judged, norms) if what == "gradient" else NO_STEP
        rise = float(rises[number]) if np.isfinite(rises[number]) else np.inf
        score = abs(float(judged.score[at, number]))
        places.append(_Place(step, what, layer, float(values[at, number]), judged.typical(number), score, rise))
    return places


def _step_of(layer: str, number: int, judged: Deviations, norms: UpdateNorms) -> int:
    """The first step at which the layer's norm is beyond its bound."""
    seen = [step for step in sorted(norms.steps) if layer in norms.steps[step]]
    risen = next((step for step in seen if judged.rises(number, norms.steps[step][layer])), NO_STEP)
    return min(risen, norms.broken.get(layer, NO_STEP))


def _choose(places: list[_Place]) -> tuple[_Place, list[_Place]]:
    """The place that is named and all that are where it is, the most deviating first.

    The gradients of the earliest step, before any other; but where gradients deviate from the first step on, which no step of
    this update can have caused, a weight that deviates more by the end of the update is what they follow from.
    """
    gradients = [place for place in places if place.what == "gradient"]
    weights = sorted((place for place in places if place.what == "weight"), key=_most)
    earliest = min((place.step for place in gradients), default=NO_STEP)
    first = sorted((place for place in gradients if place.step == earliest), key=_most)
    if weights and (not first or (earliest == 0 and weights[0].score > first[0].score)):
        first = weights
    return first[0], first


def _most(place: _Place) -> tuple[float, float]:
    return -place.score, -abs(place.rise)


def _stands_out(named: _Place, chosen: list[_Place]) -> bool:
    others = [abs(place.rise) for place in chosen if place is not named]
    return not others or (np.isfinite(named.rise) and abs(named.rise) >= max(others) + ALIKE)


def earliest_layer(found: Sequence[FirstLayer | str]) -> FirstLayer | str:
    """Of several ranks the earliest; where none has any, why not."""
    layers = [one for one in found if isinstance(one, FirstLayer)]
    reasons = [one for one in found if isinstance(one, str)]
    if layers:
        return min(layers, key=lambda one: (one.update, NO_STEP if one.step is None else one.step, one.rank))
    return reasons[0] if reasons else "no rank sent a black box"


def first_signal(blocks: Sequence[SignalBlock], onset: int) -> FirstSignal | str:
    """The signal of learning that deviated first, from stored rows in order of arrival; or why there is none."""
    keys, update, values, measured = _join(blocks)
    parts = split(update, onset)
    if parts is None:
        return too_few(int(np.searchsorted(update, onset)))
    base, end = parts
    judged = deviations(values[:end], measured[:end], base, SIGNALS)
    before = int(np.searchsorted(update, onset))
    lasting = _lasting(judged, measured[base:end]) & _begins(values[:end], judged, measured[:end], before)
    if not lasting.any():
        return "no signal left what was usual for it by enough, and for longer than an update"
    at = int(lasting.any(axis=1).argmax())
    score = judged.score[at]
    number = min(np.flatnonzero(lasting[at]).tolist(), key=lambda place: (*_order(keys[place]), -abs(score[place])))
    value = float(values[base + at, number])
    broken = bool(np.isinf(score[number]))
    return FirstSignal(
        keys[number], int(update[base + at]), value, judged.typical(number), None if broken else float(score[number])
    )


def _lasting(judged: Deviations, measured: Mask) -> Mask:
    """Where a series deviates in the next update that measured it too, if there is one; what is not finite need not last."""
    lasting = np.ones_like(judged.beyond)
    for at in range(len(lasting) - 2, -1, -1):
        lasting[at] = np.where(measured[at + 1], judged.beyond[at + 1], lasting[at + 1])
    return judged.beyond & (lasting | np.isinf(judged.score))


def _join(blocks: Sequence[SignalBlock]) -> tuple[list[SignalKey], I64, F64, Mask]:
    """The signals of learning over all rows in order of update; of two rows of one update the later."""
    keys = sorted({key for block in blocks for key in block.signals if key.name in REGISTRY and _stage(key) not in OURS})
    place: Mapping[SignalKey, int] = {key: at for at, key in enumerate(keys)}
    rows: dict[int, tuple[F64, Mask]] = {}
    for block in blocks:
        mine = [(at, place[key]) for at, key in enumerate(block.signals) if key in place]
        of, to = [at for at, _ in mine], [at for _, at in mine]
        for row, update in enumerate(block.update.tolist()):
            values, measured = np.zeros(len(keys)), np.zeros(len(keys), np.bool_)
            values[to], measured[to] = block.values[of, row], block.status[of, row] == 0
            rows[update] = values, measured
    update = np.array(sorted(rows), np.int64)
    shape = len(rows), len(keys)
    joined = np.array([rows[one][0] for one in sorted(rows)], np.float64).reshape(shape)
    return keys, update, joined, np.array([rows[one][1] for one in sorted(rows)], np.bool_).reshape(shape)


def _order(key: SignalKey) -> tuple[bool, int]:
    """What may cause others within an update comes first: what is set, then stage by stage."""
    return key.name not in SET, _stage(key).order


def _stage(key: SignalKey) -> Stage:
    return REGISTRY[key.name].stage
