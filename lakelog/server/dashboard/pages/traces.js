// Traces: what one request or run of an agent did, as a waterfall; two of them side by side.

import { ask, parsed } from "../api.js";
import { copyButton, el, empty, fill, icon } from "../dom.js";
import { openEvent } from "../event.js";
import { count, duration, exact, fullTime, relative } from "../format.js";
import { Block } from "../loader.js";
import { href, param, set } from "../state.js";
import { rangeParams } from "../topbar.js";

const ORDERS = ["newest", "slowest", "dearest", "failed"];
const SHOWN = 200;
const KINDS = ["agent", "model", "tool", "retrieval", "other"];

export function mount(root) {
  const host = el("section", {});
  root.append(el("h1", { class: "hidden-text" }, "Traces"), host);
  let blocks = [];
  const stop = () => { blocks.forEach((each) => each.stop()); blocks = []; };
  function start() {
    stop();
    fill(host);
    const ids = [param("id"), param("with")].filter(Boolean);
    if (!ids.length) {
      const search = el("form", { class: "line", onsubmit: (event) => { event.preventDefault(); const id = event.target.elements[0].value.trim(); if (id) set({ id }); } }, el("input", { class: "grow mono", placeholder: "any trace, span, correlation or event id", "aria-label": "An id" }), el("button", {}, "Show"));
      const list = el("div", {});
      const order = param("order") || "newest", tools = el("div", { class: "line", role: "group", "aria-label": "Order" },
        ORDERS.map((name) => el("button", { "aria-pressed": String(name === order), onclick: () => set({ order: name === "newest" ? "" : name }) }, name)), el("span", { class: "grow" }),
        el("button", { "aria-pressed": String(Boolean(param("sessions"))), onclick: () => set({ sessions: param("sessions") ? "" : "1", session: "" }) }, "Sessions"),
        param("session") && el("button", { class: "cut", onclick: () => set({ session: "", sessions: "1" }) }, icon("close"), "session ", el("span", { class: "value" }, param("session").slice(0, 60))));
      host.append(search, tools, list);
      blocks = [new Block(list, (signal) => ask("traces", { ...rangeParams(), q: param("q"), order, limit: 500 }, { signal }), (answer, body) => (param("sessions") ? showSessions : showList)(answer, body, order))];
    } else {
      host.append(el("div", { class: "line" }, el("button", { onclick: () => set({ id: "", with: "" }) }, "All traces"), legend(), ids.length === 1 && compareForm()));
      const sides = el("div", { class: ids.length > 1 ? "sides" : "" });
      host.append(sides);
      blocks = ids.map((id) => { const side = el("section", { class: "block" }); sides.append(side); return new Block(side, (signal) => ask("trace", { id }, { signal }), showTrace); });
    }
    blocks.forEach((each) => each.refresh());
  }
  start();
  return {
    refresh: (before) => { const was = (name) => before?.params.get(name) || ""; !before || ["id", "with", "at", "since", "until", "q", "order", "sessions", "session"].some((name) => was(name) !== param(name)) ? start() : null; },
    tick: () => { if (!param("id")) blocks.forEach((each) => each.refresh(true)); },
    unmount: stop,
  };
}

const legend = () => el("ul", { class: "legend" }, KINDS.map((kind) => el("li", {}, el("span", { class: `swatch kind-${kind}` }), kind)));
const compareForm = () => el("form", { class: "line", onsubmit: (event) => { event.preventDefault(); const id = event.target.elements[0].value.trim(); if (id) set({ with: id }); } }, el("input", { class: "mono", placeholder: "compare with another id", "aria-label": "Compare with another id" }), el("button", {}, "Compare"));

