// Alerts: rules over the events, and what they found.

import { empty } from "../dom.js";

export function mount(root) {
  root.append(empty("Alerts", "Rules that look at the events as they arrive, and whom they tell, will stand here. Until then a program can be run for each event that matters.", "lakelog search 'level>=ERROR' -f", "lakelog subscribe pager --where \"level = 'FATAL'\" -- ./page-me"));
  return {};
}
