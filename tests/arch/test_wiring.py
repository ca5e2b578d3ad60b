"""Nothing is instantiated and never called, computed and dropped, or advertised and never produced.

The chain agent call → column → signal → detector → profile is checked link by link, from what each link declares and
from what it does: a real trainer on the agent's side, the real engine on the daemon's.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_agent.entry import watch
from gradwatch_agent.monitor import Monitor
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.needs import LINES, NEEDS, STAND_INS, Needs
from gradwatch_contracts.signals import COLUMNS, SIGNALS
from gradwatch_daemon.config import KEYS
from gradwatch_daemon.derive.formulas import FORMULAS
from gradwatch_daemon.detect import kinds
from gradwatch_daemon.detect.catalogue import CATALOGUE, load_profile
from gradwatch_daemon.detect.engine import Engine, StreamState
from gradwatch_daemon.records import SignalKey, Verdict
from harness.signal_blocks import make_block

if TYPE_CHECKING:
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.records.rules import Need, Rule

ROOT = Path(__file__).parents[2]
DAEMON = ROOT / "daemon" / "gradwatch_daemon"

CLASSIC = frozenset(
    {
        "nonfinite",
        "rollout_mismatch",
        "ratio_explosion",
        "ratio_collapse",
        "kl_spike",
        "kl_extreme",
        "entropy_low",
        "entropy_collapse",
        "value_collapse",
        "gradient_vanishing",
        "gradient_exploding",
        "gradient_unhealthy",
        "gradient_drift",
        "lstm_unhealthy",
        "performance_degradation",
        "skipped_steps",
        "telemetry_gap",
        "stall",
    }
)
"""Those that a fixed threshold can say."""

KINDS = CLASSIC | {
    "observation_unhealthy",
    "reward_unhealthy",
    "critic_divergence",
    "constant_critic",
    "advantage_degenerate",
    "kl_tail",
    "kl_chronic",
    "entropy_explosion",
    "clip_saturation",
    "update_stalled",
    "representation_collapse",
    "std_collapse",
    "std_explosion",
    "recurrent_reset",
    "no_learning",
    "slow_updates",
    "memory_growth",
    "optimizer_precursor",
    "telemetry_frozen",
    "rank_missing",
    "rank_desync",
    "rank_slow",
}
"""Every kind that README.md promises. A new one is added here too: what is listed twice is not deleted by accident."""

HOOK = "clip"
"""The one feed that is no call: torch's clipping and the optimizer's step."""

LEVELS = (Level.OFF, Level.MINIMAL, Level.NORMAL, Level.DEBUG)
RULES = [(spec.kind, name) for spec in CATALOGUE for name in spec.profiles]


# Agent: calls, collectors, levels.


@cache
def _measured(level: Level) -> frozenset[str]:
    """The columns that a trainer using every call measures at a level, over a healthy and a poisoned update."""
    from harness.whole_trainer import train

    return frozenset(name for row in train(level) for name, status in row.items() if status is Status.MEASURED)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the agent's own surface."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")


@pytest.mark.parametrize("name", COLUMNS)
def test_column_is_collected_at_its_level(name: str) -> None:
    """A consumer without a producer: a registered column that no collector produces, or one deleted from its level."""
    assert name in _measured(COLUMNS[name].level)


@pytest.mark.parametrize("name", [name for name in COLUMNS if COLUMNS[name].level > Level.OFF])
def test_column_is_not_collected_below_its_level(name: str) -> None:
    """A level that does not hold back what it is documented to hold back costs what it promises not to."""
    assert name not in _measured(Level(COLUMNS[name].level - 1))


@pytest.mark.parametrize(("lower", "higher"), list(itertools.pairwise(LEVELS)))
def test_level_changes_what_is_collected(lower: Level, higher: Level) -> None:
    """A level that changes nothing is a promise that nobody keeps."""
    assert _measured(lower) < _measured(higher)


def test_column_that_is_collected_is_read_by_a_signal() -> None:
    """A producer without a consumer: computed, sent, and dropped."""
    read = {name for signal in SIGNALS.values() for name in signal.columns}

    assert _measured(Level.DEBUG) - read == set()


@pytest.mark.parametrize("call", sorted({spec.call for spec in COLUMNS.values()} - {HOOK}))
def test_call_that_feeds_a_column_is_a_method_of_the_monitor(call: str) -> None:
    """What docs/signals.md tells a trainer to call exists."""
    assert callable(getattr(Monitor, call, None))


# Daemon: signals, formulas, detectors, profiles.


@pytest.mark.parametrize("name", SIGNALS)
def test_signal_names_known_columns_and_a_known_formula(name: str) -> None:
    """A signal that cannot be derived is a consumer without a producer."""
    assert set(SIGNALS[name].columns) <= set(COLUMNS)
    assert SIGNALS[name].formula in FORMULAS


def test_formula_without_a_signal_none_found() -> None:
    """A formula nobody asks for is dead code."""
    assert set(FORMULAS) - {signal.formula for signal in SIGNALS.values()} == set()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_detector_that_is_promised_is_in_default(kind: str) -> None:
    """Deleting one from the catalogue fails here by name."""
    assert kind in load_profile("default").rules


@pytest.mark.parametrize("kind", sorted(CLASSIC))
def test_detector_of_fixed_thresholds_is_in_classic_too(kind: str) -> None:
    """The profile that people know from elsewhere stays whole."""
    assert kind in load_profile("classic").rules


def test_detector_that_is_not_promised_none_found() -> None:
    """One that exists is written down here and in README.md."""
    assert {spec.kind for spec in CATALOGUE} - KINDS == set()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [spec.kind for spec in CATALOGUE if f"`{spec.kind}`" not in readme] == []


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(kinds.__path__)])
def test_detector_file_is_in_the_catalogue(name: str) -> None:
    """One file per kind, named like it, and none that is written and never listed."""
    spec = importlib.import_module(f"{kinds.__name__}.{name}").SPEC

    assert spec.kind == name
    assert spec in CATALOGUE


@pytest.mark.parametrize(("kind", "profile"), RULES)
def test_detector_reads_known_signals_that_a_call_feeds(kind: str, profile: str) -> None:
    """Needs and thresholds name signals of the registry, whose calls are the agent's."""
    rule = load_profile(profile).rules[kind]
    named = {need.signal for need in rule.needs} | {t.signal for t in rule.thresholds if t.signal}

    assert named - set(SIGNALS) == set()
    calls = {SIGNALS[name].spec.call for name in named}
    assert {call for call in calls if call != HOOK and not callable(getattr(Monitor, call, None))} == set()


