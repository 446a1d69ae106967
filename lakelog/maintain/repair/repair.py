"""Repair: damaged files are restored from a copy, or set aside; the loss is listed (F14.5).

A file of a copy takes the place of a damaged one; then the branches are made usable with what is
left (recover.py, orphans.py, refs.py, data.py). Files set aside are moved to cache/damaged, never
deleted. Every loss is a line of the outcome, and objects given up are noted in gc/lost.json, so
that verify and gc know of them. Moves made here have op `repair`; one with op `lost` takes the
place of one that cannot be read. On a lake without damage nothing changes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re

from lakelog import chunks, database, document, history
from lakelog.database import Connect
from lakelog.disk import File, Folder, LockFile, NotIntact, disk
from lakelog.errors import Damaged, DamagedLake, NotAllowed, UnknownRef
from lakelog.keys import VAULT
from lakelog.maintain.repair import data, erasure_files, lost_ids, lost_moves, recover, refs
from lakelog.maintain.repair.checker import Problem, Report
from lakelog.maintain.repair.comparison import Comparison, continue_copy
from lakelog.maintain.repair.outcome import RepairOutcome
from lakelog.maintain.repair.verify import open_for_check, verify, verify_snapshot
from lakelog.paths import CHUNK, FORMAT, INDEX, KEYS, OBJECTS, FileName
from lakelog.refs import Ref, Tag, author
from lakelog.runtime.progress import ProgressCallback
from lakelog.segments import Segment
from lakelog.store import LakeConfig, Machine, Policy, SignatureFile, Store
from lakelog.volume import MovePack
from lakelog.wal import Header, Tail

__all__ = ["LakeCheck", "RepairOutcome", "repair"]


class LakeCheck:
    """A lake that is checked and repaired by its path: it may be too damaged to be opened.

    Raises LakeNotFound, FormatTooNew.
    """

    def __init__(self, path: str) -> None:
        self.store, self._problem = open_for_check(path)
        # A factory: the engine is opened only where rows have to be read.
        self._connect = functools.partial(database.connect, self.store.paths, self.store.settings)

    def verify(self, progress: ProgressCallback | None = None) -> Report:
        """Check every byte of the lake."""
        return verify(self.store, progress, self._problem)

    def verify_ref(self, branch: str, ref: str, progress: ProgressCallback | None = None) -> Report:
        """Check every byte of one state. Raises UnknownRef."""
        try:
            return verify_snapshot(self.store, history.resolve(self.store, branch, ref), progress)
        # A damaged state is what verify is there to find, so it is a finding and no failure.
        except Damaged as error:
            return Report.of_damage(error)

    def compared(self, report: Report, copy: str) -> Report | None:
        """Return a report with what a copy has and the lake lacks; None if it is no copy of it."""
        if self._problem is not None:
            return report
        comparison = Comparison.with_copy(self.store, copy, self._connect)
        return comparison.added_to(report) if comparison else None

    def repair(self, copy: str | None = None) -> RepairOutcome:
        """Make the lake usable again. Raises NotAllowed, OSError, and Damaged where nothing is
        left."""
        return repair(self.store, self._connect, copy, self._problem)


def repair(
    store: Store, connect: Connect, copy: str | None = None, problem: Problem | None = None
) -> RepairOutcome:
    """Make a damaged lake usable again. Raises NotAllowed, OSError, and Damaged where nothing is
    left."""
    Policy.require(store.paths, "repair")
    outcome = RepairOutcome()
    if store.attachment is not None:
        if copy:
            raise NotAllowed("a shared lake is repaired from its bucket: leave out --from")
        erasure_files.mend(store, outcome, None)
        store.attachment.mend(store, outcome)
        # A look at what nobody here has would end at the first.
        lacking = tuple(Problem(line.partition(":")[0], line) for line in outcome.lost)
        outcome.after = Report(lacking, 0, 0) if lacking else verify(store)
        return outcome
    if problem:
        with Machine.rebinding(store.paths):
            _renew_config(store, outcome, copy)
    comparison = Comparison.with_copy(store, copy, connect) if copy else None
    # Before all else, as it says what a state is read from.
    fetched = erasure_files.mend(store, outcome, comparison.there if comparison else None)
    _clear_caches(store)
    # Time and again: a file that was fetched may name others that are damaged or missing.
    while _bring_back(store, outcome, copy, fetched) or (comparison and comparison.fetch(outcome)):
        _clear_caches(store)
    # From the top down: data can only be judged by a state, a state only by the moves.
    used = _used_branches(store)
    for branch in sorted({*used, *store.refs.all_branches()}):
        refs.mend_moves(store, branch, outcome, was_there=branch in used)
        with contextlib.suppress(UnknownRef):  # one deleted, or never finished, needs no more
            moved = refs.restore_state(store, branch, connect, outcome)
            copied = comparison.there if comparison else None
            data.drop_segments(store, branch, connect, outcome, copied)
            data.renew_ids(store, branch, connect, outcome)
            if comparison:
                comparison.add_rows(branch, outcome)
            data.take_back(store, branch, connect, outcome, is_doubtful=moved)
            data.mend_wals(store, branch, connect, outcome)
            lost_ids.complete_streams(store, branch, connect, outcome)
    _clear_caches(store)
    _give_up_rest(store, outcome)
    outcome.after = verify(store)
    if comparison:
        outcome.after = comparison.added_to(outcome.after)
    if outcome.after.intact:
        outcome.kept += [_describe(store, branch) for branch in store.refs.branches()]
    return outcome


def _used_branches(store: Store) -> set[str]:
    """Return the branches that segments show to have had moves which are lost, and those of which
    WALs are left and no moves; make the directories of those that have none. A directory alone may
    be of somebody who died before the first move."""
    existing = store.refs.all_branches()
    traces = lost_moves.find(store, store.paths.digests("segments"))
    used = {trace.branch for trace in traces if trace.ranges}
    used |= set(lost_moves.branches(store)).difference(existing)
    if not existing and not used:
        used = {"main"}
    for name in used.difference(existing):
        store.make_branch_dirs(name)
    return used


def _describe(store: Store, branch: str) -> str:
    """Describe what a branch has now."""
    pending = Tail(store.paths, store.refs, branch).collect()
    totals = store.manifests.of(pending.head.move).totals
    events = f"{totals.events:,} event{'s' * (totals.events != 1)}"
    segments = f"{totals.segments:,} segment{'s' * (totals.segments != 1)}"
    return f"branch {branch}: {events} in {segments}, up to {pending.events:,} in WALs"


def _clear_caches(store: Store) -> None:
    """Clear the caches, which may have what is not on disk any more."""
    store.manifests.forget()
    store.refs.forget()


def _bring_back(store: Store, outcome: RepairOutcome, copy: str | None, fetched: set[str]) -> bool:
    """Fetch damaged files from the copy, and set derived ones aside; True if any were fetched."""
    count = len(fetched)
    for problem in verify(store).problems:
        path = problem.path
        # A living writer appends to the file that it holds: another one in its place would be lost.
        if path in fetched or (path.startswith(store.paths.wals) and LockFile(path).is_held()):
            continue
        # A damaged note of a rollback cannot be carried out, and none is made while it is there.
        if problem.kind == "derived" or (path == store.paths.rollback and problem.kind == "damage"):
            outcome.set_aside(store, path)
            continue
        if copy and _fetch_neighbours(store, path, copy, outcome):
            fetched.add(path)
            continue
        data = File(path).read() if os.path.isfile(path) else b""
        whole = _file_of_copy(store, path, copy, data) if copy else None
        if whole is not None and whole != data:
            outcome.replace(store, path, whole)
            outcome.fetched.append(path)
            fetched.add(path)
    return len(fetched) > count


def _file_of_copy(store: Store, path: str, copy: str, damaged: bytes) -> bytes | None:
    """Return the copy's file if it is intact and is the one that was here."""
    relative = os.path.relpath(path, store.paths.root)
    name = os.path.basename(path)
    copy_path = os.path.join(os.path.abspath(copy), relative)
    try:
        data = File(copy_path).read()
        # An object proves itself by its name. Everything else may be of a copy that went another
        # way since, so it has to fit what is here.
        if relative.split(os.sep)[0] in OBJECTS:
            fits = document.digest(data) == FileName(name).digest
        elif chunks.digest_of_name(relative):
            chunks.check(data, name)
            fits = data != damaged
        elif FileName(name).wal:
            return continue_copy(data, damaged, path)
        elif FileName(name).packed:
            fits = _leads_to(store, path, copy_path)
        elif FileName(name).move is not None:
            fits = _is_that_move(store, path, data, damaged)
        elif path.startswith(store.paths.tags):
            body, _ = Ref.document_of(data)
            fits = body["name"] == FileName(name[:-5]).ref
        elif path.startswith((store.paths.erasures, store.paths.copies)):
            fits = document.decode(data).get("key", name[:16]) == name[:16]
        elif path.startswith(store.paths.signatures):
            fits = SignatureFile.read(copy_path).keys() == SignatureFile.MEMBERS
        else:
            return None
    except (OSError, Damaged, NotIntact):
        return None
    return data if fits else None


