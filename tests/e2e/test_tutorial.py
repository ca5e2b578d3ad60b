"""docs/tutorial.md, run as it stands: a daemon, the trainer of the page, and every command after it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_tutorial_leads_from_the_bug_to_the_line(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each block in its order; what the page says of the anomaly is so."""
    (first, serve), *rest = BLOCKS
    assert (first, serve) == ("sh", "gradwatch serve\n")
    shim = tmp_path / "bin"
    shim.mkdir()
    for name, target in (("gradwatch", f'"{sys.executable}" -m gradwatch_daemon.cli.main'), ("python", f'"{sys.executable}"')):
        (shim / name).write_text(f'#!/bin/sh\nexec {target} "$@"\n')
        (shim / name).chmod(0o755)
    with DaemonProcess(tmp_path) as daemon:
        environment = {**daemon.environment, "PATH": f"{shim}{os.pathsep}{os.environ['PATH']}", "URL": daemon.connection.url}
        said = []
        for language, text in rest:
            if language == "python":
                (tmp_path / "train.py").write_text(text)
                continue
            done = subprocess.run(
                ["sh", "-euc", text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
            )
            assert done.returncode == 0, f"{text}{done.stdout}{done.stderr}"
            said.append(done.stdout)
            if "train.py" in text:
                wait_for(lambda: daemon.get("/api/v1/anomalies?run=tutorial")["items"], "the anomaly")
        found = daemon.get("/api/v1/anomalies?run=tutorial&severity=critical")["items"]

    assert [(one["kind"], one["update_onset"], one["root"]["stage"]) for one in found] == [("nonfinite", 40, "adv")]
    _, anomalies, explained, asked = said
    assert "update 40" in anomalies
    assert "nonfinite" in explained
    assert asked.startswith("update,at,env_steps,low,high,last,")
    assert '"what":"anomaly"' in asked
