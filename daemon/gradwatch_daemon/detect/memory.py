"""What a detector may remember of a stream: anything with a tag, plain state, and an answer to a trainer that goes back."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol


class Memory(Protocol):
    """One remembered thing. Made without arguments; equal states give equal behaviour, bit for bit."""

    TAG: ClassVar[str]

    def rewind(self, update: int) -> None:
        """The trainer goes on from `update`, which is not after the last one seen."""

    def state(self) -> list[Any]:
        """Everything it remembers, as plain values."""

    @classmethod
    def restored(cls, state: list[Any]) -> Memory:
        """The one that gave this `state`."""
