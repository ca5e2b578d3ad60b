"""The part that lives in the trainer: `watch` a model, tell it what happens, and training goes on as if it were not there.

Importing this loads neither torch nor zmq.
"""

from __future__ import annotations

from gradwatch_agent.entry import watch
from gradwatch_agent.monitor import Monitor
from gradwatch_contracts.errors import GradwatchError

__all__ = ["GradwatchError", "Monitor", "watch"]
