"""Commands with a real daemon, a real trainer and the real command line: asked, done, stopped, refused."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import urllib.error
from typing import TYPE_CHECKING, Any

import pytest

from harness import obedient_trainer
from harness.daemon_process import DaemonProcess, python, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "obedient"
PATH = f"/api/v1/runs/{RUN}/commands"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path) as process:
        yield process


@pytest.fixture
def trainer(daemon: DaemonProcess) -> Iterator[subprocess.Popen[bytes]]:
    """One that takes checkpoint, explode and stop, in updates of 5 ms."""
    file = str(daemon.home / "saved")
    process = python(daemon, obedient_trainer.__file__, RUN, "5", file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: set((daemon.run(RUN) or {}).get("verbs", ())) >= {"checkpoint", "explode", "stop"}, "its verbs")
    yield process
    process.kill()
    process.communicate()


def cli(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", *arguments]
    return subprocess.run(command, env=daemon.environment, capture_output=True, text=True, timeout=60, check=False)


def refusal(daemon: DaemonProcess, body: dict[str, Any]) -> tuple[int, str, str]:
    """Status, code and hint of what is refused."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        daemon.post(PATH, body)
    with caught.value as error:
        problem = json.load(error)
    return error.code, problem["code"], problem["hint"]


def test_commands_of_a_living_trainer_are_done_fail_and_are_refused_each_with_its_words(
    daemon: DaemonProcess, trainer: subprocess.Popen[bytes]
) -> None:
    """What it offers it does, once; what it does not is a 409 that names the line to add."""
    asked = cli(daemon, "checkpoint", RUN, "--wait", "--json", "--id", "k1", "--reason", "before the maintenance")
    done = json.loads(asked.stdout)
    again = daemon.post(PATH, {"verb": "checkpoint", "id": "k1", "reason": "before the maintenance"})
    failed = cli(daemon, "command", RUN, "explode", "--wait")
    listed = daemon.get(PATH)["items"]

    assert (asked.returncode, done["state"], done["ended_why"]) == (0, "ended", "saved as saved")
    assert (daemon.home / "saved").read_text() == f"{done['update_applied']} None"
    assert (again["state"], again["update_applied"]) == ("ended", done["update_applied"])
    assert failed.returncode == 5
    assert "failed: RuntimeError: no room left" in failed.stdout
    assert [item["verb"] for item in listed] == ["explode", "checkpoint"]
    assert trainer.poll() is None
    status, code, hint = refusal(daemon, {"verb": "save"})
    assert (status, code) == (409, "unsupported-by-run")
    assert "on_command" in hint
    assert refusal(daemon, {"verb": "stop", "rank": 3})[:2] == (409, "rank-not-live")
    assert len(daemon.get(PATH)["items"]) == 2


def test_stop_ends_the_trainer_by_its_own_will_and_the_run_is_stopped(
    daemon: DaemonProcess, trainer: subprocess.Popen[bytes]
) -> None:
    """Exit code 0, within an update of its look; afterwards it can be asked for nothing."""
    asked = cli(daemon, "stop", RUN, "--wait", "--json")
    out, _ = trainer.communicate(timeout=30)
    done = json.loads(asked.stdout)

    assert (asked.returncode, trainer.returncode) == (0, 0)
    assert (done["state"], done["ended_why"]) == ("ended", "the trainer stopped")
    assert int(out) <= done["update_ended"] + 1
    wait_for(lambda: daemon.run(RUN)["state"] == "stopped", "the run to be stopped")
    assert refusal(daemon, {"verb": "stop"})[:2] == (409, "run-not-live")


