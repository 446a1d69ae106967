// Terms of the search language, made from values.

/** A value as the language takes it whole. */
export const quoted = (value) => `"${String(value).replace(/["\\]/g, "\\$&")}"`;

const SIMPLE = /^[A-Za-z_][\w@-]*(\.[A-Za-z_\d][\w@-]*)*$/;

/** Whether the language can name a member by its path. */
export const isNameable = (path) => path.every((name) => /^[\w@-]+$/.test(name)) && SIMPLE.test(path.join("."));

/** The term that finds events with a value of a field. */
export function term(path, value, out = false) {
  const sign = out ? "-" : "";
  if (!isNameable(path)) return `${sign}${quoted(value)}`;
  const name = path.join(".");
  if (value === null || value === undefined) return `${out ? "" : "-"}${name}:*`;
  return `${sign}${name}:=${quoted(value)}`;
}

/** A search with one more term. */
export function withTerm(search, added) {
  const text = search.trim();
  if (text.includes(added)) return text;
  const opposite = added.startsWith("-") ? added.slice(1) : `-${added}`;
  const kept = text.split(opposite).join(" ").replace(/\s+/g, " ").trim();
  if (!kept || kept === "*") return added;
  return / OR /.test(kept) && !/^\(.*\)$/s.test(kept) ? `(${kept}) ${added}` : `${kept} ${added}`;
}
