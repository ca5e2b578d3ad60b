// Which layer went wrong first? A row for each layer, a column for each update that has a table, shaded by its norm.
import { html, useEffect, useState } from "../html.js";
import { get, segment } from "../api.js";
import { amend, go, href, route } from "../route.js";
import { handle } from "../keyboard.js";
import { listen, refetch, throttle } from "../stream.js";
import { whole } from "../words.js";
import { Heat } from "../parts/heat.js";
import { Trouble } from "../parts/state.js";

const TABLES = 60;
const WHAT = { grad_norm: "gradient norm, before clipping", weight_norm: "weight norm" };

export function Layers({ parts }) {
  const run = parts[1];
  const [data, setData] = useState(null);
  const [problem, setProblem] = useState(null);
  const [picked, setPicked] = useState(null);
  const { query } = route.value;
  const what = WHAT[query.what] ? query.what : "grad_norm";
  const load = () => get(`runs/${segment(run)}/layers`, { tables: TABLES, update: query.update, attempt: query.attempt }).then((answer) => { setData(answer); setProblem(null); }, setProblem);
  useEffect(() => { load(); }, [run, query.update, query.attempt, refetch.value]);
  useEffect(() => { const soon = throttle(load, 0.5); return listen("rows", (rows) => { if (rows.run === run && !query.update) soon(); }); }, [run, query.update]);
  useEffect(() => handle({ back: () => go(["runs", run]) }), [run]);
  const at = picked === null || !data ? (data?.update.length || 1) - 1 : Math.min(picked, data.update.length - 1);
  return html`<div class="run-head"><a class="back" href=${href(["runs", run])}>‹ ${run}</a><h1>Layers</h1></div>
    ${problem && html`<${Trouble} problem=${problem} retry=${load} />`}
    ${!data && !problem && html`<p class="dim">Asking for the tables…</p>`}
    ${data && html`<p class="sentence" id="sentence" role="status">${data.updates.length ? data.sentence : "No table of layers has come yet."}</p>`}
    ${data && !data.updates.length && html`<div class="box"><p>The trainer sends norms of its layers at level <b>debug</b>. Escalate <a href=${href(["runs", run])}>${run}</a> for some updates (<kbd>e</kbd> on its page), and they appear here by themselves.</p></div>`}
    ${data && data.update.length > 0 && html`<div class="toolbar"><label>show <select value=${what} onChange=${(event) => amend({ what: event.target.value })}>${Object.entries(WHAT).map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}</select></label>
      <span>at update <b class="num">${data.update[at]}</b></span><span class="spacer"></span><span class="dim">${whole(data.updates.length)} updates have a table, ${data.update[0]} to ${data.update.at(-1)} shown; darker is larger, by powers of ten; ✕ is not finite</span></div>
      <div class="box scroll"><${Heat} what=${WHAT[what]} layers=${data.layers} update=${data.update} table=${data[what]} at=${at} onPick=${setPicked} /></div>`}`;
}
