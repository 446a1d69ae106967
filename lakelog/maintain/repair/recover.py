"""Recovering moves and states that cannot be read any more.

A damaged move still has most of its bytes, and a digest among them that names an intact manifest
is believed. The entries of a damaged page are in the manifests before it, and are believed if the
totals add up. Segments name the WAL frames in them, so those that were sealed after the last state
that opens can be taken back in order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass

import orjson

from lakelog import document, manifest
from lakelog.disk import File, Folder, NotIntact
from lakelog.entries import Entry, IdRun, Removal, SegmentEntry
from lakelog.errors import Damaged, DamagedRef
from lakelog.manifest import Manifest
from lakelog.paths import FileName
from lakelog.refs import Move, Refs
from lakelog.segments import Segment
from lakelog.store import Hosts, Store
from lakelog.volume import MovePack
from lakelog.wal import Tail

Watermarks = dict[str, int]

_LOOKS = 100
"""gc packs moves at most once an hour: more than one look in vain is seldom."""


@dataclass(frozen=True)
class SealedBatch:
    """The segments of one seal, the WAL sequences that are in them, their id runs, and the hosts
    of the writers, by their digests."""

    commit: str
    branch: str
    ranges: dict[str, tuple[int, int]]
    segments: list[str]
    runs: list[IdRun]
    hosts: Hosts


def moves(store: Store, branch: str) -> tuple[dict[int, tuple[Move, bytes]], dict[int, bytes], int]:
    """Return the readable moves of a branch, the bytes of the others, and its highest number.

    An intact document of another place says nothing of the move whose place it has taken. A move
    with damage in the manifest that it carries is readable, without that.
    """
    folder = store.paths.head_dir(branch)
    refs = Refs(store.volume)  # fresh, as caches hide what is damaged
    for attempts_left in reversed(range(_LOOKS)):
        try:
            files, newest = _files(folder)
            break
        except FileNotFoundError:  # gc packed it since it was listed
            if not attempts_left:
                raise
    top = max(refs.hint_number(branch), newest)
    good: dict[int, tuple[Move, bytes]] = {}
    for number, data in files.items():
        # As a whole, else without the manifest that it carries, whose damage costs only that state.
        for readable in dict.fromkeys((data, document.split(data)[0])):
            with contextlib.suppress(DamagedRef):
                good[number] = refs.decode(branch, number, readable), readable
                break
    bad = {n: b"" if is_whole(d) else d for n, d in files.items() if n not in good}
    return good, bad, max([top, *files], default=0)


def _files(folder: str) -> tuple[dict[int, bytes], int]:
    """Return the bytes of moves by number, and the highest that a file of packed ones names."""
    files, newest = dict[int, bytes](), 0
    for name in Folder(folder).names():
        if span := FileName(name).packed:
            newest = max(newest, span[1])
            # A move is in a file of its own too until it is unlinked: that one is preferred.
            files = {**MovePack.readable(File(f"{folder}/{name}").read()), **files}
        number = FileName(name).move
        if number is not None:
            files[number] = File(f"{folder}/{name}").read()
    return files, newest


def is_whole(data: bytes) -> bool:
    """Whether the bytes begin with a document whose checksum matches."""
    try:
        document.decode(document.split(data)[0])
    except NotIntact:
        return False
    return True


def opens(store: Store, digest: str) -> bool:
    """Whether a manifest and all its pages can be read, now and from the disk."""
    store.manifests.forget()
    try:
        store.manifests.segments(store.manifests.load(digest))
    except Damaged:
        return False
    return True


def find_state(store: Store, data: bytes) -> tuple[str, bytes]:
    """Return the snapshot in a damaged ref, if it is a state that opens, or "", and the
    text that a ref has to carry for that state."""
    names = [m.decode() for m in re.findall(rb'"snapshot":"([0-9a-f]{64})"', data)]
    start = data.find(b'{"format":')
    candidate = data[start:].removesuffix(b"\n") if start >= 0 else b""
    carried = document.digest(candidate)
    for name in names:
        with contextlib.suppress(Damaged):
            if name == carried:
                state = store.manifests.decode(orjson.loads(candidate), name)
                store.manifests.forget()
                for page in state.pages:
                    store.manifests.peek(page)
                return name, candidate
            if opens(store, name):
                return name, store.manifests.text_to_carry(name)
    return "", b""


def replay(store: Store, state: Manifest) -> tuple[Manifest, list[Entry]] | None:
    """Return the entries of a state with an unreadable page, and an older state that opens, to
    apply them to; None unless they add up to the state's totals."""
    lineage = [state]
    try:
        while not opens(store, lineage[-1].digest):
            lineage.append(store.manifests.load(lineage[-1].parent))
    except Damaged:
        return None
    base = lineage.pop()
    runs = [*map(store.manifests.page, base.pages), base.recent]
    replayed_pages = {page.digest for page in base.pages}
    # Each manifest has its newest entries in full, so the ones between the two states have all that
    # a lost page was made of; pages of their own that can be read fill in where gc thinned history.
    for step in reversed(lineage):
        for page in step.pages:
            if page.digest not in replayed_pages and opens_page(store, page):
                runs.append(store.manifests.page(page))
            replayed_pages.add(page.digest)
        runs.append(step.recent)
    entries = list(manifest.fold(runs, oldest=True))
    if manifest.add_up(manifest.Totals(), entries) != state.totals:
        return None
    # Numbers that were given must not be given again, whatever the older state says.
    base = dataclasses.replace(
        base, next_seq=state.next_seq, ids=state.ids, retention=state.retention
    )
    return base, entries


