"""Staging: the redacted rows of a shape in one Arrow file, and the split that each of them gets.

The file (IPC, lz4) is scanned several times, a few columns at a time. It lies in the directory
that is being built and is deleted before that directory gets its name. Text that is not redacted
yet only passes through memory.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lakelog.errors import ExportRefused
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.train import assign, cluster, filters, redact, tokenizer
from lakelog.train.assign import RowTable
from lakelog.train.dataset import SPLIT, Dataset
from lakelog.train.losses import FILTERS, LOST, REASON, ROWS, Losses, sentence
from lakelog.train.recipe import SPLITS, Recipe
from lakelog.train.recipe_schema import NEEDS, SHAPES
from lakelog.train.selection import HIDDEN, RowQuery, column_of, content_hashes, quoted, text_of
from lakelog.train.shapes import shape
from lakelog.train.shapes.shape import Roles, structure_of
from lakelog.train.tables import Array
from lakelog.workers import WorkerPool

_TEXTS, _ROWS, _BATCH_ROWS = 16_384, 65_536, 65_536
_LOOKS = 20


@dataclass(frozen=True)
class Stage:
    """The staged file, the columns a reader will see, and counts of redacted values by kind."""

    path: str
    columns: dict[str, str]
    rows: int
    redacted: dict[str, int]
    roles: Roles
    losses: dict[str, int] = field(default_factory=dict)
    """Counts of what the shape could not represent, by the reasons of `losses`."""

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order; `columns` selects some, which keep the order of the file."""
        with pa.memory_map(self.path) as file:
            options = pa.ipc.IpcReadOptions()
            if columns is not None:
                # By position. Columns that are not included are not decompressed, which is why the
                # file is read some columns at a time.
                names = pa.ipc.open_file(file).schema.names
                options.included_fields = [n for n, name in enumerate(names) if name in columns]
            source = pa.ipc.open_file(file, options=options)
            for place in range(source.num_record_batches):
                yield source.get_batch(place)

    def schema(self) -> pa.Schema:
        """The columns of the file, hidden ones included."""
        with pa.memory_map(self.path) as file:
            return pa.ipc.open_file(file).schema

    def register(self, con: duckdb.DuckDBPyConnection, columns: list[str] | None = None) -> str:
        """Register the rows with an engine for one query; return the name of the relation."""
        full = self.schema()
        schema = pa.schema([f for f in full if columns is None or f.name in columns])
        con.register("staged", pa.RecordBatchReader.from_batches(schema, self.batches(columns)))
        return "staged"


