"""GET /playbook: pages for whoever was woken."""

from __future__ import annotations

import pytest

from gradwatch_daemon.api.playbook import page_of, written_part
from gradwatch_daemon.catalogue import describe
from gradwatch_daemon.detect.catalogue import CATALOGUE
from gradwatch_daemon.detect.extensions import load_rules
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import make_anomaly


async def test_playbook_of_an_unknown_kind_names_the_nearest() -> None:
    """A link from an older alert."""
    async with make_daemon().client() as client:
        found = problem_of(await client.get("/playbook/kl-spik"))
    assert (found["status"], found["did_you_mean"]) == (404, "kl-spike")


@pytest.mark.parametrize("path", ["/playbook/../token", "/playbook/%2e%2e%2fkl_spike", "/playbook/a/b"])
async def test_playbook_leads_to_no_other_file(path: str) -> None:
    """Only kinds of the catalogue have a page."""
    async with make_daemon().client() as client:
        answer = await client.get(path)
    assert answer.status_code in (401, 404)


async def test_playbook_needs_no_token_but_the_right_host() -> None:
    """A pager link on a phone; a foreign page that rebinds its name gets nothing."""
    daemon = make_daemon()
    async with daemon.client(Authorization="") as client:
        index, page = await client.get("/playbook"), await client.get("/playbook/kl-spike")
        refused = await client.get("/playbook", headers={"Host": "evil.example"})
    assert (index.status_code, page.status_code, refused.status_code) == (200, 200, 421)
    assert "/playbook/kl-spike" in index.text
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    assert page.text.startswith("# KL spike (`kl-spike`)")


async def test_anomaly_links_to_a_page_that_is_there() -> None:
    """The hint leads somewhere."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly()]
    link = (await daemon.get("/anomalies/a1")).json()["evidence"]["playbook"]
    async with daemon.client() as client:
        assert "Lower the learning rate." in (await client.get(link)).text


async def test_anomaly_of_other_rules_links_nowhere() -> None:
    """Its kind has no page here."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(kind="gone")]
    assert (await daemon.get("/anomalies/a1")).json()["evidence"]["playbook"] is None


@pytest.mark.parametrize("kind", [spec.kind for spec in CATALOGUE])
def test_every_kind_has_a_part_written_by_hand(kind: str) -> None:
    """What the numbers cannot say: how to tell it from its look-alikes."""
    written = written_part(kind)
    assert len(written.split()) > 40
    assert "**Tell it from**" in written


def test_page_has_what_its_detector_says() -> None:
    """All of the words that matter at night."""
    info = next(info for info in describe(load_rules("default", {})) if info.kind == "kl_spike")
    page = page_of(info)
    assert all(text in page for text in (info.title, info.meaning, *info.tries, info.fails_when, info.source))
