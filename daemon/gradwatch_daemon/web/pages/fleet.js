// What is running, and is anything wrong? One line in words, then a row for each run, worst first.
import { html, signal, useEffect, useRef, useState } from "../html.js";
import { get, segment } from "../api.js";
import { amend, go, href, route } from "../route.js";
import { handle } from "../keyboard.js";
import { columns } from "../chart/series.js";
import { paused } from "../stream.js";
import { alarming, daemon, open, openByRun, runs, titleOf, wantsEyes, worstFirst } from "../store.js";
import { judged, STAND_INS } from "../titles.js";
import { ago, count, SEVERITIES, STATES } from "../words.js";
import { Progress, Severity, State } from "../parts/badges.js";
import { Counts } from "../parts/strip.js";
import { Spark } from "../parts/spark.js";
import { useNow } from "../parts/state.js";
import { Welcome } from "./welcome.js";

const SPARKS = [["episode.return.mean", "return"], ["policy.kl.k3", "KL"], ["policy.entropy.norm", "entropy"]];
const SPARK_POINTS = 40;
const SPARK_MS = 5000;
const SHOWN = 50;
const ATTENTION = ["crashed", "lost", "stalled", "slow"];

/** Run → lines of its sparks, and for which update they were asked. */
const sparks = signal(new Map());

async function loadSpark(run) {
  const known = sparks.value.get(run.run);
  if (run.update_last === null || known?.update === run.update_last) return;
  const names = SPARKS.flatMap(([name]) => [name, STAND_INS[name]]).filter(Boolean).join(",");
  try {
    const found = columns(await get(`runs/${segment(run.run)}/chart`, { signals: names, points: SPARK_POINTS }));
    sparks.value = new Map([...sparks.value, [run.run, { update: run.update_last, lines: found.lines }]]);
  } catch { /* the row stands without its lines; the page says when the daemon is away */ }
}

function rank(run) {
  const worst = (openByRun.value.get(run.run) || []).filter(wantsEyes)[0];
  if (worst) return 10 + SEVERITIES[worst.severity].rank;
  if (ATTENTION.includes(run.state)) return 5;
  return run.live ? 2 : 1;
}

function chosen({ text = "", state = "", group = "" }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return [...runs.value.values()]
    .filter((run) => (!state || run.state === state) && (!group || run.group === group))
    .filter((run) => words.every((word) => `${run.run} ${run.group} ${run.state}`.toLowerCase().includes(word)))
    .sort((a, b) => rank(b) - rank(a) || Date.parse(b.last_seen_at) - Date.parse(a.last_seen_at));
}

/** The page in one sentence. Blind detectors are part of it: nothing found by half of them is not "all well". */
function Sentence() {
  const anomalies = [...open.value.values()].filter(wantsEyes).sort(worstFirst);
  const listed = [...runs.value.values()];
  const live = listed.filter((run) => run.live).length;
  const blind = listed.filter((run) => run.live && run.detectors.blind).length;
  const troubled = listed.filter((run) => ["crashed", "lost", "stalled"].includes(run.state));
  const said = [];
  if (anomalies.length) {
    const critical = alarming.value;
    const worst = anomalies[0];
    said.push(html`<b>${count(anomalies.length, "open anomaly", "open anomalies")}${critical ? `, ${critical} critical` : ""}.</b> ${" "}
      Worst: <a href=${href(["anomalies", worst.id])}>${titleOf(worst.kind)}</a> in <a class="mono" href=${href(["runs", worst.run])}>${worst.run}</a>. `);
  } else said.push(html`<b>No open anomaly.</b> `);
  if (troubled.length) said.push(html`${count(troubled.length, "run")} lost, stalled or crashed. `);
  said.push(`${live} of ${count(listed.length, "run")} connected`);
  said.push(blind ? `; in ${blind} of them some detectors are blind.` : ".");
  return html`<p class="sentence" id="sentence" role="status">${said}</p>`;
}

