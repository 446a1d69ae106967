"""Backups beside a watcher: what is due after each scan, and what may then be removed.

A file is due if it changed since its last backup and that is `interval` ago; one that was renamed
only is not. Copies are made in a thread of their own, so that lines keep coming in meanwhile. What
fails is said once, is an event of type `lakelog.backup`, and is tried again; a full disk ends the
round, and nothing that was there before is touched.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from lakelog import bookkeeping
from lakelog.backup import delete
from lakelog.backup.copy import Backup, CopyStopped, FileChanged
from lakelog.backup.directory import BackupDirectory
from lakelog.backup.expiry import expired
from lakelog.errors import InvalidSetting, LakelogError
from lakelog.ingest.cursors import CursorIndex, printable
from lakelog.ingest.exclusions import MARK
from lakelog.ingest.identity import locate
from lakelog.ingest.scan import FileState, Scan
from lakelog.ingest.source import Source
from lakelog.store import disk

if TYPE_CHECKING:
    from lakelog.lake import Lake

INTERVAL = 3600.0
KEEP = 24
CHECK = 10.0
"""Seconds between two looks at what is due, at most."""
SWEEP = 3600.0
"""Seconds between two looks for what others left half-done, and for what came of age."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHELVES = "backups.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class BackupPlan:
    """How files are backed up: where, how often (s), which stay, and what becomes of the files."""

    directory: str
    interval: float = INTERVAL
    keep: int | None = KEEP
    age_us: int | None = None
    packed: bool = False
    remove: bool = False
    remove_after: float | None = None