/** Traces by the session or conversation that they belong to. */
function showSessions({ traces }, body) {
  const sessions = new Map();
  for (const each of traces) {
    if (each.session === null) continue;
    const sum = sessions.get(each.session) || { id: each.session, traces: 0, begins: each.begins, errors: 0, events: 0, duration_ms: 0, tokens: 0, cost: 0 };
    sum.traces += 1;
    sum.begins = Math.min(sum.begins, each.begins);
    for (const name of ["errors", "events", "duration_ms", "cost"]) sum[name] += each[name] || 0;
    sum.tokens += (each.input_tokens || 0) + (each.output_tokens || 0);
    sessions.set(each.session, sum);
  }
  if (!sessions.size) { fill(body, empty("No sessions in this range", "A session is what traces name by gen_ai.conversation.id or session.id in the attributes of their spans.")); return; }
  fill(body, el("p", { class: "soft" }, `${exact(sessions.size)} sessions of the ${exact(traces.length)} traces read`),
    el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Sessions" }, el("table", { class: "wide-table" }, el("thead", {}, el("tr", {}, [["session"], ["began", "num"], ["traces", "num"], ["events", "num"], ["took", "num"], ["errors", "num"], ["tokens", "num"], ["cost", "num"]].map(([word, kind]) => el("th", { class: kind }, word)))),
      el("tbody", {}, [...sessions.values()].slice(0, SHOWN).map((each) => el("tr", {},
        el("td", { class: "cut-cell" }, el("a", { class: "value", href: href("traces", { session: each.id, order: param("order") }) }, each.id)),
        el("td", { class: "num", title: fullTime(each.begins) }, relative(each.begins)), el("td", { class: "num" }, count(each.traces)), el("td", { class: "num" }, count(each.events)), el("td", { class: "num" }, duration(each.duration_ms)),
        el("td", { class: each.errors ? "num error-text" : "num soft" }, each.errors ? `! ${count(each.errors)}` : "0"), el("td", { class: "num" }, count(each.tokens)), el("td", { class: "num" }, each.cost ? each.cost.toPrecision(3) : "–")))))));
}

function showList({ traces: all, next }, body, order) {
  const traces = all.filter((each) => !param("session") || each.session === param("session")).slice(0, SHOWN);
  if (!traces.length) {
    fill(body, empty("No traces in this range", "A trace is made of events that carry a trace id: spans of OpenTelemetry, recorded calls of language models, or log lines with a trace_id.",
      "lakelog.instrument_openai(lake=\"lake\")", "OTEL_EXPORTER_OTLP_ENDPOINT=" + location.origin));
    return;
  }
  const chosen = new Set();
  const compare = el("button", { disabled: true, onclick: () => { const [id, other] = [...chosen]; set({ id, with: other }); } }, "Compare two");
  const hasModels = traces.some((each) => each.input_tokens !== null || each.cost !== null);
  fill(body, el("div", { class: "line" }, el("span", { class: "soft" }, `${exact(traces.length)} traces, the ${order} first`), next && el("span", { class: "soft" }, "older ones are in a longer range"), compare),
    el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Traces" }, el("table", { class: "wide-table" }, el("thead", {}, el("tr", {}, [[""], ["began", "num"], ["name"], ["source"], ["took", "num"], ["events", "num"], ["errors", "num"], ...(hasModels ? [["tokens in", "num"], ["out", "num"], ["cost", "num"]] : [])].map(([word, kind]) => el("th", { class: kind }, word || el("span", { class: "hidden-text" }, "Compare"))))),
      el("tbody", {}, traces.map((each) => el("tr", {},
        el("td", {}, el("input", { type: "checkbox", "aria-label": `Compare ${each.name}`, onchange: (event) => { event.target.checked ? chosen.add(each.id) : chosen.delete(each.id); compare.disabled = chosen.size !== 2; } })),
        el("td", { class: "num", title: fullTime(each.begins) }, relative(each.begins)),
        el("td", { class: "cut-cell" }, el("a", { class: "value", href: href("traces", { id: each.id }) }, each.name || each.id)),
        el("td", { class: "cut-cell value" }, each.source || ""),
        el("td", { class: "num" }, duration(each.duration_ms)), el("td", { class: "num" }, count(each.events)),
        el("td", { class: each.errors ? "num error-text" : "num soft" }, each.errors ? `! ${count(each.errors)}` : "0"),
        hasModels && [el("td", { class: "num" }, count(each.input_tokens)), el("td", { class: "num" }, count(each.output_tokens)), el("td", { class: "num" }, each.cost === null ? "–" : each.cost.toPrecision(3))]))))));
}

