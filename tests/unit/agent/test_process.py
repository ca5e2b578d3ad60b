"""Who this process is and where its daemon lies; what strangers left in the runtime directory is not believed."""

from __future__ import annotations

import fcntl
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gradwatch_agent.process import Identity, Locator, identify, resolve_endpoint
from gradwatch_contracts.connection import FILE_NAME, LOCK_FILE, TCP_DEFAULT, Connection
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import ID

if TYPE_CHECKING:
    from pathlib import Path

FOUND = Connection("ipc:///run/x/ingest.sock", "http://127.0.0.1:9470", "s3cret", "t0ken", 42)
TCP = "tcp://127.0.0.1:7777"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A runtime directory as `gradwatch serve` makes it."""
    made = tmp_path / "run"
    made.mkdir(mode=0o700)
    _write(made, FOUND)
    return made


def _write(directory: Path, connection: Connection | str) -> None:
    path = directory / FILE_NAME
    path.touch(mode=0o600)
    path.write_text(connection if isinstance(connection, str) else connection.to_json())


def _env(directory: Path, **more: str) -> dict[str, str]:
    return {"GRADWATCH_RUNTIME_DIR": str(directory), **more}


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_runtime_directory_open_to_others_is_refused_with_one_warning(
    directory: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    """Somebody else could have put the file there."""
    directory.chmod(mode)

    assert resolve_endpoint("auto", _env(directory)) == (TCP_DEFAULT, "")
    (warning,) = _warnings(caplog)
    assert str(directory) in warning
    assert f"mode {mode:04o}" in warning
    assert "GRADWATCH_RUNTIME_DIR" in warning


def test_runtime_directory_of_another_user_is_refused_with_one_warning(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The fallback in /tmp can be made by anybody first."""
    assert resolve_endpoint("auto", _env(directory), uid=os.getuid() + 1) == (TCP_DEFAULT, "")
    (warning,) = _warnings(caplog)
    assert f"owner {os.getuid()}" in warning


def test_connection_file_open_to_others_is_refused(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It holds a secret: one that others could read is none."""
    (directory / FILE_NAME).chmod(0o644)

    assert resolve_endpoint("auto", _env(directory)) == (TCP_DEFAULT, "")
    assert len(_warnings(caplog)) == 1


def test_connection_file_that_is_a_link_is_refused(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only the file itself is believed."""
    (directory / FILE_NAME).rename(directory / "elsewhere")
    (directory / FILE_NAME).symlink_to(directory / "elsewhere")

    assert resolve_endpoint("auto", _env(directory)) == (TCP_DEFAULT, "")
    assert len(_warnings(caplog)) == 1


def test_connection_file_that_is_a_pipe_does_not_hang(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Opening it would block the trainer for ever."""
    (directory / FILE_NAME).unlink()
    os.mkfifo(directory / FILE_NAME, mode=0o600)

    assert resolve_endpoint("auto", _env(directory)) == (TCP_DEFAULT, "")
    assert len(_warnings(caplog)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", replace(FOUND, ingest="inproc://x").to_json()])
def test_connection_file_with_other_content_is_refused(directory: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """A half-written or foreign file is one warning, never an exception."""
    _write(directory, text)

    assert resolve_endpoint("auto", _env(directory)) == (TCP_DEFAULT, "")
    assert len(_warnings(caplog)) == 1


def test_runtime_directory_that_does_not_exist_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No daemon was ever started: nothing is wrong."""
    assert resolve_endpoint("auto", _env(tmp_path / "none")) == (TCP_DEFAULT, "")
    assert _warnings(caplog) == []


@pytest.mark.parametrize("endpoint", ["http://x", "tcp://", "inproc://a", "nonsense", "ipc://a b"])
def test_endpoint_of_another_kind_raises_before_training(endpoint: str) -> None:
    """A typing mistake is told by `watch`, not found out hours later."""
    with pytest.raises(GradwatchError, match="ipc://PATH"):
        resolve_endpoint(endpoint, {})
    with pytest.raises(GradwatchError, match="ipc://PATH"):
        resolve_endpoint("auto", {"GRADWATCH_ENDPOINT": endpoint})


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://192.0.2.2:9471",
        "tcp://gpu7:9471",
        "tcp://127.0.0.1:0;192.0.2.2:9471",
        "tcp://127.0.0.1.evil.example:1",
        "tcp://[::2]:1",
    ],
)
def test_endpoint_beyond_this_machine_without_keys_raises_before_training(directory: Path, endpoint: str) -> None:
    """HELLO has the configuration of the run, for whoever listens on the way."""
    with pytest.raises(GradwatchError, match="gradwatch keys add") as caught:
        resolve_endpoint("auto", _env(directory, GRADWATCH_ENDPOINT=endpoint))

    assert caught.value.code.slug == "invalid-argument"
    keys = f"?server={'a' * 64}&public={'b' * 64}&secret={'c' * 64}"
    assert resolve_endpoint(endpoint + keys, _env(directory)) == (endpoint + keys, "")


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:9471", "tcp://127.8.0.1:1", "tcp://localhost:9471", "tcp://[::1]:9471"])
def test_endpoint_of_this_machine_needs_no_keys(directory: Path, endpoint: str) -> None:
    """Nobody else reads it."""
    assert resolve_endpoint(endpoint, _env(directory)) == (endpoint, "")


