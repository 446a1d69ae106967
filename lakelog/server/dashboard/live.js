// Events as they arrive. All tabs of a browser share one stream for each search: the tab that holds
// its lock reads it and tells the others.

import { ask, credentials, parsed } from "./api.js";

const RETRY = 2000;
const LATE = 1000;
const CUT = 300;

const cut = (value) => (typeof value === "string" && value.length > CUT ? `${value.slice(0, CUT)}…` : value ?? null);

/** An event of the stream in the form of the API's lists, and behind that its id and whole payload. */
function rowOf(event) {
  const data = event.data === null || event.data === undefined ? null : typeof event.data === "string" ? event.data : JSON.stringify(event.data);
  return [event.seq, Date.parse(event.time) + (Number(/\.\d{3}(\d{3})/.exec(event.time)?.[1] || 0) / 1000), event.level ?? null, event.type, cut(event.source), cut(event.subject), cut(event.category), cut(event.message), cut(data), data?.length ?? 0, event.id ?? null, data];
}

export class Live {
  /** `onRows` gets rows that arrive from now on, `onState` is called when the branch went back. */
  constructor(search, onRows, onState) {
    this.abort = new AbortController();
    this.channel = new BroadcastChannel(`lakelog-tail-${search}`);
    this.tell = ({ rows, state }) => { if (this.abort.signal.aborted) return; if (state) onState?.(state); else onRows(rows); };
    this.channel.onmessage = ({ data }) => this.tell(data);
    this.search = search;
    const lead = () => new Promise((resolve) => { this.abort.signal.addEventListener("abort", resolve); this.read(); });
    // Settled once the stream has begun, or will not for now: what is asked then lacks nothing.
    this.opened = new Promise((resolve) => { this.open = resolve; setTimeout(resolve, LATE); });
    const name = `lakelog-tail-${search}`;
    const wait = () => { navigator.locks.request(name, { signal: this.abort.signal }, lead).catch(() => {}); };
    // Another tab has it: its stream has begun.
    if (navigator.locks) navigator.locks.request(name, { ifAvailable: true }, (lock) => { if (lock && !this.abort.signal.aborted) return lead(); this.open(); wait(); });
    else lead();
  }

  /** Read the stream, again and again from where it was cut off. */
  async read() {
    const { signal } = this.abort;
    const began = performance.now();
    let last = "";
    for (let isAgain = false; !signal.aborted; isAgain = true) {
      try {
        const response = await fetch(`/tail?${new URLSearchParams(this.search ? { q: this.search } : {})}`, { signal, headers: { ...credentials(), ...(last ? { "Last-Event-ID": last } : {}) } });
        // Asks the user for another token, with which it goes on.
        if (response.status === 401) { await ask("about"); continue; }
        this.open();
        if (response.status === 400) {
          if (!last) return;
          last = ""; // an older copy of the lake may lack what was shown
          continue;
        }
        if (response.ok) {
          // It begins at the end, and what came since the list was asked for is not in it.
          if (!last && (isAgain || performance.now() - began > LATE)) this.both({ state: {} });
          last = await this.parse(response.body.pipeThrough(new TextDecoderStream()).getReader(), last);
        }
      } catch { if (signal.aborted) return; }
      this.open();
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }

  async parse(reader, last) {
    let rest = "", rows = [];
    const send = () => { if (rows.length) this.both({ rows }); rows = []; };
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          let name = "", data = "";
          for (const line of block.split("\n")) {
            if (line.startsWith("id: ")) last = line.slice(4);
            else if (line.startsWith("event: ")) name = line.slice(7);
            else if (line.startsWith("data: ")) data += line.slice(6);
          }
          if (!data) continue;
          if (name === "state") { send(); this.both({ state: JSON.parse(data) }); } else if (!name) rows.push(rowOf(parsed(data)));
        }
        send();
      }
    } catch { send(); }
    return last;
  }

  both(news) {
    this.tell(news);
    if (!this.abort.signal.aborted) this.channel.postMessage(news);
  }

  close() {
    this.abort.abort();
    this.channel.close();
  }
}
