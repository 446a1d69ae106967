"""Manifests: however many entries came and went, a state is small, quick to open and exact."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.disk import disk
from lakelog.entries.entry import UNNUMBERED, Entry, Record, Removal, SegmentEntry, assign_seq
from lakelog.errors import DamagedManifest
from lakelog.manifest import Manifest, Page, Totals, fold, manifest
from lakelog.moves import page_tree
from lakelog.moves import publication as publish
from lakelog.moves.publication import Change
from lakelog.store import Store
from tests.support.effort import share

MakeLake = Callable[..., lakelog.Lake]
COMMIT = "00" * 16


def segment(key: str, at: int = 0, events: int = 1, kind: str = "events") -> SegmentEntry:
    """Return an entry for a segment of some events that all happened at one time."""
    return SegmentEntry(key, 10 * events, kind, events, "arrival", (at, at))


class Naive:
    """A state as a plain dict: entries by kind and key, the newest last."""

    def __init__(self) -> None:
        self.live: dict[tuple[str, str], SegmentEntry | Record] = {}

    def apply(self, entries: list[Entry]) -> None:
        """Add and remove entries."""
        for entry in entries:
            self.live.pop((entry.entry_type, entry.key), None)
            if not isinstance(entry, Removal):
                self.live[entry.entry_type, entry.key] = entry

    def segments(self) -> dict[str, SegmentEntry]:
        """Return the live segments by key."""
        return {e.key: e for e in self.live.values() if isinstance(e, SegmentEntry)}

    def records(self, what: str) -> dict[str, SegmentEntry | Record]:
        """Return the live entries of one kind by key."""
        return {key: entry for (kind, key), entry in self.live.items() if kind == what}


def by_key(entries: list[SegmentEntry]) -> dict[str, SegmentEntry]:
    """Return segments by key, without the place that publishing gave them."""
    made = {e.key: dataclasses.replace(e, seq=UNNUMBERED) for e in entries}
    assert len(made) == len(entries)
    return made


def assert_same(store: Store, state: Manifest, naive: Naive) -> None:
    """Compare a manifest with the naive state, in every way it can be asked."""
    manifests = store.manifests
    segments = naive.segments()
    assert by_key(manifests.segments(state)) == segments
    for what in ("cursor", "artifact", "view"):
        assert {e.key: e for e in manifests.records(state, what)} == naive.records(what)
    assert manifest.add_up(Totals(), list(segments.values())) == state.totals
    for low, high in ((0, 10), (35, 35), (90, 1000), (5, 4)):
        near = {k: e for k, e in segments.items() if e.time[0] <= high and low <= e.time[1]}
        assert by_key(manifests.segments_between(state, low, high)) == near
    assert len(state.recent) <= manifest.FAN
    assert all(page == described(store, page) for page in state.pages)


def described(store: Store, page: Page) -> Page:
    """Return what a manifest should say of a page, from its entries."""
    return manifest.describe(store.manifests.page(page), page.digest, page.bytes, page.level)


def change_of(draw: random.Random, naive: Naive, number: int, size: int) -> list[Entry]:
    """Return a change: new segments, removals of old ones, cursors that come and go."""
    entries: list[Entry] = []
    for n in range(size):
        kind, segments = draw.random(), list(naive.segments().values())
        if kind < 0.25 and segments:
            entries.append(draw.choice(segments).tombstone())
        elif kind < 0.35:
            entries.append(Record("cursor", f"c{draw.randrange(5)}", {"to": number}))
        elif kind < 0.4:
            entries.append(Removal("cursor", f"c{draw.randrange(5)}"))
        elif kind < 0.45:
            entries.append(segment(f"q{number}-{n}", 50, 2, "quarantine"))
        else:
            entries.append(segment(f"s{number}-{n}", draw.randrange(100), draw.randrange(1, 9)))
    seen: set[tuple[str, str]] = set()
    unique = []
    for entry in entries:
        key = (entry.entry_type, entry.key)
        if key not in seen:
            unique.append(entry)
            seen.add(key)
    naive.apply(unique)
    return unique


def test_records_are_found_without_pages_of_segments(make_lake: MakeLake) -> None:
    """However many segments there are, what is asked for a format opens only pages with formats."""
    store = make_lake().store
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    form = Record("format", "app", {"pattern": "x"})
    for n in range(100):
        entry = form if n == 0 else segment(f"s{n}")
        grown = publish.grow(store, state, Change("seal", entries=(entry,)), COMMIT, n)
        state = store.manifests.write(grown)
    of_segments = [page for page in state.pages if page.what == ["segment"]]
    assert len(of_segments) > 3
    store.manifests.forget()
    for page in of_segments:
        disk.unlink(store.paths.object("manifests", page.digest))
    assert store.manifests.records(state, "format") == [form]
    # Pages of earlier formats do not say what they hold.
    pages = tuple(dataclasses.replace(page, what=None) for page in state.pages)
    with pytest.raises(DamagedManifest):
        store.manifests.records(dataclasses.replace(state, pages=pages), "format")


@settings(max_examples=share(15))
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1, 2, 5, 17, 40, 300]),
    upkeep=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_a_state_is_what_naive_replay_makes_of_it(
    make_lake: MakeLake, seed: int, size: int, upkeep: float
) -> None:
    """After any commits, with and without maintenance, nothing is lost, doubled or resurrected."""
    store = make_lake().store
    draw, naive = random.Random(seed), Naive()
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    for number in range(40):
        entries = change_of(draw, naive, number, draw.randrange(1, size + 1))
        tidy = draw.random() < upkeep
        change = Change("seal", entries=tuple(entries), merge_pages=tidy)
        grown = publish.grow(store, state, change, COMMIT, number + 1)
        assert grown.parent == state.digest
        state = store.manifests.write(grown)
        if number % 7 == 0:
            store.manifests.forget()
            assert store.manifests.load(state.digest) == state
    assert_same(store, state, naive)


def grow_to(store: Store, count: int, upkeep: bool) -> tuple[tuple[Page, ...], tuple[Entry, ...]]:
    """Add so many segments, one a commit, as sealing does; pages never pass the bound."""
    pages: tuple[Page, ...] = ()
    recent: tuple[Entry, ...] = ()
    for number in range(count):
        recent = (*recent, segment(f"{number:06d}", number))
        pages, recent = page_tree.spill(store.manifests, pages, recent, COMMIT)
        if upkeep:
            pages = page_tree.merge_pages(store.manifests, pages, COMMIT)
            assert len(pages) <= 15 + 15 + number // 4096
        assert len(recent) <= manifest.FAN
    return pages, recent


def test_ten_thousand_segments_are_few_pages(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Manifest and pages stay small at every step of growing, as F6.3 and F6.4 limit them."""
    monkeypatch.setattr(disk, "sync_file", lambda fd: None)
    monkeypatch.setattr(disk, "sync_dir", lambda path: None)
    pages, recent = grow_to(lake.store, 10_000, upkeep=True)
    for level in range(2):
        assert sum(page.level == level for page in pages) < manifest.FAN
    state = manifest.empty(COMMIT, 1, "ada")
    state = dataclasses.replace(state, pages=pages, recent=recent)
    entries = lake.store.manifests.segments(state)
    assert [e.key for e in entries] == [f"{n:06d}" for n in range(10_000)]
    near = lake.store.manifests.segments_between(state, 5000, 5009)
    assert [e.time[0] for e in near] == list(range(5000, 5010))
    size = lake.store.manifests.write(state)
    path = lake.store.paths.object("manifests", size.digest)
    assert len(disk.read(path)) < 12_000