def _write_batches(path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write rows in batches of a fixed size, numbered in `__row`; return how many there are."""
    # Row numbers are stored, because joins in DuckDB return rows in any order.
    full = schema.append(pa.field("__row", pa.int64()))
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    row_count = 0
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, full, options=options) as writer:
        for batch in _coalesce(batches):
            numbers = pa.array(np.arange(row_count, row_count + batch.num_rows))
            columns = [
                # An IPC file has one schema for all its batches.
                c.cast(f.type) if c.type != f.type else c
                for c, f in zip(batch.columns, schema, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays([*columns, numbers], schema=full))
            row_count += batch.num_rows
    return row_count


def _coalesce(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches to larger ones, which compress and scan better."""
    pending: list[pa.RecordBatch] = []
    pending_rows = 0
    for batch in batches:
        pending.append(batch)
        pending_rows += batch.num_rows
        if pending_rows >= _BATCH_ROWS:
            yield pa.concat_batches(pending)
            pending, pending_rows = [], 0
    if pending:
        yield pa.concat_batches(pending)


def write(
    con: duckdb.DuckDBPyConnection,
    selection: RowQuery,
    recipe: Recipe,
    folder: str,
    key: bytes,
    pool: WorkerPool | None = None,
) -> Stage:
    """Evaluate the shape over the lake and write its redacted rows, which workers may redact.

    Raises ExportRefused where whole rows would be lost without the consent of the recipe.
    """
    kinds, losses = recipe.redact["kinds"], Losses()
    # Shapes that DuckDB can express stream from the lake with the redaction hints computed in the
    # same scan. Conversations take a detour through `con`: their last step (`trim`) also needs SQL,
    # but over rows that Python assembled.
    sql, prepared = shape.query(selection, recipe, losses)
    is_chat = recipe.kind == "messages"
    if sql is not None and not is_chat:
        types = _types(
            selection.session.sql(f"SELECT * FROM ({sql}) LIMIT 0", digest=selection.digest)
        )
        text_columns = redact.text_columns(types) if kinds else []
        reader = shape.reader(selection, redact.with_hints(sql, text_columns, kinds))
    else:
        con.register("shaped", shape.reader(selection, sql) if sql is not None else prepared)
        source = shape.finish("SELECT * FROM shaped", recipe)
        relation = con.sql(source)
        # REASON and LOST are consumed by `losses.drop_incomplete` and must not be redacted or
        # written.
        types = {n: t for n, t in _types(relation).items() if n not in (REASON, LOST)}
        text_columns = redact.text_columns(types, ("data", "tools")) if kinds else []
        relation = con.sql(redact.with_hints(source, text_columns, kinds))
        reader = relation.to_arrow_reader(_ROWS)
    # A cursor of its own: the cleaner runs a query per batch while `relation` is still being read.
    cleaner = redact.Cleaner(con.cursor(), types, text_columns, recipe, key, pool)
    visible = {n: t for n, t in types.items() if n not in HIDDEN}
    path = f"{folder}/rows.arrow"
    schema = cleaner.schema(reader.schema)
    _require_storable(schema)
    # Rows that the shape rejects are dropped before redaction, so that its counts cover only rows
    # that are written.
    batches = cleaner.batches(losses.drop_incomplete(reader) if is_chat else reader)
    # Filters come after redaction: they judge the text that ends up in the set, and the first
    # characters of a rejected text appear in the error, which must not reveal a secret.
    if recipe.filter["quality"] or recipe.filter["languages"]:
        column = {"messages": "messages", "preference": "chosen"}.get(recipe.kind, "text")
        if recipe.kind == "events":
            column = column_of(recipe.shape["text"])
        batches = filters.passing_rows(batches, column, recipe.filter, losses)
    # The whole pipeline is lazy up to here; the losses are complete only after this call.
    count = _write_batches(path, schema, batches)
    # Refused at the end of the scan and not at the first loss, so that the error lists every reason
    # with its count and the user fixes the recipe once.
    losses.require_consent(recipe.shape["drop"], "shape", ROWS)
    losses.require_consent(recipe.filter["drop"], "filter", FILTERS)
    is_typed = recipe.shape["data"] == "typed" and "data" in visible
    stage = Stage(
        path,
        visible,
        count,
        cleaner.counts,
        shape.roles(recipe, list(visible)),
        dict(losses.counts),
    )
    return _with_struct(con, stage, folder) if is_typed else stage


def _require_storable(schema: pa.Schema) -> None:
    """Raise ExportRefused for a column of a type that Parquet lacks, or that no card describes in a
    way which loaders read."""
    for column in schema:
        if any(_is_unfit(leaf) for leaf in _nested(column.type)):
            raise ExportRefused(
                f"[select] sql: a set cannot hold the column {column.name!r} of type {column.type};"
                " convert it, for example an array by x::FLOAT[], a map by map_entries(x), or"
                " anything else by x::VARCHAR"
            )


def _is_unfit(arrow_type: Any) -> bool:
    kinds = pa.types
    return bool(
        kinds.is_map(arrow_type)
        or kinds.is_fixed_size_list(arrow_type)
        or kinds.is_interval(arrow_type)
        or kinds.is_union(arrow_type)
    )


def _nested(arrow_type: Any) -> Iterator[Any]:
    """Yield a type and all that it consists of."""
    yield arrow_type
    for number in range(arrow_type.num_fields):
        yield from _nested(arrow_type.field(number).type)


def _types(relation: Any) -> dict[str, str]:
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _with_struct(con: duckdb.DuckDBPyConnection, stage: Stage, folder: str) -> Stage:
    """Rewrite the staged rows with a struct in place of the JSON of `data`."""
    name = stage.register(con, ["data"])
    # The struct has to fit every payload of the set, so all distinct structures are merged before
    # any row is converted. Redaction came first: a struct of raw values could not be masked as
    # text.
    structures = con.sql(f"SELECT DISTINCT json_structure(data::JSON)::VARCHAR FROM {name}")
    structure = structure_of([described for (described,) in structures.fetchall() if described])
    if structure is None:
        return stage
    name = stage.register(con)
    relation = con.sql(
        f"SELECT * EXCLUDE __row REPLACE (from_json(data, {text_of(structure)}) AS data)"
        f" FROM {name}"
    )
    struct_type = _types(relation)["data"]
    reader = relation.to_arrow_reader(_ROWS)
    path = f"{folder}/typed.arrow"
    _write_batches(path, reader.schema, reader)
    # Two copies of the rows are on disk only until here.
    os.unlink(stage.path)
    return dataclasses.replace(stage, path=path, columns={**stage.columns, "data": struct_type})


def split_keys(
    con: duckdb.DuckDBPyConnection,
    stage: Stage,
    recipe: Recipe,
    counter: tokenizer.Tokenizer | None,
) -> RowTable:
    """Read the keys by which rows are split and deduplicated.

    Raises ExportRefused for an empty stage, or where a group or a time is missing.
    """
    _require_rows(stage, recipe)
    _require_groups(con, stage, recipe)
    content = ", ".join(map(quoted, stage.roles.content))
    text_columns = [quoted(n) for n, t in stage.columns.items() if t in ("VARCHAR", "JSON")]
    bytes_sql = " + ".join(f"coalesce(strlen({t}), 0)" for t in text_columns) or "0"
    # The column that is compared stands for what a model reads; for events every text column
    # counts.
    if stage.roles.near and recipe.kind != "events":
        bytes_sql = f"coalesce(strlen({stage.roles.near}), 0)"
    is_grouped = recipe.split["group"] is not None
    needed = [*stage.columns, "__group", "__stratum", "__at", "__time", "__until", "__row"]
    # Without groups the content is the unit, so that equal rows always share a split.
    unit = "__group" if is_grouped else f"md5(to_json(row({content}))::VARCHAR)"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE keys AS SELECT __row AS row,"
        f" {content_hashes(stage.roles.content)}, {unit} AS unit, __stratum AS stratum,"
        " coalesce(__at, __row) AS rank, epoch_us(__time) AS time,"
        f" epoch_us(__until) AS until, ({bytes_sql} + 3) // 4 AS tokens"
        f" FROM {stage.register(con, needed)}"
    )
    _require_keys(con, stage, recipe)
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
    # The join returns rows in any order; the arrays are brought back to the order of the file, so
    # that row i of every array is row i of the stage.
    order = np.empty(stage.rows, np.int64)
    order[table["row"].to_numpy()] = np.arange(stage.rows)
    h1, h2, unit_n, rank, time, until, tokens = (c.to_numpy()[order] for c in table.columns[1:])
    pair = np.stack([h1, h2], axis=1)
    split = np.zeros(stage.rows, np.int8)
    # Real tokenizers run over the redacted text of every row and are slow, so only a recipe that
    # names one pays for it; the estimate above costs nothing extra.
    if counter is not None:
        text_sql = stage.roles.near or f"concat_ws(' ', {', '.join(text_columns) or repr('')})"
        tokens = _token_counts(con, stage, text_sql, counter)
    return RowTable(pair, unit_n, rank, time, until, tokens, split)


