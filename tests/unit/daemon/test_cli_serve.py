"""`gradwatch serve` and `gradwatch demo`: what they hand on, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from harness.command_line import CommandLine

if TYPE_CHECKING:
    from gradwatch_daemon.config import Config


@pytest.fixture
def gradwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line in a directory of its own, with no configuration around."""
    monkeypatch.chdir(tmp_path)
    for name in ("GRADWATCH_HTTP", "GRADWATCH_DATA_DIR", "GRADWATCH_PROFILE", "GRADWATCH_CONFIG", "GRADWATCH_INGEST"):
        monkeypatch.delenv(name, raising=False)
    return CommandLine(monkeypatch, capsys, tmp_path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Configurations a daemon was started with, instead of starting one."""
    seen: list[Config] = []

    def run_daemon(config: Config) -> int:
        seen.append(config)
        return 7

    module: Any = ModuleType("gradwatch_daemon.app")
    module.run_daemon = run_daemon
    monkeypatch.setitem(sys.modules, "gradwatch_daemon.app", module)
    return seen


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--profile", "clasic"), "Did you mean classic?"),
        (("--http", "nowhere"), "HOST:PORT"),
        (("--ingest", "tcp://gpu7:9471"), "an address such as"),
        (("--config", "absent.toml"), "absent.toml"),
        (("--data-dri", "x"), "unrecognized arguments: --data-dri"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_serve_bad_configuration_exits_2_and_starts_nothing(
    gradwatch: CommandLine, started: list[Config], argv: tuple[str, ...], said: str
) -> None:
    """The flag or key, what was expected, what came."""
    ended = gradwatch("serve", *argv)

    assert (ended.code, ended.out, started) == (2, "", [])
    assert said in ended.err


def test_serve_flags_reach_the_configuration(gradwatch: CommandLine, started: list[Config], tmp_path: Path) -> None:
    """Each flag with a value that is not its default; the exit code is the daemon's."""
    (tmp_path / "mine.toml").write_text('profile = "default"\n[thresholds.kl_spike]\nk3 = 0.3\n', encoding="utf-8")
    flags = [
        "--http",
        "127.0.0.2:1234",
        "--ingest",
        "tcp://127.0.0.1:5678",
        "--data-dir",
        "d",
        "--profile",
        "classic",
        "--config",
        "mine.toml",
    ]

    ended = gradwatch("serve", *flags, "--config", "mine.toml", "--allowed-host", "gpu7", "--allowed-host", "gpu8:80")

    (config,) = started
    assert ended.code == 7
    assert (config.http, config.ingest, config.profile) == ("127.0.0.2:1234", "tcp://127.0.0.1:5678", "classic")
    assert config.data_dir == tmp_path / "d"
    assert config.runtime_dir == tmp_path
    assert config.allowed_hosts[-2:] == ("gpu7", "gpu8:80")
    assert config.thresholds == {"kl_spike": {"k3": 0.3}}


def test_serve_without_the_daemon_extra_says_how_to_install_it(gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with the agent only has the command too."""
    monkeypatch.delitem(sys.modules, "gradwatch_daemon.app", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    ended = gradwatch("serve")

    assert ended.code == 2
    assert "uvicorn is missing" in ended.err
    assert 'pip install -e ".[daemon]"' in ended.err


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for `python` that prints its arguments and exits 10."""
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/arguments"\nexit 10\n', encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return tmp_path / "arguments"


def test_demo_hands_everything_on_and_returns_its_exit_code(gradwatch: CommandLine, interpreter: Path) -> None:
    """Flags of the demo are none of the parser's business, `--help` included."""
    ended = gradwatch("demo", "--fault", "nan", "--seed", 3, "--json", "--help")

    assert ended.code == 10
    assert interpreter.read_text(encoding="utf-8") == "-m gradwatch_agent.demo --fault nan --seed 3 --json --help\n"


def test_demo_without_torch_says_how_to_install_it(
    gradwatch: CommandLine, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started that would end in a traceback."""
    monkeypatch.setattr("gradwatch_daemon.cli.demo.find_spec", lambda name: None if name == "torch" else object())

    ended = gradwatch("demo")

    assert ended.code == 2
    assert "The demo needs torch." in ended.err
    assert not interpreter.exists()


def test_demo_killed_by_a_signal_exits_as_a_shell_would(gradwatch: CommandLine, interpreter: Path) -> None:
    """128 + the signal's number."""
    Path(sys.executable).write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")

    assert gradwatch("demo").code == 137
