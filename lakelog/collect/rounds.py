"""Backups beside a watcher: what is due after each scan, and what may then be removed.

A file is due if it changed since its last backup and that is `interval` ago; one that was renamed
only is not. Copies are made in a thread of their own, so that lines keep coming in meanwhile. What
fails is said once, is an event of type `lakelog.backup`, and is tried again; a full disk ends the
round, and nothing that was there before is touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from lakelog.collect import removal
from lakelog.collect.backup import Backup, Changed, Stopped
from lakelog.collect.expiry import expired
from lakelog.collect.scan import Scan, Seen
from lakelog.collect.shelf import Shelf
from lakelog.errors import InvalidSetting, LakelogError
from lakelog.ingest import cursors
from lakelog.ingest.apart import MARK
from lakelog.ingest.cursors import printable
from lakelog.ingest.source import Source
from lakelog.store import disk

if TYPE_CHECKING:
    from lakelog.lake import Lake

INTERVAL = 3600.0
KEEP = 24
CHECK = 10.0
"""Seconds between two looks at what is due, at most."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHELVES = "backups.json"
_TYPE, _LABEL = "lakelog.backup", "lakelog"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How files are backed up: where, how often (s), which stay, and what becomes of the files."""

    directory: str
    interval: float = INTERVAL
    keep: int | None = KEEP
    age_us: int | None = None
    packed: bool = False
    remove: bool = False
    remove_after: float | None = None


class Rounds:
    """Backs up the files of a watcher; call it with each scan, and close it at the end."""

    def __init__(
        self, lake: Lake, roots: list[str], plan: Plan, *, label: str | None = None,
        say: Say | None = None,
    ) -> None:  # fmt: skip
        self._lake, self._plan, self._label = lake, plan, label
        self._roots = [os.path.abspath(root) for root in roots]
        self._say = say or (lambda text: None)
        self._shelf = Shelf(plan.directory)
        _refuse_nested(self._shelf.root, self._roots)
        self._told: dict[str, str] = {}
        self._stop = threading.Event()
        self._next = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lakelog-backup")
        self._running: Future[None] | None = None
        self.made = self.removed = self.expired = 0
        remember(lake, self._shelf.root)

    def __call__(self, found: Scan) -> None:
        """Start a round beside the caller if it is time and none is running."""
        busy = self._running is not None and not self._running.done()
        if not busy and time.monotonic() >= self._next:
            self._next = time.monotonic() + min(CHECK, self._plan.interval)
            self._running = self._pool.submit(self.run, found)

    def run(self, found: Scan) -> None:
        """Back up what is due, let old backups go, remove what may be removed; raises nothing."""
        root = self._shelf.root
        try:
            with self._shelf.claim() as alone:
                if not alone:
                    return
                self._shelf.sweep()
                self._round(found)
        except Stopped:
            return
        except (OSError, LakelogError) as error:
            self._complain(root, _reason(error, root))

    def close(self) -> None:
        """Let the copy that is being made go, and end."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def summary(self) -> str:
        """What was done, in words."""
        words = [f"{self.made:,} backed up"]
        words += [f"{self.removed:,} removed after it"] if self.removed else []
        words += [f"{self.expired:,} old backups let go"] if self.expired else []
        return ", ".join(words)

    def _round(self, found: Scan) -> None:
        """Let old ones go first: on a full disk that makes room."""
        self._expire(found)
        there = self._shelf.look()
        newest: dict[str, Backup] = {b.raw: b for b in there.backups}
        alike = {(b.device, b.inode, b.size, b.mtime_ns): b for b in there.backups}
        number, full = max((b.number for b in there.backups), default=0), ""
        for seen in found.files.values():
            last = newest.get(os.fsencode(seen.path).hex())
            same = alike.get((seen.device, seen.inode, seen.size, seen.mtime_ns))
            if same is None and seen.size and not full and self._is_due(seen, last):
                try:
                    same = self._back_up(seen, number + 1)
                    number += same is not None
                except OSError as error:
                    full = _reason(error, self._shelf.root)
            if same is not None and self._plan.remove:
                self._remove(seen, same)
        self._expire(found)
        if full:
            self._complain(self._shelf.root, full)
        else:
            self._heal(self._shelf.root)

    def _is_due(self, seen: Seen, last: Backup | None) -> bool:
        """Whether the last backup is an interval old, or of the future: then the clock was set."""
        if last is None or removal.is_finished(seen, time.time(), None):
            return True
        since = (disk.now_us() - last.made) / 1e6
        return not 0 <= since < self._plan.interval

    def _back_up(self, seen: Seen, number: int) -> Backup | None:
        try:
            cursor = self._cursor(seen.path)
            made = self._shelf.put(
                seen.path, self._below(seen.path), number, packed=self._plan.packed,
                stop=self._stop.is_set, cursor=cursor,
            )  # fmt: skip
        except Changed as error:
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
        state = store.manifests.load(store.refs.head(self._lake.branch_name).move.snapshot)
        with closing(Source(path)) as source:
            entries = store.manifests.entries(state, "cursor")
            start = cursors.find(source, entries, self._label)
        known = start.replaced is not None
        return (start.cursor.key, start.cursor.bytes) if known else ("", 0)

    def _remove(self, seen: Seen, kept: Backup) -> None:
        if not removal.is_finished(seen, time.time(), self._plan.remove_after):
            return
        lake = self._lake
        try:
            reason = removal.remove(
                lake.store, lake.branch_name, seen, kept, label=self._label,
                stop=self._stop.is_set,
            )  # fmt: skip
        except FileNotFoundError:
            return
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            self._complain(seen.path, f"not removed: {reason}")
            return
        self.removed += 1
        self._told.pop(seen.path, None)
        self._tell(seen.path, "INFO", f"removed; its backup is {printable(kept.path)}", kept)

    def _expire(self, found: Scan) -> None:
        plan = self._plan
        gone = expired(
            self._shelf.look().backups, keep=plan.keep, age_us=plan.age_us, now=disk.now_us(),
            present=found.files.keys(),
        )  # fmt: skip
        for one in gone:
            self._shelf.drop(one)
            self.expired += 1

    def _below(self, path: str) -> str:
        """The folder of a file's backups: where it is below the directory that is watched."""
        for root in self._roots:
            base = root if os.path.isdir(root) else os.path.dirname(root)
            if path.startswith(f"{base}/"):
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
        event = {
            "type": _TYPE, "source": _LABEL, "subject": printable(path), "level": level,
            "message": message, "data": data,
        }  # fmt: skip
        with contextlib.suppress(LakelogError, OSError):
            self._lake.append(event)


