"""`gradwatch config`: what `gradwatch serve` would run with, and where each value is from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harness.command_line import CommandLine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def gradwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CommandLine(monkeypatch, capsys, tmp_path / "run")


@pytest.mark.parametrize("action", ["show", "check"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profil = 'classic'", "Did you mean profile?"),
        ("[thresholds.kl_extrem]\nk3 = 1", "kl_extreme"),
        ("[thresholds.kl_extreme]\nk4 = 1", "k3"),
        ("http = '0.0.0.0:1'", "--tls-cert"),
        ("[escalation.defalt]\nlevel = 'debug'", "default"),
        ("[actions.checkpoint]\nkinds = ['kl_spke']", "kl_spike"),
    ],
)
def test_config_that_cannot_be_used_exits_2_and_says_which_key(
    gradwatch: CommandLine, tmp_path: Path, action: str, text: str, said: str
) -> None:
    """Before a daemon is started with it; also a threshold that no detector of the profile has."""
    (tmp_path / "gradwatch.toml").write_text(text, encoding="utf-8")

    ended = gradwatch("config", action)

    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


def test_config_shows_every_key_with_where_it_is_from(
    gradwatch: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, variable, default; thresholds one by one."""
    (tmp_path / "mine.toml").write_text("profile = 'classic'\n[thresholds.kl_extreme]\nk3 = 0.8\n", encoding="utf-8")
    monkeypatch.setenv("GRADWATCH_HTTP", "127.0.0.1:9999")

    document = json.loads(gradwatch("config", "show", "--config", "mine.toml", "--json").out)
    lines = gradwatch("config", "show", "--config", "mine.toml").out.splitlines()
    checked = gradwatch("config", "check", "--config", "mine.toml").out

    origins = {item["key"]: (item["value"], item["origin"]) for item in document["items"]}
    assert origins["http"] == ("127.0.0.1:9999", "variable GRADWATCH_HTTP")
    assert origins["thresholds.kl_extreme.k3"] == (0.8, f"file {tmp_path}/mine.toml")
    assert origins["ingest"] == ("auto", "default")
    assert [line.split()[0] for line in lines[1:]] == list(origins)
    assert checked == f"It can be used: profile classic, rules {document['rules_hash']}.\n"
