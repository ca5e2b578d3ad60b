// Every signal a run has, with its last value or why there is none; chosen ones become panels.
import { html, useEffect, useRef, useState } from "../html.js";
import { amend } from "../route.js";
import { number, unit } from "../words.js";

const SHOWN = 120;
const PANELS_MAX = 24;

export function Picker({ signals, names, open, onClose }) {
  const dialog = useRef();
  const [text, setText] = useState("");
  useEffect(() => { if (open && !dialog.current.open) dialog.current.showModal(); }, [open]);
  const byName = new Map();
  for (const item of signals) byName.set(item.signal, [...(byName.get(item.signal) || []), item]);
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...byName].filter(([name]) => words.every((word) => name.includes(word)));
  const toggle = (name) => amend({ signals: (names.includes(name) ? names.filter((other) => other !== name) : [...names, name]).slice(-PANELS_MAX).join(",") });
  return html`<dialog class="picker" ref=${dialog} onClose=${onClose} aria-labelledby="picker-title"><h2 id="picker-title">Signals of this run</h2>
    <div class="row"><input type="search" placeholder="filter, for example: grad norm" aria-label="Filter signals" value=${text} onInput=${(event) => setText(event.target.value)} />
      <button class="small" onClick=${() => amend({ signals: "" })}>vitals</button></div>
    <ul class="signals">${found.slice(0, SHOWN).map(([name, items]) => {
      const best = items.find((item) => item.value_last !== null) || items[0];
      const value = best.value_last === null ? best.reason || best.status.replaceAll("_", " ") : `${number(best.value_last)} ${unit(best.unit)}`;
      return html`<li key=${name}><label><input type="checkbox" checked=${names.includes(name)} onChange=${() => toggle(name)} /> <span class="mono">${name}</span>
        ${items.length > 1 && html` <span class="dim">× ${items.length}</span>`}<span class=${`value num ${best.value_last === null ? "dim" : ""}`}>${value}</span></label></li>`;
    })}</ul>${found.length > SHOWN && html`<p class="dim">${SHOWN} of ${found.length} shown: filter to see others.</p>`}
    <form method="dialog"><button class="primary">Done</button></form></dialog>`;
}
