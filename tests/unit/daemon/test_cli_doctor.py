"""`gradwatch doctor`: from this shell to the trainer; a daemon that is not there is a finding, not a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.connection import Connection
from gradwatch_daemon.cli.surroundings import check_surroundings, other_places
from harness import api_documents as documents
from harness.command_line import CommandLine
from harness.daemon_stub import TOKEN, DaemonStub

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS = "/api/v1/runs"
RUN = "/api/v1/runs/ant-ppo"
DAEMON = "/api/v1/daemon"


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private runtime directory, and no other places to look in."""
    monkeypatch.setattr("gradwatch_daemon.cli.doctor.other_places", lambda env, uid: [])
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def stub() -> Iterator[DaemonStub]:
    """A daemon without a mistake, with one live run without one."""
    with DaemonStub() as running:
        running.answer("GET", DAEMON, documents.daemon())
        running.answer("GET", "/api/v1/detectors", documents.listed(profile="default", broken=[]))
        running.answer("GET", RUNS, documents.listed(documents.run_summary()))
        running.answer("GET", RUN, documents.run_detail(losses=[], standings=[]))
        yield running


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runtime: Path) -> CommandLine:
    """The command line with nothing but its runtime directory."""
    return CommandLine(monkeypatch, capsys, runtime)


@pytest.fixture
def gradwatch(
    stub: DaemonStub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runtime: Path
) -> CommandLine:
    """The command line pointed at the stub."""
    return CommandLine(monkeypatch, capsys, runtime, stub)


def _connect(runtime: Path, url: str, pid: int = 0, mode: int = 0o600) -> Path:
    path, token_file = runtime / "connection.json", runtime / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(TOKEN, encoding="ascii")
    path.write_text(Connection("ipc:///x", url, "", str(token_file), pid or os.getpid()).to_json(), encoding="utf-8")
    path.chmod(mode)
    return path


def _codes(line: CommandLine, *argv: str) -> tuple[int, list[str]]:
    ended = line("doctor", *argv, "--json")
    return ended.code, [ailment["code"] for ailment in json.loads(ended.out)["ailments"]]


def test_doctor_without_a_daemon_finds_that(alone: CommandLine) -> None:
    """Exit 10: this is what it was asked to find."""
    ended = alone("doctor")

    assert ended.code == 10
    assert ended.out.splitlines()[0] == "! No daemon answers."
    assert "gradwatch serve" in ended.out


def test_doctor_finds_a_connection_of_a_daemon_that_is_gone(alone: CommandLine, runtime: Path) -> None:
    """Its pid is no process any more, and nothing answers."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(60)
    _connect(runtime, "http://127.0.0.1:1", process.pid)

    assert _codes(alone) == (10, ["connection-stale"])


def test_doctor_finds_that_a_daemon_was_killed_though_something_answers(
    alone: CommandLine, runtime: Path, stub: DaemonStub
) -> None:
    """Its lock is free: what answers there is asked nothing, and told no token."""
    _connect(runtime, stub.url)
    (runtime / "daemon.lock").touch()

    assert _codes(alone) == (10, ["connection-stale"])
    assert stub.requests == []


def test_doctor_with_a_living_pid_and_no_answer_finds_the_daemon_unreachable(alone: CommandLine, runtime: Path) -> None:
    """The file is not stale: something hangs, or listens elsewhere."""
    _connect(runtime, "http://127.0.0.1:1")

    assert _codes(alone) == (10, ["daemon-unreachable"])


def test_doctor_of_a_daemon_in_a_container_does_not_call_it_gone(alone: CommandLine, runtime: Path, stub: DaemonStub) -> None:
    """Its pid means nothing here, and it answers."""
    _connect(runtime, stub.url, 2**22 + 1)

    assert _codes(alone) == (0, [])


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o666])
def test_doctor_finds_a_connection_that_others_may_use(alone: CommandLine, runtime: Path, stub: DaemonStub, mode: int) -> None:
    """It has the secret of TCP ingest. One that others can write is refused by the client too, and told once."""
    path = _connect(runtime, stub.url, mode=mode)

    assert _codes(alone) == (10, ["connection-open"])
    assert f"chmod 600 {path}" in alone("doctor").out


def test_doctor_finds_a_token_that_others_may_read(alone: CommandLine, runtime: Path, stub: DaemonStub) -> None:
    """Whoever has it is an operator."""
    _connect(runtime, stub.url)
    (runtime / "token").chmod(0o640)

    assert _codes(alone) == (10, ["token-open"])


def test_doctor_finds_a_runtime_directory_that_others_may_use(gradwatch: CommandLine, runtime: Path) -> None:
    """Whoever can enter it can wait for the file."""
    runtime.chmod(0o755)

    assert _codes(gradwatch) == (10, ["runtime-dir-open"])


def test_doctor_finds_a_file_that_is_no_connection(alone: CommandLine, runtime: Path) -> None:
    """Torn or foreign; told once."""
    _connect(runtime, "").write_text("{", encoding="utf-8")

    assert _codes(alone) == (10, ["connection-unreadable"])


def test_doctor_finds_the_daemon_of_another_environment(tmp_path: Path) -> None:
    """Started from ssh or cron, it has another runtime directory."""
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir(mode=0o700)
    _connect(there, "http://127.0.0.1:1")

    (found,) = check_surroundings({"GRADWATCH_RUNTIME_DIR": str(here)}, os.getuid(), [tmp_path / "nowhere", there])

    assert found.code == "other-runtime-dir"
    assert f"GRADWATCH_RUNTIME_DIR={there}" in found.next_step


def test_other_places_are_those_of_other_environments() -> None:
    """Never the one in use."""
    assert other_places({}, 7) == [Path("/run/user/7/gradwatch")]
    assert other_places({"XDG_RUNTIME_DIR": "/run/user/7"}, 7) == [Path("/tmp/gradwatch-7")]


def test_doctor_finds_mode_off(gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commonest reason for a run that never appears."""
    monkeypatch.setenv("GRADWATCH_MODE", "off")

    assert _codes(gradwatch) == (10, ["mode-off"])