@pytest.mark.parametrize(("kind", "profile"), RULES)
def test_detector_threshold_is_about_a_signal_that_it_needs(kind: str, profile: str) -> None:
    """A limit on something that the detector never reads decides nothing."""
    rule = load_profile(profile).rules[kind]

    assert {t.signal for t in rule.thresholds if t.signal} - {need.signal for need in rule.needs} == set()


_LINE = re.compile(r"pass (?:the )?([\w, ]+?) to (mon\.(\w+)|watch)\(\)")


@pytest.mark.parametrize(("kind", "profile"), RULES)
def test_detector_line_to_add_names_arguments_that_exist(kind: str, profile: str) -> None:
    """`pass entropy to mon.ppo()` is copied into trainers: the argument must be one."""
    for need in load_profile(profile).rules[kind].needs:
        for arguments, _, method in _LINE.findall(f"{need.add}; {need.undefined}"):
            known = inspect.signature(getattr(Monitor, method) if method else watch).parameters
            assert [word for word in re.split(r",? and |, ", arguments) if word not in known] == [], need


def _required() -> list[tuple[str, str, str]]:
    return [(kind, name, need.signal) for kind, name in RULES for need in _rule(kind, name).needs if not need.optional]


def _rule(kind: str, profile: str) -> Rule:
    return load_profile(profile).rules[kind]


def _subject(name: str) -> str:
    return "part" if SIGNALS[name].spec.per else ""


def _judge(profile: str, kind: str, without: str) -> list[Verdicts]:
    """What a detector says of updates in which every signal is measured but one, and what stands in for it."""
    signals = tuple(SignalKey(name, _subject(name)) for name in SIGNALS if name not in {without, STAND_INS.get(without)})
    block = make_block(np.arange(5), signals=signals, values=np.full((len(signals), 5), 0.5, np.float32))
    block.flags[:] = 0
    return [v for v in Engine(load_profile(profile)).check(StreamState(), block, 500) if v.kind == kind]


@pytest.mark.parametrize(("kind", "profile", "signal"), _required())
def test_detector_without_a_signal_it_needs_is_blind_and_names_the_line(kind: str, profile: str, signal: str) -> None:
    """A declared need that is not read, or read and not declared, shows here; HTTP finds the line in the reason."""
    need: Need = _rule(kind, profile).need(signal)

    blind = [v.reason for v in _judge(profile, kind, signal) if v.code[-1] == Verdict.BLIND]

    assert blind  # one that judges several series apart is blind in those that read this one
    assert [reason for reason in blind if need.add not in reason] == []


@pytest.mark.parametrize(("kind", "profile"), RULES)
def test_detector_with_every_signal_is_not_blind(kind: str, profile: str) -> None:
    """What it reads is among the signals that exist."""
    assert [v.reason for v in _judge(profile, kind, "") if v.code[-1] == Verdict.BLIND] == []


# Configuration.


FOLDED = {"notify_secret": "notify"}
"""Keys that are part of another once the configuration is read: each webhook holds its secret."""


@pytest.mark.parametrize("key", KEYS)
def test_config_key_is_read(key: str) -> None:
    """A key that nobody reads is a switch without a wire."""
    read_as = FOLDED.get(key, key)
    readers = [path for path in DAEMON.rglob("*.py") if path.name != "config.py" and read_as in _config_reads(path)]

    assert readers


@cache
def _config_reads(path: Path) -> frozenset[str]:
    """Attributes read from something called `config`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and (node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")) in {"config", "_config"}
    )


# The table of needs, which the agent reads: it knows no detector.


def _declared_needs(kind: str) -> Needs:
    """What a detector's file says, as the table says it."""
    needs = _rule(kind, "default").needs
    every = tuple(need.signal for need in needs if not need.optional)
    return Needs(every, () if every else tuple(need.signal for need in needs))


def test_table_of_needs_is_what_the_detectors_declare() -> None:
    """The agent's start-up line names the detectors that will be blind; it may not name others than the daemon does."""
    assert {spec.kind: _declared_needs(spec.kind) for spec in CATALOGUE} == NEEDS


def test_table_of_lines_is_what_the_detectors_declare() -> None:
    """The same words on both sides, and no line that is never said."""
    named = {name for needs in NEEDS.values() for name in needs.every + needs.some}
    declared = {n.signal: n.add for kind, name in RULES for n in _rule(kind, name).needs if n.signal in named}

    assert declared == LINES
