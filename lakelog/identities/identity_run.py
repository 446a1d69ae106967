"""Sorted runs of identity keys: they make a given id unique, at no cost to events without one.

    64-byte header   "LKI1", 4 zero bytes, count u64, commit 16 bytes, crc32 of the body u32,
                     zeros to byte 60, crc32 of the first 60 bytes u32
    count x u64      the first 8 bytes of each key as a big-endian number, ascending
    count x u32      the next 4 bytes of each key, in the same order

Integers are stored little-endian. A key is 12 bytes of SHA-256, so a match needs no second
look: a false one has probability below 1e-8 at 1e10 events. Equal first parts are ordered by
their second. Runs are read by memory map.

`IdentityKeys` are the keys of a run or of a table, in the order of a run; `id_key` is the SQL for
what `event.identity_key` makes in Python; `unique_rows` drops the rows of a table whose keys are
stored already.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lakelog import arrays, document
from lakelog.appends import StreamSubject
from lakelog.disk import Begun, File, Folder
from lakelog.entries import IdRun
from lakelog.errors import DamagedIds
from lakelog.libraries import np, pa
from lakelog.paths import Paths
from lakelog.store import Store

_HEAD = struct.Struct("<4s4xQ16sI")
RANGE = 1 << 20
"""Keys that are merged at a time: 12 MB, however long the runs are."""
FAN = 8
"""This many runs of one size class are merged into one of the next: at most seven
of a class stay, whatever is appended."""


@dataclass(frozen=True, slots=True, eq=False)
class IdentityKeys:
    """Identity keys in the order of a run: their first 8 bytes (u64 array) and the 4 after them
    (u32)."""

    high: np.ndarray
    low: np.ndarray

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> IdentityKeys:
        """Return the keys of a column of 24 hex digits each; a null is none."""
        return cls.of_numbers(*_numbers(column.drop_null()))

    @classmethod
    def read(cls, store: Store, run: IdRun) -> IdentityKeys:
        """Map a run into memory, verified once: a flipped bit would let a duplicate in.

        Raises DamagedIds when it is missing or not what its manifest names.
        """
        path = store.paths.object("ids", run.digest)
        store.verified.obtain([(run.digest, path)])
        keys = cls(*_mapped(path, run))
        if not store.verified.is_intact(run.digest, path):
            raise DamagedIds(path, "the content does not match its name")
        return keys

    @classmethod
    def merged(cls, runs: Iterable[IdentityKeys]) -> IdentityKeys:
        """Return the keys of several together."""
        pairs = [(keys.high, keys.low) for keys in runs]
        if not pairs:
            return cls(np.zeros(0, "<u8"), np.zeros(0, "<u4"))
        return cls.of_numbers(*map(np.concatenate, zip(*pairs, strict=True)))

    @classmethod
    def of_numbers(cls, high: np.ndarray, low: np.ndarray) -> IdentityKeys:
        """Return keys whose halves are given in any order."""
        order = np.argsort(high, kind="stable")
        high_sorted = high[order]
        # Equal first parts are rare among hashes, and sorting by both takes several times as long.
        if len(high_sorted) > 1 and bool((high_sorted[1:] == high_sorted[:-1]).any()):
            order = np.lexsort((low, high))
            high_sorted = high[order]
        return cls(high_sorted, low[order])

    def where(self, mask: np.ndarray) -> IdentityKeys:
        """Return the keys at which a boolean array is true."""
        return IdentityKeys(self.high[mask], self.low[mask])

    def contains(self, keys: IdentityKeys) -> np.ndarray:
        """Return a boolean array: which of some keys are among these."""
        hit = np.zeros(len(keys), dtype=bool)
        if not len(self) or not len(keys):
            return hit
        places = np.searchsorted(self.high, keys.high)
        # `places` is where each key is looked for next, `remaining` which keys these are. Several
        # may have the same first part, so the search goes on entry by entry, for all keys at once.
        remaining = np.arange(len(keys))
        while len(remaining):
            inside = places < len(self)
            places, remaining = places[inside], remaining[inside]
            same = self.high[places] == keys.high[remaining]
            places, remaining = places[same], remaining[same]
            match = self.low[places] == keys.low[remaining]
            hit[remaining[match]] = True
            places, remaining = places[~match] + 1, remaining[~match]
        return hit

    def overlaps(self, runs: Iterable[IdentityKeys]) -> bool:
        """Whether any key of the others is among these. Only the others are read as a whole: let
        the longer be these, such as a run of all keys of a lake."""
        return any(bool(self.contains(keys).any()) for keys in runs)

    def encode(self, commit: str) -> bytes:
        """Return the bytes of a run."""
        body = self.high.astype("<u8").tobytes() + self.low.astype("<u4").tobytes()
        return _header(len(self), commit, zlib.crc32(body)) + body

    def write(
        self, paths: Paths, commit: str, pending_writes: list[Begun] | None = None
    ) -> tuple[IdRun, ...]:
        """Write a run, durably or to be finished with `pending_writes`; return what a manifest says
        of it. Of no keys there is none."""
        if not len(self):
            return ()
        data = self.encode(commit)
        digest = document.digest(data)
        path = paths.object("ids", digest)
        if pending_writes is None:
            File(path).put(data)
        else:
            pending_writes.append(File(path).begin(data))
        return (IdRun(digest, len(data), len(self)),)


def stored_keys(store: Store, runs: Iterable[IdRun], column: pa.ChunkedArray) -> np.ndarray:
    """Return a boolean array: which of the keys in a column are in runs. Raises DamagedIds."""
    high, low = _numbers(column)
    # In order, as neighbouring look-ups touch the same pages of the memory map.
    order = np.argsort(high, kind="stable")
    mask = np.zeros(len(high), dtype=bool)
    mask[order] = _is_stored(store, runs, IdentityKeys(high[order], low[order]))
    return mask


def unique_rows(
    store: Store, table: pa.Table, runs: Iterable[IdRun], pending: Iterable[IdentityKeys] = ()
) -> tuple[pa.Table, IdentityKeys]:
    """Drop rows whose `key` came earlier in the table, or is in an id run or in one of `pending`,
    which no run has yet. Return the others and their keys. Raises DamagedIds."""
    keyed = np.flatnonzero(arrays.truths(table["key"].is_valid()))
    high, low = _numbers(table["key"].drop_null())
    order = np.argsort(high, kind="stable")
    keep = np.ones(len(high), dtype=bool)
    # Most tables have no repeated key: then it does not matter which row is the first.
    if bool((high[order][1:] == high[order][:-1]).any()):
        order = _precedence(table, keyed, high, low)
        _unmark_repeats(keep, order, high, low)
    ordered = IdentityKeys(high[order], low[order])
    keep[order[_is_stored(store, runs, ordered, pending)]] = False
    if not keep.all():
        mask = np.ones(table.num_rows, dtype=bool)
        mask[keyed] = keep
        table = table.filter(arrays.mask(mask))
    return table, ordered.where(keep[order])


def _is_stored(
    store: Store, runs: Iterable[IdRun], keys: IdentityKeys, pending: Iterable[IdentityKeys] = ()
) -> np.ndarray:
    mask = np.zeros(len(keys), dtype=bool)
    for run in itertools.chain((IdentityKeys.read(store, run) for run in runs), pending):
        mask |= run.contains(keys)
    return mask


def _precedence(
    table: pa.Table, keyed: np.ndarray, high: np.ndarray, low: np.ndarray
) -> np.ndarray:
    """Return the order of keyed rows by key, then (ingested_at, writer, sequence, row); rows that
    come from no WAL are in the order of the table (F12.6)."""
    place = np.arange(len(high))
    if "writer" not in table.column_names:
        return np.lexsort((place, low, high))
    arrived_at = arrays.numbers(table["ingested_at"])[keyed]
    writers = np.asarray(table["writer"].cast("string").to_pylist())[keyed]
    sequence = arrays.numbers(table["sequence"])[keyed]
    return np.lexsort((place, sequence, writers, arrived_at, low, high))


def _unmark_repeats(keep: np.ndarray, order: np.ndarray, high: np.ndarray, low: np.ndarray) -> None:
    """Clear `keep` for every key that follows an equal one in this order."""
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    keep[order[1:][same]] = False


def _numbers(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return (u64, u32) arrays of 24-hex-digit keys without nulls."""
    digits = "".join(column.to_pylist())
    # Big-endian, so that the order of the numbers is the order of the bytes (F5.1).
    raw = np.frombuffer(bytes.fromhex(digits), dtype=[("high", ">u8"), ("low", ">u4")])
    return raw["high"].astype("<u8"), raw["low"].astype("<u4")


