"""The Merkle tree over the events of a state, which depends on the events alone.

An event is 92 bytes and the bytes of its texts, one after another. Numbers are little-endian:

    0  "LKV1"          28  time, i64 us          52  whether it has a position, u32: 1 or 0
    4  lake, 16 bytes  36  ingested_at, i64 us   56  lengths of the nine texts, u32 each, in the
    20 seq, u64        44  position, i64 or 0        order of TEXTS; 0xFFFFFFFF for null

A leaf is SHA-256(0x00, event). Leaves stand at their seq. Two neighbours of height h, which begin
at multiples of 2^h, make the node above them:

    SHA-256(0x01, h as u8, events left as u64, events right as u64, hash left, hash right)

Where only one of the two has events it stands in the place of the node, unchanged. The root of no
events is SHA-256 of nothing. So a segment, whose rows are all rows of a range of seq, contributes
the same few nodes (its peaks) to every state that has it, however the rows are divided.
RFC 6962 is the model for the prefixes 0x00 and 0x01, which keep leaves and nodes apart.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from dataclasses import dataclass

from lakelog.libraries import np, pa, pc
from lakelog.values import JsonObject

TEXTS = ("type", "category", "source", "subject", "level", "message", "data", "id", "origin")
NUMBERS = ("seq", "time", "ingested_at", "position")
HEIGHT = 62
"""Of the whole tree: every seq is below 2^62."""
_WHOLE = (0, 1 << HEIGHT)
EMPTY_ROOT = hashlib.sha256(b"").digest()
# Its lengths keep texts apart: no two events have the same bytes.
_MARK, _NULL = b"LKV1", 0xFFFFFFFF
_HEAD = struct.Struct("<4s16sQqqqI9I")
_NODE = struct.Struct("<BBQQ")
# Rows of one call: their bytes and hashes are in memory at once.
BATCH = 16_384


@dataclass(frozen=True)
class Nodes:
    """Nodes of one height, by ascending place: `places` and `counts` of events are i64 arrays,
    `hashes` is an u8 array of n x 32. A node of height h begins at seq place x 2^h."""

    places: np.ndarray
    counts: np.ndarray
    hashes: np.ndarray


@dataclass(frozen=True)
class ProofStep:
    """The neighbour of a path's node of this height: how many events it has, and its hash."""

    height: int
    count: int
    hash: bytes


Levels = dict[int, Nodes]


def event_bytes(lake: str, event: JsonObject) -> bytes:
    """Return the bytes of one event with the members of NUMBERS and TEXTS. Raises ValueError,
    TypeError, KeyError or struct.error for one that is no event."""
    values = [None if event[name] is None else event[name].encode() for name in TEXTS]
    position = event["position"]
    head = _HEAD.pack(
        _MARK,
        bytes.fromhex(lake),
        event["seq"],
        event["time"],
        event["ingested_at"],
        0 if position is None else position,
        position is not None,
        *(_NULL if value is None else len(value) for value in values),
    )
    return head + b"".join(value for value in values if value is not None)


def leaf(data: bytes) -> bytes:
    """Return the leaf of an event's bytes."""
    # A leaf begins with 0 and a node with 1, as in RFC 6962: neither passes for the other.
    return hashlib.sha256(b"\0" + data).digest()


def node(height: int, first_child: ProofStep, second_child: ProofStep) -> bytes:
    """Return the node above two neighbours of a height."""
    # Heights and counts are hashed, too: a proof cannot move an event, or hide others.
    head = _NODE.pack(1, height, first_child.count, second_child.count)
    return hashlib.sha256(head + first_child.hash + second_child.hash).digest()


def leaves(lake: str, rows: pa.Table) -> Nodes:
    """Return the leaves of rows with `seq`, in its order. Raises ValueError for a seq that two
    rows have, or that is out of range."""
    # In parts, since hashes and texts of a part are in memory together.
    slices = [_hash_rows(lake, rows.slice(start, BATCH)) for start in range(0, len(rows), BATCH)]
    hashes = np.frombuffer(b"".join(slices), np.uint8).reshape(-1, 32)
    places = np.asarray(rows["seq"].combine_chunks(), np.int64)
    # Rows lie in order as a rule, and sorting takes long.
    if len(places) and np.any(places[1:] <= places[:-1]):
        order = np.argsort(places, kind="stable")
        places, hashes = places[order], hashes[order]
        if np.any(places[1:] == places[:-1]):
            raise ValueError("two events have the same seq")
    if len(places) and not 0 <= places[0] <= places[-1] < 1 << HEIGHT:
        raise ValueError("a seq is out of range")
    return Nodes(places, np.ones(len(places), np.int64), hashes)


