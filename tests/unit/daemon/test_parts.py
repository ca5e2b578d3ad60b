"""Rules made of parts: every test of every part at its limit and beyond, alone and together, in a row and in a block."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts.columns import RowFlag
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.detect import judge as judging
from gradwatch_daemon.detect.catalogue import PROFILES, Profile, load_profile
from gradwatch_daemon.detect.guards import Guards
from gradwatch_daemon.records import F64, SignalKey, Verdict
from gradwatch_daemon.records.rules import Measure, Part, Rule, Threshold
from harness.blocks import Seen, Watch
from harness.signal_blocks import make_block

if TYPE_CHECKING:
    from gradwatch_daemon.detect.board import Scored
    from gradwatch_daemon.detect.lanes import Plan
    from gradwatch_daemon.detect.view import View


def finite(rule: Rule) -> Rule:
    """A rule whose limits exist: those that are none until they are configured are set to 1."""
    limits = tuple(t if math.isfinite(t.limit) else replace(t, limit=1.0) for t in rule.thresholds)
    return replace(rule, thresholds=limits)


BOTH = [
    pytest.param(name, finite(rule), part, id=f"{name}-{rule.kind}-{part.subject}{part.severity.value}-{'-'.join(part.of)}")
    for name in PROFILES
    for rule in load_profile(name).rules.values()
    for part in rule.parts
]
TESTS = [
    pytest.param(*param.values, key, id=f"{param.id}-{key}")
    for param in BOTH
    for key in (*param.values[2].of, *param.values[2].unless)  # type: ignore[union-attr]
]


def beyond(threshold: Threshold) -> float:
    """The next number on the side of the breach."""
    toward = np.inf if threshold.op == ">" else -np.inf
    if threshold.measure is Measure.VALUE and not threshold.series:
        with np.errstate(over="ignore"):
            return float(np.nextafter(np.float32(threshold.limit), np.float32(toward)))
    return float(np.nextafter(threshold.limit, toward))


def at(threshold: Threshold) -> float:
    """The limit as it is compared."""
    return threshold.at


@dataclass
class Bench:
    """A rule alone, whose operands a test sets: what the board or a signal would say is given to the comparison itself."""

    rule: Rule
    profile: Profile
    part: Part

    def ranks(self, patch: pytest.MonkeyPatch, operands: dict[str, float], rows: int) -> list[int]:
        """Rank of each row in breach, -1 of the others, where the tests of the part see these numbers."""
        detector = next(d for d in self.profile.detectors if d.rule.kind == self.rule.kind)
        subjects = (self.part.subject,) if self.part.subject else detector.subjects
        detector = replace(detector, rule=self.rule, subjects=subjects)
        alone = replace(self.profile, detectors=(detector,), rules={self.rule.kind: self.rule})
        watch = Watch(alone)
        of_block = judging._operands

        def place(view: View, found: F64) -> F64:
            plan: Plan
            ((_, plan),) = view.state.plans.values()
            subject = next(lane for lane in plan.lanes if self.part.subject in ("", lane.subject)).subject
            places = judging_places(plan, self.rule, subject)
            for key, value in operands.items():
                found[places[key]] = value
            return found

        def given(view: View, values: F64, scored: Scored, first_row: int) -> F64:
            return place(view, of_block(view, values, scored, first_row))

        patch.setattr(judging, "_operands", given)
        patch.setattr(Guards, "may_hold", lambda _, limits: np.ones(limits.shape[1], np.bool_))
        signals = tuple(SignalKey(name, "part" if SIGNALS[name].spec.per else "") for name in SIGNALS)
        values = np.full((len(signals), rows), 0.5, np.float32)
        block = make_block(np.arange(rows), signals=signals, values=values)
        block.flags[:] = 0
        found = watch.check(block)
        name = f"{self.rule.kind}:{self.subject(found)}" if self.subject(found) else self.rule.kind
        seen = found[name]
        return [int(s) if c == Verdict.BREACH else -1 for c, s in zip(seen.code, seen.severity, strict=True)]

    def subject(self, found: dict[str, Seen]) -> str:
        """The subject that the part is judged for."""
        subjects = [seen.subject for seen in found.values() if seen.kind == self.rule.kind]
        return next(s for s in subjects if self.part.subject in ("", s))


def judging_places(plan: Plan, rule: Rule, subject: str) -> dict[str, int]:
    """Threshold key → its column of operands, in the lane of a subject."""
    places: dict[str, int] = {}
    for lane in plan.lanes:
        if lane.rule.kind != rule.kind or lane.subject != subject:
            continue
        parts = sorted((p for p in rule.parts if p.subject in ("", subject)), key=lambda p: -p.severity.rank)
        for part, tests in zip(parts, plan.parts[lane.first : lane.last], strict=True):
            places.update({key: test.operand for key, test in zip((*part.of, *part.unless), tests, strict=True)})
    return places


def calm(rule: Rule) -> dict[str, float]:
    """Every operand at its limit: nothing is beyond anything."""
    return {key: at(rule.threshold(key)) for part in rule.parts for key in (*part.of, *part.unless)}


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("profile", "rule", "part"), BOTH)
def test_part_with_all_its_tests_beyond_breaches_with_its_severity(
    profile: str, rule: Rule, part: Part, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One float beyond each limit is enough; in a single row as in a block."""
    alone = replace(rule, parts=(part,))
    operands = {**calm(alone), **{key: beyond(rule.threshold(key)) for key in part.of}}
    ranks = Bench(alone, load_profile(profile), part).ranks(monkeypatch, operands, rows)
    assert ranks == [part.severity.rank] * rows


