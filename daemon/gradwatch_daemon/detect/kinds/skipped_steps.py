"""Optimizer steps silently do not happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.spec import Spec, Variant, once
from gradwatch_daemon.detect.steps import WINDOW_UPDATES, StepWindow
from gradwatch_daemon.detect.view import NOTHING, Finding
from gradwatch_daemon.records.rules import Need, Threshold

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import Mask, View
    from gradwatch_daemon.records import F64, Verdicts
    from gradwatch_daemon.records.rules import Rule

STEPS, SKIPPED = "opt.steps", "opt.skipped"
_CRITICAL = Severity.CRITICAL.rank
_CALL = "pass the optimizer to watch()"


def check(view: View, rule: Rule) -> Verdicts:
    """A share of the window once it is full, or updates in a row in which nothing was learned at all."""
    math = view.math
    steps, skipped = view.input(STEPS), view.input(SKIPPED)
    usable = view.usable(steps) & view.usable(skipped)
    window = view.state.memory(StepWindow, "")
    share: Any
    idle: Any
    updates: Any
    if view.single:
        share, idle, updates = _step(window, steps.values, skipped.values) if usable else _UNKNOWN  # type: ignore[arg-type]
    else:
        share, idle, updates = _block(view, window, usable, steps.values, skipped.values)
    much, long = rule.threshold("share"), rule.threshold("updates_idle")
    full = updates >= WINDOW_UPDATES
    none = long.beyond(idle)
    often = full & much.beyond(share)
    inputs, note = (steps, skipped), _note(window) if window.updates < WINDOW_UPDATES else ""
    if view.single and not (none or often):
        return view.calm(rule, inputs, share <= 0, note=note)
    found = Finding(
        none | often,
        _CRITICAL,
        share <= 0,
        math.where(none, idle, share),
        math.where(none, long.limit, much.limit),
    )
    return view.answer(rule, inputs, found, note=note)


def _block(view: View, window: StepWindow, usable: Mask, taken: F64, skipped: F64) -> Any:
    """(share, idle, updates) f64[3, n]."""
    before = window.updates
    if usable.all() and not (skipped > 0).any() and window.calm(taken.tolist()):
        nothing = view.constants.number(0.0)
        return nothing, nothing, np.minimum(np.arange(before + 1.0, before + view.n + 1.0), WINDOW_UPDATES)
    rows = view.each(usable, taken, skipped, step=lambda a, b: _step(window, a, b), skip=lambda: _UNKNOWN)
    return np.array(rows).T


_UNKNOWN = (NOTHING, NOTHING, NOTHING)


def _step(window: StepWindow, taken: float, skipped: float) -> tuple[float, float, float]:
    share, idle = window.step(taken, skipped)
    return share, float(idle), float(window.updates)


def _note(window: StepWindow) -> str:
    return f"its share has {window.updates} of {WINDOW_UPDATES} updates to look at"


_VARIANT = Variant(
    check,
    (Need(STEPS, _CALL), Need(SKIPPED, _CALL)),
    (
        Threshold(
            "share",
            SKIPPED,
            ">",
            0.02,
            f"Share of optimizer steps skipped in {WINDOW_UPDATES} updates",
            severity=Severity.CRITICAL,
        ),
        Threshold(
            "updates_idle", SKIPPED, ">", 2.0, "Updates in a row without a single optimizer step", severity=Severity.CRITICAL
        ),
    ),
    once(Severity.CRITICAL),
    keep_firing=5,
    formula=f"skipped / (taken + skipped) > 0.02 over {WINDOW_UPDATES} updates, or 3 updates in a row with all steps skipped",
    warm_up=WINDOW_UPDATES,
)

SPEC = Spec(
    kind="skipped_steps",
    stage=Stage.OPT,
    title="Optimizer steps skipped",
    meaning="Minibatches were computed and their step was not taken. The loss looks normal while the model learns less, or "
    "nothing.",
    source="verl skips steps with a non-finite gradient norm and prints only; seen as a model that does not change in "
    "Agent-R1 #30, TTRL #33, verl #1197",
    fails_when="A mixed-precision loss scaler skips a few steps at the start while it looks for its scale; with few "
    "minibatches "
    "an update that can pass 2 %. An early stop at a target KL ends an update without skipping steps of minibatches.",
    tries=(
        "Look for non-finite gradients (the nonfinite detector names the stage): they are the usual reason for a skip.",
        "With mixed precision, look at the loss scale: if it keeps falling, the loss overflows; use bfloat16 or a "
        "smaller loss.",
        "Check the trainer for conditions around optimizer.step() that never become true.",
    ),
    sentence="{quantity}: {value} at update {update}, limit {limit}, since update {onset}.",
    profiles={"default": _VARIANT, "classic": _VARIANT},
)
