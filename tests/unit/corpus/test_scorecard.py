"""The scorecard's arithmetic: what counts as found, in time, false, early, and the cause."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.corpus.cases import CASES, Case
from benchmarks.corpus.disturbance import Disturbance
from benchmarks.corpus.labels import Label
from benchmarks.corpus.recording import Part, Recording
from benchmarks.corpus.replay import Alert
from benchmarks.corpus.setup import Setup
from benchmarks.corpus.truth import NAMES
from benchmarks.scorecard.baselines import folk, nan_only, zclip
from benchmarks.scorecard.intervals import rate_interval, share_interval
from benchmarks.scorecard.report import Scorecard, document, markdown, summary
from benchmarks.scorecard.runs import Judged, Run
from benchmarks.scorecard.score import score, verdict
from benchmarks.scorecard.tiers import LOGGED, TIERS, keeps
from gradwatch_contracts.columns import Schema
from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import COLUMNS, SIGNALS
from gradwatch_daemon.detect.catalogue import CATALOGUE
from gradwatch_daemon.records import SignalKey
from harness.blocks import signal_block

ACCEPTED = frozenset({"kl_spike", "value_collapse"})
FAULT = Case("P01", "test", Setup("TwoState"), Disturbance, 50, "abrupt", ACCEPTED, frozenset({"kl_spike"}))


def _run(case: Case = FAULT, manifest: int | None = 52, fatal: int | None = None) -> Run:
    at, marks = np.arange(100), np.zeros(100, np.uint8)
    schema, values = Schema.of([COLUMNS["opt.lr"].column()]), np.zeros((100, 1), np.float32)
    rows = Part(1, schema, at, at, at, marks, marks, values, marks[:, None])
    recording = Recording(case.id, 1, "", 100, (rows,), np.zeros((100, len(NAMES)), np.float32))
    return Run(case, recording, Label(None if case.healthy else case.inject, manifest, fatal))


def _alert(update: int, kind: str = "kl_spike", *also: str, severity: Severity = Severity.WARNING) -> Alert:
    return Alert(update, kind, "", severity, ((kind, update), *((other, update + 1) for other in also)), "")


TWICE = ((), (_alert(51),))


@pytest.mark.parametrize(
    ("alerts", "found", "delay", "rooted"),
    [
        ([], None, math.inf, False),
        ([_alert(49)], None, math.inf, False),
        ([_alert(50)], 50, 0.0, True),
        ([_alert(70)], 70, 20.0, True),
        ([_alert(71)], None, math.inf, True),
        ([_alert(55, "entropy_low")], None, math.inf, False),
        ([_alert(55, "entropy_low", "value_collapse")], 56, 6.0, False),
        ([_alert(53, "value_collapse"), _alert(54)], 53, 3.0, False),
    ],
)
def test_verdict_abrupt_fault_counts_accepted_kinds_within_twenty_updates(
    alerts: list[Alert], found: int | None, delay: float, rooted: bool
) -> None:
    """From the injection; before it is false, after the window is late; the first alert must name the cause."""
    judged = verdict(Judged(_run(), tuple(alerts)))

    assert (judged.found, judged.delay, judged.rooted) == (found, delay, rooted)


def test_verdict_gradual_fault_counts_from_the_first_sign_and_ends_when_fatal() -> None:
    """Found before the first sign is early, delay 0; found after it was fatal is a miss."""
    case = replace(FAULT, nature="gradual")
    assert verdict(Judged(_run(case, manifest=60), (_alert(55),))).delay == 0.0
    assert verdict(Judged(_run(case, manifest=60), (_alert(75),))).delay == 15.0
    assert verdict(Judged(_run(case, manifest=60, fatal=70), (_alert(75),))).found is None
    assert verdict(Judged(_run(case, manifest=60, fatal=70), (_alert(63),))).lead == 7


def test_score_counts_alarms_of_healthy_parts_only() -> None:
    """Healthy runs, what lies before an injection, and nothing else; a fault that never showed is in no figure of faults."""
    healthy = replace(FAULT, id="T01", nature="healthy", inject=10**9)
    judged = [
        Judged(_run(), (_alert(20), _alert(52), _alert(90))),
        Judged(_run(), ()),
        Judged(_run(manifest=None), (_alert(60),)),
        Judged(_run(healthy, manifest=None), (_alert(10, severity=Severity.CRITICAL),)),
    ]

    found = score("default", "hooks", judged)

    assert (found.found, found.faults) == (1, 2)
    assert found.healthy_updates == 50 + 50 + 50 + 100
    assert (found.false_alarms, found.critical, found.tricky_critical) == (2, 1, 1)
    assert found.false_rate[0] == pytest.approx(1000 * 2 / 250)
    assert found.alerts_per_fault == pytest.approx(1.0)
    assert found.delay_abrupt == (2.0, math.inf)


def test_score_natural_failure_of_a_healthy_run_is_no_false_alarm() -> None:
    """What follows from shortly before it is not counted as healthy."""
    healthy = replace(FAULT, id="plain-grid", nature="healthy", inject=10**9)
    found = score("default", "hooks", [Judged(_run(healthy, manifest=None, fatal=80), (_alert(75), _alert(30)))])

    assert (found.false_alarms, found.healthy_updates) == (1, 40)


def test_intervals_known_cases_match_the_tables() -> None:
    """Clopper and Pearson; Garwood: the rule of three, and a count of 2."""
    assert share_interval(59, 59) == (pytest.approx(0.9394, abs=1e-4), 1.0)
    assert share_interval(5, 10) == (pytest.approx(0.1871, abs=1e-4), pytest.approx(0.8129, abs=1e-4))
    assert share_interval(0, 0) == (0.0, 1.0)
    assert rate_interval(0, 1.0) == (0.0, pytest.approx(3.6889, abs=1e-3))
    assert rate_interval(2, 2.0) == (pytest.approx(0.1211, abs=1e-3), pytest.approx(3.6123, abs=1e-3))
    assert rate_interval(0, 0.0) == (0.0, math.inf)


def test_card_too_small_is_incomplete_and_says_so() -> None:
    """A figure that proves nothing must not look like one that does; JSON holds no NaN and no infinity."""
    run = _run()
    card = Scorecard((score("default", "hooks", [Judged(run, ())]),), (run,), "c0", 1, {"default": "r0"}, "abc")

    assert card.missing.startswith("1 fault runs of 85")
    assert "**Incomplete**" in markdown(card)
    assert document(card)["complete"] is False
    assert document(card)["scores"][0]["delay_abrupt"] == [None, None]


def test_card_with_runs_held_out_reports_them_apart() -> None:
    """Figures of seeds that no rule was set on stand beside the others and are never added to them."""
    run = _run()
    missed, found = (
        Scorecard((score("default", "hooks", [Judged(run, alerts)]),), (run,), "c0", 1, {}, "abc") for alerts in TWICE
    )
    card = replace(missed, held_out=found)

    assert "recall 100 % (1/1)" in summary(card)[-1]
    assert "recall" not in summary(missed)[-1].lower()
    assert "## On seeds that no rule was set on" in markdown(card)
    assert "held" not in markdown(missed)
    held = document(card)["held_out"]
    assert (document(card)["scores"][0]["recall"][0], held["scores"][0]["recall"][0], held["held_out"]) == (0.0, 1.0, None)


def test_tiers_see_less_and_less_and_never_the_knob() -> None:
    """Every name exists, each tier is within the next, and a masked signal is in none."""
    assert set(SIGNALS) >= LOGGED - {"policy.std.mean", "episode.length.mean"}
    seen = [{name for name in SIGNALS if keeps(tier, frozenset())(SignalKey(name))} for tier in TIERS]
    assert seen[0] < seen[1] < seen[2] == set(SIGNALS)
    assert "grad.norm.mean" not in seen[1]
    assert "policy.ratio.first_mb_dev" in seen[1]
    assert not any(keeps(tier, frozenset({"opt.lr"}))(SignalKey("opt.lr")) for tier in TIERS)


def test_cases_name_what_exists() -> None:
    """A fault can be found by a kind of the catalogue, its own knob is a signal, and its normal is a case that is healthy."""
    kinds = {spec.kind for spec in CATALOGUE}
    for case in CASES.values():
        assert case.masks <= set(SIGNALS), case.id
        if not case.healthy:
            assert case.roots <= case.accepts, case.id
            assert CASES[case.of].healthy, case.id
            assert case.accepts & kinds, case.id


def test_baselines_on_a_quiet_stream_say_nothing_on_a_loud_one_once() -> None:
    """One alarm an episode, at its first update."""
    quiet = signal_block(60)
    assert [baseline([quiet]) for baseline in (nan_only, folk, zclip)] == [[], [], []]
    norms = [0.4 + 0.01 * (u % 3) for u in range(40)] + [9.0] * 20
    assert [alert.update for alert in zclip([signal_block(60, grad__norm__mean=norms)])] == [40]
    kls = [0.01] * 40 + [0.03] * 20
    assert [(alert.update, alert.kind) for alert in folk([signal_block(60, policy__kl__k3=kls)])] == [(40, "kl_spike")]
    counts = [0.0] * 50 + [3.0] * 10
    assert [a.update for a in nan_only([signal_block(60, grad__norm__nonfinite=counts)])] == [50]
