// Times, durations and numbers in words: the same everywhere on the page. Times are those of who looks.

const clockShort = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const clockLong = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayAndClock = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const clock = (ms, seconds = true) => (seconds ? clockLong : clockShort).format(ms);
export const dayOf = (ms) => day.format(ms);

/** Date and time; only the time for what is near `nowMs`. */
export function moment(ms, nowMs) {
  return Math.abs(nowMs - ms) < 12 * 3600e3 ? clockLong.format(ms) : dayAndClock.format(ms);
}

/** `40 s`, `12 min`, `3.5 h`, `4 days`. */
export function duration(ms) {
  const seconds = Math.max(ms, 0) / 1000;
  if (seconds < 120) return `${Math.round(seconds)}\u00a0s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}\u00a0min`;
  if (seconds < 172800) return `${Math.round(seconds / 360) / 10}\u00a0h`;
  return `${Math.round(seconds / 86400)}\u00a0days`;
}

/** Four significant digits, without an exponent where one can do without; a dash for what is not known. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(2);
  const digits = size === 0 ? 0 : Math.max(0, 3 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(digits, 6));
}

/** Of a score over its threshold: `0.42`, `3.9`, `120`. */
export function ratio(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toFixed(value < 1 ? 2 : value < 100 ? 1 : 0);
}

export const percent = (share) => `${Math.round(share * 100)}\u00a0%`;
/** A number with its unit, kept together. */
export const measured = (value, unit) => `${number(value)}${unit && `\u00a0${unit}`}`;
export const words = (name) => name.replaceAll("_", " ");
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en-GB")} ${count === 1 ? one : many}`;

const UNITS = { degC: "°C", degF: "°F", m3: "m³", "m3/h": "m³/h", "m3/s": "m³/s", m2: "m²", "m/s2": "m/s²" };
export const unitOf = (unit) => (unit ? (UNITS[unit] ?? unit) : "");

/** The state's words, beside its shape and colour. */
export const STATES = {
  critical: "critical",
  major: "major",
  warning: "warning",
  rising: "over threshold",
  silent: "silent",
  blind: "no usable value",
  normal: "normal",
};

const VERDICTS = { stuck: "stuck sensor", missing: "missing sensor", out_of_range: "out of range", stale: "stale values", bad_quality: "bad quality" };
/** What an alert is about, where it is not the model's own opinion. */
export const verdictOf = (verdict) => VERDICTS[verdict] ?? "";

/** What a classifier makes of an alert: `looks like cavitation (82 %)`; nothing where there is none. */
export function diagnosisOf(alert) {
  const [likeliest] = alert.diagnosis ?? [];
  if (!likeliest) return "";
  const what = likeliest.fault === "unknown" ? "looks like no fault that was learnt" : `looks like ${words(likeliest.fault)}`;
  return `${what} (${percent(likeliest.probability)})`;
}

/** `vibration 71 %, flow 12 %`: the largest, without those that hardly matter. */
export function causesOf(causes, most = 3) {
  const parts = causes.slice(0, most).filter((cause, place) => !place || cause.share >= 0.05);
  return parts.map((cause) => `${words(cause.signal)} ${percent(cause.share)}`).join(", ");
}
