"""Two trainers under one name: the older one is told of while it lives, and when it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts import messages as m
from gradwatch_daemon.api.sentences import run_sentence
from gradwatch_daemon.cli.ailments import check_run
from gradwatch_daemon.pipeline.beside import KIND, SURE_S
from harness import api_documents as documents
from harness.rows import FULL, RowMaker, hello
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Any]:
    world = World(tmp_path)
    yield world
    world.close()


def _greet(there: Any, name: str, **changed: Any) -> RowMaker:
    rows, peer = RowMaker(), name.encode()
    there.tick(hello(session=name, **changed), peer=peer)
    there.tick(m.SchemaMessage(FULL.columns), rows.samples(2), peer=peer)
    return rows


def _told(there: Any) -> list[tuple[int, str]]:
    events = there.reader.events("ant-ppo", 50)
    return [(event.stream.attempt, event.text) for event in events if event.kind == KIND]


def test_older_attempt_that_is_heard_on_is_said_once_and_its_end_too(world: Any) -> None:
    """Two seeds of one script: neither vanishes without a word."""
    first, second = _greet(world, "a"), _greet(world, "b")
    assert world.view().beside == ()
    world.now_s += SURE_S + 0.1
    for _ in range(3):
        world.tick(first.samples(1), peer=b"a")
        world.tick(second.samples(1), peer=b"b")
    said = "Attempt 1 still trains beside attempt 2 under this name"
    assert world.view().beside == (1,)
    assert said in run_sentence(world.view())
    assert [(attempt, text.startswith(said)) for attempt, text in _told(world)] == [(2, True)]
    world.tick(m.Bye(-1, "exception"), peer=b"a")
    assert world.view().beside == ()
    assert sorted(text for _, text in _told(world))[1] == "Attempt 1, which trained beside attempt 2, is over: crashed."
    assert said not in run_sentence(world.view())


def test_older_attempt_that_is_not_heard_again_is_not_beside(world: Any) -> None:
    """A trainer that was killed and started anew: what it sent before is read, and nothing more comes."""
    first = _greet(world, "a")
    second = _greet(world, "b")
    world.tick(first.samples(1), peer=b"a")
    world.now_s += SURE_S + 0.1
    world.tick(second.samples(1), peer=b"b")
    world.now_s += 10.0
    world.tick(second.samples(1), peer=b"b")
    assert (world.view().beside, _told(world)) == ((), [])


def test_session_from_a_spool_is_not_beside(world: Any) -> None:
    """It is the past of the run, not a trainer."""
    _greet(world, "b")
    past = _greet(world, "a", replay=True)
    world.now_s += SURE_S + 0.1
    world.tick(past.samples(1), peer=b"a")
    assert (world.view().beside, _told(world)) == ((), [])


def test_shared_name_is_a_finding_of_the_doctor() -> None:
    """With the flag that mends it."""
    item = documents.run_detail(beside=[1], losses=[], standings=[])
    found = [ailment for ailment in check_run(item, documents.daemon()) if ailment.code == "name-shared"]
    assert [("attempt 1 still trains" in one.what, "--run NAME" in one.next_step) for one in found] == [(True, True)]
