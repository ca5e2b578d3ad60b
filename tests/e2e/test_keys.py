"""Trainers of other machines: a real daemon on every address, keys given out and taken back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness import small_agent
from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def open_daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon whose ingest every address reaches."""
    with DaemonProcess(tmp_path, "--ingest", "tcp://0.0.0.0:0") as daemon:
        yield daemon


def _cli(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", *arguments]
    return subprocess.run(command, env=daemon.environment, capture_output=True, text=True, timeout=60, check=False)


def _trainer(home: Path, run: str, endpoint: str, updates: int, pace_ms: int) -> subprocess.Popen[bytes]:
    """A trainer on a machine that shares nothing with the daemon's: no runtime directory, an endpoint only."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GRADWATCH_")}
    (home / "elsewhere").mkdir(mode=0o700, exist_ok=True)
    env = {**kept, "GRADWATCH_RUNTIME_DIR": str(home / "elsewhere"), "GRADWATCH_ENDPOINT": endpoint}
    command = [sys.executable, small_agent.__file__, run, str(updates), str(pace_ms), str(home / f"{run}.jsonl")]
    return subprocess.Popen(command, env=env)


def _make_key(daemon: DaemonProcess, name: str) -> str:
    """The endpoint for a trainer, with this machine under its loopback address: its own name may not resolve here."""
    done = _cli(daemon, "keys", "add", name, "--json")
    assert done.returncode == 0, done.stderr
    address, question, query = str(json.loads(done.stdout)["endpoint"]).partition("?")
    return f"tcp://127.0.0.1:{address.rpartition(':')[2]}{question}{query}"


def test_trainer_without_a_registered_key_trains_on_and_nothing_of_it_arrives(
    open_daemon: DaemonProcess, tmp_path: Path
) -> None:
    """Refused in the handshake; its exit code is that of a run without a daemon."""
    endpoint = _make_key(open_daemon, "gpu7")
    assert _cli(open_daemon, "keys", "revoke", "gpu7").returncode == 0
    server = endpoint.partition("server=")[2][:64]
    impostor = _make_key(open_daemon, "gpu8").replace(server, "ab" * 32)
    trainers = [
        _trainer(tmp_path, "plain", endpoint.partition("?")[0], 50, 1),
        _trainer(tmp_path, "revoked", endpoint, 50, 1),
        _trainer(tmp_path, "misled", impostor, 50, 1),
    ]

    assert [trainer.wait(60) for trainer in trainers] == [0, 0, 0]
    assert json.loads(_cli(open_daemon, "runs", "--json").stdout)["items"] == []
    assert open_daemon.get("/api/v1/daemon")["refused"]["key-unknown"] >= 1


def test_trainer_with_a_key_is_recorded_and_silenced_when_the_key_is_revoked(
    open_daemon: DaemonProcess, tmp_path: Path
) -> None:
    """On the open connection, at once; a local trainer of the same user needs no key and is heard all along."""
    endpoint = _make_key(open_daemon, "gpu7")
    assert "GRADWATCH_ENDPOINT='tcp://" in _cli(open_daemon, "keys", "add", "gpu8").stdout
    far = _trainer(tmp_path, "far", endpoint, 100_000, 5)
    try:
        wait_for(lambda: ((open_daemon.run("far") or {}).get("update_last") or 0) > 20, "rows from the other machine")
        near = [sys.executable, small_agent.__file__, "near", "20", "1", str(tmp_path / "near.jsonl")]
        assert subprocess.run(near, env=open_daemon.environment, timeout=60, check=False).returncode == 0
        wait_for(lambda: (open_daemon.run("near") or {}).get("state") == "finished", "the local run")
        assert _cli(open_daemon, "keys", "revoke", "gpu7").returncode == 0
        refused = wait_for(lambda: open_daemon.get("/api/v1/daemon")["refused"].get("key-unknown", 0), "its frames refused")
        stopped_at = open_daemon.run("far")["update_last"]
        wait_for(lambda: open_daemon.get("/api/v1/daemon")["refused"]["key-unknown"] > refused + 1, "more of them")
        assert open_daemon.run("far")["update_last"] == stopped_at
        assert far.poll() is None
    finally:
        far.kill()
        far.wait(10)
    listed = json.loads(_cli(open_daemon, "keys", "list", "--json").stdout)["items"]
    assert [item["name"] for item in listed] == ["gpu8"]
    assert "secret" not in json.dumps(listed)


def test_keys_outlive_a_restart(open_daemon: DaemonProcess, tmp_path: Path) -> None:
    """Trainers of other machines must not be refused because the daemon was."""
    endpoint = _make_key(open_daemon, "gpu7")
    port = endpoint.partition("?")[0].rpartition(":")[2]
    open_daemon.kill()
    with DaemonProcess(tmp_path, "--ingest", f"tcp://0.0.0.0:{port}") as again:
        assert _trainer(tmp_path, "after", endpoint, 20, 1).wait(60) == 0
        wait_for(lambda: (again.run("after") or {}).get("state") == "finished", "the run over the old key")
        assert again.run("after")["coverage"] == {"received": 20, "lost": 0, "share": 1.0, "thinned": 0}


def test_keys_where_ingest_is_local_are_refused_with_the_flag(tmp_path: Path) -> None:
    """Nobody hands out a key that leads nowhere."""
    with DaemonProcess(tmp_path) as daemon:
        done = _cli(daemon, "keys", "add", "gpu7")
    assert done.returncode == 5
    assert "--ingest tcp://ADDRESS:PORT" in done.stderr
