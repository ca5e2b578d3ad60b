"""The scorecard as Markdown and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.corpus.cases import CASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.scorecard.runs import Run
    from benchmarks.scorecard.score import Score

FAULT_RUNS_MIN, HEALTHY_UPDATES_MIN = 17 * 5, 20_000
"""Less than this proves nothing: the scorecard is then incomplete."""


HEADER = """\
<!-- Written by `make scorecard`: do not edit. -->
# Scorecard

How good detection is on the recorded corpus ([corpus.md](corpus.md)). Made by `make scorecard`, which replays every
recording through the daemon's own derivation, detection and lifecycle. Synthetic streams never count.
"""

METHODS = """\
## Every method

Tier: *logged* are the keys a library logs, *callback* what a callback can pass, *hooks* everything. The baselines get every
benefit: any alarm of theirs in time counts as a find.
"""

HELD_OUT = """\
## On seeds that no rule was set on

The rules were set while looking at the recordings above. These (`benchmarks/corpus/held_out`) have other seeds, and were
recorded after that; what is normal is still said by the ones above. Once a rule is changed because of them they hold nothing
out any more: record others with `python -m benchmarks.corpus --data benchmarks/corpus/held_out record --seeds 2 --first N`.
"""

LEGEND = """\
## What the figures mean

- **Recall**: share of fault runs with an alert of at least a warning, of an accepted kind (in the anomaly or attached to
  it), within 20 updates of the injection (abrupt) or 60 of the first sign and before it was fatal (gradual, natural).
  *Macro* is the mean over mechanisms, *worst* the lowest of them. Intervals are exact (Clopper and Pearson).
- **False alarm**: an anomaly of at least a warning in a healthy run or before an injection, each once. The interval is exact
  (Garwood).
- **Delay**: median and 90th percentile in updates, from the injection (abrupt) or the first sign (gradual; earlier counts
  as 0). A miss is later than anything: `never` where that reaches the quantile.
- **Lead**: of the runs that became fatal, not at once, those found at least 5 updates before.
- **Root first**: of the found ones, those whose first alert is of a kind that names the cause. **Alerts per fault**: from
  the injection on.
- **First sign and fatal** come from the trainer's own numbers (`benchmarks/corpus/labels.py`), never from agent or daemon.
- What was turned is hidden: a changed learning rate must be found by what it does.
"""

COLUMNS = (
    "method",
    "tier",
    "recall (95 %)",
    "macro",
    "worst",
    "false alarms per 1,000 (95 %)",
    "critical, of them tricky",
    "delay abrupt",
    "delay gradual",
    "lead >= 5",
    "root first",
    "alerts per fault",
)


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Everything that is reported. `scores` in order of method and tier; `rules` is profile → hash of its thresholds;
    `held_out` the same of runs that no rule was set on."""

    scores: tuple[Score, ...]
    runs: tuple[Run, ...]
    corpus_hash: str
    stale: int
    rules: Mapping[str, str]
    commit: str
    held_out: Scorecard | None = None

    @property
    def faults(self) -> int:
        """Fault runs whose fault showed."""
        return self.scores[0].faults if self.scores else 0

    @property
    def healthy_updates(self) -> int:
        """Updates in which nothing was wrong."""
        return self.scores[0].healthy_updates if self.scores else 0

    @property
    def excluded(self) -> list[Run]:
        """Fault runs whose fault never showed."""
        return [run for run in self.runs if not run.case.healthy and run.label.manifest is None]

    @property
    def failures(self) -> list[Run]:
        """Runs declared healthy that failed by themselves."""
        return [run for run in self.runs if run.case.healthy and run.label.fatal is not None]

    @property
    def missing(self) -> str:
        """Why the card is incomplete, '' where it is not."""
        if self.faults >= FAULT_RUNS_MIN and self.healthy_updates >= HEALTHY_UPDATES_MIN:
            return ""
        return (
            f"{self.faults} fault runs of {FAULT_RUNS_MIN} and {self.healthy_updates:,} healthy updates of "
            f"{HEALTHY_UPDATES_MIN:,}: record the rest with `python -m benchmarks.corpus record`"
        )


def summary(card: Scorecard) -> list[str]:
    """What the README carries: the default profile, in a few lines."""
    best = next(score for score in card.scores if (score.method, score.tier) == ("default", "hooks"))
    recall, low, high = (100 * share for share in best.recall)
    rate, rate_low, rate_high = best.false_rate
    lines = [
        f"Recall {recall:.0f} % ({low:.0f} to {high:.0f} %) on {best.faults} fault runs of {len(best.per_case)} mechanisms;",
        f"{rate:.2f} false alarms ({rate_low:.2f} to {rate_high:.2f}) per 1,000 of {best.healthy_updates:,} healthy updates;",
        f"median delay {_number(best.delay_abrupt[0])} updates (abrupt) and {_number(best.delay_gradual[0])} (gradual);",
        f"the first alert names the cause in {_percent(*best.rooted)} of what is found;",
        f"{best.alerts_per_fault:.1f} alerts per fault run.",
    ]
    if card.held_out is not None:
        held = next(score for score in card.held_out.scores if (score.method, score.tier) == ("default", "hooks"))
        lines.append(
            f"On seeds no rule was set on: recall {_percent(held.found, held.faults)}, {held.false_rate[0]:.2f} false alarms "
            f"per 1,000 of {held.healthy_updates:,}."
        )
    if card.missing:
        lines.insert(0, f"*Incomplete*: {card.missing}.")
    return lines


def markdown(card: Scorecard) -> str:
    """The whole card."""
    return "\n".join(_markdown(card)) + "\n"


