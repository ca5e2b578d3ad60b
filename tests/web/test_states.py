"""Every state that is not "all is well": nothing yet, learning, blind, degraded, read-only, refused, and hostile names."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

from harness import obedient_trainer
from harness.browser import opened
from harness.daemon_process import DaemonProcess, python, wait_for
from harness.recorded_trainer import RecordedTrainer, recording

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from playwright.sync_api import Browser, Route

    from conftest import Fleet


def _changed(**changes: Any) -> Any:
    """A handler that changes fields of a JSON answer."""

    def handle(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=json.dumps({**answer.json(), **changes}))

    return handle


def test_daemon_without_runs_teaches_how_to_begin(browser: Browser, tmp_path: Path) -> None:
    """The empty page has the commands and the lines, and takes the first run without a reload."""
    with DaemonProcess(tmp_path) as daemon, opened(browser, daemon) as tab:
        page = tab.go("/")
        said = page.inner_text("main")
        trainer = RecordedTrainer(recording("plain-grid"), daemon.environment, "first")
        trainer.send(1)
        page.wait_for_selector("tr[data-run=first]")
        trainer.link.close(1.0)

    assert [word for word in ("No run yet", "gradwatch demo", "mon = watch(", "gradwatch run --") if word not in said] == []


def test_young_run_says_what_learns_and_never_that_all_is_well(fleet: Fleet, browser: Browser) -> None:
    """Learning cells say how far they are."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/young", ".strip .cell.learning")
        label = page.get_attribute(".strip .cell.learning", "aria-label")
        said = page.inner_text("main").lower()

    assert label is not None
    assert "updates" in label
    assert "healthy" not in said


def test_degraded_daemon_is_said_on_every_page(fleet: Fleet, browser: Browser) -> None:
    """Why, and what becomes of the rows meanwhile; a full disk is said before it is too late."""
    with opened(browser, fleet.daemon) as tab:
        tab.page.route("**/api/v1/daemon", _changed(ready=False, trouble=["the disk is full"]))
        page = tab.go("/runs/healthy")
        page.wait_for_selector(".bar.critical:has-text('the disk is full')")
    with opened(browser, fleet.daemon) as tab:
        tab.page.route("**/api/v1/daemon", _changed(data_dir={"path": "/data", "free_bytes": 9 << 20, "size_bytes": 1 << 40}))
        page = tab.go("/")
        page.wait_for_selector(".bar.warning:has-text('9 MiB')")


def test_read_only_token_sees_controls_that_say_why_they_do_nothing(fleet: Fleet, browser: Browser) -> None:
    """People learn what exists; the keyboard does nothing either."""
    made = fleet.daemon.post("/api/v1/tokens", {"name": "wall", "scope": "read", "lifetime_s": 3600})
    anomaly = fleet.daemon.get("/api/v1/anomalies?run=ratex100")["items"][0]
    with opened(browser, fleet.daemon, token=made["token"]) as tab:
        page = tab.go("/runs/ratex100", ".levelbar")
        button = page.locator("button:has-text('Escalate…')")
        assert button.is_disabled()
        assert "wall" in (button.get_attribute("title") or "")
        page.keyboard.press("e")
        assert page.locator("dialog[open]").count() == 0
        page.wait_for_selector(".bar:has-text('Read only')")
        page = tab.go(f"/anomalies/{anomaly['id']}", ".attention")
        assert page.locator(".attention > button").evaluate_all("all => all.every(one => one.disabled)")


def test_refused_escalation_is_said_in_the_dialog(fleet: Fleet, browser: Browser) -> None:
    """What, why and what next, in the daemon's words; nothing is shown as asked for."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/ratex100", ".levelbar")
        page.click("button:has-text('Escalate…')")
        page.evaluate("document.querySelector('dialog[open] input[name=updates]').removeAttribute('max')")
        page.fill("dialog[open] input[name=updates]", "99999999")
        page.click("dialog[open] button.primary")
        page.wait_for_selector("dialog[open] .trouble:has-text('invalid-body')")


def test_finished_run_has_no_escalation_and_says_why(fleet: Fleet, browser: Browser) -> None:
    """Nobody would apply it."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/nan-obs", ".levelbar")
        button = page.locator("button:has-text('Escalate…')")
        assert button.is_disabled()
        assert "finished" in (button.get_attribute("title") or "")


