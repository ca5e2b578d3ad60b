// What needs a person? Open anomalies of all runs, those that nobody has acknowledged first.
import { html, useEffect, useRef, useState } from "../html.js";
import { get } from "../api.js";
import { amend, go, href, route } from "../route.js";
import { handle } from "../keyboard.js";
import { open, titleOf, wantsEyes, worstFirst } from "../store.js";
import { readOnly } from "../session.js";
import { acknowledge } from "../parts/attention.js";
import { ago, SEVERITIES } from "../words.js";
import { Severity } from "../parts/badges.js";
import { Trouble, useNow } from "../parts/state.js";

const OVER = 100;
const SHOWN = 100;

function matches(one, words) {
  return words.every((word) => `${one.run} ${one.kind} ${titleOf(one.kind)} ${one.subject}`.toLowerCase().includes(word));
}

function Row({ one, selected }) {
  const seen = one.acknowledged;
  return html`<tr class=${selected ? "selected" : ""} data-anomaly=${one.id} onClick=${(event) => { if (!event.target.closest("a, button")) go(["anomalies", one.id]); }}>
    <td><${Severity} severity=${one.severity} state=${one.state} /><div class="sub">${one.state}</div></td>
    <th scope="row"><a href=${href(["anomalies", one.id])}>${titleOf(one.kind)}</a>${one.subject && html` <span class="dim">${one.subject}</span>`}<div class="sub">${one.sentence}</div></th>
    <td><a class="mono" href=${href(["runs", one.run])}>${one.run}</a></td><td class="num">${one.update_onset}</td><td class="num">${ago(one.fired_at)}</td>
    <td>${seen ? html`✓ ${seen.by}${seen.note && html`<div class="sub">${seen.note}</div>`}` : one.silenced ? html`<span class="dim">⊖ silenced</span>` : html`<span class="dim">nobody yet</span>`}</td></tr>`;
}

export function Anomalies() {
  useNow(10000);
  const { query } = route.value;
  const filter = useRef();
  const [at, setAt] = useState(-1);
  const [over, setOver] = useState([]);
  const [problem, setProblem] = useState(null);
  useEffect(() => { if (query.over) get("anomalies", { state: "resolved", limit: OVER }).then((answer) => setOver(answer.items), setProblem); }, [query.over]);
  const words = (query.text || "").toLowerCase().split(/\s+/).filter(Boolean);
  const list = [...open.value.values()].filter((one) => (query.over || one.state !== "ended") && matches(one, words) && (!query.severity || one.severity === query.severity))
    .sort((a, b) => wantsEyes(b) - wantsEyes(a) || worstFirst(a, b));
  const past = query.over ? over.filter((one) => matches(one, words) && !open.value.has(one.id)) : [];
  const shown = [...list, ...past].slice(0, SHOWN);
  const move = (by) => {
    const next = Math.min(shown.length - 1, Math.max(0, at + by));
    setAt(next);
    document.querySelector(`tr[data-anomaly="${CSS.escape(shown[next]?.id || "")}"] a`)?.focus();
  };
  const seen = () => {
    const one = shown[at];
    if (!one || readOnly()) return false;
    acknowledge(one, !one.acknowledged).then((newer) => { open.value = new Map([...open.value, [newer.id, newer]]); }, setProblem);
    return true;
  };
  useEffect(() => handle({
    next: () => move(1), previous: () => move(-1), "next-anomaly": () => move(1), "previous-anomaly": () => move(-1),
    open: () => (shown[at] ? go(["anomalies", shown[at].id]) : false), filter: () => filter.current?.focus(), acknowledge: seen, back: () => go([]),
  }));
  const [waiting, going] = [list.filter(wantsEyes), list.filter((one) => one.state !== "ended").length];
  return html`<h1>Anomalies</h1><p class="sentence" id="sentence" role="status">${waiting.length ? html`<b>${waiting.length} that nobody has acknowledged</b>, of ${going} open.` : `${going} open, ${going ? "all acknowledged or silenced" : "none that anybody could see: blind detectors see nothing"}.`}</p>
    ${problem && html`<${Trouble} problem=${problem} />`}
    <div class="toolbar" role="search"><label class="hidden" for="filter">Filter anomalies</label><input id="filter" type="search" ref=${filter} placeholder="filter by run or kind  /" value=${query.text || ""} onInput=${(event) => amend({ text: event.target.value })} />
      <label>severity <select value=${query.severity || ""} onChange=${(event) => amend({ severity: event.target.value })}><option value="">all</option>${Object.keys(SEVERITIES).map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
      <label><input type="checkbox" checked=${Boolean(query.over)} onChange=${(event) => amend({ over: event.target.checked ? "1" : "" })} /> resolved and ended too</label></div>
    <div class="scroll" tabindex="0" role="region" aria-label="Anomalies"><table class="inbox"><thead><tr><th scope="col">severity</th><th scope="col">what</th><th scope="col">run</th><th scope="col">since update</th><th scope="col">fired</th><th scope="col">seen by</th></tr></thead>
      <tbody>${shown.map((one, i) => html`<${Row} key=${one.id} one=${one} selected=${i === at} />`)}</tbody></table></div>
    ${!shown.length && html`<p class="dim">Nothing matches.</p>`}`;
}
