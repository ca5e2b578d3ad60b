"""Calls like the ones before them go a short way, which must tell what the long way tells: any order of a trainer's calls."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from gradwatch_agent.collect.clips import Usual
from gradwatch_agent.collect.gradients import GradientCollector
from gradwatch_agent.collect.policy import PolicyCollector
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")

ORDINARY = ("zero", "ppo", "backward", "clip", "step")
WORDS = (*ORDINARY, "keep", "limit", "broken", "longer", "critic", "noloss", "all")


def rows(words: list[list[str]], updates: int = 2) -> list[dict[str, Any]]:
    """What a trainer with two optimizers measures that makes these calls, but for times and memory."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    actor, critic = nn.Linear(3, 2), nn.Linear(3, 1)
    optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.1) for model in (actor, critic))
    both = [*actor.parameters(), *critic.parameters()]
    with monitoring(modules=(actor, critic), optimizers=optimizers) as (monitor, record):
        logp = torch.randn(9, 4, generator=generator)

        def minibatch(samples: int, **given: Any) -> None:
            new, old = torch.randn(2, samples, generator=generator)
            monitor.ppo(new_logp=new, old_logp=old, entropy=new.abs(), values=new, returns=old, clip=0.2, **given)

        def backward(factor: float = 1.0) -> None:
            (actor(torch.ones(2, 3)).sum() + factor * critic(logp[:2, :3]).square().sum()).backward()

        trainer = {
            "zero": lambda: [optimizer.zero_grad() for optimizer in optimizers],
            "keep": lambda: [optimizer.zero_grad(set_to_none=False) for optimizer in optimizers],
            "ppo": lambda: minibatch(8, loss=torch.randn((), generator=generator)),
            "noloss": lambda: minibatch(8),
            "longer": lambda: minibatch(9, loss=1.0),
            "backward": backward,
            "broken": lambda: backward(float("nan")),
            "clip": lambda: clip_grad_norm_(actor.parameters(), 0.5),
            "critic": lambda: clip_grad_norm_(critic.parameters(), 0.5),
            "all": lambda: clip_grad_norm_(both, 0.5),
            "limit": lambda: clip_grad_norm_(actor.parameters(), 0.7),
            "step": lambda: [optimizer.step() for optimizer in optimizers],
        }
        for update in words * updates:
            for word in update:
                trainer[word]()
            monitor.step()
        return [{name: value for name, value in read(row).items() if not name.startswith("sys.")} for row in record.rows]


@pytest.mark.parametrize("seed", range(16))
def test_short_ways_tell_what_the_long_ways_tell(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Ordinary minibatches with other calls thrown in, some of them many times."""
    dice = random.Random(seed)
    words = []
    for _ in range(2):
        update = list(ORDINARY) * dice.randrange(2, 6)
        for _ in range(dice.randrange(5)):
            update.insert(dice.randrange(len(update)), dice.choice(WORDS))
        words.append(update)
    short = rows(words)
    monkeypatch.setattr(PolicyCollector, "repeat", lambda *given: False)
    monkeypatch.setattr(Usual, "fits", lambda *given: False)
    monkeypatch.setattr(GradientCollector, "asks", property(lambda self: True, lambda self, asks: None), raising=False)
    long = rows(words)
    for quick, slow in zip(short, long, strict=True):
        assert {name: repr(value) for name, value in quick.items()} == {name: repr(value) for name, value in slow.items()}
