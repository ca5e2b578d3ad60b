// The grid of panels of a run, and what stands over it: axis, stretch, scale, which signals.
import { html, useEffect, useMemo, useState } from "../html.js";
import { AXES, axisFault } from "../chart/series.js";
import { Feed } from "../chart/feed.js";
import { amend, route } from "../route.js";
import { handle } from "../keyboard.js";
import { detectors } from "../store.js";
import { judged, judgedAs, titleOfSignal } from "../titles.js";
import { keyOf, number, SEVERITIES } from "../words.js";
import { EmptyPanel, Panel } from "./panel.js";
import { Trouble } from "./state.js";

/** What a run is judged by at a glance, in this order; the core ones stay when they are not sent, and say what to add. */
export const VITALS = [
  ["episode.return.mean", true], ["policy.kl.k3", true], ["policy.entropy.norm", true], ["policy.ratio.max", true], ["policy.clip_fraction", false],
  ["grad.norm.mean", true], ["value.explained_variance", true], ["value.error.rms", false], ["rnn.h.rms", false], ["grad.health", false],
  ["loss.total", false], ["opt.lr", false], ["sys.update_ms", false],
];
const PANELS_MAX = 24;
/** Heads, layers or keys of one signal in one panel: as many as there are colours with a dash of their own. */
const SUBJECTS = 8;
const RANGES = [["", "all"], ["500", "last 500"], ["100", "last 100"], ["30", "last 30"]];

/** Names of the panels: those in the address, else the vitals and what open anomalies are about. */
function chosen(query, signals, anomalies) {
  if (query.signals) return query.signals.split(",");
  const known = new Set(signals.map((item) => item.signal));
  const names = VITALS.filter(([name, core]) => core || known.has(name)).map(([name]) => judged(name, known));
  for (const anomaly of anomalies.filter((one) => one.state !== "resolved")) {
    const needs = detectors.value.get(anomaly.kind)?.needs.filter((one) => !one.optional).map((one) => judged(one.signal, known));
    const name = needs?.find((one) => known.has(one));
    if (name && !names.includes(name)) names.push(name);
  }
  return names.slice(0, PANELS_MAX);
}

/** Limits that are on a signal's own value, of rules that may fire. Those of several rules at one value are one line with all names. */
function limitsOf(name) {
  const found = new Map();
  for (const rule of detectors.value.values()) {
    for (const { signal, severity, value, comparison } of rule.thresholds) {
      if (signal !== name || !severity || typeof value !== "number") continue;
      const limit = `${comparison} ${number(value)}`;
      const known = found.get(limit) || { value, severity, kinds: [] };
      if (SEVERITIES[severity].rank > SEVERITIES[known.severity].rank) known.severity = severity;
      if (!known.kinds.includes(rule.kind)) known.kinds.push(rule.kind);
      found.set(limit, known);
    }
  }
  return [...found].map(([limit, { value, severity, kinds }]) => ({ value, severity, text: `${kinds.join(", ")} ${limit}` }));
}

/** Kinds that look at a signal: their anomalies are bands on its panel. */
function kindsOf(name) {
  return new Set([...detectors.value.values()].filter((rule) => rule.needs.some((need) => need.signal === name && !need.optional)).map((rule) => rule.kind));
}

function missing(name, signals) {
  const item = signals.find((one) => one.signal === name);
  const need = [...detectors.value.values()].flatMap((rule) => rule.needs).find((one) => one.signal === name);
  if (!item) return { why: "The trainer does not send this signal.", add: need?.line };
  const reasons = { level: `It is collected from level ${item.level} on.`, thinned: "It is thinned to stay within the overhead budget; no value has come yet." };
  return { why: reasons[item.status] || `${item.reason || "No value has come yet"}.`, add: item.status === "not_called" ? need?.line : "" };
}

function Toolbar({ view, data, count, onAdd }) {
  const fault = (axis) => (data ? axisFault(data, axis) : "");
  return html`<div class="toolbar" role="toolbar" aria-label="Charts">
    <label>x <select value=${view.axis} onChange=${(event) => amend({ x: event.target.value })}>${Object.entries(AXES).map(([name, { label }]) =>
      html`<option key=${name} value=${name} disabled=${Boolean(fault(name))} title=${fault(name)}>${label}${fault(name) ? " (not sent)" : ""}</option>`)}</select></label>
    <label>range <select value=${view.from !== null || view.to !== null ? "zoom" : view.last} onChange=${(event) => amend({ last: event.target.value, from: "", to: "" })}>
      ${(view.from !== null || view.to !== null) && html`<option value="zoom">${view.from ?? "start"} to ${view.to ?? "now"}</option>`}
      ${RANGES.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select></label>
    ${(view.from !== null || view.to !== null) && html`<button class="small" onClick=${() => amend({ from: "", to: "" })} title="whole run (0)">whole run</button>`}
    <button class="small" aria-pressed=${view.log} onClick=${() => amend({ log: view.log ? "" : "1" })} title="logarithmic scale (l)">log</button>
    <button class="small" aria-pressed=${view.bands} onClick=${() => amend({ bands: view.bands ? "0" : "" })} title="anomaly bands (b)">bands</button>
    <span class="spacer"></span>
    <span class="dim num">${data && data.bucket > 1 ? `${data.bucket} updates a point, extremes kept` : ""}</span>
    <button class="small" onClick=${onAdd} aria-haspopup="dialog">signals <span class="dim num">${count}</span></button>
  </div>`;
}

