"""Under `python -O`, which drops assertions from the product, everything still holds: it checks nothing by assertion.

pytest rewrites the assertions of tests and harness into plain statements, so theirs stay. That is proven too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.blocks import signal_block

ROOT = Path(__file__).parents[2]

NOTICE = "ignore::pytest.PytestConfigWarning"
"""pytest warns that assertions of modules it does not rewrite, which are the product's, are dropped: that is the point."""


def optimised(*arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest under `python -O`, with the repository's configuration."""
    command = [sys.executable, "-O", "-m", "pytest", "-W", NOTICE, "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_assertion_of_a_test_still_fails_under_optimisation(tmp_path: Path) -> None:
    """Else a whole suite passes by checking nothing."""
    sample = tmp_path / "test_sample.py"
    tests = ("def test_good():", "    assert not __debug__", "def test_bad():", "    assert 1 + 1 == 3", "")
    sample.write_text("\n".join(tests), encoding="utf-8")

    ended = optimised("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(sample))

    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "1 failed, 1 passed" in ended.stdout


def test_assertion_of_the_harness_fails() -> None:
    """Under optimisation too, where the test below runs this one."""
    with pytest.raises(AssertionError):
        signal_block(policy__nosuch=1.0)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_unit_suite_passes_under_optimisation() -> None:
    """No unit of the product relies on an assertion."""
    this = f"{Path(__file__).relative_to(ROOT)}::{test_assertion_of_the_harness_fails.__name__}"
    ended = optimised("tests/unit", this, "-m", "not campaign")

    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
