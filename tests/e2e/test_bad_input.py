"""The worst that a trainer may hand over, from the call to the verdict: found where it is a fault, borne where it is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gradwatch_contracts.control import Severity
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.detect.engine import Engine
from harness.chain import judge
from harness.recording import monitoring

pytestmark = pytest.mark.usefixtures("strict")

BATCH, HIDDEN = 64, 8


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the agent's own surface."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")


class Space:
    """Four actions, of one head or of each of two."""

    n = 4

    def __init__(self, *heads: str) -> None:
        if heads:
            self.spaces = dict.fromkeys(heads, Space())


Change = Callable[[int, dict[str, Any]], None]
"""Given the update and everything that is about to be passed, change it."""


def unchanged(update: int, given: dict[str, Any]) -> None:
    """A healthy run."""


def run(change: Change, updates: int = 60, *, first: int = 0, frozen: bool = False, heads: tuple[str, ...] = ()) -> Any:
    """Train, with every call of the agent, and return the rows; numbers wander as those of a healthy run do."""
    torch.manual_seed(0)
    model = nn.Linear(HIDDEN, 4)
    model.requires_grad_(not frozen)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with monitoring(
        modules=(model,), optimizers=(optimizer,), action_space=Space(*heads), update_start=first, sync=True
    ) as opened:
        monitor, record = opened
        for update in range(first, first + updates):
            given = _healthy(model)
            change(update, given)
            monitor.rollout(**given["rollout"])
            monitor.recurrent(*given["state"], phase="rollout")
            monitor.ppo(**given["ppo"])
            optimizer.zero_grad()
            if not frozen:
                given["ppo"]["loss"].backward()
                given["gradient"](model)
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
            monitor.step(env_steps=update * BATCH, episode_returns=given["episodes"])
        return list(record.rows)


def _healthy(model: nn.Linear) -> dict[str, Any]:
    returns = torch.randn(BATCH)
    values = returns + 0.5 * torch.randn(BATCH)
    old = torch.randn(BATCH)
    logp = old + 0.05 * torch.randn(BATCH)
    loss = (model(torch.randn(BATCH, HIDDEN)) - torch.randn(BATCH, 4)).square().mean()
    return {
        "rollout": {
            "rewards": torch.randn(BATCH),
            "values": values,
            "returns": returns,
            "advantages": returns - values,
            "observations": torch.randn(BATCH, 3),
        },
        "ppo": {
            "new_logp": old + (logp - old) * 1e-3,
            "old_logp": old,
            "entropy": 1.0 + 0.1 * torch.rand(BATCH),
            "values": values,
            "returns": returns,
            "advantages": torch.randn(BATCH),
            "clip": 0.2,
            "loss": loss,
        },
        "state": (0.5 * torch.randn(BATCH, HIDDEN).tanh(), torch.randn(BATCH, HIDDEN)),
        "gradient": lambda model: None,
        "episodes": [10.0, 12.0],
    }


def serious(anomalies: list[Any]) -> list[tuple[str, str]]:
    """Kind and stage of what is above info, attached findings too."""
    above = [a for a in anomalies if a.severity is not Severity.INFO]
    return [(a.kind, a.stage) for a in above] + [
        (x.kind, "") for a in above for x in a.attached if x.severity is not Severity.INFO
    ]


NOT_GIVEN = {"std_collapse", "std_explosion", "representation_collapse", "recurrent_reset"}
"""What this trainer has no input for: its actions are discrete, its layer is not probed, its states are whole."""


def unexpected(blind: dict[str, str]) -> dict[str, str]:
    """What is blind though its input was given."""
    return {kind: reason for kind, reason in blind.items() if kind not in NOT_GIVEN}


def engine(profile: str = "default") -> Engine:
    """A fresh one."""
    return Engine(load_profile(profile))


POISONED = 12


def poison(where: str, name: str) -> Change:
    """One NaN in one argument, in one update."""

    def change(update: int, given: dict[str, Any]) -> None:
        if update != POISONED:
            return
        if where == "state":
            given["state"][0 if name == "h" else 1][0, 0] = math.nan
        elif where == "episodes":
            given["episodes"] = [1.0, math.nan]
        elif where == "gradient":
            given["gradient"] = lambda model: model.weight.grad.view(-1)[:1].fill_(math.nan)
        elif name == "loss":
            given["ppo"]["loss"] = given["ppo"]["loss"] * math.nan
        else:
            tensor = given[where][name].clone()
            tensor.view(-1)[0] = math.nan
            given[where][name] = tensor

    return change


NAN_INPUTS = [
    *(("rollout", name, stage) for name, stage in (("rewards", "reward"), ("values", "value"), ("returns", "value"))),
    *(("rollout", name, stage) for name, stage in (("advantages", "adv"), ("observations", "obs"))),
    *(("ppo", name, "policy") for name in ("new_logp", "old_logp", "entropy")),
    *(
        ("ppo", name, stage)
        for name, stage in (("values", "value"), ("returns", "value"), ("advantages", "adv"), ("loss", "loss"))
    ),
    ("state", "h", "rnn"),
    ("state", "c", "rnn"),
    ("gradient", "weight", "grad"),
    ("episodes", "returns", "episode"),
]


@pytest.mark.parametrize(("where", "name", "stage"), NAN_INPUTS)
def test_nan_in_any_input_is_found_in_its_update_and_stage(where: str, name: str, stage: str) -> None:
    """One element of one argument of one call, once."""
    anomalies, _ = judge(run(poison(where, name), POISONED + 2), engine())
    (found,) = [anomaly for anomaly in anomalies if anomaly.kind == "nonfinite"]
    assert (found.update_onset, found.stage) == (POISONED, stage)


def test_healthy_run_of_this_trainer_shows_nothing() -> None:
    """What the tests around it change is all that is wrong."""
    anomalies, blind = judge(run(unchanged), engine(), 60)
    assert serious(anomalies) == []
    assert unexpected(blind) == {}


@pytest.mark.parametrize("profile", ["default", "classic"])
def test_head_that_appears_later_is_judged_from_then_on(profile: str) -> None:
    """A policy that grows a head: the new one collapses and is named, the old one is not missed."""

    def change(update: int, given: dict[str, Any]) -> None:
        heads = {"arm": given["ppo"]["entropy"], **({"leg": torch.full((BATCH,), 1e-3)} if update >= 30 else {})}
        given["ppo"]["entropy"] = heads

    anomalies, blind = judge(run(change, 40, heads=("arm", "leg")), engine(profile), 40)
    found = [(a.kind, a.subject, a.update_onset) for a in anomalies if "entropy" in a.kind]
    assert ("entropy_collapse", "leg", 30) in found
    assert {subject for _, subject, _ in found} == {"leg"}
    assert not [key for key in blind if key.startswith("entropy")]


def test_recurrent_state_of_changing_batch_size_is_one_series() -> None:
    """Environments come and go, and the last minibatch is short."""

    def change(update: int, given: dict[str, Any]) -> None:
        given["state"] = tuple(part[: 1 + update % BATCH] for part in given["state"])

    anomalies, blind = judge(run(change), engine(), 60)
    assert serious(anomalies) == []
    assert unexpected(blind) == {}


def test_returns_that_are_all_equal_blind_the_critic_and_fire_nothing() -> None:
    """Zero variance: no error can be a share of it."""

    def change(_: int, given: dict[str, Any]) -> None:
        for call in ("rollout", "ppo"):
            given[call]["returns"] = torch.ones(BATCH)

    anomalies, blind = judge(run(change), engine(), 60)
    assert serious(anomalies) == []
    assert set(unexpected(blind)) == {"value_collapse"}
    assert "all returns of the update were equal" in blind["value_collapse"]


@pytest.mark.parametrize("profile", ["default", "classic"])
def test_model_without_gradients_blinds_its_detectors_and_fires_nothing(profile: str) -> None:
    """A frozen policy has no vanishing gradient; it has none."""
    anomalies, blind = judge(run(unchanged, frozen=True), engine(profile), 60)
    assert [kind for kind, _ in serious(anomalies) if kind.startswith("gradient")] == []
    gradients = [key for key in blind if key.startswith("gradient")]
    assert len(gradients) == 5, blind
    assert all("call clip_grad_norm_" in blind[key] for key in gradients)


@pytest.mark.parametrize("total", [None, 5, 10**9])
def test_updates_total_that_is_unknown_or_wrong_fires_nothing(total: int | None) -> None:
    """Unknown: what depends on it is blind; too small: judged late; far too large: judged early."""
    anomalies, blind = judge(run(unchanged), engine("classic"), total)
    assert [kind for kind, _ in serious(anomalies) if kind in {"value_collapse", "performance_degradation"}] == []
    assert set(blind) == ({"value_collapse", "performance_degradation"} if total is None else set())


def test_run_resumed_at_update_300_learns_anew_and_finds_what_breaks() -> None:
    """The numbers of its updates are those of the trainer; its baselines are its own."""

    def change(update: int, given: dict[str, Any]) -> None:
        if update >= 350:
            given["ppo"]["old_logp"] = given["ppo"]["old_logp"] + 1.0

    anomalies, blind = judge(run(change, 60, first=300), engine(), 400)
    assert [(a.kind, a.update_onset) for a in anomalies if a.kind == "rollout_mismatch"] == [("rollout_mismatch", 350)]
    assert [a for a in anomalies if a.update_onset < 350 and a.severity is not Severity.INFO] == []
    assert unexpected(blind) == {}
