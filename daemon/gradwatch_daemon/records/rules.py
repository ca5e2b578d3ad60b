"""What a detector declares, as plain records: read by detection, lifecycle, HTTP, command line and docs.

Stages do not import each other; what one needs to know of another's rules travels in these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gradwatch_contracts.control import Severity

V = TypeVar("V")
"""Numbers: an array, or one float."""

END_OF_UPDATE = 2**31 - 1
"""Minibatch index of what is only seen after the last minibatch; it sorts behind every real one and is shown as -1."""


class Measure(str, Enum):
    """What of a series a threshold is compared with. All but the first are not known while the run teaches what is usual."""

    VALUE = "value"
    Z = "z"
    TIMES = "times usual"
    USUAL = "usual"
    FIRST = "times first"
    UP = "sum up"
    DOWN = "sum down"
    ROWS = "updates seen"
    PROGRESS = "share of the run"


RELATIVE = frozenset({Measure.Z, Measure.TIMES, Measure.USUAL, Measure.FIRST, Measure.UP, Measure.DOWN})
"""Measures against the run's own past."""


@dataclass(frozen=True, slots=True)
class Need:
    """A signal a detector reads and the line of the trainer that feeds it. Without an optional one it still judges.

    `undefined` says what to make of it where it is sent but not defined; with `void` that is no reason to be blind. With a
    `subject` only that one needs it. `without` is what to say of the judgement while an optional one is missing.
    """

    signal: str
    add: str
    optional: bool = False
    undefined: str = ""
    void: bool = False
    subject: str = ""
    without: str = ""


@dataclass(frozen=True, slots=True)
class Threshold:
    """One configurable number. `op` is ">" or "<" and strict: a value equal to the limit does not breach.

    `key` names it in the configuration (`kl_extreme.k3`), `signal` what it is about ('' for what is no signal);
    `quantity` and `unit` are the words of the sentence; `severity` is that of a breach on its own, None for a part of a
    conjunction. `clear` x limit is the level at which it counts as over; between the two the finding is held.

    Signals are stored as float32, so comparisons are with `at` and `back`, the limit and the clear level rounded the
    same way: a stored 0.1 equals a limit of 0.1.

    `measure` says what is compared; `series` names the tracked series where it is not the signal itself.
    """

    key: str
    signal: str
    op: str
    limit: float
    quantity: str
    unit: str = ""
    severity: Severity | None = None
    clear: float = 1.0
    measure: Measure = Measure.VALUE
    series: str = ""
    at: float = field(init=False, repr=False, compare=False, default=0.0)
    back: float = field(init=False, repr=False, compare=False, default=0.0)
    rank: int = field(init=False, repr=False, compare=False, default=1)

    def __post_init__(self) -> None:
        stored = self.measure is Measure.VALUE and not self.series
        # No limit at all, times anything, is none.
        back = self.limit * self.clear if math.isfinite(self.limit) else self.limit
        object.__setattr__(self, "at", float(np.float32(self.limit)) if stored else self.limit)
        object.__setattr__(self, "back", float(np.float32(back)) if stored else back)
        object.__setattr__(self, "rank", 1 if self.severity is None else self.severity.rank)

    def exceeded(self, values: V) -> NDArray[np.bool_]:
        """Whether each value breaches; NaN does not. Values are an array, or one float and so is the answer one bool."""
        return values > self.at if self.op == ">" else values < self.at  # type: ignore[operator, return-value]

    def beyond(self, values: V) -> NDArray[np.bool_]:
        """`exceeded` for what detection computed itself in float64, such as a share: compared with the limit as it is."""
        return values > self.limit if self.op == ">" else values < self.limit  # type: ignore[operator, return-value]

    def cleared(self, values: V) -> NDArray[np.bool_]:
        """Whether each value is back at or beyond the clear level; NaN is not."""
        return values <= self.back if self.op == ">" else values >= self.back  # type: ignore[operator, return-value]


@dataclass(frozen=True, slots=True)
class Part:
    """One way to breach: all thresholds of `of` hold and none of `unless` does. What cannot be compared does not hold.

    The first of `of` is what the sentence is about. With a `subject` the part is judged for that subject only.
    """

    severity: Severity
    of: tuple[str, ...]
    unless: tuple[str, ...] = ()
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Vote:
    """`k` of the last `n` updates breached at severity `at` or worse: then the finding fires with severity `gives`."""

    at: Severity
    k: int
    n: int
    gives: Severity


@dataclass(frozen=True, slots=True)
class Rule:
    """One anomaly kind in one profile.

    `keep_firing` is the number of consecutive clear updates after which a finding is over; `warm_up` the measured
    updates before its relative part can judge (0 for none). `explains` names the kinds that its finding may be the
    cause of, "*" for all. `sentence` is a `str.format` template (see `anomalies.sentence`) and `subject_words` the one of
    its subject; `stage_order` is the causal place of the stage it looks at. `parts` are its ways to breach, empty where a
    function judges. An `invariant` judges also an update that was cut short; a `precursor` raises the level though it is info.
    """

    kind: str
    profile: str
    title: str
    meaning: str
    needs: tuple[Need, ...]
    thresholds: tuple[Threshold, ...]
    votes: tuple[Vote, ...]
    keep_firing: int
    warm_up: int
    formula: str
    source: str
    fails_when: str
    tries: tuple[str, ...]
    explains: tuple[str, ...]
    sentence: str
    stage_order: int
    subject_words: str = " of head '{}'"
    parts: tuple[Part, ...] = ()
    invariant: bool = False
    precursor: bool = False
    _by_key: Mapping[str, Threshold] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_key", {threshold.key: threshold for threshold in self.thresholds})

    def threshold(self, key: str) -> Threshold:
        """The threshold of this key; KeyError for an unknown one (a detector names only its own)."""
        try:
            return self._by_key[key]
        except KeyError:
            raise KeyError(f"{self.kind} has no threshold {key!r} in profile {self.profile}") from None

    def threshold_of(self, limit: float) -> Threshold:
        """The threshold a verdict's limit came from; the first one where the limit was computed from the baseline."""
        return next((t for t in self.thresholds if t.severity is not None and t.limit == limit), self.thresholds[0])

    def need(self, signal: str) -> Need:
        """The need for a signal; KeyError when it does not read that signal."""
        for need in self.needs:
            if need.signal == signal:
                return need
        raise KeyError(f"{self.kind} does not need {signal!r}")
