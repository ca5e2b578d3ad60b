"""PATCH runs/{run} and DELETE runs/{run}/escalations: bad input first, then what is asked of the pipeline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gradwatch_contracts.control import Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api import models
from gradwatch_daemon.records.commands import Calm, SetLevel
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import make_run, make_view

PATH = "/api/v1/runs/ant-ppo"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "body/level"),
        ({"level": {}}, "body/level"),
        ({"level": {"revision": 3}}, "body/level"),
        ({"level": {"base": "loud"}}, "body/level/base"),
        ({"level": {"base": None}}, "body/level/base"),
        ({"level": {"pin": 3}}, "body/level/pin"),
        ({"level": {"pin": "debgu"}}, "body/level/pin"),
        ({"level": {"pin": "off", "revision": "3"}}, "body/level/revision"),
        ({"level": {"bas": "off"}}, "body/level/bas"),
        ({"state": "finished"}, "body/state"),
    ],
)
async def test_level_that_is_none_is_refused_and_nothing_is_asked(body: dict[str, Any], pointer: str) -> None:
    """422 with the field."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answer = await client.patch(PATH, json=body)

    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in problem_of(answer)["errors"]]
    assert daemon.pipeline.requests == []


async def test_level_mistyped_names_the_nearest() -> None:
    """And all there are."""
    async with make_daemon().client() as client:
        document = problem_of(await client.patch(PATH, json={"level": {"pin": "debgu"}}))

    assert document["did_you_mean"] == "debug"
    assert "off, minimal, normal or debug" in document["detail"]


@pytest.mark.parametrize("code", ["run-not-live", "level-changed"])
async def test_level_the_pipeline_refuses_is_a_conflict(code: str) -> None:
    """With code and hint."""
    daemon = make_daemon()
    daemon.pipeline.refuse = GradwatchError(code, where="ant-ppo")
    async with daemon.client() as client:
        answer = await client.patch(PATH, json={"level": {"base": "off"}})

    assert (answer.status_code, problem_of(answer)["code"]) == (409, code)


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        ({"base": "minimal"}, SetLevel("ant-ppo", Level.MINIMAL)),
        ({"pin": "OFF"}, SetLevel("ant-ppo", None, Level.OFF)),
        ({"pin": None}, SetLevel("ant-ppo", unpin=True)),
        ({"base": "debug", "pin": None, "revision": 7}, SetLevel("ant-ppo", Level.DEBUG, None, True, 7)),
    ],
)
async def test_level_of_the_body_reaches_the_pipeline_as_it_was_meant(level: dict[str, Any], wanted: SetLevel) -> None:
    """What is not named stays; null lets go of the pin."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answer = await client.patch(PATH, json={"level": level})

    assert answer.status_code == 202
    assert daemon.pipeline.requests == [wanted]
    models.RunSummary.model_validate(answer.json())


async def test_wait_ends_when_an_update_was_collected_so() -> None:
    """An escalation may hold it above the base, but nothing above or below a pin."""
    daemon = make_daemon()
    pinned = make_run(pin=Level.OFF)
    daemon.pipeline.silent = True
    async with daemon.client() as client:
        asking = asyncio.create_task(client.patch(f"{PATH}?wait=30", json={"level": {"pin": "off"}}))
        while not daemon.pipeline.futures:
            await asyncio.sleep(0)
        daemon.pipeline.futures[0].set_result(make_view(pinned, effective=Level.DEBUG))
        done, _ = await asyncio.wait([asking], timeout=0.05)
        assert not done
        daemon.publish(make_view(make_run(revision=2), effective=Level.NORMAL))
        done, _ = await asyncio.wait([asking], timeout=0.05)
        assert not done
        daemon.publish(make_view(pinned, effective=Level.OFF, update_last=122))
        answer = await asyncio.wait_for(asking, 5)

    assert answer.json()["level"] == {"base": "normal", "pin": "off", "effective": "off", "revision": 3}


@pytest.mark.parametrize(("world", "shows"), [(1, 121), (2, 122), (2, 155)])
@pytest.mark.parametrize("raised", [Level.NORMAL, Level.DEBUG])
async def test_wait_for_a_lower_base_ends_with_a_row_after_it_and_at_it(world: int, shows: int, raised: Level) -> None:
    """Not at once because the old level is above it: what was collected before shows nothing, nor does a row on its way."""
    daemon = make_daemon()
    lowered = make_run(base=Level.MINIMAL, pin=None, revision=9, world=world)
    daemon.pipeline.silent = True
    async with daemon.client() as client:
        asking = asyncio.create_task(client.patch(f"{PATH}?wait=30", json={"level": {"base": "minimal"}}))
        while not daemon.pipeline.futures:
            await asyncio.sleep(0)
        daemon.pipeline.futures[0].set_result(make_view(lowered, effective=Level.NORMAL, level_from=shows if world > 1 else 0))
        for update, level in ((shows, Level.NORMAL), (shows - 1, Level.MINIMAL)):
            daemon.publish(make_view(lowered, effective=level, update_last=update))
            done, _ = await asyncio.wait([asking], timeout=0.05)
            assert not done, (update, level)
        held, wanted = (Level.DEBUG, frozenset({raised})) if raised is Level.DEBUG else (Level.MINIMAL, frozenset[Level]())
        daemon.publish(make_view(lowered, effective=held, update_last=shows, raised=wanted))
        answer = await asyncio.wait_for(asking, 5)

    assert answer.json()["level"]["effective"] == held.name.lower()


async def test_calm_is_one_request() -> None:
    """All escalations and the pin at once, so that nothing comes between."""
    daemon = make_daemon()
    async with daemon.client() as client:
        answer = await client.delete(f"{PATH}/escalations")
        of_no_run = await client.delete("/api/v1/runs/nope/escalations")

    assert (answer.status_code, daemon.pipeline.requests) == (202, [Calm("ant-ppo")])
    assert problem_of(of_no_run)["code"] == "run-not-found"
