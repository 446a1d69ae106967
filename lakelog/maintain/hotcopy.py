"""Hot copy: a consistent copy of a lake in use, as another lake; later runs are incremental.

Of the source the WALs are read first, then the heads, then the tags, then objects are listed, as a
reader does: so nothing acknowledged before is missing, and everything that a move names is there.
In the target objects come first, then moves in their order, then the WALs, then tags: a run that
dies leaves the state of the run before, or the new one without its tail. Objects and moves never
change, so what is there is not copied again; objects are hashed as they are copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from lakelog import chunks
from lakelog.appends import StreamLock
from lakelog.disk import File, Folder, LockFile, NotIntact, OpenFile, disk
from lakelog.entries import SegmentEntry
from lakelog.erased import copies, sweep
from lakelog.errors import AlreadyExists, Damaged, DamagedWal, UnknownRef
from lakelog.manifest import Page
from lakelog.paths import KEYS, OBJECTS, FileName, FileNames, Paths
from lakelog.refs import Head
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import LakeConfig, Store
from lakelog.wal import Tail, WalFile

_FETCHED = 64
"""Objects of a bucket that are brought here before they are copied."""


@dataclass
class HotCopy:
    """The files and bytes that one run copied, and the files that were there already (`kept`)."""

    files: int = 0
    bytes: int = 0
    kept: int = 0


def copy(store: Store, target: str, progress: ProgressCallback | None = None) -> HotCopy:
    """Bring the copy of a lake at `target` up to date, or make it, after other runs that do so.

    Raises AlreadyExists where something else is there, Damaged for a damaged file of the source
    (all others are copied), OSError.
    """
    copy_paths = _prepare(store, target)
    copies.note(store.paths, "backup", copy_paths.root)
    with LockFile(f"{copy_paths.cache}/copy.lock").claim() as alone:
        if not alone:
            # It would take away what the other one has staged.
            OpenFile(alone.fd).lock(wait=True)
        return _copy(store, copy_paths, progress)


def _copy(store: Store, copy_paths: Paths, progress: ProgressCallback | None) -> HotCopy:
    result = HotCopy()
    heads: dict[str, Head] = {}
    staged: dict[str, dict[str, str]] = {}
    at_start = _SourceAtStart(store)
    # Before the heads: what is known of a remote names moves, which the copy will have then.
    remotes = _read_all(store.paths.remotes)
    noted_path, wal_names = f"{copy_paths.cache}/copied.json", dict[str, list[str]]()
    # WALs before heads (F12.2). They wait under temporary names: with the old head of the copy
    # their frames could leave a gap.
    for branch in store.refs.all_branches():
        if not store.refs.numbers(branch):
            continue  # a branch that is being created
        _refuse_diverged(store, copy_paths, branch)
        present = _require_copied(copy_paths, branch, noted_path)
        heads[branch], staged[branch] = _stage_wals(store, copy_paths, branch, result)
        wal_names[branch] = sorted({*present, *staged[branch]})
    # Before they get their names: a run that dies leaves no file that is not noted.
    File(noted_path).replace(orjson.dumps(wal_names))
    # Before the objects: what a tag names that is made later may not be copied.
    # Signatures before tags: each then has the tag that it signs.
    signatures = _read_all(store.paths.signatures)
    tags = _read_all(store.paths.tags)
    damaged, generation = list[str](), -1
    # Once more where another machine of a shared lake has erased rows, and nobody here knew.
    while generation != store.erased.refresh():
        generation = store.erased.generation
        needed = _needed(store, heads) if store.attachment is not None else set[str]()
        damaged = _copy_objects(
            store,
            copy_paths,
            lambda name: at_start.is_settled(name, heads),
            needed,
            result,
            progress,
        )
    damaged += _copy_states(store, copy_paths, result)
    # What stands in the place of erased states has to be known before a move names one.
    _copy_erasures(store, copy_paths, result)
    # Only now, when everything that a move names is durable in the copy.
    for branch, head in heads.items():
        _copy_moves(store, copy_paths, branch, head.move.number, result)
        _put_wals(copy_paths, branch, staged[branch])
    _copy_documents(copy_paths.tags, tags, result)
    _copy_documents(copy_paths.signatures, signatures, result)
    _copy_documents(copy_paths.remotes, remotes, result)
    # Else whoever restores the copy would take what gc let go for lost, have no rules, and undo and
    # erase without a word of what else was moved or got rows. Not counted: each run notes itself.
    for name in ("rollbacks", "copies", "received"):
        documents = _read_all(getattr(store.paths, name))
        _copy_documents(getattr(copy_paths, name), documents, HotCopy())
    for name in ("lost", "let_go", "policy"):
        if (document := File(getattr(store.paths, name))).exists():
            File(getattr(copy_paths, name)).replace(document.read())
    if Folder(copy_paths.erasures).names():
        sweep.sweep(Store.load(copy_paths.root))
    # Last: one damaged segment must not keep all others from being backed up.
    if damaged:
        raise Damaged(damaged[0], f"not copied, as {len(damaged)} file(s) were not intact")
    return result


class _SourceAtStart:
    """The segments that were there before WALs and heads were read, and the moves of that time.

    A segment that was sealed since has frames that the copy's WALs may lack, and its move may not
    be copied: in the copy it would prove that its newest moves were lost (FORMAT.md, F14.7).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tops = dict[str, int]()
        for branch in store.refs.all_branches():
            names = Folder(store.paths.head_dir(branch)).names()
            self._tops[branch] = max(FileNames(names).moves, default=0)
        self._segments = set(store.paths.digests("segments"))
        self._added: set[str] | None = None

    def is_settled(self, name: str, heads: dict[str, Head]) -> bool:
        """Whether an object was there, is no segment, or is in a state that is copied."""
        key = FileName.of(name).digest
        if not name.startswith("segments/") or key in self._segments:
            return True
        if self._added is None:
            self._added = self._segments_since(heads)
        return key in self._added

    def _segments_since(self, heads: dict[str, Head]) -> set[str]:
        """The segments of the states that branches and tags got since."""
        store = self._store
        states = {tag.snapshot for tag in store.refs.tags()}
        for branch, head in heads.items():
            start = self._tops.get(branch, 0) + 1
            numbers = range(start, head.move.number + 1)
            states |= {store.refs.read(branch, number).snapshot for number in numbers}
        load = store.manifests.load
        return {e.key for state in states for e in store.manifests.segments(load(state))}


