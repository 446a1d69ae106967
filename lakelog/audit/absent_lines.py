"""What became of lines of a file without a row in the lake: they are known, let go, or missing."""

from __future__ import annotations

import time
from collections.abc import Callable

from lakelog.audit.file_audit import FileAudit
from lakelog.audit.stored_rows import StoredRows
from lakelog.libraries import np, pa


class AbsentLines:
    """Counts them for the account of one file; `line` is a retention's cutoff, in us, `refused`
    says which rows the lake's erasures leave out."""

    origin = ""
    """That of the file's rows."""

    def __init__(
        self,
        file: FileAudit,
        number: int,
        places: StoredRows,
        line: int | None,
        refused: Callable[[pa.Table], np.ndarray],
    ) -> None:
        self._file, self._number, self._places, self._line = file, number, places, line
        self._refused = refused
        self._started = time.time_ns() // 1000

    def decide(self, table: pa.Table, places: np.ndarray) -> None:
        """Count lines that were erased and those whose id is known; give the others up."""
        # Before their ids, as the key of an erased event stays.
        stays = ~self._erased(places, table)
        table, places = table.filter(pa.array(stays)), places[stays]
        unknown = np.ones(len(places), dtype=bool)
        keyed = np.flatnonzero(np.asarray(table["key"].is_valid()))
        if len(keyed):
            is_known = self._places.ask(self._number, places[keyed], table["key"].drop_null())
            unknown[keyed[is_known]] = False
            self._file.known += int(is_known.sum())
            # A key outlives its row in the runs, so where a dedupe ran an equal row may have
            # replaced it: checked at the end, in one scan for all files.
            if self._places.deduped and self._line is None:
                self._places.compare(
                    self._number, places[keyed[is_known]], table.take(keyed[is_known]), False
                )
        times = np.asarray(table["time"].cast("int64"))
        self.give_up(places[unknown], times[unknown], table.filter(unknown))

    def _erased(self, places: np.ndarray, table: pa.Table | None = None) -> np.ndarray:
        """Count lines as let go that were erased, or were refused as they had been; return which
        they are."""
        columns = dict(zip(table.column_names, table.columns, strict=True)) if table else {}
        columns["origin"] = pa.array([self.origin] * len(places), pa.string())
        erased = self._refused(pa.table({**columns, "position": places}))
        self._file.let_go += int(erased.sum())
        return erased

    def give_up(
        self, places: np.ndarray, times: np.ndarray | None = None, table: pa.Table | None = None
    ) -> None:
        """Count lines as missing, unless a retention or a dedupe may have removed them, or they are
        no events and were erased."""
        if table is None:
            places = places[~self._erased(places)]
        let_go = np.zeros(len(places), dtype=bool)
        timeless = let_go
        if times is not None:
            # The exact rule gives events without a time that of this audit, which is how they are
            # recognised.
            timeless = (times >= self._started) & (times <= time.time_ns() // 1000)
        # The cutoff applies to the time of the row; that of a line without one was when it was
        # ingested, which is gone.
        if self._line is not None:
            let_go = ~let_go if times is None else (times < self._line) | timeless
        if any("time" in key.names for key in self._places.deduped):
            let_go = let_go | timeless  # the time of its row is unknown now
        remaining = ~let_go
        if table is not None and self._places.deduped and remaining.any():
            self._places.compare(self._number, places[remaining], table.filter(remaining), True)
            let_go[:] = True  # until unequalled() says otherwise
        self._file.let_go += int(let_go.sum())
        self._file.note("missing", places[~let_go])

    def unknown(self, position: int) -> None:
        """Correct a line that was counted as known: no row has its id."""
        self._file.known -= 1
        if self._line is None and not self._places.deduped:
            self._file.note("missing", [position])
        else:
            self._file.let_go += 1

    def unequalled(self, position: int) -> None:
        """Correct a line that was counted as removed by a dedupe: no row is equal to it."""
        self._file.let_go -= 1
        self._file.note("missing", [position])
