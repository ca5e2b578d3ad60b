// How is this run, now and so far? The sentence and the strip first; then the panels; then what happened.
import { html, useEffect, useMemo, useState } from "../html.js";
import { RunState } from "./run_state.js";
import { amend, go, href, route } from "../route.js";
import { handle } from "../keyboard.js";
import { readOnly } from "../session.js";
import { ago, clock, count, percent } from "../words.js";
import { Progress, State } from "../parts/badges.js";
import { Strip } from "../parts/strip.js";
import { LevelBar } from "../parts/level.js";
import { Commands } from "../parts/commands.js";
import { Panels, VITALS } from "../parts/panels.js";
import { Picker } from "../parts/picker.js";
import { Happened } from "../parts/happened.js";
import { Trouble, useNow } from "../parts/state.js";

/** States that the sentence says enough of; of the others the evidence stands beside it. */
const TOLD = new Set(["live", "finished", "imported"]);

function Head({ run }) {
  useNow(5000);
  const { coverage } = run;
  return html`<div class="run-head"><a class="back" href=${href([])}>‹ Fleet</a><h1 class="mono">${run.run}</h1><${State} state=${run.state} title=${run.evidence} />
    ${run.attempt > 1 && html`<span>attempt ${run.attempt}</span>`}<${Progress} run=${run} />
    <a href=${href(["runs", run.run, "layers"])}>layers</a>
    <span class="dim">last seen ${run.live ? ago(run.last_seen_at) : clock(run.last_seen_at)}</span>
    ${coverage.lost > 0 && html`<span class="said" title=${run.losses?.map((loss) => `${loss.records}: ${loss.reason}`).join("; ")}>${count(coverage.lost, "record")} lost, ${percent(coverage.share)} covered</span>`}
  </div>`;
}

/** The exception that ended a run, whole: the last line first, for that is the one that says it. */
function Crash({ crash }) {
  return html`<section class="trouble" aria-label="Crash"><b>✕ ${crash.type}: ${crash.message}</b>
    <p>in update ${crash.update}${crash.rank === null ? "" : `, rank ${crash.rank}`}, ${clock(crash.at)}. The last updates before it are stored as far as they came.</p>
    ${crash.traceback && html`<details><summary>Traceback</summary><pre><code>${crash.traceback}</code></pre></details>`}</section>`;
}

function Config({ run }) {
  const entries = [...Object.entries(run.config), ...Object.entries(run.tags), ...Object.entries(run.labels)];
  return html`<details class="box"><summary>Configuration <span class="dim num">${entries.length}</span></summary>
    <dl class="facts">${entries.map(([name, value]) => html`<dt key=${name} class="mono">${name}</dt><dd class="mono">${String(value)}</dd>`)}
    <dt>launch</dt><dd class="mono">${run.launch_id}</dd><dt>agent</dt><dd>${run.agent_version || "not known"}</dd><dt>group</dt><dd>${run.group || "none"}</dd></dl></details>`;
}

/** The anomaly nearest to an update, or the newest. */
function nearest(anomalies, update) {
  const at = (a) => (update === null ? -a.update_onset : Math.abs(a.update_onset - update));
  return [...anomalies].sort((a, b) => at(a) - at(b))[0];
}

export function Run({ parts }) {
  const name = parts[1];
  const state = useMemo(() => new RunState(name), [name]);
  useEffect(() => () => state.close(), [state]);
  const [picking, setPicking] = useState(false);
  const run = state.run.value;
  const anomalies = state.anomalies.value;
  useEffect(() => handle({
    back: () => go([]),
    "open-anomaly-at": ({ update }) => { const found = nearest(anomalies, update); if (found) go(["anomalies", found.id]); return Boolean(found); },
    "next-anomaly": () => step(1),
    "previous-anomaly": () => step(-1),
  }));
  const step = (by) => {
    const sorted = [...anomalies].sort((a, b) => a.update_onset - b.update_onset);
    if (!sorted.length) return false;
    const from = Number(route.value.query.from ?? -1) + 20;
    const found = by > 0 ? sorted.find((a) => a.update_onset > from) : sorted.findLast((a) => a.update_onset < from);
    const chosen = found || (by > 0 ? sorted[0] : sorted.at(-1));
    amend({ from: Math.max(0, chosen.update_onset - 20), to: chosen.update_onset + 30, last: "" });
    return true;
  };
  // A row changes the head of the page five times a second; the rest is rendered for what it shows.
  const [levels, events, escalations] = [state.levels.value, state.events.value, state.escalations.value];
  const moving = run && route.value.query.last ? run.update_last : null;
  const panels = useMemo(() => run && html`<${Panels} run=${run} signals=${state.signals.value} anomalies=${anomalies} levels=${levels} onAdd=${() => setPicking(true)} />`,
    [run?.run, moving, state.signals.value, anomalies, levels, route.value]);
  const happened = useMemo(() => run && html`<${Happened} run=${run} anomalies=${anomalies} events=${events} escalations=${escalations} />`, [run?.run, anomalies, events, escalations]);
  const strip = useMemo(() => run && html`<${Strip} run=${run} />`, [run?.standings, JSON.stringify(run?.detectors)]);
  if (state.problem.value && !run) return html`<h1>${name}</h1><${Trouble} problem=${state.problem.value} retry=${() => state.load()} /><p><a href=${href([])}>All runs</a></p>`;
  if (!run) return html`<p class="dim">Asking for ${name}…</p>`;
  const signals = state.signals.value;
  const names = (route.value.query.signals || VITALS.map(([signal]) => signal).join(",")).split(",");
  return html`<${Head} run=${run} />
    <p class="sentence" id="sentence">${run.sentence}${TOLD.has(run.state) ? "" : ` ${run.evidence}`}</p>
    ${run.crash && html`<${Crash} crash=${run.crash} />`}
    ${strip}
    <${LevelBar} run=${run} escalations=${state.escalations.value} locked=${readOnly()} onChanged=${(one) => state.take(one)} onRun=${(one) => state.renew(one)} />
    <${Commands} run=${run} commands=${state.commands.value} locked=${readOnly()} onChanged=${(one) => state.takeCommand(one)} />
    ${state.problem.value && html`<${Trouble} problem=${state.problem.value} retry=${() => state.load()} />`}
    ${panels}${happened}
    <${Config} run=${run} />
    ${picking && html`<${Picker} signals=${signals} names=${names} open=${picking} onClose=${() => setPicking(false)} />`}`;
}
