"""What `recurrent()` observes: hidden and cell state, in the rollout and in the update apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.collectors import Switches
from gradwatch_agent.collect.staging import Channel, Layout
from gradwatch_agent.collect.tensors import REALS, fault_of, is_plain
from gradwatch_agent.device.plan import Plan
from gradwatch_agent.device.reduce import set_grad
from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import COLUMNS, Source

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.staging import Staging

HIDDEN, CELL, RESET = "rnn.h", "rnn.c", "rnn.reset"
RESET_COLUMNS = (RESET, "rnn.reset.violations")
Shape = tuple[int, int, int]
"""Layers, sequences, units."""

LAYOUTS_MAX = 256
"""Layouts kept; a batch of another size is another one."""

STATE_COLUMNS = {state: tuple(name for name in COLUMNS if name.startswith(state)) for state in (HIDDEN, CELL)}

SATURATION = 0.99
"""|h| = |o tanh(c)| above it passes almost no gradient: the derivative of tanh is below 0.02 there."""

PAIR = 2


class RecurrentCollector:
    """The recurrent states of the running update. A state of any shape is its elements; the batch size may change."""

    __slots__ = ("_layouts", "_switches", "phases", "staging")

    def __init__(self, staging: Staging, switches: Switches | None = None) -> None:
        self.staging = staging
        self._switches = switches or Switches()
        self.phases: set[str] = set()
        self._layouts: dict[tuple[str, tuple[str, ...], Shape | None], Layout] = {}

    def observe(self, tally: Tally, h: object, c: object, phase: str, minibatch: int, *, reset: object = None) -> None:
        """Stage one state. What cannot be used is refused in `tally`; a GRU has no `c`, which is NOT_CALLED. `reset`: one
        number or bool per sequence."""
        self.phases.add(phase)
        if isinstance(h, (tuple, list)):
            h, c = h if len(h) == PAIR else (h, c)
        states: list[tuple[str, torch.Tensor]] = []
        for name, state in ((HIDDEN, h), (CELL, c)):
            fault = Status.NOT_CALLED if state is None else fault_of(state)
            if fault is None and isinstance(state, torch.Tensor):
                states.append((name, state))
            else:
                refuse(tally, name, fault or Status.DTYPE, phase)
        if states and _capturing(states):
            for name, _ in states:
                refuse(tally, name, Status.CAPTURING, phase)
            return
        enabled = torch.is_grad_enabled()
        try:
            set_grad(False)
            if states and states[0][0] == HIDDEN and _batch(states[0][1]) is None:
                tally.refuse("rnn.h.within", Status.UNDEFINED, phase)
            mask = self._take_reset(tally, states, reset, phase)
            if len(states) == PAIR and not _alike(states[0][1], states[1][1]):
                self._stage([*states[:1], *mask], phase, minibatch)
                self._stage(states[1:], phase, minibatch)
            elif states:
                self._stage([*states, *mask], phase, minibatch)
        finally:
            set_grad(enabled)

    def _take_reset(
        self, tally: Tally, states: list[tuple[str, torch.Tensor]], reset: object, phase: str
    ) -> list[tuple[str, torch.Tensor]]:
        """`reset` as large as the hidden state, which is [sequences, units] or [layers, sequences, units]."""
        if reset is None or not states or states[0][0] != HIDDEN:
            return []
        h, status = states[0][1], Status.DTYPE
        if is_plain(reset) and reset.dtype in REALS and reset.layout is torch.strided:
            status = Status.DEVICE if reset.device != h.device else Status.SHAPE
            if reset.device == h.device and h.dim() > 1 and reset.numel() == h.shape[-2]:
                return [(RESET, reset.reshape(-1, 1).expand(h.shape))]
        for name in RESET_COLUMNS:
            tally.refuse(name, status, phase)
        return []

    def refuse(self, tally: Tally, status: Status) -> None:
        """Say of every phase seen so far why it is missing."""
        for phase in self.phases:
            for name in STATE_COLUMNS:
                refuse(tally, name, status, phase)

    def _stage(self, states: list[tuple[str, torch.Tensor]], phase: str, minibatch: int) -> None:
        names = tuple(name for name, _ in states)
        batch = _batch(states[0][1]) if names[0] == HIDDEN and self._switches.on("diversity") else None
        layout = self._layouts.get((phase, names, batch))
        if layout is None:
            if len(self._layouts) >= LAYOUTS_MAX:
                self._layouts.clear()
            plan = Plan(
                len(names),
                saturation=SATURATION if HIDDEN in names else None,
                peak=names.index(CELL) if CELL in names else None,
                batch=batch,
                reset=names.index(RESET) if RESET in names else None,
            )
            layout = Layout(plan, tuple(Channel.of(name, phase) for name in names), Source.UPDATE)
            self._layouts[phase, names, batch] = layout
        wide = any(state.dtype is torch.float64 for _, state in states)
        tensors = [state.reshape(-1) for _, state in states]
        self.staging.stage(layout, tensors, torch.float64 if wide else torch.float32, minibatch, before=False)


def refuse(tally: Tally, state: str, status: Status, phase: str) -> None:
    """Say why a state is missing."""
    for column in STATE_COLUMNS[state]:
        tally.refuse(column, status, phase)


def _batch(state: torch.Tensor) -> Shape | None:
    """Its shape, if there are several sequences in it."""
    if state.dim() < PAIR or state.shape[-2] < PAIR:
        return None
    return state.shape[:-2].numel(), state.shape[-2], state.shape[-1]


def _alike(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.shape == right.shape and left.device == right.device


def _capturing(states: list[tuple[str, torch.Tensor]]) -> bool:
    return any(state.device.type == "cuda" for _, state in states) and torch.cuda.is_current_stream_capturing()
