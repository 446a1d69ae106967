"""Redaction of personal data and secrets, executed by the engine as SQL.

Every text column of a row is searched, nested columns and JSON as JSON, so that the result still
parses. Only values that match a cheap hint are examined. A match is replaced where its checksum
holds: by `<EMAIL>`, or with `pseudonym` by `<EMAIL:16 letters>`, where the letters are
HMAC-SHA-256 of the match in lower case, so equal values get equal pseudonyms and joins survive.
Replacements are counted by kind; the originals are never stored.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lakelog.errors import ExportRefused
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.train import scratch
from lakelog.train.patterns import KINDS, Kind, RedactionRule, names
from lakelog.train.recipe import Recipe
from lakelog.train.selection import quoted, text_of
from lakelog.workers import WorkerPool

# Patterns look for word boundaries, and in JSON text the n of \n touches the next word.
# Noncharacters stand for the escapes meanwhile, since no ordinary text contains them.
_ESCAPES = {
    "\\\\": "\ufdd0",
    '\\"': "\ufdd1",
    "\\n": "\ufdd2",
    "\\r": "\ufdd3",
    "\\t": "\ufdd4",
    "\\/": "\ufdd5",
    "\\b": "\ufdd6",
    "\\f": "\ufdd7",
    # In JSON within JSON, at any depth: what is left of it behind an escaped backslash.
    "\ufdd0n": "\ufdd8",
    "\ufdd0r": "\ufdd9",
    "\ufdd0t": "\ufdda",
    "\ufdd0b": "\ufddb",
    "\ufdd0f": "\ufddc",
}
"""JSON escapes and the noncharacters that stand for them while patterns look for word ends. A text
that is not JSON may have some of it."""
_WORD_END = r"(?:\b|\\[nrtbf])"
"""A word's end in a text that still has its escapes."""
_UNICODE = r"\\u00[2-7]"
# The list of names is a Bloom filter: a BIT value of 512 KB that a lambda in SQL can test.
_BITS = 1 << 22
_SEEDS = (b"a", b"b")
Cleaned = tuple["pa.Table", dict[str, int]]
_MARK = "|".join(entry.mark for entry in KINDS.values())
_BARE = rf"([:\[,]\s*)-?(<(?:{_MARK})(?::[a-p]{{16}})?>)(\s*[,}}\]])"


@dataclass(frozen=True)
class TextColumn:
    """A column to be searched: its name, its type, and whether its text is JSON."""

    name: str
    type: str
    json: bool
    nested: bool

    @property
    def text(self) -> str:
        """The column as text, in SQL."""
        return f"to_json({quoted(self.name)})::VARCHAR" if self.nested else quoted(self.name)

    def back(self, cell: str) -> str:
        """SQL that converts the text back to the type of the column."""
        return f"({cell})::JSON::{self.type}" if self.nested else cell


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
    """Return a fingerprint that distinguishes keys and reveals none."""
    return hmac.digest(key, b"lakelog key check", "sha256").hex()[:16] if key else ""


def text_columns(types: dict[str, str], json: tuple[str, ...] = ("data",)) -> list[TextColumn]:
    """Return the columns that hold text, of all columns by name and type.

    `json` names columns whose text is JSON though their type does not say so.
    """
    text_columns = []
    for name, dtype in types.items():
        nested = ("VARCHAR" in dtype or "JSON" in dtype) and dtype not in ("VARCHAR", "JSON")
        if name.startswith("__") or not (nested or dtype in ("VARCHAR", "JSON")):
            continue
        # The values of an ENUM are fixed by its type, not written by people.
        if dtype.startswith("ENUM"):
            continue
        text_columns.append(
            TextColumn(name, dtype, nested or dtype == "JSON" or name in json, nested)
        )
    return text_columns


