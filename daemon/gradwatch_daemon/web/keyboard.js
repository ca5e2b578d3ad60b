// One map of keys, the same as in `gradwatch top` (docs/keyboard.md). Never with a modifier held, never while something is typed.
import { signal } from "./html.js";

/** Key or sequence → action. A page handles the actions it has; the others do nothing there. */
export const KEYS = {
  j: "next", ArrowDown: "next", k: "previous", ArrowUp: "previous", Enter: "open", Escape: "back", h: "back",
  "/": "filter", "?": "help", "g r": "runs", "g a": "anomalies", "g d": "detectors",
  "[": "previous-anomaly", "]": "next-anomaly", " ": "pause", e: "escalate", a: "acknowledge", n: "note",
  x: "axis", l: "log", 0: "zoom-reset", "+": "zoom-in", "-": "zoom-out",
  s: "silence", b: "bands", y: "copy", t: "theme",
};

const SEQUENCE_MS = 1500;
const KEPT = "gradwatch.keys";

/** Off: single keys do nothing (WCAG 2.1.4). */
export const keysOn = signal((() => { try { return localStorage.getItem(KEPT) !== "off"; } catch { return true; } })());

export function setKeys(on) {
  keysOn.value = on;
  try { localStorage.setItem(KEPT, on ? "on" : "off"); } catch { /* a private window keeps nothing */ }
}

const handlers = [];
let pending = "";
let pendingAt = 0;

/** Handle actions: `{pause() {…}}`. The newest handler that has the action takes it. Returns how to stop. */
export function handle(actions) {
  handlers.push(actions);
  return () => handlers.splice(handlers.indexOf(actions), 1);
}

/** Carry out an action; whether somebody did. */
export function act(action, event) {
  for (let at = handlers.length - 1; at >= 0; at--) {
    const handler = handlers[at][action];
    if (handler && handler(event) !== false) return true;
  }
  return false;
}

const typing = (target) => target.closest("input, textarea, select, [contenteditable]");

function actionOf(event) {
  const now = performance.now();
  const pair = pending && now - pendingAt < SEQUENCE_MS ? `${pending} ${event.key}` : "";
  pending = "";
  if (pair && KEYS[pair]) return KEYS[pair];
  if (event.key === "g") {
    [pending, pendingAt] = ["g", now];
    return null;
  }
  return KEYS[event.key];
}

addEventListener("keydown", (event) => {
  if (!keysOn.value || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(event.target) || document.querySelector("dialog[open]")) return;
  // A focused button or link keeps its own Enter and space.
  if ((event.key === "Enter" || event.key === " ") && event.target.closest("a, button, summary, [data-keys]")) return;
  const action = actionOf(event);
  if (action && act(action, event)) event.preventDefault();
});
