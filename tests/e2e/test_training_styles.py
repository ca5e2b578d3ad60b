"""Ways to train that go beyond `backward` and `step`: each gives the same bits with us, and each says what is true of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Active, Desired, Level
from harness.adapters import armed_script
from harness.recording import monitoring, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")]
"""Of torch, while it compiles: under "error" they would break the compilation."""

UPDATES = 6
MICRO = 4


class Trainer:
    """A model, its optimizer and what they are fed; `mon` is a monitor or None. A style is a method: one update."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.model: Any = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.second: Any = torch.optim.SGD(self.model[2].parameters(), lr=0.1)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=1000)
        self.forward, self.step = self.model, self.optimizer.step
        self.mon: Any = None

    def loss(self) -> torch.Tensor:
        """Of one minibatch, told to us."""
        obs = torch.randn(16, 4)
        logp = torch.log_softmax(self.forward(obs), -1)[:, 0]
        loss = (logp * torch.randn(16)).mean()
        if self.mon:
            self.mon.ppo(new_logp=logp, old_logp=logp.detach(), loss=loss, clip=0.2)
        return loss

    def clip(self) -> None:
        """To a norm that is often exceeded."""
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.01)

    def plain(self) -> None:
        """Three ordinary minibatches."""
        for _ in range(3):
            self.optimizer.zero_grad()
            self.loss().backward()
            self.clip()
            self.step()

    def scaled(self) -> None:
        """Mixed precision with a scaler whose first scales overflow float16: those steps are skipped."""
        for _ in range(3):
            self.optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = self.loss()
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            self.clip()
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def accumulated(self) -> None:
        """One step for several minibatches."""
        self.optimizer.zero_grad()
        for _ in range(MICRO):
            (self.loss() / MICRO).backward()
        self.clip()
        self.step()

    def several(self) -> None:
        """Two optimizers, one of which has a part of the model."""
        for _ in range(3):
            self.model.zero_grad()
            self.loss().backward()
            self.second.step()
            self.step()

    def closed(self) -> None:
        """A closure, as line searches need it."""

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss

        self.optimizer.step(closure)

    def inferred(self) -> None:
        """What was collected comes out of inference mode."""
        with torch.inference_mode():
            rewards = self.forward(torch.randn(6, 4))[:, 0]
            if self.mon:
                self.mon.rollout(rewards=rewards, observations=rewards)
        self.plain()

    def compiled(self) -> None:
        """A compiled model, in one graph."""
        if self.forward is self.model:
            self.forward = torch.compile(self.model, backend="eager", fullgraph=True)
        self.plain()

    def unclipped(self) -> None:
        """A compiled optimizer step, and nothing else that can be seen from outside."""
        if self.step == self.optimizer.step:
            self.step = torch.compile(self.optimizer.step, backend="eager")
        for _ in range(3):
            self.optimizer.zero_grad()
            self.loss().backward()
            self.step()

    def step_compiled(self) -> None:
        """A compiled optimizer step."""
        if self.step == self.optimizer.step:
            self.step = torch.compile(self.optimizer.step, backend="eager")
        self.plain()


def run(style: str, mon: Any = None, trainer: Trainer | None = None, raised_at: int | None = None) -> list[torch.Tensor]:
    """Train; return the parameters and the next random number. At update `raised_at` the level is raised for two updates."""
    trainer = trainer or Trainer()
    trainer.mon = mon
    for update in range(UPDATES):
        if mon and update == raised_at:
            mon._desired.receive(Desired(1, active=(Active("look", Level.DEBUG, 2),)))
        getattr(trainer, style)()
        if mon:
            mon.step()
    return [*(parameter.detach().clone() for parameter in trainer.model.parameters()), torch.rand(1)]


def watched(style: str, **given: Any) -> tuple[list[torch.Tensor], list[dict[str, Any]], list[int]]:
    """The same with us: the parameters, the rows and their flags."""
    trainer = Trainer()
    optimizers = (trainer.optimizer, trainer.second) if style == "several" else (trainer.optimizer,)
    with monitoring(modules=(trainer.model,), optimizers=optimizers) as (monitor, record):
        parameters = run(style, monitor, trainer, **given)
        assert record.events == record.losses == []
        return parameters, [read(row) for row in record.rows], [row.flags for row in record.rows]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Own errors are raised; nothing is compiled yet, and nothing afterwards."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    counters.clear()
    yield
    torch._dynamo.reset()  # type: ignore[no-untyped-call]


STYLES: list[str] = ["plain", "scaled", "accumulated", "several", "closed", "inferred", "compiled", "step_compiled"]


@pytest.mark.parametrize("style", STYLES)
def test_training_in_any_style_is_bit_identical_with_us(style: str) -> None:
    """Parameters and random numbers, also over a raised level; no flag, no error, no loss of a row."""
    parameters, rows, flags = watched(style, raised_at=2)
    assert all(map(torch.equal, parameters, run(style)))
    assert len(rows) == UPDATES
    assert flags == [0] * UPDATES


