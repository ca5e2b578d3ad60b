"""The corpus with its labels, and what each method alerts on in each run at each tier."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.corpus.cases import CASES
from benchmarks.corpus.labels import Envelope, Label, label
from benchmarks.corpus.recording import read_corpus
from benchmarks.corpus.replay import derive, masked, replay
from benchmarks.scorecard.baselines import BASELINES
from benchmarks.scorecard.tiers import TIERS, keeps
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.corpus.cases import Case
    from benchmarks.corpus.recording import Recording
    from benchmarks.corpus.replay import Alert
    from gradwatch_daemon.records import SignalBlock


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A recording, its case and its label."""

    case: Case
    recording: Recording
    label: Label


@dataclass(frozen=True, slots=True)
class Judged:
    """What one method made of one run at one tier."""

    run: Run
    alerts: tuple[Alert, ...]


def load_runs(directory: Path, normal: Path | None = None) -> list[Run]:
    """Every recording of a case that still exists, labelled by what the healthy ones of `normal`, else of its own, do.

    Raises:
        CorpusError: a file cannot be read.
    """
    by_case = _by_case(directory)
    envelopes = {
        id: Envelope.of([recording.truth for recording in recordings])
        for id, recordings in (by_case if normal is None else _by_case(normal)).items()
        if CASES[id].healthy
    }
    runs = []
    for id, recordings in by_case.items():
        case = CASES[id]
        envelope = envelopes.get(case.of or id)
        if envelope is None:  # nothing says what is normal here
            continue
        runs += [Run(case, recording, label(case, recording, envelope)) for recording in recordings]
    return runs


def _by_case(directory: Path) -> dict[str, list[Recording]]:
    by_case: dict[str, list[Recording]] = defaultdict(list)
    for recording in read_corpus(directory):
        if recording.case in CASES:
            by_case[recording.case].append(recording)
    return by_case


def judge(runs: list[Run], show: Callable[[int, int], None]) -> dict[tuple[str, str], list[Judged]]:
    """(method, tier) → what it made of every run. Methods: the profiles at every tier, the baselines at the widest."""
    profiles = {name: load_profile(name) for name in PROFILES}
    found: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for done, run in enumerate(runs):
        blocks = derive(run.recording)
        for tier in TIERS:
            seen = _masked(blocks, tier, run.case)
            for name, profile in profiles.items():
                alerts = replay(seen, profile, run.recording.updates_total, singly=not run.case.healthy)
                found[name, tier].append(Judged(run, tuple(alerts)))
        for name, baseline in BASELINES.items():
            found[name, "hooks"].append(Judged(run, tuple(baseline(seen))))
        show(done + 1, len(runs))
    return found


def _masked(blocks: list[SignalBlock], tier: str, case: Case) -> list[SignalBlock]:
    keep = keeps(tier, case.masks)
    return [masked(block, keep) for block in blocks]