def _fetch_neighbours(store: Store, path: str, copy: str, outcome: RepairOutcome) -> bool:
    """Fetch files that are missing, which verify cannot name: it names those after them."""
    folder, name = os.path.split(path)
    copy_folder = os.path.join(os.path.abspath(copy), os.path.relpath(folder, store.paths.root))
    if FileName(name).wal:
        return _fetch_before(store, folder, name, copy_folder, outcome)
    if FileName(name).move is not None and not File(path).exists():
        return _fetch_packed(store, folder, FileName(name).move or 0, copy_folder, outcome)
    return False


def _fetch_packed(
    store: Store, folder: str, number: int, copy_folder: str, outcome: RepairOutcome
) -> bool:
    """Fetch the packed file that has a missing move."""
    for name in Folder(copy_folder).names():
        span, path = FileName(name).packed, f"{folder}/{name}"
        if span is None or not span[0] <= number <= span[1] or File(path).exists():
            continue
        with contextlib.suppress(Damaged):
            if _leads_to(store, path, f"{copy_folder}/{name}"):
                outcome.replace(store, path, File(f"{copy_folder}/{name}").read())
                outcome.fetched.append(path)
                return True
    return False


def _leads_to(store: Store, path: str, copy_path: str) -> bool:
    """Whether the moves here continue the packed ones of the copy."""
    high = max(packed_moves := MovePack.read(copy_path))
    good = recover.moves(store, FileName.of(os.path.dirname(path)).ref)[0]
    return high + 1 in good and good[high + 1][0].prev == Ref.digest_of(packed_moves[high])


