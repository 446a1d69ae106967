// The panel at the side: one thing at a time, closed by Esc.

import { el, fill, icon } from "./dom.js";

const panel = document.getElementById("panel");
let closing = null;
let before = null;

/** Open the panel; `head` stands beside its title, `onClose` is called once. */
export function openPanel(title, body, { head = [], onClose } = {}) {
  if (panel.hidden) before = document.activeElement;
  closing = onClose || null;
  fill(panel,
    el("div", { class: "panel-head" }, el("h2", { class: "grow cut" }, title), head,
      el("button", { class: "plain", "aria-label": "Close", title: "Close (Esc)", onclick: closePanel }, icon("close"))),
    el("div", { class: "panel-body", tabindex: "0", role: "group", "aria-label": title }, body));
  panel.setAttribute("aria-label", title);
  panel.hidden = false;
}

export const isPanelOpen = () => !panel.hidden;

export function closePanel() {
  if (panel.hidden) return false;
  panel.hidden = true;
  fill(panel);
  closing?.();
  closing = null;
  if (before?.isConnected) before.focus({ preventScroll: true });
  return true;
}