@dataclass(frozen=True)
class _FileRound:
    """A file as the last round saw it, whether that left nothing to do, and when (monotonic) it is
    worth a look again: if it was settled only if it changed."""

    seen: FileState
    settled: bool
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
        say: Say | None = None,
    ) -> None:
        self._lake, self._plan, self._label = lake, plan, label
        self._roots = [os.path.abspath(root) for root in roots]
        self._say = say or (lambda text: None)
        self._shelf = BackupDirectory(plan.directory)
        _refuse_nested(self._shelf.root, self._roots)
        self._told: dict[str, str] = {}
        self._stop = threading.Event()
        self._next = self._swept = 0.0
        self._known: dict[str, _FileRound] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lakelog-backup")
        self._running: Future[None] | None = None
        self.made = self.removed = self.expired = 0
        remember(lake, self._shelf.root)

    def __call__(self, found: Scan) -> None:
        """Start a round beside the caller if something is due and none is running."""
        if not self.busy and time.monotonic() >= self._next and self._wants(found):
            self._next = time.monotonic() + min(CHECK, self._plan.interval)
            self._running = self._pool.submit(self.run, found)

    @property
    def busy(self) -> bool:
        """Whether a round is going on."""
        return self._running is not None and not self._running.done()

    def run(self, found: Scan) -> None:
        """Back up what is due, let old backups go, remove what may be removed; raises nothing."""
        root = self._shelf.root
        try:
            with self._shelf.claim() as alone:
                if not alone:
                    return
                if time.monotonic() >= self._swept:
                    self._shelf.sweep()
                    self._swept = time.monotonic() + SWEEP
                self._round(found)
        except CopyStopped:
            return
        except Exception as error:  # a thread that died of it would be missed by nobody
            self._complain(root, _reason(error, root))

    def halt(self) -> None:
        """Let the copy that is being made go; fit for a signal's handler."""
        self._stop.set()

    def close(self) -> None:
        """Let the copy that is being made go, and end."""
        self.halt()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def summary(self) -> str:
        """What was done, in words."""
        words = [f"{self.made:,} backed up"]
        words += [f"{self.removed:,} removed after it"] if self.removed else []
        backups = "backup" if self.expired == 1 else "backups"
        words += [f"{self.expired:,} old {backups} deleted"] if self.expired else []
        return ", ".join(words)

    def _wants(self, found: Scan) -> bool:
        """Whether a file is new, changed and not backed up for an interval, or was to be looked at
        again; or old backups may have come of age."""
        now = time.monotonic()
        if now >= self._swept:
            return True
        for path, seen in found.files.items():
            known = self._known.get(path)
            if known is None:
                return True
            if now >= known.ready and (not known.settled or known.seen != seen):
                return True
        return False

    def _round(self, found: Scan) -> None:
        """Let old ones go first: on a full disk that makes room."""
        there = self._expire(self._shelf.look().backups, found)
        newest: dict[str, Backup] = {b.raw: b for b in there}
        alike = {(b.device, b.inode, b.size, b.mtime_ns): b for b in there}
        number, full = max((b.number for b in there), default=0), ""
        known: dict[str, _FileRound] = {}
        for path, seen in found.files.items():
            last = newest.get(os.fsencode(path).hex())
            same = alike.get((seen.device, seen.inode, seen.size, seen.mtime_ns))
            wait = self._wait(seen, last)
            if same is None and seen.size and not full and wait <= 0:
                try:
                    same = self._back_up(seen, number + 1)
                    number += same is not None
                    wait = self._plan.interval
                except OSError as error:
                    full = _reason(error, self._shelf.root)
            settled = same is not None or not seen.size
            if same is not None and self._plan.remove:
                settled = self._remove(seen, same)
            pause = wait if settled else max(min(wait, CHECK), 0)
            known[path] = _FileRound(seen, settled, time.monotonic() + pause)
        self._known = known
        if number > max((b.number for b in there), default=0):
            self._expire(self._shelf.look().backups, found)
        if full:
            self._complain(self._shelf.root, full)
        else:
            self._heal(self._shelf.root)

    def _wait(self, seen: FileState, last: Backup | None) -> float:
        """Seconds until a file may be backed up again; a last time in the future means nothing,
        for then the clock was set."""
        if last is None or delete.is_finished(seen, time.time(), None):
            return 0.0
        since = (disk.now_us() - last.made) / 1e6
        return self._plan.interval - since if since >= 0 else 0.0

    def _back_up(self, seen: FileState, number: int) -> Backup | None:
        try:
            cursor = self._cursor(seen.path)
            made = self._shelf.put(
                seen.path,
                self._below(seen.path),
                number,
                packed=self._plan.packed,
                stop=self._stop.is_set,
                cursor=cursor,
            )
        except FileChanged as error:
            self._complain(seen.path, f"not backed up: {error.strerror}")
            return None
        except OSError as error:
            if self._is_of_the_shelf(error):
                raise
            if os.path.exists(seen.path):  # else it went meanwhile
                self._complain(seen.path, f"not backed up: {error.strerror or error}")
            return None
        self.made += 1
        self._heal(seen.path)
        return made

    def _is_of_the_shelf(self, error: OSError) -> bool:
        """Whether no other file can be backed up either."""
        where = os.fsdecode(error.filename) if error.filename else ""
        return error.errno in _FULL or where.startswith(self._shelf.root)

    def _cursor(self, path: str) -> tuple[str, int]:
        """The key under which the lake knows a file, and how many bytes of it are published."""
        store = self._lake.store
        state = store.state(self._lake.branch_name)
        with closing(Source(path)) as source:
            entries = store.manifests.entries(state, "cursor")
            cursor = locate(source, CursorIndex(entries), self._label)
        return (cursor.key, cursor.bytes) if cursor else ("", 0)

    def _remove(self, seen: FileState, kept: Backup) -> bool:
        """Remove a file if that may be; return whether there is nothing to come back for."""
        after = self._plan.remove_after
        if not delete.is_finished(seen, time.time(), after):
            return not delete.is_finished(seen, math.inf, after)
        lake = self._lake
        try:
            reason = delete.remove(
                lake.store, lake.branch_name, seen, kept, label=self._label, stop=self._stop.is_set
            )
        except FileNotFoundError:
            return True
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            self._complain(seen.path, f"not removed: {reason}")
            return False
        self.removed += 1
        self._told.pop(seen.path, None)
        self._tell(seen.path, "INFO", f"removed; its backup is {printable(kept.path)}", kept)
        return True

    def _expire(self, there: list[Backup], found: Scan) -> list[Backup]:
        """Let old backups of our own files go; return those that stay, of others too."""
        plan = self._plan
        ours = [b for b in there if any(_is_below(b.origin, root) for root in self._roots)]
        gone = expired(
            ours, keep=plan.keep, age_us=plan.age_us, now=disk.now_us(), present=found.files.keys()
        )
        for one in gone:
            self._shelf.drop(one)
            self.expired += 1
        left = set(gone)
        return [b for b in there if b not in left]

    def _below(self, path: str) -> str:
        """The folder of a file's backups: where it is below the directory that is watched."""
        for root in self._roots:
            base = root if os.path.isdir(root) else os.path.dirname(root)
            if _is_below(path, base):
                inner = os.path.dirname(os.path.relpath(path, base))
                named = os.path.basename(base) if len(self._roots) > 1 else ""
                return os.path.join(named, inner)
        return ""

    def _complain(self, path: str, reason: str) -> None:
        """Say once what is wrong, and store it as an event."""
        if self._told.get(path) == reason:
            return
        self._told[path] = reason
        self._say(f"{printable(path)}: {reason}")
        self._tell(path, "WARN" if reason.startswith("not removed") else "ERROR", reason)

    def _heal(self, path: str) -> None:
        if self._told.pop(path, None) is not None:
            self._say(f"{printable(path)}: backed up again")

    def _tell(self, path: str, level: str, message: str, kept: Backup | None = None) -> None:
        data = {"backup": printable(kept.path), "sha256": kept.sha256} if kept else None
        event = bookkeeping.event(
            bookkeeping.BACKUP, printable(path), level=level, message=message, data=data
        )
        with contextlib.suppress(LakelogError, OSError):
            self._lake.append(event)


