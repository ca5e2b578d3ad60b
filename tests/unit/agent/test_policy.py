"""What `ppo` makes of minibatches, good and bad."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_agent.collect import policy as policy_module
from gradwatch_agent.collect.spaces import entropy_limits
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("strict")

B = 8


def batch(**changed: Any) -> dict[str, Any]:
    """Arguments of one healthy minibatch."""
    generator = torch.Generator().manual_seed(0)
    normal = {name: torch.randn(B, generator=generator) for name in ("old_logp", "values", "returns", "advantages")}
    given = {**normal, "new_logp": normal["old_logp"] + 0.1, "entropy": torch.full((B,), 0.5), "clip": 0.2}
    return {**given, "loss": torch.tensor(1.5), **changed}


def reshaped(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """A healthy minibatch whose per-sample tensors are changed."""
    return {key: change(value) if isinstance(value, torch.Tensor) and value.dim() else value for key, value in batch().items()}


def measured(*calls: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The row of one update with these `ppo` calls."""
    with monitoring(**settings) as (monitor, record):
        for call in calls:
            monitor.ppo(**call)
        monitor.step()
        return record.last


RATIO = ("policy.logratio", "policy.logratio.absmax", "policy.ratio.max", "policy.kl.k3", "policy.kl.k3.last", "policy.clipped")


@pytest.mark.parametrize(
    ("argument", "bad", "columns", "status"),
    [
        ("new_logp", torch.zeros(B, 1), ("value.new", "adv.used", "policy.entropy"), Status.SHAPE),
        ("old_logp", torch.zeros(B, 1), RATIO, Status.SHAPE),
        ("old_logp", torch.zeros(B + 1), RATIO, Status.SHAPE),
        ("old_logp", torch.zeros(B, dtype=torch.int64), RATIO, Status.DTYPE),
        ("old_logp", torch.zeros(B, dtype=torch.complex64), RATIO, Status.DTYPE),
        ("old_logp", torch.zeros(B).to_sparse(), RATIO, Status.DTYPE),
        ("old_logp", [0.0] * B, RATIO, Status.DTYPE),
        ("old_logp", torch.zeros(B, device="meta"), RATIO, Status.DEVICE),
        ("old_logp", None, RATIO, Status.NOT_CALLED),
        ("values", torch.zeros(B, 1), ("value.new", "value.new.nonfinite", "value.new.error"), Status.SHAPE),
        ("values", None, ("value.new", "value.new.error"), Status.NOT_CALLED),
        ("returns", torch.zeros(1, B), ("value.new.error", "value.new.error.nonfinite"), Status.SHAPE),
        ("advantages", torch.zeros(B, dtype=torch.bool), ("adv.used", "adv.used.nonfinite_mb"), Status.DTYPE),
        ("entropy", torch.zeros(B, 2), ("policy.entropy",), Status.SHAPE),
        ("entropy", "high", ("policy.entropy",), Status.DTYPE),
        ("loss", torch.zeros(B), ("loss.total", "loss.total.nonfinite"), Status.SHAPE),
        ("loss", "low", ("loss.total",), Status.DTYPE),
        ("clip", torch.tensor(0.2), ("policy.clipped",), Status.DTYPE),
        ("clip", None, ("policy.clipped",), Status.NOT_CALLED),
        ("mask", torch.ones(B), (*RATIO, "value.new", "adv.used", "policy.entropy"), Status.DTYPE),
        ("mask", torch.ones(B, 1, dtype=torch.bool), (*RATIO, "value.new"), Status.SHAPE),
    ],
)
def test_ppo_unusable_argument_gives_its_reason(argument: str, bad: object, columns: tuple[str, ...], status: Status) -> None:
    """Nothing is broadcast, converted or raised; the columns of that argument say why they are missing."""
    row = measured(batch(**{argument: bad}))
    assert {name: row[name] for name in columns} == dict.fromkeys(columns, status)


def test_ppo_one_bad_minibatch_of_two_refuses_the_whole_update() -> None:
    """Half an update must not pass for the whole."""
    row = measured(batch(), batch(values=torch.zeros(B, 1)), batch())
    assert row["value.new"] is Status.SHAPE
    assert isinstance(row["adv.used"], tuple)


