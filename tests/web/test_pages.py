"""Every page over real recorded runs, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from harness.browser import PHONE, WIDE, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from conftest import Fleet


def test_code_in_the_address_signs_in_once_and_leaves_the_address(fleet: Fleet, browser: Browser) -> None:
    """What `serve` prints opens the page; the code does not stay in the address, and a second use says why it fails."""
    found = re.search(r"dashboard (\S+#code=\S+)", fleet.daemon.log)
    assert found is not None
    with opened(browser, fleet.daemon, token="") as first:
        first.page.goto(found[1])
        first.page.wait_for_selector("table.fleet")
        assert "code=" not in first.page.url
        assert first.page.evaluate("document.cookie") == ""
    with opened(browser, fleet.daemon, token="") as second:
        second.page.goto(found[1])
        assert "used already" in second.page.locator("[role=status]").inner_text()


def test_token_typed_in_signs_in_and_out(fleet: Fleet, browser: Browser) -> None:
    """A wrong one is refused and forgotten; signing out ends the session."""
    with opened(browser, fleet.daemon, token="") as tab:
        page = tab.page
        page.goto(f"{tab.url}/#/runs/ratex100")
        page.fill("#token", "wrong")
        page.click("button:has-text('Sign in')")
        page.wait_for_selector("text=No token of this daemon")
        assert page.input_value("#token") == ""
        page.fill("#token", fleet.daemon.token)
        page.click("button:has-text('Sign in')")
        page.wait_for_selector("h1:has-text('ratex100')")
        page.click("text=sign out")
        page.wait_for_selector("text=Signed out")


def test_fleet_lists_runs_worst_first_and_says_what_is_wrong(fleet: Fleet, browser: Browser) -> None:
    """The sentence counts what is open, says what is blind, and the worst run stands first."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/")
        page.wait_for_selector("tr[data-run=young]")
        said = page.inner_text("#sentence")
        names = page.locator("table.fleet tbody th a").all_inner_texts()
        cut = page.evaluate(
            "(() => { const box = document.querySelector('.scroll'); return box.scrollWidth - box.clientWidth; })()"
        )
        assert page.get_attribute("tr[data-run=healthy] .count.firing", "class") != page.get_attribute(
            "tr[data-run=ratex100] .count.firing", "class"
        )
        page.fill("#filter", "nan")
        page.wait_for_selector("tr[data-run=healthy]", state="detached")
        assert "text=nan" in page.url
        page.wait_for_selector("tr[data-run=nan-obs] .spark .bad")
        assert page.title().startswith("(")

    assert cut == 0, "a column is beyond the edge of the window"
    assert re.search(r"\d+ open anomalies, \d critical", said)
    assert "some detectors are blind" in said
    assert names.index("ratex100") < names.index("healthy")


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_run_status_and_strip_are_above_the_fold(fleet: Fleet, browser: Browser, size: tuple[int, int]) -> None:
    """Without scrolling: the sentence, every state of detectors in words, and each kind as a cell."""
    with opened(browser, fleet.daemon, size=size) as tab:
        page = tab.go("/runs/ratex100", ".strip .cell.firing")
        sentence, strip = page.locator("#sentence").bounding_box(), page.locator(".strip").bounding_box()
        counts = page.inner_text(".strip .counts")
        kinds = page.locator(".strip .cell").count()
        wide = page.evaluate("document.documentElement.scrollWidth")

    assert sentence is not None
    assert strip is not None
    assert strip["y"] + strip["height"] <= size[1]
    assert wide <= size[0]
    assert [word for word in ("firing", "blind", "learning", "ok") if word not in counts] == []
    assert kinds >= 30


def test_panels_draw_limits_bands_and_the_first_values(fleet: Fleet, browser: Browser) -> None:
    """What the chart was given: the limit with its rule's name, the anomaly over its updates, the newest value."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/ratex100", ".panel[data-signal='policy.kl.k3'] canvas")
        panel = page.evaluate("document.querySelector(\".panel[data-signal='policy.kl.k3']\").gradwatch()")
        label = page.get_attribute(".panel[data-signal='policy.kl.k3'] .plot", "aria-label")

    assert "kl_extreme > 0.5" in [limit["text"] for limit in panel["limits"]]
    assert ("kl_extreme", 100) in [(a["kind"], a["update_onset"]) for a in panel["anomalies"] if a["concerned"]]
    assert panel["update"][-1] == 149
    assert max(value for value in panel["last"] if value is not None) > 0.9
    assert label is not None
    assert "anomal" in label


def test_values_that_are_not_finite_are_marks_and_words(fleet: Fleet, browser: Browser) -> None:
    """NaN is neither a gap nor a number: a mark for each update that has it, and the word where the value stands."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/nan-obs", ".panel[data-signal='policy.kl.k3'] canvas")
        panel = page.evaluate("document.querySelector(\".panel[data-signal='policy.kl.k3']\").gradwatch()")
        readout = page.inner_text(".panel[data-signal='policy.kl.k3'] .readout")

    assert panel["nonfinite"][-1] > 0
    assert panel["last"][-1] is None
    assert "NaN" in readout


def test_updates_that_never_came_are_a_gap(fleet: Fleet, browser: Browser) -> None:
    """Three lost records: hatched, said in the head with the share that is covered, and listed with the reason."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/healthy", ".panel[data-signal='policy.kl.k3'] canvas")
        panel = page.evaluate("document.querySelector(\".panel[data-signal='policy.kl.k3']\").gradwatch()")
        head = page.inner_text(".run-head")
        happened = page.inner_text(".happened")

    assert panel["gaps"] == [[60, 63]]
    assert "3 records lost" in head
    assert "outbox full" in happened


def test_signal_that_is_not_sent_keeps_its_panel_with_the_line_to_add(fleet: Fleet, browser: Browser) -> None:
    """Never an empty axis: the reason, and what to write in the trainer."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/ratex100?signals=policy.kl.k3,policy.std.min,rnn.h.rms", ".panel.empty")
        std = page.inner_text(".panel[data-signal='policy.std.min']")
        recurrent = page.inner_text(".panel[data-signal='rnn.h.rms']")

    assert "pass std to mon.ppo()" in std
    assert "mon.recurrent(h, c)" in recurrent


def test_run_that_is_not_there_is_said_in_the_daemons_words(fleet: Fleet, browser: Browser) -> None:
    """The problem with its code and hint, and a way out."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/ratex1000", ".trouble")
        said = page.inner_text(".trouble")

    assert "run-not-found" in said
    assert "Did you mean ratex100?" in said