def _prepare(store: Store, target: str) -> Paths:
    """Create the directories of the copy, or check that it is a copy of this lake."""
    copy_paths = Paths(target)
    if _is_inside(copy_paths.root, store.paths.root):
        raise AlreadyExists(f"{copy_paths.root} is the lake itself: choose a directory outside it")
    ring = store.paths.keys.ring if store.paths.keys else None
    if Store.is_lake(copy_paths.root):
        copied = Store.load(copy_paths.root)
        if copied.lake_id != store.lake_id:
            raise AlreadyExists(f"{copy_paths.root} holds another lake: choose another directory")
        # Before moves of a newer format are copied into it.
        copied.raise_format(store.format_now())
        if ring is not None and (copied.paths.keys is None or copied.paths.keys.ring != ring):
            copied.change_keys(ring)
        if store.paths.protection not in (None, copied.paths.protection):
            copied.change_protection(store.paths.protection)
        present = store.config.read().get("settings", store.settings.unlike())
        if copied.config.read().get("settings") != present:
            copied.config.change(lambda _: {"settings": present})
    elif set(_settled_names(copy_paths.root)) - {
        os.path.basename(d) for d in copy_paths.directories()
    }:
        raise AlreadyExists(f"{copy_paths.root} is not empty and no copy of a lake: choose another")
    Folder(copy_paths.root).make_for_lake()
    for directory in copy_paths.directories():
        Folder(directory).make_all()
    # Before the objects: a run that died can then be continued.
    if not Store.is_lake(copy_paths.root):
        protection = store.paths.protection
        LakeConfig(copy_paths).create(
            store.lake_id, store.settings, store.format_now(), ring, protection
        )
        Store.load(copy_paths.root)
    return copy_paths


