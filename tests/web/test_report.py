"""Exports of real recorded runs: the page in a real browser without a network, and the bundle through replay."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harness.browser import PHONE, WIDE

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

    from conftest import Fleet

RUN = "nan-obs"


def _gradwatch(fleet: Fleet, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", *argv]
    return subprocess.run(command, env=fleet.daemon.environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def page_file(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as one file."""
    written = tmp_path_factory.mktemp("report") / "run.html"
    done = _gradwatch(fleet, "export", RUN, "--out", str(written))
    assert done.returncode == 0, done.stderr
    return written


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_exported_page_opens_without_a_network_and_shows_the_fault(
    browser: Browser, page_file: Path, size: tuple[int, int]
) -> None:
    """Below 500 kB, plots drawn, marks of what is not finite, nothing asked of anybody, no complaint of the browser."""
    asked: list[str] = []
    said: list[str] = []
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=True)
    try:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(page_file.as_uri())
        drawn = page.locator("figure svg")
        boxes: list[Any] = [drawn.nth(i).bounding_box() for i in range(drawn.count())]

        assert page_file.stat().st_size < 500_000
        assert asked == [page_file.as_uri()]
        assert said == []
        assert boxes
        assert all(box is not None and box["width"] > 300 and box["height"] > 70 for box in boxes)
        assert page.locator("figure svg .line").count() > 0
        assert page.locator("svg .nonfinite").count() > 0
        assert page.locator("details summary", has_text="nonfinite").count() > 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        context.close()


def test_bundle_of_a_recorded_run_replays_to_what_was_found_live(fleet: Fleet, tmp_path: Path) -> None:
    """A real run through a real daemon, exported beside it: not one field of one anomaly differs."""
    bundle = str(tmp_path / "run.zip")
    assert _gradwatch(fleet, "export", RUN, "--out", bundle).returncode == 0
    document = json.loads(_gradwatch(fleet, "replay", bundle, "--diff", "live", "--json").stdout)

    difference = document["difference"]
    assert document["items"]
    assert (difference["new"], difference["lost"], difference["moved"], difference["changed"]) == ([], [], [], [])
    assert difference["same"] == len(document["items"])
