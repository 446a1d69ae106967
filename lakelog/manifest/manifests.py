"""The manifests and pages of a lake as its files and refs have them: read, checked, and written."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import orjson

from lakelog import document
from lakelog.disk import Begun
from lakelog.entries import Entry, MalformedEntry, Record, Removal, SegmentEntry, changes, parse
from lakelog.errors import DamagedManifest, FormatTooNew, LakelogError, SnapshotGone
from lakelog.keys import VAULT, LakeKeys
from lakelog.manifest.manifest import Manifest, Outline, Page, describe, encode, level_of, of_json
from lakelog.manifest.manifest_text import FILE_FORMAT, compressed, decompressed, plain_text
from lakelog.paths import KEYS
from lakelog.refs import Ref, Refs
from lakelog.values import JsonObject
from lakelog.volume import ErasedStates, Volume

CARRIED_MAX = 32_768
"""A longer manifest has a file of its own: it would be read with its move whenever that is."""
_CACHED = 256
_T = TypeVar("_T")
EntriesOf = Callable[[Page], Iterable[Entry]]


class Manifests:
    """Reads and writes the manifests and pages of one lake; keeps the last few in memory."""

    def __init__(
        self,
        volume: Volume,
        refs: Refs,
        erased: ErasedStates,
        keys: Callable[[], LakeKeys | None] = lambda: None,
    ) -> None:
        """`keys` returns what encrypts what is written, if the lake is encrypted."""
        self._volume, self._refs, self._erased, self._keys = volume, refs, erased, keys
        self._generation = 0
        self._manifests: dict[str, Manifest] = {}
        self._pages: dict[str, tuple[Entry, ...]] = {}
        self._of_type: dict[str, tuple[Entry, ...]] = {}

    def load(self, digest: str) -> Manifest:
        """Return a manifest. Raises DamagedManifest when missing or not intact."""
        self._forget_erased()
        cached = self._manifests.get(digest)
        return cached or _cache(self._manifests, digest, self.decode(self._state(digest), digest))

    def of(self, ref: Ref) -> Manifest:
        """Return the state that a ref names. Raises DamagedManifest when missing or not intact."""
        self._forget_erased()
        # What carries the text need not be looked for among all the moves of the lake.
        is_text_right = ref.carried and not self._erased.holds(ref.snapshot)
        if is_text_right and ref.snapshot not in self._manifests:
            body = self._parse(ref.carried, ref.snapshot)
            _cache(self._manifests, ref.snapshot, self.decode(body, ref.snapshot))
        return self.load(ref.snapshot)

    def is_there(self, digest: str) -> bool:
        """Whether a manifest is there now, as a file or in a move or tag."""
        if self.has_file(digest) or self._refs.find_text(digest) is not None:
            return True
        return self.obtain(digest)

    def stored_as(self, digest: str) -> str:
        """Return the digest of the manifest that is read as a state: another one where rows of it
        were erased."""
        self._forget_erased()
        return self._erased.of(digest)

    def has_file(self, digest: str) -> bool:
        """Whether what is read as a state has a file of its own here."""
        return self._volume.exists(KEYS.object("manifests", self.stored_as(digest)))

    def obtain(self, digest: str) -> bool:
        """Whether what is read as a state has a file of its own, here or in a bucket, from which it
        comes then. Raises Unreachable, TransferRefused."""
        try:
            self._volume.read(KEYS.object("manifests", self.stored_as(digest)))
        except FileNotFoundError:
            return False
        return True

    def _forget_erased(self) -> None:
        """Clear the cache where something was erased since: what it names is gone."""
        if self._erased.refresh() != self._generation:
            self._generation = self._erased.generation
            self.forget()

    def _damaged(self, digest: str, reason: str) -> DamagedManifest:
        return DamagedManifest(self._volume.location(KEYS.object("manifests", digest)), reason)

    def text_to_carry(self, digest: str) -> bytes:
        """What a ref has to carry that names a state: nothing where it has a file. Raises
        DamagedManifest where it is gone."""
        if self.has_file(digest):
            return b""
        carried = self._refs.find_text(digest)
        if carried is None and not self.obtain(digest):
            raise self._damaged(digest, "the manifest is missing")
        return carried or b""

    def page(self, page: Page) -> tuple[Entry, ...]:
        """Return a page's entries. Raises DamagedManifest when missing or not intact."""
        cached = self._pages.get(page.digest)
        return _cache(self._pages, page.digest, self.peek(page)) if cached is None else cached

    def peek(self, page: Page) -> tuple[Entry, ...]:
        """Return a page's entries as `page` does, but do not cache what was not cached yet."""
        if (entries := self._pages.get(page.digest)) is None:
            body = self._read(page.digest, page.bytes)
            with self.refusing_malformed(page.digest):
                entries = parse(body["entries"])
        return entries

    def outline(self, digest: str, carried: bytes = b"") -> Outline:
        """Return the outline of a manifest, from its file or from what a ref has `carried`, without
        caching. Raises DamagedManifest."""
        # From the JSON as it is: gc reads every state of a long history, and values take long.
        self._forget_erased()
        is_text_right = carried and not self._erased.holds(digest)
        body = self._parse(carried, digest) if is_text_right else self._state(digest)
        with self.refusing_malformed(digest):
            pages = [(page["digest"], page["bytes"]) for page in body["pages"]]
            runs = [run["digest"] for run in body["ids"]]
            added, removed, states = changes(body["tail"])
            return Outline(pages, added, removed, runs, states)

    def page_outline(self, digest: str, size: int) -> tuple[list[str], list[str], dict[str, str]]:
        """Return the digests of segments that a page adds and removes, and the indices of state
        directories as an Outline has them; caches nothing. Raises DamagedManifest."""
        body = self._read(digest, size)
        with self.refusing_malformed(digest):
            return changes(body["entries"])

    def write(self, manifest: Manifest) -> Manifest:
        """Write a manifest durably and return it with its digest."""
        return self._with_digest(manifest, self._write(encode(manifest))[0])

    def settle(self, new: Manifest, pending_files: list[Begun]) -> tuple[Manifest, bytes]:
        """Return a manifest with its digest, and the text that its move is to carry; a longer one
        is written durably, after `pending_files`, which it names, and nothing is carried."""
        # Carried text costs no file and no sync; a long one would be read and packed with its move.
        encoded = encode(new)
        if len(encoded) > CARRIED_MAX:
            self._volume.finish(pending_files)
            return self._with_digest(new, self._write(encoded)[0]), b""
        if keys := self._keys():
            encoded = keys.encrypt_line(compressed(encoded))
        return self._with_digest(new, document.digest(encoded)), encoded

    def _with_digest(self, manifest: Manifest, digest: str) -> Manifest:
        return _cache(self._manifests, digest, dataclasses.replace(manifest, digest=digest))

    def write_page(self, entries: tuple[Entry, ...], commit: str, level: int | None = None) -> Page:
        """Write a page durably, of the level that its length makes unless one is given."""
        level = level_of(len(entries)) if level is None else level
        bodies = [entry.to_json() for entry in entries]
        body = {"format": FILE_FORMAT, "commit": commit, "level": level, "entries": bodies}
        digest, size = self._write(orjson.dumps(body))
        _cache(self._pages, digest, entries)
        return describe(entries, digest, size, level)

    def drop_pages(self, pages: tuple[Page, ...]) -> None:
        """Drop pages that were merged from the cache: it has their entries as the new page."""
        for page in pages:
            self._pages.pop(page.digest, None)

    def forget(self) -> None:
        """Clear the cache, so that the next load reads the disk."""
        self._manifests.clear()
        self._pages.clear()
        self._of_type.clear()

    @staticmethod
    @contextlib.contextmanager
    def without_collections() -> Iterator[None]:
        """Collect no garbage: what is known of many segments has none, and each collection would
        look at all of it, which took two thirds of the processor's time."""
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()

    def segments(self, manifest: Manifest, rows_kind: str = "") -> list[SegmentEntry]:
        """Return the live segments, or those of one kind, oldest first; opens every page."""
        live = self.paged_segments(manifest)
        _apply(live, manifest.recent, "segment")
        return [e for e in live.values() if not rows_kind or e.kind == rows_kind]

    def paged_segments(self, manifest: Manifest) -> dict[str, SegmentEntry]:
        """Return the segments that the pages alone leave alive, by key."""
        live: dict[str, SegmentEntry] = {}
        with self.without_collections():
            for page in manifest.pages:
                _apply(live, self.page(page), "segment")
        return live

    def records(self, manifest: Manifest, entry_type: str) -> list[Record]:
        """Return the live records of one kind, oldest first; opens the pages that have some."""
        live: dict[str, Record] = {}
        for page in manifest.pages:
            if page.what is None or entry_type in page.what:
                _apply(live, self._entries(page, entry_type), entry_type)
        _apply(live, manifest.recent, entry_type)
        return list(live.values())

    def _entries(self, page: Page, entry_type: str) -> tuple[Entry, ...]:
        """A page's entries of one kind: few among thousands, and every publish asks for some."""
        key = f"{entry_type} {page.digest}"
        if (entries := self._of_type.get(key)) is None:
            entries = tuple(e for e in self.page(page) if e.entry_type == entry_type)
            _cache(self._of_type, key, entries)
        return entries

    def find(self, manifest: Manifest, entry_type: str, key: str) -> Record | None:
        """Return one live record, None where there is none; opens the pages that may have it, the
        newest first."""
        pages = (
            self.page(page)
            for page in reversed(manifest.pages)
            if page.what is None or entry_type in page.what
        )
        for entries in itertools.chain((manifest.recent,), pages):
            for entry in reversed(entries):
                if entry.key == key and entry.entry_type == entry_type:
                    return entry if isinstance(entry, Record) else None
        return None

    def read_records(
        self, manifest: Manifest, entry_type: str, decode: Callable[[Record], _T]
    ) -> list[_T]:
        """Return the live records of one kind as `decode`, which knows their members, has them.
        Raises DamagedManifest where a member is missing or of the wrong type."""
        with self.refusing_malformed(manifest.digest):
            return [decode(record) for record in self.records(manifest, entry_type)]

    def segments_between(
        self, manifest: Manifest, low: int, high: int, entries_of: EntriesOf | None = None
    ) -> list[SegmentEntry]:
        """Return the live event segments that may hold a time in [low, high] (us), by the entries
        that `page` gives or `entries_of`."""
        live: dict[str, SegmentEntry] = {}
        for page in manifest.pages:
            # A page out of range may still hold the tombstone of a segment that an older page adds.
            if page.is_near(low, high) or page.removals:
                _apply(live, (entries_of or self.page)(page), "segment")
        _apply(live, manifest.recent, "segment")
        return [e for e in live.values() if e.time[0] <= high and low <= e.time[1]]

    def decode(self, body: JsonObject, digest: str) -> Manifest:
        """Return the manifest of a JSON object. Raises DamagedManifest."""
        with self.refusing_malformed(digest):
            return of_json(body, digest)

    def decode_text(self, carried: bytes, digest: str) -> Manifest:
        """Return the manifest of the text that a ref carries. Raises DamagedManifest."""
        return self.decode(self._parse(carried, digest), digest)

    @contextlib.contextmanager
    def refusing_malformed(self, digest: str) -> Iterator[None]:
        """Raise DamagedManifest, with the file's name, for JSON that is not as FORMAT.md has it."""
        try:
            yield
        except LakelogError:  # as that of a missing key, which is a ValueError too
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"{error}" if type(error) is MalformedEntry else f"it is malformed ({error!r})"
            raise self._damaged(digest, reason) from None

    def _state(self, digest: str) -> JsonObject:
        """A manifest's body, of its file or of a ref that carries it."""
        if self._erased.holds(digest):
            return self._read(self._erased.of(digest), None)
        carried = self._refs.recent_text(digest)
        # The file comes before the search, which may have to read every move of the lake.
        if carried is None and not self.has_file(digest):
            carried = self._refs.find_text(digest)
        return self._read(digest, None) if carried is None else self._parse(carried, digest)

    def _read(self, digest: str, size: int | None) -> JsonObject:
        try:
            data = self._volume.read(KEYS.object("manifests", digest))
        except FileNotFoundError:
            if self._erased.refresh() != self._generation:
                raise SnapshotGone("rows of it were erased meanwhile: try again") from None
            raise self._damaged(digest, "the manifest or page is missing") from None
        # Before decompressing: a flipped bit must not reach zstd or the JSON parser.
        if document.digest(data) != digest or (size is not None and len(data) != size):
            raise self._damaged(digest, "the content does not match its name")
        with self.refusing_malformed(digest):
            encoded = decompressed(VAULT.decrypt(data))
        return self._parse(encoded, digest)

    def _parse(self, encoded: bytes, digest: str) -> JsonObject:
        with self.refusing_malformed(digest):
            body: JsonObject = orjson.loads(plain_text(encoded))
            if body["format"] > FILE_FORMAT:
                location = self._volume.location(KEYS.object("manifests", digest))
                raise FormatTooNew(f"{location} has format {body['format']}: upgrade lakelog")
            if body.get("requires"):
                location = self._volume.location(KEYS.object("manifests", digest))
                document.require_known(body["requires"], location)
            return body

    def _write(self, encoded: bytes) -> tuple[str, int]:
        data, keys = compressed(encoded), self._keys()
        data = keys.encrypt(data) if keys else data
        digest = document.digest(data)
        self._volume.put(KEYS.object("manifests", digest), data)
        return digest, len(data)


def _apply(live: JsonObject, entries: Iterable[Entry], entry_type: str) -> None:
    for entry in entries:
        if entry.entry_type == entry_type:
            live.pop(entry.key, None)
            if not isinstance(entry, Removal):
                live[entry.key] = entry


def _cache(cache: dict[str, _T], key: str, value: _T) -> _T:
    """Cache a value, and drop the oldest beyond _CACHED; return it."""
    cache[key] = value
    # No lock: another thread may add or clear at any moment, so a key may be gone by now.
    for old in list(cache)[:-_CACHED]:
        cache.pop(old, None)
    return value
