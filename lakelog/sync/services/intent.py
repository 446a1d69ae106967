"""Targets without transactions: a batch is announced, written, and acknowledged in three steps.

A target keeps one record per table: the watermark and, while a batch is under way, an intent: from
which seq on rows are written or deleted, and by whom. `begin` stores the intent, and before an
event below it is touched it is lowered; `commit` stores the new watermark and no intent. So a sync
that finds an intent which nobody works on any more knows all that can be half done: it deletes
every row from that seq on, lowers the watermark to it, and goes on from there.

Where the target compares and swaps the record, of two syncs one goes on at a time. A request that
an earlier sync had sent, and that is carried out only after its batch was taken over, writes the
same rows again; it could leave a row behind only if the lake was rolled back within that moment.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import time
import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog import sql
from lakelog.clients import HttpConnection, Reply
from lakelog.disk import disk
from lakelog.errors import LakelogError, SyncRefused
from lakelog.libraries import pa, pc
from lakelog.sync.target import KEY, SyncTarget, TargetColumn, Watermark

LEASE = 2 * HttpConnection.TIMEOUT
"""Seconds after which a sync of another machine that changes nothing is given up."""
_RENEWAL, _POLL = 2.0, 0.2
_active: set[str] = set()
"""The owners of this process that are connected."""


@dataclass(frozen=True)
class IntentRecord:
    """What a target stores of a table. `start` is None where no batch is under way.

    `token` is what tells two states of the record apart: a compare-and-swap needs it.
    """

    version: int = 0
    watermark: str = ""
    start: int | None = None
    owner: str = ""
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    token: Any = None


class IntentTarget(SyncTarget):
    """A SyncTarget by intents. Subclasses store records and rows."""

    write_rows = 16_384
    batch_rows = 250_000
    can_set_aside = True  # rows that are written again replace themselves
    NUMERIC = "VARCHAR"
    """What exact numbers are sent as."""

    def __init__(self, link: HttpConnection) -> None:
        self._link = link
        self._owner, self._batch = "", ("", IntentRecord())
        self._renewed = 0.0

    @abc.abstractmethod
    def _load(self, table: str) -> IntentRecord | None:
        """Return the record of a table."""

    @abc.abstractmethod
    def _store(self, table: str, record: IntentRecord) -> IntentRecord:
        """Store a record and return it with its new token. Raises WatermarkMoved if the one of its
        token was changed."""

    @abc.abstractmethod
    def _truncate(self, table: str, start: int) -> int:
        """Delete all rows from this seq on; return how many are left."""

    @abc.abstractmethod
    def _delete(self, table: str, keys: list[int]) -> int:
        """Delete rows by KEY; return how many they were."""

    @abc.abstractmethod
    def _write(self, table: str, rows: pa.Table) -> None:
        """Write rows; one replaces another of the same KEY."""

    def value_sql(self, column: TargetColumn) -> str:
        """Times and dates as text."""
        name = sql.identifier(column.name)
        if column.kind == "timestamptz":
            return f"strftime({name} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
        if column.kind == "timestamp":
            return f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%f')"
        casts = {"date": "VARCHAR", "text": "VARCHAR", "numeric": self.NUMERIC}
        return f"{name}::{casts.get(column.kind) or column.kind.upper()}"

    def interrupted(self, table: str) -> Watermark | None:
        """The watermark that `recover` would leave, without its rows; see SyncTarget."""
        record = self._load(table)
        if record is None or record.start is None:
            return None
        mark = self._mark(table, record)
        return mark and _lowered(mark, record.start, 0)

    def recover(self, table: str) -> None:
        """Undo the batch of a sync that ended within it, and wait for one that goes on.

        Raises WatermarkMoved where another sync goes on.
        """
        record = self._load(table)
        # No intent: the last batch is complete, and nobody writes.
        if record is None or record.start is None:
            return
        # A process that can be seen decides at once; one of another machine gets the time of its
        # lease.
        until = time.monotonic() + LEASE
        while not _is_gone(record.owner) and time.monotonic() < until:
            time.sleep(_POLL)
            present = self._load(table)
            if present is None or present.token != record.token:
                raise self.moved(table)
        # First the record: from now on the earlier owner cannot commit.
        self._batch = table, self._store(table, dataclasses.replace(record, owner=self._owner))
        self._undo()

    def begin(self, table: str, version: int) -> None:
        """Announce a batch; see SyncTarget."""
        record = self._load(table) or IntentRecord()
        # An intent of somebody else means that the watermark is about to move.
        if record.version != version or record.start is not None:
            raise self.moved(table)
        mark = self._mark(table, record)
        upto = mark.upto if mark else 0
        intent = dataclasses.replace(record, start=upto, owner=self._owner)
        self._batch = table, self._store(table, intent)
        self._renewed = time.monotonic()

    def clear(self, table: str) -> None:
        """Delete all rows."""
        # The intent reaches down to 0 before the first row goes.
        self._touch(0)
        self._truncate(table, 0)

    def delete(self, table: str, keys: pa.Table) -> int:
        """Delete the rows of these events; return how many they were."""
        if not keys.num_rows:
            return 0
        self._touch(pc.min(keys[KEY]).as_py())
        return self._delete(table, keys[KEY].to_pylist())

    def write(self, table: str, rows: pa.Table, keyed: bool) -> None:
        """Write rows; one replaces another of the same KEY."""
        self._touch(pc.min(rows[KEY]).as_py())
        self._write(table, rows)

    def commit(self, table: str, watermark: Watermark) -> None:
        """Acknowledge the batch with its watermark; see SyncTarget."""
        record = dataclasses.replace(
            self._batch[1],
            version=watermark.version,
            watermark=watermark.to_json(),
            start=None,
            owner="",
        )
        self._batch = table, self._store(table, record)

    def rollback(self) -> None:
        """Undo the batch; what cannot be undone now is by the next sync. Never raises."""
        if self._batch[1].start is not None:
            with contextlib.suppress(LakelogError, OSError):
                self._undo()
        self._batch = "", IntentRecord()

    def close(self) -> None:
        """Close the connection; never raises."""
        _active.discard(self._owner)
        self._batch = "", IntentRecord()
        self._link.close()

    def _own(self) -> None:
        """Be another owner than before, who has no batch under way; called by `connect`."""
        self._owner = f"{_process(os.getpid())}:{uuid.uuid4().hex}"
        _active.add(self._owner)

    def _touch(self, seq: int) -> None:
        """Have rows from `seq` on in the intent, before one of them is changed."""
        table, record = self._batch
        assert record.start is not None
        # Renewed while it works, so that others see its record change and wait.
        if seq < record.start or time.monotonic() - self._renewed > _RENEWAL:
            lowered = dataclasses.replace(record, start=min(seq, record.start))
            self._batch = table, self._store(table, lowered)
            self._renewed = time.monotonic()

    def _undo(self) -> None:
        """Delete all that the batch may have touched, and lower the watermark to it."""
        table, record = self._batch
        start = record.start or 0
        # Rows first, then the record: a cut in between finds the intent still there.
        rows, mark = self._truncate(table, start), self._mark(table, record)
        cleared = dataclasses.replace(record, start=None, owner="")
        if mark is not None:
            mark = _lowered(mark, start, rows)
            cleared = dataclasses.replace(cleared, version=mark.version, watermark=mark.to_json())
        self._batch = table, self._store(table, cleared)

    def _mark(self, table: str, record: IntentRecord) -> Watermark | None:
        return Watermark.parse(record.watermark, self._where(table)) if record.watermark else None

    def _where(self, table: str) -> str:
        return f"{self.address}, table {table}"

    def _require_key(self, table: str, columns: list[str]) -> None:
        if KEY not in columns:
            raise SyncRefused(f"{self._where(table)}: the mapping needs the column {KEY}: add it")


def reason_of(reply: Reply) -> str:
    """Return what a server says of a request that it refuses, in one line."""
    try:
        answer = orjson.loads(reply.body)
        error = answer.get("error") or answer["message"]
        reason = str(error["reason"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, AttributeError):
        reason = reply.body[:300].decode("utf-8", "replace")
    return f"HTTP {reply.status} {' '.join(reason.split())[:300]}"


def _lowered(mark: Watermark, start: int, rows: int) -> Watermark:
    """The watermark of a table without the events from a seq on."""
    return dataclasses.replace(
        mark,
        upto=min(mark.upto, start),
        # -1 where rows below the watermark may be gone: the next delta then counts them anew.
        events=mark.events if start >= mark.upto else -1,
        rows=rows,
        version=mark.version + 1,
        synced_at=disk.now_us(),
    )


def _process(number: int) -> str:
    """A process: the machine since its start, its namespace, number and time of start.

    Of a process that is gone the last is missing.
    """
    boot, space, started = "", "", ""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    with contextlib.suppress(OSError), open(f"/proc/{number}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
        # A zombie does nothing any more.
        started = "" if fields[0] == "Z" else fields[19]
    return f"{boot}:{space}:{number}:{started}"


def _is_gone(owner: str) -> bool:
    """Whether the owner of an intent is known to work on it no more."""
    process, _, _ = owner.rpartition(":")
    fields = process.split(":")
    own_process = _process(os.getpid())
    # Only of a process that can be seen from here.
    if len(fields) != 4 or fields[:2] != own_process.split(":")[:2] or not fields[0]:
        return False
    if process == own_process:
        return owner not in _active
    return _process(int(fields[2])) != process