def _require_rows(stage: Stage, recipe: Recipe) -> None:
    """Raise ExportRefused for an empty stage, while the reason is still known."""
    if not stage.rows:
        lost_rows = sentence(stage.losses)
        other_shapes = ", ".join(name for name in SHAPES if name != recipe.kind)
        raise ExportRefused(
            f"no row of the selection fits the shape {recipe.kind}, which needs"
            f" {NEEDS[recipe.kind]}{f'; there are {lost_rows}' if lost_rows else ''};"
            f" check [select] sql and [shape] in {recipe.where},"
            f" or choose another shape: {other_shapes}"
        )


def _require_keys(con: duckdb.DuckDBPyConnection, stage: Stage, recipe: Recipe) -> None:
    """Raise ExportRefused where rows have no group, or no time for the cutoff."""
    query = "SELECT count(*) FILTER (unit IS NULL), count(*) FILTER (time IS NULL) FROM keys"
    nulls, timeless = con.sql(query).fetchall()[0]
    # Rows without a group cannot be assigned by its hash, and one common group for all of them
    # would put them into one split.
    if nulls:
        group = recipe.split["group"]
        raise ExportRefused(
            f"[split] group: {nulls:,} of {stage.rows:,} rows have no {group};"
            f" exclude them with WHERE {group} IS NOT NULL"
        )
    if recipe.split["before"] is not None and (timeless or "time" not in stage.columns):
        raise ExportRefused("[split] before: rows have no time; add the column time to the query")


