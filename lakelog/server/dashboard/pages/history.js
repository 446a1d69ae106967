// History: the moves of the branch as a line of time, the difference of two, and the way back.

import { ask, change } from "../api.js";
import { command, el, fault, fill, icon, say } from "../dom.js";
import { ago, bytes, count, exact, fullTime, moment, relative } from "../format.js";
import { Block } from "../loader.js";
import { openPanel, closePanel } from "../panel.js";
import { href, param, set } from "../state.js";

const SVG = "http://www.w3.org/2000/svg";
const SIGNS = { init: "○", ingest: "↧", seal: "▪", compact: "▫", snapshot: "◆", rollback: "↶", undo: "↷", retention: "✂", repair: "✚", merge: "⋈" };

export function mount(root, frame) {
  const line = el("section", { class: "block" }, el("h2", {}, "Line of time"));
  const picture = el("div", { class: "timeline scroll", tabindex: "0", role: "group", "aria-label": "Line of time" });
  line.append(picture);
  const tools = el("div", { class: "line" });
  const result = el("div", {});
  const list = el("section", {});
  root.append(el("h1", { class: "hidden-text" }, "History"), line, tools, result, list);
  let moves = [], difference = null;
  const block = new Block(list, (signal) => ask("moves", { limit: 500 }, { signal }), (answer, body) => {
    moves = answer.moves;
    drawLine(picture, answer, choose);
    fill(tools, toolbar(answer));
    showMoves(body, answer);
  });
  const chosen = () => [param("a"), param("b")];

  function choose(ref) {
    const [a, b] = chosen();
    if (ref === a) set({ a: b, b: "" });
    else if (ref === b) set({ b: "" });
    else if (!a) set({ a: ref });
    else set({ b: ref });
  }

  function toolbar({ tags }) {
    const [a, b] = chosen();
    const select = (name, value, word) => el("label", { class: "line" }, word, el("select", { onchange: (event) => set({ [name]: event.target.value }) },
      [["", "choose"], ...tags.map((tag) => [tag.name, tag.name]), ...moves.slice(0, 200).map((move) => [`@${move.number}`, `@${move.number} ${move.op}, ${moment(move.time)}`])].concat(value && !tags.some((t) => t.name === value) && !moves.some((m) => `@${m.number}` === value) ? [[value, value]] : []).map(([ref, text]) => { const option = el("option", { value: ref }, text); option.selected = ref === value; return option; })));
    const may = frame.about?.may_change;
    return [select("a", a, "Compare"), select("b", b, "with"), (a || b) && el("button", { onclick: () => set({ a: "", b: "" }) }, "Clear"), el("span", { class: "grow" }),
      may ? [el("button", { onclick: () => tagForm("") }, icon("flag"), "Tag the present state"), el("button", { onclick: undoForm }, "Undo the last move")] : el("span", { class: "soft small" }, "Changes need a token of the scope admin.")];
  }

  function showDiff() {
    difference?.stop();
    fill(result);
    const [a, b] = chosen();
    if (!a || !b) return;
    const host = el("section", { class: "block" }, el("h2", {}, el("span", { class: "value" }, a), " → ", el("span", { class: "value" }, b)));
    result.append(host);
    difference = new Block(host, (signal) => ask("diff", { a, b }, { signal, at: "" }), (answer, body) => drawDiff(body, answer));
    difference.refresh();
  }

  function showMoves(body, { moves: all, tags }) {
    const [a, b] = chosen();
    const may = frame.about?.may_change;
    fill(body, el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Moves" }, el("table", { class: "wide-table" }, el("thead", {}, el("tr", {}, ["move", "time", "what", "events", "tags", "message", ""].map((word) => el("th", { class: word === "events" ? "num" : undefined }, word || el("span", { class: "hidden-text" }, "What can be done"))))),
      el("tbody", {}, all.map((move, index) => {
        const ref = `@${move.number}`;
        const newer = all[index + 1];
        const by = newer && move.events !== null && newer.events !== null ? move.events - newer.events : null;
        return el("tr", { "aria-selected": String(ref === a || ref === b || move.tags.some((t) => t === a || t === b)) },
          el("td", { class: "mono" }, ref), el("td", { title: fullTime(move.time), class: "nowrap" }, relative(move.time)),
          el("td", { class: "nowrap" }, el("span", { class: `move-${move.op}`, "aria-hidden": "true" }, SIGNS[move.op] || "•"), ` ${move.op}`),
          el("td", { class: "num", title: exact(move.events) }, move.events === null ? "thinned" : count(move.events), by ? el("span", { class: by < 0 ? "error-text" : "soft" }, ` ${by > 0 ? "+" : "−"}${count(Math.abs(by))}`) : ""),
          el("td", {}, move.tags.map((tag) => el("span", { class: "chip value" }, icon("flag"), tag))),
          el("td", { class: "value wrap" }, move.message, el("span", { class: "soft small" }, ` ${move.author}`)),
          el("td", { class: "nowrap" },
            el("button", { class: "plain tiny", "aria-pressed": String(ref === a || ref === b), title: "Choose for a comparison", "aria-label": `Choose ${ref} for a comparison`, onclick: () => choose(ref) }, "⇄"),
            el("a", { class: "button tiny-link", href: href("explore", { at: ref }), title: `See everything as of ${ref}` }, "See"),
            may && move.events !== null && [el("button", { class: "plain tiny", title: "Tag this state", "aria-label": `Tag ${ref}`, onclick: () => tagForm(ref) }, icon("flag")), index > 0 && el("button", { class: "plain tiny", title: "Roll back to it", "aria-label": `Roll back to ${ref}`, onclick: () => rollbackForm(ref, move) }, "↶")]));
      })))), !tags.length && [el("p", { class: "soft" }, "A tag is a name for a state that never moves: "), command("lakelog tag v1 -m 'before the release'")]);
  }

  function tagForm(ref) {
    const name = el("input", { required: true, "aria-label": "Name", placeholder: "v1" }), message = el("input", { "aria-label": "Message", placeholder: "what it is" });
    const note = el("div", {});
    const form = el("form", { class: "form", onsubmit: async (event) => {
      event.preventDefault();
      try { await change("tag", { name: name.value.trim(), ref, message: message.value }); say(`Tagged ${name.value.trim()}`); closePanel(); block.refresh(); frame.reload(); } catch (error) { fill(note, fault(error)); }
    } }, el("label", {}, "Name", name), el("label", {}, "Message", message), note, el("button", { class: "primary" }, "Tag"));
    openPanel(ref ? `Tag ${ref}` : "Tag the present state", form);
    name.focus();
  }

  /** What a rollback would do is a list that has to be read to its end before the button works. */
  function rollbackForm(ref, move) {
    const body = el("div", { class: "form" });
    openPanel(`Roll back to ${ref}`, body);
    const holder = el("div", {});
    const plan = new Block(holder, (signal) => ask("preflight", { to: ref }, { signal, at: "" }), (answer, host) => {
      const why = el("input", { "aria-label": "Why", placeholder: "why, for the log" });
      const note = el("div", {});
      const button = el("button", { class: "danger", disabled: true }, "Roll back");
      const end = el("div", { class: "plan-end" });
      const planned = el("ol", { class: "plan", tabindex: "0", "aria-label": "What changes" },
        answer.findings.map((each) => el("li", {}, el("b", {}, each.part), " ", el("span", { class: "value" }, each.name), el("div", {}, el("span", { class: "value" }, each.now), " → ", el("span", { class: "value" }, each.then)), each.problem && el("div", { class: "error-text value" }, each.problem))),
        el("li", {}, "The state before gets a tag; nothing is deleted, and Undo reverts it."), el("li", {}, "Saved directories and deployments stay as they are: ", el("code", {}, `lakelog rollback ${ref} --with data,cursors,state`)), end);
      new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting) && !answer.problems.length) setTimeout(() => { button.disabled = false; }, 1000); }, { root: planned }).observe(end);
      button.addEventListener("click", async () => {
        button.disabled = true;
        try {
          const done = await change("rollback", { to: answer.target, name: ref, why: why.value });
          say(`${exact(done.events)} events again; the state before is tagged ${done.safety}`);
          closePanel(); block.refresh(); frame.reload();
        } catch (error) { fill(note, fault(error)); button.disabled = false; }
      });
      fill(host, el("p", {}, `${exact(move.events)} events, ${ago(move.time)}. Read what changes, to its end:`), planned,
        answer.problems.length > 0 && el("p", { class: "fault" }, "It is refused: ", answer.problems[0]), el("label", {}, "Why", why), note, button);
    });
    body.append(holder);
    plan.refresh();
  }

  /** Events that came since would leave the branch with the move: they are counted before. */
  function undoForm() {
    const host = el("div", {}), note = el("div", {});
    const branch = el("input", { "aria-label": "Branch", required: true }), why = el("input", { "aria-label": "Why", placeholder: "why, for the log" });
    const plan = new Block(host, (signal) => ask("undo", {}, { signal, at: "" }), ({ number, op, message, time, later }, body) => {
      branch.value ||= `since-${op}-${number}`;
      fill(body, el("form", { class: "form", onsubmit: async (event) => {
        event.preventDefault();
        try { const done = await change("undo", { to_branch: later ? branch.value.trim() : "", why: why.value }); say(`Undone: ${exact(done.events)} events`); closePanel(); block.refresh(); frame.reload(); } catch (error) { await plan.refresh(); fill(note, fault(error)); }
      } }, el("p", {}, `Takes back @${number}, ${op}, ${ago(time)}: `, el("span", { class: "value" }, message)),
      later > 0 && [el("p", { class: "fault" }, `${exact(later)} ${later === 1 ? "event" : "events"} came since, and would leave the branch with it. They are kept on a new branch:`), el("label", {}, "Keep later events on branch", branch)], el("label", {}, "Why", why), el("button", { class: "danger" }, "Undo")));
    });
    openPanel("Undo the last move", el("div", {}, host, note));
    plan.refresh();
  }

  block.refresh();
  showDiff();
  return { refresh: (before) => { const was = (name) => before?.params.get(name) || ""; if (was("a") !== param("a") || was("b") !== param("b")) showDiff(); block.refresh(true); }, tick: () => block.refresh(true), unmount: () => { block.stop(); difference?.stop(); } };
}

