"""`gradwatch stop`, `checkpoint`, `dump`, `command` and `commands`: what is asked for, and what is reported of it."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.client import Address, Client
from gradwatch_daemon.cli.command import read_arguments, wait_for
from harness import api_documents as documents
from harness.command_line import CommandLine
from harness.daemon_stub import TOKEN, DaemonStub, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POST = "/api/v1/runs/ant-ppo/commands"
ONE = f"{POST}/c1"


@pytest.fixture
def stub() -> Iterator[DaemonStub]:
    """A daemon that answers what a test scripts."""
    with DaemonStub() as running:
        yield running


@pytest.fixture
def gradwatch(
    stub: DaemonStub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    """The command line pointed at the stub."""
    return CommandLine(monkeypatch, capsys, tmp_path, stub)


def test_run_that_does_not_take_the_verb_exits_5_with_what_to_add(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The daemon's refusal, with its next step."""
    refusal = documents.problem("unsupported-by-run", "Not declared.", 409, hint="Look at mon.should_stop.")
    stub.answer("POST", POST, refusal, status=409)

    ended = gradwatch("stop", "ant-ppo")

    assert (ended.code, ended.out) == (5, "")
    assert "Look at mon.should_stop." in ended.err


@pytest.mark.parametrize("word", ["grace", "=3", ""])
def test_argument_that_is_none_is_refused_before_anything_is_asked(stub: DaemonStub, gradwatch: CommandLine, word: str) -> None:
    """Naming the form."""
    ended = gradwatch("command", "ant-ppo", "save", "--arg", word)

    assert ended.code == 2
    assert "NAME=VALUE" in ended.err
    assert stub.requests == []


def test_arguments_are_numbers_and_words_where_they_look_like_it() -> None:
    """As JSON has them; the rest is text, lists too."""
    given = ["n=3", "share=0.5", "on=true", "none=null", "path=/tmp/a=b", "list=[1]", "word=true story"]
    read = read_arguments(given)
    assert read == {
        "n": 3,
        "share": 0.5,
        "on": True,
        "none": None,
        "path": "/tmp/a=b",
        "list": "[1]",
        "word": "true story",
    }
    with pytest.raises(GradwatchError):
        read_arguments(["n"])


@pytest.mark.parametrize(
    ("argv", "verb", "args"),
    [
        (("stop",), "stop", {}),
        (("checkpoint",), "checkpoint", {}),
        (("dump",), "dump", {}),
        (("command", "save", "--arg", "n=3"), "save", {"n": 3}),
    ],
)
def test_request_carries_verb_arguments_rank_reason_and_id(
    stub: DaemonStub, gradwatch: CommandLine, argv: tuple[str, ...], verb: str, args: dict[str, Any]
) -> None:
    """One POST; its sentence is shown."""
    stub.answer("POST", POST, documents.command(verb=verb, state="delivered"), status=202)
    ended = gradwatch(argv[0], "ant-ppo", *argv[1:], "--reason", "why", "--rank", "1", "--id", "c1")

    assert ended.code == 0
    (seen,) = stub.asked(POST)
    assert seen.body == {"verb": verb, "args": args, "reason": "why", "rank": 1, "id": "c1"}
    assert f"ant-ppo c1 {verb}: " in ended.out


@pytest.mark.parametrize(
    ("state", "code"), [("ended", 0), ("rejected", 5), ("expired", 5), ("superseded", 5), ("cancelled", 5), ("lost", 5)]
)
def test_wait_reports_the_end_and_exits_by_it(stub: DaemonStub, gradwatch: CommandLine, state: str, code: int) -> None:
    """Only what was done is success."""
    stub.answer("POST", POST, documents.command(state="requested"), status=202)
    stub.answer("GET", ONE, documents.command(state="applied"), documents.command(state=state))

    ended = gradwatch("stop", "ant-ppo", "--wait", "--json")

    assert ended.code == code
    assert json.loads(ended.out)["state"] == state
    assert stub.asked(ONE)[0].query["until"] == "ended"


