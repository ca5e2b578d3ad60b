"""What a page or a bundle says of a run: records of the store, and what detection makes of them. Read once, then pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.headlines import HEADLINES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradwatch_daemon.records import Anomaly, EventRecord, LossRecord, Run, SignalKey, Stream
    from gradwatch_daemon.store.protocol import Series, SignalSummary

SERIES_MAX = 16
"""Plots of one page: 16 of 300 places are about 250 kB."""

POINTS = 300
"""Places of one plot: half a pixel each."""

AROUND = 100
"""Updates before the onset and after the end that the page of an anomaly shows."""


@dataclass(frozen=True, slots=True)
class Report:
    """A run, or one anomaly of it (`about`), as far as it is shown.

    `anomalies` are documents of the API, newest first; `replayed` is the document of a replay under `rules`, None where the run
    was too long to replay for a page. `stream` is what the plots are of; `made` when, in words; `rows` are stored.
    """

    run: Run
    stream: Stream
    rows: int
    about: Mapping[str, Any] | None
    anomalies: Sequence[Mapping[str, Any]]
    series: Sequence[Series]
    limits: Mapping[str, Sequence[tuple[str, float]]]
    events: Sequence[EventRecord]
    losses: Sequence[LossRecord]
    replayed: Mapping[str, Any] | None
    profile: str
    made: str
    version: str


def chosen_signals(
    summaries: Sequence[SignalSummary], anomalies: Sequence[Anomaly], needs: Mapping[str, Sequence[str]]
) -> list[SignalKey]:
    """What to plot: what the anomalies were judged by, the headlines, then what else was measured. `needs` are the signals of
    each kind of anomaly."""
    known = {summary.key: summary for summary in summaries}
    # A count of what is not finite is best seen in the plot of what was counted, where it is marked.
    wanted = [name.removesuffix(".nonfinite") for anomaly in anomalies for name in needs.get(anomaly.kind, ())]
    chosen: list[SignalKey] = []
    for name in [*wanted, *HEADLINES]:
        chosen += [key for key in known if key.name == name and key not in chosen]
    rest = [key for key, summary in known.items() if key not in chosen and summary.measured and "nonfinite" not in key.name]
    return [*chosen, *rest][:SERIES_MAX]
