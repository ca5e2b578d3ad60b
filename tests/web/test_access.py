"""Who cannot see, has no mouse, or a small screen: axe on every page, the keyboard, one map with `gradwatch top`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.keyboard import Where, keys_of
from harness.browser import PHONE, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from conftest import Fleet

AXE = Path(__file__).parents[1] / "data/axe/axe.js"
RULES = "{runOnly: {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}}"
CONTRAST = "{runOnly: ['color-contrast', 'link-in-text-block']}"
PAGES = (
    ("/", ".spark"),
    ("/runs/ratex100", ".panel canvas"),
    ("/runs/nan-obs?signals=policy.kl.k3,policy.std.min", ".panel.empty"),
    ("/anomalies", "tr[data-anomaly]"),
    ("/detectors?kind=kl_spike", "[data-kind=kl_spike][open]"),
    ("/silences", "#sentence"),
    ("/runs/healthy/layers", "main .box"),
    ("/no/such/page", "main h1"),
)


@pytest.mark.parametrize(("theme", "rules"), [("light", RULES), ("dark", CONTRAST)])
def test_axe_finds_nothing_on_any_page(fleet: Fleet, browser: Browser, theme: str, rules: str) -> None:
    """WCAG 2.2 AA as far as a machine can tell; the other theme changes nothing but colours."""
    anomalies = fleet.daemon.get("/api/v1/anomalies?run=ratex100&kind=kl_extreme")["items"]
    faults = []
    with opened(browser, fleet.daemon, color_scheme=theme, bypass_csp=True) as tab:
        page = tab.go("/")
        page.add_script_tag(path=AXE)
        for route, ready in (*PAGES, (f"/anomalies/{anomalies[0]['id']}", "table.moved tbody tr")):
            tab.page.evaluate("(route) => { location.hash = route; }", route)
            page.wait_for_selector(ready)
            faults += _faults(page, route, rules)
        page.keyboard.press("?")
        page.wait_for_selector("dialog[open]")
        faults += _faults(page, "help", rules)

    assert not faults, "\n".join(faults)


def _faults(page: Page, place: str, rules: str) -> list[str]:
    found = page.evaluate(f"axe.run(document, {rules}).then((result) => result.violations)")
    return [f"{place}: {one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"][:3]]


def test_sign_in_page_passes_axe(fleet: Fleet, browser: Browser) -> None:
    """The first page anybody sees."""
    with opened(browser, fleet.daemon, token="", bypass_csp=True) as tab:
        tab.page.goto(tab.url)
        tab.page.wait_for_selector("#token")
        tab.page.add_script_tag(path=AXE)
        found = tab.page.evaluate(f"axe.run(document, {RULES}).then((result) => result.violations.map((one) => one.id))")

    assert found == []


def test_keys_are_those_of_the_shared_map(fleet: Fleet, browser: Browser) -> None:
    """A hand that knows `gradwatch top` knows the page."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/")
        keys = page.evaluate(
            "import(document.querySelector('link[href$=\"keyboard.js\"]').href).then((module) => JSON.stringify(module.KEYS))"
        )

    assert json.loads(keys) == keys_of(Where.WEB)


def test_whole_journey_without_a_mouse(fleet: Fleet, browser: Browser) -> None:
    """From the fleet to the worst run, through a chart by arrow keys, to its anomaly, and back."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/", "tr[data-run=ratex100]")
        page.keyboard.press("/")
        page.keyboard.type("ratex100")
        page.wait_for_selector("tr[data-run=healthy]", state="detached")
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_selector(".panel[data-signal='policy.kl.k3'] canvas")
        page.focus(".panel[data-signal='policy.kl.k3'] .plot")
        for _ in range(3):
            page.keyboard.press("ArrowLeft")
        page.wait_for_selector(".panel[data-signal='grad.norm.mean'] .readout:has-text('at 14')")
        page.keyboard.press("Enter")
        page.wait_for_selector(".attention")
        page.keyboard.press("h")
        page.wait_for_selector(".levelbar")
        page.keyboard.press("x")
        tab.until("location.hash.includes('x=steps')")
        page.keyboard.press("l")
        page.keyboard.press("g")
        page.keyboard.press("a")
        page.wait_for_selector("h1:has-text('Anomalies')")
        page.keyboard.press("?")
        page.wait_for_selector("dialog[open] >> text=Keys and words")


def test_keys_can_be_switched_off(fleet: Fleet, browser: Browser) -> None:
    """For who dictates: a spoken letter must not act (WCAG 2.1.4)."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/")
        page.keyboard.press("?")
        page.uncheck("dialog[open] input[type=checkbox]")
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.keyboard.press("a")
        page.keyboard.press(" ")
        assert page.locator("text=Paused.").count() == 0
        assert page.locator("h1:has-text('Anomalies')").count() == 0


def test_address_holds_axis_zoom_and_signals(fleet: Fleet, browser: Browser) -> None:
    """What is shown is a link that can be sent; env steps and time are the same data over another axis."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/ratex100?x=steps&from=90&to=110&signals=grad.norm.mean", ".panel canvas")
        model = page.evaluate("document.querySelector('.panel').gradwatch()")
        names = page.locator(".panel").count()
        page.drag_and_drop(".u-over", ".u-over", source_position={"x": 40, "y": 50}, target_position={"x": 140, "y": 50})
        tab.until("Number(new URLSearchParams(location.hash.split('?')[1]).get('to')) < 110")

    assert (model["update"][0], model["update"][-1], names) == (90, 110, 1)
    assert model["x"][0] > 1000


def test_no_page_is_wider_than_a_phone(fleet: Fleet, browser: Browser) -> None:
    """At 3 a.m. with a pager link nobody scrolls sideways."""
    widths = {}
    silence = {"run": "young", "kind": None, "reason": "a reason as long as people write them at night", "lifetime_s": 3600}
    made = fleet.daemon.post("/api/v1/silences", silence)
    with opened(browser, fleet.daemon, size=PHONE) as tab:
        for route, ready in PAGES:
            page = tab.go(route, "main h1, main #sentence")
            page.wait_for_selector(ready, state="attached")  # a phone does not show all of it
            widths[route] = page.evaluate("document.documentElement.scrollWidth")

    fleet.daemon.delete(f"/api/v1/silences/{made['id']}")
    assert {route: width for route, width in widths.items() if width > PHONE[0]} == {}
