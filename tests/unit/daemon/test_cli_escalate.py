"""`gradwatch escalate`: what is asked for, and what is reported of it."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from gradwatch_daemon.cli.client import Address, Client
from gradwatch_daemon.cli.escalate import wait_for
from harness import api_documents as documents
from harness.daemon_stub import TOKEN, DaemonStub

if TYPE_CHECKING:
    from harness.command_line import CommandLine

POST = "/api/v1/runs/ant-ppo/escalations"
ONE = f"{POST}/e1"


def test_run_without_live_session_exits_5(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The daemon's refusal, with its next step."""
    refusal = documents.problem("run-not-live", "The run has no live session.", 409, hint="Start the trainer again.")
    stub.answer("POST", POST, refusal, status=409)

    ended = gradwatch("escalate", "ant-ppo", "--for", 5)

    assert (ended.code, ended.out) == (5, "")
    assert "Start the trainer again." in ended.err


def test_request_carries_level_updates_reason_and_id(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The id is the user's, so the same command again is the same escalation."""
    stub.answer("POST", POST, documents.escalation(), status=202)

    ended = gradwatch("escalate", "ant-ppo", "--level", "Debug", "--for", 50, "--reason", "watching the KL", "--id", "e1")

    assert stub.requests[0].body == {"level": "debug", "updates": 50, "reason": "watching the KL", "id": "e1"}
    assert ended.code == 0
    assert ended.out == "ant-ppo e1: Asked for debug for 50 updates; the trainer has not been told yet.\n"


def test_request_without_id_makes_one_each_time(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Two commands are two escalations."""
    stub.answer("POST", POST, documents.escalation(), status=202)

    gradwatch("escalate", "ant-ppo", "--for", 5)
    gradwatch("escalate", "ant-ppo", "--for", 5)

    first, second = (seen.body["id"] for seen in stub.requests)
    assert first != second
    assert stub.requests[0].body["level"] == "debug"


def test_wait_reports_the_update_it_was_applied_at(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Both lines for a person: asked, then applied."""
    applied = documents.escalation(state="applied", update_applied=131, sentence="Collecting at debug since update 131.")
    stub.answer("POST", POST, documents.escalation(), status=202)
    stub.answer("GET", ONE, documents.escalation(state="delivered"), applied)

    ended = gradwatch("escalate", "ant-ppo", "--for", 50, "--wait")

    assert ended.code == 0
    assert ended.out.splitlines()[-1] == "ant-ppo e1: Collecting at debug since update 131."
    assert [seen.query["wait"] for seen in stub.asked(ONE)] == ["20.0", "20.0"]


def test_wait_json_is_one_document_of_the_end(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Nothing of the way there on stdout."""
    ended_early = documents.escalation(state="ended", update_applied=131, update_ended=136, ended_why="done")
    stub.answer("POST", POST, documents.escalation(), status=202)
    stub.answer("GET", ONE, ended_early)

    assert json.loads(gradwatch("escalate", "ant-ppo", "--for", 5, "--wait", "--json").out) == ended_early


@pytest.mark.parametrize("state", ["rejected", "cancelled", "lost"])
def test_wait_for_what_will_never_be_applied_exits_5(stub: DaemonStub, gradwatch: CommandLine, state: str) -> None:
    """An end that is no success."""
    stub.answer("POST", POST, documents.escalation(), status=202)
    stub.answer("GET", ONE, documents.escalation(state=state, sentence=f"It was {state}."))

    ended = gradwatch("escalate", "ant-ppo", "--for", 5, "--wait", 30)

    assert ended.code == 5
    assert f"It was {state}." in ended.out


def test_wait_that_runs_out_exits_4_with_the_state_so_far(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The document is printed all the same; the next step repeats the command safely."""
    stub.answer("POST", POST, documents.escalation(state="delivered"), status=202)

    ended = gradwatch("escalate", "ant-ppo", "--for", 5, "--wait", 0, "--json")

    assert ended.code == 4
    assert json.loads(ended.out)["state"] == "delivered"
    assert "got delivered" in ended.err
    assert "--id e1" in ended.err


def test_wait_for_asks_in_steps_until_its_deadline(stub: DaemonStub) -> None:
    """45 s are two whole steps and a part; the clock is an argument."""
    stub.answer("GET", ONE, documents.escalation(state="delivered"))
    ticks = itertools.chain([0.0, 0.0, 20.0, 40.0, 45.0])

    item = wait_for(Client(Address(stub.url, TOKEN, "")), documents.escalation(), 45.0, lambda: next(ticks))

    assert item["state"] == "delivered"
    assert [seen.query["wait"] for seen in stub.requests] == ["20.0", "20.0", "5.0"]


def test_escalate_to_off_is_refused_without_asking_and_does_not_offer_off(gradwatch: CommandLine, stub: DaemonStub) -> None:
    """An escalation only raises; the list of what would do has no word that is refused again."""
    ended = gradwatch("escalate", "ant-ppo", "--level", "off", "--for", 5)

    assert ended.code == 2
    assert "expected minimal, normal or debug, got 'off'" in ended.err
    assert stub.requests == []
