"""The table of cases: what is trained, what is done to it and from when, and what a detector should make of it.

Sources: research on public failure reports of PPO; `docs/corpus.md` shows this table. Nothing here depends on a seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.corpus import faults, stresses
from benchmarks.corpus.disturbance import Disturbance
from benchmarks.corpus.setup import Setup

NEVER = 10**9
INJECT = 100
"""Update of most injections: past the 68 updates a robust baseline needs, with the task half learned."""

FAULT_SEEDS, TRICKY_SEEDS, PLAIN_SEEDS = 6, 10, 20


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of run, recorded for `seeds` seeds.

    `nature` is `abrupt`, `gradual` or `natural` for a fault and `healthy` for what is none. `accepts` are the kinds of
    anomaly that count as having found it, `roots` those that name its cause; both list every kind that says so, whatever
    catalogue is scored. `masks` are the signals that are the knob itself: nothing may be read off them. `of` is the case whose
    healthy seeds say what is normal here ('' for its own).
    """

    id: str
    title: str
    setup: Setup
    disturbance: type[Disturbance] = Disturbance
    inject: int = NEVER
    nature: str = "healthy"
    accepts: frozenset[str] = frozenset()
    roots: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset()
    seeds: int = PLAIN_SEEDS
    of: str = ""
    resume: tuple[int, int] | None = None
    arm: str = "own"

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.nature == "healthy"


CARTPOLE = Setup("CartPole", gamma=0.99, gae_lambda=0.99, lr=3e-3, copies=16, steps=32, normalize=True)
RAW_CARTPOLE = Setup("CartPole", gamma=0.99, gae_lambda=0.99, lr=2e-3)
ACROBOT = Setup("Acrobot", gamma=0.99, normalize=True)
PENDULUM = Setup("Pendulum", gamma=0.9, normalize=True)
POINTMASS = Setup("PointMass", gamma=0.95)
GRID = Setup("Grid5", gamma=0.95, relu=True)
LIBRARY = Setup("CartPole", gamma=0.99, gae_lambda=0.99, lr=1e-3, copies=16, steps=32)
RECALL = Setup("Recall", recurrent=True, hidden=32, copies=32, steps=24, minibatches=2, lr=3e-3, gamma=0.9)

ADAPTIVE = replace(CARTPOLE, kl_adaptive=True, target_kl=0.01, anneal=False, epochs=4)

KL = frozenset({"kl_spike", "kl_extreme", "kl_chronic", "kl_tail"})
RATIO = frozenset({"ratio_explosion", "ratio_collapse"})
ENTROPY_DOWN = frozenset({"entropy_collapse", "entropy_low", "std_collapse"})
VALUE = frozenset({"value_collapse", "critic_divergence", "constant_critic"})
GRADIENT_UP = frozenset({"gradient_exploding", "gradient_unhealthy", "gradient_drift"})
GRADIENT_DOWN = frozenset({"gradient_vanishing", "gradient_unhealthy", "gradient_drift", "update_stalled"})
INPUT = frozenset({"observation_unhealthy", "reward_unhealthy"})
REPRESENTATION = frozenset({"representation_collapse", "constant_critic"})
DEGRADED = frozenset({"performance_degradation"})
SPREAD_UP = frozenset({"entropy_explosion", "std_explosion"})
LSTM = frozenset({"lstm_unhealthy"})
NONFINITE = frozenset({"nonfinite"})
MISMATCH = frozenset({"rollout_mismatch"})
RATE = frozenset({"opt.lr"})


def _fault(  # noqa: PLR0917 - a table's row
    id: str,
    title: str,
    setup: Setup,
    disturbance: type[Disturbance],
    nature: str,
    of: str,
    roots: frozenset[str],
    also: frozenset[str] = frozenset(),
    inject: int = INJECT,
    masks: frozenset[str] = frozenset(),
    arm: str = "own",
) -> Case:
    setup = replace(setup, updates=min(setup.updates, inject + 100 if inject else 150))
    return Case(id, title, setup, disturbance, inject, nature, roots | also, roots, masks, FAULT_SEEDS, of, arm=arm)


