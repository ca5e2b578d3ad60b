"""What deviated first: layers from black boxes, signals from stored rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts.columns import Status
from gradwatch_daemon.evidence.first import FirstLayer, FirstSignal, earliest_layer, first_layer, first_signal
from gradwatch_daemon.evidence.norms import KIND, BlackBox, read_tables
from gradwatch_daemon.records import SignalBlock, SignalKey, Stream, TableRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STREAM = Stream("ant-ppo", 1, 0)
LAYERS = ("body.weight", "actor.weight", "critic.weight")
ONSET = 40
NAN, INF = math.nan, math.inf


def table(rows: Mapping[str, Sequence[float]], names: Sequence[str] = LAYERS, update: int = 60) -> TableRecord:
    """A table of a black box."""
    values = np.array(list(rows.values()), "<f8").tobytes()
    return TableRecord(STREAM, "s1", 1, KIND, update, tuple(rows), tuple(names), values)


def healthy(updates: int, steps: int = 2, seed: int = 0) -> dict[str, list[float]]:
    """Norms that scatter by a third."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[float]] = {}
    for update in range(updates):
        for step in range(steps):
            rows[f"grad@{update}.{step}"] = [*rng.lognormal(0.0, 0.3, len(LAYERS))]
        rows[f"weight@{update}"] = [3.0 + 0.001 * update] * len(LAYERS)
    return rows


def judged(rows: Mapping[str, Sequence[float]]) -> FirstLayer | str:
    """The first layer of one rank."""
    return first_layer(read_tables([table(rows)], 0, 200), ONSET)


def found(rows: Mapping[str, Sequence[float]]) -> FirstLayer:
    """The first layer, which there is."""
    layer = judged(rows)
    assert isinstance(layer, FirstLayer), layer
    return layer


def test_first_layer_without_a_black_box_says_so() -> None:
    """Nothing was sent: nothing is claimed."""
    assert first_layer(BlackBox({}), ONSET) == "no black box holds the updates around the onset"


@pytest.mark.parametrize(("before", "said"), [(0, "0 updates"), (1, "1 update "), (7, "7 updates")])
def test_first_layer_with_too_few_updates_before_says_so(before: int, said: str) -> None:
    """What is usual needs eight."""
    rows = {f"grad@{ONSET - before + n}.0": [1.0 if n < before else NAN] * 3 for n in range(before + 3)}
    reason = judged(rows)
    assert isinstance(reason, str)
    assert reason.startswith(said)


@pytest.mark.parametrize("seed", range(20))
def test_first_layer_of_a_healthy_run_is_none(seed: int) -> None:
    """Twenty runs that only scatter."""
    assert judged(healthy(64, seed=seed)) == "no layer's norm left what was usual for it"


def test_first_layer_is_that_of_the_first_step_though_all_follow() -> None:
    """A NaN in one gradient, and by the next step everywhere: over the update all look alike."""
    rows = healthy(42)
    rows["grad@40.0"] = [1.0, NAN, 1.0]
    rows |= {row: [NAN] * 3 for row in ("grad@40.1", "weight@40", "grad@41.0", "grad@41.1", "weight@41")}
    layer = found(rows)
    assert (layer.layer, layer.update, layer.step, layer.what) == ("actor.weight", 40, 0, "gradient")
    assert layer.layers == ("actor.weight",)
    assert (layer.score, layer.total) == (None, 3)
    assert math.isnan(layer.value)
    assert layer.usual == pytest.approx(1.2, rel=0.3)


def test_first_layer_that_deviates_before_the_onset_is_found_there() -> None:
    """A detector needs several votes; the layer moved three updates earlier."""
    rows = healthy(42)
    for update in range(37, 42):
        rows[f"grad@{update}.1"] = [40.0, 1.0, 1.0]
    layer = found(rows)
    assert (layer.layer, layer.update, layer.step, layer.value) == ("body.weight", 37, 1, 40.0)
    assert layer.score is not None
    assert layer.score >= 6


def test_first_layer_of_several_at_once_is_named_only_where_it_stands_out() -> None:
    """All rise alike: their list, and no name. One rises by ten times more: its name."""
    alike = {**healthy(42), "grad@40.0": [100.0, 101.0, 99.0]}
    assert (found(alike).layer, set(found(alike).layers)) == ("", set(LAYERS))
    one = {**alike, "grad@40.0": [100.0, 2000.0, 99.0]}
    assert (found(one).layer, found(one).layers[0]) == ("actor.weight", "actor.weight")


def test_first_layer_that_vanishes_is_named_without_a_step() -> None:
    """Its largest norm of the update is 0: no step of it is the first."""
    rows = healthy(44)
    for update in range(40, 44):
        rows |= {f"grad@{update}.{step}": [1.0, 1.0, 0.0] for step in range(2)}
    layer = found(rows)
    assert (layer.layer, layer.update, layer.step, layer.value) == ("critic.weight", 40, None, 0.0)


