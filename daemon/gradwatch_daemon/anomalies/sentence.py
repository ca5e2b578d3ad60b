"""What an anomaly says in one plain sentence: the thing, the value, the limit, what is usual, since when."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gradwatch_contracts.signals import Stage
from gradwatch_daemon.records.rules import END_OF_UPDATE

if TYPE_CHECKING:
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.records.rules import Rule

STAGE_WORDS: dict[Stage, str] = {
    Stage.OBS: "the observations",
    Stage.REWARD: "the rewards",
    Stage.VALUE: "the values or returns",
    Stage.ADV: "the advantages",
    Stage.POLICY: "the policy's probabilities",
    Stage.LOSS: "the loss",
    Stage.GRAD: "the gradients",
    Stage.PARAM: "the weights",
    Stage.OPT: "the optimizer",
    Stage.RNN: "the recurrent state",
    Stage.EPISODE: "the episode returns",
    Stage.SYS: "the host's figures",
    Stage.TELEM: "the telemetry",
    Stage.USER: "the logged scalars",
}

USUAL_RATIO_LEAST = 1.5
"""Below this multiple of the usual value, naming the multiple says nothing."""


def describe(rule: Rule, verdicts: Verdicts, row: int, update: int, onset: int) -> str:
    """The sentence of a finding that began at `onset` and fired at `update`, which is row `row` of the verdicts."""
    value, limit, subject = float(verdicts.value[row]), float(verdicts.limit[row]), verdicts.subject
    about = verdicts.about
    threshold = rule.thresholds[int(about[row])] if len(about) else rule.threshold_of(limit)
    unit = f" {threshold.unit}" if threshold.unit else ""
    return rule.sentence.format(
        quantity=threshold.quantity,
        subject=rule.subject_words.format(subject) if subject else "",
        value=_number(value) + unit,
        update=update,
        limit=_number(limit) + unit,
        usual=_usual(value, float(verdicts.baseline[row])),
        stage=STAGE_WORDS[list(Stage)[int(verdicts.stage[row])]],
        where=_where(int(verdicts.minibatch[row])),
        onset=onset,
        direction="Collapse" if value < limit else "Divergence",
        best=_best(float(verdicts.baseline[row])),
    )


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    return f"{value:.3g}" if abs(value) < 1000 or value >= 1e6 else f"{value:.0f}"


def _usual(value: float, baseline: float) -> str:
    """How many times the usual value this is, where both are known and positive."""
    if not (math.isfinite(value) and math.isfinite(baseline) and value > 0 and baseline > 0):
        return ""
    times = value / baseline
    if times >= USUAL_RATIO_LEAST:
        return f" ({_number(times)}x its usual {_number(baseline)})"
    return f" (usual: {_number(baseline)})"


def _best(baseline: float) -> str:
    """For rules whose baseline is the best there was."""
    return f", best {_number(baseline)}" if math.isfinite(baseline) else ""


def _where(minibatch: int) -> str:
    if minibatch == END_OF_UPDATE:
        return ""
    return " before its first minibatch" if minibatch < 0 else f", minibatch {minibatch}"
