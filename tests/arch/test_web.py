"""The web page's files: small, whole, from nowhere else, and each library as its lock file says."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from gradwatch_contracts.needs import STAND_INS
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.detect.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
WEB = ROOT / "daemon/gradwatch_daemon/web"
VENDORED = WEB / "vendor"
AXE = ROOT / "tests/data/axe"
OWN = sorted(path for path in WEB.rglob("*") if path.suffix in (".js", ".css") and path.parent != VENDORED)
GZIP_BYTES_MAX = 120_000
LINES_MAX = 400
IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*["']([^"']+)["']""")


def _name(path: Path) -> str:
    return path.relative_to(WEB).as_posix()


def test_page_packed_is_within_its_budget() -> None:
    """All that a browser loads, as it travels."""
    sizes = {
        _name(path): len(gzip.compress(path.read_bytes(), 9))
        for path in WEB.rglob("*")
        if path.suffix in (".html", ".js", ".css", ".svg")
    }

    assert sum(sizes.values()) <= GZIP_BYTES_MAX, sorted(sizes.items(), key=lambda item: -item[1])[:8]


@pytest.mark.parametrize("place", [VENDORED, AXE], ids=["page", "tests"])
def test_vendored_files_are_those_of_the_lock(place: Path) -> None:
    """Nothing changed by hand, nothing unlisted, and the licence of each beside it: `tools/vendor_web.py` writes them."""
    lock = json.loads((place / "vendor.lock").read_text(encoding="utf-8"))
    licences = (place / "LICENSES.txt").read_text(encoding="utf-8")
    files = {entry["to"]: entry["sha256"] for package in lock["packages"] for entry in package["files"]}

    assert {path.name for path in place.iterdir()} == {*files, "vendor.lock", "LICENSES.txt"}
    assert {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in files} == files
    for package in lock["packages"]:
        assert f"{package['name']} {package['version']} ({package['licence']})" in licences


def test_every_signal_that_a_detector_reads_has_a_title() -> None:
    """A panel of it is headed by words; `titles.js` is the only table, and it has no signal that there is not."""
    titles = set(re.findall(r'^  "([a-z0-9_.]+)":', (WEB / "titles.js").read_text(encoding="utf-8"), re.MULTILINE))
    read = {need.signal for spec in CATALOGUE for profile in spec.profiles for need in spec.rule(profile).needs}

    assert sorted(read - titles) == []
    assert sorted(titles - set(SIGNALS)) == []


def test_page_refers_to_nothing_elsewhere() -> None:
    """No CDN, no font, no map: the only addresses with a host are names of XML namespaces and a library's own first line."""
    allowed = ("http://www.w3.org/", "https://github.com/leeoniya/uPlot")
    found = [
        f"{_name(path)}: {address}"
        for path in WEB.rglob("*")
        if path.suffix in (".html", ".js", ".css", ".svg")
        for address in re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z][^\s\"'`)]*", path.read_text(encoding="utf-8"))
        if not address.startswith(allowed)
    ]

    assert found == []


def test_modules_import_files_that_are_there() -> None:
    """There is no build step: an import is a path, and only html.js and the chart know the libraries."""
    for path in WEB.rglob("*.js"):
        for target in IMPORT.findall(path.read_text(encoding="utf-8")):
            assert target.startswith("."), f"{_name(path)} imports {target}"
            found = (path.parent / target).resolve()
            assert found.is_file(), f"{_name(path)} imports {target}"
            if found.parent == VENDORED and path.parent != VENDORED:
                assert _name(path) in ("html.js", "chart/chart.js"), f"{_name(path)} imports {target}"


def test_modules_are_all_used() -> None:
    """A file nobody imports is sent to every browser for nothing."""
    texts = {path: path.read_text(encoding="utf-8") for path in WEB.rglob("*.js")}
    imported = {(path.parent / target).resolve() for path, text in texts.items() for target in IMPORT.findall(text)}

    assert {_name(path) for path in texts if path.resolve() not in imported} == {"app.js", "theme.js"}


def test_own_files_say_what_they_are_for_and_stay_small() -> None:
    """As the rest of the house: a first line in words, and one concept in a file."""
    for path in OWN:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(("// ", "/* ")), _name(path)
        assert len(lines) <= LINES_MAX, _name(path)


def test_page_has_nothing_inline() -> None:
    """Its content security policy would not run it; a handler in an attribute would fail without a word."""
    text = (WEB / "index.html").read_text(encoding="utf-8")

    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son[a-z]+=|style=", text) == []


def test_stand_ins_of_the_page_are_those_of_the_daemon() -> None:
    """The page shows the signal that is judged."""
    text = (WEB / "titles.js").read_text(encoding="utf-8")
    found = re.search(r"STAND_INS = (\{[^}]*\})", text)

    assert found is not None
    assert json.loads(found[1]) == STAND_INS
