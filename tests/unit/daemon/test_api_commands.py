"""POST, GET and DELETE of commands: bad input first, then the resource, then waiting for what becomes of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.control import ControlState, RankState
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.control_models import CommandItem, CommandList
from gradwatch_daemon.records.commands import ArtifactRecord, CancelCommand, RequestCommand
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import T0_NS, T0_TEXT, make_command, make_view

if TYPE_CHECKING:
    from pathlib import Path

    from harness.fake_api import FakeDaemon

PATH = "/api/v1/runs/ant-ppo/commands"
BODY = {"verb": "stop", "args": {"grace": 3}, "reason": "enough", "rank": 1, "expires_s": 60.0, "id": "mine-1"}


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"verb": "Stop!"}, "body/verb"),
        ({"verb": ""}, "body/verb"),
        ({"verb": 3}, "body/verb"),
        ({"args": {f"a{i}": 1 for i in range(33)}}, "body/args"),
        ({"args": {"x" * 129: 1}}, "body/args"),
        ({"args": {"n": 2**63}}, "body/args"),
        ({"args": {"text": "x" * 20_000}}, "body/args"),
        ({"args": {"list": [1]}}, "body/args/list/str"),
        ({"args": ["a"]}, "body/args"),
        ({"rank": -1}, "body/rank"),
        ({"rank": "0"}, "body/rank"),
        ({"expires_s": 0}, "body/expires_s"),
        ({"expires_s": 1e9}, "body/expires_s"),
        ({"expires_s": "soon"}, "body/expires_s"),
        ({"id": "no spaces"}, "body/id"),
        ({"reason": "x" * 501}, "body/reason"),
        ({"verbs": "stop"}, "body/verbs"),
    ],
)
async def test_command_with_a_bad_field_is_refused_and_nothing_is_asked(changes: dict[str, Any], pointer: str) -> None:
    """422 with the field; the pipeline hears nothing."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answer = await client.post(PATH, json={**BODY, **changes})

    assert answer.status_code == 422
    document = problem_of(answer)
    assert pointer in [error["pointer"] for error in document["errors"]]
    assert daemon.pipeline.requests == []


