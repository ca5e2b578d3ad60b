// What the API says of several signals, as columns that a chart draws: one axis, and for each line last, low and high.
// NaN and infinities become marks beside the scale, never numbers on it; what was not measured becomes nothing.
// A line whose points are single updates has no spread: its low and its high are its last, and nothing is drawn between them.
// Columns that are equal are one array: a page that follows a run for days keeps what it holds for every row.

const finite = (value) => (typeof value === "number" ? value : null);

/** The answer of GET chart as arrays. `lines`: key → {last, low, high, spread, nonfinite, status}; null where there is no number. */
export function columns(answer) {
  const lines = new Map();
  for (const series of answer.series) {
    const last = series.last.every((value) => finite(value) === value) ? series.last : series.last.map(finite);
    lines.set(series.subject ? `${series.signal}/${series.subject}` : series.signal, {
      ...series,
      last,
      low: series.low ? series.low.map(finite) : last,
      high: series.high ? series.high.map(finite) : last,
      spread: answer.bucket > 1,
      raw: series.last,
    });
  }
  return {
    bucket: answer.bucket,
    update: answer.update,
    time: answer.at.map((at) => Date.parse(at) / 1000),
    steps: answer.env_steps,
    width: answer.update.map(() => answer.bucket),
    lines,
    absent: answer.absent,
  };
}

const LINE = ["last", "nonfinite", "status"];

/** `base` with everything from the first update of `tail` on replaced by it. */
export function splice(base, tail) {
  if (!tail.update.length) return base;
  let cut = base.update.length;
  while (cut > 0 && base.update[cut - 1] >= tail.update[0]) cut -= 1;
  const join = (a, b) => a.slice(0, cut).concat(b);
  const lines = new Map();
  for (const [key, line] of base.lines) {
    const newer = tail.lines.get(key);
    if (!newer) continue;
    const joined = { ...newer, spread: line.spread || newer.spread };
    for (const name of LINE) joined[name] = join(line[name], newer[name]);
    joined.raw = line.raw === line.last && newer.raw === newer.last ? joined.last : join(line.raw, newer.raw);
    joined.low = joined.spread ? join(line.low, newer.low) : joined.last;
    joined.high = joined.spread ? join(line.high, newer.high) : joined.last;
    lines.set(key, joined);
  }
  return {
    ...base,
    update: join(base.update, tail.update),
    time: join(base.time, tail.time),
    steps: join(base.steps, tail.steps),
    width: join(base.width, tail.width),
    lines,
  };
}

export const AXES = {
  update: { label: "update", of: (data) => data.update },
  steps: { label: "env steps", of: (data) => data.steps },
  time: { label: "time", of: (data) => data.time },
};

/** Why an axis cannot be drawn, '' when it can. It must grow: a trainer that went back to a checkpoint has the update axis. */
export function axisFault(data, axis) {
  const values = AXES[axis].of(data);
  if (values.some((value) => value === null)) return "The trainer does not pass env_steps to mon.step().";
  for (let i = 1; i < values.length; i++) if (values[i] < values[i - 1]) return `The ${AXES[axis].label} of this run goes back.`;
  return "";
}

/** Where an update lies on an axis: between its neighbours, also where its row is missing or in a bucket. */
export function place(data, axis, update) {
  const values = AXES[axis].of(data);
  if (axis === "update" || !values.length) return update;
  let low = 0;
  let high = data.update.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (data.update[middle] <= update) low = middle;
    else high = middle - 1;
  }
  const next = Math.min(low + 1, values.length - 1);
  const span = data.update[next] - data.update[low];
  const share = span > 0 ? Math.min(1, Math.max(0, (update - data.update[low]) / span)) : 0;
  return values[low] + share * (values[next] - values[low]);
}

/** Stretches of updates that never came: [first missing, first there again]. */
export function gaps(data) {
  const found = [];
  for (let i = 1; i < data.update.length; i++) {
    const end = data.update[i - 1] + data.width[i - 1];
    if (data.update[i] > end) found.push([end, data.update[i]]);
  }
  return found;
}

/** The last value a line has at or before a point, as the API gave it: a number, or the word of what it was. */
export function lastOf(line) {
  for (let i = line.raw.length - 1; i >= 0; i--) if (line.raw[i] !== null) return { value: line.raw[i], at: i };
  return null;
}

// A line never changes: a new value makes a new one. So its ends are looked for once, however often a drawing asks.
const found = new WeakMap();

function endsOf(line) {
  if (!found.has(line)) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of line.low) if (value !== null && value < low) low = value;
    for (const value of line.high) if (value !== null && value > high) high = value;
    found.set(line, [low, high]);
  }
  return found.get(line);
}

/** Least and largest finite value of some lines, null where there is none. */
export function extent(lines) {
  const low = Math.min(...lines.map((line) => endsOf(line)[0]));
  const high = Math.max(...lines.map((line) => endsOf(line)[1]));
  return low <= high ? [low, high] : null;
}
