"""Erasing once more what an erasure knows by digests alone: in a clone, which gets the record with
a pull, or where its rows came back with old files.

The record does not say who was erased. But whoever has rows of the subject has its name, and finds
it by the salted digest; rows of a condition are found by their places and contents.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from lakelog import database, sql
from lakelog.database import Connect
from lakelog.erased import Refusal, SubjectIndex, records
from lakelog.erased.records import ErasedRows, Erasure
from lakelog.erasure import erasing, key_erasure, leftovers, outside, rewriting
from lakelog.erasure.erasing import ErasureRun
from lakelog.erasure.leftovers import Leftover
from lakelog.erasure.rewriting import Redactor
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


def adopt(
    lake: SettledLake,
    news: Sequence[tuple[Erasure, ErasedRows]],
    replaced_there: Collection[str] = (),
) -> list[Erasure]:
    """Take over erasures of another lake, and erase their rows here; of the segments
    `replaced_there` rows were erased there. Raises NotAllowed, GcRefused while gc runs, Damaged,
    OSError."""
    Policy.require(lake.store.paths, "erase")
    fresh = [
        (replace(erasure.without_places(), phase="begun", branches={}, tags={}, segments=0), rows)
        for erasure, rows in news
    ]
    return _erase(lake, fresh, replaced_there)


def erase_again(lake: SettledLake) -> list[Erasure]:
    """Erase the rows of all erasures of a lake that came back, and end those that were begun;
    return the erasures that had some. Raises GcRefused, Damaged, OSError."""
    store = lake.store
    if store.erased.refresh():
        lake._settle_branches()  # which lets go of frames that came back, too
    recorded = records.listing(store.paths)
    subjects = _subjects(store, recorded)
    back = [
        record
        for record in recorded
        if record.key in subjects
        or not (record.is_swept or record.subjects)
        or (not record.subject and _by_rows(store, record) is not None)
    ]
    # What selects their rows is found again then, of what is sealed by that time.
    fresh = [(replace(record, phase="begun"), record.rows(store.paths)) for record in back]
    unfinished = {record.key for record in back if not record.is_swept}
    results = zip(back, _erase(lake, fresh, unfinished=unfinished), strict=True)
    return [result for record, result in results if result.segments > record.segments]


def _erase(
    lake: SettledLake,
    news: Sequence[tuple[Erasure, ErasedRows]],
    replaced_there: Collection[str] = (),
    unfinished: Collection[str] = (),
) -> list[Erasure]:
    store, ended = lake.store, dict[str, Erasure]()
    if not news:
        return []
    with erasing.alone(store):
        # First, so that what is sealed now is refused.
        store.require("erasure")
        for record, rows in news:
            record.save(store.paths, rows)
        key_erasure.destroy_adopted(store, [record for record, _ in news])
        lake._settle_branches()
        # All of them by one look at the segments, which are many more than the erasures.
        subjects = _subjects(store, [record for record, _ in news])
        waiting = [record for record, _ in news]
        has_words = bool(replaced_there) and _has_words(store, replaced_there)
        while waiting:
            run, selectors = list[Erasure](), list[Selector]()
            for record in waiting:
                selector = _selector(store, record, subjects)
                if selector is None and (has_words or record.key in unfinished):
                    # No row: of states of which the rows are gone only their words go, and what a
                    # run that was killed had yet to delete.
                    selector = Selector((), "false", max(record.time, record.arrived))
                if selector is None:
                    places = outside.places_of(store, record, {})
                    record = replace(record.swept(), outside=places)
                    record.save(store.paths)
                    ended[record.key] = record
                # What the first of two of a subject took is counted and named by it.
                elif _fits(selector, selectors):
                    run.append(record)
                    selectors.append(selector)
            if run:
                erased = ErasureRun(
                    store, lake.engine, lake._settle_branches, run, selectors, replaced_there
                )
                ended |= {erasure.key: erasure for erasure in erased.run(None)}
                has_words = False
            waiting = [record for record in waiting if record.key not in ended]
    return [ended[record.key] for record, _ in news]


def _has_words(store: Store, replaced_there: Collection[str]) -> bool:
    """Whether a state here has words of segments that are gone, and were replaced elsewhere."""
    history = rewriting.history_of(store)
    return Redactor(store, history, {}, (), replaced_elsewhere=replaced_there).is_needed()


def _fits(selector: Selector, selectors: Sequence[Selector]) -> bool:
    """Whether rows of a selector can be erased in one run with those of others."""
    if not (selectors and selector.subjects):
        return not selectors
    is_new = all(other.subjects and other.subjects != selector.subjects for other in selectors)
    return is_new and len(selectors) < erasing.TOGETHER


def _selector(store: Store, record: Erasure, subjects: dict[str, str]) -> Selector | None:
    """What selects the rows of an erasure that the lake has; None if it has none."""
    if not record.subject:
        return _by_rows(store, record)
    subject = subjects.get(record.key)
    return Selector((subject,), until=max(record.time, record.arrived)) if subject else None


def _by_rows(store: Store, record: Erasure) -> Selector | None:
    """What selects those of its rows that the lake has, of an erasure by a condition."""
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


def _subjects(store: Store, recorded: Iterable[Erasure]) -> dict[str, str]:
    """The subject of each erasure, by its key, of those that the lake has."""
    index, subjects = SubjectIndex(), dict[str, str]()
    for record in recorded:
        if record.subject:
            index.add(record.key, record.time, record.salt, record.subject)
    for name in _names(store) if index.keys else ():
        subjects |= {erased.key: name for erased in index.of(name)}
        if len(subjects) == len(index.keys):
            break
    return subjects


def _names(store: Store) -> Iterator[str]:
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
    with database.shared_database(store.paths) as open_engine:
        for digest in store.paths.digests("segments"):
            # Gone, or damaged, which `verify` reports.
            with contextlib.suppress(OSError, pa.ArrowInvalid):
                row_kind = Segment(store.paths, digest).metadata().get("kind", "events")
                of_kind = columns and columns[row_kind != "events"]
                if columns is None and (protected_fields := sealed_blocks.of_lake(store.paths)):
                    protected_fields.expect([digest])
                yield Segment(store.paths, digest).read(of_kind, open_engine)
