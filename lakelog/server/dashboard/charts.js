// Charts: uPlot, dressed in the colours of the page. A drag sets the range, a double click goes back.

import { el, fill } from "./dom.js";
import { LEVELS, clock, count, day, exact, isoOf, moment, zone } from "./format.js";
import { set } from "./state.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shown = new Set();
const steps = [];
// At the right half a label of the time axis, which may stand at its end.
const PADDING = [8, 30, 0, 0];

/** The colour of a level's bars. */
export const levelColour = (level) => colour(LEVELS.includes(level) ? `--bar-${level.toLowerCase()}` : "--bar-none");
export const seriesColour = (index) => colour(`--s${(index % 8) + 1}`);

/** Draw all again, as colours or the time zone are others. */
export function redraw() {
  for (const chart of [...shown]) chart.host.isConnected ? chart.again() : chart.drop();
}

/** Set the range of the dashboard, and remember the one before for `[`. */
export function setRange(since, until) {
  steps.push(location.hash);
  set({ since: isoOf(Math.floor(since)), until: isoOf(Math.ceil(until)) });
}

/** Go back to the range before the last drag. */
export function lastRange() {
  const before = steps.pop();
  if (before) location.hash = before;
  return Boolean(before);
}

/** Order of names in a stack: levels by severity, then others, then those without. */
function ordered(keys) {
  const place = (key) => (LEVELS.includes(key) ? LEVELS.indexOf(key) : key === null ? 99 : 50);
  return [...keys].sort((a, b) => place(a) - place(b) || String(a).localeCompare(String(b)));
}

/** What stands at the ticks of a time axis. */
function timeTicks(_, ticks, __, ___, step) {
  let last = "";
  const isOverYears = ticks.length > 1 && ticks.at(-1) - ticks[0] > 300 * 864e5;
  return ticks.map((ms) => {
    const date = isOverYears ? day(ms).slice(0, 7) : day(ms).slice(5), hours = clock(ms);
    if (step >= 864e5) return date;
    const isNew = date !== last;
    last = date;
    if (isNew && hours.startsWith("00:00:00")) return date;
    return step >= 6e4 ? hours.slice(0, 5) : step >= 1e3 ? hours.slice(0, 8) : hours.slice(3);
  });
}

export class BarChart {
  /** A chart of stacked bars in `host`, whose height is set by CSS. */
  constructor(host, label) {
    this.host = host;
    host.classList.add("chart");
    this.tip = el("div", { class: "tip", hidden: true });
    this.label = label;
    this.canvas = el("div", { class: "plot", role: "img", "aria-label": label });
    fill(host, this.canvas, this.tip);
    new ResizeObserver(() => {
      if (this.plot && host.clientWidth) this.plot.setSize({ width: host.clientWidth, height: host.clientHeight });
      else this.again();
    }).observe(host);
    shown.add(this);
  }

  /** Show {since, until, width, bars: [[ms, name, number]…]}; `colours` gives that of a name. */
  show(data, colours = levelColour) {
    this.data = data;
    this.colours = colours;
    this.again();
  }

  /** Mark spans [begin (ms), end (ms), words…] behind the bars. */
  mark(spans) {
    this.spans = spans;
    this.plot?.redraw();
  }

  /** Draw the spans, those that overlap as one: with bands before the bars, with arrows after them. */
  drawSpans(plot, arrows) {
    const { ctx, bbox } = plot, size = 4 * devicePixelRatio, joined = [];
    for (const [begin, end] of (this.spans ?? []).slice().sort((a, b) => a[0] - b[0])) {
      if (joined.length && begin <= joined.at(-1)[1]) joined.at(-1)[1] = Math.max(end, joined.at(-1)[1]);
      else joined.push([begin, end]);
    }
    ctx.save();
    ctx.fillStyle = colour("--bar-error");
    for (const [begin, end] of joined) {
      const left = Math.max(bbox.left, plot.valToPos(begin, "x", true));
      const width = Math.max(2, Math.min(bbox.left + bbox.width, plot.valToPos(end, "x", true)) - left);
      if (left >= bbox.left + bbox.width || plot.valToPos(end, "x", true) <= bbox.left) continue;
      if (!arrows) {
        ctx.globalAlpha = 0.18;
        ctx.fillRect(left, bbox.top, width, bbox.height);
        continue;
      }
      // Above the bars, and a shape: nothing is told by colour alone.
      ctx.beginPath();
      ctx.moveTo(left + width / 2 - size, bbox.top - size * 1.5);
      ctx.lineTo(left + width / 2 + size, bbox.top - size * 1.5);
      ctx.lineTo(left + width / 2, bbox.top);
      ctx.fill();
    }
    ctx.restore();
  }

  drop() {
    this.plot?.destroy();
    this.plot = null;
    shown.delete(this);
  }

