"""Feeding the newest entries of a lake to Redis, in rounds or in a thread beside a watcher.

A round reads the watermark in Redis, finds what is newer by the segments of the two states, and of
that the newest entries of each list (newest_entries), in ranges of seq that one script writes. So
what is read of a million new events is what stays. While Redis is away nothing is collected: the
lake has it, and the next round starts at the watermark.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from lakelog import clients, sync
from lakelog.clients import RedisClient, RedisConfig
from lakelog.disk import disk
from lakelog.erased import copies
from lakelog.errors import InvalidSetting, MissingPackage, SyncRefused, Unreachable
from lakelog.lake import Lake
from lakelog.libraries import duckdb
from lakelog.manifest import Manifest
from lakelog.recent.newest_entries import Addition, NewestEntries, batches_of
from lakelog.recent.redis_recent import (
    KEEP,
    KEEP_MAX,
    WRITE,
    drop,
    events_behind,
    is_full,
    prefix_of,
    words_of,
)
from lakelog.refs import Head
from lakelog.runtime.lazy import Lazy
from lakelog.sync import DeltaStep, Watermark, WatermarkMoved
from lakelog.values import JsonObject
from lakelog.views import SegmentRead

redis = Lazy("redis")

_CHUNK, _REBUILT = 8192, 32_768
"""Entries that one script writes, about: some 15 ms for which Redis answers nobody else. What is
not read yet is taken from the lake in larger ranges, and written by several scripts."""
_EVERY, _EVERY_MAX, _REST = 0.5, 15.0, 10.0
"""Seconds between two looks; after a round, so many times what it took, up to the second number."""
_CHECK = 5.0
"""Seconds after which an idle feeder looks whether Redis still has what it wrote."""
CLOSE_SECONDS = 5.0
"""Seconds that the end of a watcher waits for Redis; the next one continues where it stopped."""
_ATTEMPTS = 6
_MAPPING = "recent"


class _Evicted(Exception):
    """Redis has thrown away a list or an index to make room."""


class _Stopped(Exception):
    """The feeder is closed in the middle of a round."""


class RecentFeeder:
    """Keeps the recent entries of a branch in Redis. Rounds are of one thread at a time.

    `keep` entries of each source, level and both stay; with a `ttl` (seconds) those of a list go
    so long after its last one arrived. Raises InvalidSetting, MissingPackage.
    """

    def __init__(
        self,
        lake: Lake,
        config: RedisConfig,
        *,
        keep: int | None = None,
        ttl: float | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if keep is not None and not 0 < keep <= KEEP_MAX:
            raise InvalidSetting(f"Redis keeps 1 to {KEEP_MAX:,} entries of a source, not {keep}")
        if ttl is not None and ttl <= 0:
            raise InvalidSetting("the time to live of entries in Redis is above 0 s")
        RedisClient.require_package()
        self._lake, self._store = lake, lake.store
        # The thread has its own patience: nothing waits for it.
        self._config = dataclasses.replace(config, retries=0, pool_size=2)
        self._given = keep, None if ttl is None else int(ttl * 1000)
        self._keep, self._ttl = keep or KEEP, int((ttl or 0) * 1000)
        self._prefix, self._say = prefix_of(lake), say or (lambda message: None)
        self._client: RedisClient | None = None
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._entries = NewestEntries(lake.store)
        self._mark_seen: Watermark | None = None
        self._generation, self._version, self._until = "", "0", 0.0
        self._is_swept = False  # of what a feeder before this one left
        self._number, self._checked, self._trouble = -1, 0.0, ""
        self._destroyed_keys, self._snapshot = 0, ""
        self.figures: JsonObject = {
            "address": config.address,
            "trouble": "",
            "entries_behind": None,
            "entries_written": 0,
            "rounds": 0,
            "rebuilds": 0,
            "seconds": 0.0,
        }
        """What it did, for a status: `seconds` were spent in rounds that wrote something."""

    # --- the thread ---

    def start(self) -> None:
        """Feed in a thread until `close`; returns at once, whether Redis answers or not."""
        self._thread = threading.Thread(target=self._run, name="lakelog-redis", daemon=True)
        self._thread.start()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Feed what is published, for so long at most if Redis answers; then end the thread."""
        # The last round has so long.
        self._until = time.monotonic() + seconds
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._disconnect()
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def _run(self) -> None:
        attempt = 0
        while True:
            is_last = self._stop.is_set()
            began = time.monotonic()
            try:
                count = self._round()
                attempt = 0
                if self._trouble:
                    self._say(f"{self._config.address} has the recent entries again")
                    self._trouble = self.figures["trouble"] = ""
                took = time.monotonic() - began
                pause = min(max(took * _REST, _EVERY), _EVERY_MAX) if count else _EVERY
            # Not the server's fault: another feeder was faster, or the end came.
            except (WatermarkMoved, _Stopped):
                pause = _EVERY
            except Exception as error:  # a thread that died of it would be missed by nobody
                attempt += 1
                self._note_trouble(error)
                pause = max(clients.pause(attempt), _EVERY)
            if is_last:
                return
            self._stop.wait(pause)

    def _note_trouble(self, error: Exception) -> None:
        """Say what is wrong once; that a server is away has many words, and is one trouble."""
        self._disconnect()
        message = (
            words_of(self._config, error) if _is_reply(error) else " ".join(str(error).split())
        )
        trouble = "away" if " not answer" in message else message
        if trouble != self._trouble:
            self._say(f"{message}; the lake goes on, Redis gets it later")
        self._trouble = trouble
        self.figures["trouble"] = message
        with contextlib.suppress(Exception):
            self._note_behind(None)

    # --- one round ---

    def feed(self) -> int:
        """Bring Redis up to what is published now; return how many entries were written.

        Raises Unreachable, SyncRefused, MissingPackage, Damaged.
        """
        for _ in range(_ATTEMPTS):
            # The number says which move was seen: none, so that Redis is asked.
            self._number = -1
            with contextlib.suppress(WatermarkMoved):
                try:
                    return self._round()
                except redis.RedisError as error:
                    raise Unreachable(words_of(self._config, error)) from None
        raise SyncRefused(f"{self._config.address}: others write the recent entries all the time")

    def rebuild(self) -> int:
        """Fill Redis anew from the lake, beside what is read until then; else like `feed`."""
        try:
            mark, keep, ttl = self._mark()
            if mark is not None:
                self._adopt_limits(keep, ttl)
            return self._rebuild(*self._newest(mark))
        except redis.RedisError as error:
            raise Unreachable(words_of(self._config, error)) from None
        except WatermarkMoved:
            return self.feed()

    def _newest(self, mark: Watermark | None) -> tuple[Head, Manifest]:
        # Looked for after the watermark was read: an older state would take back what others wrote.
        head = self._store.head_since(self._lake.branch_name, mark.move if mark else 0)
        # Before any row is read: one that is erased meanwhile, or whose key is, is written again.
        self._destroyed_keys = self._store.destroyed_keys()
        self._snapshot = self._store.manifests.stored_as(head.move.snapshot)
        return head, self._store.manifests.of(head.move)

    def _round(self) -> int:
        head = self._store.refs.head(self._lake.branch_name)
        # A look at the next move is all that an idle lake costs, and seldom one at Redis.
        is_same = head.move.number == self._number
        # Redis may have lost its data meanwhile: now and then it is asked.
        if is_same and time.monotonic() - self._checked < _CHECK:
            return 0
        began = time.monotonic()
        mark, keep, ttl = self._mark()
        head, state = self._newest(mark)
        if mark is not None and not self._is_swept:
            self._drop_others(self._generation)
        self._is_swept = True
        has_new_limits = mark is not None and self._adopt_limits(keep, ttl)
        if mark is None or has_new_limits:
            count = self._rebuild(head, state)
        else:
            count = self._advance(head, state, mark)
        # Limits count once: of two feeders that differ, the one that started later decides.
        self._given = None, None
        self._number, self._checked = head.move.number, time.monotonic()
        if count:
            self.figures["rounds"] += 1
            self.figures["seconds"] += round(time.monotonic() - began, 3)
        return count

    def _mark(self) -> tuple[Watermark | None, int, int]:
        """Read the watermark (None where there is none), and the limits of what is there."""
        fields = self._call("HGETALL", self._prefix)
        self._generation = fields.get("generation", "")
        self._version = fields.get("version", "0")
        if "watermark" not in fields:
            return None, 0, 0
        mark = Watermark.parse(fields["watermark"], self._config.address)
        return mark, int(fields["keep"]), int(fields["ttl"])

    def _adopt_limits(self, keep: int, ttl: int) -> bool:
        """Set the limits: those given, else those of what is there; return whether the latter was
        kept by others."""
        given_keep, given_ttl = self._given
        self._keep, self._ttl = given_keep or keep, ttl if given_ttl is None else given_ttl
        return (self._keep, self._ttl) != (keep, ttl)

    def _advance(self, head: Head, state: Manifest, mark: Watermark) -> int:
        """Write what a state has beyond the watermark, or fill all again if it lost something."""
        # Nothing came: the watermark says all.
        is_same = mark.snapshot == self._snapshot and mark.upto == state.next_seq
        if is_same and mark.destroyed_keys == self._destroyed_keys:
            self._note_behind(mark)
            return 0
        cursor = self._engine()
        change = sync.delta_between(self._store, cursor, mark, state, head.move.generation)
        added = tuple(segment_part for step in change.steps for segment_part in step.added)
        removal = change.steps[0] if change.steps else DeltaStep((), state.next_seq)
        step = DeltaStep(added, state.next_seq, removal.removed, removal.below)
        # What was removed cannot be taken out of a list.
        if change.clear or self._is_rewound(cursor, step, mark.upto):
            return self._rebuild(head, state)
        try:
            return self._write(head, state, mark, step, self._generation)
        except _Evicted:
            return self._rebuild(head, state)

    def _is_rewound(self, cursor: duckdb.DuckDBPyConnection, step: DeltaStep, upto: int) -> bool:
        """Whether entries left the lake, or came between those that are in Redis."""
        if step.removed:
            query = f"SELECT 1 FROM ({step.keys_sql(self._store)}) LIMIT 1"
            if cursor.execute(query).fetchall():
                return True
        # All is new: nothing came between what is there.
        if all(added.entry.seq[0] >= upto for added in step.added):
            return False
        query = f"SELECT 1 FROM ({step.rows_sql(self._store)}) WHERE seq < {upto} LIMIT 1"
        return bool(cursor.execute(query).fetchall())

    def _rebuild(self, head: Head, state: Manifest) -> int:
        """Fill another generation, let it take the place of the one that is read, drop the rest."""
        generation = secrets.token_hex(4)
        entries = self._store.manifests.segments(state, "events")
        step = DeltaStep(tuple(SegmentRead(entry, {}) for entry in entries), state.next_seq)
        fresh = Watermark(self._store.lake_id, self._lake.branch_name, _MAPPING, "append")
        try:
            self._call("SADD", f"{self._prefix}:generations", generation)
            count = self._write(head, state, fresh, step, generation)
        except (redis.RedisError, WatermarkMoved, _Stopped, _Evicted) as error:
            # Not after a lost connection: it may be the one that is read now. If it is not, the
            # next round is a rebuild again, which drops all others.
            with contextlib.suppress(Exception):
                drop(self._call, self._prefix, generation)
                # Both do not fit, perhaps: what is there is of an older state, so it goes first.
                if is_full(error) and self._generation:
                    self._call("DEL", self._prefix)
                    drop(self._call, self._prefix, self._generation)
            if isinstance(error, _Evicted):
                advice = "evicts entries while they are written: raise its maxmemory"
                raise SyncRefused(f"{self._config.address} {advice}, or keep fewer") from None
            raise
        self.figures["rebuilds"] += 1
        self._drop_others(generation)
        return count

    def _drop_others(self, generation: str) -> None:
        """Drop all generations but one: those that it replaced, and what a killed feeder left."""
        for name in self._call("SMEMBERS", f"{self._prefix}:generations"):
            if name != generation:
                drop(self._call, self._prefix, name)

    def _write(
        self, head: Head, state: Manifest, mark: Watermark, step: DeltaStep, generation: str
    ) -> int:
        """Write the entries of a step by ranges of seq, each with the watermark it leads to.

        Of another generation than the one that is read only the last range has one.
        """
        copies.note(self._store.paths, "sync", self._config.address)
        is_new, version, total = generation != self._generation, int(self._version), 0
        numbers = itertools.count()
        cursor = self._engine()
        chunk = _REBUILT if is_new else _CHUNK
        edges = self._entries.pick(cursor, state, step, self._keep, chunk) if step.added else []
        moved, entries = head.move, self._store.manifests.segments(state, "events")
        for low, high in zip([-1, *edges], [*edges, step.upto - 1], strict=True):
            is_last = high == step.upto - 1
            lists = self._entries.additions(cursor, low, high) if step.added else []
            count = sum(addition.size for addition in lists)
            mark = dataclasses.replace(
                mark,
                move=moved.number,
                generation=moved.generation,
                snapshot=self._snapshot,
                state_time=state.time,
                upto=high + 1,
                events=state.totals.events if is_last else -1,
                destroyed_keys=self._destroyed_keys,
                rows=mark.rows + count,
                version=version + 1,
                synced_at=disk.now_us(),
                tip=sync.tip_of(self._store, cursor, entries) if is_last else "",
            )
            # With the last batch alone: who dies before it finds the older watermark, and writes
            # the range again.
            *batches, final = batches_of(lists, _CHUNK if is_new else count)
            for batch in batches:
                self._send(version, generation, next(numbers), None, batch)
            written_mark = mark if is_last or not is_new else None
            self._send(version, generation, next(numbers), written_mark, final)
            version += is_last or not is_new
            total += count
            self.figures["entries_written"] += count
            if self._stop.is_set() and time.monotonic() > self._until and not is_last:
                raise _Stopped
        self._entries.forget(cursor)
        self._note_behind(mark)
        return total

    def _send(
        self,
        version: int,
        generation: str,
        number: int,
        mark: Watermark | None,
        lists: list[Addition],
    ) -> None:
        """Write entries; `number` counts the writes of a generation that is not read yet."""
        values: list[str | int | bytes] = [version, generation, self._keep, self._ttl]
        values += [mark.to_json() if mark else "", version + 1, number]
        for addition in lists:
            values += addition[:3]
        answer = self._call("EVAL", WRITE, 1, self._prefix, *values)
        if answer == 2:
            raise _Evicted
        if answer != 1:
            raise WatermarkMoved("another feeder wrote the recent entries")

    def _note_behind(self, mark: Watermark | None) -> None:
        """Count what is published and not there; without a mark, as of the last one."""
        if mark is not None:
            self._mark_seen = mark
        if self._mark_seen is not None:
            state = self._store.state(self._lake.branch_name)
            self.figures["entries_behind"] = events_behind(self._lake, self._mark_seen, state)

    # --- connections ---

    def _engine(self) -> duckdb.DuckDBPyConnection:
        if self._cursor is None:
            self._cursor = self._lake.engine().cursor()
        return self._cursor

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(self, command: str, *args: Any) -> Any:
        if self._client is None:
            self._client = RedisClient(self._config)
        # Not again by itself: a script whose reply was lost may have run, and the watermark says.
        return self._client.call(
            command, lambda client: client.execute_command(command, *args), repeatable=False
        )


def _is_reply(error: Exception) -> bool:
    """Whether the server answered, and refused."""
    return not isinstance(error, MissingPackage) and isinstance(error, redis.ResponseError)
