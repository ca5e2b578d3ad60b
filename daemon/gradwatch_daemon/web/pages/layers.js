// Which layer went wrong first? A row for each layer, a column for each update that has a table, shaded by its norm.
import { html, useEffect, useRef, useState } from "../html.js";
import { get, segment } from "../api.js";
import { color } from "../chart/palette.js";
import { amend, go, href, route } from "../route.js";
import { handle } from "../keyboard.js";
import { listen, refetch, throttle } from "../stream.js";
import { number, whole } from "../words.js";
import { Trouble } from "../parts/state.js";

const TABLES = 60;
const ROW = 22;
const WHAT = { grad_norm: "gradient norm, before clipping", weight_norm: "weight norm" };

/** Shade of a norm: its place between the least and the largest of all layers, by powers of ten. */
function scale(table) {
  const sizes = table.flat().filter((value) => typeof value === "number" && value > 0).map(Math.log10);
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  return (value) => (typeof value !== "number" ? null : value <= 0 ? 0 : high > low ? 0.08 + 0.92 * ((Math.log10(value) - low) / (high - low)) : 0.5);
}

/** Draws the heat map. What is not finite is a cross on a cell of its own colour, what is not measured is left out. */
function draw(canvas, data, what) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, data.layers.length * ROW];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const table = data[what];
  const shade = scale(table);
  const step = width / Math.max(1, data.update.length);
  const [ink, bad] = [color("--line-1"), color("--critical")];
  table.forEach((column, i) => column.forEach((value, row) => {
    const [x, y] = [i * step, row * ROW];
    if (typeof value === "string") {
      pen.globalAlpha = 0.25;
      pen.fillStyle = bad;
      pen.fillRect(x, y + 1, Math.max(1, step - 1), ROW - 2);
      pen.globalAlpha = 1;
      pen.strokeStyle = bad;
      pen.lineWidth = 1.5;
      const [cx, cy] = [x + step / 2, y + ROW / 2];
      pen.beginPath();
      pen.moveTo(cx - 4, cy - 4); pen.lineTo(cx + 4, cy + 4); pen.moveTo(cx - 4, cy + 4); pen.lineTo(cx + 4, cy - 4);
      pen.stroke();
      return;
    }
    const share = shade(value);
    if (share === null) return;
    pen.globalAlpha = share;
    pen.fillStyle = ink;
    pen.fillRect(x, y + 1, Math.max(1, step - 1), ROW - 2);
  }));
  pen.globalAlpha = 1;
}

function Heat({ data, what, at, onPick }) {
  const place = useRef();
  useEffect(() => {
    const paint = () => draw(place.current, data, what);
    paint();
    addEventListener("gradwatch-theme", paint);
    const size = new ResizeObserver(paint);
    size.observe(place.current);
    return () => { removeEventListener("gradwatch-theme", paint); size.disconnect(); };
  }, [data, what]);
  const pick = (event) => onPick(Math.min(data.update.length - 1, Math.max(0, Math.floor((event.offsetX / place.current.clientWidth) * data.update.length))));
  const keys = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    onPick(Math.min(data.update.length - 1, Math.max(0, at + step)));
  };
  return html`<div class="heat" style=${{ gridTemplateRows: `repeat(${data.layers.length}, ${ROW}px)` }}>${data.layers.map((name, row) => html`<span key=${name} class="mono name" style=${{ gridRow: row + 1 }} title=${name}>${name}</span>
      <span key=${`${name}=`} class=${`num value ${typeof data[what][at]?.[row] === "string" ? "bad" : ""}`} style=${{ gridRow: row + 1 }}>${number(data[what][at]?.[row] ?? null)}</span>`)}
    <canvas ref=${place} tabindex="0" role="img" data-keys style=${{ gridRow: `1 / span ${data.layers.length}`, height: `${data.layers.length * ROW}px` }} onMouseMove=${pick} onKeyDown=${keys}
      aria-label=${`${WHAT[what]} of ${data.layers.length} layers at ${data.update.length} updates; arrow keys choose one`}></canvas></div>`;
}

export function Layers({ parts }) {
  const run = parts[1];
  const [data, setData] = useState(null);
  const [problem, setProblem] = useState(null);
  const [picked, setPicked] = useState(null);
  const { query } = route.value;
  const what = WHAT[query.what] ? query.what : "grad_norm";
  const load = () => get(`runs/${segment(run)}/layers`, { tables: TABLES, update: query.update, attempt: query.attempt }).then((answer) => { setData(answer); setProblem(null); }, setProblem);
  useEffect(() => { load(); }, [run, query.update, query.attempt, refetch.value]);
  useEffect(() => { const soon = throttle(load, 0.5); return listen("rows", (rows) => { if (rows.run === run && !query.update) soon(); }); }, [run, query.update]);
  useEffect(() => handle({ back: () => go(["runs", run]) }), [run]);
  const at = picked === null || !data ? (data?.update.length || 1) - 1 : Math.min(picked, data.update.length - 1);
  return html`<div class="run-head"><a class="back" href=${href(["runs", run])}>‹ ${run}</a><h1>Layers</h1></div>
    ${problem && html`<${Trouble} problem=${problem} retry=${load} />`}
    ${!data && !problem && html`<p class="dim">Asking for the tables…</p>`}
    ${data && html`<p class="sentence" id="sentence" role="status">${data.sentence}</p>`}
    ${data && !data.update.length && html`<div class="box"><p>Tables of layers are collected at level <b>debug</b>. Raise the level of <a href=${href(["runs", run])}>${run}</a> for some updates (<kbd>e</kbd> there), and they appear here.</p></div>`}
    ${data && data.update.length > 0 && html`<div class="toolbar"><label>show <select value=${what} onChange=${(event) => amend({ what: event.target.value })}>${Object.entries(WHAT).map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}</select></label>
      <span>at update <b class="num">${data.update[at]}</b></span><span class="spacer"></span><span class="dim">${whole(data.updates.length)} updates have a table, ${data.update[0]} to ${data.update.at(-1)} shown; darker is larger, by powers of ten; ✕ is not finite</span></div>
      <div class="box scroll"><${Heat} data=${data} what=${what} at=${at} onPick=${setPicked} /></div>`}`;
}
