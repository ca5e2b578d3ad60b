"""`gradwatch serve` as an operator meets it: refusals, hostile peers, the command line beside it, a clean end."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest
import zmq

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from harness import small_agent
from harness.daemon_process import DaemonProcess, python, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _serve(daemon: DaemonProcess, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "serve", *flags]
    return subprocess.run(command, env=daemon.environment, capture_output=True, text=True, timeout=60, check=False)


def _cli(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", *arguments]
    return subprocess.run(command, env=daemon.environment, capture_output=True, text=True, timeout=60, check=False)


def test_serve_on_a_taken_port_says_by_whom_and_which_flag(tmp_path: Path) -> None:
    """One line, exit code 5, nothing left behind."""
    daemon = DaemonProcess(tmp_path)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = _serve(daemon, "--http", f"127.0.0.1:{port}", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 5
    assert f"127.0.0.1:{port}" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    assert "--http" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "connection.json").exists()


def test_command_line_beside_a_killed_daemon_gives_its_token_to_nobody(tmp_path: Path) -> None:
    """Something else listens at its port by then. After a restart everything is as before."""
    with DaemonProcess(tmp_path) as daemon:
        port = int(daemon.connection.url.rpartition(":")[2])
        assert _cli(daemon, "status").returncode == 0
        daemon.kill()
        with socket.socket() as impostor:
            impostor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            impostor.bind(("127.0.0.1", port))
            impostor.listen()
            impostor.settimeout(0.1)
            told = _cli(daemon, "status")
            with pytest.raises(TimeoutError):
                impostor.accept()
        assert told.returncode == 4
        assert "is gone" in told.stderr
        daemon.start()
        assert _cli(daemon, "status").returncode == 0


def test_serve_with_an_unusable_data_directory_refuses_to_start(tmp_path: Path) -> None:
    """A record that cannot be kept is not begun."""
    (tmp_path / "file").write_text("")
    done = _serve(DaemonProcess(tmp_path), "--http", "127.0.0.1:0", "--data-dir", str(tmp_path / "file" / "data"))
    assert done.returncode == 5
    assert "Not a directory" in done.stderr
    assert "--data-dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_with_an_unknown_threshold_names_the_nearest(tmp_path: Path) -> None:
    """A typing mistake in the configuration must not leave the old limit in force silently."""
    config = tmp_path / "gradwatch.toml"
    config.write_text("[thresholds.kl_extrem]\nk3 = 1.0\n")
    done = _serve(DaemonProcess(tmp_path), "--config", str(config), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "kl_extreme" in done.stderr


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon for the tests that leave it as it was."""
    with DaemonProcess(tmp_path_factory.mktemp("serve")) as process:
        yield process


def test_second_daemon_in_the_same_runtime_directory_is_refused(daemon: DaemonProcess) -> None:
    """It would take over the socket of the first without a word."""
    done = _serve(daemon, "--http", "127.0.0.1:0", "--data-dir", str(daemon.home / "other"))
    assert done.returncode == 5
    assert daemon.process is not None
    assert f"pid {daemon.process.pid}" in done.stderr
    assert daemon.get("/livez")["status"] == "alive"


