"""Where an id or subject is, without opening segments: names that are put down in the bucket.

    cache/names/<digest>   of a segment, put down with it (F22.12)
    cache/names/<digest>   of pages of the manifest, made by upkeep; the digest is of their digests

Both may be missing, and then segments are opened, as in any lake. What was read of them is kept in
cache/names/ of the directory, within the bound of its cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any

from lakelog.bloom import Filters
from lakelog.disk import File, Folder
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
from lakelog.remotes.shared.name_file import COLUMNS, Malformed, NameHead, key_of
from lakelog.store import Store

Hashes = list[tuple[str, list[int]]]
"""For each mention of events a column, and the hashes of the names of which one is needed."""
READERS = 32
_GROUPS = {3: 16, 2: 1}
"""Pages of a unit by their level: those of level 3 are written all at once."""
_PAGE = 1 << 12
"""Entries of a page at most, by which the entries of all pages of a unit are numbered."""
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


def units(pages: Sequence[Page]) -> list[tuple[Page, ...]]:
    """Return the pages that have a file of names together: large ones of one level, in order."""
    groups = list[tuple[Page, ...]]()
    for level, size in _GROUPS.items():
        of_level = [page for page in pages if page.level == level]
        groups += (tuple(of_level[n : n + size]) for n in range(0, len(of_level), size))
    return groups


def unit_digest(unit: tuple[Page, ...]) -> str:
    """Return what names the file of some pages."""
    return hashlib.sha256("".join(page.digest for page in unit).encode()).hexdigest()


def _key(unit: tuple[Page, ...]) -> str:
    return key_of(unit_digest(unit))


def file_keys(state: Manifest) -> list[str]:
    """Return the keys of the files of names that a state can have."""
    return list(map(_key, units(state.pages)))


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
        """Return what gives the entries of a page that may have a name between two times: all of a
        page of which that is not known."""
        near = {
            unit_digest(unit): unit
            for unit in units(state.pages)
            if any(page.is_near(low, high) for page in unit)
        }
        numbers_of: dict[str, set[int]] = {}
        for digest, numbers in self._entries(near):
            if numbers is not None:
                numbers_of |= {page.digest: set() for page in near[digest]}
                for number in numbers:
                    place, entry_number = divmod(number, _PAGE)
                    numbers_of[near[digest][place].digest].add(entry_number)

        def entries(page: Page) -> Iterable[Entry]:
            numbers = numbers_of.get(page.digest)
            if numbers is None:
                return manifests.page(page)
            # Tombstones count whatever is asked for: they may hide what an older page adds.
            if not numbers and not page.removals:
                return ()
            pairs = enumerate(manifests.page(page))
            return [e for n, e in pairs if n in numbers or isinstance(e, Removal)]

        return entries

    def lacking(self, digests: Set[str], tolerable: int = _OPENED) -> set[str]:
        """Return those of segments that certainly have none; so few as may be opened are not asked
        for."""
        if len(digests) <= tolerable:
            return set()
        return {digest for digest, numbers in self._entries(digests) if numbers == set()}

    def _entries(self, digests: Iterable[str]) -> Iterator[tuple[str, set[int] | None]]:
        work = functools.partial(self._index.entries, needs=self._needs)
        return remotes.in_parallel(work, digests, READERS)


class NameIndex:
    """The files of names of one bucket. Safe for threads."""

    def __init__(self, paths: Paths, volume: MirroredVolume) -> None:
        self._paths, self._volume = paths, volume
        # A million segments have a gigabyte of heads; what is dropped is read from the disk.
        self._head = functools.lru_cache(_HEADS_MAX)(self._read_head)
        self._absent: dict[str, float] = {}
        self._plain: dict[str, _Reader] = {}

    def entries(self, digest: str, needs: Hashes) -> set[int] | None:
        """Return the entries by a file that have a name of any mention, None if that is not
        known."""
        if time.monotonic() < self._absent.get(digest, 0.0):
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
        self._keep(digest, data if len(data) < _FIRST else data[: head.size])
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
        first = plain.read(0, _FIRST)
        if whole > len(data):  # its head says how long it is
            plain = VAULT.ranges(VAULT.sealed_size(name_file.file_size(first)), fetch)
            assert plain is not None
        self._plain[digest] = plain.read
        # Each holds the beginning of its file.
        for opened_before in list(self._plain)[:-_OPEN_MAX]:
            self._plain.pop(opened_before, None)
        return first, plain.read

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

    def _keep(self, digest: str, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk only means that it is read again
            Folder(os.path.dirname(self._path(digest))).make()
            File(self._path(digest)).replace(data, sync=False)

    def without_file(self, state: Manifest) -> list[tuple[Page, ...]]:
        """Return the units of a state of which the bucket has no file."""
        return [u for u in units(state.pages) if not self._volume.bucket.exists(_key(u))]

    def build(self, store: Store, lacking: list[tuple[Page, ...]]) -> int:
        """Put down the files of units; return how many. Raises Unreachable, TransferRefused,
        Damaged, OSError."""
        for unit in lacking:
            digest = unit_digest(unit)
            data = name_file.encode(bytes.fromhex(digest), self._keys(store, unit))
            remotes.put(self._volume.remote, key_of(digest), self._volume.sealed(data))
            self._absent.pop(digest, None)
        return len(lacking)

    def _keys(self, store: Store, unit: tuple[Page, ...]) -> list[Any]:
        """Return the keys of the columns of some pages; None for one that has too many."""
        segments = (
            (place * _PAGE + number, entry)
            for place, page in enumerate(unit)
            for number, entry in enumerate(store.manifests.page(page))
            if isinstance(entry, SegmentEntry) and entry.kind == "events"
        )
        columns, counts = [[np.zeros(0, np.uint64)] for _ in COLUMNS], [0 for _ in COLUMNS]
        work = functools.partial(self._segment_keys, store)
        for (number, _), keys in remotes.in_parallel(work, segments, READERS):
            for column, fresh in enumerate(keys):
                counts[column] += len(fresh)
                if counts[column] > _KEYS_MAX:
                    columns[column].clear()  # so many would not fit in memory
                else:
                    columns[column].append(fresh | np.uint64(number))
        return [np.sort(np.concatenate(parts)) if parts else None for parts in columns]

    def _segment_keys(self, store: Store, numbered: tuple[int, SegmentEntry]) -> list[Any]:
        """Return the keys of the columns of a segment."""
        _, entry = numbered
        digest = entry.key
        about, path = bytes.fromhex(digest), store.paths.object("segments", digest)
        if not File(path).exists():
            with contextlib.suppress(FileNotFoundError, ValueError):
                longest = VAULT.sealed_size(name_file.longest(entry.events, entry.bytes))
                data = VAULT.decrypt(remotes.read(self._volume.remote, key_of(digest), longest))
                return NameHead(data, about).columns(data)
            store.verified.obtain([(digest, path)])
        if not store.verified.is_intact(digest, path):
            raise DamagedSegment(path, "the content does not match its name")
        data = name_file.of_segment(path, digest)
        return NameHead(data, about).columns(data)
