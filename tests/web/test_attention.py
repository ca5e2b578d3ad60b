"""Anomalies, detectors and silences in the browser: what a person reads and does about them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from harness.browser import PHONE, opened
from harness.daemon_process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

    from conftest import Fleet


def _asked_for(fleet: Fleet, run: str) -> Any:
    """The operator's escalation of a run, None before it is there; a rule's own may be there first."""
    found = fleet.daemon.get(f"/api/v1/runs/{run}/escalations")["items"]
    return next((one for one in found if one["origin"] == "operator"), None)


def _anomaly(fleet: Fleet, run: str, kind: str) -> Any:
    items = fleet.daemon.get(f"/api/v1/anomalies?run={run}&kind={kind}")["items"]
    return next(item for item in items if item["kind"] == kind)


def test_anomaly_says_what_where_in_which_order_and_what_to_try(fleet: Fleet, browser: Browser) -> None:
    """The sentence, the chain with the root first, remedies, the panels around it, and what else moved."""
    anomaly = _anomaly(fleet, "ratex100", "kl_extreme")
    with opened(browser, fleet.daemon) as tab:
        page = tab.go(f"/anomalies/{anomaly['id']}", ".panel[data-signal='policy.kl.k3'] canvas")
        page.wait_for_selector("table.moved tbody tr")
        order = page.locator(".order li").all_inner_texts()
        moved = page.inner_text("table.moved")
        panel = page.evaluate("document.querySelector(\".panel[data-signal='policy.kl.k3']\").gradwatch()")

        evidence = fleet.daemon.get(f"/api/v1/anomalies/{anomaly['id']}")["evidence"]
        assert page.inner_text("#sentence").startswith(anomaly["sentence"])
        assert evidence["sentence"] in page.inner_text(".first")
        assert evidence["playbook"].endswith("kl_extreme")
        assert page.locator(".tries li").all_inner_texts() == anomaly["try"]
    assert len(order) == 1 + len(anomaly["attached"])
    assert "where it began: policy" in order[0]
    assert "policy.clip_fraction" in moved
    assert (panel["update"][0], panel["update"][-1]) == (50, 130)


def test_nonfinite_anomaly_names_what_is_not_finite(fleet: Fleet, browser: Browser) -> None:
    """NaN in the observations: the table of what moved begins with what is not finite, and says so in words."""
    anomaly = _anomaly(fleet, "nan-obs", "nonfinite")
    with opened(browser, fleet.daemon) as tab:
        page = tab.go(f"/anomalies/{anomaly['id']}", "table.moved tbody tr")
        first = page.locator("table.moved tbody tr").first.inner_text()

    assert "NaN" in first
    assert "not finite" in first


def test_anomaly_shows_norms_of_the_layers_that_began_and_the_worst_transitions(fleet: Fleet, browser: Browser) -> None:
    """What the black box holds is a map with its values, at the update it names; transitions are a table to choose from."""
    anomaly = _anomaly(fleet, "ratex100", "kl_extreme")
    layer = {"rank": 0, "update": 99, "step": 2, "layer": "actor.weight"}
    sent = {
        "first_layer": layer,
        "norms": [{"layer": "actor.weight", "what": "gradient", "update": [98, 99, 100], "norm": [None, 41.5, "NaN"]}],
        "exemplars": [
            {"rank": 0, "update": 101, "names": ["ratio", "new_logp"], "index": ["3:17"], "rows": [[9.5, "-Infinity"]]},
            {"rank": 0, "update": 102, "names": ["ratio"], "index": ["0:4"], "rows": [[8.25]]},
        ],
        "tables": [{"kind": "layers", "rank": 0, "update": 101, "href": ""}],
    }

    def told(route: Route) -> None:
        answer = route.fetch()
        document = answer.json()
        route.fulfill(response=answer, json={**document, "evidence": {**document["evidence"], **sent}})

    with opened(browser, fleet.daemon) as tab:
        tab.page.route(f"**/api/v1/anomalies/{anomaly['id']}", told)
        page = tab.go(f"/anomalies/{anomaly['id']}", ".heat canvas")
        began = page.inner_text(".heat")
        page.focus(".heat canvas")
        page.keyboard.press("ArrowRight")
        after = page.inner_text(".heat .value")
        first = page.inner_text("[aria-label^='Worst transitions'] tbody")
        page.select_option("section:has-text('Worst transitions') select", "1")
        second = page.inner_text("[aria-label^='Worst transitions'] tbody")
        layers = page.get_attribute("a:has-text('Every layer around the onset')", "href")

    assert [began.split(), after] == [["actor.weight", "41.5"], "NaN"]
    assert (first.split(), second.split()) == (["3:17", "9.5", "−∞"], ["0:4", "8.25"])
    assert layers == "#/runs/ratex100/layers?update=101&attempt=1"


def test_acknowledge_note_and_undo_are_shown_when_the_daemon_has_them(fleet: Fleet, browser: Browser) -> None:
    """By the button and by the keyboard; what is shown is what the API says."""
    anomaly = _anomaly(fleet, "ratex100", "kl_extreme")
    path = f"/api/v1/anomalies/{anomaly['id']}"
    with opened(browser, fleet.daemon) as tab:
        page = tab.go(f"/anomalies/{anomaly['id']}", ".attention")
        page.click("button:has-text('Acknowledge')")
        page.wait_for_selector(".seen:has-text('acknowledged by owner')")
        assert fleet.daemon.get(path)["acknowledged"]["by"] == "owner"
        page.keyboard.press("n")
        page.fill("dialog textarea", "seed 3 <b>again</b>")
        page.click("dialog[open] button:has-text('Keep')")
        page.wait_for_selector("q:has-text('seed 3 <b>again</b>')")
        page.keyboard.press("a")
        page.wait_for_selector("button:has-text('Acknowledge')")
        assert fleet.daemon.get(path)["acknowledged"] is None


def test_silence_from_the_anomaly_is_listed_with_who_why_and_how_many_and_ends(fleet: Fleet, browser: Browser) -> None:
    """A silence never hides itself: the list has author, reason, what is left of it and what it muted."""
    anomaly = _anomaly(fleet, "nan-obs", "nonfinite")
    with opened(browser, fleet.daemon) as tab:
        page = tab.go(f"/anomalies/{anomaly['id']}", ".attention")
        page.click(".attention button:has-text('Silence')")
        page.fill("dialog[open] input[name=reason]", "a bad environment, known")
        page.click("dialog[open] button.primary")
        page.wait_for_selector(".attention >> text=silenced")
        page.click("nav >> text=Silences")
        page.wait_for_selector("tr.active")
        row = page.inner_text("tr.active")
        page.click("tr.active button:has-text('end it')")
        page.wait_for_selector("text=Nothing is silenced")

    expected = ("NaN or infinity", "a bad environment, known", "nan-obs", "owner", "left", "1 anomaly")
    assert [word for word in expected if word not in row] == []
    assert fleet.daemon.get("/api/v1/silences?state=active")["items"] == []


def test_inbox_on_a_phone_leads_from_the_list_to_an_applied_escalation_in_five_taps(fleet: Fleet, browser: Browser) -> None:
    """Anomalies, the worst, its run, Escalate…, Escalate: and then the page shows what the trainer said, not before."""
    trainer = fleet.play("P02", "pager", 130)
    with opened(browser, fleet.daemon, size=PHONE, has_touch=True) as tab:
        page = tab.go("/anomalies", "tr[data-anomaly]")
        page.fill("#filter", "pager")
        page.tap("tr[data-anomaly]:has-text('pager') th a")
        page.tap("a.back")
        page.tap("button:has-text('Escalate…')")
        page.tap("dialog[open] button:has-text('Escalate')")
        page.wait_for_selector(".escalation .life [aria-current]")
        asked = wait_for(lambda: _asked_for(fleet, "pager"), "the escalation that was asked for")
        page.wait_for_selector(".escalation:has-text('by an operator') .life [aria-current]:has-text('delivered')")
        assert asked["update_applied"] is None
        assert "○ applied" in page.inner_text(".escalation:has-text('by an operator')")
        wait_for(lambda: trainer.is_asked(asked["id"]), "the trainer to be told")
        trainer.send(2)
        page.wait_for_selector(".escalation:has-text('by an operator') .life [aria-current]:has-text('applied at')")
        page.tap(".escalation:has-text('by an operator') button:has-text('end it')")
        wait_for(lambda: not trainer.is_asked(asked["id"]), "the trainer to be told of the end")
        trainer.send(1)
        page.wait_for_selector(".escalation:has-text('by an operator')", state="detached")


def test_base_and_pin_are_set_from_the_page(fleet: Fleet, browser: Browser) -> None:
    """A pin holds whatever rules ask, and is shown beside the level."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/young", ".levelbar")
        page.click("button:has-text('Base, pin…')")
        page.select_option("dialog[open] select[name=pin]", "minimal")
        page.click("dialog[open] button:has-text('Set')")
        page.wait_for_selector(".levelbar >> text=pinned at minimal")
        assert fleet.daemon.run("young")["level"]["pin"] == "minimal"


