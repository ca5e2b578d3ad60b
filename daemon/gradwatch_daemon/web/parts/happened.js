// What happened in a run, newest first: anomalies, escalations and events in one list, by update.
import { html, useState } from "../html.js";
import { href } from "../route.js";
import { titleOf } from "../store.js";
import { ANOMALY_STATES, clock } from "../words.js";
import { Severity } from "./badges.js";

const SHOWN = 12;

function entries(anomalies, events, escalations) {
  return [
    ...anomalies.map((one) => ({ key: one.id, update: one.update_onset, at: one.fired_at, anomaly: one })),
    // A tick is how detection counts time while no update comes; what it found is an anomaly of its own.
    ...events.filter((one) => one.kind !== "tick").map((one) => ({ key: `${one.session}-${one.seq}-${one.kind}-${one.update}`, update: one.update, at: one.at, event: one })),
    ...escalations.filter((one) => one.update_applied !== null).map((one) => ({ key: one.id, update: one.update_applied, at: one.requested_at, escalation: one })),
  ].sort((a, b) => b.update - a.update || Date.parse(b.at) - Date.parse(a.at));
}

function What({ entry }) {
  const { anomaly, event, escalation } = entry;
  if (anomaly) {
    return html`<${Severity} severity=${anomaly.severity} state=${anomaly.state} /> <a href=${href(["anomalies", anomaly.id])}>${titleOf(anomaly.kind)}</a>
      <span class="dim"> ${ANOMALY_STATES[anomaly.state] || anomaly.state}</span><div class="sub">${anomaly.sentence}</div>`;
  }
  if (escalation) return html`<span class="kind">level</span> ${escalation.sentence}<div class="sub">${escalation.reason}</div>`;
  return html`<span class="kind">${event.kind}</span> ${event.text}${event.kind === "gap" && html`<span class="dim"> ${event.detail.records} records never came</span>`}`;
}

export function Happened({ run, anomalies, events, escalations }) {
  const [all, setAll] = useState(false);
  const list = entries(anomalies, events, escalations);
  return html`<section class="box"><h2>What happened <span class="dim num">${list.length}</span></h2>
    ${!list.length && html`<p class="dim">Nothing yet beside the updates: no anomaly, no event, no escalation of ${run.run}.</p>`}
    <ol class="happened">${list.slice(0, all ? list.length : SHOWN).map((entry) => html`<li key=${entry.key}><span class="num when" title=${clock(entry.at)}>${entry.update}</span><div><${What} entry=${entry} /></div></li>`)}</ol>
    ${list.length > SHOWN && html`<button class="small" onClick=${() => setAll(!all)}>${all ? "fewer" : `all ${list.length}`}</button>`}</section>`;
}
