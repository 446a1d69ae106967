"""One stream: its events in the order of their versions, as of one state, and what is appended.

An append gives its events versions, and a retry its first answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from operator import itemgetter
from typing import Required, cast

from lakelog import arrays
from lakelog.appends import KnownKeys, Receipt, StreamSubject, VersionedBatch
from lakelog.errors import DamagedWal, InvalidEvent, WrongVersion
from lakelog.event import EncodedBatch, Event
from lakelog.libraries import pa
from lakelog.manifest import Manifest
from lakelog.query import Relation
from lakelog.store import Store

COLUMNS = "time type category source subject level message data id ingested_at".split()
_NAMES = ["version", *COLUMNS]
_LOOKS = 100
"""How often a stream is read again because an event came while the write-ahead logs were read."""


class StreamEvent(Event, total=False):
    """An event of a stream as a dict: its columns, `data` as JSON text, and its `version`."""

    version: Required[int]
    ingested_at: Required[datetime]


@dataclass(frozen=True)
class EventStream:
    """Events of one stream, in the order of their versions; iterate over it.

    `version` is that of the whole stream, 0 if it has none: what the next append expects.
    """

    subject: str
    version: int
    events: tuple[StreamEvent, ...]

    def __iter__(self) -> Iterator[StreamEvent]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)


@dataclass(frozen=True)
class StreamSource:
    """What is read: `ask` answers SQL over a state, and `manifest` is that state, or the newest
    published one where its tail is asked as well. `tail` has all events of a subject if none of
    them is published, else None."""

    store: Store
    branch: str
    ask: Callable[[str, object], Relation]
    manifest: Callable[[], Manifest]
    tail: Callable[[str], pa.Table | None]


StoreVersions = Callable[[EncodedBatch, Mapping[str, int]], Receipt]
ReadStream = Callable[[str, int, int], EventStream]
"""Reads a subject after a version, so many events."""


def read(
    source: StreamSource, subject: str, after: int = 0, limit: int | None = None
) -> EventStream:
    """Return the events of a stream with versions above `after`, at most `limit` of them.

    Raises InvalidEvent for a subject that no stream can have, SnapshotGone, Damaged.
    """
    stream, keys = StreamSubject.checked(subject), KnownKeys(source.store)
    for name, number in (("after", after), ("limit", 0 if limit is None else limit)):
        if type(number) is not int or not 0 <= number < 1 << 62:
            raise InvalidEvent(f"{name} is a number from 0 on, not {number!r:.40}")
    for _ in range(_LOOKS):
        # Before the rows, so that these are of no older state.
        published = keys.of(source.manifest().ids)
        newest, events = _rows(source, stream, after, limit)
        versions = (after, *(event["version"] for event in events))
        # What a retention removed, or damage took, is missing for good: what follows it, or it
        # itself, was published. Otherwise an event of one writer was seen without one of another
        # that came before it, and that is there by now.
        if all(
            published.holds(stream.key(v)) or published.holds(stream.key(v - 1))
            for before, v in pairwise(versions)
            if v != before + 1
        ):
            version = max(newest, published.last_version(stream, newest))
            return EventStream(subject, version, tuple(events))
    wals = source.store.paths.wal_dir(source.branch)
    raise DamagedWal(wals, f"events of the stream {stream.label} are missing")


def _rows(
    source: StreamSource, stream: StreamSubject, after: int, limit: int | None
) -> tuple[int, list[StreamEvent]]:
    """Return the highest version that a row has, 0 without rows, and the events asked for."""
    if (table := source.tail(stream.name)) is not None:
        columns = table.select(["origin", "position", *COLUMNS]).rename_columns(["origin", *_NAMES])
        # In Python: to begin a filter or a sort of Arrow takes longer than most streams do.
        own_rows = (r for r in arrays.records(columns) if r.pop("origin") == stream.origin)
        versions = cast(list[StreamEvent], sorted(own_rows, key=itemgetter("version")))
        events = [event for event in versions if event["version"] > after][:limit]
        return versions[-1]["version"] if versions else 0, events
    # With parameters, as the engine then binds it once for all streams.
    names, of_stream = [stream.name, stream.origin], "FROM events WHERE subject = ? AND origin = ?"
    # Sorted in Python, for to begin a sort or a window of the engine takes longer than all of its
    # reading; only a limit needs both.
    last = "NULL" if limit is None else "max(position) OVER ()"
    query = f"SELECT {last}, position, {', '.join(COLUMNS)} {of_stream}"
    query += " AND position > ?" if after else ""
    query += "" if limit is None else f" ORDER BY position LIMIT {max(limit, 1)}"
    rows = source.ask(query, [*names, after] if after else names).fetchall()
    rows.sort(key=itemgetter(1))
    if not rows:
        (newest,) = source.ask(f"SELECT coalesce(max(position), 0) {of_stream}", names).fetchall()[
            0
        ]
        return (newest, []) if newest <= after else _rows(source, stream, after, limit)
    events = [cast(StreamEvent, dict(zip(_NAMES, row[1:], strict=True))) for row in rows]
    return rows[0][0] or rows[-1][1], events if limit != 0 else []


def append(
    events: list[object],
    expect: Mapping[str, int],
    dedupe: str | None,
    store: StoreVersions,
    look: ReadStream,
) -> Receipt:
    """Store events as the next versions of the streams in `expect`, all or nothing.

    Where this very append was made before, by the ids of all of its events, its first answer is
    given again. Raises InvalidEvent, WrongVersion, and what appending does.
    """
    if dedupe is not None:
        raise InvalidEvent("expect and dedupe exclude each other: a version is given once anyway")
    encoded = EncodedBatch.of(events)
    try:
        return store(encoded, expect)
    except WrongVersion:
        receipt = _first_answer(VersionedBatch(encoded, expect), encoded.ids, look)
        if receipt is None:
            raise
        return receipt


def _first_answer(batch: VersionedBatch, ids: list[str | None], look: ReadStream) -> Receipt | None:
    """Return the answer to an append that was made already, None if it was not, or if its ids do
    not tell."""
    if not all(ids):
        return None
    upto = dict[str, int]()
    for subject, version in batch.expect.items():
        own_ids = [i for i, name in zip(ids, batch.names, strict=True) if name == subject.name]
        events = look(subject.name, version, len(own_ids))
        if [event["id"] for event in events] != own_ids:
            return None
        upto[subject.name] = version + len(own_ids)
    return Receipt(ids, "", [range(len(ids))], upto)
