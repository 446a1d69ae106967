// Elements, made one way: every text of an event becomes a text node, never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. Properties that begin with "on" are listeners, `class` and others attributes. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(9)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replace what is in an element. */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

const PATHS = {
  overview: "M2 13h12M4 13V8m4 5V3m4 10V6",
  explore: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10Zm3.6-1.4L14 14",
  traces: "M2 3h7M5 8h8M8 13h5",
  patterns: "M3 3h4v4H3zM9 9h4v4H9zM9 3h4M11 1v4M3 11h4",
  history: "M8 4v4l3 2M2.5 8A5.5 5.5 0 1 0 4 4.2M4 1.5v3h3",
  sources: "M2 4c0-1 2.7-2 6-2s6 1 6 2-2.7 2-6 2-6-1-6-2Zm0 0v8c0 1 2.7 2 6 2s6-1 6-2V4M2 8c0 1 2.7 2 6 2s6-1 6-2",
  sql: "m2 4 4 4-4 4M8 12h6",
  alerts: "M8 2a4 4 0 0 1 4 4c0 4 1.5 5 1.5 5h-11S4 10 4 6a4 4 0 0 1 4-4ZM6.5 13.5h3",
  settings: "M2 4h6m4 0h2M2 12h2m4 0h6M10 2v4M6 10v4",
  close: "m4 4 8 8m0-8-8 8",
  copy: "M5 5V2.5h8.5V11H11M2.5 5H11v8.5H2.5z",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  column: "M3 2.5h10v11H3zM8 2.5v11",
  sum: "M12 3H4l4 5-4 5h8",
  help: "M6 6a2 2 0 1 1 2.7 1.9C8.2 8.1 8 8.5 8 9.2M8 12v.1",
  theme: "M8 2a6 6 0 1 0 0 12ZM8 2a6 6 0 0 1 0 12",
  flag: "M4 14V2.5h8L10 5.5l2 3H4",
  more: "m4 6 4 4 4-4",
};

/** An icon by its name, hidden from screen readers: the word stands beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name] || "");
  svg.append(path);
  return svg;
}

/** A small drawing of numbers as bars; what it says stands in `label`. `stretch` fits it to its place. */
export function spark(values, label, width = 96, height = 18, stretch = false) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "spark");
  if (stretch) svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const highest = Math.max(1, ...values), step = width / values.length;
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", values.map((value, index) => {
    const tall = value ? Math.max(1, (value / highest) * height) : 0;
    return tall ? `M${(index * step).toFixed(1)} ${height}v${-tall.toFixed(1)}h${(step - 1).toFixed(1)}v${tall.toFixed(1)}z` : "";
  }).join(""));
  svg.append(path);
  return svg;
}

/** A button that copies a text. */
export function copyButton(text, word = "Copy") {
  const button = el("button", {
    class: "plain tiny", title: word, "aria-label": word,
    onclick: async (event) => {
      event.stopPropagation();
      try { await navigator.clipboard.writeText(typeof text === "function" ? text() : text); say("Copied"); }
      catch { say("The browser does not allow copying here"); }
    },
  }, icon("copy"));
  return button;
}

/** A command to copy, as empty pages show it. */
export function command(text) {
  return el("div", { class: "command" }, el("code", {}, text), copyButton(text, "Copy the command"));
}

/** A page that has nothing yet: what it would show, and the command that fills it. */
export function empty(title, words, ...commands) {
  return el("div", { class: "empty" }, el("h2", {}, title), el("p", { class: "soft" }, words), commands.map(command));
}

/** An error: what, where, what next. */
export function fault(error, retry) {
  return el("div", { class: "fault", role: "alert" }, el("b", {}, error.where ? `${error.where}: ` : "", ""),
    el("span", { class: "value" }, error.message), " ",
    retry && el("button", { class: "plain", onclick: retry }, "Try again"));
}

/** Say something for four seconds. */
export function say(text) {
  const toast = el("div", { class: "toast" }, text);
  document.getElementById("notice").append(toast);
  setTimeout(() => toast.remove(), 4000);
}

/** Run a function at most once in so many ms, at the end. */
export function debounce(work, ms) {
  let timer = 0;
  return (...values) => { clearTimeout(timer); timer = setTimeout(() => work(...values), ms); };
}
