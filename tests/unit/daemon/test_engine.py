"""The one check path: what runs, on which subjects, and the state it keeps."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from gradwatch_contracts.columns import Status
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.detect.engine import Engine, StreamState
from gradwatch_daemon.records import SignalKey, Verdict
from harness.blocks import QUIET, Watch, every_column, signal_block
from harness.signal_blocks import make_block


def keys(profile: str) -> list[str]:
    """Every verdict of a profile, in the order of the catalogue; the drift is judged for two series."""
    kinds = list(load_profile(profile).rules)
    return [key for kind in kinds for key in ([f"{kind}:norm", f"{kind}:health"] if kind == "gradient_drift" else [kind])]


OWN = {"stall", "telemetry_gap", "telemetry_frozen", "rank_missing", "rank_desync", "rank_slow"}
"""What judges the telemetry itself sees rows whatever is in them."""


@pytest.mark.parametrize("profile", ["default", "classic"])
def test_engine_rows_without_any_signal_make_every_detector_blind(profile: str) -> None:
    """A run at level OFF is not healthy: it is not seen."""
    given = {name.replace(".", "__"): Status.LEVEL for name in ("policy.kl.k3", "opt.lr")}
    found = Watch(profile).check(signal_block(2, drop=[name for name in QUIET if name != "policy.kl.k3"], **given))
    assert list(found) == keys(profile)
    for key, verdicts in found.items():
        if key in OWN:
            continue
        assert verdicts.code.tolist() == [Verdict.BLIND] * 2, key
        assert verdicts.reason


def test_engine_empty_block_changes_nothing() -> None:
    """No rows, no verdicts, no state."""
    watch = Watch()
    before = watch.dump()
    assert watch.engine.check(watch.state, signal_block(0)) == []
    assert watch.dump() == before


def test_engine_healthy_rows_are_clear_in_catalogue_order() -> None:
    """Verdict arrays have one entry per row and the dtypes of the record."""
    watch = Watch("classic")
    watch.check(signal_block(100))
    found = watch.check(signal_block(5, start=100))
    assert list(found) == keys("classic")
    for verdicts in found.values():
        assert verdicts.code.tolist() == [Verdict.CLEAR] * 5, verdicts.kind
        dtypes = [getattr(verdicts, name).dtype for name in ("code", "severity", "value", "limit", "baseline")]
        assert dtypes == [np.uint8, np.uint8, np.float64, np.float64, np.float64]
        assert verdicts.minibatch.dtype == verdicts.stage.dtype == np.int64


def test_engine_streams_of_one_schema_share_how_the_rules_stand() -> None:
    """A thousand runs of one kind of trainer do not each hold it."""
    watch, other, block = Watch(), StreamState(), signal_block(2)
    watch.engine.check(watch.state, block)
    watch.engine.check(other, block)
    ((_, first),), ((_, second),) = watch.state.plans.values(), other.plans.values()
    assert first is second


def test_engine_derived_rows_of_every_column_are_judged() -> None:
    """What derivation gives is what detection reads: nobody is blind when everything is sent."""
    watch = Watch("classic")
    found = watch.check(Deriver().derive(every_column()))
    assert {key.split(":")[1] for key in found if ":" in key} == {"arm", "norm", "health"}
    assert not any((verdicts.code == Verdict.BLIND).any() for verdicts in found.values())


def test_engine_state_of_another_format_is_refused() -> None:
    """Bytes of another version are replayed from the store, not misread."""
    with pytest.raises(ValueError, match="expected format 4, got 99; replay the stream"):
        StreamState().load(msgpack.packb([99, [], [], [], []]))


def test_engine_state_after_load_dumps_the_same_bytes() -> None:
    """Dump and load are exact."""
    watch = Watch()
    rng = np.random.default_rng(0)
    watch.check(
        signal_block(
            120,
            policy__kl__k3=(0.01 * np.exp(rng.normal(size=120))).tolist(),
            policy__entropy__norm__of__arm=rng.uniform(0.2, 1, 120).tolist(),
            episode__return__mean=rng.normal(size=120).tolist(),
        )
    )
    other = StreamState()
    other.load(watch.state.dump())
    assert other.dump() == watch.state.dump()


def test_engine_healthy_cartpole_gives_nothing_above_info() -> None:
    """150 healthy updates: KL noise, entropy falling to 0.35, ratio up to 2.5, returns rising to 500."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        n, t = 150, np.arange(150)
        kl = 0.007 * np.exp(0.5 * rng.normal(size=n)) * np.exp(-t / 300)
        entropy = 0.35 + 0.64 * np.exp(-t / 60) + 0.01 * rng.normal(size=n)
        watch = Watch()
        found = watch.feed(
            signal_block(
                n,
                policy__kl__k3=np.clip(kl, 0.002, 0.028).tolist(),
                policy__entropy__norm=entropy.tolist(),
                policy__ratio__max=(1.2 + np.minimum(rng.exponential(0.25, size=n), 1.3)).tolist(),
                policy__ratio__min=(0.8 - np.minimum(rng.exponential(0.1, size=n), 0.6)).tolist(),
                policy__ratio__tail_index=rng.uniform(0.8, 2.5, size=n).tolist(),
                policy__logratio__std=np.sqrt(2 * kl).tolist(),
                episode__return__mean=np.minimum(20 + 4 * t + 20 * rng.normal(size=n), 500).tolist(),
            )
        )
        assert [anomaly.sentence for anomaly in found if anomaly.severity.rank > 0] == []


@pytest.mark.parametrize("rows", [1, 2])
def test_engine_signal_that_is_not_listed_is_judged_by_its_stand_in(rows: int) -> None:
    """And the detector says so. Where it is listed, measured or not, nothing stands in for it."""
    last, whole = SignalKey("policy.kl.k3.last"), SignalKey("policy.kl.k3")
    engine = Engine(load_profile("default"))
    for signals, code, reason in (
        ((last,), Verdict.BREACH, "judges policy.kl.k3.last in place of policy.kl.k3, which is not sent"),
        ((last, whole), Verdict.BLIND, "policy.kl.k3: the trainer did not pass it in this update"),
    ):
        values = np.full((len(signals), rows), 0.6, np.float32)
        status = np.array([[0] * rows, [Status.NOT_CALLED] * rows][: len(signals)], np.uint8)
        block = make_block(range(3, 3 * rows + 3, 3), signals=signals, values=values, status=status)
        (found,) = [one for one in engine.check(StreamState(), block, None) if one.kind == "kl_extreme"]
        assert found.code[-1] == code
        assert reason in found.reason
        assert rows == 1 or code != Verdict.BREACH or found.value[-1] == np.float32(0.6)