  again() {
    if (!this.data || !this.host.clientWidth || !window.uPlot) return;
    const { since, until, width, bars } = this.data;
    const first = Math.floor(since / width) * width;
    const size = Math.min(2000, Math.max(1, Math.ceil((until - first) / width)));
    const keys = ordered(new Set(bars.map(([, key]) => key)));
    const rows = new Map(keys.map((key) => [key, new Array(size).fill(0)]));
    for (const [time, key, number] of bars) {
      const index = Math.round((time - first) / width);
      if (index >= 0 && index < size) rows.get(key)[index] += number;
    }
    this.keys = keys;
    this.rows = rows;
    this.times = Array.from({ length: size }, (_, index) => first + index * width);
    // Severe levels stand at the bottom, where they are seen however few they are.
    const sums = [];
    let below = new Array(size).fill(0);
    for (const key of keys) {
      below = below.map((value, index) => value + rows.get(key)[index]);
      sums.push(below);
    }
    const stacked = [this.times, ...sums.slice().reverse()];
    this.plot?.destroy();
    fill(this.canvas);
    this.plot = new window.uPlot(this.options(first, first + size * width, keys), stacked, this.canvas);
    const total = bars.reduce((sum, [, , number]) => sum + number, 0);
    this.canvas.setAttribute("aria-label", `${this.label}: ${exact(total)} events from ${moment(since)} to ${moment(until)} ${zone()}`);
  }

  options(low, high, keys) {
    const axis = { stroke: colour("--text-soft"), grid: { stroke: colour("--border"), width: 1 }, ticks: { stroke: colour("--border"), size: 4 }, font: "12px system-ui, sans-serif" };
    const bars = window.uPlot.paths.bars({ size: [1, 200], align: 1, gap: 1 });
    return {
      width: this.host.clientWidth,
      height: this.host.clientHeight,
      ms: 1,
      padding: PADDING,
      tzDate: (ms) => (zone() === "UTC" ? window.uPlot.tzDate(new Date(ms), "Etc/UTC") : new Date(ms)),
      scales: { x: { time: true, range: () => [low, high] }, y: { range: (_, __, most) => [0, Math.max(1, most || 0) * 1.05] } },
      axes: [
        { ...axis, grid: { show: false }, space: 76, size: 26, values: timeTicks },
        { ...axis, size: 50, space: 28, values: (_, ticks) => ticks.map(count) },
      ],
      legend: { show: false },
      cursor: {
        y: false, points: { show: false }, drag: { x: true, y: false, setScale: false }, sync: { key: "page" },
        bind: { dblclick: () => () => { if (!lastRange()) set({ since: "", until: "" }); return null; } },
      },
      series: [{}, ...keys.slice().reverse().map((key) => ({ fill: this.colours(key), stroke: this.colours(key), width: 0, paths: bars, points: { show: false } }))],
      hooks: {
        drawClear: [(plot) => this.drawSpans(plot, false)],
        draw: [(plot) => this.drawSpans(plot, true)],
        setCursor: [(plot) => this.showTip(plot)],
        setSelect: [(plot) => {
          const { left, width } = plot.select;
          if (width < 4) return;
          const [since, until] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          setRange(since, until);
        }],
      },
    };
  }

  showTip(plot) {
    const { left } = plot.cursor;
    const inside = left !== null && left !== undefined && left >= 0;
    const index = inside ? Math.floor((plot.posToVal(left, "x") - this.times[0]) / this.data.width) : -1;
    if (index < 0 || index >= this.times.length || !plot.over.matches(":hover")) { this.tip.hidden = true; return; }
    const total = this.keys.reduce((sum, key) => sum + this.rows.get(key)[index], 0);
    fill(this.tip, el("div", {}, moment(this.times[index]), " ", el("b", {}, exact(total))),
      this.keys.filter((key) => this.rows.get(key)[index]).map((key) => {
        const dot = el("span", { class: "swatch" });
        dot.style.background = this.colours(key);
        return el("div", { class: "value" }, dot, key ?? "no level", " ", exact(this.rows.get(key)[index]));
      }));
    const [from, to] = [this.times[index], this.times[index] + this.data.width];
    this.tip.append(...(this.spans ?? []).filter(([begin, end]) => begin < to && end > from).slice(0, 4).map(([, , words]) => el("div", { class: "value" }, "▼ ", words)));
    this.tip.hidden = false;
    const place = left + plot.over.offsetLeft + 12;
    const room = this.host.clientWidth - this.tip.offsetWidth - 8;
    this.tip.style.left = `${place > room ? Math.max(0, place - this.tip.offsetWidth - 24) : place}px`;
  }
}

/** The names of a stack with their colours. */
export function legend(keys, colours = levelColour, word = (key) => key ?? "no level") {
  return el("ul", { class: "legend" }, ordered(keys).map((key) => {
    const dot = el("span", { class: "swatch" });
    dot.style.background = colours(key);
    return el("li", {}, dot, el("span", { class: "value" }, word(key)));
  }));
}

/** Lines or bars over any numbers, for results of SQL. */
export function plotOf(host, x, series, isTime) {
  const axis = { stroke: colour("--text-soft"), grid: { stroke: colour("--border"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const draw = () => {
    if (!host.clientWidth || !host.isConnected) return;
    fill(host);
    new window.uPlot({
      width: host.clientWidth, height: 240, ms: 1, padding: PADDING,
      tzDate: (ms) => window.uPlot.tzDate(new Date(ms), zone() === "UTC" ? "Etc/UTC" : zone()),
      scales: { x: { time: isTime } },
      axes: [isTime ? { ...axis, space: 76, values: timeTicks } : axis, { ...axis, size: 56, values: (_, ticks) => ticks.map(count) }],
      legend: { show: false },
      series: [{}, ...series.map(({ name }, index) => ({ label: name, stroke: seriesColour(index), width: 2, points: { show: x.length < 60 } }))],
    }, [x, ...series.map(({ values }) => values)], host);
  };
  new ResizeObserver(draw).observe(host);
}
