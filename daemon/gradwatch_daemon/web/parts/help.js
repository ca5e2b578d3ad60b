// `?`: every key, and what the glyphs mean. The list is the map itself.
import { html, useEffect, useRef } from "../html.js";
import { handle, KEYS, keysOn, setKeys } from "../keyboard.js";
import { SEVERITIES, STANDINGS, STATES } from "../words.js";

const SAY = {
  next: "next row", previous: "previous row", open: "open it", back: "back", filter: "filter", help: "this list",
  runs: "all runs", anomalies: "anomalies", detectors: "detectors", "previous-anomaly": "previous anomaly",
  "next-anomaly": "next anomaly", pause: "hold the page still", escalate: "escalate", acknowledge: "acknowledge", note: "write a note",
  axis: "x axis: update, env steps, time", log: "logarithmic scale", "zoom-reset": "whole run", "zoom-in": "zoom in", "zoom-out": "zoom out",
  silence: "silence", bands: "anomaly bands on or off", copy: "copy the address", theme: "theme: auto, light, dark",
};
const SHOWN = { " ": "space", ArrowDown: "↓", ArrowUp: "↑", Escape: "Esc" };

export function Help() {
  const dialog = useRef();
  useEffect(() => handle({ help: () => dialog.current.showModal() }), []);
  const keys = new Map();
  for (const [key, action] of Object.entries(KEYS)) keys.set(action, [...(keys.get(action) || []), SHOWN[key] || key]);
  const legend = (table) => Object.entries(table).map(([name, { glyph, word }]) =>
    html`<li key=${name}><span class=${`glyph ${name}`} aria-hidden="true">${glyph}</span> ${word}</li>`);
  return html`<dialog class="help" ref=${dialog} aria-labelledby="help-title"><h2 id="help-title">Keys and words</h2>
    <div class="columns"><dl class="keys">${[...keys].map(([action, names]) =>
      html`<dt key=${action}>${names.map((name) => html`<kbd>${name}</kbd> `)}</dt><dd>${SAY[action]}</dd>`)}</dl>
    <div><h3>Detectors</h3><ul class="legend">${legend(STANDINGS)}</ul>
      <p>A <b>blind</b> detector lacks what it needs, and a <b>learning</b> one has seen too little: neither says anything about health.</p>
      <h3>Anomalies</h3><ul class="legend">${legend(SEVERITIES)}</ul><h3>Runs</h3><ul class="legend">${legend(STATES)}</ul>
      <label><input type="checkbox" checked=${keysOn.value} onChange=${(event) => setKeys(event.target.checked)} /> single keys act</label></div></div>
    <form method="dialog"><button class="primary">Close</button></form></dialog>`;
}
