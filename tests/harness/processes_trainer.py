"""A trainer that starts processes while it is watched: `python processes_trainer.py ENDPOINT METHOD…`.

A forked one, DataLoader workers, one of `multiprocessing` for each METHOD. Each child uses what it inherited of us; the parent
trains an update after each. Exit code 0 when every child was as expected.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import time
import warnings
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from gradwatch_agent import watch

WATCHED: list[Any] = []
"""The open monitor: children that are forked inherit it."""


def use_inherited() -> int:
    """What a worker may do by mistake: report, and close. Returns how many monitors it inherited."""
    for mon in WATCHED:
        assert not mon.active
        mon.ppo(loss=1.0)
        mon.log(a=1.0)
        mon.step(env_steps=666)
        mon.close()
    gc.collect()
    return len(WATCHED)


class Samples(Dataset[torch.Tensor]):
    """Says in each sample whether it was made by a worker that inherited us."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(use_inherited())


def in_child(network: torch.nn.Module, expected: int, answers: Any) -> None:
    """Run by a process of `multiprocessing`."""
    answers.put((use_inherited() == expected, float(network(torch.ones(1, 2)).detach())))


def main() -> None:
    """Train an update, and one after each kind of child."""
    warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads, from 3.12 on: what trainers do
    torch.set_num_threads(1)
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    mon = watch(network, optimizer, run="ends", endpoint=sys.argv[1])
    WATCHED.append(mon)
    while mon._link is None or mon._link.state != "live":
        time.sleep(0.01)

    def update() -> None:
        loss = network(torch.ones(4, 2)).mean()
        mon.ppo(loss=loss)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        mon.step()

    update()
    child = os.fork()
    if child == 0:
        sys.exit(7 if use_inherited() == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    update()
    for batch in DataLoader(Samples(), batch_size=4, num_workers=2):
        assert batch.tolist() == [1] * 4
    update()
    for method in sys.argv[2:]:
        inherited = int(method == "fork")  # a spawned one begins afresh
        context: Any = multiprocessing.get_context(method)
        answers = context.Queue()
        process = context.Process(target=in_child, args=(network, inherited, answers))
        process.start()
        good, output = answers.get(timeout=60)
        process.join(60)
        assert (process.exitcode, good) == (0, True)
        assert output == float(network(torch.ones(1, 2)).detach())
        update()
    mon.close()
    assert mon._outbox.pending == 0


if __name__ == "__main__":
    main()
