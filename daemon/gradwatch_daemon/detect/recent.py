"""The last updates at which something held: k of n within a detector, where its rule has parts with votes of their own."""

from __future__ import annotations

from typing import Any, ClassVar


class Recent:
    """Updates at which a condition held, as far back as its window reaches."""

    TAG: ClassVar[str] = "recent"

    __slots__ = ("_updates",)

    def __init__(self) -> None:
        self._updates: list[int] = []

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered."""
        return not self._updates

    def step(self, update: int, held: bool, k: int, n: int) -> bool:
        """Note one update; True when it held now and, with it, in at least `k` of the last `n` updates."""
        kept = [known for known in self._updates if known > update - n] if self._updates else self._updates
        if held:
            kept.append(update)
        self._updates = kept
        return held and len(kept) >= k

    def rewind(self, update: int) -> None:
        """The trainer went back: what held since then did not happen."""
        self._updates = [known for known in self._updates if known < update]

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [self._updates]

    @classmethod
    def restored(cls, state: list[Any]) -> Recent:
        """The one that gave this `state`."""
        recent = cls()
        (recent._updates,) = state
        return recent
