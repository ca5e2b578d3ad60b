// The only file that knows uPlot: one panel's lines, scales, cursor and zoom.
import uPlot from "../vendor/uplot.js";
import { color, LINES } from "./palette.js";
import { hooks } from "./marks.js";
import { AXES, extent } from "./series.js";
import { number } from "../words.js";

/** All panels of a page share one cursor and one stretch of x. */
export const CURSOR = "gradwatch";

export const HEIGHT = 150;

/** A point with nothing on either side has no line: it is drawn as a dot. */
function isolated(u, at) {
  const data = u.data[at];
  const [first, last] = u.series[0].idxs || [0, data.length - 1];
  const found = [];
  for (let i = first; i <= last; i++) if (data[i] !== null && (data[i - 1] ?? null) === null && (data[i + 1] ?? null) === null) found.push(i);
  return found;
}

function lineSeries(line, index, many) {
  const { color: name, dash } = LINES[index % LINES.length];
  const ink = color(name);
  const own = { label: line.signal, stroke: ink, width: 1.4, dash: many ? dash : [], points: { show: () => false, size: 4, width: 1, fill: ink, filter: isolated } };
  const edge = { stroke: "transparent", width: 0, points: { show: false } };
  return line.spread ? [own, edge, edge] : [own];
}

/** What lies between the extremes of a point is shaded; a line without a spread has no such edges, and so no path for them. */
function bands(lines) {
  const found = [];
  let at = 1;
  lines.forEach((line, index) => {
    if (line.spread) found.push({ series: [at + 1, at + 2], fill: `${color(LINES[index % LINES.length].color)}38` });
    at += line.spread ? 3 : 1;
  });
  return found;
}

/** Scale of y: what was measured, limits that are near it, and some air. */
function range(panel) {
  const found = extent(panel.lines);
  if (!found) return [0, 1];
  let [low, high] = found;
  const size = high - low || Math.abs(high) || 1;
  for (const { value } of panel.limits) {
    if (value > high && value - high < 0.6 * size) high = value;
    if (value < low && low - value < 0.6 * size) low = value;
  }
  if (panel.log) return low > 0 ? [low / 1.3, high * 1.3] : [low, high];
  const air = 0.08 * (high - low || Math.abs(high) || 1);
  return [low - air, high + air];
}

/** uPlot's columns: x, then the last values of each line, and its extremes where they are others. */
export function table(panel) {
  return [AXES[panel.axis].of(panel.data), ...panel.lines.flatMap((line) => (line.spread ? [line.last, line.high, line.low] : [line.last]))];
}

function distribution(panel) {
  if (!panel.log) return { distr: 1 };
  const found = extent(panel.lines);
  return found && found[0] > 0 ? { distr: 3, log: 10 } : { distr: 4, asinh: found ? Math.max(1e-12, (found[1] - found[0]) / 1000) : 1 };
}

function axes(panel) {
  const ink = color("--ink-3");
  const grid = { stroke: color("--grid"), width: 1 };
  const shared = { stroke: ink, grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const x = { ...shared, grid: { show: false }, size: 26, gap: 9, space: 64 };
  if (panel.axis !== "time") x.values = (u, splits) => splits.map((value) => (Number.isInteger(value) ? compact(value) : ""));
  return [x, { ...shared, size: 50, gap: 4, space: 30, values: (u, splits) => splits.map((value) => (value === null ? "" : number(value))) }];
}

const compact = (value) => (value >= 1e6 ? `${number(value / 1e6)}M` : value >= 1e4 ? `${number(value / 1e3)}k` : String(value));

/** Make a chart in `place`. `read()` gives the panel to draw; `on` hears of the cursor (index or null) and of a zoom (x from, to). */
export function makeChart(place, read, on) {
  const panel = read();
  const many = panel.lines.length > 1;
  const marks = () => read();
  const u = new uPlot({
    width: place.clientWidth,
    height: HEIGHT,
    padding: [12, 18, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: CURSOR, scales: ["x", null] },
      y: false,
      points: { size: 6 },
      drag: { x: true, y: false, setScale: false },
    },
    scales: {
      x: { time: panel.axis === "time", range: () => read().window || ends(read()) },
      y: { ...distribution(panel), range: () => range(read()) },
    },
    axes: axes(panel),
    series: [{}, ...panel.lines.flatMap((line, index) => lineSeries(line, index, many))],
    bands: bands(panel.lines),
    hooks: {
      ...hooks(marks),
      setCursor: [(chart) => on.cursor(chart.cursor.idx)],
      setSelect: [(chart) => {
        if (chart.select.width < 4) return;
        on.zoom(chart.posToVal(chart.select.left, "x"), chart.posToVal(chart.select.left + chart.select.width, "x"));
        chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      }],
    },
  }, table(panel), place);
  return u;
}

function ends(panel) {
  const values = AXES[panel.axis].of(panel.data);
  if (!values.length) return [0, 1];
  const [first, last] = [values[0], values.at(-1)];
  return first < last ? [first, last] : [first - 0.5, last + 0.5];
}