def _header(count: int, commit: str, crc: int) -> bytes:
    head = _HEAD.pack(b"LKI1", count, bytes.fromhex(commit), crc).ljust(60, b"\0")
    return head + struct.pack("<I", zlib.crc32(head))


def _mapped(path: str, run: IdRun) -> tuple[np.ndarray, np.ndarray]:
    """Map the arrays of a run into memory. Of its bytes only the header is looked at."""
    try:
        with open(File(path).open(), "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):
        raise DamagedIds(path, "the id run is missing or empty") from None
    count = run.count
    head = data[:64]
    is_intact = len(data) == run.bytes == 64 + 12 * count and head[:4] == b"LKI1"
    if not is_intact or zlib.crc32(head[:60]) != struct.unpack_from("<I", head, 60)[0]:
        raise DamagedIds(path, "the id run does not have the shape its manifest names")
    return np.frombuffer(data, "<u8", count, 64), np.frombuffer(data, "<u4", count, 64 + 8 * count)


def join(store: Store, names: Iterable[IdRun], commit: str) -> IdRun:
    """Merge several runs into one, a range of keys at a time; return what a manifest says of it.
    Raises DamagedIds, OSError."""
    paths, runs = store.paths, [IdentityKeys.read(store, name) for name in names]
    count = sum(map(len, runs))
    if count <= RANGE:
        return IdentityKeys.merged(runs).write(paths, commit)[0]
    # The file holds all first parts before all second parts, and its header a checksum of both: so
    # the parts wait in temporary files, unsynced, until everything before them is known.
    lows: list[str] = []
    highs = Folder(paths.cache).write_pieces(_ranges(paths, runs, count, lows), sync=False)
    try:
        columns = (highs, *lows)
        crc = 0
        for block in _all_pieces(columns):
            crc = zlib.crc32(block, crc)
        digest = hashlib.sha256()
        blocks = itertools.chain([_header(count, commit, crc)], _all_pieces(columns))
        temporary = Folder(paths.cache).write_pieces(_hash_pieces(blocks, digest.update))
    finally:
        for path in (highs, *lows):
            File(path).remove()
    name = digest.hexdigest()
    File(temporary).become_object(paths.object("ids", name))
    return IdRun(name, 64 + 12 * count, count)


def _ranges(paths: Paths, runs: list[IdentityKeys], count: int, lows: list[str]) -> Iterator[bytes]:
    """Yield the first parts of all keys in order; leave the second parts in files, in `lows`.

    Keys are hashes and so spread evenly: equal ranges of them hold about equally many.
    """
    steps = -(-count // RANGE)
    bounds = [np.uint64((n << 64) // steps) for n in range(1, steps)]
    cuts = [[0, *np.searchsorted(keys.high, bounds).tolist(), len(keys)] for keys in runs]
    for n in range(steps):
        slices = [slice(run_bounds[n], run_bounds[n + 1]) for run_bounds in cuts]
        pairs = zip(runs, slices, strict=True)
        joined = IdentityKeys.merged(IdentityKeys(k.high[span], k.low[span]) for k, span in pairs)
        lows.append(
            Folder(paths.cache).write_pieces([joined.low.astype("<u4").tobytes()], sync=False)
        )
        yield joined.high.astype("<u8").tobytes()


def _all_pieces(paths: Iterable[str]) -> Iterator[bytes]:
    return itertools.chain.from_iterable(File(path).pieces() for path in paths)


def _hash_pieces(blocks: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for block in blocks:
        update(block)
        yield block


def size_class(count: int) -> int:
    """Return the power of eight that a run of `count` keys belongs to."""
    level = 0
    while count >= 8 ** (level + 1):
        level += 1
    return level


def runs_to_merge(runs: Iterable[IdRun]) -> list[IdRun]:
    """Choose the runs to merge next: eight of one size class, smallest class first, or none."""
    classes: dict[int, list[IdRun]] = {}
    for run in runs:
        classes.setdefault(size_class(run.count), []).append(run)
    for level in sorted(classes):
        if len(classes[level]) >= FAN:
            return classes[level]
    return []


def id_key(row: str = "", *, of_streams: bool = False) -> str:
    """Return the identity key of a row's source and id (FORMAT.md, F13.1), where it has an id; with
    `of_streams` that of its stream and version where it has these (F13.6), NULL without any.

    `row` stands before the names, such as `j.`.
    """
    key = f"sha256(coalesce({row}source, '') || chr(0) || {row}id)[1:24]"
    if not of_streams:
        return key
    subject = f"substr({row}origin, {len(StreamSubject.ORIGIN) + 1})"
    text = f"'{StreamSubject.ORIGIN}' || sha256({subject}) || ':' || {row}position::VARCHAR"
    return (
        f"CASE WHEN starts_with({row}origin, '{StreamSubject.ORIGIN}') THEN sha256({text})[1:24]"
        f" WHEN {row}id <> '' THEN {key} END"
    )
