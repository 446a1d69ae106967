"""Garbage collection: only what no ref reaches, only after a grace, references first.

What nothing reaches is written to gc/condemned.json with the time it was first seen so. After
the grace (default 24 h), if it is still unreached when all refs are read again, it goes: packed
moves first, then manifests, pages, id runs, segments. Times are mtimes of a probe file made in
the lake now, not this host's clock. If a ref, manifest or page cannot be read, or a listing is
empty where refs were known before, nothing is deleted (GcRefused).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lakelog.errors import Damaged, GcRefused, UnknownRef
from lakelog.settings import Settings
from lakelog.store import disk, document
from lakelog.store.layout import OBJECTS, parse_move, parse_object
from lakelog.store.manifest import Entry
from lakelog.store.opening import Store
from lakelog.store.refs import Move, encode_packed, read_packed

KEEP_MOVES = 100
BATCH = 500
_HOUR, _DAY = 3_600_000_000, 86_400_000_000
_ORDER = ("manifests", "ids", "segments")
Names = set[str]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Collected:
    """What one run found and did; bytes are those of deleted files."""

    deleted: int
    bytes: int
    condemned: int
    packed: int
    names: tuple[str, ...]
    dry_run: bool


def gc(store: Store, *, dry_run: bool = False, progress: Progress | None = None) -> Collected:
    """Collect garbage. Raises GcRefused, having deleted nothing, and OSError."""
    with disk.claim(f"{store.layout.cache}/gc.lock") as alone:
        if not alone:
            raise GcRefused("another process is collecting in this lake: wait for it")
        for branch in store.refs.all_branches():
            disk.sync_dir(store.layout.head_dir(branch))
        disk.sync_dir(store.layout.tags)
        before = _condemned(store)
        now = _lake_time(store)
        packed = 0 if dry_run else _pack_all(store, now)
        live = mark(store, now)
        condemned = {n: before.get(n, now) for n in _unreached(store, live)}
        due = _due(store, condemned, now)
        gone: tuple[str, ...] = tuple(due)
        freed = sum(_size(store, n) for n in due)
        if not dry_run:
            _write_condemned(store, condemned)
            freed = _delete(store, due, now, progress)
            condemned = {n: t for n, t in condemned.items() if disk.exists(_path(store, n))}
            _write_condemned(store, condemned)
        return Collected(len(gone), freed, len(condemned), packed, gone, dry_run)


def mark(store: Store, now: int) -> Names:
    """Return the names (`kind/digest`) that tags, heads and moves in the window reach."""
    store.manifests.forget()
    store.refs.forget()
    roots = _roots(store, now)
    if not roots:
        raise GcRefused("no branch or tag could be listed: nothing was deleted")
    live: Names = set()
    lost = lost_names(store)
    seen: dict[tuple[str, ...], dict[str, Entry]] = {}
    for digest in sorted(roots):
        try:
            _reach(store, digest, live, seen, lost)
        except Damaged as error:
            raise GcRefused(f"nothing was deleted: {error}") from error
    return live


def _roots(store: Store, now: int) -> set[str]:
    """Snapshots named by tags and by the moves of each branch's window."""
    try:
        roots = {tag.snapshot for tag in store.refs.tags()}
        for branch in store.refs.all_branches():
            roots |= _window(store, branch, now)
    except (Damaged, UnknownRef) as error:
        raise GcRefused(f"nothing was deleted: {error}") from error
    return roots


def _window(store: Store, branch: str, now: int) -> set[str]:
    """Snapshots of the newest 100 moves and of all younger than the history setting."""
    numbers = store.refs.numbers(branch)
    if not numbers:
        if store.refs.hinted(branch) or disk.listing(store.layout.wal_dir(branch)):
            raise GcRefused(f"branch {branch!r} lists no moves: nothing was deleted")
        return set()  # just being made, or whoever made it died before its first move
    newest_first = (store.refs.read(branch, number) for number in reversed(numbers))
    return {move.snapshot for move in window(store.settings, newest_first, now)}


def window(settings: Settings, newest_first: Iterable[Move], now: int) -> Iterator[Move]:
    """Yield the moves whose states are kept: the newest hundred, and all in the history span."""
    limit = now - settings.history_days * _DAY
    for age, move in enumerate(newest_first):
        if age >= KEEP_MOVES and move.time < limit:
            return
        yield move


def _reach(
    store: Store, digest: str, live: Names, seen: dict[tuple[str, ...], dict[str, Entry]],
    lost: Names,
) -> None:  # fmt: skip
    """Add what one manifest reaches; states that share their pages share the reading of them."""
    if f"manifests/{digest}" in lost:
        return
    state = store.manifests.load(digest)
    pages = tuple(page.digest for page in state.pages)
    live.add(f"manifests/{digest}")
    if not lost.isdisjoint(f"manifests/{page}" for page in pages):
        return
    if pages not in seen:
        seen[pages] = store.manifests.paged(state)
        live.update(f"manifests/{page}" for page in pages)
        live.update(f"segments/{key}" for key in seen[pages])
    live.update(f"ids/{run['digest']}" for run in state.ids)
    added = (e["key"] for e in state.tail if e.get("add") == "segment")
    live.update(f"segments/{key}" for key in added)


