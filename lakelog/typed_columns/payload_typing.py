"""Payloads into structs and back, by the engine, a row group at a time.

A payload becomes a struct if the text that the struct gives back is the payload's, byte for byte.
Where segments are merged whose payloads are structs already, these are passed on as they are.
A group of segments that are merged gets one schema: that of a typed neighbour where it fits nearly
all of the rows, so that a lake has few, and otherwise one inferred from a sample.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lakelog import arrays, column_encodings, sql
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.typed_columns.field_inference import infer
from lakelog.typed_columns.schema import COLUMN, SCALARS, Member, Schema

TEXT_MAX = 65_536
"""Longer payloads, in bytes, stay text: the engine takes 2,048 rows at once, several times over."""
_BYTES, _VECTOR = 4_000_000, 2_048
"""Bytes of rows that the engine takes at once, if they are less than its 2,048 rows."""
_PROVED, _SEEN, _ROUNDS = 8_192, 2_048, 3
"""A schema is proved on so many payloads, inferred from so many of them, and so many times."""
_SAMPLE_BYTES, _LEAST_PROVED = 16_000_000, 128
"""So many bytes of payloads are proved before the rest, and at least so many payloads."""
_ENOUGH, _LEAST, _SLACK = 0.98, 0.1, 0.02
"""The part of the rows that a schema has to fit so that no other is looked for, and so that it is
used; and what counts as no difference."""
_TRIED = 2_048
"""So many payloads tell whether a schema that fitted others fits these too."""


@dataclass(frozen=True)
class FieldColumns:
    """How the payloads of a segment are stored: their schema, and the leaves' encodings."""

    schema: Schema
    dictionary: list[str]
    """Paths of the leaves of few values, which get dictionary pages."""
    encodings: dict[str, str]
    """Parquet's encodings of the others, by path."""

    @classmethod
    def of_sample(cls, schema: Schema, structs: pa.StructArray, scale: float) -> FieldColumns:
        """Return how structs are stored, by those of a sample of the rows, of which there are
        `scale` times as many."""
        leaves = _leaves(COLUMN, structs)
        columns = [(path, column_encodings.choose(values, scale)) for path, values in leaves]
        # Where names have dots, two leaves may have one path: they get what suits every type.
        paths = Counter(path for path, _ in columns)
        encoding_by_path = {p: e for p, e in columns if e and paths[p] == 1}
        dictionary = [p for p, _ in columns if p not in encoding_by_path]
        return cls(schema, dictionary, encoding_by_path)


@dataclass(frozen=True)
class _Trial:
    """A schema on a sample: the structs, and the part of the rows that it fits."""

    schema: Schema
    structs: pa.StructArray
    masks: pa.Array
    share: float