function Row({ run, selected }) {
  const anomalies = openByRun.value.get(run.run) || [];
  const worst = anomalies[0];
  const lines = sparks.value.get(run.run)?.lines;
  const sent = new Set([...(lines || [])].filter(([, line]) => line.status.includes("measured")).map(([name]) => name));
  return html`<tr class=${`${run.state} ${selected ? "selected" : ""}`} aria-selected=${selected} data-run=${run.run} onClick=${(event) => { if (!event.target.closest("a")) go(["runs", run.run]); }}>
    <td><${State} state=${run.state} title=${run.evidence || run.sentence} /></td>
    <th scope="row"><a class="mono" href=${href(["runs", run.run])}>${run.run}</a>${run.attempt > 1 && html` <span class="dim">#${run.attempt}</span>`}
      <div class="sub">${run.live ? run.group : `${run.group ? `${run.group}, ` : ""}${ago(run.last_seen_at)}`}</div></th>
    <td class="worst">${worst ? html`<${Severity} severity=${worst.severity} state=${worst.state} /> <a href=${href(["anomalies", worst.id])}>${titleOf(worst.kind)}</a>${anomalies.length > 1 && html` <span class="dim">+${anomalies.length - 1}</span>`}`
      : html`<span class="dim">none open</span>`}</td>
    <td><${Progress} run=${run} /></td>
    ${SPARKS.map(([name, label]) => html`<td key=${name} class="sparkcell" data-label=${label}><${Spark} line=${lines?.get(judged(name, sent))} label=${label} /></td>`)}
    <td><span class=${`level ${run.level.effective || ""}`}>${run.live ? run.level.effective || "–" : "–"}</span></td>
    <td><${Counts} detectors=${run.detectors} worst=${worst?.severity} /></td></tr>`;
}

export function Fleet() {
  useNow(10000);
  const filter = useRef();
  const [at, setAt] = useState(-1);
  const { query } = route.value;
  const listed = runs.value ? chosen(query) : [];
  const shown = listed.slice(0, SHOWN);
  useEffect(() => {
    const load = () => { if (!document.hidden && !paused.value) for (const run of shown.slice(0, 24)) loadSpark(run); };
    load();
    const timer = setInterval(load, SPARK_MS);
    return () => clearInterval(timer);
  }, [shown.slice(0, 24).map((run) => run.run).join()]);
  const move = (by) => {
    const next = Math.min(shown.length - 1, Math.max(0, at + by));
    setAt(next);
    document.querySelector(`tr[data-run="${CSS.escape(shown[next]?.run || "")}"] a`)?.focus();
  };
  useEffect(() => handle({
    next: () => move(1),
    previous: () => move(-1),
    open: () => (shown[at] ? go(["runs", shown[at].run]) : false),
    filter: () => filter.current?.focus(),
  }));
  if (!runs.value) return html`<h1 class="hidden">Runs</h1><p class="dim">Asking for the runs…</p>`;
  if (!runs.value.size) return html`<${Welcome} daemon=${daemon.value} />`;
  const all = [...runs.value.values()];
  const groups = [...new Set(all.map((run) => run.group).filter(Boolean))].sort();
  const states = [...new Set(all.map((run) => run.state))].sort();
  const option = (value, text) => html`<option key=${value} value=${value}>${text}</option>`;
  return html`<h1 class="hidden">Runs</h1><${Sentence} />
    <div class="toolbar" role="search"><label class="hidden" for="filter">Filter runs</label>
      <input id="filter" type="search" ref=${filter} placeholder="filter runs  /" value=${query.text || ""} onInput=${(event) => amend({ text: event.target.value })}
        onKeyDown=${(event) => { if (event.key === "Escape") event.target.blur(); }} />
      <label>state <select value=${query.state || ""} onChange=${(event) => amend({ state: event.target.value })}>${option("", "all")}${states.map((state) => option(state, STATES[state]?.word || state))}</select></label>
      ${groups.length > 0 && html`<label>group <select value=${query.group || ""} onChange=${(event) => amend({ group: event.target.value })}>${option("", "all")}${groups.map((group) => option(group, group))}</select></label>`}
      <span class="spacer"></span><span class="dim">worst first</span></div>
    <div class="scroll" tabindex="0" role="region" aria-label="Runs"><table class="fleet"><thead><tr><th scope="col">state</th><th scope="col">run</th><th scope="col">open anomalies</th><th scope="col">update</th>
      ${SPARKS.map(([name, label]) => html`<th scope="col" key=${name} title=${name}>${label}</th>`)}<th scope="col">level</th><th scope="col">detectors</th></tr></thead>
      <tbody>${shown.map((run, i) => html`<${Row} key=${run.run} run=${run} selected=${i === at} />`)}</tbody></table></div>
    ${!listed.length && html`<p>No run matches. <button class="small" onClick=${() => amend({ text: "", state: "", group: "" })}>show all ${all.length}</button></p>`}
    ${listed.length > SHOWN && html`<p class="dim">${SHOWN} of ${listed.length} runs shown: filter to see others.</p>`}`;
}
