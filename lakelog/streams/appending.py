"""Appending to streams: the versions that their events get, and the first answer to a retry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lakelog.appends import Receipt, VersionedBatch
from lakelog.errors import InvalidEvent, WrongVersion
from lakelog.event import encode
from lakelog.event.encode import EncodedBatch
from lakelog.streams.reading import EventStream

StoreVersions = Callable[[EncodedBatch, Mapping[str, int]], Receipt]
ReadStream = Callable[[str, int, int], EventStream]
"""Reads a subject after a version, so many events."""


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
    encoded = encode.encode(events)
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
