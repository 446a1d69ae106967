// Events as they arrive, one stream for all tabs of a lake: the tab that holds the lock reads it.

import { ask } from "./api.js";

const PAUSE = 1000;

/** Rows that arrive from now on, in the form of the API's lists. */
export class Live {
  constructor(search, onRows) {
    this.search = search;
    this.onRows = onRows;
    this.newest = null;
    this.closed = false;
    this.timer = setTimeout(() => this.look(), PAUSE);
    this.abort = new AbortController();
  }

  async look() {
    if (this.closed) return;
    if (!document.hidden) {
      try {
        const { rows } = await ask("events", { q: this.search, limit: 200 }, { signal: this.abort.signal });
        const known = this.known || new Set(rows.map((row) => `${row[0]}@${row[1]}`));
        const fresh = this.known ? rows.filter((row) => !known.has(`${row[0]}@${row[1]}`)) : [];
        this.known = new Set(rows.map((row) => `${row[0]}@${row[1]}`));
        if (fresh.length && !this.closed) this.onRows(fresh.reverse());
      } catch (error) { if (error.name === "AbortError") return; }
    }
    this.timer = setTimeout(() => this.look(), PAUSE);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.abort.abort();
  }
}
