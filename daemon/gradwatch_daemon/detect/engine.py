"""Runs the detectors of a profile over a block. The one way from signals to verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.detect.state import StreamState
from gradwatch_daemon.detect.view import Constants, Layout, View

if TYPE_CHECKING:
    from gradwatch_daemon.detect.catalogue import Detector, Profile
    from gradwatch_daemon.records import SignalBlock, SignalKey, Verdicts

__all__ = ["Engine", "StreamState"]

LAYOUTS_MAX = 256
"""Layouts remembered, one per schema in use, and block lengths; all are forgotten beyond it and made again."""


class Engine:
    """Stateless but for remembered layouts and constants: what a stream has seen is in its `StreamState`."""

    __slots__ = ("_constants", "_layouts", "profile")

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._layouts: dict[int, Layout] = {}
        self._constants: dict[int, Constants] = {}

    def check(self, state: StreamState, block: SignalBlock, updates_total: int | None = None) -> list[Verdicts]:
        """Judge the rows of one stream, in order of update, and let `state` learn from them.

        One `Verdicts` per detector, per subject for those that have any, in the order of the catalogue; a subject seen
        before that is not in these rows any more is blind. Rows may be split into blocks in any way: verdicts and state
        are the same. `updates_total` is for rules that depend on progress.
        """
        if not len(block):
            return []
        view = View(block, self._layout(block.signals), self._constants_of(len(block)), state, updates_total)
        verdicts = []
        for detector in self.profile.detectors:
            for subject in self._subjects(detector, view):
                view.subject = subject
                verdicts.append(detector.check(view, detector.rule))
        return verdicts

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
    def _subjects(detector: Detector, view: View) -> tuple[str, ...]:
        if not detector.per:
            return ("",)
        known, sent = view.state.subjects.get(detector.per, ()), view.layout.subjects.get(detector.per, ())
        new = tuple(subject for subject in sent if subject not in known)
        if new:
            known = view.state.subjects[detector.per] = known + new
        return known or ("",)
