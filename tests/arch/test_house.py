"""The house rules that a machine can check: documented, small files and functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts/gradwatch_contracts", "agent/gradwatch_agent", "daemon/gradwatch_daemon")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_modules_without_docstring_none_found() -> None:
    """Every module says what it is for."""
    bare = [_name(path) for path in MODULES if not ast.get_docstring(_parsed(path))]

    assert not bare, "\n".join(bare)


def test_public_definitions_without_docstring_none_found() -> None:
    """Every public function, class and method of a public class is documented; protocol methods may be bare names."""
    bare = [f"{_name(path)}: {name}" for path in MODULES for name in _undocumented(_parsed(path))]

    assert not bare, "\n".join(bare)


def _undocumented(tree: ast.Module) -> list[str]:
    found = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                found.append(node.name)
            if isinstance(node, ast.ClassDef) and not any(isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases):
                found += [
                    f"{node.name}.{item.name}"
                    for item in node.body
                    if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))
                    and not item.name.startswith("_")
                    and not item.decorator_list
                    and not ast.get_docstring(item)
                ]
    return found


def test_files_longer_than_the_cap_none_found() -> None:
    """A file has one reason to change; 400 lines is where that stops being believable."""
    sizes = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}

    assert {name: size for name, size in sizes.items() if size > FILE_LINES_MAX} == {}


def test_functions_longer_than_the_cap_none_found() -> None:
    """A function fits on a screen."""
    long = {
        f"{_name(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(_parsed(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None
    }

    assert {name: size for name, size in long.items() if size > FUNCTION_LINES_MAX} == {}


def test_packages_are_marked_typed() -> None:
    """Type checkers of users read our annotations."""
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []


def test_containers_hold_nothing_importable() -> None:
    """The three folders are on the path of an editable install: a module in one would be importable as itself."""
    strays = [path.name for package in PACKAGES for path in (ROOT / package).parent.iterdir() if path.suffix == ".py"]

    assert strays == []


def test_makefile_has_the_promised_targets() -> None:
    """README and CI name these targets."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")

    for target in ("setup", "demo", "test", "test-all", "check", "docs", "bench", "fmt", "clean"):
        assert f"\n{target}:" in text, target


def test_version_is_one_number() -> None:
    """The distribution and the packages say the same version."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    init = (ROOT / "contracts/gradwatch_contracts/__init__.py").read_text(encoding="utf-8")

    assert re.findall(r'^version = "(.+)"', project, re.MULTILINE) == re.findall(r'^__version__ = "(.+)"', init, re.MULTILINE)