def _is_inside(target: str, root: str) -> bool:
    """Whether a directory is another one or below it, whatever links and mounts its path has."""
    path = Path(os.path.realpath(target))
    # It would take the files of writers for those of an older copy, and replace them.
    return any(os.path.samefile(p, root) for p in (path, *path.parents) if p.exists())


def _settled_names(directory: str) -> list[str]:
    """The names in a directory without those of files that another run is about to make there."""
    return [name for name in Folder(directory).names() if not name.startswith(disk.TEMPORARY)]


def _refuse_diverged(store: Store, copy_paths: Paths, branch: str) -> None:
    """Refuse a copy that was written to: its moves have to be those of the source."""
    if not FileNames(Folder(copy_paths.head_dir(branch)).names()).moves:
        return
    copied = Store.load(copy_paths.root).refs
    numbers, is_other = copied.numbers(branch), False
    number = numbers[-1]
    # What was thinned out of one of the two tells nothing.
    if shared := set(numbers).intersection(store.refs.numbers(branch)):
        with contextlib.suppress(UnknownRef):  # thinned since it was listed
            # By its commit: of what it carries, an erasure takes the texts of states away.
            commit = copied.read(branch, max(shared)).commit
            is_other = store.refs.read(branch, max(shared)).commit != commit
        number = max(shared) if is_other else number
    if is_other or number > store.refs.head_number(branch):
        raise AlreadyExists(
            f"{copy_paths.root}: move {number} of branch {branch!r} is not that of"
            f" {store.paths.root}: it was written to, or the lake was repaired or put back;"
            " copy to another directory"
        )


def _require_copied(copy_paths: Paths, branch: str, noted_path: str) -> set[str]:
    """Return the WAL files of a branch of the copy; refuse a copy that has one which no run of
    before has noted: events were appended there, which would be lost."""
    present = {n for n in Folder(copy_paths.wal_dir(branch)).names() if FileName(n).wal}
    copied = present
    with contextlib.suppress(FileNotFoundError, ValueError):
        copied = set(orjson.loads(File(noted_path).read()).get(branch, ()))
    if strangers := present - copied:
        raise AlreadyExists(
            f"{copy_paths.wal_dir(branch)}/{min(strangers)} is not of the lake: the copy was"
            " written to; copy to another directory"
        )
    return present


def _stage_wals(
    store: Store, copy_paths: Paths, branch: str, result: HotCopy
) -> tuple[Head, dict[str, str]]:
    """Copy the good frames of a branch's WALs under temporary names, then look for the head; again,
    as a reader does, if files vanished meanwhile (F12.3). Raises DamagedWal."""
    folder = copy_paths.wal_dir(branch)
    Folder(folder).make_all()
    # Of runs that failed: on a full disk each would leave its own.
    for name in (n for n in Folder(folder).names() if n.startswith(disk.TEMPORARY)):
        File(f"{folder}/{name}").remove()
    tail = Tail(store.paths, store.refs, branch)
    number = store.refs.head_number(branch)
    for _ in range(tail.ATTEMPTS):
        # As of one moment: a versioned event without the one before it is a gap in its stream.
        files = StreamLock(store, branch).scan(tail)
        staged = {}
        for file in (file for group in files.values() for file in group):
            temporary = _stage(file, folder)
            if temporary is not None:
                staged[os.path.basename(file.path)] = temporary
        number = store.refs.head_number(branch)
        head = store.refs.read_head(branch, number)
        if all(_is_whole(group, head) for group in files.values()):
            result.files += len(staged)
            result.bytes += sum(os.stat(path).st_size for path in staged.values())
            return head, staged
        for path in staged.values():
            File(path).remove()
        tail.forget()
    raise DamagedWal(store.paths.wal_dir(branch), "frames are missing")


def _stage(file: WalFile, folder: str) -> str | None:
    """Copy a WAL without a frame that is being written; None if it is gone."""
    try:
        data = File(file.path).read()
    except FileNotFoundError:
        return None
    # A damaged one is copied as it is: repair of the copy has no less to work with than here.
    damaged = file.header is None or file.damage is not None
    size = len(data) if damaged else file.intact
    return Folder(folder).write(data[:size])


