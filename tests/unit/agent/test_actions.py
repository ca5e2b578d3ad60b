"""Commands at a trainer: what it offers, what it answers, and that its own faults stay its own."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch  # noqa: F401 - `profile` is offered where torch is

from gradwatch_agent import watch
from gradwatch_agent.exits import describe
from gradwatch_contracts import limits
from gradwatch_contracts.control import CANCEL
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.messages import Command, Hello, Result
from harness.recording import monitoring
from harness.router import FakeDaemon, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from gradwatch_agent import Monitor

ALWAYS = ("dump", "profile")
"""What every trainer can be asked for."""


def give(monitor: Monitor, *commands: Command) -> None:
    """Hand commands in, as the link does, and end the update."""
    for command in commands:
        monitor.actions.commands.receive(command)
    monitor.step()


@pytest.mark.parametrize(("verb", "handler"), [("Save", print), ("stop", print), ("cancel", print), ("save", None), (3, print)])
def test_on_command_of_no_word_or_no_function_is_told_and_offers_nothing(
    caplog: pytest.LogCaptureFixture, verb: Any, handler: Any
) -> None:
    """Training begins all the same."""
    with monitoring() as (monitor, _):
        monitor.on_command(verb, handler)
        assert monitor.actions.verbs.names == ALWAYS
        assert "on_command takes a word" in caplog.text


def test_on_command_beyond_what_hello_may_say_is_told_and_not_offered(caplog: pytest.LogCaptureFixture) -> None:
    """The daemon would refuse the run for good; room for our own words is kept."""
    with monitoring() as (monitor, _):
        for number in range(limits.VERBS_MAX):
            monitor.on_command(f"save-{number}", print)
        monitor.on_command("save-0", print)
        assert "one more than is kept" in caplog.text
        assert monitor.should_stop is False
        assert len(monitor.actions.verbs.names) <= limits.VERBS_MAX
        assert "stop" in monitor.actions.verbs.names


def test_command_whose_function_raises_is_rejected_with_its_words_and_training_goes_on() -> None:
    """A disk that is full when a checkpoint is written is for whoever asked for it."""

    def save(args: dict[str, Any]) -> None:
        raise OSError("No space left\non device")

    with monitoring() as (monitor, record):
        monitor.on_command("checkpoint", save)
        give(monitor, Command("c1", "checkpoint"))
        monitor.step()
        assert record.results == [("c1", "applied", 1, ""), ("c1", "rejected", 1, "failed: OSError: No space left on device")]
    assert [row.update for row in record.rows] == [0, 1]


class UnspeakableError(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise ValueError("not even this")


def test_command_whose_error_cannot_be_put_in_words_is_rejected_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """An exception is the trainer's own class; what its __str__ does is not for us to die of."""

    def save(args: dict[str, Any]) -> None:
        raise UnspeakableError

    with monitoring() as (monitor, record):
        monitor.on_command("checkpoint", save)
        give(monitor, Command("c1", "checkpoint"))
        monitor.step()
        said = "UnspeakableError: (UnspeakableError, whose text cannot be made: ValueError)"
        assert record.results == [("c1", "applied", 1, ""), ("c1", "rejected", 1, f"failed: {said}")]
    assert said in caplog.text
    assert describe(UnspeakableError())[1]["message"] == "(UnspeakableError, whose text cannot be made: ValueError)"


def test_functions_of_commands_are_let_go_of_when_the_trainer_ends() -> None:
    """They hold the model and what else they were made in, and nobody can ask for them any more."""

    class Saver:
        def __call__(self, args: dict[str, Any]) -> None:
            """Save."""

    saver = Saver()
    seen = weakref.ref(saver)
    with monitoring() as (monitor, _):
        monitor.on_command("checkpoint", saver)
        del saver
        monitor.step()
        assert seen() is not None
        monitor.close()
        gc.collect()
        assert seen() is None


def test_command_runs_its_function_between_two_updates_with_its_arguments() -> None:
    """What it returns is the outcome; its time is not ours."""
    seen: list[tuple[int, dict[str, Any]]] = []

    def save(args: dict[str, Any]) -> str:
        seen.append((monitor.update, args))
        return f"saved to {args['path']}"

    with monitoring() as (monitor, record):
        monitor.on_command("checkpoint", save)
        give(monitor, Command("c1", "checkpoint", {"path": "/tmp/x", "best": True}))
        assert seen == [(1, {"path": "/tmp/x", "best": True})]
        assert record.results == [("c1", "applied", 1, ""), ("c1", "ended", 1, "saved to /tmp/x")]