def test_hostile_peer_is_refused_and_quarantined_while_honest_rows_pass(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Random bytes, cut frames and wrong majors: the daemon lives, an honest session loses nothing."""
    chance = random.Random(3)
    truth = tmp_path / "truth.jsonl"
    trainer = python(daemon, small_agent.__file__, "honest", "120", "10", str(truth))
    good = encode(m.Ping(1))
    with zmq.Context() as context, context.socket(zmq.DEALER) as vandal:
        vandal.setsockopt(zmq.LINGER, 0)
        vandal.setsockopt(zmq.RCVTIMEO, 10_000)
        vandal.connect(daemon.connection.ingest)
        vandal.send(good[:4] + b"\x09" + good[5:])
        refusal = decode(vandal.recv())
        assert isinstance(refusal, m.Refuse)
        assert (refusal.code, refusal.supported) == ("protocol-unsupported", (1,))
        answers = []
        for _ in range(20):
            vandal.send(chance.choice([chance.randbytes(chance.randint(0, 300)), good[: chance.randint(0, len(good) - 1)]]))
        while "quarantined" not in answers:
            answer = decode(vandal.recv())
            assert isinstance(answer, m.Refuse)
            answers.append(answer.code)
        assert trainer.wait(30) == 0
    wait_for(lambda: daemon.run("honest")["state"] == "finished", "the honest run to end")
    assert daemon.run("honest")["coverage"] == {"received": 120, "lost": 0, "share": 1.0, "thinned": 0}


def test_command_line_finds_the_daemon_shows_runs_and_waits_for_an_escalation(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The three commands of the README, against a live run."""
    trainer = python(daemon, small_agent.__file__, "ant-ppo", "1000", "10", str(tmp_path / "truth.jsonl"))
    wait_for(lambda: ((daemon.run("ant-ppo") or {}).get("update_last") or 0) > 3, "the first updates")
    listed = json.loads(_cli(daemon, "runs", "--json").stdout)
    assert [run["state"] for run in listed["items"] if run["run"] == "ant-ppo"] == ["live"]
    done = _cli(daemon, "escalate", "ant-ppo", "--level", "debug", "--for", "500", "--wait", "--json")
    escalation = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (escalation["state"], escalation["origin"], escalation["updates"]) == ("applied", "operator", 500)
    assert daemon.run("ant-ppo")["level"]["effective"] in ("normal", "debug")
    wait_for(lambda: daemon.run("ant-ppo")["level"]["effective"] == "debug", "rows at the level")
    missing = _cli(daemon, "escalate", "ant-pp", "--level", "debug", "--for", "5")
    assert missing.returncode == 3
    assert "ant-ppo" in missing.stderr
    assert _cli(daemon, "anomalies", "ant-ppo", "--json").returncode == 0
    assert _cli(daemon, "token").stdout.strip() == daemon.token
    trainer.terminate()
    trainer.wait(10)


@pytest.mark.parametrize("ingest", ["auto", "tcp://127.0.0.1:0"])
def test_trainer_that_was_there_first_finds_the_daemon_and_again_when_it_moved(tmp_path: Path, ingest: str) -> None:
    """The order in which people start things, and a restart on another port, are not the trainer's concern."""
    late = DaemonProcess(tmp_path, "--ingest", ingest)
    late.runtime_dir.mkdir(mode=0o700)
    truth = tmp_path / "truth.jsonl"
    trainer = python(late, small_agent.__file__, "early", "600", "10", str(truth))
    wait_for(lambda: truth.exists() and len(truth.read_text().splitlines()) > 5, "the trainer to train")
    with late:
        wait_for(lambda: ((late.run("early") or {}).get("update_last") or 0) > 100, "its first updates to arrive")
        late.kill()
        late.start()
        assert trainer.wait(60) == 0
        wait_for(lambda: late.run("early")["state"] == "finished", "the run to finish")
        assert late.run("early")["coverage"] == {"received": 600, "lost": 0, "share": 1.0, "thinned": 0}
        assert late.run("early")["attempt"] == 1


def test_backup_of_a_running_daemon_replays_like_the_run(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Found without naming a directory; another machine reads the file alone."""
    truth = tmp_path / "truth.jsonl"
    assert python(daemon, small_agent.__file__, "kept", "40", "1", str(truth)).wait(60) == 0
    wait_for(lambda: (daemon.run("kept") or {}).get("state") == "finished", "the run to finish")
    copy = tmp_path / "copy.db"
    done = _cli(daemon, "export", "--backup", str(copy))
    assert (done.returncode, done.stdout.strip()) == (0, str(copy)), done.stderr
    assert _cli(daemon, "export", "--backup", str(copy)).returncode == 5
    replayed = json.loads(_cli(daemon, "replay", str(copy), "--run", "kept", "--json", "--allow-blind").stdout)
    assert replayed["run"] == "kept"
    assert replayed["rows"] == 40


def test_trainer_ended_by_ctrl_c_is_stopped_and_not_finished(daemon: DaemonProcess) -> None:
    """Nobody should take an interrupted run for a whole one."""
    code = "from gradwatch_agent import watch; mon = watch(run='by-hand', updates_total=9); mon.step(score=1.0)"
    code += "; raise KeyboardInterrupt"
    trainer = python(daemon, "-c", code, stderr=subprocess.DEVNULL)
    assert trainer.wait(30) != 0
    view = wait_for(lambda: (v := daemon.run("by-hand")) and not v["live"] and v, "the run to end")
    assert view["state"] == "stopped"
    assert view["sentence"].startswith("Stopped by hand after update 0 of 9.")


def test_sigterm_ends_open_streams_and_the_daemon_at_once(tmp_path: Path) -> None:
    """Exit code 0, the store closed, connection.json gone."""
    with DaemonProcess(tmp_path) as process:
        connection = process.connection
        request = urllib.request.Request(
            f"{connection.url}/api/v1/stream", headers={"Authorization": f"Bearer {process.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as stream:
            assert b"event: hello\n" in iter(stream.readline, b"")
            assert process.stop() == 0
            rest = stream.read()
        assert b"event: bye" in rest
        assert not (process.runtime_dir / "connection.json").exists()
        assert "Traceback" not in process.log
