"""The import rules of docs/architecture.md hold, each of them can fail, and importing a side loads nothing heavy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTAINERS = ("contracts", "agent", "daemon")
HEAVY = ("torch", "numpy", "zmq", "pydantic", "fastapi", "starlette", "uvicorn")
PLANTED = {
    "contracts-own": ("contracts/gradwatch_contracts/limits.py", "import gradwatch_agent.row"),
    "contracts-pure": ("contracts/gradwatch_contracts/limits.py", "import socket"),
    "sides-apart": ("daemon/gradwatch_daemon/pipeline/pipeline.py", "import gradwatch_agent.row"),
    "agent-layers": ("agent/gradwatch_agent/outbox.py", "import gradwatch_agent.monitor"),
    "agent-device": ("agent/gradwatch_agent/device/__init__.py", "import gradwatch_agent.outbox"),
    "agent-wire": ("agent/gradwatch_agent/session.py", "import gradwatch_agent.device"),
    "agent-torch": ("agent/gradwatch_agent/outbox.py", "import torch"),
    "agent-zmq": ("agent/gradwatch_agent/process.py", "import zmq"),
    "agent-light": ("agent/gradwatch_agent/collect/__init__.py", "import numpy"),
    "daemon-layers": ("daemon/gradwatch_daemon/derive/__init__.py", "import gradwatch_daemon.detect"),
    "daemon-api": ("daemon/gradwatch_daemon/api/__init__.py", "import gradwatch_daemon.detect"),
    "daemon-cli": ("daemon/gradwatch_daemon/cli/runs.py", "import gradwatch_daemon.store"),
    "daemon-no-torch": ("daemon/gradwatch_daemon/derive/__init__.py", "import torch"),
    "daemon-zmq": ("daemon/gradwatch_daemon/pipeline/pipeline.py", "import zmq"),
    "daemon-numpy": ("daemon/gradwatch_daemon/pipeline/pipeline.py", "import numpy"),
    "daemon-pydantic": ("daemon/gradwatch_daemon/pipeline/pipeline.py", "import pydantic"),
}
"""Contract → file and import that breaks it."""


def _lint(root: Path) -> tuple[int, str]:
    paths = os.pathsep.join(str(root / container) for container in CONTAINERS)
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _contracts() -> dict[str, str]:
    """Id → name of every contract in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(re.findall(r'^id = "([^"]+)"\nname = "([^"]+)"', text, re.MULTILINE))


def test_import_rules_on_the_tree_are_kept() -> None:
    """What `make check` runs."""
    code, said = _lint(ROOT)

    assert code == 0, said


def test_import_rules_with_planted_imports_are_all_broken(tmp_path: Path) -> None:
    """Each contract fails on an import it forbids; a contract without a planted import fails this test."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for container in CONTAINERS:
        shutil.copytree(ROOT / container, tmp_path / container, ignore=shutil.ignore_patterns("__pycache__"))
    for file, line in PLANTED.values():
        path = tmp_path / file
        path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")

    code, said = _lint(tmp_path)

    names = _contracts()
    assert set(PLANTED) == set(names)
    assert code == 1, said
    unbroken = [id_ for id_, name in names.items() if f"{name} BROKEN" not in said]
    assert unbroken == [], said


def _loaded_by(statement: str) -> set[str]:
    script = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_agent_loads_nothing_heavy() -> None:
    """`from gradwatch_agent import watch` must not cost a trainer anything it does not use yet."""
    assert not _loaded_by("import gradwatch_agent; from gradwatch_agent import watch") & set(HEAVY)


def test_importing_contracts_loads_nothing_heavy() -> None:
    """Both sides and the command line import contracts first."""
    assert not _loaded_by("import gradwatch_contracts.codec, gradwatch_contracts.signals") & set(HEAVY)
