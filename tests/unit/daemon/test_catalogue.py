"""Profiles, overrides and the rules hash."""

from __future__ import annotations

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.detect.catalogue import CATALOGUE, load_profile

CAUSES = ("nonfinite", "observation_unhealthy", "reward_unhealthy", "rollout_mismatch", "value_collapse", "kl_spike", "stall")
"""A few kinds, in the order of causes."""


def test_profile_unknown_threshold_names_the_nearest() -> None:
    """A typing mistake in the configuration is answered with the word that was meant."""
    with pytest.raises(GradwatchError, match=r"did you mean kl_extreme\.k3\?") as error:
        load_profile("default", {"kl_extreem": {"k3": 1.0}})
    assert error.value.code.slug == "config-invalid"


def test_profile_unknown_name_names_the_nearest() -> None:
    """So is the name of a profile."""
    with pytest.raises(GradwatchError, match=r"did you mean classic\?"):
        load_profile("clasic")


def test_profile_override_moves_the_limit_and_the_hash() -> None:
    """An override is in force, and no anomaly found with it can pass for one of the plain profile."""
    plain, moved = load_profile("default"), load_profile("default", {"kl_extreme": {"k3": 0.75}})
    assert moved.rules["kl_extreme"].threshold("k3").limit == 0.75
    assert plain.rules["kl_extreme"].threshold("k3").limit == 0.5
    assert moved.rules_hash != plain.rules_hash
    assert load_profile("default", {"kl_extreme": {"k3": 0.5}}).rules_hash == plain.rules_hash


def test_profiles_have_their_kinds_in_causal_order_and_different_hashes() -> None:
    """The root of findings of one update is the first in the catalogue: data, network, critic, policy, return, telemetry."""
    kinds = [spec.kind for spec in CATALOGUE]
    assert [kind for kind in kinds if kind in CAUSES] == list(CAUSES)
    assert list(load_profile("default").rules) == kinds
    assert list(load_profile("classic").rules) == [spec.kind for spec in CATALOGUE if "classic" in spec.profiles]
    assert load_profile("default").rules_hash != load_profile("classic").rules_hash


def test_profile_classic_has_the_published_numbers() -> None:
    """DESIGN's table of fixed thresholds, to the letter."""
    rules = load_profile("classic").rules
    numbers = {kind: (rule.thresholds[0].op, rule.thresholds[0].limit) for kind, rule in rules.items()}
    assert numbers == {
        "nonfinite": (">", 0.0),
        "rollout_mismatch": (">", 1e-3),
        "ratio_explosion": (">", 5.0),
        "ratio_collapse": ("<", 0.1),
        "kl_extreme": (">", 0.5),
        "kl_spike": (">", 0.1),
        "entropy_collapse": ("<", 0.1),
        "entropy_low": ("<", 0.3),
        "value_collapse": ("<", -0.5),
        "gradient_exploding": (">", 10.0),
        "gradient_vanishing": ("<", 1e-7),
        "gradient_unhealthy": ("<", 0.5),
        "gradient_drift": (">", 0.5),
        "skipped_steps": (">", 0.02),
        "lstm_unhealthy": (">", 10.0),
        "performance_degradation": (">", 0.1),
        "stall": (">", 5.0),
        "telemetry_gap": (">", 0.01),
    }
    for kind in ("entropy_low", "entropy_collapse"):
        assert [(vote.k, vote.n) for vote in rules[kind].votes] == [(3, 3)]
        assert rules[kind].thresholds[0].clear == 1.5
