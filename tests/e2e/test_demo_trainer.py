"""The demo's trainer, in this process: what the agent reports is what the trainer itself recorded."""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_contracts.columns import RowFlag, Status
from harness.recording import open_monitor, read

if TYPE_CHECKING:
    from harness.recording import Record

ppo_cartpole = pytest.importorskip("gradwatch_agent.demo.ppo_cartpole")


_DEFAULTS = ppo_cartpole.parse_args([])
STEPS = float(_DEFAULTS.num_minibatches * _DEFAULTS.update_epochs)
"""Optimizer steps of an update."""


def trained(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[list[dict[str, Any]], Record, Exception | None]:
    """The trainer's own lines, the agent's record, and how it ended, as an exit hook would tell the agent."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    opened = []

    def watch(model: Any, optimizer: Any, **given: Any) -> Any:
        opened.append(open_monitor(modules=(model,), optimizers=(optimizer,), action_space=given["action_space"]))
        return opened[0][0]

    monkeypatch.setattr(ppo_cartpole, "watch", watch)
    # torch.compile, once used in this process, turns the library's check off.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
    output, ended = io.StringIO(), None
    try:
        ppo_cartpole.train(ppo_cartpole.parse_args(["--num-envs", "2", *arguments]), output)
    except ValueError as error:
        ended = error
    monitor, record = opened[0]
    monitor.close_with(ended, "exception")
    return [json.loads(line) for line in output.getvalue().splitlines()], record, ended


def test_trainer_record_and_agent_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, entropy, KL, ratios, gradient norms and episodes of every update."""
    lines, record, ended = trained(monkeypatch, "--updates", "4")
    assert ended is None
    assert [line["update"] for line in lines] == [row.update for row in record.rows] == [0, 1, 2, 3]
    for line, row in zip(lines, map(read, record.rows), strict=True):
        assert row["loss.total"][1] == pytest.approx(line["loss"], rel=1e-6)
        assert row["policy.entropy"][1] == pytest.approx(line["entropy"], rel=1e-6)
        assert row["policy.kl.k3"][1] == pytest.approx(line["approx_kl"], abs=1e-6)
        assert row["policy.ratio.max"] == pytest.approx(line["ratio_max"], rel=1e-6)
        assert row["grad.norm"][1] == pytest.approx(line["grad_norm"], rel=1e-6)
        assert row["policy.ratio.first_mb_dev"] < 1e-5
        assert row["opt.steps"] == STEPS
        assert row["policy.entropy.limit"] == math.log(2)
        if line["return_mean"] is None:
            assert row["episode.return"] is Status.UNDEFINED
        else:
            assert row["episode.return"][1] == pytest.approx(line["return_mean"])
    assert [row.env_steps for row in record.rows] == [line["env_steps"] for line in lines]


def test_trainer_with_a_nan_reward_dies_and_its_last_update_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment glitches once; `Categorical` kills the run in the same update."""
    lines, record, ended = trained(monkeypatch, "--updates", "4", "--fault", "nan", "--fault-update", "2")
    assert ended is not None
    assert [line["update"] for line in lines] == [0, 1]
    last = read(record.rows[2])
    assert (record.rows[2].update, record.rows[2].flags) == (2, RowFlag.PARTIAL)
    assert (last["reward.step.nonfinite"], last["obs.input.nonfinite"]) == (1.0, 0.0)
    # The minibatch that drew the sample; its gradient is the first that is not finite, and its step spoils the weights.
    assert last["loss.total.nonfinite_mb"] == last["grad.norm.nonfinite_mb"] < STEPS
    assert last["param.nonfinite"] > 0
    assert last["episode.return"] is Status.INCOMPLETE
    assert [(kind, update) for kind, update, _, _ in record.events] == [("nonfinite_parameter", 2), ("exception", 2)]


def test_trainer_with_a_leaping_policy_is_the_healthy_one_before_it_and_over_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is there when it should be and at no other time."""
    many = ("--updates", "6", "--num-envs", "16")
    healthy, _, _ = trained(monkeypatch, *many)
    lines, _, _ = trained(monkeypatch, *many, "--fault", "ratio", "--fault-update", "2")
    assert lines[:2] == healthy[:2]
    assert [line["ratio_max"] > 5 for line in lines[:4]] == [False, False, True, True]
    assert lines[5]["ratio_max"] < 5
