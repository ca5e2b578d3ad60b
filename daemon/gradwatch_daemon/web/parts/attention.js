// What people do about an anomaly: acknowledge it, write a note, silence its kind. All of it is shown only once the daemon has it.
import { html, useRef, useState } from "../html.js";
import { patch, post, segment } from "../api.js";
import { titleOf } from "../store.js";
import { clock } from "../words.js";
import { Trouble } from "./state.js";

const LIFETIMES = [["3600", "1 hour"], ["14400", "4 hours"], ["43200", "12 hours"], ["259200", "3 days"]];

/** Random enough for the daemon to know the same request again. */
export const makeId = () => `web-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;

export const acknowledge = (anomaly, on, note) =>
  patch(`anomalies/${segment(anomaly.id)}`, note === undefined ? { acknowledged: on } : { acknowledged: on, note });

export function SilenceDialog({ anomaly, dialog, onDone }) {
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const { where, lifetime, reason } = event.target.elements;
    const run = where.value === "run" ? anomaly.run : null;
    try {
      await post("silences", { id: makeId(), run, kind: anomaly.kind, reason: reason.value, lifetime_s: Number(lifetime.value) });
      setProblem(null);
      dialog.current.close();
      onDone();
    } catch (error) { setProblem(error); }
  };
  return html`<dialog ref=${dialog} class="ask" aria-labelledby="silence-title"><form onSubmit=${submit}>
    <h2 id="silence-title">Silence ${titleOf(anomaly.kind)}</h2><p>Nothing of it is delivered; all of it stays in the record, with the name of who silenced it.</p>
    <label>Where <select name="where"><option value="run">in ${anomaly.run}</option><option value="all">in every run</option></select></label>
    <label>For <select name="lifetime">${LIFETIMES.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select></label>
    <label>Reason <input name="reason" required maxlength="500" placeholder="why this is expected" /></label>
    ${problem && html`<${Trouble} problem=${problem} />`}
    <div class="row"><button class="primary">Silence</button><button type="button" class="small" onClick=${() => dialog.current.close()}>Cancel</button></div></form></dialog>`;
}

/** Acknowledge, note and silence, and what was done already. */
export function Attention({ anomaly, locked, note, silence, onChanged }) {
  const [problem, setProblem] = useState(null);
  const text = useRef();
  const set = async (on, words) => {
    try {
      onChanged(await acknowledge(anomaly, on, words));
      setProblem(null);
    } catch (error) { setProblem(error); }
  };
  const submit = (event) => {
    event.preventDefault();
    set(true, text.current.value);
    note.current.close();
  };
  const seen = anomaly.acknowledged;
  return html`<div class="attention">
    ${seen ? html`<span class="seen">✓ acknowledged by <b>${seen.by}</b> at ${clock(seen.at)}${seen.note && html`: <q>${seen.note}</q>`}</span>
        <button class="small" disabled=${Boolean(locked)} title=${locked} onClick=${() => set(false)}>undo</button>`
      : html`<button class="primary" disabled=${Boolean(locked)} title=${locked || "say that somebody looks at it (a)"} onClick=${() => set(true)}>Acknowledge</button>`}
    <button class="small" disabled=${Boolean(locked)} title=${locked || "write a note (n)"} onClick=${() => note.current.showModal()}>${seen?.note ? "Edit note" : "Note"}…</button>
    ${anomaly.silenced ? html`<a class="seen" href="#/silences">⊖ silenced</a>`
      : html`<button class="small" disabled=${Boolean(locked)} title=${locked || "deliver nothing of its kind for a while (s)"} onClick=${() => silence.current.showModal()}>Silence…</button>`}
    <dialog ref=${note} class="ask" aria-labelledby="note-title"><form onSubmit=${submit}><h2 id="note-title">A note, which also acknowledges</h2>
      <label>Note <textarea ref=${text} rows="3" maxlength="500">${seen?.note || ""}</textarea></label>
      <div class="row"><button class="primary">Keep</button><button type="button" class="small" onClick=${() => note.current.close()}>Cancel</button></div></form></dialog>
    ${problem && html`<${Trouble} problem=${problem} />`}</div>`;
}
