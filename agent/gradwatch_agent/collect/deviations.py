"""The standard deviations of a continuous policy: as `ppo(std=)` passed them last, or from the parameter that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.samples import sample_rows
from gradwatch_agent.collect.tensors import fault_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.model import Model
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.staging import Staging

LOGARITHMS = frozenset({"log_std", "logstd", "log_stds", "actor_logstd", "log_sigma"})
PLAIN = frozenset({"std", "action_std"})
"""Last part of the name of a parameter, in SB3, CleanRL and rsl_rl among others."""

STD = "policy.std"
COLUMNS = (STD, f"{STD}.min", f"{STD}.max")


class DeviationCollector:
    """What the running update passed, else the parameter there is."""

    __slots__ = ("_given", "_logarithm", "_model", "_parameter", "_version", "staging")

    def __init__(self, staging: Staging, model: Model) -> None:
        self.staging = staging
        self._model = model
        self._given: torch.Tensor | None = None
        self._find()

    def _find(self) -> None:
        self._version = self._model.version
        parameters = [] if self._model.is_flat else self._model.named()
        named = [(name.rsplit(".", 1)[-1], parameter) for name, parameter in parameters]
        found = [(name, parameter) for name, parameter in named if name in LOGARITHMS | PLAIN]
        # Of two, which one acts is not known.
        self._parameter = found[0][1] if len(found) == 1 else None
        self._logarithm = len(found) == 1 and found[0][0] in LOGARITHMS

    def clear(self) -> None:
        """Forget the running update."""
        self._given = None

    def observe(self, tally: Tally, std: object) -> None:
        """Take the standard deviations of one minibatch, of any shape; the last ones of the update are reduced."""
        fault = fault_of(std)
        if fault is None and isinstance(std, torch.Tensor):
            self._given = std.detach()
            return
        for name in COLUMNS:
            tally.refuse(name, fault)  # type: ignore[arg-type]  # a tensor without fault returned above

    def finish(self, parts: Parts) -> None:
        """Hand over their vector, if there are any."""
        given, self._given = self._given, None
        if self._version != self._model.version:
            self._find()
        logarithm = given is None and self._logarithm
        tensor = self._parameter if given is None else given
        if tensor is None or fault_of(tensor) is not None:
            return
        x = torch.mul(sample_rows(tensor.detach(), 1).reshape(-1), self.staging.reducer(tensor.device).one)
        if logarithm:
            x = x.exp_()
        variance, mean = torch.var_mean(x, correction=0)
        vector = torch.stack([*torch.aminmax(x), mean, variance])
        parts.put([vector], DeviationReader(x.shape[0]))


@dataclass(frozen=True, slots=True)
class DeviationReader:
    """Least, largest, mean and variance of `n` standard deviations."""

    n: int

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        tally.add(f"{STD}.min", (values[0],))
        tally.add(f"{STD}.max", (values[1],))
        tally.add(STD, (float(self.n), values[2], self.n * values[3]))
