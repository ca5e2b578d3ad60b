"""A script watched from outside, in this process: what is looked into, what is kept until there is a monitor."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from torch.optim import optimizer as optimizers

from gradwatch_agent.adapters import script
from gradwatch_agent.adapters.entropies import Choices, Entropies, look_at_entropies
from gradwatch_agent.adapters.meanings import Meanings
from gradwatch_agent.adapters.parameters import OptimizerParameters
from gradwatch_agent.adapters.scalars import forward_scalars, parse_table
from gradwatch_agent.device.clip import CLIP_WATCH
from gradwatch_contracts.columns import Status
from harness.adapters import armed_script
from harness.recording import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gradwatch_agent.adapters.script import ScriptWatch
    from harness.adapters import Watching


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ScriptWatch, Watching]]:
    """Looks into everything until the test ends."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    with armed_script(monkeypatch) as armed:
        yield armed


def train(model: nn.Module, *optimizers_: torch.optim.Optimizer, clip: float | None = 0.1) -> float:
    """One minibatch; the norm before clipping."""
    model.zero_grad()
    model(torch.ones(4, 3)).square().sum().backward()
    norm = torch.linalg.vector_norm(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers_:
        optimizer.step()
    return float(norm)


def test_first_gradient_is_that_before_clipping(armed: tuple[ScriptWatch, Watching]) -> None:
    """The monitor is made within the first clip; seen at the step, the norm would be that after it."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    norms = [train(model, optimizer) for _ in range(2)]
    watch.on_scalar("losses/a", 1.0, 8)
    norms.append(train(model, optimizer))
    watch.on_scalar("losses/a", 1.0, 16)
    watch.settle()

    assert [row["grad.norm"][0] for row in watching.rows] == [2.0, 1.0]
    assert watching.rows[0]["grad.norm"][1] == pytest.approx(sum(norms[:2]) / 2, rel=1e-5)
    assert watching.rows[1]["grad.norm"][1] == pytest.approx(norms[2], rel=1e-5)
    assert [row["opt.steps"] for row in watching.rows] == [2.0, 1.0]


def test_script_that_does_not_clip_is_seen_at_its_first_step(armed: tuple[ScriptWatch, Watching]) -> None:
    """And with several optimizers, all that are alive by then."""
    watch, watching = armed
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    torch.optim.SGD(model.parameters(), 0.1)  # made and dropped
    pair = [torch.optim.SGD(part.parameters(), 0.01) for part in model]
    train(model, *pair, clip=None)
    watch.on_scalar("losses/a", 1.0, 8)
    watch.settle()

    assert watching.rows[0]["grad.norm"][0] == 2.0
    assert watching.rows[0]["opt.steps"] == 2.0
    assert len(list(watching.monitors[0]._settings.modules[0].parameters())) == 4


@pytest.mark.parametrize("clip", [0.1, None])
def test_model_that_is_trained_after_another_is_an_attempt_of_its_own(
    armed: tuple[ScriptWatch, Watching], clip: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loop over seeds in one process: each has its own weights, steps and first gradient; nothing of the one before lives on,
    and a model that is kept, but trained no more, is left out in the end."""
    watch, watching = armed
    kept, gone = [], []

    def seed(width: int) -> None:
        model = nn.Linear(3, width)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        gone.append(weakref.ref(model.weight))
        if width == 1:
            kept.append(optimizer)
        for update in range(2):
            watch.on_scalar("charts/episodic_return", 10.0 * width + update, 64 * update + 5)
            for _ in range(3):
                train(model, optimizer, clip=clip)
            watch.on_scalar("losses/a", width, 64 * update + 64)

    for width in (1, 2, 3):
        seed(width)
    watch.settle()
    gc.collect()

    assert [[row.update for row in record.rows if not row.flags] for record in watching.records] == [[0, 1]] * 3
    rows = [[read(row) for row in record.rows if not row.flags] for record in watching.records]
    assert all(
        (row["opt.steps"], row["opt.skipped"], row["grad.norm"][0]) == (3.0, 0.0, 3.0) for found in rows for row in found
    )
    assert [[row["user/losses/a"] for row in found] for found in rows] == [[1, 1], [2, 2], [3, 3]]
    assert [row["episode.return"][1] for row in rows[2]] == [30.0, 31.0]
    assert [monitor.active for monitor in watching.monitors] == [False, False, True]
    assert [ref() is None for ref in gone] == [False, True, False]
    watched = list(watching.monitors[2]._settings.modules[0].parameters())
    assert [parameter is gone[2]() for parameter in watched] == [True, False]
    assert capsys.readouterr().err.count("another model is trained from here on: run 'test' begins anew.") == 2


def test_run_begins_anew_behind_the_step_where_others_look_at_steps_too(armed: tuple[ScriptWatch, Watching]) -> None:
    """Torch goes through its hooks while ours is called, and fails in the script when one of them is taken away there."""
    watch, watching = armed
    first, other = nn.Linear(3, 1), nn.Linear(3, 2)
    train(first, torch.optim.SGD(first.parameters(), 0.01), clip=None)
    watch.on_scalar("losses/a", 1.0, 8)
    handle = optimizers.register_optimizer_step_pre_hook(lambda *_: None)
    later = optimizers.register_optimizer_step_pre_hook(lambda *_: None)
    monitor, close = watching.monitors[0], watching.monitors[0].close
    monitor.close = lambda: (handle.remove(), close())  # type: ignore[method-assign, assignment]
    optimizer = torch.optim.SGD(other.parameters(), 0.01)
    for _ in range(2):
        train(other, optimizer, clip=None)
    watch.on_scalar("losses/a", 1.0, 16)
    watch.settle()
    later.remove()

    assert len(watching.monitors) == 2
    assert watching.rows[-1]["opt.steps"] == 1.0


def test_network_that_is_made_late_is_watched_beside_the_first(armed: tuple[ScriptWatch, Watching]) -> None:
    """One run begins anew; from then on both are in it, and the learning rate is that of the new one."""
    watch, watching = armed
    first, late = nn.Linear(3, 1), nn.Linear(3, 2)
    one = torch.optim.SGD(first.parameters(), 0.01)
    train(first, one)
    watch.on_scalar("losses/a", 1.0, 8)
    train(first, one)
    two = torch.optim.SGD(late.parameters(), 0.02)
    train(late, two)
    for at in (16, 24):
        watch.on_scalar("losses/a", 1.0, at)
        for model, optimizer in ((first, one), (late, two)):
            train(model, optimizer)
    watch.on_scalar("losses/a", 1.0, 32)
    watch.settle()

    assert len(watching.monitors) == 2
    assert [(row["opt.steps"], row["opt.lr"]) for row in watching.rows] == [(1.0, 0.02), (2.0, 0.02), (2.0, 0.02)]
    norms = [float(torch.cat([p.detach().reshape(-1) for m in (first, late) for p in m.parameters()]).norm())]
    assert watching.rows[-1]["param.norm"] == pytest.approx(norms[0])


def test_optimizer_for_each_of_many_small_problems_cuts_the_run_into_few_attempts(
    armed: tuple[ScriptWatch, Watching],
) -> None:
    """A model trains on beside them; what is made for weights that are watched anyway is remembered once; none is kept."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    main, made = torch.optim.SGD(model.parameters(), 0.01), []
    for update in range(40):
        small = nn.Linear(3, 1)
        for optimizer in (torch.optim.SGD(small.parameters(), 0.1), torch.optim.SGD(model.parameters(), 0.0)):
            made.append(weakref.ref(optimizer))
        train(small, torch.optim.SGD(small.parameters(), 0.1))
        train(model, main)
        watch.on_scalar("losses/a", 1.0, 8 * update)
    del optimizer, small
    watch.settle()

    assert len(watching.monitors) == 5  # one anew at once, then after an update, after 4 and after 16
    assert sum(ref() is not None for ref in made) <= 2
    assert len(CLIP_WATCH._watched[id(model.weight)]) == 2


def test_optimizer_made_before_we_looked_is_met_at_its_step(
    armed: tuple[ScriptWatch, Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the SummaryWriter is made late: a step is soon enough."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    with monkeypatch.context() as before:
        before.setattr(watch, "on_optimizer", lambda _: None)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
    train(model, optimizer)
    watch.on_scalar("losses/a", 1.0, 8)
    watch.settle()

    assert watching.rows[0]["opt.steps"] == 1.0


def test_scalars_before_the_first_gradient_are_kept_for_it(armed: tuple[ScriptWatch, Watching]) -> None:
    """CleanRL logs episodes of the first rollout, and its arguments, before anything is trained."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    watch.on_config("|param|value|\n|-|-|\n|seed|1|\n|anneal|True|\n|env_id|CartPole-v1|")
    watch.on_scalar("charts/episodic_return", np.array([3.0], np.float32), 4)
    watch.on_scalar("charts/episodic_length", 7, 4)
    train(model, optimizer)
    watch.on_scalar("losses/tensor", torch.tensor(2.5), 8)
    watch.on_scalar("words", "no number", 8)
    watch.settle()

    row = watching.rows[0]
    assert watching.given[0]["config"] == {"seed": 1, "anneal": True, "env_id": "CartPole-v1"}
    assert (row["user/charts/episodic_return"], row["user/charts/episodic_length"], row["user/losses/tensor"]) == (3, 7, 2.5)
    assert row["episode.return"] == (1.0, 3.0, 0.0)
    assert row["episode.length"] == (1.0, 7.0, 0.0)
    assert watching.records[0].rows[0].env_steps == 8


def test_global_step_of_another_kind_is_not_taken_for_environment_steps(armed: tuple[ScriptWatch, Watching]) -> None:
    """It may count anything; nor is a missing return one of no episodes."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    train(model, optimizer)
    watch.on_scalar("loss", 1.0, 8)
    train(model, optimizer)
    watch.on_scalar("charts/episodic_return", 3.0, 900)  # of the rollout before: environment steps are at least these
    watch.on_scalar("loss", 1.0, 16)
    watch.settle()

    assert [row.env_steps for row in watching.records[0].rows] == [-1, 900]
    assert watching.rows[0]["episode.return"] is Status.NOT_CALLED


def test_exception_hook_is_left_alone_when_it_is_not_named(
    armed: tuple[ScriptWatch, Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor places one of its own."""
    watch, watching = armed
    monkeypatch.setattr(sys, "excepthook", mine := lambda *_: None)
    watch._patches = ("gradients",)

    def hooking(*given: Any, **named: Any) -> Any:
        sys.excepthook = lambda *_: None
        return watching(*given, **named)

    monkeypatch.setattr(script, "watch", hooking)
    model = nn.Linear(3, 1)
    train(model, torch.optim.SGD(model.parameters(), 0.01))

    assert watch.monitor is not None
    assert sys.excepthook is mine


def test_names_of_parameters_are_the_optimizer_s_or_place_and_shape() -> None:
    """Newer versions of torch let an optimizer know names."""
    model = nn.Linear(3, 2)
    nameless, named = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(model.named_parameters(), 0.1)

    assert [name for name, _ in OptimizerParameters([nameless]).named_parameters()] == ["0.0[2x3]", "0.1[2]"]
    assert [name for name, _ in OptimizerParameters([nameless, named]).named_parameters()][2:] == ["1.weight", "1.bias"]


def test_table_of_anything_else_is_no_configuration() -> None:
    """Only rows count, and a value that is no literal is its text."""
    assert parse_table("no table") == {}
    assert parse_table("|a|b|\n|-|-|\n|path|/x|y|\n|none|None|") == {"a": "b", "path": "/x|y", "none": None}


def test_writer_of_tensorboardx_is_forwarded_and_writes_what_it_writes_alone(
    armed: tuple[ScriptWatch, Watching], tmp_path: Path
) -> None:
    """With an argument that torch's writer does not take; what is no scalar is written and not sent."""
    from tensorboardX import SummaryWriter

    class Forwarding(SummaryWriter):
        pass

    watch, watching = armed
    forward_scalars(Forwarding, watch)
    files = []
    for kind in (SummaryWriter, Forwarding):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with kind(str(tmp_path / kind.__name__)) as writer:
            writer.add_text("hyperparameters", "|param|value|\n|-|-|\n|seed|1|", walltime=1.0)
            for update in range(3):
                train(model, optimizer)
                writer.add_scalar("losses/loss", update / 2, 8 * update, walltime=1.0, display_name="loss")
                writer.add_histogram("weights", model.weight.detach(), 8 * update, walltime=1.0)
        (file,) = (tmp_path / kind.__name__).iterdir()
        files.append(list(RawEventFileLoader(str(file)).Load())[1:])  # the first holds the time of the file
    watch.settle()

    assert files[0] == files[1]
    assert len(files[0]) == 7
    assert watching.given[0]["config"] == {"seed": 1}
    assert [row["user/losses/loss"] for row in watching.rows][-3:] == [0.0, 0.5, 1.0]
    assert "user/weights" not in watching.rows[-1]


CLEANRL = {"charts/SPS": 9.0, "losses/clipfrac": 0.25, "losses/approx_kl": 0.01, "losses/explained_variance": 0.5}


def test_tag_of_a_known_program_is_the_signal_that_it_is() -> None:
    """Only once all its marks were met: a borrowed name proves nothing. A NaN is a fault where it proves one, and the explained
    variance is NaN where it is not defined. Tags that are no signal of ours stay what they are."""
    meanings = Meanings()
    meanings.see("losses/approx_kl", 0.01)
    assert (meanings.take(), meanings.sentence) == ({}, "")
    for tag, value in {**CLEANRL, "losses/entropy": 0.6, "losses/value_loss": np.nan, "mine": 1.0}.items():
        meanings.see(tag, value)
    assert meanings.take() == {
        "policy.clip_fraction": 0.25,
        "policy.kl.k3.last": 0.01,
        "value.explained_variance": 0.5,
        "loss.total.nonfinite": 1.0,
    }
    assert meanings.sentence.startswith("scalars of CleanRL PPO: losses/clipfrac is policy.clip_fraction, ")
    meanings.see("losses/approx_kl", np.nan)
    meanings.see("losses/explained_variance", np.nan)
    found = meanings.take()
    assert np.isnan(found.pop("policy.kl.k3.last"))
    assert found == {"policy.logratio.nonfinite": 1.0}


def test_tag_that_is_written_with_the_next_update_is_read_as_nothing() -> None:
    """Stable-Baselines3 writes `train/` one update late; its callback puts it right."""
    meanings = Meanings()
    for tag in ("time/fps", "train/clip_fraction", "train/entropy_loss"):
        meanings.see(tag, 0.1)

    assert meanings.dialect.name == "Stable-Baselines3 PPO"
    assert meanings.take() == {}


def test_row_of_a_script_lists_no_column_of_a_call_that_nobody_makes(armed: tuple[ScriptWatch, Watching]) -> None:
    """But those that its scalars are; what we measured ourselves is not overwritten by what it says of it."""
    watch, watching = armed
    model = nn.Linear(3, 1)
    train(model, torch.optim.SGD(model.parameters(), 0.01))
    for tag, value in {**CLEANRL, "charts/learning_rate": 7.0}.items():
        watch.on_scalar(tag, value, 8)
    watch.settle()

    row = watching.rows[0]
    assert (row["policy.kl.k3.last"], row["policy.clip_fraction"], row["value.explained_variance"]) == (0.01, 0.25, 0.5)
    assert row["opt.lr"] == 0.01
    assert row["user/losses/approx_kl"] == 0.01
    assert not {"policy.kl.k3", "value.pred", "rnn.h"} & row.keys()


@pytest.fixture
def asked() -> Iterator[Entropies]:
    """Of torch's distributions, until the test ends."""
    kinds = (torch.distributions.Categorical, torch.distributions.Normal)
    before = [kind.entropy for kind in kinds]
    entropies = Entropies()
    look_at_entropies(entropies.see)
    yield entropies
    for kind, original in zip(kinds, before, strict=True):
        kind.entropy = original  # type: ignore[method-assign]


def test_entropy_is_that_of_the_minibatch(asked: Entropies) -> None:
    """What is asked while collecting is of no minibatch; a Gaussian's is summed over the dimensions of an action. What is asked
    several times for one gradient may be anything, and nothing is said of it."""
    logits = torch.zeros(4, 3, requires_grad=True)
    with torch.no_grad():
        torch.distributions.Categorical(logits=logits).entropy()
    assert (asked.take(), asked.space) == (None, None)
    made = torch.distributions.Categorical(logits=logits).entropy()
    assert asked.space == Choices(3)
    found = asked.take()
    assert torch.equal(found, made)
    assert not found.requires_grad
    for _ in range(2):
        torch.distributions.Categorical(logits=logits).entropy()
    assert asked.take() is None

    gaussian = torch.distributions.Normal(torch.zeros(4, 3), torch.ones(4, 3, requires_grad=True)).entropy()
    assert asked.space is None
    assert torch.equal(asked.take(), gaussian.sum(-1))


@pytest.mark.campaign
def test_entropy_in_a_compiled_policy_breaks_no_graph(asked: Entropies) -> None:
    """It is left alone there, and nothing is known of it."""
    policy = torch.compile(
        lambda x: torch.distributions.Categorical(logits=x, validate_args=False).entropy(), fullgraph=True, backend="eager"
    )

    assert policy(torch.zeros(4, 3, requires_grad=True)).shape == (4,)
    assert asked.take() is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ChildFailedError("train.py", {0: ProcessFailure(0, 1, 1, "none")}), 0),
        (ProcessRaisedException("of a rank", 0, 1), 0),
        (ProcessExitedException("of a rank", 0, 1, 1), 0),
        (ValueError("no data"), 1),
    ],
)
def test_launcher_whose_rank_failed_is_no_run(armed: tuple[ScriptWatch, Watching], error: Exception, told: int) -> None:
    """It would be the newest attempt and hide what the ranks have told. A script that fails early is one."""
    watch, watching = armed
    watch.tell_exception(error)
    assert len(watching.monitors) == told
