"""Which objects a state needs: the one place that push, fetch and clone ask.

An object is named by (kind, digest). Objects from which others are known, as the pages of a state,
are *obtained* before they are read. Of a state that the receiver has already (`base`) the oldest
pages that both share are not read, so the cost is that of what is new.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import orjson

from lakelog.errors import TransferRefused
from lakelog.store import disk, state_files
from lakelog.store.bootstrap import Store
from lakelog.store.entry import Entry, Removal, SegmentEntry
from lakelog.store.manifest import Manifest, Page

Name = tuple[str, str]
Sizes = dict[Name, int]
"""Objects with their lengths in bytes."""
Obtain = Callable[[Sizes], object]


def objects_of(
    store: Store, digest: str, base: str = "", *, text: bytes = b"", obtain: Obtain = lambda _: None
) -> Sizes:
    """Return the objects of a state, pages first, without those that the state `base` has as well;
    a manifest in a file of its own is one of them. `text` is that of a manifest which no ref of
    the lake carries yet. Raises Damaged, TransferRefused."""
    manifests = store.manifests
    state = manifests.decode(orjson.loads(text), digest) if text else manifests.load(digest)
    known = manifests.load(base) if base else None
    common = _common(state.pages, known.pages if known else ())
    found = {("manifests", page.digest): page.bytes for page in state.pages[common:]}
    obtain(found)
    _refuse_states(store, state)
    path = store.paths.object("manifests", digest)
    if digest != base and disk.exists(path):
        found["manifests", digest] = disk.size(path)
    runs = {run.digest for run in known.ids} if known else set[str]()
    found |= {("ids", run.digest): run.bytes for run in state.ids if run.digest not in runs}
    found |= {("segments", key): size for key, size in _segments(store, state, known, common)}
    return found


def _refuse_states(store: Store, state: Manifest) -> None:
    """A copy without what its manifest names would be damaged."""
    if saved := state_files.records(store.manifests, state):
        raise TransferRefused(
            f"the snapshot has saved state directories ({saved[0].label!r}), which do not travel to"
            " remotes yet: copy the lake with `lakelog backup`, or push a tag from before"
        )


def _common(pages: tuple[Page, ...], others: tuple[Page, ...]) -> int:
    """How many of the oldest pages two states share."""
    pairs = zip(pages, others, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0].digest == pair[1].digest, pairs))


def _segments(
    store: Store, state: Manifest, known: Manifest | None, common: int
) -> Iterable[tuple[str, int]]:
    """Yield (digest, bytes) of the segments alive in `state` and not in `known`."""
    fresh = _changes(store, state.pages[common:], state.recent)
    had = _changes(store, known.pages[common:], known.recent) if known else {}
    for key, entry in fresh.items():
        if isinstance(entry, SegmentEntry) and not isinstance(had.get(key), SegmentEntry):
            yield key, entry.bytes
    # What only `known` removed from the shared pages is alive here, as after a rollback.
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
            if entry.what == "segment" and isinstance(entry, (SegmentEntry, Removal)):
                changes[entry.key] = entry
    return changes
