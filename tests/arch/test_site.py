"""`make docs`: the site is built offline and strictly, and the blocks of its pages are what the programs take."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gradwatch_agent.monitor import Monitor
from gradwatch_daemon.cli.failure import CommandError
from gradwatch_daemon.cli.parser import build_parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """What the Makefile runs."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(target / "trees")]
    return subprocess.run(
        [*command, str(source), str(target / "site")], capture_output=True, text=True, timeout=110, check=False, cwd=ROOT
    )


def test_site_builds_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    """Every link leads somewhere, every page is in the contents, and no page loads a thing from the network."""
    done = build(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr
    loading = re.compile(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(?:https?:)?//[^"]*"')
    for page in (tmp_path / "site").rglob("*.html"):
        assert loading.findall(page.read_text(encoding="utf-8")) == [], page.name
    assert (tmp_path / "site" / "playbook" / "kl_spike.html").is_file()
    assert (tmp_path / "site" / "search.html").is_file()


def test_site_with_a_broken_link_is_not_built(tmp_path: Path) -> None:
    """To a page, to a heading, to a file."""
    (tmp_path / "docs").mkdir()
    shutil.copy(DOCS / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[a](gone.md) [b](index.md#gone) [c](../gone.py)\n")
    done = build(tmp_path / "docs", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.count("WARNING") == 3


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """Page and text of every block in one of these languages."""
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                yield str(page.relative_to(ROOT)), text


def command_lines() -> list[tuple[str, str]]:
    """Every call of `gradwatch` in a shell block; a placeholder in capitals stands for a value."""
    found = []
    for page, text in blocks("sh", "bash", "console", "text"):
        for line in text.replace("\\\n", " ").splitlines():
            called = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(gradwatch .*)", line)
            if called:
                found.append((page, called.group(1)))
    return found


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    """The real one; it takes as long to make as a hundred lines to read."""
    return build_parser()


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_of_a_page_is_one_that_there_is(parser: argparse.ArgumentParser, page: str, line: str) -> None:
    """Verb, flags and arguments by the real parser."""
    words = shlex.split(line.partition(" | ")[0].partition(" > ")[0].removesuffix("&"), comments=True)[1:]
    words = words[: words.index("--")] if "--" in words else words
    words = [re.sub(r"^N(UMBER)?$", "1", word) for word in words if not word.startswith("[")]
    try:
        parser.parse_args(words)
    except CommandError as failure:
        pytest.fail(f"{page}: {line}: {failure}")
    except SystemExit as ended:
        if ended.code:
            pytest.fail(f"{page}: {line}")


@pytest.mark.parametrize(("page", "text"), [*blocks("python")])
def test_python_of_a_page_imports_and_calls_what_there_is(page: str, text: str) -> None:
    """It compiles, what it imports of ours is there, and every `mon.` call has arguments that the method takes."""
    tree = ast.parse(text, page)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradwatch"):
            exec(compile(ast.Module([node], []), page, "exec"), {})
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "mon":
            assert isinstance(node, ast.Call)
            given = {word.arg: None for word in node.keywords if word.arg}
            positional: list[Any] = [None for _ in node.args]
            inspect.signature(getattr(Monitor, called.attr)).bind_partial(None, *positional, **given)


@pytest.mark.parametrize(("page", "text"), [*blocks("json", "toml", "yaml", "yml")])
def test_data_of_a_page_can_be_read(page: str, text: str) -> None:
    """In the format that its fence says."""
    for read in (json.loads, tomllib.loads, yaml.safe_load):
        try:
            read(text)
        except (ValueError, yaml.YAMLError):
            continue
        return
    pytest.fail(f"{page}: neither JSON, TOML nor YAML")


def test_readme_is_short_and_shows_what_is_there() -> None:
    """Whoever wants more finds a page of the site; a picture is of the product and in the repository."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    for target in re.findall(r"\]\(((?!http)[^)#]+)", text):
        assert (ROOT / target).exists(), target
