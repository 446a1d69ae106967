"""The database sync of the OOS log stream, under its old name.

    sync = BatchDatabaseSync()                # oos.db; or postgresql://..., duckdb:PATH
    sync.full_sync()                          # {'transcripts': 3, 'stats': {...}, 'removed': []}

The log is ingested into a lake, and tables of the database are kept up to date with that: a row of
`completed_transcripts` is one COMPLETE event, a row of `processing_stats` the figures at one time.
Both halves write each row once, so a sync that is killed anywhere is continued by the next.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import time

from lakelog import backup, pipeline
from lakelog import lake as lakes
from lakelog.backup import BackupPlan, BackupScheduler
from lakelog.disk import File, Folder
from lakelog.errors import InvalidSetting, SyncRefused
from lakelog.event import BookkeepingEvent
from lakelog.files import LogName, Selection
from lakelog.lake import Lake
from lakelog.loggers import AILogger
from lakelog.oos.oos_feed import FLUSH_SECONDS
from lakelog.oos.oos_views import DEFAULT_LOG, OOSViews, get_views
from lakelog.store import Store
from lakelog.sync import RETRIES, Syncer, SyncResult
from lakelog.values import JsonObject

TRANSCRIPTS, STATS = "completed_transcripts", "processing_stats"
DEFAULT_DATABASE = "oos.db"
BATCH_SIZE = 1000
CLEANUPS = ("keep", "rotate", "remove")
BACKUPS = "backups"
_STATS_TYPE = f"{BookkeepingEvent.SOURCE}.stats"
_COUNTS = ("events", "discovered", "processing", "completed", "failed", "total_failures")
_TRANSCRIPTS_SQL = """
SELECT time AS completed_at, category AS content_type, source, subject AS item_id,
  data->>'transcript' AS transcript, data FROM events WHERE type = 'COMPLETE'"""
_STATS_SQL = f"""
SELECT time AS computed_at, {", ".join(f"(data->>'{n}')::BIGINT AS {n}" for n in _COUNTS)},
  (data->>'success_rate')::DOUBLE AS success_rate
