"""`gradwatch ack` and `gradwatch silence`: what is asked for, and what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness import api_documents as documents
from harness.command_line import CommandLine
from harness.daemon_stub import DaemonStub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = "/api/v1/anomalies/a1b2c3"
SILENCES = "/api/v1/silences"
SEEN = {"by": "ann", "at": "2026-01-31T12:05:00.000Z", "note": "seed 3"}


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


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("add", "--run", "x", "--for", "4h"), "--reason"),
        (("add", "--run", "x", "--reason", "y"), "--for"),
        (("add", "--for", "4h", "--reason", "y"), "--all"),
        (("add", "--run", "x", "--for", "4 h", "--reason", "y"), "45m, 12h or 30d"),
        (("end",), "needs ID"),
        (("list", "s1"), "takes no ID"),
        (("drop",), "invalid choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_silence_that_does_not_say_enough_exits_2(
    stub: DaemonStub, gradwatch: CommandLine, argv: tuple[str, ...], said: str
) -> None:
    """Without a reason, an end, or anything to match; nothing is asked of the daemon."""
    ended = gradwatch("silence", *argv)
    assert ended.code == 2
    assert said in ended.err
    assert stub.requests == []


def test_acknowledgement_of_an_unknown_anomaly_exits_3(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The daemon's refusal, with its next step."""
    stub.answer("PATCH", ONE, documents.problem("anomaly-not-found", "No anomaly has this id.", 404), status=404)
    assert gradwatch("ack", "a1b2c3").code == 3


def test_acknowledgement_carries_the_note_and_says_who(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """And `--undo` takes it back without a note."""
    stub.answer("PATCH", ONE, documents.anomaly(acknowledged=SEEN))
    ended = gradwatch("ack", "a1b2c3", "--note", "seed 3")
    assert stub.requests[0].body == {"acknowledged": True, "note": "seed 3"}
    assert ended.out == (
        "ant-ppo ratio_explosion of update 118, firing: acknowledged by ann at 2026-01-31T12:05:00.000Z: seed 3\n"
    )
    stub.answer_only("PATCH", ONE, documents.anomaly())
    assert "not acknowledged any more" in gradwatch("ack", "a1b2c3", "--undo").out
    assert stub.requests[1].body == {"acknowledged": False}


def test_silence_is_asked_for_listed_and_ended(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The body of each, and a line or a table for people."""
    stub.answer("POST", SILENCES, documents.silence(), status=201)
    added = gradwatch("silence", "add", "--run", "ant-ppo", "--kind", "kl_spike", "--for", "4h", "--reason", "new clip range")
    body = stub.requests[0].body
    assert isinstance(body, dict)
    assert len(str(body.pop("id"))) == 16
    assert body == {
        "run": "ant-ppo",
        "kind": "kl_spike",
        "subject": None,
        "reason": "new clip range",
        "lifetime_s": 4 * 3600.0,
    }
    assert added.out == "s1: run ant-ppo, kind kl_spike silenced until 2026-01-31T16:00:00.000Z; muted 0 so far.\n"
    stub.answer("GET", SILENCES, {"items": [documents.silence(muted=7)], "next": None})
    assert gradwatch("silence", "list").out.splitlines()[1].split()[-4:] == ["7", "new", "clip", "range"]
    stub.answer("DELETE", f"{SILENCES}/s1", documents.silence(state="ended", kind=None, run=None))
    assert gradwatch("silence", "end", "s1").out == "s1: everything is no longer silenced; muted 0 so far.\n"


def test_anomaly_lines_say_what_people_did(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """An acknowledged and silenced anomaly is listed like any other, with both."""
    listed = documents.anomalies(documents.anomaly(acknowledged=SEEN, silenced="s1"))
    stub.answer("GET", "/api/v1/anomalies", listed)
    said = gradwatch("anomalies").out
    assert "acknowledged by ann: seed 3" in said
    assert "silenced by s1: not delivered" in said