def test_connection_file_that_leads_beyond_this_machine_in_clear_is_refused(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a file is none of a daemon's; training goes on with one warning."""
    _write(directory, replace(FOUND, ingest="tcp://192.0.2.2:9471"))

    assert resolve_endpoint("auto", _env(directory)) == (TCP_DEFAULT, "")
    assert len(_warnings(caplog)) == 1


def test_endpoint_auto_finds_the_daemon_of_this_user(directory: Path) -> None:
    """Endpoint and secret come from one file."""
    assert resolve_endpoint("auto", _env(directory)) == (FOUND.ingest, "s3cret")


def test_endpoint_of_a_daemon_that_was_killed_is_not_believed(directory: Path) -> None:
    """Whoever binds its port next would be told the secret. The socket in the runtime directory nobody else can bind."""
    lock = directory / LOCK_FILE
    lock.touch(mode=0o600)
    locator = Locator("auto", _env(directory))
    with open(lock, encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert resolve_endpoint("auto", _env(directory)) == (FOUND.ingest, "s3cret")
        assert not locator.gone()

    assert resolve_endpoint("auto", _env(directory)) == (f"ipc://{directory}/ingest.ipc", "")
    assert resolve_endpoint(TCP, _env(directory)) == (TCP, "")
    assert locator.gone()


def test_endpoint_of_a_daemon_without_a_lock_is_believed(directory: Path) -> None:
    """Where only the file was brought to us, nothing is known of the daemon."""
    assert not Locator("auto", _env(directory)).gone()
    assert resolve_endpoint("auto", _env(directory)) == (FOUND.ingest, "s3cret")


def test_endpoint_of_the_environment_comes_before_the_file(directory: Path) -> None:
    """And an argument before both."""
    env = _env(directory, GRADWATCH_ENDPOINT="ipc:///other")

    assert resolve_endpoint("auto", env) == ("ipc:///other", "")
    assert resolve_endpoint("ipc:///third", env) == ("ipc:///third", "")


def test_secret_is_given_to_its_own_endpoint_only(directory: Path) -> None:
    """Whoever listens elsewhere must not learn it."""
    _write(directory, replace(FOUND, ingest=TCP))

    assert resolve_endpoint(TCP, _env(directory)) == (TCP, "s3cret")
    assert resolve_endpoint("tcp://127.0.0.9:7777", _env(directory)) == ("tcp://127.0.0.9:7777", "")


@pytest.mark.parametrize(
    "env",
    [{"RANK": "x"}, {"RANK": "-1"}, {"WORLD_SIZE": "0"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"GRADWATCH_LAUNCH_ID": "a b"}],
)
def test_identity_from_a_broken_environment_raises(env: dict[str, str]) -> None:
    """Before training: a rank that is none would mix two ranks' records."""
    with pytest.raises(GradwatchError):
        _identify(env)


def _identify(env: dict[str, str], *, host: str = "node", pid: int = 5, parent_pid: int = 4) -> Identity:
    return identify(env, host=host, pid=pid, parent_pid=parent_pid)


def test_identity_of_a_lone_process_is_its_own() -> None:
    """Two trainings in one SLURM job are two attempts."""
    first, second = _identify({"SLURM_JOB_ID": "77"}), _identify({"SLURM_JOB_ID": "77"})

    assert first.launch_id != second.launch_id
    assert first.session != second.session
    assert (first.rank, first.world, first.host, first.pid) == (0, 1, "node", 5)


@pytest.mark.parametrize(
    ("shared", "other"),
    [
        ({"TORCHELASTIC_RUN_ID": "job", "TORCHELASTIC_RESTART_COUNT": "1"}, {"TORCHELASTIC_RESTART_COUNT": "2"}),
        ({"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, {"MASTER_PORT": "2"}),
        ({"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "0"}, {"SLURM_RESTART_COUNT": "1"}),
        ({"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"}, {"SLURM_STEP_ID": "1"}),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1"}, {"MASTER_PORT": "2"}),
        ({"GRADWATCH_LAUNCH_ID": "mine"}, {"GRADWATCH_LAUNCH_ID": "yours"}),
    ],
)
def test_identity_of_ranks_is_one_launch_until_the_next_start(shared: dict[str, str], other: dict[str, str]) -> None:
    """All ranks derive the same id; a restart gives another."""
    ranks = [_identify({**shared, "WORLD_SIZE": "2", "RANK": str(rank)}, host=f"n{rank}", pid=rank) for rank in range(2)]
    again = _identify({**shared, **other, "WORLD_SIZE": "2", "RANK": "0"})

    assert ranks[0].launch_id == ranks[1].launch_id != again.launch_id
    assert ranks[0].session != ranks[1].session
    assert [identity.rank for identity in ranks] == [0, 1]
    assert all(ID.fullmatch(identity.launch_id) for identity in ranks)


def test_identity_under_plain_torchrun_tells_two_starts_apart() -> None:
    """Without --rdzv-id every start is called `none`: on one node the launcher's pid tells them apart."""
    env = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1"}

    assert _identify(env).launch_id == _identify(env, pid=6).launch_id != _identify(env, parent_pid=9).launch_id


def test_identity_knows_a_forked_child() -> None:
    """By the pid, which a fork changes."""
    assert not _identify({}, pid=os.getpid()).forked()
    assert _identify({}, pid=os.getpid() + 1).forked()