FROM events WHERE type = '{_STATS_TYPE}' AND source = '{BookkeepingEvent.SOURCE}'"""
# A path of Windows has one letter before its colon; a URL has more.
_URL = re.compile(r"[a-z][a-z0-9+]+:")


class BatchDatabaseSync:
    """Keeps a database up to date with an oos.log or a lake. Use it as a context manager.

    `db_path` is a file of SQLite, which is created with its directory, or any target of `lakelog
    sync`. `log` is an oos.log, the
    directory of a lake, or an open lake; what a log holds is ingested into `lake` (a path or an
    open lake; without it LAKELOG_LAKE, else ./lake). `cleanup` says what `full_sync` does with a
    log whose lines are all published in the lake and committed in the database: "keep" it,
    "rotate" it to NAME_YYYYMMDD_HHMMSS.log, or also "remove" rotated logs, each once no process
    writes to it and a verified backup of it is in `backup_dir`. A log that keeps the state of a
    work queue must be kept. Raises InvalidSetting.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] = DEFAULT_DATABASE,
        log: Lake | str | os.PathLike[str] = DEFAULT_LOG,
        *,
        lake: Lake | str | os.PathLike[str] | None = None,
        cleanup: str = "keep",
        backup_dir: str | os.PathLike[str] = BACKUPS,
        retries: int = RETRIES,
    ) -> None:
        if cleanup not in CLEANUPS:
            raise InvalidSetting(f"cleanup is {', '.join(CLEANUPS)}, not {cleanup!r}")
        name = os.fspath(db_path)
        self.db_path = name
        self.target = name if _URL.match(name) else f"sqlite:{name}"
        if self.target != name:
            # The old sync did so.
            Folder(os.path.dirname(os.path.abspath(name))).make_all()
        is_lake = isinstance(log, Lake) or Store.is_lake(os.fspath(log))
        # It would rotate and remove files of the lake.
        if is_lake and cleanup != "keep":
            raise InvalidSetting("cleanup is for a log file: a lake has `lakelog retention`")
        lake_source = log if is_lake else lake or os.environ.get("LAKELOG_LAKE") or "lake"
        self.log = "" if isinstance(log, Lake) or is_lake else os.path.abspath(log)
        self.cleanup, self.backup_dir = cleanup, os.fspath(backup_dir)
        self._retries, self._is_given = retries, isinstance(lake_source, Lake)
        self.lake = lake_source if isinstance(lake_source, Lake) else lakes.open(lake_source)
        self._views: OOSViews = get_views(self.lake)

    def sync_completed_transcripts(self, batch_size: int = BATCH_SIZE) -> int:
        """Write what was completed since the last sync, about `batch_size` rows a transaction;
        return how many rows that were. Raises SyncRefused, Unreachable, InvalidSetting."""
        self._ingest()
        return self._sync(TRANSCRIPTS, _TRANSCRIPTS_SQL, batch_size).written

    def sync_processing_stats(self) -> JsonObject:
        """Write the figures of now, if they have changed since the last sync; return them.

        {'events', 'discovered', 'processing', 'completed', 'failed', 'total_failures',
        'success_rate'}: items by latest state, failures in all, and completions per outcome.
        Raises as `sync_completed_transcripts` does.
        """
        self._ingest()
        stats = self._stats()
        # By its content: equal figures are equal events, whenever they are computed.
        digest = hashlib.sha256(repr(sorted(stats.items())).encode()).hexdigest()
        # Under an id: after a kill the same figures are the same event, and the same row.
        event = BookkeepingEvent.of(_STATS_TYPE, "oos", data=stats)
        self.lake.append(event | {"id": digest[:32]})
        self._sync(STATS, _STATS_SQL, BATCH_SIZE)
        return stats

    def full_sync(self, batch_size: int = BATCH_SIZE) -> JsonObject:
        """Write both tables, then clean up the log.

        Returns {'transcripts': rows written, 'stats': the figures, 'rotated': the log's new path
        or None, 'removed': paths, 'duration_seconds'}. Raises as above, and OSError.
        """
        start = time.monotonic()
        # Held from before the ingest: nobody else renames the log in between.
        with self._cleaning():
            stats = self.sync_processing_stats()
            # The statistics were appended before: what came meanwhile is brought in once more.
            self._ingest()
            synced = self._sync(TRANSCRIPTS, _TRANSCRIPTS_SQL, batch_size)
            # If another process has published lines since, the next sync cleans up.
            store = self.lake.store
            newest = store.state(self.lake.branch_name).digest
            is_all = store.manifests.stored_as(newest) == synced.snapshot
            rotated = self._rotate() if is_all and self.cleanup != "keep" else None
            removed = self._remove() if is_all and self.cleanup == "remove" else []
        return {
            "transcripts": synced.written,
            "stats": stats,
            "rotated": rotated,
            "removed": removed,
            "duration_seconds": round(time.monotonic() - start, 3),
        }

    def close(self) -> None:
        """Close the lake, if it was opened here."""
        if not self._is_given:
            self.lake.close()

    def __enter__(self) -> BatchDatabaseSync:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _ingest(self) -> None:
        """Bring the log into the lake, with what was appended to it after a rotation."""
        if not self.log:
            return
        # As in the views, lines that loggers of this process have not written yet belong to it.
        AILogger.flush_all(self.log, FLUSH_SECONDS)
        # The rotated ones first, as their lines are older.
        paths = [*self._rotated(), *filter(os.path.exists, [self.log])]
        for report in self.lake.ingest(paths, format="oos").files:
            # One that was removed by another process meanwhile is no fault.
            if report.error and os.path.exists(report.path):
                raise SyncRefused(f"{report.path}: {report.error}: make it readable, and try again")

    def _sync(self, table: str, query: str, batch_size: int) -> SyncResult:
        syncer = Syncer(
            self.lake, self.target, table, query, batch_rows=batch_size, retries=self._retries
        )
        with contextlib.closing(syncer):
            return syncer.run()

    def _stats(self) -> dict[str, object]:
        errors = self._views.error_analysis_view()
        outcomes = self._views.source_reliability_view().values()
        total = sum(outcome["total_processed"] for outcome in outcomes)
        condition = BookkeepingEvent.IS_DATA
        rows = self.lake.sql(f"SELECT count(*) AS n FROM events WHERE {condition}").to_arrow_table()
        return {
            "events": rows["n"][0].as_py(),
            **self._views.podcast_status_view(),
            "total_failures": errors["total_failures"],
            "success_rate": (total - errors["total_failures"]) / total if total else 0.0,
        }

    def _rotated(self) -> list[str]:
        """The log's rotated files, the oldest first."""
        stem, ending = os.path.splitext(self.log)
        paths = glob.glob(f"{glob.escape(stem)}_*{glob.escape(ending)}")
        # Only files that the log's own rotation has named.
        return sorted(p for p in paths if LogName(p).base == os.path.basename(self.log))

    def _rotate(self) -> str | None:
        """Give the log another name, unless it has lines that are not published; return it."""
        lake = self.lake
        try:
            # Published and durable, up to its last byte.
            if not os.path.getsize(self.log) or not backup.covering(
                lake.store, lake.branch_name, self.log, None
            ):
                return None
        except FileNotFoundError:
            return None
        stem, ending = os.path.splitext(self.log)
        moment = time.strftime("%Y%m%d_%H%M%S", time.gmtime())
        path = f"{stem}_{moment}{ending}"
        if os.path.exists(path):  # rotated in this very second: the next sync does it
            return None
        # A line that was appended just now moves with the file, and is ingested under its new name.
        File(self.log).rename(path)
        return path

    def _remove(self) -> list[str]:
        """Remove rotated logs of which nothing can be lost (see backup.delete); return them."""
        paths = self._rotated()
        if not paths:
            return []
        plan = BackupPlan(os.path.abspath(self.backup_dir), is_packed=True, remove=True, keep=None)
        # Of the files themselves, not their directory, in which the backups may be.
        with contextlib.closing(BackupScheduler(self.lake, paths, plan)) as scheduler:
            scheduler.run(Selection().scan(paths))
        return [path for path in paths if not os.path.exists(path)]

    def _cleaning(self) -> contextlib.AbstractContextManager[None]:
        """Let one process at a time rename and remove files of a log."""
        if self.cleanup == "keep":
            return contextlib.nullcontext()
        folder, name = os.path.split(self.log)
        # Beside the log: all who clean it up see the same file, whatever their lake is.
        return pipeline.locked(os.path.join(folder, f".{name}.cleanup.lock"))
