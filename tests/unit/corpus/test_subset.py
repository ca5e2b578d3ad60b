"""The first seed of every plain and every broken case, replayed through detection as it is now."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.corpus import __main__ as corpus_command
from benchmarks.corpus.cases import CASES
from benchmarks.corpus.noise import noise_table
from benchmarks.corpus.recording import read_case
from benchmarks.corpus.replay import derive, masked, replay
from benchmarks.corpus.table import case_table
from benchmarks.scorecard import __main__ as scorecard_command
from benchmarks.scorecard.tiers import keeps
from gradwatch_contracts.columns import Schema
from gradwatch_contracts.control import Severity
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile

if TYPE_CHECKING:
    from benchmarks.corpus.replay import Alert

DATA = Path(__file__).parents[2] / "data" / "corpus"
IDS = sorted(path.stem for path in DATA.glob("*.corpus"))
ABRUPT = [id for id in IDS if CASES[id].nature == "abrupt"]
WINDOW = 20


def _alerts(id: str, *, singly: bool = False) -> list[Alert]:
    case = CASES[id]
    (recording,) = read_case(DATA / f"{id}.corpus")
    blocks = [masked(block, keeps("hooks", case.masks)) for block in derive(recording)]
    return replay(blocks, load_profile("default"), recording.updates_total, singly=singly)


def test_subset_is_small_and_of_every_mechanism() -> None:
    """It travels with the tests."""
    assert set(IDS) == {id for id in CASES if not id.startswith("T")}
    assert sum(path.stat().st_size for path in DATA.glob("*")) < 1_000_000


@pytest.mark.parametrize("id", ABRUPT)
def test_abrupt_fault_is_found_in_time(id: str) -> None:
    """By a kind that says so, at a warning or worse, within twenty updates."""
    case, alerts = CASES[id], _alerts(id, singly=True)

    found = [kind for alert in alerts for kind, at in alert.kinds if case.inject <= at <= case.inject + WINDOW]
    assert case.accepts & set(found), found


@pytest.mark.parametrize("id", [id for id in IDS if CASES[id].healthy])
def test_healthy_run_is_not_called_critical(id: str) -> None:
    """A false warning costs a glance, a false critical one a night."""
    assert [alert for alert in _alerts(id) if alert.severity is Severity.CRITICAL] == []


def test_replay_row_by_row_finds_what_it_finds_at_once() -> None:
    """However a recording is cut, its anomalies are the same; only the update at which one rose to a warning is exact."""
    at_once, singly = _alerts("P01"), _alerts("P01", singly=True)

    assert [(a.kind, a.subject, a.severity, a.sentence) for a in at_once] == [
        (a.kind, a.subject, a.severity, a.sentence) for a in singly
    ]


def test_scorecard_of_the_subset_is_incomplete_and_still_a_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 11, every method in it, the hashes of what was scored, and the words that say it proves nothing."""
    monkeypatch.setattr("sys.argv", ["scorecard", "--data", str(DATA), "--json"])

    assert scorecard_command.main() == 11

    out, err = capsys.readouterr()
    card = json.loads(out)
    assert "incomplete" in err
    assert card["complete"] is False
    assert card["rules"] == {name: load_profile(name).rules_hash for name in PROFILES}
    assert {score["method"] for score in card["scores"]} == {*PROFILES, "NaN only", "folk thresholds", "ZClip"}
    default = next(score for score in card["scores"] if (score["method"], score["tier"]) == ("default", "hooks"))
    nan_only = next(score for score in card["scores"] if score["method"] == "NaN only")
    assert default["recall"][0] > nan_only["recall"][0]


def test_scorecard_without_recordings_or_with_a_damaged_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing recorded is no perfect score."""
    monkeypatch.setattr("sys.argv", ["scorecard", "--data", str(tmp_path)])
    assert scorecard_command.main() == 11
    assert "holds no recordings" in capsys.readouterr().err
    (tmp_path / "P01.corpus").write_bytes(b"nonsense")
    assert scorecard_command.main() == 2
    assert "P01.corpus" in capsys.readouterr().err


def test_noise_of_the_subset_has_a_row_for_what_moves_and_says_it_is_too_little() -> None:
    """The page names its corpus; a signal that never moves has no noise."""
    lines, updates = noise_table(DATA)

    assert 0 < updates < 50_000
    assert any(line.startswith("**Incomplete**") for line in lines)
    assert any(line.startswith("| `policy.kl.k3` |") for line in lines)
    assert not any(line.startswith("| `grad.clip_limit`") for line in lines)


def test_corpus_page_table_is_that_of_the_code() -> None:
    """`python -m benchmarks.corpus table` writes it."""
    page = (corpus_command.ROOT / "docs" / "corpus.md").read_text(encoding="utf-8")

    assert f"<!-- cases -->\n{case_table()}\n<!-- /cases -->" in page


def test_replay_of_odd_rows_goes_on_and_says_what_it_can() -> None:
    """Repeated, reversed and missing updates and a column that nobody knows: no crash, and the fault is still found."""
    (recording,) = read_case(DATA / "P05.corpus")
    part = recording.parts[0]
    order = [*range(60), *range(40, 60), *range(75, 80), 79, 78, *range(80, len(part.update))]
    columns = (replace(part.schema.columns[0], name="nobody.knows"), *part.schema.columns[1:])
    names = ("update", "t_ns", "env_steps", "level", "flags", "values", "status")
    arrays = {name: getattr(part, name)[order] for name in names}
    odd = replace(recording, parts=(replace(part, schema=Schema.of(columns), **arrays),))

    alerts = replay(derive(odd), load_profile("default"), recording.updates_total)

    assert "nonfinite" in {kind for alert in alerts for kind, _ in alert.kinds}
