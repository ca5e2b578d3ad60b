"""The staging area: one copy a minibatch, one block a shape, bounded memory, nothing lost silently."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradwatch_agent.collect import staging as staging_module
from gradwatch_agent.collect.staging import ROWS_START, Channel, Layout, Staging
from gradwatch_agent.device.plan import Plan
from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import Source
from harness.recording import monitoring

pytestmark = pytest.mark.usefixtures("strict")

LAYOUT = Layout(Plan(2), (Channel.of("value.new"), Channel.of("adv.used")), Source.UPDATE)
MEGA = 1024 * 1024


def stage(staging: Staging, count: int, samples: int = 4, dtype: torch.dtype = torch.float32) -> None:
    """Stage `count` minibatches."""
    for minibatch in range(count):
        tensor = torch.full((samples,), float(minibatch), dtype=dtype)
        staging.stage(LAYOUT, [tensor, tensor], dtype, minibatch, before=False)


def rows_of(parts: list[Any]) -> list[int]:
    """Rows of every reduced block."""
    return [len(segment.minibatches) for _, segment in parts]


def test_staging_more_rows_than_expected_grows_and_then_fits() -> None:
    """The first update may take several blocks; the next one knows how many rows it needs."""
    staging = Staging(MEGA)
    stage(staging, 3 * ROWS_START + 2)
    assert rows_of(staging.finish()) == [ROWS_START, 2 * ROWS_START, 2]
    stage(staging, 3 * ROWS_START + 2)
    assert rows_of(staging.finish()) == [3 * ROWS_START + 2]


def test_staging_steady_state_allocates_nothing() -> None:
    """The same buffer serves every update."""
    staging = Staging(MEGA)
    stage(staging, 8)
    staging.finish()
    held = staging.bytes_staged
    for _ in range(3):
        stage(staging, 8)
        staging.finish()
    assert staging.bytes_staged == held


def test_staging_never_holds_more_than_its_bound() -> None:
    """Whatever comes: many rows, many shapes, two dtypes."""
    staging = Staging(64 * 1024)
    for samples in (1, 3, 50, 400, 1000, 7):
        for dtype in (torch.float32, torch.float64):
            stage(staging, 70, samples, dtype)
            assert staging.bytes_staged <= staging.staged_max
    parts = staging.finish()
    seen = sum(len(segment.minibatches) * segment.samples for _, segment in parts)
    assert seen == 2 * 70 * (1 + 3 + 50 + 400 + 1000 + 7)
    assert not staging.overflowed
    for _ in range(2):
        staging.finish()
    assert staging.bytes_staged == 0


def test_staging_many_ragged_shapes_keeps_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer with minibatches of any length makes a block of each, up to a bound."""
    monkeypatch.setattr(staging_module, "OPEN_BLOCKS_MAX", 8)
    staging = Staging(MEGA)
    for samples in range(1, 60):
        stage(staging, 2, samples)
    assert sum(rows_of(staging.finish())) == 2 * 59


def test_staging_beyond_the_numbers_of_an_update_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that never calls `step` fills nothing, and the row says that it is not the whole update."""
    monkeypatch.setattr(staging_module, "NUMBERS_MAX", 400)
    with monitoring(max_staged_bytes=64 * 1024) as (monitor, record):
        for _ in range(3000):
            monitor.ppo(values=torch.zeros(4))
        monitor.step()
        assert record.last["value.new"] is Status.INCOMPLETE
        monitor.ppo(values=torch.zeros(4))
        monitor.step()
        assert record.last["value.new"] == (4.0, 0.0, 0.0)


def test_staging_of_unequal_tensors_stages_nothing() -> None:
    """The short way relies on `stack` to refuse them; the row it wrote to is the next one's."""
    with monitoring() as (monitor, record):
        monitor.ppo(values=torch.ones(4), advantages=torch.ones(4))
        monitor.ppo(values=torch.ones(4), advantages=torch.ones(5))
        monitor.ppo(values=torch.ones(4), advantages=torch.ones(4))
        monitor.step()
        assert record.last["value.new"] == (12.0, 1.0, 0.0)
        assert record.last["adv.used"] is Status.SHAPE


def test_staging_block_that_was_reduced_has_no_room_for_whoever_kept_it() -> None:
    """Another shape that is reduced first gives the buffer away."""
    staging = Staging(MEGA)
    key = (LAYOUT, 4, torch.float32, torch.device("cpu"))
    block = staging.room(key)
    assert block is not None
    assert staging.room(key) is block
    staging.finish()
    assert len(block.rows) == 0
    assert staging.room(key) is not block