def _is_whole(files: list[WalFile], head: Head) -> bool:
    """Whether nothing is missing between the head and these files, and none of them is gone."""
    writer = files[0].writer
    if writer not in head.move.wal and not all(File(file.path).exists() for file in files):
        return False
    return WalFile.pick(files, head.move.wal.get(writer, -1))[1]


def _put_wals(copy_paths: Paths, branch: str, staged: dict[str, str]) -> None:
    """Give the staged WALs their names, and remove those that the source does not have any more."""
    folder = copy_paths.wal_dir(branch)
    # Each replaces an older copy of itself in one step: at no moment a frame is missing.
    for name, path in staged.items():
        File(path).rename(f"{folder}/{name}")
    for name in Folder(folder).names():
        if name not in staged and FileName(name).wal:
            File(f"{folder}/{name}").remove()
    Folder(folder).sync()


def _needed(store: Store, heads: dict[str, Head]) -> set[str]:
    """Return the objects of all kept states, which only a bucket may have."""
    needed, snapshots = set[str](), {tag.snapshot: None for tag in store.refs.tags()}
    for branch, head in heads.items():
        numbers = [n for n in sorted(store.refs.numbers(branch)) if n <= head.move.number]
        snapshots |= {store.refs.read(branch, number).snapshot: None for number in numbers}
    pages: tuple[Page, ...] = ()
    for state in map(store.manifests.load, snapshots):
        if state.pages != pages:  # neighbours in history mostly have the same ones
            pages, segments = state.pages, store.manifests.paged_segments(state)
            needed.update(KEYS.object("segments", key) for key in segments)
        recent = (entry.key for entry in state.recent if isinstance(entry, SegmentEntry))
        needed.update(KEYS.object("segments", key) for key in recent)
        needed.update(KEYS.object("ids", run.digest) for run in state.ids)
    return needed


def _copy_objects(
    store: Store,
    copy_paths: Paths,
    is_settled: Callable[[str], bool],
    needed: set[str],
    result: HotCopy,
    progress: ProgressCallback | None,
) -> list[str]:
    """Copy the settled objects that are not there yet, and those needed of a bucket; return the
    paths of damaged ones."""
    damaged, missing = [], []
    for object_type in OBJECTS:
        for folder in FileNames(Folder(f"{store.paths.root}/{object_type}").names()).hex_dirs:
            have = set(Folder(f"{copy_paths.root}/{object_type}/{folder}").names())
            names = Folder(f"{store.paths.root}/{object_type}/{folder}").names()
            missing += [
                f"{object_type}/{folder}/{n}" for n in names if FileName(n).digest and n not in have
            ]
            result.kept += sum(n in have for n in names)
    missing = list(filter(is_settled, missing))
    copied = (name for name in needed if File(f"{copy_paths.root}/{name}").exists())
    missing += sorted(needed - {*missing, *copied})
    for index, name in enumerate(missing):
        if needed and index % _FETCHED == 0:
            batch = missing[index : index + _FETCHED]
            objects = [(FileName.of(n).digest or "", n) for n in batch if n in needed]
            store.verified.obtain([(key, f"{store.paths.root}/{n}") for key, n in objects])
        source, path = f"{store.paths.root}/{name}", f"{copy_paths.root}/{name}"
        digest = hashlib.sha256()
        Folder(os.path.dirname(path)).make_for_objects()
        try:
            temporary = Folder(os.path.dirname(path)).write_pieces(_hash_pieces(source, digest))
        except FileNotFoundError:
            # Else gc deleted it since it was listed: no kept state needs it.
            damaged += [source] if name in needed else []
            continue
        if digest.hexdigest() != FileName.of(name).digest:
            File(temporary).remove()
            damaged.append(source)
            continue
        result.files, result.bytes = result.files + 1, result.bytes + os.stat(temporary).st_size
        File(temporary).become_object(path)
        if progress:
            progress(index + 1, len(missing))
    return damaged


