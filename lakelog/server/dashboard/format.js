// Numbers, sizes and times as people read them; the exact value goes into a title.

import { global } from "./state.js";

export const LEVELS = ["FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
const UNITS = [["", 1], [" k", 1e3], [" M", 1e6], [" G", 1e9], [" T", 1e12]];

/** The unit of three digits of a number: 999,500 is 1.00 M, and not 1.00e+3 k. */
const unitOf = (size) => UNITS.findLast(([, each]) => size >= 0.9995 * each);

/** 12.4 k */
export function count(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size < 10000) return Math.round(value * 100) / 100 === Math.round(value) ? String(Math.round(value)) : value.toFixed(2);
  const [unit, by] = unitOf(size);
  return (value / by).toPrecision(3).replace(/\.0+$/, "") + unit;
}

/** 3.1 MB */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return `${Math.round(value)} B`;
  const [unit, by] = unitOf(value);
  return (value / by).toPrecision(3) + unit + "B";
}

/** 240 ms, 3.2 s, 5 min */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms === 0) return "0";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 60e3) return `${(ms / 1e3).toPrecision(3)} s`;
  if (ms < 3600e3) return `${Math.round(ms / 60e3)} min`;
  if (ms < 48 * 3600e3) return `${(ms / 3600e3).toFixed(1)} h`;
  return `${Math.round(ms / 86400e3)} days`;
}

/** 1,234,567, with all its digits; what is very small or large as JavaScript writes it. */
export const exact = (value) => {
  if (typeof value !== "number") return String(value ?? "");
  const isPlain = value === 0 || (Math.abs(value) >= 1e-6 && Math.abs(value) < 1e21);
  return isPlain ? value.toLocaleString("en-US", { maximumFractionDigits: 20 }) : String(value);
};

export const zone = () => (global("tz") === "local" ? Intl.DateTimeFormat().resolvedOptions().timeZone : "UTC");

const makers = new Map();
function parts(ms) {
  const name = zone();
  if (!makers.has(name)) makers.set(name, new Intl.DateTimeFormat("en-GB", { timeZone: name, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" }));
  return Object.fromEntries(makers.get(name).formatToParts(Math.floor(ms)).map(({ type, value }) => [type, value]));
}

const thousandth = (ms) => String(Math.floor(((ms % 1000) + 1000) % 1000)).padStart(3, "0");

/** 14:03:22.120 */
export function clock(ms) {
  const p = parts(ms);
  return `${p.hour}:${p.minute}:${p.second}.${thousandth(ms)}`;
}

/** 2026-11-20 */
export function day(ms) {
  const p = parts(ms);
  return `${p.year}-${p.month}-${p.day}`;
}

/** 2026-11-20 14:03:22 */
export function moment(ms) {
  return ms === null || ms === undefined ? "–" : `${day(ms)} ${clock(ms).slice(0, 8)}`;
}

/** The whole time, with its zone. */
export function fullTime(ms) {
  if (ms === null || ms === undefined) return "–";
  const micros = Math.round((((ms % 1000) + 1000) % 1000) * 1000);
  return `${day(ms)} ${clock(ms).slice(0, 8)}.${String(micros).padStart(6, "0")} ${zone()}`;
}

/** 5 min ago; from an hour on the clock, from a day on the date. */
export function relative(ms, now = Date.now()) {
  if (ms === null || ms === undefined) return "–";
  const age = now - ms;
  if (age >= 0 && age < 60e3) return `${Math.floor(age / 1e3)} s ago`;
  if (age >= 0 && age < 3600e3) return `${Math.floor(age / 60e3)} min ago`;
  return day(ms) === day(now) ? clock(ms).slice(0, 5) : `${day(ms)} ${clock(ms).slice(0, 5)}`;
}

/** "2 days ago" for the bar of a past state. */
export function ago(ms, now = Date.now()) {
  const age = Math.max(0, now - ms);
  return age < 60e3 ? "just now" : `${duration(age)} ago`;
}

/** The ms of a time as text, NaN of other text; without a zone it is of UTC, as the server reads it. */
export const timeOf = (text) => Date.parse(/[T ][\d:.]+$/.test(text) ? `${text.replace(" ", "T")}Z` : text);

const [EARLIEST, LATEST] = [-62135596800000, 253402300799999];
/** A time as text, with its microseconds, which are a fraction of the ms; of a year that the server has, 1 to 9999. */
export function isoOf(ms) {
  const near = Math.min(Math.max(ms, EARLIEST), LATEST), whole = Math.floor(near);
  const iso = new Date(whole).toISOString(), micros = Math.min(999, Math.round((near - whole) * 1000));
  return micros ? iso.replace("Z", `${String(micros).padStart(3, "0")}Z`) : iso;
}

/** The letter of a level, so that nothing is told by colour alone. */
export const letter = (level) => ({ FATAL: "F", ERROR: "E", WARN: "W", INFO: "I", DEBUG: "D", TRACE: "T" })[level] || (level ? level[0] : "·");
export const levelClass = (level) => `level level-${"FEWIDT".includes(letter(level)) ? letter(level) : "none"}`;