def test_scaled_training_counts_the_steps_that_the_scaler_skipped() -> None:
    """Minibatches less steps; norms are those of unscaled gradients, and the overflow is told."""
    _, rows, _ = watched("scaled")
    skipped = [row["opt.skipped"] for row in rows]
    assert skipped == [3.0 - row["opt.steps"] for row in rows]
    assert sum(skipped) >= 1
    assert sum(row["grad.norm.nonfinite"] for row in rows) == sum(skipped)
    assert rows[-1]["grad.norm"][1] < 10.0


def test_accumulated_training_has_one_norm_for_all_its_minibatches() -> None:
    """And no step was skipped."""
    _, rows, _ = watched("accumulated")
    assert [(row["grad.norm"][0], row["loss.total"][0], row["opt.steps"], row["opt.skipped"]) for row in rows] == [
        (1.0, float(MICRO), 1.0, 0.0)
    ] * UPDATES


def test_training_of_several_optimizers_counts_the_steps_of_all() -> None:
    """Each is measured at its own step."""
    _, rows, _ = watched("several")
    assert [(row["opt.steps"], row["grad.norm"][0]) for row in rows] == [(6.0, 6.0)] * UPDATES


@pytest.mark.parametrize("style", ["compiled", "step_compiled"])
def test_compiled_training_has_our_hooks_in_no_graph(style: str) -> None:
    """No graph more, no break more, and none when the level changes: what we add is not traced."""
    run(style)
    alone = {kind: dict(counters[kind]) for kind in ("stats", "graph_break", "recompile_limit")}
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    counters.clear()
    watched(style, raised_at=2)
    assert {kind: dict(counters[kind]) for kind in alone} == alone
    assert counters["stats"]["unique_graphs"] >= 1


@pytest.mark.parametrize(("style", "more"), [("compiled", 0), ("step_compiled", 0), ("unclipped", 1)])
def test_compiled_script_has_our_hooks_in_no_graph(style: str, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of a script that `gradwatch run` watches, whose updates end where it logs. One that does not clip is not seen
    before its first scalar: what is around its graphs, with a break of torch's own, is then traced once more."""
    before = run(style)
    graphs, breaks = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    counters.clear()
    with armed_script(monkeypatch) as (watch, watching):
        trainer = Trainer()
        del trainer.second  # one that never steps weights which move makes all steps unknown
        for update in range(UPDATES):
            if watch.monitor and update == 3:
                watch.monitor._desired.receive(Desired(1, active=(Active("look", Level.DEBUG, 2),)))
            getattr(trainer, style)()
            watch.on_scalar("losses/a", update, 8 * update)
        watch.settle()
        assert counters["graph_break"] == {kind: times + more for kind, times in breaks.items()}
        assert (counters["stats"]["unique_graphs"], counters["recompile_limit"]) == (graphs, {})
        assert all(map(torch.equal, trainer.model.parameters(), before))
        assert len(watching.monitors) == 1
        assert [row["user/losses/a"] for row in watching.rows] == list(range(UPDATES))
        assert {row["opt.steps"] for row in watching.rows} == {3.0 if style == "compiled" else Status.UNDEFINED}
        assert {row.flags for row in watching.records[0].rows} == {0}


def test_compiled_optimizer_step_is_not_taken_for_no_step() -> None:
    """The hook is traced away: how many steps there were is not known, and minibatches after the first are not "before" it."""
    trainer = Trainer()
    old = torch.log_softmax(trainer.model(torch.ones(4, 4)), -1)[:, 0].detach()

    def update(mon: Any) -> None:
        for _ in range(3):
            logp = torch.log_softmax(trainer.model(torch.ones(4, 4)), -1)[:, 0]
            mon.ppo(new_logp=logp, old_logp=old)
            trainer.optimizer.zero_grad()
            logp.mean().backward()
            trainer.step()

    trainer.step = torch.compile(trainer.optimizer.step, backend="eager")
    with monitoring(modules=(trainer.model,), optimizers=(trainer.optimizer,)) as (monitor, record):
        update(monitor)
        monitor.step()
        row = record.last
        assert row["opt.steps"] is row["opt.skipped"] is row["grad.norm"] is Status.UNDEFINED
        assert row["policy.ratio.first_mb_dev"] == 0.0
        assert row["policy.ratio.min"] < 0.99
        trainer.step()
        monitor.step()
        assert not record.rows[-1].flags & RowFlag.SKIPPED


@pytest.mark.campaign
def test_compiled_whole_minibatch_passes_us_through() -> None:
    """Forward, backward, clip and step in one compiled function, as fast trainers write it; breaks are torch's own."""

    def whole(mon: Any) -> Callable[[Trainer], None]:
        def minibatch(trainer: Trainer) -> None:
            loss = trainer.model(torch.ones(4, 4)).square().mean()
            trainer.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trainer.model.parameters(), 0.01)
            trainer.optimizer.step()

        compiled: Callable[[Trainer], None] = torch.compile(minibatch, backend="eager")
        return compiled

    alone, trainer = Trainer(), Trainer()
    step = whole(None)
    for _ in range(3):
        step(alone)
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    with monitoring(modules=(trainer.model,), optimizers=(trainer.optimizer,)) as (monitor, record):
        step = whole(monitor)
        for _ in range(3):
            step(trainer)
            monitor.step()
        assert len(record.rows) == 3
    assert all(map(torch.equal, trainer.model.parameters(), alone.model.parameters()))
