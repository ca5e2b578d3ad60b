// requested → delivered → applied → ended, as far as it came: of an escalation and of a command alike. Nothing is shown as done
// before the trainer has said so.
import { html } from "../html.js";

const STEPS = ["requested", "delivered", "applied", "ended"];
const OVER = new Set(["ended", "rejected", "cancelled", "lost", "expired", "superseded"]);

export const isOpen = (one) => !OVER.has(one.state);

/** How far it came: a life never goes back. */
export const stage = (one) => (STEPS.indexOf(one.state) < 0 ? STEPS.length : STEPS.indexOf(one.state));

export function Life({ one }) {
  const reached = STEPS.indexOf(one.state);
  const off = reached < 0;
  const at = { applied: one.update_applied, ended: one.update_ended };
  return html`<ol class="life" aria-label=${`State: ${one.state}`}>${STEPS.map((step, i) => {
    const done = off ? step === "requested" || (step === "applied" && one.update_applied !== null) : i <= reached;
    const where = at[step] !== null && at[step] !== undefined ? ` at ${at[step]}` : "";
    return html`<li key=${step} class=${done ? "done" : ""} aria-current=${step === one.state ? "step" : undefined}>${done ? "●" : "○"} ${step}${where}</li>`;
  })}${off && html`<li class="done bad">✕ ${one.state}${one.ended_why && `: ${one.ended_why}`}</li>`}</ol>`;
}

/** Ranks that said something else than the rest: only then are they worth a line each. */
export function Ranks({ one }) {
  if (!Array.isArray(one.ranks) || one.ranks.length < 2) return null;
  return html`<span class="dim">${one.ranks.map((rank) => `rank ${rank.rank}: ${rank.state}${rank.update === null ? "" : ` at ${rank.update}`}${rank.late ? `, ${rank.late} after the first` : ""}${rank.reason ? ` (${rank.reason})` : ""}`).join(" · ")}</span>`;
}
