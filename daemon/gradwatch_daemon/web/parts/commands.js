// What the trainer of this run takes: it declares its verbs, and only those have a button.
import { html, useRef, useState } from "../html.js";
import { post, remove, segment } from "../api.js";
import { makeId } from "./attention.js";
import { isOpen, Life, Ranks } from "./life.js";
import { Trouble } from "./state.js";

const SAYS = {
  profile: { button: "Profile…", what: "Record a trace of some updates with torch.profiler. The trace slows these updates down.", args: true },
  dump: { button: "Dump…", what: "Send the black box: what the trainer remembers of its last updates, layer by layer." },
  checkpoint: { button: "Checkpoint…", what: "Save a checkpoint now, between two updates." },
  stop: { button: "Stop…", what: "Ask the training to end after this update. Nothing is killed: the trainer sees it and leaves its loop." },
};
const PROFILE_UPDATES = 3;
const SHOWN = 4;

function Ask({ run, verb, dialog, onChanged }) {
  const [problem, setProblem] = useState(null);
  const known = SAYS[verb] || { what: "A command of the trainer's own." };
  const submit = async (event) => {
    event.preventDefault();
    const { reason, updates } = event.target.elements;
    try {
      onChanged(await post(`runs/${segment(run.run)}/commands`, { id: makeId(), verb, args: updates ? { updates: Number(updates.value) } : {}, reason: reason.value }));
      setProblem(null);
      dialog.current.close();
    } catch (error) { setProblem(error); }
  };
  return html`<dialog ref=${dialog} class="ask" aria-labelledby="command-title"><form onSubmit=${submit}><h2 id="command-title">${verb}: ${run.run}</h2><p>${known.what}</p>
    ${known.args && html`<label>Updates <input name="updates" type="number" min="1" max="100" value=${PROFILE_UPDATES} required /></label>`}
    <label>Reason <input name="reason" maxlength="500" placeholder="for who reads it later" /></label>
    ${problem && html`<${Trouble} problem=${problem} />`}
    <div class="row"><button class="primary">Ask for it</button><button type="button" class="small" onClick=${() => dialog.current.close()}>Cancel</button></div></form></dialog>`;
}

function Command({ one, run, locked, onChanged }) {
  const [problem, setProblem] = useState(null);
  const cancel = () => remove(`runs/${segment(run.run)}/commands/${segment(one.id)}`).then(onChanged, setProblem);
  return html`<div class="escalation"><b>${one.verb}</b><${Life} one=${one} /><${Ranks} one=${one} />
    ${!isOpen(one) && html`<span class="dim">${one.sentence}</span>`}${one.artifact && html`<a href=${one.artifact.url.replace(/^\//, "")} download>${one.artifact.name}, ${Math.ceil(one.artifact.bytes / 1024)} kB</a>`}
    ${isOpen(one) && html`<button class="small" disabled=${Boolean(locked)} title=${locked} onClick=${cancel}>cancel</button>`}${problem && html`<${Trouble} problem=${problem} />`}</div>`;
}

export function Commands({ run, commands, locked, onChanged }) {
  const dialog = useRef();
  const [verb, setVerb] = useState("");
  const ask = (name) => {
    setVerb(name);
    dialog.current.showModal();
  };
  const shown = commands.filter((one, i) => isOpen(one) || i < SHOWN);
  if (!run.verbs.length && !shown.length) return null;
  return html`<section class="levelbar" aria-label="Commands"><span>ask the trainer to</span>${run.verbs.map((name) =>
      html`<button key=${name} class="small" disabled=${Boolean(locked)} title=${locked || (SAYS[name] || {}).what} onClick=${() => ask(name)}>${(SAYS[name] || { button: `${name}…` }).button}</button>`)}
    ${!run.verbs.length && html`<span class="dim">nothing now: no trainer is connected that takes commands</span>`}
    ${shown.map((one) => html`<${Command} key=${one.id} one=${one} run=${run} locked=${locked} onChanged=${onChanged} />`)}
    <${Ask} run=${run} verb=${verb} dialog=${dialog} onChanged=${onChanged} /></section>`;
}