def test_requests_that_fail_are_said_with_a_way_to_try_again(fleet: Fleet, browser: Browser) -> None:
    """The charts' answer is refused once: the trouble is shown whole, and goes when it works."""
    broken = {"code": "overloaded", "title": "Too busy.", "detail": "", "hint": "Wait.", "instance": "/x", "status": 503}
    with opened(browser, fleet.daemon) as tab:
        tab.page.route("**/chart?**", lambda route: route.fulfill(status=503, body=json.dumps(broken)))
        page = tab.go("/runs/healthy", ".trouble:has-text('Too busy.')")
        page.unroute("**/chart?**")
        page.click("button:has-text('try again')")
        page.wait_for_selector(".trouble", state="detached")
        page.wait_for_selector(".panel canvas")


def test_names_that_look_like_markup_stay_names(fleet: Fleet, browser: Browser) -> None:
    """A trainer names its group, tags and configuration; none of it becomes a part of the page."""
    evil = "<img src=x onerror=document.title='owned'>"
    fleet.play("plain-grid", "named", 2, group=evil, tags={"team": evil})
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/", "tr[data-run=named]")
        assert evil in page.inner_text("tr[data-run=named]")
        page = tab.go("/runs/named", ".levelbar")
        page.click("text=Configuration")
        assert evil in page.inner_text(".facts")
        assert page.locator("img").count() == 0
        assert "owned" not in page.title()


def _told(fleet: Fleet, run: str) -> str:
    return f"State: {fleet.daemon.get(f'/api/v1/runs/{run}/commands')['items'][0]['state']}"


def test_address_cut_within_a_code_still_leads_to_a_page(fleet: Fleet, browser: Browser) -> None:
    """What is no percent-encoding is a name like any other, here of a run that nobody knows."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/ant%2", "main h1, main .trouble, main [role=alert]")
        assert "ant%2" in page.inner_text("main")


def test_commands_are_offered_only_where_the_trainer_takes_them(fleet: Fleet, browser: Browser) -> None:
    """A verb has a button if the trainer declared it, and its life is shown as far as it came."""
    fleet.play("plain-grid", "takes", 3, verbs=("stop", "checkpoint"))
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/takes", "[aria-label=Commands]")
        offered = page.locator("[aria-label=Commands] > button").all_inner_texts()
        page.click("button:has-text('Checkpoint…')")
        page.fill("dialog[open] input[name=reason]", "before the maintenance")
        page.click("dialog[open] button.primary")
        page.wait_for_selector("[aria-label=Commands] .life")
        wait_for(
            lambda: _told(fleet, "takes") in (page.get_attribute("[aria-label=Commands] .life", "aria-label") or ""),
            "the state",
        )
        page = tab.go("/runs/healthy", ".levelbar")
        assert page.locator("[aria-label=Commands] > button").count() == 0

    assert offered == ["Stop…", "Checkpoint…"]


def test_profile_asked_for_on_the_page_is_fetched_there_as_a_trace(
    fleet: Fleet, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a trainer that trains: from the button to a file with what its updates did."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    arguments = ("profiled", "20", str(tmp_path / "saved"), "torch")
    trainer = python(fleet.daemon, obedient_trainer.__file__, *arguments, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: "profile" in (fleet.daemon.run("profiled") or {}).get("verbs", ()), "the verb", 60.0)
        with opened(browser, fleet.daemon) as tab:
            page = tab.go("/runs/profiled", "[aria-label=Commands]")
            page.click("button:has-text('Profile…')")
            page.fill("dialog[open] input[name=updates]", "2")
            page.click("dialog[open] button.primary")
            page.wait_for_selector("[aria-label=Commands] .life")
            page.wait_for_selector("a[download]", timeout=60_000)
            with page.expect_download() as download:
                page.click("a[download]")
            trace = tmp_path / "trace.json.gz"
            download.value.save_as(trace)
            name = download.value.suggested_filename
    finally:
        trainer.kill()
        trainer.wait(10)

    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("aten::mm" in str(event.get("name")) for event in events)
    assert name.startswith("trace-profiled-updates-")


def test_crashed_run_shows_the_exception_and_how_it_is_known(fleet: Fleet, browser: Browser) -> None:
    """The type, the words and the traceback that the trainer sent before it ended; the state says by which evidence."""
    trainer = fleet.play("plain-grid", "crashing", 8)
    detail = {"type": "ValueError", "message": "logits are nan", "traceback": "Traceback …\nValueError: logits are nan"}
    trainer.outbox.put_event("exception", 7, time.time_ns(), "ValueError: logits are nan", detail)
    trainer.wait()
    trainer.link.close(5.0, "exception")
    wait_for(lambda: fleet.daemon.run("crashing")["state"] == "crashed", "the run to be crashed")
    run = fleet.daemon.run("crashing")
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/crashing", ".state.crashed")
        assert run["evidence"] in page.inner_text("#sentence")
        assert page.get_attribute(".state.crashed", "title") == run["evidence"]
        page.click("summary:has-text('Traceback')")
        assert "logits are nan" in page.inner_text("section.trouble pre")
