"""Staging: a shape's rows, redacted, in one Parquet file; and what is to be known of each of them.

The file stands in the directory that is being built and goes before that gets its name. What is
not redacted yet only passes through memory.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lakelog.errors import ExportRefused
from lakelog.lazy import Lazy
from lakelog.train import assign, budget, cluster, filters, redact, stage, tokenizer
from lakelog.train.assign import RowTable
from lakelog.train.losses import FILTERS, LOST, REASON, ROWS, Losses, sentence
from lakelog.train.recipe import Recipe
from lakelog.train.recipe_schema import NEEDS, SHAPES
from lakelog.train.selection import HIDDEN, Selection, column_of, quoted, text_of
from lakelog.train.shapes import shape
from lakelog.train.shapes.structure import structure_of
from lakelog.train.stage import Stage

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")

_TEXTS, _ROWS = 16_384, 65_536
_LOOKS = 20


def write(
    con: duckdb.DuckDBPyConnection, selection: Selection, recipe: Recipe, folder: str, key: bytes
) -> Stage:
    """Run the shape over the lake and write its rows, redacted.

    Raises ExportRefused where whole rows would be lost without the recipe's consent.
    """
    kinds, losses = recipe.redact["kinds"], Losses()
    sql, made = shape.shaped(selection, recipe, losses)
    counted = recipe.kind == "messages"
    if sql is not None and not counted:
        types = _types(selection.session.sql(f"SELECT * FROM ({sql}) LIMIT 0", at=selection.digest))
        found = redact.columns(types) if kinds else []
        reader = shape.reader(selection, redact.hinted(sql, found, kinds))
    else:
        con.register("shaped", shape.reader(selection, sql) if sql is not None else made)
        source = shape.finished("SELECT * FROM shaped", recipe)
        relation = con.sql(source)
        types = {n: t for n, t in _types(relation).items() if n not in (REASON, LOST)}
        found = redact.columns(types, ("data", "tools")) if kinds else []
        relation = con.sql(redact.hinted(source, found, kinds))
        reader = relation.to_arrow_reader(_ROWS)
    cleaner = redact.Cleaner(con.cursor(), types, found, recipe, key)
    shown = {n: t for n, t in types.items() if n not in HIDDEN}
    path = f"{folder}/rows.arrow"
    schema = cleaner.schema(reader.schema)
    batches = cleaner.batches(losses.kept(reader) if counted else reader)
    if recipe.filter["quality"] or recipe.filter["languages"]:
        column = {"messages": "messages", "preference": "chosen"}.get(recipe.kind, "text")
        if recipe.kind == "events":
            column = column_of(recipe.shape["text"])
        batches = filters.kept(batches, column, recipe.filter, losses)
    count = stage.write(path, schema, batches)
    losses.require_consent(recipe.shape["drop"], "shape", ROWS)
    losses.require_consent(recipe.filter["drop"], "filter", FILTERS)
    columns = recipe.shape["data"] == "typed" and "data" in shown
    made_stage = Stage(
        path, shown, count, cleaner.counts, shape.roles(recipe, list(shown)), dict(losses.counts)
    )
    return _typed(con, made_stage, folder) if columns else made_stage


def _types(relation: Any) -> dict[str, str]:
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _typed(con: duckdb.DuckDBPyConnection, before: Stage, folder: str) -> Stage:
    """Write the staged rows anew with a struct for the JSON of `data`."""
    name = before.offered(con, ["data"])
    asked = con.sql(f"SELECT DISTINCT json_structure(data::JSON)::VARCHAR FROM {name}")
    made = structure_of([text for (text,) in asked.fetchall() if text])
    if made is None:
        return before
    name = before.offered(con)
    relation = con.sql(
        f"SELECT * EXCLUDE __row REPLACE (from_json(data, {text_of(made)}) AS data) FROM {name}"
    )
    kind = _types(relation)["data"]
    reader = relation.to_arrow_reader(_ROWS)
    path = f"{folder}/typed.arrow"
    stage.write(path, reader.schema, reader)
    os.unlink(before.path)
    return dataclasses.replace(before, path=path, columns={**before.columns, "data": kind})


def known(
    con: duckdb.DuckDBPyConnection,
    staged: Stage,
    recipe: Recipe,
    counter: tokenizer.Tokenizer | None,
) -> RowTable:
    """Read what splits and dedupe need of every row. Raises ExportRefused for what is missing."""
    if not staged.rows:
        lost = sentence(staged.losses)
        others = ", ".join(kind for kind in SHAPES if kind != recipe.kind)
        raise ExportRefused(
            f"no row of the selection fits the shape {recipe.kind}, which needs"
            f" {NEEDS[recipe.kind]}{f'; there are {lost}' if lost else ''};"
            f" check [select] sql and [shape] in {recipe.where},"
            f" or choose another shape: {others}"
        )
    _require_groups(con, staged, recipe)
    content = ", ".join(map(quoted, staged.roles.content))
    texts = [quoted(n) for n, t in staged.columns.items() if t in ("VARCHAR", "JSON")]
    sized = " + ".join(f"coalesce(strlen({t}), 0)" for t in texts) or "0"
    if staged.roles.near and recipe.kind != "events":
        sized = f"coalesce(strlen({staged.roles.near}), 0)"
    grouped = recipe.split["group"] is not None
    needed = [*staged.columns, "__group", "__stratum", "__at", "__time", "__until", "__row"]
    unit = "__group" if grouped else f"md5(to_json(row({content}))::VARCHAR)"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE keys AS SELECT __row AS row,"
        f" hash({content}) AS h1, hash({content}, 'lakelog') AS h2, {unit} AS unit,"
        " __stratum AS stratum,"
        " coalesce(__at, __row) AS rank, epoch_us(__time) AS time,"
        f" epoch_us(__until) AS until, ({sized} + 3) // 4 AS tokens"
        f" FROM {staged.offered(con, needed)}"
    )
    asked = "SELECT count(*) FILTER (unit IS NULL), count(*) FILTER (time IS NULL) FROM keys"
    nulls, timeless = con.sql(asked).fetchall()[0]
    if nulls:
        group = recipe.split["group"]
        raise ExportRefused(
            f"[split] group: {nulls:,} of {staged.rows:,} rows have no {group};"
            f" exclude them with WHERE {group} IS NOT NULL"
        )
    if recipe.split["before"] is not None and (timeless or "time" not in staged.columns):
        raise ExportRefused("[split] before: rows have no time; add the column time to the query")
    number = assign.number_of(text_of(recipe.salt), "unit")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE units AS SELECT *, row_number() OVER () - 1 AS"
        f" n, {number} AS number FROM"
        " (SELECT unit, min(rank) AS first, arg_min(stratum, rank) AS stratum FROM keys GROUP BY 1)"
    )
    table = con.sql(
        "SELECT row, h1, h2, u.n, rank, coalesce(time, 0) AS time, coalesce(until, 0) AS until,"
        " tokens FROM keys JOIN units u USING (unit)"
    ).to_arrow_table()
    order = np.empty(staged.rows, np.int64)
    order[table["row"].to_numpy()] = np.arange(staged.rows)
    h1, h2, unit_n, rank, time, until, tokens = (c.to_numpy()[order] for c in table.columns[1:])
    pair = np.stack([h1, h2], axis=1)
    fate = np.zeros(staged.rows, np.int8)
    if counter is not None:
        said = staged.roles.near or f"concat_ws(' ', {', '.join(texts) or repr('')})"
        tokens = _counted(con, staged, said, counter)
    return RowTable(pair, unit_n, rank, time, until, tokens, fate)


def _counted(
    con: duckdb.DuckDBPyConnection, staged: Stage, said: str, counter: tokenizer.Tokenizer
) -> Any:
    """Tokens of the texts of all rows, in their order."""
    cursor = con.cursor()
    name = staged.offered(cursor, list(staged.columns))
    reader = cursor.sql(f"SELECT {said} AS t FROM {name}").to_arrow_reader(_TEXTS)
    counts = [counter.counts(batch.column(0).to_pylist()) for batch in reader]
    return np.array([n for part in counts for n in part], np.int64)


def _require_groups(con: duckdb.DuckDBPyConnection, staged: Stage, recipe: Recipe) -> None:
    """Raise ExportRefused where a mask would make one group of many."""
    group = staged.roles.group
    if not group or recipe.redact["mode"] != "mask" or not sum(staged.redacted.values()):
        return
    masked = con.sql(
        f"SELECT count(*) FROM {staged.offered(con, [group, '__group'])}"
        f" WHERE {quoted(group)}::VARCHAR IS DISTINCT FROM __group"
    ).fetchall()[0][0]
    if masked:
        raise ExportRefused(
            f"[redact] mode: mask would make one group of many in the column {group}"
            f' ({masked:,} rows); set mode = "pseudonym" and key_env'
        )


def settle_fates(
    con: duckdb.DuckDBPyConnection, staged: Stage, recipe: Recipe, rows: RowTable
) -> cluster.Clusters | None:
    """Decide of every row whether it stays and on which side. Returns what near dedupe found."""
    split, keep = recipe.split, recipe.dedupe["keep"]
    kin = assign.exact_kin(rows.content, rows.rank)
    if recipe.dedupe["exact"]:
        assign.dedupe(rows, kin, keep, "exact")
    near = None
    if staged.roles.near and staged.roles.threshold:
        near = cluster.clusters(
            lambda: _texts(con, staged, rows), staged.roles.threshold, staged.roles.shingle
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
        if near.crowded:
            _part_crowds(con, staged, rows)
    _budget(con, staged, recipe, rows)
    assign.require_met(rows, recipe)
    return near


def _part_crowds(con: duckdb.DuckDBPyConnection, staged: Stage, rows: RowTable) -> None:
    """Look at the sides as a check will, again and again, until no cluster straddles them.

    Among crowds not every pair is met, and which are depends on the order of the texts.
    """
    threshold, shingle = staged.roles.threshold, staged.roles.shingle
    for _ in range(_LOOKS):
        order = np.concatenate([np.flatnonzero(rows.fate == side) for side in range(3)])
        made = cluster.clusters(
            lambda: _texts_by_side(con, staged, rows), float(threshold or 1), shingle
        )
        kin = np.arange(staged.rows)
        kin[order] = order[made.first]
        before = int((rows.fate >= 0).sum())
        assign.on_one_side(rows, kin, True)
        if int((rows.fate >= 0).sum()) == before:
            return


def _texts_by_side(
    con: duckdb.DuckDBPyConnection, staged: Stage, rows: RowTable
) -> Iterator[pa.Array]:
    """Yield the texts of train, then of validation, then of test, as finished files have them."""
    for side in range(3):
        done = 0
        for texts in _texts(con, staged, rows):
            chosen = rows.fate[done : done + len(texts)] == side
            done += len(texts)
            yield texts.filter(pa.array(chosen))


def _budget(con: duckdb.DuckDBPyConnection, staged: Stage, recipe: Recipe, rows: RowTable) -> None:
    column = recipe.budget["balance"]
    if column is not None:
        name = column_of(column)
        if name not in staged.columns:
            listed = ", ".join(staged.columns)
            raise ExportRefused(f"[budget] balance: no column {name!r}; there are {listed}")
        table = con.sql(
            f"SELECT dense_rank() OVER (ORDER BY {quoted(name)}::VARCHAR) AS n,"
            f" __row AS r FROM {staged.offered(con, [name, '__row'])} ORDER BY r"
        ).to_arrow_table()
        budget.balance(rows, table["n"].to_numpy())
    budget.limit(rows, recipe.budget["rows"], recipe.budget["tokens"])


def _texts(con: duckdb.DuckDBPyConnection, staged: Stage, rows: RowTable) -> Iterator[pa.Array]:
    """Yield the texts to be compared, null where a row is out already."""
    cursor = con.cursor()
    name = staged.offered(cursor, list(staged.columns))
    reader = cursor.sql(f"SELECT {staged.roles.near} AS t FROM {name}").to_arrow_reader(_TEXTS)
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
