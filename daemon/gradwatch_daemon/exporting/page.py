"""A report as one HTML file: styles and plots inside, no script, nothing that is fetched from anywhere. Pure."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.exporting.plot import Band, Limit, plot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gradwatch_daemon.exporting.report import Report
    from gradwatch_daemon.store.protocol import Series

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page may fetch nothing, whatever is in it."""

GLYPHS = {"critical": "‼", "warning": "!", "info": "i"}
ANOMALIES_SHOWN = 200
EVENTS_SHOWN = 100
_FACTS_CHARS = 4000

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #666; --paper: #fff; --line: #0072b2; --rule: #ccc;
  --critical: #b00020; --warning: #a05a00; --info: #00627a; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --soft: #aaa; --paper: #151515; --line: #56b4e9; --rule: #444;
  --critical: #ff6b81; --warning: #ffb454; --info: #6cd0e8; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 78rem; margin: 1rem auto;
  padding: 0 1rem; } h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); } .critical { color: var(--critical); } .warning { color: var(--warning); }
.info { color: var(--info); } table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem .8rem .15rem 0;
  vertical-align: top; border-bottom: 1px solid var(--rule); } details { border-left: 3px solid var(--rule);
  padding-left: .7rem; margin: .5rem 0; } summary { cursor: pointer; font-weight: 600; }