def test_detectors_show_thresholds_in_force_and_who_is_blind_with_the_line(fleet: Fleet, browser: Browser) -> None:
    """The catalogue, opened at the kind that the strip leads to."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/healthy", ".strip .cell.blind")
        page.click(".strip .cell.blind[aria-label^='Spread of the actions collapses']")
        page.wait_for_selector("[data-kind=std_collapse][open] .standings .blind")
        said = page.inner_text("[data-kind=std_collapse]")
        page.fill("#filter", "kl extreme")
        page.wait_for_selector("[data-kind=std_collapse]", state="detached")
        page.click("[data-kind=kl_extreme] summary")
        limits = page.inner_text("[data-kind=kl_extreme] .thresholds")

    assert "pass std to mon.ppo()" in said
    assert "kl_extreme.k3" in limits
    assert "> 0.5" in limits


def test_layers_without_tables_say_how_to_get_them(fleet: Fleet, browser: Browser) -> None:
    """Collected at debug only: the page says so, and where to raise it."""
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/healthy/layers")
        assert "level debug" in page.inner_text("main .box")


def test_layers_with_tables_shade_them_and_cross_what_is_not_finite(fleet: Fleet, browser: Browser) -> None:
    """A row a layer, a column an update; the arrow keys choose the column, and the values stand beside it."""
    trainer = fleet.play("P03", "layered", 4)
    for update in range(4):
        bad = update == 3
        rows = [[0.5, 2.0, 0.0, 0.0], [float("nan") if bad else 0.25, 3.0, float(bad), 0.0]]
        names = ("grad_norm", "weight_norm", "grad_nonfinite", "weight_nonfinite")
        values = struct.pack("<8d", *rows[0], *rows[1])
        trainer.outbox.put_table("layers", update, ("actor.weight", "critic.weight"), names, values)
    trainer.wait()
    with opened(browser, fleet.daemon) as tab:
        page = tab.go("/runs/layered/layers", ".heat canvas")
        names, last = page.locator(".heat .name").all_inner_texts(), page.locator(".heat .value").all_inner_texts()
        page.focus(".heat canvas")
        page.keyboard.press("ArrowLeft")
        before = page.locator(".heat .value").all_inner_texts()

    assert names == ["actor.weight", "critic.weight"]
    assert (last, before) == (["0.5", "NaN"], ["0.5", "0.25"])
