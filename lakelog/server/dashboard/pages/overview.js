// Overview: one screen that says whether anything is wrong. Each block links to its question.

import { ask } from "../api.js";
import { BarChart, legend } from "../charts.js";
import { command, el, fill, icon, spark } from "../dom.js";
import { ago, bytes, clock, count, duration, exact, fullTime, isoOf, letter, levelClass, relative } from "../format.js";
import { Block } from "../loader.js";
import { term } from "../query.js";
import { href } from "../state.js";
import { rangeParams } from "../topbar.js";

const SILENT = 3;
const LEARNT = 3;
const block = (title, ...more) => el("section", { class: "block" }, el("h2", {}, title), more);

export function mount(root) {
  const chartHost = el("div", { class: "rate-chart" });
  const rate = el("section", { class: "block wide" });
  const rateHead = el("div", { class: "line rate-head" }, el("h2", {}, "Events by level"));
  rate.append(rateHead, chartHost);
  const errors = block("Errors in the last hour"), types = block("Types"), sources = block("Sources");
  const latest = el("section", { class: "block two" }, el("h2", {}, "Latest errors"));
  const silent = block("Silent sources"), lag = block("Watchers and lag"), disk = block("Storage"), machine = block("Machine");
  const learnt = el("section", { class: "block" }, el("div", { class: "line" }, el("h2", {}, "What was learnt"), el("span", { class: "grow" }), el("a", { href: href("patterns") }, "Patterns")));
  const items = el("section", { class: "block wide", hidden: true }, el("h2", {}, "Items"));
  const grid = el("div", { class: "overview" }, rate, el("div", { class: "stack" }, errors, silent), types, sources, el("div", { class: "stack" }, lag, learnt), latest, disk, machine, items);
  const nothing = el("div", { hidden: true }, el("div", { class: "empty" }, el("h2", {}, "This lake has no events yet"),
    el("p", { class: "soft" }, "Store some, and they are here within seconds."),
    ["lakelog ingest app.log", "lakelog watch /var/log", `curl --data-binary @events.jsonl ${location.origin}/ingest`].map(command)));
  root.append(el("h1", { class: "hidden-text" }, "Overview"), nothing, grid);
  const chart = new BarChart(chartHost, "Events by level");
  const holders = Object.fromEntries(Object.entries({ errors, types, sources, silent, latest, lag, disk, machine, items, learnt }).map(([name, host]) => { const body = el("div", { class: "block-body" }); host.append(body); return [name, body]; }));

  const bars = new Block(rate, (signal) => ask("counts", rangeParams(), { signal }), (answer) => {
    chart.show(answer);
    fill(rateHead, el("h2", {}, "Events by level"), el("b", { title: exact(answer.total) }, count(answer.total)), legend(new Set(answer.bars.map(([, level]) => level))), el("span", { class: "grow" }), el("a", { href: href("explore") }, "Explore"));
  });
  const numbers = new Block(grid, (signal) => ask("overview", rangeParams(), { signal }), (answer) => {
    nothing.hidden = answer.events > 0;
    grid.hidden = !answer.events;
    showErrors(holders.errors, answer);
    showTop(holders.types, answer.types, "type");
    showTop(holders.sources, answer.sources, "source");
    showSilent(holders.silent, answer);
    newest.query = answer.errors_query;
    newest.refresh(true);
  });
  const newest = new Block(latest, (signal) => ask("events", { ...rangeParams(), q: newest.query, limit: 8 }, { signal }), (answer) => showLatest(holders.latest, answer, newest.query));
  const rest = new Block(lag, (signal) => ask("storage", {}, { signal }), (answer) => showRest(holders, answer));
  const load = new Block(machine, (signal) => ask("machine", {}, { signal, at: "" }), (answer) => showMachine(holders.machine, answer));
  const standing = new Block(items, (signal) => ask("standing", {}, { signal }), (answer) => {
    items.hidden = !answer.items;
    if (answer.items) showItems(holders.items, answer.items);
    showLearnt(holders.learnt, answer);
  });
  const blocks = [bars, numbers, rest, load, standing];
  const refresh = (quiet) => blocks.forEach((each) => each.refresh(quiet === true));
  refresh();
  let ticks = 0;
  return { refresh, tick: () => { if (++ticks % 2 === 0) refresh(true); }, unmount: () => { blocks.forEach((each) => each.stop()); newest.stop(); chart.drop(); } };
}

