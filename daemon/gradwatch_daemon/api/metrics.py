"""/metrics: the daemon's own health and a few figures of each run, for Prometheus. Made at scrape, bounded in size."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from gradwatch_contracts import PROTOCOL_MAJOR
from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.api.context import ApiContext, DaemonHealth, context_of
from gradwatch_daemon.api.coverage import share
from gradwatch_daemon.api.exposition import CONTENT_TYPE, Family, Kind, expose
from gradwatch_daemon.api.runs import STATES
from gradwatch_daemon.records import Newest, RunView

RUNS_MAX = 100
"""Runs shown: some 3,000 samples, a page of 300 kB. What is left out is counted by gradwatch_runs_suppressed."""

WATCHED_STATES = ("live", "slow", "stalled", "lost")
"""What an alert can be about. Finished and crashed runs are counted by gradwatch_runs, or every run would be shown for ever."""

DETECTOR_STATES = ("armed", "learning", "blind", "firing")

EXAMPLE = """\
# HELP gradwatch_run_update Number of the newest update.
# TYPE gradwatch_run_update gauge
gradwatch_run_update{run="ant-ppo"} 120
"""

router = APIRouter(tags=["health"])


class Figure(NamedTuple):
    """One number of a run."""

    name: str
    kind: Kind
    help: str
    read: Callable[[RunView], float | None]


class Headline(NamedTuple):
    """A signal shown as a metric; `scale` makes base units of its unit. Of several subjects the least value is shown."""

    name: str
    signal: str
    scale: float = 1.0


FIGURES = (
    Figure("gradwatch_run_live", "gauge", "1 with a connected trainer, 0 when the connection was lost.", lambda v: int(v.live)),
    Figure("gradwatch_run_sessions", "gauge", "Connected processes.", lambda v: v.sessions),
    Figure("gradwatch_run_update", "gauge", "Number of the newest update.", lambda v: v.update_last),
    Figure("gradwatch_run_updates_planned", "gauge", "Length of the run, if given.", lambda v: v.run.updates_total),
    Figure(
        "gradwatch_run_last_seen_timestamp_seconds",
        "gauge",
        "When the run was last heard of, unix time.",
        lambda v: v.run.last_seen_ns / 1e9,
    ),
    Figure("gradwatch_run_rows_total", "counter", "Updates received over all attempts.", lambda v: v.rows),
    Figure("gradwatch_run_lost_records_total", "counter", "Records that never came, over all attempts.", lambda v: v.lost),
    Figure("gradwatch_run_thinned_rows", "gauge", "Updates of which only roll-ups are kept.", lambda v: v.thinned),
    Figure(
        "gradwatch_run_coverage_ratio",
        "gauge",
        "Share of the updates made that were received.",
        lambda v: share(v.rows, v.lost),
    ),
    Figure(
        "gradwatch_run_level",
        "gauge",
        "Telemetry level the agent confirmed: 0 off, 1 minimal, 2 normal, 3 debug.",
        lambda v: None if v.effective is None else int(v.effective),
    ),
)

HEADLINES = (
    Headline("gradwatch_run_kl_nats", "policy.kl.k3"),
    Headline("gradwatch_run_probability_ratio_max", "policy.ratio.max"),
    Headline("gradwatch_run_clipped_ratio", "policy.clip_fraction"),
    Headline("gradwatch_run_entropy_ratio", "policy.entropy.norm"),
    Headline("gradwatch_run_explained_variance_ratio", "value.explained_variance"),
    Headline("gradwatch_run_loss", "loss.total"),
    Headline("gradwatch_run_gradient_norm", "grad.norm.mean"),
    Headline("gradwatch_run_gradient_health_ratio", "grad.health"),
    Headline("gradwatch_run_learning_rate", "opt.lr"),
    Headline("gradwatch_run_episode_return", "episode.return.mean"),
    Headline("gradwatch_run_update_seconds", "sys.update_ms", 1e-3),
    Headline("gradwatch_run_agent_seconds", "sys.agent_ms", 1e-3),
)


def daemon_families(context: ApiContext, health: DaemonHealth, views: Mapping[str, RunView]) -> list[Family]:
    """The daemon itself. Counters start at 0 when it starts."""
    build = Family("gradwatch_build_info", "gauge", "Always 1; what runs here is in the labels.")
    build.add(1, version=context.version, protocol=str(PROTOCOL_MAJOR), profile=context.profile, sqlite=health.sqlite)
    refused = Family("gradwatch_frames_refused_total", "counter", "Frames and greetings of agents refused, by error code.")
    for code in sorted(health.refused):
        refused.add(health.refused[code], code=code)
    runs = Family("gradwatch_runs", "gauge", "Runs known, by state.")
    count = Counter(view.state or view.run.state for view in views.values())
    for state in STATES:
        runs.add(count[state], state=state)
    singles: tuple[tuple[str, Kind, str, float], ...] = (
        ("gradwatch_start_time_seconds", "gauge", "When the daemon started, unix time.", health.started_ns / 1e9),
        ("gradwatch_ready", "gauge", "1 when data can come in and be stored.", int(not context.ready())),
        ("gradwatch_frames_total", "counter", "Frames received from agents.", health.frames),
        ("gradwatch_rows_total", "counter", "Updates received from agents, without duplicates.", health.rows),
        ("gradwatch_quarantines_total", "counter", "Senders ignored for a while after bad frames.", health.quarantines),
        ("gradwatch_commits_total", "counter", "Transactions committed.", health.commits),
        (
            "gradwatch_commit_failures_total",
            "counter",
            "Transactions that failed; they are repeated.",
            health.commit_failures,
        ),
        ("gradwatch_data_free_bytes", "gauge", "Bytes free where runs are kept.", health.data_free_bytes),
        ("gradwatch_data_size_bytes", "gauge", "Size of the file system where runs are kept.", health.data_size_bytes),
        ("gradwatch_streams", "gauge", "Open connections to GET stream.", len(context.hub.clients)),
    )
    return [build, *(_single(*single) for single in singles), refused, runs]


def deliveries(context: ApiContext) -> Family:
    """What became of notifications: one that fails for long tells nobody, and this is where a rule can see it."""
    family = Family("gradwatch_deliveries", "gauge", "Notifications in the log, by channel and state.")
    for (channel, state), count in sorted(context.reader.delivery_counts().items()):
        family.add(count, channel=channel, state=state)
    return family


def _single(name: str, kind: Kind, help_: str, value: float) -> Family:
    family = Family(name, kind, help_)
    family.add(value)
    return family


def run_families(views: Iterable[RunView]) -> list[Family]:
    """The runs that are live or lost, live ones first, newest first, `RUNS_MAX` of them."""
    watched = [view for view in views if (view.state or view.run.state) in WATCHED_STATES]
    watched.sort(key=lambda view: (view.live, view.run.last_seen_ns, view.run.run), reverse=True)
    shown = watched[:RUNS_MAX]
    suppressed = _single(
        "gradwatch_runs_suppressed", "gauge", f"Live or lost runs left out below, beyond {RUNS_MAX}.", len(watched) - len(shown)
    )
    anomalies = Family("gradwatch_run_anomalies_open", "gauge", "Anomalies that are not resolved, by severity.")
    detectors = Family(
        "gradwatch_run_detectors", "gauge", "Detectors by state. One that is blind or learning says nothing about health."
    )
    for view in shown:
        severities = Counter(anomaly.severity for anomaly in view.open_anomalies)
        states = Counter(detector.state for detector in view.detectors)
        for severity in Severity:
            anomalies.add(severities[severity], run=view.run.run, severity=severity.value)
        for state in DETECTOR_STATES:
            detectors.add(states[state], run=view.run.run, state=state)
    return [suppressed, anomalies, detectors, *(_figure(figure, shown) for figure in FIGURES), *_headlines(shown)]


def _figure(figure: Figure, views: list[RunView]) -> Family:
    family = Family(figure.name, figure.kind, figure.help)
    for view in views:
        family.add(figure.read(view), run=view.run.run)
    return family


def _headlines(views: list[RunView]) -> list[Family]:
    """The newest value of each headline signal that was measured; one that was not has no sample."""
    families = []
    read = [(view.run.run, _least(view.newest)) for view in views if view.newest is not None]
    for headline in HEADLINES:
        signal = SIGNALS[headline.signal]
        each = f" The least over each {signal.spec.per}." if signal.spec.per else ""
        family = Family(headline.name, "gauge", f"{headline.signal}: {signal.estimator}; {signal.window}.{each}")
        for run, values in read:
            if headline.signal in values:
                family.add(values[headline.signal] * headline.scale, run=run)
        families.append(family)
    return families


def _least(newest: Newest) -> dict[str, float]:
    """Headline signal → its least measured value over subjects, NaN when one is."""
    wanted = {headline.signal for headline in HEADLINES}
    least: dict[str, float] = {}
    for place, key in enumerate(newest.signals):
        if key.name in wanted and newest.status[place] == 0:
            value = float(newest.values[place])
            known = least.get(key.name, math.inf)
            least[key.name] = value if math.isnan(value) or value < known else known
    return least


@router.get(
    "/metrics",
    response_class=Response,
    operation_id="metrics",
    summary="Figures for Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}}}},
)
async def metrics(request: Request) -> Response:
    """Prometheus text format 0.0.4. A value that was not measured has no sample."""
    context = context_of(request)
    views = dict(context.snapshots())

    def page() -> str:
        # In a worker thread: it asks the file system, and 100 runs are 10 ms of formatting.
        own = [*daemon_families(context, context.health(), views), deliveries(context)]
        return expose([*own, *run_families(views.values())])

    return Response(await anyio.to_thread.run_sync(page), media_type=CONTENT_TYPE)
