// A box that opens below a button, one at a time.

import { fill, el } from "./dom.js";

let open = null;

/** Open a box below a button, or close it if it is open. */
export function togglePop(button, make, label) {
  if (open?.button === button) return closePop();
  closePop();
  const box = el("div", { class: "pop", role: "dialog", "aria-label": label });
  fill(box, make());
  document.body.append(box);
  const place = button.getBoundingClientRect();
  const left = Math.max(8, Math.min(place.left, innerWidth - box.offsetWidth - 8));
  box.style.left = `${left}px`;
  box.style.top = `${Math.min(place.bottom + 4, Math.max(8, innerHeight - box.offsetHeight - 8))}px`;
  button.setAttribute("aria-expanded", "true");
  open = { box, button };
  box.querySelector("input, button, select")?.focus();
  return true;
}

/** Close what is open; whether there was something. */
export function closePop() {
  if (!open) return false;
  const { box, button } = open;
  open = null;
  const hadFocus = box.contains(document.activeElement);
  box.remove();
  button.setAttribute("aria-expanded", "false");
  if (hadFocus) button.focus();
  return true;
}

document.addEventListener("pointerdown", (event) => {
  if (open && !open.box.contains(event.target) && !open.button.contains(event.target)) closePop();
});
