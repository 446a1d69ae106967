// The top bar: lake and branch, As of, range of time, zone, search. What is set here is in the address.

import { ask } from "./api.js";
import { el, fill, icon } from "./dom.js";
import { LEVELS, ago, exact, isoOf, moment, timeOf, zone } from "./format.js";
import { closePop, togglePop } from "./pop.js";
import { isNameable, quoted } from "./query.js";
import { global, go, page, param, set } from "./state.js";
import { suggest } from "./suggest.js";

const top = document.getElementById("top");
const RANGES = [["15m", "Last 15 minutes"], ["1h", "Last hour"], ["6h", "Last 6 hours"], ["24h", "Last 24 hours"], ["7d", "Last 7 days"], ["30d", "Last 30 days"], ["all", "All time"]];
let input = null;

/** The range as the server is asked for it. */
export function rangeParams() {
  const since = global("since");
  return { since: since === "all" ? "" : since, until: global("until") };
}

export function openSearch() {
  input?.focus();
  input?.select();
}

function rangeWord() {
  const since = global("since"), until = global("until");
  const named = RANGES.find(([span]) => span === since);
  if (!since && !until) return "All time";
  if (named && !until) return named[1];
  const word = (text) => (/^\d+(\.\d+)?[a-z]+$/.test(text) ? `${text} ago` : Number.isNaN(timeOf(text)) ? text : moment(timeOf(text)).slice(2));
  return `${since && since !== "all" ? word(since) : "start"} – ${until ? word(until) : "now"}`;
}

/** Fill the bar from what is known of the lake. */
export function fillTop(frame) {
  const about = frame.about;
  const at = global("at");
  const past = Boolean(at);
  top.classList.toggle("past", past);
  const typed = input && document.activeElement === input ? input.value : null;
  const asOf = el("button", { "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => togglePop(asOf, () => asOfBox(frame), "As of") },
    el("span", { class: past ? "dot off" : "dot", "aria-hidden": "true" }), past ? "As of…" : "Live", icon("more"));
  const range = el("button", { "aria-haspopup": "dialog", "aria-expanded": "false", title: "Range of time", onclick: () => togglePop(range, rangeBox, "Range of time") }, rangeWord(), icon("more"));
  input = el("input", { type: "search", placeholder: "Search: refused level>=WARN source:web", "aria-label": "Search", spellcheck: "false", autocomplete: "off", enterkeyhint: "search", value: typed ?? (page() === "explore" ? param("q") : "") });
  const { list } = suggest(input, { matches: terms, enter: true });
  fill(top,
    el("span", { class: "lake cut", title: about?.path }, about?.name || "…"),
    el("select", { "aria-label": "Branch", title: "Branch", onchange: (event) => set({ at: event.target.value === about.branch ? "" : event.target.value }) },
      (about?.branches || [""]).map((name) => { const option = el("option", { value: name }, name); option.selected = at ? name === at : name === about?.branch; return option; })),
    asOf,
    past && el("span", { class: "cut" }, frame.fault?.status === 404 ? frame.fault.message : ["as of ", el("b", { class: "value" }, at), about?.as_of?.time ? `, ${ago(about.as_of.time)}` : "", " · "],
      el("a", { href: "#", onclick: (event) => { event.preventDefault(); set({ at: "" }); } }, "back to live")),
    range,
    el("select", { "aria-label": "Time zone", title: "Time zone", onchange: (event) => set({ tz: event.target.value }) },
      [["", "UTC"], ["local", "Local"]].map(([value, word]) => { const option = el("option", { value }, word); option.selected = global("tz") === value; return option; })),
    el("form", { role: "search", onsubmit: (event) => { event.preventDefault(); const q = input.value.trim(); page() === "explore" ? set({ q }) : go("explore", { q }); } }, input, list));
  if (typed !== null) input.focus();
}

const FIELDS = ["level", "type", "source", "category", "subject", "message", "id"];
let names = null;

/** Names and values that a search may go on with: fields, and behind a field what it holds. */
async function terms(before) {
  const word = /(?:"[^"]*"|[^\s()"])*"?[^\s()"]*$/.exec(before)[0], typed = word.replace(/^-/, "");
  if (!typed || typed.startsWith('"')) return [0, []];
  const at = global("at");
  if (names?.at !== at) names = { at, answer: ask("names").catch(() => { names = null; return {}; }) };
  const { types = [], sources = [], members = [] } = await names.answer;
  const [, field, sign, value] = /^([\w.@-]+)(:=|:|>=|<=)(.*)$/.exec(typed) || [];
  const begins = (name, start) => name.toLowerCase().startsWith(start.toLowerCase()) && name !== start;
  if (!field) return [before.length - typed.length, [...FIELDS, ...members.filter((name) => isNameable([name]))].filter((name) => begins(name, typed)).map((name) => `${name}:`)];
  const bare = value.replaceAll('"', "");
  let values = { level: LEVELS, type: types, source: sources }[field];
  if (!values && !sign.includes("<") && !sign.includes(">")) values = await ask("values", { ...rangeParams(), field }).then((answer) => answer.values.map(([each]) => String(each ?? "")), () => []);
  return [before.length - value.length, (values || []).filter((each) => each && each.length <= 100 && begins(each, bare)).map((each) => (/^[\w-]+$/.test(each) ? each : quoted(each)))];
}