def _token_counts(
    con: duckdb.DuckDBPyConnection, stage: Stage, text_sql: str, counter: tokenizer.Tokenizer
) -> Any:
    """The number of tokens of each row, in row order."""
    cursor = con.cursor()
    name = stage.register(cursor, list(stage.columns))
    reader = cursor.sql(f"SELECT {text_sql} AS t FROM {name}").to_arrow_reader(_TEXTS)
    counts = [counter.counts(batch.column(0).to_pylist()) for batch in reader]
    return np.array([n for batch_counts in counts for n in batch_counts], np.int64)


def _require_groups(con: duckdb.DuckDBPyConnection, stage: Stage, recipe: Recipe) -> None:
    """Raise ExportRefused where masking would merge distinct groups into one."""
    # A pseudonym keeps groups distinct, a mask does not: every masked address would be the one
    # group <EMAIL>, and its rows would all be in one split.
    group = stage.roles.group
    if not group or recipe.redact["mode"] != "mask" or not sum(stage.redacted.values()):
        return
    masked = con.sql(
        f"SELECT count(*) FROM {stage.register(con, [group, '__group'])}"
        f" WHERE {quoted(group)}::VARCHAR IS DISTINCT FROM __group"
    ).fetchall()[0][0]
    if masked:
        raise ExportRefused(
            f"[redact] mode: mask would make one group of many in the column {group}"
            f' ({masked:,} rows); set mode = "pseudonym" and key_env'
        )


def assign_splits(
    con: duckdb.DuckDBPyConnection,
    stage: Stage,
    recipe: Recipe,
    rows: RowTable,
    earlier: Dataset | None = None,
) -> cluster.Clusters | None:
    """Assign every row to a split or leave it out. Returns the clusters of near duplicates. No row
    gets another split than it has in an `earlier` set."""
    settings, keep = recipe.split, recipe.dedupe["keep"]
    # Computed even if the recipe does not drop duplicates: equal rows must never be in two splits.
    duplicate_of = assign.exact_duplicates_of(rows.content, rows.rank)
    if recipe.dedupe["exact"]:
        assign.dedupe(rows, duplicate_of, keep, "exact")
    # Near duplicates are searched after exact ones are dropped, which saves their comparison.
    near = None
    if stage.roles.near and stage.roles.threshold:
        near = cluster.clusters(
            lambda: _texts(con, stage, rows), stage.roles.threshold, stage.roles.shingle
        )
        if recipe.dedupe["near"]:
            assign.dedupe(rows, near.roots, keep, "near")
    units = con.sql("SELECT number, first, stratum FROM units ORDER BY n").to_arrow_table()
    numbers, first_ranks = units["number"].to_numpy(), units["first"].to_numpy()
    before = _micros(settings["before"])
    is_grouped = settings["group"] is not None
    # Splits are computed per unit and spread to rows, so the rows of a group cannot be separated.
    if settings["stratify"] is not None:
        splits = assign.stratified_splits(units["stratum"].to_pylist(), first_ranks, recipe)[
            rows.unit
        ]
    else:
        splits = assign.splits_of(numbers, recipe)[rows.unit]
    # With groups, hashes decide and `apply_cutoff` removes what violates the cutoff; without them
    # the cutoff itself assigns the split.
    if before is not None and not is_grouped:
        splits = assign.splits_by_time(rows, numbers[rows.unit], recipe, before)
    if earlier is not None and (settings["stratify"] is not None or not is_grouped):
        # A split that hangs on what else is there: on the groups before it, or on a duplicate.
        splits = _splits_before(con, stage, rows, earlier)
        rows.drop(np.flatnonzero(splits < 0), "one_side")
    rows.split[rows.split >= 0] = splits[rows.split >= 0]
    if before is not None:
        assign.apply_cutoff(rows, before)
    # With groups or a cutoff a duplicate cannot move to another split without breaking that rule,
    # so it is left out instead.
    has_cutoff = before is not None
    assign.keep_in_one_split(rows, duplicate_of, is_grouped or has_cutoff)
    if near is not None:
        assign.keep_in_one_split(rows, near.roots, is_grouped or has_cutoff)
        # Only crowded buckets can have missed pairs; without them the clusters are complete.
        if near.crowded:
            _separate_crowds(con, stage, rows)
    # Budgets come last, over the rows that survive: a budget applied earlier would be undershot.
    _budget(con, stage, recipe, rows)
    assign.require_rows(rows, recipe)
    return near


