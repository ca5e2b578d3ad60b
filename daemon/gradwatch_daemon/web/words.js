// Numbers, times and states as people read them. What was not measured is never written as a number.

/** A value of the API: null is "not measured", the strings are what was measured. */
export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return { NaN: "NaN", Infinity: "+∞", "-Infinity": "−∞" }[value] || value;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return `${trim(mantissa)}e${Number(exponent)}`.replace("-", "−").replace("e-", "e−");
  }
  if (size >= 10 ** digits) return whole(Math.round(value));
  return trim(value.toPrecision(digits)).replace("-", "−");
}

const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);

/** A count, in groups of three. */
export const whole = (value) => (value === null || value === undefined ? "–" : String(value).replace(/\B(?=(\d{3})+$)/g, "\u2009"));

/** `1 anomaly`, `3 anomalies`. */
export const count = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;

/** How long, from milliseconds. */
export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60 ? `${s % 60} s` : ""}`.trim();
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** How long ago a time of the API was. */
export const ago = (time, now = Date.now()) => `${duration(now - Date.parse(time))} ago`;

/** A time of the API, by the clock of whoever looks. */
export function clock(time) {
  const date = new Date(time);
  const same = date.toDateString() === new Date().toDateString();
  const day = same ? "" : `${date.toLocaleDateString(undefined, { month: "short", day: "numeric" })} `;
  return day + date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

/** Cut, not rounded: 99.96 % must not read as 100 %. */
export const percent = (share) => (share === null ? "–" : `${Math.floor(share * 1000) / 10} %`);

/** The word for what is not a good unit to write behind a number. */
export const unit = (name) => (["ratio", "fraction", "count", "index", "unknown", "loss", "norm"].includes(name) ? "" : name);

/** `policy.kl.k3 · left` */
export const keyText = (signal, subject) => (subject ? `${signal} · ${subject}` : signal);
export const keyOf = (signal, subject) => (subject ? `${signal}/${subject}` : signal);

/** Detector states: glyph and word stand beside each colour. Order: what needs a person first. */
export const STANDINGS = {
  firing: { glyph: "▲", word: "firing" },
  blind: { glyph: "⊘", word: "blind" },
  learning: { glyph: "◔", word: "learning" },
  armed: { glyph: "✓", word: "ok" },
};

/** How an anomaly stands, in words for its page. */
export const ANOMALY_STATES = { firing: "firing, ongoing", ended: "stood when the run ended" };

export const SEVERITIES = {
  critical: { glyph: "▲", word: "critical", rank: 3 },
  warning: { glyph: "△", word: "warning", rank: 2 },
  info: { glyph: "○", word: "info", rank: 1 },
};

export const STATES = {
  live: { glyph: "●", word: "live" },
  slow: { glyph: "◐", word: "slow" },
  stalled: { glyph: "◌", word: "stalled" },
  lost: { glyph: "?", word: "lost" },
  crashed: { glyph: "✕", word: "crashed" },
  finished: { glyph: "■", word: "finished" },
  stopped: { glyph: "■", word: "stopped" },
  imported: { glyph: "↥", word: "imported" },
};
