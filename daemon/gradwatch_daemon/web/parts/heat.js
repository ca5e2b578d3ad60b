// A map of layers over updates: a row for each layer, a column for each update, shaded by its norm.
import { html, useEffect, useRef } from "../html.js";
import { color } from "../chart/palette.js";
import { number } from "../words.js";

const ROW = 22;

/** Shade of a norm: its place between the least and the largest of all layers, by powers of ten. */
function scale(table) {
  const sizes = table.flat().filter((value) => typeof value === "number" && value > 0).map(Math.log10);
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  return (value) => (typeof value !== "number" ? null : value <= 0 ? 0 : high > low ? 0.08 + 0.92 * ((Math.log10(value) - low) / (high - low)) : 0.5);
}

/** Draws the heat map. What is not finite is a cross on a cell of its own colour, what is not measured is left out. */
function draw(canvas, table, mark) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, (table[0]?.length || 0) * ROW];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const shade = scale(table);
  const step = width / Math.max(1, table.length);
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
  if (mark < 0) return;
  pen.strokeStyle = bad;
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.moveTo(mark * step, 0); pen.lineTo(mark * step, height);
  pen.stroke();
}

/** `table` holds a column of norms, one for each layer, for each update; `mark` is the index of the update where it began, or -1. */
export function Heat({ what, layers, update, table, at, mark = -1, onPick }) {
  const place = useRef();
  useEffect(() => {
    const canvas = place.current; // when the page is left it is told of a last size, and the reference is gone by then
    const paint = () => draw(canvas, table, mark);
    paint();
    addEventListener("gradwatch-theme", paint);
    const size = new ResizeObserver(paint);
    size.observe(canvas);
    return () => { removeEventListener("gradwatch-theme", paint); size.disconnect(); };
  }, [table, mark]);
  const within = (index) => Math.min(update.length - 1, Math.max(0, index));
  const pick = (event) => onPick(within(Math.floor((event.offsetX / place.current.clientWidth) * update.length)));
  const keys = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    onPick(within(at + step));
  };
  return html`<div class="heat" style=${{ gridTemplateRows: `repeat(${layers.length}, ${ROW}px)` }}>${layers.map((name, row) => html`<span key=${name} class="mono name" style=${{ gridRow: row + 1 }} title=${name}>${name}</span>
      <span key=${`${name}=`} class=${`num value ${typeof table[at]?.[row] === "string" ? "bad" : ""}`} style=${{ gridRow: row + 1 }}>${number(table[at]?.[row] ?? null)}</span>`)}
    <canvas ref=${place} tabindex="0" role="img" data-keys style=${{ gridRow: `1 / span ${layers.length}`, height: `${layers.length * ROW}px` }} onMouseMove=${pick} onKeyDown=${keys}
      aria-label=${`${what} of ${layers.length === 1 ? layers[0] : `${layers.length} layers`} at ${update.length} updates; arrow keys choose one`}></canvas></div>`;
}