function showTrace(answer, body) {
  const { spans } = answer;
  const end = Math.max(1, ...spans.map((span) => span.offset + (span.duration || 0)));
  const sum = (name) => { const numbers = spans.map((span) => span[name]).filter((value) => value !== null); return numbers.length ? numbers.reduce((a, b) => a + b, 0) : null; };
  const errors = spans.filter((span) => span.error).length;
  const cost = sum("cost");
  const hasModels = spans.some((span) => span.input_tokens !== null);
  fill(body,
    el("div", { class: "line" }, el("h2", { class: "mono value cut" }, answer.id), copyButton(answer.id), el("span", {}, duration(end)), el("span", { class: "soft" }, `${exact(answer.events)} events`), errors > 0 && el("span", { class: "chip bad" }, `! ${errors} errors`),
      hasModels && el("span", { class: "soft" }, `${count(sum("input_tokens"))} tokens in, ${count(sum("output_tokens"))} out`), cost !== null && el("span", { class: "soft" }, `cost ${cost.toPrecision(3)}`)),
    answer.events > spans.length && el("p", { class: "soft" }, `The first ${exact(spans.length)} of them:`),
    el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Spans" }, el("div", { class: `waterfall ${hasModels ? "with-models" : ""}` },
      el("div", { class: "span-row span-head" }, el("span", {}, "name"), hasModels && [el("span", { class: "num" }, "in"), el("span", { class: "num" }, "out"), el("span", { class: "num" }, "cost")], el("span", { class: "num" }, "took"),
        el("span", { class: "ticks" }, [0, 0.25, 0.5, 0.75].map((part) => { const tick = el("span", {}, duration(part * end)); tick.style.left = `${part * 100}%`; return tick; }))),
      spans.map((span) => row(span, end, hasModels)))));
}

function row(span, end, hasModels) {
  const name = el("span", { class: "span-name cut", title: span.says || span.name }, el("span", { class: `swatch kind-${span.kind}`, title: span.kind }), span.error && el("span", { class: "error-text", title: "error" }, "! "), el("span", { class: "value" }, span.name), span.orphan && el("span", { class: "soft", title: "Its parent is not here" }, " ⌇"));
  name.style.paddingLeft = `${Math.min(span.depth, 24) * 12}px`;
  const bar = el("span", { class: `span-bar kind-${span.kind} ${span.error ? "is-error" : ""}` });
  bar.style.left = `${(100 * span.offset) / end}%`;
  bar.style.width = `max(2px, ${(100 * (span.duration || 0)) / end}%)`;
  const line = el("div", { class: "span-row", tabindex: "0", role: "button", onclick: () => openEvent(span.seq, span.time, {}), onkeydown: (event) => { if (event.key === "Enter") openEvent(span.seq, span.time, {}); } },
    name, hasModels && [el("span", { class: "num" }, span.input_tokens === null ? "" : count(span.input_tokens)), el("span", { class: "num" }, span.output_tokens === null ? "" : count(span.output_tokens)), el("span", { class: "num" }, span.cost === null ? "" : span.cost.toPrecision(2))],
    el("span", { class: "num", title: `from ${duration(span.offset)}` }, span.duration === null ? "·" : duration(span.duration)), el("span", { class: "track" }, bar));
  if (!span.texts.length && !span.says) return line;
  return [line, el("div", { class: "span-texts" }, span.says && el("p", { class: "error-text value" }, span.says), span.texts.map(([label, text]) => el("details", {}, el("summary", {}, el("span", { class: "soft" }, `${label.replaceAll(".", " ")} `), el("span", { class: "cut value mono" }, text.slice(0, 100))), el("div", { class: "line" }, copyButton(text), el("a", { class: "small", href: href("explore", { open: `${span.seq}@${span.time}` }) }, "the event")), el("pre", { class: "text value" }, pretty(text)))))];
}

function pretty(text) {
  try { return JSON.stringify(parsed(text), null, 2); } catch { return text; }
}
