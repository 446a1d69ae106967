"""Which objects a state needs: the one place that push, fetch and clone ask.

An object is named by (kind, digest): segments, ids, manifests, and the chunks and indices of saved
directories, whose digest is that of their content before compression (F21.2). Objects from which
others are known, as the pages of a state, are *obtained* before they are read. Of a state that the
receiver has already (`base`) the oldest pages that both share are not read, so the cost is that of
what is new.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable

from lakelog import chunks
from lakelog.disk import File
from lakelog.entries import Entry, Removal, SegmentEntry
from lakelog.errors import DamagedState
from lakelog.manifest import Manifest, Page
from lakelog.paths import CHUNK, INDEX, Keys, Paths
from lakelog.store import Store

Name = tuple[str, str]
Sizes = dict[Name, int]
"""Objects with their lengths in bytes; of files of states that are not here, the most it can be."""
STATES = {"index": INDEX, "chunk": CHUNK}
"""The kinds of objects below states/, with their endings."""
STATE_INDEX_MAX = 16 << 20
"""Bytes of the file of an index at most, where nothing states them."""
Obtain = Callable[[Sizes], object]


def path_of(paths: Keys, name: Name) -> str:
    """Return the path of an object, or its key."""
    object_type, digest = name
    ending = STATES.get(object_type)
    return paths.state_file(digest, ending) if ending else paths.object(object_type, digest)


def objects_of(
    store: Store,
    digest: str,
    base: str = "",
    *,
    carried: bytes = b"",
    obtain: Obtain = lambda _: None,
) -> Sizes:
    """Return the objects of a state, without those that the state `base` has as well; a manifest in
    a file of its own is one of them. `carried` is the text of a manifest which no ref of the lake
    has yet. Raises Damaged."""
    manifests = store.manifests
    state = manifests.decode_text(carried, digest) if carried else manifests.load(digest)
    base_state = manifests.load(base) if base else None
    common = _common(state.pages, base_state.pages if base_state else ())
    objects = {("manifests", page.digest): page.bytes for page in state.pages[common:]}
    obtain(objects)
    # To know all live records every page of the lake is read: only where a push may need them, as
    # most states touch no saved directory.
    if _touches_states(store, state, common) or (
        base_state and _touches_states(store, base_state, common)
    ):
        objects |= _states(store, state, base_state, obtain)
    path = store.paths.object("manifests", digest)
    if digest != base and File(path).exists():
        objects["manifests", digest] = os.path.getsize(path)
    runs = {run.digest for run in base_state.ids} if base_state else set[str]()
    objects |= {("ids", run.digest): run.bytes for run in state.ids if run.digest not in runs}
    objects |= {
        ("segments", key): size for key, size in _segments(store, state, base_state, common)
    }
    return objects


def _touches_states(store: Store, state: Manifest, common: int) -> bool:
    """Whether a state adds or removes saved state directories, after its oldest pages."""
    entry_runs = itertools.chain(map(store.manifests.peek, state.pages[common:]), [state.recent])
    return any(entry.entry_type == "state" for entries in entry_runs for entry in entries)


def _states(store: Store, state: Manifest, base_state: Manifest | None, obtain: Obtain) -> Sizes:
    """Return the indices of saved states and their chunks."""
    paths = store.paths
    had = (
        {record.index for record in chunks.StateRecord.all_of(store.manifests, base_state)}
        if base_state
        else ()
    )
    records = chunks.StateRecord.all_of(store.manifests, state)
    fresh = dict.fromkeys(record.index for record in records if record.index not in had)
    objects = {("index", i): _length(paths, ("index", i), STATE_INDEX_MAX) for i in fresh}
    obtain(objects)
    files = chunks.StateFiles(paths)
    sizes = {d: size for i in fresh for d, size in files.chunks_of(i).items()}
    # What the receiver has of an earlier state is not sent again.
    for index in had if sizes else ():
        # One that is damaged here costs a look at each of its chunks there.
        with contextlib.suppress(DamagedState):
            for digest in files.chunks_of(index):
                sizes.pop(digest, None)
    for digest, size in sizes.items():
        name = ("chunk", digest)
        # What does not compress gets a little longer, and there is the seal.
        objects[name] = _length(paths, name, size + (size >> 7) + 1024)
    return objects


def _length(paths: Paths, name: Name, upper_bound: int) -> int:
    try:
        return os.path.getsize(path_of(paths, name))
    except FileNotFoundError:
        return upper_bound


def _common(pages: tuple[Page, ...], base_pages: tuple[Page, ...]) -> int:
    """How many of the oldest pages two states share."""
    # Pages are only ever added at the end, or replaced from one on: equal ones come first.
    pairs = zip(pages, base_pages, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0].digest == pair[1].digest, pairs))


def _segments(
    store: Store, state: Manifest, base_state: Manifest | None, common: int
) -> Iterable[tuple[str, int]]:
    """Yield (digest, bytes) of the segments alive in `state` and not in `base_state`."""
    fresh = _changes(store, state.pages[common:], state.recent)
    had = _changes(store, base_state.pages[common:], base_state.recent) if base_state else {}
    for key, entry in fresh.items():
        # Alive now and not before: a removal in `had` means that it came back.
        if isinstance(entry, SegmentEntry) and not isinstance(had.get(key), SegmentEntry):
            yield key, entry.bytes
    # What only `base_state` removed from the shared pages is alive here, as after a rollback.
    back = [k for k, e in had.items() if isinstance(e, Removal) and k not in fresh]
    shared = _changes(store, state.pages[:common], ()) if back else {}
    for key in back:
        if isinstance(revived := shared.get(key), SegmentEntry):
            yield key, revived.bytes


def _changes(
    store: Store, pages: tuple[Page, ...], recent: tuple[Entry, ...]
) -> dict[str, SegmentEntry | Removal]:
    """Return the last entry of each segment."""
    changes: dict[str, SegmentEntry | Removal] = {}
    for entries in itertools.chain(map(store.manifests.peek, pages), [recent]):
        for entry in entries:
            if entry.entry_type == "segment" and isinstance(entry, (SegmentEntry, Removal)):
                changes[entry.key] = entry
    return changes
