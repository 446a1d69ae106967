// Questions to the server. Every one carries the state that the dashboard is set to.

import { global } from "./state.js";

const ANSWER_MAX = 16 << 20;
let token = "";
let waiting = null;
let begun = null;
const listeners = { offline: new Set(), token: null };

export class ApiError extends Error {
  constructor(message, status, where) { super(message); this.status = status; this.where = where; }
}

/** A number of more digits than JavaScript's have: it is shown and searched for as it was sent. */
class LongNumber {
  #digits;
  constructor(digits) { this.#digits = digits; }
  toString() { return this.#digits; }
  toJSON() { return JSON.rawJSON(this.#digits); }
}
const LONG = /\d{16}/;
/** The digits of a number that count: two spellings of a fraction have the same. */
const digits = (text) => text.replace(/e.*/i, "").replace(/[-.]/g, "").replace(/^0+|0+$/g, "");
const isLost = (value, source) => (/^-?\d+$/.test(source) ? String(value) !== source : digits(String(value)) !== digits(source));
const exactly = (_, value, context) => (typeof value === "number" && LONG.test(context?.source) && isLost(value, context.source) ? new LongNumber(context.source) : value);

/** JSON with all digits of its numbers, in browsers that tell what was written (2025). */
export const parsed = (text) => JSON.parse(text, LONG.test(text) ? exactly : undefined);

/** Who is told whether the server answers. */
export const onOffline = (listener) => listeners.offline.add(listener);
/** Who asks the user for a token; it returns a promise of one. */
export const onToken = (listener) => { listeners.token = listener; };
/** Headers for a request that is no question of the API. */
export const credentials = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** What has to be known before anything else is asked: it may decide what that is. */
export const beginWith = (promise) => { begun = promise; };

/** Ask; `params` that are empty are left out. */
export async function ask(name, params = {}, { signal, at = global("at") } = {}) {
  const query = new URLSearchParams();
  if (at) query.set("at", at);
  for (const [key, value] of Object.entries(params)) if (value !== "" && value !== null && value !== undefined) query.set(key, value);
  if (name !== "about") await begun;
  return request(`/api/${name}?${query}`, { signal }, name);
}

/** Change the lake. */
export function change(name, body) {
  return request(`/api/${name}`, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }, name);
}

/** Throw what is told where nothing could be fetched; what else went wrong goes on as it is. */
export function unanswered(error, where) {
  if (!(error instanceof TypeError)) throw error;
  listeners.offline.forEach((listener) => listener(true));
  throw new ApiError("the server does not answer: is `lakelog serve` still running?", 0, where);
}

export async function request(path, options, where) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...credentials() } });
  } catch (error) {
    unanswered(error, where);
  }
  listeners.offline.forEach((listener) => listener(false));
  if (response.status === 401 && listeners.token) {
    waiting ||= listeners.token(token !== "").finally(() => { waiting = null; });
    token = await waiting;
    return request(path, options, where);
  }
  const text = await textOf(response, where);
  let body;
  try { body = parsed(text); } catch { body = { error: text.slice(0, 300) || `status ${response.status}` }; }
  const fault = body.error;
  const words = typeof fault === "object" && fault ? [fault.message, fault.hint].filter(Boolean).join("; ") : fault;
  if (!response.ok) throw new ApiError(words || `status ${response.status}`, response.status, where);
  return body;
}

/** The body of an answer; one that would hang the page is refused. */
async function textOf(response, where) {
  if (!response.body) return response.text();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(), pieces = [];
  for (let size = 0; ;) {
    const { value, done } = await reader.read();
    if (done) return pieces.join("");
    pieces.push(value);
    if ((size += value.length) > ANSWER_MAX) {
      reader.cancel().catch(() => {});
      throw new ApiError(`the answer has more than ${ANSWER_MAX >> 20} MB: select fewer columns or rows, or download it`, 0, where);
    }
  }
}

/** Whether the server answers at all. */
export const alive = () => fetch("/healthz").then((r) => r.ok, () => false);
