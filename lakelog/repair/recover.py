"""What can be found again of moves and states that cannot be read any more.

A damaged move still holds most of its bytes, and a digest among them that names an intact
manifest is believed. A damaged page comes again from the manifests before it, which still show
its entries, and is believed if the totals add up. Segments say which WAL frames are in them, so
those sealed after the last state that opens can be taken back in order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

import orjson

from lakelog.errors import Damaged, DamagedRef
from lakelog.store import disk, document, manifest, segment
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.move_pack import packed_lines
from lakelog.store.paths import parse_move, parse_object, parse_packed
from lakelog.store.refs import Move, Refs

Watermarks = dict[str, int]


@dataclass(frozen=True)
class SealedBatch:
    """The segments of one sealing, which WAL sequences are in them, and their id runs."""

    commit: str
    branch: str
    ranges: dict[str, tuple[int, int]]
    segments: list[str]
    runs: list[Entry]


def moves(store: Store, branch: str) -> tuple[dict[int, tuple[Move, bytes]], dict[int, bytes], int]:
    """Return the readable moves of a branch, the bytes of the others, and its highest number.

    An intact document of another place says nothing of the move whose place it has taken. A move
    with damage in the manifest that it carries is readable, without that.
    """
    folder = store.paths.head_dir(branch)
    refs, found = Refs(store.paths), dict[int, bytes]()
    top = refs.hinted(branch)
    for name in disk.listing(folder):
        if span := parse_packed(name):
            top = max(top, span[1])
            found = {**packed_lines(disk.read(f"{folder}/{name}")), **found}
        number = parse_move(name)
        if number is not None:
            found[number] = disk.read(f"{folder}/{name}")
    good: dict[int, tuple[Move, bytes]] = {}
    for number, data in found.items():
        for readable in dict.fromkeys((data, document.split(data)[0])):
            with contextlib.suppress(DamagedRef):
                good[number] = refs.decode(branch, number, readable), readable
                break
    bad = {n: b"" if is_whole(d) else d for n, d in found.items() if n not in good}
    return good, bad, max([top, *found], default=0)


def is_whole(data: bytes) -> bool:
    """Whether the bytes are a document whose checksum holds, whatever is behind it."""
    try:
        document.decode(document.split(data)[0])
    except document.NotIntact:
        return False
    return True


def opens(store: Store, digest: str) -> bool:
    """Whether a manifest and all its pages can be read."""
    store.manifests.forget()
    try:
        store.manifests.entries(store.manifests.load(digest))
    except Damaged:
        return False
    return True


def state_in(store: Store, data: bytes) -> tuple[str, bytes]:
    """Return the snapshot in a damaged ref, if it is a state that opens, or "", and the
    text that a ref has to carry for that state."""
    names = [m.decode() for m in re.findall(rb'"snapshot":"([0-9a-f]{64})"', data)]
    start = data.find(b'{"format":')
    text = data[start:].removesuffix(b"\n") if start >= 0 else b""
    carried = document.digest(text)
    for name in names:
        with contextlib.suppress(Damaged):
            if name == carried and all(map(store.manifests.page_entries, _pages(store, text))):
                return name, text
            if opens(store, name):
                return name, store.manifests.text_to_carry(name)
    return "", b""


def _pages(store: Store, text: bytes) -> list[Entry]:
    return store.manifests.outline("", text)[0]


def replayed(store: Store, state: Manifest) -> tuple[Manifest, list[Entry]] | None:
    """Return the entries of a state with an unreadable page, and a state that opens to put them
    on; None unless they add up to the state's totals."""
    lineage = [state]
    try:
        while not opens(store, lineage[-1].digest):
            lineage.append(store.manifests.load(lineage[-1].parent))
    except Damaged:
        return None
    base = lineage.pop()
    parts = [*map(store.manifests.page, base.pages), base.tail]
    seen = {page.digest for page in base.pages}
    for step in reversed(lineage):
        for page in step.pages:
            if page.digest not in seen and opens_page(store, page):
                parts.append(store.manifests.page(page))
            seen.add(page.digest)
        parts.append(step.tail)
    entries = list(manifest.fold(parts, oldest=True))
    if manifest.add_up(manifest.Totals(), entries) != state.totals:
        return None
    kept = dataclasses.replace(
        base, next_seq=state.next_seq, ids=state.ids, retention=state.retention
    )
    return kept, entries


def opens_page(store: Store, page: manifest.Page) -> bool:
    """Whether a page can be read."""
    try:
        store.manifests.page(page)
    except Damaged:
        return False
    return True


