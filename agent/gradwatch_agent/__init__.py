"""The part that lives in the trainer: `watch` a model, tell it what happens, and training goes on as if it were not there.

Importing this loads next to nothing; what `watch` needs is loaded by its first call, and torch and zmq later still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_agent.entry import watch

if TYPE_CHECKING:
    from gradwatch_agent.monitor import Monitor
    from gradwatch_contracts.errors import GradwatchError
else:

    def __getattr__(name: str) -> object:
        """`Monitor` and `GradwatchError`, imported when somebody asks for them."""
        if name == "Monitor":
            from gradwatch_agent.monitor import Monitor

            return Monitor
        if name == "GradwatchError":
            from gradwatch_contracts.errors import GradwatchError

            return GradwatchError
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["GradwatchError", "Monitor", "watch"]
