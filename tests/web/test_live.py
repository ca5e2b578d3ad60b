"""The page moves by itself: rows, anomalies, a daemon that goes away and comes back, a page held still."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from harness.browser import opened
from harness.daemon_process import DaemonProcess, wait_for
from harness.recorded_trainer import RecordedTrainer, recording

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

    from conftest import Fleet

KL = ".panel[data-signal='policy.kl.k3']"
MODEL = f'document.querySelector("{KL}").gradwatch()'
LAST = f"{MODEL}.update.at(-1)"


def test_new_rows_and_an_anomaly_appear_without_a_reload(fleet: Fleet, browser: Browser) -> None:
    """The newest update in every panel, and the band, the strip, the sentence and the title of what fired."""
    trainer = fleet.play("P01", "moving", 98)
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/moving", f"{KL} canvas")
        before = page.title()
        trainer.send(1)
        tab.until(f"{LAST} === 98")
        trainer.send(4)
        page.wait_for_selector(".strip .cell.firing.critical:has-text('KL extreme')")
        tab.until(f"{LAST} === 102")
        tab.until(f"{MODEL}.anomalies.some((one) => one.kind === 'kl_extreme' && one.concerned)")
        page.wait_for_selector("#sentence:has-text('critical')")
        page.wait_for_selector(".happened >> text=KL extreme")
        assert page.title() != before


def test_page_held_still_does_not_move_and_catches_up(fleet: Fleet, browser: Browser) -> None:
    """Space holds, space goes on; nothing is lost in between."""
    trainer = fleet.play("plain-grid", "held", 30)
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/held", f"{KL} canvas")
        page.keyboard.press(" ")
        page.wait_for_selector("text=Paused.")
        trainer.send(5)
        trainer.wait()
        wait_for(lambda: fleet.daemon.run("held")["update_last"] == 34, "the daemon to have them")
        assert page.evaluate(LAST) == 29
        page.keyboard.press(" ")
        tab.until(f"{LAST} === 34")


def test_daemon_that_goes_away_is_said_and_the_next_one_asks_who_is_there(browser: Browser, tmp_path: Path) -> None:
    """A page that does not move must not look like a run that does not move; a new daemon asks who is there."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    daemon = DaemonProcess(tmp_path, "--http", f"127.0.0.1:{port}")
    with daemon:
        trainer = RecordedTrainer(recording("plain-cartpole"), daemon.environment, "away")
        trainer.send(20)
        trainer.wait()
        with opened(browser, daemon) as tab:
            page = tab.go("/runs/away", f"{KL} canvas")
            daemon.kill()
            page.wait_for_selector(".bar:has-text('Disconnected')")
            assert "disconnected" in page.inner_text(".livedot")
            daemon.start()
            page.wait_for_selector("#token")
            assert "sign in again" in page.inner_text("[role=status]")
            page.fill("#token", daemon.token)
            page.click("button:has-text('Sign in')")
            page.wait_for_selector(f"{KL} canvas")
        trainer.link.close(0.1)


def test_live_connection_is_one_and_nothing_is_polled_for_rows(fleet: Fleet, browser: Browser) -> None:
    """One stream a page; a row costs one request for all panels."""
    trainer = fleet.play("plain-acrobot", "counted", 40)
    asked: list[str] = []
    with opened(browser, fleet.daemon) as tab:
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.go("/runs/counted", f"{KL} canvas")
        tab.until(f"{LAST} === 39")
        asked_before = len([url for url in asked if "/chart?" in url])
        trainer.send(1)
        tab.until(f"{LAST} === 40")

    assert len([url for url in asked if "/api/v1/stream" in url]) == 1
    assert len([url for url in asked if "/chart?" in url]) - asked_before <= 2