def _copy_states(store: Store, copy_paths: Paths, result: HotCopy) -> list[str]:
    """Copy the chunks and indices of state directories that are not there yet; return the paths of
    damaged ones."""
    damaged, have = [], set(chunks.StateFiles(copy_paths).names())
    names = filter(chunks.digest_of_name, chunks.StateFiles(store.paths).names())
    for name in names:
        if name in have:
            result.kept += 1
            continue
        try:
            data = chunks.read_file(f"{store.paths.root}/{name}")
            chunks.check(data, os.path.basename(name))
        except FileNotFoundError:
            continue  # gc deleted it since it was listed
        except NotIntact:
            damaged.append(f"{store.paths.root}/{name}")
            continue
        File(f"{copy_paths.root}/{name}").put(data)
        result.files, result.bytes = result.files + 1, result.bytes + len(data)
    return damaged


def _copy_erasures(store: Store, copy_paths: Paths, result: HotCopy) -> None:
    """Copy the notes of what was erased, that of what stands in its place last."""
    names = Folder(store.paths.erasures).names()
    if not names:
        return
    copy = Store.load(copy_paths.root)
    copy.require("erasure")
    Folder(copy_paths.erasures).make_all()
    for name in (n for n in names if n.endswith((".json", ".rows")) and n != "states.json"):
        data = File(f"{store.paths.erasures}/{name}").read()
        File(f"{copy_paths.erasures}/{name}").replace(data)
        result.files, result.bytes = result.files + 1, result.bytes + len(data)
    store.erased.copy_to(copy.erased)


def _hash_pieces(path: str, digest: Any) -> Iterator[bytes]:
    for chunk in File(path).pieces():
        digest.update(chunk)
        yield chunk


def _copy_moves(store: Store, copy_paths: Paths, branch: str, newest: int, result: HotCopy) -> None:
    """Copy packed moves, then moves up to the newest, oldest first."""
    source, folder = store.paths.head_dir(branch), copy_paths.head_dir(branch)
    Folder(folder).make_all()
    have, names = set(Folder(folder).names()), sorted(Folder(source).names())
    # Packed files first, and each list in ascending order: a run that dies leaves no gap.
    pack_names = [n for n in names if FileName(n).packed]
    move_names = [n for n in names if (number := FileName(n).move) is not None and number <= newest]
    result.kept += len(have.intersection(names))
    for name in (n for n in (*pack_names, *move_names) if n not in have):
        try:
            data = File(f"{source}/{name}").read()
        except FileNotFoundError:  # packed meanwhile
            _copy_moves(store, copy_paths, branch, newest, result)
            return
        File(f"{folder}/{name}").create(data)
        result.files, result.bytes = result.files + 1, result.bytes + len(data)
    Folder(folder).sync()
    # After the sync of those that replace them: gc has merged or thinned these in the source.
    covered = [n for n in have - set(names) if FileName(n).packed and _is_covered(n, pack_names)]
    for name in covered:
        File(f"{folder}/{name}").remove()
    if covered:
        Folder(folder).sync()


def _is_covered(name: str, pack_names: list[str]) -> bool:
    """Whether another packed file covers the span of this one."""
    lowest, highest = FileName(name).packed or (0, 0)
    spans = FileNames(pack_names).packs
    return any(low <= lowest and highest <= high for low, high in spans)


def _read_all(folder: str) -> dict[str, bytes]:
    """Return the files of a directory of documents, which may be missing."""
    files = {}
    for name in filter(_is_document, Folder(folder).names()):
        with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
            files[name] = File(f"{folder}/{name}").read()
    return files


def _is_document(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _copy_documents(folder: str, files: dict[str, bytes], result: HotCopy) -> None:
    """Make the tags, or the signatures, in a directory of the copy those of the source."""
    if files:
        Folder(folder).make_all()
    for name, data in files.items():
        path = f"{folder}/{name}"
        if not (File(path).exists() and File(path).read() == data):
            File(path).replace(data)
            result.files, result.bytes = result.files + 1, result.bytes + len(data)
    names = Folder(folder).names()
    for name in names:
        if name not in files and (_is_document(name) or name.startswith(disk.TEMPORARY)):
            File(f"{folder}/{name}").remove()
    if files or names:
        Folder(folder).sync()
