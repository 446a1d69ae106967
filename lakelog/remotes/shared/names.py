"""Where an id or subject is, without opening segments: names that are put down in the bucket.

    cache/names/<digest>   of a segment, put down with it (F22.12)
    cache/names/<digest>   of pages of the manifest, made by upkeep; the digest is of their digests

Both may be missing, and then segments are opened, as in any lake. What was read of them is kept in
cache/names/ of the directory, within the bound of its cache.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any

from lakelog.bloom import Filters
from lakelog.disk import File
from lakelog.entries import Entry, Removal, SegmentEntry
from lakelog.errors import DamagedSegment, TransferRefused, Unreachable
from lakelog.keys import VAULT
from lakelog.libraries import np
from lakelog.manifest import Manifest, Manifests, Page
from lakelog.paths import Paths
from lakelog.remotes import remote as remotes
from lakelog.remotes.remote import Interrupted
from lakelog.remotes.shared import name_file
from lakelog.remotes.shared.mirrored_volume import MirroredVolume
from lakelog.remotes.shared.name_file import COLUMNS, LOW, Malformed, NameHead, key_of
from lakelog.remotes.shared.name_units import PAGE, Unit, before, parts, unit_digest, units
from lakelog.store import Store

Hashes = list[tuple[str, list[int]]]
"""For each mention of events a column, and the hashes of the names of which one is needed."""
READERS = 32
_KEYS_MAX = 1 << 26
_FIRST = 64 << 10
_RETRY_SECONDS = 60.0
_ABSENT_MAX, _HEADS_MAX = 1 << 16, 1 << 12
"""Files of which a process remembers that they are missing, and heads that it has, at most."""
_OPENED = 4
"""So few segments are opened without asking for their names."""
_LONGEST = 1 << 30
_OPEN_MAX = 64
"""Encrypted files of which a process knows how to read more at once."""
_Reader = Callable[[int, int], bytes]
_FAULTS = (FileNotFoundError, Interrupted, Unreachable, TransferRefused, LookupError, ValueError)


class NeededNames:
    """Where the names are that a query needs."""

    def __init__(self, index: NameIndex, needs: Hashes) -> None:
        self._index, self._needs = index, needs

    @classmethod
    def of(cls, index: NameIndex, predicates: list[Any]) -> NeededNames | None:
        """Return those of the mentions of events in a query; None where one needs no name, or looks
        at other rows to know which it wants."""
        needs = Hashes()
        for need in predicates:
            names = need.subjects if need.ids is None else need.ids
            is_relative = need.before_newest is not None or need.extremes
            if names is None or len(names) > Filters.NAMES_MAX or is_relative:
                return None
            needs.append(("subject" if need.ids is None else "id", Filters.hashes_of(names)))
        return cls(index, needs)

    def entries_of(
        self, manifests: Manifests, state: Manifest, low: int, high: int
    ) -> Callable[[Page], Iterable[Entry]]:
        """Return what gives the entries of a page that count for a query between two times: those
        that may have a name, and that remove one of them; all of a page where that is unknown."""
        all_units = units(state.pages)
        near = [unit for unit in all_units if any(page.is_near(low, high) for page in unit)]
        numbers = self._numbers(near, self._needs)
        is_known = all(page.digest in numbers for unit in near for page in unit)
        numbers |= _nothing([unit for unit in all_units if unit not in near])
        unknown = [page for page in state.pages if page.digest not in numbers]
        whole = [page for page in unknown if page.is_near(low, high) or page.removals]
        holders = [page for page in state.pages if numbers.get(page.digest)]
        # Together: each may have to come from the bucket.
        with manifests.without_collections():
            list(remotes.in_parallel(manifests.page, [*holders, *whole], READERS))
        keys = {e.key for p in holders for e in _chosen(manifests, p, numbers[p.digest])}
        removals = dict[str, set[int]]()
        # What an older page adds counts unless a later one removes it.
        if is_known and len(keys) <= Filters.NAMES_MAX:
            removing = [unit for unit in all_units if any(page.removals for page in unit)]
            needs = [("subject", Filters.hashes_of(keys))]
            removals = self._numbers(removing, needs) if keys else _nothing(removing)

        def entries(page: Page) -> Iterable[Entry]:
            holding = numbers.get(page.digest)
            removing = removals.get(page.digest) if page.removals else set[int]()
            if holding is None:
                return manifests.page(page)
            if removing is None:
                pairs = enumerate(manifests.page(page))
                return [e for n, e in pairs if n in holding or isinstance(e, Removal)]
            return _chosen(manifests, page, holding | removing)

        return entries

    def _numbers(self, pending: list[Unit], needs: Hashes) -> dict[str, set[int]]:
        """Return by page which entries have a name of any mention, of the pages where it is
        known."""
        numbers = dict[str, set[int]]()
        while pending:
            by_digest, pending = {unit_digest(unit): unit for unit in pending}, []
            for digest, entries in self._entries(by_digest, needs):
                unit = by_digest[digest]
                if entries is not None:
                    numbers |= _nothing([unit])
                    for place, number in (divmod(n, PAGE) for n in entries):
                        if place < len(unit):  # else it is a lie
                            numbers[unit[place].digest].add(number)
                elif not self._index.is_absent(digest):
                    pending += parts(unit)  # it had too many
        return numbers

    def lacking(self, digests: Set[str], tolerable: int = _OPENED) -> set[str]:
        """Return those of segments that certainly have none; so few as may be opened are not asked
        for."""
        if len(digests) <= tolerable:
            return set()
        return {d for d, numbers in self._entries(digests, self._needs) if numbers == set()}

    def _entries(
        self, digests: Iterable[str], needs: Hashes
    ) -> Iterator[tuple[str, set[int] | None]]:
        work = functools.partial(self._index.entries, needs=needs)
        return remotes.in_parallel(work, digests, READERS)


def _nothing(some_units: list[Unit]) -> dict[str, set[int]]:
    return {page.digest: set() for unit in some_units for page in unit}


def _chosen(manifests: Manifests, page: Page, numbers: set[int]) -> list[Entry]:
    """Return the entries of a page that have these numbers; does not read it for none."""
    return [e for n, e in enumerate(manifests.page(page)) if n in numbers] if numbers else []


class NameIndex:
    """The files of names of one bucket. Safe for threads."""

    def __init__(self, paths: Paths, volume: MirroredVolume) -> None:
        self._paths, self._volume = paths, volume
        # A million segments have a gigabyte of heads; what is dropped is read from the disk.
        self._head = functools.lru_cache(_HEADS_MAX)(self._read_head)
        self._absent: dict[str, float] = {}
        self._plain: dict[str, _Reader] = {}

    def is_absent(self, digest: str) -> bool:
        """Whether a file was found lately not to be there, or to be damaged."""
        return time.monotonic() < self._absent.get(digest, 0.0)

    def entries(self, digest: str, needs: Hashes) -> set[int] | None:
        """Return the entries by a file that have a name of any mention, None if that is not
        known."""
        if self.is_absent(digest):
            return None
        try:
            head, entries = self._head(digest), set[int]()
            for column, hashed in needs:
                if not head.knows(column):
                    return None
                for value in hashed:
                    if span := head.span(column, value):
                        block, start, size = span
                        data = self._piece(digest, start, size)
                        entries |= head.entries(block, data, size, value)
        except _FAULTS:
            if len(self._absent) >= _ABSENT_MAX:
                self._absent = {}  # each costs one more request
            self._absent[digest] = time.monotonic() + _RETRY_SECONDS
            self._plain.pop(digest, None)  # it may have been put down anew since it was opened
            return None
        return entries

    def hashes(self, digest: str, longest: int) -> bytes:
        """Return the hashes of the blocks of a segment, as they are there; b"" for none, or where
        they are said to be longer than so many bytes."""
        try:
            start, size = self._head(digest).hashes
            return self._piece(digest, start, size) if size <= longest else b""
        except _FAULTS:
            return b""

    def _read_head(self, digest: str) -> NameHead:
        about = bytes.fromhex(digest)
        with contextlib.suppress(FileNotFoundError, Malformed):
            return NameHead(File(self._path(digest)).read(), about)
        data, _ = self._first(digest)
        if (missing := name_file.head_size(data) - len(data)) > 0:
            data += self._read(digest, len(data), missing)
        head = NameHead(data, about)
        # A whole file stays, and the head of a longer one.
        File(self._path(digest)).keep(data if len(data) < _FIRST else data[: head.size])
        return head

    def _piece(self, digest: str, start: int, size: int) -> bytes:
        with contextlib.suppress(FileNotFoundError), VAULT.open_file(self._path(digest)) as file:
            file.seek(start)
            if len(data := file.read(size)) == size:
                return data
        return self._read(digest, start, size)

    def _first(self, digest: str) -> tuple[bytes, _Reader | None]:
        """Return the beginning of a file, of _FIRST bytes or all of them, from the bucket, and what
        reads more of one that is encrypted."""
        size = VAULT.sealed_size(_FIRST) if self._paths.keys else _FIRST
        # A byte more, which says that what comes before is not the last chunk.
        data = self._volume.piece(key_of(digest), 0, size + 1)

        def fetch(start: int, length: int) -> bytes:
            if start + length <= len(data):
                return data[start : start + length]
            return self._volume.piece(key_of(digest), start, length)

        whole = len(data) if len(data) <= size else VAULT.sealed_size(_LONGEST)
        if self._paths.keys is None or (plain := VAULT.ranges(whole, fetch)) is None:
            return data[:_FIRST], None
        beginning = plain.read(0, _FIRST)
        if whole > len(data):  # its head says how long it is
            plain = VAULT.ranges(VAULT.sealed_size(name_file.file_size(beginning)), fetch)
            assert plain is not None
        self._plain[digest] = plain.read
        # Each holds the beginning of its file.
        for opened_before in list(self._plain)[:-_OPEN_MAX]:
            self._plain.pop(opened_before, None)
        return beginning, plain.read

    def _read(self, digest: str, start: int, size: int) -> bytes:
        """Return bytes of a file from the bucket."""
        if self._paths.keys is None:
            return self._volume.piece(key_of(digest), start, size)
        reader = self._plain.get(digest) or self._first(digest)[1]
        if reader is None:
            raise LookupError(digest)
        return reader(start, size)

    def _path(self, digest: str) -> str:
        return f"{self._paths.root}/{key_of(digest)}"

    def without_file(self, state: Manifest) -> list[Unit]:
        """Return the units of a state of which the bucket has no file."""
        existing = remotes.in_parallel(self._exists, units(state.pages))
        return [unit for unit, exists in existing if not exists]

    def _exists(self, unit: Unit) -> bool:
        return self._volume.bucket.exists(key_of(unit_digest(unit)))

    def build(self, store: Store, lacking: list[Unit]) -> int:
        """Put down the files of units; return how many. Raises Unreachable, TransferRefused,
        Damaged, OSError."""
        return sum(self._build(store, unit) for unit in lacking)

    def _build(self, store: Store, unit: Unit) -> int:
        if self._exists(unit):
            return 0
        count, digest = 1, unit_digest(unit)
        if len(unit) > 1 and sum(page.events for page in unit) > _KEYS_MAX:
            # Its parts may be needed: the names of a segment are read once for all of them.
            count += self.build(store, [(page,) for page in unit])
        columns = self._keys(store, unit)
        if any(keys is None for keys in columns):
            # Before it: who finds that the whole one knows too little looks for these.
            count += self.build(store, parts(unit))
        data = name_file.encode(bytes.fromhex(digest), columns)
        remotes.put(self._volume.remote, key_of(digest), self._volume.sealed(data))
        self._absent.pop(digest, None)
        return count

    def _keys(self, store: Store, unit: Unit) -> list[Any]:
        """Return the keys of the columns of some pages; None for one that has too many."""
        columns: list[Any] = [[np.zeros(0, np.uint64)] for _ in COLUMNS]
        counts = [0 for _ in COLUMNS]
        for number, keys in self._sources(store, unit, 0):
            for column, fresh in enumerate(keys):
                counts[column] += _KEYS_MAX + 1 if fresh is None else len(fresh)
                if counts[column] > _KEYS_MAX:
                    columns[column].clear()  # so many would not fit in memory
                else:
                    columns[column].append(fresh + np.uint64(number))
        return [np.sort(np.concatenate(arrays)) if arrays else None for arrays in columns]

    def _sources(self, store: Store, unit: Unit, place: int) -> Iterator[tuple[int, list[Any]]]:
        """Yield the keys of the columns of some pages, and what to add to their numbers: those of
        files that were made before all pages were there, else of each segment."""
        if len(unit) == 1:
            yield from self._page_sources(store, unit[0], place * PAGE)
            return
        for pages in before(unit):
            rows = min(sum(page.events + page.removals for page in pages), _KEYS_MAX)
            if columns := self._columns(unit_digest(pages), name_file.longest(rows, 0)):
                yield place * PAGE, columns
            else:
                yield from self._sources(store, pages, place)
            place += len(pages)

    def _page_sources(
        self, store: Store, page: Page, start: int
    ) -> Iterator[tuple[int, list[Any]]]:
        entries, none = store.manifests.peek(page), np.zeros(0, np.uint64)
        segments = [
            (number, entry)
            for number, entry in enumerate(entries, start)
            if isinstance(entry, SegmentEntry) and entry.kind == "events"
        ]
        work = functools.partial(self._segment_keys, store, is_kept=not page.is_large)
        for (number, _), keys in remotes.in_parallel(work, segments, READERS):
            yield number, keys
        for number, entry in enumerate(entries, start):
            if isinstance(entry, Removal) and entry.entry_type == "segment":
                hashed = np.array(Filters.hashes_of([entry.key]), np.uint64)
                yield number, [none, hashed & ~np.uint64(LOW)]

    def _segment_keys(
        self, store: Store, numbered: tuple[int, SegmentEntry], *, is_kept: bool
    ) -> list[Any]:
        """Return the keys of the columns of a segment; what was read of them is kept, for a page
        that is merged with others soon."""
        digest, entry = numbered[1].key, numbered[1]
        path = store.paths.object("segments", digest)
        columns = None
        if not File(path).exists():
            longest = name_file.longest(entry.events, entry.bytes)
            columns = self._columns(digest, longest, is_kept=is_kept)
            if columns is None:
                store.verified.obtain([(digest, path)])
        if columns is None:
            if not store.verified.is_intact(digest, path):
                raise DamagedSegment(path, "the content does not match its name")
            data = name_file.of_segment(path, digest)
            columns = NameHead(data, bytes.fromhex(digest)).columns(data)
        return [None if keys is None else keys & ~np.uint64(LOW) for keys in columns]

    def _columns(self, digest: str, longest: int, *, is_kept: bool = False) -> list[Any] | None:
        """Return all keys of a file, of each column, None for one that it does not know; None where
        there is no intact file of that length."""
        about = bytes.fromhex(digest)
        with contextlib.suppress(FileNotFoundError, Malformed):
            data = File(self._path(digest)).read()
            return NameHead(data, about).columns(data)
        with contextlib.suppress(FileNotFoundError, ValueError):
            envelope = remotes.read(self._volume.remote, key_of(digest), VAULT.sealed_size(longest))
            data = VAULT.decrypt(envelope)
            columns = NameHead(data, about).columns(data)
            if is_kept and len(data) < _FIRST:
                File(self._path(digest)).keep(data)
            return columns
        return None
