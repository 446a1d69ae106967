"""From a selection to rows: every shape gives its columns and the hidden ones that splits need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.errors import ExportRefused
from lakelog.libraries import pa
from lakelog.train.losses import Losses
from lakelog.train.recipe import NEAR_DEFAULT, Recipe
from lakelog.train.recipe_schema import TEXTUAL
from lakelog.train.selection import RowQuery, column_of, quoted
from lakelog.train.shapes import conversations, preferences, rows, windows

_SQL = {
    "events": rows.events,
    "text": rows.text,
    "classification": rows.classification,
    "decision": windows.decision,
    "sequence": windows.sequence,
    "preference": preferences.preference,
}
_LOST = {
    "text": rows.text_lost,
    "classification": rows.classification_lost,
    "decision": windows.decision_lost,
    "sequence": windows.sequence_lost,
    "preference": preferences.preference_lost,
}
_ORDERED = ("decision", "sequence", "messages")
_BOOKKEEPING = ("seq", "ingested_at", "origin", "position")
_BATCH = 32_768


@dataclass(frozen=True)
class Roles:
    """What the columns of finished files are for; the manifest keeps it for later checks."""

    content: tuple[str, ...]
    near: str | None
    threshold: float | None
    shingle: int
    group: str | None
    time: str | None
    until: str | None
    label: str | None
    text: str | None


def query(selection: RowQuery, recipe: Recipe, losses: Losses) -> tuple[str | None, Any]:
    """Return (SQL, None) over the lake, or (None, an Arrow reader of rows built in Python).

    Events that a shape cannot read are counted in `losses`.
    """
    # Without seq, events of equal time have no order, and a rebuild could give other rows.
    if recipe.kind in _ORDERED and selection.seq.startswith("NULL"):
        raise ExportRefused(
            f"[select] sql: {recipe.kind} needs the order of events; add the column seq to it"
        )
    if recipe.kind == "messages":
        if recipe.shape["role"] is None or recipe.shape["content"] is None:
            return None, conversations.from_payloads(selection, recipe, losses)
        return conversations.from_messages(selection, recipe, losses), None
    # Counted in a query of its own: the rows themselves no longer show what was left out.
    if recipe.kind in _LOST:
        counted = selection.session.sql(
            _LOST[recipe.kind](selection, recipe), digest=selection.digest
        )
        for reason, count in zip(counted.columns, counted.fetchall()[0], strict=True):
            losses.add(reason, count)
    return _SQL[recipe.kind](selection, recipe), None


def finish(sql: str, recipe: Recipe) -> str:
    """Return SQL of the final rows; only conversations need another step."""
    return conversations.trim(sql, recipe) if recipe.kind == "messages" else sql


def reader(selection: RowQuery, sql: str) -> pa.RecordBatchReader:
    """Run the SQL of a shape over the lake."""
    return selection.session.sql(sql, digest=selection.digest).to_arrow_reader(_BATCH)


def roles(recipe: Recipe, columns: list[str]) -> Roles:
    """Return what the columns of a shape are for."""
    shape, exact = recipe.shape, recipe.dedupe["exact"]
    # Bookkeeping columns differ in every event; with them no two rows would ever be equal.
    content = {
        "text": ["text"],
        "classification": ["text"],
        "messages": ["messages"],
        "preference": ["prompt", "chosen", "rejected"],
    }.get(recipe.kind) or [c for c in columns if c not in _BOOKKEEPING]
    if isinstance(exact, list):
        for name in exact:
            if name not in columns:
                raise ExportRefused(
                    f"[dedupe] exact: no column {name!r}; there are {', '.join(columns)}"
                )
        content = exact
    near, threshold = _near(recipe)
    group = recipe.split["group"]
    # These shapes rename the column of `by` to subject.
    if recipe.kind in ("decision", "sequence") and group == shape["by"]:
        group = "subject"
    group = column_of(group) if group else None
    fenced = recipe.split["before"] is not None
    # A role is recorded only if the column is in the files: a check must be able to use it.
    label = {"classification": "label", "sequence": "label", "decision": "outcome"}.get(
        recipe.kind, shape["label"]
    )
    return Roles(
        tuple(content),
        near,
        threshold,
        recipe.dedupe["shingle"],
        group if group in columns else None,
        "time" if fenced and "time" in columns else None,
        "label_time" if fenced and recipe.kind == "decision" else None,
        label if label in columns else None,
        "text" if recipe.kind in ("text", "classification") else shape["text"],
    )


def _near(recipe: Recipe) -> tuple[str | None, float | None]:
    """SQL of the text that is compared, and the threshold; none where nothing is compared."""
    near = recipe.dedupe["near"]
    if near is False or (near is None and recipe.kind not in TEXTUAL):
        return None, None
    column = {
        "messages": "array_to_string(list_transform(messages, lambda m: m.content), ' ')",
        "preference": "concat_ws(' ', prompt::VARCHAR, chosen::VARCHAR)",
        "events": quoted(recipe.shape["text"] or "message") + "::VARCHAR",
    }.get(recipe.kind, "text")
    return column, NEAR_DEFAULT if near is None else float(near)


KEYS_MAX = 200
_WIDER = ("UBIGINT", "BIGINT", "HUGEINT", "DOUBLE")


def structure_of(structures: list[str]) -> str | None:
    """Merge results of `json_structure` into one structure for `from_json`.

    Keys that only some have are null elsewhere; numbers widen; what conflicts stays JSON text, and
    so does an object of more than `KEYS_MAX` keys, which is a map rather than a record.
    """
    widest: object = None
    # Sorted, because merging order decides the order of the struct's fields, and rebuilds must give
    # equal types.
    for structure in sorted(structures):
        widest = _merge(widest, orjson.loads(structure))
    widest = _bound(widest)
    return orjson.dumps(widest).decode() if isinstance(widest, dict) and widest else None


def _merge(a: object, b: object) -> Any:
    if a is None or a == "NULL" or a == b:
        return b
    if b == "NULL":
        return a
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: _merge(a.get(k), b.get(k, "NULL")) for k in (*a, *(k for k in b if k not in a))}
    if isinstance(a, list) and isinstance(b, list):
        return [_merge(a[0] if a else None, b[0] if b else "NULL")]
    if isinstance(a, str) and isinstance(b, str) and a in _WIDER and b in _WIDER:
        return max(a, b, key=_WIDER.index)
    return "JSON"


def _bound(structure: Any) -> Any:
    """Replace what DuckDB cannot hold in a struct, or what no reader wants, by a plain type."""
    if isinstance(structure, dict):
        # DuckDB compares the names of struct fields without case, so keys that differ only in case
        # cannot be fields of one struct.
        is_ambiguous = len({k.lower() for k in structure}) < len(structure)
        if not structure or len(structure) > KEYS_MAX or is_ambiguous:
            return "JSON"
        return {k: _bound(v) for k, v in structure.items()}
    if isinstance(structure, list):
        return [_bound(structure[0] if structure else "JSON")]
    # A field that is null everywhere needs some type, and every reader knows BIGINT.
    return {"NULL": "VARCHAR", None: "VARCHAR", "UBIGINT": "BIGINT"}.get(structure, structure)
