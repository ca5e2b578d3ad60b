// What is muted, by whom, why, until when, and how much of it there was: a silence must never be silent about itself.
import { html, useEffect, useState } from "../html.js";
import { post, remove, segment } from "../api.js";
import { go, href } from "../route.js";
import { handle } from "../keyboard.js";
import { listen, refetch } from "../stream.js";
import { readOnly } from "../session.js";
import { all, detectors, runs, titleOf } from "../store.js";
import { clock, count, duration } from "../words.js";
import { makeId } from "../parts/attention.js";
import { Trouble, useNow } from "../parts/state.js";

function Row({ one, now, locked, onEnd }) {
  return html`<tr class=${one.state}><td>${one.state === "active" ? html`<b>⊖ active</b>` : html`<span class="dim">${one.state}</span>`}</td>
    <th scope="row">${one.kind ? html`<a href=${href(["detectors"], { kind: one.kind })}>${titleOf(one.kind)}</a>` : "every kind"}${one.subject && html` <span class="dim">${one.subject}</span>`}<div class="sub">${one.reason}</div></th>
    <td>${one.run ? html`<a class="mono" href=${href(["runs", one.run])}>${one.run}</a>` : "every run"}</td><td>${one.author}<div class="sub">${clock(one.created_at)}</div></td>
    <td class="num">${one.state === "active" ? `${duration(Date.parse(one.expires_at) - now)} left` : clock(one.expires_at)}</td><td class="num">${count(one.muted, "anomaly", "anomalies")}</td>
    <td>${one.state === "active" && html`<button class="small" disabled=${Boolean(locked)} title=${locked} onClick=${() => onEnd(one)}>end it</button>`}</td></tr>`;
}

function Form({ locked, onMade }) {
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    const { run, kind, hours, reason } = form.elements;
    try {
      onMade(await post("silences", { id: makeId(), run: run.value || null, kind: kind.value || null, reason: reason.value, lifetime_s: Number(hours.value) * 3600 }));
      setProblem(null);
      form.reset();
    } catch (error) { setProblem(error); }
  };
  const option = (value, text) => html`<option key=${value} value=${value}>${text}</option>`;
  return html`<details class="box"><summary>New silence</summary><form class="inline" onSubmit=${submit}>
    <label>kind <select name="kind">${option("", "every kind")}${[...detectors.value.values()].map((item) => option(item.kind, item.title))}</select></label>
    <label>run <select name="run">${option("", "every run")}${[...(runs.value?.keys() || [])].map((name) => option(name, name))}</select></label>
    <label>hours <input name="hours" type="number" min="0.1" max="720" step="any" value="4" required /></label>
    <label>reason <input name="reason" required maxlength="500" /></label>
    <button class="primary" disabled=${Boolean(locked)} title=${locked}>Silence</button></form>${problem && html`<${Trouble} problem=${problem} />`}</details>`;
}

export function Silences() {
  const now = useNow(5000);
  const [list, setList] = useState(null);
  const [problem, setProblem] = useState(null);
  const locked = readOnly();
  const load = () => all("silences").then(setList, setProblem);
  const take = (one) => setList((known) => [one, ...(known || []).filter((other) => other.id !== one.id)]);
  useEffect(() => { load(); }, [refetch.value]);
  useEffect(() => listen("silence", take), []);
  useEffect(() => handle({ back: () => go([]) }), []);
  const end = (one) => remove(`silences/${segment(one.id)}`).then(take, setProblem);
  const active = (list || []).filter((one) => one.state === "active");
  const sorted = [...active, ...(list || []).filter((one) => one.state !== "active")];
  return html`<h1>Silences</h1><p class="sentence" id="sentence" role="status">${list === null ? "Asking…" : active.length ? html`<b>${count(active.length, "silence")} active</b>, which muted ${count(active.reduce((sum, one) => sum + one.muted, 0), "anomaly", "anomalies")}. What is muted stays in every list.` : "Nothing is silenced."}</p>
    ${problem && html`<${Trouble} problem=${problem} />`}<${Form} locked=${locked} onMade=${take} />
    ${sorted.length > 0 && html`<div class="scroll after" tabindex="0" role="region" aria-label="Silences"><table class="silences"><thead><tr><th scope="col">state</th><th scope="col">what</th><th scope="col">run</th><th scope="col">by</th><th scope="col">expires</th><th scope="col">muted</th><th scope="col"><span class="hidden">end</span></th></tr></thead>
      <tbody>${sorted.map((one) => html`<${Row} key=${one.id} one=${one} now=${now} locked=${locked} onEnd=${end} />`)}</tbody></table></div>`}`;
}
