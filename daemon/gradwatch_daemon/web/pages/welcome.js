// No run yet: what to type, with this daemon's own address in it.
import { html } from "../html.js";

const LINES = `from gradwatch_agent import watch

mon = watch(model, optimizer, run="my-first-run")
...
mon.step(env_steps=steps, episode_returns=returns)   # once for each update`;

export function Welcome({ daemon }) {
  return html`<h1>No run yet</h1><p class="sentence" id="sentence" role="status">This daemon listens${daemon ? ` (profile ${daemon.profile}, ${daemon.rows} rows so far)` : ""}; no trainer has said hello.</p>
    <div class="cards"><section class="box"><h2>See it work</h2><p>Trains CartPole, breaks it on purpose, and shows it being found. Needs the demo extra.</p><pre><code>gradwatch demo</code></pre></section>
    <section class="box"><h2>Your trainer</h2><p>Two lines and one call an update. On this machine it finds the daemon by itself.</p><pre><code>${LINES}</code></pre></section>
    <section class="box"><h2>Unchanged</h2><p>A script that you would rather not touch:</p><pre><code>gradwatch run -- python train.py</code></pre></section>
    <section class="box"><h2>It ran already</h2><p>Old logs, through the same detectors:</p><pre><code>gradwatch import path/to/events.out.tfevents…</code></pre></section></div>`;
}
