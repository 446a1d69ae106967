"""Shapes whose rows are events one by one: `events`, `text` and `classification`, as SQL."""

from __future__ import annotations

from lakelog.errors import ExportRefused
from lakelog.train.recipe import Recipe
from lakelog.train.selection import RowQuery, column_of, quoted


def member(selection: RowQuery, recipe: Recipe, key: str) -> str:
    """SQL of the column or path that a key of [shape] names."""
    return selection.value(recipe.shape[key], f"[shape] {key}")


def text_member(selection: RowQuery, recipe: Recipe, key: str) -> str:
    """The same as text."""
    return f"({member(selection, recipe, key)})::VARCHAR"


def group_sql(selection: RowQuery, recipe: Recipe) -> str:
    """SQL of the group of a row, null without one."""
    return _split_column(selection, recipe.split["group"], "group")


def stratum_sql(selection: RowQuery, recipe: Recipe) -> str:
    """SQL of the stratum of a row, null without one."""
    stratum = recipe.split["stratify"]
    if stratum == "label" and recipe.kind in ("events", "classification"):
        stratum = recipe.shape["label"] or stratum
    return _split_column(selection, stratum, "stratify")


def _split_column(selection: RowQuery, name: str | None, key: str) -> str:
    return f"({selection.value(name, f'[split] {key}') if name else 'NULL'})::VARCHAR"


def rows_sql(
    selection: RowQuery, recipe: Recipe, columns: list[str], condition: str, source: str = ""
) -> str:
    """SQL of rows that are one event each: their columns, and the hidden ones of every shape."""
    seq, time = selection.seq, f"{selection.time}::TIMESTAMPTZ"
    return (
        f"SELECT {', '.join(columns)}, [{seq}]::BIGINT[] AS __seqs, {time} AS __time,"
        f" {time} AS __until, {group_sql(selection, recipe)} AS __group,"
        f" {stratum_sql(selection, recipe)} AS __stratum, {seq}::BIGINT AS __at"
        f" FROM ({source or selection.sql}) WHERE {condition}"
    )


def events(selection: RowQuery, recipe: Recipe) -> str:
    """The columns of the selection as they are, and the group where that is a path."""
    columns, group = [quoted(name) for name in selection.columns], recipe.split["group"]
    if group not in (None, *selection.columns) and column_of(group) in selection.columns:
        # A check of the files would take that column for the group.
        raise ExportRefused(
            f"[split] group: {group}: rows have another column {column_of(group)!r}: give this one"
            " another name in [select] sql"
        )
    for key in ("group", "stratify"):
        name = recipe.split[key]
        if name is not None and column_of(name) not in selection.columns:
            value = selection.value(name, f"[split] {key}")
            columns.append(f"{value} AS {quoted(column_of(name))}")
    return rows_sql(selection, recipe, columns, "true")


def text(selection: RowQuery, recipe: Recipe) -> str:
    """A column `text`, and what is kept beside it; rows without text are left out."""
    message = text_member(selection, recipe, "text")
    columns = [f"{message} AS text", *carry_columns(selection, recipe, {"text"})]
    return rows_sql(selection, recipe, columns, f"trim({message}) <> ''")


def classification(selection: RowQuery, recipe: Recipe) -> str:
    """Columns `text` and `label`; rows without either are left out."""
    message, label = (text_member(selection, recipe, key) for key in ("text", "label"))
    carried = carry_columns(selection, recipe, {"text", "label"})
    columns = [f"{message} AS text", f"{label} AS label", *carried]
    return rows_sql(selection, recipe, columns, f"trim({message}) <> '' AND {label} IS NOT NULL")


def text_lost(selection: RowQuery, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events that `text` leaves out."""
    is_blank = _is_blank(text_member(selection, recipe, "text"))
    return f"SELECT count(*) FILTER ({is_blank}) AS no_text FROM ({selection.sql})"


def classification_lost(selection: RowQuery, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events that `classification` leaves out."""
    is_blank = _is_blank(text_member(selection, recipe, "text"))
    return (
        f"SELECT count(*) FILTER ({is_blank}) AS no_text,"
        f" count(*) FILTER (NOT {is_blank} AND ({member(selection, recipe, 'label')}) IS NULL)"
        f" AS no_label FROM ({selection.sql})"
    )


def _is_blank(message: str) -> str:
    return f"(coalesce(trim({message}), '') = '')"


def carry_columns(selection: RowQuery, recipe: Recipe, own_columns: set[str]) -> list[str]:
    """Columns of `keep`, and those that a check of the finished files needs: group and time."""
    columns = {
        column_of(name): selection.value(name, "[shape] keep") for name in recipe.shape["keep"]
    }
    # The group and the stratum become columns of the files, so that a check can verify the split.
    for key in ("group", "stratify"):
        name = recipe.split[key]
        if name is not None and column_of(name) not in own_columns:
            columns.setdefault(column_of(name), selection.value(name, f"[split] {key}"))
    if recipe.split["before"] is not None:
        columns.setdefault("time", selection.time)
    return [
        f"{value} AS {quoted(name)}" for name, value in columns.items() if name not in own_columns
    ]
