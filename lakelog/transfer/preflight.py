"""Preflight: what a rollback would change in each part, and what is missing, before anything moves.

Segments, id runs and pages that the branch does not have now are read unless this machine has
verified them; of those that it has, the names are looked for, since it reads them all the time. Of
state directories the index is read, and every chunk that is to be written back.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from lakelog.errors import Damaged, DeploymentFailed, MissingPackage, RollbackRefused, StateRefused
from lakelog.lake import Lake
from lakelog.store import disk, history, state_files
from lakelog.store.entry import SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.store.paths import CHUNK, parse_object
from lakelog.store.state_files import StateIndex, StateRecord
from lakelog.store.verified_files import hash_file
from lakelog.transfer.capture import Capture
from lakelog.transfer.chunk_writer import Piece
from lakelog.transfer.kubectl import Kubectl
from lakelog.transfer.restore import check_apart, check_target
from lakelog.transfer.rewind import ClusterStep

PARTS = ("data", "cursors", "state", "deployment")
_POSITIONS = ("cursor", "stream")


@dataclass(frozen=True)
class Finding:
    """A line of a preflight: of `part`, `name` is `now` so and `then` so; `problem` is "" or why
    the rollback is refused."""

    part: str
    name: str
    now: str
    then: str
    problem: str = ""


@dataclass
class Preflight:
    """What a rollback to `target` (a snapshot) would do. `records` are its state directories,
    `copied` the labels of those that have to be written; `unsaved` those whose present content is
    in no state yet; `present` those that are there at all."""

    target: str
    parts: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)
    records: list[StateRecord] = field(default_factory=list)
    copied: set[str] = field(default_factory=set)
    unsaved: set[str] = field(default_factory=set)
    present: set[str] = field(default_factory=set)
    cluster: ClusterStep | None = None

    @property
    def problems(self) -> list[str]:
        """Why it is refused; nothing if it is not."""
        return [finding.problem for finding in self.findings if finding.problem]

    def require(self) -> None:
        """Raise RollbackRefused if something is missing or damaged."""
        if problems := self.problems:
            more = f" (and {len(problems) - 1:,} more: see --dry-run)" if len(problems) > 1 else ""
            raise RollbackRefused(f"{problems[0]}{more}; nothing was changed")

    def add(self, part: str, name: str, now: str, then: str, problem: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(part, name, now, then, problem))


def examine(
    lake: Lake,
    target: str,
    parts: tuple[str, ...],
    *,
    context: str = "",
    source: str = "",
    labels: tuple[str, ...] | None = None,
    cluster: ClusterStep | None = None,
) -> Preflight:
    """Look at everything that a rollback to a snapshot needs; changes nothing.

    State directories are those of the snapshot `source` (by default the target), of some `labels`
    if given; the revision is that in which these were saved, or that of `cluster`. Raises Damaged
    only where the present state of the branch is.
    """
    result = Preflight(target, parts)
    now = lake.store.state(lake.branch_name)
    try:
        then = history.check(lake.store, target)
        if "data" in parts:
            _examine_data(lake, now, then, result)
        if "cursors" in parts:
            _examine_cursors(lake, now, then, result)
        saved = state_files.records(
            lake.store.manifests, lake.store.manifests.load(source or target)
        )
    except Damaged as error:
        result.add("data", "snapshot", now.digest[:12], target[:12], str(error))
        return result
    if "state" in parts:
        known = {record.label: record for record in state_files.records(lake.store.manifests, now)}
        result.records = [r for r in saved if labels is None or r.label in labels]
        if not result.records and labels is None:
            result.add("state", "-", "-", "none", f"snapshot {target[:12]} has no saved state")
        try:
            check_apart({record.label: record.path for record in result.records})
        except StateRefused as error:
            result.add("state", "-", "-", "-", str(error))
        for record in result.records:
            _examine_directory(lake, record, known.get(record.label), result)
    if "deployment" in parts:
        _examine_deployment(saved, cluster, context, result)
    return result


def _examine_data(lake: Lake, now: Manifest, then: Manifest, result: Preflight) -> None:
    manifests = lake.store.manifests
    known = {entry.key for entry in manifests.segments(now)}
    wanted = manifests.segments(then)
    names = {d for name in _listing(lake, wanted) if (d := parse_object(name))}
    problem = ""
    for entry in wanted:
        path = lake.store.paths.object("segments", entry.key)
        if entry.key not in names:
            problem = problem or f"{path}: the segment is missing"
        elif entry.key not in known:
            problem = problem or _fault(lake, entry.key, path, entry.bytes)
    runs = {run.digest for run in now.ids}
    for run in then.ids:
        path = lake.store.paths.object("ids", run.digest)
        if run.digest not in runs or not disk.exists(path):
            problem = problem or _fault(lake, run.digest, path, run.bytes)
    for page in then.pages:
        path = lake.store.paths.object("manifests", page.digest)
        problem = problem or _fault(lake, page.digest, path, page.bytes)
    old, new = (f"{each.totals.events:,} events" for each in (now, then))
    result.add("data", lake.branch_name, old, new, problem)


def _listing(lake: Lake, entries: list[SegmentEntry]) -> list[str]:
    """The names in the folders of segments: a fifth of the time of asking for each."""
    folders = {entry.key[:2] for entry in entries}
    return [n for f in folders for n in disk.listing(f"{lake.store.paths.root}/segments/{f}")]


def _fault(lake: Lake, digest: str, path: str, size: int) -> str:
    """Say what is wrong with an object, "" if it is intact."""
    try:
        if disk.size(path) != size:
            return f"{path}: it has {disk.size(path):,} bytes instead of {size:,}"
        if not lake.store.verified.holds(digest, path):
            if hash_file(path) != digest:
                return f"{path}: the content does not match its name"
            lake.store.verified.add(digest, path)
    except FileNotFoundError:
        return f"{path}: it is missing"
    return ""


def _examine_cursors(lake: Lake, now: Manifest, then: Manifest, result: Preflight) -> None:
    old, new = (
        {(what, r.key): r for what in _POSITIONS for r in lake.store.manifests.records(state, what)}
        for state in (now, then)
    )
    changed = sum(old.get(key) != record for key, record in new.items())
    changed += len(old.keys() - new.keys())
    result.add("cursors", f"{changed:,} change", f"{len(old):,} sources", f"{len(new):,} sources")


# --- state directories ---------------------------------------------------------------------------


class _Digests:
    """Takes chunks only to learn their digests."""

    def has(self, digest: str) -> bool:
        """Whether a chunk need not be read: of the save before, no."""
        return bool(digest)

    def add(self, content: bytes) -> Piece:
        """Return the digest and length."""
        piece: Piece = Future()
        piece.set_result((hashlib.sha256(content).hexdigest(), len(content)))
        return piece


def _examine_directory(
    lake: Lake, record: StateRecord, known: StateRecord | None, result: Preflight
) -> None:
    """Compare a directory with its record; `known` is that of the present state of the branch."""
    problem, now, then = "", "none", f"{record.files:,} files"
    try:
        check_target(lake, record.path, record.label)
        index = state_files.read_index(lake.store.paths, record.index)
        present = _captured(lake, record.path, known)
        if present is not None:
            result.present.add(record.label)
            now = f"{sum(entry.kind in ('file', 'hard') for entry in present[0].entries):,} files"
            if present[0] != present[1]:
                result.unsaved.add(record.label)
        if present is None or _plain(present[0]) != _plain(index):
            result.copied.add(record.label)
            then += ", replaced" if present else ", created"
        else:
            then = "as it is"
        _check_chunks(lake, index, record.label in result.copied)
    except (StateRefused, Damaged) as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.filename or record.path}: {error.strerror}"
    result.add("state", record.label, now, then, problem)


def _captured(
    lake: Lake, path: str, known: StateRecord | None
) -> tuple[StateIndex, StateIndex | None] | None:
    """Return what a directory holds now and what the branch knows of it; None if it is not there.
    Reads what changed since the branch knew it."""
    if not os.path.isdir(path):
        return None
    base, since = None, 0
    if known is not None and known.path == path:
        base, since = state_files.read_index(lake.store.paths, known.index), known.captured_at
    return Capture(path, _Digests(), base, since).run().index, base


def _plain(index: StateIndex) -> StateIndex:
    """An index without what restoring cannot bring back."""
    return replace(index, entries=tuple(replace(e, ctime=0, inode=0) for e in index.entries))


def _check_chunks(lake: Lake, index: StateIndex, is_read: bool) -> None:
    """Look for the chunks of an index, or read them. Raises DamagedState."""
    for digest, _ in index.chunks:
        if is_read or not disk.exists(lake.store.paths.state_file(digest, CHUNK)):
            state_files.read(lake.store.paths, digest, CHUNK)


# --- deployment ----------------------------------------------------------------------------------


def _examine_deployment(
    saved: list[StateRecord], cluster: ClusterStep | None, context: str, result: Preflight
) -> None:
    ran = max((r for r in saved if r.deployment), key=lambda r: r.captured_at, default=None)
    wanted = ran.deployment if ran else {}
    if cluster is not None:
        wanted = {"name": cluster.name, "namespace": cluster.namespace, "hash": cluster.was}
        context = cluster.context
    if not wanted.get("name") or not wanted.get("hash"):
        problem = (
            f"snapshot {result.target[:12]} names no revision: no state in it was saved by a pod"
            " that `lakelog deploy render` describes"
        )
        result.add("deployment", "-", "-", "unknown", problem)
        return
    name, digest = wanted["name"], wanted["hash"]
    namespace = wanted.get("namespace", "default")
    try:
        revisions = Kubectl(namespace, context).revisions(name)
    except (DeploymentFailed, MissingPackage) as error:
        result.add("deployment", name, "unknown", digest, str(error))
        return
    current = next((each for each in revisions if each.is_current), None)
    match = next((each for each in revisions if each.hash == digest), None)
    now = f"{current.number} ({current.hash})" if current else "none"
    then, problem = f"{match.number} ({digest})" if match else digest, ""
    if match is None:
        known = ", ".join(each.hash for each in revisions) or "none"
        problem = f"deployment {name} has no revision with pods {digest} any more; it has: {known}"
    result.add("deployment", name, now, then, problem)
    was = current.hash if current else ""
    result.cluster = ClusterStep(name, namespace, context, digest, was)
