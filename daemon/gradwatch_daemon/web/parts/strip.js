// The strip of detectors: one cell for each kind, so what is blind stands beside what is ok. Firing ones carry their name.
import { html } from "../html.js";
import { href } from "../route.js";
import { openByRun, titleOf } from "../store.js";
import { SEVERITIES, STANDINGS } from "../words.js";

const ORDER = ["firing", "blind", "learning", "armed"];

/** One entry for each kind: the worst state of its subjects, which of them, why. */
export function byKind(standings) {
  const kinds = new Map();
  for (const one of standings) {
    const known = kinds.get(one.kind);
    if (!known || ORDER.indexOf(one.state) < ORDER.indexOf(known.state)) kinds.set(one.kind, { ...one, subjects: known?.subjects || [] });
    kinds.get(one.kind).subjects.push(one);
  }
  return [...kinds.values()];
}

/** Severity of what fires: that of the open anomaly it is part of. */
function severityOf(kind, anomalies) {
  const found = anomalies.flatMap((a) => [a, ...a.attached]).filter((finding) => finding.kind === kind);
  return found.sort((a, b) => SEVERITIES[b.severity].rank - SEVERITIES[a.severity].rank)[0]?.severity || "info";
}

function anomalyOf(kind, anomalies) {
  return anomalies.find((a) => a.kind === kind) || anomalies.find((a) => a.attached.some((finding) => finding.kind === kind));
}

function why(one) {
  const said = one.subjects.filter((s) => s.state === one.state).map((s) => (s.subject ? `${s.subject}: ${s.reason}` : s.reason));
  return said.filter(Boolean).join("; ");
}

function Cell({ one, anomalies }) {
  const severity = one.state === "firing" ? severityOf(one.kind, anomalies) : "";
  const { glyph, word } = STANDINGS[one.state];
  const title = titleOf(one.kind);
  const reason = why(one);
  const anomaly = one.state === "firing" && anomalyOf(one.kind, anomalies);
  const target = anomaly ? href(["anomalies", anomaly.id]) : href(["detectors"], { kind: one.kind });
  const label = `${title}: ${severity ? `firing, ${severity}` : word}${reason ? `, ${reason}` : ""}`;
  return html`<li><a class=${`cell ${one.state} ${severity}`} href=${target} title=${label} aria-label=${label}>
    <span aria-hidden="true">${severity ? SEVERITIES[severity].glyph : glyph}</span>${one.state === "firing" && html`<span class="name">${title}</span>`}</a></li>`;
}

/** How many are in which state, in words: the strip for who cannot see it, and the short form of lists. What fires is as grave as
 * the `worst` open anomaly. */
export function Counts({ detectors, worst = "" }) {
  const named = { firing: detectors.firing, blind: detectors.blind, learning: detectors.learning, armed: detectors.armed };
  const total = Object.values(named).reduce((sum, n) => sum + n, 0);
  if (!total) return html`<span class="dim">no detector has judged yet</span>`;
  const glyphOf = (state) => (state === "firing" && SEVERITIES[worst] ? SEVERITIES[worst] : STANDINGS[state]).glyph;
  return html`<span class="counts">${Object.entries(named).map(([state, n]) => html`<span key=${state} class=${`count ${state} ${n ? "" : "none"} ${state === "firing" ? worst : ""}`}
    title=${`${n} of ${total} ${STANDINGS[state].word}`}><span aria-hidden="true">${glyphOf(state)}</span> ${n}<span class="word"> ${STANDINGS[state].word}</span></span>`)}</span>`;
}

export function Strip({ run }) {
  if (!run.standings.length) return html`<div class="strip"><${Counts} detectors=${run.detectors} /></div>`;
  const anomalies = openByRun.value.get(run.run) || [];
  const kinds = byKind(run.standings);
  const at = (one) => (one.state === "firing" ? -SEVERITIES[severityOf(one.kind, anomalies)].rank : ORDER.indexOf(one.state));
  const sorted = kinds.map((one, i) => [at(one), i, one]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , one]) => one);
  return html`<section class="strip" aria-label="Detectors"><div class="row"><span class="dim wide">detectors</span><${Counts} detectors=${run.detectors} worst=${anomalies[0]?.severity} /></div>
    <ul class="cells">${sorted.map((one) => html`<${Cell} key=${one.kind} one=${one} anomalies=${anomalies} />`)}</ul></section>`;
}
