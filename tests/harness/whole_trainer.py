"""A trainer that uses every call of the agent, and the rows it gave: which columns were measured, and why others not.

Tiny, recurrent, with two heads, on the CPU, without a daemon. Of two updates the second has a NaN in everything it passes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_agent.arguments import STAGED_BYTES, Settings
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.exits import Exits
from gradwatch_agent.monitor import Monitor
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.row import Row
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from gradwatch_agent.inbox import Draft
    from gradwatch_contracts.control import Level

BATCH, HIDDEN = 8, 4


class Rows(Outbox):
    """An outbox that remembers the updates it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.drafts: list[Draft] = []

    def put_draft(self, draft: Draft) -> None:
        """Keep it."""
        self.drafts.append(draft)

    @property
    def rows(self) -> list[Row]:
        """Made now, once all is over, as a link thread that came late would."""
        return [record for draft in self.drafts for record in draft.make() if isinstance(record, Row)]


class Policy(torch.nn.Module):
    """An LSTM, an actor and a critic."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(3, HIDDEN)
        self.actor = torch.nn.Linear(HIDDEN, 1)
        self.critic = torch.nn.Linear(HIDDEN, 1)


def train(level: Level) -> list[dict[str, Status]]:
    """Two updates at a level, of discrete actions and of continuous ones: of each, column name → status (the best one over its
    subjects)."""
    return [row for space in (Discrete(), Box()) for row in train_in(space, level)]


def train_in(space: Discrete | Box, level: Level) -> list[dict[str, Status]]:
    """The updates of one action space."""
    torch.manual_seed(0)
    model, rows = Policy(), Rows()
    heads = [*model.actor.parameters(), *model.critic.parameters()]
    optimizer = torch.optim.Adam([{"params": list(model.lstm.parameters())}, {"params": heads}], lr=1e-3)
    settings = Settings(
        run="whole",
        modules=(model,),
        optimizers=(optimizer,),
        group="",
        tags={},
        config={},
        updates_total=2,
        update_start=0,
        action_space=space,
        level=level,
        sync=True,
        off_policy=False,
        max_staged_bytes=STAGED_BYTES,
        probe=torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()),
    )
    monitor = Monitor(settings, rows, DesiredState(level), None, Exits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradwatch_agent.collect.measurement.allocated_bytes", lambda devices: 1 << 20)  # there is no GPU
        patch.setattr("gradwatch_agent.collect.features.START_UPDATES", 1)
        monitor.open()
        for poison in (0.0, math.nan):
            _update(monitor, model, optimizer, poison, space)
        monitor.close()
    return [_statuses(row) for row in rows.rows]


class Discrete:
    """A gymnasium space of five actions, as the agent looks at one."""

    n = 5

    def sample(self) -> torch.Tensor:
        """Actions of a rollout."""
        return torch.randint(5, (BATCH,))


class Box:
    """One of two bounded numbers."""

    low, high = (-1.0, -1.0), (1.0, 1.0)

    def sample(self) -> torch.Tensor:
        """Actions of a rollout."""
        return torch.randn(BATCH, 2)


def _update(monitor: Any, model: Policy, optimizer: torch.optim.Optimizer, poison: float, space: Discrete | Box) -> None:
    def given() -> torch.Tensor:
        values = torch.randn(BATCH)
        values[0] += poison
        return values

    with monitor.phase("rollout"):
        monitor.rollout(
            rewards=given(),
            values=given(),
            returns=given(),
            advantages=given(),
            observations=torch.cat([given().reshape(BATCH, 1), torch.randn(BATCH, 2)], 1),
            actions=space.sample(),
            normalizer=(torch.zeros(3), torch.ones(3)),
            obs_clip=1.0,
        )
    for _ in range(2):
        out, (h, c) = model.lstm(given().reshape(1, BATCH, 1).expand(1, BATCH, 3).contiguous())
        logp, value = model.actor(out).reshape(BATCH), model.critic(out).reshape(BATCH)
        loss = (logp.square() + value.square()).mean()
        monitor.ppo(
            new_logp=logp,
            old_logp=logp.detach() + 0.1 * given(),
            entropy=given().abs(),
            values=value,
            returns=given(),
            advantages=given(),
            clip=0.2,
            loss=loss,
            std=torch.rand(BATCH, 2),
        )
        monitor.recurrent(h, c, reset=torch.zeros(BATCH))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    monitor.log({"charts/x": 1.0})
    monitor.step(env_steps=BATCH, episode_returns=[1.0, 2.0], episode_lengths=[5, 7], truncated=[False, True], eval_return=1.5)


def _statuses(row: Row) -> dict[str, Status]:
    found: dict[str, Status] = {}
    for column, code in zip(row.schema.columns, row.status, strict=True):
        found[column.name] = min(found.get(column.name, Status(code)), Status(code))
    return found
