// What is wrong, said where it cannot be missed: the connection, the daemon, a refused request.
import { html, useEffect, useState } from "../html.js";
import { live, paused, refetch } from "../stream.js";
import { daemon } from "../store.js";
import { readOnly } from "../session.js";
import { duration } from "../words.js";

/** The time, once a second, for what says how long ago something was. */
export function useNow(ms = 1000) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), ms);
    return () => clearInterval(timer);
  }, [ms]);
  return now;
}

export function togglePause() {
  paused.value = !paused.value;
  if (!paused.value) refetch.value += 1;
}

/** Live, paused, connecting or lost: a word, and a dot that is filled only while live. */
export function LiveDot() {
  const { state } = live.value;
  const word = paused.value ? "paused" : { open: "live", connecting: "connecting", lost: "disconnected" }[state];
  const glyph = word === "live" ? "●" : word === "paused" ? "❚❚" : "○";
  return html`<button class=${`quiet livedot ${word}`} onClick=${togglePause} aria-pressed=${paused.value}
    title=${paused.value ? "Go on (space)" : "Hold the page still (space)"}><span aria-hidden="true">${glyph}</span> ${word}</button>`;
}

function Age({ since }) {
  return duration(useNow() - since);
}

/** Bars over the page, worst first; nothing while all is well. */
export function Banner() {
  const bars = [];
  if (live.value.state === "lost") {
    bars.push(html`<div class="bar critical" role="status" key="lost"><b>○ Disconnected</b> for <${Age} since=${live.value.since} />: what is
      shown is from before. Trying again; missed events are fetched then.</div>`);
  }
  const status = daemon.value;
  if (status && !status.ready) {
    bars.push(html`<div class="bar critical" role="status" key="degraded"><b>▲ The daemon is degraded:</b> ${status.trouble.join("; ")}. Rows
      wait in the trainers until it can store them again.</div>`);
  } else if (status && status.data_dir.free_bytes < 512 * 2 ** 20) {
    bars.push(html`<div class="bar warning" role="status" key="disk"><b>△ The disk is nearly full:</b> ${Math.floor(status.data_dir.free_bytes / 2 ** 20)} MiB
      left at ${status.data_dir.path}.</div>`);
  }
  if (paused.value) bars.push(html`<div class="bar info" role="status" key="paused"><b>❚❚ Paused.</b> The page holds still; press space to go on.</div>`);
  const why = readOnly();
  if (why) bars.push(html`<div class="bar info" key="readonly"><b>Read only.</b> ${why} Controls are shown but do nothing.</div>`);
  return bars;
}

/** A refusal of the daemon, whole: what, why, what next, and a way to send it on. */
export function Trouble({ problem, retry }) {
  const text = [problem.title, problem.detail, problem.hint, problem.instance, problem.code].filter(Boolean).join("\n");
  return html`<div class="trouble" role="alert"><b>✕ ${problem.title || problem.message}</b>
    ${problem.detail && html`<p>${problem.detail}</p>`}${problem.hint && html`<p class="hint">${problem.hint}</p>`}
    <p class="dim"><code>${problem.code || problem.name}</code> ${problem.instance}
      <button class="small" onClick=${() => navigator.clipboard?.writeText(text)}>copy</button>
      ${retry && html`<button class="small" onClick=${retry}>try again</button>`}</p></div>`;
}
