"""/livez, /readyz, /version."""

from __future__ import annotations

from gradwatch_daemon.api import service_models
from harness.fake_api import make_daemon, problem_of


async def test_readyz_with_trouble_is_unavailable_with_each_reason() -> None:
    """503 and the words of whoever is in trouble."""
    daemon = make_daemon()
    daemon.reasons += ["store: disk full", "pipeline stopped"]

    async with daemon.client() as client:
        answer = await client.get("/readyz")

    found = problem_of(answer)
    assert (answer.status_code, found["code"]) == (503, "not-ready")
    assert [error["message"] for error in found["errors"]] == ["store: disk full", "pipeline stopped"]
    assert answer.headers["retry-after"] == "1"


async def test_livez_with_trouble_is_alive() -> None:
    """An orchestrator must not restart a daemon whose disk is full: the agents' data is in memory."""
    daemon = make_daemon()
    daemon.reasons.append("store: disk full")

    async with daemon.client() as client:
        answer = await client.get("/livez")

    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_readyz_without_trouble_is_ready() -> None:
    """200."""
    async with make_daemon().client() as client:
        answer = await client.get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_version_names_daemon_and_api() -> None:
    """What a client needs to know whether it fits."""
    async with make_daemon().client() as client:
        document = (await client.get("/version")).json()

    service_models.VersionAnswer.model_validate(document)
    assert document == {"name": "gradwatch", "version": "1.2.3", "api": "v1"}
