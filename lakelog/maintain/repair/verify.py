"""Verification: every byte of a lake is read again, every name, chain and sum is checked.

Each problem names one file. `damage` is a file that is not what was written; `torn` the
unfinished last frame of a WAL whose writer is gone (an append that was never acknowledged, or
damage of that very frame, which looks the same); `derived` a cache or hint that may be deleted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from lakelog import chunks, document, manifest, ranks, word_indexes
from lakelog.disk import DOCUMENT_MAX, File, Folder, LockFile, NotIntact, NotRegular, disk
from lakelog.entries import SegmentEntry
from lakelog.errors import Damaged, DamagedLake, DamagedRef
from lakelog.history import kept_moves
from lakelog.maintain.repair import erasure_files, lost_moves
from lakelog.maintain.repair.checker import Checker, Problem, Report
from lakelog.manifest import Manifest
from lakelog.paths import CHUNK, INDEX, KEYS, OBJECTS, FileName
from lakelog.refs import Move, Ref, Refs
from lakelog.runtime.progress import ProgressCallback
from lakelog.settings import DEFAULTS
from lakelog.store import Clock, SignatureFile, Store, VerifiedFiles
from lakelog.volume import MovePack
from lakelog.wal import END_BYTES, Header, Tail, WalFile

__all__ = ["Problem", "Report", "open_for_check", "verify", "verify_snapshot"]
_TORN_WAIT = 0.05
_LOOKS = 3
"""How often all is looked at where rows are erased meanwhile."""
MoveBytes = dict[int, tuple[bytes, int]]
"""By number: the bytes of a move, without the manifest that it carries if that is intact, and the
size of both."""


def open_for_check(root: str) -> tuple[Store, Problem | None]:
    """Open a lake even if lakelog.json is damaged or lost. Raises LakeNotFound, FormatTooNew."""
    try:
        return Store.load(root), None
    except DamagedLake as error:
        return Store(root, "", DEFAULTS), Problem(error.path, error.reason)


def verify(
    store: Store, progress: ProgressCallback | None = None, problem: Problem | None = None
) -> Report:
    """Check a whole lake: refs, tags, every object on disk, WALs, sums and chains."""
    return _beside_erasures(store, lambda: _verified(store, progress, problem))


def _beside_erasures(store: Store, check: Callable[[], Report]) -> Report:
    """Return the report of a check, which is made again where rows were erased meanwhile, here or
    by another machine: what was erased is no damage."""
    for _ in range(_LOOKS):
        generation = _generation(store)
        report = check()
        if not report.problems or _generation(store) == generation:
            break
    return report


def _generation(store: Store) -> int:
    """How often something was erased."""
    with contextlib.suppress(DamagedRef):  # which the check reports
        store.erased.refresh()
    return store.erased.generation


def _verified(store: Store, progress: ProgressCallback | None, problem: Problem | None) -> Report:
    store.manifests.forget()  # of the disk, not of what was read before
    checker = Checker(store, progress)
    if problem:
        checker.problems.append(problem)
    elif not File(store.paths.config).exists():
        checker.add(store.paths.config, "it is missing")
    else:
        checker.document(store.paths.config, {"format", "lake", "settings"})
    # Every object, reached or not. One that is listed and missing was deleted by gc meanwhile.
    segments: list[str] = []
    for object_type in OBJECTS:
        for digest in store.paths.digests(object_type):
            if checker.object(object_type, digest, is_listed=True) and object_type == "segments":
                segments.append(digest)
    for name in chunks.StateFiles(store.paths).names():
        if chunks.digest_of_name(name):
            checker.state_file(name, is_listed=True)
    reached = dict.fromkeys(_check_tags(checker))
    _check_signatures(checker)
    branches = lost_moves.branches(store)
    if not branches:
        checker.add(store.paths.heads, "there is no branch")
    for branch in branches:
        # WALs before moves, as a reader does: what is sealed meanwhile is then in the moves
        # (F12.2).
        files = Tail(store.paths, store.refs, branch).scan()
        moves = _check_branch(checker, branch, bool(files))
        _check_wals(checker, branch, files, moves)
        # States outside the window may be gone in part, which is not damage (F10.1).
        reached |= dict.fromkeys(move.snapshot for move in kept_moves(store, moves[::-1]))
    erasure_files.check(checker)
    for digest in reached:
        try:
            check_snapshot(checker, digest)
        except DamagedRef as error:  # of what is read in its place
            checker.add(error.path, error.reason)
    # Listed before the WALs and moves that are read here, as those of a publish may come meanwhile.
    for trace in lost_moves.find(store, segments):
        checker.add(store.paths.object("segments", trace.key), trace.reason)
    for folder, members in (
        (store.paths.remotes, {"name", "url", "branches"}),
        (store.paths.received, {"segments"}),
    ):
        for name in sorted(Folder(folder).names()):
            if name.endswith(".json") and not name.startswith("."):
                checker.document(f"{folder}/{name}", members)
    checker.document(store.paths.condemned, {"names"})
    checker.document(store.paths.let_go, {"moves"})
    checker.document(store.paths.lost, {"names"})
    _check_rollbacks(checker)
    _check_word_indexes(checker)
    _check_rank_indexes(checker)
    _check_verified(checker)
    return checker.report()


def verify_snapshot(store: Store, digest: str, progress: ProgressCallback | None = None) -> Report:
    """Check one snapshot: its manifest, pages, id runs and segments."""

    def check() -> Report:
        store.manifests.forget()
        checker = Checker(store, progress)
        check_snapshot(checker, digest)
        return checker.report()

    return _beside_erasures(store, check)


def check_snapshot(checker: Checker, digest: str) -> None:
    """Check what one manifest reaches, and that its totals are the sums of its segments."""
    if not checker.object("manifests", checker.store.manifests.stored_as(digest)):
        return
    state = checker.store.manifests.load(digest)
    # A repair has reported this state as lost already.
    if not checker.lost.isdisjoint(f"manifests/{page.digest}" for page in state.pages):
        return
    pages = [checker.object("manifests", page.digest) for page in state.pages]
    if not all(pages):
        return
    try:
        live = checker.paged_segments(state)
    except Damaged as error:
        checker.add(error.path, error.reason)
        return
    for run in state.ids:
        checker.object("ids", run.digest)
    _check_states(checker, state)
    # The last entry of a key counts; what the state deleted may be gone from the disk.
    recent = {e.key: e for e in state.recent if e.entry_type == "segment"}
    additions = [e for e in recent.values() if isinstance(e, SegmentEntry)]
    checker.check_paged(recent.keys() - {e.key for e in additions})
    for entry in additions:
        checker.object("segments", entry.key)
    paged = [e for key, e in live.items() if key not in recent]
    if manifest.add_up(manifest.Totals(), [*paged, *additions]) != state.totals:
        path = checker.store.paths.object("manifests", digest)
        checker.add(path, "its totals are not the sums of its segments")


def _check_states(checker: Checker, state: Manifest) -> None:
    """Check the state directories of a snapshot: each index, and that its chunks are there."""
    paths = checker.store.paths
    try:
        states = chunks.StateRecord.all_of(checker.store.manifests, state)
    except Damaged as error:
        checker.add(error.path, error.reason)
        return
    for index in sorted({record.index for record in states} - checker.indices):
        checker.indices.add(index)
        if checker.state_file(KEYS.state_file(index, INDEX)):
            for digest in chunks.StateFiles(paths).chunks_of(index):
                checker.state_file(KEYS.state_file(digest, CHUNK))


def _check_tags(checker: Checker) -> Iterator[str]:
    folder = checker.store.paths.tags
    for name in sorted(Folder(folder).names()):
        if name.endswith(".json") and not name.startswith("."):
            body = checker.document(f"{folder}/{name}", {"name", "snapshot"})
            if body and body["name"] != FileName(name[:-5]).ref:
                checker.add(f"{folder}/{name}", "it is the tag of another name")
            elif body:
                yield str(body["snapshot"])


def _check_signatures(checker: Checker) -> None:
    """Check that each signature is the document that was written; who made it needs keys."""
    folder = checker.store.paths.signatures
    for name in sorted(Folder(folder).names()):
        path = f"{folder}/{name}"
        if name.startswith("."):  # temporary, or not of lakelog
            continue
        if SignatureFile.parse(path) is None:
            checker.add(path, "not a signature's name")
        checker.document(path, SignatureFile.MEMBERS)


def _check_branch(checker: Checker, branch: str, has_wals: bool) -> list[Move]:
    """Check each move and the chain between them; return those that can be read."""
    paths = checker.store.paths
    refs = Refs(checker.store.volume)
    hinted = refs.hint_number(branch)
    own_moves = _own_moves(paths.head_dir(branch))
    packed_moves, spans = _check_packed(checker, branch)
    moves_at = {**packed_moves, **own_moves}
    # The hint counts: it is written after its move was durable, so a move below it was lost.
    newest = max([hinted, *moves_at], default=0)
    moves: list[Move] = []
    previous: tuple[Move, str] | None = None
    for number in _numbers(moves_at, newest, spans):
        fault: str | None = "the move is missing"
        data, size = moves_at.get(number, (b"", 0))
        # Moves in between were dropped, so there is nothing to compare `prev` with.
        if previous and previous[0].number != number - 1:
            previous = None
        try:
            if size:
                move = refs.decode(branch, number, data)
                previous, fault = (move, document.digest(data)), _chain_fault(previous, move)
                moves.append(move)
        except DamagedRef as error:
            previous, fault = None, error.reason
        checker.count(size)
        if fault:
            checker.add(paths.move(branch, number), fault)
    if not newest and (has_wals or len(refs.all_branches()) == 1):
        checker.add(paths.head_dir(branch), "the branch has no moves")
    hint = checker.document(paths.hint(branch), {"branch", "number"}, "derived")
    if hint and (len(hint) > 2 or hint["branch"] != branch):
        checker.add(paths.hint(branch), "it is another document", "derived")
    return moves


def _numbers(moves_at: MoveBytes, newest: int, spans: list[tuple[int, int]]) -> Iterator[int]:
    """Yield the numbers of the moves that are there, and the first of each run that is missing.
    What a packed file does not have of its span was dropped, or that file is named as damaged."""
    following = 1
    for number in [*sorted(moves_at), newest + 1]:
        gap = following
        for low, high in sorted(spans):
            gap = max(gap, high + 1) if low <= gap else gap
        if gap < number:
            yield gap
        if number <= newest:
            yield number
        following = number + 1


def _own_moves(directory: str) -> MoveBytes:
    """Moves in files of their own; read before packed ones, since gc packs, then unlinks."""
    moves = {}
    for name in Folder(directory).names():
        number = FileName(name).move
        if number is not None:
            with contextlib.suppress(FileNotFoundError):
                try:
                    data = File(f"{directory}/{name}").read(DOCUMENT_MAX)
                except NotRegular:
                    data = b""
                moves[number] = _without_manifest(data)
    return moves


def _without_manifest(data: bytes) -> tuple[bytes, int]:
    """Return a move without the manifest that it carries, if that is intact, and its size."""
    try:
        Ref.document_of(data)
    except NotIntact:
        return data, len(data)
    return document.split(data)[0], len(data)


def _check_packed(checker: Checker, branch: str) -> tuple[MoveBytes, list[tuple[int, int]]]:
    """Return packed moves, and the spans of packed files, readable or not."""
    packed_moves: MoveBytes = {}
    spans: list[tuple[int, int]] = []
    for low, high, path in checker.store.refs.packs(branch):
        with contextlib.suppress(FileNotFoundError):  # packed again: its moves are in that file
            try:
                packed_moves.update(
                    {n: _without_manifest(data) for n, data in MovePack.read(path).items()}
                )
                checker.count(os.stat(path).st_size)
            except DamagedRef as error:
                checker.add(error.path, error.reason)
            spans.append((low, high))
    return packed_moves, spans


def _chain_fault(previous: tuple[Move, str] | None, move: Move) -> str | None:
    """Return what is wrong between a move and the one before it, or None.

    A move with op `lost`, made by repair, takes the place of one that cannot be read any more; its
    message is the SHA-256 that the move after it expects (F14.5).
    """
    if previous is None:
        return (
            "it is the first, yet names a move before it"
            if move.number == 1 and move.prev
            else None
        )
    previous_number, digest = previous
    if move.prev not in (
        digest,
        previous_number.message if previous_number.op == "lost" else digest,
    ):
        return "it does not name the move before it"
    back = previous_number.time - move.time  # far back means that a clock was corrected (F7.3)
    return "its time is not later than the move before it" if 0 <= back <= Clock.AHEAD else None


def _check_wals(
    checker: Checker, branch: str, files: dict[str, list[WalFile]], moves: list[Move]
) -> None:
    paths = checker.store.paths
    for writer, group in files.items():
        # Of all moves: a finished writer has no watermark in the newest.
        sealed = max((m.wal.get(writer, -1) for m in moves), default=-1)
        _check_writer(checker, branch, group, sealed)
        watermark = WalFile.required_watermark(group)
        if watermark > sealed:
            reason = f"group commits up to {watermark} are neither sealed nor in a file before it"
            checker.add(group[0].path, reason)
    for name in Folder(paths.wal_dir(branch)).names():
        if not FileName(name).wal and not name.startswith(disk.TEMPORARY):
            checker.add(f"{paths.wal_dir(branch)}/{name}", "not a WAL file's name", "derived")


def _check_writer(checker: Checker, branch: str, group: list[WalFile], sealed: int) -> None:
    """Check one writer's files, in order. Sealed files may be missing, after a power cut even
    between two that came back."""
    for file, follows in zip(group, [*group[1:], None], strict=True):
        checker.count(file.end + file.torn)
        if file.header is None:
            checker.add(file.path, "its header is damaged, or that of another file", offset=0)
            continue
        if file.damage is not None:
            checker.add(file.path, "a frame is damaged", offset=file.damage)
        elif file.torn and file.ended:
            checker.add(file.path, "there are bytes after its end", offset=file.end)
        elif file.torn and _is_suspect(checker, branch, file, follows):
            checker.add(
                file.path,
                f"{file.torn} bytes after the last good frame: an unfinished append, or damage",
                "torn",
                file.end,
            )
        # Within a file no frame can be missing; between two, sealed ones can be, or doubtful ones.
        starts = [f.sequence for f in file.frames]
        if starts != list(range(starts[0], starts[0] + len(starts)) if starts else ()):
            checker.add(file.path, "its sequence numbers are not contiguous")
        if (
            follows
            and follows.header
            and file.damage is None
            and _misses(file, follows.header, sealed)
        ):
            checker.add(file.path, "frames before the next file are missing", offset=file.end)
        _check_frames(checker, file)


def _misses(file: WalFile, header: Header, sealed: int) -> bool:
    missing = range(max(file.last, sealed) + 1, header.first)
    return bool(set(missing) - set(header.doubtful))


def _check_frames(checker: Checker, file: WalFile) -> None:
    for frame in (*file.frames, *file.resumed):
        try:
            frame.lines()
        except Exception as error:
            checker.add(file.path, f"a frame does not open: {error}", offset=frame.offset)


def _is_suspect(checker: Checker, branch: str, file: WalFile, follows: WalFile | None) -> bool:
    """Whether a torn end may be damage: not where the next file has that frame, or names it as one
    of an append that failed."""
    if follows is None or follows.header is None:
        return _stays_torn(checker, branch, file)
    return file.torn <= END_BYTES or _misses(file, follows.header, -1)


def _stays_torn(checker: Checker, branch: str, file: WalFile) -> bool:
    """Whether a torn frame is not just being written: a living writer completes it in a moment."""
    if not LockFile(file.path).is_held():
        return True
    for _ in range(3):
        time.sleep(_TORN_WAIT)
        second_scan = Tail(checker.store.paths, checker.store.refs, branch).scan()
        same_files = [f for f in second_scan.get(file.writer, []) if f.n == file.n]
        if not same_files or not same_files[0].torn or same_files[0].end != file.end:
            return False
    return True


def _check_rollbacks(checker: Checker) -> None:
    """Check the notes of rollbacks, and whose they are; one that is left over was interrupted,
    unless it is at work."""
    paths = checker.store.paths
    for name in sorted(Folder(paths.rollbacks).names()):
        if not name.startswith("."):
            # Without it an undo moves the branch alone; nothing else is lost.
            checker.document(f"{paths.rollbacks}/{name}", {"commit", "before"}, "derived")
    # Without it the states of this machine are those of another one, which can be adopted.
    checker.document(paths.machine, {"machine", "keys", "bound"}, "derived")
    pending = checker.document(paths.rollback, {"commit", "before", "steps"})
    if pending and not LockFile(paths.restore_lock).is_held():
        reason = f"a {pending['op']} {pending['message']!r} was interrupted"
        advice = "`lakelog rollback --continue` finishes it, `lakelog undo` takes it back"
        checker.add(paths.rollback, f"{reason}: {advice}", "torn")


def _check_verified(checker: Checker) -> None:
    path = checker.store.paths.verified
    try:
        data = File(path).read(DOCUMENT_MAX)
    except FileNotFoundError:
        return
    except NotRegular as error:
        checker.add(path, str(error), "derived")
        return
    checker.count(len(data))
    bad = sum(VerifiedFiles.parse(line) is None for line in data.splitlines())
    if bad or (data and not data.endswith(b"\n")):
        checker.add(path, f"{max(bad, 1)} lines are damaged; the file may be deleted", "derived")


def _check_word_indexes(checker: Checker) -> None:
    paths = checker.store.paths
    for name in sorted(Folder(paths.word_indexes).names()):
        if name.startswith(disk.TEMPORARY):
            continue
        try:
            data = File(paths.words(name)).read()
        except FileNotFoundError:  # its segment was merged meanwhile
            continue
        checker.count(len(data))
        if not word_indexes.is_whole(data, name):
            checker.add(paths.words(name), "it is damaged; the file may be deleted", "derived")


def _check_rank_indexes(checker: Checker) -> None:
    paths = checker.store.paths
    for name in sorted(Folder(paths.rank_indexes).names()):
        is_there = not name.startswith(disk.TEMPORARY) and File(paths.ranks(name)).exists()
        if is_there and not ranks.is_whole(paths, name):
            problem = "it is damaged; the folder may be deleted"
            checker.add(paths.ranks(name), problem, "derived")
