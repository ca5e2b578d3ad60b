"""Runs the detectors of a profile over a block. The one way from signals to verdicts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_daemon.detect.context import regime_changes
from gradwatch_daemon.detect.judge import judge
from gradwatch_daemon.detect.kinds import stall, telemetry_gap
from gradwatch_daemon.detect.lanes import make_plan, tracked
from gradwatch_daemon.detect.layout import Constants, Layout
from gradwatch_daemon.detect.series import series_of
from gradwatch_daemon.detect.state import StreamState
from gradwatch_daemon.detect.view import View
from gradwatch_daemon.records import Verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gradwatch_daemon.detect.catalogue import Detector, Profile
    from gradwatch_daemon.detect.lanes import Plan
    from gradwatch_daemon.records import SignalBlock, SignalKey

__all__ = ["Engine", "StreamState"]

LAYOUTS_MAX = 256
"""Layouts remembered, one per schema in use, and block lengths; all are forgotten beyond it and made again."""


class Engine:
    """Stateless but for remembered layouts, plans and constants: what a stream has seen is in its `StreamState`."""

    __slots__ = ("_constants", "_layouts", "_order", "_plans", "_rules", "profile")

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._order = [(d.rule.kind, d.check, d.rule, d) for d in profile.detectors]
        self._rules = [detector for detector in profile.detectors if detector.check is None]
        self._layouts: dict[int, Layout] = {}
        self._plans: dict[object, tuple[Layout, Plan]] = {}
        self._constants: dict[int, Constants] = {}

    def check(self, state: StreamState, block: SignalBlock, updates_total: int | None = None) -> list[Verdicts]:
        """Judge the rows of one stream in the order they came, and let `state` learn from them.

        One `Verdicts` per detector, per subject for those that have any, in the order of the catalogue; a subject seen
        before that is not in these rows any more is blind. Rows may be split into blocks in any way: verdicts and state
        are the same. Where an update is not after the one before it, the trainer went back (to a checkpoint), and what
        hangs on update numbers follows it. `updates_total` is for rules that depend on progress.
        """
        if not len(block):
            return []
        if len(block) == 1:
            return self._check_rising(state, block, updates_total)
        backs = (np.flatnonzero(block.update[1:] <= block.update[:-1]) + 1).tolist()
        if not backs:
            return self._check_rising(state, block, updates_total)
        edges = [0, *backs, len(block)]
        return _joined(
            [
                (last - first, self._check_rising(state, block.select(slice(first, last)), updates_total))
                for first, last in itertools.pairwise(edges)
            ]
        )

    def lose(self, state: StreamState, reason: str, count: int) -> list[Verdicts]:
        """Judge that `count` records never came, for a `reason`. The verdicts are of the update before them."""
        return telemetry_gap.judge_loss(state, self.profile.rules[telemetry_gap.SPEC.kind], reason, count)

    def deadline_ns(self, state: StreamState) -> int | None:
        """Time by which the next update is due, on the trainer's clock; None when it is not known or was told already."""
        return stall.deadline_ns(state, self.profile.rules[stall.SPEC.kind])

    def rhythm_s(self, state: StreamState) -> tuple[float | None, float]:
        """The usual time between updates and that after which one is a stall; (None, 0.0) while learning."""
        return stall.rhythm_s(state, self.profile.rules[stall.SPEC.kind])

    def tick(self, state: StreamState, t_ns: int) -> list[Verdicts]:
        """Judge that it is `t_ns`, on the trainer's clock, and no further update came; nothing before the deadline."""
        return stall.judge_tick(state, self.profile.rules[stall.SPEC.kind], t_ns)

    def _check_rising(self, state: StreamState, block: SignalBlock, updates_total: int | None) -> list[Verdicts]:
        first = int(block.update[0])
        if state.update_last is not None and first <= state.update_last:
            state.rewind(first)
        n = len(block)
        view = View(block, self._layout(block.signals), self._constants_of(n) if n > 1 else None, state, updates_total)
        verdicts: list[Verdicts] = []
        judged = judge(view, self._plan(view), regime_changes(view)) if self._rules else {}
        for kind, check, rule, detector in self._order:
            if check is None:
                verdicts += judged[kind]
                continue
            for subject in detector.subjects or self._subjects(detector, view):
                view.subject = subject
                verdicts.append(check(view, rule))
        state.update_last = int(block.update[-1])
        return verdicts

    def _plan(self, view: View) -> Plan:
        """How the rules with parts stand for the rows of this view."""
        state, layout = view.state, view.layout
        known = state.plans.get(id(layout))
        if known is not None and known[0] is layout and known[1].columns == len(state.board.keys):
            return known[1]
        subjects = [(d.rule, d.subjects or tuple(self._subjects(d, view))) for d in self._rules]
        keys = [
            (name, subject if layout.per_subject(series_of(name).signal) else "")
            for rule, each in subjects
            for name in tracked(rule)
            for subject in each
        ]
        state.catch_up()
        state.board.place(list(dict.fromkeys(keys)))
        if len(state.plans) >= LAYOUTS_MAX:
            state.plans.clear()
        # Streams of one schema share it: 4 ms and 40 kB for each of a thousand runs otherwise.
        made = self._plans.get(key := (id(layout), tuple(state.board.keys), tuple(each for _, each in subjects)))
        if made is None:
            if len(self._plans) >= LAYOUTS_MAX:
                self._plans.clear()
            made = self._plans[key] = layout, make_plan(layout, state.board.keys, subjects)
        state.plans[id(layout)] = made
        return made[1]

    def _layout(self, signals: tuple[SignalKey, ...]) -> Layout:
        """By identity, which is cheap and safe: the layout keeps its tuple alive, so the address is not used again."""
        layout = self._layouts.get(id(signals))
        if layout is None:
            if len(self._layouts) >= LAYOUTS_MAX:
                self._layouts.clear()
            layout = self._layouts[id(signals)] = Layout(signals)
        return layout

    def _constants_of(self, n: int) -> Constants:
        constants = self._constants.get(n)
        if constants is None:
            if len(self._constants) >= LAYOUTS_MAX:
                self._constants.clear()
            constants = self._constants[n] = Constants(n)
        return constants

    @staticmethod
    def _subjects(detector: Detector, view: View) -> Iterator[str] | tuple[str, ...]:
        if detector.per:
            known, sent = view.state.subjects.get(detector.per, ()), view.layout.subjects.get(detector.per, ())
            if known != sent:
                new = tuple(subject for subject in sent if subject not in known)
                if new:
                    known = view.state.subjects[detector.per] = known + new
            return known or ("",)
        return _met(detector.rule.kind, view)