def _hash_rows(lake: str, rows: pa.Table) -> bytes:
    """Return the leaves of some rows, one after another."""
    binary = pa.large_binary()
    columns = [rows[name].combine_chunks().cast(binary) for name in TEXTS]
    heads = _heads(lake, rows, columns).tobytes()
    ends = np.arange(len(rows) + 1, dtype=np.int64) * (len(heads) // len(rows))
    column = pa.Array.from_buffers(
        binary, len(rows), [None, pa.py_buffer(ends), pa.py_buffer(heads)]
    )
    # One contiguous text for all rows: joining them one by one takes five times as long.
    joined = pc.binary_join_element_wise(
        column, *columns, pa.scalar(b"", binary), null_handling="replace", null_replacement=b""
    )
    offsets = np.frombuffer(joined.buffers()[1], np.int64)[joined.offset :].tolist()[
        : len(rows) + 1
    ]
    view, sha256 = memoryview(joined.buffers()[2]), hashlib.sha256
    return b"".join([sha256(view[a:b]).digest() for a, b in itertools.pairwise(offsets)])


def _heads(lake: str, rows: pa.Table, columns: list[pa.ChunkedArray]) -> np.ndarray:
    """Return the prefix of a leaf and the first 92 bytes of each event as a structured array."""
    form = [("prefix", "u1"), ("mark", "u1", 4), ("lake", "u1", 16), *[(n, "<i8") for n in NUMBERS]]
    heads = np.zeros(len(rows), [*form, ("has_position", "<u4"), ("lengths", "<u4", len(TEXTS))])
    heads["mark"] = np.frombuffer(_MARK, np.uint8)
    heads["lake"] = np.frombuffer(bytes.fromhex(lake), np.uint8)
    for name in NUMBERS:
        column = rows[name].combine_chunks().cast(pa.int64())
        heads[name] = np.asarray(column.fill_null(0) if column.null_count else column)
    heads["has_position"] = np.asarray(rows["position"].combine_chunks().is_valid())
    for index, values in enumerate(columns):
        lengths = pc.binary_length(values).cast(pa.uint32())
        heads["lengths"][:, index] = np.asarray(lengths.fill_null(_NULL))
    return heads


def climb(levels: Levels, low: int, high: int, seq: int = -1) -> tuple[Levels, list[ProofStep]]:
    """Return the highest nodes above `levels` that lie within the range of seq [low, high), and
    the path from the event `seq` up to one of them. No two of the nodes may overlap."""
    peaks: Levels = {}
    path: list[ProofStep] = []
    rising = Nodes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 32), np.uint8))
    for height in range(HEIGHT + 1):
        nodes = _merge(rising, levels[height]) if height in levels else rising
        # Nothing stands at this height.
        if not len(nodes.places):
            continue
        # A node without neighbours rises unchanged; forty levels of arrays would take milliseconds.
        if len(nodes.places) == 1 and (low, high) == _WHOLE and height >= max(levels):
            return {HEIGHT: Nodes(nodes.places * 0, nodes.counts, nodes.hashes)}, path
        parents = nodes.places >> 1
        # Above the last level nothing rises, and the sums below would overflow.
        rises = (parents << (height + 1) >= low) & ((parents + 1) << (height + 1) <= high)
        rises &= height < HEIGHT
        if not rises.all():
            peaks[height] = pick(nodes, ~rises)
        nodes = pick(nodes, rises)
        if seq >= 0:
            path += _neighbour(nodes, height, seq)
        rising = _join(nodes, height)
    return peaks, path


