// SQL: an editor with completion, its rows as a table or a plot, and its cancel.

import { ask, request } from "../api.js";
import { plotOf, seriesColour } from "../charts.js";
import { command, el, fault, fill } from "../dom.js";
import { downloadButtons } from "../download.js";
import { duration, exact, fullTime, timeOf } from "../format.js";
import { global, param, set } from "../state.js";
import { suggest } from "../suggest.js";

const ROWS = 1000;
const SHOWN = 100;
const FIRST = "SELECT type, count(*) AS events, max(time) AS last\nFROM events\nGROUP BY type\nORDER BY events DESC";
const EXAMPLES = [
  ["By type", FIRST],
  ["An hour of errors", "SELECT time_bucket(INTERVAL '1 hour', time) AS hour, count(*) AS errors\nFROM events\nWHERE search('level>=ERROR')\nGROUP BY 1\nORDER BY 1"],
  ["A view", "SELECT * FROM reliability ORDER BY success_rate"],
  ["A field of data", "SELECT data->>'error' AS error, count(*) AS n\nFROM events\nWHERE type = 'FAIL'\nGROUP BY 1\nORDER BY n DESC"],
];
const KEYWORDS = "SELECT FROM WHERE GROUP BY ORDER LIMIT JOIN USING HAVING WITH AS AND OR NOT IN IS NULL LIKE BETWEEN DESC DISTINCT CASE WHEN THEN ELSE END count sum avg min max search time_bucket INTERVAL date_trunc quantile_cont approx_quantile arg_max coalesce".split(" ");