def shelves(lake: Lake) -> list[Shelf]:
    """The directories of backups of this lake's files that are there, the last one used first."""
    found = [Shelf(root) for root in _known(lake)]
    return [shelf for shelf in found if disk.exists(f"{shelf.root}/{MARK}")]


def remember(lake: Lake, root: str) -> None:
    """Write down that backups are put in a directory."""
    roots = [root, *(other for other in _known(lake) if other != root)]
    data = orjson.dumps([os.fsencode(path).hex() for path in roots])
    with contextlib.suppress(OSError):
        disk.replace_whole(f"{lake.store.layout.cache}/{_SHELVES}", data, sync=False)


def _known(lake: Lake) -> list[str]:
    try:
        known = orjson.loads(disk.read(f"{lake.store.layout.cache}/{_SHELVES}"))
        return [os.fsdecode(bytes.fromhex(raw)) for raw in known]
    except (FileNotFoundError, TypeError, ValueError):
        return []


def _refuse_nested(root: str, roots: list[str]) -> None:
    """Raise InvalidSetting where backups would be among what is watched, unmarked."""
    real = os.path.realpath(root)
    for watched in roots:
        if f"{os.path.realpath(watched)}/".startswith(f"{real}/"):
            raise InvalidSetting(
                f"the backup directory {printable(root)} must not hold what is watched"
            )


def _reason(error: Exception, root: str) -> str:
    if isinstance(error, OSError) and error.errno in _FULL:
        return (
            "the disk of the backups is full: free space there; nothing is lost, watching goes on"
        )
    return f"no backups: {getattr(error, 'strerror', None) or error}"