@pytest.mark.parametrize(
    ("args", "pointer"),
    [
        ({"updates": 0}, "body/args/updates"),
        ({"updates": 101}, "body/args/updates"),
        ({"updates": True}, "body/args/updates"),
        ({"updates": 2.0}, "body/args/updates"),
        ({"stacks": 1}, "body/args/stacks"),
        ({"update": 3}, "body/args/update"),
    ],
)
async def test_profile_of_no_or_too_many_updates_is_refused(args: dict[str, Any], pointer: str) -> None:
    """Before the trainer is asked."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answer = await client.post(PATH, json={"verb": "profile", "args": args})

    assert answer.status_code == 422
    assert [error["pointer"] for error in problem_of(answer)["errors"]] == [pointer]
    assert daemon.pipeline.requests == []


async def test_artifact_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    """None came, or retention deleted it; an unknown command is another mistake."""
    daemon = make_daemon(artifact=lambda run, id_: None)
    daemon.reader.asked = [make_command(), make_command(id="c2", artifact=ArtifactRecord("trace.json.gz", 3))]
    answers = [await daemon.get(f"/runs/ant-ppo/artifacts/{id_}") for id_ in ("c1", "c2", "nope")]

    assert [problem_of(answer)["code"] for answer in answers] == [
        "artifact-not-found",
        "artifact-gone",
        "command-not-found",
    ]
    assert [answer.status_code for answer in answers] == [404, 410, 404]


async def test_artifact_that_goes_between_look_and_open_is_gone(tmp_path: Path) -> None:
    """Room was made for a newer one at that moment: a 410 in words, and no 500."""
    daemon = make_daemon(artifact=lambda run, id_: tmp_path / "gone")
    daemon.reader.asked = [make_command(artifact=ArtifactRecord("trace.json.gz", 3))]
    answer = await daemon.get("/runs/ant-ppo/artifacts/c1")
    assert problem_of(answer)["code"] == "artifact-gone"


async def test_artifact_is_a_download_under_its_own_name(tmp_path: Path) -> None:
    """Named in the command, with the address."""
    file = tmp_path / "c1.bin"
    file.write_bytes(b"trace")
    daemon = make_daemon(artifact=lambda run, id_: file if (run, id_) == ("ant-ppo", "c1") else None)
    daemon.reader.asked = [make_command(artifact=ArtifactRecord("trace.json.gz", 5))]
    command = (await daemon.get("/runs/ant-ppo/commands/c1")).json()
    async with daemon.client() as client:
        answer = await client.get(command["artifact"]["url"])

    assert command["artifact"] == {"name": "trace.json.gz", "bytes": 5, "url": "/api/v1/runs/ant-ppo/artifacts/c1"}
    assert answer.content == b"trace"
    assert answer.headers["content-disposition"] == 'attachment; filename="trace.json.gz"'
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_command_misspelt_names_the_verb_the_run_takes() -> None:
    """Where the word itself is none."""
    daemon = make_daemon({"ant-ppo": make_view(verbs=("checkpoint", "stop"))})
    async with daemon.client() as client:
        answer = await client.post(PATH, json={**BODY, "verb": "Checkpoint"})

    assert problem_of(answer)["did_you_mean"] == "checkpoint"


@pytest.mark.parametrize(
    "code", ["run-not-live", "rank-not-live", "unsupported-by-run", "command-under-way", "idempotency-mismatch"]
)
async def test_command_the_pipeline_refuses_is_a_conflict_with_code_and_hint(code: str) -> None:
    """State unchanged, and said what to do."""
    daemon = make_daemon()
    daemon.pipeline.refuse = GradwatchError(code, where="ant-ppo")
    async with daemon.client() as client:
        answer = await client.post(PATH, json=BODY)

    assert answer.status_code == 409
    document = problem_of(answer)
    assert document["code"] == code
    assert document["hint"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_command_unknown_is_not_found(method: str) -> None:
    """Read from the store, cancelled by the pipeline: the same answer."""
    async with make_daemon().client() as client:
        answer = await client.request(method, f"{PATH}/nope")
        of_no_run = await client.request(method, "/api/v1/runs/no-run/commands/c1")

    assert (answer.status_code, problem_of(answer)["code"]) == (404, "command-not-found")
    assert problem_of(of_no_run)["code"] == "run-not-found"


@pytest.mark.parametrize("query", ["wait=31", "wait=-1", "wait=nan", "until=begun", "untill=ended"])
async def test_command_wait_out_of_range_is_refused(query: str) -> None:
    """By GET and by POST."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answers = [await client.get(f"{PATH}/c1?{query}"), await client.post(f"{PATH}?{query}", json=BODY)]

    assert [problem_of(answer)["code"] for answer in answers] == ["invalid-parameter"] * 2
    assert daemon.pipeline.requests == []


async def test_command_accepted_answers_the_resource_and_its_place() -> None:
    """202, Location, and every field of the request in the mailbox."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answer = await client.post(PATH, json=BODY)
        found = await client.get(answer.headers["location"])

    assert answer.status_code == 202
    assert answer.headers["location"] == f"{PATH}/mine-1"
    assert daemon.pipeline.requests == [RequestCommand("ant-ppo", "mine-1", "stop", {"grace": 3}, "enough", 1, 60.0)]
    assert answer.json() == found.json()
    CommandItem.model_validate(answer.json())
    assert answer.json() == {
        "id": "mine-1",
        "run": "ant-ppo",
        "verb": "stop",
        "args": {"grace": 3},
        "origin": "operator",
        "reason": "enough",
        "state": "requested",
        "requested_at": T0_TEXT,
        "expires_at": "2026-01-31T12:01:00.123Z",
        "update_applied": None,
        "update_ended": None,
        "ended_why": "",
        "ranks": [
            {"rank": rank, "state": "requested", "update": None, "reason": "", "applied": None, "late": None} for rank in (0, 1)
        ],
        "artifact": None,
        "sentence": "Asked for stop; the trainer has not been told yet.",
    }


async def test_command_with_a_verb_alone_has_the_defaults() -> None:
    """An id of the server's, all ranks, a day."""
    daemon = make_daemon()
    async with daemon.client() as client:
        await client.post(PATH, json={"verb": "dump"})

    assert daemon.pipeline.requests == [RequestCommand("ant-ppo", "made-by-server", "dump", {}, "", None, 86_400.0)]


