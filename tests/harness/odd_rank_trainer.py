"""Two DDP ranks, the second of which is odd: `python odd_rank_trainer.py RUN STORE_FILE`, once a rank.

From update 10 on its rollouts take 130 ms more than the other's; at the end of update 20 one of its weights is multiplied by
1.01; and once STORE_FILE.quiet exists it closes its monitor and trains on. Twenty updates later both end.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gradwatch_agent import watch

SLOW_FROM, DESYNC_AT, UPDATES_MAX = 10, 20, 5000


def main() -> None:
    """Train until it is quiet."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model: Any = DistributedDataParallel(nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mon = watch(model, optimizer, run=sys.argv[1])
    mon.on_command("mark", lambda args: f"marked before update {mon.update}")
    quiet = torch.zeros(1)
    left = 20
    for update in range(UPDATES_MAX):
        with mon.phase("rollout"):
            obs = torch.randn(16, 4)
            time.sleep(0.15 if rank and update >= SLOW_FROM else 0.02)
        loss = (model(obs)[:, 0] - obs[:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if rank and update == DESYNC_AT:
            with torch.no_grad():
                model.module.weight.mul_(1.01)
        mon.step()
        quiet[0] = float(os.path.exists(f"{sys.argv[2]}.quiet"))
        dist.all_reduce(quiet, op=dist.ReduceOp.MAX)
        if quiet.item():
            left -= 1
            if rank:
                mon.close()
        if not left:
            break
    mon.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
