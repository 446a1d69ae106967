"""Shapes whose rows are events one by one: `events`, `text` and `classification`, as SQL."""

from __future__ import annotations

from lakelog.train.recipe import Recipe
from lakelog.train.selection import Selection, column_of, quoted


def events(selection: Selection, recipe: Recipe) -> str:
    """The columns of the selection as they are, and the group where that is a path."""
    kept = [quoted(name) for name in selection.columns]
    for key in ("group", "stratify"):
        name = recipe.split[key]
        if name is not None and column_of(name) not in selection.columns:
            value = selection.value(name, f"[split] {key}")
            kept.append(f"{value} AS {quoted(column_of(name))}")
    return _rows(selection, recipe, kept, "true")


def text(selection: Selection, recipe: Recipe) -> str:
    """A column `text`, and what is kept beside it; rows without text are left out."""
    said = f"({selection.value(recipe.shape['text'], '[shape] text')})::VARCHAR"
    kept = [f"{said} AS text", *carried(selection, recipe, {"text"})]
    return _rows(selection, recipe, kept, f"trim({said}) <> ''")


def classification(selection: Selection, recipe: Recipe) -> str:
    """Columns `text` and `label`; rows without either are left out."""
    said = f"({selection.value(recipe.shape['text'], '[shape] text')})::VARCHAR"
    label = f"({selection.value(recipe.shape['label'], '[shape] label')})::VARCHAR"
    kept = [f"{said} AS text", f"{label} AS label", *carried(selection, recipe, {"text", "label"})]
    return _rows(selection, recipe, kept, f"trim({said}) <> '' AND {label} IS NOT NULL")


def text_lost(selection: Selection, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events that `text` leaves out."""
    said = f"({selection.value(recipe.shape['text'], '[shape] text')})::VARCHAR"
    return f"SELECT count(*) FILTER ({_blank(said)}) AS no_text FROM ({selection.sql})"


def classification_lost(selection: Selection, recipe: Recipe) -> str:
    """SQL that counts, by reason, the events that `classification` leaves out."""
    said = f"({selection.value(recipe.shape['text'], '[shape] text')})::VARCHAR"
    label = selection.value(recipe.shape["label"], "[shape] label")
    return (
        f"SELECT count(*) FILTER ({_blank(said)}) AS no_text,"
        f" count(*) FILTER (NOT {_blank(said)} AND ({label}) IS NULL) AS no_label"
        f" FROM ({selection.sql})"
    )


def _blank(said: str) -> str:
    return f"(coalesce(trim({said}), '') = '')"


def carried(selection: Selection, recipe: Recipe, taken: set[str]) -> list[str]:
    """Columns of `keep`, and those that a check of the finished files needs: group and time."""
    kept: dict[str, str] = {}
    for name in recipe.shape["keep"]:
        kept[column_of(name)] = selection.value(name, "[shape] keep")
    group = recipe.split["group"]
    if group is not None:
        kept.setdefault(column_of(group), selection.value(group, "[split] group"))
    stratum = recipe.split["stratify"]
    if stratum is not None and column_of(stratum) not in taken:
        kept.setdefault(column_of(stratum), selection.value(stratum, "[split] stratify"))
    if recipe.split["before"] is not None:
        kept.setdefault("time", selection.time)
    return [f"{value} AS {quoted(name)}" for name, value in kept.items() if name not in taken]


def _rows(selection: Selection, recipe: Recipe, kept: list[str], where: str) -> str:
    group, stratum = recipe.split["group"], recipe.split["stratify"]
    grouped = selection.value(group, "[split] group") if group else "NULL"
    shown = recipe.shape["label"] if stratum == "label" and recipe.shape["label"] else stratum
    strata = selection.value(shown, "[split] stratify") if shown else "NULL"
    hidden = (
        f"[{selection.seq}]::BIGINT[] AS __seqs, {selection.time}::TIMESTAMPTZ AS __time,"
        f" {selection.time}::TIMESTAMPTZ AS __until, ({grouped})::VARCHAR AS __group,"
        f" ({strata})::VARCHAR AS __stratum, {selection.seq}::BIGINT AS __at"
    )
    return f"SELECT {', '.join(kept)}, {hidden} FROM ({selection.sql}) WHERE {where}"
