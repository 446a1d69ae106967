"""Writing batches of rows, and setting those aside that a target refuses for what is in them.

A batch that is refused is divided until single rows are left: those go to the quarantine of the
lake, with the reason, and all others are written. What is refused for another reason, such as a
missing right, stops the sync as before.
"""

from __future__ import annotations

from typing import Any

import orjson

from lakelog.errors import InvalidSetting, SyncRefused
from lakelog.lake import Lake
from lakelog.libraries import pa
from lakelog.sync.row_reader import UnconvertedRow
from lakelog.sync.target import KEY, RowRefused, SyncTarget

ON_ERROR = ("stop", "quarantine")
_MOST = 1_000
"""So many rows of a batch may be set aside: if more are refused, it is not for one of them."""


class RowWriter:
    """Writes rows of one table; with `sets_aside` refused ones are kept for the quarantine."""

    def __init__(
        self, lake: Lake, target: SyncTarget, table: str, *, keyed: bool, sets_aside: bool
    ) -> None:
        if sets_aside and not target.can_set_aside:
            raise InvalidSetting(
                f"{target.address} cannot undo a part of a batch, so that refused rows cannot be"
                " set aside: use --on-error stop"
            )
        self._lake, self._target, self._table = lake, target, table
        self._keyed, self._sets_aside = keyed, sets_aside
        self._refused: list[tuple[str, int, str, str]] = []
        self._known: set[tuple[int, str]] = set()

    def write(self, rows: pa.Table) -> int:
        """Write rows; return how many. Raises SyncRefused, ConnectionLost."""
        if not self._sets_aside:
            self._target.write(self._table, rows, self._keyed)
            return int(rows.num_rows)
        try:
            with self._target.attempt():
                self._target.write(self._table, rows, self._keyed)
            return int(rows.num_rows)
        except RowRefused as error:
            if rows.num_rows == 1:
                self._set_aside(rows.to_pylist()[0], str(error))
                return 0
        half = rows.num_rows // 2
        return self.write(rows.slice(0, half)) + self.write(rows.slice(half))

    def refuse(self, row: UnconvertedRow) -> None:
        """Set a row aside that cannot be converted. Raises RowRefused where that is not wanted."""
        place = f"{self._target.address}, table {self._table}, {KEY} {row.values.get(KEY)}"
        if not self._sets_aside:
            raise RowRefused(
                f"{place}: {row.problem}: change the column in the query, or use --on-error"
                " quarantine; this batch was not written"
            )
        self._set_aside(row.values, f"{place}: {row.problem}")

    def begin(self) -> None:
        """Forget what an earlier batch has set aside, which was not committed."""
        self._refused.clear()

    def flush(self) -> int:
        """Put refused rows into the quarantine, once each; return how many. Call it before the
        commit: what happens in between may repeat them, but loses none."""
        fresh = [line for line in self._refused if (line[1], line[3]) not in self._known]
        if fresh:
            self._lake.quarantine(fresh)
        self._known.update((line[1], line[3]) for line in fresh)
        self._refused.clear()
        return len(fresh)

    def _set_aside(self, row: dict[str, Any], reason: str) -> None:
        if len(self._refused) >= _MOST:
            raise SyncRefused(f"more than {_MOST:,} rows of a batch were refused: {reason}")
        line = orjson.dumps(row, default=str).decode()
        origin = f"sync {self._target.address} {self._table}"
        self._refused.append((origin, int(row.get(KEY, 0)), reason, line))