async def test_command_cancelled_answers_its_newest_state() -> None:
    """202: one that has begun ends when the trainer says so."""
    daemon = make_daemon()
    daemon.reader.asked = [make_command()]
    async with daemon.client() as client:
        answer = await client.delete(f"{PATH}/c1")

    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert daemon.pipeline.requests == [CancelCommand("ant-ppo", "c1")]


async def test_commands_are_listed_newest_first_in_pages() -> None:
    """Rules' and operators' together."""
    daemon = make_daemon()
    daemon.reader.asked = [make_command(id=f"c{i}", requested_ns=T0_NS + i, origin=f"anomaly:a{i}") for i in range(3)]

    first = (await daemon.get("/runs/ant-ppo/commands?limit=2")).json()
    second = (await daemon.get(f"/runs/ant-ppo/commands?limit=2&cursor={first['next']}")).json()

    CommandList.model_validate(first)
    assert [item["origin"] for item in first["items"] + second["items"]] == ["anomaly:a2", "anomaly:a1", "anomaly:a0"]
    assert second["next"] is None


async def _until_asked(daemon: FakeDaemon) -> None:
    for _ in range(1000):
        if daemon.hub.clients and (daemon.pipeline.requests or daemon.reader.calls):
            return
        await asyncio.sleep(0)
    raise AssertionError("nobody waits")


@pytest.mark.parametrize(("until", "before"), [("applied", "delivered"), ("ended", "applied")])
async def test_wait_ends_at_the_state_that_was_waited_for(until: str, before: str) -> None:
    """Not before, and not for another command."""
    daemon = make_daemon()
    async with daemon.client() as client:
        asking = asyncio.create_task(client.post(f"{PATH}?wait=30&until={until}", json=BODY))
        await _until_asked(daemon)
        mine = make_command(id="mine-1", state=ControlState(before))
        daemon.publish(mine, make_command(id="other", state=ControlState.ENDED))
        done, _ = await asyncio.wait([asking], timeout=0.05)
        assert not done
        daemon.publish(replace(mine, state=ControlState(until), update_applied=7))
        answer = await asyncio.wait_for(asking, 5)

    assert answer.json()["state"] == until


async def test_wait_over_answers_the_state_as_it_is() -> None:
    """Not an error: it may still come."""
    daemon = make_daemon()
    daemon.reader.asked = [make_command(state=ControlState.DELIVERED)]
    async with daemon.client() as client:
        answer = await client.get(f"{PATH}/c1?wait=0.02")

    assert (answer.status_code, answer.json()["state"]) == (200, "delivered")


@pytest.mark.parametrize("state", list(ControlState))
async def test_command_in_every_state_is_a_valid_answer_with_its_own_sentence(state: ControlState) -> None:
    """Each names why, where there is a why."""
    daemon = make_daemon()
    ranks = (RankState(0, state, 121, "because"),)
    daemon.reader.asked = [make_command(state=state, update_applied=121, ended_why="because", ranks=ranks)]

    document = (await daemon.get("/runs/ant-ppo/commands/c1")).json()

    CommandItem.model_validate(document)
    assert document["ranks"] == [
        {"rank": 0, "state": state.value, "update": 121, "reason": "because", "applied": None, "late": None}
    ]
    waits = state in (ControlState.REQUESTED, ControlState.DELIVERED)
    assert ("because" in document["sentence"]) != waits
