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
from gradwatch_agent.collect.pile import Pile
from gradwatch_agent.collect.policy import PolicyCollector
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")

ORDINARY = ("zero", "ppo", "backward", "clip", "step")
WORDS = (*ORDINARY, "keep", "limit", "broken", "longer", "critic", "noloss", "all", "anneal")


def told(words: list[list[str]], level: Level) -> list[object]:
    """What a trainer with two optimizers tells that makes these calls, but for times and memory: columns, then tables."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    actor, critic = nn.Linear(3, 2), nn.Linear(3, 1)
    optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.1) for model in (actor, critic))
    both = [*actor.parameters(), *critic.parameters()]
    with monitoring(modules=(actor, critic), optimizers=optimizers, level=level) as (monitor, record):
        logp = torch.randn(9, 4, generator=generator)

        def minibatch(samples: int, **given: Any) -> None:
            new, old = torch.randn(2, samples, generator=generator)
            given |= {"new_logp": new, "old_logp": old, "values": new, "returns": old, "actions": torch.arange(samples)}
            monitor.ppo(entropy=new.abs(), **{"clip": 0.2, **given})

        def backward(factor: float = 1.0) -> None:
            (actor(torch.ones(2, 3)).sum() + factor * critic(logp[:2, :3]).square().sum()).backward()

        trainer = {
            "zero": lambda: [optimizer.zero_grad() for optimizer in optimizers],
            "keep": lambda: [optimizer.zero_grad(set_to_none=False) for optimizer in optimizers],
            "ppo": lambda: minibatch(8, loss=torch.randn((), generator=generator)),
            "noloss": lambda: minibatch(8),
            "anneal": lambda: minibatch(8, clip=0.1, loss=1.0),
            "longer": lambda: minibatch(9, loss=1.0),
            "backward": backward,
            "broken": lambda: backward(float("nan")),
            "clip": lambda: clip_grad_norm_(actor.parameters(), 0.5),
            "critic": lambda: clip_grad_norm_(critic.parameters(), 0.5),
            "all": lambda: clip_grad_norm_(both, 0.5),
            "limit": lambda: clip_grad_norm_(actor.parameters(), 0.7),
            "step": lambda: [optimizer.step() for optimizer in optimizers],
        }
        for update in words * 2:
            for word in update:
                trainer[word]()
            monitor.step()
        columns = [(name, value) for row in record.rows for name, value in read(row).items() if not name.startswith("sys.")]
        return [*columns, *record.tables]


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
    level = (Level.NORMAL, Level.DEBUG)[seed % 2]
    short = told(words, level)
    monkeypatch.setattr(PolicyCollector, "repeat", lambda *given: False)
    monkeypatch.setattr(Pile, "repeat", lambda *given: False)
    monkeypatch.setattr(Usual, "fits", lambda *given: False)
    monkeypatch.setattr(GradientCollector, "asks", property(lambda self: True, lambda self, asks: None), raising=False)
    assert [repr(said) for said in short] == [repr(said) for said in told(words, level)]


def test_annealed_clip_is_the_bound_of_its_own_minibatches() -> None:
    """A schedule gives each update its own, or each minibatch: samples are counted against the one they were given with."""
    new, old = torch.linspace(-0.3, 0.3, 64), torch.zeros(64)
    outside = {clip: int(((new.exp() - 1.0).abs() > clip).sum()) for clip in (0.2, 0.1)}
    assert outside[0.1] > outside[0.2] > 0
    with monitoring() as (monitor, record):
        for clips in ((0.2, 0.2), (0.1, 0.1), (0.2, 0.1, 0.2)):
            for clip in clips:
                monitor.ppo(new_logp=new, old_logp=old, clip=clip)
            monitor.step()
            assert record.last["policy.clipped"] == sum(outside[clip] for clip in clips)


def test_clip_that_is_a_tensor_is_refused_in_every_update_and_never_compared() -> None:
    """To compare two tensors is to wait for their device; on this one it cannot be done at all."""
    first, second = torch.empty((), device="meta"), torch.empty((), device="meta")
    with monitoring() as (monitor, record):
        for clip in (first, first, second):
            for _ in range(2):
                monitor.ppo(new_logp=torch.zeros(4), old_logp=torch.zeros(4), clip=clip)
            monitor.step()
            assert (record.last["policy.clipped"], record.last["policy.ratio"][0]) == (Status.DTYPE, 8.0)