function drawDiff(body, answer) {
  const { a, b, behaviour } = answer;
  const grew = answer.events >= 0;
  fill(body,
    el("p", {}, el("b", {}, `${grew ? "+" : "−"}${exact(Math.abs(answer.events))} events`), `, ${bytes(Math.abs(b.bytes - a.bytes))} ${b.bytes >= a.bytes ? "more" : "less"}; ${exact(answer.segments_added)} segments are only in the second, ${exact(answer.segments_removed)} only in the first.`),
    el("p", { class: "soft" }, `${fullTime(a.time)}: ${exact(a.events)} events; ${fullTime(b.time)}: ${exact(b.events)} events`),
    answer.types && el("div", {}, el("h2", {}, "Types"), answer.types.length ? el("div", { class: "line" }, answer.types.slice(0, 30).map(([name, by]) => el("span", { class: "chip" }, el("span", { class: "value" }, name || "none"), ` ${by > 0 ? "+" : "−"}${exact(Math.abs(by))}`))) : el("p", { class: "soft" }, "the same")),
    el("div", {}, el("h2", {}, "Changed behaviour"), behaviour === null ? el("p", { class: "soft" }, "Too many events to look through here: ", el("code", {}, "lakelog diff A B")) : findings(behaviour)));
}

function findings({ types, fields, sources }) {
  const all = [...types.map((each) => ["type", each]), ...fields.map((each) => ["field", each]), ...sources.map((each) => ["source", each])];
  if (!all.length) return el("p", { class: "soft" }, "None: types, fields and sources are as before.");
  return el("ul", { class: "findings" }, all.slice(0, 60).map(([noun, each]) => el("li", {}, el("span", { class: "chip" }, ["rate", "outcome"].includes(each.change) ? noun : `${each.change} ${noun}`), " ", el("span", { class: "mono value" }, each.name), each.type && el("span", { class: "soft" }, " of ", el("span", { class: "value" }, each.type)), el("span", { class: "soft" }, ` ${each.shift.replace("->", "→")}`))));
}

