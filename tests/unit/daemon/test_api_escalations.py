"""POST, GET and DELETE of escalations, with and without waiting."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gradwatch_contracts.control import ControlState, Level
from gradwatch_contracts.errors import CODES, GradwatchError
from gradwatch_daemon.api import control_models
from gradwatch_daemon.records.commands import CancelEscalation, RequestEscalation
from harness.fake_api import FakeDaemon, make_daemon, problem_of
from harness.fake_records import T0_NS, T0_TEXT, make_anomaly, make_escalation

PATH = "/api/v1/runs/ant-ppo/escalations"
BODY = {"level": "debug", "updates": 50, "reason": "watching", "id": "mine-1"}


async def _until_asked(daemon: FakeDaemon) -> None:
    """Until the handler has read the store (or asked the pipeline) and so waits for events."""
    deadline = asyncio.get_running_loop().time() + 5
    while not daemon.hub.clients or len(daemon.reader.calls) + len(daemon.pipeline.requests) == 0:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)


@pytest.mark.parametrize("slug", ["run-not-live", "too-many-escalations", "idempotency-mismatch", "unsupported-by-run"])
async def test_escalation_refused_by_the_pipeline_is_that_problem(slug: str) -> None:
    """The pipeline decides; its exception comes through the future."""
    daemon = make_daemon()
    daemon.pipeline.refuse = GradwatchError(slug, where="ant-ppo", got="state finished")

    async with daemon.client() as client:
        answer = await client.post(PATH, json=BODY)

    found = problem_of(answer)
    assert (answer.status_code, found["code"]) == (CODES[slug].http, slug)
    assert "state finished" in found["detail"]


async def test_escalation_of_unknown_run_never_reaches_the_pipeline() -> None:
    """404 with the nearest run."""
    daemon = make_daemon()

    async with daemon.client() as client:
        answer = await client.post("/api/v1/runs/ant-pp/escalations", json=BODY)

    assert problem_of(answer)["did_you_mean"] == "ant-ppo"
    assert daemon.pipeline.requests == []


async def test_escalation_without_answer_is_overloaded_and_its_future_stays_usable() -> None:
    """503 after the bound; the pipeline may still complete the future, which must not have been cancelled."""
    daemon = make_daemon(submit_timeout_s=0.01)
    daemon.pipeline.silent = True

    async with daemon.client() as client:
        answer = await client.post(PATH, json=BODY)

    assert problem_of(answer)["code"] == "overloaded"
    assert answer.headers["retry-after"] == "1"
    daemon.pipeline.futures[0].set_exception(GradwatchError("run-not-live"))


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_escalation_unknown_is_not_found(method: str) -> None:
    """Read from the store, cancelled by the pipeline: the same answer."""
    async with make_daemon().client() as client:
        answer = await client.request(method, f"{PATH}/nope")

    assert problem_of(answer)["code"] == "escalation-not-found"


@pytest.mark.parametrize("wait", ["-1", "31", "nan", "inf", "soon"])
async def test_wait_out_of_range_is_refused(wait: str) -> None:
    """A wait is 0 to 30 s."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answers = [await client.get(f"{PATH}/e1?wait={wait}"), await client.post(f"{PATH}?wait={wait}", json=BODY)]

    for answer in answers:
        assert [e["pointer"] for e in problem_of(answer)["errors"]] == ["query/wait"]
    assert daemon.pipeline.requests == []


async def test_escalation_accepted_answers_the_resource_and_its_place() -> None:
    """202, Location, and every field of the request in the mailbox."""
    daemon = make_daemon()

    async with daemon.client() as client:
        answer = await client.post(PATH, json={**BODY, "level": "MINIMAL", "expires_s": 9.5})
        found = await client.get(answer.headers["location"])

    assert answer.status_code == 202
    assert answer.headers["location"] == f"{PATH}/mine-1"
    assert daemon.pipeline.requests == [RequestEscalation("ant-ppo", "mine-1", Level.MINIMAL, 50, "watching", 9.5)]
    assert answer.json() == found.json()
    control_models.EscalationItem.model_validate(answer.json())
    assert answer.json() == {
        "id": "mine-1",
        "run": "ant-ppo",
        "level": "minimal",
        "updates": 50,
        "origin": "operator",
        "reason": "watching",
        "state": "requested",
        "requested_at": T0_TEXT,
        "update_applied": None,
        "update_ended": None,
        "ended_why": "",
        "expires_at": "2026-01-31T12:01:00.123Z",
        "ranks": [{"rank": 1, "state": "requested", "update": None, "reason": "", "applied": None, "late": None}],
        "sentence": "Asked for minimal for 50 updates; the trainer has not been told yet.",
    }


async def test_escalation_without_id_gets_one_from_the_server() -> None:
    """And without a reason it has none."""
    daemon = make_daemon()

    async with daemon.client() as client:
        answer = await client.post(PATH, json={"level": "debug", "updates": 1})

    assert answer.json()["id"] == "made-by-server"
    assert daemon.pipeline.requests == [RequestEscalation("ant-ppo", "made-by-server", Level.DEBUG, 1, "")]


async def test_escalation_sent_twice_with_its_id_is_one_resource() -> None:
    """A client that got no answer sends it again."""
    daemon = make_daemon()

    async with daemon.client() as client:
        first, second = await client.post(PATH, json=BODY), await client.post(PATH, json=BODY)
        listed = (await client.get(PATH)).json()

    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert [item["id"] for item in listed["items"]] == ["mine-1"]


