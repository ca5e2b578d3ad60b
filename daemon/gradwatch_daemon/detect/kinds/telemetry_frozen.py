"""A call sends the same numbers again and again, to the last bit: they are not of this run any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.frozen import MEASURED_LEAST, VARIED, Frozen, Group, came, groups_of
from gradwatch_daemon.detect.kinds.telemetry_gap import judge_counts, mark_idle
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.records.rules import Rule

KIND = "telemetry_frozen"


def check(view: View, rule: Rule) -> Verdicts:
    """Updates with exactly the same numbers, by agent call."""
    told: tuple[dict[str, list[int]], bytes] | None = view.shared.get(KIND)
    if told is None:
        told = view.shared[KIND] = _told(view)
    still, idle = told
    verdicts = judge_counts(view, rule, rule.threshold("updates").limit, still.get(view.subject))
    return verdicts if view.subject else mark_idle(view, verdicts, idle)


def _told(view: View) -> tuple[dict[str, list[int]], bytes]:
    """Agent call → for each row, updates for which its numbers have stood still; and for each row whether none came yet."""
    frozen, groups = view.state.memory(Frozen, ""), view.layout.plan(KIND, groups_of)
    watching = frozen.watching
    new = [group for group in groups if not frozen.knows(group.call)]
    met = sorted((_first(view, group), group.call) for group in new) if new else []
    still = _still_row(view, frozen, groups) if view.single else {group.call: _still(view, frozen, group) for group in groups}
    for first, call in met:  # in the order in which rows alone meet them
        if first < view.n:
            view.state.learn_subject(KIND, call)
    begun = 0 if watching else met[0][0] if met else view.n
    return still, b"\1" * begun + b"\0" * (view.n - begun)


def _first(view: View, group: Group) -> int:
    """The first row that counts as one of a call, the number of rows where none does."""
    if view.single:
        came_alone = view.whole is None and group.pattern(view.row[1]).count(0) >= MEASURED_LEAST
        return 0 if came_alone else view.n
    whole = np.ones(view.n, np.bool_) if view.whole is None else view.whole
    enough = came(view.block.status[group.rows]) & whole
    return int(np.argmax(enough)) if enough.any() else view.n


def _still_row(view: View, frozen: Frozen, groups: tuple[Group, ...]) -> dict[str, list[int]]:
    """`_still` of each call in one row."""
    if view.whole is not None:
        return {}
    values, status = view.row
    return {group.call: [frozen.step(group.call, group.pick(values), group.pattern(status))] for group in groups}


def _still(view: View, frozen: Frozen, group: Group) -> list[int]:
    """For each row, updates for which the numbers of a call have stood still; an update that was cut short says nothing."""
    whole = np.ones(view.n, np.bool_) if view.whole is None else view.whole
    return frozen.steps(group.call, view.block.values[group.rows], view.block.status[group.rows], whole)


SPEC = Spec(
    kind=KIND,
    stage=Stage.TELEM,
    title="Telemetry stands still",
    meaning="Every number of one call is what it was an update ago, to the last bit, for many updates. No live run does that: "
    "the trainer passes a buffer that nobody fills any more, or does not train. What the other detectors say of it is old.",
    source="an all-constant signal says nothing of the run; absence of evidence is never read as health",
    fails_when="A trainer whose learning rate has reached 0 in an environment without chance; evaluation that repeats itself.",
    tries=(
        "Look at what is passed to the call it names: these are the tensors of an earlier update.",
        "Check that the rollout is collected anew each update, and the optimizer still steps.",
    ),
    meets=True,
    subject_words=" from mon.{}()",
    sentence="{quantity}{subject}: {value} at update {update}, limit {limit}, since update {onset}.",
    profiles={
        "default": Variant(
            check,
            (),
            (Threshold("updates", "", ">", 20.0, "Updates with exactly the same numbers", severity=Severity.WARNING),),
            (Vote(Severity.WARNING, 1, 1, Severity.WARNING),),
            keep_firing=3,
            formula="every measured signal of a call equal to the update before, for more than 20 updates, after "
            f"{VARIED} changes",
        ),
    },
)
