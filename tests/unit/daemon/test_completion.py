"""Completion of the command line in real shells, made of the parser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gradwatch_daemon.cli.completion import bash, fish, zsh
from gradwatch_daemon.cli.grammar import read_grammar
from gradwatch_daemon.cli.parser import build_parser
from harness import api_documents as documents
from harness.daemon_stub import TOKEN, DaemonStub

if TYPE_CHECKING:
    from pathlib import Path

    from harness.command_line import CommandLine

VERBS = read_grammar(build_parser())
COMPLETE = r"""
source "$COMPLETION"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_gradwatch
printf "%s\n" "${COMPREPLY[@]}"
"""
SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


@pytest.fixture
def environment(tmp_path: Path, stub: DaemonStub) -> dict[str, str]:
    """A PATH whose `gradwatch` is this one, and a daemon with two runs."""
    stub.answer("GET", "/api/v1/runs", documents.listed(documents.run_summary(), documents.run_summary(run="ant-old")))
    command = tmp_path / "gradwatch"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m gradwatch_daemon.cli.main "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    (tmp_path / "completion").write_text(bash(VERBS), encoding="utf-8")
    env = {**os.environ, "COMPLETION": str(tmp_path / "completion")}
    return {**env, "PATH": f"{tmp_path}:{os.environ['PATH']}", "GRADWATCH_URL": stub.url, "GRADWATCH_TOKEN": TOKEN}


def _completed(environment: dict[str, str], *words: str) -> list[str]:
    """What bash would offer for the last of the words."""
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", "gradwatch", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return sorted(done.stdout.split())


def test_bash_completes_verbs_flags_choices_and_names_of_runs(environment: dict[str, str]) -> None:
    """In a real bash, with a daemon that knows two runs."""
    assert _completed(environment, "esc") == ["escalate"]
    assert _completed(environment, "runs", "--st") == ["--state"]
    assert "crashed" in _completed(environment, "runs", "--state", "")
    assert _completed(environment, "status", "ant-") == ["ant-old", "ant-ppo"]
    assert _completed(environment, "token", "re") == ["revoke"]
    assert _completed(environment, "escalate", "ant-ppo", "--for", "") == []


def test_completion_without_a_daemon_offers_no_run_and_says_nothing(environment: dict[str, str]) -> None:
    """A key was pressed: there is no place for a complaint."""
    assert _completed({**environment, "GRADWATCH_URL": "http://127.0.0.1:9"}, "status", "ant-") == []


@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_completion_script_is_valid_in_its_shell(shell: str) -> None:
    """As the shell itself reads it."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([found, "-n"], input=SHELLS[shell](VERBS), capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_completion_script_knows_every_verb_and_flag(gradwatch: CommandLine, shell: str) -> None:
    """Nothing is left out when a verb is added."""
    said = gradwatch("completion", shell).out

    assert [verb.name for verb in VERBS if verb.name not in said] == []
    flags = {name for verb in VERBS for word in verb.flags for name in word.names if name.startswith("--")}
    assert [name for name in flags if (f"-l {name[2:]}" if shell == "fish" else name) not in said] == []


def test_fish_completes_flags_of_a_verb(tmp_path: Path) -> None:
    """In a real fish where there is one."""
    found = shutil.which("fish")
    if found is None:
        pytest.skip("fish is not installed")
    script = tmp_path / "gradwatch.fish"
    script.write_text(fish(VERBS), encoding="utf-8")
    env = {**os.environ, "HOME": str(tmp_path)}
    command = f"source {script}; complete -C 'gradwatch runs --st'"
    done = subprocess.run([found, "-c", command], env=env, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split()[0] == "--state"
