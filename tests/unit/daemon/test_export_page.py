"""`gradwatch export` of a page: one file that opens offline, small, and safe against what a trainer sent."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from harness.command_line import CommandLine
from harness.exported import BROKEN, anomaly_of, write_two_runs
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def gradwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line in an empty directory, where no daemon is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CommandLine(monkeypatch, capsys, tmp_path / "run")


class _Page(HTMLParser):
    """What a page refers to, and its texts by tag."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset", "poster")]


def test_page_is_one_small_file_that_fetches_nothing_and_shows_the_fault(gradwatch: CommandLine, tmp_path: Path) -> None:
    """Opens offline, with plots, the anomaly first, and who could not see."""
    id_ = anomaly_of(write_two_runs(tmp_path / "data"))
    assert gradwatch("export", id_, "--out", "case.html", "--data-dir", tmp_path / "data").code == 0
    text = (tmp_path / "case.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)

    assert len(text.encode()) < 500_000
    assert (page.links, "script" in page.tags, "link" in page.tags) == ([], False, False)
    assert not re.findall(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text
    assert page.tags.count("svg") >= 8
    assert 'class="nonfinite"' in text
    assert "4 records never came (outbox full)" in text
    assert "<h2>The anomaly</h2>" in text
    assert "blind" in text


def test_page_of_a_run_lists_its_anomalies_and_escapes_what_a_trainer_sent(gradwatch: CommandLine, tmp_path: Path) -> None:
    """Names and configuration come from elsewhere."""
    path = tmp_path / "data"
    path.mkdir()
    world = World(path, profile="classic")
    world.greet(config={"note": "<script>alert(1)</script>"}, tags={"a": "<b>"})
    world.tick(world.rows.samples(60, changed=BROKEN))
    world.close()

    assert gradwatch("export", "ant-ppo", "--data-dir", path).code == 0
    text = (tmp_path / "ant-ppo.html").read_text(encoding="utf-8")

    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<details open><summary>" in text


def test_page_of_a_long_run_with_many_signals_stays_below_its_bound(gradwatch: CommandLine, tmp_path: Path) -> None:
    """Ten thousand noisy updates of every signal there is: the plots are of places, not of updates."""
    path = tmp_path / "data"
    path.mkdir()
    world = World(path)
    world.greet(updates_total=20_000)
    for i in range(50):
        world.tick(world.rows.samples(200, changed={"policy.kl.k3": (1024.0, 0.004 + 0.001 * (i % 7), 0.02)}))
    world.close()

    assert gradwatch("export", "ant-ppo", "--data-dir", path).code == 0
    assert (tmp_path / "ant-ppo.html").stat().st_size < 500_000
