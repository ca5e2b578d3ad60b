"""The same as `adapters.tensorboard` for scripts written for tensorboardX, whose writer takes other arguments.

`from gradwatch_agent.adapters.tensorboardx import SummaryWriter`.
"""

from __future__ import annotations

from typing import Any

from tensorboardX import SummaryWriter as Writer

from gradwatch_agent.adapters.scalars import forward_scalars
from gradwatch_agent.adapters.script import SCRIPT
from gradwatch_contracts.launch import PATCHES


class SummaryWriter(Writer):
    """Takes what the writer below it takes, and gives what it gives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        SCRIPT.arm(tuple(PATCHES))


forward_scalars(SummaryWriter, SCRIPT)
