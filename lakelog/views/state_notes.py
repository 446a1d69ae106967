"""Notes: which pieces make which states of the lake, so that not every segment is compared.

    cache/views/<state>/notes    a line of JSON, then the SHA-256 of that line in hex

The line has the name of the folder, the columns of the pieces, and the states that were answered
last, the newest first. Of each it has the pages of its manifest, its recent entries, how many
events it has, and the pieces, which together have each of these events once. A page is named by
its content: so a state is compared with a noted one by the pages that only one of them has, whose
entries are few, and what pages they share is not read. A note that is missing, damaged or of
pieces that are gone only costs time: all segments are then compared (`engine`).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import orjson

from lakelog.disk import File
from lakelog.entries import Entry, Record, Removal, SegmentEntry
from lakelog.errors import LakelogError
from lakelog.manifest import Manifest, Manifests, Page
from lakelog.paths import Paths
from lakelog.views.layers import StateShape
from lakelog.views.lineage import Lineage, SegmentRead
from lakelog.views.partials import Cover, PieceFile

_STATES = 8
_PIECE = re.compile(r"[0-9a-f]{32}\.piece")


@dataclass(frozen=True)
class StateNote:
    """A state of the lake by its content, without files of pieces where the cache lacks some."""

    pages: tuple[tuple[str, int, int], ...]
    """Of each page the digest, the length and the number of entries."""
    added: Cover
    """The segments that recent entries add."""
    removed: tuple[str, ...]
    """The digests of those that they remove."""
    events: int
    piece_files: tuple[PieceFile, ...] = ()

    @classmethod
    def of(cls, state: Manifest) -> Self:
        """Return the note of a state, without pieces."""
        added, removed = _changes(state.recent)
        pages = tuple((page.digest, page.bytes, page.entries) for page in state.pages)
        cover = Lineage.cover_of(added.values())
        return cls(pages, cover, tuple(sorted(removed)), state.totals.events)

    @property
    def content(self) -> object:
        """What no other state has."""
        return self.pages, self.added, self.removed

    def shared(self, state: Manifest) -> int:
        """With how many of its pages a state begins, too."""
        pairs = zip(self.pages, state.pages, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0][0] == pair[1].digest, pairs))

    def distance(self, state: Manifest) -> int | None:
        """How many entries of pages are to be read to compare a state; None where that is no less
        than to compare all of its segments."""
        shared = self.shared(state)
        older = sum(count for _, _, count in self.pages[shared:])
        if older > sum(count for _, _, count in self.pages[:shared]):
            return None
        return older + sum(page.entries for page in state.pages[shared:])

    def reads(
        self, manifests: Manifests, lineage: Lineage, state: Manifest
    ) -> list[SegmentRead] | None:
        """What must be read beside the rows of this state to have those of another; None where rows
        are gone, or entries do not tell. Raises Damaged."""
        shared = self.shared(state)
        try:
            before, gone_before = self._changes_after(manifests, shared)
        except (LakelogError, OSError):  # a page of it was collected, or is not here
            return None
        paged = (manifests.page(page) for page in state.pages[shared:])
        after, gone_after = _changes(itertools.chain(*paged, state.recent))
        come = [entry for key, entry in after.items() if key not in before]
        former = {key: info for key, info in before.items() if key not in after}
        # What this state removed of the pages that both have, the other may have.
        if shared and gone_before - gone_after - after.keys():
            return None
        # Every segment has events. So the sum is right only if all that is gone is known, and
        # nothing that comes was there: entries may remove what is not in a page that both have.
        surplus = self.events + sum(e.events for e in come) - state.totals.events
        surplus -= sum(info[0] for info in former.values())
        sought = gone_after - gone_before - before.keys()
        for page in reversed(state.pages[:shared]):
            if surplus <= 0 or not sought:
                break
            for entry in manifests.page(page):
                if entry.key in sought and isinstance(entry, SegmentEntry):
                    former |= Lineage.cover_of([entry])
                    sought.remove(entry.key)
                    surplus -= entry.events
        cover = Lineage.cover_of(come)
        lineage.note(cover | former)
        if former and lineage.unknown(cover):
            lineage.search(manifests, state, cover, {page.digest for page in state.pages[:shared]})
        covered = lineage.leaves(former)
        if surplus or not covered <= lineage.leaves(cover):
            return None
        return lineage.missing(come, covered)

    def _changes_after(self, manifests: Manifests, shared: int) -> tuple[Cover, set[str]]:
        """What is added and removed beside the first pages, by key. Raises Damaged, Unreachable."""
        pages = (
            Page(digest, size, 0, count, 0, 0, None) for digest, size, count in self.pages[shared:]
        )
        added, removed = _changes(itertools.chain.from_iterable(map(manifests.page, pages)))
        removed = (removed | {*self.removed}) - self.added.keys()
        live = (entry for key, entry in added.items() if key not in removed)
        return Lineage.cover_of(live) | self.added, removed


def _changes(entries: Iterable[Entry]) -> tuple[dict[str, SegmentEntry], set[str]]:
    """The segments with events that entries add, and the digests of those that they remove."""
    added, removed = dict[str, SegmentEntry](), set[str]()
    for entry in entries:
        if isinstance(entry, Record) or entry.entry_type != "segment" or entry.kind != "events":
            continue
        if isinstance(entry, Removal):
            added.pop(entry.key, None)
            removed.add(entry.key)
        else:
            added[entry.key] = entry
            removed.discard(entry.key)
    return added, removed


class StateNotes:
    """The notes of the views of one lake; processes replace those of each other, which costs time
    alone."""

    def __init__(self, paths: Paths) -> None:
        self._root = f"{paths.cache}/views"

    def of(self, view: str, shape: StateShape) -> list[StateNote]:
        """Return the states that are noted of a view, the newest first."""
        folder = f"{self._root}/{view}"
        try:
            line, _, checksum = File(f"{folder}/notes").read().partition(b"\n")
            if hashlib.sha256(line).hexdigest().encode() != checksum.strip():
                return []
            fields = orjson.loads(line)
            columns = tuple((name, type_) for name, type_ in fields["columns"])
            # As of a piece: the file is not trusted to stand in its place.
            if fields["view"] != view or columns != shape.columns:
                return []
            return [_from_json(folder, body) for body in fields["states"]]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return []

    def add(self, view: str, shape: StateShape, note: StateNote) -> None:
        """Note a state, in the place of the one that was noted longest ago."""
        older_notes = (
            older
            for older in self.of(view, shape)
            if older.piece_files != note.piece_files and older.content != note.content
        )
        notes = [note, *itertools.islice(older_notes, _STATES - 1)]
        states = [_to_json(state_note) for state_note in notes]
        line = orjson.dumps({"view": view, "columns": shape.columns, "states": states})
        checksum = hashlib.sha256(line).hexdigest().encode()
        File(f"{self._root}/{view}/notes").keep(line + b"\n" + checksum + b"\n")


def _to_json(note: StateNote) -> dict[str, Any]:
    members = [(p.path.rpartition("/")[2], p.digest, p.start, p.events) for p in note.piece_files]
    return vars(note) | {"piece_files": members}


def _from_json(folder: str, body: dict[str, Any]) -> StateNote:
    """Return a note. Raises ValueError, LookupError, TypeError, AttributeError."""
    piece_files = []
    for name, digest, start, events in body["piece_files"]:
        if not _PIECE.fullmatch(name):
            raise ValueError("it names a file that is no piece")
        piece_files.append(PieceFile(f"{folder}/{name}", str(digest), int(start), int(events)))
    cover: Cover = {
        str(key): [int(rows), int(low), int(high), [*map(str, made_from)]]
        for key, (rows, low, high, made_from) in body["added"].items()
    }
    pages = tuple((str(digest), int(size), int(count)) for digest, size, count in body["pages"])
    removed = tuple(map(str, body["removed"]))
    if not piece_files or sum(file.events for file in piece_files) != body["events"]:
        raise ValueError("its pieces are of other events")
    return StateNote(pages, cover, removed, body["events"], tuple(piece_files))