/** The view that the address asks for. */
export function viewOf(query) {
  const update = (text) => (/^\d+$/.test(text || "") ? Number(text) : null);
  return {
    axis: AXES[query.x] ? query.x : "update", log: query.log === "1", bands: query.bands !== "0", last: query.last || "",
    from: update(query.from), to: update(query.to), attempt: update(query.attempt),
  };
}

export function Panels({ run, signals, anomalies, levels, onAdd }) {
  const feed = useMemo(() => new Feed(run.run), [run.run]);
  useEffect(() => () => feed.close(), [feed]);
  const { query } = route.value;
  const view = viewOf(query);
  const names = chosen(query, signals, anomalies);
  const since = view.last && run.update_last !== null ? Math.max(0, run.update_last - Number(view.last) + 1) : null;
  // A moving window asks for its start rarely: the rest of it is cut when it is drawn.
  const from = view.from ?? (since === null ? null : Math.floor(since / 50) * 50);
  const data = feed.data.value;
  const axis = data && axisFault(data, view.axis) ? "update" : view.axis;

  const around = (factor) => {
    const [low, high] = [data.update[0], data.update.at(-1)];
    const middle = (low + high) / 2;
    const half = ((high - low) / 2) * factor;
    amend({ from: Math.max(0, Math.round(middle - half)), to: Math.round(middle + half) });
  };
  useEffect(() => handle({
    axis: () => { const order = Object.keys(AXES).filter((name) => !data || !axisFault(data, name)); amend({ x: order[(order.indexOf(axis) + 1) % order.length] }); },
    log: () => amend({ log: view.log ? "" : "1" }),
    bands: () => amend({ bands: view.bands ? "0" : "" }),
    "zoom-reset": () => amend({ from: "", to: "", last: "" }),
    "zoom-in": () => data && around(0.5),
    "zoom-out": () => data && (view.from === null && view.to === null ? false : around(2)),
  }));

  const shared = { feed, names, signals, anomalies, levels, since: view.from === null ? since : null, view: { ...view, axis } };
  return html`<section aria-label="Signals"><${Toolbar} view=${{ ...view, axis }} data=${data} count=${`${names.length} of ${new Set(signals.map((s) => s.signal)).size}`} onAdd=${onAdd} />
    <${PanelGrid} ...${shared} from=${from} onZoom=${(first, last) => amend({ from: first, to: last, last: "" })}
      onRemove=${query.signals ? (name) => amend({ signals: names.filter((other) => other !== name).join(",") }) : null} /></section>`;
}

/** Panels of some signals over one stretch; `since` cuts a moving window when it is drawn. */
export function PanelGrid({ feed, names, signals, anomalies, levels, view, from = view.from, since = null, onZoom, onRemove }) {
  const subjects = (name) => signals.filter((item) => item.signal === name).map((item) => item.subject);
  const keys = names.flatMap((name) => (subjects(name).length ? subjects(name).slice(0, SUBJECTS) : [""]).map((subject) => keyOf(name, subject)));
  useEffect(() => feed.want({ keys, from, to: view.to, attempt: view.attempt }));
  const sent = new Set(signals.map((item) => item.signal));
  const data = feed.data.value;
  const values = data && AXES[view.axis].of(data);
  const zoom = (low, high) => {
    const inside = data.update.filter((_, i) => values[i] >= low && values[i] <= high);
    if (inside.length > 1) onZoom(inside[0], inside.at(-1) + data.bucket - 1);
  };
  const window = () => {
    const first = since === null ? -1 : data.update.findIndex((update) => update >= since);
    return first < 0 ? null : [values[first], values.at(-1)];
  };
  const lines = (name) => (subjects(name).length ? subjects(name) : [""]).map((subject) => data.lines.get(keyOf(name, subject))).filter(Boolean);
  const one = (name) => {
    const title = titleOfSignal(name);
    if (!data) return html`<figure class="panel waiting" key=${name} data-signal=${name}><figcaption><span class="panel-title">${title}</span></figcaption><div class="plot"></div></figure>`;
    const found = lines(name);
    if (!found.some((line) => line.status.some((status) => status === "measured"))) {
      return html`<${EmptyPanel} key=${name} signal=${name} title=${title} ...${missing(name, signals)} />`;
    }
    const rules = judgedAs(name, sent);
    const kinds = kindsOf(rules);
    const panel = {
      signal: name, title, unit: found[0].unit, estimator: found[0].estimator, window: window(), lines: found, data, axis: view.axis,
      log: view.log, bands: view.bands, limits: limitsOf(rules), levels, anomalies,
      concerns: (anomaly) => kinds.has(anomaly.kind) || anomaly.attached.some((finding) => kinds.has(finding.kind)),
      note: "No finite value in this stretch.",
    };
    return html`<${Panel} key=${name} panel=${panel} onZoom=${zoom} onRemove=${onRemove ? () => onRemove(name) : null} />`;
  };
  return html`${feed.problem.value && html`<${Trouble} problem=${feed.problem.value} retry=${() => feed.load()} />`}<div class="panels">${names.map(one)}</div>`;
}
