"""`gradwatch top` as a command: one picture, and what it refuses."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from harness import api_documents as documents
from harness.terminal import script_daemon

if TYPE_CHECKING:
    import pytest

    from harness.command_line import CommandLine
    from harness.daemon_stub import DaemonStub


def test_top_without_a_daemon_exits_4_before_anything_is_drawn(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """As every other verb does."""
    stub.answer("GET", "/api/v1/daemon", documents.problem("not-ready", "The daemon is not ready.", 503), status=503)

    ended = gradwatch("top")

    assert ended.out == ""
    assert ended.err.startswith("gradwatch: The daemon is not ready.")


def test_top_of_an_unknown_run_exits_3(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """And says what is known."""
    script_daemon(stub)
    problem = documents.problem("run-not-found", "No run has this name.", 404, did_you_mean="ant-ppo")
    stub.answer("GET", "/api/v1/runs/ant-pp", problem, status=404)

    ended = gradwatch("top", "ant-pp", "--once")

    assert ended.code == 3
    assert "ant-ppo" in ended.err


def test_top_without_a_terminal_exits_2_and_names_once(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """In a pipe there is nobody to press keys."""
    script_daemon(stub)

    ended = gradwatch("top")

    assert (ended.code, ended.out) == (2, "")
    assert "--once" in ended.err


def test_top_without_textual_exits_2_and_names_the_extra(
    stub: DaemonStub, gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon and the other verbs work without it."""
    script_daemon(stub)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "textual.app", None)
    monkeypatch.delitem(sys.modules, "gradwatch_daemon.cli.top.app", raising=False)

    ended = gradwatch("top")

    assert ended.code == 2
    assert 'pip install -e ".[top]"' in ended.err


def test_top_once_prints_the_runs_and_needs_no_textual(
    stub: DaemonStub, gradwatch: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a script, or a terminal that cannot draw."""
    script_daemon(stub)
    monkeypatch.setitem(sys.modules, "textual.app", None)

    ended = gradwatch("top", "--once", "--ascii")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.isascii()
    assert [line.split()[:2] for line in ended.out.splitlines()[2:4]] == [[">", "ant-ppo"], ["humanoid-lstm", "lost"]]
    assert ended.out.rstrip().endswith("loss.")


def test_top_once_of_a_run_prints_its_signals(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """The page of one run."""
    script_daemon(stub)

    ended = gradwatch("top", "ant-ppo", "--once", "--ascii")

    assert ended.code == 0
    assert "policy.kl.k3             NaN" in ended.out
    assert "XX" in ended.out