function change(now, before) {
  if (before === null || before === undefined) return el("span", { class: "soft", title: "The lake does not reach back so far" }, "–");
  if (!before) return el("span", { class: now ? "warn-text" : "soft" }, now ? "new" : "0");
  const percent = Math.round(((now - before) / before) * 100);
  return el("span", { class: "soft", title: `${exact(before)} in the range before` }, percent > 0 ? `▲ ${count(percent)} %` : percent < 0 ? `▼ ${count(-percent)} %` : "=");
}

function showErrors(host, { errors, errors_query: q, reference }) {
  const hour = (end) => ({ q, since: isoOf(end - 3600e3), until: isoOf(end) });
  const worse = errors.now > errors.before;
  fill(host,
    el("a", { class: `big ${errors.now && worse ? "error-text" : ""}`, href: href("explore", hour(reference)), title: exact(errors.now) }, count(errors.now)),
    el("p", { class: "soft" }, "the same hour a day before: ", el("a", { href: href("explore", hour(reference - 864e5)) }, count(errors.before)), " ", change(errors.now, errors.before)),
    Date.now() - reference > 3600e3 && el("p", { class: "soft small" }, `the hour to ${relative(reference)}, when the newest event was`));
}

function showTop(host, rows, field) {
  const most = Math.max(1, ...rows.map((row) => row.events));
  if (!rows.length) { fill(host, el("p", { class: "soft" }, "None in this range.")); return; }
  fill(host, el("ul", { class: "bars" }, rows.map((row) => {
    const bar = el("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * row.events) / most}%`;
    return el("li", {}, bar, el("a", { class: "cut grow value", href: href("explore", { q: term([field], row.value) }), title: row.value ?? "none" }, row.value ?? `no ${field}`),
      el("span", { class: "num", title: exact(row.events) }, count(row.events)), el("span", { class: "num change" }, change(row.events, row.before)));
  })));
}

function showLatest(host, { rows }, q) {
  if (!rows.length) { fill(host, el("p", { class: "soft" }, "No errors in this range.")); return; }
  fill(host, el("ul", { class: "latest" }, rows.map(([seq, time, level, type, source, , , message, data]) => el("li", {},
    el("a", { class: "latest-row", href: href("explore", { q, open: `${seq}@${time}` }) },
      el("span", { class: "mono soft", title: fullTime(time) }, relative(time)),
      el("span", { class: levelClass(level || "ERROR"), title: level || type }, letter(level || "ERROR")),
      el("span", { class: "cut value source" }, source || type),
      el("span", { class: "cut value mono grow" }, message || data || type))))));
}

function showSilent(host, { silent }) {
  if (!silent.length) { fill(host, el("p", { class: "soft" }, "All sources that used to send still do.")); return; }
  fill(host, el("ul", { class: "rows" }, silent.slice(0, SILENT).map((row) => el("li", {},
    el("a", { class: "cut grow value", href: href("explore", { q: term(["source"], row.source), since: "all", until: "" }) }, row.source),
    el("span", { class: "soft num", title: fullTime(row.last) }, ago(row.last))))),
  silent.length > SILENT && el("p", {}, el("a", { href: href("sources") }, `${silent.length - SILENT} more`)));
}

/** The five views of a processing log: status, throughput, errors, reliability, health. */
function showItems(host, { status, hours, failures, errors, sources, events_1h, uptime_ms }) {
  const list = (rows) => el("dl", { class: "pairs" }, rows);
  fill(host, el("div", { class: "items" },
    el("div", {}, el("h3", {}, "Status"), list(Object.entries(status).map(([name, number]) => pair(name, number && name === "failed" ? el("span", { class: "error-text" }, count(number)) : count(number), exact(number))))),
    el("div", {}, el("h3", {}, "Completed an hour"), hours.length ? [spark(hours.map(([, number]) => number), `Completions of ${hours.length} hours`, 192, 32, true), el("p", { class: "soft" }, `${count(hours.at(-1)[1])} in the hour from ${clock(hours.at(-1)[0]).slice(0, 5)}`)] : el("p", { class: "soft" }, "None yet.")),
    el("div", {}, el("h3", {}, `Failures: ${count(failures)}`), list(errors.slice(0, 4).map(([error, number]) => pair(el("a", { class: "cut value", href: href("explore", { q: term(["error"], error) }), title: error }, error), count(number), exact(number))))),
    el("div", {}, el("h3", {}, "Least reliable"), list(sources.slice(0, 4).map(([source, share, number]) => pair(el("a", { class: "cut value", href: href("explore", { q: term(["source"], source) }), title: source }, source ?? "no source"), `${Math.round(100 * share)} %`, `of ${exact(number)} outcomes`)))),
    el("div", {}, el("h3", {}, "Health"), list([pair("events in the last hour", count(events_1h), exact(events_1h)), pair("first to last event", duration(uptime_ms))]))));
}

/** How much was learnt, and the newest of it. */
function showLearnt(host, { learnt, newest }) {
  if (!learnt.length) { fill(host, el("p", { class: "soft" }, "Nothing yet: find what is unusual, and it stands here."), command("lakelog anomalies --record")); return; }
  fill(host, el("div", { class: "line" }, learnt.map(([type, number, word]) => el("a", { class: "chip", href: href("explore", { q: `type:=${type}`, since: "all" }), title: exact(number) }, `${count(number)} ${word}`))),
    el("ul", { class: "latest" }, newest.slice(0, LEARNT).map(([seq, time, type, text]) => el("li", {}, el("a", { class: "latest-row", href: href("explore", { q: `type:=${type}`, since: "all", open: `${seq}@${time}` }) },
      el("span", { class: "mono soft", title: fullTime(time) }, relative(time)), el("span", { class: "cut value grow", title: type }, text || type))))));
}

const pair = (word, value, title) => el("div", { class: "pair" }, el("dt", {}, word), el("dd", { title }, value));

function showRest({ lag, disk }, answer) {
  const { watchers, streams, subscriptions } = answer;
  fill(lag, watchers.length || streams.length || subscriptions.length ? [
    watchers.map((each) => el("p", { class: "line" }, el("span", { class: each.running ? "chip good" : "chip bad" }, each.running ? "running" : "stopped"), `watcher of ${each.watches}`, el("span", { class: "soft" }, `last round ${relative(each.last_round)}`), Object.keys(each.faults).length > 0 && el("span", { class: "error-text" }, `${Object.keys(each.faults).length} faults`))),
    streams.slice(0, 5).map((each) => el("p", { class: "line" }, el("span", { class: "value cut", title: each.name }, each.name.slice(-40)), el("span", { class: "soft", title: fullTime(each.stored) }, `stored ${relative(each.stored)}`))),
    subscriptions.slice(0, 5).map((each) => el("p", { class: "line" }, el("span", { class: "value cut" }, each.name), el("span", { class: "soft" }, each.behind ? `${count(each.behind)} behind, ${duration(each.seconds * 1000)}` : "up to date"), each.dead > 0 && el("span", { class: "error-text" }, `${each.dead} given up`))),
  ] : [el("p", { class: "soft" }, "Nothing watches files for this lake."), command("lakelog watch /var/log")]);
  fill(disk, el("dl", { class: "pairs" },
    pair("events", bytes(answer.bytes), `${exact(answer.bytes)} bytes in ${exact(answer.segments)} segments`),
    pair("growth a day", bytes(answer.bytes_a_day), "over the time of its events"),
    pair("not sealed", `${count(answer.pending)} events`, `${exact(answer.wal_bytes)} bytes of WAL`),
    pair("quarantine", el("a", { href: href("sources", { tab: "quarantine" }) }, count(answer.quarantined)), exact(answer.quarantined)),
    pair("disk free", `${bytes(answer.disk_free)} of ${bytes(answer.disk_total)}`, exact(answer.disk_free))));
}

function showMachine(host, m) {
  fill(host, el("dl", { class: "pairs" },
    pair("load", m.load === null ? "–" : `${m.load.toFixed(2)} on ${m.cores} cores`),
    pair("memory free", m.memory_free ? `${bytes(m.memory_free)} of ${bytes(m.memory_total)}` : "–"),
    pair("this server", bytes(m.server_bytes), `${exact(Math.round(m.processor_seconds))} s of processor time`)));
}