def with_hints(sql: str, columns: list[TextColumn], kinds: list[str]) -> str:
    """Return SQL with a column `__h0`, `__h1`, ... for each: whether it may hold something."""
    hints = "|".join(f"(?:{KINDS[name].hint})" for name in KINDS if name in kinds)
    escaped = hints.replace(r"\b", _WORD_END)
    flags = [
        # Few texts have escapes, and a look for words behind them takes twice as long.
        f"CASE WHEN contains({c.text}, '\\') THEN"
        # JSON may hide an @ as \u0040, so such escapes are a hint of their own.
        f" regexp_matches({c.text}, {text_of(escaped + ('|' + _UNICODE if c.json else ''))})"
        # One alternation of all hints per column, evaluated in the scan of the lake.
        f" ELSE regexp_matches({c.text}, {text_of(hints)}) END AS __h{place}"
        for place, c in enumerate(columns)
    ]
    return f"SELECT *, {', '.join(flags)} FROM ({sql})" if flags else sql


def unescape(batch: pa.RecordBatch, columns: list[TextColumn]) -> pa.RecordBatch:
    """Return a batch whose JSON has plain characters for escapes such as `\\u0040`."""
    for column in columns:
        place = batch.schema.get_field_index(column.name)
        values = batch.column(place)
        # `to_json` of a nested column writes plain characters.
        if column.nested or not column.json or not pa.types.is_string(values.type):
            continue
        if pc.any(pc.match_substring(values, "\\u00")).as_py():
            unescaped = [_plain(v) if v and "\\u00" in v else v for v in values.to_pylist()]
            batch = batch.set_column(
                place, batch.schema.field(place), pa.array(unescaped, pa.string())
            )
    return batch


def _plain(json_text: str) -> str:
    def decode(match: re.Match[str]) -> str:
        char = chr(int(match[2], 16))
        # A decoded quote or backslash would break the JSON.
        return match[0] if char in '"\\\x7f' else match[1] + char

    return re.sub(r"(?<!\\)((?:\\\\)*)\\u00([2-7][0-9a-fA-F])", decode, json_text)


