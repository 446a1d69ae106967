"""Shapes whose rows are events one by one: `events`, `text` and `classification`, as SQL."""

from __future__ import annotations

from lakelog.train.recipe import Recipe
from lakelog.train.selection import Selection, column_of, quoted


def events(selection: Selection, recipe: Recipe) -> str:
    """The columns of the selection as they are, and the group where that is a path."""
    columns = [quoted(name) for name in selection.columns]
    for key in ("group", "stratify"):
        name = recipe.split[key]
        if name is not None and column_of(name) not in selection.columns:
            value = selection.value(name, f"[split] {key}")
            columns.append(f"{value} AS {quoted(column_of(name))}")
    return _rows(selection, recipe, columns, "true")


def text(selection: Selection, recipe: Recipe) -> str:
    """A column `text`, and what is kept beside it; rows without text are left out."""
    text_sql = f"({selection.value(recipe.shape['text'], '[shape] text')})::VARCHAR"
    columns = [f"{text_sql} AS text", *carry_columns(selection, recipe, {"text"})]
    return _rows(selection, recipe, columns, f"trim({text_sql}) <> ''")


def classification(selection: Selection, recipe: Recipe) -> str:
    """Columns `text` and `label`; rows without either are left out."""
    text_sql = f"({selection.value(recipe.shape['text'], '[shape] text')})::VARCHAR"
    label = f"({selection.value(recipe.shape['label'], '[shape] label')})::VARCHAR"
    columns = [
        f"{text_sql} AS text",
        f"{label} AS label",
        *carry_columns(selection, recipe, {"text", "label"}),
    ]
    return _rows(selection, recipe, columns, f"trim({text_sql}) <> '' AND {label} IS NOT NULL")


def text_lost(selection: Selection, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events that `text` leaves out."""
    text_sql = f"({selection.value(recipe.shape['text'], '[shape] text')})::VARCHAR"
    return f"SELECT count(*) FILTER ({_blank(text_sql)}) AS no_text FROM ({selection.sql})"


def classification_lost(selection: Selection, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events that `classification` leaves out."""
    text_sql = f"({selection.value(recipe.shape['text'], '[shape] text')})::VARCHAR"
    label = selection.value(recipe.shape["label"], "[shape] label")
    return (
        f"SELECT count(*) FILTER ({_blank(text_sql)}) AS no_text,"
        f" count(*) FILTER (NOT {_blank(text_sql)} AND ({label}) IS NULL) AS no_label"
        f" FROM ({selection.sql})"
    )


def _blank(text_sql: str) -> str:
    return f"(coalesce(trim({text_sql}), '') = '')"


def carry_columns(selection: Selection, recipe: Recipe, own_columns: set[str]) -> list[str]:
    """Columns of `keep`, and those that a check of the finished files needs: group and time."""
    columns: dict[str, str] = {}
    for name in recipe.shape["keep"]:
        columns[column_of(name)] = selection.value(name, "[shape] keep")
    group = recipe.split["group"]
    if group is not None:
        # The group and the stratum become columns of the files, so that a check can verify the
        # split.
        columns.setdefault(column_of(group), selection.value(group, "[split] group"))
    stratum = recipe.split["stratify"]
    if stratum is not None and column_of(stratum) not in own_columns:
        columns.setdefault(column_of(stratum), selection.value(stratum, "[split] stratify"))
    if recipe.split["before"] is not None:
        columns.setdefault("time", selection.time)
    return [
        f"{value} AS {quoted(name)}" for name, value in columns.items() if name not in own_columns
    ]


def _rows(selection: Selection, recipe: Recipe, columns: list[str], where: str) -> str:
    group, stratum = recipe.split["group"], recipe.split["stratify"]
    grouped = selection.value(group, "[split] group") if group else "NULL"
    column = recipe.shape["label"] if stratum == "label" and recipe.shape["label"] else stratum
    strata = selection.value(column, "[split] stratify") if column else "NULL"
    hidden = (
        f"[{selection.seq}]::BIGINT[] AS __seqs, {selection.time}::TIMESTAMPTZ AS __time,"
        f" {selection.time}::TIMESTAMPTZ AS __until, ({grouped})::VARCHAR AS __group,"
        f" ({strata})::VARCHAR AS __stratum, {selection.seq}::BIGINT AS __at"
    )
    return f"SELECT {', '.join(columns)}, {hidden} FROM ({selection.sql}) WHERE {where}"
