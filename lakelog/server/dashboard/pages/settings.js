// Settings: what the lake is set to. It is changed on the command line alone.

import { ask } from "../api.js";
import { command, el, fill } from "../dom.js";
import { bytes, exact, moment } from "../format.js";
import { Block } from "../loader.js";

const SIZES = new Set(["rotate_bytes", "segment_bytes", "memory_bytes"]);

export function mount(root, frame) {
  const host = el("div", { class: "block-body" });
  root.append(el("h1", {}, "Settings"), host);
  const block = new Block(host, (signal) => ask("settings", {}, { signal }), (answer, body) => show(body, answer, frame.about));
  block.refresh();
  return { refresh: () => block.refresh(), unmount: () => block.stop() };
}

function show(body, { settings, stats, tokens }, about) {
  const facts = [["Path", stats.path], ["Lake", stats.lake], ["Branch", stats.branch], ["Snapshot", stats.snapshot], ["Generation", exact(stats.generation)], ["Segments", exact(stats.segments)], ["Size", `${bytes(stats.bytes)} (${exact(stats.bytes)} bytes)`], ["Word indexes", bytes(stats.words_bytes)], ["WAL files", `${exact(stats.wal_files)}, ${bytes(stats.wal_bytes)}`], ["Writers", exact(stats.writers)], ["Tags", exact(stats.tags)], ["Version", about?.version || "–"]];
  fill(body,
    el("section", { class: "block" }, el("h2", {}, "Lake"), el("dl", { class: "pairs left wide-names" }, facts.map(([name, value]) => el("div", { class: "pair" }, el("dt", {}, name), el("dd", { class: "mono value" }, value))))),
    el("section", { class: "block" }, el("h2", {}, "Settings"), el("p", { class: "soft" }, "They are given when a lake is made, or changed in its lakelog.json."),
      el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Settings" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "name"), el("th", { class: "num" }, "value"), el("th", { class: "num" }, "by default"))),
        el("tbody", {}, settings.map((each) => el("tr", {}, el("td", { class: "mono" }, each.name), el("td", { class: "num", title: SIZES.has(each.name) ? bytes(each.value) : undefined }, each.value === each.default ? exact(each.value) : el("b", {}, exact(each.value))), el("td", { class: "num soft" }, exact(each.default)))))))),
    el("section", { class: "block" }, el("h2", {}, "Tokens"), tokens.length
      ? el("table", {}, el("tbody", {}, tokens.map((each) => el("tr", {}, el("td", { class: "value" }, each.name), el("td", {}, each.scopes.map((scope) => el("span", { class: "chip" }, scope))), el("td", { class: "soft num" }, moment(each.made_at))))))
      : [el("p", { class: "soft" }, "None: programs of this machine may do everything, and no others may do anything."), command("lakelog token add shipper --scope ingest")]));
}
