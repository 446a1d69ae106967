"""All rows, in the order of the table."""

from __future__ import annotations

from tests.torture import (
    calls,
    clocks,
    consumers,
    contests,
    corruptions,
    cuts,
    erasures,
    followed,
    forgeries,
    full,
    fuzz,
    images,
    kills,
    leaks,
    lives,
    lookalikes,
    planted,
    queries,
    repairs,
    rotation,
    sealed,
    sequences,
    shared,
    vanished,
    viewed,
    whole,
    years,
)
from tests.torture.case import Row

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        *kills.ROWS,
        *images.ROWS,
        *cuts.ROWS,
        *calls.ROWS,
        *full.ROWS,
        *corruptions.ROWS,
        *sealed.ROWS,
        *contests.ROWS,
        *sequences.ROWS,
        *shared.ROWS,
        *followed.ROWS,
        *rotation.ROWS,
        *lives.ROWS,
        *repairs.ROWS,
        *vanished.ROWS,
        *lookalikes.ROWS,
        *viewed.ROWS,
        *years.ROWS,
        *fuzz.ROWS,
        *clocks.ROWS,
        *leaks.ROWS,
        *consumers.ROWS,
        *forgeries.ROWS,
        *queries.ROWS,
        *erasures.ROWS,
        *whole.ROWS,
        *planted.ROWS,
    )
}
