"""The log dump service under its old names: watch a directory, back its files up, ask for entries.

`LogEntry` is an event of the lake: its timestamp is `time`, its content `message` (else `data`,
else `subject`), its source `source` (else the name of the file it stands in); the rest is metadata.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from lakelog import lake as lakes
from lakelog.backup import INTERVAL, KEEP, BackupPlan, BackupScheduler
from lakelog.clients import RedisClient, RedisConfig
from lakelog.collect import Watcher, lock_path, run
from lakelog.disk import LockFile
from lakelog.errors import InUse, InvalidSetting, Unreachable
from lakelog.files import FileCursor, LogName
from lakelog.recent import RecentEntries, RecentEntry, RecentFeeder, from_lake
from lakelog.settings import span_us
from lakelog.values import JsonObject, parse_time

# Defaults of the older service, which its callers rely on.
LAKE = "lake"
SCAN = 1.0
_AWAY = 5.0
"""Seconds for which a Redis that did not answer is not asked again."""
EntryTime = datetime | str | int | float
_ENTRY = tuple("time source level message data type category subject id origin position".split())


@dataclass(frozen=True)
class LogEntry:
    """One entry of a log: time (UTC), source, text, level, and all other fields as metadata.

    The time may be given as ISO 8601 text or seconds, and is a datetime then. Raises InvalidEvent
    for one that is none.
    """

    timestamp: datetime
    source: str
    content: str
    level: str = "INFO"
    metadata: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.timestamp, datetime) or self.timestamp.tzinfo is None:
            # As the class is frozen, by the way of its own __init__.
            object.__setattr__(self, "timestamp", parse_time(self.timestamp))

    def to_dict(self) -> JsonObject:
        """Return it as a dict that JSON can hold; the timestamp is ISO 8601 text."""
        moment = self.timestamp.isoformat().removesuffix("+00:00")
        return {
            "timestamp": f"{moment}Z" if _is_utc(self.timestamp) else self.timestamp.isoformat(),
            "source": self.source,
            "content": self.content,
            "level": self.level,
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_dict(cls, data: JsonObject) -> LogEntry:
        """Return the entry that a dict holds; a time may be ISO 8601 text, a datetime or seconds.

        Raises InvalidEvent for a time that is none, KeyError where timestamp or content is missing.
        """
        return cls(
            parse_time(data["timestamp"]),
            str(data.get("source") or ""),
            str(data["content"]),
            str(data.get("level") or "INFO"),
            dict(data.get("metadata") or {}),
        )


class OMEGALogManager:
    """Watches a directory of logs into a lake and backs its files up, in a thread of its own.

    `lake` is a path, or a lake that is open; without it LAKELOG_LAKE, else ./lake. Of each file
    `backup_keep` backups are kept (None: all), none older than `backup_age`, a span such as `30d`,
    compressed with `backup_zstd`. `remove_processed` removes a rotated file once its backup is
    verified and its lines are published; `remove_after`, a span, also one that nothing has been
    written to for so long.
    With a `redis_url` the newest entries of each source and level are kept there as well, and
    `recent` asks it. Use it as a context manager, or call `start` and `stop`. Raises
    InvalidSetting, MissingPackage.
    """

    LOGS, BACKUPS, PATTERNS = "logs", "backups", ("*.log",)

    def __init__(
        self,
        logs_dir: str = LOGS,
        backup_dir: str = BACKUPS,
        redis_url: str | None = None,
        backup_interval: float = INTERVAL,
        *,
        lake: lakes.Lake | str | None = None,
        patterns: tuple[str, ...] = PATTERNS,
        backup_keep: int | None = KEEP,
        backup_age: str | None = None,
        backup_zstd: bool = False,
        remove_processed: bool = False,
        remove_after: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if backup_keep is not None and backup_keep < 1:
            # Zero backups would remove what a verified backup is wanted for.
            raise InvalidSetting(f"backup_keep is at least 1, or None, not {backup_keep!r}")
        age = None if backup_age is None else span_us(backup_age)
        idle = None if remove_after is None else span_us(remove_after) / 1e6
        self._plan = BackupPlan(
            os.fspath(backup_dir),
            float(backup_interval),
            backup_keep,
            age,
            is_packed=backup_zstd,
            remove=remove_processed or idle is not None,
            remove_after=idle,
        )
        self.logs_dir, self.backup_dir = os.fspath(logs_dir), os.fspath(backup_dir)
        self.redis_url, self.backup_interval = redis_url, float(backup_interval)
        self._config = None if redis_url is None else RedisConfig.from_url(redis_url)
        if self._config is not None:
            RedisClient.require_package()
        self._client: RedisClient | None = None
        self._away_until = 0.0
        self._given, self._patterns = lake, tuple(patterns)
        self._say = say or (lambda message: None)
        self._lake: lakes.Lake | None = lake if isinstance(lake, lakes.Lake) else None
        self._watcher: Watcher | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def lake(self) -> lakes.Lake:
        """The lake, opened when first needed."""
        # A manager that only asks Redis opens no lake.
        if self._lake is None:
            path = self._given if isinstance(self._given, (str, os.PathLike)) else None
            self._lake = lakes.open(str(path or os.environ.get("LAKELOG_LAKE") or LAKE))
        return self._lake

    @property
    def is_running(self) -> bool:
        """Whether it watches."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start to watch; nothing if it does. Raises InUse if another process is watching there."""
        if self.is_running:
            return
        # The old service created its directory, and callers start it before the first log is there.
        os.makedirs(self.logs_dir, exist_ok=True)
        roots, feeder = [self.logs_dir], None
        if self._config is not None:
            feeder = RecentFeeder(self.lake, self._config, say=self._say)
        # The claim is handed over to the thread, which releases it at its end; until then every way
        # out has to release it here.
        claim = contextlib.ExitStack()
        if not claim.enter_context(LockFile(lock_path(self.lake, roots)).claim()):
            claim.close()
            raise InUse(f"another process is watching {self.logs_dir}")
        try:
            # It refuses nested directories: before a thread is started for nothing.
            backups = BackupScheduler(self.lake, roots, self._plan, say=self._say)
        except BaseException:
            claim.close()
            raise
        self._watcher = Watcher(
            self.lake, roots, patterns=self._patterns, say=self._say, after=backups
        )
        if feeder is not None:
            self._watcher.totals.redis = feeder.figures
        self._stop.clear()
        self._thread = threading.Thread(
            # A program that forgets `stop` still ends.
            target=self._run,
            args=(self._watcher, backups, claim, feeder),
            name="lakelog-dump",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Ingest what is there, then exit."""
        # Joined: what was read is published when this returns.
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop, and close the lake unless it was given open."""
        self.stop()
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lake is not None and self._lake is not self._given:
            # A lake that was given open is the caller's.
            self._lake.close()
            self._lake = None

    def query(
        self,
        start_time: EntryTime | None = None,
        end_time: EntryTime | None = None,
        source: str | None = None,
        level: str | None = None,
        limit: int = 1000,
    ) -> list[LogEntry]:
        """Return the newest `limit` entries that match, in the order of their time.

        Times are ISO 8601 text, datetimes or seconds since 1970, the end left out; `source` is what
        the event says, or the name or path of a file. Raises InvalidEvent for a time that is none.
        """
        # Names once for all rows.
        names = self._names()
        conditions, values = ["true"], list[object]()
        for moment, sign in ((start_time, ">="), (end_time, "<")):
            if moment is not None:
                values.append(parse_time(moment))
                conditions.append(f"time {sign} ${len(values)}")
        if level is not None:
            values.append(level.upper())
            # Levels are stored in upper case, but files may spell them otherwise.
            conditions.append(f"upper(level) = ${len(values)}")
        if source is not None:
            # Rows of a file name no source unless a line does: they are found by the origin of the
            # file.
            of_files = [
                o for o, p in names.items() if source in (p, os.path.basename(p), LogName(p).base)
            ]
            values += [source, of_files]
            place = len(values)
            conditions.append(
                f"(source = ${place - 1} OR list_contains(${place}::VARCHAR[], origin))"
            )
        # The newest first, so that LIMIT keeps them; the caller gets them the right way round.
        query = f"""SELECT {", ".join(_ENTRY)} FROM events WHERE {" AND ".join(conditions)}
            ORDER BY time DESC, origin DESC, position DESC LIMIT {max(int(limit), 0)}"""
        rows = self.lake.sql(query, values or None).fetchall()
        return [_entry(dict(zip(_ENTRY, row, strict=True)), names) for row in reversed(rows)]

    def recent(
        self,
        source: str | None = None,
        level: str | None = None,
        match: str | None = None,
        limit: int = 100,
    ) -> list[LogEntry]:
        """Return the entries that arrived last, the newest first: from Redis, else from the lake.

        `source` is a name or a glob, `match` a part of the content, or a glob of all of it. Redis
        has the newest of each source and level, some of them a second later than the lake.
        """
        return [
            LogEntry(entry.timestamp, entry.source, entry.content, entry.level, entry.metadata)
            for entry in self._recent(source, level, match, limit)
        ]

    def _recent(
        self, source: str | None, level: str | None, match: str | None, limit: int
    ) -> list[RecentEntry]:
        if self._config is not None and time.monotonic() >= self._away_until:
            try:
                if self._client is None:
                    # One try of one second: the lake answers as well.
                    hasty = dataclasses.replace(self._config, retries=0, timeout=1.0)
                    self._client = RedisClient(hasty)
                entries = RecentEntries(self.lake, self._client)
                return entries.search(source, level, match, limit)
            except Unreachable:
                # Not each look-up waits for it.
                self._away_until = time.monotonic() + _AWAY
        return from_lake(self.lake, source, level, match, limit)

    def _names(self) -> dict[str, str]:
        """The paths of files by the origin of their rows."""
        store = self.lake.store
        state = store.state(self.lake.branch_name)
        return {cursor.origin: cursor.name for cursor in FileCursor.of_state(store, state)}

    def _run(
        self,
        watcher: Watcher,
        backups: BackupScheduler,
        claim: contextlib.ExitStack,
        feeder: RecentFeeder | None,
    ) -> None:
        # Whatever ends the thread, others may watch there again.
        with claim:
            try:
                if feeder is not None:
                    feeder.start()
                run(watcher, self._stop, interval=SCAN, poll=False, say=self._say)
            finally:
                # Closed in this order: the last backup is of what the watcher has read.
                backups.close()
                if feeder is not None:
                    feeder.close()

    def __enter__(self) -> OMEGALogManager:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _entry(row: JsonObject, names: dict[str, str]) -> LogEntry:
    """Return a row of the lake as an entry."""
    path = names.get(row["origin"])
    data = _parse_data(row["data"])
    # The old service had one text per entry; an event may keep it in any of the three.
    content = row["message"] or row["data"] or row["subject"] or ""
    metadata = {n: row[n] for n in ("type", "category", "subject", "id", "position") if row[n]}
    metadata |= {"data": data} if data is not None else {}
    metadata |= {"file": path} if path else {}
    source = row["source"] or (os.path.basename(path) if path else "")
    moment = row["time"].astimezone(UTC)
    return LogEntry(moment, source, content, row["level"] or "INFO", metadata)


def _parse_data(payload: str | None) -> object:
    try:
        return orjson.loads(payload) if payload is not None else None
    except orjson.JSONDecodeError:
        return payload


def _is_utc(moment: datetime) -> bool:
    offset = moment.utcoffset()
    return offset is not None and not offset
