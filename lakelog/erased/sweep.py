"""What is deleted once states are read from elsewhere: their old texts, and old segments.

It needs no word of what was erased, only which states and segments stand in the place of which. So
it may be killed and run again, and it cleans any copy of the lake that got these records: another
directory, or a remote.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator

import orjson
import zstandard

from lakelog.keys import VAULT
from lakelog.paths import KEYS, FileNames
from lakelog.volume import SweptLake

_KEYS = re.compile(rb'"key":"([0-9a-f]{64})"')


def sweep(store: SweptLake, *, refs_only: bool = False, refused: Collection[str] = ()) -> int:
    """Take the texts of replaced states out of moves and tags, and delete the manifests, pages and
    segments that were replaced, unless `refs_only`, and what names segments that were `refused`;
    return how many files were deleted or written again."""
    store.erased.refresh()
    changed = 0
    for key in store.erased.refs():
        stripped = store.erased.stripped(key)
        if stripped is not None:
            store.volume.replace(key, stripped)
            changed += 1
    if refs_only:
        return changed
    # References first, as gc does: no state may name a segment that is deleted.
    for key in (*list(_obsolete(store, refused)), *_segments(store)):
        store.volume.remove(key)
        changed += 1
    return changed


def unfinished(store: SweptLake) -> list[str]:
    """Keys of files that a sweep would still delete or write again."""
    store.erased.refresh()
    refs = (key for key in store.erased.refs() if store.erased.stripped(key) is not None)
    return [*refs, *_obsolete(store), *_segments(store)]


def _segments(store: SweptLake) -> list[str]:
    """Keys of the replaced segments that are still there."""
    keys = [KEYS.object("segments", key) for key in _erased_keys(store)]
    return [key for key in keys if store.volume.exists(key)]


def _erased_keys(store: SweptLake) -> set[str]:
    return {key for key, new in store.erased.segments().items() if new != key}


def _obsolete(store: SweptLake, refused: Collection[str] = ()) -> Iterator[str]:
    """Yield the keys of the manifests and pages that name a replaced segment: each was replaced
    itself; or a refused one."""
    replaced = _erased_keys(store)
    scrubbed = store.erased.segments().keys() - replaced
    keys = replaced.union(refused)
    for digest, encoded in manifest_texts(store) if keys or scrubbed else ():
        mentions = segment_keys(encoded)
        if keys & mentions or (scrubbed & mentions and _has_subjects(encoded, scrubbed)):
            yield KEYS.object("manifests", digest)


def manifest_texts(store: SweptLake) -> Iterator[tuple[str, bytes]]:
    """Yield the digest and the JSON of each file of a manifest or page."""
    volume = store.volume
    for folder in FileNames(volume.folders("manifests")).hex_dirs:
        for digest in FileNames(volume.names(f"manifests/{folder}")).digests:
            # Gone, or damaged, which verify reports.
            with contextlib.suppress(FileNotFoundError, zstandard.ZstdError, ValueError):
                data = volume.read(KEYS.object("manifests", digest))
                yield digest, zstandard.ZstdDecompressor().decompress(VAULT.decrypt(data))


def segment_keys(encoded: bytes) -> set[str]:
    """Return the keys of entries in the JSON of a manifest or page that are digests."""
    return {key.decode() for key in _KEYS.findall(encoded)}


def _has_subjects(encoded: bytes, scrubbed: Collection[str]) -> bool:
    """Whether the JSON of a manifest or page still has the subjects of a scrubbed entry."""
    body = orjson.loads(encoded)
    entries: Iterable[dict[str, object]] = body.get("entries") or body.get("tail") or ()
    return any(entry.get("subject") for entry in entries if entry.get("key") in scrubbed)
