"""The split that each row gets: by keys, groups and time, and apart from what is like it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from lakelog.errors import ExportRefused
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.train import assign, cluster, tokenizer
from lakelog.train.assign import RowTable
from lakelog.train.dataset import SPLIT, Dataset
from lakelog.train.losses import sentence
from lakelog.train.recipe import SPLITS, Recipe
from lakelog.train.recipe_schema import NEEDS, SHAPES
from lakelog.train.selection import column_of, content_hashes, quoted, text_of
from lakelog.train.staging import Stage
from lakelog.train.tables import Array
from lakelog.values import to_micros

_TEXTS = 16_384
_LOOKS = 20


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
        # Rows of one event have equal ranks. A stratum that is null counts as any other.
        " (SELECT unit, min(rank) AS first, min(row) AS place,"
        " arg_min_null(stratum, (rank, row)) AS stratum FROM keys GROUP BY 1)"
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
    units = con.sql("SELECT number, first, place, stratum FROM units ORDER BY n").to_arrow_table()
    numbers = units["number"].to_numpy()
    before = _micros(settings["before"])
    is_grouped = settings["group"] is not None
    # Splits are computed per unit and spread to rows, so the rows of a group cannot be separated.
    if settings["stratify"] is not None:
        order = np.lexsort((units["place"].to_numpy(), units["first"].to_numpy()))
        strata = units["stratum"].to_pylist()
        splits = assign.stratified_splits(strata, order.tolist(), recipe)[rows.unit]
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
    return None if moment_text is None else to_micros(datetime.fromisoformat(moment_text))
