"""Backups alongside a watcher: which files are due after a scan, and which may then be removed.

A file is due if it changed since its last backup and that is `interval` ago; a mere rename does not
count. Copies are made in a thread of their own, so that lines are ingested meanwhile. A failure is
reported once, stored as an event of type `lakelog.backup`, and retried; a full disk ends the round,
and no existing backup is touched.

Which backups to delete, by count and by age: a pure decision.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import orjson

from lakelog.backup import delete
from lakelog.backup.copy import Backup, CopyStopped, FileChanged
from lakelog.backup.directory import BackupDirectory
from lakelog.disk import File, disk
from lakelog.erased import copies
from lakelog.errors import InvalidSetting, LakelogError
from lakelog.event import BookkeepingEvent
from lakelog.files import CursorIndex, FileCursor, FileScan, FileState, Selection, printable
from lakelog.lake import Lake
from lakelog.lines import Source

INTERVAL = 3600.0
# With the interval above: a day of hourly backups.
KEEP = 24
CHECK = 10.0
"""The most seconds between two checks of what is due."""
SWEEP = 3600.0
"""Seconds between two checks for interrupted copies and for expired backups."""
# With these no other file can be backed up either, so the round ends instead of complaining once
# for each file.
_FULL = (errno.ENOSPC, errno.EDQUOT)
# In cache/, for it only tells `audit` and `backups` where to look, and can be named again.
_DIRECTORIES = "backups.json"


@dataclass(frozen=True)
class BackupPlan:
    """How files are backed up: where, how often (s), which backups are kept, and whether originals
    are removed."""

    directory: str
    interval: float = INTERVAL
    keep: int | None = KEEP
    age_us: int | None = None
    is_packed: bool = False
    remove: bool = False
    remove_after: float | None = None


@dataclass(frozen=True)
class _LastLook:
    """A file as the last round saw it, whether nothing was left to do, and when (monotonic) to look
    at it again; a settled file only if it changed."""

    file: FileState
    is_settled: bool
    ready: float


class BackupScheduler:
    """Backs up the files of a watcher; call it with each scan, and close it at the end."""

    def __init__(
        self,
        lake: Lake,
        roots: list[str],
        plan: BackupPlan,
        *,
        label: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._lake, self._plan, self._label = lake, plan, label
        self._roots = [os.path.abspath(root) for root in roots]
        self._say = say or (lambda message: None)
        self._directory = BackupDirectory(plan.directory)
        _refuse_nested(self._directory.root, self._roots)
        self._complaints: dict[str, str] = {}
        self._is_halted = False
        self._next = self._swept = 0.0
        self._last_looks: dict[str, _LastLook] = {}
        # One thread: rounds never overlap, so that what they remember needs no lock.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lakelog-backup")
        self._running: Future[None] | None = None
        self.copies = self.removals = self.expirations = 0
        remember_directory(lake, self._directory.root)

    def __call__(self, listing: FileScan) -> None:
        """Start a round in the background if something is due and none is running."""
        # The clock is asked before the files, of which there may be thousands.
        if not self.is_busy and time.monotonic() >= self._next and self._is_due(listing):
            self._next = time.monotonic() + min(CHECK, self._plan.interval)
            self._running = self._pool.submit(self.run, listing)

    @property
    def is_busy(self) -> bool:
        """Whether a round is in progress."""
        return self._running is not None and not self._running.done()

    def run(self, listing: FileScan) -> None:
        """Back up what is due, delete expired backups, remove finished files; raises nothing."""
        root = self._directory.root
        try:
            with self._directory.claim() as has_claim:
                # Another process writes backups here. Nothing is missed: what is due stays due
                # until the next look.
                if not has_claim:
                    return
                # Only under the claim: without it the temporary names of a living process would be
                # removed.
                if time.monotonic() >= self._swept:
                    self._directory.sweep()
                    self._swept = time.monotonic() + SWEEP
                self._round(listing)
        except CopyStopped:
            return
        except Exception as error:  # a thread that died of it would be missed by nobody
            self._complain(root, _reason(error))

    def halt(self) -> None:
        """Abort the copy in progress; safe to call from a signal handler."""
        self._is_halted = True

    def close(self) -> None:
        """Abort the copy in progress, and shut down."""
        self.halt()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def summary(self) -> str:
        """Return what was done, in one line."""
        phrases = [f"{self.copies:,} backed up"]
        phrases += [f"{self.removals:,} removed after it"] if self.removals else []
        backups = "backup" if self.expirations == 1 else "backups"
        phrases += [f"{self.expirations:,} old {backups} deleted"] if self.expirations else []
        return ", ".join(phrases)

    def _is_due(self, listing: FileScan) -> bool:
        """Whether a file is new, changed and not backed up for an interval, or to be looked at
        again; or whether old backups may have expired."""
        # Asked after every scan, so it compares what is in memory and does not touch the disk.
        clock = time.monotonic()
        if clock >= self._swept:
            return True
        for path, file in listing.files.items():
            last_look = self._last_looks.get(path)
            if last_look is None:
                return True
            if clock >= last_look.ready and (not last_look.is_settled or last_look.file != file):
                return True
        return False

    def _round(self, listing: FileScan) -> None:
        """Delete expired backups, copy what is due, and remove what is finished."""
        # Expired backups are deleted first: on a full disk that makes room for the new ones.
        backups = self._expire(self._directory.scan().backups, listing)
        newest: dict[str, Backup] = {b.raw: b for b in backups}
        # A file that was only renamed has a backup under its old name: inode, size and time are the
        # same.
        by_state = {(b.device, b.inode, b.size, b.mtime_ns): b for b in backups}
        # Numbers order the backups, whatever the clock says.
        number, full = max((b.number for b in backups), default=0), ""
        looks: dict[str, _LastLook] = {}
        for path, file in listing.files.items():
            newest_backup = newest.get(os.fsencode(path).hex())
            same = by_state.get((file.device, file.inode, file.size, file.mtime_ns))
            wait = self._wait(file, newest_backup)
            # A full disk ends the copying of this round, not the removals below, which need no
            # space.
            if same is None and file.size and not full and wait <= 0:
                try:
                    same = self._back_up(file, number + 1)
                    number += same is not None
                    wait = self._plan.interval
                except OSError as error:
                    full = _reason(error)
            is_settled = same is not None or not file.size
            if same is not None and self._plan.remove:
                is_settled = self._remove(file, same)
            # What could not be finished is tried again after CHECK; a settled file only once it is
            # due.
            pause = wait if is_settled else max(min(wait, CHECK), 0)
            looks[path] = _LastLook(file, is_settled, time.monotonic() + pause)
        self._last_looks = looks
        # Only if something was added, for the whole directory is read again.
        if number > max((b.number for b in backups), default=0):
            self._expire(self._directory.scan().backups, listing)
        if full:
            self._complain(self._directory.root, full)
        else:
            self._clear_complaint(self._directory.root)

    def _wait(self, file: FileState, newest: Backup | None) -> float:
        """Return the seconds until a file may be backed up again; 0 if its last backup lies in the
        future, because then the clock was set."""
        # A finished file will not change any more: it is copied at once, because its removal waits
        # for it.
        if newest is None or delete.is_finished(file, time.time(), None):
            return 0.0
        since = (disk.now_us() - newest.made) / 1e6
        return self._plan.interval - since if since >= 0 else 0.0

    def _back_up(self, file: FileState, number: int) -> Backup | None:
        try:
            # Before the copy: lines that are published meanwhile then count as not covered, never
            # the reverse.
            cursor = self._cursor(file.path)
            backup = self._directory.put(
                file.path,
                self._below(file.path),
                number,
                is_packed=self._plan.is_packed,
                stop=lambda: self._is_halted,
                cursor=cursor,
            )
        except FileChanged as error:
            self._complain(file.path, f"not backed up: {error.strerror}")
            return None
        except OSError as error:
            if self._stops_all_backups(error):
                raise
            # A rotation between the scan and the copy is no fault worth an event.
            if os.path.exists(file.path):  # else it went meanwhile
                self._complain(file.path, f"not backed up: {error.strerror or error}")
            return None
        self.copies += 1
        self._clear_complaint(file.path)
        return backup

    def _stops_all_backups(self, error: OSError) -> bool:
        """Whether no other file can be backed up either."""
        path = os.fsdecode(error.filename) if error.filename else ""
        return error.errno in _FULL or path.startswith(self._directory.root)

    def _cursor(self, path: str) -> tuple[str, int]:
        """Return the key under which the lake knows a file, and how many bytes of it are
        published."""
        store = self._lake.store
        state = store.state(self._lake.branch_name)
        with closing(Source(path)) as source:
            cursor = CursorIndex(FileCursor.of_state(store, state)).locate(source, self._label)
        return (cursor.key, cursor.bytes) if cursor else ("", 0)

    def _remove(self, file: FileState, backup: Backup) -> bool:
        """Remove a file if it is finished; return whether there is nothing to come back for."""
        after = self._plan.remove_after
        if not delete.is_finished(file, time.time(), after):
            # Not finished yet. If neither its name nor its age can ever make it so, there is
            # nothing to come back for.
            return not delete.is_finished(file, math.inf, after)
        lake = self._lake
        try:
            reason = delete.remove(
                lake.store,
                lake.branch_name,
                file,
                backup,
                label=self._label,
                stop=lambda: self._is_halted,
            )
        except FileNotFoundError:
            return True
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            self._complain(file.path, f"not removed: {reason}")
            return False
        self.removals += 1
        self._complaints.pop(file.path, None)
        self._record_event(
            file.path, "INFO", f"removed; its backup is {printable(backup.path)}", backup
        )
        return True

    def _expire(self, backups: list[Backup], listing: FileScan) -> list[Backup]:
        """Delete expired backups of our own files; return all that stay, those of others too."""
        plan = self._plan
        # Other lakes and watchers may keep their backups in this directory, with other limits.
        ours = [b for b in backups if any(_is_below(b.origin, root) for root in self._roots)]
        deletable = dict.fromkeys(
            select_expired(
                ours,
                keep=plan.keep,
                age_us=plan.age_us,
                now_us=disk.now_us(),
                present=listing.files.keys(),
            )
        )
        for backup in deletable:
            self._directory.drop(backup)
            self.expirations += 1
        return [b for b in backups if b not in deletable]

    def _below(self, path: str) -> str:
        """Return the folder of a file's backups: its place below the watched directory."""
        for root in self._roots:
            base = root if os.path.isdir(root) else os.path.dirname(root)
            if _is_below(path, base):
                inner = os.path.dirname(os.path.relpath(path, base))
                prefix = os.path.basename(base) if len(self._roots) > 1 else ""
                return os.path.join(prefix, inner)
        return ""

    def _complain(self, path: str, reason: str) -> None:
        """Report a problem once, and store it as an event."""
        if self._complaints.get(path) == reason:
            return
        self._complaints[path] = reason
        self._say(f"{printable(path)}: {reason}")
        self._record_event(path, "WARN" if reason.startswith("not removed") else "ERROR", reason)

    def _clear_complaint(self, path: str) -> None:
        if self._complaints.pop(path, None) is not None:
            self._say(f"{printable(path)}: backed up again")

    def _record_event(
        self, path: str, level: str, message: str, backup: Backup | None = None
    ) -> None:
        data = {"backup": printable(backup.path), "sha256": backup.sha256} if backup else None
        event = BookkeepingEvent.of(
            BookkeepingEvent.BACKUP, printable(path), level=level, message=message, data=data
        )
        # The lake may be what is failing; the words on stderr have been said already.
        with contextlib.suppress(LakelogError, OSError):
            self._lake.append(event)


