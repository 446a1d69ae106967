"""Preflight: what a rollback would change in each part, and what is missing, before anything moves.

Segments, id runs and pages that the branch does not have now are read unless this machine has
verified them; of those that it has, the names are looked for, since it reads them all the time. Of
state directories the index is read, and every chunk that is to be written back.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lakelog import chunks
from lakelog.chunks import StateIndex, StateRecord
from lakelog.deploy import ClusterStep, Kubectl
from lakelog.disk import File, Folder
from lakelog.entries import Entry, Removal
from lakelog.errors import (
    Damaged,
    DamagedManifest,
    DeploymentFailed,
    MissingPackage,
    RollbackRefused,
    StateRefused,
)
from lakelog.history import BranchHistory
from lakelog.lake import Lake
from lakelog.manifest import Manifest
from lakelog.paths import CHUNK, OBJECTS
from lakelog.refs import Move
from lakelog.state import Present, RestorePlan, StateCatalog
from lakelog.store import Store

PARTS = ("data", "cursors", "state", "deployment")
_POSITIONS = ("cursor", "stream")
_SEGMENT = OBJECTS["segments"]
_Entries = dict[str, dict[str, Any]]


@dataclass
class _Shared:
    """What pages have that two states share, and the times of the folders of its segments when all
    of them were there, None before that."""

    pages: tuple[str, ...]
    entries: _Entries
    folders: dict[str, int] | None = None


_SHARED: weakref.WeakKeyDictionary[Store, _Shared] = weakref.WeakKeyDictionary()
# File systems stamp times of folders this coarsely.
_TICK_NS = 50_000_000


@dataclass(frozen=True)
class PreflightLine:
    """A line of a preflight: of `part`, `name` is `now` so and `then` so; `problem` is "" or why
    the rollback is refused."""

    part: str
    name: str
    now: str
    then: str
    problem: str = ""


@dataclass
class Preflight:
    """What a rollback to `target` (a snapshot) would do. `records` are its state directories;
    `indices` say what the snapshot has of them, by label. `copied` are the labels of those that
    would have to be written as they were at a look, for which `indices_read` were read. Of an undo
    `undone` is the move that it takes back, and `later` how many events came after that."""

    target: str
    parts: tuple[str, ...]
    findings: list[PreflightLine] = field(default_factory=list)
    records: list[StateRecord] = field(default_factory=list)
    copied: set[str] = field(default_factory=set)
    indices: dict[str, StateIndex] = field(default_factory=dict)
    indices_read: list[StateIndex] = field(default_factory=list)
    cluster: ClusterStep | None = None
    undone: Move | None = None
    later: int = 0

    @property
    def problems(self) -> list[str]:
        """Why it is refused; nothing if it is not."""
        return [finding.problem for finding in self.findings if finding.problem]

    def require(self) -> None:
        """Raise RollbackRefused if something is missing or damaged."""
        if problems := self.problems:
            ending = (
                f" (and {len(problems) - 1:,} more: see --dry-run)" if len(problems) > 1 else ""
            )
            raise RollbackRefused(f"{problems[0]}{ending}; nothing was changed")

    def add(
        self, part_name: str, name: str, present_text: str, after_text: str, problem: str = ""
    ) -> None:
        """Add a finding."""
        self.findings.append(PreflightLine(part_name, name, present_text, after_text, problem))


def examine(
    lake: Lake,
    target: str,
    part_names: tuple[str, ...],
    *,
    context: str = "",
    source: str = "",
    labels: tuple[str, ...] | None = None,
    cluster: ClusterStep | None = None,
) -> Preflight:
    """Look at everything that a rollback to a snapshot needs, but at what directories hold now;
    changes nothing.

    State directories are those of the snapshot `source` (by default the target), of some `labels`
    if given; the revision is that in which these were saved, or that of `cluster`. Raises Damaged
    only where the present state of the branch is.
    """
    # Nothing is written: whoever looks may have the right to read only.
    result = Preflight(target, part_names)
    present_state = lake.store.state(lake.branch_name)
    # Of the branch as it is: what is damaged there is damaged before the rollback, too.
    try:
        target_state = BranchHistory.check(lake.store, target)
        live = _live(lake, present_state, target_state)
        if "data" in part_names:
            _examine_data(lake, (present_state, target_state), live, result)
            if "cursors" in part_names:
                _examine_cursors(live, result)
        records = _states(lake, target_state, live[2])
        # An undo goes back to the directories that the rollback overwrote.
        if source:
            source_state = lake.store.manifests.load(source)
            records = chunks.StateRecord.all_of(lake.store.manifests, source_state)
    except Damaged as error:
        result.add("data", "snapshot", present_state.digest[:12], target[:12], str(error))
        return result
    if "state" in part_names:
        result.records = [r for r in records if labels is None or r.label in labels]
        if not result.records and labels is None:
            result.add("state", "-", "-", "none", f"snapshot {target[:12]} has no saved state")
        try:
            RestorePlan(lake).check_apart({record.label: record.path for record in result.records})
        except StateRefused as error:
            result.add("state", "-", "-", "-", str(error))
        for record in result.records:
            _examine_directory(lake, record, result)
    if "deployment" in part_names:
        own_records = list(filter(StateCatalog(lake).origins.is_own, records))
        _examine_deployment(own_records, cluster, context, result)
    return result


def _states(lake: Lake, state: Manifest, live: _Entries) -> list[StateRecord]:
    """Return the state directories among live entries. Raises DamagedManifest."""
    try:
        return [chunks.StateRecord.of(record) for record in live["state"].values()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        path = lake.store.paths.object("manifests", state.digest)
        raise DamagedManifest(path, f"a state in it is malformed ({error!r})") from None


def _live(
    lake: Lake, present_state: Manifest, target_state: Manifest
) -> tuple[_Shared, _Entries, _Entries]:
    """Return the segments and positions of the pages that two states share, and the live ones of
    each. Pages never change, so what they share is gone through once for several rollbacks."""
    # Pages are only ever added at the end, so that equal ones come first.
    pairs = zip(present_state.pages, target_state.pages, strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    pages = lake.store.manifests.page
    digests = tuple(page.digest for page in target_state.pages[:common])
    shared = _SHARED.get(lake.store)
    if shared is None or shared.pages != digests:
        shared = _Shared(
            digests, {entry_type: {} for entry_type in ("segment", "state", *_POSITIONS)}
        )
        for page in target_state.pages[:common]:
            _apply(shared.entries, pages(page))
        # For this lake alone, as long as it is open.
        _SHARED[lake.store] = shared
    both = []
    for state in (present_state, target_state):
        live = {entry_type: dict(entries) for entry_type, entries in shared.entries.items()}
        for page in state.pages[common:]:
            _apply(live, pages(page))
        _apply(live, state.recent)
        both.append(live)
    return shared, both[0], both[1]


def _apply(live: _Entries, entries: Iterable[Entry]) -> None:
    # Other entries are not looked at: a lake may have many of them.
    for entry in entries:
        if entry.entry_type in live:
            if isinstance(entry, Removal):
                live[entry.entry_type].pop(entry.key, None)
            else:
                live[entry.entry_type][entry.key] = entry


def _examine_data(
    lake: Lake,
    states: tuple[Manifest, Manifest],
    live: tuple[_Shared, _Entries, _Entries],
    plan: Preflight,
) -> None:
    present_state, target_state = states
    paths, needed = lake.store.paths, live[2]["segment"]
    missing = _gone(lake, live[0], needed)
    problem = f"{paths.object('segments', missing)}: the segment is missing" if missing else ""
    # What the branch has now, its readers verify all the time.
    for key in needed.keys() - live[1]["segment"].keys():
        problem = problem or _fault(lake, "segments", key, needed[key].bytes)
    runs = {run.digest for run in present_state.ids}
    for run in target_state.ids:
        if run.digest not in runs or not File(paths.object("ids", run.digest)).exists():
            problem = problem or _fault(lake, "ids", run.digest, run.bytes)
    known_pages = {page.digest for page in present_state.pages}
    for page in target_state.pages:
        # The length of those that both have was compared when the state was opened.
        if page.digest not in known_pages:
            problem = problem or _fault(lake, "manifests", page.digest, page.bytes)
    old, new = (_many(state.totals.events, "event") for state in (present_state, target_state))
    plan.add("data", lake.branch_name, old, new, problem)


def _gone(lake: Lake, shared: _Shared, needed: dict[str, Any]) -> str:
    """Return a segment that has no file, "" if all have one."""
    paths, known_segments = lake.store.paths, shared.entries["segment"]
    if lake.store.attachment is not None:
        return ""  # the move itself looks for them in the bucket
    # Those that only the target has are few: each is asked for.
    for key in needed.keys() - known_segments.keys():
        if not File(paths.object("segments", key)).exists():
            return key
    folders = sorted(
        {key[:2] for key in known_segments} if shared.folders is None else shared.folders
    )
    began = time.time_ns()
    stamps = {folder: _stamp(f"{paths.root}/segments/{folder}") for folder in folders}
    if shared.folders == stamps:
        return ""
    # The names in the folders: a fifth of the time of asking for each.
    names: set[str] = set()
    for folder in folders:
        names.update(Folder(f"{paths.root}/segments/{folder}").names())
    absent = [key for key in known_segments if f"{key}{_SEGMENT}" not in names]
    # A folder that changed within the tick of its last change has the same time.
    if not absent and began - max(stamps.values(), default=0) > _TICK_NS:
        shared.folders = stamps
    return next((key for key in absent if key in needed), "")


def _stamp(folder: str) -> int:
    # A folder that is not there has no segment: what is needed of it is missing.
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0


def _fault(lake: Lake, object_type: str, digest: str, size: int) -> str:
    """Say what is wrong with an object, "" if it is intact."""
    path = lake.store.paths.object(object_type, digest)
    try:
        # The length first, which costs no reading.
        if os.path.getsize(path) != size:
            return f"{path}: it has {os.path.getsize(path):,} bytes instead of {size:,}"
        if not lake.store.verified.is_intact(digest, path):
            return f"{path}: the content does not match its name"
    except FileNotFoundError:
        return f"{path}: it is missing" if lake.store.attachment is None else ""
    return ""


def _examine_cursors(live: tuple[_Shared, _Entries, _Entries], plan: Preflight) -> None:
    old, new = (
        {(w, k): e for w in _POSITIONS for k, e in entries[w].items()} for entries in live[1:]
    )
    changed = sum(old.get(key) != entry for key, entry in new.items())
    # Positions that are gone afterwards change as well.
    changed += len(old.keys() - new.keys())
    sources_now, sources_then = _many(len(old), "source"), _many(len(new), "source")
    plan.add("cursors", _many(changed, "change"), sources_now, sources_then)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("s" if count != 1 else "")


# --- state directories ---------------------------------------------------------------------------


def _examine_directory(lake: Lake, record: StateRecord, plan: Preflight) -> None:
    """Look whether a directory can be put where its record says, and its content is there."""
    with _named(record, plan):
        RestorePlan(lake).check_return(record)
        index = chunks.StateFiles(lake.store.paths).read_index(record.index)
        for digest, _ in index.chunks:
            # Read where it seems to be missing, for an error that says where it was looked for.
            if not File(lake.store.paths.state_file(digest, CHUNK)).exists():
                chunks.StateFiles(lake.store.paths).read_chunk(digest)
        plan.indices[record.label] = index


@contextlib.contextmanager
def _named(record: StateRecord, plan: Preflight) -> Iterator[None]:
    """Add to a plan why a directory cannot go back."""
    problem = ""
    try:
        yield
    except (StateRefused, Damaged) as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.filename or record.path}: {error.strerror}"
    if problem:
        plan.add("state", record.label, "-", _many(record.files, "file"), problem)


def look_at_directories(lake: Lake, plan: Preflight) -> None:
    """Add to a plan what would be written to its directories as they are now. Whoever carries it
    out looks again, when nobody else saves or restores them."""
    for record in plan.records:
        # What was found missing is named already.
        if record.label in plan.indices:
            with _named(record, plan):
                _look_at(lake, record, plan)
    plan.findings.sort(key=lambda finding: PARTS.index(finding.part))


def _look_at(lake: Lake, record: StateRecord, plan: Preflight) -> None:
    index, present_text, after_text = (
        plan.indices[record.label],
        "none",
        _many(record.files, "file"),
    )
    captured = Present.look(lake, record.label, record.path) if os.path.isdir(record.path) else None
    needed, is_equal = {digest for digest, _ in index.chunks}, False
    if captured is not None:
        # Kept, so that whoever rolls back need not read them again.
        plan.indices_read += [captured.base] if captured.base else []
        present_text = _many(captured.files, "file")
        changes = captured.changes(lake.store.paths, index)
        needed, is_equal = changes.chunks, not (changes.paths or changes.stale)
    if is_equal:
        after_text = "as it is"
    else:
        plan.copied.add(record.label)
        # Devices that are there stay, for a restore links them.
        devices = _devices(index) - _devices(captured.index if captured else None)
        try:
            RestorePlan(lake).refuse_devices(sorted(devices))
        except StateRefused as error:
            advice = "roll back without state, then restore the state by itself"
            raise StateRefused(f"{error}; {advice}") from None
        after_text += ", replaced" if captured else ", created"
    for digest in needed:
        chunks.StateFiles(lake.store.paths).read_chunk(digest)
    plan.add("state", record.label, present_text, after_text)


def _devices(index: StateIndex | None) -> set[bytes]:
    return {entry.path for entry in index.entries if entry.kind == "device"} if index else set()


# --- deployment ----------------------------------------------------------------------------------


def _examine_deployment(
    records: list[StateRecord], cluster: ClusterStep | None, context: str, result: Preflight
) -> None:
    # Directories may be of several saves: the newest says which pods ran.
    ran = StateRecord.newest(record for record in records if record.deployment)
    target = ran.deployment if ran else {}
    # An undo goes back to the revision that the rollback left, whatever the states name.
    if cluster is not None:
        target = {"name": cluster.name, "namespace": cluster.namespace, "hash": cluster.was}
        context = cluster.context
    if not target.get("name") or not target.get("hash"):
        problem = (
            f"snapshot {result.target[:12]} names no revision: no state of this machine in it was"
            " saved by a pod that `lakelog deploy render` describes"
        )
        result.add("deployment", "-", "-", "unknown", problem)
        return
    name, digest = target["name"], target["hash"]
    namespace = target.get("namespace", "default")
    try:
        revisions = Kubectl(namespace, context).revisions(name)
    except (DeploymentFailed, MissingPackage) as error:
        result.add("deployment", name, "unknown", digest, str(error))
        return
    current = next((revision for revision in revisions if revision.is_current), None)
    # Numbers change with each rollback of a deployment; hashes do not.
    match = next((revision for revision in revisions if revision.hash == digest), None)
    running = f"{current.number} ({current.hash})" if current else "none"
    returned, problem = f"{match.number} ({digest})" if match else digest, ""
    if match is None:
        hashes = ", ".join(revision.hash for revision in revisions) or "none"
        problem = f"deployment {name} has no revision with pods {digest} any more; it has: {hashes}"
    result.add("deployment", name, running, returned, problem)
    was = current.hash if current else ""
    result.cluster = ClusterStep(name, namespace, context, digest, was)
