// Patterns: a place for what the events have in common, and what is learned from them.

import { empty } from "../dom.js";

export function mount(root) {
  root.append(empty("Patterns", "What events have in common, and what is unusual, will stand here. Until then, near duplicates are found on the command line, and Explore shows the most frequent values of any field.", "lakelog dedupe --by message --show similar"));
  return {};
}