def _splits_before(
    con: duckdb.DuckDBPyConnection, stage: Stage, rows: RowTable, earlier: Dataset
) -> Array:
    hashes = earlier.source(content_hashes(stage.roles.content))
    table = con.sql(f"SELECT h1, h2, {SPLIT} FROM ({hashes})").to_arrow_table()
    pairs = np.stack([table["h1"].to_numpy(), table["h2"].to_numpy()], axis=1)
    numbers = np.array([SPLITS.index(split) for split in table[SPLIT].to_pylist()], np.int8)
    return assign.splits_before(rows, pairs, numbers)


def _separate_crowds(con: duckdb.DuckDBPyConnection, stage: Stage, rows: RowTable) -> None:
    """Cluster the splits as a leak check will, repeatedly, until no cluster straddles two of them.

    In crowded buckets not every pair is compared, and which ones are depends on text order.
    """
    threshold, shingle = stage.roles.threshold, stage.roles.shingle
    # A fixed number of rounds bounds the time; every round removes rows, and a remaining leak is
    # reported by the certificate.
    for _ in range(_LOOKS):
        # The check reads the files split by split; candidates depend on that order, so it is
        # imitated here. `order` maps cluster members back to rows.
        order = np.concatenate([np.flatnonzero(rows.split == split) for split in range(3)])
        clusters = cluster.clusters(
            lambda: _texts_by_split(con, stage, rows), float(threshold or 1), shingle
        )
        duplicate_of = np.arange(stage.rows)
        duplicate_of[order] = order[clusters.roots]
        remaining = int((rows.split >= 0).sum())
        assign.keep_in_one_split(rows, duplicate_of, True)
        # A round that changes nothing has seen exactly what the check will see.
        if int((rows.split >= 0).sum()) == remaining:
            return


def _texts_by_split(
    con: duckdb.DuckDBPyConnection, stage: Stage, rows: RowTable
) -> Iterator[pa.Array]:
    """Yield the texts of train, validation and test in turn, the order of the finished files."""
    for split in range(3):
        position = 0
        for column in _texts(con, stage, rows):
            in_split = rows.split[position : position + len(column)] == split
            position += len(column)
            yield column.filter(pa.array(in_split))


def _budget(con: duckdb.DuckDBPyConnection, stage: Stage, recipe: Recipe, rows: RowTable) -> None:
    column = recipe.budget["balance"]
    if column is not None:
        name = column_of(column)
        if name not in stage.columns:
            listing = ", ".join(stage.columns)
            raise ExportRefused(f"[budget] balance: no column {name!r}; there are {listing}")
        # Ranks instead of values: numpy counts and sorts integers of any column type.
        table = con.sql(
            f"SELECT dense_rank() OVER (ORDER BY {quoted(name)}::VARCHAR) AS n,"
            f" __row AS r FROM {stage.register(con, [name, '__row'])} ORDER BY r"
        ).to_arrow_table()
        assign.balance(rows, table["n"].to_numpy())
    assign.limit(rows, recipe.budget["rows"], recipe.budget["tokens"])


def _texts(con: duckdb.DuckDBPyConnection, stage: Stage, rows: RowTable) -> Iterator[pa.Array]:
    """Yield the texts to compare, null for rows that are already left out."""
    cursor = con.cursor()
    name = stage.register(cursor, list(stage.columns))
    reader = cursor.sql(f"SELECT {stage.roles.near} AS t FROM {name}").to_arrow_reader(_TEXTS)
    alive, position = np.asarray(rows.split >= 0), 0
    for batch in reader:
        column = batch.column(0)
        is_alive = pa.array(alive[position : position + len(column)])
        position += len(column)
        yield pc.if_else(is_alive, column, pa.scalar(None, column.type))


def _micros(moment_text: str | None) -> int | None:
    if moment_text is None:
        return None
    moment = datetime.fromisoformat(moment_text)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
