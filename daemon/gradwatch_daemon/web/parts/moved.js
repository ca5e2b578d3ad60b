// What else moved at an update: each signal beside its own usual values of the updates before, the furthest first.
import { html, useEffect, useState } from "../html.js";
import { get, segment } from "../api.js";
import { keyText, number } from "../words.js";

const WINDOW = 20;
const SHOWN = 14;

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

/** The order of an update: of what is equally far, that of the earliest stage is read first. */
const STAGES = ["obs", "reward", "value", "adv", "policy", "loss", "grad", "opt", "param"];
const place = (one) => (STAGES.indexOf(one.signal.split(".")[0]) + STAGES.length + 1) % (STAGES.length + 1);

/** How far the values from the onset on are from the median before it, in robust deviations; Infinity for what is not finite. */
export function moved(snapshot, onset) {
  const at = snapshot.update.findIndex((update) => update >= onset);
  if (at < 0) return [];
  const found = [];
  for (const one of snapshot.signals) {
    const before = one.values.slice(0, at).filter((value) => typeof value === "number");
    const now = one.values[at];
    if (now === null || one.signal.endsWith(".nonfinite_mb")) continue;
    if (typeof now === "string") {
      found.push({ ...one, now, usual: before.length ? median(before) : null, far: Infinity });
      continue;
    }
    if (before.length < 5) continue;
    const usual = median(before);
    const spread = 1.4826 * median(before.map((value) => Math.abs(value - usual)));
    const far = (now - usual) / (spread || Math.max(Math.abs(usual) * 1e-3, 1e-9));
    if (Math.abs(far) >= 4) found.push({ ...one, now, usual, far, steady: spread === 0 });
  }
  return found.sort((a, b) => (a.far === b.far ? 0 : Math.abs(b.far) - Math.abs(a.far)) || place(a) - place(b));
}

export function Moved({ anomaly }) {
  const [snapshot, setSnapshot] = useState(null);
  useEffect(() => {
    const { run, attempt, rank, update_onset: around } = anomaly;
    get(`runs/${segment(run)}/snapshot`, { around, window: WINDOW, attempt, rank: rank ?? undefined }).then(setSnapshot, () => setSnapshot({ update: [], signals: [], level: [] }));
  }, [anomaly.id]);
  if (!snapshot) return html`<p class="dim">Asking what else moved…</p>`;
  const found = moved(snapshot, anomaly.update_onset);
  return html`<div class="scroll" tabindex="0" role="region" aria-label="What moved with it"><table class="moved"><thead><tr><th scope="col">signal</th><th scope="col">usual before</th><th scope="col">at ${anomaly.update_onset}</th><th scope="col" title="distance from the median of the ${WINDOW} updates before, in robust standard deviations">away</th></tr></thead>
    <tbody>${found.slice(0, SHOWN).map((one) => html`<tr key=${keyText(one.signal, one.subject)}><th scope="row" class="mono">${keyText(one.signal, one.subject)}</th>
      <td class="num">${number(one.usual)}</td><td class=${`num ${typeof one.now === "string" ? "bad" : ""}`}>${number(one.now)}</td>
      <td class="num">${one.far === Infinity ? "not finite" : one.steady ? "was steady" : `${one.far > 0 ? "+" : "−"}${number(Math.abs(one.far), 2)} σ`}</td></tr>`)}</tbody></table></div>
    ${!found.length && html`<p class="dim">No signal is far from its values of the ${WINDOW} updates before.</p>`}
    ${found.length > SHOWN && html`<p class="dim">${found.length - SHOWN} more were at least 4 σ away.</p>`}`;
}
