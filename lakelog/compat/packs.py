"""Packs: the rows of one segment in memory, compact, and quick to search by time, type and source.

Rows are stored in compressed blocks of 512; next to them, ordered by time, are their times and the
codes of their types and sources. A look-up decodes only the blocks that hold its rows. The ids of a
segment's rows are sorted separately, and only once an id is looked up.
"""

from __future__ import annotations

from collections import OrderedDict

from lakelog import segments
from lakelog.compat import omega
from lakelog.entries import SegmentEntry
from lakelog.libraries import duckdb, np, pa
from lakelog.store import Store
from lakelog.values import JsonObject

# A look-up decodes whole blocks: smaller ones compress worse, larger ones decode rows that nobody
# asked for.
BLOCK = 512
# Blocks of a pack that stay decoded: pages that follow each other lie in the same ones.
_DECODED_MAX = 64
_DENSE = 4
"""Rows this near to each other are decoded together with those between."""
COLUMNS = ["time", "type", "source", "data", "id", "ingested_at", "origin", "position"]
IDENTITY = ["source", "id", "origin", "position"]
PackRow = tuple[int, int]
"""(time in us, row) of an event in a pack."""


class Pack:
    """The rows of one segment, or of the tail; `bytes` is their size in memory."""

    def __init__(self, table: pa.Table, order: np.ndarray) -> None:

        # One chunk, so that a row's number says its block.
        table = table.select(COLUMNS).combine_chunks()
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=BLOCK)
        buffer = sink.getvalue()
        self._blocks = pa.ipc.open_file(buffer)
        self._decoded: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        time = table["time"].cast("int64").to_numpy()
        # By time, and of equal times by the order of arrival.
        time_order = np.lexsort((order, time))
        # 32 bits: a segment never has more rows.
        self._rows, self._times = time_order.astype(np.int32), time[time_order]
        self._codes = {
            name: _dictionary_codes(table[name], time_order) for name in ("type", "source")
        }
        # Events of the older system's own bookkeeping were no events there: they are left out
        # unless their type is asked for.
        self._own = np.isin(self._codes["type"][0], [self._code("type", n) for n in omega.OWN])
        arrays = (self._rows, self._times, *(codes for codes, _ in self._codes.values()))
        # For the limit of memory; what Python itself takes is not counted.
        self.bytes = buffer.size + sum(array.nbytes for array in arrays)
        self.newest = int(self._times[-1]) if len(time_order) else -(2**63)

    def newest_places(
        self, limit: int, low: int, high: int, type: str | None, source: str | None
    ) -> list[PackRow]:
        """Return the newest rows with a time from `low` up to `high`, newest first."""
        start = int(np.searchsorted(self._times, low))
        stop = int(np.searchsorted(self._times, high, "right"))
        fits = ~self._own[start:stop] if type is None else np.ones(stop - start, bool)
        for name, value in (("type", type), ("source", source)):
            if value is not None:
                fits &= self._codes[name][0][start:stop] == self._code(name, value)
        # Times are ascending, so the newest are at the end.
        matches = np.flatnonzero(fits)[-limit:] + start
        times, rows = self._times[matches].tolist(), self._rows[matches].tolist()
        return list(zip(times, rows, strict=True))[::-1]

    def span(self) -> list[int]:
        """Return the times of the oldest and the newest row, of none where there is none."""
        times = self._times[~self._own]
        return [int(times[0]), int(times[-1])] if len(times) else []

    def row(self, place: int) -> JsonObject:
        """Return the columns of one row; times as integers, us."""
        return self.rows([place])[0]

    def rows(self, places: list[int]) -> list[JsonObject]:
        """Return the columns of rows, in the order asked for."""
        blocks: dict[int, list[int]] = {}
        for place in places:
            blocks.setdefault(place // BLOCK, []).append(place % BLOCK)
        by_place: dict[int, dict[str, object]] = {}
        for number, offsets in blocks.items():
            columns = self._block(number)
            low, high = min(offsets), max(offsets)
            # Converting a slice at once is faster than row by row, as long as few of its rows are
            # superfluous.
            if high - low < _DENSE * len(offsets):
                slices = [c.slice(low, high + 1 - low).to_pylist() for c in columns.values()]
                rows = ([values[offset - low] for values in slices] for offset in offsets)
            else:
                rows = ([c[offset].as_py() for c in columns.values()] for offset in offsets)
            for offset, row in zip(offsets, rows, strict=True):
                by_place[number * BLOCK + offset] = dict(zip(columns, row, strict=True))
        return [by_place[place] for place in places]

    def _block(self, number: int) -> pa.Table:
        columns = self._decoded.get(number)
        if columns is None:
            batch = self._blocks.get_batch(number)
            columns = {
                name: column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
                for name, column in zip(COLUMNS, batch.columns, strict=True)
            }
            # The least recently asked for goes first, as they stand in order.
            self._decoded[number] = columns
            while len(self._decoded) > _DECODED_MAX:
                self._decoded.popitem(last=False)
        return columns

    def _code(self, name: str, value: str) -> int:
        # Not -1, which is the code of null: a value that is not there must match nothing.
        return self._codes[name][1].get(value, -2)


def read(store: Store, entry: SegmentEntry) -> Pack:
    """Pack a segment. Raises DamagedSegment."""
    store.verified.require([entry])
    # Only sorted segments have the column; in all others rows lie in the order of arrival.
    names = [*COLUMNS, "seq"] if entry.layout == "sorted" else COLUMNS
    table = segments.Segment(store.paths, entry.key).read(names)
    order = np.arange(table.num_rows, dtype=np.int64)
    return Pack(table, table["seq"].to_numpy() if "seq" in names else order)


def identities(
    store: Store, entry: SegmentEntry, connection: duckdb.DuckDBPyConnection
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted ids of a segment's events and their rows. Raises DamagedSegment."""
    store.verified.require([entry])
    columns = [*IDENTITY, "type"]
    return numbers(segments.Segment(store.paths, entry.key).read(columns), connection)


def numbers(
    table: pa.Table, connection: duckdb.DuckDBPyConnection
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted ids of rows and where each row is."""
    with connection.cursor() as cursor:
        cursor.register("identities", table)
        own_types = ", ".join(f"'{name}'" for name in omega.OWN)
        # Marks are no events of the old table: -1 is no number of one.
        number = f"CASE WHEN type IN ({own_types}) THEN -1 ELSE {omega.NUMBER} END"
        ids = cursor.sql(f"SELECT {number} FROM identities").to_arrow_table()[0].to_numpy()
    # Stable, so that the first of equal numbers is found, as in the table.
    id_order = np.argsort(ids, kind="stable")
    return ids[id_order], id_order.astype(np.int32)


def _dictionary_codes(
    column: pa.ChunkedArray, time_order: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """Codes of a column's values in order of time, and what they stand for; null is -1."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    names = {name: code for code, name in enumerate(encoded.dictionary.to_pylist())}
    # Most columns have few values: two bytes a row instead of four.
    return codes[time_order].astype(np.int16 if len(names) < 2**15 else np.int32), names
