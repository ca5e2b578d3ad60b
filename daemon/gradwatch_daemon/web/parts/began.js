// Where it began, as the trainer's black box and its worst transitions tell it: norms from before the trigger, and numbers to read.
import { html, useMemo, useState } from "../html.js";
import { href } from "../route.js";
import { count, number } from "../words.js";
import { Heat } from "./heat.js";

const WHAT = { gradient: "gradient norm, the largest of the update, before clipping", weight: "weight norm at the end of the update" };

/** Norms of the layers that deviated first; the update where they did is chosen to begin with, and marked. */
function Norms({ norms, layer }) {
  const { update, what } = norms[0];
  const mark = update.indexOf(layer.update);
  const table = useMemo(() => update.map((_, i) => norms.map((one) => one.norm[i])), [norms]);
  const [picked, setPicked] = useState(null);
  const at = picked ?? (mark < 0 ? update.length - 1 : mark);
  return html`<section class="box"><h2>Norms of the layers that began <span class="dim">from the black box${layer.rank ? ` of rank ${layer.rank}` : ""}</span></h2>
    <p class="dim">${WHAT[what]}; ${count(update.length, "update")}, ${update[0]} to ${update.at(-1)}, shown at <b class="num">${update[at]}</b>${layer.step === null ? "" : `; it began at step ${layer.step} of update ${layer.update}`}. Darker is larger, by powers of ten; ✕ is not finite.</p>
    <div class="scroll bare"><${Heat} what=${WHAT[what]} layers=${norms.map((one) => one.layer)} update=${update} table=${table} at=${at} mark=${mark} onPick=${setPicked} /></div></section>`;
}

/** The transitions of one update whose ratio was furthest from 1, the worst first. */
function Exemplars({ tables }) {
  const [chosen, setChosen] = useState(0);
  const { names, rows, index, update, rank } = tables[Math.min(chosen, tables.length - 1)];
  const name = (one) => `update ${one.update}${tables.some((other) => other.rank !== tables[0].rank) ? `, rank ${one.rank}` : ""}`;
  return html`<section class="box"><div class="row"><h2>Worst transitions</h2><span class="spacer"></span>
      ${tables.length > 1 ? html`<label>of <select value=${chosen} onChange=${(event) => setChosen(Number(event.target.value))}>${tables.map((one, i) => html`<option key=${i} value=${i}>${name(one)}</option>`)}</select></label>` : html`<span class="dim">of ${name(tables[0])}</span>`}</div>
    <div class="scroll bare" tabindex="0" role="region" aria-label=${`Worst transitions of update ${update}, rank ${rank}`}><table class="moved"><thead><tr><th scope="col" title="minibatch : place in it">where</th>${names.map((text) => html`<th scope="col" key=${text}>${text.replaceAll("_", " ")}</th>`)}</tr></thead>
      <tbody>${rows.map((row, i) => html`<tr key=${i}><th scope="row" class="num">${index[i]}</th>${row.map((value, at) => html`<td class=${`num ${typeof value === "string" ? "bad" : ""}`} key=${at}>${number(value)}</td>`)}</tr>`)}</tbody></table></div></section>`;
}

export function Began({ anomaly }) {
  const { norms = [], exemplars = [], tables = [], first_layer: layer } = anomaly.evidence;
  const layers = tables.filter((one) => one.kind === "layers");
  if (!norms.length && !exemplars.length && !layers.length) return null;
  return html`<h2 class="after">What the trainer sent of it</h2><div class="cards loose">${norms.length > 0 && html`<${Norms} norms=${norms} layer=${layer} />`}
      ${exemplars.length > 0 && html`<${Exemplars} tables=${exemplars} />`}</div>
    ${layers.length > 0 && html`<p><a href=${href(["runs", anomaly.run, "layers"], { update: layers.at(-1).update, attempt: anomaly.attempt })}>Every layer around the onset</a>
      <span class="dim"> · ${count(layers.length, "table")}, ${layers[0].update} to ${layers.at(-1).update}</span></p>`}`;
}
