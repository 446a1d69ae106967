"""The decisions of a recipe whose outcome is not known yet: what a model is asked about.

They are the rows that an export of the shape `decision` leaves out because their window is not
over, redacted as the rows of a set are, without the columns of an outcome.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lakelog.errors import InvalidRecipe
from lakelog.libraries import pa
from lakelog.train import recipe as recipes
from lakelog.train import redact, scratch
from lakelog.train.recipe import Recipe
from lakelog.train.selection import RowQuery, choose, session_of
from lakelog.train.shapes import windows

if TYPE_CHECKING:
    from lakelog.lake import Lake
_BATCH = 8_192


def undecided(lake: Lake, recipe: object, ref: str | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the decisions of a state, the present one or that of a tag or time, that have no
    outcome yet: `subject`, `time`, `context`, `options`, `chosen`, what the recipe keeps, and the
    event's number as `__at`; in the order of their times.

    Raises InvalidRecipe for another shape than `decision`, ExportRefused, QueryFailed.
    """
    checked = recipes.load(recipe)
    if checked.kind != "decision":
        raise InvalidRecipe(
            f"{checked.where}: decisions need [shape] kind = 'decision', not {checked.kind!r}"
        )
    # The state that a set was made of is past: now another one is asked.
    checked = dataclasses.replace(checked, select={**checked.select, "at": ref})
    key = redact.key_of(checked)
    session = session_of(lake, checked, scratch.MEMORY_BYTES)
    try:
        yield from _redacted(choose(lake, checked, session), checked, key)
    finally:
        session.close()


def _redacted(selection: RowQuery, recipe: Recipe, key: bytes) -> Iterator[pa.RecordBatch]:
    sql = windows.undecided(selection, recipe)
    relation = selection.session.sql(f"SELECT * FROM ({sql}) LIMIT 0", digest=selection.digest)
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    kinds = recipe.redact["kinds"]
    columns = redact.text_columns(types) if kinds else []
    query = selection.session.sql(redact.with_hints(sql, columns, kinds), digest=selection.digest)
    with tempfile.TemporaryDirectory(prefix="lakelog-") as spill:
        cleaner = redact.Cleaner(scratch.connect(spill), types, columns, recipe, key)
        yield from cleaner.batches(query.to_arrow_reader(_BATCH))
