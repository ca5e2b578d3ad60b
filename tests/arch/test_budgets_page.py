"""docs/budgets.md holds the figures that benchmarks kept, and says so when it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the page is made of."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs").mkdir()
    for name in ("benchmarks/page.py", "benchmarks/table.py", "docs/budgets.md", "docs/budgets.json"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def page(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script, as `make check` calls it."""
    command = [sys.executable, str(tree / "benchmarks" / "page.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def change(tree: Path, **values: object) -> None:
    """Say something else of one figure, in ms, that has to be small."""
    results = tree / "docs" / "budgets.json"
    kept = json.loads(results.read_text(encoding="utf-8"))
    figure = next(iter(kept.values()))["figures"][0]
    figure |= {"name": "what was measured", "unit": "ms", "at_least": False, "baseline": None, **values}
    results.write_text(json.dumps(kept), encoding="utf-8")


def test_page_is_what_the_figures_say(tree: Path) -> None:
    """Nobody edited a figure by hand."""
    assert page(tree, "--check").returncode == 0


def test_figure_that_changed_makes_the_page_stale_until_it_is_written(tree: Path) -> None:
    """A budget that is missed from now on is among those that are not met."""
    change(tree, got=2.0, budget=1.0, interval=None)
    stale = page(tree, "--check")
    assert stale.returncode == 1
    assert "python benchmarks/page.py" in stale.stderr
    assert page(tree).returncode == 0
    text = (tree / "docs" / "budgets.md").read_text(encoding="utf-8")
    assert text.count("| what was measured | 2.00 ms | <= 1.00 |") == 2
    assert page(tree, "--check").returncode == 0


def test_figure_whose_interval_holds_its_budget_is_undecided(tree: Path) -> None:
    """Neither met nor missed, whatever its middle; an interval on one side of the budget decides."""
    for interval, said in (((0.5, 1.5), "unsure"), ((0.5, 0.9), "yes"), ((1.1, 1.5), "**no**")):
        change(tree, got=0.8, budget=1.0, interval=interval)
        assert page(tree).returncode == 0
        text = (tree / "docs" / "budgets.md").read_text(encoding="utf-8")
        head, _, tables = text.partition("### ")
        (row,) = [line for line in tables.splitlines() if line.startswith("| what was measured | 0.800 ms (")]
        assert f"| {said} |" in row
        assert ("| what was measured |" in head.partition("Undecided")[2]) == (said == "unsure")


def test_page_without_its_marks_is_refused_and_left(tree: Path) -> None:
    """The words around the figures are ours; without the marks nobody knows where they stand."""
    path = tree / "docs" / "budgets.md"
    path.write_text("# Budgets\n", encoding="utf-8")
    refused = page(tree)
    assert refused.returncode == 1
    assert "<!-- figures" in refused.stderr
    assert path.read_text(encoding="utf-8") == "# Budgets\n"
