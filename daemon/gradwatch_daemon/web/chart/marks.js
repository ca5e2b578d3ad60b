// What is drawn over and under the lines of a panel: gaps, the level, anomalies, limits, and what was not finite.
import { color, hatch } from "./palette.js";
import { SEVERITIES } from "../words.js";
import { gaps, place } from "./series.js";

/** Height of a name on a chart, CSS pixels. */
const LINE = 12;

const px = (n) => n * (devicePixelRatio || 1);

const xOf = (u, marks, update) => u.valToPos(place(marks.data, marks.axis, update), "x", true);

function clipped(u, draw) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top - px(10), bbox.width, bbox.height + px(20));
  ctx.clip();
  draw(ctx, bbox);
  ctx.restore();
}

/** Updates that never came: hatched over the whole height. */
function drawGaps(u, marks) {
  clipped(u, (ctx, bbox) => {
    ctx.fillStyle = hatch(ctx, "--gap", 7);
    for (const [first, end] of gaps(marks.data)) {
      const [left, right] = [xOf(u, marks, first - 0.5), xOf(u, marks, end - 0.5)];
      ctx.fillRect(left, bbox.top, Math.max(px(2), right - left), bbox.height);
    }
  });
}

/** A ribbon along the upper edge: the more is collected, the thicker it is. */
function drawLevels(u, marks) {
  const thick = { off: 0, minimal: 1, normal: 1.5, debug: 4 };
  clipped(u, (ctx, bbox) => {
    const now = (marks.data.update.at(-1) ?? 0) + 1;
    for (const { level, from, to } of marks.levels) {
      const [left, right] = [xOf(u, marks, from), xOf(u, marks, to ?? now)];
      ctx.fillStyle = color(level === "debug" ? "--level-debug" : "--level");
      ctx.fillRect(left, bbox.top, Math.max(px(1), right - left), px(thick[level]));
    }
  });
}

/** Anomalies of this signal: a band, shaded and hatched, with a glyph on top. Those of others: only where they began. */
function drawAnomalies(u, marks) {
  const glyphs = [];
  const worstLast = [...marks.anomalies].sort((a, b) => SEVERITIES[a.severity].rank - SEVERITIES[b.severity].rank);
  clipped(u, (ctx, bbox) => {
    for (const anomaly of worstLast) {
      const ink = color(`--${anomaly.severity}`);
      const left = xOf(u, marks, anomaly.update_onset);
      const end = anomaly.state === "firing" ? Math.max(anomaly.update_last, marks.data.update.at(-1) ?? 0) : anomaly.update_last;
      const right = Math.max(left + px(3), xOf(u, marks, end + 0.5));
      if (marks.concerns(anomaly)) {
        ctx.globalAlpha = 0.06;
        ctx.fillStyle = ink;
        ctx.fillRect(left, bbox.top, right - left, bbox.height);
        ctx.globalAlpha = anomaly.state === "firing" ? 0.2 : 0.12;
        ctx.fillStyle = hatch(ctx, `--${anomaly.severity}`, 9);
        ctx.fillRect(left, bbox.top, right - left, bbox.height);
      }
      ctx.globalAlpha = marks.concerns(anomaly) ? 0.9 : 0.4;
      ctx.strokeStyle = ink;
      ctx.lineWidth = px(1);
      ctx.setLineDash(marks.concerns(anomaly) ? [] : [px(2), px(3)]);
      ctx.beginPath();
      ctx.moveTo(left, bbox.top);
      ctx.lineTo(left, bbox.top + bbox.height);
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.globalAlpha = 1;
      if (marks.concerns(anomaly)) glyphs.unshift({ x: Math.max(left, bbox.left + px(5)), ink, glyph: SEVERITIES[anomaly.severity].glyph });
    }
    ctx.font = `${px(11)}px system-ui, sans-serif`;
    ctx.textAlign = "center";
    glyphs.forEach(({ x, ink, glyph }, at) => {
      if (glyphs.slice(0, at).some((other) => Math.abs(other.x - x) < px(10))) return; // the worse one stands there
      ctx.fillStyle = ink;
      ctx.fillText(glyph, x, bbox.top - px(2));
    });
  });
}

