"""The recurrent state has saturated, run away or died, in the rollout or in the update."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, Spec, Variant, once
from gradwatch_daemon.detect.view import Finding
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.records.rules import Rule

HIDDEN, SATURATION, CELL, CELL_MAX = "rnn.h.rms", "rnn.h.saturation", "rnn.c.rms", "rnn.c.absmax"

_WARNING = Severity.WARNING.rank
DIVERSITY = "rnn.h.diversity"
_ALIKE = "Spread of the hidden state over environments"
_CALL = "call mon.recurrent(h, c) if the policy is recurrent"


def check_fixed_range(view: View, rule: Rule) -> Verdicts:
    """Cell or hidden state too large or too small. A GRU has no cell state; what is not passed is not judged."""
    math = view.math
    hidden, cell = view.input(HIDDEN), view.input(CELL)
    high, low, high_c, low_c = (rule.threshold(key) for key in ("hidden_high", "hidden_low", "cell_high", "cell_low"))
    over, under = cell.readable & high_c.exceeded(cell.values), cell.readable & low_c.exceeded(cell.values)
    large, small = hidden.readable & high.exceeded(hidden.values), hidden.readable & low.exceeded(hidden.values)
    of_cell = over | under
    breach = of_cell | large | small
    if view.single and not breach:
        return view.calm(rule, (hidden,), True, note=_note(view))  # type: ignore[arg-type]
    found = Finding(
        breach,
        _WARNING,
        math.negate(breach),
        math.where(of_cell, cell.values, hidden.values),
        math.where(over, high_c.limit, math.where(under, low_c.limit, math.where(large, high.limit, low.limit))),
    )
    return view.answer(rule, (hidden,), found, note=_note(view))


def _note(view: View) -> str:
    sent = view.input(CELL).status
    last = sent if view.single else sent[-1]
    return "" if last == 0 else "no cell state is passed, so none is watched"


_NEEDS = (
    Need(HIDDEN, _CALL),
    Need(SATURATION, _CALL),
    Need(CELL_MAX, _CALL, optional=True),
    Need(CELL, _CALL, optional=True),
)

SPEC = Spec(
    kind="lstm_unhealthy",
    stage=Stage.RNN,
    title="Recurrent state unhealthy",
    meaning="The memory of the policy no longer stores anything: it is pinned to its bounds, grows without end, or is empty.",
    source="|h| < 1 in an LSTM by construction (h = o tanh c), so saturation and the growth of c "
    "are watched "
    "instead of a large h; fixed range as used in practice; sb3-contrib #75 and #78 on recurrent PPO",
    fails_when="A task that counts lets the cell state grow rightly. A memory of one bit sits near its bounds rightly. "
    "A state of a "
    "policy without recurrence is not passed, and this detector is then blind.",
    tries=(
        "Check that the state is reset where an episode ends, in the rollout and in the update.",
        "Check that the update starts each sequence from the state the rollout had there.",
        "Clip gradients at a smaller norm, and lower the learning rate of the recurrent layer.",
        "Add layer normalisation to the recurrent cell; initialise the forget bias at 1.",
    ),
    explains=("lstm_unhealthy", *AFTER_BAD_STEP),
    per=HIDDEN,
    subject_words=" in the {}",
    profiles={
        "default": Variant(
            None,
            (*_NEEDS, Need(DIVERSITY, _CALL, optional=True)),
            (
                Threshold(
                    "saturation", SATURATION, ">", 0.5, "Share of the hidden state at its bounds", severity=Severity.WARNING
                ),
                Threshold("cell", CELL_MAX, ">", 20.0, "Largest cell state", severity=Severity.WARNING),
                Threshold("times_usual", CELL_MAX, ">", 4.0, "Largest cell state", measure=Measure.TIMES),
                Threshold("alike", DIVERSITY, "<", 1e-3, _ALIKE, severity=Severity.WARNING, clear=2.0),
                Threshold("alike_usual", DIVERSITY, "<", 0.1, _ALIKE, clear=2.0, measure=Measure.TIMES),
                Threshold("dead", HIDDEN, "<", 1e-6, "Hidden state (root mean square)", severity=Severity.WARNING),
            ),
            (Vote(Severity.WARNING, 2, 3, Severity.WARNING),),
            keep_firing=3,
            parts=(
                Part(Severity.WARNING, ("saturation",)),
                Part(Severity.WARNING, ("dead",)),
                Part(Severity.WARNING, ("cell", "times_usual")),
                Part(Severity.WARNING, ("alike", "alike_usual")),
            ),
            formula="share of |h| > 0.99 above 0.5, or max |c| > 20 and > 4 x usual, or RMS of h < 1e-6, or "
            "spread of h over environments < 0.001 and < 0.1 x usual, in 2 of 3 updates",
            warm_up=LEARNED + GUARD,
        ),
        "classic": Variant(
            check_fixed_range,
            (Need(HIDDEN, _CALL), Need(CELL, _CALL, optional=True)),
            (
                Threshold("hidden_high", HIDDEN, ">", 10.0, "Recurrent state (root mean square)", severity=Severity.WARNING),
                Threshold("hidden_low", HIDDEN, "<", 1e-6, "Recurrent state (root mean square)", severity=Severity.WARNING),
                Threshold("cell_high", CELL, ">", 10.0, "Recurrent state (root mean square)", severity=Severity.WARNING),
                Threshold("cell_low", CELL, "<", 1e-6, "Recurrent state (root mean square)", severity=Severity.WARNING),
            ),
            once(Severity.WARNING),
            keep_firing=3,
            formula="RMS of c or of h > 10 or < 1e-6",
        ),
    },
)
