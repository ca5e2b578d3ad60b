// One live connection (server-sent events) for the page that is shown. Its state is always on screen: a page that does not move
// must not look like a run that does not move.
import { signal } from "./html.js";
import { BASE } from "./api.js";
import { check, session } from "./session.js";

/** state: connecting, open, lost; `since` (ms) is when it began. */
export const live = signal({ state: "connecting", since: Date.now() });
/** Nothing on the page moves while this is true. */
export const paused = signal(false);
/** Counts up whenever what was shown may lack events: pages ask the API anew. */
export const refetch = signal(0);

const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
const TOPICS = ["rows", "run", "anomaly", "escalation", "command", "silence"];

let source = null;
let runs = null;
let failures = 0;
let timer = 0;
const listeners = new Map();

/** Call `listener(document)` for each event of a topic; returns how to stop. */
export function listen(topic, listener) {
  if (!listeners.has(topic)) listeners.set(topic, new Set());
  listeners.get(topic).add(listener);
  return () => listeners.get(topic).delete(listener);
}

function say(state) {
  if (live.value.state !== state) live.value = { state, since: Date.now() };
}

/** Open the stream of one run, or of all with null. The one before is closed. */
export function watch(run = null) {
  if (source && run === runs && source.readyState !== EventSource.CLOSED) return;
  runs = run;
  failures = 0;
  connect();
}

function connect() {
  clearTimeout(timer);
  if (source) source.close();
  const opened = new EventSource(`${BASE}stream${runs === null ? "" : `?runs=${encodeURIComponent(runs)}`}`);
  source = opened;
  opened.addEventListener("hello", () => {
    const again = live.value.state === "lost";
    failures = 0;
    say("open");
    if (again) refetch.value += 1;
  });
  opened.addEventListener("gap", () => { refetch.value += 1; });
  opened.addEventListener("bye", () => say("lost"));
  opened.addEventListener("error", () => { if (opened === source) lost(); });
  for (const topic of TOPICS) {
    opened.addEventListener(topic, (event) => {
      const document = JSON.parse(event.data);
      for (const listener of listeners.get(topic) || []) listener(document);
    });
  }
}

function lost() {
  say("lost");
  if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself, and says where it was
  clearTimeout(timer);
  timer = setTimeout(again, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
}

/** A refused stream says nothing of why; the session does. */
async function again() {
  await check();
  if (session.value.phase === "in") connect();
}

export function close() {
  clearTimeout(timer);
  if (source) source.close();
  source = null;
}

/** Collects what comes in a burst and hands it on at most `hz` times a second; nothing while paused or hidden. */
export function throttle(flush, hz = 5) {
  let waiting = 0;
  let last = 0;
  const run = () => {
    waiting = 0;
    if (paused.value || document.hidden) return;
    last = performance.now();
    flush();
  };
  return () => {
    if (waiting) return;
    waiting = setTimeout(run, Math.max(0, 1000 / hz - (performance.now() - last)));
  };
}
