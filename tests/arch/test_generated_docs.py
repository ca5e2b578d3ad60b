"""docs/signals.md, docs/detectors.md and the table in README.md are what docs/generate.py makes of the registries."""

from __future__ import annotations

import importlib.util
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.signals import COLUMNS, SIGNALS
from gradwatch_daemon.detect.catalogue import CATALOGUE

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGES = ("docs/signals.md", "docs/detectors.md", "docs/keyboard.md", "README.md")


@pytest.fixture
def generate() -> ModuleType:
    """The script, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree in which the script has just written."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{generate.BEGIN}\nTHE OLD TABLE\n{generate.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main([]) == 0
    return tmp_path


def test_generated_pages_changed_by_hand_fail_the_check(generate: ModuleType, copy: Path) -> None:
    """Each of them is named. Without a change the check passes, and the rest of README.md is left alone."""
    assert generate.main(["--check"]) == 0
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("before\n")
    assert readme.endswith("after\n")
    assert "THE OLD TABLE" not in readme
    for page in PAGES:
        text = (copy / page).read_text(encoding="utf-8")
        (copy / page).write_text(text.replace(" | ", " |  ", 1), encoding="utf-8")

    assert {found.relative_to(copy).as_posix() for found in generate.stale()} == set(PAGES)
    assert generate.main(["--check"]) == 1


def test_generate_with_readme_without_its_markers_says_which_it_wants(generate: ModuleType, copy: Path) -> None:
    """Never a silent no-op."""
    (copy / "README.md").write_text("no table\n", encoding="utf-8")

    with pytest.raises(SystemExit, match="expected the lines"):
        generate.main([])


def test_generate_with_unknown_argument_is_a_usage_error(generate: ModuleType) -> None:
    """`--chekc` must not write."""
    assert generate.main(["--chekc"]) == 2


def test_generated_pages_on_the_tree_are_current(generate: ModuleType) -> None:
    """Run `make docs`."""
    assert [str(path.relative_to(ROOT)) for path in generate.stale()] == []


def test_signals_page_names_every_signal_column_and_formula(generate: ModuleType) -> None:
    """Whatever the registry has."""
    page = generate.signals_page()

    assert [name for name in (*SIGNALS, *COLUMNS) if f"| `{name}`" not in page] == []
    assert [signal.formula for signal in SIGNALS.values() if f"| `{signal.formula}` |" not in page] == []


def test_detectors_page_has_every_threshold_of_both_profiles_with_its_strictness(generate: ModuleType) -> None:
    """A section for each kind, a table for each profile, and every link inside the page leads to a heading."""
    page = generate.detectors_page()

    for spec in CATALOGUE:
        for profile in spec.profiles:
            part = page.partition(f"### {spec.kind} in `{profile}`\n")[2].partition("\n#")[0]
            rule = spec.rule(profile)
            for threshold in rule.thresholds:
                assert re.search(rf"\| `{threshold.key}` \|.*\| (?:[a-z ]+)?{threshold.op} {threshold.limit:g}", part), (
                    spec.kind,
                    threshold,
                )
            assert [need.add for need in rule.needs if need.add.replace("|", r"\|") not in part] == []
    headings = set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    assert set(re.findall(r"\(#(.+?)\)", page)) == headings == {spec.kind for spec in CATALOGUE}


@pytest.mark.parametrize("page", ["signals_page", "detectors_page", "readme_table"])
def test_generated_tables_have_as_many_cells_as_heads(generate: ModuleType, page: str) -> None:
    """A bar in `|r - 1|` would otherwise move the rest of its line."""
    lines = getattr(generate, page)().splitlines()
    widths = [len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0 for line in lines]

    assert any(widths)
    assert all(width in (0, before) for before, width in itertools.pairwise(widths) if before)
    assert any(r"\|" in line for line in lines) == (page == "signals_page")
