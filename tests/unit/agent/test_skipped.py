"""Steps that did not happen, and the ways of training that must not look like them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring, read

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("strict")

Trainer = dict[str, Any]


def trained(body: Callable[[Trainer], None], **given: Any) -> Any:
    """`opt.skipped` of an update that runs `body`."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,), **given) as (monitor, record):
        trainer = {
            "model": model,
            "optimizer": optimizer,
            "monitor": monitor,
            "zero": optimizer.zero_grad,
            "ppo": monitor.ppo,
            "backward": lambda: model(torch.ones(3, 2)).sum().backward(),
            "clip": lambda: clip_grad_norm_(model.parameters(), 0.5),
            "step": optimizer.step,
        }
        body(trainer)
        monitor.step()
        return record.last["opt.skipped"]


def calls(text: str) -> Callable[[Trainer], None]:
    """A trainer that makes these calls in turn."""

    def body(trainer: Trainer) -> None:
        for name in text.split():
            trainer[name]()

    return body


ORDINARY = "ppo zero backward clip step"
PLAIN = "ppo zero backward step"


@pytest.mark.parametrize(
    ("text", "skipped"),
    [
        (f"{ORDINARY} ppo zero backward clip {ORDINARY}", 1.0),
        (f"{ORDINARY} ppo zero backward clip", 1.0),
        ("ppo zero backward clip ppo zero backward clip ppo zero backward clip", 3.0),
        ("zero ppo backward clip zero ppo backward clip step", 1.0),
        (f"{PLAIN} ppo zero backward {PLAIN}", 1.0),
        (f"{PLAIN} ppo zero backward", 1.0),
        ("ppo zero backward ppo zero backward ppo zero backward", 3.0),
    ],
)
def test_skipped_step_is_counted(text: str, skipped: float) -> None:
    """With clipping and without, in the middle and at the end."""
    assert trained(calls(text)) == skipped


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{ORDINARY} {ORDINARY}",
        f"{PLAIN} {PLAIN}",
        "zero ppo backward clip step zero ppo backward clip step",
        "ppo backward step zero ppo backward step zero",
        "zero ppo backward ppo backward ppo backward clip step zero",
        "zero ppo backward clip ppo backward clip step",
        "zero ppo backward ppo backward ppo backward step ppo zero backward ppo backward step",
        "ppo ppo ppo zero backward step",
        f"{ORDINARY} ppo",
        f"{PLAIN} ppo",
        f"{PLAIN} zero ppo",
    ],
)
def test_trainer_that_uses_every_gradient_has_no_skipped_step(text: str) -> None:
    """Accumulation, with one clip or one each; several calls of ppo before one backward; leaving early on a large KL."""
    assert trained(calls(text)) == 0.0


def test_skipped_step_of_an_earlier_update_is_not_counted_again() -> None:
    """Each update starts at zero."""

    def body(trainer: Trainer) -> None:
        calls("ppo zero backward clip")(trainer)
        trainer["monitor"].step()
        calls(ORDINARY)(trainer)

    assert trained(body) == 0.0


def test_skipped_step_of_a_scaler_is_counted() -> None:
    """What mixed precision does silently when a gradient overflows."""

    def body(trainer: Trainer) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        for value in (1.0, float("inf"), 1.0):
            calls("ppo zero")(trainer)
            scaler.scale(trainer["model"](torch.full((3, 2), value)).sum()).backward()
            scaler.unscale_(trainer["optimizer"])
            trainer["clip"]()
            scaler.step(trainer["optimizer"])
            scaler.update()

    assert trained(body) == 1.0


def test_skipped_steps_of_two_optimizers_clipped_apart_are_none() -> None:
    """Actor and critic: two clips, then two steps; and the critic's step alone leaves the actor's gradient unused."""
    actor, critic = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.1) for model in (actor, critic))
    with monitoring(modules=(actor, critic), optimizers=optimizers) as (monitor, record):
        for stepped in (optimizers, optimizers[1:]):
            for model in (actor, critic):
                model.zero_grad()
                model(torch.ones(1, 2)).sum().backward()
                clip_grad_norm_(model.parameters(), 0.5)
            for optimizer in stepped:
                optimizer.step()
            monitor.step()
        assert [read(row)["opt.skipped"] for row in record.rows] == [0.0, 1.0]


def kept(text: str, updates: int = 1) -> object:
    """`opt.skipped` of the last update of a trainer whose `zero` writes zeros instead of letting gradients go."""

    def body(trainer: Trainer) -> None:
        trainer["zero"] = lambda: trainer["optimizer"].zero_grad(set_to_none=False)
        for update in range(updates):
            calls(text)(trainer)
            if update < updates - 1:
                trainer["monitor"].step()

    return trained(body)


@pytest.mark.parametrize("ordinary", [ORDINARY, PLAIN])
def test_skipped_steps_of_kept_gradients_are_not_claimed_to_be_none(ordinary: str) -> None:
    """`zero_grad(set_to_none=False)`: what it drops looks accumulated, so 0 would be a guess. Also in the next update."""
    dropped = ordinary.removesuffix(" step")
    assert kept(f"{ordinary} {dropped} {ordinary}") is Status.UNDEFINED
    assert kept(ordinary, updates=2) is Status.UNDEFINED


@pytest.mark.parametrize("ordinary", [ORDINARY, PLAIN])
def test_skipped_step_of_kept_gradients_left_at_the_end_is_counted(ordinary: str) -> None:
    """That one is seen, whatever `zero_grad` does."""
    assert kept(f"{ordinary} {ordinary} {ORDINARY.removesuffix(' step')}") == 1.0


def test_skipped_steps_of_two_optimizers_that_step_in_turn_are_none() -> None:
    """The critic steps twice as often and meets the actor's used gradient each time: that is no sign of a kept one."""
    actor, critic = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.1) for model in (actor, critic))
    with monitoring(modules=(actor, critic), optimizers=optimizers) as (monitor, record):
        for minibatch in range(4):
            monitor.ppo()
            for model, optimizer in list(zip((actor, critic), optimizers, strict=True))[minibatch % 2 :]:
                model.zero_grad()
                model(torch.ones(1, 2)).sum().backward()
                optimizer.step()
        monitor.step()
        assert record.last["opt.skipped"] == 0.0


def test_skipped_steps_are_not_known_without_an_optimizer_or_below_normal() -> None:
    """Nothing is claimed."""
    with monitoring(modules=(nn.Linear(1, 1),)) as (monitor, record):
        monitor.step()
        assert record.last["opt.skipped"] is Status.NOT_CALLED
    assert trained(calls(ORDINARY), level=Level.MINIMAL) is Status.LEVEL
