"""Erasing once more what an erasure knows by digests alone: in a clone, which gets the record with
a pull, or where its rows came back with old files.

The record does not say who was erased. But whoever has rows of the subject has its name, and finds
it by the salted digest; rows of a condition are found by their places and contents.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Protocol

from lakelog import sql
from lakelog.database import Connect
from lakelog.erased import Refusal, records
from lakelog.erased.records import ErasedRows, Erasure
from lakelog.erasure import erasing, leftovers, outside
from lakelog.erasure.erasing import ErasureRun
from lakelog.erasure.leftovers import Leftover
from lakelog.erasure.selection import Selector
from lakelog.libraries import pa, pc
from lakelog.protect import sealed_blocks
from lakelog.segments import Segment
from lakelog.store import Policy, Store


class SettledLake(Protocol):
    """What is needed of an open lake."""

    store: Store

    @property
    def engine(self) -> Connect:
        """Opens a database."""

    def _settle_branches(self) -> None:
        """Publish what is pending on the branches."""


def adopt(lake: SettledLake, record: Erasure, rows: ErasedRows) -> Erasure:
    """Take over an erasure of another lake, and erase its rows here. Raises NotAllowed, GcRefused
    while gc runs, Damaged, OSError."""
    Policy.require(lake.store.paths, "erase")
    fresh = dataclasses.replace(
        record, phase="begun", branches={}, tags={}, leftovers=[], outside=[], segments=0
    )
    return _erase(lake, fresh, rows)


def again(lake: SettledLake) -> list[Erasure]:
    """Erase the rows of all erasures of a lake that came back; return the erasures that had some.
    Raises GcRefused, Damaged, OSError."""
    returned = []
    store = lake.store
    if store.erased.refresh():
        lake._settle_branches()  # which lets go of frames that came back, too
    recorded = records.listing(store.paths)
    of_subjects = [record for record in recorded if record.subject]
    # All of them by one look at the segments, which are many more than the erasures.
    subjects = _subjects(store) if of_subjects else ()
    back = {record.key for name in subjects for record in of_subjects if record.is_of(name)}
    for record in recorded:
        is_back = record.key in back if record.subject else _selector(store, record) is not None
        if is_back:
            # What selects its rows is found again then, of what is sealed by that time.
            fresh = dataclasses.replace(record, phase="begun")
            result = _erase(lake, fresh, record.rows(store.paths))
            returned += [result] if result.segments > record.segments else []
    return returned


def _erase(lake: SettledLake, record: Erasure, rows: ErasedRows) -> Erasure:
    store = lake.store
    with erasing.alone(store):
        # First, so that what is sealed now is refused.
        store.require("erasure")
        record.save(store.paths, rows)
        lake._settle_branches()
        selector = _selector(store, record)
        if selector is None:
            record = dataclasses.replace(record.swept(), outside=outside.places(store, {}))
            record.save(store.paths)
            return record
        run = ErasureRun(store, lake.engine, lake._settle_branches, [record], [selector])
        return run.run(None)[0]


def _selector(store: Store, record: Erasure) -> Selector | None:
    """What selects the rows of an erasure that the lake has; None if it has none."""
    if record.subject:
        subject = next((s for s in _subjects(store) if record.is_of(s)), "")
        until = max(record.time, record.arrived)
        return Selector((subject,), until=until) if subject else None
    if record.subjects:
        return None  # keys were destroyed, and no rows chosen: to look at all of them is in vain
    # With the time of arrival: positions in a stream are given again after a rollback.
    places: dict[str, set[tuple[int, int]]] = {}
    refusal, protected_fields = Refusal(store.paths, record.key), sealed_blocks.of_lake(store.paths)
    for table in _tables(store):
        if "time" in table.column_names:
            # By their contents as they came; a table of another lake's blocks stays as it is.
            table = protected_fields.events(table) if protected_fields else table
            refused = table.filter(pa.array(refusal.mask(table)))
            columns = [refused[n].to_pylist() for n in ("origin", "position")]
            columns.append(refused["ingested_at"].cast(pa.int64()).to_pylist())
            for origin, position, arrived in zip(*columns, strict=True):
                places.setdefault(origin, set()).add((position, arrived))
    conditions = [
        f"(origin = {sql.literal(origin)} AND (position, epoch_us(ingested_at)) IN"
        f" ({', '.join(map(str, sorted(pairs)))}))"
        for origin, pairs in places.items()
    ]
    return Selector((), " OR ".join(conditions)) if conditions else None


def mentions(store: Store, record: Erasure) -> Iterator[Leftover]:
    """Yield files of any text in which a word is the subject of an erasure, of one by a condition
    all such files; and what queries spilled before it was known here."""
    with contextlib.suppress(FileNotFoundError):
        known_since = os.stat(f"{store.paths.erasures}/{record.key}.rows").st_mtime_ns
        yield from leftovers.spilled(store, known_since)
    for leftover in leftovers.unsearched(store):
        contents = leftovers.contents(f"{store.paths.root}/{leftover.place}")
        lines = (
            line for content in contents for line in content.decode(errors="replace").split("\n")
        )
        if not record.subject or any(
            record.is_of(word) for line in lines for word in Refusal.words(line)
        ):
            yield leftover


def _subjects(store: Store) -> Iterator[str]:
    """Yield the subjects of events, and what stands as a word in a quarantined line or its reason,
    where the key of a message is, each once."""
    # One at a time: a lake may have millions, and each costs a hash.
    subjects, protected_fields = set[str](), sealed_blocks.of_lake(store.paths)
    for table in _tables(store, (["subject"], ["line", "reason"])):
        names: Iterable[str] = ()
        if "subject" in table.column_names:
            names = pc.unique(table["subject"]).to_pylist()
        elif "line" in table.column_names:
            table = protected_fields.quarantined(table) if protected_fields else table
            texts = table["line"].to_pylist() + table["reason"].to_pylist()
            names = (name for text in texts for name in Refusal.words(text or ""))
        for name in names:
            if name and name not in subjects:
                subjects.add(name)
                yield name


def _tables(store: Store, columns: tuple[list[str], list[str]] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of each segment on disk, or some `columns` of events and of lines."""
    for digest in store.paths.digests("segments"):
        # Gone, or damaged, which `verify` reports.
        with contextlib.suppress(OSError, pa.ArrowInvalid):
            row_kind = Segment(store.paths, digest).metadata().get("kind", "events")
            of_kind = columns and columns[row_kind != "events"]
            if columns is None and (protected_fields := sealed_blocks.of_lake(store.paths)):
                protected_fields.expect([digest])
            yield Segment(store.paths, digest).read(of_kind)