def _markdown(card: Scorecard) -> Iterator[str]:
    yield HEADER
    if card.missing:
        yield f"**Incomplete**: {card.missing}."
        yield ""
    yield f"Corpus `{card.corpus_hash}`{_stale(card)}; rules {_rules(card)}; commit {card.commit}. {len(card.runs)} runs:"
    yield f"{card.faults} with a fault that showed;"
    yield f"{len(card.excluded)} with one that never did, excluded: {_names(card.excluded)};"
    yield f"{len(card.failures)} declared healthy that failed by themselves, left out from there on: {_names(card.failures)}."
    yield ""
    yield "## Summary"
    yield ""
    yield from summary(card)
    yield ""
    yield METHODS
    yield from _table(card.scores)
    yield ""
    if card.held_out is not None:
        yield HELD_OUT
        held = card.held_out
        counted = f"{held.faults} runs with a fault, {held.healthy_updates:,} healthy updates"
        yield f"{counted}, corpus `{held.corpus_hash}`{_stale(held)}."
        yield ""
        yield from _table(_shown(held.scores))
        yield ""
    yield "## Recall by mechanism"
    yield ""
    yield from _by_case(card.scores)
    yield ""
    yield "## False alarms by healthy setting"
    yield ""
    yield from _by_healthy(card.scores)
    yield ""
    yield LEGEND


def document(card: Scorecard) -> dict[str, Any]:
    """The whole card as JSON: NaN and infinities are null."""
    return {
        "corpus": card.corpus_hash,
        "stale_runs": card.stale,
        "rules": dict(card.rules),
        "commit": card.commit,
        "complete": not card.missing,
        "fault_runs": card.faults,
        "healthy_updates": card.healthy_updates,
        "excluded": [run.recording.name for run in card.excluded],
        "natural_failures": [run.recording.name for run in card.failures],
        "scores": [_document(score) for score in card.scores],
        "held_out": None if card.held_out is None else document(card.held_out),
    }


def _document(score: Score) -> dict[str, Any]:
    return {
        "method": score.method,
        "tier": score.tier,
        "recall": _finite(score.recall),
        "recall_macro": _finite(score.macro),
        "recall_worst": {"case": score.worst[0], "recall": _finite(score.worst[1])},
        "recall_by_case": {id: {"found": hits, "of": count} for id, (hits, count) in score.per_case.items()},
        "false_alarms": score.false_alarms,
        "false_alarms_per_1000": _finite(score.false_rate),
        "false_critical": score.critical,
        "false_critical_tricky": score.tricky_critical,
        "false_alarms_by_case": {id: {"alarms": n, "updates": u} for id, (n, u) in score.by_healthy_case.items()},
        "delay_abrupt": _finite(score.delay_abrupt),
        "delay_gradual": _finite(score.delay_gradual),
        "lead_5_or_more": {"runs": score.lead_share[0], "of": score.lead_share[1]},
        "root_first": {"runs": score.rooted[0], "of": score.rooted[1]},
        "alerts_per_fault": _finite(score.alerts_per_fault),
    }


def _table(scores: Sequence[Score]) -> Iterator[str]:
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + " --- |" * len(COLUMNS)
    for s in scores:
        recall, low, high = (100 * share for share in s.recall)
        rate, rate_low, rate_high = s.false_rate
        worst = f"{s.worst[0]} {100 * s.worst[1]:.0f} %" if s.per_case else "-"
        cells = [
            s.method,
            s.tier,
            f"{recall:.0f} % ({low:.0f} to {high:.0f})",
            f"{100 * s.macro:.0f} %",
            worst,
            f"{rate:.2f} ({rate_low:.2f} to {rate_high:.2f})",
            f"{s.critical}, {s.tricky_critical}",
            _pair(s.delay_abrupt),
            _pair(s.delay_gradual),
            _percent(*s.lead_share),
            _percent(*s.rooted),
            f"{s.alerts_per_fault:.1f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def _by_case(scores: Sequence[Score]) -> Iterator[str]:
    shown = _shown(scores)
    yield "| case | what | class | " + " | ".join(f"{s.method}, {s.tier}" for s in shown) + " |"
    yield "|" + " --- |" * (3 + len(shown))
    for id in shown[0].per_case if shown else ():
        cells = [f"{hits}/{count}" for hits, count in (s.per_case[id] for s in shown)]
        yield f"| {id} | {CASES[id].title} | {CASES[id].nature} | " + " | ".join(cells) + " |"


def _by_healthy(scores: Sequence[Score]) -> Iterator[str]:
    shown = _shown(scores)
    yield "| case | what | updates | " + " | ".join(f"{s.method}, {s.tier}" for s in shown) + " |"
    yield "|" + " --- |" * (3 + len(shown))
    for id in shown[0].by_healthy_case if shown else ():
        updates = shown[0].by_healthy_case[id][1]
        yield f"| {id} | {CASES[id].title} | {updates:,} | " + " | ".join(str(s.by_healthy_case[id][0]) for s in shown) + " |"


def _shown(scores: Sequence[Score]) -> list[Score]:
    """Each method once, at the widest tier, and the default profile at all of them."""
    return [score for score in scores if score.tier == "hooks" or score.method == "default"]


def _stale(card: Scorecard) -> str:
    return f" ({card.stale} runs are of an older trainer or agent: `make corpus` records them again)" if card.stale else ""


def _rules(card: Scorecard) -> str:
    return ", ".join(f"{name} `{rules}`" for name, rules in card.rules.items())


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.recording.name for run in runs) or "none"


def _pair(pair: tuple[float, float]) -> str:
    return f"{_number(pair[0])} / {_number(pair[1])}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.0f}"


def _percent(hits: int, count: int) -> str:
    return f"{100 * hits / count:.0f} % ({hits}/{count})" if count else "-"


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(item) for item in value]
    return value if math.isfinite(value) else None