def root(levels: Levels, seq: int = -1) -> tuple[bytes, int, list[ProofStep]]:
    """Return the root above nodes that do not overlap, the number of events, and the path from
    the event `seq` to the root."""
    peaks, path = climb(levels, *_WHOLE, seq)
    top = peaks.get(HEIGHT)
    if top is None:
        return EMPTY_ROOT, 0, []
    return top.hashes[0].tobytes(), int(top.counts[0]), path


def pick(nodes: Nodes, which: np.ndarray) -> Nodes:
    """Return some of the nodes, by an array of booleans."""
    # As they are: copies of millions of hashes take longer than the look.
    if len(which) and which.all():
        return nodes
    return Nodes(nodes.places[which], nodes.counts[which], nodes.hashes[which])


def concat(runs: list[Nodes]) -> Nodes:
    """Return nodes of one height as one, by place."""
    places = np.concatenate([run.places for run in runs])
    order = np.argsort(places, kind="stable")
    counts = np.concatenate([run.counts for run in runs])
    hashes = np.concatenate([run.hashes for run in runs])
    return Nodes(places[order], counts[order], hashes[order])


def _merge(rising: Nodes, added: Nodes) -> Nodes:
    return concat([rising, added]) if len(rising.places) else added


def _neighbour(nodes: Nodes, height: int, seq: int) -> list[ProofStep]:
    """Return the neighbour of the node above a seq, if both have events."""
    # Its number at this height; the neighbour's differs in the last bit.
    place = seq >> height
    indices = {}
    for sibling in (place, place ^ 1):
        index = int(np.searchsorted(nodes.places, sibling))
        if index == len(nodes.places) or nodes.places[index] != sibling:
            return []
        indices[sibling] = index
    index = indices[place ^ 1]
    return [ProofStep(height, int(nodes.counts[index]), nodes.hashes[index].tobytes())]


def _join(nodes: Nodes, height: int) -> Nodes:
    """Return the nodes of the next height."""
    parents = nodes.places >> 1
    if len(parents) < 2:
        return Nodes(parents, nodes.counts, nodes.hashes)
    # Places ascend, so two children of one parent stand side by side, the left one first.
    is_left = np.append(parents[1:] == parents[:-1], False)
    left_indices = np.flatnonzero(is_left)
    is_first = np.append(True, parents[1:] != parents[:-1])
    hashes, counts = nodes.hashes.copy(), nodes.counts.copy()
    hashes[left_indices] = _hash_pairs(nodes, left_indices, height)
    counts[left_indices] += nodes.counts[left_indices + 1]
    return Nodes(parents[is_first], counts[is_first], hashes[is_first])


def _hash_pairs(nodes: Nodes, left_indices: np.ndarray, height: int) -> np.ndarray:
    """Return the hashes of the nodes above `left_indices` and the nodes after them, as n x 32."""
    form = [("prefix", "u1"), ("height", "u1"), ("counts", "<u8", 2), ("hashes", "u1", 64)]
    records = np.zeros(len(left_indices), form)
    records["prefix"], records["height"] = 1, height
    for offset in (0, 1):
        records["counts"][:, offset] = nodes.counts[left_indices + offset]
        records["hashes"][:, 32 * offset : 32 * offset + 32] = nodes.hashes[left_indices + offset]
    data, size, sha256 = records.tobytes(), records.itemsize, hashlib.sha256
    digests = [sha256(data[start : start + size]).digest() for start in range(0, len(data), size)]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def follow(event: bytes, seq: int, path: list[ProofStep]) -> tuple[bytes, int, int]:
    """Return the root that a path leads to from an event, the number of events below it, and how
    many of them come before the event. Raises ValueError for a path that cannot be."""
    current, index, height = ProofStep(-1, 1, leaf(event)), 0, -1
    for step in path:
        # Rising heights: a step that comes twice could lead anywhere.
        if not height < step.height < HEIGHT or step.count < 1:
            raise ValueError("its path is not in order")
        height = step.height
        # The seq's bit tells on which side the neighbour stands.
        is_right = seq >> height & 1
        pair = (step, current) if is_right else (current, step)
        index += step.count if is_right else 0
        current = ProofStep(height, current.count + step.count, node(height, *pair))
    return current.hash, current.count, index
