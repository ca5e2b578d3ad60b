"""DDP and both FSDP over gloo in two processes: no collective of ours, the same bits, and each rank's row right or silent.

What a rank cannot know alone, the norms of sharded tensors, must say so. What the daemon makes of all ranks is in
`test_ranks_together.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import ranks_trainer

WORLD = 2
TOTAL = ("grad.norm", "grad.norm.max", "grad.norm.nonfinite", "grad.clipped", "grad.clip_limit")
"""What clipping knows of all gradients together."""

SINGLE = (
    "grad.tensors",
    "grad.vanishing",
    "grad.tensor_norm.max",
    "param.norm",
    "param.nonfinite",
    "opt.update_ratio",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank said, by kind."""
    store = tmp_path_factory.mktemp("ranks") / "store"
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    common = {**os.environ, "PYTHONPATH": path, "GRADWATCH_STRICT": "1", "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": str(WORLD)}
    command = [sys.executable, "-W", "ignore", ranks_trainer.__file__, str(store)]
    processes = [subprocess.Popen(command, env={**common, "RANK": str(rank)}, **pipes) for rank in range(WORLD)]
    found = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr
        found.append(json.loads(stdout.splitlines()[-1]))
    return found


@pytest.fixture(params=ranks_trainer.KINDS)
def ranks(request: pytest.FixtureRequest, told: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """One kind, and what each rank said of it."""
    return request.param, [rank[request.param] for rank in told]


def test_ranks_take_no_collective_for_us_and_train_the_same_bits(ranks: tuple[str, list[dict[str, Any]]]) -> None:
    """One more collective on one rank, at another level or without us, and the others would wait for ever."""
    for rank in ranks[1]:
        without, with_us = rank["collectives"]
        assert without == with_us > 0
        assert rank["same"]


def test_rows_of_each_rank_are_those_of_its_own_minibatches(ranks: tuple[str, list[dict[str, Any]]]) -> None:
    """What is passed is local: the ranks differ."""
    rows = [rank["rows"] for rank in ranks[1]]
    assert [len(of_rank) for of_rank in rows] == [ranks_trainer.UPDATES] * WORLD
    assert all(row["value.new"][0] == 16.0 for of_rank in rows for row in of_rank)
    assert rows[0][0]["value.new"][1] != rows[1][0]["value.new"][1]
    for number, of_rank in enumerate(rows):
        seen = [ranks_trainer.batch(number, 0, minibatch)[:, 0] for minibatch in range(ranks_trainer.MINIBATCHES)]
        mean = sum(float(values.double().sum()) for values in seen) / 16
        assert of_rank[0]["value.new"][1] == pytest.approx(mean, rel=1e-9)


def test_gradient_norms_of_ranks_are_the_full_result_or_not_told(ranks: tuple[str, list[dict[str, Any]]]) -> None:
    """DDP: every rank has the norm of the whole. FSDP2: torch's clipping has, each tensor is a share. The first FSDP clips
    where nobody sees it, and its shares look like whole tensors."""
    kind, told = ranks
    for rank in told:
        full = rank["full"]
        assert rank["clipped"] == pytest.approx(full["norms"], rel=1e-4)
        for update, row in enumerate(rank["rows"]):
            assert row["opt.steps"] == 2.0
            if kind != "ddp":
                assert {row[name] for name in SINGLE} == {"DTYPE"}
            if kind == "fsdp1":
                assert {row[name] for name in (*TOTAL, "opt.adam.rms")} == {"DTYPE"}
                continue
            of_update = full["norms"][2 * update : 2 * update + 2]
            assert row["grad.norm"][:2] == [2.0, pytest.approx(sum(of_update) / 2, rel=1e-4)]
            assert row["grad.norm.max"] == pytest.approx(max(of_update), rel=1e-4)
            assert [row[name] for name in TOTAL[2:]] == [0.0, 2.0, ranks_trainer.MAX_NORM]
            if kind == "ddp":
                assert row["param.norm"] == pytest.approx(full["weights"][update], rel=1e-4)
