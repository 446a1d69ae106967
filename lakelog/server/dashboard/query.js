// Terms of the search language, made from values.

/** A value as the language takes it whole. */
export const quoted = (value) => `"${String(value).replace(/["\\]/g, "\\$&")}"`;

const COLUMNS = ["time", "type", "category", "source", "subject", "level", "message", "data", "id", "ingested_at", "origin", "position", "seq"];
const CUT = 300;
const TERM = /(?:"(?:[^"\\]|\\.)*"|[^\s"])+|"/gs;

/** The path of a member of a payload: a search takes the name of a column for the column. */
export const memberPath = (name) => (COLUMNS.includes(name) ? ["data", name] : [name]);

/** What a payload has at the path of a member, as the server finds it: names may have dots. */
export function memberOf(data, names) {
  if (!names.length) return data;
  if (data === null || typeof data !== "object" || Array.isArray(data)) return null;
  for (let end = 1; end <= names.length; end += 1) {
    const name = names.slice(0, end).join(".");
    const inner = Object.hasOwn(data, name) ? memberOf(data[name], names.slice(end)) : null;
    if (inner !== null) return inner;
  }
  return null;
}

const SIMPLE = /^[A-Za-z_][\w@-]*(\.[A-Za-z_\d][\w@-]*)*$/;

/** Whether the language can name a member by its path. */
export const isNameable = (path) => path.every((name) => /^[\w@.-]+$/.test(name)) && SIMPLE.test(path.join("."));

/** The term that finds events with a value of a field. */
export function term(path, value, out = false) {
  const sign = out ? "-" : "";
  if (!isNameable(path)) return `${sign}${quoted(value)}`;
  const name = path.join(".");
  if (value === null || value === undefined) return `${out ? "" : "-"}${name}:*`;
  // Of a text that a list has cut short the whole words are known.
  const text = String(value);
  if (text.endsWith("…") && [...text].length === CUT + 1) return `${sign}${name}:${quoted(text.slice(0, -1).replace(/\s+\S*$/, ""))}`;
  return `${sign}${name}:=${quoted(value)}`;
}

/** A search with one more term. */
export function withTerm(search, added) {
  const terms = search.match(TERM) || [];
  if (terms.includes(added)) return search.trim();
  const opposite = added.startsWith("-") ? added.slice(1) : `-${added}`;
  const kept = terms.filter((each) => each !== opposite).join(" ");
  if (!kept || kept === "*") return added;
  return / OR /.test(kept) && !/^\(.*\)$/s.test(kept) ? `(${kept}) ${added}` : `${kept} ${added}`;
}
