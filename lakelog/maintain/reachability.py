"""Reachability: what tags, heads and the moves of each window reach, and what objects are called.

A name is `segments/<digest>`, `ids/<digest>` or `manifests/<digest>`, or the path of a temporary
file or of one below `states/` (F8.1).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator

from lakelog import chunks, document
from lakelog.disk import File, Folder, NotIntact
from lakelog.errors import Damaged, GcRefused, UnknownRef
from lakelog.history import kept_moves
from lakelog.paths import OBJECTS
from lakelog.refs import Move
from lakelog.store import Store

Names = set[str]


@contextlib.contextmanager
def refuse_unreadable() -> Iterator[None]:
    """Raise GcRefused where something cannot be read: it might name any object."""
    try:
        yield
    except (Damaged, UnknownRef) as error:
        raise GcRefused(f"nothing was deleted: {error}") from error


class Marker:
    """Marks what tags, heads and the moves of each window reach, as digests (32 bytes) in `live`.

    Every manifest is read once, and a page once for each run of states that share it: states are
    visited in the order of their moves, and only the pages in which one differs from the state
    before are removed from the stack or pushed onto it. Raises GcRefused where anything cannot be
    read. Of the branch `expired` only the newest move counts, as if its history ended there. In a
    directory that is attached to a bucket, states whose manifest only that has count `in_bucket`
    alone: nothing here is kept for them.
    """

    def __init__(
        self, store: Store, now_us: int, expired: str = "", *, in_bucket: bool = False
    ) -> None:
        self._store, self._now, self._expired = store, now_us, expired
        self._needs_file = store.attachment is not None and not in_bucket
        self.live: set[bytes] = set()
        self._lost = {bytes.fromhex(d) for d in map(digest_of, lost_names(store)) if d}
        self._present: set[bytes] = set()
        self._unmarked: set[bytes] = set()
        self._names: list[str] = []
        self._changes: list[tuple[list[bytes], list[bytes]]] = []
        self._states: list[dict[str, str]] = []
        # Apart from `live`: an index may be marked as the chunk of a directory that holds a lake.
        self._indices: set[bytes] = set()
        self._seen: dict[str, int] = {}
        self.refresh()
        if not self.live:
            raise GcRefused("no branch or tag could be listed: nothing was deleted")

    def refresh(self) -> None:
        """Mark what is reached by refs that are new since the last call."""
        store = self._store
        # Cached heads would hide a move that was made since.
        store.refs.forget()
        with refuse_unreadable():
            for branch in store.refs.all_branches():
                for move in self._new_moves(branch):
                    self._reach(move.snapshot, move.carried)
            for tag in store.refs.tags():
                self._reach(tag.snapshot, tag.carried)

    def _new_moves(self, branch: str) -> Iterator[Move]:
        """Yield the moves of a branch's window that were not yielded yet, newest first."""
        refs, seen_number = self._store.refs, self._seen.get(branch, 0)
        fresh = itertools.takewhile(
            lambda move: move.number > seen_number, refs.newest_first(branch)
        )
        newest = next(fresh, None)
        if newest is None:
            # Moves that were lost, or a directory that is not mounted: then all would look
            # unreached.
            was_used = refs.hint_number(branch) or Folder(self._store.paths.wal_dir(branch)).names()
            if was_used and not seen_number:
                raise GcRefused(f"branch {branch!r} lists no moves: nothing was deleted")
            return  # just being created, or its creator died before the first move
        self._seen[branch] = newest.number
        earlier = () if branch == self._expired else fresh
        yield from kept_moves(self._store, itertools.chain([newest], earlier), self._now)

    def _reach(self, digest: str, carried: bytes) -> None:
        """Mark one state, its id runs, pages, and the segments that are alive in it."""
        name = bytes.fromhex(digest)
        if name in self.live or name in self._lost:
            return
        if self._needs_file and not carried and not self._store.manifests.has_file(digest):
            return
        outline = self._store.manifests.outline(digest, carried)
        self.live.update((name, bytes.fromhex(self._store.manifests.stored_as(digest))))
        # A state that lost a page does not open, so it needs nothing; repair has noted that.
        pages = (bytes.fromhex(page) for page, _ in outline.pages)
        if self._lost and not self._lost.isdisjoint(pages):
            return
        self.live.update(map(bytes.fromhex, outline.runs))
        self._load_pages(outline.pages)
        self.live.update(map(bytes.fromhex, outline.added))
        # What the pages add and this state deleted stays unmarked: another state may have it.
        hidden = self._unmarked.intersection(map(bytes.fromhex, outline.removed))
        self.live |= self._unmarked - hidden
        self._unmarked = hidden
        self._reach_states(outline.states)

    def _reach_states(self, recent: dict[str, str]) -> None:
        """Mark the indices of the state directories of a state, and their chunks."""
        labels: dict[str, str] = {}
        for changes in (*filter(None, self._states), recent):
            labels |= changes
        for index in filter(None, labels.values()):
            name = bytes.fromhex(index)
            if name in self._indices or name in self._lost:
                continue
            self._indices.add(name)
            self.live.add(name)
            self.live.update(
                map(bytes.fromhex, chunks.StateFiles(self._store.paths).chunks_of(index))
            )

    def _load_pages(self, pages: list[tuple[str, int]]) -> None:
        """Make `_present` the segments that these pages leave alive, `_unmarked` those of them
        that are not in `live` yet."""
        names = [name for name, _ in pages]
        pairs = zip(names, self._names, strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        # Undo the pages of the state before, newest first, down to those that both share.
        while len(self._names) > common:
            self._names.pop()
            self._states.pop()
            added, deleted = self._changes.pop()
            self._present.difference_update(added)
            self._unmarked.difference_update(added)
            self._add(deleted)
        for name, size in pages[common:]:
            adds, tombstones, states = self._store.manifests.page_outline(name, size)
            self._states.append(states)
            # Only what really changes is noted, so that undoing it restores the set before.
            deleted = [key for key in map(bytes.fromhex, tombstones) if key in self._present]
            self._present.difference_update(deleted)
            self._unmarked.difference_update(deleted)
            self._names.append(name)
            self._changes.append((self._add(map(bytes.fromhex, adds)), deleted))
            self.live.add(bytes.fromhex(name))

    def _add(self, keys: Iterable[bytes]) -> list[bytes]:
        """Add segments to `_present`; return those that were not in it."""
        fresh = [key for key in keys if key not in self._present]
        self._present.update(fresh)
        self._unmarked.update(key for key in fresh if key not in self.live)
        return fresh


def digest_of(name: str) -> str | None:
    """Return the digest of a condemned or lost name, None for the path of a temporary file."""
    return name.split("/")[1] if _is_object(name) else chunks.digest_of_name(name)


def _is_object(name: str) -> bool:
    """Whether a condemned name is `kind/digest`, not the path of a temporary file."""
    object_type, _, name_below = name.partition("/")
    return object_type in OBJECTS and "/" not in name_below


def lost_names(store: Store) -> Names:
    """Names of objects that repair gave up and that are still missing (F8.2)."""
    try:
        names = document.decode(File(store.paths.lost).read())["names"]
    except (FileNotFoundError, NotIntact):
        return set()
    return {name for name in names if not File(path_of(store, name)).exists()}


def path_of(store: Store, name: str) -> str:
    """Return where the file of a name is."""
    if _is_object(name):
        return store.paths.object(*name.split("/"))
    return f"{store.paths.root}/{name}"
