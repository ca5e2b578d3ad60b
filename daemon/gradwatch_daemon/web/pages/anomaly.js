// What happened, where did it begin, what next? The sentence first, then the order of events, what to try, and the evidence.
import { effect, html, signal, useEffect, useMemo, useRef } from "../html.js";
import { get, segment } from "../api.js";
import { Feed } from "../chart/feed.js";
import { go, href } from "../route.js";
import { handle } from "../keyboard.js";
import { listen, refetch } from "../stream.js";
import { readOnly } from "../session.js";
import { detectors, open, titleOf } from "../store.js";
import { judged } from "../titles.js";
import { ANOMALY_STATES, clock, count, number } from "../words.js";
import { Severity } from "../parts/badges.js";
import { acknowledge, Attention, SilenceDialog } from "../parts/attention.js";
import { Began } from "../parts/began.js";
import { Moved } from "../parts/moved.js";
import { PanelGrid } from "../parts/panels.js";
import { Trouble } from "../parts/state.js";

const BEFORE = 50;
const AFTER = 30;
const PANELS = 6;
/** What the trainer sets: a jump of it is where much begins. */
const SET = "opt.lr";

/** One anomaly, kept current. */
class State {
  constructor(id) {
    this.id = id;
    this.anomaly = signal(null);
    this.signals = signal([]);
    this.problem = signal(null);
    this.stops = [
      listen("anomaly", (one) => { if (one.id === id) this.take(one); }),
      effect(() => { refetch.value; this.load(); }),
    ];
  }

  async load() {
    try {
      const anomaly = await get(`anomalies/${segment(this.id)}`);
      const { items } = await get(`runs/${segment(anomaly.run)}/signals`, { attempt: anomaly.attempt, rank: anomaly.rank ?? undefined }).catch(() => ({ items: [] }));
      this.signals.value = items;
      this.anomaly.value = anomaly;
      this.problem.value = null;
    } catch (error) { this.problem.value = error; }
  }

  /** Take over what changed: the evidence of the beginning is told by GET alone, and stays. */
  take(one) {
    const known = this.anomaly.value;
    this.anomaly.value = known ? { ...one, evidence: { ...known.evidence, ...one.evidence } } : one;
  }

  close() {
    for (const stop of this.stops) stop();
  }
}

/** The root and what it explains, in the order they began. */
function Order({ anomaly }) {
  const root = { kind: anomaly.kind, subject: anomaly.subject, severity: anomaly.severity, update_onset: anomaly.update_onset, value: anomaly.value, limit: anomaly.limit, root: true };
  const found = [root, ...anomaly.attached].sort((a, b) => a.update_onset - b.update_onset || Boolean(b.root) - Boolean(a.root));
  const { root: place } = anomaly;
  return html`<ol class="order">${found.map((one) => html`<li key=${one.kind + one.subject}><span class="num when">${one.update_onset}</span>
    <span><${Severity} severity=${one.severity} /> <a href=${href(["detectors"], { kind: one.kind })}>${titleOf(one.kind)}</a>${one.subject && ` (${one.subject})`}
      <span class="dim num"> ${number(one.value)}${one.limit === null ? "" : `, limit ${number(one.limit)}`}</span>
      ${one.root && html`<div class="sub">where it began: ${place.stage}${place.minibatch === null ? "" : `, minibatch ${place.minibatch}`}</div>`}</span></li>`)}</ol>`;
}

/** What deviated first, by what was stored around the onset: a signal, a layer, or why neither can be named. */
function First({ evidence }) {
  if (!evidence.sentence) return null;
  const why = [evidence.first_signal_reason, evidence.first_layer_reason].filter((reason) => reason && !evidence.sentence.includes(reason));
  return html`<p class="first">${evidence.sentence}</p>${why.map((text) => html`<p class="dim" key=${text}>${text}</p>`)}`;
}

function Facts({ anomaly }) {
  const fact = (name, value, why) => html`<dt>${name}</dt><dd class="num">${value === null ? html`<span class="dim">${why || "–"}</span>` : number(value)}</dd>`;
  return html`<dl class="facts wide-facts">${fact("value", anomaly.value, anomaly.status.value)}${fact("limit", anomaly.limit, anomaly.status.limit)}${fact("usual", anomaly.baseline, anomaly.status.baseline)}
    <dt>breached</dt><dd class="num">${count(anomaly.count, "update")}</dd><dt>onset, fired</dt><dd class="num">${anomaly.update_onset}, ${anomaly.update_fired}</dd>
    <dt>last</dt><dd class="num">${anomaly.update_last}${anomaly.update_resolved === null ? "" : `, resolved at ${anomaly.update_resolved}`}</dd>
    <dt>at</dt><dd class="num">${clock(anomaly.fired_at)}</dd></dl>`;
}

