"""Taking personal data and secrets out, inside the engine.

Every text column of a row is searched, nested ones and JSON as JSON, so that what comes out parses
as before. Only values whose hint matches are looked at closely. A find is cut out where its
checksum holds; in its place stands `<EMAIL>`, or `<EMAIL:16 letters>` with `pseudonym`: the letters
are HMAC-SHA-256 of the find in lower case, so equal finds get equal pseudonyms and joins survive.
What was replaced is counted by kind and never kept.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import ExportRefused
from lakelog.lazy import Lazy
from lakelog.train.patterns import KINDS, Kind, Rule, names
from lakelog.train.recipe import Recipe
from lakelog.train.selection import quoted, text_of

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")
    np = Lazy("numpy")

_ESCAPES = {
    "\\\\": "\ufdd0",
    '\\"': "\ufdd1",
    "\\n": "\ufdd2",
    "\\r": "\ufdd3",
    "\\t": "\ufdd4",
    "\\/": "\ufdd5",
    "\\b": "\ufdd6",
    "\\f": "\ufdd7",
}
"""JSON escapes and the noncharacters that stand for them while patterns look for word ends."""
_UNICODE = r"\\u00[2-7]"
_BITS = 1 << 22
_SEEDS = (b"a", b"b")
_MARK = "|".join(kind.mark for kind in KINDS.values())
_BARE = rf"([:\[,]\s*)-?(<(?:{_MARK})(?::[a-p]{{16}})?>)(\s*[,}}\]])"


@dataclass(frozen=True)
class Column:
    """A column to be searched: its name, its type, and whether its text is JSON."""

    name: str
    type: str
    json: bool
    nested: bool

    @property
    def text(self) -> str:
        """The column as text, in SQL."""
        return f"to_json({quoted(self.name)})::VARCHAR" if self.nested else quoted(self.name)

    def back(self, text: str) -> str:
        """SQL for the column made of its text again."""
        return f"({text})::JSON::{self.type}" if self.nested else text


def key_of(recipe: Recipe) -> bytes:
    """Return the key of pseudonyms. Raises ExportRefused if the variable is not set."""
    if recipe.redact["mode"] != "pseudonym" or not recipe.redact["kinds"]:
        return b""
    name = recipe.redact["key_env"]
    key = os.environ.get(name, "").encode()
    if not key:
        raise ExportRefused(f"[redact] key_env: the variable {name} is not set; export a key in it")
    return key


def fingerprint(key: bytes) -> str:
    """Return what tells two keys apart and reveals neither."""
    return hmac.digest(key, b"lakelog key check", "sha256").hex()[:16] if key else ""


def columns(types: dict[str, str], json: tuple[str, ...] = ("data",)) -> list[Column]:
    """Return the columns that hold text, of all columns by name and type.

    `json` names columns whose text is JSON though their type does not say so.
    """
    found = []
    for name, kind in types.items():
        nested = ("VARCHAR" in kind or "JSON" in kind) and kind not in ("VARCHAR", "JSON")
        if name.startswith("__") or not (nested or kind in ("VARCHAR", "JSON")):
            continue
        if kind.startswith("ENUM"):
            continue
        found.append(Column(name, kind, nested or kind == "JSON" or name in json, nested))
    return found


def hinted(sql: str, found: list[Column], kinds: list[str]) -> str:
    """Return SQL with a column `__h0`, `__h1`, ... for each: whether it may hold something."""
    hints = "|".join(f"(?:{KINDS[kind].hint})" for kind in KINDS if kind in kinds)
    flags = [
        f"regexp_matches({c.text}, {text_of(hints + ('|' + _UNICODE if c.json else ''))})"
        f" AS __h{place}"
        for place, c in enumerate(found)
    ]
    return f"SELECT *, {', '.join(flags)} FROM ({sql})" if flags else sql


def without_escapes(batch: pa.RecordBatch, found: list[Column]) -> pa.RecordBatch:
    """Return a batch whose JSON has plain characters for escapes such as `\\u0040`."""
    for column in found:
        place = batch.schema.get_field_index(column.name)
        values = batch.column(place)
        if column.nested or not column.json or not pa.types.is_string(values.type):
            continue
        if pc.any(pc.match_substring(values, "\\u00")).as_py():
            made = [_plain(v) if v and "\\u00" in v else v for v in values.to_pylist()]
            batch = batch.set_column(place, batch.schema.field(place), pa.array(made, pa.string()))
    return batch


def _plain(text: str) -> str:
    def decoded(match: re.Match[str]) -> str:
        char = chr(int(match[2], 16))
        return match[0] if char in '"\\\x7f' else match[1] + char

    return re.sub(r"(?<!\\)((?:\\\\)*)\\u00([2-7][0-9a-fA-F])", decoded, text)


class Cleaner:
    """Replaces finds in a stream of rows; only rows with a hint are looked at. See `counts`."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        types: dict[str, str],
        found: list[Column],
        recipe: Recipe,
        key: bytes,
    ) -> None:
        kinds = recipe.redact["kinds"]
        self._connection, self._found, self._names = connection, found, list(types)
        self._kinds = kinds
        self.counts: dict[str, int] = dict.fromkeys(kinds, 0)
        self._deep = bool(recipe.redact["deep"] and kinds)
        if self._deep:
            self.counts["deep"] = 0
        if found:
            arm(connection, kinds, key)
            self._sql = cleaned("SELECT * FROM hits", types, found, recipe)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The columns that come out: those without the hints."""
        return pa.schema([schema.field(name) for name in self._names])

    def batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """Yield the rows, cleaned, in their order."""
        for batch in reader:
            flags = np.zeros(batch.num_rows, bool)
            for place in range(len(self._found)):
                hints = batch.column(batch.schema.get_field_index(f"__h{place}"))
                flags |= np.asarray(hints.fill_null(False).to_numpy(zero_copy_only=False), bool)
            made = self._cleaned(batch, flags) if flags.any() else batch.select(self._names)
            yield self._looked_deeper(made) if self._deep else made

    def _looked_deeper(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for column in self._found:
            if not column.json:
                place = batch.schema.get_field_index(column.name)
                made, changed = _deeper(batch.column(place))
                batch = batch.set_column(place, batch.schema.field(place), made)
                self.counts["deep"] += changed
        return batch

    def _cleaned(self, batch: pa.RecordBatch, flags: Any) -> pa.RecordBatch:
        hits = without_escapes(batch.filter(pa.array(flags)), self._found)
        step = max(-(-hits.num_rows // 8), 2048)  # pieces for the engine's threads
        pieces = [hits.slice(at, step) for at in range(0, hits.num_rows, step)]
        self._connection.register("hits", pa.Table.from_batches(pieces))
        made = self._connection.sql(self._sql).to_arrow_table().combine_chunks()
        for kind in self._kinds:
            self.counts[kind] += int(np.sum(made[f"__n_{kind}"].to_numpy()))
        places = np.arange(batch.num_rows)
        places[flags] = batch.num_rows + np.arange(hits.num_rows)
        columns = {name: batch.column(batch.schema.get_field_index(name)) for name in self._names}
        for column in self._found:
            old = columns[column.name]
            new = made[column.name].combine_chunks().cast(old.type)
            columns[column.name] = pa.concat_arrays([old, new]).take(pa.array(places))
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=self.schema(batch.schema))


def arm(connection: duckdb.DuckDBPyConnection, kinds: list[str], key: bytes) -> None:
    """Give a connection what the SQL of `cleaned` needs: the key and the names."""
    pads = [bytes(b ^ pad for b in _block(key)) for pad in (0x36, 0x5C)]
    connection.execute("SET VARIABLE lakelog_inner = $k", {"k": pads[0]})
    connection.execute("SET VARIABLE lakelog_outer = $k", {"k": pads[1]})
    if "name" in kinds:
        connection.execute(f"SET VARIABLE lakelog_names = {text_of(_name_bits())}::BIT")


def _block(key: bytes) -> bytes:
    return (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")


def _name_bits() -> str:
    """A set of names as bits at two places each; a word of no name has both in 1 of 30,000."""
    bits = bytearray(b"0" * _BITS)
    for name in names():
        for seed in _SEEDS:
            bits[int(hashlib.md5(seed + name.encode()).hexdigest()[:8], 16) % _BITS] = 49
    return bits.decode()


def _is_name(word: str) -> str:
    places = (
        f"get_bit(getvariable('lakelog_names'),"
        f" (('0x' || substr(md5('{seed.decode()}' || {word}), 1, 8))::BIGINT % {_BITS})::INT)"
        for seed in _SEEDS
    )
    return " = 1 AND ".join(places) + " = 1"


def cleaned(sql: str, types: dict[str, str], found: list[Column], recipe: Recipe) -> str:
    """Return SQL of the same columns with finds replaced, and counts `__n_email`, ... of a row."""
    kinds = [KINDS[name] for name in KINDS if name in recipe.redact["kinds"]]
    keyed = recipe.redact["mode"] == "pseudonym"
    places = range(len(found))
    texts = [
        f"CASE WHEN __h{i} THEN {_opened(c)} END AS __x{i}, true AS __k{i}"
        for i, c in enumerate(found)
    ]
    made = f"SELECT *, {', '.join(texts)} FROM ({sql})"
    for kind in kinds:
        # Most texts have no hint of a kind: one look spares them those for each of its rules.
        hint = text_of(kind.hint) if len(kind.rules) > 1 else None
        looks = [
            f"{f'regexp_matches(__x{i}, {hint})' if hint else 'true'} AS __k{i}" for i in places
        ]
        made = f"SELECT * REPLACE ({', '.join(looks)}) FROM ({made})"
        for rule in kind.rules:
            steps = (f"{_step(i, kind, rule, keyed)} AS __x{i}" for i in places)
            made = f"SELECT * REPLACE ({', '.join(steps)}) FROM ({made})"
    closed = ", ".join(f"{_closed(f'__x{i}', c)} AS __x{i}" for i, c in enumerate(found))
    made = f"SELECT * REPLACE ({closed}) FROM ({made})"
    by_name = {c.name: i for i, c in enumerate(found)}
    shown = [
        f"CASE WHEN __x{by_name[n]} IS NULL OR __x{by_name[n]} = {found[by_name[n]].text}"
        f" THEN {quoted(n)} ELSE {found[by_name[n]].back(f'__x{by_name[n]}')} END AS {quoted(n)}"
        if n in by_name
        else quoted(n)
        for n in types
    ]
    counts = [
        f"({' + '.join(_count(kind, f'__x{i}', found[i]) for i in places)})::BIGINT"
        f" AS __n_{kind.name}"
        for kind in kinds
    ]
    return f"SELECT {', '.join([*shown, *counts])} FROM ({made})"


def _opened(column: Column) -> str:
    """The text, JSON escapes as characters that belong to no word."""
    if not column.json:
        return column.text
    made = column.text
    for escape, char in _ESCAPES.items():
        made = f"replace({made}, {text_of(escape)}, '{char}')"
    return f"CASE WHEN contains({column.text}, '\\') THEN {made} ELSE {column.text} END"


def _closed(text: str, column: Column) -> str:
    """The text with its escapes; a number that became a mark is put in quotes."""
    if not column.json:
        return text
    made = text
    for escape, char in _ESCAPES.items():
        made = f"replace({made}, '{char}', {text_of(escape)})"
    made = f"CASE WHEN {text} = {_opened(column)} THEN {column.text} ELSE {made} END"
    marked = f"regexp_replace({made}, {text_of(_BARE)}, '\\1\"\\2\"\\3', 'g')"
    return (
        f"CASE WHEN {text} IS NULL THEN NULL WHEN json_valid({made}) THEN {made}"
        f" WHEN json_valid({marked}) THEN {marked} ELSE to_json({made})::VARCHAR END"
    )


def _step(place: int, kind: Kind, rule: Rule, keyed: bool) -> str:
    """Replace the finds of one rule in the text of a column, where its hint matches."""
    text = f"__x{place}"
    pattern = text_of(rule.pattern)
    if kind.name == "name":
        holds = _is_name("m")
        first = f"len(list_filter(regexp_extract_all({text}, {pattern}), lambda m: {holds})) > 0"
        guard = f"regexp_matches({text}, {pattern}) AND {first}"
    else:
        holds, guard = rule.holds, f"regexp_matches({text}, {text_of(rule.hint)})"
    plain = rule.holds == "true" and not (rule.keeps or rule.tail or keyed or kind.name == "name")
    if plain:
        body = f"regexp_replace({text}, {pattern}, '<{kind.mark}>', 'g')"
    else:
        change = f"CASE WHEN {holds} THEN {_replaced(kind, rule, keyed)} ELSE m END"
        if rule.keeps:  # `h` is bound by a lambda of its own, so that it is extracted once
            head = f"regexp_extract(m, {text_of(f'^(?:{rule.keeps})')})"
            change = f"list_transform([{head}], lambda h: {change})[1]"
        body = (
            f"array_to_string(list_transform(list_zip(regexp_split_to_array({text}, {pattern}),"
            f" regexp_extract_all({text}, {pattern})), lambda z: z[1] || coalesce("
            f"list_transform([z[2]], lambda m: CASE WHEN m IS NULL THEN '' ELSE {change}"
            " END)[1], '')), '')"
        )
    return f"CASE WHEN __k{place} AND {text} IS NOT NULL AND {guard} THEN {body} ELSE {text} END"


def _replaced(kind: Kind, rule: Rule, keyed: bool) -> str:
    """SQL of what stands in the place of a find `m` whose head `h` is kept."""
    head = "h" if rule.keeps else "''"
    tail = f"regexp_extract(m, {text_of(f'(?:{rule.tail})$')})" if rule.tail else "''"
    found = f"substr(m, len({head}) + 1, len(m) - len({head}) - len({tail}))"
    if not (rule.keeps or rule.tail):
        found = "m"
    if not keyed:
        return f"{head} || '<{kind.mark}>' || {tail}"
    inner = f"sha256(getvariable('lakelog_inner') || encode('{kind.name}:' || lower({found})))"
    digest = f"sha256(getvariable('lakelog_outer') || unhex({inner}))"
    letters = f"translate(substr({digest}, 1, 16), '0123456789abcdef', 'abcdefghijklmnop')"
    return f"{head} || '<{kind.mark}:' || {letters} || '>' || {tail}"


def _count(kind: Kind, text: str, column: Column) -> str:
    """How many marks of a kind a text has more than before."""
    mark = f"<{kind.mark}"

    def marks(value: str) -> str:
        return f"(len({value}) - len(replace({value}, '{mark}', ''))) // {len(mark)}"

    changed = f"{text} IS NULL OR {text} = {column.text}"
    return f"CASE WHEN {changed} THEN 0 ELSE {marks(text)} - {marks(column.text)} END"


def _deeper(column: Any) -> tuple[Any, int]:
    """Let the library datafog look at a text column; return it, and how many texts it changed."""
    coded = column.dictionary_encode()
    texts = coded.dictionary.to_pylist()
    made = [_scanned(text) for text in texts]
    changed = sum(one != two for one, two in zip(texts, made, strict=True))
    plain = pa.DictionaryArray.from_arrays(coded.indices, pa.array(made, column.type))
    return plain.cast(column.type), changed


def _scanned(text: str) -> str:
    from datafog import redact  # type: ignore[import-not-found]

    return str(redact(text).redacted_text) if text else text


def require_library() -> None:
    """Raise ExportRefused where the library of the deeper pass is not installed."""
    if importlib.util.find_spec("datafog") is None:
        raise ExportRefused(
            "[redact] deep needs the library datafog: pip install 'lakelog[redact]'"
        )