def changes(store: Store, base: Manifest, entries: list[Entry]) -> tuple[Entry, ...]:
    """Return what turns the live entries of a state into these."""
    whats = ("segment", "cursor", "artifact", "view", "format")
    old = {(w, e["key"]): e for w in whats for e in store.manifests.entries(base, w)}
    new = {(e["add"], e["key"]): e for e in entries}
    gone = [e for k, e in old.items() if k not in new]
    removals = [
        manifest.tombstone(e) if e["add"] == "segment" else {"del": e["add"], "key": e["key"]}
        for e in gone
    ]
    return (*removals, *(e for k, e in new.items() if old.get(k) != e))


def named(store: Store) -> dict[str, set[str]]:
    """Return every segment that a state which opens names, of any kept move or tag, with the
    branches of these."""
    store.manifests.forget()
    found: dict[str, set[str]] = {}
    paged: dict[str, set[str] | None] = {}
    for branch, digest in _states(store):
        try:
            state = store.manifests.load(digest)
        except Damaged:
            continue
        for page in state.pages:
            if page.digest not in paged:
                readable = opens_page(store, page)
                paged[page.digest] = _added(store.manifests.page(page)) if readable else None
        keys = [paged[page.digest] for page in state.pages]
        if None not in keys:
            for key in _added(state.tail).union(*filter(None, keys)):
                found.setdefault(key, set()).add(branch)
    return found


def _added(entries: Iterable[Entry]) -> set[str]:
    return {e["key"] for e in entries if e.get("add") == "segment"}


def _states(store: Store) -> list[tuple[str, str]]:
    names: dict[tuple[str, str], None] = {}
    for branch in store.refs.all_branches():
        for _, (move, _) in sorted(moves(store, branch)[0].items()):
            names[branch, move.snapshot] = None
    for name in store.refs.tag_names():
        with contextlib.suppress(DamagedRef):
            tag = store.refs.tag(name)
            names[tag.branch, tag.snapshot] = None
    return list(names)


def raised(watermarks: Watermarks, way: list[SealedBatch]) -> Watermarks:
    """Return watermarks raised by what sealings hold."""
    done = dict(watermarks)
    for step in way:
        for writer, (_, last) in step.ranges.items():
            done[writer] = max(last, done.get(writer, -1))
    return done


def sealings(store: Store, known: Container[str]) -> list[SealedBatch]:
    """Group the intact segments on disk that are not `known` by the attempt that wrote them."""
    groups: dict[str, SealedBatch] = {}
    for digest in objects(store, "segments"):
        if digest not in known and intact(store, "segments", digest):
            notes = segment.metadata(store.paths, digest)
            ranges = {w: (r[0], r[1]) for w, r in orjson.loads(notes["wal"]).items()}
            fresh = SealedBatch(notes["commit"], notes.get("branch", ""), ranges, [], [])
            group = groups.setdefault(notes["commit"], fresh)
            group.segments.append(digest)
    for digest in objects(store, "ids") if groups else ():
        data = disk.read(store.paths.object("ids", digest))
        commit = data[16:32].hex()
        if commit in groups and document.digest(data) == digest:
            count = int.from_bytes(data[8:16], "little")
            run = {"digest": digest, "bytes": len(data), "count": count}
            groups[commit].runs.append(run)
    return list(groups.values())


def inputs(store: Store, state: Manifest, lost: Entry) -> list[Entry]:
    """Return the entries that a lost segment was compacted from, if all are still there."""
    wanted = set(lost.get("from", ()))
    found: dict[str, Entry] = {}
    while wanted - found.keys() and state.parent and opens(store, state.parent):
        state = store.manifests.load(state.parent)
        found |= {e["key"]: e for e in store.manifests.entries(state) if e["key"] in wanted}
    entries = list(found.values())
    whole = wanted and sum(e["events"] for e in entries) == lost["events"]
    return entries if whole and all(intact(store, "segments", k) for k in wanted) else []


def entry(store: Store, digest: str) -> Entry:
    """Make a segment's entry anew from its rows."""
    notes = segment.metadata(store.paths, digest)
    table = segment.read(store.paths, digest)
    size = os.stat(store.paths.object("segments", digest)).st_size
    return {
        "add": "segment",
        "key": digest,
        "bytes": size,
        "kind": notes["kind"],
        "events": table.num_rows,
        "layout": notes["layout"],
        **segment.statistics(table, notes["kind"]),
    }


def objects(store: Store, kind: str) -> list[str]:
    """Digests of the objects of a kind that are on disk."""
    root = f"{store.paths.root}/{kind}"
    names = (n for folder in disk.listing(root) for n in disk.listing(f"{root}/{folder}"))
    return sorted(filter(None, map(parse_object, names)))


def intact(store: Store, kind: str, digest: str) -> bool:
    """Whether an object is there and has the bytes its name promises."""
    try:
        return document.digest(disk.read(store.paths.object(kind, digest))) == digest
    except FileNotFoundError:
        return kind == "manifests" and store.manifests.is_there(digest)