def test_wait_that_runs_out_exits_4_with_the_state_so_far(stub: DaemonStub) -> None:
    """The command is still open, and may still come to its end."""
    stub.answer("GET", ONE, documents.command(state="applied"))
    client = Client(Address(stub.url, TOKEN, "test"))
    ticks = itertools.count(0, 10)
    item = wait_for(client, documents.command(state="requested"), 25.0, lambda: float(next(ticks)))

    assert item["state"] == "applied"
    assert len(stub.asked(ONE)) == 2


def test_ranks_that_differ_have_a_line_each(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Partial application is visible."""
    ranks = [
        {"rank": 0, "state": "ended", "update": 7, "reason": "done"},
        {"rank": 1, "state": "lost", "update": None, "reason": "its process ended"},
    ]
    stub.answer("POST", POST, documents.command(state="ended", ranks=ranks), status=202)
    ended = gradwatch("stop", "ant-ppo")

    assert "  rank 0 ended at update 7: done" in ended.out
    assert "  rank 1 lost: its process ended" in ended.out


def test_commands_are_listed_and_one_is_taken_back(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """A table for people, the API's document for programs; an empty list is a sentence."""
    stub.answer("GET", POST, {"items": [documents.command(state="ended")], "next": None}, {"items": [], "next": None})
    listed = gradwatch("commands", "ant-ppo", "--limit", "7")
    empty = gradwatch("commands", "ant-ppo")
    stub.answer("DELETE", ONE, documents.command(state="cancelled"), status=202)
    cancelled = gradwatch("commands", "ant-ppo", "--cancel", "c1")

    assert stub.asked(POST)[0].query == {"limit": "7"}
    assert "checkpoint" in listed.out
    assert "asked for nothing" in empty.err
    assert (cancelled.code, stub.asked(ONE)[0].method) == (0, "DELETE")


ARTIFACT = {"name": "trace-ant-ppo.json.gz", "bytes": 5, "url": "/api/v1/runs/ant-ppo/artifacts/c1"}


def test_profile_waits_and_puts_the_trace_where_it_was_told(stub: DaemonStub, gradwatch: CommandLine, tmp_path: Path) -> None:
    """The arguments as the verb has them; a file that was not named is never overwritten."""
    place = tmp_path / "here.gz"
    stub.answer("POST", POST, documents.command(verb="profile", state="applied"), status=202)
    stub.answer("GET", ONE, documents.command(verb="profile", state="ended", artifact=ARTIFACT))
    stub.reply("GET", ARTIFACT["url"], Reply(200, b"trace"))
    done = gradwatch("profile", "ant-ppo", "--updates", "2", "--stacks", "--wait", "--output", str(place))

    assert done.code == 0
    assert stub.asked(POST)[0].body["args"] == {"updates": 2, "stacks": True}
    assert place.read_bytes() == b"trace"
    again = gradwatch("commands", "ant-ppo", "--fetch", "c1", "--output", str(tmp_path / "no" / "such"))
    assert again.code == 2
    assert "--fetch c1 --output FILE" in again.err


@pytest.mark.parametrize("place", ["no/such/trace.gz", "."])
def test_profile_into_a_bad_place_is_refused_before_the_trainer_is_asked(
    stub: DaemonStub, gradwatch: CommandLine, tmp_path: Path, place: str
) -> None:
    """A capture slows the trainer: not for nothing."""
    refused = gradwatch("profile", "ant-ppo", "--wait", "--output", str(tmp_path / place))
    assert (refused.code, stub.asked(POST)) == (2, [])
    assert "--output" in refused.err


def test_profile_without_a_file_cannot_be_fetched(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Exit code 3: there is nothing."""
    stub.answer("GET", ONE, documents.command(state="rejected"))
    ended = gradwatch("commands", "ant-ppo", "--fetch", "c1")

    assert ended.code == 3
    assert "This command has no file." in ended.err
