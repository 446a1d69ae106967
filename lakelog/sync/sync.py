"""Copying the events of a lake into tables of a database, incrementally and each exactly once.

One round settles the lake, reads the table's watermark, compares its state with the newest, and
takes the table there in transactions of about `batch_rows` rows, each with its watermark. A round
that is cut off at any point is continued by the next, which reads the watermark again; so a
connection that breaks during COMMIT needs no other answer. Afterwards the table is what the mapping
makes of the lake: rows of events that the lake lost by a rollback, retention or dedupe are removed
(`on_rewind="propagate"`), or the sync stops before it writes anything ("refuse").
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from lakelog.clients import ConnectionLost
from lakelog.errors import Unreachable
from lakelog.lake import Lake
from lakelog.sync.delta import SyncStatus, status_of
from lakelog.sync.plan import target_of
from lakelog.sync.syncer import Syncer, SyncResult
from lakelog.sync.target import SyncTarget


def sync(
    lake: Lake,
    target: str | SyncTarget,
    *,
    table: str | None = None,
    query: str | None = None,
    mode: str = "upsert",
    on_rewind: str = "propagate",
    on_error: str = "stop",
    batch_rows: int | None = None,
    columns: Mapping[str, str] | None = None,
) -> SyncResult:
    """Bring a table of a database up to date with a lake, and return what that took.

    `target` is a URL such as `sqlite:PATH`; `table` is what it names, or `events`; `query` is SQL
    over `events` whose rows are events one by one. The table and new columns are created.
    `columns` gives columns types by their names, such as `{"data": "jsonb"}`.
    With `on_error="quarantine"` rows that the target refuses go to the lake's quarantine.
    `batch_rows` are the rows of a transaction, as many as the target likes by default. Raises
    InvalidSetting, QueryFailed, SyncRefused, Unreachable, MissingPackage; of the batch that failed
    nothing is written.
    """
    with contextlib.closing(
        Syncer(
            lake,
            target,
            table,
            query,
            mode=mode,
            on_rewind=on_rewind,
            on_error=on_error,
            batch_rows=batch_rows,
            columns=columns,
        )
    ) as syncer:
        return syncer.run()


def status(lake: Lake, target: str | SyncTarget) -> list[SyncStatus]:
    """Return the tables of a target and how far each is behind. Raises as `sync` does."""
    sync_target = target_of(target) if isinstance(target, str) else target
    if not sync_target.exists():
        return []
    try:
        sync_target.connect()
        shapes = [
            (table, mark, sync_target.shape(table))
            for table, mark in sync_target.watermarks().items()
        ]
    except ConnectionLost as error:
        raise Unreachable(str(error)) from None
    finally:
        sync_target.close()
    return [status_of(lake, sync_target.address, *entry) for entry in shapes]