def test_first_layer_is_the_weight_that_all_gradients_follow_from() -> None:
    """Written to between two updates: its gradients are wrong from the first step on, which no step of theirs has caused."""
    rows = {**healthy(42), "grad@40.0": [50.0, 30.0, 1.0], "weight@40": [3.0, 3.0, 3000.0]}
    layer = found(rows)
    assert (layer.what, layer.layer, layer.update, layer.step) == ("weight", "critic.weight", 40, None)


def test_first_layer_of_norms_counted_on_the_device_has_the_step_it_broke_at() -> None:
    """One number for each update, and the first step at which it was not finite."""
    rows: dict[str, list[float]] = {f"grad@{update}": [1.0 + 0.01 * (update % 3)] * 3 for update in range(40)}
    rows |= {"grad@40": [NAN, NAN, INF], "bad@40": [5.0, 3.0, 4.0]}
    layer = found(rows)
    assert (layer.layer, layer.step) == ("actor.weight", 3)


def test_black_boxes_that_overlap_are_read_as_one() -> None:
    """A later table says again what an earlier one said, and more; other rows and updates out of range are skipped."""
    early = {**healthy(30), "future@3": [9.0] * 3}
    late = {row: values for row, values in healthy(64).items() if int(row.split("@")[1].split(".")[0]) >= 20}
    box = read_tables([table(early), table(late)], 10, 50)
    assert list(box.updates) == list(range(10, 51))
    assert box.updates[25].steps[1] == dict(zip(LAYERS, late["grad@25.1"], strict=True))


def test_earliest_layer_of_several_ranks_is_that_of_the_first_update() -> None:
    """Each rank has its own box; one without any hides nothing."""
    late = found({**healthy(42), "grad@41.0": [NAN, 1.0, 1.0]})
    early = FirstLayer(1, 40, 3, "gradient", "x", ("x",), NAN, 1.0, None, 3)
    assert earliest_layer(["no black box", late, early]) is early
    assert earliest_layer(["why"]) == "why"
    assert earliest_layer([]) == "no rank sent a black box"


def block(updates: Sequence[int], signals: Mapping[str, Sequence[float]]) -> SignalBlock:
    """Rows of signals by name, all measured."""
    keys = tuple(SignalKey(name) for name in signals)
    values = np.array([*signals.values()], np.float32)
    at, small = np.array(updates, np.int64), np.zeros(len(updates), np.uint8)
    return SignalBlock(STREAM, at, at, at, small, small, keys, values, np.zeros(values.shape, np.uint8))


def noisy(seed: int, n: int = 60) -> list[float]:
    """A signal that scatters around 1."""
    return np.random.default_rng(seed).normal(1.0, 0.1, n).tolist()


def signal(changed: Mapping[str, Mapping[int, float]]) -> FirstSignal | str:
    """The first of five signals that scatter, single values of which are changed."""
    names = ("grad.norm.mean", "loss.total", "policy.kl.k3", "sys.update_ms", "opt.lr")
    signals = {name: noisy(at) for at, name in enumerate(names)}
    for name, values in changed.items():
        for at, value in values.items():
            signals[name][at] = value
    joined = block(range(60), signals)
    return first_signal([joined.select(slice(0, 25)), joined.select(slice(25, 60))], ONSET)


def test_first_signal_of_a_healthy_run_is_none() -> None:
    """Nor of one that jumps once: it has to last."""
    assert isinstance(signal({}), str)
    assert isinstance(signal({"grad.norm.mean": {40: 30.0}}), str)


def test_first_signal_of_too_few_updates_says_so() -> None:
    """Seven updates before."""
    assert first_signal([block(range(33, 45), {"grad.norm.mean": [1.0] * 12})], ONSET) == (
        "7 updates before the onset are held; 8 are needed to say what is usual"
    )


def test_first_signal_is_the_earliest_and_of_one_update_the_causally_first() -> None:
    """The policy comes before the loss, and the loss before the gradient, however far each went."""
    far = dict.fromkeys(range(39, 60), 50.0)
    near = dict.fromkeys(range(39, 60), 5.0)
    one = signal({"grad.norm.mean": far, "loss.total": near})
    assert isinstance(one, FirstSignal)
    assert (one.key.name, one.update, one.value) == ("loss.total", 39, 5.0)
    assert one.usual == pytest.approx(1.0, abs=0.1)
    other = signal({"grad.norm.mean": dict.fromkeys(range(38, 60), 50.0), "loss.total": near})
    assert isinstance(other, FirstSignal)
    assert other.key.name == "grad.norm.mean"


