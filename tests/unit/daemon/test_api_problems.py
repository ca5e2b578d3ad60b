"""Every error is a problem document with a code of the one table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.errors import CODES, GradwatchError
from gradwatch_daemon.api.app import BODY_BYTES_MAX, SECURITY_HEADERS
from gradwatch_daemon.api.problem_models import Problem
from harness.fake_api import FakeDaemon, make_daemon, problem_of

if TYPE_CHECKING:
    import httpx

ESCALATIONS = "/api/v1/runs/ant-ppo/escalations"


async def _post(daemon: FakeDaemon, **what: Any) -> httpx.Response:
    async with daemon.client() as client:
        return await client.post(ESCALATIONS, **what)


async def test_route_unknown_is_a_problem_with_every_field() -> None:
    """The whole document, as RFC 9457 and our extensions have it."""
    answer = await make_daemon().get("/rums")

    assert problem_of(answer) == {
        "type": "urn:gradwatch:problem:route-not-found",
        "title": CODES["route-not-found"].title,
        "status": 404,
        "detail": "GET /api/v1/rums",
        "instance": "/api/v1/rums",
        "code": "route-not-found",
        "hint": CODES["route-not-found"].hint,
        "did_you_mean": None,
        "errors": [],
    }
    Problem.model_validate(answer.json())


async def test_route_with_trailing_slash_is_not_found_instead_of_redirected() -> None:
    """A redirect would name the Host header, and lose the body of a POST."""
    assert problem_of(await make_daemon().get("/runs/"))["code"] == "route-not-found"


async def test_method_wrong_names_the_allowed_ones() -> None:
    """405 keeps its Allow header."""
    async with make_daemon().client() as client:
        answer = await client.put("/api/v1/runs")

    assert problem_of(answer)["code"] == "method-not-allowed"
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("query", "pointer", "nearest"),
    [
        ("?severty=critical", "query/severty", "severity"),
        ("?zzzzzz=1", "query/zzzzzz", None),
        ("?run=ant-ppo&run=b", "query/run", None),
        ("?limit=0", "query/limit", None),
        ("?limit=1001", "query/limit", None),
        ("?limit=many", "query/limit", None),
        ("?severity=critcal", "query/severity", "critical"),
        ("?state=fireing", "query/state", "firing"),
        ("?kind=nonfinit", "query/kind", "nonfinite"),
        ("?cursor=%21%21", "query/cursor", None),
        ("?cursor=WzEsMl0", "query/cursor", None),
        ("?cursor=W3RydWUsImEiXQ", "query/cursor", None),
    ],
)
async def test_parameter_unknown_or_bad_is_refused_at_its_place(query: str, pointer: str, nearest: str | None) -> None:
    """400, the field, and the nearest known word; nothing is read."""
    daemon = make_daemon()

    found = problem_of(await daemon.get(f"/anomalies{query}"))

    assert (found["status"], found["code"]) == (400, "invalid-parameter")
    assert [error["pointer"] for error in found["errors"]] == [pointer]
    assert found["did_you_mean"] == nearest
    assert daemon.reader.calls == []


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/api/v1/detectors", "/api/v1/runs/ant-ppo"])
async def test_parameter_on_an_address_without_any_is_refused(path: str) -> None:
    """Also where there is nothing to mistype."""
    async with make_daemon().client() as client:
        found = problem_of(await client.get(f"{path}?verbose=1"))

    assert found["code"] == "invalid-parameter"
    assert "takes no parameters" in found["hint"]


@pytest.mark.parametrize(
    ("body", "pointer", "nearest"),
    [
        (b"{", "body", None),
        (b"\xff", "body", None),
        (b"[]", "body", None),
        (b"", "body", None),
        (b'{"updates": 5}', "body/level", None),
        (b'{"level": "debug"}', "body/updates", None),
        (b'{"level": "debug", "updates": "5"}', "body/updates", None),
        (b'{"level": "debug", "updates": true}', "body/updates", None),
        (b'{"level": "debug", "updates": 1.5}', "body/updates", None),
        (b'{"level": "debug", "updates": NaN}', "body/updates", None),
        (b'{"level": "debug", "updates": 0}', "body/updates", None),
        (b'{"level": "debug", "updates": 1000001}', "body/updates", None),
        (b'{"level": "debig", "updates": 5}', "body/level", "debug"),
        (b'{"level": "off", "updates": 5}', "body/level", None),
        (b'{"level": 3, "updates": 5}', "body/level", None),
        (b'{"level": "debug", "updates": 5, "reson": "x"}', "body/reson", "reason"),
        (b'{"level": "debug", "updates": 5, "id": "a b"}', "body/id", None),
        (b'{"level": "debug", "updates": 5, "id": ""}', "body/id", None),
    ],
)
async def test_body_bad_is_refused_at_its_field(body: bytes, pointer: str, nearest: str | None) -> None:
    """422, the field, and the nearest known word; the pipeline hears nothing."""
    daemon = make_daemon()

    answer = await _post(daemon, content=body, headers={"Content-Type": "application/json"})

    found = problem_of(answer)
    assert (found["status"], found["code"]) == (422, "invalid-body")
    assert [error["pointer"] for error in found["errors"]] == [pointer]
    assert found["did_you_mean"] == nearest
    assert daemon.pipeline.requests == []


async def test_body_with_several_faults_names_all() -> None:
    """One round trip is enough to learn everything that is wrong."""
    answer = await _post(make_daemon(), json={"level": "debig", "updates": 0, "id": "-"})

    assert [error["pointer"] for error in problem_of(answer)["errors"]] == ["body/level", "body/updates", "body/id"]


@pytest.mark.parametrize("announced", [True, False])
async def test_body_too_large_is_refused(announced: bool) -> None:
    """By its announced length, or by counting when none is announced."""
    big = b'{"level": "debug", "reason": "' + b"x" * BODY_BYTES_MAX + b'"}'

    async def parts() -> Any:
        yield big

    answer = await _post(make_daemon(), content=big if announced else parts(), headers={"Content-Type": "application/json"})

    assert problem_of(answer)["code"] == "body-too-large"


@pytest.mark.parametrize("announced", [str(BODY_BYTES_MAX + 1), "9" * 5000, "-1", "x"])
async def test_body_announced_too_large_is_refused_unread(announced: str) -> None:
    """By the header alone, also one that is no length."""
    headers = {"Content-Type": "application/json", "Content-Length": announced}

    answer = await _post(make_daemon(), content=b'{"level": "debug", "updates": 5}', headers=headers)

    assert problem_of(answer)["code"] == "body-too-large"


async def test_bug_of_ours_is_internal_without_traceback_in_the_body(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback; the client has neither it nor the words of the exception."""
    daemon = make_daemon()
    daemon.reader.broken = RuntimeError("secret detail of /var/lib")

    answer = await daemon.get("/anomalies")

    assert problem_of(answer)["code"] == "internal"
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret detail" in caplog.text


