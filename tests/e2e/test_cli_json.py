"""What every verb prints with `--json` over a running daemon is what its published schema says."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from gradwatch_daemon.api.command_line import ANSWERS
from gradwatch_daemon.cli.grammar import read_grammar
from gradwatch_daemon.cli.main import main
from gradwatch_daemon.cli.parser import build_parser
from harness import small_agent
from harness.daemon_process import DaemonProcess, python, wait_for
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMAS = Path(__file__).parents[2] / "docs" / "cli-schemas"
NAN = float("nan")
BROKEN = {"loss.total": (16.0, NAN, NAN), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}
ELSEWHERE = {"keys", "stop", "checkpoint", "dump", "profile", "command"}
"""`keys` needs ingest that leaves this machine, the others a trainer that offers them: test_keys.py and test_api_commands.py
hold their answers to the models, of which these schemas are made."""
LIVE, BROKE = "live-run", "ant-ppo"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon over a run with an anomaly and one that is live."""
    home = tmp_path_factory.mktemp("json")
    (home / "data").mkdir(mode=0o700)
    world = World(home / "data")
    world.greet(run=BROKE)
    world.tick(world.rows.samples(50))
    world.tick(world.rows.samples(5, changed=BROKEN))
    world.close()
    with DaemonProcess(home) as process:
        trainer = python(process, small_agent.__file__, LIVE, "9000", "10", str(home / "truth.jsonl"))
        wait_for(lambda: ((process.run(LIVE) or {}).get("update_last") or 0) > 3, "the first updates")
        yield process
        trainer.terminate()
        trainer.wait(10)


def _schema(verb: str) -> Any:
    return json.loads((SCHEMAS / f"{verb}.json").read_text(encoding="utf-8"))


def _said(daemon: DaemonProcess, *argv: str) -> tuple[int, Any]:
    """The command in this process: thirty interpreters would take as many seconds."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        for name in [name for name in os.environ if name.startswith("GRADWATCH_")]:
            patch.delenv(name)
        patch.setenv("GRADWATCH_RUNTIME_DIR", str(daemon.runtime_dir))
        patch.chdir(daemon.home)
        code = main([*argv, "--json"])
    assert out.getvalue(), f"{argv}: {code}"
    return code, json.loads(out.getvalue())


def test_every_verb_with_json_has_a_schema_and_no_schema_is_left_over() -> None:
    """Published beside the page of the command line."""
    verbs = {verb.name for verb in read_grammar(build_parser()) if any("--json" in word.names for word in verb.flags)}

    assert verbs == set(ANSWERS)
    assert {path.stem for path in SCHEMAS.glob("*.json")} == {*ANSWERS, "error"}


def test_schema_refuses_a_document_with_another_shape(daemon: DaemonProcess) -> None:
    """A field more, or one of another type, would be noticed."""
    schema = _schema("version")
    document = _said(daemon, "version")[1]

    assert jsonschema_rs.is_valid(schema, document)
    assert not jsonschema_rs.is_valid(schema, {**document, "more": 1})
    assert not jsonschema_rs.is_valid(schema, {**document, "protocol": "1"})


def test_what_every_verb_prints_fits_its_schema(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Real answers of a real daemon, of every verb and of each of its faces."""
    (anomaly, *_) = daemon.get(f"/api/v1/anomalies?run={BROKE}")["items"]
    (kind, *_) = daemon.get("/api/v1/detectors")["items"]
    log = tmp_path / "old-run" / "progress.csv"
    log.parent.mkdir()
    rows = "".join(f"{i},{i * 2048},{100 + i},0.01\n" for i in range(1, 9))
    log.write_text(f"time/iterations,time/total_timesteps,rollout/ep_rew_mean,train/approx_kl\n{rows}", encoding="utf-8")
    said = [
        ("status",),
        ("status", BROKE),
        ("doctor",),
        ("health",),
        ("version",),
        ("config", "show"),
        ("runs",),
        ("runs", LIVE),
        ("signals", BROKE),
        ("series", BROKE, "loss.total"),
        ("series", BROKE, "loss.total", "--points", "4"),
        ("anomalies",),
        ("detectors",),
        ("detectors", kind["kind"]),
        ("explain", kind["kind"]),
        ("explain", anomaly["id"]),
        ("escalate", LIVE, "--for", "5"),
        ("level", LIVE),
        ("level", LIVE, "--base", "normal"),
        ("calm", LIVE),
        ("ack", anomaly["id"]),
        ("silence", "add", "--run", BROKE, "--for", "1h", "--reason", "known"),
        ("silence", "list"),
        ("notify", "test"),
        ("notify", "list"),
        ("notify", "log"),
        ("commands", LIVE),
        ("token",),
        ("token", "add", "grafana"),
        ("token", "list"),
        ("token", "link"),
        ("token", "revoke", "grafana"),
        ("audit",),
        ("replay", BROKE),
        ("import", str(log.parent)),
        ("export", BROKE, "--out", str(tmp_path / "a.jsonl")),
        ("export", "--backup", str(tmp_path / "a.db")),
    ]
    refused = {}
    for argv in said:
        _, document = _said(daemon, *argv)
        faults = [f"{fault.instance_path}: {fault.message}" for fault in jsonschema_rs.iter_errors(_schema(argv[0]), document)]
        if faults:
            refused[" ".join(argv)] = faults

    assert refused == {}
    assert set(ANSWERS) - {argv[0] for argv in said} == ELSEWHERE