function asOfBox(frame) {
  const { tags = [], moves = [], first } = frame.about || {};
  const choose = (at) => { closePop(); set({ at }); };
  const ordered = [...moves].reverse();
  const shown = el("output", { class: "small" }, ordered.length ? "Slide over the moves of the branch" : "");
  const word = (index) => { const move = ordered[index]; return move ? `@${move.number} ${move.op}, ${moment(move.time)} ${zone()}` : ""; };
  const slider = el("input", {
    type: "range", min: "0", max: String(Math.max(0, ordered.length - 1)), value: String(ordered.length - 1), "aria-label": "Move of the branch",
    oninput: (event) => { fill(shown, word(Number(event.target.value))); },
    onchange: (event) => { const index = Number(event.target.value); choose(index === ordered.length - 1 ? "" : `@${ordered[index].number}`); },
  });
  const time = el("input", { type: "datetime-local", step: "1", "aria-label": "Time" });
  return [
    el("ul", {}, el("li", {}, el("button", { onclick: () => choose("") }, el("span", { class: "dot", "aria-hidden": "true" }), "Live")),
      tags.slice(0, 30).map((tag) => el("li", {}, el("button", { onclick: () => choose(tag.name) }, icon("flag"), el("span", { class: "cut value" }, tag.name), el("span", { class: "soft small" }, ago(tag.time)))))),
    !tags.length && el("p", { class: "soft small" }, "No tags yet: ", el("code", {}, "lakelog tag v1")),
    ordered.length > 1 && el("div", { class: "moves" }, slider, shown),
    el("form", { class: "line", onsubmit: (event) => { event.preventDefault(); if (time.value) choose(isoOf(inZone(time.value))); } },
      el("label", { class: "grow" }, `A time (${zone()})`, time), el("button", {}, "Go")),
    first && el("p", { class: "soft small" }, `${exact(frame.about.events)} events since ${moment(first)}`),
  ];
}

/** The ms of a time that was typed without a zone. */
function inZone(text) {
  return zone() === "UTC" ? Date.parse(`${text}Z`) : Date.parse(text);
}

/** What was typed: a time without a zone is of the one that the page shows, and no other reader knows that. */
function typed(text) {
  const time = /^\d{4}-\d\d-\d\d([T ][\d:.]+)?$/.test(text) ? inZone(text.length > 10 ? text.replace(" ", "T") : `${text}T00:00`) : NaN;
  return Number.isNaN(time) ? text : isoOf(time);
}

function rangeBox() {
  const choose = (since, until = "") => { closePop(); set({ since, until }); };
  const since = el("input", { placeholder: "2h or 2026-11-20T08:00", "aria-label": "From", value: global("since") });
  const until = el("input", { placeholder: "now", "aria-label": "To", value: global("until") });
  return [
    el("ul", {}, RANGES.map(([span, word]) => el("li", {}, el("button", { onclick: () => choose(span) }, word)))),
    el("form", { class: "moves", onsubmit: (event) => { event.preventDefault(); choose(typed(since.value.trim()), typed(until.value.trim())); } },
      el("label", {}, `From (${zone()})`, since), el("label", {}, `To (${zone()})`, until), el("button", { class: "primary" }, "Set")),
    el("p", { class: "soft small" }, "Or drag over any chart; a double click goes back."),
  ];
}