/** Where the name of each limit stands: beside its line or at the edge it lies beyond, and never over another name. */
function namesOf(u, limits, bbox) {
  const { min, max } = u.scales.y;
  const [top, bottom] = [bbox.top + px(14), bbox.top + bbox.height - px(3)];
  const taken = [];
  return [...limits].sort((a, b) => a.value - b.value).map((limit) => {
    const beyond = limit.value > max ? "above" : limit.value < min ? "below" : "";
    const line = beyond ? null : u.valToPos(limit.value, "y", true);
    let y = beyond ? (beyond === "above" ? top : bottom) : Math.max(top, line - px(5));
    const step = y - px(LINE) < top ? px(1) : -px(1); // from the upper edge down, from anywhere else up
    while (taken.some((other) => Math.abs(other - y) < px(LINE)) && y + step >= top && y + step <= bottom) y += step;
    taken.push(y);
    return { limit, line, y, text: beyond ? `${limit.text} ${beyond === "above" ? "↑" : "↓"}` : limit.text };
  });
}

/** Limits as dashed lines with the rule's name; one beyond the scale is named at the edge it lies beyond. */
function drawLimits(u, marks) {
  clipped(u, (ctx, bbox) => {
    const names = namesOf(u, marks.limits, bbox);
    const edge = bbox.left + bbox.width - px(4);
    ctx.font = `${px(10)}px system-ui, sans-serif`;
    ctx.textAlign = "right";
    ctx.lineWidth = px(1);
    ctx.setLineDash([px(5), px(4)]);
    for (const { limit, line } of names) {
      if (line === null) continue;
      ctx.strokeStyle = color(`--${limit.severity}-text`);
      ctx.beginPath();
      ctx.moveTo(bbox.left, line);
      ctx.lineTo(bbox.left + bbox.width, line);
      ctx.stroke();
    }
    ctx.setLineDash([]);
    // After all lines, and all paper before all names: what is crossed out or cut cannot be read.
    ctx.globalAlpha = 0.82;
    ctx.fillStyle = color("--surface");
    for (const { y, text } of names) {
      const width = ctx.measureText(text).width;
      ctx.fillRect(edge - width - px(2), y - px(9), width + px(4), px(LINE));
    }
    ctx.globalAlpha = 1;
    for (const { limit, y, text } of names) {
      ctx.fillStyle = color(`--${limit.severity}-text`);
      ctx.fillText(text, edge, y);
    }
  });
}

/** A cross under the axis for each point with values that were not finite: no scale can hide it. */
function drawNonfinite(u, marks) {
  clipped(u, (ctx, bbox) => {
    const y = bbox.top + bbox.height + px(4.5);
    const arm = px(2.6);
    ctx.strokeStyle = color("--critical");
    ctx.lineWidth = px(1.4);
    ctx.beginPath();
    let drawn = -Infinity;
    for (const line of marks.lines) {
      line.nonfinite.forEach((n, i) => {
        if (!n) return;
        const x = u.valToPos(u.data[0][i], "x", true);
        if (x < bbox.left - arm || x > bbox.left + bbox.width + arm || Math.abs(x - drawn) < px(2)) return;
        drawn = x;
        ctx.moveTo(x - arm, y - arm);
        ctx.lineTo(x + arm, y + arm);
        ctx.moveTo(x - arm, y + arm);
        ctx.lineTo(x + arm, y - arm);
      });
    }
    ctx.stroke();
  });
}

/** Hooks of a chart; `marks()` gives what is to be drawn now. */
export function hooks(marks) {
  return {
    drawClear: [(u) => { drawGaps(u, marks()); if (marks().bands) drawAnomalies(u, marks()); }],
    draw: [(u) => { drawLevels(u, marks()); drawLimits(u, marks()); drawNonfinite(u, marks()); }],
  };
}