def test_ppo_empty_minibatch_is_undefined_and_harmless() -> None:
    """An empty shard contributes nothing; alone it is undefined."""
    empty = batch(**{key: torch.zeros(0) for key in ("new_logp", "old_logp", "values", "returns", "advantages", "entropy")})
    assert measured(empty)["policy.kl.k3"] is Status.UNDEFINED
    assert measured(empty)["loss.total"] == (1.0, 1.5, 0.0)
    assert measured(batch(), empty)["value.new"][0] == B


def test_ppo_without_arguments_measures_nothing() -> None:
    """A call in vain is not called."""
    assert measured({})["policy.kl.k3"] is Status.NOT_CALLED


def test_ppo_unknown_argument_is_hinted_once(caplog: pytest.LogCaptureFixture) -> None:
    """A mistyped name is the trainer author's business, told once, with the nearest name."""
    measured(batch(advantage=torch.zeros(B)), batch(advantage=torch.zeros(B)))
    assert [record.message for record in caplog.records] == [
        "gradwatch: ppo() takes no 'advantage'; did you mean 'advantages'?"
    ]


def test_ppo_ratio_facts_match_the_formulas() -> None:
    """k3, clipping, extremes and the first-minibatch probe of hand-made ratios."""
    ratios = torch.tensor([[1.0, 1.1, 0.9, 1.0], [3.0, 1.0, 0.25, 1.0]], dtype=torch.float64)
    row = measured(
        *[{"new_logp": ratio.log(), "old_logp": torch.zeros(4, dtype=torch.float64), "clip": 0.2} for ratio in ratios]
    )
    k3 = (ratios - 1) - ratios.log()
    assert row["policy.ratio.max"] == pytest.approx(3.0)
    assert row["policy.ratio.min"] == pytest.approx(0.25)
    assert row["policy.logratio.absmax"] == pytest.approx(math.log(4))
    assert row["policy.clipped"] == 2.0
    assert row["policy.kl.k3"][1] == pytest.approx(float(k3.mean()))
    assert row["policy.kl.k3.last"] == pytest.approx(float(k3[1].mean()))
    assert row["policy.kl.k3.max"] == pytest.approx(float(k3.mean(1).max()))
    assert row["policy.ratio.first_mb_dev"] == pytest.approx(0.1)


def test_first_minibatch_probe_covers_all_calls_before_the_first_optimizer_step() -> None:
    """With gradient accumulation several minibatches see the policy that collected."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    old = torch.zeros(B)
    with monitoring(optimizers=(optimizer,)) as (monitor, record):
        for deviation in (0.0, 0.5):
            monitor.ppo(new_logp=old + deviation, old_logp=old)
        weight.grad = torch.ones(1)
        optimizer.step()
        monitor.ppo(new_logp=old + 2.0, old_logp=old)
        monitor.step()
    assert record.last["policy.ratio.first_mb_dev"] == pytest.approx(math.expm1(0.5))
    assert record.last["policy.ratio.max"] == pytest.approx(math.exp(2.0))


def test_first_minibatch_probe_off_policy_is_undefined() -> None:
    """Where ratio 1 is not to be expected, its absence means nothing."""
    assert measured(batch(), off_policy=True)["policy.ratio.first_mb_dev"] is Status.UNDEFINED


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_ppo_nonfinite_values_are_counted_with_their_first_minibatch(value: float) -> None:
    """The third minibatch is number 2."""
    bad = torch.zeros(B)
    bad[3] = bad[5] = value
    row = measured(batch(), batch(), batch(advantages=bad), batch(advantages=bad))
    assert row["adv.used.nonfinite"] == 4.0
    assert row["adv.used.nonfinite_mb"] == 2.0
    assert not math.isfinite(row["adv.used"][1])
    assert row["value.new.nonfinite"] == 0.0
    assert row["value.new.nonfinite_mb"] is Status.UNDEFINED


def test_ppo_nan_log_probability_spoils_every_ratio_fact() -> None:
    """A NaN must not hide behind a maximum."""
    bad = batch()["old_logp"].clone()
    bad[0] = math.nan
    row = measured(batch(), batch(new_logp=bad), batch())
    for name in ("policy.ratio.max", "policy.ratio.min", "policy.logratio.absmax", "policy.kl.k3.max"):
        assert math.isnan(row[name]), name
    assert row["policy.logratio.nonfinite_mb"] == 1.0


def test_ppo_nan_loss_is_found_on_device_and_host() -> None:
    """`loss` may be a tensor or a float."""
    for loss in (torch.tensor(math.nan), math.nan):
        row = measured(batch(), batch(loss=loss))
        assert (row["loss.total.nonfinite"], row["loss.total.nonfinite_mb"]) == (1.0, 1.0)
        assert math.isnan(row["loss.total"][1])


def test_ppo_loss_on_the_host_written_to_afterwards_is_what_was_passed() -> None:
    """Where nothing waits for it, the number is read at once."""
    loss = torch.tensor(1.0)
    with monitoring() as (monitor, record):
        monitor.ppo(loss=loss)
        loss.mul_(2)
        monitor.step()
        assert record.last["loss.total"] == (1.0, 1.0, 0.0)


def test_ppo_loss_on_a_device_written_to_afterwards_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses there are kept by reference: one that changed since is not what was passed."""
    monkeypatch.setattr(policy_module, "host_value", lambda number: None)
    loss = torch.tensor(1.0)
    with monitoring() as (monitor, record):
        monitor.ppo(loss=loss)
        loss.mul_(2)
        monitor.step()
        assert record.last["loss.total"] is Status.INCOMPLETE
        monitor.ppo(loss=loss)
        monitor.step()
        assert record.last["loss.total"] == (1.0, 2.0, 0.0)