@pytest.mark.parametrize(("profile", "rule", "part", "key"), TESTS)
def test_part_with_one_test_at_its_limit_does_not_hold(
    profile: str, rule: Rule, part: Part, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strict: equal to the limit is not beyond it; and what is configured further off is what is compared with."""
    alone = replace(rule, parts=(part,))
    operands = {**calm(alone), **{name: beyond(rule.threshold(name)) for name in part.of}}
    operands[key] = at(rule.threshold(key)) if key in part.of else beyond(rule.threshold(key))
    assert Bench(alone, load_profile(profile), part).ranks(monkeypatch, operands, 2) == [-1, -1]
    operands[key] = float("nan")
    expected = -1 if key in part.of else part.severity.rank
    assert Bench(alone, load_profile(profile), part).ranks(monkeypatch, operands, 2) == [expected] * 2


@pytest.mark.parametrize("profile", PROFILES)
def test_threshold_of_a_rule_with_parts_decides_something(profile: str) -> None:
    """A limit that no part names is a key that nobody reads."""
    for rule in load_profile(profile).rules.values():
        if rule.parts:
            named = {key for part in rule.parts for key in (*part.of, *part.unless)}
            assert named == {threshold.key for threshold in rule.thresholds}, rule.kind


@pytest.mark.parametrize("profile", PROFILES)
def test_part_severity_is_among_the_votes_of_its_rule(profile: str) -> None:
    """A severity that is breached and never voted on says nothing."""
    for rule in load_profile(profile).rules.values():
        assert {part.severity for part in rule.parts} <= {vote.at for vote in rule.votes}, rule.kind


def test_part_of_a_row_cut_short_is_judged_only_for_invariants() -> None:
    """The last words of a dying run."""
    watch = Watch()
    signals = tuple(SignalKey(name, "part" if SIGNALS[name].spec.per else "") for name in SIGNALS)
    block = make_block([0], signals=signals, values=np.full((len(signals), 1), 1e6, np.float32))
    block.flags[:] = RowFlag.PARTIAL
    found = watch.check(block)
    assert found["rollout_mismatch"].code.tolist() == [Verdict.BREACH]
    assert found["kl_extreme"].code.tolist() == [Verdict.BLIND]