def opens_page(store: Store, page: manifest.Page) -> bool:
    """Whether a page can be read."""
    try:
        store.manifests.page(page)
    except Damaged:
        return False
    return True


def changes(store: Store, base: Manifest, entries: list[Entry]) -> tuple[Entry, ...]:
    """Return what turns the live entries of a state into these."""
    runs = [*map(store.manifests.page, base.pages), base.recent]
    old = {(e.entry_type, e.key): e for e in manifest.fold(runs, oldest=True)}
    new = {(e.entry_type, e.key): e for e in entries}
    deleted = [e for k, e in old.items() if k not in new and not isinstance(e, Removal)]
    return (
        *(entry.tombstone() for entry in deleted),
        *(e for k, e in new.items() if old.get(k) != e),
    )


def named_segments(store: Store) -> dict[str, set[str]]:
    """Return every segment that a state which opens names, of any kept move or tag, with the
    branches of these."""
    return _named_segments(store, [*_moved_states(store), *_tagged_states(store)])


def segments_of(store: Store, published: Iterable[Move]) -> set[str]:
    """Return every segment that the states of these moves name, as far as they open."""
    return set(_named_segments(store, [(move.branch, move.snapshot) for move in published]))


def marks_of(store: Store, branch: str, keys: set[str]) -> Watermarks:
    """Return the last group commit of each writer in these segments, as far as a branch sealed
    them: how far it was sealed, though the move that said so may be lost."""
    batches = sealed_batches(store, ()) if keys else []
    own_batches = [b for b in batches if b.branch == branch and not keys.isdisjoint(b.segments)]
    return raise_watermarks({}, own_batches)


def _named_segments(store: Store, states: list[tuple[str, str]]) -> dict[str, set[str]]:
    store.manifests.forget()
    branches: dict[str, set[str]] = {}
    paged: dict[str, set[str] | None] = {}
    for branch, digest in states:
        try:
            state = store.manifests.load(digest)
        except Damaged:
            continue
        # Thousands of states share their pages, so each page is read once. Deleted entries count: a
        # segment that some state had is not one that was lost on its way to a state.
        for page in state.pages:
            if page.digest not in paged:
                readable = opens_page(store, page)
                paged[page.digest] = _added(store.manifests.page(page)) if readable else None
        keys = [paged[page.digest] for page in state.pages]
        if None not in keys:
            for key in _added(state.recent).union(*filter(None, keys)):
                branches.setdefault(key, set()).add(branch)
    return branches


def _added(entries: Iterable[Entry]) -> set[str]:
    # A state had what one of its segments was compacted from, even if that state is lost.
    segments = [e for e in entries if isinstance(e, SegmentEntry)]
    return {key for e in segments for key in (e.key, *e.made_from)}


def _moved_states(store: Store) -> list[tuple[str, str]]:
    names: dict[tuple[str, str], None] = {}
    for branch in store.refs.all_branches():
        for _, (move, _) in sorted(moves(store, branch)[0].items()):
            names[branch, move.snapshot] = None
    return list(names)


def _tagged_states(store: Store) -> list[tuple[str, str]]:
    states = []
    for name in store.refs.tag_names():
        with contextlib.suppress(DamagedRef):
            tag = store.refs.tag(name)
            states.append((tag.branch, tag.snapshot))
    return states