def test_ppo_masked_samples_never_count() -> None:
    """Padding may hold anything, NaN too."""
    mask = torch.tensor([True] * 5 + [False] * 3)
    poisoned = {}
    for name in ("new_logp", "old_logp", "values", "returns", "advantages", "entropy"):
        tensor = batch()[name].clone()
        tensor[5:] = math.nan
        poisoned[name] = tensor
    row = measured(batch(**poisoned, mask=mask))
    honest = measured(reshaped(lambda tensor: tensor[:5]))
    for name, value in honest.items():
        if not name.startswith("sys."):
            assert row[name] == (pytest.approx(value) if not isinstance(value, Status) else value), name


def test_ppo_mask_without_any_sample_is_undefined() -> None:
    """Zero samples have no mean; the minibatch beside it still counts."""
    nothing = batch(mask=torch.zeros(B, dtype=torch.bool))
    row = measured(nothing)
    assert {row[name] for name in RATIO} == {Status.UNDEFINED}
    assert row["value.new.nonfinite"] is Status.UNDEFINED
    row = measured(batch(mask=torch.ones(B, dtype=torch.bool)), nothing)
    assert row["policy.kl.k3"][0] == B
    assert row["policy.kl.k3.last"] == pytest.approx(math.expm1(0.1) - 0.1, rel=1e-5)


def test_ppo_heads_have_their_own_columns_and_limits() -> None:
    """A Dict space: entropy per head; a Box has no limit."""
    space = SimpleNamespace(spaces={"move": SimpleNamespace(n=4), "aim": SimpleNamespace(low=0)})
    heads = {"move": torch.full((B,), 0.7), "aim": torch.tensor(-1.0), "ghost": 0.25}
    row = measured(batch(entropy=heads), action_space=space)
    assert row["policy.entropy/move"] == pytest.approx((B, 0.7, 0.0), abs=1e-7)
    assert row["policy.entropy/aim"] == (1.0, -1.0, 0.0)
    assert row["policy.entropy/ghost"] == (1.0, 0.25, 0.0)
    assert row["policy.entropy.limit/move"] == math.log(4)
    assert row["policy.entropy.limit/aim"] is Status.UNDEFINED
    assert row["policy.entropy.limit/ghost"] is Status.UNDEFINED


def test_ppo_without_action_space_has_no_entropy_limit() -> None:
    """The entropy was passed, so the line to add is no call: nothing says how large it can be."""
    assert measured(batch())["policy.entropy.limit"] is Status.UNDEFINED


@pytest.mark.parametrize(
    ("space", "limits"),
    [
        (SimpleNamespace(n=2), {"": math.log(2)}),
        (SimpleNamespace(n=1), {"": None}),
        (SimpleNamespace(nvec=[2, 3]), {"0": math.log(2), "1": math.log(3), "": math.log(6)}),
        (
            SimpleNamespace(spaces=(SimpleNamespace(n=2), SimpleNamespace(n=5))),
            {"0": math.log(2), "1": math.log(5), "": math.log(10)},
        ),
        (SimpleNamespace(low=-1.0), {"": None}),
        ("no space", {"": None}),
        (None, None),
    ],
)
def test_entropy_limits_of_spaces(space: object, limits: dict[str, float | None] | None) -> None:
    """Read by attributes, so that the agent needs no gymnasium."""
    found = entropy_limits(space)
    assert found == (
        None if limits is None else {key: pytest.approx(value) if value else value for key, value in limits.items()}
    )


