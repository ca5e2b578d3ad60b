"""What detection remembers of one stream between blocks, and its bytes.

Everything here is a function of the rows and recorded events seen, never of how they were batched; `dump` is canonical, so
equal states have equal bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgpack

from gradwatch_daemon.detect.arrivals import Arrivals
from gradwatch_daemon.detect.baseline import Baseline, Scale
from gradwatch_daemon.detect.cusum import Cusum
from gradwatch_daemon.detect.ema import Average, Ema
from gradwatch_daemon.detect.presence import Presence
from gradwatch_daemon.detect.recent import Recent
from gradwatch_daemon.detect.returns import EpisodeWindow, Held, RollingBest
from gradwatch_daemon.detect.steps import StepWindow
from gradwatch_daemon.detect.trend import Best, Trend

if TYPE_CHECKING:
    from gradwatch_daemon.detect.memory import Memory

    M = TypeVar("M", bound=Memory)

FORMAT = 2
"""Of `dump`. Another one is not read: the pipeline then replays from the store."""

_KINDS: dict[str, type[Memory]] = {
    kind.TAG: kind
    for kind in (Arrivals, Average, Best, Cusum, Ema, EpisodeWindow, Held, Presence, Recent, RollingBest, StepWindow, Trend)
}


class StreamState:
    """Baselines, other memories and the known subjects of one stream. Owned by the pipeline thread."""

    __slots__ = ("_baselines", "_memories", "_scales", "subjects", "update_last")

    def __init__(self) -> None:
        self._baselines: dict[tuple[str, str], Baseline] = {}
        self._scales: dict[tuple[str, str], Scale] = {}
        self._memories: dict[tuple[str, str, str], Memory] = {}
        self.subjects: dict[str, tuple[str, ...]] = {}
        self.update_last: int | None = None

    def baseline(self, key: tuple[str, str], scale: Scale) -> Baseline:
        """The one baseline of a series, made on first use."""
        baseline = self._baselines.get(key)
        if baseline is None:
            baseline = self._baselines[key] = Baseline(scale)
            self._scales[key] = scale
        return baseline

    def memory(self, kind: type[M], name: str, subject: str = "") -> M:
        """The one memory of its kind under a name, made on first use."""
        key = (kind.TAG, name, subject)
        found = self._memories.get(key)
        if found is None:
            found = self._memories[key] = kind()
        return found  # type: ignore[return-value]

    def rewind(self, update: int) -> None:
        """The trainer goes on from `update`, which is not after the last one: what hangs on update numbers follows."""
        for memory in self._memories.values():
            memory.rewind(update)

    def learn_subject(self, name: str, subject: str) -> None:
        """Add a subject that a detector met by itself."""
        known = self.subjects.get(name, ())
        if subject not in known:
            self.subjects[name] = (*known, subject)

    def dump(self) -> bytes:
        """Canonical bytes: equal states give equal bytes."""
        scales = self._scales
        return cast(
            "bytes",
            msgpack.packb(
                [
                    FORMAT,
                    self.update_last,
                    [
                        [*key, [scales[key].log, scales[key].mad_least, scales[key].least], baseline.state()]
                        for key, baseline in sorted(self._baselines.items())
                    ],
                    [[*key, memory.state()] for key, memory in sorted(self._memories.items())],
                    [[name, list(subjects)] for name, subjects in sorted(self.subjects.items())],
                ]
            ),
        )

    def load(self, data: bytes) -> None:
        """Become the state that gave these bytes.

        Raises:
            ValueError: for bytes of another format; the stream must then be replayed.
        """
        unpacked: list[Any] = msgpack.unpackb(data)
        if unpacked[0] != FORMAT:
            raise ValueError(f"detector state: expected format {FORMAT}, got {unpacked[0]!r}; replay the stream")
        _, self.update_last, baselines, memories, subjects = unpacked
        self._scales = {(name, subject): Scale(*scale) for name, subject, scale, _ in baselines}
        self._baselines = {(name, subject): Baseline.restored(Scale(*scale), kept) for name, subject, scale, kept in baselines}
        self._memories = {(tag, name, subject): _KINDS[tag].restored(kept) for tag, name, subject, kept in memories}
        self.subjects = {name: tuple(known) for name, known in subjects}
