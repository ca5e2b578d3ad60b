"""What a detector file declares: one `Spec`, with a `Variant` for each profile. Prose once, numbers per profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_daemon.detect.view import Finding, View
from gradwatch_daemon.records import Verdicts
from gradwatch_daemon.records.rules import Need, Part, Rule, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_contracts.control import Severity
    from gradwatch_contracts.signals import Stage

Check = Callable[[View, Rule], Verdicts]
"""Judges one subject over a block. Pure but for the state of the stream, which it reaches through the view."""

SENTENCE = "{quantity}{subject} {value}{usual} at update {update}, limit {limit}, since update {onset}."
"""What most findings say: the thing, the value, what is usual, the limit, the duration."""

LOGP_CALL = "pass new_logp and old_logp to mon.ppo()"
"""The line that feeds every signal of the probability ratio."""


CLIP_CALL = "call clip_grad_norm_, or pass the optimizer to watch()"
"""The line that feeds every signal of the gradients."""


AFTER_BAD_STEP = (
    "critic_divergence",
    "value_collapse",
    "constant_critic",
    "std_collapse",
    "std_explosion",
    "optimizer_precursor",
    "advantage_degenerate",
    "ratio_explosion",
    "kl_extreme",
    "kl_spike",
    "kl_tail",
    "kl_chronic",
    "ratio_collapse",
    "entropy_collapse",
    "entropy_low",
    "entropy_explosion",
    "gradient_exploding",
    "gradient_unhealthy",
    "gradient_drift",
    "update_stalled",
    "performance_degradation",
)
"""What may follow from data that went bad or a step that threw the policy or the critic away: it collects the next data."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A detector in one profile: made of `parts`, which are judged all at once, or of a function of its own."""

    check: Check | None
    needs: tuple[Need, ...]
    thresholds: tuple[Threshold, ...]
    votes: tuple[Vote, ...]
    keep_firing: int
    formula: str
    warm_up: int = 0
    parts: tuple[Part, ...] = ()
    invariant: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """One anomaly kind, in one profile or more.

    `per` is the signal whose subjects it judges one by one ('' for a detector of the whole run); `subjects` are fixed ones of
    its own, and with `meets` it meets further ones as it judges ''. A `precursor` raises the level silently: it is info.
    """

    kind: str
    stage: Stage
    title: str
    meaning: str
    source: str
    fails_when: str
    tries: tuple[str, ...]
    profiles: Mapping[str, Variant]
    explains: tuple[str, ...] = ()
    per: str = ""
    subjects: tuple[str, ...] = ("",)
    meets: bool = False
    sentence: str = SENTENCE
    subject_words: str = " of head '{}'"
    precursor: bool = False

    def rule(self, profile: str) -> Rule:
        """What this detector declares in a profile, as the plain record the other stages read."""
        variant = self.profiles[profile]
        return Rule(
            kind=self.kind,
            profile=profile,
            title=self.title,
            meaning=self.meaning,
            needs=variant.needs,
            thresholds=variant.thresholds,
            votes=variant.votes,
            keep_firing=variant.keep_firing,
            warm_up=variant.warm_up,
            formula=variant.formula,
            source=self.source,
            fails_when=self.fails_when,
            tries=self.tries,
            explains=self.explains,
            sentence=self.sentence,
            stage_order=self.stage.order,
            subject_words=self.subject_words,
            parts=variant.parts,
            invariant=variant.invariant,
            precursor=self.precursor,
        )


def once(severity: Severity) -> tuple[Vote, ...]:
    """The vote of a rule that fires on one update."""
    return (Vote(severity, 1, 1, severity),)


def check_fixed(view: View, rule: Rule) -> Verdicts:
    """One signal against one fixed threshold: the rule's first. Rows between clear level and limit are held."""
    return _check_fixed(view, rule, invariant=False)


def check_invariant(view: View, rule: Rule) -> Verdicts:
    """The same for what must hold by definition, and so also in an update that was cut short."""
    return _check_fixed(view, rule, invariant=True)


def _check_fixed(view: View, rule: Rule, *, invariant: bool) -> Verdicts:
    threshold = rule.thresholds[0]
    given = view.input(threshold.signal)
    breach, clear = given.readable & threshold.exceeded(given.values), threshold.cleared(given.values)
    if view.single and not breach:
        return view.calm(rule, (given,), clear, invariant=invariant)
    found = Finding(breach, threshold.rank, clear, given.values, threshold.limit)
    return view.answer(rule, (given,), found, invariant=invariant)
