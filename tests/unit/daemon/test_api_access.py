"""Tokens, sessions and the audit over HTTP: what each scope is refused, and that every change is written down."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gradwatch_daemon.api.access import Scope, TokenBook
from gradwatch_daemon.api.auth import CHANGES_BURST, REFUSALS_NOTED_BURST
from harness.fake_api import HOST, TOKEN, FakeAudit, make_daemon, problem_of

RAISE = {"level": "debug", "updates": 5, "id": "e1"}
ORIGIN = f"http://{HOST}"


def _book(scope: Scope) -> tuple[TokenBook, str]:
    book = TokenBook(TOKEN)
    return book, book.add("someone", scope, None, 0)[1]


@pytest.mark.parametrize(
    ("scope", "method", "path", "needed"),
    [
        (Scope.READ, "POST", "/api/v1/runs/ant-ppo/escalations", "operate"),
        (Scope.READ, "DELETE", "/api/v1/runs/ant-ppo/escalations/e1", "operate"),
        (Scope.READ, "GET", "/api/v1/tokens", "admin"),
        (Scope.OPERATE, "POST", "/api/v1/tokens", "admin"),
        (Scope.OPERATE, "DELETE", "/api/v1/tokens/someone", "admin"),
        (Scope.OPERATE, "GET", "/api/v1/audit", "admin"),
        (Scope.READ, "PATCH", "/nothing/here", "operate"),
    ],
)
async def test_token_of_a_smaller_scope_is_forbidden_and_changes_nothing(
    scope: Scope, method: str, path: str, needed: str
) -> None:
    """403 names the scope that is needed and how to get it."""
    book, secret = _book(scope)
    daemon = make_daemon(book=book)
    async with daemon.client(Authorization=f"Bearer {secret}") as client:
        found = problem_of(await client.request(method, path, json=RAISE if method == "POST" else None))

    assert (found["status"], found["code"]) == (403, "forbidden")
    assert f"--scope {needed}" in found["hint"]
    assert (daemon.pipeline.requests, len(book.tokens)) == ([], 1)


async def test_token_of_scope_read_reads_and_operate_escalates() -> None:
    """Each scope includes the ones below it."""
    book, reader = _book(Scope.READ)
    operator = book.add("operator", Scope.OPERATE, None, 0)[1]
    daemon = make_daemon(book=book)
    async with daemon.client(Authorization=f"Bearer {reader}") as client:
        assert (await client.get("/api/v1/runs")).status_code == 200
    async with daemon.client(Authorization=f"Bearer {operator}") as client:
        assert (await client.get("/api/v1/runs")).status_code == 200
        assert (await client.post("/api/v1/runs/ant-ppo/escalations", json=RAISE)).status_code == 202


async def test_token_made_over_http_works_until_it_is_revoked() -> None:
    """The secret is in the answer once, in no list."""
    async with make_daemon().client() as client:
        made = await client.post("/api/v1/tokens", json={"name": "grafana", "scope": "read", "lifetime_s": 3600})
        secret = made.json()["token"]
        listed = await client.get("/api/v1/tokens")
        as_grafana = {"Authorization": f"Bearer {secret}"}
        before = await client.get("/api/v1/runs", headers=as_grafana)
        gone = await client.delete("/api/v1/tokens/grafana")
        after = await client.get("/api/v1/runs", headers=as_grafana)
        again = await client.delete("/api/v1/tokens/grafana")

    assert (made.status_code, before.status_code, gone.status_code, after.status_code) == (201, 200, 200, 401)
    assert [item["name"] for item in listed.json()["items"]] == ["grafana"]
    assert secret not in listed.text
    assert problem_of(again)["code"] == "token-not-found"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "a", "scope": "root"}, "scope"),
        ({"name": "a", "lifetime_s": 0}, "lifetime_s"),
        ({"name": "a", "lifetime_s": -5}, "lifetime_s"),
        ({"name": "a", "scop": "read"}, "did you mean scope"),
        ({}, "name"),
    ],
)
async def test_token_body_with_a_mistake_names_the_field(body: dict[str, Any], said: str) -> None:
    """422, and no token."""
    book = TokenBook(TOKEN)
    async with make_daemon(book=book).client() as client:
        found = problem_of(await client.post("/api/v1/tokens", json=body))

    assert (found["status"], found["code"]) == (422, "invalid-body")
    assert said in str(found["errors"])
    assert book.tokens == ()


async def test_session_cookie_reads_and_changes_from_our_own_page_only() -> None:
    """A page of another site can make the browser send the cookie's request, but not with our Origin."""
    daemon = make_daemon()
    async with daemon.client() as client:
        opened = await client.post("/session")
        assert opened.status_code == 204
        cookie = opened.headers["set-cookie"]
        del client.headers["Authorization"]
        assert (await client.get("/api/v1/runs")).status_code == 200
        path = "/api/v1/runs/ant-ppo/escalations"
        refused = [
            problem_of(await client.post(path, json=RAISE, headers=headers))["code"]
            for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"https://{HOST}"})
        ]
        assert daemon.pipeline.requests == []
        done = await client.post(path, json=RAISE, headers={"Origin": ORIGIN})
        assert (await client.delete("/session", headers={"Origin": ORIGIN})).status_code == 204
        client.cookies.clear()
        name, _, value = cookie.partition(";")[0].partition("=")
        over = await client.get("/api/v1/runs", headers={"Cookie": f"{name}={value}"})

    assert ("HttpOnly" in cookie, "samesite=strict" in cookie.lower(), "Path=/" in cookie) == (True, True, True)
    assert refused == ["origin-not-allowed"] * 4
    assert done.status_code == 202
    assert problem_of(over)["code"] == "unauthenticated"