PLAIN = (
    Case("plain-cartpole", "CartPole, normalized rewards", CARTPOLE),
    Case("plain-cartpole-raw", "CartPole, raw rewards", RAW_CARTPOLE),
    Case("plain-acrobot", "Acrobot, normalized rewards", ACROBOT),
    Case("plain-pendulum", "Pendulum, normalized rewards", PENDULUM),
    Case("plain-pointmass", "PointMass", POINTMASS),
    Case("plain-grid", "Grid5 with ReLU", GRID),
    Case("plain-recall", "Recall with an LSTM", RECALL),
    Case("plain-library", "CartPole, Stable-Baselines3", LIBRARY, seeds=TRICKY_SEEDS, arm="sb3"),
)

FAULTS = (
    _fault(
        "P01",
        "learning rate x100 for 3 updates",
        CARTPOLE,
        faults.LearningRateSpike,
        "abrupt",
        "plain-cartpole",
        KL | RATIO,
        DEGRADED | ENTROPY_DOWN,
        masks=RATE,
    ),
    _fault(
        "P02",
        "learning rate x30 from then on",
        CARTPOLE,
        faults.LearningRateHigh,
        "abrupt",
        "plain-cartpole",
        KL | RATIO,
        DEGRADED | ENTROPY_DOWN,
        masks=RATE,
    ),
    _fault(
        "P03",
        "entropy punished",
        replace(CARTPOLE, anneal=False),
        faults.EntropyPenalty,
        "gradual",
        "plain-cartpole",
        ENTROPY_DOWN,
    ),
    _fault(
        "P04", "rewards x1000", RAW_CARTPOLE, faults.RewardScale, "abrupt", "plain-cartpole-raw", VALUE | INPUT, GRADIENT_UP
    ),
    _fault("P05", "one NaN observation", CARTPOLE, faults.NanObservation, "abrupt", "plain-cartpole", NONFINITE),
    _fault("P06", "one infinite reward", POINTMASS, faults.InfiniteReward, "abrupt", "plain-pointmass", NONFINITE),
    _fault(
        "P07", "rewards with the wrong sign", CARTPOLE, faults.RewardSign, "abrupt", "plain-cartpole", VALUE | INPUT, DEGRADED
    ),
    _fault(
        "P08",
        "log-probabilities of the rollout before",
        CARTPOLE,
        faults.StaleLogp,
        "abrupt",
        "plain-cartpole",
        MISMATCH,
        RATIO | KL,
    ),
    _fault("P09", "critic head anew, x10", ACROBOT, faults.FreshCritic, "abrupt", "plain-acrobot", VALUE),
    _fault(
        "P10",
        "observations x1000",
        CARTPOLE,
        faults.LostNormalizer,
        "abrupt",
        "plain-cartpole",
        INPUT | GRADIENT_DOWN,
        DEGRADED | VALUE,
    ),
    _fault(
        "P11",
        "every hidden unit dead",
        GRID,
        faults.DeadUnits,
        "abrupt",
        "plain-grid",
        REPRESENTATION | GRADIENT_DOWN,
        DEGRADED | VALUE,
    ),
    _fault(
        "P12",
        "entropy bonus 0.5 from the start",
        replace(POINTMASS, ent_coef=0.5, lr=6e-3, anneal=False),
        Disturbance,
        "natural",
        "plain-pointmass",
        SPREAD_UP,
        inject=0,
    ),
    _fault(
        "P13",
        "spread as a raw parameter, driven to zero and below",
        replace(POINTMASS, raw_std=True, log_std=0.0),
        faults.FastSpread,
        "gradual",
        "plain-pointmass",
        ENTROPY_DOWN,
        KL | RATIO | NONFINITE,
        inject=60,
    ),
    _fault(
        "P14",
        "no clipping, 40 epochs",
        replace(CARTPOLE, updates=150),
        faults.Unclipped,
        "abrupt",
        "plain-cartpole",
        KL | RATIO,
        DEGRADED,
        masks=frozenset({"opt.steps"}),
    ),
    _fault("P15", "gates of the LSTM forced open", RECALL, faults.OpenGates, "abrupt", "plain-recall", LSTM),
)


