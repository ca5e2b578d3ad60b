"""The demo: a daemon, a PPO trainer that breaks on purpose, and what a person would see of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch_agent.demo.watching import Api, Watcher
from gradwatch_contracts.connection import FILE_NAME, Connection

if TYPE_CHECKING:
    from gradwatch_agent.demo.faults import Fault
    from gradwatch_agent.demo.narration import Narration

START_S = 30.0
"""Longest start of the daemon: importing FastAPI on a busy machine takes seconds."""

TRAIN_S = 600.0
"""Longest training before the demo gives up: 40 times what it takes on an idle machine, for a crowded one."""

SETTLE_S = 5.0
"""After the trainer ended: how long its last anomaly may take to appear (usually milliseconds)."""

OPERATOR_UPDATE = 30
"""When the demo plays the operator: well before the fault, so that the two escalations do not mix."""

OPERATOR_UPDATES = 10


class Demo:
    """One demo run. `keep` is a directory for the daemon's data and log; '' keeps nothing."""

    def __init__(self, fault: Fault, seed: int, *, updates: int, pace_ms: int, keep: str, narration: Narration) -> None:
        self._fault = fault
        self._seed = seed
        self._updates = updates
        self._pace_ms = pace_ms
        self._keep = keep
        self._say = narration
        self._run = f"demo-{fault.name}-{seed}"
        self._operator_id = ""

    def play(self) -> dict[str, Any]:
        """Run everything; returns the result document. Every process it starts is ended by its own pid."""
        with ExitStack() as stack:
            home = Path(self._keep) if self._keep else Path(stack.enter_context(tempfile.TemporaryDirectory("-gradwatch")))
            environment = self._environment(home)
            connection = self._start_daemon(stack, home, environment)
            api = Api(connection)
            watcher = Watcher(api)
            watcher.start()
            trainer = self._start_trainer(stack, environment)
            self._say.begin(self._fault, self._seed, connection, trainer.pid)
            self._follow(trainer, api, watcher)
            return self._result(api, watcher)

    def _environment(self, home: Path) -> dict[str, str]:
        runtime = home / "run"
        runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GRADWATCH_")}
        return {**kept, "GRADWATCH_RUNTIME_DIR": str(runtime)}

    def _start_daemon(self, stack: ExitStack, home: Path, environment: dict[str, str]) -> Connection:
        log = stack.enter_context((home / "daemon.log").open("w", encoding="utf-8"))
        command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "serve", "--http", "127.0.0.1:0"]
        command += ["--data-dir", str(home / "data")]
        daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        stack.callback(_end, daemon)
        path = home / "run" / FILE_NAME
        deadline = time.monotonic() + START_S
        while not path.exists():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon did not start:\n{(home / 'daemon.log').read_text()}")
            time.sleep(0.02)
        return Connection.from_json(path.read_text())

    def _start_trainer(self, stack: ExitStack, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        module = f"gradwatch_agent.demo.{self._fault.trainer}"
        command = [sys.executable, "-m", module, "--run", self._run, "--seed", str(self._seed)]
        command += ["--updates", str(self._updates), "--pace-ms", str(self._pace_ms)]
        command += ["--fault", self._fault.name, "--fault-update", str(self._fault.update)]
        trainer = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(_end, trainer)
        return trainer

    def _follow(self, trainer: subprocess.Popen[bytes], api: Api, watcher: Watcher) -> None:
        deadline = time.monotonic() + TRAIN_S
        while trainer.poll() is None and time.monotonic() < deadline:
            watcher.changed.wait(0.2)
            watcher.changed.clear()
            self._operate(api, watcher)
            self._say.show(watcher, self._updates)
        settled = time.monotonic() + SETTLE_S
        while time.monotonic() < settled and not self._settled(watcher):
            watcher.changed.wait(0.1)
            watcher.changed.clear()
        self._say.show(watcher, self._updates)
        self._say.ended(trainer.poll(), watcher.run)

    def _operate(self, api: Api, watcher: Watcher) -> None:
        """Play the operator once: an escalation over HTTP, while the run is healthy."""
        if not self._operator_id and (watcher.run.get("update_last") or 0) >= OPERATOR_UPDATE:
            body = {"level": "debug", "updates": OPERATOR_UPDATES, "reason": "the demo plays the operator"}
            self._operator_id = api.post(f"/api/v1/runs/{self._run}/escalations", body)["id"]

    def _settled(self, watcher: Watcher) -> bool:
        found = any(a["kind"] in self._fault.expected for a in watcher.anomalies.values())
        return (found or not self._fault.expected) and watcher.run.get("state") in ("finished", "stopped", "crashed")

    def _result(self, api: Api, watcher: Watcher) -> dict[str, Any]:
        run = api.get(f"/api/v1/runs/{self._run}")
        anomalies = api.get(f"/api/v1/anomalies?run={self._run}")["items"]
        escalations = api.get(f"/api/v1/runs/{self._run}/escalations")["items"]
        visible = [
            (watcher.seen_ns[a["id"]] - _unix_ns(a["fired_at"])) / 1e6
            for a in anomalies
            if a["id"] in watcher.seen_ns and self._fault.raised(a)
        ]
        return {
            "run": self._run,
            "fault": self._fault.name,
            "seed": self._seed,
            "update_injected": self._fault.update if self._fault.expected else None,
            "updates": 0 if run["update_last"] is None else run["update_last"] + 1,
            "state": run["state"],
            "coverage": run["coverage"],
            "anomalies": anomalies,
            "escalations": escalations,
            "visible_ms": round(min(visible), 3) if visible else None,
            "found": self._fault.found(anomalies),
            "as_expected": self._fault.shown(anomalies),
        }


def _unix_ns(time_text: str) -> int:
    """Of an RFC 3339 time in UTC; milliseconds are what it carries."""
    return int(datetime.fromisoformat(time_text.replace("Z", "+00:00")).timestamp() * 1e9)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def print_result(result: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    json.dump(result, sys.stdout)
    sys.stdout.write("\n")
