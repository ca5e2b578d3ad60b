// What is watched, at which limits, and who sees: the catalogue, with the state of each detector in every live run.
import { html, useEffect, useRef, useState } from "../html.js";
import { get, segment } from "../api.js";
import { amend, go, href, route } from "../route.js";
import { handle } from "../keyboard.js";
import { broken, detectors, profile, runs } from "../store.js";
import { number, STANDINGS } from "../words.js";
import { Severity } from "../parts/badges.js";

/** Kind → standings in the runs asked for: [{run, …standing}]. */
function useStandings(run) {
  const [found, setFound] = useState(new Map());
  const names = run ? [run] : [...(runs.value?.values() || [])].filter((one) => one.live).slice(0, 12).map((one) => one.run);
  useEffect(() => {
    let over = false;
    Promise.all(names.map((name) => get(`runs/${segment(name)}`).catch(() => null))).then((details) => {
      if (over) return;
      const kinds = new Map();
      for (const detail of details.filter(Boolean)) for (const one of detail.standings) kinds.set(one.kind, [...(kinds.get(one.kind) || []), { ...one, run: detail.run }]);
      setFound(kinds);
    });
    return () => { over = true; };
  }, [names.join()]);
  return found;
}

function Standings({ standings }) {
  if (!standings?.length) return html`<span class="dim">in no live run</span>`;
  return html`<ul class="standings">${standings.map((one) => html`<li key=${one.run + one.subject}><span class=${`count ${one.state}`}><span aria-hidden="true">${STANDINGS[one.state].glyph}</span> ${STANDINGS[one.state].word}</span> <a class="mono" href=${href(["runs", one.run])}>${one.run}</a>${one.subject && html` <span class="dim">${one.subject}</span>`}${one.reason && html`<div class="sub">${one.reason}</div>`}${one.add && html`<div class="sub">In the trainer: <code>${one.add}</code></div>`}</li>`)}</ul>`;
}

function Thresholds({ item }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`Thresholds of ${item.title}`}><table class="thresholds"><thead><tr><th scope="col">threshold</th><th scope="col">fires when</th><th scope="col">of</th><th scope="col">severity</th></tr></thead><tbody>${item.thresholds.map((one) => html`<tr key=${one.name}>
    <th scope="row" class="mono">${item.kind}.${one.name}</th><td class="num">${one.comparison} ${typeof one.value === "string" ? html`<span class="dim">off until configured</span>` : number(one.value, 4)} ${one.unit}${one.value !== one.default ? html` <span class="said">(profile: ${number(one.default, 4)})</span>` : ""}</td>
    <td>${one.meaning}</td><td>${one.severity ? html`<${Severity} severity=${one.severity} />` : html`<span class="dim">one of several conditions</span>`}</td></tr>`)}</tbody></table></div>`;
}

function Item({ item, standings, shown }) {
  const here = useRef();
  useEffect(() => { if (shown) here.current.scrollIntoView({ block: "start" }); }, [shown]);
  const worst = ["firing", "blind", "learning", "armed"].find((state) => standings?.some((one) => one.state === state));
  return html`<details class="box detector" ref=${here} open=${shown} data-kind=${item.kind}><summary><span class="row"><b>${item.title}</b> <span class="mono dim">${item.kind}</span><${Severity} severity=${item.severity} />
      <span class="spacer"></span>${worst && html`<span class=${`count ${worst}`}><span aria-hidden="true">${STANDINGS[worst].glyph}</span> ${STANDINGS[worst].word}</span>`}</span></summary>
    <p>${item.meaning}</p><div class="cards"><div><h2 class="minor">Seen by</h2><${Standings} standings=${standings} /></div>
      <div><h2 class="minor">What to try</h2><ol class="tries">${item.try.map((text) => html`<li key=${text}>${text}</li>`)}</ol></div></div>
    <h2 class="minor">Fires when</h2><p>${item.formula}. ${item.votes.map((vote) => `${vote.k} of ${vote.n} at ${vote.at} give ${vote.gives}`).join("; ")}. Warm-up: ${item.warm_up}.</p>
    <${Thresholds} item=${item} /><h2 class="minor">Needs</h2><ul class="needs">${item.needs.map((need) => html`<li key=${need.signal}><span class="mono">${need.signal}</span>${need.optional && html` <span class="dim">optional</span>`}: <code>${need.line}</code></li>`)}</ul>
    <p class="dim">Fails when: ${item.fails_when}</p><p class="dim">Source: ${item.source}. From ${item.origin}.</p></details>`;
}

export function Detectors() {
  const { query } = route.value;
  const filter = useRef();
  const standings = useStandings(query.run);
  useEffect(() => handle({ filter: () => filter.current?.focus(), back: () => go([]) }), []);
  const words = (query.text || "").toLowerCase().split(/\s+/).filter(Boolean);
  const items = [...detectors.value.values()].filter((item) => words.every((word) => `${item.kind} ${item.title} ${item.meaning}`.toLowerCase().includes(word)));
  const blind = [...standings.values()].filter((list) => list.some((one) => one.state === "blind")).length;
  return html`<h1>Detectors</h1><p class="sentence" id="sentence" role="status">${detectors.value.size} kinds in the profile ${profile.value}. ${blind ? html`<b>${blind} are blind</b> in at least one live run: they lack what they need, and say what to add.` : standings.size ? "None is blind in a live run." : "No live run to judge."}</p>
    ${broken.value.map((one) => html`<div class="trouble" key=${one.name}><b>✕ ${one.name} of ${one.origin} is not there:</b> ${one.reason}</div>`)}
    <div class="toolbar" role="search"><label class="hidden" for="filter">Filter detectors</label><input id="filter" type="search" ref=${filter} placeholder="filter detectors  /" value=${query.text || ""} onInput=${(event) => amend({ text: event.target.value })} /></div>
    ${items.map((item) => html`<${Item} key=${item.kind} item=${item} standings=${standings.get(item.kind)} shown=${query.kind === item.kind} />`)}`;
}
