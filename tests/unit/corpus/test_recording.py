"""Recordings on disk: what is kept, what is refused, what is recorded again."""

from __future__ import annotations

import lzma
from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack
import numpy as np
import pytest

from benchmarks.corpus import recorder
from benchmarks.corpus.cases import Case
from benchmarks.corpus.recording import CorpusError, Recording, corpus_hash, read_case, read_corpus, rounded, write_case
from benchmarks.corpus.setup import Setup

if TYPE_CHECKING:
    from pathlib import Path

CASE = Case("X1", "test", Setup("TwoState", updates=2, epochs=1))


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Two updates."""
    return recorder.record_run(CASE, 1)


def test_recording_damaged_is_refused_with_the_file(tmp_path: Path, recording: Recording) -> None:
    """A truncated or foreign file is never read as an empty one."""
    path = tmp_path / "X1.corpus"
    write_case(path, [recording])
    whole = path.read_bytes()
    for damaged in (whole[:-7], b"", b"\x93\x01\x02\x03", msgpack.packb([lzma.compress(b"\x81\xa6format\x63")])):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"X1\.corpus"):
            read_case(path)


def test_recording_packed_comes_back_bit_for_bit(tmp_path: Path, recording: Recording) -> None:
    """NaN, both infinities and every status among them."""
    part = recording.parts[0]
    values, status = part.values.copy(), part.status.copy()
    values[0, :3] = [np.nan, np.inf, -np.inf]
    status[1, :12] = range(12)
    changed = replace(recording, parts=(replace(part, values=values, status=status),))
    write_case(tmp_path / "X1.corpus", [changed])

    (found,) = read_corpus(tmp_path)

    back = found.parts[0]
    assert back.schema == part.schema
    for name in ("update", "t_ns", "env_steps", "level", "flags", "status"):
        np.testing.assert_array_equal(getattr(back, name), getattr(changed.parts[0], name))
    assert back.values.tobytes() == values.tobytes()
    assert found.truth.tobytes() == recording.truth.tobytes()
    assert (found.case, found.seed, found.key, found.updates_total) == ("X1", 1, recording.key, 2)


def test_rounded_keeps_whole_numbers_and_what_is_not_finite() -> None:
    """Counts must stay exact, and a large finite number must not become an infinity."""
    values = np.array([0.0, 1.0, 8191.0, -3.0, np.nan, np.inf, -np.inf, 1e300, 0.1])

    kept = rounded(values)

    np.testing.assert_array_equal(kept[:4], values[:4])
    assert np.isnan(kept[4])
    assert kept[5:7].tolist() == [np.inf, -np.inf]
    assert np.isfinite(kept[7])
    assert kept[8] == pytest.approx(0.1, rel=1.3e-4)


def test_record_again_records_only_what_is_missing_or_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recording that was stopped goes on; a changed case is recorded anew; a damaged file is said and recorded anew."""
    cases = {"X1": replace(CASE, seeds=3)}
    monkeypatch.setattr(recorder, "CASES", cases)
    assert recorder.record(tmp_path, seeds=2) == 2
    before = corpus_hash(tmp_path)
    assert recorder.record(tmp_path, seeds=2) == 0
    assert corpus_hash(tmp_path) == before
    assert recorder.record(tmp_path) == 1
    assert [r.seed for r in read_corpus(tmp_path)] == [1, 2, 3]

    cases["X1"] = replace(cases["X1"], setup=replace(CASE.setup, lr=1e-4))
    assert recorder.record(tmp_path) == 3
    capsys.readouterr()
    (tmp_path / "X1.corpus").write_bytes(b"nonsense")
    assert recorder.record(tmp_path) == 3
    assert "recording it again" in capsys.readouterr().err