def test_doctor_notes_two_daemons_and_exits_0(gradwatch: CommandLine, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """May be meant; a note is no finding."""
    _connect(runtime, "http://127.0.0.1:1")
    monkeypatch.setenv("GRADWATCH_ENDPOINT", "tcp://127.0.0.1:9")

    assert _codes(gradwatch) == (0, ["two-daemons", "two-daemons"])
    assert gradwatch("doctor").out.startswith("i GRADWATCH_URL names another daemon than connection.json.\n")


def test_doctor_with_a_wrong_token_finds_that(gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is a finding like any other."""
    monkeypatch.setenv("GRADWATCH_TOKEN", "wrong")

    assert _codes(gradwatch) == (10, ["unauthenticated"])


def test_doctor_of_a_run_never_seen_names_the_nearest(gradwatch: CommandLine) -> None:
    """A typo, or a trainer that found no daemon."""
    ended = gradwatch("doctor", "ant-pp")

    assert ended.code == 10
    assert "ant-pp has never connected to this daemon. Did you mean ant-ppo?" in ended.out


def test_doctor_of_a_daemon_without_runs_finds_that(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Nothing has ever connected: the first thing a new user needs to hear."""
    stub.answer_only("GET", RUNS, documents.listed())

    assert _codes(gradwatch) == (10, ["run-never-seen"])


def test_doctor_without_a_mistake_exits_0_and_says_where_it_looked(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Nothing on stdout, because nothing is the finding."""
    ended = gradwatch("doctor")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"Found nothing wrong. Looked at {stub.url}, ant-ppo.\n"


def test_doctor_looks_at_live_and_recently_lost_runs_only(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """A run lost a month ago is history, unless it is named."""
    old = documents.run_summary(run="old", live=False, state="lost", last_seen_at="2026-01-01T00:00:00.000Z")
    done = documents.run_summary(run="done", live=False, state="finished")
    stub.answer_only("GET", RUNS, documents.listed(documents.run_summary(), old, done))
    stub.answer("GET", f"{RUNS}/old", documents.run_detail(run="old", live=False, state="lost", losses=[], standings=[]))

    looked = json.loads(gradwatch("doctor", "--json").out)["looked_at"]

    assert looked == [stub.url, "ant-ppo"]
    assert _codes(gradwatch, "old") == (10, ["run-lost"])


def test_doctor_names_a_detector_of_another_package_that_could_not_be_loaded(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """It looks for nothing, and the daemon starts all the same."""
    broken = {"name": "mine", "origin": "my-rules 1.0", "reason": "ImportError: no module"}
    stub.answer_only("GET", "/api/v1/detectors", documents.listed(profile="default", broken=[broken]))

    ended = gradwatch("doctor")

    assert ended.code == 10
    assert "! The detector mine of my-rules 1.0 is not there." in ended.out
    assert "ImportError: no module" in ended.out
