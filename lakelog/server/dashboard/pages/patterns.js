// Patterns: what messages have in common, the most frequent first; what is new since a tag.

import { ask } from "../api.js";
import { el, empty, fill } from "../dom.js";
import { count, exact, fullTime, relative } from "../format.js";
import { Block } from "../loader.js";
import { quoted } from "../query.js";
import { href, param, set } from "../state.js";
import { rangeParams } from "../topbar.js";

export function mount(root, frame) {
  const tools = el("div", { class: "line" });
  const host = el("section", {});
  root.append(el("h1", { class: "hidden-text" }, "Patterns"), tools, host);
  const block = new Block(host, (signal) => ask("patterns", { ...rangeParams(), new: param("new"), source: param("source") }, { signal }), show);
  function fillTools() {
    const tags = frame.about?.tags || [];
    const source = el("input", { placeholder: "one source", "aria-label": "Source", value: param("source") });
    fill(tools, el("label", { class: "line" }, "New since", el("select", { onchange: (event) => set({ new: event.target.value }) }, [["", "all patterns"], ...tags.map((tag) => [tag.name, tag.name])].map(([value, word]) => { const option = el("option", { value }, word); option.selected = value === param("new"); return option; }))),
      el("form", { onsubmit: (event) => { event.preventDefault(); set({ source: source.value.trim() }); } }, source));
  }
  fillTools();
  block.refresh();
  return { refresh: () => { fillTools(); block.refresh(); }, unmount: () => block.stop() };
}

function show({ patterns, total }, body) {
  if (!patterns.length) {
    fill(body, param("new") ? empty("Nothing new", "Every message of this range has a pattern that the tag has, too.") : empty("No messages in this range", "A pattern is what messages have in common once their values are taken out: events need a message.", "lakelog ingest app.log", "lakelog patterns"));
    return;
  }
  const most = Math.max(...patterns.map((each) => each.count));
  fill(body, el("p", { class: "soft" }, `${exact(total)} patterns${total > patterns.length ? `, the ${patterns.length} most frequent` : ""}`),
    el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Patterns" }, el("table", { class: "wide-table" }, el("thead", {}, el("tr", {}, [["events", "num"], ["share", "num"], ["pattern"], ["source"], ["first", "num"], ["last", "num"]].map(([word, kind]) => el("th", { class: kind }, word)))),
      el("tbody", {}, patterns.map((each) => el("tr", {}, el("td", { class: "num", title: exact(each.count) }, count(each.count)), el("td", { class: "num soft" }, `${(100 * each.share).toPrecision(2)} %`),
        el("td", { class: "mono wrap template" }, meter(each.count / most), el("a", { class: "value", href: href("explore", { q: wordsOf(each.template) }), title: each.example }, template(each.template))),
        el("td", { class: "value cut-cell" }, each.source ?? (each.sources ? `${exact(each.sources)} sources` : "no source")), el("td", { class: "num", title: fullTime(each.first) }, relative(each.first)), el("td", { class: "num", title: fullTime(each.last) }, relative(each.last))))))));
}

function meter(share) {
  const bar = el("span", { class: "meter", "aria-hidden": "true" });
  bar.style.width = `${100 * share}%`;
  return bar;
}

const template = (text) => text.split("<*>").flatMap((part, index) => (index ? [el("span", { class: "hole" }, "‹…›"), part] : [part]));

/** A search for the fixed words of a template. */
const wordsOf = (text) => text.split("<*>").map((part) => part.replace(/\S*$|^\S*/g, (edge) => (/^[A-Za-z]{3,}$/.test(edge) ? edge : "")).trim()).filter((part) => /[A-Za-z]{2}/.test(part)).slice(0, 6).map(quoted).join(" ");
