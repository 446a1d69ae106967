// One event in the side panel: its fields as a tree, what can be done with each, and its provenance.

import { ask, parsed } from "./api.js";
import { copyButton, el, fault, fill, icon } from "./dom.js";
import { bytes, count, exact, fullTime, isoOf, levelClass } from "./format.js";
import { openPanel } from "./panel.js";
import { isNameable, memberPath } from "./query.js";
import { href } from "./state.js";

const TEXT_MAX = 2000;
const CHILDREN_MAX = 200;
let turn = 0;

/** Open an event. `act` has filter(path, value, out), column(name), values(name), step(by), onClose. */
export async function openEvent(seq, time, act) {
  const mine = ++turn;
  const body = el("div", { class: "event" }, el("div", { class: "bone" }), el("div", { class: "bone" }));
  const head = [
    act.step && el("button", { class: "plain", "aria-label": "Previous event", title: "Previous (k)", onclick: () => act.step(-1) }, "↑"),
    act.step && el("button", { class: "plain", "aria-label": "Next event", title: "Next (j)", onclick: () => act.step(1) }, "↓"),
  ];
  openPanel(`Event ${exact(seq)}`, body, { head, onClose: act.onClose });
  try {
    const answer = await ask("event", { seq, time });
    if (mine === turn) show(body, answer, act);
  } catch (error) {
    if (mine === turn) fill(body, fault(error, () => openEvent(seq, time, act)));
  }
}

function show(body, answer, act) {
  const { event, from } = answer;
  const columns = ["type", "level", "source", "category", "subject", "id"].filter((name) => event[name] !== null && event[name] !== undefined);
  fill(body,
    el("p", { class: "line" }, el("span", { class: levelClass(event.level) }, event.level || ""), el("span", { class: "mono" }, fullTime(event.time)), copyButton(() => isoOf(event.time), "Copy the time")),
    event.message !== null && longText(event.message, "message"),
    el("section", {}, el("h2", {}, "Fields"), el("ul", { class: "tree", role: "tree", "aria-label": "Fields" }, columns.map((name) => leaf([name], event[name], act)))),
    payload(answer, act),
    el("section", {}, el("h2", {}, "Where it came from"), provenance(event, from)),
    el("p", { class: "line" }, around(event), traceLink(answer)));
}

function longText(text, name) {
  const pre = el("pre", { class: "text value" }, text.slice(0, TEXT_MAX));
  const more = text.length > TEXT_MAX && el("button", { onclick: () => { fill(pre, text); more.remove(); } }, `Show all ${count(text.length)} characters`);
  return el("div", { class: "long" }, pre, el("div", { class: "line" }, copyButton(text, `Copy ${name}`), more));
}

function payload(answer, act) {
  const section = el("section", {}, el("div", { class: "line" }, el("h2", {}, "data"), el("span", { class: "soft small" }, bytes(answer.size)), answer.data && copyButton(answer.data, "Copy data")));
  if (answer.data === null) return section.append(el("p", { class: "soft" }, "none")), section;
  let value, isJson = answer.whole;
  try { if (isJson) value = parsed(answer.data); } catch { isJson = false; }
  if (isJson && value !== null && typeof value === "object" && Object.keys(value).length) section.append(el("ul", { class: "tree", role: "tree", "aria-label": "data" }, branches(value, [], act)));
  else section.append(longText(answer.data, "data"));
  if (!answer.whole) {
    section.append(el("button", { onclick: async (click) => {
      click.target.disabled = true;
      const all = await ask("event", { seq: answer.event.seq, time: answer.event.time, whole: 1 });
      section.replaceWith(payload(all, act));
    } }, `Load all of it, ${bytes(answer.size)}`));
  }
  return section;
}

function branches(value, path, act) {
  // A search has no word for a place in a list.
  const pathOf = (name) => (Array.isArray(value) ? [...path, `[${name}]`] : path.length ? [...path, name] : memberPath(name));
  const entries = Object.entries(value);
  const items = entries.slice(0, CHILDREN_MAX).map(([name, inner]) => node(pathOf(name), inner, act));
  if (entries.length > CHILDREN_MAX) {
    const more = el("li", { role: "treeitem" }, el("button", { onclick: () => more.replaceWith(...entries.slice(CHILDREN_MAX).map(([name, inner]) => node(pathOf(name), inner, act))) }, `${count(entries.length - CHILDREN_MAX)} more`));
    items.push(more);
  }
  return items;
}

function node(path, value, act) {
  if (value === null || typeof value !== "object" || !Object.keys(value).length) return leaf(path, value, act);
  const name = path[path.length - 1];
  const list = el("ul", { role: "group" });
  let filled = false;
  const open = () => { if (!filled) fill(list, branches(value, path, act)); filled = true; };
  const details = el("details", { ontoggle: () => details.open && open() }, el("summary", {}, el("span", { class: "name value" }, name), el("span", { class: "soft" }, Array.isArray(value) ? ` [${value.length}]` : ` {${Object.keys(value).length}}`)), list);
  if (path.length < 3) { details.open = true; open(); }
  return el("li", { role: "treeitem" }, details);
}

function leaf(path, value, act) {
  const full = path.join(".");
  const named = isNameable(path);
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const button = (word, sign, work) => el("button", { class: "plain tiny", title: word, "aria-label": `${word}: ${full.slice(0, 60)}`, onclick: work }, icon(sign));
  return el("li", { class: "leaf", role: "treeitem" },
    el("span", { class: "name value", title: full }, path[path.length - 1]),
    el("span", { class: `leaf-value value ${typeof value}` }, text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text),
    el("span", { class: "acts" },
      act.filter && text.length <= 300 && [button("Filter for", "plus", () => act.filter(path, text, false)), button("Filter out", "minus", () => act.filter(path, text, true))],
      act.column && named && button("Add column", "column", () => act.column(full)),
      act.values && named && button("Statistics", "sum", () => act.values(full)),
      copyButton(text)));
}

function provenance(event, from) {
  const rows = [
    ["origin", from.path || from.origin], ["offset", from.position === null ? null : exact(from.position)], ["host", from.host],
    ["stored", fullTime(event.ingested_at)], ["segment", from.segment ? `${from.segment.slice(0, 16)}…` : "not sealed yet: in the write-ahead log"],
    ["snapshot", from.snapshot ? from.snapshot.slice(0, 12) : null], ["seq", exact(event.seq)],
    ["proof", from.snapshot ? `lakelog prove --seq ${event.seq} -o event.proof` : null],
  ];
  return el("dl", { class: "pairs left" }, rows.filter(([, value]) => value).map(([name, value]) => el("div", { class: "pair" }, el("dt", {}, name), el("dd", { class: "mono value" }, value, " ", copyButton(name === "segment" && from.segment ? from.segment : name === "snapshot" ? from.snapshot : value)))));
}

function around(event) {
  const span = (ms) => isoOf(event.time + ms);
  return el("a", { class: "button", href: href("explore", { q: event.source ? `source:="${event.source.replace(/["\\]/g, "\\$&")}"` : "", since: span(-60e3), until: span(60e3) }) }, "A minute around it");
}

function traceLink({ event, data, whole }) {
  if (!whole || !data) return null;
  const match = /"(?:traceId|trace_id|traceparent)"\s*:\s*"([^"\\]{1,200})"/.exec(data);
  return match && el("a", { class: "button", href: href("traces", { id: match[1].includes("-") && match[1].length === 55 ? match[1].split("-")[1] : match[1] }) }, icon("traces"), "Its trace", el("span", { class: "hidden-text" }, ` of event ${event.seq}`));
}
