// Rows of a query as a file.

import { credentials, request } from "./api.js";
import { el, say } from "./dom.js";
import { global } from "./state.js";

const FORMATS = ["csv", "ndjson", "arrow"];

async function download(sql, format) {
  try {
    const response = await fetch("/sql", { method: "POST", headers: { "Content-Type": "application/json", ...credentials() }, body: JSON.stringify({ sql, at: global("at") || null, format }) });
    if (!response.ok) throw new Error((await response.json()).error?.message || `status ${response.status}`);
    const link = el("a", { href: URL.createObjectURL(await response.blob()), download: `lakelog.${format}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60e3);
  } catch (error) { say(error.message); }
}

/** Buttons that download what `sql()` asks for; `done` is called when one was chosen. */
export const downloadButtons = (sql, done) => FORMATS.map((format) => el("button", { onclick: () => { done?.(); download(sql(), format); } }, format));
