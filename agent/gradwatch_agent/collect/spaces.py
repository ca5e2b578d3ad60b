"""What an action space says about a policy: the largest entropy of each head."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gradwatch_agent.collect.host import to_float


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
        heads = {str(key): _ln(n) for key, n in enumerate(flat(getattr(action_space, "nvec", ())))}
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
        return _sum([_ln(n) for n in flat(getattr(space, "nvec", ()))])
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


def flat(nvec: object) -> list[object]:
    """The entries of a vector or matrix."""
    flattened = getattr(nvec, "flatten", None)
    entries = flattened() if callable(flattened) else nvec
    return list(entries) if hasattr(entries, "__iter__") else []
