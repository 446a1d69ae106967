"""What a shape could not represent, by reason; losing whole rows needs the recipe's consent.

`ROWS` are reasons to leave out an event or a conversation; `[shape] drop` consents to them by name,
as `[filter] drop` does to `FILTERS`. `SHAPED` are events that by definition do not form a row,
`PARTS` are parts that the remaining rows lack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from lakelog.errors import ExportRefused
from lakelog.libraries import pa, pc
from lakelog.train.tables import JsonMap, read_table

_REASONS = read_table("losses.toml")
ROWS: dict[str, str] = _REASONS["rows"]
FILTERS: dict[str, str] = _REASONS["filters"]
SHAPED: dict[str, str] = _REASONS["shaped"]
PARTS: dict[str, str] = _REASONS["parts"]
WORDS = {**ROWS, **FILTERS, **SHAPED, **PARTS}
REASON, LOST = "__reason", "__lost"
"""Hidden columns: why a row is left out, and a JSON object of what a row is without."""


class Losses:
    """Counts by reason, with the first event of each where it is known."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: JsonMap = {}

    def add(self, reason: str, count: int = 1, example: object = None) -> None:
        """Count a loss; `example` says where it occurred, such as `seq 17`."""
        if count:
            self.counts[reason] += count
            if example is not None:
                self._first.setdefault(reason, example)

    def drop_incomplete(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows without a reason to drop them; count the others and all lost parts."""
        for batch in batches:
            reasons = batch.column(batch.schema.get_field_index(REASON))
            complete = pc.is_null(reasons)
            if reasons.null_count < len(reasons):
                self._count_rows(batch, reasons)
                batch = batch.filter(complete)
            # After the filter: parts of rows that are dropped anyway are not counted a second time.
            lost_parts = batch.column(batch.schema.get_field_index(LOST))
            for counts_json in lost_parts.drop_null().to_pylist():
                for reason, count in orjson.loads(counts_json).items():
                    self.add(reason, count)
            yield batch

    def _count_rows(self, batch: pa.RecordBatch, reasons: Any) -> None:
        names = batch.column(batch.schema.get_field_index("conversation"))
        for reason, name in zip(reasons.to_pylist(), names.to_pylist(), strict=True):
            if reason is not None:
                self.add(reason, 1, f"conversation {name}" if name is not None else None)

    def require_consent(self, consent: list[str], section: str, reasons: dict[str, str]) -> None:
        """Raise ExportRefused where whole rows would be lost for a reason that `consent` lacks,
        which is what `drop` of a section of the recipe lists."""
        refused = [r for r in reasons if self.counts[r] and r not in consent]
        if not refused:
            return
        details = "; ".join(
            f"{reasons[r]} ({self.counts[r]:,}"
            + (f", the first is {self._first[r]})" if r in self._first else ")")
            for r in refused
        )
        # The line to paste keeps the reasons that are already accepted.
        accepted = orjson.dumps([r for r in reasons if r in refused or r in consent]).decode()
        raise ExportRefused(
            f"rows would be lost: {details}; exclude them in [select] sql,"
            f" or accept the loss with [{section}] drop = {accepted}"
        )


def sentence(counts: dict[str, int]) -> str:
    """Return counts by reason in words; empty if nothing was lost."""
    return "; ".join(f"{WORDS.get(reason, reason)} ({n:,})" for reason, n in counts.items() if n)