def raise_watermarks(watermarks: Watermarks, steps: list[SealedBatch]) -> Watermarks:
    """Return watermarks raised to the last frames of sealed batches."""
    ends = ({writer: high for writer, (_, high) in step.ranges.items()} for step in steps)
    return highest([watermarks, *ends])


def highest(marks: Iterable[Watermarks]) -> Watermarks:
    """Return the highest watermark that each writer has in any of these."""
    raised: Watermarks = {}
    for watermarks in marks:
        for writer, mark in watermarks.items():
            raised[writer] = max(mark, raised.get(writer, -1))
    return raised


def wal_sequences(store: Store, branch: str) -> dict[str, set[int]]:
    """Return the sequences of each writer that can still be read in its WAL files."""
    tail = Tail(store.paths, store.refs, branch)
    return {
        writer: {frame.sequence for file in files for frame in (*file.frames, *file.resumed)}
        for writer, files in tail.scan().items()
    }


def sealed_batches(store: Store, excluded: Container[str]) -> list[SealedBatch]:
    """Group the intact segments on disk that are not `excluded` by the attempt that wrote them."""
    groups: dict[str, SealedBatch] = {}
    for digest in store.paths.digests("segments"):
        if digest not in excluded and is_intact(store, "segments", digest):
            notes = Segment(store.paths, digest).metadata()
            ranges = {w: (r[0], r[1]) for w, r in orjson.loads(notes["wal"]).items()}
            hosts_of = orjson.loads(notes.get("hosts", "{}"))
            fresh = SealedBatch(notes["commit"], notes.get("branch", ""), ranges, [], [], hosts_of)
            group = groups.setdefault(notes["commit"], fresh)
            group.segments.append(digest)
            group.hosts.update(hosts_of)
    # A seal writes its segments and its id run under one commit.
    for commit, run in runs_of(store, groups):
        groups[commit].runs.append(run)
    return list(groups.values())


def runs_of(store: Store, commits: Collection[str]) -> Iterator[tuple[str, IdRun]]:
    """Yield the intact id runs on disk that some attempts wrote, each with its commit."""
    for digest in store.paths.digests("ids") if commits else ():
        data = File(store.paths.object("ids", digest)).read()
        commit = data[16:32].hex()
        if commit in commits and document.digest(data) == digest:
            yield commit, IdRun(digest, len(data), int.from_bytes(data[8:16], "little"))


def remains(store: Store, branch: str, state: Manifest, entry: SegmentEntry) -> list[SegmentEntry]:
    """Return a segment of a state as what there is of it: itself if it is intact, or else what it
    was compacted from, down to segments that are intact or that nobody knows more of."""
    if is_intact(store, "segments", entry.key):
        return [entry]
    originals = _inputs(store, branch, state, entry)
    return [e for original in originals for e in remains(store, branch, state, original)] or [entry]


def _inputs(store: Store, branch: str, state: Manifest, entry: SegmentEntry) -> list[SegmentEntry]:
    """Return the entries that a segment was compacted from, if it has all rows of them."""
    keys = set(entry.made_from)
    originals: dict[str, SegmentEntry] = {}
    # Back to the states that still had them, as their entries have the seq of their rows.
    for earlier in _earlier_states(store, branch, state) if keys else ():
        originals |= {e.key: e for e in store.manifests.segments(earlier) if e.key in keys}
        if originals.keys() == keys:
            break
    entries = list(originals.values())
    # Of fewer events than the inputs it was rewritten without some of them: these must not come
    # back.
    is_whole = originals.keys() == keys and sum(e.events for e in entries) == entry.events
    return entries if is_whole else []


def _earlier_states(store: Store, branch: str, state: Manifest) -> Iterator[Manifest]:
    """Yield the states before one: its ancestors, and, if one of these is lost, those of moves."""
    while state.parent and opens(store, state.parent):
        state = store.manifests.load(state.parent)
        yield state
    for _, (move, _) in sorted(moves(store, branch)[0].items(), reverse=True):
        if opens(store, move.snapshot):
            yield store.manifests.of(move)


def is_intact(store: Store, object_type: str, digest: str) -> bool:
    """Whether an object is there and its bytes match its name."""
    try:
        return document.digest(File(store.paths.object(object_type, digest)).read()) == digest
    except FileNotFoundError:
        return object_type == "manifests" and store.manifests.is_there(digest)