/** Moves along a line of time, tags as flags, rollbacks as arcs back to where they lead. */
function drawLine(host, { moves, tags }, choose) {
  const make = (tag, attributes, ...children) => { const node = document.createElementNS(SVG, tag); for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value); node.append(...children); return node; };
  const ordered = [...moves].reverse().filter((move) => !["seal", "compact"].includes(move.op) || move.tags.length || moves.length < 60);
  const step = Math.max(14, Math.min(150, Math.floor((host.clientWidth - 60) / Math.max(1, ordered.length))));
  const width = Math.max(host.clientWidth - 2, ordered.length * step + 60), middle = 78, ends = [0, 0, 0];
  const svg = make("svg", { viewBox: `0 0 ${width} 120`, width, height: 120, role: "img", "aria-label": `${ordered.length} moves, ${tags.length} tags` });
  const place = (index) => 30 + index * step;
  const bySnapshot = new Map();
  svg.append(make("line", { x1: 12, x2: place(ordered.length - 1) + 18, y1: middle, y2: middle, class: "axis" }));
  ordered.forEach((move, index) => {
    const x = place(index), isBack = move.op === "rollback" || move.op === "undo";
    const target = bySnapshot.get(move.snapshot);
    if (isBack && target !== undefined) svg.append(make("path", { d: `M${x} ${middle} C${x} ${middle - 44} ${place(target)} ${middle - 44} ${place(target)} ${middle}`, class: "arc" }));
    if (!bySnapshot.has(move.snapshot)) bySnapshot.set(move.snapshot, index);
    const title = document.createElementNS(SVG, "title");
    title.textContent = `@${move.number} ${move.op} ${fullTime(move.time)} ${move.message || ""} ${move.tags.join(", ")}`;
    const dot = make("circle", { cx: x, cy: middle, r: ["seal", "compact", "append"].includes(move.op) ? 4 : 6, class: `move ${isBack ? "back" : move.op === "snapshot" ? "snap" : ""}` }, title);
    dot.addEventListener("click", () => choose(`@${move.number}`));
    svg.append(dot);
    move.tags.slice(0, 2).forEach((tag) => {
      // A flag hangs in the first row where no name stands; without one it is short, and its name is in the title.
      const row = ends.findIndex((end) => end <= x), word = tag.length > 18 ? `${tag.slice(0, 17)}…` : tag;
      const high = row < 0 ? middle - 16 : 14 + 13 * row;
      svg.append(make("path", { d: `M${x} ${middle}V${high - 4}h8`, class: "flag" }));
      if (row < 0) return;
      ends[row] = x + 18 + word.length * 7;
      const text = make("text", { x: x + 10, y: high, class: "flag-name" });
      text.textContent = word;
      svg.append(text);
    });
    // The first and the last time stand apart, or there is only the last one.
    const isFirst = index === 0 && place(ordered.length - 1) - place(0) >= 180;
    if (isFirst || index === ordered.length - 1 || (index % Math.ceil(130 / step) === 0 && index + Math.ceil(130 / step) < ordered.length - 1)) {
      const text = make("text", { x, y: middle + 26, class: "when", "text-anchor": isFirst || x < 60 ? "start" : index === ordered.length - 1 ? "end" : "middle" });
      text.textContent = moment(move.time).slice(5, 16);
      svg.append(text);
    }
  });
  fill(host, svg);
  host.scrollLeft = host.scrollWidth;
}
