"""One copy to the host per update, and no value read on the way: counted over whole updates, agent on minus agent off."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradwatch_agent import watch
from gradwatch_agent.collect.policy import PolicyCollector
from gradwatch_agent.device.transfer import Transfer
from harness.ppo_run import train

if TYPE_CHECKING:
    from pathlib import Path

UPDATES = 2
COPIES = ("aten.copy_", "aten._to_copy", "aten._foreach_copy_", "aten._copy_from")
READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.is_nonzero", "aten.masked_select")
"""On the CPU a copy to the host looks like any other, so the agent makes no other copy at all: it stages with `stack` and
casts by multiplying. The reads are what would wait for a device."""


class Counted(TorchDispatchMode):
    """Operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func).rsplit(".", 1)[0]] += 1
        return func(*args, **(kwargs or {}))


def extra_operators(tmp_path: Path, level: str, clip: bool = True) -> Counter[str]:
    """What the agent adds to `UPDATES` updates; the very first update, in which it allocates, counts as well."""

    def watched(model: Any, optimizer: Any) -> Any:
        return watch(model, optimizer, run="copies", endpoint=f"ipc://{tmp_path}/none", level=level)

    with Counted() as on:
        train(UPDATES, watched, clip)
    off = operators_without_agent(clip)
    assert not off - on.counts
    return on.counts - off


@cache
def operators_without_agent(clip: bool) -> Counter[str]:
    """The trainer's own operators."""
    with Counted() as off:
        train(UPDATES, None, clip)
    return off.counts


def copies(counts: Counter[str]) -> int:
    """Copies of any kind."""
    return sum(counts[name] for name in COPIES)


def reads(counts: Counter[str]) -> int:
    """Operators that bring a value to Python."""
    return sum(counts[name] for name in READS)


@pytest.fixture(autouse=True)
def host_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies on the host is copied as if from a device, so that the copies of one can be counted here."""
    monkeypatch.setattr(Transfer, "is_here", lambda self, vector: False)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own errors are raised; closing does not wait for a daemon that is not there."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", 0.01)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("level", ["normal", "debug"])
def test_agent_adds_one_copy_per_update_and_reads_no_value(tmp_path: Path, level: str, clip: bool) -> None:
    """At every level that measures on the device, whether the trainer clips or not."""
    counts = extra_operators(tmp_path, level, clip)
    assert (copies(counts), reads(counts)) == (UPDATES, 0), counts


def test_agent_copies_nothing_that_lies_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model on the CPU nothing has to be brought anywhere."""
    monkeypatch.undo()
    counts = extra_operators(tmp_path, "normal")
    assert (copies(counts), reads(counts)) == (0, 0), counts


def test_agent_operators_rise_with_the_level(tmp_path: Path) -> None:
    """OFF touches no device at all."""
    totals = {level: sum(extra_operators(tmp_path, level).values()) for level in ("off", "normal", "debug")}
    assert totals["off"] == 0
    assert totals["off"] < totals["normal"] < totals["debug"]


@pytest.mark.parametrize("plant", ["item", "float", "cpu copy"])
def test_planted_transfer_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: str) -> None:
    """The counts above can fail: one `.item()` an update, a `float()`, a second copy."""
    honest = PolicyCollector.finish
    number, slot = torch.zeros(()), torch.empty(())

    def planted(self: PolicyCollector, *given: Any) -> Any:
        {"item": number.item, "float": lambda: float(number), "cpu copy": lambda: slot.copy_(number)}[plant]()
        return honest(self, *given)

    monkeypatch.setattr(PolicyCollector, "finish", planted)
    counts = extra_operators(tmp_path, "normal")
    assert (copies(counts), reads(counts)) != (UPDATES, 0)
