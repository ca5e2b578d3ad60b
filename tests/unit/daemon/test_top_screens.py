"""`gradwatch top` as it looks at 80 by 24, in every state: texts in tests/golden/top."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gradwatch_daemon.cli.top.lines import ASCII
from harness import api_documents as documents
from harness.daemon_stub import DaemonStub, sse
from harness.golden import check_golden
from harness.terminal import RUN, SIZE, make_app, script_daemon, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stub() -> Iterator[DaemonStub]:
    """A daemon that answers what a test scripts."""
    with DaemonStub() as running:
        yield running


async def test_stream_that_breaks_off_shows_since_when_and_why(stub: DaemonStub) -> None:
    """What is shown is then old, and must not look current."""
    stream = script_daemon(stub)
    app = make_app(stub, run="ant-ppo")
    async with app.run_test(size=SIZE) as pilot:
        stream.cut()
        check_golden("top/disconnected.txt", await until(pilot, "not connected"))


async def test_stream_comes_back_and_the_picture_is_current_again(stub: DaemonStub) -> None:
    """After a lost connection everything is read anew."""
    stream = script_daemon(stub)
    again = script_daemon(stub)
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        stream.cut()
        await until(pilot, "Not connected")
        again.send(sse("run", documents.run_summary(update_last=130), "e-9"))
        await until(pilot, lambda screen: "130/500" in screen and "Not connected" not in screen)


async def test_daemon_without_a_run_teaches_how_to_connect_one(stub: DaemonStub) -> None:
    """Empty, and not silent about it."""
    script_daemon(stub, anomalies=[])
    stub.answer_only("GET", "/api/v1/runs", documents.listed())
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        check_golden("top/empty.txt", await until(pilot, "No run has connected yet"))


async def test_daemon_that_is_not_ready_says_why_on_every_page(stub: DaemonStub) -> None:
    """It answers, and cannot store."""
    script_daemon(stub)
    stub.answer_only("GET", "/api/v1/daemon", documents.daemon(ready=False, trouble=["store: the disk is full"]))
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, "The daemon is not ready: store: the disk is full")


async def test_runs_page_shows_state_detectors_and_the_sentence(stub: DaemonStub) -> None:
    """What is running, and is anything wrong?"""
    script_daemon(stub)
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        check_golden("top/runs.txt", await until(pilot, "1 critical anomaly"))


async def test_run_page_marks_what_is_not_finite_and_what_was_not_measured(stub: DaemonStub) -> None:
    """The sentence, who is blind, sparklines that hide nothing, anomalies."""
    script_daemon(stub)
    app = make_app(stub, run="ant-ppo")
    async with app.run_test(size=SIZE) as pilot:
        check_golden("top/run.txt", await until(pilot, "ratio_explosion"))


async def test_run_page_in_ascii_has_no_other_character(stub: DaemonStub) -> None:
    """For a terminal, or a font, that has nothing else."""
    script_daemon(stub)
    app = make_app(stub, run="ant-ppo", glyphs=ASCII)
    async with app.run_test(size=SIZE) as pilot:
        screen = await until(pilot, "ratio_explosion")
        assert screen.isascii()
        check_golden("top/run-ascii.txt", screen)


async def test_detectors_page_lists_who_is_blind_first_with_the_line_to_add(stub: DaemonStub) -> None:
    """A detector that cannot see is never left out."""
    script_daemon(stub)
    app = make_app(stub, run="ant-ppo")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("g", "d", "j")
        check_golden("top/detectors.txt", await until(pilot, "In the trainer:"))


async def test_anomaly_page_says_what_where_and_what_to_try(stub: DaemonStub) -> None:
    """What happened, why, what next?"""
    script_daemon(stub)
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("]")
        check_golden("top/anomaly.txt", await until(pilot, "try 1"))


async def test_help_page_shows_every_key(stub: DaemonStub) -> None:
    """Made of the map that the dashboard shares."""
    script_daemon(stub)
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("?")
        check_golden("top/help.txt", await until(pilot, "these keys"))


async def test_read_only_view_refuses_to_escalate_and_says_why(stub: DaemonStub) -> None:
    """Keys that change something are known, and off."""
    script_daemon(stub)
    app = make_app(stub, run="ant-ppo", readonly=True)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("e")
        check_golden("top/readonly.txt", await until(pilot, "Read-only: started with --readonly."))
    assert not [seen for seen in stub.requests if seen.method != "GET"]


async def test_command_is_shown_as_the_daemon_answers_and_then_as_the_trainer_does(stub: DaemonStub) -> None:
    """Asked with its arguments; a later word of the trainer replaces the first answer, one of another command does not."""
    stream = script_daemon(stub)
    told = {
        **documents.command(),
        "verb": "save",
        "state": "delivered",
        "sentence": "The trainer was told to save and has not begun.",
    }
    stub.answer("POST", f"{RUN}/commands", told, status=202)
    app = make_app(stub, run="ant-ppo")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("c")
        check_golden("top/command-prompt.txt", await until(pilot, "checkpoint"))
        await pilot.press(*["backspace"] * len("checkpoint"), *"save", "space", *"tag=7", "enter")
        await until(pilot, "has not begun")
        stream.send(sse("command", {**told, "id": "other", "sentence": "Another."}, "e-2"))
        stream.send(sse("command", {**told, "state": "ended", "sentence": "The trainer did it at update 122: saved."}, "e-3"))
        check_golden("top/commanded.txt", await until(pilot, "did it at update 122"))
    (posted,) = [seen for seen in stub.requests if seen.method == "POST"]
    assert (posted.body["verb"], posted.body["args"]) == ("save", {"tag": 7})


async def test_acknowledging_shows_what_the_daemon_answers(stub: DaemonStub) -> None:
    """Who, and the note; before the answer it only says that it asks."""
    script_daemon(stub)
    seen = {"by": "owner", "at": "2026-01-31T12:06:00.000Z", "note": "on it"}
    stub.answer("PATCH", "/api/v1/anomalies/a1b2c3", documents.anomaly(acknowledged=seen))
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("]")
        await until(pilot, "try 1")
        await pilot.press("a", "o", "n", "space", "i", "t", "enter")
        check_golden("top/acknowledged.txt", await until(pilot, "acknowledged by owner: on it"))
    (patched,) = [request for request in stub.requests if request.method == "PATCH"]
    assert patched.body == {"acknowledged": True, "note": "on it"}


async def test_refusal_of_an_act_is_shown_in_its_own_words(stub: DaemonStub) -> None:
    """A token that may only read."""
    script_daemon(stub)
    problem = documents.problem("scope-missing", "The token does not allow this.", 403, detail="operate", hint="Ask for one.")
    stub.answer("PATCH", "/api/v1/anomalies/a1b2c3", problem, status=403)
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("]", "a")
        await until(pilot, "acknowledge ratio_explosion")
        await pilot.press("enter")
        await until(pilot, "The token does not allow this. operate Ask for one.")


async def test_stalled_run_says_how_that_is_known(stub: DaemonStub) -> None:
    """Evidence beside the state."""
    script_daemon(stub)
    evidence = "No update for 94 s; 2 s are usual."
    stub.answer_only("GET", "/api/v1/runs", documents.listed(documents.run_summary(state="stalled", evidence=evidence)))
    app = make_app(stub, run="ant-ppo")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, evidence)


async def test_paused_view_stands_still_and_goes_on(stub: DaemonStub) -> None:
    """What comes meanwhile is not lost."""
    stream = script_daemon(stub)
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, "120/500")
        await pilot.press("space")
        stream.send(sse("run", documents.run_summary(update_last=131), "e-3"))
        await until(pilot, lambda _: any(item["update_last"] == 131 for item in app.picture.runs))
        await pilot.press("l")  # draws anew
        assert "120/500" in await until(pilot, "paused")
        await pilot.press("space")
        await until(pilot, "131/500")


async def test_filter_shows_matching_lines_and_escape_takes_it_back(stub: DaemonStub) -> None:
    """Typing is not navigation: keys go into the text."""
    script_daemon(stub)
    app = make_app(stub)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("slash", *"lstm", "enter")
        await until(pilot, lambda screen: "humanoid-lstm" in screen and "ant-ppo" not in screen)
        await pilot.press("escape")
        await until(pilot, "ant-ppo")


async def test_escalation_is_shown_as_the_daemon_confirms_it_and_never_before(stub: DaemonStub) -> None:
    """Asked, sent, applied at an update: each only when the daemon says so."""
    stream = script_daemon(stub)
    asked = documents.escalation()
    stub.answer("POST", f"{RUN}/escalations", asked, status=202)
    app = make_app(stub, run="ant-ppo")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("e")
        check_golden("top/escalate-prompt.txt", await until(pilot, "debug 50"))
        stub.answer_only("GET", f"{RUN}/escalations", documents.listed(asked))
        await pilot.press("space", "o", "d", "d", "enter")
        screen = await until(pilot, "requested")
        assert "the trainer has not been told yet" in screen
        assert "applied" not in screen
        applied = {
            **asked,
            "state": "applied",
            "update_applied": 121,
            "sentence": "Collecting at debug since update 121, for 50 updates.",
        }
        stub.answer_only("GET", f"{RUN}/escalations", documents.listed(applied))
        stream.send(sse("escalation", applied, "e-2"))
        check_golden("top/escalated.txt", await until(pilot, "since update 121"))
    (posted,) = [seen for seen in stub.requests if seen.method == "POST"]
    assert (posted.body["level"], posted.body["updates"], posted.body["reason"]) == ("debug", 50, "odd")
