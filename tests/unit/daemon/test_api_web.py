"""The dashboard's files: open to anybody with a Host of ours, packed, kept for good, and nothing of a run in them."""

from __future__ import annotations

import gzip

import pytest

from gradwatch_daemon.api.web import shipped_files
from harness.fake_api import make_daemon, problem_of


@pytest.mark.parametrize(
    "path", ["/web/nothing/app.js", "/web/@/app.js", "/web/{digest}/../access.py", "/web/{digest}/", "/web"]
)
async def test_files_of_another_version_or_place_are_not_there(path: str) -> None:
    """A page of before an upgrade gets a 404 and not half of the new one; nothing outside the folder is reachable."""
    async with make_daemon().client() as client:
        answer = await client.get(path.format(digest=shipped_files().digest))

    assert problem_of(answer)["code"] == "route-not-found"


async def test_page_from_another_host_is_misdirected() -> None:
    """DNS rebinding: the page must not come up under a name that is not ours."""
    async with make_daemon().client(Host="evil.example", Authorization="") as client:
        assert problem_of(await client.get("/"))["code"] == "host-not-allowed"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_page_takes_no_changes_without_a_token(method: str) -> None:
    """Only reading is open."""
    daemon = make_daemon()
    async with daemon.client() as client:
        del client.headers["Authorization"]
        assert problem_of(await client.request(method, "/"))["code"] == "unauthenticated"


async def test_page_needs_no_token_and_names_every_module_once() -> None:
    """All is loaded at once from below one hash, under a policy that allows nothing inline and nothing from elsewhere."""
    files = shipped_files()
    async with make_daemon().client() as client:
        del client.headers["Authorization"]
        page = await client.get("/")
        loaded = await client.get(f"/web/{files.digest}/app.js")

    assert page.status_code == loaded.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert (page.headers["cache-control"], loaded.headers["cache-control"]) == (
        "no-cache",
        "public, max-age=31536000, immutable",
    )
    for name in files.files:
        if name.endswith((".js", ".css")):
            assert page.text.count(f'"web/{files.digest}/{name}"') == (2 if name == "app.js" else 1), name
    assert loaded.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_files_are_packed_for_who_takes_it() -> None:
    """A browser asks for gzip; what asks for nothing gets the plain file."""
    files = shipped_files()
    path = f"/web/{files.digest}/vendor/uplot.js"
    async with make_daemon().client() as client:
        packed = await client.get(path, headers={"Accept-Encoding": "gzip"})
        plain = await client.get(path, headers={"Accept-Encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.content == plain.content == gzip.decompress(files.files["vendor/uplot.js"].packed)