async def test_refusal_of_the_store_keeps_its_code() -> None:
    """A GradwatchError from anywhere becomes its own problem."""
    daemon = make_daemon()
    daemon.reader.broken = GradwatchError("overloaded", where="store")

    answer = await daemon.get("/anomalies")

    assert (answer.status_code, problem_of(answer)["code"]) == (503, "overloaded")


@pytest.mark.parametrize("path", ["/api/v1/runs", "/livez", "/readyz", "/api/v1/runs/nope", "/nope", "/openapi.json"])
async def test_answers_of_every_kind_carry_the_security_headers(path: str) -> None:
    """No sniffing, no caching, no framing; and no CORS."""
    async with make_daemon().client(Origin="https://evil.example") as client:
        answer = await client.get(path)

    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_pages_from_elsewhere_are_not_served(path: str) -> None:
    """They load scripts from a CDN."""
    async with make_daemon().client() as client:
        assert problem_of(await client.get(path))["code"] == "route-not-found"


async def test_openapi_declares_every_error_as_a_problem() -> None:
    """OpenAPI 3.1; every operation has its errors in the media type that they come in, and an operation id of its own."""
    async with make_daemon().client() as client:
        document = (await client.get("/openapi.json")).json()

    operations = [op for path in document["paths"].values() for op in path.values()]
    assert document["openapi"].startswith("3.1")
    assert len({op["operationId"] for op in operations}) == len(operations) > 0
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    for operation in operations:
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"400", "500"} <= errors.keys()
        for answer in errors.values():
            assert list(answer["content"]) == ["application/problem+json"]
    escalate = document["paths"]["/api/v1/runs/{run}/escalations"]["post"]["responses"]
    assert {"202", "404", "409", "413", "422", "401", "421"} <= escalate.keys()
    assert document["paths"]["/livez"]["get"]["security"] == []
    known = document["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= known.keys()