def test_entropy_limits_of_real_gymnasium_spaces() -> None:
    """The attributes are gymnasium's."""
    spaces = pytest.importorskip("gymnasium.spaces")
    assert entropy_limits(spaces.Discrete(3)) == {"": math.log(3)}
    assert entropy_limits(spaces.MultiDiscrete([2, 2])) == {"0": math.log(2), "1": math.log(2), "": pytest.approx(math.log(4))}
    assert entropy_limits(spaces.MultiBinary(3)) == {"": pytest.approx(3 * math.log(2))}
    assert entropy_limits(spaces.Box(0, 1)) == {"": None}


def test_ppo_two_dimensional_minibatches_count_every_element() -> None:
    """[time, environments] as recurrent trainers pass them; a transposed partner is refused, not flattened."""
    shaped = reshaped(lambda tensor: tensor.reshape(2, 4))
    assert measured(shaped)["value.new"] == measured(batch())["value.new"]
    turned = {**shaped, "old_logp": shaped["old_logp"].reshape(4, 2)}
    assert measured(shaped, turned)["policy.kl.k3"] is Status.SHAPE


def test_ppo_after_a_known_minibatch_still_examines_a_different_one() -> None:
    """The short way is only for minibatches like the last one: another length, dtype, clip or argument goes the long way."""
    longer = reshaped(lambda tensor: torch.cat([tensor, tensor]))
    row = measured(batch(), batch(), longer, batch(clip=10.0), batch(values=None, returns=None), batch())
    assert row["policy.logratio"][0] == 7 * B
    assert row["value.new"][0] == 6 * B
    integer = batch(old_logp=torch.zeros(B, dtype=torch.int64))
    assert measured(batch(), batch(), integer)["policy.kl.k3"] is Status.DTYPE


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (torch.tensor(4.5), (2.0, 3.0, 4.5)),
        (4.5, (2.0, 3.0, 4.5)),
        (torch.tensor([4.5]), (2.0, 3.0, 4.5)),
        (torch.ones(B), Status.SHAPE),
        (torch.tensor(4), Status.DTYPE),
        (torch.tensor(1.5).to_sparse(), Status.DTYPE),
    ],
)
def test_ppo_loss_of_a_minibatch_like_the_last_one_is_examined(loss: object, expected: object) -> None:
    """The short way reads what is one number on the host, and leaves all else to the long one."""
    assert measured(batch(), batch(loss=loss))["loss.total"] == expected


def test_ppo_dtypes_are_measured_in_float64() -> None:
    """Half precision is summed without its rounding, float64 without loss."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        values = (torch.arange(4096) % 7).to(dtype)
        row = measured({"values": values, "returns": values + 1})
        assert row["value.new"][1] == pytest.approx(float(values.double().mean()), rel=1e-12)
        assert row["value.new.error"] == (4096.0, 1.0, 0.0)


def test_ppo_with_inference_tensors_and_inside_inference_mode_is_measured() -> None:
    """Evaluation code often runs so; our own buffers must not become inference tensors by it."""
    with monitoring() as (monitor, record):
        with torch.inference_mode():
            monitor.ppo(**{**reshaped(torch.clone), "loss": torch.tensor(1.5)})
        monitor.ppo(**batch())
        monitor.step()
        assert record.last["value.new"][0] == 2 * B
        assert record.last["loss.total"] == (2.0, 1.5, 0.0)


def test_ppo_leaves_gradients_and_graph_alone() -> None:
    """Nothing of ours is in the graph, and gradients are on again afterwards."""
    logp = torch.zeros(B, requires_grad=True)
    doubled = logp * 2
    measured(batch(new_logp=doubled, loss=doubled.sum()))
    assert torch.is_grad_enabled()
    doubled.sum().backward()
    assert logp.grad is not None


def test_ppo_below_normal_collects_nothing() -> None:
    """MINIMAL pays for host scalars only."""
    row = measured(batch(), level=Level.MINIMAL)
    assert row["policy.kl.k3"] is Status.LEVEL
    assert isinstance(row["sys.update_ms"], float)
