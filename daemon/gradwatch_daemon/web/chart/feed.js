// The numbers behind a page of panels: everything once, then only what is new, at most `HZ` times a second.
import { effect, signal } from "../html.js";
import { get, segment } from "../api.js";
import { listen, refetch, throttle } from "../stream.js";
import { columns, splice } from "./series.js";

const HZ = 4;
const POINTS = 600;
/** Points that came live beyond which everything is asked for anew, in buckets again. */
const TAIL_MAX = 600;
const SIGNALS_MAX = 24;

/** One feed. `data` is null before the first answer; `problem` is the last refusal. `want` may change at any time. */
export class Feed {
  constructor(run) {
    this.run = run;
    this.data = signal(null);
    this.problem = signal(null);
    this.wanted = { keys: [], from: null, to: null, attempt: null };
    this.asking = null;
    this.newest = -1;
    this.tail = 0;
    const tick = throttle(() => this.follow(), HZ);
    this.stops = [
      listen("rows", (rows) => { if (this.concerns(rows)) { this.newest = Math.max(this.newest, rows.update_last); tick(); } }),
      effect(() => { if (refetch.value) this.load(); }),
    ];
    const shown = () => { if (!document.hidden) tick(); };
    document.addEventListener("visibilitychange", shown);
    this.stops.push(() => document.removeEventListener("visibilitychange", shown));
  }

  concerns(rows) {
    return rows.run === this.run && (this.wanted.attempt === null || rows.attempt === this.wanted.attempt);
  }

  /** Show these: `keys` as name or name/subject; `from` and `to` are updates or null. */
  want(wanted) {
    if (JSON.stringify(wanted) === JSON.stringify(this.wanted)) return;
    this.wanted = wanted;
    this.load();
  }

  async ask(from, to, points) {
    const { keys, attempt } = this.wanted;
    const path = `runs/${segment(this.run)}/chart`;
    const parts = [];
    for (let at = 0; at < keys.length; at += SIGNALS_MAX) {
      parts.push(get(path, { signals: keys.slice(at, at + SIGNALS_MAX).join(","), from, to, points, attempt }, { signal: this.asking.signal }));
    }
    const answers = await Promise.all(parts);
    const first = columns(answers[0]);
    for (const answer of answers.slice(1)) {
      // Asked for at once, a row may have come in between: the lines of all must fit one axis.
      const more = columns(answer);
      if (more.update.length !== first.update.length) continue;
      for (const [key, line] of more.lines) first.lines.set(key, line);
      first.absent.push(...more.absent);
    }
    return first;
  }

  async load() {
    if (!this.wanted.keys.length) return;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    try {
      const { from, to } = this.wanted;
      const data = await this.ask(from, to, POINTS);
      if (asking !== this.asking) return;
      this.tail = 0;
      this.data.value = data;
      this.problem.value = null;
    } catch (error) {
      if (error.name !== "AbortError") this.problem.value = error;
    } finally {
      if (asking === this.asking) this.busy = false;
    }
  }

  /** Fetch what came since the last point, and the last point again: its bucket may not have been full. */
  async follow() {
    const data = this.data.value;
    if (!data || this.busy || this.wanted.to !== null || this.newest <= (data.update.at(-1) ?? -1) + data.bucket - 1 && data.bucket === 1) return;
    if (this.tail > TAIL_MAX) {
      this.load();
      return;
    }
    this.busy = true;
    const asking = this.asking;
    try {
      const from = data.update.at(-1) ?? 0;
      const newer = await this.ask(from, null, POINTS);
      if (asking !== this.asking) return;
      this.data.value = splice(data, newer);
      this.tail += this.data.value.update.length - data.update.length;
      this.problem.value = null;
    } catch (error) {
      if (error.name !== "AbortError") this.problem.value = error;
    } finally {
      this.busy = false;
    }
  }

  close() {
    this.asking?.abort();
    for (const stop of this.stops) stop();
  }
}