class PayloadTyping:
    """Chooses schemas for the groups of one run of compaction, and converts their payloads."""

    @dataclass
    class Learnt:
        """The schemas of the groups of a run: the last one, the part of the rows that each fitted
        when it was the best that was found, and how it is stored."""

        latest: Schema | None = None
        shares: dict[str, float] = field(default_factory=dict)
        columns: dict[str, FieldColumns] = field(default_factory=dict)

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self.learnt = self.Learnt()
        """What was learnt of the groups before, which another run may go on with."""

    def choose(
        self,
        rows: pa.Table,
        stored_schema: Schema | None = None,
        near: Iterable[Schema] = (),
        order: pa.Array | None = None,
    ) -> FieldColumns | None:
        """Return how to store the payloads of a group's rows; None where text is best.

        Payloads in a column `fields` are structs of `stored_schema`. Schemas of `near` come
        first, in their order, and then that of the group before. `order` are the numbers of the
        rows as they will be stored, where that is another order.

        Structs keep the schema that they have where an earlier group got it, without a sample.
        """
        near = dict.fromkeys(near)
        expected = self._expected(rows, stored_schema, near)
        if expected:
            return expected
        sample, payloads = self._sample(rows, stored_schema, order), rows["data"]
        if not len(sample):
            return None
        tried_rows, trials = sample.take(_evenly(len(sample), _TRIED)), []
        for schema in dict.fromkeys((*near, *([self.learnt.latest] if self.learnt.latest else ()))):
            trial = self._try(schema, tried_rows)
            # What no schema fitted before is not searched for again in every group.
            if trial.share >= min(_ENOUGH, self.learnt.shares.get(schema.key, 1) - _SLACK):
                # Encodings are tried once in a run, on neighbours as they will be stored.
                is_new = schema.key not in self.learnt.columns
                trial = self._try(schema, sample) if is_new else trial
                return self._chosen(trial, len(payloads))
            trials.append(trial)
        best = self._inferred(sample, max(trials, key=lambda trial: trial.share, default=None))
        return self._chosen(best, len(payloads)) if best and best.share >= _LEAST else None

    def convert(
        self, schema: Schema, rows: pa.Table, stored_schema: Schema | None = None
    ) -> tuple[pa.Table, int]:
        """Return rows with their payloads as structs in `fields`, and how many more bytes of text
        those stand for than before; what they do not fit stays in `data`.

        Payloads in a column `fields` are structs of the schema `stored_schema` before.
        """
        if stored_schema is None:
            structs, masks = prove(self._cursor, schema, rows["data"])
            return _exchanged(rows.append_column(COLUMN, structs), masks)
        rows, size = self.recast(stored_schema, schema, rows)
        text_rows = np.flatnonzero(arrays.truths(rows["data"].is_valid()))
        # Those of other segments were never tried.
        if len(text_rows):
            structs, masks = prove(
                self._cursor, schema, rows["data"].take(arrays.integers(text_rows))
            )
            rows, new_bytes = _with_structs(rows, text_rows, structs, masks)
            size += new_bytes
        return rows, size

    def recast(self, stored_schema: Schema, schema: Schema, rows: pa.Table) -> tuple[pa.Table, int]:
        """Return rows whose payloads are text where their structs are those of another schema, and
        how many more bytes of text those stand for."""
        if schema == stored_schema:
            return rows, 0
        # Only the text tells which members of the other schema a payload has, and in which order.
        restored_rows = restored(self._cursor, stored_schema, rows)
        structs = pa.nulls(len(rows), schema.arrow_type())
        size = _length(rows["data"]) - _length(restored_rows["data"])
        return restored_rows.append_column(COLUMN, structs), size

    def _expected(
        self, rows: pa.Table, stored_schema: Schema | None, near: dict[Schema, None]
    ) -> FieldColumns | None:
        """Return how structs were stored in an earlier group, if nearly all payloads are some."""
        is_first = next(iter(near), None) == stored_schema
        if stored_schema is None or not is_first or rows["data"].null_count < _ENOUGH * len(rows):
            return None
        return self.learnt.columns.get(stored_schema.key)

    def _sample(
        self, rows: pa.Table, stored_schema: Schema | None, order: pa.Array | None
    ) -> pa.ChunkedArray:
        """Return a sample of the payloads that may become structs."""
        rows_max = _SAMPLE_BYTES * len(rows) // max(_stored_bytes(rows), 1)
        places = column_encodings.sample(len(rows), max(_LEAST_PROVED, min(_PROVED, rows_max)))
        names = ["data", COLUMN] if stored_schema else ["data"]
        sampled = rows.select(names).take(places if order is None else order.take(places))
        payloads = (restored(self._cursor, stored_schema, sampled) if stored_schema else sampled)[
            "data"
        ]
        return payloads.filter(arrays.mask(_lengths(payloads, TEXT_MAX + 1) <= TEXT_MAX))

    def _try(self, schema: Schema, sample: pa.ChunkedArray) -> _Trial:
        structs, masks = prove(self._cursor, schema, sample)
        return _Trial(schema, structs, masks, masks.false_count / len(sample))

    def _inferred(self, sample: pa.ChunkedArray, start: _Trial | None) -> _Trial | None:
        """Return the best of some inferred schemas, `start` where none is clearly better."""
        best, payloads = start, sample.take(_evenly(len(sample), _SEEN)).to_pylist()
        earlier = start.schema if start else None
        for _ in range(_ROUNDS):
            schema = infer(payloads, earlier)
            if schema is None:
                break
            trial = self._try(schema, sample)
            if best is None or trial.share > best.share + _SLACK / 2:
                best = trial
            if trial.share >= _ENOUGH:
                break
            failing = sample.filter(trial.masks)
            failing_payloads = failing.take(_evenly(len(failing), _SEEN // 4)).to_pylist()
            payloads = list(dict.fromkeys((*payloads, *failing_payloads)))
        return best

    def _chosen(self, trial: _Trial, rows: int) -> FieldColumns:
        self.learnt.latest = trial.schema
        self.learnt.shares[trial.schema.key] = trial.share
        if trial.schema.key not in self.learnt.columns:
            scale = rows / len(trial.structs)
            columns = FieldColumns.of_sample(trial.schema, trial.structs, scale)
            self.learnt.columns[trial.schema.key] = columns
        return self.learnt.columns[trial.schema.key]


def _evenly(length: int, count_max: int) -> pa.Array:
    step = max(1, length / count_max)
    return arrays.integers((np.arange(min(length, count_max)) * step).astype(np.int64))


def _leaves(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Yield the columns of structs, each by its path in Parquet, without the nulls."""
    if pa.types.is_struct(values.type):
        for nth, child in enumerate(values.type):
            yield from _leaves(f"{path}.{child.name}", values.field(nth))
    elif pa.types.is_list(values.type):
        yield from _leaves(f"{path}.list.element", values.flatten())
    else:
        yield path, values.drop_null()


def prove(
    cursor: duckdb.DuckDBPyConnection, schema: Schema, payloads: pa.ChunkedArray
) -> tuple[pa.StructArray, pa.Array]:
    """Return the structs of payloads, null where they would not give back the text, and a mask:
    whether each is null."""
    shape, built = sql.literal(schema.structure()), schema.text_sql()
    # Payloads are valid JSON, so the engine is not asked first; one that is not fails the query.
    read_sql = f"CASE WHEN strlen(data) <= {TEXT_MAX} THEN {{}} END"
    failure: Exception | None = None
    for parse in (f"from_json(data, {shape})", f"TRY(from_json(data, {shape}))"):
        query = f"""SELECT {_stored(schema)} AS fields,
                coalesce({built} <> data, true) AS is_text
            FROM (SELECT data, {read_sql.format(parse)} AS fields FROM texts)"""
        try:
            rows = _run(cursor, query, pa.table({"data": _in_pieces(payloads)}))
        except duckdb.InvalidInputException as error:
            failure = error
            continue
        masks = rows["is_text"].combine_chunks()
        structs = rows["fields"].cast(schema.arrow_type()).combine_chunks()
        return _masked(structs, masks), masks
    raise failure or ValueError(query)


def restored(cursor: duckdb.DuckDBPyConnection, schema: Schema, rows: pa.Table) -> pa.Table:
    """Return rows of a typed segment as those of one without: `data` is the text of each."""
    query = f"SELECT coalesce(data, {schema.text_sql()}) AS data FROM texts"
    payload_columns = rows.select(["data", COLUMN])
    step = _step(payload_columns)
    chunks: list[pa.Array] = []
    for start in range(0, len(payload_columns), step):
        # Copied, as the engine refuses structs that are a part of an array.
        slice_rows = payload_columns.slice(start, step)
        slice_rows = (
            slice_rows
            if step >= len(payload_columns)
            else slice_rows.take(arrays.integers(np.arange(len(slice_rows))))
        )
        chunks += _run(cursor, query, slice_rows)["data"].cast(pa.string()).chunks
    plain = rows.drop_columns([COLUMN])
    start = plain.column_names.index("data")
    return plain.set_column(start, "data", pa.chunked_array(chunks, pa.string()))


def _exchanged(rows: pa.Table, masks: pa.Array) -> tuple[pa.Table, int]:
    """Return rows whose `data` is null but where a mask says so, and the bytes less in it."""
    payloads = rows["data"]
    stay = pc.if_else(masks, payloads, pa.nulls(1, pa.string())[0])
    column = rows.column_names.index("data")
    return rows.set_column(column, "data", stay), _length(payloads) - _length(stay)


def _with_structs(
    rows: pa.Table, text_rows: np.ndarray, structs: pa.StructArray, masks: pa.Array
) -> tuple[pa.Table, int]:
    """Return rows with structs in place of some texts, where a mask does not say that they stay,
    and the bytes of those."""
    fits = np.flatnonzero(~arrays.truths(masks))
    column = rows[COLUMN]
    both = pa.chunked_array([*column.chunks, structs.take(arrays.integers(fits))], column.type)
    index = np.arange(len(rows))
    index[text_rows[fits]] = len(rows) + np.arange(len(fits))
    is_text = arrays.truths(rows["data"].is_valid())
    is_text[text_rows[fits]] = False
    place = rows.column_names.index(COLUMN)
    rows = rows.set_column(place, COLUMN, both.take(arrays.integers(index)))
    return _exchanged(rows, arrays.mask(is_text))


def _lengths(strings: pa.ChunkedArray, absent: int) -> np.ndarray:
    """The bytes of each text, `absent` where there is none."""
    sizes = arrays.numbers(pc.binary_length(strings).cast(pa.int64()))
    return np.where(arrays.truths(strings.is_valid()), sizes, absent)


def _length(strings: pa.ChunkedArray) -> int:
    return pc.sum(pc.binary_length(strings)).as_py() or 0


def _stored_bytes(rows: pa.Table) -> int:
    names = [name for name in ("data", COLUMN) if name in rows.column_names]
    return int(rows.select(names).nbytes)


def _in_pieces(strings: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts as chunks of about _BYTES, since a vector of the engine lies within one."""
    ends = np.cumsum(_lengths(strings, 0))
    cuts = [0, *(np.flatnonzero(np.diff(ends // _BYTES)) + 1), len(strings)]
    slices = (strings.slice(a, b - a) for a, b in itertools.pairwise(cuts))
    return pa.chunked_array([chunk for chunked in slices for chunk in chunked.chunks], strings.type)


def _step(rows: pa.Table) -> int:
    """Return how many rows are about _BYTES; all of them where 2,048 are less."""
    step = _BYTES * len(rows) // max(rows.nbytes, 1)
    return max(1, step if step < _VECTOR else len(rows))


def _stored(schema: Schema) -> str:
    """SQL for the structs as they are stored: JSON as text."""
    schema_json = schema.to_json()
    if '"json"' not in schema_json:
        return COLUMN
    members = ", ".join(f"{sql.identifier(m.name)} {_sql_type(m)}" for m in schema.members)
    return f"{COLUMN}::STRUCT({members})"


def _sql_type(member: Member) -> str:
    if member.kind == "object":
        members = (f"{sql.identifier(m.name)} {_sql_type(m)}" for m in member.members)
        return f"STRUCT({', '.join(members)})"
    if member.kind == "list":
        return f"{_sql_type(member.members[0])}[]"
    return SCALARS[member.kind].replace("JSON", "VARCHAR")


def _masked(structs: pa.StructArray, nulls: pa.Array) -> pa.StructArray:
    children = [structs.field(n) for n in range(structs.type.num_fields)]
    return pa.StructArray.from_arrays(children, fields=list(structs.type), mask=nulls)


def _run(cursor: duckdb.DuckDBPyConnection, query: str, payload_rows: pa.Table) -> pa.Table:
    cursor.register("texts", payload_rows)
    try:
        return cursor.sql(query).to_arrow_table()
    finally:
        cursor.unregister("texts")
