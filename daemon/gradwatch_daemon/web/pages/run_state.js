// What the page of a run knows, and how it stays current.
import { computed, effect, signal } from "../html.js";
import { get, segment } from "../api.js";
import { all } from "../store.js";
import { listen, refetch, throttle } from "../stream.js";
import { stage } from "../parts/life.js";

const EVENTS = 100;

export class RunState {
  constructor(name) {
    this.name = name;
    this.path = `runs/${segment(name)}`;
    this.run = signal(null);
    this.signals = signal([]);
    this.anomalies = signal([]);
    this.escalations = signal([]);
    this.commands = signal([]);
    this.events = signal([]);
    this.problem = signal(null);
    /** Stretches at one level: what escalations that were applied say, over the base. */
    const base = computed(() => (this.run.value ? this.run.value.level.pin ?? this.run.value.level.base : null));
    this.levels = computed(() => levels(base.value, this.escalations.value));
    this.fresh = null;
    const flush = throttle(() => this.apply());
    // Standings and signals are not in the stream: they are asked for when the counts say that something changed.
    const detail = throttle(() => this.loadDetail(), 0.5);
    this.stops = [
      listen("run", (run) => { if (run.run === name) { this.fresh = run; flush(); if (this.changed(run)) detail(); } }),
      listen("anomaly", (one) => { if (one.run === name) { this.anomalies.value = merge(this.anomalies.value, one); detail(); } }),
      listen("escalation", (one) => { if (one.run === name) this.take(one); }),
      listen("command", (one) => { if (one.run === name) this.takeCommand(one); }),
      effect(() => { refetch.value; this.load(); }),
    ];
  }

  apply() {
    if (this.fresh && this.run.value) this.run.value = { ...this.run.value, ...this.fresh };
  }

  changed(run) {
    const now = this.run.value;
    return !now || now.state !== run.state || JSON.stringify(now.detectors) !== JSON.stringify(run.detectors) || !this.signals.value.length;
  }

  /** Take over one escalation, new or changed. */
  take(one) {
    this.escalations.value = live(this.escalations.value, one);
  }

  takeCommand(one) {
    this.commands.value = live(this.commands.value, one);
  }

  /** Take over what the daemon says of the run. */
  renew(summary) {
    this.run.value = { ...this.run.value, ...summary };
  }

  async load() {
    try {
      const [run, signals, anomalies, escalations, events, commands] = await Promise.all([
        get(this.path), get(`${this.path}/signals`), all("anomalies", { run: this.name }), all(`${this.path}/escalations`),
        get(`${this.path}/events`, { limit: EVENTS }), all(`${this.path}/commands`),
      ]);
      this.commands.value = commands;
      this.run.value = run;
      this.signals.value = signals.items;
      this.anomalies.value = anomalies;
      this.escalations.value = escalations;
      this.events.value = events.items;
      this.problem.value = null;
    } catch (error) {
      this.problem.value = error;
    }
  }

  async loadDetail() {
    try {
      const [run, signals, events] = await Promise.all([get(this.path), get(`${this.path}/signals`), get(`${this.path}/events`, { limit: EVENTS })]);
      this.run.value = run;
      this.signals.value = signals.items;
      this.events.value = events.items;
      this.problem.value = null;
    } catch (error) {
      this.problem.value = error;
    }
  }

  close() {
    for (const stop of this.stops) stop();
  }
}

function merge(items, one) {
  const at = items.findIndex((item) => item.id === one.id);
  return at < 0 ? [one, ...items] : items.map((item, i) => (i === at ? one : item));
}

/** The same of what has a life: the answer to a request may come after the event of what became of it. */
function live(items, one) {
  const known = items.find((item) => item.id === one.id);
  return known && stage(known) > stage(one) ? items : merge(items, one);
}

/** From update to update, null for "until now". It does not depend on the newest update: panels are drawn anew when it changes. */
function levels(base, escalations) {
  if (base === null) return [];
  const raised = escalations
    .filter((one) => one.update_applied !== null)
    .map((one) => ({ level: one.level, from: one.update_applied, to: one.update_ended }));
  return [{ level: base, from: 0, to: null }, ...raised];
}