@dataclass(frozen=True)
class Cleaning:
    """How the texts of some columns are cleaned, for whichever process does it."""

    columns: tuple[TextColumn, ...]
    kinds: tuple[str, ...]
    is_keyed: bool
    key: bytes = field(repr=False)

    def texts(self, connection: duckdb.DuckDBPyConnection, hits: pa.RecordBatch) -> Cleaned:
        """Return the columns with their finds replaced, and the counts of these by kind."""
        step = max(-(-hits.num_rows // 8), 2048)  # pieces for the engine's threads
        slices = [hits.slice(start, step) for start in range(0, hits.num_rows, step)]
        connection.register("hits", pa.Table.from_batches(slices))
        table = connection.sql(cleaning_sql("SELECT * FROM hits", self)).to_arrow_table()
        counts = {name: int(np.sum(table[f"__n_{name}"].to_numpy())) for name in self.kinds}
        return table.select([column.name for column in self.columns]).combine_chunks(), counts


def _clean(cleaning: Cleaning, hits: pa.RecordBatch) -> Cleaned:
    """Clean texts in a process that does tasks."""
    return cleaning.texts(_engine(cleaning.kinds, cleaning.key), hits)


@functools.lru_cache(1)
def _engine(kinds: tuple[str, ...], key: bytes) -> duckdb.DuckDBPyConnection:
    # Text that is not redacted yet is in memory alone.
    connection = scratch.connect(threads=1)
    set_variables(connection, kinds, key)
    return connection


class Cleaner:
    """Redacts a stream of rows; only rows with a hint are examined. See `counts`."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        types: dict[str, str],
        columns: list[TextColumn],
        recipe: Recipe,
        key: bytes,
        pool: WorkerPool | None = None,
    ) -> None:
        kinds = recipe.redact["kinds"]
        self._connection, self._columns, self._names = connection, columns, list(types)
        self._pool = pool
        self.counts: dict[str, int] = dict.fromkeys(kinds, 0)
        self._deep = bool(recipe.redact["deep"] and kinds)
        if self._deep:
            self.counts["deep"] = 0
        is_keyed = recipe.redact["mode"] == "pseudonym"
        self._cleaning = Cleaning((*columns,), (*kinds,), is_keyed, key)
        if columns and pool is None:
            set_variables(connection, kinds, key)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The columns that come out: those without the hints."""
        return pa.schema([schema.field(name) for name in self._names])

    def batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """Yield the rows, cleaned, in their order."""
        # In ordinary logs few rows have a hint; the others are never sent through the SQL.
        pending = deque[tuple[pa.RecordBatch, Any]]()

        def tasks() -> Iterator[tuple[Cleaning, pa.RecordBatch]]:
            for batch in reader:
                hints = [self._hints(batch, place) for place in range(len(self._columns))]
                flags = np.logical_or.reduce([np.zeros(batch.num_rows, bool), *hints])
                pending.append((batch, flags))
                places = [place for place, hint in enumerate(hints) if hint.any()]
                if places:
                    yield self._task(batch, flags, places)

        for cleaned in self._cleaned(tasks()):
            yield from self._without_hits(pending)
            yield self._deep_cleaned(self._joined(*pending.popleft(), *cleaned))
        yield from self._without_hits(pending)

    def _hints(self, batch: pa.RecordBatch, place: int) -> Any:
        hints = batch.column(batch.schema.get_field_index(f"__h{place}"))
        return np.asarray(hints.fill_null(False).to_numpy(zero_copy_only=False), bool)

    def _task(
        self, batch: pa.RecordBatch, flags: Any, places: list[int]
    ) -> tuple[Cleaning, pa.RecordBatch]:
        """The texts of rows with a hint, of the columns that have one: others need not travel."""
        columns = tuple(self._columns[place] for place in places)
        names = [name for p in places for name in (self._columns[p].name, f"__h{p}")]
        hits = batch.select(names).filter(pa.array(flags))
        hits = hits.rename_columns(
            [name for place, c in enumerate(columns) for name in (c.name, f"__h{place}")]
        )
        return replace(self._cleaning, columns=columns), unescape(hits, [*columns])

    def _cleaned(self, tasks: Iterator[tuple[Cleaning, pa.RecordBatch]]) -> Iterator[Cleaned]:
        if self._pool is not None:
            return self._pool.results(_clean, tasks)
        return (cleaning.texts(self._connection, hits) for cleaning, hits in tasks)

    def _without_hits(self, pending: deque[tuple[pa.RecordBatch, Any]]) -> Iterator[pa.RecordBatch]:
        while pending and not pending[0][1].any():
            yield self._deep_cleaned(pending.popleft()[0].select(self._names))

    def _deep_cleaned(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for column in self._columns if self._deep else ():
            # The library replaces text without regard to JSON syntax.
            if not column.json:
                place = batch.schema.get_field_index(column.name)
                scanned, changed = _datafog_column(batch.column(place))
                batch = batch.set_column(place, batch.schema.field(place), scanned)
                self.counts["deep"] += changed
        return batch

    def _joined(
        self, batch: pa.RecordBatch, flags: Any, cleaned: pa.Table, counts: dict[str, int]
    ) -> pa.RecordBatch:
        for target, count in counts.items():
            self.counts[target] += count
        # Cleaned rows are put back by one `take` over old and new values, which keeps the order
        # without sorting.
        places = np.arange(batch.num_rows)
        places[flags] = batch.num_rows + np.arange(cleaned.num_rows)
        columns = {name: batch.column(batch.schema.get_field_index(name)) for name in self._names}
        for name in cleaned.column_names:
            old = columns[name]
            new = cleaned[name].combine_chunks().cast(old.type)
            columns[name] = pa.concat_arrays([old, new]).take(pa.array(places))
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=self.schema(batch.schema))


def set_variables(connection: duckdb.DuckDBPyConnection, kinds: Sequence[str], key: bytes) -> None:
    """Set the variables that the SQL of `cleaning_sql` reads: the key and the names."""
    # The padded keys of HMAC (RFC 2104). They are variables and not literals, so that the key
    # appears in no query text or error message.
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    pads = [bytes(b ^ pad for b in block) for pad in (0x36, 0x5C)]
    connection.execute("SET VARIABLE lakelog_inner = $k", {"k": pads[0]})
    connection.execute("SET VARIABLE lakelog_outer = $k", {"k": pads[1]})
    if "name" in kinds:
        connection.execute(f"SET VARIABLE lakelog_names = {text_of(_name_bits())}::BIT")


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


def cleaning_sql(sql: str, cleaning: Cleaning) -> str:
    """Return SQL of the same columns with finds replaced, and counts `__n_email`, ... of a row."""
    kinds = [KINDS[name] for name in KINDS if name in cleaning.kinds]
    columns, keyed = cleaning.columns, cleaning.is_keyed
    places = range(len(columns))
    # Step 1: unescape, and only in columns whose hint matched; a null skips all the following
    # steps.
    unescaped = [
        f"CASE WHEN __h{i} THEN {_unescaped_sql(c)} END AS __x{i}, true AS __k{i}"
        for i, c in enumerate(columns)
    ]
    query = f"SELECT *, {', '.join(unescaped)} FROM ({sql})"
    for target in kinds:
        # Most texts have no hint of a kind: one look spares them those for each of its rules.
        hint = text_of(target.hint) if len(target.rules) > 1 else None
        looks = [
            f"{f'regexp_matches(__x{i}, {hint})' if hint else 'true'} AS __k{i}" for i in places
        ]
        query = f"SELECT * REPLACE ({', '.join(looks)}) FROM ({query})"
        # Kinds run from the most to the least certain, each on the output of the one before: an
        # address inside a URL that is a key is gone before `email` looks.
        for rule in target.rules:
            steps = (f"{_step(i, target, rule, keyed)} AS __x{i}" for i in places)
            query = f"SELECT * REPLACE ({', '.join(steps)}) FROM ({query})"
    # Escapes are restored only after all kinds, since every rule relies on the placeholders.
    closed = ", ".join(f"{_escaped_sql(f'__x{i}', c)} AS __x{i}" for i, c in enumerate(columns))
    query = f"SELECT * REPLACE ({closed}) FROM ({query})"
    outputs = [
        # Values without a find are taken from the input, so that they keep their exact bytes.
        f"CASE WHEN __x{i} IS NULL OR __x{i} = {c.text} THEN {quoted(c.name)}"
        f" ELSE {c.back(f'__x{i}')} END AS {quoted(c.name)}"
        for i, c in enumerate(columns)
    ]
    counts = [
        f"({' + '.join(_count(target, f'__x{i}', columns[i]) for i in places)})::BIGINT"
        f" AS __n_{target.name}"
        for target in kinds
    ]
    return f"SELECT {', '.join([*outputs, *counts])} FROM ({query})"


def _unescaped_sql(column: TextColumn) -> str:
    """The text with JSON escapes replaced by characters that belong to no word."""
    replaced = column.text
    for escape, char in _ESCAPES.items():
        replaced = f"replace({replaced}, {text_of(escape)}, '{char}')"
    return f"CASE WHEN contains({column.text}, '\\') THEN {replaced} ELSE {column.text} END"


def _escaped_sql(cell: str, column: TextColumn) -> str:
    """The text with its escapes restored; a number in JSON that became a mark is quoted."""
    restored = cell
    for escape, char in reversed(_ESCAPES.items()):
        restored = f"replace({restored}, '{char}', {text_of(escape)})"
    restored = f"CASE WHEN contains({column.text}, '\\') THEN {restored} ELSE {cell} END"
    if not column.json:
        return restored
    restored = f"CASE WHEN {cell} = {_unescaped_sql(column)} THEN {column.text} ELSE {restored} END"
    # A number in JSON that became <CARD> has no quotes. They are added only if the text does not
    # parse without them; the last resort is a JSON string of the whole text.
    marked = f"regexp_replace({restored}, {text_of(_BARE)}, '\\1\"\\2\"\\3', 'g')"
    return (
        f"CASE WHEN {cell} IS NULL THEN NULL WHEN json_valid({restored}) THEN {restored}"
        f" WHEN json_valid({marked}) THEN {marked} ELSE to_json({restored})::VARCHAR END"
    )


def _step(place: int, target: Kind, rule: RedactionRule, keyed: bool) -> str:
    """Replace the finds of one rule in the text of a column, where its hint matches."""
    cell = f"__x{place}"
    pattern = text_of(rule.pattern)
    if target.name == "name":
        # Every capitalized word matches the pattern, so texts without a known name are ruled out
        # before they are split.
        holds = _is_name("m")
        has_names = (
            f"len(list_filter(regexp_extract_all({cell}, {pattern}), lambda m: {holds})) > 0"
        )
        guard = f"regexp_matches({cell}, {pattern}) AND {has_names}"
    else:
        holds, guard = rule.holds, f"regexp_matches({cell}, {text_of(rule.hint)})"
    plain = rule.holds == "true" and not (rule.keeps or rule.tail or keyed or target.name == "name")
    # A rule without conditions needs no lambda.
    if plain:
        body = f"regexp_replace({cell}, {pattern}, '<{target.mark}>', 'g')"
    else:
        change = f"CASE WHEN {holds} THEN {_replacement(target, rule, keyed)} ELSE m END"
        if rule.keeps:  # `h` is bound by a lambda of its own, so that it is extracted once
            head = f"regexp_extract(m, {text_of(f'^(?:{rule.keeps})')})"
            change = f"list_transform([{head}], lambda h: {change})[1]"
        # The text is cut at the matches and zipped with them: DuckDB's regexp_replace cannot call a
        # function per match.
        body = (
            f"array_to_string(list_transform(list_zip(regexp_split_to_array({cell}, {pattern}),"
            f" regexp_extract_all({cell}, {pattern})), lambda z: z[1] || coalesce("
            f"list_transform([z[2]], lambda m: CASE WHEN m IS NULL THEN '' ELSE {change}"
            " END)[1], '')), '')"
        )
    return f"CASE WHEN __k{place} AND {cell} IS NOT NULL AND {guard} THEN {body} ELSE {cell} END"


def _replacement(target: Kind, rule: RedactionRule, keyed: bool) -> str:
    """SQL of what stands in the place of a find `m` whose head `h` is kept."""
    head = "h" if rule.keeps else "''"
    tail = f"regexp_extract(m, {text_of(f'(?:{rule.tail})$')})" if rule.tail else "''"
    value = f"substr(m, len({head}) + 1, len(m) - len({head}) - len({tail}))"
    if not (rule.keeps or rule.tail):
        value = "m"
    if not keyed:
        return f"{head} || '<{target.mark}>' || {tail}"
    # HMAC-SHA-256 in SQL. The kind is part of the message, so equal strings of two kinds get
    # different pseudonyms; lower case, so that joins survive changes of case.
    inner = f"sha256(getvariable('lakelog_inner') || encode('{target.name}:' || lower({value})))"
    digest = f"sha256(getvariable('lakelog_outer') || unhex({inner}))"
    # Letters only, so that no later rule takes a pseudonym for a phone or card number.
    letters = f"translate(substr({digest}, 1, 16), '0123456789abcdef', 'abcdefghijklmnop')"
    return f"{head} || '<{target.mark}:' || {letters} || '>' || {tail}"


def _count(target: Kind, cell: str, column: TextColumn) -> str:
    """The number of marks of a kind that redaction added to a text."""
    mark = f"<{target.mark}"

    def marks(value: str) -> str:
        return f"(len({value}) - len(replace({value}, '{mark}', ''))) // {len(mark)}"

    # A text may contain <EMAIL> from an earlier redaction, which must not be counted again.
    changed = f"{cell} IS NULL OR {cell} = {column.text}"
    return f"CASE WHEN {changed} THEN 0 ELSE {marks(cell)} - {marks(column.text)} END"


def _datafog_column(column: Any) -> tuple[Any, int]:
    """Let the library datafog look at a text column; return it, and how many texts it changed."""
    # Each distinct text is scanned once, since log messages repeat.
    coded = column.dictionary_encode()
    distinct = coded.dictionary.to_pylist()
    cleaned = [_datafog_text(value) for value in distinct]
    changed = sum(before != after for before, after in zip(distinct, cleaned, strict=True))
    plain = pa.DictionaryArray.from_arrays(coded.indices, pa.array(cleaned, column.type))
    return plain.cast(column.type), changed


def _datafog_text(value: str) -> str:
    # An extra; it was looked for before anything was read.
    from datafog import redact  # type: ignore[import-not-found]

    return str(redact(value).redacted_text) if value else value
