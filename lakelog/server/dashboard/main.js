// The frame: rail, top bar, pages, keys, and what is told everywhere.

import { alive, ask, beginWith, onOffline, onToken, unanswered } from "./api.js";
import { lastRange, redraw } from "./charts.js";
import { el, fault, fill, icon, say } from "./dom.js";
import { fillTop, openSearch } from "./topbar.js";
import { closePanel, isPanelOpen } from "./panel.js";
import { closePop } from "./pop.js";
import { PAGES, global, go, href, onChange, page, preference, set } from "./state.js";

const WORDS = { overview: "Overview", explore: "Explore", traces: "Traces", patterns: "Patterns", history: "History", sources: "Sources", sql: "SQL", alerts: "Alerts", settings: "Settings" };
const main = document.getElementById("main");
const frame = { about: null, reload };
let view = null;
let mounting = 0;

function fillRail() {
  fill(document.getElementById("rail"),
    el("a", { class: "brand", href: href("overview"), title: "lakelog" }, icon("sources"), el("span", {}, "lakelog")),
    PAGES.map((name) => el("a", { href: href(name), title: WORDS[name], "aria-label": WORDS[name], "aria-current": name === page() ? "page" : undefined }, icon(name), el("span", { class: "word" }, WORDS[name]))),
    el("div", { class: "foot" },
      el("button", { class: "plain", title: "Light or dark", "aria-label": "Light or dark", onclick: toggleTheme }, icon("theme")),
      el("button", { class: "plain", title: "Keys (?)", "aria-label": "Keys", onclick: showKeys }, icon("help"))));
}

function setTheme() {
  const chosen = preference("theme");
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function toggleTheme() {
  preference("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  setTheme();
  redraw();
}

/** Read again what the top bar shows. */
async function reload() {
  const at = global("at");
  try {
    frame.about = await ask("about", {}, { at });
    frame.fault = null;
  } catch (error) {
    frame.fault = error;
    if (!frame.about || error.status === 404) frame.about = { ...(frame.about || { name: "lake", branch: "", branches: [], tags: [], moves: [], events: 0 }), as_of: at ? { ref: at, time: null } : null };
  }
  fillTop(frame);
}

async function showPage() {
  const turn = ++mounting;
  view?.unmount?.();
  view = null;
  closePanel();
  closePop();
  fillRail();
  document.title = `${WORDS[page()]} – lakelog`;
  const root = el("div", { class: `page page-${page()}` });
  fill(main, root);
  main.scrollTop = 0;
  try {
    const { mount } = await import(`./pages/${page()}.js`).catch(unanswered);
    if (turn !== mounting) return;
    view = await mount(root, frame);
    if (turn !== mounting) view?.unmount?.();
  } catch (error) {
    fill(root, fault(error, showPage));
  }
}

onChange(async (before) => {
  const was = (name) => before.params.get(name) || "";
  if (was("tz") !== global("tz")) redraw();
  if (was("at") !== global("at")) await reload();
  else fillTop(frame);
  closePop();
  if (before.page !== page()) await showPage();
  else { fillRail(); view?.refresh?.(before); }
});

const KEYS = [
  ["/", "search"], ["g o", "Overview"], ["g e", "Explore"], ["g t", "Traces"], ["g h", "History"], ["g s", "Sources"], ["g q", "SQL"], ["g a", "Alerts"],
  ["j k", "next and previous row"], ["Enter", "open the row"], ["x", "filter for the value, on a row for its source"], ["X", "filter it out"],
  ["l", "live, or pause"], ["[ ]", "the range before, and after"], ["Esc", "close"], ["?", "this list"],
];

function showKeys() {
  const dialog = el("dialog", { "aria-label": "Keys", onclose: () => dialog.remove() },
    el("h1", {}, "Keys"),
    el("table", {}, KEYS.map(([key, word]) => el("tr", {}, el("td", {}, el("code", {}, key)), el("td", {}, word)))),
    el("button", { onclick: () => dialog.close() }, "Close"));
  document.body.append(dialog);
  dialog.showModal();
}

let pendingG = 0;
const JUMPS = { o: "overview", e: "explore", t: "traces", h: "history", s: "sources", q: "sql", a: "alerts", p: "patterns" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "Escape") {
    if (closePop() || document.querySelector("dialog[open]")) return;
    if (typing) typing.blur();
    else if (isPanelOpen()) closePanel();
    return;
  }
  if (typing || document.querySelector("dialog[open]")) return;
  if (pendingG && Date.now() - pendingG < 1500 && JUMPS[event.key]) {
    pendingG = 0;
    event.preventDefault();
    go(JUMPS[event.key]);
    return;
  }
  pendingG = 0;
  const acts = {
    "/": openSearch,
    g: () => { pendingG = Date.now(); },
    "?": showKeys,
    "[": () => { if (!lastRange()) history.back(); },
    "]": () => history.forward(),
    l: () => { if (global("at")) set({ at: "" }); else view?.keys?.l?.(); },
  };
  const act = acts[event.key] || view?.keys?.[event.key];
  if (act && act(event) !== false) event.preventDefault();
});

let banner = null;
onOffline((isOffline) => {
  if (!isOffline) {
    if (banner) { banner.remove(); banner = null; say("The server answers again"); if (view) view.refresh?.(); else showPage(); }
    return;
  }
  if (banner) return;
  banner = el("div", { class: "toast offline" }, "The server does not answer. What you see is from before; it is asked again every few seconds.");
  document.getElementById("notice").append(banner);
  const again = async () => { if (!banner) return; if (await alive()) reload(); else setTimeout(again, 3000); };
  setTimeout(again, 3000);
});

onToken((isWrong) => new Promise((resolve) => {
  const input = el("input", { type: "password", autocomplete: "off", "aria-label": "Token", placeholder: "ll_…" });
  const dialog = el("dialog", { "aria-label": "A token is needed" },
    el("form", { method: "dialog", class: "form", onsubmit: (event) => { event.preventDefault(); dialog.remove(); resolve(input.value.trim()); } },
      el("h1", {}, "A token is needed"),
      el("p", {}, isWrong ? "That token is not known, was revoked, or may not read. " : "", "Make one that may read, and paste it here. It is kept until the page is closed or loaded again."),
      el("code", {}, "lakelog token add me --scope read"), input, el("button", { class: "primary" }, "Continue")));
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
}));

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { setTheme(); redraw(); });
setInterval(() => { if (!document.hidden && !global("at") && !banner) view?.tick?.(); }, 5000);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !global("at")) view?.tick?.(); });

setTheme();
fillRail();
fillTop(frame);
beginWith(reload().then(() => {
  // A long lake that is in use begins with its last day; all of it is one click away.
  if (!global("since") && !global("until") && !global("at") && frame.about.is_in_use) set({ since: "24h" }, true);
}));
showPage();
