// One panel: what is measured, its newest or chosen value, the chart, and the same as a table.
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { HEIGHT, makeChart, table } from "../chart/chart.js";
import { LINES } from "../chart/palette.js";
import { AXES, extent, gaps, lastOf } from "../chart/series.js";
import { act } from "../keyboard.js";
import { number, unit } from "../words.js";

const ROWS = 24;

/** Draws the chart only while it can be seen, at most once a frame. */
class Drawing {
  constructor(place, on) {
    this.place = place;
    this.on = on;
    this.panel = null;
    this.chart = null;
    this.seen = false;
    this.drawn = "";
    this.watch = new IntersectionObserver((entries) => {
      this.seen = entries.at(-1).isIntersecting;
      if (this.seen) this.schedule();
    }, { rootMargin: "200px" });
    this.watch.observe(place);
    this.size = new ResizeObserver(() => {
      if (this.chart && place.clientWidth && place.clientWidth !== this.chart.width) this.chart.setSize({ width: place.clientWidth, height: HEIGHT });
    });
    this.size.observe(place);
    this.retheme = () => { this.drawn = ""; this.schedule(); };
    addEventListener("gradwatch-theme", this.retheme);
  }

  show(panel) {
    this.panel = panel;
    this.schedule();
  }

  schedule() {
    if (this.waiting || !this.panel) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.seen && this.panel) this.draw();
    });
  }

  draw() {
    const { axis, log, lines } = this.panel;
    const form = `${axis} ${log} ${lines.map((line) => line.subject + (line.spread ? " spread" : ""))}`;
    if (form !== this.drawn) {
      this.chart?.destroy();
      this.chart = makeChart(this.place, () => this.panel, this.on);
      this.drawn = form;
    } else this.chart.setData(table(this.panel));
  }

  close() {
    cancelAnimationFrame(this.waiting);
    this.watch.disconnect();
    this.size.disconnect();
    removeEventListener("gradwatch-theme", this.retheme);
    this.chart?.destroy();
  }
}

/** The values at a point, or the newest ones, as text. */
function read(panel, at) {
  return panel.lines.map((line, i) => {
    const name = line.subject ? `${line.subject} ` : "";
    if (at === null) {
      const last = lastOf(line);
      return { name, i, text: last ? number(last.value) : "–", bad: typeof last?.value === "string" };
    }
    const value = line.raw[at];
    const bad = line.nonfinite[at] > 0;
    return { name, i, bad, text: value === null || value === undefined ? (line.status[at] || "–").replaceAll("_", " ") : number(value) };
  });
}

/** What a screen reader says of a panel. */
function sentence(panel) {
  const found = extent(panel.lines);
  const bad = panel.lines.reduce((sum, line) => sum + line.nonfinite.reduce((a, b) => a + b, 0), 0);
  const marked = panel.anomalies.filter(panel.concerns).length;
  const parts = [found ? `${number(found[0])} to ${number(found[1])}, last ${read(panel, null).map((one) => one.name + one.text).join(", ")}` : "no finite value"];
  if (bad) parts.push(`${bad} values not finite`);
  if (marked) parts.push(`${marked} ${marked === 1 ? "anomaly" : "anomalies"}`);
  return `${panel.title}: ${parts.join(", ")}`;
}

/** What is drawn, for a test to look at: a canvas tells nothing. */
function model(panel) {
  const [line] = panel.lines;
  const anomalies = panel.anomalies.map((one) => ({ kind: one.kind, update_onset: one.update_onset, severity: one.severity, concerned: panel.concerns(one) }));
  return { update: panel.data.update, x: AXES[panel.axis].of(panel.data), bucket: panel.data.bucket, last: line.last, low: line.low, high: line.high,
    nonfinite: line.nonfinite, limits: panel.limits, levels: panel.levels, gaps: gaps(panel.data), anomalies };
}

function Table({ panel }) {
  const { data } = panel;
  const first = Math.max(0, data.update.length - ROWS);
  return html`<div class="panel-table" tabindex="0" role="region" aria-label=${`${panel.title} as a table`}><table>
    <thead><tr><th scope="col">update</th>${panel.lines.map((line) => html`<th scope="col" key=${line.subject}>${line.subject || "value"}</th>`)}</tr></thead>
    <tbody>${data.update.slice(first).map((update, i) => html`<tr key=${update}><th scope="row">${update}</th>${panel.lines.map((line) =>
      html`<td>${line.raw[first + i] === null ? (line.status[first + i] || "").replaceAll("_", " ") : number(line.raw[first + i], 5)}</td>`)}</tr>`).reverse()}</tbody></table></div>`;
}