def test_first_signal_is_what_the_trainer_set_where_it_moved_with_others() -> None:
    """A learning rate that somebody raised is the beginning of what the policy does in the same update, not its end."""
    raised = signal({"opt.lr": dict.fromkeys(range(39, 60), 60.0), "policy.kl.k3": dict.fromkeys(range(39, 60), 50.0)})
    assert isinstance(raised, FirstSignal)
    assert (raised.key.name, raised.update) == ("opt.lr", 39)
    later = signal({"opt.lr": dict.fromkeys(range(40, 60), 60.0), "policy.kl.k3": dict.fromkeys(range(39, 60), 50.0)})
    assert isinstance(later, FirstSignal)
    assert later.key.name == "policy.kl.k3"


def test_first_signal_is_none_that_goes_on_as_it_went_before() -> None:
    """A policy that settles is on its way all the time; where it leaves that way it is."""
    falling = (np.linspace(-0.7, -1.6, 60) + 0.01 * np.array(noisy(3))).tolist()
    assert isinstance(first_signal([block(range(60), {"policy.logp.min": falling})], ONSET), str)
    broken = falling[:41] + [value - 3.0 for value in falling[41:]]
    one = first_signal([block(range(60), {"policy.logp.min": broken})], ONSET)
    assert isinstance(one, FirstSignal)
    assert one.update == 41


def test_first_signal_that_is_measured_now_and_then_has_to_last_until_it_is_measured_again() -> None:
    """A collector that rests between: a jump in one update alone is none."""
    jumped, stayed = [1.0] * 60, [1.0] * 60
    jumped[36], stayed[36:] = 30.0, [30.0] * 24
    for values, update in ((jumped, None), (stayed, 36)):
        whole = block(range(60), {"grad.norm.mean": values})
        whole.status[0, [at for at in range(32, 60) if at % 4]] = int(Status.THINNED)
        one = first_signal([whole], ONSET)
        assert (one.update if isinstance(one, FirstSignal) else None) == update


def test_first_signal_that_is_not_finite_need_not_last() -> None:
    """The trainer may have died of it."""
    one = signal({"policy.kl.k3": {40: NAN}})
    assert isinstance(one, FirstSignal)
    assert (one.key.name, one.update, one.score) == ("policy.kl.k3", 40, None)


def test_first_signal_is_none_of_the_machine() -> None:
    """That updates take longer is no beginning of a fault in learning."""
    assert isinstance(signal({"sys.update_ms": dict.fromkeys(range(38, 60), 900.0)}), str)


def test_signal_that_always_jumped_is_held_to_its_own_jumps() -> None:
    """Twenty times its spread now and then before: as much again is nothing new."""
    jumps = dict.fromkeys((3, 4, 12, 13), 3.0) | {41: 3.0, 42: 3.0}
    assert isinstance(signal({"grad.norm.mean": jumps}), str)


def drifting(updates: int, seed: int) -> dict[str, list[float]]:
    """Norms of a run that learns: of one layer they sink by 6 % an update from update 24 on, and scatter by a tenth."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[float]] = {}
    for update in range(updates):
        left = 0.94 ** max(0, update - 24)
        rows[f"grad@{update}.0"] = [6.0 * left * rng.lognormal(0.0, 0.1), *rng.lognormal(0.0, 0.1, 2)]
        rows[f"weight@{update}"] = [3.0] * len(LAYERS)
    return rows


@pytest.mark.parametrize("seed", range(10))
def test_first_layer_of_a_run_whose_norms_drift_is_none(seed: int) -> None:
    """Far from what it was in the base, and never in one go: nothing began in it."""
    assert judged(drifting(64, seed)) == "no layer's norm left what was usual for it"


@pytest.mark.parametrize("seed", range(10))
def test_first_layer_among_norms_that_drift_is_the_one_that_left_in_one_go(seed: int) -> None:
    """Another layer rises twentyfold two updates before the onset and stays there."""
    rows = drifting(64, seed)
    for update in range(38, 64):
        rows[f"grad@{update}.0"][1] *= 20.0
    layer = found(rows)
    assert (layer.layer, layer.update) == ("actor.weight", 38)


def test_first_layer_is_none_that_came_back_before_the_onset() -> None:
    """A jump of four updates that was over five updates before."""
    rows = healthy(64)
    for update in range(30, 34):
        rows[f"grad@{update}.0"] = [1.0, 60.0, 1.0]
    assert judged(rows) == "no layer's norm left what was usual for it"


def test_first_signal_of_a_run_that_bends_is_the_one_that_left_in_one_go() -> None:
    """Values that began to rise after the base are learning; the rate that was raised at the onset is not."""
    rising = [wiggle + 0.06 * max(0, update - 24) for update, wiggle in enumerate(noisy(3))]
    raised = [1.0] * ONSET + [100.0] * (60 - ONSET)
    assert isinstance(first_signal([block(range(60), {"value.pred.min": rising})], ONSET), str)
    one = first_signal([block(range(60), {"value.pred.min": rising, "opt.lr": raised})], ONSET)
    assert isinstance(one, FirstSignal)
    assert (one.key.name, one.update) == ("opt.lr", ONSET)
