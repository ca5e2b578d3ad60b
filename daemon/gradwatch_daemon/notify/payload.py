"""What a notification says: one JSON document for every channel, which each then writes in its own form. Pure."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gradwatch_daemon.records.notices import RUN_DOWN, STORE_DOWN

if TYPE_CHECKING:
    from gradwatch_daemon.records import Anomaly

FORMAT = 1
"""Of the document: it grows by new keys; a key keeps its meaning."""


def anomaly_body(anomaly: Anomaly, event: str, url: str) -> dict[str, Any]:
    """An anomaly that fires or is over. `url` is where this daemon is reached."""
    return {
        "format": FORMAT,
        "event": event,
        "about": "anomaly",
        "id": anomaly.id,
        "run": anomaly.run,
        "attempt": anomaly.attempt,
        "kind": anomaly.kind,
        "subject": anomaly.subject,
        "severity": anomaly.severity.value,
        "sentence": anomaly.sentence,
        "update_onset": anomaly.update_onset,
        "update_fired": anomaly.update_fired,
        "update_resolved": anomaly.update_resolved,
        "value": _number(anomaly.value),
        "limit": _number(anomaly.limit),
        "try": list(anomaly.tries),
        "link": f"{url}/#/anomalies/{quote(anomaly.id, safe='')}",
    }


def run_body(run: str, attempt: int, sentence: str, event: str, url: str) -> dict[str, Any]:
    """A run that crashed or was lost, or is there again; the sentence says which."""
    return {
        "format": FORMAT,
        "event": event,
        "about": "run",
        "id": f"{run}/{attempt}",
        "run": run,
        "attempt": attempt,
        "kind": RUN_DOWN,
        "subject": "",
        "severity": "critical",
        "sentence": sentence,
        "link": f"{url}/#/runs/{quote(run, safe='')}",
    }


def store_body(sentence: str, event: str, url: str) -> dict[str, Any]:
    """The daemon's own store, which cannot be written, or can be again."""
    return {**run_body("", 0, sentence, event, url), "about": "daemon", "id": "store", "kind": STORE_DOWN, "link": url}


def test_body(url: str) -> dict[str, Any]:
    """Something to try a channel with. It says that it is nothing else."""
    said = run_body("gradwatch-test", 1, "This is a test of gradwatch: nothing is wrong.", "firing", url)
    return {**said, "about": "test", "kind": "test", "severity": "info", "link": url}


def write(body: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def title(body: dict[str, Any]) -> str:
    """One line for people."""
    over = "resolved: " if body["event"] == "resolved" else ""
    return f"{over}{body['kind']} in {body['run'] or 'the daemon'} ({body['severity']})"


def _number(value: float) -> float | str | None:
    """As HTTP writes it; a limit of NaN stands for a rule without one, and is said the same."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
