"""The noise law: how every signal moves from update to update while nothing is wrong. Thresholds are chosen from it.

Of each healthy run, from update 20 on: x is the logarithm of a signal that is positive there, or the signal itself; its
residual is x less the running median of 33 updates around it. Sigma is 1.48 times the median absolute residual.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.corpus.cases import CASES
from benchmarks.corpus.labels import Envelope, label
from benchmarks.corpus.recording import corpus_hash, read_corpus
from benchmarks.corpus.replay import derive
from gradwatch_contracts.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from gradwatch_daemon.records import SignalBlock

SETTLED = 20
WINDOW = 33
ROWS_MIN = 3 * WINDOW
GAUSS_TAIL = 1000 * math.erfc(4 / math.sqrt(2))
"""Values beyond 4 sigma per 1,000 of a Gaussian: 0.06."""

UPDATES_MIN = 50_000

HEADER = """\
<!-- Written by `make noise`: do not edit. -->
# The noise law

How every signal moves from update to update while nothing is wrong. The thresholds of the `default` profile rest on it: a
rule must not fire on what healthy runs do, and these are not independent Gaussian numbers.
"""

LEGEND = f"""\
Of each run from update 20 on, x is the logarithm of the signal (the signal itself, marked \\*, where it is not always
positive); its residual is x less the running median of 33 updates. Medians over runs, in brackets the 90th percentile.

- **sigma**: 1.48 x median absolute residual. In logarithms 0.1 is about 10 %; marked \\* it is in the signal's unit.
- **lag 1**: correlation of a residual with the next. What is taken for independent alarms several times as often at 0.6.
- **beyond 4 sigma**: per 1,000 values; {GAUSS_TAIL:.2f} for a Gaussian.
- **kurtosis**: 3 for a Gaussian. **tail index**: Hill's, of the largest 5 %; 8 or more for a Gaussian, 3 for Student's t
  with 3 degrees of freedom.
"""


@dataclass(frozen=True, slots=True)
class Noise:
    """One signal in one run. `tails`: values beyond 4 sigma per 1,000; `index`: Hill's tail index of the largest 5 %."""

    logarithmic: bool
    rows: int
    sigma: float
    lag1: float
    tails: float
    kurtosis: float
    index: float


def measure(values: NDArray[np.float64]) -> Noise | None:
    """The noise of one series of measured values; None where it is too short or does not move."""
    if len(values) < ROWS_MIN or not np.isfinite(values).all():
        return None
    logarithmic = bool((values > 0).all())
    x = np.log(values) if logarithmic else values
    windows = np.lib.stride_tricks.sliding_window_view(x, WINDOW)
    residual = x[WINDOW // 2 : -(WINDOW // 2)] - np.median(windows, axis=1)
    sigma = 1.4826 * float(np.median(np.abs(residual)))
    if sigma <= 1e-9 * max(float(np.abs(x).max()), 1.0):
        return None
    z = residual / sigma
    size = np.sort(np.abs(z))[::-1]
    tail = size[: max(len(size) // 20, 5)]
    hill = float(np.log(tail[:-1] / tail[-1]).mean())
    centred = residual - residual.mean()
    return Noise(
        logarithmic,
        len(residual),
        sigma,
        float((centred[1:] * centred[:-1]).mean() / max(float((centred**2).mean()), 1e-300)),
        1000.0 * float((np.abs(z) > 4.0).mean()),
        float((centred**4).mean() / max(float((centred**2).mean()) ** 2, 1e-300)),
        1.0 / hill if hill > 0 else math.inf,
    )


def noise_table(directory: Path) -> tuple[list[str], int]:
    """docs/noise.md as lines, and how many healthy updates it rests on."""
    found: dict[str, list[Noise]] = defaultdict(list)
    cases: dict[str, set[str]] = defaultdict(set)
    updates = runs = 0
    for recording in read_corpus(directory):
        case = CASES.get(recording.case)
        if case is None or not case.healthy:
            continue
        if label(case, recording, Envelope.of([recording.truth])).fatal is not None:
            continue
        runs, updates = runs + 1, updates + recording.updates
        for block in derive(recording):
            for name, noise in _of_block(block):
                found[name].append(noise)
                cases[name].add(case.id)
    return list(_lines(found, cases, runs, updates, corpus_hash(directory))), updates


def _of_block(block: SignalBlock) -> Iterator[tuple[str, Noise]]:
    for row, key in enumerate(block.signals):
        kept = (block.status[row] == 0) & (block.update >= SETTLED)
        noise = measure(block.values[row][kept].astype(np.float64))
        if noise is not None:
            yield key.name, noise


def _lines(found: dict[str, list[Noise]], cases: dict[str, set[str]], runs: int, updates: int, corpus: str) -> Iterator[str]:
    yield HEADER
    yield f"`make noise`, corpus `{corpus}`: {runs} healthy runs, {updates:,} updates."
    if updates < UPDATES_MIN:
        yield f"**Incomplete**: fewer than {UPDATES_MIN:,} updates."
    yield ""
    yield LEGEND
    yield "| signal | settings | sigma | lag 1 | beyond 4 sigma | kurtosis | tail index |"
    yield "|" + " --- |" * 7
    for name in SIGNALS:
        if name in found:
            yield _row(name, found[name], len(cases[name]))


def _row(name: str, noises: list[Noise], settings: int) -> str:
    mark = "" if all(noise.logarithmic for noise in noises) else " \\*"
    of_kind = [noise for noise in noises if noise.logarithmic == (not mark)] or noises

    def cell(values: list[float], form: str) -> str:
        return f"{np.median(values):{form}} ({np.quantile(values, 0.9):{form}})"

    cells = [
        f"`{name}`{mark}",
        str(settings),
        cell([noise.sigma for noise in of_kind], ".2g"),
        cell([noise.lag1 for noise in noises], ".2f"),
        cell([noise.tails for noise in noises], ".1f"),
        cell([noise.kurtosis for noise in noises], ".1f"),
        f"{np.median([noise.index for noise in noises]):.1f}",
    ]
    return "| " + " | ".join(cells) + " |"
