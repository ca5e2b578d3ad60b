// What the pages share: the runs, what is open, the catalogue of detectors. Filled by the API, kept current by the stream.
import { batch, computed, signal } from "./html.js";
import { get } from "./api.js";
import { listen, throttle } from "./stream.js";
import { SEVERITIES } from "./words.js";

/** Name → run summary; null before the first answer. */
export const runs = signal(null);
/** Id → anomaly that is not resolved, over all runs: pending, firing, or ended with its run. */
export const open = signal(new Map());
/** Kind → entry of the catalogue. */
export const detectors = signal(new Map());
export const broken = signal([]);
export const profile = signal("");
/** GET daemon, for the line at the foot of every page. */
export const daemon = signal(null);
/** Last trouble of a background request, null when all is well. */
export const trouble = signal(null);

const PAGE = 200;

/** Every item of a list, page by page. */
export async function all(path, parameters = {}, most = 2000) {
  const items = [];
  let cursor;
  do {
    const answer = await get(path, { ...parameters, limit: PAGE, cursor });
    items.push(...answer.items);
    cursor = answer.next;
  } while (cursor && items.length < most);
  return items;
}

const byId = (items) => new Map(items.map((item) => [item.id, item]));

export async function loadRuns() {
  const [listed, firing, pending, ended] = await Promise.all([
    all("runs"), ...["firing", "pending", "ended"].map((state) => all("anomalies", { state })),
  ]);
  batch(() => {
    runs.value = new Map(listed.map((run) => [run.run, run]));
    open.value = byId([...ended, ...firing, ...pending]);
    trouble.value = null;
  });
}

export async function loadCatalogue() {
  const answer = await get("detectors");
  batch(() => {
    detectors.value = new Map(answer.items.map((item) => [item.kind, item]));
    broken.value = answer.broken;
    profile.value = answer.profile;
  });
}

export async function loadDaemon() {
  daemon.value = await get("daemon");
}

// -- live ----------------------------------------------------------------------------------------------------------------------

const newRuns = new Map();
const newAnomalies = new Map();

/** Take over what came since the last time, in one step: pages redraw once. */
const flush = throttle(() => {
  batch(() => {
    if (newRuns.size && runs.value) runs.value = new Map([...runs.value, ...newRuns]);
    if (newAnomalies.size) {
      const next = new Map(open.value);
      for (const [id, anomaly] of newAnomalies) {
        if (anomaly.state === "resolved") next.delete(id);
        else next.set(id, anomaly);
      }
      open.value = next;
    }
  });
  newRuns.clear();
  newAnomalies.clear();
});

listen("run", (run) => { newRuns.set(run.run, run); flush(); });
listen("anomaly", (anomaly) => { newAnomalies.set(anomaly.id, anomaly); flush(); });

/** Hand on what waited while the page was paused or hidden. */
export const catchUp = flush;

// -- derived -------------------------------------------------------------------------------------------------------------------

/** Worst first: severity, then the oldest. */
export const worstFirst = (a, b) =>
  SEVERITIES[b.severity].rank - SEVERITIES[a.severity].rank || Date.parse(a.fired_at) - Date.parse(b.fired_at);

/** Whether a person should still look at it: it fires, nobody has acknowledged it, nothing mutes it. */
export const wantsEyes = (anomaly) => anomaly.state === "firing" && !anomaly.acknowledged && !anomaly.silenced;

/** Run → its open anomalies, worst first. */
export const openByRun = computed(() => {
  const found = new Map();
  for (const anomaly of [...open.value.values()].sort(worstFirst)) {
    if (!found.has(anomaly.run)) found.set(anomaly.run, []);
    found.get(anomaly.run).push(anomaly);
  }
  return found;
});

/** Critical ones that fire and want eyes: the number in the title of the browser's tab. */
export const alarming = computed(() => [...open.value.values()].filter((a) => wantsEyes(a) && a.severity === "critical").length);

export const titleOf = (kind) => detectors.value.get(kind)?.title || kind.replaceAll("_", " ");