def test_a_long_history_leaves_what_is_alive(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many entries came and went, a state's pages hold little more than the live ones."""
    monkeypatch.setattr(manifest, "FAN", 4)
    draw, naive, store = random.Random(3), Naive(), lake.store
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    for number in range(700):
        entries: list[Entry] = [segment(f"s{number}", draw.randrange(100))]
        old = list(naive.segments().values())
        if len(old) > 20:
            entries += [entry.tombstone() for entry in draw.sample(old, 15)]
        naive.apply(entries)
        for change in (Change("x", entries=tuple(entries)), Change("x", merge_pages=True)):
            state = store.manifests.write(publish.grow(store, state, change, COMMIT, number))
        assert sum(page.entries for page in state.pages) <= 1.5 * len(naive.live) + 4**3 + 4**2
        levels = [page.level for page in state.pages]
        assert manifest.BOTTOM not in levels[levels.count(manifest.BOTTOM) :]
    assert_same(store, state, naive)
    assert manifest.BOTTOM in levels


def test_large_commits_between_small_ones_leave_few_pages(lake: lakelog.Lake) -> None:
    """Each query reads what a state says of all pages; erasures make commits of many entries."""
    store, pages = lake.store, tuple[Page, ...]()
    for number in range(200):
        count = 17 if number % 5 == 0 else 16
        entries = tuple(segment(f"{number:06d}-{n}", number) for n in range(count))
        pages = (*pages, store.manifests.write_page(entries, COMMIT))
        pages = page_tree.merge_pages(store.manifests, pages, COMMIT)
        assert sum(page.level < 2 for page in pages) < 2 * manifest.FAN


def test_commits_of_several_entries_leave_full_pages(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that share a lake seal together: their pages are no more than those of one."""
    monkeypatch.setattr(manifest, "FAN", 4)
    store, pages = lake.store, tuple[Page, ...]()
    for number in range(400):
        entries = tuple(segment(f"{number:06d}-{n}", number) for n in range(5))
        pages = (*pages, store.manifests.write_page(entries, COMMIT))
        if page_tree.is_mergeable(pages):
            pages = page_tree.merge_pages(store.manifests, pages, COMMIT)
        sizes = [page.entries for page in pages if page.level == manifest.LEVEL_MAX]
        assert len(sizes) < manifest.FAN + sum(sizes) // 32
    assert sum(page.entries for page in pages) == 2000


def test_nothing_large_is_merged_on_the_commit_path(lake: lakelog.Lake) -> None:
    """A commit writes pages of at most 256 entries, unless it brings more entries itself."""
    pages, _ = grow_to(lake.store, 1_000, upkeep=False)
    assert max(page.entries for page in pages) == 256
    assert [page.level for page in pages] == sorted((page.level for page in pages), reverse=True)


@pytest.mark.parametrize(
    ("entries", "level"), [(1, 0), (16, 0), (17, 1), (256, 1), (257, 2), (4096, 2), (100_000, 2)]
)
def test_a_page_s_level_is_its_power_of_sixteen(entries: int, level: int) -> None:
    """Levels hold at most 16, 256 and 4,096 entries; there is no fourth."""
    assert manifest.level_of(entries) == level


def test_removals_leave_once_nothing_older_is_left(lake: lakelog.Lake) -> None:
    """A state whose segments all went is empty again, not a list of removals."""
    store = lake.store
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    for number in range(300):
        for entry in (segment(f"s{number}"), segment(f"s{number}").tombstone()):
            change = Change("seal", entries=(entry,), merge_pages=True)
            state = publish.grow(store, state, change, COMMIT, number)
    assert store.manifests.segments(state) == []
    assert state.totals == Totals()
    assert (state.pages, state.recent) == ((), ())


def test_a_state_is_read_from_the_ref_that_names_it(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many moves were read since, a head's state is not looked for among all of them."""
    for number in range(80):
        lake.append({"type": "A", "n": number})
        lake.settle()
    store = Store.load(lake.path)
    head = store.refs.head("main")
    assert head.move.carried
    for number in range(2, 80):
        store.refs.read("main", number)
    monkeypatch.setattr(store.refs, "states", lambda: pytest.fail("all moves were read"))
    assert store.manifests.of(head.move).totals.events == 80


def test_fold_keeps_the_newest_of_each_key() -> None:
    """The newest entry of a key wins; only the oldest run may forget removals."""
    old = (segment("a"), segment("b"), Record("cursor", "a", {"to": 1}))
    new = (segment("a").tombstone(), Record("cursor", "a", {"to": 2}), segment("c"))
    assert fold([old, new], oldest=False) == (old[1], *new)
    assert [e.key for e in fold([old, new], oldest=True)] == ["b", "a", "c"]
    assert fold([], oldest=True) == ()


def test_arrival_segments_get_their_place_in_the_order() -> None:
    """Segments without seq are numbered after those before them; others keep theirs."""
    placed = dataclasses.replace(segment("old", events=5), seq=(3, 9))
    entries = [segment("a", events=4), placed, segment("q", events=7, kind="quarantine")]
    done, following = assign_seq([*entries, segment("b", events=2)], 100)
    seqs = [e.seq for e in done if isinstance(e, SegmentEntry)]
    assert seqs == [(100, 103), (3, 9), UNNUMBERED, (104, 105)]
    assert following == 106


@pytest.mark.damaged
@pytest.mark.parametrize("what", ["cut", "flipped", "other", "missing"])
@pytest.mark.parametrize("of", ["manifest", "page"])
def test_a_manifest_is_believed_only_by_its_name(lake: lakelog.Lake, what: str, of: str) -> None:
    """A manifest or page that is missing, cut, changed or another one is damage, and named."""
    store = lake.store
    page = store.manifests.write_page(tuple(segment(str(n)) for n in range(16)), COMMIT)
    state = dataclasses.replace(manifest.empty(COMMIT, 1, "ada"), pages=(page,))
    state = store.manifests.write(state)
    digest = page.digest if of == "page" else state.digest
    path = store.paths.object("manifests", digest)
    data = disk.read(path)
    disk.unlink(path)
    if what != "missing":
        bad = {"cut": data[:-1], "flipped": bytes([data[0] ^ 1]) + data[1:], "other": b"{}"}[what]
        disk.create_whole(path, bad)
    store.manifests.forget()
    with pytest.raises(DamagedManifest, match=digest):
        store.manifests.segments(store.manifests.load(state.digest))