export function mount(root) {
  const area = el("textarea", { spellcheck: "false", autocapitalize: "off", autocomplete: "off", "aria-label": "SQL", "aria-describedby": "sql-help", value: param("sql") || FIRST });
  const word = /["\w.]*$/;
  const { list, hide } = suggest(area, {
    matches: (before) => {
      const typed = word.exec(before)[0].toLowerCase();
      return [before.length - typed.length, typed ? known.filter((name) => name.toLowerCase().startsWith(typed) && name.toLowerCase() !== typed) : []];
    },
    place: (box) => {
      const before = area.value.slice(0, area.selectionStart).split("\n");
      box.style.top = `${Math.min(area.offsetHeight, before.length * 17.4 + 10 - area.scrollTop)}px`;
      box.style.left = `${Math.min(Math.max(0, area.offsetWidth - 200), before.at(-1).length * 7.2 + 8)}px`;
    },
  });
  const run = el("button", { class: "primary", onclick: start }, "Run");
  const cancel = el("button", { hidden: true, onclick: () => abort?.abort() }, "Cancel");
  const note = el("span", { class: "soft", role: "status" });
  const problem = el("div", {});
  const plot = el("div", { class: "sql-plot", hidden: true, role: "img", "aria-label": "Plot of the result" });
  const names = el("div", {});
  const result = el("div", { class: "scroll sql-result", tabindex: "0", role: "group", "aria-label": "Result" });
  const downloads = el("span", { class: "line", hidden: true }, downloadButtons(() => area.value));
  root.append(el("h1", { class: "hidden-text" }, "SQL"),
    el("div", { class: "line" }, el("span", { class: "soft" }, "Examples:"), EXAMPLES.map(([word, text]) => el("button", { class: "plain", onclick: () => { area.value = text; start(); } }, word))),
    el("div", { class: "sql-editor" }, area, list),
    el("div", { class: "line" }, run, cancel, note, el("span", { class: "grow" }), downloads, el("span", { id: "sql-help", class: "soft small" }, "Ctrl+Enter runs, Tab completes")),
    problem, names, plot, result);
  let abort = null, known = KEYWORDS;
  ask("names").then((answer) => { known = [...new Set([...answer.tables, ...answer.columns, ...answer.members, ...answer.tags.map((tag) => `"${tag}".events`), ...answer.types, ...KEYWORDS])]; }, () => {});

  async function start() {
    hide();
    set({ sql: area.value }, true);
    abort?.abort();
    const mine = (abort = new AbortController());
    const begin = performance.now();
    const clockwork = setInterval(() => { if (performance.now() - begin > 300) fill(note, `running for ${duration(performance.now() - begin)}`); }, 200);
    const late = setTimeout(() => { cancel.hidden = false; result.classList.add("is-waiting"); }, 300);
    run.disabled = true;
    try {
      const answer = await request("/sql", { method: "POST", signal: mine.signal, headers: { "Content-Type": "application/json", Accept: "application/json" }, body: JSON.stringify({ sql: area.value, at: global("at") || null, limit: ROWS }) }, "SQL");
      fill(problem);
      show(answer);
      fill(note, `${exact(answer.rows.length)} ${answer.rows.length === 1 ? "row" : "rows"}${answer.truncated ? " of more" : ""} in ${duration(performance.now() - begin)}`);
    } catch (error) {
      fill(note, error.name === "AbortError" ? "cancelled" : "");
      if (error.name !== "AbortError") fill(problem, fault(error));
    } finally {
      clearInterval(clockwork);
      clearTimeout(late);
      run.disabled = false;
      cancel.hidden = true;
      result.classList.remove("is-waiting");
    }
  }

  function show({ columns, rows }, shown = SHOWN) {
    const numeric = columns.map(({ type }) => /INT|DOUBLE|FLOAT|DECIMAL|REAL/.test(type));
    downloads.hidden = false;
    fill(result, el("table", {}, el("thead", {}, el("tr", {}, columns.map(({ name, type }, index) => el("th", { class: numeric[index] ? "num value" : "value", title: type }, name)))),
      el("tbody", {}, rows.slice(0, shown).map((row) => el("tr", {}, row.map((cell, index) => {
        const text = cell === null ? "" : typeof cell === "object" ? JSON.stringify(cell) : numeric[index] ? exact(cell) : String(cell);
        return el("td", { class: numeric[index] ? "num value" : "value", title: text.length > 40 ? text.slice(0, 1000) : undefined }, cell === null ? el("span", { class: "soft" }, "null") : text.slice(0, 500));
      }))))), !rows.length && el("p", { class: "soft" }, "No rows."),
      rows.length > shown && el("button", { onclick: () => show({ columns, rows }, shown + 2 * SHOWN) }, `Show more than ${exact(shown)} of ${exact(rows.length)} rows`));
    if (shown === SHOWN) drawPlot(columns, rows, numeric);
  }

  /** A first column of times or numbers, and numbers beside it, make a plot. */
  function drawPlot(columns, rows, numeric) {
    const isTime = /TIMESTAMP|DATE/.test(columns[0]?.type || "");
    const series = columns.map(({ name }, index) => ({ name, index })).filter(({ index }) => index > 0 && numeric[index]).slice(0, 8);
    const fits = rows.length > 1 && series.length && (isTime || numeric[0]);
    plot.hidden = !fits;
    fill(names);
    if (!fits) return;
    const sorted = rows.filter((row) => row[0] !== null).map((row) => [isTime ? timeOf(row[0]) : Number(row[0]), row]).sort((a, b) => a[0] - b[0]);
    plotOf(plot, sorted.map(([x]) => x), series.map(({ name, index }) => ({ name, values: sorted.map(([, row]) => (row[index] === null ? null : Number(row[index]))) })), isTime);
    plot.setAttribute("aria-label", `Plot of ${series.map(({ name }) => name).join(", ")}${isTime && sorted.length ? ` from ${fullTime(sorted[0][0])}` : ""}`);
    fill(names, el("ul", { class: "legend" }, series.map(({ name }, index) => { const dot = el("span", { class: "swatch" }); dot.style.background = seriesColour(index); return el("li", {}, dot, el("span", { class: "value" }, name)); })));
  }

  area.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") { event.preventDefault(); hide(); start(); }
  });
  if (param("sql")) start();
  else fill(result, el("div", { class: "empty" }, el("p", { class: "soft" }, "One SELECT over events, quarantine, files, every view, and \"v1\".events of any tag. It runs apart from the server, reads only, and is stopped after 30 seconds. The same on the command line:"), command("lakelog sql \"SELECT type, count(*) FROM events GROUP BY 1\"")));
  return { refresh: (before) => { if (before && (before.params.get("at") || "") !== global("at")) start(); }, unmount: () => abort?.abort() };
}