@pytest.mark.parametrize("path", ["/session", "/session/codes"])
async def test_session_cookie_opens_no_other_session_and_makes_no_code(path: str) -> None:
    """A cookie that was stolen once would otherwise renew itself for ever."""
    async with make_daemon().client() as client:
        await client.post("/session")
        del client.headers["Authorization"]
        refused = await client.post(path, headers={"Origin": ORIGIN})
        assert (await client.get("/api/v1/runs")).status_code == 200

    assert problem_of(refused)["code"] == "unauthenticated"
    assert "opens no other" in problem_of(refused)["detail"]
    assert "set-cookie" not in refused.headers


async def test_session_cookie_of_a_token_that_expires_is_kept_no_longer() -> None:
    """The browser forgets it when the token ends, and so does the page that shows until when it holds."""
    book = TokenBook(TOKEN)
    _, secret = book.add("minute", Scope.READ, 60.0, time.time_ns())
    async with make_daemon(book=book).client(Authorization=f"Bearer {secret}") as client:
        cookie = (await client.post("/session")).headers["set-cookie"]

    assert 0 < int(cookie.partition("Max-Age=")[2].partition(";")[0]) <= 60


async def test_bearer_with_the_origin_of_another_page_is_refused_for_changes() -> None:
    """A page that got hold of a token still may not use it from a browser."""
    async with make_daemon().client(Origin="http://evil.example") as client:
        found = problem_of(await client.post("/api/v1/runs/ant-ppo/escalations", json=RAISE))
        assert (await client.get("/api/v1/runs")).status_code == 200

    assert found["code"] == "origin-not-allowed"


async def test_changes_beyond_the_allowance_are_rate_limited_with_the_time_to_wait() -> None:
    """A loop that went wrong is told, reading goes on."""
    async with make_daemon().client() as client:
        answers = [await client.delete("/session", headers={"Origin": ORIGIN}) for _ in range(CHANGES_BURST)]
        while answers[-1].status_code == 204:  # a busy machine takes so long that more are allowed meanwhile
            answers.append(await client.delete("/session", headers={"Origin": ORIGIN}))
        found = problem_of(answers[-1])
        assert (await client.get("/api/v1/runs")).status_code == 200

    assert {answer.status_code for answer in answers[:CHANGES_BURST]} == {204}
    assert (found["status"], found["code"]) == (429, "rate-limited")
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_audit_has_every_change_allowed_or_refused_and_no_reading() -> None:
    """Who, from where, what, with what outcome."""
    audit = FakeAudit()
    daemon = make_daemon(audit=audit)
    async with daemon.client() as client:
        await client.get("/api/v1/runs")
        await client.post("/api/v1/runs/ant-ppo/escalations", json={**RAISE, "reason": "KL"})
        await client.post("/api/v1/runs/nobody/escalations", json=RAISE)
        await client.request("DELETE", "/api/v1/tokens/x", headers={"Authorization": "Bearer wrong"})
        listed = (await client.get("/api/v1/audit?limit=2")).json()

    told = [(entry["who"], entry["method"], entry["path"], entry["status"]) for entry in audit.entries]
    assert told == [
        ("owner", "POST", "/api/v1/runs/ant-ppo/escalations", 202),
        ("owner", "POST", "/api/v1/runs/nobody/escalations", 404),
        (None, "DELETE", "/api/v1/tokens/x", 401),
    ]
    assert '"reason":"KL"' in audit.entries[0]["body"].replace(" ", "")
    assert [item["status"] for item in listed["items"]] == [401, 404]
    assert listed["items"][0]["from"] == "127.0.0.1"