def _fetch_before(
    store: Store, folder: str, name: str, copy_path: str, outcome: RepairOutcome
) -> bool:
    """Fetch earlier WAL files of a writer that are missing here, if nothing of them was sealed."""
    count = len(outcome.fetched)
    moves = recover.moves(store, FileName.of(folder).ref)[0].values()
    # Of all moves, as a finished writer has no watermark in the newest: sealed frames must not
    # return.
    sealed = max((move.wal.get(name[:32], -1) for move, _ in moves), default=-1)
    for earlier in sorted(n for n in Folder(copy_path).names() if n[:32] == name[:32] and n < name):
        data = File(f"{copy_path}/{earlier}").read()
        decoded = Header.decode(data)
        is_needed = decoded is not None and decoded[0].first > sealed
        if is_needed and not File(f"{folder}/{earlier}").exists():
            outcome.replace(store, f"{folder}/{earlier}", data)
            outcome.fetched.append(f"{folder}/{earlier}")
    return len(outcome.fetched) > count


def _is_that_move(store: Store, path: str, data: bytes, damaged: bytes) -> bool:
    """Whether a copy's move is the one that was here, not of a lake that has diverged since."""
    branch = FileName.of(os.path.dirname(path)).ref
    number = FileName.of(path).move or 0
    move = store.refs.decode(branch, number, data)
    good = recover.moves(store, branch)[0]
    if number + 1 in good:
        return good[number + 1][0].prev == Ref.digest_of(data)
    # Else by what is left of its bytes: commit and state are random enough to prove it.
    foreign = recover.is_whole(damaged)
    legible = set() if foreign else {m.decode() for m in re.findall(rb"[0-9a-f]{32,64}", damaged)}
    if legible and legible.isdisjoint((move.commit, move.snapshot)):
        return False
    return number - 1 not in good or move.prev == Ref.digest_of(good[number - 1][1])


def _renew_config(store: Store, outcome: RepairOutcome, copy: str | None) -> None:
    """Restore lakelog.json, from the copy or with default settings."""
    path = store.paths.config
    if copy:
        with contextlib.suppress(OSError, NotIntact):
            data = File(f"{os.path.abspath(copy)}/lakelog.json").read()
            body = document.decode(data)
            if body.keys() >= {"format", "lake", "settings"}:
                outcome.replace(store, path, data)
                outcome.fetched.append(path)
                store.lake_id = Store.load(store.paths.root).lake_id
                _require_erasures(store)
                return
    segments = (store.paths.object("segments", d) for d in store.paths.digests("segments"))
    if store.paths.keys is None and any(map(VAULT.is_envelope, segments)):
        raise DamagedLake(path, "its data keys are lost with it: take it from a copy, by --copy")
    outcome.set_aside(store, path)
    # WAL headers name the lake; where none is left, nothing can contradict a new id.
    store.lake_id = _id_in_wals(store) or disk.random_hex()
    _write_known_config(store)
    outcome.lost.append("settings in lakelog.json: they are the defaults now")


def _write_known_config(store: Store) -> None:
    """Write lakelog.json as the open lake knows it, its data keys included."""
    ring = store.paths.keys.ring if store.paths.keys else None
    # Which format it had is not known: the newest one may not lack what is there.
    LakeConfig(store.paths).create(
        store.lake_id, store.settings, FORMAT, ring, store.paths.protection
    )
    _require_erasures(store)