/** Signals the kind and its attached ones look at, that this run has. */
function evidence(anomaly, signals) {
  const known = new Set(signals.filter((item) => item.measured > 0).map((item) => item.signal));
  const names = [anomaly, ...anomaly.attached].flatMap((one) => detectors.value.get(one.kind)?.needs || []).map((need) => judged(need.signal, known));
  const shown = [...new Set([names[0], SET, ...names])].filter((name) => known.has(name));
  const bad = anomaly.kind === "nonfinite" ? signals.filter((item) => item.nonfinite > 0).map((item) => item.signal) : [];
  const root = bad.filter((name) => name.startsWith(`${anomaly.root.stage}.`)); // where it began is seen first
  return [...new Set([...root, ...shown.filter((name) => !name.endsWith(".nonfinite")), ...bad, ...shown])].slice(0, PANELS);
}

function Evidence({ anomaly, signals }) {
  const feed = useMemo(() => new Feed(anomaly.run), [anomaly.run]);
  useEffect(() => () => feed.close(), [feed]);
  const names = evidence(anomaly, signals);
  return html`<${PanelGrid} feed=${feed} names=${names} signals=${signals} anomalies=${[anomaly]} levels=${[]}
    view=${{ axis: "update", log: false, bands: true, attempt: anomaly.attempt, from: Math.max(0, anomaly.update_onset - BEFORE), to: anomaly.update_onset + AFTER }}
    onZoom=${(from, to) => go(["runs", anomaly.run], { from, to, signals: names.join(","), attempt: anomaly.attempt })} />`;
}

function step(anomaly, by) {
  const sorted = [...open.value.values()].filter((one) => one.run === anomaly.run || !by).sort((a, b) => a.update_onset - b.update_onset);
  const at = sorted.findIndex((one) => one.id === anomaly.id);
  const next = sorted[at + by];
  if (next) go(["anomalies", next.id]);
  return Boolean(next);
}

export function AnomalyPage({ parts }) {
  const id = parts[1];
  const state = useMemo(() => new State(id), [id]);
  useEffect(() => () => state.close(), [state]);
  const [note, silence] = [useRef(), useRef()];
  const anomaly = state.anomaly.value;
  const locked = readOnly();
  useEffect(() => handle({
    back: () => (anomaly ? go(["runs", anomaly.run]) : go(["anomalies"])),
    acknowledge: () => { if (locked || !anomaly) return false; acknowledge(anomaly, !anomaly.acknowledged).then((one) => state.take(one), (error) => { state.problem.value = error; }); return true; },
    note: () => (locked ? false : note.current?.showModal()),
    silence: () => (locked || anomaly?.silenced ? false : silence.current?.showModal()),
    "next-anomaly": () => anomaly && step(anomaly, 1),
    "previous-anomaly": () => anomaly && step(anomaly, -1),
  }));
  if (!anomaly) return state.problem.value ? html`<h1>Anomaly</h1><${Trouble} problem=${state.problem.value} retry=${() => state.load()} />` : html`<p class="dim">Asking for the anomaly…</p>`;
  const detector = detectors.value.get(anomaly.kind);
  return html`<div class="run-head"><a class="back" href=${href(["runs", anomaly.run])}>‹ ${anomaly.run}</a><h1>${titleOf(anomaly.kind)}${anomaly.subject && html` <span class="dim">${anomaly.subject}</span>`}</h1>
      <${Severity} severity=${anomaly.severity} state=${anomaly.state} /><span>${ANOMALY_STATES[anomaly.state] || anomaly.state}</span>${anomaly.attempt > 1 && html`<span>attempt ${anomaly.attempt}</span>`}</div>
    <p class="sentence" id="sentence">${anomaly.sentence}${detector && html` <span class="dim">${detector.meaning}</span>`}</p>
    <${Attention} anomaly=${anomaly} locked=${locked} note=${note} silence=${silence} onChanged=${(one) => state.take(one)} />
    ${state.problem.value && html`<${Trouble} problem=${state.problem.value} />`}
    <div class="cards three"><section class="box"><h2>Order</h2><${Order} anomaly=${anomaly} /><${First} evidence=${anomaly.evidence} /></section>
      <section class="box"><h2>What to try</h2><ol class="tries">${anomaly.try.map((text) => html`<li key=${text}>${text}</li>`)}</ol>
        ${anomaly.evidence.playbook && html`<p><a href=${anomaly.evidence.playbook.replace(/^\//, "")} target="_blank" rel="noopener">The playbook of ${titleOf(anomaly.kind)}</a></p>`}</section>
      <section class="box"><h2>Numbers</h2><${Facts} anomaly=${anomaly} /></section></div>
    <h2 class="after">Around the onset</h2><${Evidence} anomaly=${anomaly} signals=${state.signals.value} />
    <${Began} anomaly=${anomaly} />
    <h2 class="after">What moved at the onset</h2><${Moved} anomaly=${anomaly} />
    ${detector && html`<details class="box"><summary>How this detector judges</summary><p>${detector.formula}.</p><p class="dim">Fails when: ${detector.fails_when}</p><p class="dim">Source: ${detector.source}</p></details>`}
    <${SilenceDialog} anomaly=${anomaly} dialog=${silence} onDone=${() => state.load()} />`;
}
