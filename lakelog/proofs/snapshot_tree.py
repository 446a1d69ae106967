"""The Merkle tree of a state, from its segments; the peaks of each are cached.

cache/merkle/<digest> has the highest nodes above the rows of one segment (event_tree.py), which
belong to it alone as no two segments of a state overlap in seq (F10.2):

    header   "LKT1", CRC-32 of the rest u32, lake (16 bytes), the range of seq [low, high) 2 x i64
    nodes    height u8, place i64, events i64, hash (32 bytes); 49 bytes each

A cache that is missing, damaged, or of another range or lake is computed again.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import zlib
from collections.abc import Mapping

from lakelog import bloom, database
from lakelog.disk import File
from lakelog.entries import SegmentEntry
from lakelog.erased import records
from lakelog.errors import DamagedSegment, NotProven, UnknownRef
from lakelog.libraries import np, pa, pc
from lakelog.proofs import event_tree
from lakelog.proofs.envelope import Statement
from lakelog.proofs.event_tree import NUMBERS, TEXTS, Levels, ProofStep
from lakelog.protect import sealed_blocks
from lakelog.runtime.progress import ProgressCallback
from lakelog.segments import Segment
from lakelog.store import SignatureFile, Signatures, Store
from lakelog.values import JsonObject

_HEAD = struct.Struct("<4sI16sqq")
_CHECKED = 8
_NODE = [("height", "u1"), ("place", "<i8"), ("count", "<i8"), ("hash", "u1", 32)]


def seq_range(store: Store, digest: str) -> tuple[int, int] | None:
    """Return the lowest and highest seq that events of a state can have; None without events."""
    entries = _entries(store, digest)
    return (entries[0].seq[0], max(e.seq[1] for e in entries)) if entries else None


def root(
    store: Store,
    digest: str,
    progress: ProgressCallback | None = None,
    trusted: set[str] | None = None,
    lake: str = "",
) -> tuple[str, int]:
    """Return the root over the events of a state, in hex, and their number; as events of another
    lake if its id is given.

    Where `trusted` is given, the cache serves only the segments in it, and those that are hashed
    again are added. Raises Damaged.
    """
    top, count, _ = event_tree.root(
        _levels(store, digest, progress, trusted, lake or store.lake_id)
    )
    return top.hex(), count


def path_of(
    store: Store, digest: str, seq: int, lake: str = ""
) -> tuple[JsonObject, list[ProofStep]]:
    """Return the event with a seq in a state, and its path to the root; as events of another lake
    if its id is given. Raises UnknownRef where the state has none, Damaged."""
    lake = lake or store.lake_id
    erased_nodes = _kept_leaves(store, digest, lake)
    if seq in erased_nodes.places:
        raise UnknownRef(
            f"the event with seq {seq} of the state {digest[:12]} was erased: its place in the tree"
            " is kept, and nothing of what it said"
        )
    for entry in _entries(store, digest):
        if entry.seq[0] <= seq <= entry.seq[1]:
            rows = _rows(store, entry)
            matches = rows.filter(pc.equal(rows["seq"], seq))
            if not len(matches):
                break
            row_leaves = _leaves(store, entry, rows, lake)
            levels = {0: event_tree.concat([row_leaves, _within(erased_nodes, entry)])}
            _, lower_path = event_tree.climb(levels, *_span(entry), seq)
            _, _, upper_path = event_tree.root(_levels(store, digest, None, None, lake), seq)
            return _event(matches), lower_path + upper_path
    raise UnknownRef(f"the state {digest[:12]} has no event with seq {seq}")


def find_events(
    store: Store, digest: str, id: str, source: str | None
) -> list[tuple[int, str | None]]:
    """Return (seq, source) of the events of a state with an id, of one source if that is given.
    Raises Damaged."""
    filters = bloom.Filters(store.paths)
    hashed = filters.hashes_of([id])
    matches = []
    for entry in _entries(store, digest):
        store.verified.require([entry])
        if filters.containing([entry.key], "id", hashed):
            rows = _rows(store, entry)
            rows = rows.filter(pc.equal(rows["id"], id))
            pairs = zip(rows["seq"].to_pylist(), rows["source"].to_pylist(), strict=True)
            matches += [(seq, name) for seq, name in pairs if source is None or name == source]
    return sorted(matches)


def _entries(store: Store, digest: str) -> list[SegmentEntry]:
    """Return the event segments of a state by seq. Raises Damaged where two overlap."""
    state = store.manifests.load(digest)
    entries = sorted(store.manifests.segments(state, "events"), key=lambda e: e.seq)
    for before, after in itertools.pairwise(entries):
        if after.seq[0] <= before.seq[1]:
            path = store.paths.object("segments", after.key)
            raise DamagedSegment(path, "another segment of the state has events of its seq")
    return entries


def _levels(
    store: Store,
    digest: str,
    progress: ProgressCallback | None,
    trusted: set[str] | None,
    lake: str,
) -> Levels:
    """Return the peaks of all segments of a state by height."""
    entries = _entries(store, digest)
    runs_by_height: dict[int, list[event_tree.Nodes]] = {}
    erased_nodes = _kept_leaves(store, digest, lake)
    # Of a segment that was erased as a whole nothing but its leaves is there.
    alone = np.ones(len(erased_nodes.places), dtype=bool)
    for entry in entries if len(alone) else ():
        alone &= ~_is_within(erased_nodes, entry)
    if alone.any():
        runs_by_height[0] = [event_tree.pick(erased_nodes, alone)]
    hashed, total = 0, sum(e.events for e in entries)
    with database.shared_database(store.paths) as open_engine:
        for entry in entries:
            erased = _within(erased_nodes, entry)
            if len(erased.places):
                row_leaves = _leaves(store, entry, _rows(store, entry, open_engine), lake)
                leaves = {0: event_tree.concat([row_leaves, erased])}
                peaks, _ = event_tree.climb(leaves, *_span(entry))
            else:
                peaks = _peaks(store, entry, trusted, lake, open_engine)
            for height, nodes in peaks.items():
                runs_by_height.setdefault(height, []).append(nodes)
            hashed += entry.events
            if progress:
                progress(hashed, total)
    return {height: event_tree.concat(nodes) for height, nodes in runs_by_height.items()}


def _peaks(
    store: Store,
    entry: SegmentEntry,
    trusted: set[str] | None,
    lake: str,
    open_engine: database.Connect,
) -> Levels:
    is_trusted = trusted is None or entry.key in trusted
    if is_trusted and (stored_peaks := _load(store, entry, lake)) is not None:
        return stored_peaks
    if trusted is not None:
        trusted.add(entry.key)
    levels = {0: _leaves(store, entry, _rows(store, entry, open_engine), lake)}
    peaks, _ = event_tree.climb(levels, *_span(entry))
    _save(store, entry, peaks, lake)
    return peaks


def erased_leaves(store: Store, rows_of: Mapping[str, pa.Table]) -> records.StateLeaves:
    """Return the leaves of rows that are about to be erased, by segment, of each signed state: as
    events of each lake that signed it. Raises Damaged."""
    signed: set[tuple[str, str]] = set()
    for file in Signatures(store.paths).listing():
        with contextlib.suppress(UnknownRef, NotProven):
            state = store.refs.tag(file.tag).snapshot if file.tag else file.state
            statement = Statement.unverified(SignatureFile.read(file.path))
            signed.add((state, statement.lake))
    leaves_by_state: records.StateLeaves = {}
    for state, lake in sorted(signed):
        for entry in _entries(store, state) if store.manifests.is_there(state) else ():
            if entry.key in rows_of:
                rows = sealed_blocks.without_tokens(store.paths, rows_of[entry.key])
                nodes = event_tree.leaves(lake, rows)
                hashes = (row.tobytes().hex() for row in nodes.hashes)
                pairs = zip(nodes.places.tolist(), hashes, strict=True)
                leaves_by_state.setdefault(state, {}).setdefault(lake, []).extend(pairs)
    return leaves_by_state


def _kept_leaves(store: Store, digest: str, lake: str) -> event_tree.Nodes:
    """The leaves of the events that were erased from a state after it was signed."""
    pairs = records.ErasedRows.kept_leaves(store.paths, digest, lake)
    hashes = np.frombuffer(b"".join(bytes.fromhex(leaf) for _, leaf in pairs), np.uint8)
    places = np.array([seq for seq, _ in pairs], np.int64)
    return event_tree.Nodes(places, np.ones(len(pairs), np.int64), hashes.reshape(-1, 32))


def _is_within(nodes: event_tree.Nodes, entry: SegmentEntry) -> np.ndarray:
    low, high = _span(entry)
    return (nodes.places >= low) & (nodes.places < high)


def _within(nodes: event_tree.Nodes, entry: SegmentEntry) -> event_tree.Nodes:
    return event_tree.pick(nodes, _is_within(nodes, entry))


def _span(entry: SegmentEntry) -> tuple[int, int]:
    return entry.seq[0], entry.seq[1] + 1


def _leaves(store: Store, entry: SegmentEntry, rows: pa.Table, lake: str) -> event_tree.Nodes:
    path = store.paths.object("segments", entry.key)
    try:
        nodes = event_tree.leaves(lake, rows)
    except ValueError as error:
        raise DamagedSegment(path, str(error)) from None
    low, high = _span(entry)
    if len(nodes.places) and not low <= nodes.places[0] <= nodes.places[-1] < high:
        raise DamagedSegment(path, "it has an event outside the range of seq of its entry")
    return nodes


def _rows(
    store: Store, entry: SegmentEntry, open_engine: database.Connect | None = None
) -> pa.Table:
    """Return the rows of a segment with their seq. Raises DamagedSegment."""
    store.verified.require([entry])
    rows = Segment(store.paths, entry.key).read(open_engine=open_engine)
    rows = sealed_blocks.without_tokens(store.paths, rows)
    if entry.layout == "arrival":
        seqs = pa.array(np.arange(len(rows), dtype=np.int64) + entry.seq[0])
        rows = rows.append_column("seq", seqs)
    return rows


def _event(row: pa.Table) -> JsonObject:
    """Return the members of an event, times in us, from a table of one row."""
    values = {name: row[name][0].as_py() for name in TEXTS}
    return {name: row[name].cast(pa.int64())[0].as_py() for name in NUMBERS} | values


def _load(store: Store, entry: SegmentEntry, lake: str) -> Levels | None:
    """Return the cached peaks of a segment, or None."""
    try:
        data = File(f"{store.paths.peaks}/{entry.key}").read()
    except OSError:
        return None
    if len(data) < _HEAD.size or (len(data) - _HEAD.size) % np.dtype(_NODE).itemsize:
        return None
    head = _HEAD.pack(b"LKT1", zlib.crc32(data[_CHECKED:]), *_of(lake, entry))
    if data[: _HEAD.size] != head:
        return None
    nodes = np.frombuffer(data, _NODE, offset=_HEAD.size)
    return {
        int(height): event_tree.Nodes(
            *(
                np.ascontiguousarray(nodes[name][nodes["height"] == height])
                for name in ("place", "count", "hash")
            )
        )
        for height in np.unique(nodes["height"])
    }


def _save(store: Store, entry: SegmentEntry, peaks: Levels, lake: str) -> None:
    """Store the peaks of a segment, if the disk has room."""
    arrays = []
    for height, nodes in peaks.items():
        array = np.zeros(len(nodes.places), _NODE)
        array["height"], array["place"] = height, nodes.places
        array["count"], array["hash"] = nodes.counts, nodes.hashes
        arrays.append(array.tobytes())
    body = b"".join(arrays)
    checked = _HEAD.pack(b"LKT1", 0, *_of(lake, entry))[_CHECKED:] + body
    path = f"{store.paths.peaks}/{entry.key}"
    File(path).keep(b"LKT1" + struct.pack("<I", zlib.crc32(checked)) + checked)


def _of(lake: str, entry: SegmentEntry) -> tuple[bytes, int, int]:
    return bytes.fromhex(lake), *_span(entry)