def _require_erasures(store: Store) -> None:
    """Tell older versions of erasures, of which a copy may not know."""
    if Folder(store.paths.erasures).names():
        store.require("erasure")


def _id_in_wals(store: Store) -> str:
    """The lake's id as a WAL names it, or ""."""
    for branch in Folder(store.paths.wals).names():
        if File(f"{store.paths.wals}/{branch}").is_regular():
            continue
        for name in Folder(f"{store.paths.wals}/{branch}").names():
            decoded = Header.decode(File(f"{store.paths.wals}/{branch}/{name}").read())
            if decoded is not None:
                return decoded[0].lake
    return ""


def _give_up_rest(store: Store, outcome: RepairOutcome) -> None:
    """Set aside damaged files that no head needs; rebuild tags where possible."""
    objects, states = list[str](), list[str]()
    for problem in verify(store).problems:
        relative = os.path.relpath(problem.path, store.paths.root)
        if chunks.digest_of_name(relative):
            states.append(relative)
            continue
        object_type = relative.split(os.sep)[0]
        digest = FileName.of(problem.path).digest
        if object_type in OBJECTS and digest and not recover.is_intact(store, object_type, digest):
            objects.append(f"{object_type}/{digest}")
            outcome.lost.append(f"{object_type}/{digest[:12]}: older states or tags that need it")
        elif problem.path.startswith(store.paths.tags):
            _renew_tag(store, problem.path, outcome)
        elif problem.path.startswith(store.paths.signatures):
            outcome.set_aside(store, problem.path)
            outcome.lost.append(f"signature {os.path.basename(problem.path)}: sign the state again")
        elif problem.path.startswith((store.paths.erasures, store.paths.copies)):
            erasure_files.give_up(store, outcome, problem.path)
        elif problem.path.startswith(store.paths.gc) or problem.kind == "derived":
            outcome.set_aside(store, problem.path)
        elif problem.path == store.paths.config:  # of a lake that is open: what it says is known
            with Machine.rebinding(store.paths):
                outcome.set_aside(store, problem.path)
                _write_known_config(store)
    outcome.give_up(store, objects)
    # Its rows are still in the file that they were ingested from: taken back without the cursor,
    # which is lost, they would be doubled by the next ingest.
    for trace in [*lost_moves.find(store, store.paths.digests("segments"))]:
        if not trace.ranges:
            events = Segment(store.paths, trace.key).describe().events
            outcome.set_aside(store, store.paths.object("segments", trace.key))
            outcome.lost.append(
                f"{events} events of segment {trace.key[:12]}, ingested by a move that is lost:"
                " do it again"
            )
    outcome.lost += _state_losses(store, set(states))
    outcome.give_up(store, states)


def _state_losses(store: Store, damaged: set[str]) -> list[str]:
    """Return a line for each tag and branch whose state directories need these files."""
    states = {tag.name: tag.snapshot for tag in store.refs.tags()} if damaged else {}
    for branch in store.refs.branches() if damaged else ():
        states[branch] = store.refs.head(branch).move.snapshot
    lines = []
    for name, snapshot in states.items():
        with contextlib.suppress(Damaged):
            for record in chunks.StateRecord.all_of(
                store.manifests, store.manifests.load(snapshot)
            ):
                if not damaged.isdisjoint(_files_of(store, record.index)):
                    lines.append(f"state {record.label!r} of {name}: files of it")
    return lines or [f"{name}: older states that need it" for name in sorted(damaged)]


def _files_of(store: Store, index: str) -> list[str]:
    """Return the names of an index and, if it can be read, of its chunks."""
    names = [KEYS.state_file(index, INDEX)]
    with contextlib.suppress(Damaged):
        digests = chunks.StateFiles(store.paths).chunks_of(index)
        names += [KEYS.state_file(digest, CHUNK) for digest in digests]
    return names


def _renew_tag(store: Store, path: str, outcome: RepairOutcome) -> None:
    """Rebuild a damaged tag if its bytes still name a state that opens."""
    name = FileName(os.path.basename(path)[:-5]).ref
    snapshot, carried = recover.find_state(store, File(path).read())
    outcome.set_aside(store, path)
    if not snapshot:
        outcome.lost.append(f"tag {name}: name the state again")
        return
    rebuilt = Tag(
        name, snapshot, disk.now_us(), author(), "rebuilt", "", disk.random_hex(), carried
    )
    store.refs.link_tag(rebuilt)
    outcome.done.append(f"tag {name}: rebuilt on {snapshot[:12]}, its message is lost")
