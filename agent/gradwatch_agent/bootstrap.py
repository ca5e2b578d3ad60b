"""Inside a script that `gradwatch run` has started, once it imports torch: look into what the environment names."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from gradwatch_agent.adapters.script import SCRIPT
from gradwatch_contracts.launch import ENV_EVERY, ENV_PATCHES, EVERY

if TYPE_CHECKING:
    from types import ModuleType, TracebackType


class Bootstrap:
    """Told of the modules that `startup/sitecustomize.py` waits for, each when it was loaded."""

    def __init__(self) -> None:
        self._patches = frozenset(filter(None, os.environ.get(ENV_PATCHES, "").split(",")))
        self._previous = sys.excepthook

    def imported(self, name: str, module: ModuleType) -> None:
        """Look into it."""
        if os.environ.get("GRADWATCH_MODE", "").lower() == "off" or not self._patches:
            return
        if name == "torch":
            every = os.environ.get(ENV_EVERY, "")
            SCRIPT.arm(self._patches, int(every) if every.isdecimal() else EVERY)
            if "exceptions" in self._patches:
                self._previous, sys.excepthook = sys.excepthook, self._on_exception
        elif "scalars" in self._patches:
            from gradwatch_agent.adapters.scalars import forward_scalars

            forward_scalars(module.SummaryWriter, SCRIPT)

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """The update that was over when it happened is whole. The user's traceback comes before anything that takes time."""
        SCRIPT.settle()
        self._previous(kind, error, trace)
        SCRIPT.tell_exception(error)
