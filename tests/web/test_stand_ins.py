"""A run that sends the KL of its last minibatch alone, as `gradwatch run` sees a CleanRL script."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.columns import Schema
from harness.browser import opened
from harness.daemon_process import DaemonProcess, wait_for
from harness.recorded_trainer import RecordedTrainer, recording

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

    from benchmarks.corpus.recording import Recording

ABSENT, JUDGED = "policy.kl.k3", "policy.kl.k3.last"


def _without(played: Recording, name: str) -> Recording:
    part = played.parts[0]
    schema = part.schema
    at = next(place for place, column in enumerate(schema.columns) if column.name == name)
    slots = slice(schema.offsets[at], schema.offsets[at + 1])
    left = Schema.of(column for column in schema.columns if column.name != name)
    values = np.delete(part.values, slots, axis=1)
    return replace(played, parts=(replace(part, schema=left, values=values, status=np.delete(part.status, at, axis=1)),))


def test_stand_in_is_drawn_where_the_signal_is_missed(tmp_path: Path, browser: Browser) -> None:
    """With the limits of its rules, around the onset beside the learning rate, and in the list of runs."""
    with DaemonProcess(tmp_path) as daemon:
        trainer = RecordedTrainer(_without(recording("P01"), ABSENT), daemon.environment, "script")
        try:
            trainer.send(150)
            trainer.wait()
            wait_for(lambda: _kl(daemon), "an anomaly of the KL")
            with opened(browser, daemon) as tab:
                page = tab.go("/runs/script", f".panel[data-signal='{JUDGED}'] canvas")
                panel = page.evaluate(f"document.querySelector(\".panel[data-signal='{JUDGED}']\").gradwatch()")
                missed = page.query_selector(f".panel[data-signal='{ABSENT}']")
                page = tab.go(f"/anomalies/{_kl(daemon)[0]['id']}", f".panel[data-signal='{JUDGED}'] canvas")
                beside = page.query_selector(".panel[data-signal='opt.lr']")
                page = tab.go("/", "td[data-label='KL'] svg, td[data-label='KL'] canvas")
        finally:
            trainer.link.close(1.0)

    assert "kl_extreme > 0.5" in [limit["text"] for limit in panel["limits"]]
    assert any(one["concerned"] for one in panel["anomalies"])
    assert missed is None
    assert beside is not None


def _kl(daemon: DaemonProcess) -> list[dict[str, object]]:
    items = daemon.get("/api/v1/anomalies?run=script")["items"]
    return [item for item in items if item["kind"].startswith("kl_")]
