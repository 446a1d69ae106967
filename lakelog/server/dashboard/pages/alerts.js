// Alerts: what fires now, the rules with their receivers, who was told, and silences.

import { ask, change } from "../api.js";
import { command, el, empty, fault, fill, say } from "../dom.js";
import { count, duration, exact, fullTime, relative } from "../format.js";
import { Block } from "../loader.js";
import { closePanel, openPanel } from "../panel.js";
import { href } from "../state.js";

const ms = (text) => (text ? Date.parse(text) : null);
const labels = (all) => el("span", { class: "line" }, Object.entries(all).map(([name, value]) => el("span", { class: "chip value" }, `${name}=${value}`)));
const table = (label, head, rows) => el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, el("table", { class: "wide-table" }, el("thead", {}, el("tr", {}, head.map(([word, kind]) => el("th", { class: kind }, word || el("span", { class: "hidden-text" }, "What can be done"))))), el("tbody", {}, rows)));
const state = (name) => el("span", { class: name === "firing" || name === "error" ? "chip bad" : name === "ok" ? "chip good" : "chip" }, name === "firing" ? "! firing" : name);

export function mount(root, frame) {
  const host = el("section", {});
  root.append(el("h1", { class: "hidden-text" }, "Alerts"), host);
  const block = new Block(host, async (signal) => {
    const [answer, { entries }] = await Promise.all([ask("alerts", {}, { signal, at: "" }), ask("alerts/history", { limit: 100 }, { signal, at: "" })]);
    return { ...answer, changes: entries.reverse() };
  }, (answer, body) => show(body, answer, frame, block));
  block.refresh();
  return { refresh: () => block.refresh(), tick: () => block.refresh(true), unmount: () => block.stop() };
}

function show(body, { evaluated, rules, alerts, silences, changes }, frame, block) {
  if (!rules.length) {
    fill(body, empty("No rules yet", "A rule asks a question of the events again and again, and tells somebody when it fires. This server evaluates the rules of its lake.",
      "lakelog alerts add errors --search 'level>=ERROR' --above 2 --by source", "lakelog alerts add silent --below 1 --window 10m \"SELECT count(*) AS value FROM events WHERE source = 'db' AND time >= \\$since\"", "lakelog alerts add errors --replace --search 'level>=ERROR' --to https://hooks.example.org/lake"));
    return;
  }
  const may = frame.about?.may_change;
  const active = silences.filter((each) => each.active);
  fill(body,
    !evaluated && el("p", { class: "fault" }, "No process asks the rules now: ", el("code", {}, "lakelog alerts run")),
    el("h2", {}, alerts.length ? `${alerts.length} ${alerts.length === 1 ? "alert" : "alerts"}` : "Nothing fires"),
    alerts.length > 0 && table("Alerts", [["state"], ["rule"], ["labels"], ["value", "num"], ["since", "num"], [""]], alerts.map((each) => el("tr", {},
      el("td", {}, state(each.state), each.silenced && el("span", { class: "chip" }, "silenced")), el("td", { class: "value" }, each.rule), el("td", {}, labels(each.labels)),
      el("td", { class: "num", title: exact(each.value) }, each.value === null ? "–" : count(each.value)), el("td", { class: "num", title: fullTime(ms(each.since)) }, relative(ms(each.since))),
      el("td", {}, may && !each.silenced && el("button", { onclick: () => silenceForm(each, block) }, "Silence"))))),
    el("h2", {}, "Rules"),
    table("Rules", [["state"], ["rule"], ["question"], ["asked", "num"], ["took", "num"], ["receivers"]], rules.map((each) => el("tr", {},
      el("td", {}, state(each.state)), el("td", {}, el("b", { class: "value" }, each.name), el("div", { class: "soft small" }, each.severity)),
      el("td", { class: "wrap" }, each.search ? el("a", { class: "mono value", href: href("explore", { q: each.search }) }, each.question) : el("code", { class: "value" }, each.question), each.note && el("div", { class: "error-text small value" }, each.note)),
      el("td", { class: "num", title: fullTime(ms(each.asked)) }, each.asked ? relative(ms(each.asked)) : "–"), el("td", { class: "num" }, duration(each.seconds * 1000)),
      el("td", {}, each.receivers.map((to) => el("div", { class: "line small" }, el("code", { class: "value cut-cell", title: to.to }, to.to), el("span", { class: "soft" }, `${count(to.delivered)} told`), to.waiting > 0 && el("span", { class: "warn-text" }, `${to.waiting} waiting`), to.error && el("span", { class: "error-text value" }, to.error))))))),
    el("h2", {}, "Silences"),
    active.length ? table("Silences", [["matches"], ["until", "num"], ["why"], [""]], active.map((each) => el("tr", {}, el("td", {}, each.matchers.map((text) => el("span", { class: "chip value" }, text))), el("td", { class: "num", title: fullTime(ms(each.end)) }, relative(ms(each.end))), el("td", { class: "value wrap" }, each.comment, el("span", { class: "soft small" }, ` ${each.author}`)),
      el("td", {}, may && el("button", { onclick: async (event) => { event.target.disabled = true; try { await change("alerts/unsilence", { id: each.id }); } catch (error) { say(error.message); } block.refresh(); } }, "End"))))) : command("lakelog alerts silence rule=errors --for 2h -m 'new disks'"),
    el("h2", {}, "What changed, and who was told"),
    changes.length ? table("Changes", [["time", "num"], ["what"], ["rule"], ["labels"]], changes.slice(0, 100).map((each) => el("tr", {},
      el("td", { class: "num", title: fullTime(ms(each.time)) }, relative(ms(each.time))), el("td", {}, each.event === "change" ? state(each.state) : el("span", { class: "soft value" }, `${each.outcome || "told"}: ${each.to || each.sink || ""}`)), el("td", { class: "value" }, each.rule), el("td", {}, each.labels && labels(each.labels))))) : el("p", { class: "soft" }, "Nothing has fired yet."));
}

function silenceForm(alert, block) {
  const matchers = el("input", { "aria-label": "Matchers", value: [`rule=${alert.rule}`, ...Object.entries(alert.labels).filter(([name]) => !["rule", "severity"].includes(name)).map(([name, value]) => `${name}=${value}`)].join(", ") });
  const span = el("select", { "aria-label": "For" }, ["1h", "4h", "1d", "7d"].map((text) => el("option", { value: text }, text)));
  const comment = el("input", { "aria-label": "Why", placeholder: "why, for others" });
  const note = el("div", {});
  openPanel(`Silence ${alert.rule}`, el("form", { class: "form", onsubmit: async (event) => {
    event.preventDefault();
    try { await change("alerts/silence", { matchers: matchers.value.split(",").map((text) => text.trim()).filter(Boolean), for: span.value, comment: comment.value }); say("Silenced"); closePanel(); block.refresh(); } catch (error) { fill(note, fault(error)); }
  } }, el("p", { class: "soft" }, "Nobody is told of an alert whose labels match, until it ends."), el("label", {}, "Labels, joined by commas", matchers), el("label", {}, "For", span), el("label", {}, "Why", comment), note, el("button", { class: "primary" }, "Silence")));
}