def backup_directories(lake: Lake) -> list[BackupDirectory]:
    """Return the existing directories of backups of this lake's files, the last used first."""
    directories = [BackupDirectory(root) for root in _remembered_roots(lake)]
    return [d for d in directories if File(f"{d.root}/{Selection.MARK}").exists()]


def remember_directory(lake: Lake, root: str) -> None:
    """Record a directory of backups in the lake's cache, and for erasures."""
    copies.note(lake.store.paths, "logs", root)
    roots = [root, *(remembered for remembered in _remembered_roots(lake) if remembered != root)]
    data = orjson.dumps([os.fsencode(path).hex() for path in roots])
    File(f"{lake.store.paths.cache}/{_DIRECTORIES}").keep(data)


def _remembered_roots(lake: Lake) -> list[str]:
    try:
        roots = orjson.loads(File(f"{lake.store.paths.cache}/{_DIRECTORIES}").read())
        return [os.fsdecode(bytes.fromhex(raw)) for raw in roots]
    except (FileNotFoundError, TypeError, ValueError):
        return []


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def _refuse_nested(root: str, roots: list[str]) -> None:
    """Raise InvalidSetting where backups would lie among the watched files, unmarked."""
    real = os.path.realpath(root)
    for watched in roots:
        # The other way round is fine: a backup directory below the watched one bears a mark that
        # scans respect.
        if f"{os.path.realpath(watched)}/".startswith(f"{real}/"):
            raise InvalidSetting(
                f"the backup directory {printable(root)} must not contain what is watched"
            )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _FULL:
        return (
            "the disk of the backups is full: free space there; nothing is lost, watching goes on"
        )
    reason = getattr(error, "strerror", None) or error
    is_expected = isinstance(error, (OSError, LakelogError))
    return (
        f"no backups: {reason}" if is_expected else f"no backups: {type(error).__name__}: {reason}"
    )


def select_expired(
    backups: list[Backup],
    *,
    keep: int | None,
    age_us: int | None,
    now_us: int,
    present: Collection[str],
) -> list[Backup]:
    """Return the backups to delete, oldest first.

    Of each file the newest `keep` stay, by the order in which they were made, whatever the clock
    said. Those older than `age_us` are deleted, except the newest one of a file that is `present`
    (by its path).
    """
    deletable = set[Backup]()
    files: dict[str, list[Backup]] = {}
    # By number and not by time: the clock may have been set back between two backups.
    for backup in sorted(backups, key=lambda b: b.number):
        files.setdefault(backup.raw, []).append(backup)
    for backups_of_file in files.values():
        if keep is not None:
            # At least one stays: a slice that ends at -0 is empty, so `keep` 0 would delete
            # nothing.
            deletable.update(backups_of_file[: -max(keep, 1)])
        if age_us is not None:
            # A file that has not changed for longer than the age gets no new backup: without its
            # last one it would have none.
            newest = backups_of_file[-1] if backups_of_file[-1].origin in present else None
            deletable.update(
                b for b in backups_of_file if now_us - b.made > age_us and b is not newest
            )
    return sorted(deletable, key=lambda b: b.number)
