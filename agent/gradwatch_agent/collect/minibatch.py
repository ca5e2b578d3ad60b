"""The channels of one `ppo()` call, and which columns each of them feeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.block_facts import EXTRA
from gradwatch_agent.collect.policy_facts import ENTROPY, K3, LOGRATIO, RATIO_COLUMNS
from gradwatch_agent.collect.tensors import FLOATS, is_plain
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.staging import Layout

VALUE, ERROR, ADVANTAGE, LOSS = (
    (name, f"{name}.nonfinite", f"{name}.nonfinite_mb", *EXTRA.get(name, ()))
    for name in ("value.new", "value.new.error", "adv.used", "loss.total")
)


@dataclass(slots=True)
class Minibatch:
    """Channels of one call that passed: tensors of one shape and device."""

    shape: torch.Size
    device: torch.device
    samples: list[torch.Tensor] = field(default_factory=list)
    columns: list[tuple[str, str]] = field(default_factory=list)
    ratio: bool = False
    error: bool = False
    layout: Layout | None = None
    dtype: torch.dtype = torch.float32

    def refuse(self, tally: Tally, status: Status) -> None:
        """Refuse every per-sample channel, also those accepted before."""
        _refuse(tally, self.columns, status)
        self.samples.clear()
        self.columns.clear()
        self.ratio = self.error = False

    def fault(self, tensor: object) -> Status | None:
        """Why a tensor cannot stand beside the others, None when it can."""
        if not is_plain(tensor) or tensor.dtype not in FLOATS or tensor.layout is not torch.strided:
            return Status.DTYPE
        if tensor.device != self.device:
            return Status.DEVICE
        return None if tensor.shape == self.shape else Status.SHAPE


def _refuse(tally: Tally, columns: Sequence[tuple[str, str]], status: Status) -> None:
    """Refuse every column of these channels."""
    for name, subject in columns:
        if name in {LOGRATIO, K3}:
            for ratio in RATIO_COLUMNS:
                tally.refuse(ratio, status)
        elif name == ENTROPY:
            tally.refuse(name, status, subject)
        else:
            for part in (name, f"{name}.nonfinite", f"{name}.nonfinite_mb", *EXTRA.get(name, ())):
                tally.refuse(part, status)
