// Explore: one search, a histogram, facets, rows, and one event at the side.

import { ask, parsed } from "../api.js";
import { BarChart, legend } from "../charts.js";
import { command, el, fault, fill, icon, say } from "../dom.js";
import { downloadButtons } from "../download.js";
import { openEvent } from "../event.js";
import { count, exact, isoOf, moment } from "../format.js";
import { Live } from "../live.js";
import { Block } from "../loader.js";
import { closePanel, isPanelOpen, openPanel } from "../panel.js";
import { closePop, togglePop } from "../pop.js";
import { memberOf, term, withTerm } from "../query.js";
import { global, href, param, preference, set } from "../state.js";
import { EventTable } from "../table.js";
import { rangeParams } from "../topbar.js";

const FACETS = [["level", "Level"], ["type", "Type"], ["source", "Source"], ["category", "Category"]];
const SHOWN = 8;
const ROWS_MAX = 20000;
const SLICE = 300000;
const DOWNLOAD_MAX = 100000;
const REMOVALS = ["erase", "retention", "dedupe", "repair"];
const MOVES = 50;

/** The number of the newest move that took rows away; the live stream tells of what comes alone. */
const newestRemoval = (moves) => moves.find(({ op }) => REMOVALS.includes(op))?.number ?? 0;

export function mount(root, frame) {
  root.classList.add("explore");
  const head = el("div", { class: "line explore-head", role: "status" });
  const note = el("div", {});
  const chartHost = el("div", { class: "histogram" });
  const facetHost = el("div", { class: "facets", "aria-label": "Facets", role: "group", tabindex: "-1" });
  const tableHost = el("div", { class: "table-host" });
  const nothing = el("div", { hidden: true });
  const layout = el("div", { class: "explore-body" }, facetHost, el("div", { class: "explore-rows" }, tableHost, nothing));
  root.append(el("h1", { class: "hidden-text" }, "Explore"), head, note, chartHost, layout);
  const chart = new BarChart(chartHost, "Events");
  const open = new Set(["level", "type", "source"]);
  let tally = null, after = null, loading = false, listing = false, rows = [], abort = new AbortController(), hover = false, pendingRows = [], marks = null, unusual = [];

  const table = new EventTable(tableHost, { onOpen: openRow, onEnd: older, onHover: (on) => { hover = on; if (!on) showPending(); } });
  table.isOpen = isPanelOpen;
  const columns = () => param("cols").split(",").filter(Boolean);
  const search = () => param("q");
  const actions = {
    filter: (path, value, out) => set({ q: withTerm(search(), term(path, value, out)), open: "" }),
    column: (name) => { const now = columns(); set({ cols: (now.includes(name) ? now.filter((each) => each !== name) : [...now, name]).join(",") }); },
    values: showValues,
    step: (by) => table.step(by, true),
    onClose: () => { if (param("open")) set({ open: "" }, true); showPending(); },
  };

  function openRow(row) {
    set({ open: `${row[0]}@${row[1]}` }, true);
  }

  function showOpen() {
    const [seq, time] = param("open").split("@");
    if (seq) {
      openEvent(Number(seq), time, actions);
      const place = rows.findIndex((row) => String(row[0]) === seq);
      if (place >= 0 && place !== table.picked) table.pick(place);
    } else if (isPanelOpen()) closePanel();
  }

  async function load() {
    abort.abort();
    abort = new AbortController();
    const { signal } = abort;
    pendingRows = [];
    // First, and kept: what arrives while the list is asked for would be in neither.
    listing = true;
    if (!isLive() || live?.search !== search()) openLive();
    const late = setTimeout(() => { tableHost.classList.add("is-waiting"); chartHost.classList.add("is-waiting"); facetHost.classList.add("is-waiting"); }, 300);
    // What takes longer than a second says so, and can be stopped.
    const slow = setTimeout(() => fill(note, el("div", { class: "line slow" }, el("span", { class: "soft", role: "status" }, "Reading events that may match, the newest first…"), el("button", { onclick: () => { abort.abort(); fill(note, el("p", { class: "soft" }, "Stopped: what you see is from before.")); } }, "Stop"))), 1000);
    const calm = () => { clearTimeout(late); clearTimeout(slow); tableHost.classList.remove("is-waiting"); };
    loading = true;
    const listed = async () => {
      await live?.opened;
      return ask("events", { ...rangeParams(), q: search(), columns: param("cols"), limit: 200 }, { signal });
    };
    const first = listed().then((answer) => {
      calm();
      fill(note);
      rows = answer.rows;
      after = answer.after;
      marks = answer.marks ? safeRegex(answer.marks) : null;
      table.long = !rows.length || rows[0][1] - rows[rows.length - 1][1] > 12 * 3600e3 || Date.now() - rows[0][1] > 864e5;
      table.show(rows, { columns: answer.columns, marks, fromTop: true });
      showNothing();
      showOpen();
      listing = false;
      showPending();
    });
    const counted = tallyAll(signal);
    // Marks are no part of the answer: without them the page is right, too.
    ask("anomalies", rangeParams(), { signal }).then(({ anomalies }) => {
      chart.mark(anomalies);
      unusual = anomalies;
      if (tally) showHead(tally);
    }, () => {});
    try {
      await Promise.all([first, counted]);
    } catch (error) {
      if (error.name !== "AbortError") { calm(); fill(note, fault(error, load)); fill(head); }
    } finally {
      calm();
      if (abort.signal === signal) listing = false;
      if (!signal.aborted) { loading = false; calm(); chartHost.classList.remove("is-waiting"); facetHost.classList.remove("is-waiting"); }
    }
  }

  /** Count slice by slice, the newest first; what is known is shown after each. */
  async function tallyAll(signal) {
    let before = "", slice = SLICE, whole = null;
    while (!signal.aborted) {
      const begin = performance.now();
      const answer = await ask("counts", { ...rangeParams(), q: search(), before, slice }, { signal });
      whole = whole ? added(whole, answer) : answer;
      tally = whole;
      showTally(whole);
      chartHost.classList.remove("is-waiting");
      facetHost.classList.remove("is-waiting");
      if (answer.next === null) return;
      before = isoOf(answer.next);
      if (performance.now() - begin < 400) slice = Math.min(slice * 3, 2e7);
      else if (performance.now() - begin > 1200) slice = Math.max(SLICE / 4, slice / 2);
      if (stopped) return;
    }
  }

  /** What is seen as a file: the newest rows of the range that the search finds. */
  const downloads = el("button", { "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => togglePop(downloads, () => [
    el("p", { class: "soft small" }, `What is found here, the newest ${exact(DOWNLOAD_MAX)} at most.`),
    el("div", { class: "line" }, downloadButtons(seen, closePop)),
  ], "Download") }, "Download", icon("more"));
  function seen() {
    const time = (ms) => `TIMESTAMPTZ '${isoOf(ms)}'`;
    return `SELECT * FROM events WHERE search('${(search() || "*").replaceAll("'", "''")}') AND time >= ${time(tally.since)} AND time < ${time(tally.until)} ORDER BY time DESC, seq DESC LIMIT ${DOWNLOAD_MAX}`;
  }

  let stopped = false;
  function showTally(answer) {
    chart.show(answer);
    showHead(answer);
    showFacets(answer.facets);
  }

  /** What stands above the chart, which stays as it is: somebody may be dragging over it. */
  function showHead(answer) {
    const isAll = answer.next === null;
    const done = (answer.until - answer.counted_from) / (answer.until - answer.since);
    const live = el("button", { "aria-pressed": String(isLive()), title: "Live (l)", disabled: Boolean(global("at")), onclick: toggleLive }, el("span", { class: isLive() ? "dot" : "dot off", "aria-hidden": "true" }), isLive() ? "Live" : "Paused");
    fill(head, el("b", { title: exact(answer.total) }, count(answer.total), answer.total === 1 ? " event" : " events"),
      !isAll && [el("progress", { value: done, max: "1", "aria-label": "Counted" }), el("span", { class: "soft" }, `counted back to ${moment(answer.counted_from)}`), !stopped && el("button", { onclick: () => { stopped = true; showHead(answer); } }, "Stop")],
      unusual.length > 0 && el("a", { href: href("explore", { q: "type:ANOMALY" }), title: unusual.slice(0, 8).map(([, , words]) => words).join("\n") }, "▼ ", exact(unusual.length), unusual.length === 1 ? " anomaly" : " anomalies"),
      legend(new Set(answer.bars.map(([, level]) => level))), el("span", { class: "grow" }),
      columns().length > 0 && el("button", { class: "plain", onclick: () => set({ cols: "" }) }, "Reset columns"),
      downloads,
      el("button", { class: "facet-button", onclick: () => facetHost.classList.toggle("is-open") }, "Facets"),
      !global("at") && live);
  }

  function showFacets(facets) {
    const focus = document.activeElement?.dataset?.facet;
    fill(facetHost, el("button", { class: "facet-close", onclick: () => facetHost.classList.remove("is-open") }, icon("close"), "Close"),
      FACETS.map(([name, word]) => {
        const values = facets[name].filter(([value]) => value !== null);
        if (!values.length) return null;
        const more = open.has(`${name}+`);
        const most = Math.max(...values.map(([, number]) => number));
        const details = el("details", { ontoggle: () => (details.open ? open.add(name) : open.delete(name)) }, el("summary", {}, el("h2", {}, word)),
          el("ul", { class: "facet" }, values.slice(0, more ? 50 : SHOWN).map(([value, number]) => {
            const bar = el("span", { class: "bar", "aria-hidden": "true" });
            bar.style.width = `${(100 * number) / most}%`;
            const key = `${name}:${value}`;
            return el("li", {}, bar,
              el("button", { class: "plain facet-value", "data-facet": key, title: `Filter for ${value}`, onclick: () => actions.filter([name], value, false) }, el("span", { class: "cut grow value" }, value), el("span", { class: "num", title: exact(number) }, count(number))),
              el("button", { class: "plain tiny", title: "Filter out", "aria-label": `Filter out ${value}`, onclick: () => actions.filter([name], value, true) }, icon("minus")));
          })),
          values.length > SHOWN && el("button", { class: "plain small", onclick: () => { more ? open.delete(`${name}+`) : open.add(`${name}+`); showFacets(facets); } }, more ? "fewer" : `${values.length - SHOWN} more`));
        details.open = open.has(name);
        return details;
      }),
      el("form", { class: "line", onsubmit: (event) => { event.preventDefault(); const name = event.target.elements[0].value.trim(); if (name) showValues(name); } },
        el("input", { class: "grow", placeholder: "another field, e.g. user.name", "aria-label": "Statistics of a field" }), el("button", { "aria-label": "Statistics" }, icon("sum"))));
    if (focus) [...facetHost.querySelectorAll("[data-facet]")].find((each) => each.dataset.facet === focus)?.focus();
  }

  async function showValues(name) {
    const body = el("div", { class: "block-body" }, el("div", { class: "bone" }));
    openPanel(`Statistics of ${name}`, body);
    const block = new Block(body, (signal) => ask("values", { ...rangeParams(), q: search(), field: name }, { signal }), (answer, host) => {
      const s = answer.statistics;
      const pairs = [["events", exact(s.events)], ["with it", exact(s.present)], ["different values", `about ${exact(s.distinct)}`], s.numbers > 0 && ["numbers", exact(s.numbers)], ...(s.numbers > 0 ? ["min", "median", "mean", "p95", "max"].map((key) => [key, exact(typeof s[key] === "number" ? Number(s[key].toPrecision(12)) : s[key])]) : [])].filter(Boolean);
      fill(host, el("dl", { class: "pairs" }, pairs.map(([word, value]) => el("div", { class: "pair" }, el("dt", {}, word), el("dd", {}, value)))),
        el("ul", { class: "facet" }, answer.values.map(([value, number]) => el("li", {}, el("button", { class: "plain facet-value", onclick: () => actions.filter(name.split("."), value, false) }, el("span", { class: "cut grow value" }, value), el("span", { class: "num" }, count(number)))))),
        el("p", { class: "soft small" }, `Of events since ${moment(answer.counted_from)}.`),
        el("button", { onclick: () => actions.column(name) }, icon("column"), "Add column"));
    });
    fill(body);
    body.append(block.note, block.body);
    block.refresh();
  }

  async function older() {
    if (loading || after === null || rows.length >= ROWS_MAX) return;
    loading = true;
    try {
      const answer = await ask("events", { ...rangeParams(), q: search(), columns: param("cols"), limit: 200, after }, { signal: abort.signal });
      after = answer.after;
      rows = [...rows, ...answer.rows];
      table.show(rows);
    } catch (error) {
      if (error.name !== "AbortError") say(error.message);
    } finally { loading = false; }
  }

  function showNothing() {
    const isEmpty = !rows.length;
    tableHost.hidden = isEmpty;
    nothing.hidden = !isEmpty;
    if (!isEmpty) return;
    const hasRange = Boolean(global("since") || global("until"));
    fill(nothing, el("div", { class: "empty" }, el("h2", {}, frame.about?.events === 0 ? "This lake has no events yet" : "No events found"),
      frame.about?.events === 0 ? [el("p", { class: "soft" }, "Store some, and they appear here."), command("lakelog ingest app.log")] : [
        el("p", { class: "soft" }, "A word is found whole: timeout* finds longer ones, *timeout* anywhere. All words have to match; OR and -word combine."),
        hasRange && el("button", { onclick: () => set({ since: "all", until: "" }) }, "Search all of the time"),
        search() && el("button", { onclick: () => set({ q: "" }) }, "Remove the search")]));
  }

  // Live rows: in steps, never below the pointer or an open row.
  let live = null;
  const isLive = () => preference("live") !== "off" && !global("at") && !global("until");
  function toggleLive() {
    preference("live", preference("live") === "off" ? "" : "off");
    if (isLive()) load();
    else { closeLive(); tally && showTally(tally); }
  }
  function openLive() {
    closeLive();
    if (isLive()) live = new Live(search(), (fresh) => { pendingRows.push(...fresh.map(withColumns)); showPending(); }, () => load());
  }
  /** A row that arrived has the columns of an event; those that were chosen are read with it. */
  function withColumns(row) {
    const shown = row.slice(0, -2), [id, text] = row.slice(-2), names = columns();
    if (!names.length) return shown;
    const own = { level: row[2], type: row[3], source: row[4], subject: row[5], category: row[6], message: row[7], id };
    const data = parsed(text);
    const member = (name) => memberOf(data, name.replace(/^data\./, "").split("."));
    const spelled = (value) => (value === null || typeof value === "string" ? value : JSON.stringify(value));
    return [...shown, ...names.map((name) => spelled(Object.hasOwn(own, name) ? own[name] : member(name)))];
  }
  function closeLive() { live?.close(); live = null; }
  const fresh = el("button", { class: "fresh primary", hidden: true, onclick: () => { hover = false; showPending(true); } });
  tableHost.append(fresh);
  let lastStep = 0, timer = 0;
  function showPending(force = false) {
    if (listing) return;
    if (!pendingRows.length) { fresh.hidden = true; return; }
    if (!force && (hover || isPanelOpen() || table.scroller.scrollTop > 60)) {
      fresh.hidden = false;
      fill(fresh, `${count(pendingRows.length)} new`);
      return;
    }
    if (!force && performance.now() - lastStep < 250) { clearTimeout(timer); timer = setTimeout(showPending, 260); return; }
    lastStep = performance.now();
    const known = new Set(rows.slice(0, 2000).map((row) => `${row[0]}@${row[1]}`));
    const more = pendingRows.filter((row) => !known.has(`${row[0]}@${row[1]}`)).reverse();
    pendingRows = [];
    fresh.hidden = true;
    if (!more.length) return;
    rows = [...more.sort((a, b) => b[1] - a[1]), ...rows].slice(0, ROWS_MAX);
    table.show(rows, { fromTop: force });
    showNothing();
    recount = true;
  }

  // What arrived is counted, too, but not with each row. What was removed is shown no more.
  let recount = false, counting = false, removal = newestRemoval(frame.about?.moves ?? []);
  async function tick() {
    if (counting || loading) return;
    counting = true;
    const { signal } = abort;
    try {
      const newest = newestRemoval((await ask("moves", { limit: MOVES }, { signal })).moves);
      if (newest > removal) { removal = newest; load(); return; }
      if (!recount || loading || hover) return;
      recount = false;
      const answer = await ask("counts", { ...rangeParams(), q: search() }, { signal });
      if (answer.next === null) { tally = answer; showTally(answer); }
    } catch { /* the next one */ } finally { counting = false; }
  }

  load();
  const sourceTerm = (out) => { const row = rows[table.picked]; if (row?.[4]) actions.filter(["source"], row[4], out); };
  return {
    refresh: (before) => {
      const was = (name) => before?.params.get(name) || "";
      if (before && ["q", "at", "since", "until", "cols"].every((name) => was(name) === param(name))) {
        if (was("open") !== param("open")) showOpen();
        if (was("tz") !== param("tz")) table.draw(true);
        return;
      }
      stopped = false;
      load();
    },
    tick,
    keys: { j: () => table.step(1, isPanelOpen()), k: () => table.step(-1, isPanelOpen()), Enter: () => table.picked >= 0 && table.open(table.picked), x: () => sourceTerm(false), X: () => sourceTerm(true), l: toggleLive },
    unmount: () => { abort.abort(); closeLive(); chart.drop(); },
  };
}

function safeRegex(source) {
  try { return new RegExp(source.replaceAll("(?<![^\\W_])", "(?<![\\p{L}\\p{N}])").replaceAll("(?![^\\W_])", "(?![\\p{L}\\p{N}])"), "giu"); } catch { try { return new RegExp(source, "gi"); } catch { return null; } }
}

/** Two slices as one. */
function added(whole, slice) {
  const facets = {};
  for (const name of Object.keys(whole.facets)) {
    const sums = new Map(whole.facets[name]);
    for (const [value, number] of slice.facets[name]) sums.set(value, (sums.get(value) || 0) + number);
    facets[name] = [...sums].sort((a, b) => b[1] - a[1]);
  }
  return { ...whole, bars: [...whole.bars, ...slice.bars], facets, total: whole.total + slice.total, next: slice.next, counted_from: slice.counted_from };
}

