"""Records of a store and a pipeline, each field away from its default: what fakes hold and tests compare with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import ControlState, Level, RankState, Severity
from gradwatch_daemon.api.context import DaemonHealth, DetectorInfo, NeedInfo, ThresholdInfo, VoteInfo
from gradwatch_daemon.records import (
    Anomaly,
    Attached,
    DetectorState,
    Escalation,
    EventRecord,
    Newest,
    Run,
    RunView,
    SignalBlock,
    SignalKey,
    Stream,
    TableRecord,
)
from gradwatch_daemon.records.commands import CommandRecord
from gradwatch_daemon.store.protocol import Point, Series, SignalSummary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


T0_NS = 1_769_860_800_123_456_789


T0_TEXT = "2026-01-31T12:00:00.123Z"


def make_run(run: str = "ant-ppo", **changes: Any) -> Run:
    """A live run of two ranks in its second attempt."""
    made = Run(
        run=run,
        attempt=2,
        launch_id="launch-7",
        group="ants",
        tags={"team": "locomotion"},
        labels={"env": "Ant-v5"},
        config={"lr": 3e-4, "clip": float("inf"), "anneal": True},
        updates_total=500,
        world=2,
        state="live",
        base=Level.NORMAL,
        pin=None,
        revision=3,
        first_seen_ns=T0_NS,
        last_seen_ns=T0_NS + 9_000_000_000,
    )
    return replace(made, **changes)


def make_view(run: Run | None = None, **changes: Any) -> RunView:
    """A run at update 120 with 3 of 8 detectors blind and 2 of 98 records lost."""
    states = ["armed"] * 4 + ["firing"] + ["blind"] * 3
    made = RunView(
        run=run or make_run(),
        live=True,
        sessions=2,
        update_last=120,
        effective=Level.DEBUG,
        rows=96,
        lost=2,
        detectors=tuple(DetectorState(f"kind-{i}", "", state, f"reason {i}") for i, state in enumerate(states)),
    )
    return replace(made, **changes)


def make_anomaly(**changes: Any) -> Anomaly:
    """A critical NaN of the gradient norm with one attached finding."""
    made = Anomaly(
        id="a1",
        run="ant-ppo",
        attempt=2,
        rank=1,
        kind="nonfinite",
        subject="actor",
        severity=Severity.CRITICAL,
        state="firing",
        update_onset=118,
        update_fired=119,
        update_last=120,
        update_resolved=None,
        count=3,
        value=float("nan"),
        limit=0.5,
        baseline=None,
        minibatch=4,
        stage="grad",
        sentence="Gradient norm is NaN at update 119.",
        attached=(Attached("kl-spike", "", Severity.WARNING, 119, 120, float("inf"), 0.1),),
        tries=("Lower the learning rate.",),
        rules_hash="beef",
        t_ns=T0_NS,
    )
    return replace(made, **changes)


def make_escalation(**changes: Any) -> Escalation:
    """An operator's escalation that nobody has told the trainer of."""
    made = Escalation(
        id="e1",
        run="ant-ppo",
        level=Level.DEBUG,
        updates=50,
        origin="operator",
        reason="watching",
        state=ControlState.REQUESTED,
        requested_ns=T0_NS,
        ranks=(RankState(1, ControlState.REQUESTED),),
        expires_ns=T0_NS + 60_000_000_000,
    )
    return replace(made, **changes)


def make_command(**changes: Any) -> CommandRecord:
    """An operator's command that nobody has told the trainer of."""
    made = CommandRecord(
        id="c1",
        run="ant-ppo",
        verb="stop",
        args={},
        origin="operator",
        reason="enough",
        state=ControlState.REQUESTED,
        requested_ns=T0_NS,
        expires_ns=T0_NS + 60_000_000_000,
        ranks=(RankState(0, ControlState.REQUESTED), RankState(1, ControlState.REQUESTED)),
    )
    return replace(made, **changes)


def make_event(seq: int, **changes: Any) -> EventRecord:
    """An exception with a NaN in its detail."""
    made = EventRecord(
        Stream("ant-ppo", 2, 1), "s1", seq, 118, T0_NS + seq, "exception", "ValueError: nan", {"x": float("nan"), "n": 3}
    )
    return replace(made, **changes)


