// The level of a run, and raising it: what was asked, what the trainer has said of it, and nothing it has not said.
import { html, useEffect, useRef, useState } from "../html.js";
import { patch, post, remove, segment } from "../api.js";
import { handle } from "../keyboard.js";
import { count } from "../words.js";
import { makeId } from "./attention.js";
import { isOpen, Life, Ranks } from "./life.js";
import { Trouble } from "./state.js";

const UPDATES = 50;
const LEVELS = ["off", "minimal", "normal", "debug"];

function Open({ one, run, locked, onChanged }) {
  const [problem, setProblem] = useState(null);
  const cancel = async () => {
    try {
      onChanged(await remove(`runs/${segment(run.run)}/escalations/${segment(one.id)}`));
    } catch (error) { setProblem(error); }
  };
  const done = one.update_applied === null || run.update_last === null ? null : Math.min(one.updates, Math.max(0, run.update_last - one.update_applied + 1));
  return html`<div class="escalation"><b>${one.level}</b> for ${count(one.updates, "update")}${done === null ? "" : `, ${done} of ${one.updates} done`}
    <span class="dim">${one.origin === "operator" ? "by an operator" : "by a rule"}${one.reason && one.origin === "operator" ? `: ${one.reason}` : ""}</span>
    <${Life} one=${one} /><${Ranks} one=${one} />
    <button class="small" disabled=${Boolean(locked)} title=${locked || "the trainer ends it at its next update"} onClick=${cancel}>end it</button>
    ${problem && html`<${Trouble} problem=${problem} />`}</div>`;
}

export function EscalateDialog({ run, dialog, onChanged }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const { level, updates, reason } = event.target.elements;
    setBusy(true);
    try {
      onChanged(await post(`runs/${segment(run.run)}/escalations`, { id: makeId(), level: level.value, updates: Number(updates.value), reason: reason.value }));
      setProblem(null);
      dialog.current.close();
    } catch (error) { setProblem(error); }
    setBusy(false);
  };
  return html`<dialog ref=${dialog} class="ask" aria-labelledby="escalate-title"><form onSubmit=${submit}>
    <h2 id="escalate-title">Raise the level of ${run.run}</h2>
    <p>The trainer applies it at an update boundary and ends it by itself, also when this daemon is gone.</p>
    <label>Level <select name="level"><option value="debug">debug: layers, exemplars, optimizer state</option><option value="normal">normal</option><option value="minimal">minimal</option></select></label>
    <label>Updates <input name="updates" type="number" min="1" max="10000" value=${UPDATES} required /></label>
    <label>Reason <input name="reason" maxlength="500" placeholder="for who reads it later" /></label>
    ${problem && html`<${Trouble} problem=${problem} />`}
    <div class="row"><button class="primary" disabled=${busy}>${busy ? "Asking…" : "Escalate"}</button><button type="button" class="small" onClick=${() => dialog.current.close()}>Cancel</button></div>
  </form></dialog>`;
}

/** The base that holds without escalations, and a pin that holds whatever is asked. */
function Hold({ run, dialog, onRun }) {
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const { base, pin } = event.target.elements;
    try {
      onRun(await patch(`runs/${segment(run.run)}`, { level: { base: base.value, pin: pin.value || null, revision: run.level.revision } }));
      setProblem(null);
      dialog.current.close();
    } catch (error) { setProblem(error); }
  };
  const options = LEVELS.map((level) => html`<option key=${level} value=${level}>${level}</option>`);
  return html`<dialog ref=${dialog} class="ask" aria-labelledby="hold-title"><form onSubmit=${submit}><h2 id="hold-title">Level of ${run.run}</h2>
    <label>Base: what holds without escalations <select name="base" value=${run.level.base}>${options}</select></label>
    <label>Pin: what holds whatever rules or people ask <select name="pin" value=${run.level.pin || ""}><option value="">not pinned</option>${options}</select></label>
    ${problem && html`<${Trouble} problem=${problem} />`}
    <div class="row"><button class="primary">Set</button><button type="button" class="small" onClick=${() => dialog.current.close()}>Cancel</button></div></form></dialog>`;
}

export function LevelBar({ run, escalations, locked, onChanged, onRun }) {
  const dialog = useRef();
  const hold = useRef();
  const why = locked || (run.live ? "" : `The run is ${run.state}: nobody would apply it.`);
  useEffect(() => handle({ escalate: () => (why ? false : dialog.current.showModal()) }));
  const open = escalations.filter(isOpen);
  const last = escalations.find((one) => !isOpen(one));
  const { base, pin, effective } = run.level;
  return html`<section class="levelbar" aria-label="Telemetry level"><span>level <b class=${`level ${effective || ""}`}>${effective || (run.live ? "not confirmed yet" : "–")}</b>
      ${pin ? html` <span class="dim">pinned at ${pin}</span>` : run.live && effective !== base && html` <span class="dim">base ${base}</span>`}</span>
    <button class="small" disabled=${Boolean(why)} title=${why || "raise the level for some updates (e)"} onClick=${() => dialog.current.showModal()}>Escalate…</button>
    <button class="small" disabled=${Boolean(locked)} title=${locked || "base and pin"} onClick=${() => hold.current.showModal()}>Base, pin…</button>
    ${run.overhead && html`<span class="dim" title=${run.overhead.sentence}>${Object.keys(run.overhead.thinned).length} collectors thinned, ${(run.overhead.share * 100).toFixed(1)} % of an update</span>`}
    ${open.map((one) => html`<${Open} key=${one.id} one=${one} run=${run} locked=${locked} onChanged=${onChanged} />`)}
    ${!open.length && last && html`<span class="dim last">last: ${last.sentence}</span>`}
    <${EscalateDialog} run=${run} dialog=${dialog} onChanged=${onChanged} />
    <${Hold} run=${run} dialog=${hold} onRun=${onRun} /></section>`;
}
