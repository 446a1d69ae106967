"""Staging: a shape's rows, redacted, in one Parquet file; and what is to be known of each of them.

The file stands in the directory that is being built and goes before that gets its name. What is
not redacted yet only passes through memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import ExportRefused
from lakelog.train import assign, budget, cluster, redact, shape
from lakelog.train.assign import Rows
from lakelog.train.recipe import Recipe
from lakelog.train.scratch import parquet
from lakelog.train.selecting import HIDDEN, Selection, column_of, quoted, text_of
from lakelog.train.structure import structure_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_NUMBER = "('0x' || substr(sha256({salt} || chr(31) || {unit}), 1, 13))::BIGINT / 4503599627370496"
_TEXTS = 16_384


@dataclass(frozen=True)
class Stage:
    """The staged file, the columns a reader will see, and the finds that were replaced."""

    path: str
    columns: dict[str, str]
    rows: int
    redacted: dict[str, int]
    roles: shape.Roles


def write(
    con: duckdb.DuckDBPyConnection, selection: Selection, recipe: Recipe, folder: str, key: bytes
) -> Stage:
    """Run the shape over the lake and write its rows, redacted."""
    kinds = recipe.redact["kinds"]
    sql, made = shape.rows(selection, recipe)
    if sql is not None:
        probe = selection.session.sql(f"SELECT * FROM ({sql}) LIMIT 0", at=selection.digest)
        types = dict(zip(probe.columns, map(str, probe.types), strict=True))
        found = redact.columns(types) if kinds and recipe.kind != "messages" else []
        made = shape.reader(selection, redact.hinted(sql, found, kinds))
    con.register("shaped", _plain(made, found) if sql is not None and found else made)
    source = shape.finished("SELECT * FROM shaped", recipe)
    if recipe.kind == "messages":
        types = _types(con, source, made)
        found = redact.columns(types) if kinds else []
        source = redact.hinted(source, found, kinds)
    if kinds:
        redact.arm(con, kinds, key)
        source = redact.cleaned(source, types, found, recipe)
    path = f"{folder}/rows.parquet"
    con.sql(source).write_parquet(path, compression="lz4", row_group_size=122_880)
    con.unregister("shaped")
    shown = {n: t for n, t in types.items() if n not in HIDDEN}
    if recipe.shape["data"] == "typed" and "data" in shown:
        path, shown = _typed(con, path, shown, folder)
    sums = [f"sum(__n_{kind})::BIGINT" for kind in kinds]
    counts = con.sql(
        f"SELECT count(*), {', '.join(sums) or '0'} FROM {parquet([path])}"
    ).fetchall()[0]
    redacted = {kind: int(n or 0) for kind, n in zip(kinds, counts[1:], strict=False)}
    return Stage(path, shown, counts[0], redacted, shape.roles(recipe, list(shown)))


def _plain(reader: pa.RecordBatchReader, found: list[redact.Column]) -> pa.RecordBatchReader:
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield redact.without_escapes(batch, found)

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _types(con: duckdb.DuckDBPyConnection, source: str, reader: pa.RecordBatchReader) -> Any:
    """The types of a source whose reader may be read once only: asked of an empty one."""
    con.unregister("shaped")
    con.register("shaped", reader.schema.empty_table())
    probe = con.sql(f"SELECT * FROM ({source}) LIMIT 0")
    types = dict(zip(probe.columns, map(str, probe.types), strict=True))
    con.unregister("shaped")
    con.register("shaped", reader)
    return types


def _typed(
    con: duckdb.DuckDBPyConnection, path: str, shown: dict[str, str], folder: str
) -> tuple[str, dict[str, str]]:
    """Write the staged file anew with a struct for the JSON of `data`."""
    asked = con.sql(f"SELECT DISTINCT json_structure(data::JSON)::VARCHAR FROM {parquet([path])}")
    made = structure_of([text for (text,) in asked.fetchall() if text])
    if made is None:
        return path, shown
    after = f"{folder}/typed.parquet"
    source = f"SELECT * REPLACE (from_json(data, {text_of(made)}) AS data) FROM {parquet([path])}"
    con.sql(source).write_parquet(after, compression="lz4", row_group_size=122_880)
    os.unlink(path)
    probe = con.sql(f"SELECT data FROM {parquet([after])} LIMIT 0")
    return after, {**shown, "data": str(probe.types[0])}


def known(con: duckdb.DuckDBPyConnection, stage: Stage, recipe: Recipe) -> Rows:
    """Read what splits and dedupe need of every row. Raises ExportRefused for what is missing."""
    import numpy as np

    if not stage.rows:
        raise ExportRefused(
            f"the selection has no rows that a {recipe.kind} can be made of: see [select] sql"
            f" and [shape] in {recipe.where}"
        )
    _require_groups(con, stage, recipe)
    content = ", ".join(map(quoted, stage.roles.content))
    texts = [quoted(n) for n, t in stage.columns.items() if t in ("VARCHAR", "JSON")]
    sized = " + ".join(f"coalesce(strlen({t}), 0)" for t in texts) or "0"
    if stage.roles.near and recipe.kind != "events":
        sized = f"coalesce(strlen({stage.roles.near}), 0)"
    grouped = recipe.split["group"] is not None
    unit = "__group" if grouped else f"md5(to_json(row({content}))::VARCHAR)"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE keys AS SELECT file_row_number AS row,"
        f" hash({content}) AS h1, hash({content}, 'lakelog') AS h2, {unit} AS unit,"
        " __stratum AS stratum,"
        " coalesce(__at, file_row_number) AS rank, epoch_us(__time) AS time,"
        f" epoch_us(__until) AS until, ({sized} + 3) // 4 AS tokens"
        f" FROM {parquet([stage.path], numbered=True)}"
    )
    asked = "SELECT count(*) FILTER (unit IS NULL), count(*) FILTER (time IS NULL) FROM keys"
    nulls, timeless = con.sql(asked).fetchall()[0]
    if nulls:
        group = recipe.split["group"]
        raise ExportRefused(
            f"[split] group: {nulls:,} of {stage.rows:,} rows have no {group};"
            f" leave them out with WHERE {group} IS NOT NULL"
        )
    if timeless and recipe.split["before"] is not None:
        raise ExportRefused(f"[split] before: {timeless:,} rows have no time; add the column time")
    salt = text_of(recipe.salt)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE units AS SELECT *, row_number() OVER (ORDER BY unit) - 1 AS"
        f" n, {_NUMBER.format(salt=salt, unit='unit')} AS number FROM"
        " (SELECT unit, min(rank) AS first, arg_min(stratum, rank) AS stratum FROM keys GROUP BY 1)"
    )
    table = con.sql(
        "SELECT h1, h2, u.n, rank, coalesce(time, 0) AS time, coalesce(until, 0) AS until, tokens"
        " FROM keys JOIN units u USING (unit) ORDER BY row"
    ).to_arrow_table()
    h1, h2, unit_n, rank, time, until, tokens = (c.to_numpy() for c in table.columns)
    pair = np.stack([h1, h2], axis=1)
    fate = np.zeros(stage.rows, np.int8)
    return Rows(pair, unit_n, rank, time, until, tokens, fate)


def _require_groups(con: duckdb.DuckDBPyConnection, stage: Stage, recipe: Recipe) -> None:
    """Raise ExportRefused where a mask would make one group of many."""
    group = stage.roles.group
    if not group or recipe.redact["mode"] != "mask" or not sum(stage.redacted.values()):
        return
    masked = con.sql(
        f"SELECT count(*) FROM {parquet([stage.path])}"
        f" WHERE {quoted(group)}::VARCHAR IS DISTINCT FROM __group"
    ).fetchall()[0][0]
    if masked:
        raise ExportRefused(
            f"[redact] mode: mask would make one group of many in the column {group}"
            f' ({masked:,} rows); set mode = "pseudonym" and key_env'
        )


def settle_fates(
    con: duckdb.DuckDBPyConnection, stage: Stage, recipe: Recipe, rows: Rows
) -> cluster.Clusters | None:
    """Decide of every row whether it stays and on which side. Returns what near dedupe found."""
    split, keep = recipe.split, recipe.dedupe["keep"]
    kin = assign.exact_kin(rows.content, rows.rank)
    if recipe.dedupe["exact"]:
        assign.dedupe(rows, kin, keep, "exact")
    near = None
    if stage.roles.near and stage.roles.threshold:
        near = cluster.clusters(
            lambda: _texts(con, stage, rows), stage.roles.threshold, stage.roles.shingle
        )
        if recipe.dedupe["near"]:
            assign.dedupe(rows, near.first, keep, "near")
    units = con.sql("SELECT number, first, stratum FROM units ORDER BY n").to_arrow_table()
    numbers, first = units["number"].to_numpy(), units["first"].to_numpy()
    before = _micros(split["before"])
    grouped = split["group"] is not None
    if split["stratify"] is not None:
        sides = assign.stratified(units["stratum"].to_pylist(), first, recipe)[rows.unit]
    else:
        sides = assign.sides_of(numbers, recipe)[rows.unit]
    if before is not None and not grouped:
        sides = assign.by_time(rows, numbers[rows.unit], recipe, before)
    rows.fate[rows.fate >= 0] = sides[rows.fate >= 0]
    if before is not None:
        assign.fence(rows, before)
    fenced = before is not None
    assign.on_one_side(rows, kin, grouped or fenced)
    if near is not None:
        assign.on_one_side(rows, near.first, grouped or fenced)
    _budget(con, stage, recipe, rows)
    assign.require_met(rows, recipe)
    return near


def _budget(con: duckdb.DuckDBPyConnection, stage: Stage, recipe: Recipe, rows: Rows) -> None:
    column = recipe.budget["balance"]
    if column is not None:
        name = column_of(column)
        if name not in stage.columns:
            listed = ", ".join(stage.columns)
            raise ExportRefused(f"[budget] balance: no column {name!r}; there are {listed}")
        table = con.sql(
            f"SELECT dense_rank() OVER (ORDER BY {quoted(name)}::VARCHAR) AS n,"
            f" file_row_number AS r FROM {parquet([stage.path], numbered=True)} ORDER BY r"
        ).to_arrow_table()
        budget.balance(rows, table["n"].to_numpy())
    budget.limit(rows, recipe.budget["rows"], recipe.budget["tokens"])


def _texts(con: duckdb.DuckDBPyConnection, stage: Stage, rows: Rows) -> Iterator[pa.Array]:
    """Yield the texts to be compared, null where a row is out already."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    reader = con.cursor().sql(
        f"SELECT {stage.roles.near} AS t FROM {parquet([stage.path])}"
    ).to_arrow_reader(_TEXTS)  # fmt: skip
    alive, done = np.asarray(rows.fate >= 0), 0
    for batch in reader:
        texts = batch.column(0)
        kept = pa.array(alive[done : done + len(texts)])
        done += len(texts)
        yield pc.if_else(kept, texts, pa.scalar(None, texts.type))


def _micros(text: str | None) -> int | None:
    from datetime import datetime

    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


__all__ = ["Stage", "known", "settle_fates", "write"]