def make_series(values: Sequence[float], status: Sequence[int] | None = None, *, bucket: int = 1, **changes: Any) -> Series:
    """Raw points (or buckets whose low, high and last are the same) of `policy.kl.k3` from update 100 on."""
    array = np.array(values, dtype=np.float64)
    code = np.array(status if status is not None else [0] * len(values), dtype=np.uint8)
    measured = (code == Status.MEASURED).astype(np.int64)
    made = Series(
        key=SignalKey("policy.kl.k3"),
        bucket=bucket,
        update=100 + bucket * np.arange(len(values), dtype=np.int64),
        t_ns=T0_NS + 1_000_000_000 * np.arange(len(values), dtype=np.int64),
        env_steps=np.arange(len(values), dtype=np.int64) - 1,
        low=array,
        high=array,
        last=array,
        measured=measured,
        nonfinite=(measured.astype(bool) & ~np.isfinite(array)).astype(np.int64),
        status=code,
        rows=len(values),
    )
    if len(values):
        made = replace(made, end=Point(int(made.update[-1]), int(made.t_ns[-1]), 7, float(array[-1]), int(code[-1])))
    return replace(made, **changes)


def make_table(update: int, layers: Mapping[str, Sequence[float]], **changes: Any) -> TableRecord:
    """A table of layers of rank 0: name → grad_norm, weight_norm, grad_nonfinite, weight_nonfinite."""
    values = np.array(list(layers.values()), "<f8").tobytes()
    names = ("grad_norm", "weight_norm", "grad_nonfinite", "weight_nonfinite")
    return replace(TableRecord(Stream("ant-ppo", 2, 0), "s1", 7, "layers", update, tuple(layers), names, values), **changes)


def make_summary(name: str = "policy.kl.k3", **changes: Any) -> SignalSummary:
    """A signal measured 90 times."""
    made = SignalSummary(SignalKey(name), update_last=120, status_last=0, value_last=0.01, measured=90, nonfinite=1)
    return replace(made, **changes)


CATALOGUE = (
    DetectorInfo(
        kind="nonfinite",
        title="NaN or Inf",
        meaning="Something is no number.",
        severity=Severity.CRITICAL,
        needs=(NeedInfo("grad.norm.mean", "step", "mon.step()", optional=True, undefined="take a step"),),
        thresholds=(
            ThresholdInfo(
                "count", 1.0, 0.0, ">", "count", "elements that are not finite", "grad.norm.nonfinite", Severity.CRITICAL
            ),
        ),
        votes=(VoteInfo(Severity.WARNING, 1, 2, Severity.CRITICAL),),
        formula="count > 0",
        warm_up="none",
        fails_when="never called",
        source="by definition",
        tries=("Lower the learning rate.",),
        origin="pkg 2.0",
    ),
    DetectorInfo(
        kind="kl-spike",
        title="KL spike",
        meaning="The policy moved far.",
        severity=Severity.WARNING,
        needs=(NeedInfo("policy.kl.k3", "ppo", "mon.ppo(...)"),),
        thresholds=(),
        votes=(),
        formula="kl > 0.1",
        warm_up="20 updates",
        fails_when="the policy is not stochastic",
        source="Schulman 2020",
        tries=(),
    ),
)


def make_health(**changes: Any) -> DaemonHealth:
    """A daemon a minute old that refused some frames."""
    made = DaemonHealth(
        pid=4242,
        started_ns=T0_NS,
        now_ns=T0_NS + 60_000_000_000,
        sqlite="3.40.1",
        data_dir="/data/gradwatch",
        data_free_bytes=3_000_000_000,
        data_size_bytes=9_000_000_000,
        frames=77,
        rows=66,
        refused={"frame-crc": 3, "secret-wrong": 1},
        quarantines=2,
        commits=55,
        commit_failures=4,
        ack="synced",
    )
    return replace(made, **changes)


def make_newest(values: Mapping[str, float], missing: Sequence[str] = ()) -> Newest:
    """A newest row: `name` or `name/subject` → value; what is `missing` is there and not measured."""
    keys = tuple(SignalKey(*name.split("/", 1)) for name in (*values, *missing))
    status = np.array([0] * len(values) + [int(Status.NOT_CALLED)] * len(missing), np.uint8)
    numbers = np.array([*values.values(), *(0.0 for _ in missing)], np.float32)
    return Newest(keys, numbers, status, T0_NS, T0_NS + 20_000_000)


def make_block(run: str = "ant-ppo", first: int = 10, n: int = 3) -> SignalBlock:
    """Rows of one signal."""
    update = np.arange(first, first + n, dtype=np.int64)
    zeros = np.zeros(n, dtype=np.uint8)
    values = np.zeros((1, n), dtype=np.float32)
    return SignalBlock(
        Stream(run, 2, 1), update, update, update, zeros, zeros, (SignalKey("policy.kl.k3"),), values, values.astype(np.uint8)
    )
