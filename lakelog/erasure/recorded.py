"""What lakelog itself recorded in the lake of rows that were erased: events such as findings and
predictions, which have words of them, and outcome models that were learnt from them."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

import orjson

from lakelog import sql
from lakelog.database import Connect
from lakelog.entries import SegmentEntry
from lakelog.erased.records import Erasure
from lakelog.erasure import rewriting
from lakelog.erasure.rewriting import MODEL_KEY, History
from lakelog.event import BookkeepingEvent
from lakelog.libraries import pa, pc
from lakelog.paths import KEYS
from lakelog.segments import rows_sql
from lakelog.store import Store
from lakelog.values import JsonObject

FINDING, MODEL = "finding", "model"
_SOURCE = BookkeepingEvent.SOURCE
_IS_OWN = f"(source = '{_SOURCE}' OR starts_with(source, '{_SOURCE} '))"
_OWN_SOURCE = f"^{_SOURCE}( |$)"
_KEY = "coalesce(id, concat(origin, ':', position))"
"""SQL for what names an own event: most have an id."""
_TEXTS = ("source", "subject", "message", "data", "id")
_EXPANDED = re.compile(r"[\\$`\"!]")
_WORD = re.compile(r"\w[\w.@:-]{2,}\w")
_LOOKED_AT = 8
"""Segments in which words are looked for that others have, too."""
OwnEvent = tuple[str, str, frozenset[str]]
"""The type, the key and the words of an event that lakelog recorded itself."""
_LISTED_MAX = 1_000
"""Findings that a command names by their keys; of more it erases all of their type."""


def own_events(store: Store, connect: Connect, history: History) -> list[OwnEvent]:
    """Return what lakelog recorded, of the segments that may have some."""
    rows = list[OwnEvent]()
    for entry in history.segments().values():
        path = KEYS.object("segments", entry.key)
        if entry.kind != "events" or not _may_be_own(entry) or not store.volume.exists(path):
            continue
        store.verified.require([entry])
        source = rows_sql(store.paths, [entry])
        query = f"SELECT type, {_KEY}, message, data FROM ({source}) WHERE {_IS_OWN}"
        with contextlib.closing(connect().cursor()) as cursor:
            for type_, id, *values in cursor.execute(query).fetchall():
                rows.append((type_, id, frozenset(_words(values))))
    return rows


def _may_be_own(entry: SegmentEntry) -> bool:
    return isinstance(entry.sources, str) or any(
        source == _SOURCE or source.startswith(f"{_SOURCE} ") for source in entry.sources
    )


def telling_words(
    store: Store,
    connect: Connect,
    events: list[OwnEvent],
    history: History,
    chosen_rows: Iterable[tuple[SegmentEntry, pa.Table]],
    condition: str,
) -> set[str]:
    """Return the words of own events that chosen rows have, and that no event in some of the
    largest segments has for which the SQL condition that chose them does not hold."""
    recorded_words = set[str]().union(*(own_words for _, _, own_words in events))
    tokens = set[str]()
    # Most lakes have no own events: then words of what may be millions of rows say nothing.
    for entry, rows in chosen_rows if recorded_words else ():
        if entry.kind == "events":
            is_own = pc.match_substring_regex(rows["source"].cast(pa.string()), _OWN_SOURCE)
            rows = rows.filter(pc.invert(pc.fill_null(is_own, False)))
            columns = (pc.unique(rows[name]).to_pylist() for name in _TEXTS)
            tokens.update(_words(itertools.chain.from_iterable(columns)))
    tokens &= recorded_words
    entries = (e for e in history.segments().values() if e.kind == "events")
    for entry in sorted(entries, key=lambda entry: -entry.events)[:_LOOKED_AT]:
        if not tokens or not store.volume.exists(KEYS.object("segments", entry.key)):
            continue
        candidates = sorted(tokens)
        values = f"concat_ws(' ', {', '.join(_TEXTS)})"
        looks = (
            f"coalesce(bool_or(contains({values}, {sql.literal(w)})), false)" for w in candidates
        )
        store.verified.require([entry])
        source = rows_sql(store.paths, [entry])
        query = (
            f"SELECT [{', '.join(looks)}] FROM ({source})"
            f" WHERE NOT coalesce({_IS_OWN}, false) AND NOT {condition}"
        )
        with contextlib.closing(connect().cursor()) as cursor:
            is_common = cursor.execute(query).fetchall()[0][0]
        tokens = {word for word, common in zip(candidates, is_common, strict=True) if not common}
    return tokens


def _words(values: Iterable[str | None]) -> Iterator[str]:
    """Yield what may tell something: no names of members, no common numbers."""
    for value in filter(None, values):
        content: object = value
        if value[:1] in "{[":
            with contextlib.suppress(ValueError):
                content = orjson.loads(value)
        yield from itertools.chain.from_iterable(map(_WORD.findall, _values(content)))


def _values(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        members = content.values() if isinstance(content, dict) else content
        yield from itertools.chain.from_iterable(map(_values, members))


def places(
    events: list[OwnEvent], tokens: set[str], history: History, states: Collection[str]
) -> list[JsonObject]:
    """Return a place for each type of own events that have some of the words, and for each model
    that was learnt from one of the states."""
    ids: dict[str, set[str]] = {}
    for type_, id, own_words in events:
        if own_words & tokens:
            ids.setdefault(type_, set()).add(id)
    learnt_from: dict[str, set[str]] = {}
    for key, snapshot in history.models():
        if snapshot in states:
            learnt_from.setdefault(key.removeprefix(MODEL_KEY), set()).add(snapshot)
    return [_finding(type_, sorted(of_type)) for type_, of_type in ids.items()] + [
        {
            "place": MODEL,
            "name": name,
            "command": "lakelog predict train it again, then run the same `lakelog erase` again",
            "done": False,
            "states": sorted(snapshots),
        }
        for name, snapshots in learnt_from.items()
    ]


def union(before: list[JsonObject], news: list[JsonObject]) -> list[JsonObject]:
    """Return places that an erasure had before, and those of now: one for each type
    of own events, and for each model."""
    by_name = {(place["place"], place["name"]): place for place in before}
    for place in news:
        name, place_before = place["name"], by_name.get((place["place"], place["name"]), place)
        if place["place"] == FINDING:
            place = _finding(name, sorted({*place_before["ids"], *place["ids"]}))
        else:
            place = place | {"states": sorted({*place_before["states"], *place["states"]})}
        by_name[place["place"], name] = place
    return list(by_name.values())


def _finding(type_: str, ids: list[str]) -> JsonObject:
    names = ", ".join(map(sql.literal, ids))
    all_of_them = f"type = {sql.literal(type_)} AND {_IS_OWN}"
    condition = f"{_KEY} IN ({names})" if len(ids) <= _LISTED_MAX else all_of_them
    # In double quotes literals of SQL are easy to read, but a shell expands what it finds there.
    quoted = shlex.quote(condition) if _EXPANDED.search(condition) else f'"{condition}"'
    command = f"lakelog erase --where {quoted}"
    return {"place": FINDING, "name": type_, "command": command, "done": False, "ids": ids}


def confirmed(store: Store, connect: Connect, erasures: list[Erasure]) -> list[Erasure]:
    """Return erasures, with a note on what lakelog recorded and is in no state now. It is not
    saved: a later pull may bring what is looked for."""
    if not any(map(_waiting, erasures)):
        return erasures
    history = rewriting.history_of(store)
    ids = {id for _, id, _ in own_events(store, connect, history)}
    models = history.models()

    def is_clean(place: JsonObject) -> bool:
        if place["place"] == FINDING:
            return ids.isdisjoint(place["ids"])
        return models.isdisjoint((MODEL_KEY + place["name"], s) for s in place["states"])

    confirmed_erasures = []
    for erasure in erasures:
        clean = [place for place in _waiting(erasure) if is_clean(place)]
        places = [p | {"done": True} if p in clean else p for p in erasure.outside]
        confirmed_erasures.append(replace(erasure, outside=places))
    return confirmed_erasures


def _waiting(erasure: Erasure) -> list[JsonObject]:
    """What lakelog recorded of the rows of an erasure, and nobody said is clean."""
    return [place for place in erasure.records if not place["done"]]
