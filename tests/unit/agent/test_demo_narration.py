"""The last words of the demo: commands that can be typed as they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch_agent.demo.faults import FAULTS
from gradwatch_agent.demo.narration import Narration

if TYPE_CHECKING:
    import pytest

FAULT = FAULTS["nan"]


def _said(capsys: pytest.CaptureFixture[str], found: bool, keep: str) -> str:
    kind = FAULT.expected[0]
    anomaly = {"id": "00a017c4d5e6f708", "kind": kind, "severity": "critical", "root": {"stage": FAULT.stage}}
    items: list[dict[str, Any]] = [{**anomaly, "update_onset": FAULT.update}] if found else []
    result = {"run": "demo-nan-1", "anomalies": items, "found": kind if found else None, "visible_ms": 1.0}
    Narration(quiet=False).verdict(result, FAULT, keep)
    return capsys.readouterr().err


def test_verdict_of_a_demo_that_found_nothing_names_no_anomaly(capsys: pytest.CaptureFixture[str]) -> None:
    """There is none to explain."""
    assert "explain" not in _said(capsys, found=False, keep="")


def test_verdict_without_kept_data_says_how_to_keep_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A kind can be explained without a daemon; an anomaly that is gone cannot."""
    said = _said(capsys, found=True, keep="")

    assert f"gradwatch explain {FAULT.expected[0]}\n" in said
    assert "gradwatch demo --keep DIR" in said


def test_verdict_with_kept_data_names_the_store_the_run_and_the_anomaly(capsys: pytest.CaptureFixture[str]) -> None:
    """A directory with a space is quoted."""
    said = _said(capsys, found=True, keep="my demo")

    assert "gradwatch serve --data-dir 'my demo/data'" in said
    assert "gradwatch anomalies demo-nan-1\n" in said
    assert "gradwatch explain 00a017c4\n" in said
