"""Imported by Python itself before a script that `gradwatch run` starts: waits for torch, and then calls the agent.

Until a script imports torch nothing of ours is loaded. The `sitecustomize` that Python would have imported in place of this
one still is.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

WANTED = frozenset({"torch", "torch.utils.tensorboard.writer", "tensorboardX.writer"})


class AfterImport:
    """A finder that finds nothing itself: it lets the others find a wanted module, and tells when it was loaded."""

    def __init__(self) -> None:
        self._bootstrap: Any = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name not in WANTED:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)  # Python passes over one without
            spec: ModuleSpec | None = find(name, path, target) if find else None
            if spec is not None:
                self._wait_for(spec, name)
                return spec
        return None

    def _wait_for(self, spec: ModuleSpec, name: str) -> None:
        loader: Any = spec.loader
        load = getattr(loader, "exec_module", None)
        if load is None:
            return

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the loader's own one from now on
            load(module)
            self._tell(name, module)

        try:
            loader.exec_module = exec_module
        except AttributeError:
            return  # a loader of another kind: the module is loaded and not looked into

    def _tell(self, name: str, module: ModuleType) -> None:
        try:
            if self._bootstrap is None:
                from gradwatch_agent.bootstrap import Bootstrap

                self._bootstrap = Bootstrap()
            self._bootstrap.imported(name, module)
        except Exception as error:
            print(f"gradwatch: this script is not watched: {type(error).__name__}: {error}", file=sys.stderr)


def import_hidden() -> None:
    """Import the `sitecustomize` that this one stands before."""
    here = str(Path(__file__).parent)
    spec = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if entry != here])
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.meta_path.insert(0, AfterImport())
import_hidden()
