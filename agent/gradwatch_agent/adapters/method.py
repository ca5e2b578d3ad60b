"""Putting a look between an object and one of its methods, and taking it away again without a trace."""

from __future__ import annotations

import functools
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "gradwatch_original"


def look_into(owner: object, name: str, see: Callable[..., Any]) -> Callable[[], None]:
    """Let `see(original, *args, **kwargs)` answer for `owner.name`; returns what undoes it.

    The look is a bound method of `owner`, so a deep copy of `owner` has its own one on its own weights, and is not looked
    at; a pickle finds the class's method again. One left over by a run that raised is replaced and not wrapped.
    """
    held = vars(owner).get(name)
    before = getattr(held, MARK, held)
    original = before if before is not None else getattr(owner, name)

    @functools.wraps(original)
    def look(self: object, /, *args: Any, **kwargs: Any) -> Any:
        if self is not owner:
            return getattr(type(self), name)(self, *args, **kwargs)
        return see(original, *args, **kwargs)

    setattr(look, MARK, before)
    placed = MethodType(look, owner)
    setattr(owner, name, placed)

    def undo() -> None:
        if vars(owner).get(name) is not placed:
            return  # somebody wrapped it after us: ours passes on
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)

    return undo
