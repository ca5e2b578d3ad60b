// Small lines of a list: how a signal went, without a scale. What was not finite is a cross.
import { html } from "../html.js";
import { number } from "../words.js";

const [WIDTH, HEIGHT] = [84, 22];

export function Spark({ line, label }) {
  const values = line ? line.last : [];
  const finite = values.filter((value) => value !== null);
  const last = line?.raw.findLast((value) => value !== null);
  if (!finite.length && last === undefined) return html`<span class="dim" title=${`${label}: not measured`}>–</span>`;
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const x = (i) => (values.length < 2 ? WIDTH / 2 : 1 + (i * (WIDTH - 2)) / (values.length - 1));
  const y = (value) => (high > low ? HEIGHT - 3 - ((value - low) / (high - low)) * (HEIGHT - 6) : HEIGHT / 2);
  let path = "";
  values.forEach((value, i) => { if (value !== null) path += `${path && values[i - 1] !== null ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`; });
  const bad = line.nonfinite.map((n, i) => (n ? x(i) : null)).filter((at) => at !== null);
  const cross = bad.map((at) => `M${at - 2} ${HEIGHT - 5}l4 4m0 -4l-4 4`).join("");
  return html`<span class="spark"><svg width=${WIDTH} height=${HEIGHT} aria-hidden="true"><path class="line" d=${path} />${cross && html`<path class="cross" d=${cross} />`}</svg>
    <span class=${`num ${typeof last === "string" ? "bad" : ""}`}>${number(last)}</span></span>`;
}
