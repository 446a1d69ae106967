"""Segments without the erased rows, and the states that name them in the place of the old ones.

A state is rewritten as it was, with the entries of the new segments where those of the old ones
stood: its parent, its time and its numbers of rows of others stay. It is stored under the digest of
its new bytes and read under the old one (`store/erasures`). Entries of segments that are gone from
the disk lose the words of their rows where these may be of erased ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from lakelog import maintain, manifest
from lakelog.database import Connect
from lakelog.disk import disk
from lakelog.entries import MANY, Entry, Record, Removal, SegmentEntry
from lakelog.erased import sweep
from lakelog.errors import Damaged
from lakelog.libraries import pa
from lakelog.manifest import Manifest, Page, Totals
from lakelog.paths import KEYS
from lakelog.refs import Tag
from lakelog.segments import Segment, write_segment
from lakelog.store import Store

_LEVEL, _ERASED = 3, "lakelog_erased"
ARTIFACT, MODEL_KEY = "artifact", "model/"
Rewritten = dict[str, "SegmentEntry | None"]
"""The entry that stands in the place of each segment, None where no row stayed."""


@dataclass
class History:
    """All states that can be read, by name, and all pages of them."""

    states: dict[str, Manifest] = field(default_factory=dict)
    incomplete: dict[str, Manifest] = field(default_factory=dict)
    """Those that lost a page, as gc lets go of old states. Nobody can read them, but the text that
    a move carries names subjects."""
    pages: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    live: dict[str, list[str]] = field(default_factory=dict)
    """The segments of events of states, as far as they were asked for."""
    roots: tuple[str, ...] = ()
    """Those of moves and tags; of the others there is a file only, which gc deletes."""

    def entries(self) -> Iterator[Entry]:
        """Yield every entry of every page and state."""
        for page_entries in self.pages.values():
            yield from page_entries
        for state in (*self.states.values(), *self.incomplete.values()):
            yield from state.recent

    def models(self) -> set[tuple[str, str]]:
        """The key of each outcome model, with the state that it was learnt from."""
        records = (e for e in self.entries() if isinstance(e, Record) and e.entry_type == ARTIFACT)
        models = (record for record in records if record.key.startswith(MODEL_KEY))
        return {(model.key, str(model.members.get("snapshot"))) for model in models}

    def segments(self) -> dict[str, SegmentEntry]:
        """The segments that any of them adds, by key."""
        return {e.key: e for e in self.entries() if isinstance(e, SegmentEntry)}


def stale_models(store: Store, history: History) -> set[tuple[str, str]]:
    """Return the models that were learnt from states of which rows were erased, but those that a
    branch has now: nobody can make these again but their users."""
    stale = {(key, snapshot) for key, snapshot in history.models() if store.erased.holds(snapshot)}
    for branch in store.refs.branches() if stale else ():
        state = store.state(branch)
        records = (store.manifests.find(state, ARTIFACT, key) for key, _ in stale)
        stale = stale - {(r.key, r.members.get("snapshot")) for r in records if r}
    return stale


def history_of(store: Store) -> History:
    """Read all states that a move, a tag or a file has; those that lost their text are gone, and
    left out."""
    store.manifests.forget()
    store.refs.forget()
    names = dict.fromkeys(store.refs.states())
    tags = store.refs.tags()
    names |= dict.fromkeys(tag.snapshot for tag in tags)
    history = History(roots=tuple(names))
    stand_ins = {store.manifests.stored_as(name) for name in names} - names.keys()
    files = (d for d in manifest_files(store) if d not in stand_ins and d not in names)
    damaged = set[str]()
    with store.manifests.without_collections():
        for digest, load in _readable(store, tags, (*names, *files)):
            with contextlib.suppress(Damaged, KeyError):
                state = load()
                # Thousands of states share most of their pages: each page is read once.
                for page in state.pages:
                    if page.digest not in history.pages and page.digest not in damaged:
                        try:
                            history.pages[page.digest] = store.manifests.peek(page)
                        except Damaged:
                            damaged.add(page.digest)
                whole = damaged.isdisjoint(page.digest for page in state.pages)
                (history.states if whole else history.incomplete)[digest] = state
    return history


def history_of_state(store: Store, state: Manifest) -> History:
    """Return one state, with its pages. Raises Damaged."""
    pages = {page.digest: store.manifests.peek(page) for page in state.pages}
    return History({state.digest: state}, pages=pages, roots=(state.digest,))


def _readable(
    store: Store, tags: Iterable[Tag], digests: Iterable[str]
) -> Iterator[tuple[str, Callable[[], Manifest]]]:
    """Yield the states of moves, tags and other digests that have a text, with what reads each."""
    carried = set[str]()
    # To look for one text among all moves takes long, and most states of an old lake have none.
    for ref in itertools.chain(store.refs.carriers(), tags):
        if ref.carried and ref.snapshot not in carried:
            carried.add(ref.snapshot)
            yield ref.snapshot, functools.partial(store.manifests.of, ref)
    is_shared = store.attachment is not None  # a bucket may have what is not here
    for digest in itertools.filterfalse(carried.__contains__, digests):
        if is_shared or store.manifests.has_file(digest) or store.erased.holds(digest):
            yield digest, functools.partial(store.manifests.load, digest)


def stand_ins(store: Store, history: History, rewritten: Rewritten) -> Rewritten:
    """Return what stands in the place of segments that earlier erasures replaced, or a run that was
    killed: states that were made meanwhile, or came back from a remote, name these still."""
    # What stood in their place may be replaced itself by now.
    entries: Rewritten = {**history.segments(), **rewritten}
    replaced = store.erased.segments().items()
    return {
        key: entries[new] if new else None
        for key, new in replaced
        if key != new and (not new or new in entries)
    }


def manifest_files(store: Store) -> Iterator[str]:
    """Yield the digests of the files of manifests that are no pages."""
    for digest, encoded in sweep.manifest_texts(store):
        if b'"parent":' in encoded[:40]:
            yield digest


def without_rows(
    store: Store, connect: Connect, entry: SegmentEntry, erased_rows: pa.Table
) -> SegmentEntry | None:
    """Write a segment without its chosen rows; None if no row stays. Raises DamagedSegment."""
    store.verified.require([entry])
    if len(erased_rows) == entry.events:
        return None
    if entry.kind == "events":
        seqs = {_ERASED: erased_rows.select(["seq"])}
        condition = f"seq NOT IN (SELECT seq FROM {_ERASED})"
        rewritten = maintain.rewrite(store, connect(), [entry], condition, _LEVEL, seqs)
        # Where the entry says from where to where: in an older state it may be of more rows.
        return dataclasses.replace(rewritten, seq=entry.seq, made_from=entry.made_from)
    rows = Segment(store.paths, entry.key).read()
    erased_places = set(places_of(erased_rows))
    places = places_of(rows)
    remaining = rows.filter(pa.array([place not in erased_places for place in places]))
    return write_segment(
        store.paths, remaining, kind="quarantine", layout="arrival", commit=disk.random_hex()
    )


def words_of(entry: SegmentEntry) -> Iterator[str]:
    """Yield the types and sources that an entry counts."""
    for counts in (entry.types, entry.sources):
        if counts != MANY:
            yield from counts


def places_of(rows: pa.Table) -> Iterator[tuple[object, object]]:
    """Yield the place of each row: its origin and position."""
    return zip(*(rows[name].to_pylist() for name in ("origin", "position")), strict=True)


class Redactor:
    """Writes states again with other segments in the place of some."""

    def __init__(
        self,
        store: Store,
        history: History,
        rewritten: Rewritten,
        subjects: Iterable[str],
        *,
        replaced_elsewhere: Collection[str] = (),
        telling_words: Collection[str] = (),
    ) -> None:
        """Of segments that are gone, entries lose their words where their bounds are one of the
        `subjects`, where they count one of the `telling_words`, or where rows of the segment were
        erased in another copy of the lake."""
        self._store, self._history = store, history
        self._replaced_elsewhere = replaced_elsewhere
        self._telling_words = frozenset(telling_words)
        self._replaced = store.erased.segments()
        rewritten = stand_ins(store, history, rewritten) | rewritten
        self._rewritten = dict.fromkeys(self._absent(rewritten)) | rewritten
        self._subjects = set(subjects)
        self._stale_models = stale_models(store, history)
        self._pages: dict[str, Page | None] = {}
        self.scrubbed: set[str] = set()
        """Segments that are gone, whose entries lost their lowest and highest subject and what
        they counted by type, source and level."""

    def _absent(self, rewritten: Rewritten) -> set[str]:
        """The segments that an earlier erasure replaced by what was compacted and deleted since,
        and that states which came back from a remote still name. A sweep deletes every page that
        names one."""
        replaced = {key for key, new in self._replaced.items() if key != new}
        keys = {entry.key for entry in self._history.entries() if entry.entry_type == "segment"}
        absent = keys & replaced - rewritten.keys()
        for digest in self._history.roots if absent else ():
            # Nothing may take the place of rows that a state has: it stays unreadable.
            if state := self._history.states.get(digest):
                absent -= {entry.key for entry in self._store.manifests.segments(state)}
        return absent

    def is_needed(self) -> bool:
        """Whether a state names a segment that was replaced, or words of erased rows in the entry
        of one that is gone."""
        return any(
            entry.key in self._rewritten
            or (isinstance(entry, SegmentEntry) and self._has_words(entry))
            for entry in self._history.entries()
            if entry.entry_type == "segment"
        ) or bool(self._stale_models)

    def states(self) -> dict[str, str]:
        """Write the states that name such a segment; return the digest of the new one by each."""
        replaced = {}
        for digest, state in (self._history.states | self._history.incomplete).items():
            new = self.redacted(state)
            if new is not state:
                replaced[digest] = self._store.manifests.write(new).digest
        return replaced

    def redacted(self, state: Manifest) -> Manifest:
        """Return a state as it is to be read, which is not written yet, but its pages are; the
        state itself where it names no such segment."""
        pages = [self._page(page) for page in state.pages]
        recent = self._entries(state.recent)
        if pages == list(state.pages) and recent == state.recent:
            return state
        return dataclasses.replace(
            state,
            pages=tuple(page for page in pages if page is not None),
            recent=recent,
            totals=self._totals(state),
        )

    def _page(self, page: Page) -> Page | None:
        """The page that stands in the place of one, None where nothing is left of it."""
        if page.digest not in self._pages:
            entries = self._history.pages.get(page.digest, ())
            new_entries = self._entries(entries)
            new_page: Page | None = page
            if new_entries != entries:
                new_page = (
                    self._store.manifests.write_page(new_entries, disk.random_hex(), page.level)
                    if new_entries
                    else None
                )
            self._pages[page.digest] = new_page
        return self._pages[page.digest]

    def _entries(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        return tuple(new for entry in entries if (new := self._entry(entry)) is not None)

    def _entry(self, entry: Entry) -> Entry | None:
        if isinstance(entry, Record) and entry.entry_type == ARTIFACT:
            stale = (entry.key, entry.members.get("snapshot")) in self._stale_models
            return None if stale else entry
        if entry.entry_type != "segment" or not isinstance(entry, (SegmentEntry, Removal)):
            return entry
        if entry.key in self._rewritten:
            new = self._rewritten[entry.key]
            if new is None or isinstance(entry, SegmentEntry):
                return new and dataclasses.replace(new, made_from=self._sources(entry))
            return Removal("segment", new.key, new.events, new.bytes, new.kind, entry.unknown)
        if isinstance(entry, SegmentEntry) and self._has_words(entry):
            self.scrubbed.add(entry.key)
            return dataclasses.replace(entry, subject=None, types=MANY, sources=MANY, levels=MANY)
        return entry

    def _sources(self, entry: Entry) -> tuple[str, ...]:
        """What a segment was made from, as far as it is still there."""
        assert isinstance(entry, SegmentEntry)
        pairs = ((key, self._rewritten.get(key)) for key in entry.made_from)
        return tuple(
            new.key if new else key for key, new in pairs if new or key not in self._rewritten
        )

    def _has_words(self, entry: SegmentEntry) -> bool:
        """Whether the entry of a segment that is gone may have words of erased rows."""
        # By its subjects a sweep tells the pages that were replaced.
        if not entry.subject:
            return False
        may_have = (
            # One that an earlier erasure took the words of came back with them from a remote.
            self._replaced.get(entry.key) == entry.key
            or entry.key in self._replaced_elsewhere
            or not self._subjects.isdisjoint(entry.subject)
            or (self._telling_words and self._telling_words.intersection(words_of(entry)))
        )
        return bool(may_have) and not self._store.volume.exists(KEYS.object("segments", entry.key))

    def _totals(self, state: Manifest) -> Totals:
        """The totals of a state, of whose segments some are others now."""
        live: dict[str, SegmentEntry] = {}
        pages = (self._history.pages.get(page.digest, ()) for page in state.pages)
        for entries in (*pages, state.recent):
            for entry in entries:
                if entry.entry_type == "segment" and entry.key in self._rewritten:
                    live.pop(entry.key, None)
                    if isinstance(entry, SegmentEntry):
                        live[entry.key] = entry
        old = manifest.add_up(Totals(), live.values())
        new = manifest.add_up(Totals(), filter(None, (self._rewritten[key] for key in live)))
        changed = (
            total - before + after
            for total, before, after in zip(
                *map(dataclasses.astuple, (state.totals, old, new)), strict=True
            )
        )
        return Totals(*changed)
