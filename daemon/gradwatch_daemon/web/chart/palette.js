// Colours of a canvas, read from the same variables as the page's, and the marks that stand beside colour.

/** Subjects of one panel: a colour, and a dash that tells lines apart without it. */
export const LINES = [
  { color: "--line-1", dash: [] },
  { color: "--line-2", dash: [7, 3] },
  { color: "--line-3", dash: [2, 3] },
  { color: "--line-4", dash: [10, 3, 2, 3] },
  { color: "--line-5", dash: [4, 2] },
  { color: "--line-6", dash: [1, 2] },
  { color: "--line-7", dash: [12, 4] },
  { color: "--line-8", dash: [6, 2, 2, 2] },
];

// Asking the browser costs a tenth of a millisecond a panel, and the answer is another one only after the theme changed.
const inks = new Map();
const hatches = new Map();
addEventListener("gradwatch-theme", () => { inks.clear(); hatches.clear(); });

export function color(name) {
  if (!inks.has(name)) inks.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return inks.get(name);
}

/** A pattern of diagonal lines: what is shaded is also hatched. `step` in CSS pixels. */
export function hatch(context, name, step = 6) {
  const ink = color(name);
  const scale = devicePixelRatio || 1;
  const key = `${ink} ${step} ${scale}`;
  if (!hatches.has(key)) {
    const size = Math.round(step * scale);
    const tile = new OffscreenCanvas(size, size);
    const pen = tile.getContext("2d");
    pen.strokeStyle = ink;
    pen.lineWidth = Math.max(1, 0.8 * scale);
    for (const at of [-size, 0, size]) {
      pen.beginPath();
      pen.moveTo(at, size);
      pen.lineTo(at + size, 0);
      pen.stroke();
    }
    hatches.set(key, context.createPattern(tile, "repeat"));
  }
  return hatches.get(key);
}
