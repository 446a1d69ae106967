// Rows of events: only those in sight are in the page, of equal height, whatever they hold.

import { el, fill } from "./dom.js";
import { clock, day, fullTime, letter, levelClass } from "./format.js";

const EXTRA = 8;

export class EventTable {
  /** `onOpen(row, index)` opens a row; `onEnd()` asks for older ones. */
  constructor(host, { onOpen, onEnd, onHover }) {
    this.host = host;
    this.rows = [];
    this.columns = [];
    this.picked = -1;
    this.onOpen = onOpen;
    this.onEnd = onEnd;
    this.space = el("div", { class: "event-space", role: "presentation" });
    this.head = el("div", { class: "event-head", role: "row" });
    this.scroller = el("div", { class: "event-rows", tabindex: "0", role: "grid", "aria-label": "Events", "aria-rowcount": "0" }, this.head, this.space);
    this.scroller.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()));
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    // Of the whole host: the button for new rows is in it, and stays while one goes there.
    host.addEventListener("pointerenter", () => onHover?.(true));
    host.addEventListener("pointerleave", () => onHover?.(false));
    host.append(this.scroller);
    new ResizeObserver(() => { this.height = 0; this.draw(true); }).observe(this.scroller);
  }

  /** Show rows; the scroll stays where it is unless `fromTop`. */
  show(rows, { columns = this.columns, marks = this.marks, fromTop = false } = {}) {
    const open = this.rows[this.picked];
    this.rows = rows;
    this.columns = columns;
    this.marks = marks;
    this.picked = open ? rows.findIndex((row) => row[0] === open[0] && row[1] === open[1]) : -1;
    this.scroller.setAttribute("aria-rowcount", String(rows.length + 1));
    this.scroller.setAttribute("aria-colcount", String(4 + columns.length));
    fill(this.head, [["time", "Time"], ["lvl", ""], ["src", "Source"], ["msg", "Message"]].map(([name, word]) => el("span", { class: `c-${name}`, role: "columnheader" }, word || el("span", { class: "hidden-text" }, "Level"))),
      columns.map((name) => el("span", { class: "c-more cut value", role: "columnheader", title: name }, name)));
    if (fromTop) this.scroller.scrollTop = 0;
    this.draw(true);
  }

  rowHeight() {
    if (!this.height) this.height = matchMedia("(max-width: 600px)").matches ? 44 : 24;
    return this.height;
  }

  draw(again = false) {
    const height = this.rowHeight(), offset = this.head.offsetHeight;
    const first = Math.max(0, Math.floor((this.scroller.scrollTop - offset) / height) - EXTRA);
    const last = Math.min(this.rows.length, Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / height) + EXTRA);
    this.scroller.classList.toggle("long-times", Boolean(this.long));
    this.space.style.height = `${this.rows.length * height}px`;
    if (!again && first === this.first && last === this.last) return;
    this.first = first;
    this.last = last;
    fill(this.space, this.rows.slice(first, last).map((row, place) => this.line(row, first + place, height)));
    if (this.picked >= first && this.picked < last) this.scroller.setAttribute("aria-activedescendant", `row-${this.picked}`);
    else this.scroller.removeAttribute("aria-activedescendant");
    if (this.rows.length && last >= this.rows.length - EXTRA) this.onEnd?.();
  }

  line(row, index, height) {
    const [, time, level, type, source, subject, , message, data, , ...more] = row;
    const line = el("div", { class: "event-row", role: "row", id: `row-${index}`, "aria-rowindex": String(index + 2), "aria-selected": String(index === this.picked), onclick: () => this.open(index) },
      el("span", { class: "c-time soft", role: "gridcell", title: fullTime(time) }, this.long ? `${day(time).slice(5)} ${clock(time)}` : clock(time)),
      el("span", { class: `c-lvl ${levelClass(level)}`, role: "gridcell", title: level || "no level" }, letter(level)),
      el("span", { class: "c-src cut value", role: "gridcell", title: source || "" }, source || ""),
      el("span", { class: "c-msg cut value", role: "gridcell" }, el("span", { class: "soft" }, `${type}${subject ? ` ${subject}` : ""} `), this.marked(message ?? data ?? "")),
      more.map((value) => el("span", { class: "c-more cut value", role: "gridcell" }, value ?? "")));
    line.style.top = `${index * height}px`;
    return line;
  }

  /** A text with what it was found by marked. */
  marked(text) {
    if (!this.marks) return text;
    const parts = [];
    let end = 0;
    for (const match of text.matchAll(this.marks)) {
      if (!match[0] || parts.length > 20) break;
      parts.push(text.slice(end, match.index), el("mark", {}, match[0]));
      end = match.index + match[0].length;
    }
    return [...parts, text.slice(end)];
  }

  pick(index) {
    if (!this.rows.length) return;
    this.picked = Math.max(0, Math.min(this.rows.length - 1, index));
    const height = this.rowHeight(), top = this.picked * height + this.head.offsetHeight;
    if (top - this.head.offsetHeight < this.scroller.scrollTop) this.scroller.scrollTop = top - this.head.offsetHeight;
    else if (top + height > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = top + height - this.scroller.clientHeight;
    this.draw(true);
  }

  open(index) {
    this.pick(index);
    this.onOpen?.(this.rows[this.picked], this.picked);
  }

  step(by, isOpen) {
    const next = this.picked < 0 ? 0 : this.picked + by;
    isOpen ? this.open(next) : this.pick(next);
  }

  key(event) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20 }[event.key];
    if (by) this.step(by, this.isOpen?.());
    else if (event.key === "Home") this.pick(0);
    else if (event.key === "Enter" && this.picked >= 0) this.open(this.picked);
    else return;
    event.preventDefault();
  }
}
