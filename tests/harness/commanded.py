"""What tests of control ask of a pipeline: which commands went out, what is stored, and a run of two ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts import messages as m
from harness.rows import hello

if TYPE_CHECKING:
    from gradwatch_daemon.records.commands import CommandRecord
    from harness.world import World

VERBS = ("checkpoint", "dump", "stop")


def told(world: World, peer: bytes = b"p") -> list[tuple[str, str, int]]:
    """The commands that went out to a peer."""
    return [(c.id, c.verb, c.not_before_update) for c in world.socket.of(m.Command, peer) if isinstance(c, m.Command)]


def kept(world: World, id_: str = "c1") -> CommandRecord:
    """As the store has it."""
    record = world.store.command("ant-ppo", id_)
    assert record is not None
    return record


def two_ranks(world: World) -> None:
    """Two processes of one run, on peers p and q."""
    world.greet(world=2, verbs=VERBS, launch_id="both")
    world.tick(hello(session="s2", rank=1, world=2, verbs=VERBS, launch_id="both"), peer=b"q")
