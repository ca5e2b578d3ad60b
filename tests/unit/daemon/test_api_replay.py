"""POST /replay: what it takes, what it refuses, and that its work is done elsewhere and has an end."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.replay_models import ReplayAnswer
from gradwatch_daemon.records.replayed import ReplayOrder, Window
from gradwatch_daemon.replay.apart import Replayer
from harness.fake_api import make_daemon, problem_of
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/api/v1/replay"
ORDER = ReplayOrder("ant-ppo", None, {}, Window(), "")
NAN = float("nan")


async def test_replay_passes_every_field_and_answers_the_document() -> None:
    """Nothing is dropped between body and order."""
    orders: list[ReplayOrder] = []

    async def take(order: ReplayOrder) -> dict[str, Any]:
        orders.append(order)
        return {"seen": True}

    daemon = make_daemon(replay=take)
    body = {
        "run": "ant-ppo",
        "profile": "classic",
        "thresholds": {"kl_extreme": {"k3": 0.8}},
        "from": 3,
        "to": 9,
        "diff": "live",
    }
    async with daemon.client() as client:
        answer = await client.post(PATH, json=body)
    assert (answer.status_code, answer.json()) == (200, {"seen": True})
    assert orders == [ReplayOrder("ant-ppo", "classic", {"kl_extreme": {"k3": 0.8}}, Window(3, 9), "live")]


@pytest.mark.parametrize(
    ("body", "status", "code", "hint"),
    [
        ({"run": "ant-pp"}, 404, "run-not-found", "ant-ppo"),
        ({"run": "ant-ppo", "treshold": {}}, 422, "invalid-body", "thresholds"),
        ({"run": "ant-ppo", "from": 9, "to": 3}, 422, "invalid-body", None),
        ({"run": "ant-ppo", "from": -1}, 422, "invalid-body", None),
        ({}, 422, "invalid-body", None),
        ({"run": "ant-ppo"}, 503, "not-ready", None),
    ],
    ids=["run", "field", "window", "negative", "empty", "not wired"],
)
async def test_replay_refusals_are_problems(body: dict[str, Any], status: int, code: str, hint: str | None) -> None:
    """Each with its code and the nearest known word."""
    async with make_daemon().client() as client:
        answer = await client.post(PATH, json=body)
    found = problem_of(answer)
    assert (answer.status_code, found["code"], found["did_you_mean"]) == (status, code, hint)


def _stored(path: Path) -> Path:
    world = World(path)
    world.greet()
    world.tick(world.rows.samples(50))
    world.tick(world.rows.samples(3, changed={"loss.total": (16.0, NAN, NAN), "loss.total.nonfinite": (16.0,)}))
    world.close()
    return path


async def test_replayer_replays_in_a_process_of_its_own_and_configured_thresholds_hold(tmp_path: Path) -> None:
    """The daemon's own numbers, and over them those of the order; another profile starts from its own."""
    replayer = Replayer(_stored(tmp_path), "classic", {"ratio_explosion": {"max": 1.2}})
    found = ReplayAnswer.model_validate(await replayer(ORDER))
    assert (found.profile, found.rows) == ("classic", 53)
    assert {item.kind for item in found.items} >= {"ratio_explosion", "nonfinite"}
    other = ReplayOrder("ant-ppo", "default", {}, Window(last=20), "live")
    calm = ReplayAnswer.model_validate(await replayer(other))
    assert (calm.profile, calm.rows) == ("default", 21)
    assert not {item.kind for item in calm.items} & {"ratio_explosion", "nonfinite"}
    assert calm.difference is not None


async def test_replayer_gives_back_what_the_replay_refused(tmp_path: Path) -> None:
    """The error crosses the process with its words."""
    replayer = Replayer(_stored(tmp_path), "classic", {}, rows_max=10)
    with pytest.raises(GradwatchError, match="at most 10 stored updates, got 53") as refused:
        await replayer(ORDER)
    assert refused.value.code.slug == "replay-too-large"
    with pytest.raises(GradwatchError, match="did you mean") as refused:
        await replayer(ReplayOrder("ant-ppo", None, {"kl_extrem": {"k3": 1.0}}, Window(), ""))
    assert refused.value.code.slug == "config-invalid"


async def test_replayer_that_takes_too_long_is_killed_and_free_again(tmp_path: Path) -> None:
    """A preview nobody waits for must not run on; a second one meanwhile is refused."""
    hangs = (sys.executable, "-c", "import sys, time; sys.stdin.read(); time.sleep(600)")
    replayer = Replayer(tmp_path, "classic", {}, seconds_max=1.0, command=hangs)
    first = asyncio.create_task(replayer(ORDER))
    await asyncio.sleep(0)
    with pytest.raises(GradwatchError) as refused:
        await replayer(ORDER)
    assert refused.value.code.slug == "overloaded"
    with pytest.raises(GradwatchError, match="at most 1 s") as refused:
        await first
    assert refused.value.code.slug == "replay-too-large"
    with pytest.raises(GradwatchError, match="at most 1 s"):
        await replayer(ORDER)


async def test_replayer_whose_process_fails_is_our_bug(tmp_path: Path) -> None:
    """Said as such; the traceback is in the log."""
    replayer = Replayer(tmp_path, "classic", {}, command=(sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(GradwatchError, match="exit 3") as refused:
        await replayer(ORDER)
    assert refused.value.code.slug == "internal"
