"""Records were lost, or a signal that always came does not come any more: then silence is not health."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.arrivals import RECORDS, Arrivals
from gradwatch_daemon.detect.layout import EARLY
from gradwatch_daemon.detect.presence import CLASS_ARRAY, STEADY, Presence, Watched
from gradwatch_daemon.detect.reasons import nothing_sent
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.detect.view import BLIND, BREACH, CLEAR, CODES, NOTHING
from gradwatch_daemon.records import Verdicts
from gradwatch_daemon.records.rules import Threshold, Vote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.detect.state import StreamState
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Numbers
    from gradwatch_daemon.records.rules import Rule

KIND = "telemetry_gap"
REASONS_MAX = 16
"""Subjects a stream may have; reasons come from the agent, and a bad one must not fill the memory."""

REASON_CHARS_MAX = 64
OTHER = "other"


def check(view: View, rule: Rule) -> Verdicts:
    """Missing signals by agent call. Losses are no rows: `judge_loss` sees them; for them every row is clear."""
    told: tuple[dict[str, list[int]], bytes] | None = view.shared.get(KIND)
    if told is None:
        told = view.shared[KIND] = _missing(view)
        for call in told[0]:
            view.state.learn_subject(KIND, call)
    missing, idle = told
    verdicts = judge_counts(view, rule, rule.threshold("updates_missing").limit, missing.get(view.subject))
    return verdicts if view.subject else mark_idle(view, verdicts, idle)


def judge_counts(view: View, rule: Rule, limit: float, counts: Sequence[int] | None) -> Verdicts:
    """A warning where the count of a row, of updates that something has lasted, is above the limit. None is a count of 0."""
    if view.single and (counts is None or counts[0] <= limit):
        return view.calm_row(rule.kind, CLEAR)
    if counts is None or max(counts) <= limit:
        return _verdicts(view, rule, CODES[CLEAR] * view.n, None, limit)
    code = b"".join(CODES[BREACH if count > limit else CLEAR] for count in counts)
    return _verdicts(view, rule, code, counts, limit)


def mark_idle(view: View, verdicts: Verdicts, idle: bytes) -> Verdicts:
    """Blind in the rows whose byte in `idle` is not 0: nothing came yet that could be watched."""
    if not any(idle):
        return verdicts
    code = bytes(BLIND if blind else said for blind, said in zip(idle, verdicts.code, strict=True))
    status = view.row[1] if view.single else view.block.status[:, -1].tobytes()
    return verdicts._replace(code=code, reason=nothing_sent(status) if idle[-1] else verdicts.reason)


def _verdicts(view: View, rule: Rule, code: bytes, counts: Sequence[int] | None, limit: float) -> Verdicts:
    kind, warning = rule.kind, Severity.WARNING.rank
    if view.single:
        value: Numbers = (NOTHING if counts is None else float(counts[0]),)
        return Verdicts(kind, view.subject, code, (warning,), value, (limit,), (NOTHING,), (EARLY,), (rule.stage_order,))
    constants = view.constants
    nothing = constants.number(NOTHING)
    value = nothing if counts is None else np.array([count if count > limit else NOTHING for count in counts])
    severity, stage = constants.integer(warning), constants.integer(rule.stage_order)
    limits = constants.number(limit)
    return Verdicts(kind, view.subject, code, severity, value, limits, nothing, constants.early, stage)


def _missing(view: View) -> tuple[dict[str, list[int]], bytes]:
    """Agent call → for each row, updates for which a signal of it that always came has been missing; and for each row
    whether there was nothing yet to watch."""
    presence, watched = view.state.memory(Presence, ""), view.layout.plan(KIND, Watched.of)
    if view.single:
        if view.whole is None:
            presence.step(watched, watched.pattern(view.row[1]), 1)
        idle = b"\0" if presence.watching else b"\1"
        return ({} if presence.complete else {call: [count] for call, count in presence.missing().items()}), idle
    classes = CLASS_ARRAY[view.block.status[watched.rows]]
    whole = view.whole if view.whole is not None else np.ones(view.n, np.bool_)
    changed = classes[:, 1:] != classes[:, :-1]
    cut = whole[1:] != whole[:-1]
    changes = np.flatnonzero(changed.any(axis=0) | cut) + 1 if changed.any() or cut.any() else np.zeros(0, np.int64)
    found: dict[str, list[int]] = {}
    edges, idle = [0, *changes.tolist(), view.n], b""
    for first, last in itertools.pairwise(edges):
        pattern = classes[:, first].tobytes()
        if not whole[first]:
            _extend(found, presence.missing(), first, last - first)
        else:
            presence.step(watched, pattern, 1)
            if presence.complete:
                presence.step(watched, pattern, last - first - 1)
            else:
                _extend(found, presence.missing(), first, 1)
                for row in range(first + 1, last):
                    presence.step(watched, pattern, 1)
                    _extend(found, presence.missing(), row, 1)
        idle += (b"\0" if presence.watching else b"\1") * (last - first)
    return {call: counts + [0] * (view.n - len(counts)) for call, counts in found.items()}, idle


def _extend(found: dict[str, list[int]], missing: dict[str, int], first: int, rows: int) -> None:
    for call, count in missing.items():
        counts = found.setdefault(call, [])
        counts += [0] * (first - len(counts)) + [count] * rows


def judge_loss(state: StreamState, rule: Rule, reason: str, count: int) -> list[Verdicts]:
    """A loss is at least info; more than the limit among the last `RECORDS` records is a warning."""
    share = rule.threshold("share")
    lost = state.memory(Arrivals, "").lost(count)
    subject = reason[:REASON_CHARS_MAX] or OTHER
    known = state.subjects.get(KIND, ())
    if subject not in known and len(known) >= REASONS_MAX:
        subject = OTHER
    state.learn_subject(KIND, subject)
    rank = Severity.WARNING.rank if share.beyond(lost) else Severity.INFO.rank
    stage = (rule.stage_order,)
    return [Verdicts(KIND, subject, CODES[BREACH], (rank,), (lost,), (share.limit,), (NOTHING,), (EARLY,), stage)]


_VARIANT = Variant(
    check,
    (),
    (
        Threshold("share", "", ">", 0.01, f"Lost share of the last {RECORDS} records", severity=Severity.WARNING),
        Threshold("updates_missing", "", ">", 4.0, "Updates without a signal that always came", severity=Severity.WARNING),
    ),
    (Vote(Severity.WARNING, 1, 1, Severity.WARNING), Vote(Severity.INFO, 1, 1, Severity.INFO)),
    keep_firing=20,
    formula=f"info: any loss; warning: more than 1 % of the last {RECORDS} records lost, or more than 4 updates without "
    "a signal "
    f"that came in {STEADY} updates in a row",
    warm_up=STEADY,
)

SPEC = Spec(
    kind=KIND,
    stage=Stage.TELEM,
    title="Telemetry has gaps",
    meaning="What the other detectors say holds only for what came. Records were dropped, or a call the trainer always made is "
    "not made any more, and the detectors that need it are blind.",
    source="sequence numbers: every record is acknowledged or covered by a loss; absence of evidence is never read as health",
    fails_when="A trainer that changes its own algorithm on purpose (an auxiliary phase without policy loss) stops calls for a "
    "reason. What the telemetry level or thinning leaves out is no gap.",
    tries=(
        "A missing signal: look at what changed in the trainer at the onset; the detectors say which line feeds them.",
        "Outbox full: the daemon was away or too slow for longer than the trainer can hold; restart it, or give it a disk.",
        "Device busy: updates end faster than their statistics are copied; lower the level.",
    ),
    sentence="{quantity}{subject}: {value} at update {update}, limit {limit}, since update {onset}.",
    subject_words=" ({})",
    meets=True,
    profiles={"default": _VARIANT, "classic": _VARIANT},
)
