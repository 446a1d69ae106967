// Completions below a field: arrows choose, Tab or Enter takes one, Esc closes.

import { el, fill } from "./dom.js";

const SHOWN = 12;
let number = 0;

/** Offer completions in `input`. `matches(text before the cursor)` gives [begin of what is replaced,
 *  names]; `place(list)` puts the list where it belongs; with `enter`, Enter takes a choice. */
export function suggest(input, { matches, place, enter = false }) {
  const list = el("ul", { class: "suggest", role: "listbox", id: `suggest-${++number}`, "aria-label": "Completions", hidden: true });
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", list.id);
  input.setAttribute("aria-expanded", "false");
  let names = [], begin = 0, picked = -1, turn = 0;

  const hide = () => { turn++; names = []; list.hidden = true; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
  const draw = () => {
    fill(list, names.map((name, index) => el("li", { role: "option", id: `${list.id}-${index}`, "aria-selected": String(index === picked), onpointerdown: (event) => { event.preventDefault(); picked = index; take(); } }, el("span", { class: "value" }, name))));
    if (picked >= 0) input.setAttribute("aria-activedescendant", `${list.id}-${picked}`);
    list.children[picked]?.scrollIntoView({ block: "nearest" });
  };
  function take() {
    input.setRangeText(names[Math.max(0, picked)], begin, input.selectionStart, "end");
    hide();
    input.focus();
    offer();
  }
  async function offer() {
    const mine = ++turn, before = input.value.slice(0, input.selectionStart);
    const [start, all] = await matches(before);
    if (mine !== turn) return;
    names = all.slice(0, SHOWN);
    if (!names.length || document.activeElement !== input) { hide(); return; }
    begin = start;
    picked = enter ? -1 : 0;
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    place?.(list);
    draw();
  }
  input.addEventListener("input", offer);
  input.addEventListener("blur", hide);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Tab" && !event.shiftKey) take();
    else if (event.key === "Enter" && enter && picked >= 0) take();
    else if (event.key === "ArrowDown") { picked = (picked + 1) % names.length; draw(); }
    else if (event.key === "ArrowUp") { picked = (picked + names.length - 1 + (picked < 0)) % names.length; draw(); }
    else if (event.key === "Escape") { hide(); event.stopPropagation(); }
    else return;
    event.preventDefault();
  });
  return { list, hide };
}
