// Loading a block of a page: the old content stays greyed, errors say what to do, and the last
// question wins.

import { el, fault, fill } from "./dom.js";

export class Block {
  /** A block that shows the answer to `load(signal)` by `show(answer, host)`. */
  constructor(host, load, show) {
    this.host = host;
    this.body = el("div", { class: "block-body" });
    this.note = el("div", { class: "block-note" });
    host.append(this.note, this.body);
    this.load = load;
    this.show = show;
  }

  /** Ask again. `quiet` leaves what is there as it is until the answer comes. */
  async refresh(quiet = false) {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    // Nothing moves for what is there in a moment.
    const late = setTimeout(() => { if (!quiet) this.body.classList.add("is-waiting"); }, 300);
    this.host.setAttribute("aria-busy", "true");
    try {
      const answer = await this.load(abort.signal);
      if (this.abort !== abort) return;
      fill(this.note);
      this.show(answer, this.body);
    } catch (error) {
      if (error.name === "AbortError" || this.abort !== abort) return;
      fill(this.note, fault(error, () => this.refresh()));
    } finally {
      clearTimeout(late);
      if (this.abort === abort) {
        this.body.classList.remove("is-waiting");
        this.host.removeAttribute("aria-busy");
      }
    }
  }

  stop() { this.abort?.abort(); }
}

/** Lines of a first load. */
export const bones = (number) => Array.from({ length: number }, () => el("div", { class: "bone" }));
