"""A SummaryWriter that also watches: change the import, and the script is watched as `gradwatch run` would watch it.

`from gradwatch_agent.adapters.tensorboard import SummaryWriter`. It is torch's own and writes the same files; tensorboardX's is
in `adapters.tensorboardx`. Optimizers made after the first writer are watched. If the script calls `watch` itself, its scalars
go to that monitor, and it says when an update ends.
"""

from __future__ import annotations

from typing import Any

from torch.utils.tensorboard.writer import SummaryWriter as Writer

from gradwatch_agent.adapters.scalars import forward_scalars
from gradwatch_agent.adapters.script import SCRIPT
from gradwatch_contracts.launch import PATCHES


class SummaryWriter(Writer):
    """Takes what the writer below it takes, and gives what it gives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        SCRIPT.arm(tuple(PATCHES))


forward_scalars(SummaryWriter, SCRIPT)
