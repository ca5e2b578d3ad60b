"""`gradwatch export` of a daemon whose store is elsewhere: over HTTP with the token, the same file, within limits."""

from __future__ import annotations

import io
import json
import os
import urllib.error
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.main import main
from gradwatch_daemon.exporting.apart import FOLDER, Exporter
from gradwatch_daemon.records.exported import ExportOrder
from harness.daemon_process import DaemonProcess
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

NAN = float("nan")
BROKEN = {"loss.total": (16.0, NAN, NAN), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}
RUN = "ant-ppo"


def fill(data: Path, rows: int = 60) -> None:
    """A run that broke."""
    data.mkdir(mode=0o700)
    world = World(data)
    world.greet(run=RUN)
    for _ in range(0, rows, 20):
        world.tick(world.rows.samples(20))
    world.tick(world.rows.samples(5, changed=BROKEN))
    world.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon over it."""
    home = tmp_path_factory.mktemp("export")
    fill(home / "data")
    with DaemonProcess(home) as process:
        yield process


def ran(daemon: DaemonProcess, here: Path, *argv: str, remote: bool = True) -> tuple[int, str, str]:
    """The command in an empty directory that knows the daemon by its address and token only."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(here)
        for name in [name for name in os.environ if name.startswith("GRADWATCH_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(here))
        patch.setenv("GRADWATCH_RUNTIME_DIR", str(here / "nothing"))
        if remote:
            patch.setenv("GRADWATCH_URL", daemon.connection.url)
            patch.setenv("GRADWATCH_TOKEN", daemon.token)
        return main(list(argv)), out.getvalue(), err.getvalue()


def anomaly(daemon: DaemonProcess) -> str:
    """Its id."""
    return next(str(item["id"]) for item in daemon.get("/api/v1/anomalies")["items"] if item["kind"] == "nonfinite")


def test_export_of_an_unknown_name_exits_3_and_leaves_no_file(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Neither a run nor an anomaly; the nearest run is named, as from a store at hand."""
    code, out, err = ran(daemon, tmp_path, "export", "ant-pp", "--format", "csv")
    assert (code, out) == (3, "")
    assert "ant-ppo" in err
    assert list(tmp_path.iterdir()) == []


def test_export_never_writes_over_a_file_that_is_here(daemon: DaemonProcess, tmp_path: Path) -> None:
    """What is there stays."""
    (tmp_path / "mine.csv").write_text("kept")
    code, _, err = ran(daemon, tmp_path, "export", RUN, "--out", "mine.csv")
    assert code == 5
    assert "does not exist yet" in err
    assert (tmp_path / "mine.csv").read_text() == "kept"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("format=pdf", 400, "invalid-parameter"),
        ("format=zip&from=3", 400, "invalid-parameter"),
        ("format=csv&from=9&to=3", 400, "invalid-parameter"),
        ("from=-1", 400, "invalid-parameter"),
    ],
)
def test_export_asked_for_wrongly_is_refused_in_words(daemon: DaemonProcess, query: str, status: int, code: str) -> None:
    """Before anything is written."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        daemon.get(f"/api/v1/runs/{RUN}/export?{query}")
    with refused.value as answer:
        document = json.load(answer)
    assert (document["status"], document["code"]) == (status, code)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "html", "zip"])
def test_export_over_http_is_the_file_of_the_store_itself(daemon: DaemonProcess, tmp_path: Path, kind: str) -> None:
    """Text byte by byte; the others say the same of themselves, and a bundle replays to the same anomalies."""
    code, out, _ = ran(daemon, tmp_path, "export", RUN, "--format", kind, "--json")
    told = json.loads(out)
    data = daemon.home / "data"
    local = json.loads(
        ran(daemon, tmp_path, "export", RUN, "--out", f"local.{kind}", "--data-dir", str(data), "--json", remote=False)[1]
    )
    assert code == 0
    assert told["file"] == str(tmp_path / f"{RUN}.{kind}")
    assert {**told, "file": "", "bytes": 0} == {**local, "file": "", "bytes": 0}
    assert told["bytes"] == (tmp_path / f"{RUN}.{kind}").stat().st_size
    if kind in {"csv", "jsonl"}:
        assert (tmp_path / f"{RUN}.{kind}").read_bytes() == (tmp_path / f"local.{kind}").read_bytes()
    if kind == "zip":
        assert ran(daemon, tmp_path, "replay", f"{RUN}.zip", "--diff", "live", remote=False)[1].count("same") == 1
    assert list((data / FOLDER).iterdir()) == []


def test_export_of_an_anomaly_is_what_lies_around_it(daemon: DaemonProcess, tmp_path: Path) -> None:
    """By its id, and under its own name."""
    code, out, err = ran(daemon, tmp_path, "export", anomaly(daemon), "--format", "jsonl", "--json")
    assert (code, err) == (0, "")
    told: dict[str, Any] = json.loads(out)
    assert (told["anomaly"], told["run"]) == (anomaly(daemon), RUN)
    assert Path(told["file"]).read_text(encoding="utf-8").count("\n") == told["rows"] > 0


async def test_export_beyond_its_bytes_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    """A run of months does not fill the disk of the daemon because somebody looked."""
    fill(tmp_path / "data", rows=1000)
    (tmp_path / "data" / FOLDER).mkdir()
    (tmp_path / "data" / FOLDER / "left.csv").write_text("of a daemon that was killed")
    exporter = Exporter(tmp_path / "data", "default", {}, bytes_max=40_000)
    with pytest.raises(GradwatchError, match="larger than the daemon does"):
        await exporter(ExportOrder(RUN, "csv"))
    assert list((tmp_path / "data" / FOLDER).iterdir()) == []