def _met(kind: str, view: View) -> Iterator[str]:
    """The detector as a whole, then the subjects it has met, also those it meets in this block."""
    yield ""
    yield from view.state.subjects.get(kind, ())


def _joined(parts: list[tuple[int, list[Verdicts]]]) -> list[Verdicts]:
    """Verdicts over consecutive parts of a block as those of the whole; a subject met later has nothing before."""
    found: dict[tuple[str, str], list[Verdicts | int]] = {}
    for place, (_, verdicts) in enumerate(parts):
        for v in verdicts:
            held = found.setdefault((v.kind, v.subject), [rows for rows, _ in parts[:place]])
            held.append(v)
    return [_concatenate(pieces) for pieces in found.values()]


def _concatenate(pieces: list[Verdicts | int]) -> Verdicts:
    last = next(piece for piece in reversed(pieces) if isinstance(piece, Verdicts))
    every = [_nothing(last, piece) if isinstance(piece, int) else piece for piece in pieces]
    severity, value, limit, usual, minibatch, stage = (np.concatenate([v[place] for v in every]) for place in range(3, 9))
    code = b"".join(v.code for v in every)
    told = any(len(v.about) for v in every)
    about = np.concatenate([v.about if len(v.about) else np.zeros(len(v.code), np.int64) for v in every]) if told else ()
    return Verdicts(last.kind, last.subject, code, severity, value, limit, usual, minibatch, stage, last.reason, about)


def _nothing(like: Verdicts, rows: int) -> Verdicts:
    none = np.full(rows, np.nan)
    zeros, stage = np.zeros(rows, np.int64), np.full(rows, int(like.stage[0]), np.int64)
    return Verdicts(like.kind, like.subject, bytes(rows), zeros, none, none, none, zeros - 1, stage)
