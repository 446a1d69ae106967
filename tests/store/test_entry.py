"""Manifest entries: their JSON is read and written in one place, and nothing in it is lost."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import orjson
import pytest
import zstandard

import lakelog
from lakelog import document
from lakelog.entries.entry import (
    UNNUMBERED,
    Entry,
    MalformedEntry,
    Record,
    Removal,
    SegmentEntry,
    parse,
)
from lakelog.errors import DamagedManifest
from lakelog.files.file_cursor import FileCursor
from lakelog.manifest import Manifest, manifest
from lakelog.moves import page_tree
from lakelog.paths import KEYS
from lakelog.store import Store

COMMIT = "00" * 16
EVENTS: dict[str, Any] = {
    "add": "segment",
    "key": "ab" * 32,
    "bytes": 700,
    "kind": "events",
    "events": 3,
    "layout": "sorted",
    "time": [1, 9],
    "types": {"A": 2, "": 1},
    "sources": "many",
    "levels": {},
    "subject": ["a", "b"],
    "seq": [4, 8],
    "from": ["cd" * 32, "ef" * 32],
}
QUARANTINE: dict[str, Any] = {
    "add": "segment",
    "key": "ba" * 32,
    "bytes": 70,
    "kind": "quarantine",
    "events": 1,
    "layout": "arrival",
    "time": [5, 5],
}
REMOVED: dict[str, Any] = {
    "del": "segment",
    "key": "ab" * 32,
    "events": 3,
    "bytes": 700,
    "kind": "events",
}
CURSOR: dict[str, Any] = {"add": "cursor", "key": "c", "bytes": 7, "places": [[1, 2]]}
BODIES = [
    EVENTS,
    {k: v for k, v in EVENTS.items() if k != "from"} | {"subject": None},
    QUARANTINE,
    REMOVED,
    CURSOR,
    {"del": "view", "key": "v"},
    {"add": "later", "key": "k"},
]


def text(entry: Entry) -> bytes:
    """What of an entry is on disk."""
    return orjson.dumps(entry.to_json())


def without(body: dict[str, Any], member: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != member}


def state_of(store: Store, body: dict[str, Any], where: str) -> Manifest:
    """Write a state with one entry, in a page or among the recent ones; return it unread."""
    entries = parse([copy.deepcopy(CURSOR)])
    state = manifest.empty(COMMIT, 1, "ada")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "to_json", lambda _: body)
        if where == "page":
            page = store.manifests.write_page(entries, COMMIT)
            state = store.manifests.write(dataclasses.replace(state, pages=(page,)))
        else:
            state = store.manifests.write(dataclasses.replace(state, recent=entries))
    store.manifests.forget()
    return state


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("more", [{}, {"later": {"a": [1]}, "other": None}])
def test_an_entry_is_written_as_it_was_read(body: dict[str, Any], more: dict[str, Any]) -> None:
    """The bytes are the same, order of members included, also of those that nobody knows yet."""
    (entry,) = parse([copy.deepcopy({**body, **more})])
    assert text(entry) == orjson.dumps({**body, **more})


def test_what_an_entry_says() -> None:
    """A segment has its statistics, a tombstone what the totals lose, a record only its members."""
    events, quarantined, removed, cursor = parse(
        copy.deepcopy([EVENTS, QUARANTINE, REMOVED, CURSOR])
    )
    assert isinstance(events, SegmentEntry)
    assert isinstance(quarantined, SegmentEntry)
    assert (events.time, events.seq, events.subject) == ((1, 9), (4, 8), ("a", "b"))
    assert (events.types, events.sources, events.made_from[1]) == (
        {"A": 2, "": 1},
        "many",
        "ef" * 32,
    )
    assert (quarantined.seq, quarantined.types, quarantined.subject) == (UNNUMBERED, {}, None)
    assert events.tombstone() == removed
    assert cursor == Record("cursor", "c", {"bytes": 7, "places": [[1, 2]]})
    assert cursor.tombstone() == Removal("cursor", "c")
    assert [e.entry_type for e in (events, removed, cursor)] == ["segment", "segment", "cursor"]


@pytest.mark.parametrize("number", [0, 2, 4])
def test_an_entry_cannot_be_changed(number: int) -> None:
    """Entries are shared by all readers of a state, so nobody can set a field."""
    (entry,) = parse([copy.deepcopy(BODIES[number])])
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.key = "x"  # type: ignore[misc]


def test_a_page_merge_keeps_what_it_does_not_know(lake: lakelog.Lake) -> None:
    """F15.2: members and entries of a later version go through a merge of pages."""
    manifests = lake.store.manifests
    known = {**EVENTS, "bloom": "later"}
    pages = tuple(
        manifests.write_page(parse(copy.deepcopy(bodies)), COMMIT)
        for bodies in ([known], [{"add": "later", "key": "k", "x": 1}])
    )
    manifests.forget()
    (page,) = page_tree.merge_from(manifests, pages, 0, COMMIT)
    manifests.forget()
    assert [orjson.loads(text(entry)) for entry in manifests.page(page)] == [
        known,
        {"add": "later", "key": "k", "x": 1},
    ]


MALFORMED = [
    *(without(EVENTS, name) for name in EVENTS if name not in ("add", "from")),
    *(without(REMOVED, name) for name in REMOVED),
    *(
        EVENTS | {name: None}
        for name in ("key", "bytes", "kind", "events", "layout", "time", "seq")
    ),
    EVENTS | {"time": [1]},
    EVENTS | {"bytes": "700"},
    without(CURSOR, "key"),
    {"key": "neither"},
]


@pytest.mark.parametrize("body", MALFORMED)
def test_a_malformed_entry_is_refused(body: dict[str, Any]) -> None:
    """An entry that lacks a member, or has one of another type, is no entry."""
    with pytest.raises(MalformedEntry, match="malformed"):
        parse([copy.deepcopy(body)])


@pytest.mark.damaged
@pytest.mark.parametrize("where", ["page", "recent"])
def test_a_malformed_entry_is_damage_of_its_file(lake: lakelog.Lake, where: str) -> None:
    """Intact bytes that hold no valid entry are DamagedManifest, with the name of the file."""
    state = state_of(lake.store, without(EVENTS, "bytes"), where)
    name = state.pages[0].digest if where == "page" else state.digest
    with pytest.raises(DamagedManifest, match=f"{name}.*malformed.*bytes"):
        lake.store.manifests.segments(lake.store.manifests.load(state.digest))


@pytest.mark.damaged
def test_a_record_that_its_owner_cannot_read_is_damage(lake: lakelog.Lake) -> None:
    """A cursor without the members of one is DamagedManifest, with the name of the state."""
    state = state_of(lake.store, CURSOR, "page")
    with pytest.raises(DamagedManifest, match=f"{state.digest}.*malformed"):
        FileCursor.of_state(lake.store, lake.store.manifests.load(state.digest))


@pytest.mark.damaged
@pytest.mark.parametrize(
    "data", [b"not zstd", *map(zstandard.compress, (b"[]", b"{", b"{}", b'{"format":"1"}'))]
)
def test_a_file_that_is_no_manifest_is_damage(lake: lakelog.Lake, data: bytes) -> None:
    """Bytes that have the name of their digest and hold no manifest are DamagedManifest."""
    digest = document.digest(data)
    lake.store.volume.put(KEYS.object("manifests", digest), data)
    with pytest.raises(DamagedManifest, match=f"{digest}.*malformed"):
        lake.store.manifests.load(digest)
