// The state of the dashboard is its address: what is shared, opened again or gone back to is the same.

const GLOBAL = ["at", "since", "until", "tz"];
export const PAGES = ["overview", "explore", "traces", "patterns", "history", "sources", "sql", "alerts", "settings"];
const listeners = new Set();
let current = read();

function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { page: PAGES.includes(path) ? path : "overview", params: new URLSearchParams(query) };
}

export const page = () => current.page;
/** A parameter of the page or of the whole dashboard, "" without one. */
export const param = (name) => current.params.get(name) || "";
export const global = param;

/** The address of a page with parameters; those of the whole dashboard go along. */
export function href(name, params = {}) {
  const all = new URLSearchParams();
  for (const key of GLOBAL) if (param(key)) all.set(key, param(key));
  for (const [key, value] of Object.entries(params)) value ? all.set(key, value) : all.delete(key);
  const query = all.toString();
  return `#/${name}${query ? `?${query}` : ""}`;
}

/** Go to a page. */
export function go(name, params = {}) {
  location.hash = href(name, params);
}

/** Change parameters of this page; `replace` leaves no step in the browser's history. */
export function set(params, replace = false) {
  const all = new URLSearchParams(current.params);
  for (const [key, value] of Object.entries(params)) value ? all.set(key, value) : all.delete(key);
  const query = all.toString();
  const address = `#/${current.page}${query ? `?${query}` : ""}`;
  if (address === location.hash) return;
  if (replace) {
    history.replaceState(null, "", address);
    changed();
  } else location.hash = address;
}

function changed() {
  const before = current;
  current = read();
  for (const listener of listeners) listener(before);
}

export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
window.addEventListener("hashchange", changed);

/** Preferences are all that the browser keeps. */
export function preference(name, value) {
  const key = `lakelog.${name}`;
  try {
    if (value === undefined) return localStorage.getItem(key) || "";
    value ? localStorage.setItem(key, value) : localStorage.removeItem(key);
  } catch { /* a browser that keeps nothing */ }
  return value;
}