.plots { display: grid; gap: .6rem 1.4rem; grid-template-columns: repeat(auto-fill, minmax(min(23rem, 100%), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; } figcaption .soft { font-weight: 400; } td { overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } svg text { font-size: 10px; fill: var(--soft); }
.line { fill: none; stroke: var(--line); stroke-width: 1.4; } .dot { fill: var(--line); }
.range { fill: var(--line); opacity: .25; } .axis { fill: none; stroke: var(--rule); }
.limit { stroke: var(--warning); stroke-dasharray: 5 4; fill: none; } svg .limit-name { fill: var(--warning); }
.nonfinite { stroke: var(--critical); stroke-width: 1.6; fill: none; } .gap { stroke: var(--soft); }
.band rect { opacity: .16; fill: currentColor; } svg .band text { fill: currentColor; font-weight: 700; }
"""


def render(report: Report) -> str:
    """The whole page."""
    title = _title(report)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *_facts(report),
        *_about(report),
        *_anomalies(report),
        *_plots(report),
        *_detectors(report),
        *_events(report),
        *_config(report),
        "</body></html>\n",
    ]
    return "".join(parts)


def _title(report: Report) -> str:
    if report.about is None:
        return f"{report.run.run}: what gradwatch recorded"
    return f"{report.run.run}: {report.about['kind']} at update {report.about['update_fired']}"


def _facts(report: Report) -> list[str]:
    run = report.run
    lost = sum(loss.last_seq - loss.first_seq + 1 for loss in report.losses)
    total = f" of {run.updates_total}" if run.updates_total is not None else ""
    updates = [int(series.update.max()) for series in report.series if len(series.update)]
    said = f"{run.state}, attempt {run.attempt}"
    said += f", update {max(updates)}{total}" if updates else ", no update stored"
    reasons = ", ".join(sorted({loss.reason for loss in report.losses}))
    covered = f"{lost} records never came ({reasons})" if lost else "no record is known to be lost"
    return [
        f"<p>{escape(said)}. {report.rows} rows stored; {escape(covered)}.</p>",
        f'<p class="soft">Written {escape(report.made)} by gradwatch {escape(report.version)}, rules {escape(report.profile)}.'
        " This file needs no network.</p>",
    ]


def _about(report: Report) -> list[str]:
    return [] if report.about is None else ["<h2>The anomaly</h2>", *_anomaly(report.about, whole=True)]


def _anomaly(item: Mapping[str, Any], *, whole: bool) -> list[str]:
    """One anomaly: closed to its first line unless `whole`."""
    subject = f" [{item['subject']}]" if item["subject"] else ""
    mark = GLYPHS.get(item["severity"], "?")
    head = (
        f'<span class="{escape(item["severity"])}">{mark} {escape(item["severity"])}</span> {escape(item["kind"] + subject)},'
        f" update {item['update_onset']}, {escape(item['state'])}"
    )
    numbers = ", ".join(
        f"{name} {_number(item[name])}" if item[name] is not None else f"{name}: {item['status'].get(name, 'not measured')}"
        for name in ("value", "limit", "baseline")
    )
    root = item["root"]
    minibatch = "" if root["minibatch"] is None else f", minibatch {root['minibatch']}"
    lines = [
        f"<p><b>{escape(item['sentence'])}</b></p>",
        f"<p>{escape(numbers)}. Began at update {root['update']}{minibatch}, in stage {escape(root['stage'])};"
        f" fired at {item['update_fired']}, last seen at {item['update_last']}, {item['count']} times.</p>",
    ]
    if item["attached"]:
        found = ", ".join(f"{one['kind']} at update {one['update_fired']}" for one in item["attached"])
        lines.append(f"<p>It explains: {escape(found)}.</p>")
    if item["try"]:
        lines.append("<p>What to try:</p><ol>" + "".join(f"<li>{escape(step)}</li>" for step in item["try"]) + "</ol>")
    lines.append(f'<p class="soft">id {escape(item["id"])}, rules {escape(item["evidence"]["rules_hash"])}</p>')
    return [f"<details{' open' if whole else ''}><summary>{head}</summary>", *lines, "</details>"]


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


def _plots(report: Report) -> list[str]:
    if not report.series:
        return ["<h2>Signals</h2><p>Nothing was measured.</p>"]
    where = f"attempt {report.stream.attempt}"
    bands = [_band(item) for item in reversed(report.anomalies) if item["attempt"] == report.stream.attempt]
    figures = [_figure(series, bands, report.limits.get(series.key.name, ())) for series in report.series]
    legend = (
        "Crosses below a plot: a value was NaN or infinite. Ticks: nothing was measured. Shaded: an anomaly. Dashed: a limit of"
        " the rules. A wide line is the range of the updates that share a place."
    )
    head = f'<h2>Signals, {where}</h2><p class="soft">{legend}</p><div class="plots">'
    return [head, *figures, "</div>"]


def _band(item: Mapping[str, Any]) -> Band:
    mark = GLYPHS.get(item["severity"], "?")
    return Band(item["update_onset"], item["update_last"], item["severity"], f"{item['kind']}: {item['sentence']}", mark)


def _figure(series: Series, bands: Sequence[Band], limits: Iterable[tuple[str, float]]) -> str:
    key = series.key
    name = f"{key.name} [{key.subject}]" if key.subject else key.name
    signal = SIGNALS.get(key.name)
    unit = signal.unit.value if signal else ""
    how = f"{signal.estimator}; {signal.window}" if signal else "unknown to this version"
    drawn = plot(series, name, unit, bands, [Limit(value, text) for text, value in limits])
    return f'<figure><figcaption>{escape(name)} <span class="soft">{escape(how)}</span></figcaption>{drawn}</figure>'


def _anomalies(report: Report) -> list[str]:
    if report.about is not None:
        others = [item for item in report.anomalies if item["id"] != report.about["id"]]
        head = "<h2>Other anomalies of the run</h2>"
    else:
        others, head = list(report.anomalies), "<h2>Anomalies</h2>"
    if not others:
        return [head, "<p>None. Under Detectors below is said which could see.</p>"]
    # The newest is open where nothing else is said of one.
    opened = [report.about is None and place == 0 for place in range(len(others))]
    pairs = zip(others[:ANOMALIES_SHOWN], opened, strict=False)
    shown = [part for item, whole in pairs for part in _anomaly(item, whole=whole)]
    cut = f"<p>{len(others) - ANOMALIES_SHOWN} older ones are not shown.</p>" if len(others) > ANOMALIES_SHOWN else ""
    return [head, *shown, cut]


_STATES = ("firing", "blind", "learning")


def _detectors(report: Report) -> list[str]:
    """Who could see: an empty list of anomalies means nothing without it."""
    if report.replayed is None:
        said = "The run is too long to replay for a page; `gradwatch replay` says which detectors could see."
        return ["<h2>Detectors</h2>", f"<p>{said}</p>"]
    counts = report.replayed["detectors"]
    said = ", ".join(f"{counts[state]} {state}" for state in ("firing", "armed", "learning", "blind") if counts[state])
    rows = {
        (one["state"], one["kind"], one["subject"]): one["add"] or one["reason"]
        for stream in report.replayed["streams"]
        for one in stream["standings"]
        if one["state"] in _STATES
    }
    table = [
        f"<tr><td>{escape(state)}</td><td>{escape(kind)} {escape(subject)}</td><td>{escape(why)}</td></tr>"
        for (state, kind, subject), why in sorted(rows.items(), key=lambda row: (_STATES.index(row[0][0]), row[0]))
    ]
    doubts = [f"<p>Inconclusive: {escape(why)}.</p>" for why in report.replayed["inconclusive"]]
    head = "<tr><th>state</th><th>detector</th><th>why, or the line to add to the trainer</th></tr>"
    return ["<h2>Detectors</h2>", f"<p>{said or 'none'}.</p>", *doubts, "<table>", head, *table, "</table>"]


def _events(report: Report) -> list[str]:
    told = [event for event in report.events if event.seq >= 0 or event.kind in {"ranks", "beside"}][:EVENTS_SHOWN]
    if not told:
        return []
    rows = [
        f"<tr><td>{event.update}</td><td>{escape(event.kind)}</td><td>{escape(event.text[:_FACTS_CHARS])}</td></tr>"
        for event in told
    ]
    return ["<h2>Events</h2><table><tr><th>update</th><th>kind</th><th></th></tr>", *rows, "</table>"]


def _config(report: Report) -> list[str]:
    run = report.run
    said: dict[str, Any] = {**{f"tag {name}": value for name, value in run.tags.items()}, **run.labels, **run.config}
    rows = [
        f"<tr><td>{escape(name)}</td><td>{escape(json.dumps(value, ensure_ascii=False)[:_FACTS_CHARS])}</td></tr>"
        for name, value in said.items()
    ]
    return ["<h2>Configuration</h2><table>", *rows, "</table>"] if rows else []
