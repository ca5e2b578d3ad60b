"""The corpus, and as many mutations of it as a test has time for, under a memory limit. `make fuzz` looks further."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import fuzzing

SCRIPT = Path(__file__).with_name("fuzz.py")
LIMIT_MB = 768
"""Address space: numpy and the interpreter take about 300 MB of it."""


@pytest.mark.parametrize(("target", "count"), [("decode", 12_000), ("gate", 2_000)])
def test_no_bytes_break_a_promise_or_the_memory_limit(target: str, count: int) -> None:
    """The same inputs each time; a failing one is printed, to be put into the corpus."""
    command = [sys.executable, str(SCRIPT), target, "--count", str(count), "--memory-mb", str(LIMIT_MB)]
    ended = subprocess.run(
        command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=110, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert f"{target}: {count} inputs, none failed" in ended.stdout


@pytest.mark.parametrize("target", sorted(fuzzing.TARGETS))
def test_corpus_reaches_every_kind_of_message(target: str) -> None:
    """What fuzzing found is kept, and the seeds hold each message whole."""
    assert len(fuzzing.corpus(target)) > len(fuzzing.seeds(target)) >= len(fuzzing.EXAMPLES)


def test_fuzzing_finds_an_error_that_is_not_ours_and_prints_its_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A KeyError out of the decoder is a broken promise."""

    def broken(frame: bytes) -> object:
        raise KeyError(frame)

    monkeypatch.setattr(fuzzing, "decode", broken)
    with pytest.raises(KeyError):
        fuzzing.run("decode", b"\x00abc")
    assert "decode fails on b'\\x00abc'" in capsys.readouterr().err


def test_fuzzing_finds_a_record_that_is_kept_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that takes duplicates breaks what the gate promises of seqs."""

    def forgetful(self: fuzzing.LiveSession, first_seq: int, count: int) -> int:
        self.last_seq = max(self.last_seq, first_seq + count - 1)
        return 0

    monkeypatch.setattr(fuzzing.LiveSession, "accept", forgetful)
    event = fuzzing.input_of(fuzzing.encode(fuzzing.EXAMPLES["EVENT"]))
    twice = (len(event).to_bytes(2, "little") + event) * 2
    with pytest.raises(AssertionError):
        fuzzing.run("gate", twice)
