// Sources: who sends, how far files are read, and what could not be stored as an event.

import { ask } from "../api.js";
import { command, copyButton, el, empty, fill, spark } from "../dom.js";
import { bytes, count, duration, exact, fullTime, relative } from "../format.js";
import { Block } from "../loader.js";
import { term } from "../query.js";
import { href, param, set } from "../state.js";
import { rangeParams } from "../topbar.js";

const TABS = [["sources", "Sources"], ["files", "Files"], ["quarantine", "Quarantine"]];
const LOADS = {
  sources: [(signal) => ask("sources", rangeParams(), { signal }), showSources],
  files: [(signal) => ask("files", {}, { signal }), showFiles],
  quarantine: [(signal) => ask("quarantine", {}, { signal }), showQuarantine],
};

export function mount(root) {
  const tabs = el("div", { class: "line tabs", role: "tablist", "aria-label": "Sources" });
  const host = el("section", { id: "sources-body", role: "tabpanel", "aria-label": "Sources" });
  root.append(el("h1", { class: "hidden-text" }, "Sources"), tabs, host);
  let block = null;
  const tab = () => (LOADS[param("tab")] ? param("tab") : "sources");
  function start() {
    fill(tabs, TABS.map(([name, word]) => el("button", { role: "tab", "aria-selected": String(name === tab()), "aria-controls": "sources-body", onclick: () => set({ tab: name === "sources" ? "" : name }) }, word)));
    block?.stop();
    fill(host);
    block = new Block(host, ...LOADS[tab()]);
    block.refresh();
  }
  start();
  return {
    refresh: (before) => (before && (before.params.get("tab") || "") !== param("tab") ? start() : block.refresh()),
    tick: () => block.refresh(true),
    unmount: () => block.stop(),
  };
}

const percent = (share) => (share >= 0.0995 ? String(Math.round(100 * share)) : (100 * share).toPrecision(2));

const table = (label, head, rows) => el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, el("table", { class: "wide-table" }, el("thead", {}, el("tr", {}, head.map(([word, kind]) => el("th", { class: kind }, word)))), el("tbody", {}, rows)));

function showSources(answer, body) {
  const { sources } = answer;
  if (!sources.length) { fill(body, empty("No source has sent in this range", "Choose a longer range, or store events: each has a source, which is the file or program that it is from.", "lakelog ingest app.log", "lakelog watch /var/log")); return; }
  const hours = Math.max((answer.until - answer.since) / 3600e3, 1 / 3600);
  fill(body, table("Sources", [["source"], ["events", "num"], ["an hour", "num"], ["errors", "num"], ["last event", "num"], ["over the range"]], sources.map((each) => el("tr", {},
    el("td", { class: "cut-cell" }, el("a", { class: "value", href: href("explore", { q: term(["source"], each.source) }) }, each.source ?? "no source")),
    el("td", { class: "num", title: exact(each.events) }, count(each.events)),
    el("td", { class: "num soft" }, count(each.events / hours)),
    el("td", { class: each.errors ? "num error-text" : "num soft", title: exact(each.errors) }, each.errors ? `${count(each.errors)} (${percent(each.errors / each.events)} %)` : "0"),
    el("td", { class: "num", title: fullTime(each.last) }, relative(each.last)),
    el("td", {}, spark(each.bars, `${exact(each.events)} events`))))));
}

function showFiles({ files, watchers, streams, subscriptions }, body) {
  fill(body,
    watchers.map((each) => el("p", { class: "line" }, el("span", { class: each.running ? "chip good" : "chip bad" }, each.running ? "running" : "stopped"), `watcher of ${each.watches}`, each.roots.map((path) => el("code", { class: "value" }, path)), el("span", { class: "soft" }, `last round ${relative(each.last_round)}`),
      Object.entries(each.faults).map(([path, reason]) => el("span", { class: "error-text value" }, `${path}: ${reason}`)))),
    !watchers.length && [el("p", { class: "soft" }, "No watcher has run on this lake."), command("lakelog watch /var/log")],
    streams.length > 0 && table("Topics and streams", [["topic or stream"], ["stored", "num"]], streams.map((each) => el("tr", {}, el("td", { class: "value cut-cell", title: each.name }, each.name), el("td", { class: "num", title: fullTime(each.stored) }, relative(each.stored))))),
    subscriptions.length > 0 && table("Subscriptions", [["subscription"], ["behind", "num"], ["handled", "num"], ["given up", "num"]], subscriptions.map((each) => el("tr", {}, el("td", { class: "value" }, each.name), el("td", { class: "num" }, each.behind ? `${count(each.behind)}, ${duration(each.seconds * 1000)}` : "0"), el("td", { class: "num" }, count(each.handled)), el("td", { class: each.dead ? "num error-text" : "num" }, count(each.dead))))),
    files.length ? table("Files", [["file"], ["size", "num"], ["read", "num"], ["behind", "num"], ["lines", "num"], ["read at", "num"]], files.map((each) => el("tr", {},
      el("td", { class: "cut-cell mono value", title: each.host ? `${each.host}:${each.path}` : each.path }, each.path),
      el("td", { class: "num", title: exact(each.size) }, bytes(each.size)), el("td", { class: "num", title: exact(each.consumed) }, bytes(each.consumed)),
      el("td", { class: each.behind ? "num warn-text" : "num soft", title: exact(each.behind) }, each.behind === null ? "–" : each.behind ? bytes(each.behind) : "0"),
      el("td", { class: "num" }, count(each.lines)), el("td", { class: "num", title: fullTime(each.read_at) }, relative(each.read_at))))) : empty("No file has been read", "Files are read once, however they are renamed or rotated.", "lakelog ingest app.log"));
}

function showQuarantine({ lines, reasons }, body) {
  if (!lines.length) { fill(body, empty("Nothing is in quarantine", "Lines that are no events are kept here with their file, place and reason, so that nothing is lost without a word.", "lakelog quarantine list")); return; }
  fill(body, el("div", { class: "line" }, reasons.map(([reason, number]) => el("span", { class: "chip value", title: reason }, `${reason.slice(0, 80)}: ${count(number)}`))),
    table("Lines in quarantine", [["stored", "num"], ["reason"], ["file"], ["place", "num"], ["line"]], lines.map((each) => el("tr", {},
      el("td", { class: "num", title: fullTime(each.ingested_at) }, relative(each.ingested_at)), el("td", { class: "value" }, each.reason), el("td", { class: "cut-cell mono value", title: each.origin }, each.file), el("td", { class: "num" }, exact(each.position)),
      el("td", { class: "mono value wrap" }, each.line, " ", el("span", { class: "soft" }, bytes(each.size)), copyButton(each.line))))),
    command("lakelog quarantine replay"));
}
