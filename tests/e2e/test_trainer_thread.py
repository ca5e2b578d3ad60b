"""No socket, no file and no lock on the trainer's thread: whatever may wait is the link thread's."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import trainer_thread
from harness.faulty_daemon import FaultyDaemon

AGENT = Path(__file__).parents[2] / "agent/gradwatch_agent"
LOCKS = frozenset({"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "Event", "allocate_lock", "local"})
WAITING = frozenset({"queue", "multiprocessing", "asyncio", "concurrent", "selectors", "select", "_thread", "subprocess"})


def doings(tmp_path: Path, level: str, plant: str = "none") -> list[str]:
    """What the trainer's thread does because of us, with a live session."""
    with FaultyDaemon(f"ipc://{tmp_path}/daemon.ipc") as daemon:
        command = [sys.executable, trainer_thread.__file__, daemon.endpoint, level, plant]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.promise("trainer-never-waits")
def test_trainer_thread_opens_and_waits_for_nothing(tmp_path: Path) -> None:
    """At DEBUG, where the most is done, with every call."""
    assert doings(tmp_path, "debug") == []


@pytest.mark.promise("trainer-never-waits")
def test_trainer_thread_with_a_spool_writes_nothing_itself(tmp_path: Path) -> None:
    """No daemon is there, and the spool grows: by the link's thread."""
    environment = {**os.environ, "GRADWATCH_SPOOL_DIR": str(tmp_path / "spool"), "GRADWATCH_OVERHEAD": "off"}
    command = [sys.executable, trainer_thread.__file__, f"ipc://{tmp_path}/none", "debug", "none"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_trainer_thread_check_sees_what_is_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: a file, a socket, a lock, a queue, a pause."""
    watcher = trainer_thread.Watcher()
    for name, plant in trainer_thread.PLANTS.items():
        assert bool(watcher.record(lambda plant=plant: plant() and None)) == (name != "none"), name  # type: ignore[misc]


def locks(tree: ast.AST) -> list[int]:
    """Lines that make a lock or import what waits. `with lock:` is invisible to the check above."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "threading":
            found += [node.lineno] * (node.attr in LOCKS)
        if isinstance(node, ast.ImportFrom) and node.module == "threading":
            found.append(node.lineno)
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [node.lineno for module in modules if module.split(".")[0] in WAITING]
    return found


def test_agent_has_no_lock_and_imports_nothing_that_waits() -> None:
    """Trainer and link share deques and attributes that are assigned whole."""
    modules = [path for path in sorted(AGENT.rglob("*.py")) if AGENT / "demo" not in path.parents]
    assert [f"{path.relative_to(AGENT)}:{line}" for path in modules for line in locks(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize("planted", ["threading.Lock()", "import queue", "from threading import Lock", "import asyncio.locks"])
def test_lock_rule_planted_lock_is_found(planted: str) -> None:
    """The rule above can fail."""
    assert locks(ast.parse(planted)) == [1]