async def test_audit_of_refusals_without_end_is_bounded_and_counts_what_it_left_out() -> None:
    """Whoever has no token must not fill the disk of who has; their flood hides nothing of what others changed."""
    audit = FakeAudit()
    extra = 5
    async with make_daemon(audit=audit).client() as client:
        for _ in range(REFUSALS_NOTED_BURST + extra):
            await client.delete("/api/v1/tokens/x", headers={"Authorization": "Bearer wrong"})
        written = len(audit.entries)
        await client.post("/api/v1/runs/ant-ppo/escalations", json=RAISE)
        listed = (await client.get("/api/v1/audit?limit=2")).json()["items"]

    assert written == REFUSALS_NOTED_BURST
    assert [(item["status"], item["unwritten"]) for item in listed] == [(202, extra), (401, 0)]


async def test_audit_that_cannot_be_written_is_shouted_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The change is done and answered; the entry stands in the log instead."""
    audit = FakeAudit()
    audit.full = True
    async with make_daemon(audit=audit).client() as client:
        answer = await client.post("/api/v1/runs/ant-ppo/escalations", json=RAISE)

    assert answer.status_code == 202
    assert "not written to the audit" in caplog.text
    assert "escalations" in caplog.text


async def test_code_opens_one_session_and_then_no_other() -> None:
    """It stands for the token it was made with; used or unknown it is nobody's, and nowhere else it is anything."""
    async with make_daemon().client() as client:
        made = (await client.post("/session/codes")).json()
        del client.headers["Authorization"]
        bearer = {"Authorization": f"Bearer {made['code']}"}
        elsewhere = problem_of(await client.get("/api/v1/runs", headers=bearer))["code"]
        opened = await client.post("/session", headers={**bearer, "Origin": ORIGIN})
        seen = (await client.get("/session")).json()
        client.cookies.clear()
        again = problem_of(await client.post("/session", headers=bearer))["code"]

    assert (elsewhere, opened.status_code, again) == ("unauthenticated", 204, "unauthenticated")
    assert (seen["name"], seen["scope"], seen["expires_at"] is not None) == ("owner", "admin", True)


async def test_code_of_a_reader_allows_reading_only() -> None:
    """A link to look at is no link to change."""
    book = TokenBook(TOKEN)
    _, secret = book.add("viewer", Scope.READ, None, 0)
    async with make_daemon(book=book).client(Authorization=f"Bearer {secret}") as client:
        made = (await client.post("/session/codes")).json()
        del client.headers["Authorization"]
        await client.post("/session", headers={"Authorization": f"Bearer {made['code']}", "Origin": ORIGIN})
        seen = (await client.get("/session")).json()
        refused = await client.post("/api/v1/runs/ant-ppo/escalations", json=RAISE, headers={"Origin": ORIGIN})

    assert (seen["name"], seen["scope"]) == ("viewer", "read")
    assert problem_of(refused)["code"] == "forbidden"


async def test_session_of_a_token_sent_along_says_who_it_is() -> None:
    """Without a browser's session there is no end of one."""
    async with make_daemon().client() as client:
        assert (await client.get("/session")).json() == {"name": "owner", "scope": "admin", "expires_at": None}