async def test_escalation_cancelled_answers_its_newest_state() -> None:
    """202: the trainer ends it at its next update."""
    daemon = make_daemon()
    daemon.reader.raised = [make_escalation()]

    async with daemon.client() as client:
        answer = await client.delete(f"{PATH}/e1")

    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert answer.json()["ended_why"] == "by an operator"
    assert daemon.pipeline.requests == [CancelEscalation("ant-ppo", "e1")]


async def test_escalations_are_listed_newest_first_in_pages() -> None:
    """Rules' and operators' together."""
    daemon = make_daemon()
    daemon.reader.raised = [make_escalation(id=f"e{i}", requested_ns=T0_NS + i, origin=f"anomaly:a{i}") for i in range(3)]

    first = (await daemon.get("/runs/ant-ppo/escalations?limit=2")).json()
    second = (await daemon.get(f"/runs/ant-ppo/escalations?limit=2&cursor={first['next']}")).json()

    control_models.EscalationList.model_validate(first)
    assert [item["origin"] for item in first["items"] + second["items"]] == ["anomaly:a2", "anomaly:a1", "anomaly:a0"]
    assert second["next"] is None


@pytest.mark.parametrize("state", [ControlState.APPLIED, ControlState.ENDED, ControlState.REJECTED])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_wait_ends_when_the_agent_has_answered(method: str, state: ControlState) -> None:
    """Not on delivery, and not for another escalation; long before the wait is over."""
    daemon = make_daemon()
    if method == "GET":
        daemon.reader.raised = [make_escalation(id="mine-1")]

    async with daemon.client() as client:
        url = f"{PATH}/mine-1?wait=30" if method == "GET" else f"{PATH}?wait=30"
        asking = asyncio.create_task(client.request(method, url, json=BODY if method == "POST" else None))
        await _until_asked(daemon)
        mine = make_escalation(id="mine-1", state=ControlState.DELIVERED)
        daemon.publish(mine, make_escalation(id="other", state=state))
        done, _ = await asyncio.wait([asking], timeout=0.05)
        assert not done
        daemon.publish(replace(mine, state=state, update_applied=121, update_ended=None))
        answer = await asyncio.wait_for(asking, 5)

    assert (answer.json()["state"], answer.json()["update_applied"]) == (state.value, 121)


async def test_wait_over_answers_the_state_as_it_is() -> None:
    """Not an error: it may still come."""
    daemon = make_daemon()
    daemon.reader.raised = [make_escalation(state=ControlState.DELIVERED)]

    async with daemon.client() as client:
        answer = await client.get(f"{PATH}/e1?wait=0.02")

    assert (answer.status_code, answer.json()["state"]) == (200, "delivered")


async def test_wait_ends_at_shutdown() -> None:
    """A waiting client must not hold the daemon open."""
    daemon = make_daemon()
    daemon.reader.raised = [make_escalation()]

    async with daemon.client() as client:
        asking = asyncio.create_task(client.get(f"{PATH}/e1?wait=30"))
        await _until_asked(daemon)
        daemon.hub.close()
        answer = await asyncio.wait_for(asking, 5)

    assert answer.json()["state"] == "requested"


@pytest.mark.parametrize("state", list(ControlState))
async def test_escalation_in_every_state_is_a_valid_answer(state: ControlState) -> None:
    """Each has its own sentence, with its updates."""
    daemon = make_daemon()
    daemon.reader.raised = [make_escalation(state=state, update_applied=121, update_ended=171, ended_why="done")]

    document = (await daemon.get("/runs/ant-ppo/escalations/e1?wait=0")).json()

    control_models.EscalationItem.model_validate(document)
    assert document["state"] == state.value
    assert (document["update_applied"], document["update_ended"], document["ended_why"]) == (121, 171, "done")
    assert ("121" in document["sentence"]) == (state in (ControlState.APPLIED, ControlState.ENDED))


@pytest.mark.parametrize(
    ("query", "ids"),
    [("state=requested", ["e1"]), ("origin=operator", ["e1"]), ("origin=anomaly", ["e2"]), ("origin=anomaly:a9", [])],
)
async def test_escalations_are_narrowed_by_state_and_origin(query: str, ids: list[str]) -> None:
    """`anomaly` is every rule's; with an id that of one anomaly."""
    daemon = make_daemon()
    daemon.reader.raised = [make_escalation(), make_escalation(id="e2", origin="anomaly:a1", state=ControlState.ENDED)]
    found = (await daemon.get(f"/runs/ant-ppo/escalations?{query}")).json()["items"]
    assert [escalation["id"] for escalation in found] == ids


async def test_escalations_state_mistyped_is_refused() -> None:
    """With the nearest."""
    assert problem_of(await make_daemon().get("/runs/ant-ppo/escalations?state=aplied"))["did_you_mean"] == "applied"


async def test_escalation_in_the_name_of_no_anomaly_of_the_run_is_not_found() -> None:
    """Unknown, or another run's."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(id="other", run="bee")]
    async with daemon.client() as client:
        answers = [await client.post(PATH, json={**BODY, "anomaly": id_}) for id_ in ("nope", "other")]

    assert [problem_of(answer)["code"] for answer in answers] == ["anomaly-not-found"] * 2
    assert daemon.pipeline.requests == []


async def test_escalation_in_the_name_of_an_anomaly_has_its_origin() -> None:
    """So it counts as a rule's, and is bound like one."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly()]
    async with daemon.client() as client:
        await client.post(PATH, json={**BODY, "anomaly": "a1"})

    assert [request.origin for request in daemon.pipeline.requests] == ["anomaly:a1"]
