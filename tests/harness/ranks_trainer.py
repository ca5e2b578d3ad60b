"""One rank of a DDP and two FSDP trainings with gloo, each without us and with us: `python ranks_trainer.py STORE_FILE`.

RANK and WORLD_SIZE are in the environment. Prints JSON by kind: how many collectives each training took, whether parameters are
the same bits, and the rows with statuses by name.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring, read

KINDS = ("ddp", "fsdp2", "fsdp1")
UPDATES, MINIBATCHES, MAX_NORM = 2, 2, 0.05


def batch(rank: int, update: int, minibatch: int) -> torch.Tensor:
    """What a rank trains on, known to every rank."""
    generator = torch.Generator().manual_seed(1000 * rank + 10 * update + minibatch)
    return torch.randn(8, 4, generator=generator)


def loss_of(model: Any, obs: torch.Tensor, mon: Any = None) -> torch.Tensor:
    """The loss of one minibatch; told to us with what it is made of."""
    logp = torch.log_softmax(model(obs), -1)[:, 0]
    loss = logp.mean()
    if mon:
        mon.ppo(new_logp=logp, old_logp=logp.detach(), values=obs[:, 0], loss=loss, clip=0.2)
    return loss


def plain() -> nn.Module:
    """The model every rank begins with."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def spread(kind: str) -> Any:
    """The model of all ranks."""
    model = plain()
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "fsdp1":
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model


def train(model: Any, optimizer: torch.optim.Optimizer, mon: Any) -> list[float]:
    """Train; return the total norms as `clip_grad_norm_` says them."""
    norms = []
    for update in range(UPDATES):
        for minibatch in range(MINIBATCHES):
            optimizer.zero_grad()
            torch.autograd.backward(loss_of(model, batch(dist.get_rank(), update, minibatch), mon))
            if isinstance(model, FullyShardedDataParallel):
                total: Any = model.clip_grad_norm_(MAX_NORM)
            else:
                total = nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            norms.append(float(total.full_tensor() if hasattr(total, "full_tensor") else total))
            optimizer.step()
        if mon:
            mon.step()
            assert not mon.should_stop
    return norms


def whole(model: Any) -> list[Any]:
    """All parameters, gathered."""
    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model):
            return [p.detach().tolist() for p in model.parameters()]
    return [(p.full_tensor() if hasattr(p, "full_tensor") else p).detach().tolist() for p in model.parameters()]


def reference() -> dict[str, list[float]]:
    """The full-tensor result: one process that trains on the batches of all ranks, in float64."""
    model = plain().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms, weights = [], []
    for update in range(UPDATES):
        for minibatch in range(MINIBATCHES):
            optimizer.zero_grad()
            for rank in range(dist.get_world_size()):
                obs = batch(rank, update, minibatch).double()
                torch.autograd.backward(loss_of(model, obs) / dist.get_world_size())
            norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)))
            optimizer.step()
        weights.append(float(torch.stack([p.detach().norm() for p in model.parameters()]).norm()))
    return {"norms": norms, "weights": weights}


def compare(kind: str) -> dict[str, Any]:
    """Train twice, and say what was different and what was told."""
    group: Any = dist.distributed_c10d._get_default_group()
    taken, ends, rows, clipped = [], [], [], []
    for watched in (False, True):
        model = spread(kind)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = group._get_sequence_number_for_group()
        if watched:
            with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
                clipped = train(model, optimizer, monitor)
                rows = [read(row) for row in record.rows]
                assert record.events == []
        else:
            train(model, optimizer, None)
        taken.append(group._get_sequence_number_for_group() - before)
        ends.append(whole(model))
    told = [{name: value.name if isinstance(value, Status) else value for name, value in row.items()} for row in rows]
    return {"collectives": taken, "same": ends[0] == ends[1], "rows": told, "clipped": clipped, "full": reference()}


def main() -> None:
    """Every kind in one process group."""
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=world)
    print(json.dumps({kind: compare(kind) for kind in KINDS}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
