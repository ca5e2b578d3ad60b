"""`gradwatch replay` on a data directory: where it looks, what it shows, how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_daemon.api.replay_models import ReplayAnswer
from harness.command_line import CommandLine
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path

NAN = float("nan")
BROKEN = {"loss.total": (16.0, NAN, NAN), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}


@pytest.fixture
def gradwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line in an empty directory, where no daemon is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CommandLine(monkeypatch, capsys, tmp_path / "run")


def _stored(path: Path, *, broken: bool = False, lost: bool = False, run: str = "ant-ppo") -> Path:
    """A data directory with one run of 60 updates."""
    path.mkdir(exist_ok=True)
    world = World(path, profile="classic")
    world.greet(run=run, updates_total=100)
    world.tick(world.rows.samples(50))
    if lost:
        world.tick(m.Loss(50, 53, "outbox full"))
        world.rows.seq = 54
    world.tick(world.rows.samples(10, changed=BROKEN if broken else None))
    world.close()
    return path


def test_replay_of_a_broken_run_ends_with_10_and_shows_it(gradwatch: CommandLine, tmp_path: Path) -> None:
    """A finding, its numbers, and the speed."""
    _stored(tmp_path / "data", broken=True)
    ended = gradwatch("replay", "ant-ppo", "--data-dir", tmp_path / "data", "--profile", "classic", "--diff", "live")
    assert ended.code == 10, ended.err
    assert "!! critical firing" in ended.out
    assert "Against live: 0 new, 0 lost, 0 moved, 0 changed, 1 the same." in ended.out
    assert "60 updates in" in ended.err


def test_replay_as_json_is_the_document_of_the_api(gradwatch: CommandLine, tmp_path: Path) -> None:
    """The model of POST /replay takes it, field by field."""
    data = _stored(tmp_path / "data", broken=True)
    ended = gradwatch("replay", f"{data}/", "--profile", "classic", "--diff", "default", "--json")
    answer = ReplayAnswer.model_validate_json(ended.out)
    assert (answer.run, answer.rows, answer.verdict, answer.profile) == ("ant-ppo", 60, "findings", "classic")
    assert answer.difference is not None
    assert answer.difference.against == "default"
    assert answer.streams[0].update_last == 59


def test_replay_gate_above_what_was_found_is_inconclusive_with_blind_detectors(gradwatch: CommandLine, tmp_path: Path) -> None:
    """No recurrent state was sent, so no 0 without --allow-blind."""
    data = _stored(tmp_path / "data")
    given = ("replay", f"{data}/gradwatch.db", "--profile", "classic")
    ended = gradwatch(*given)
    assert ended.code == 11
    assert "Inconclusive: detectors: " in ended.err
    assert "blind lstm_unhealthy" in ended.err
    assert gradwatch(*given, "--allow-blind").code == 0
    found = gradwatch(*given, "--allow-blind", "--set", "ratio_explosion.max=1.2")
    assert found.code == 10
    assert "ratio_explosion" in found.out


def test_replay_with_lost_records_is_inconclusive_though_nothing_was_found(gradwatch: CommandLine, tmp_path: Path) -> None:
    """A gap is no health, whatever is allowed to be blind."""
    data = _stored(tmp_path / "data", lost=True)
    ended = gradwatch("replay", f"{data}/", "--profile", "classic", "--allow-blind", "--gate", "critical")
    assert ended.code == 11
    assert "Inconclusive: 4 records were lost" in ended.err


def test_replay_of_an_empty_window_is_inconclusive(gradwatch: CommandLine, tmp_path: Path) -> None:
    """Nothing was replayed."""
    data = _stored(tmp_path / "data")
    ended = gradwatch("replay", f"{data}/", "--from", "1000")
    assert ended.code == 11
    assert "there are no rows to replay" in ended.err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("ant-pp", "--data-dir", "data"), 3, "Did you mean ant-ppo?"),
        (("./nowhere/",), 5, "no such file"),
        (("data/", "--profile", "clasic"), 2, "classic"),
        (("data/", "--set", "kl_extrem.k3=1"), 2, "kl_extreme.k3"),
        (("data/", "--set", "nonsense"), 2, "KIND.NAME=NUMBER"),
        (("data/", "--diff", "yesterday"), 2, "live, default, classic"),
        (("data/", "--from", "9", "--to", "3"), 2, "--from 9 is after --to 3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_replay_of_what_is_not_there_says_what_is(
    gradwatch: CommandLine, tmp_path: Path, argv: tuple[str, ...], code: int, said: str
) -> None:
    """One sentence and the way on, no traceback."""
    _stored(tmp_path / "data")
    ended = gradwatch("replay", *argv)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_replay_of_a_file_with_several_runs_asks_which(gradwatch: CommandLine, tmp_path: Path) -> None:
    """A name is not guessed."""
    path = tmp_path / "data"
    _stored(path)
    world = World(path)
    world.greet(run="second", session="other")
    world.close()
    ended = gradwatch("replay", f"{path}/")
    assert ended.code == 3
    assert "ant-ppo, second" in ended.err
    assert "--run" in ended.err
    assert json.loads(gradwatch("replay", f"{path}/", "--run", "second", "--json").out)["rows"] == 0