export function Panel({ panel, onZoom, onRemove }) {
  const place = useRef();
  const readout = useRef();
  const drawing = useRef();
  const shown = useRef(panel);
  const at = useRef(null);
  const [asTable, setAsTable] = useState(false);
  shown.current = panel;

  const tell = () => {
    if (!readout.current) return;
    const values = read(shown.current, at.current);
    const parts = values.map(({ name, text, i, bad }) => {
      const span = document.createElement("span");
      span.textContent = `${name}${text}`;
      span.className = bad ? "bad" : "";
      if (values.length > 1) span.style.color = `var(${LINES[i % LINES.length].color})`;
      return span;
    });
    const when = document.createElement("span");
    when.className = "dim";
    when.textContent = at.current === null ? unit(shown.current.unit) : `at ${shown.current.data.update[at.current]}`;
    readout.current.replaceChildren(...parts, when);
  };

  useEffect(() => {
    if (asTable) return undefined;
    drawing.current = new Drawing(place.current, {
      cursor: (index) => { at.current = index ?? null; tell(); },
      zoom: (from, to) => onZoom(from, to),
    });
    return () => drawing.current.close();
  }, [asTable]);
  // What is drawn depends on these: a page that is rendered for another reason must not draw its charts.
  const drawn = [panel.data, panel.axis, panel.log, panel.bands, panel.anomalies, panel.levels, panel.limits.length, String(panel.window), asTable];
  useEffect(() => {
    if (!asTable) drawing.current.show(panel);
    tell();
  }, drawn);
  const label = useMemo(() => sentence(panel), drawn);

  const onKeyDown = (event) => {
    const chart = drawing.current?.chart;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && chart && panel.data.update.length) {
      const n = panel.data.update.length;
      const index = Math.min(n - 1, Math.max(0, (at.current ?? n) + step * (event.shiftKey ? 10 : 1)));
      chart.setCursor({ left: chart.valToPos(AXES[panel.axis].of(panel.data)[index], "x"), top: 10 }, true, true);
      readout.current.setAttribute("aria-live", "polite"); // only who moves by keys is told every value
      event.preventDefault();
    } else if (event.key === "Enter") {
      if (act("open-anomaly-at", { update: at.current === null ? null : panel.data.update[at.current] })) event.preventDefault();
    }
  };

  const finite = extent(panel.lines);
  const figure = (element) => { if (element) element.gradwatch = () => model(shown.current); };
  return html`<figure class="panel" data-signal=${panel.signal} ref=${figure}>
    <figcaption><span class="panel-title" title=${`${panel.signal}${panel.estimator ? `: ${panel.estimator}` : ""}${panel.window ? `, ${panel.window}` : ""}`}>${panel.title}</span>
      <span class="readout num" ref=${readout} aria-live="off"></span>
      <button class="tiny" aria-pressed=${asTable} aria-label=${`${panel.title} as a table`} title="as a table" onClick=${() => setAsTable(!asTable)}>▤</button>
      ${onRemove && html`<button class="tiny" aria-label=${`Remove ${panel.title}`} title="remove" onClick=${onRemove}>×</button>`}</figcaption>
    ${asTable ? html`<${Table} panel=${panel} />`
      : html`<div class="plot" ref=${place} tabindex="0" role="img" data-keys aria-roledescription="chart" aria-label=${label} onKeyDown=${onKeyDown}></div>`}
    ${!asTable && !finite && html`<p class="panel-note">${panel.note}</p>`}
  </figure>`;
}

/** A panel for what the run does not send: the reason, and the line that would change it. */
export function EmptyPanel({ title, signal, why, add }) {
  return html`<figure class="panel empty" data-signal=${signal}><figcaption><span class="panel-title">${title}</span><span class="readout dim">not measured</span></figcaption>
    <div class="panel-empty"><p>${why}</p>${add && html`<p>In the trainer: <code>${add}</code></p>`}</div></figure>`;
}
