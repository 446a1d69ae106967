"""Look-ups in the older event store's table, in a process that has the lake open.

    table = Lookups(lake)
    table.between(start, end, event_type="FAIL", source="Podcast001", limit=100)
    table.find(number)
    table.stats()

Rows are dicts with the columns of `omega.events`, newest first; `data_json` is text, times are
seconds since 1970. Each answer is that of the branch when it is asked, live events included.
Decoded rows are cached within a quarter of the setting memory_bytes, else of 1 GB, answers until
the branch moves; older rows are read again when they are needed.
"""

from __future__ import annotations

import heapq
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from lakelog import query as queries
from lakelog.compat import omega, packs
from lakelog.compat.omega import EventRow
from lakelog.compat.packs import Pack
from lakelog.entries import Counts, SegmentEntry
from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.libraries import np, pa, pc
from lakelog.maintain import Stats
from lakelog.values import JsonObject
from lakelog.wal import Tail

# Answers hold until the branch moves; a page that asks for ever new ones must not fill the memory.
_ANSWERS = 256
_LOWEST, _HIGHEST = -(2**62), 2**62
"""Beyond all times that events can have."""
_LIVE = "live"
Ids = tuple["np.ndarray", "np.ndarray"]


class Lookups:
    """Quick look-ups on one branch of an open lake. Threads may share it."""

    def __init__(self, lake: Lake) -> None:
        store = lake.store
        self._lake, self._store = lake, store
        self._tail = Tail(store.paths, store.refs, lake.branch_name)
        self._rows = queries.TailRows(store, lake.engine)
        self._packs: OrderedDict[str, Pack] = OrderedDict()
        self._ids: dict[str, Ids] = {}
        self._entries: list[SegmentEntry] = []
        self._by_key: dict[str, SegmentEntry] = {}
        self._live: tuple[pa.Table | None, Pack | None] = None, None
        # The digest and the tail's table: together they are what an answer is of.
        self._state: tuple[str, object] = "", None
        self._answers: dict[object, Any] = {}
        # A quarter of the lake's limit: the engine of the same process needs the rest.
        self._memory_max = store.settings.task_memory // 4
        # Reentrant: an answer asks for others, such as the processed ids.
        self._mutex = threading.RLock()

    def between(
        self,
        start_time: float | None = None,
        end_time: float | None = None,
        event_type: str | None = None,
        source: str | None = None,
        limit: int = 1000,
    ) -> list[EventRow]:
        """Return the newest events from a start up to an end, seconds since 1970.

        Raises InvalidSetting for a limit below 1.
        """
        if limit < 1:
            raise InvalidSetting(f"the limit is at least 1, not {limit}")
        # Rounded, not cut: a float of seconds lies a little beside the microsecond that it means.
        low = _LOWEST if start_time is None else round(start_time * 1e6)
        high = _HIGHEST if end_time is None else round(end_time * 1e6)

        def look() -> list[EventRow]:
            # All rows of a segment are decoded together, and then put back in the order of their
            # time.
            places_by_segment = self._newest(limit, low, high, event_type, source)
            places: dict[str, list[int]] = {}
            for key, place in places_by_segment:
                places.setdefault(key, []).append(place)
            rows_by_segment = {
                key: iter(self._pack(key).rows(segment_places))
                for key, segment_places in places.items()
            }
            return [self._old_row(next(rows_by_segment[key])) for key, _ in places_by_segment]

        rows: list[EventRow] = self._answer((low, high, event_type, source, limit), look)
        # Copies: the answer stays here, and callers change what they are given.
        return [dict(row) for row in rows]

    def find(self, number: int) -> EventRow | None:
        """Return the event of an id, or None."""
        with self._mutex:
            self._refresh()
            # Numbers are hashes: no statistics of segments can tell where one is.
            for key in self._keys():
                # Sorted ids, so a look-up is a binary search for each segment, without decoding a
                # row.
                values, rows = self._identities(key)
                index = int(values.searchsorted(number))
                if index < len(values) and values[index] == number:
                    return self._old_row(self._pack(key).row(int(rows[index])))
        return None

    def stats(self) -> JsonObject:
        """Return total_events, event_types {type: count}, oldest and newest time and marked events,
        from manifests and the tail, and database_size_mb, which the lake's files take on disk."""
        counts: JsonObject = self._answer("stats", self._measure)
        # Asked each time: gc changes it, and no state.
        size = round(Stats.disk_bytes(self._store) / 1e6, 3)
        return {**counts, "event_types": dict(counts["event_types"]), "database_size_mb": size}

    def _answer(self, question: object, look: Callable[[], object]) -> Any:
        """Return an answer for the present state, computed once."""
        with self._mutex:
            self._refresh()
            if question not in self._answers:
                # All at once: each is cheap to compute again.
                if len(self._answers) >= _ANSWERS:
                    self._answers.clear()
                self._answers[question] = look()
            return self._answers[question]

    def _refresh(self) -> None:
        """Load the branch's present state; drop answers of another one."""
        # The tail is asked first: its head says which state the published part has to be.
        pending = self._tail.collect()
        digest = pending.head.move.snapshot
        state = self._store.manifests.load(digest)
        table = self._rows.events(pending, state.ids) if pending.frames else None
        # By identity: TailRows returns the same table as long as the tail is the same.
        if digest == self._state[0] and table is self._state[1]:
            return
        self._answers.clear()
        if digest != self._state[0]:
            segments = self._store.manifests.segments(state)
            self._entries = [e for e in segments if e.kind == "events"]
            # The newest first, so that a search can stop early (_newest).
            self._entries.sort(key=lambda e: -e.time[1])
            present = {e.key for e in self._entries}
            # Segments are immutable: packs of those that are still there remain valid.
            for removed in self._packs.keys() - present:
                del self._packs[removed]
            self._ids = {key: ids for key, ids in self._ids.items() if key in present}
            self._by_key = {e.key: e for e in self._entries}
        # Live rows change with each append, published segments do not: only the former are thrown
        # away.
        if table is not self._live[0]:
            self._live = table, None
            self._ids.pop(_LIVE, None)
        self._state = digest, table

    def _keys(self) -> Iterator[str]:
        if self._live[0] is not None and self._live[0].num_rows:
            yield _LIVE
        yield from (e.key for e in self._entries)

    def _newest(
        self, limit: int, low: int, high: int, type: str | None, source: str | None
    ) -> list[tuple[str, int]]:
        """Find the newest rows: segment by segment, until no other can hold a newer one."""
        best: list[tuple[int, int, str, int]] = []
        for rank, key in enumerate(self._keys()):
            entry = self._by_key.get(key)
            if entry is not None:
                if entry.time[1] < low or entry.time[0] > high:
                    continue
                # By what a segment says of its types and sources; many say only how many they are.
                if not _may(entry.types, type) or not _may(entry.sources, source):
                    continue
                # All that follow are older: the entries are in order of their newest time.
                if len(best) == limit and best[0][0] > entry.time[1]:
                    break
            places = self._pack(key).newest_places(limit, low, high, type, source)
            # Of equal times the rank decides, live rows first, so that the order is the same at
            # every question.
            candidates = ((time, -rank, key, row) for time, row in places)
            best = heapq.nlargest(limit, [*best, *candidates])[::-1]
        return [(key, row) for _, _, key, row in reversed(best)]

    def _pack(self, key: str) -> Pack:
        """Return a segment's pack, loading it if needed; the least recently used ones make room."""
        if key == _LIVE:
            table, pack = self._live
            assert table is not None
            if pack is None:
                pack = Pack(table, np.arange(table.num_rows, dtype=np.int64))
                self._live = table, pack
            return pack
        pack = self._packs.get(key)
        if pack is None:
            pack = self._packs[key] = packs.read(self._store, self._by_key[key])
            # At least one pack stays, the one that is asked for, even if it alone is too large.
            size = sum(pack.bytes for pack in self._packs.values())
            while len(self._packs) > 1 and size > self._memory_max:
                size -= self._packs.popitem(last=False)[1].bytes
        self._packs.move_to_end(key)
        return pack

    def _identities(self, key: str) -> Ids:
        if key not in self._ids:
            engine = self._lake.engine()
            if key == _LIVE:
                table = self._live[0]
                assert table is not None
                self._ids[key] = packs.numbers(table.select([*packs.IDENTITY, "type"]), engine)
            else:
                self._ids[key] = packs.identities(self._store, self._by_key[key], engine)
        return self._ids[key]

    def _old_row(self, row: EventRow) -> EventRow:
        """Return an event as a row of the old table."""
        time, data = row["time"], row["data"]
        number = omega.number_of(row["source"], row["id"], row["origin"], row["position"])
        action, data_json = omega.action_and_data(data, self._lake.engine)
        return {
            "id": number,
            "timestamp": time / 1e6,
            "event_type": row["type"],
            "action": action,
            "source": row["source"],
            "data_json": data_json,
            "data_compressed": None,
            "hash": omega.hash_of(time, row["type"], row["source"], data),
            "processed": number in self._processed_ids(),
            "created_at": omega.created_of(row["id"], row["ingested_at"]),
        }

    def _processed_ids(self) -> set[int]:
        """Return the ids that events of type omega.processed name."""
        # Asked for every row of an answer, so it is looked up once for each state.
        if "processed" not in self._answers:
            numbers: set[int] = set()
            for key, place in self._newest(2**31, _LOWEST, _HIGHEST, omega.PROCESSED, None):
                numbers.update(_marked_ids(self._pack(key).row(place)["data"]))
            self._answers["processed"] = numbers
        result: set[int] = self._answers["processed"]
        return result

    def _measure(self) -> dict[str, object]:
        """Count from the statistics of segments, and the tail."""
        types: dict[str, int] = {}
        # A segment with too many types only says so: then the engine has to count.
        counted = [e.types for e in self._entries if isinstance(e.types, dict)]
        if len(counted) == len(self._entries):
            for counts in counted:
                for name, count in counts.items():
                    types[name] = types.get(name, 0) + count
            if self._live[0] is not None:
                for pair in self._live[0]["type"].value_counts().to_pylist():
                    types[pair["values"]] = types.get(pair["values"], 0) + pair["counts"]
        else:
            types = dict(self._lake.sql("SELECT type, count(*) FROM events GROUP BY 1").fetchall())
        # Marks of the older system are stored as events, but were none there.
        for name in omega.OWN:
            types.pop(name, None)
        oldest, newest = self._span()
        return {
            "total_events": sum(types.values()),
            "event_types": dict(sorted(types.items(), key=lambda pair: (-pair[1], pair[0]))),
            "oldest": oldest,
            "newest": newest,
            "processed": len(self._processed_ids()),
        }

    def _span(self) -> tuple[float | None, float | None]:
        """The times of the oldest and the newest row."""
        times: list[int] = []
        mixed: list[SegmentEntry] = []
        for entry in self._entries:
            is_plain = isinstance(entry.types, dict) and not entry.types.keys() & set(omega.OWN)
            if is_plain:
                times += entry.time
            else:
                mixed.append(entry)
        if self._live[0] is not None and self._live[0].num_rows:
            is_own = pc.is_in(self._live[0]["type"], pa.array(omega.OWN))
            live = self._live[0]["time"].filter(pc.invert(is_own)).cast("int64").to_numpy()
            times += [int(live.min()), int(live.max())] if len(live) else []
        for entry in mixed:
            # Its own times may be those of marks: it is read where it could reach beyond the rest.
            if not times or entry.time[0] < min(times) or entry.time[1] > max(times):
                times += self._pack(entry.key).span()
        return (min(times) / 1e6, max(times) / 1e6) if times else (None, None)


def _may(counts: Counts, name: str | None) -> bool:
    """Whether a segment may hold a value, by its statistics."""
    return name is None or isinstance(counts, str) or name in counts


def _marked_ids(data: str | None) -> list[int]:
    """Return the ids that an event of type PROCESSED names, as the table reads them."""
    try:
        ids = json.loads(data or "null")["ids"]
    except (ValueError, TypeError, KeyError):
        return []
    return [mark for mark in ids if type(mark) is int] if isinstance(ids, list) else []
