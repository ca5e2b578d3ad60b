"""Ranges, zeros and the shape of advantages, as rows have them, and the switches that leave them out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gradwatch_agent import arguments
from gradwatch_agent.collect.collectors import Switches
from gradwatch_contracts.collectors import COLLECTORS
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.errors import GradwatchError
from harness.recording import monitoring

pytestmark = pytest.mark.usefixtures("strict")


def rolled(**given: Any) -> dict[str, Any]:
    """The row of one rollout."""
    with monitoring() as (monitor, record):
        monitor.rollout(**given)
        monitor.step()
        return record.last


def minibatch(**given: Any) -> dict[str, Any]:
    """A minibatch of four samples."""
    plain = {name: torch.tensor([1.0, 2.0, 3.0, 5.0]) for name in ("new_logp", "old_logp", "advantages")}
    return {**plain, "clip": 0.2, **given}


def passed(*calls: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The row of one update of these minibatches."""
    with monitoring(**settings) as (monitor, record):
        for call in calls:
            monitor.ppo(**call)
        monitor.step()
        return record.last


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_range_with_a_broken_element_is_not_finite(bad: float) -> None:
    """A NaN that `max` drops would leave a value that looks measured; the other channels keep theirs."""
    row = rolled(rewards=torch.tensor([1.0, bad]), values=torch.tensor([1.0, -2.0]), returns=torch.tensor([bad, 1.0]))
    assert not math.isfinite(row["reward.step.absmax"])
    assert not math.isfinite(row["value.target.max"])
    assert (row["value.pred.min"], row["value.pred.max"]) == (-2.0, 1.0)


def test_range_of_several_calls_and_pieces_is_that_of_all() -> None:
    """Slices and calls merge."""
    with monitoring(max_staged_bytes=1024) as (monitor, record):
        monitor.rollout(rewards=torch.arange(200.0), values=torch.arange(200.0) - 50)
        monitor.rollout(rewards=torch.full((3,), -300.0), values=torch.full((3,), 7.0))
        monitor.step()
        row = record.last
    assert (row["reward.step.absmax"], row["reward.step.zeros"]) == (300.0, 1.0)
    assert (row["value.pred.min"], row["value.pred.max"]) == (-50.0, 149.0)


def test_zeros_of_rewards_of_integers_are_counted() -> None:
    """A sparse reward; -0.0 is one too."""
    assert rolled(rewards=torch.tensor([0, 0, 3, 0]))["reward.step.zeros"] == 3.0
    assert rolled(rewards=torch.tensor([-0.0, 1.0]))["reward.step.zeros"] == 1.0


def test_facts_of_masked_samples_are_left_out() -> None:
    """Padding holds anything: it must neither be the least log-probability nor the largest advantage."""
    pad = torch.tensor([1e9, -1.0, -2.0, -1e9])
    mask = torch.tensor([False, True, True, False])
    row = passed(minibatch(new_logp=pad, old_logp=torch.zeros(4), advantages=pad, mask=mask))
    assert (row["policy.logp.min"], row["policy.logp.max"]) == (-2.0, -1.0)
    assert row["adv.used.absmax"] == 2.0
    assert row["adv.used.shape"] == pytest.approx((2.0, -1.5, 0.5, 0.0, 0.125))
    assert (row["policy.clipped.low"], row["policy.clipped.high"]) == (2.0, 0.0)
    assert row["policy.ratio"][:2] == pytest.approx((2.0, (math.exp(-1) + math.exp(-2)) / 2))


def test_facts_of_minibatches_without_a_valid_sample_are_undefined() -> None:
    """Nothing was measured, so there is no 0 and no infinity."""
    row = passed(minibatch(mask=torch.zeros(4, dtype=torch.bool)))
    for name in ("policy.logp.min", "adv.used.absmax", "adv.used.shape", "policy.ratio", "policy.kl.k3.sample_max"):
        assert row[name] is Status.UNDEFINED, name


def test_facts_of_a_refused_tensor_have_its_reason() -> None:
    """Columns that come from it are missing as it is."""
    row = passed(minibatch(advantages=torch.ones(3)))
    assert {row[name] for name in ("adv.used", "adv.used.shape", "adv.used.absmax")} == {Status.SHAPE}
    row = rolled(values=torch.ones(2, dtype=torch.complex64), rewards=torch.empty(0))
    assert {row[name] for name in ("value.pred", "value.pred.min", "value.pred.max")} == {Status.DTYPE}
    assert {row[name] for name in ("reward.step", "reward.step.zeros", "reward.step.absmax")} == {Status.UNDEFINED}


def test_clip_that_is_no_number_refuses_both_sides() -> None:
    """As it refuses the whole."""
    row = passed(minibatch(clip="0.2"))
    assert {row[f"policy.clipped{side}"] for side in ("", ".high", ".low")} == {Status.DTYPE}


def test_ratio_of_infinite_log_ratio_has_an_infinite_sample() -> None:
    """k3 of log r = -inf is infinite, not NaN: the probability of a taken action went to 0."""
    row = passed(minibatch(new_logp=torch.tensor([-math.inf, 0.0, 0.0, 0.0]), old_logp=torch.zeros(4)))
    assert row["policy.kl.k3.sample_max"] == math.inf


def test_minibatches_are_counted() -> None:
    """Also those in which nothing could be measured."""
    assert passed(minibatch(), minibatch(new_logp=3))["policy.minibatches"] == 2.0


@pytest.mark.parametrize("name", COLLECTORS)
def test_collector_that_is_switched_off_says_so_and_the_others_go_on(name: str) -> None:
    """Its columns are missing for that reason, and no other column is."""
    call = minibatch()
    with monitoring(switches=Switches(frozenset({name})), level=Level.DEBUG) as (monitor, record):
        monitor.rollout(rewards=torch.ones(2), values=torch.ones(2), returns=torch.ones(2), advantages=torch.ones(2))
        monitor.ppo(**call)
        monitor.step()
        row = record.last
    off = {column for column, value in row.items() if value is Status.SWITCHED_OFF}
    assert off == {column for column in COLLECTORS[name].columns if column in row}


def test_collector_that_is_switched_off_is_not_blamed_below_its_level() -> None:
    """At MINIMAL its columns are missing because of the level."""
    with monitoring(switches=Switches(frozenset({"ranges"})), level=Level.MINIMAL) as (monitor, record):
        monitor.step()
        assert record.last["policy.logp.min"] is Status.LEVEL


def test_collect_of_names_switches_those_off_that_are_false() -> None:
    """True is what every collector is without a word."""
    assert arguments.check_collect({"ranges": False, "sample_size": True}) == Switches(frozenset({"ranges"}))
    assert arguments.check_collect(None) == Switches()


@pytest.mark.parametrize(
    ("collect", "words"),
    [
        ({"range": False}, "did you mean 'ranges'"),
        ({"zzzzzz": False}, "one of .*advantage_shape"),
        ({"ranges": 0}, "True or False"),
        (["ranges"], "a mapping such as"),
    ],
)
def test_collect_that_is_wrong_is_refused_with_what_was_expected(collect: object, words: str) -> None:
    """A switch that does nothing would be found out by nobody."""
    with pytest.raises(GradwatchError, match=words):
        arguments.check_collect(collect)
