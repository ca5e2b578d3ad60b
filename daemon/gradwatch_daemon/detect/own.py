"""Detectors of other packages: what they import, and the fence around them.

Such a detector measures one number of an update and declares the limits it is compared with; all else (votes, causes, states,
storage) is as for any other. See docs/own-detector.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.own_memory import Memory
from gradwatch_daemon.detect.spec import Spec, Variant, once
from gradwatch_daemon.detect.view import Finding
from gradwatch_daemon.records.rules import Need, Rule, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import Input, View
    from gradwatch_daemon.records import Verdicts

__all__ = ["Measure", "Memory", "Need", "Severity", "Stage", "Threshold", "Update", "Vote", "detector", "once"]

PROFILES = ("default", "classic")


@dataclass(frozen=True, slots=True)
class Update:
    """One whole update: `signals` are the declared needs by name, as measured. Only an optional one may be None. A value may
    be infinite, but is never NaN."""

    number: int
    signals: Mapping[str, float | None]

    def __getitem__(self, signal: str) -> float:
        """A signal that is there; KeyError for one that was not declared or, being optional, was not measured."""
        value = self.signals[signal]
        if value is None:
            raise KeyError(f"{signal} was not measured in update {self.number}")
        return value


Measure = Callable[[Update, Memory], "float | None"]
"""The number of an update that is compared with the thresholds; None while there is nothing to say yet. It is given each
whole update once, in order, and only where all needs are measured. It must depend on nothing but its two arguments."""


def detector(
    kind: str,
    measure: Measure,
    *,
    stage: Stage,
    title: str,
    meaning: str,
    needs: Sequence[Need],
    thresholds: Sequence[Threshold],
    tries: Sequence[str],
    formula: str,
    fails_when: str,
    source: str,
    votes: Sequence[Vote] = (),
    keep_firing: int = 8,
    warm_up: int = 0,
    explains: Sequence[str] = (),
    subjects: Sequence[str] = ("",),
) -> Spec:
    """Declare a detector. Without `votes` one update beyond a threshold fires with the severity of that threshold.

    `subjects` are heads or keys that are judged one by one: a scalar given to `log` is the signal `user` with its key as the
    subject. `keep_firing` are the clear updates in a row after which a finding is over.
    """
    ranked = sorted({t.severity for t in thresholds if t.severity is not None}, key=lambda severity: severity.rank)
    variant = Variant(
        Fenced(measure),
        tuple(needs),
        tuple(thresholds),
        tuple(votes) or tuple(vote for severity in ranked for vote in once(severity)),
        keep_firing,
        formula,
        warm_up,
    )
    return Spec(
        kind=kind,
        stage=stage,
        title=title,
        meaning=meaning,
        source=source,
        fails_when=fails_when,
        tries=tuple(tries),
        profiles=dict.fromkeys(PROFILES, variant),
        explains=tuple(explains),
        subjects=tuple(subjects),
        subject_words=" of '{}'",
    )


@dataclass(frozen=True, slots=True)
class Fenced:
    """Asks a `Measure` update by update, so that neither batching nor an exception of it shows anywhere else.

    After an exception it is not asked again in that run: from that update on its detector is blind, and says why.
    """

    measure: Measure

    def __call__(self, view: View, rule: Rule) -> Verdicts:
        """Judge a block."""
        memory = view.state.memory(Memory, rule.kind, view.subject)
        inputs = [view.input(need.signal) for need in rule.needs]
        needed = [given for given, need in zip(inputs, rule.needs, strict=True) if not need.optional]
        whole = [True] * view.n if view.whole is None else _listed(view, view.whole)
        updates = _listed(view, view.update)
        values = [_listed(view, given.values) for given in inputs]
        readable = [_listed(view, given.readable) for given in inputs]
        asked = [_listed(view, given.readable) for given in needed]
        answers = []
        for row in range(view.n):
            signals = {
                need.signal: values[place][row] if readable[place][row] else None for place, need in enumerate(rule.needs)
            }
            good = whole[row] and all(column[row] for column in asked)
            answers.append(self._ask(Update(int(updates[row]), signals), memory, rule) if good else _Answer(learning=False))
        return _verdicts(view, rule, needed, answers, memory.failure)

    def _ask(self, update: Update, memory: Memory, rule: Rule) -> _Answer:
        if memory.failure:
            return _FAILED
        try:
            measured = self.measure(update, memory)
            value = math.nan if measured is None else float(measured)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"[:200]
            memory.failure = f"it failed on update {update.number} and is not asked again in this run ({said})"
            return _FAILED
        return _LEARNING if math.isnan(value) else _compared(value, rule)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one update. `rank` is of the gravest threshold exceeded, -1 for none."""

    value: float = math.nan
    rank: int = -1
    limit: float = math.nan
    clear: bool = False
    learning: bool = False
    failed: bool = False


_LEARNING, _FAILED = _Answer(learning=True), _Answer(failed=True)


def _compared(value: float, rule: Rule) -> _Answer:
    rank, limit, clear = -1, math.nan, True
    for threshold in rule.thresholds:
        if threshold.severity is None:
            continue
        over = value > threshold.limit if threshold.op == ">" else value < threshold.limit
        back = threshold.limit * threshold.clear
        clear &= value <= back if threshold.op == ">" else value >= back
        if over and threshold.severity.rank > rank:
            rank, limit = threshold.severity.rank, threshold.limit
    return _Answer(value, rank, limit, clear and rank < 0)


def _verdicts(view: View, rule: Rule, needed: list[Input], answers: list[_Answer], failure: str) -> Verdicts:
    last = answers[-1]
    found: Any
    if view.single:
        found = Finding(last.rank >= 0, max(last.rank, 0), last.clear, last.value, last.limit)  # type: ignore[arg-type]
        learning: Any = (last.learning, LEARNING_WORDS)
        return view.answer(rule, needed, found, learning, blind=failure if last.failed else "")
    failed = np.array([answer.failed for answer in answers])
    ranks = np.array([answer.rank for answer in answers])
    found = Finding(
        ranks >= 0,
        np.maximum(ranks, 0),
        np.array([answer.clear for answer in answers]),
        np.array([answer.value for answer in answers]),
        np.array([answer.limit for answer in answers]),
    )
    if failed.any():
        needed = [needed[0]._replace(readable=needed[0].readable & ~failed), *needed[1:]]
    learning = (np.array([answer.learning for answer in answers]), LEARNING_WORDS)
    verdicts = view.answer(rule, needed, found, learning)
    return verdicts._replace(reason=failure) if last.failed else verdicts


LEARNING_WORDS = "it has nothing to say yet"


def _listed(view: View, numbers: Any) -> list[Any]:
    """One entry a row, whether there is one row or many."""
    return [numbers] if view.single else list(numbers.tolist())
