"""What every detector must declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.detect.catalogue import CATALOGUE
from gradwatch_daemon.records.rules import Rule, Threshold

if TYPE_CHECKING:
    from gradwatch_daemon.detect.spec import Spec

RULES = [pytest.param(spec.rule(profile), id=f"{spec.kind}-{profile}") for spec in CATALOGUE for profile in spec.profiles]


@pytest.mark.parametrize("rule", RULES)
def test_rule_names_only_signals_of_the_registry(rule: Rule) -> None:
    """A detector without a producer would be blind for ever."""
    for need in rule.needs:
        assert need.signal in SIGNALS
    # '' is for what is no signal: times, records, the progress of the run.
    assert {t.signal for t in rule.thresholds} <= {need.signal for need in rule.needs} | {""}


@pytest.mark.parametrize("rule", RULES)
def test_rule_tells_what_to_add_and_what_to_try(rule: Rule) -> None:
    """The line to add names a call of the API; tries are ranked, two to four, and end as sentences."""
    for need in rule.needs:
        assert any(word in need.add for word in ("mon.", "watch()", "clip_grad_norm_")), need
    assert 2 <= len(rule.tries) <= 4
    assert all(line.endswith(".") for line in rule.tries)
    assert all((rule.title, rule.meaning, rule.formula, rule.source, rule.fails_when))


@pytest.mark.parametrize("rule", RULES)
def test_rule_votes_can_carry_and_keys_are_unique(rule: Rule) -> None:
    """k of n is possible, each threshold has a key of its own, explained kinds exist."""
    assert all(1 <= vote.k <= vote.n for vote in rule.votes)
    keys = [threshold.key for threshold in rule.thresholds]
    assert len(keys) == len(set(keys))
    assert set(rule.explains) <= {"*"} | {spec.kind for spec in CATALOGUE}
    assert rule.keep_firing >= 1


@pytest.mark.parametrize("op", [">", "<"])
def test_threshold_at_the_limit_does_not_breach(op: str) -> None:
    """Strict in float32: a stored 0.1 equals a limit of 0.1; NaN is neither in breach nor clear."""
    threshold = Threshold("x", "policy.kl.k3", op, 0.1, "X", severity=Severity.WARNING, clear=0.5 if op == ">" else 2.0)
    at = np.float32(0.1)
    values = np.array([np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(1)), np.nan], np.float32)
    assert threshold.exceeded(values).tolist() == ([False, False, True, False] if op == ">" else [True, False, False, False])
    cleared = np.array([0.04, 0.05, 0.06, 0.19, 0.2, 0.21, np.nan], np.float32)
    assert threshold.cleared(cleared).tolist() == [op == ">", op == ">", False, False, op == "<", op == "<", False]


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.kind)
def test_spec_is_in_a_file_of_its_own_name(spec: Spec) -> None:
    """The file is guessed from the kind."""
    module = __import__(f"gradwatch_daemon.detect.kinds.{spec.kind}", fromlist=["SPEC"])
    assert module.SPEC is spec


def test_rule_unknown_threshold_or_need_is_a_key_error() -> None:
    """A detector that misspells its own key fails at once."""
    rule = CATALOGUE[0].rule("default")
    with pytest.raises(KeyError, match="nonfinite has no threshold 'limit'"):
        rule.threshold("limit")
    with pytest.raises(KeyError, match="does not need"):
        rule.need("sys.update_ms")