def test_command_given_while_the_daemon_is_killed_is_done_once(daemon: DaemonProcess, trainer: subprocess.Popen[bytes]) -> None:
    """What was accepted survives kill -9 of the daemon: the trainer's answer finds its command in the next one."""
    daemon.post(PATH, {"verb": "checkpoint", "id": "k1"})
    daemon.kill()
    daemon.start()
    wait_for(lambda: daemon.get(f"{PATH}/k1")["state"] == "ended", "the command to be done")
    first = (daemon.home / "saved").read_text()
    wait_for(lambda: daemon.run(RUN)["live"], "the trainer to be back")
    update = daemon.run(RUN)["update_last"]
    wait_for(lambda: daemon.run(RUN)["update_last"] > update + 10, "ten further updates")

    assert (daemon.home / "saved").read_text() == first
    assert trainer.poll() is None


def test_level_of_a_living_trainer_is_pinned_raised_and_calmed(daemon: DaemonProcess, trainer: subprocess.Popen[bytes]) -> None:
    """A pin holds against an escalation, which begins when it is let go; calm ends it at the next update."""
    pinned = json.loads(cli(daemon, "level", RUN, "--pin", "off", "--wait", "--json").stdout)
    raised = cli(daemon, "escalate", RUN, "--for", "100000", "--id", "e1")
    waiting = daemon.get(f"/api/v1/runs/{RUN}/escalations/e1")
    let_go = cli(daemon, "level", RUN, "--pin", "none", "--base", "minimal")
    wait_for(lambda: daemon.run(RUN)["level"]["effective"] == "debug", "the escalation to hold")
    applied = daemon.get(f"/api/v1/runs/{RUN}/escalations/e1?wait=10")
    calmed = cli(daemon, "calm", RUN)
    wait_for(lambda: daemon.run(RUN)["level"]["effective"] == "minimal", "the base to hold")
    ended = daemon.get(f"/api/v1/runs/{RUN}/escalations/e1")

    assert pinned["level"]["effective"] == "off"
    assert (raised.returncode, let_go.returncode, calmed.returncode) == (0, 0, 0)
    assert waiting["state"] in ("requested", "delivered")
    assert (applied["state"], [one["state"] for one in applied["ranks"]]) == ("applied", ["applied"])
    assert (ended["state"], ended["ended_why"]) == ("ended", "cancelled by an operator")
    assert ended["update_applied"] < ended["update_ended"]
    assert trainer.poll() is None


def test_profile_of_a_living_trainer_comes_whole_and_one_at_a_time(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Chrome trace of the updates that were asked for, fetched by the command line; a second one meanwhile is refused, and no
    file of either stays with the trainer."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file, trace = str(daemon.home / "saved"), daemon.home / "trace.json.gz"
    trainer = python(daemon, obedient_trainer.__file__, RUN, "20", file, "torch", stderr=subprocess.PIPE)
    try:
        wait_for(lambda: "profile" in (daemon.run(RUN) or {}).get("verbs", ()), "the verb", 60.0)
        long = daemon.post(PATH, {"verb": "profile", "args": {"updates": 100}, "id": "long"})
        refused = refusal(daemon, {"verb": "profile"})
        daemon.delete(f"{PATH}/long")
        wait_for(lambda: daemon.get(f"{PATH}/long")["state"] in ("ended", "cancelled"), "the long one to be given up")
        done = cli(daemon, "profile", RUN, "--updates", "2", "--wait", "--json", "--output", str(trace))
        item = json.loads(done.stdout)
        fetched = cli(daemon, "commands", RUN, "--fetch", item["id"], "--output", str(daemon.home / "again.gz"))
        wait_for(lambda: not [*tmp_path.glob("gradwatch-profile-*")], "the trainer to have tidied up")
    finally:
        trainer.kill()
        trainer.communicate()

    assert long["state"] in ("requested", "delivered", "applied")
    assert refused[:2] == (409, "command-under-way")
    assert (done.returncode, item["state"]) == (0, "ended"), done.stderr
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("aten::mm" in str(event.get("name")) for event in events)
    assert item["artifact"]["bytes"] == trace.stat().st_size
    assert item["artifact"]["name"].startswith(f"trace-{RUN}-updates-")
    assert (fetched.returncode, (daemon.home / "again.gz").read_bytes()) == (0, trace.read_bytes())
    assert daemon.get(f"{PATH}/long")["artifact"] is None