def shelves(lake: Lake) -> list[BackupDirectory]:
    """The directories of backups of this lake's files that are there, the last one used first."""
    found = [BackupDirectory(root) for root in _known(lake)]
    return [shelf for shelf in found if disk.exists(f"{shelf.root}/{MARK}")]


def remember(lake: Lake, root: str) -> None:
    """Write down that backups are put in a directory."""
    roots = [root, *(other for other in _known(lake) if other != root)]
    data = orjson.dumps([os.fsencode(path).hex() for path in roots])
    with contextlib.suppress(OSError):
        disk.replace_whole(f"{lake.store.paths.cache}/{_SHELVES}", data, sync=False)


def _known(lake: Lake) -> list[str]:
    try:
        known = orjson.loads(disk.read(f"{lake.store.paths.cache}/{_SHELVES}"))
        return [os.fsdecode(bytes.fromhex(raw)) for raw in known]
    except (FileNotFoundError, TypeError, ValueError):
        return []


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def _refuse_nested(root: str, roots: list[str]) -> None:
    """Raise InvalidSetting where backups would be among what is watched, unmarked."""
    real = os.path.realpath(root)
    for watched in roots:
        if f"{os.path.realpath(watched)}/".startswith(f"{real}/"):
            raise InvalidSetting(
                f"the backup directory {printable(root)} must not contain what is watched"
            )


def _reason(error: Exception, root: str) -> str:
    if isinstance(error, OSError) and error.errno in _FULL:
        return (
            "the disk of the backups is full: free space there; nothing is lost, watching goes on"
        )
    words = getattr(error, "strerror", None) or error
    known = isinstance(error, (OSError, LakelogError))
    return f"no backups: {words}" if known else f"no backups: {type(error).__name__}: {words}"
