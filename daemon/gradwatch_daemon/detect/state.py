"""What detection remembers of one stream between blocks, and its bytes.

Everything here is a function of the rows seen, never of how they were batched; `dump` is canonical, so equal states
have equal bytes.
"""

from __future__ import annotations

from typing import Any, cast

import msgpack

from gradwatch_daemon.detect.baseline import Baseline, Scale
from gradwatch_daemon.detect.trend import Best, Trend
from gradwatch_daemon.records import SignalKey

FORMAT = 1
"""Of `dump`. Another one is not read: the pipeline then replays from the store."""


class StreamState:
    """Baselines, trends, the best return and the known subjects of one stream. Owned by the pipeline thread."""

    __slots__ = ("_baselines", "_scales", "best", "subjects", "trends")

    def __init__(self) -> None:
        self._baselines: dict[SignalKey, Baseline] = {}
        self._scales: dict[SignalKey, Scale] = {}
        self.trends: dict[SignalKey, Trend] = {}
        self.best = Best()
        self.subjects: dict[str, tuple[str, ...]] = {}

    def baseline(self, key: SignalKey, scale: Scale) -> Baseline:
        """The one baseline of a series, made on first use."""
        baseline = self._baselines.get(key)
        if baseline is None:
            baseline = self._baselines[key] = Baseline(scale)
            self._scales[key] = scale
        return baseline

    def dump(self) -> bytes:
        """Canonical bytes: equal states give equal bytes."""
        scales = self._scales
        return cast(
            "bytes",
            msgpack.packb(
                [
                    FORMAT,
                    [
                        [*key, [scales[key].log, scales[key].mad_least, scales[key].least], baseline.state()]
                        for key, baseline in sorted(self._baselines.items())
                    ],
                    [[*key, trend.state()] for key, trend in sorted(self.trends.items())],
                    self.best.state(),
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
        _, baselines, trends, best, subjects = unpacked
        self._scales = {SignalKey(name, subject): Scale(*scale) for name, subject, scale, _ in baselines}
        self._baselines = {
            SignalKey(name, subject): Baseline.restored(Scale(*scale), kept) for name, subject, scale, kept in baselines
        }
        self.trends = {SignalKey(name, subject): Trend.restored(kept) for name, subject, kept in trends}
        self.best = Best.restored(best)
        self.subjects = {name: tuple(known) for name, known in subjects}
