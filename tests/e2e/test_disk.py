"""The daemon's disk fills up, fails and waits: what is not stored is not acked, and it goes on by itself when it can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from harness.client import Client
from harness.daemon_process import DaemonProcess, wait_for
from harness.faulty_disk import FaultyDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TMPFS_KB = 3_000


def _probe(daemon: DaemonProcess) -> tuple[int, str]:
    """Status and text of /readyz."""
    try:
        with urllib.request.urlopen(f"{daemon.connection.url}/readyz", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _stored(daemon: DaemonProcess, run: str = "client") -> list[int]:
    found: list[int] = daemon.get(f"/api/v1/runs/{run}/series?signal=opt.lr&points=10000")["update"]
    return found


def _metric(daemon: DaemonProcess, name: str) -> float:
    request = urllib.request.Request(f"{daemon.connection.url}/metrics", headers={"Authorization": f"Bearer {daemon.token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(name)))


@pytest.mark.promise("full-no-ack", "full-said", "full-recovers", "full-event")
def test_full_disk_holds_all_acks_says_so_and_recovers_by_itself(tmp_path: Path) -> None:
    """Writes fail with ENOSPC for a while: no ack, 503 with the reason, then every row once."""
    with FaultyDisk(tmp_path) as daemon, Client(daemon.connection.ingest) as client:
        client.wait_for_ack(client.rows(10))
        with daemon.with_fault("full"):
            last = client.rows(10)
            wait_for(lambda: _probe(daemon)[0] == 503, "the daemon to say that it is not ready")
            client.listen(0.5)
            assert client.acked == 9
            assert "the store cannot be written" in _probe(daemon)[1]
            told = daemon.get("/api/v1/daemon")
            assert (told["ready"], told["commit_failures"] > 0) == (False, True)
            assert _metric(daemon, "gradwatch_commit_failures_total") > 0
            command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "doctor", "--json"]
            said = subprocess.run(command, env=daemon.plain, capture_output=True, text=True, timeout=60, check=False).stdout
            assert "the store cannot be written" in said
        client.wait_for_ack(last)
        client.wait_for_ack(client.rows(10))
        assert _probe(daemon)[0] == 200
        assert _stored(daemon) == list(range(30))
        event = wait_for(
            lambda: next((e for e in daemon.get("/api/v1/runs/client/events")["items"] if e["kind"] == "store"), None),
            "the event",
        )
        assert event["detail"]["seconds"] > 0


@pytest.mark.promise("synced", "ack-after-sync")
def test_synced_ack_waits_for_the_disk_and_a_committed_one_does_not(tmp_path: Path) -> None:
    """A sync that hangs holds the ack back, and nothing else does; one that fails is a commit that failed."""
    (tmp_path / "committed").mkdir()
    with FaultyDisk(tmp_path / "committed") as daemon, Client(daemon.connection.ingest) as client:
        with daemon.with_fault("sync-waits"):
            client.wait_for_ack(client.rows(3))
        assert daemon.get("/api/v1/daemon")["ack"] == "committed"
    (tmp_path / "synced").mkdir()
    with FaultyDisk(tmp_path / "synced", "--ack", "synced") as daemon, Client(daemon.connection.ingest) as client:
        client.wait_for_ack(client.rows(3))
        assert daemon.get("/api/v1/daemon")["ack"] == "synced"
        before = len(daemon.syncs)
        with daemon.with_fault("sync-waits"):
            last = client.rows(3)
            wait_for(lambda: len(daemon.syncs) > before, "the sync to begin")
            client.listen(0.5)
            assert client.acked == last - 3
            assert daemon.syncs[before:] == ["begin"]
        client.wait_for_ack(last)
        with daemon.with_fault("sync-fails"):
            last = client.rows(3)
            wait_for(lambda: _probe(daemon)[0] == 503, "the daemon to say that it is not ready")
            client.listen(0.2)
            assert client.acked == last - 3
        client.wait_for_ack(last)
        assert _stored(daemon) == list(range(9))


@contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    """A file system of `TMPFS_KB`; skips where none may be mounted."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_KB}k,mode=700", "none", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.promise("full-no-ack", "full-recovers")
def test_disk_that_is_really_full_is_survived_without_a_restart(tmp_path: Path) -> None:
    """A small tmpfs with a file that takes the room: rows until no ack comes, then the file goes."""
    daemon = DaemonProcess(tmp_path)
    with _small_disk(tmp_path / "data"), daemon, Client(daemon.connection.ingest) as client:
        client.wait_for_ack(client.rows(10))
        ballast = tmp_path / "data" / "ballast"
        room = os.statvfs(tmp_path / "data")
        ballast.write_bytes(bytes(max(room.f_bavail * room.f_frsize - 64 * 1024, 0)))
        last = 9
        while _probe(daemon)[0] == 200 and last < 4_000:
            last = client.rows(20)
            client.listen(0.01)
        acked = client.acked
        assert acked < last
        client.listen(1.0)
        assert client.acked == acked
        ballast.unlink()
        client.wait_for_ack(last)
        assert _probe(daemon)[0] == 200
        assert _stored(daemon) == list(range(last + 1))
        assert daemon.stop() == 0
        wal: Any = json.dumps(sorted(path.name for path in (tmp_path / "data").iterdir()))
        assert "gradwatch.db" in wal
