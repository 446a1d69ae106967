"""Lake: the public interface, the only module that imports both storing and querying."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import lakelog.streams as streams
from lakelog import appends, arrays, history, ingest, maintain, subscriptions, views, wal
from lakelog import query as queries
from lakelog.appends import Writer
from lakelog.erasure import LakeErasure
from lakelog.errors import LakeClosed, LakelogError, WriterClosed
from lakelog.event import EncodedBatch, Event, Events, as_list
from lakelog.libraries import duckdb, pa
from lakelog.pinned import LakeState, PinnedLake
from lakelog.refs import BranchLife
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.settings import Settings, parse

# `event` and `writer` are loaded by whoever opens a lake: the first append may come from a
# signal handler, or from a thread beside one that forks, and neither may meet half a module.
from lakelog.store import Store
from lakelog.wal import Tail

if TYPE_CHECKING:
    from lakelog.appends import Receipt
    from lakelog.moves import Follow
    from lakelog.refs import Head, Tag
    from lakelog.subscriptions import BranchAccess, Follower, Subscription

Path = str | os.PathLike[str]


def open(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    branch: str = "main",
    settings: Settings | dict[str, object] | None = None,
) -> Lake:
    """Open the lake at `path`, creating it unless `create` is false.

    `settings` are for a lake that is created here; an existing lake keeps its own. Raises
    LakeNotFound, UnknownRef for no such branch, DamagedLake, FormatTooNew, UnsupportedStore.
    """
    path = os.fspath(path)
    if not isinstance(path, str):
        raise TypeError(f"the path of a lake is text, not {type(path).__name__}: use os.fsdecode")
    if create and not Store.is_lake(path):
        chosen_settings = settings.unlike() if isinstance(settings, Settings) else settings or {}
        store = Store.create_or_load(path, parse(chosen_settings))
    else:
        store = Store.load(path)
    lake = Lake(store, branch)
    if lake._life is None:
        raise store.refs.no_branch(branch)
    return lake


class Lake(LakeErasure, LakeState):
    """One open lake on one branch. Threads may share it; use it as a context manager."""

    def __init__(self, store: Store, branch: str) -> None:
        self.store, self.branch_name = store, branch
        self._life = BranchLife.of(store.refs, branch)
        self._view_tables: views.ViewTables | None = None
        self._writer: Writer | None = None
        self._async_appends: appends.AsyncAppends[None] | None = None
        self._mutex = OrderedLock(Rank.LAKE)
        self._closed = False

    @property
    def path(self) -> str:
        """The lake's directory."""
        return self.store.paths.root

    def append(
        self, events: Events, *, dedupe: str | None = None, expect: Mapping[str, int] | None = None
    ) -> Receipt:
        """Store one event or many; durable when this returns.

        `events` is a mapping, an iterable of them, or an Arrow stream. `dedupe="content"` stores an
        event without id only if no equal one is there. `expect` has the versions that streams are
        at, by subject: all events are stored then, or none, with the next versions. Raises
        InvalidEvent (then nothing of the batch is stored), WrongVersion, OSError, LakeReplaced
        (then nothing is acknowledged), WriterClosed.
        """
        if expect is not None:
            return streams.append(
                as_list(events),
                expect,
                dedupe,
                lambda encoded, expected: self._sealed_when_due(
                    self.writer().append_versions(self._accepted(encoded), expected)
                ),
                lambda subject, after, limit: self.stream(subject, after=after, limit=limit),
            )
        return self.append_encoded(EncodedBatch.of(as_list(events), dedupe))

    async def aappend(self, events: Events, *, dedupe: str | None = None) -> Receipt:
        """Like `append`, for asyncio: the loop goes on meanwhile, and appends of many tasks share a
        sync. If its task is cancelled, the events may be stored all the same."""
        if self._async_appends is None:
            with self._mutex.hold():
                self._async_appends = self._async_appends or appends.AsyncAppends(
                    self.append_encoded
                )
        return await self._async_appends.append(as_list(events), dedupe, None)

    def append_encoded(self, encoded: EncodedBatch, *, retries: bool = False) -> Receipt:
        """Store encoded events; durable when this returns. Raises OSError, WriterClosed. `retries`
        is that of `Writer.append`."""
        accepted = self._accepted(encoded)
        return self._sealed_when_due(self.writer().append(accepted, retries=retries))

    def _sealed_when_due(self, receipt: Receipt) -> Receipt:
        # Only with seal=inline: the writer itself has no database to seal with.
        own_writer = self.writer()
        if own_writer.seal_due:
            own_writer.seal_due = False
            with contextlib.suppress(LakelogError, OSError):  # it is durable, sealed or not
                self.settle()
        return receipt

    def ingest(
        self,
        paths: Path | Sequence[Path],
        *,
        format: str | None = None,
        source: str | None = None,
        dry_run: bool = False,
        progress: Callable[[int, int, int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> ingest.IngestReport:
        """Ingest files in bulk, each row once: see `lakelog.ingest.ingest.Ingester`."""
        job = ingest.Job(
            *(self.store, self.branch_name, self._session.connect), format, source, dry_run
        )
        worker = ingest.Ingester(
            job, self.sealer(), progress=progress, stop=stop, append=self.append
        )
        path_list = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        return worker.run([os.fspath(path) for path in path_list])

    def writer(self) -> Writer:
        """This process's writer, created by the first append."""
        if self._writer is None:
            with self._mutex.hold():
                if self._closed:
                    raise WriterClosed("the lake is closed: open it again to append")
                if self._writer is None:
                    self._writer = Writer(self.store, self.branch_name, self._life)
        return self._writer

    @property
    def _views(self) -> views.ViewTables:
        """The tables of this process's views, created with its session by the first query."""
        if self._view_tables is None:
            with self._mutex.hold():
                if self._view_tables is None:
                    query_session = queries.Session(self.store, self.branch_name)
                    self._view_tables = views.ViewTables(query_session)
            if self._closed:
                self._view_tables.session.close()
        return self._view_tables

    def quarantine(self, lines: list[tuple[str, int, str, str]]) -> None:
        """Store lines that are not events durably: (origin, position, reason, line) each."""
        names = ("origin", "position", "reason", "line")
        protection = self.store.paths.protection
        if protection is not None:
            seal, seal_reason = protection.seal_line, protection.seal_reason
            lines = [(*line[:2], seal_reason(line[2]), seal(line[3])) for line in lines]
        rows = [dict(zip(names, line, strict=True)) for line in lines]
        self.writer().append(EncodedBatch.plain(rows), wal.Frame.QUARANTINED)

    def view(
        self,
        name: str,
        params: Mapping[str, object] | None = None,
        *,
        since: object = None,
        until: object = None,
    ) -> pa.Table:
        """Answer a view as an Arrow table, with values of its parameters: see `lakelog.views`.

        In the place of a name may stand the text of a definition, which is not stored in the lake.
        """
        return self._views.view(name, params, since=since, until=until)

    def tail(self, count: int = 10, *, where: str | None = None) -> list[Event]:
        """The last events, oldest first; `where` is SQL that must hold for them."""
        return cast("list[Event]", arrays.records(self._follower(where).last(count)))

    def follow(
        self,
        *,
        where: str | None = None,
        pause: float = 0.2,
        stop: threading.Event | None = None,
        timeout: float | None = None,
    ) -> Iterator[Event]:
        """Yield each event that arrives from this call on, of all processes.

        It ends when `stop` is set, or after `timeout` seconds without an event; else when the
        caller stops. It looks at `stop` every `pause` seconds.
        """
        return self._follower(where).events(stop or threading.Event(), pause, timeout)

    def _follower(self, condition: str | None) -> Follower:
        return subscriptions.Follower(self.subscriptions(), condition)

    def subscribe(
        self, name: str | None, *, where: str | None = None, from_: str = "beginning"
    ) -> Subscription:
        """Handle each event once, those there and then live ones: see docs/subscriptions.md.

        `name` keeps the position in this branch; with None, `from_` is a position that the caller
        stores. Raises InvalidSetting, QueryFailed, SubscriptionRewound.
        """
        return subscriptions.Subscription(self.subscriptions(), name, where, str(from_))

    def subscriptions(self) -> BranchAccess:
        """What the functions of `lakelog.subscriptions` take."""
        branch, readers = self.branch_name, self._session.tables
        return subscriptions.BranchAccess(
            *(self.store, branch, readers.tail(branch), readers.pending, readers.rows_of(branch)),
            *(self.engine, self.settle),
        )

    def at(self, ref: str) -> PinnedLake:
        """A read-only view of a tag, branch, snapshot id, `@move`, or time: of one state, for a
        branch its last published one."""
        digest = history.resolve(self.store, self.branch_name, str(ref))
        return PinnedLake(self.store, self.branch_name, self._views, digest)

    def settle(self) -> Head:
        """Publish everything acknowledged so far; return the head that holds it."""
        return self._settle()

    def _settle(self, *, hint: bool = True, follow: Follow | None = None) -> Head:
        self._require_open()
        if self.store.attachment is not None:
            # What is asked for next is judged by what all machines have published.
            self.store.attachment.refresh(self.store)
        if self._view_tables is None:
            # Where nothing is pending nothing has to be loaded that makes rows.
            pending = Tail(self.store.paths, self.store.refs, self.branch_name).collect()
            if not pending.frames:
                return pending.head
        try:
            return self.sealer().settle(hint=hint, follow=follow)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                number = self.store.refs.head(self.branch_name).move.number
                error.add_note(
                    "it has events that are not published, and cannot be written here: its last"
                    f" published state is @{number}, as in --at @{number}"
                )
            raise

    def engine(self) -> duckdb.DuckDBPyConnection:
        """This process's database, in memory; a cursor() of it serves one query."""
        self._require_open()
        return self._session.connect()

    def sealer(self) -> maintain.Sealer:
        """A sealer of this branch's tail."""
        self._require_open()
        tail = self._session.tail(self.branch_name)
        return maintain.Sealer(self.store, self.branch_name, tail, self._session.connect)

    def snapshot(self, message: str = "") -> history.Snapshot:
        """Settle and record a move with a message."""
        return self._history().snapshot(message)

    def tag(self, name: str, ref: str | None = None, message: str = "") -> Tag:
        """Tag the present state, or `ref`. Raises AlreadyExists, InvalidName."""
        return self._history().tag(name, ref, message)

    def tags(self) -> list[Tag]:
        """The tags of the lake, by name."""
        return self.store.refs.tags()

    def branches(self) -> list[str]:
        """The names of the living branches."""
        return self.store.refs.branches()

    def branch(self, name: str, ref: str | None = None, message: str = "") -> Lake:
        """Start a branch at the present state, or `ref`; return it open. Raises AlreadyExists."""
        self._history().make_branch(name, ref, message)
        return Lake(self.store, name)

    def rollback(
        self, ref: str, *, cursors: bool = True, verify: bool = False, why: str = ""
    ) -> history.Snapshot:
        """Go back to `ref`: one new move, nothing deleted, can be undone.

        `cursors=False` keeps the positions of followed sources. `verify` reads every byte of the
        target first. `why` is for the log. State directories and deployments stay: see
        `lakelog.rollback.rollback`. Raises UnknownRef, Damaged, NotAllowed.
        """
        if verify:
            self.verify(ref).require()
        settle = functools.partial(self._settle, hint=False)  # that of the rollback follows
        return self._described(self._history().rollback(settle, str(ref), cursors, why))

    def undo(
        self, *, force: bool = False, to_branch: str | None = None, why: str = ""
    ) -> history.Snapshot:
        """Undo the last rollback, undo, snapshot or retention. Raises NothingToUndo, NotAllowed,
        WouldDropEvents unless `force` or `to_branch` says where later events go."""
        return self._described(self._history().undo(force, to_branch, why))

    def log(self, limit: int | None = None) -> list[history.HistoryEntry]:
        """Moves of the branch, newest first."""
        return self._history().log(limit)

    def diff(self, a: str, b: str) -> history.Diff:
        """Compare two states, behaviour included; branches are settled. Raises UnknownRef."""
        for name in filter(
            self.store.refs.is_alive, {a, b}.intersection(self.store.refs.all_branches())
        ):
            (self if name == self.branch_name else Lake(self.store, name)).settle()
        old, new = (history.resolve(self.store, self.branch_name, r) for r in (a, b))
        return history.Diff.between(
            self.store, old, new, queries.Behaviour.looking(self.store, self.engine)
        )

    def _history(self) -> history.BranchHistory:
        return history.BranchHistory(self.store, self.branch_name, self.settle)

    def _pending(self) -> Tail:
        return self._session.tail(self.branch_name)

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.retire()
        wal.trim(self.store, self.branch_name, self._pending())

    def close(self) -> None:
        """Finish the WAL file and close the database; acknowledged events are durable already."""
        # First the flag: an append or query of another thread must not open what is closed below.
        with self._mutex.hold():
            self._closed = True
        if self._writer is not None:
            self._writer.close()
        if self._view_tables is not None:
            self._view_tables.session.close()

    def _require_open(self) -> None:
        if self._closed:
            raise LakeClosed("the lake is closed: open it again")

    def _described(self, head: Head) -> history.Snapshot:
        return history.Snapshot.of(self.store.manifests.of(head.move))

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lake({self.path!r}, branch={self.branch_name!r})"
