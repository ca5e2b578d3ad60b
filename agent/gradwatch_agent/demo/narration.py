"""What the demo tells the person in front of it. Everything goes to stderr; stdout is for `--json`."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from shutil import which
from typing import TYPE_CHECKING, Any

from gradwatch_agent.demo.faults import TRAINERS

if TYPE_CHECKING:
    from gradwatch_agent.demo.faults import Fault
    from gradwatch_agent.demo.watching import Watcher
    from gradwatch_contracts.connection import Connection

BAR = 30

ID_SHOWN = 8
"""Characters of an anomaly's id that are enough to ask about it."""


class Narration:
    """Prints each thing once, as it happens; keeps a progress bar on the last line of a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._said: set[tuple[str, ...]] = set()
        self._decile = -1

    def begin(self, fault: Fault, seed: int, connection: Connection, trainer_pid: int) -> None:
        """The cast."""
        self._line(f"gradwatch demo: {TRAINERS[fault.trainer]}, seed {seed}.")
        when = f" (from update {fault.update})" if fault.expected else ""
        self._line(f"  fault     {fault.name}: {fault.what}{when}")
        self._line(f"  daemon    {connection.url}, pid {connection.pid}")
        self._line(f"  trainer   python -m gradwatch_agent.demo.{fault.trainer}, pid {trainer_pid}")

    def show(self, watcher: Watcher, updates: int) -> None:
        """Say what is new, then redraw the bar."""
        for anomaly in list(watcher.anomalies.values()):
            self._anomaly(anomaly)
        for escalation in list(watcher.escalations.values()):
            self._escalation(escalation)
        self._bar(watcher.run, updates)

    def ended(self, code: int | None, run: dict[str, Any]) -> None:
        """How the trainer ended."""
        self._line(f"  trainer ended with exit code {code}; the daemon says: {run.get('sentence', 'nothing yet')}")

    def verdict(self, result: dict[str, Any], fault: Fault, keep: str) -> None:
        """The last words: found or not, and what to type next. `keep` is where the data stays, '' for nowhere."""
        planted = " or ".join(fault.expected)
        if not fault.expected:
            kinds = ", ".join(sorted({a["kind"] for a in result["anomalies"] if a["severity"] != "info"}))
            self._line(f"FALSE ALARM on a healthy run: {kinds}." if kinds else "Healthy run: nothing above info.")
        elif result["found"]:
            seen = next(a for a in result["anomalies"] if fault.raised(a))
            self._line(
                f"Found: {seen['kind']} planted at update {fault.update}, onset seen at update {seen['update_onset']}, "
                f"visible over HTTP {result['visible_ms']} ms after the update ended."
            )
        else:
            kinds = ", ".join(sorted({a["kind"] for a in result["anomalies"]})) or "nothing"
            self._line(f"NOT FOUND: expected {planted} within {fault.within} updates of update {fault.update}, saw {kinds}.")
        self._further(result, fault, keep)

    def _further(self, result: dict[str, Any], fault: Fault, keep: str) -> None:
        seen = next((a for a in result["anomalies"] if fault.raised(a)), next(iter(result["anomalies"]), None))
        if which("gradwatch") is None:
            self._line(f"Once in this shell: . {Path(sys.executable).parent / 'activate'}")
        if keep:
            self._line("Ask about it, the first in a terminal of its own:")
            self._line(f"  gradwatch serve --data-dir {quote(str(Path(keep) / 'data'))}")
            self._line(f"  gradwatch anomalies {result['run']}")
            if seen is not None:
                self._line(f"  gradwatch explain {seen['id'][:ID_SHOWN]}")
            self._line("  gradwatch token link      # the dashboard")
        else:
            if seen is not None:
                self._line(f"What it means: gradwatch explain {seen['kind']}")
            self._line("This run was not kept. To ask about one afterwards: gradwatch demo --keep DIR")
        self._line("Your own trainer: gradwatch serve, then gradwatch run -- python train.py; README.md has the lines.")

    def _escalation(self, escalation: dict[str, Any]) -> None:
        who = "you, over HTTP," if escalation["origin"] == "operator" else "the daemon, by itself,"
        level = escalation["level"].upper()
        said = {
            "requested": f"{who} asked for {level} for {escalation['updates']} updates",
            "applied": f"{level} applied at update {escalation['update_applied']} (asked for by {who[:-1]})",
            "ended": f"{level} ended at update {escalation['update_ended']} ({escalation['ended_why']})",
        }
        order = ("requested", "applied", "ended")
        reached = {"requested": 1, "delivered": 1, "applied": 2, "ended": 3}.get(escalation["state"], 1)
        for state in order[:reached]:
            self._once(("escalation", escalation["id"], state), f"  level     {said[state]}")

    def _anomaly(self, anomaly: dict[str, Any]) -> None:
        mark = {"critical": "!!", "warning": "! ", "info": "i "}[anomaly["severity"]]
        key = ("anomaly", anomaly["id"])
        if key not in self._said:
            self._once(key, f"  {mark}        {anomaly['severity']} {anomaly['kind']}: {anomaly['sentence']}")
            for number, text in enumerate(anomaly["try"][:2], 1):
                self._line(f"            try {number}: {text}")
        if anomaly["state"] == "resolved":
            self._once((*key, "resolved"), f"            {anomaly['kind']} resolved at update {anomaly['update_resolved']}")

    def _bar(self, run: dict[str, Any], updates: int) -> None:
        if self._quiet or not run or run.get("update_last") is None:
            return
        done = run["update_last"] + 1
        level = (run["level"]["effective"] or "?").upper()
        filled = BAR * done // updates
        text = f"  [{'#' * filled}{'-' * (BAR - filled)}] {done}/{updates} updates, level {level}"
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        elif 10 * done // updates > self._decile:
            self._decile = 10 * done // updates
            self._line(text)

    def _once(self, key: tuple[str, ...], text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._line(text)

    def _line(self, text: str) -> None:
        if not self._quiet:
            sys.stderr.write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")
            sys.stderr.flush()
