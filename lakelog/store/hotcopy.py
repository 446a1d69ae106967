"""Hot copy: a consistent copy of a lake in use, as another lake; a second run copies what is new.

Of the source the WALs are read first, then the heads, then the tags, then objects are listed, as a
reader does it: so nothing acknowledged before is missing, and everything a move names is there.
In the target objects come first, then moves in their order, then the WALs, then tags: whatever a
run that dies leaves is the state of the run before, or this one without its tail. Objects and
moves never change, so what is there is not copied again; objects are hashed as they are copied.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lakelog.errors import AlreadyExists, Damaged, DamagedWal
from lakelog.store import disk, wal
from lakelog.store.bootstrap import Store, is_lake, load, raise_format, write_config
from lakelog.store.paths import OBJECTS, Paths, parse_move, parse_object, parse_packed, parse_wal
from lakelog.store.refs import Head
from lakelog.store.tail import ATTEMPTS, Tail, WalFile, pick

Progress = Callable[[int, int], None]


@dataclass
class HotCopy:
    """What one run copied, and what was there already."""

    files: int = 0
    bytes: int = 0
    kept: int = 0


def copy(store: Store, target: str, progress: Progress | None = None) -> HotCopy:
    """Bring the copy of a lake at `target` up to date, or make it.

    Raises AlreadyExists where something else is there, Damaged for a damaged file of the source
    (all others are copied), OSError.
    """
    done = HotCopy()
    there = _prepare(store, target)
    heads: dict[str, Head] = {}
    staged: dict[str, dict[str, str]] = {}
    for branch in store.refs.all_branches():
        if not store.refs.numbers(branch):
            continue
        _refuse_other_way(store, there, branch)
        heads[branch], staged[branch] = _stage_wals(store, there, branch, done)
    tags = {n: disk.read(f"{store.paths.tags}/{n}") for n in disk.listing(store.paths.tags)}
    damaged = _copy_objects(store, there, done, progress)
    for branch, head in heads.items():
        _copy_moves(store, there, branch, head.move.number, done)
        _put_wals(there, branch, staged[branch])
    _copy_tags(there, tags, done)
    if disk.exists(store.paths.lost):
        disk.replace_whole(there.lost, disk.read(store.paths.lost))
    if damaged:
        raise Damaged(damaged[0], f"not copied, as {len(damaged)} file(s) were not intact")
    return done


def _prepare(store: Store, target: str) -> Paths:
    """Make the directories of the copy, or see that they are those of a copy of this lake."""
    there = Paths(target)
    if there.root == store.paths.root or there.root.startswith(store.paths.root + "/"):
        raise AlreadyExists(f"{there.root} is the lake itself: choose a directory outside it")
    if is_lake(there.root):
        copied = load(there.root)
        if copied.lake_id != store.lake_id:
            raise AlreadyExists(f"{there.root} holds another lake: choose another directory")
        raise_format(copied)  # before moves come of a lake that was raised
    elif set(disk.listing(there.root)) - {os.path.basename(d) for d in there.directories()}:
        raise AlreadyExists(f"{there.root} is not empty and no copy of a lake: choose another")
    disk.make_dirs(there.root)
    for directory in there.directories():
        disk.make_dirs(directory)
    if not is_lake(there.root):
        write_config(there, store.lake_id, store.settings)
    return there


def _refuse_other_way(store: Store, there: Paths, branch: str) -> None:
    """Refuse a copy that was written to: its newest move has to be one of ours."""
    numbers = [n for n in map(parse_move, disk.listing(there.head_dir(branch))) if n]
    if not numbers:
        return
    number = max(numbers)
    mine, other = store.paths.move(branch, number), there.move(branch, number)
    newest = store.refs.head_number(branch)
    if number > newest or (disk.exists(mine) and disk.read(mine) != disk.read(other)):
        raise AlreadyExists(
            f"{there.root}: move {number} of branch {branch!r} is not that of {store.paths.root}:"
            " it was written to, or the lake was repaired; copy to another directory"
        )


def _stage_wals(
    store: Store, there: Paths, branch: str, done: HotCopy
) -> tuple[Head, dict[str, str]]:
    """Copy the whole frames of a branch's WALs under temporary names, then look for the head; as
    a reader does, again where files went meanwhile. Raises DamagedWal."""
    disk.make_dirs(there.wal_dir(branch))
    tail = Tail(store.paths, store.refs, branch)
    number = store.refs.head_number(branch)
    for _ in range(ATTEMPTS):
        files = tail.scan()
        staged = {}
        for file in (file for group in files.values() for file in group):
            made = _stage(file, there.wal_dir(branch))
            if made is not None:
                staged[os.path.basename(file.path)] = made
        number = store.refs.head_number(branch)
        head = store.refs.read_head(branch, number)
        if all(_is_whole(group, head) for group in files.values()):
            done.files += len(staged)
            done.bytes += sum(os.stat(path).st_size for path in staged.values())
            return head, staged
        for path in staged.values():
            disk.unlink(path)
        tail.forget()
    raise DamagedWal(store.paths.wal_dir(branch), "frames are missing")


def _stage(file: WalFile, folder: str) -> str | None:
    """Copy a WAL without the end that is being written; None if it is gone."""
    try:
        data = disk.read(file.path)
    except FileNotFoundError:
        return None
    damaged = file.header is None or file.damage is not None
    size = len(data) if damaged else file.end + (wal.END_BYTES if file.ended else 0)
    return disk.write_temporary(folder, data[:size])


def _is_whole(files: list[WalFile], head: Head) -> bool:
    """Whether nothing is missing between the head and these files, and none of them is gone."""
    writer = files[0].writer
    if writer not in head.move.wal and not all(disk.exists(file.path) for file in files):
        return False
    return pick(files, head.move.wal.get(writer, -1))[1]


def _put_wals(there: Paths, branch: str, staged: dict[str, str]) -> None:
    """Give the staged WALs their names, and remove those that the source has no more."""
    folder = there.wal_dir(branch)
    for name, path in staged.items():
        disk.rename(path, f"{folder}/{name}")
    for name in disk.listing(folder):
        if name not in staged and (parse_wal(name) or name.startswith(disk.TEMPORARY)):
            disk.unlink(f"{folder}/{name}")
    disk.sync_dir(folder)


def _copy_objects(
    store: Store, there: Paths, done: HotCopy, progress: Progress | None
) -> list[str]:
    """Copy the objects that are not there yet; return the paths of damaged ones."""
    damaged, wanted = [], []
    for kind in OBJECTS:
        for folder in disk.listing(f"{store.paths.root}/{kind}"):
            have = set(disk.listing(f"{there.root}/{kind}/{folder}"))
            names = disk.listing(f"{store.paths.root}/{kind}/{folder}")
            wanted += [f"{kind}/{folder}/{n}" for n in names if parse_object(n) and n not in have]
            done.kept += sum(n in have for n in names)
    for index, name in enumerate(wanted):
        source, path = f"{store.paths.root}/{name}", f"{there.root}/{name}"
        digest = hashlib.sha256()
        disk.make_dirs(os.path.dirname(path))
        try:
            made = disk.write_pieces(os.path.dirname(path), _hashed(source, digest))
        except FileNotFoundError:
            continue  # gc was faster: nothing that is kept needs it
        if digest.hexdigest() != parse_object(os.path.basename(name)):
            disk.unlink(made)
            damaged.append(source)
            continue
        done.files, done.bytes = done.files + 1, done.bytes + os.stat(made).st_size
        disk.put_made(made, path)
        if progress:
            progress(index + 1, len(wanted))
    return damaged


def _hashed(path: str, digest: Any) -> Iterator[bytes]:
    for piece in disk.pieces(path):
        digest.update(piece)
        yield piece


def _copy_moves(store: Store, there: Paths, branch: str, newest: int, done: HotCopy) -> None:
    """Copy packed moves, then moves up to the newest, oldest first."""
    source, folder = store.paths.head_dir(branch), there.head_dir(branch)
    disk.make_dirs(folder)
    have, names = set(disk.listing(folder)), sorted(disk.listing(source))
    packed = [n for n in names if parse_packed(n)]
    own = [n for n in names if (number := parse_move(n)) is not None and number <= newest]
    done.kept += len(have.intersection(names))
    for name in (n for n in (*packed, *own) if n not in have):
        try:
            data = disk.read(f"{source}/{name}")
        except FileNotFoundError:  # packed meanwhile
            _copy_moves(store, there, branch, newest, done)
            return
        disk.create_whole(f"{folder}/{name}", data)
        done.files, done.bytes = done.files + 1, done.bytes + len(data)
    disk.sync_dir(folder)
    covered = [n for n in have - set(names) if parse_packed(n) and _is_covered(n, packed)]
    for name in covered:
        disk.unlink(f"{folder}/{name}")
    if covered:
        disk.sync_dir(folder)


def _is_covered(name: str, packed: list[str]) -> bool:
    """Whether another packed file holds what is kept of the moves of this one."""
    first, last = parse_packed(name) or (0, 0)
    spans = filter(None, map(parse_packed, packed))
    return any(low <= first and last <= high for low, high in spans)


def _copy_tags(there: Paths, tags: dict[str, bytes], done: HotCopy) -> None:
    """Make the tags those of the source."""
    for name, data in tags.items():
        path = f"{there.tags}/{name}"
        if name.endswith(".json") and not (disk.exists(path) and disk.read(path) == data):
            disk.replace_whole(path, data)
            done.files, done.bytes = done.files + 1, done.bytes + len(data)
    for name in disk.listing(there.tags):
        if name not in tags:
            disk.unlink(f"{there.tags}/{name}")
    disk.sync_dir(there.tags)
