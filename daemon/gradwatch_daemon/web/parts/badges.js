// Small pieces: a run's state, a severity, a level. Each is a word with a glyph; the colour only repeats it.
import { html } from "../html.js";
import { SEVERITIES, STATES } from "../words.js";

export function State({ state, title }) {
  const { glyph, word } = STATES[state] || { glyph: "?", word: state };
  return html`<span class=${`state ${state}`} title=${title}><span aria-hidden="true">${glyph}</span> ${word}</span>`;
}

export function Severity({ severity, state }) {
  const { glyph, word } = SEVERITIES[severity];
  return html`<span class=${`severity ${severity} ${state || ""}`}><span aria-hidden="true">${glyph}</span> ${word}</span>`;
}

export function Progress({ run }) {
  const { update_last: last, updates_total: total } = run;
  if (last === null) return html`<span class="dim">no update yet</span>`;
  if (!total) return html`<span class="num">${last}</span>`;
  const share = Math.min(1, (last + 1) / total);
  return html`<span class="progress num">${last}<span class="dim"> / ${total}</span><progress value=${share} max="1" aria-label=${`update ${last} of ${total}`}></progress></span>`;
}