def _unreached(store: Store, live: Names) -> Iterator[str]:
    """Names on disk that nothing reaches, temporary files included."""
    for kind in OBJECTS:
        root = f"{store.layout.root}/{kind}"
        for folder in disk.listing(root):
            for name in disk.listing(f"{root}/{folder}"):
                digest = parse_object(name)
                if digest is None and name.startswith(disk.TEMPORARY):
                    yield f"{kind}/{folder}/{name}"
                elif digest is not None and f"{kind}/{digest}" not in live:
                    yield f"{kind}/{digest}"
    yield from _temporary(store)


def _temporary(store: Store) -> Iterator[str]:
    """Temporary files outside the object folders."""
    layout = store.layout
    folders = [layout.root, layout.tags, layout.cache, layout.gc]
    for branch in store.refs.all_branches():
        folders += [layout.head_dir(branch), layout.wal_dir(branch)]
    for folder in folders:
        for name in disk.listing(folder):
            if name.startswith(disk.TEMPORARY):
                yield os.path.relpath(f"{folder}/{name}", layout.root)


def _due(store: Store, condemned: dict[str, int], now: int) -> list[str]:
    """Names condemned for the grace whose files are older than it, references first."""
    grace = store.settings.gc_grace_hours * _HOUR
    due = [n for n, since in condemned.items() if now - since >= grace]
    old = [n for n in due if now - _mtime(store, n) >= grace]
    rank = {kind: i for i, kind in enumerate(_ORDER)}
    return sorted(old, key=lambda n: (rank.get(n.split("/")[0], 9), n))


def _delete(store: Store, due: list[str], now: int, progress: Progress | None) -> int:
    """Delete in batches, each after a fresh look at all refs; return the bytes freed."""
    freed = 0
    for start in range(0, len(due), BATCH):
        live = mark(store, now)
        batch = [n for n in due[start : start + BATCH] if n not in live]
        for name in batch:
            freed += _size(store, name)
            disk.unlink(_path(store, name))
            if name.startswith("segments/"):
                disk.unlink(store.layout.bloom(name.removeprefix("segments/")))
        for folder in {os.path.dirname(_path(store, n)) for n in batch}:
            disk.sync_dir(folder)
        if progress:
            progress(min(start + BATCH, len(due)), len(due))
    return freed


def _pack_all(store: Store, now: int) -> int:
    return sum(_pack(store, branch, now) for branch in store.refs.all_branches())


def _pack(store: Store, branch: str, now: int) -> int:
    """Fold moves older than the window into one file; never the newest hundred."""
    layout = store.layout
    directory = layout.head_dir(branch)
    own = sorted(n for n in map(parse_move, disk.listing(directory)) if n is not None)
    limit = now - store.settings.history_days * _DAY
    old: list[int] = []
    try:
        for number in own[:-KEEP_MOVES]:
            if store.refs.read(branch, number).time >= limit:
                break
            old.append(number)
    except Damaged as error:
        raise GcRefused(f"nothing was deleted: {error}") from error
    if len(old) < KEEP_MOVES:
        return 0
    data = encode_packed([disk.read(layout.move(branch, n)) for n in old])
    path = layout.packed(branch, old[0], old[-1])
    with contextlib.suppress(FileExistsError):  # a run before this one did not get to the unlinks
        disk.create_whole(path, data)
    disk.sync_dir(directory)
    try:
        read_packed(path)
    except Damaged as error:
        raise GcRefused(f"nothing was deleted: {error}") from error
    for number in old:
        disk.unlink(layout.move(branch, number))
    disk.sync_dir(directory)
    return len(old)


def lost_names(store: Store) -> Names:
    """Names that repair gave up and that did not come back; states that need them do not open."""
    try:
        names = document.decode(disk.read(store.layout.lost))["names"]
    except (FileNotFoundError, document.NotIntact):
        return set()
    return {name for name in names if not disk.exists(_path(store, name))}


def _condemned(store: Store) -> dict[str, int]:
    try:
        return dict(document.decode(disk.read(store.layout.condemned))["names"])
    except FileNotFoundError:
        return {}
    except document.NotIntact as error:
        raise GcRefused(
            f"{store.layout.condemned}: {error}: nothing was deleted; delete this file and run gc"
            " again"
        ) from None


def _write_condemned(store: Store, condemned: dict[str, int]) -> None:
    disk.replace_whole(store.layout.condemned, document.encode({"names": condemned}))


def _lake_time(store: Store) -> int:
    """Now, as the lake's own file system stamps it."""
    made = disk.write_temporary(store.layout.gc, b"now\n")
    try:
        return os.stat(made).st_mtime_ns // 1000
    finally:
        disk.unlink(made)


def _path(store: Store, name: str) -> str:
    kind, _, rest = name.partition("/")
    if kind in OBJECTS and "/" not in rest:
        return store.layout.object(kind, rest)
    return f"{store.layout.root}/{name}"


def _mtime(store: Store, name: str) -> int:
    try:
        return os.stat(_path(store, name)).st_mtime_ns // 1000
    except FileNotFoundError:
        return 0


def _size(store: Store, name: str) -> int:
    try:
        return os.stat(_path(store, name)).st_size
    except FileNotFoundError:
        return 0