def test_stop_is_offered_by_the_first_look_and_holds_until_the_trainer_ends() -> None:
    """Nothing is killed: the trainer stops when it looks, and says so."""
    with monitoring() as (monitor, record):
        assert monitor.actions.verbs.names == ALWAYS
        assert not monitor.should_stop
        assert monitor.actions.verbs.names == (*ALWAYS, "stop")
        give(monitor, Command("c1", "stop"))
        assert monitor.should_stop
        assert monitor.should_stop
        monitor.close()
    assert record.results == [("c1", "applied", 1, ""), ("c1", "ended", 1, "the trainer stopped")]
    assert monitor.actions.stopped


def test_stop_nobody_looked_at_says_so() -> None:
    """A trainer that reached its last update by itself did not stop because it was asked."""
    with monitoring() as (monitor, record):
        assert not monitor.should_stop
        give(monitor, Command("c1", "stop"))
        monitor.actions.close(monitor.update)
        assert record.results[-1] == ("c1", "ended", 1, "the trainer ended without looking at should_stop again")
        assert not monitor.actions.stopped


def test_stop_taken_back_in_time_lets_the_trainer_go_on() -> None:
    """As if nobody had asked."""
    with monitoring() as (monitor, record):
        assert not monitor.should_stop
        give(monitor, Command("c1", "stop"))
        give(monitor, Command("c1", CANCEL))
        assert not monitor.should_stop
        assert record.results[-1] == ("c1", "ended", 2, "cancelled")


def test_should_stop_with_several_ranks_is_never_true_and_never_offered_without_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ranks that disagree hang in the next collective."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    mon = watch(run="alone", endpoint=f"ipc://{tmp_path}/none")
    try:
        assert not mon.should_stop
        give(mon, Command("c1", "stop"))
        assert not mon.should_stop
        assert mon.actions.verbs.names == ALWAYS
        assert "watch(agree=…)" in caplog.text
    finally:
        mon.close()


def test_should_stop_with_agree_is_what_all_ranks_agree_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Asked at every look on every rank, whoever was told; both ranks stop at the same look."""
    asked: list[bool] = []
    others = {"stop": False}

    def agree(mine: bool) -> bool:
        asked.append(mine)
        return mine or others["stop"]

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    mon = watch(run="together", endpoint=f"ipc://{tmp_path}/none", agree=agree)
    try:
        assert not mon.should_stop
        others["stop"] = True
        assert mon.should_stop
        give(mon, Command("c1", "stop"))
        assert mon.should_stop
        assert asked == [False, False, True]
        assert mon.actions.verbs.names == (*ALWAYS, "stop")
    finally:
        mon.close()


def test_agree_that_is_no_function_is_refused_before_training() -> None:
    """Which argument, and what it takes."""
    with pytest.raises(GradwatchError, match="agree"):
        watch(run="x", agree="all_reduce")


def test_agree_that_raises_does_not_reach_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is then False."""
    monkeypatch.delenv("GRADWATCH_STRICT", raising=False)

    def agree(mine: bool) -> bool:
        raise RuntimeError("the group is gone")

    with monitoring(agree=agree) as (monitor, _):
        assert monitor.should_stop is False


def test_verbs_offered_after_the_greeting_are_told_by_another_one_and_results_arrive(tmp_path: Path) -> None:
    """Over a real socket: HELLO, then HELLO with the verb, then the command and both its words, once each."""
    endpoint = f"ipc://{tmp_path}/control"
    with FakeDaemon(endpoint) as daemon:
        mon = watch(run="offered", endpoint=endpoint)
        saved: list[object] = []
        try:
            eventually(lambda: mon._link is not None and mon._link.state == "live", "WELCOME")
            mon.on_command("checkpoint", lambda args: saved.append(args) or "written")
            eventually(lambda: any(h.verbs == ("checkpoint", *ALWAYS) for h in daemon.of(Hello)), "HELLO with the verb")
            daemon.send(Command("c1", "checkpoint"))
            daemon.send(Command("c1", "checkpoint"))

            def answered() -> bool:
                mon.step()
                said = [r for r in daemon.memory.records.values() if isinstance(r, Result)]
                return [(r.id, r.state, r.reason) for r in said] == [("c1", "applied", ""), ("c1", "ended", "written")]

            eventually(answered, "both results, once")
            assert saved == [{}]
        finally:
            mon.close()