def _library(  # noqa: PLR0917 - a table's row
    id: str,
    title: str,
    disturbance: type[Disturbance],
    nature: str,
    roots: frozenset[str],
    also: frozenset[str] = frozenset(),
    masks: frozenset[str] = frozenset(),
) -> Case:
    return _fault(id, title, LIBRARY, disturbance, nature, "plain-library", roots, also, masks=masks, arm="sb3")


LIBRARY_FAULTS = (
    _library("L01", "rewards x1000", faults.RewardScale, "abrupt", VALUE | INPUT, GRADIENT_UP),
    _library("L02", "one infinite reward", faults.InfiniteReward, "abrupt", NONFINITE),
    _library(
        "L03", "learning rate x30 from then on", faults.LearningRateHigh, "abrupt", KL | RATIO, DEGRADED | ENTROPY_DOWN, RATE
    ),
    _library("L04", "observations x1000", faults.LostNormalizer, "abrupt", INPUT | GRADIENT_DOWN, DEGRADED | VALUE),
    _library("L05", "rewards with the wrong sign", faults.RewardSign, "abrupt", VALUE | INPUT, DEGRADED),
)
"""The same library that most people train with, unmodified."""


def _tricky(id: str, title: str, setup: Setup, disturbance: type[Disturbance] = Disturbance, inject: int = 0) -> Case:
    return Case(id, title, setup, disturbance, inject, seeds=TRICKY_SEEDS)


TRICKY = (
    _tricky("T01", "CartPole solved and bootstrapped: hardly any variance of returns", replace(RAW_CARTPOLE, bootstrap=True)),
    _tricky("T02", "no reward at all", Setup("SparseGrid")),
    _tricky("T02b", "MountainCar, never solved", Setup("MountainCar")),
    _tricky(
        "T03", "entropy bonus annealed to 0, optimal deterministic policy", replace(GRID, ent_coef=0.02), stresses.EntropyAnneal
    ),
    _tricky("T03b", "TwoState, solved in a few updates", Setup("TwoState", gamma=0.9)),
    _tricky("T04", "learning rate warmed up, then along a cosine to 0", replace(CARTPOLE, anneal=False), stresses.WarmUpCosine),
    _tricky("T05", "rewards x3 at update 120", RAW_CARTPOLE, stresses.RewardTimesThree, 120),
    _tricky("T05b", "a harder level every 60 updates", replace(POINTMASS, anneal=False), stresses.Levels, 60),
    _tricky("T06", "Pendulum with raw rewards, from scratch", replace(PENDULUM, normalize=False)),
    _tricky("T07", "Acrobot at its plateau for 300 updates", replace(ACROBOT, normalize=False, updates=500)),
    _tricky("T08", "spread of the policy on a schedule from 1 to 0.05", POINTMASS, stresses.SpreadSchedule),
    _tricky("T09", "8 times as many environments at update 120", replace(CARTPOLE, updates=180), stresses.MoreCopies, 120),
    _tricky("T10", "heavy-tailed noise on rewards", POINTMASS, stresses.HeavyTails),
    _tricky("T10b", "one step in a hundred pays 50 times as much", POINTMASS, stresses.Jackpot),
    replace(_tricky("T11", "killed at update 130, resumed from a checkpoint of update 120", CARTPOLE), resume=(130, 120)),
    _tricky("T12", "learning rate adapted to the KL, updates ended early", ADAPTIVE),
    _tricky("T14", "pauses of ten updates every 25", POINTMASS, stresses.Pauses),
)

CASES: dict[str, Case] = {case.id: case for case in (*PLAIN, *FAULTS, *LIBRARY_FAULTS, *TRICKY)}
"""Id → case, in the order they are recorded and shown."""
