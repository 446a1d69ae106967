"""Lines that were no events: looked at, tried again under another rule, or dropped for good.

Quarantined lines are rows of segments of that kind, so they commit, roll back and are verified
like events. `replay` and `drop` are moves that can be undone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidEvent
from lakelog.event import encode
from lakelog.ingest import cursors, definitions
from lakelog.ingest.formats import jsonl, known, sqltext
from lakelog.ingest.formats.definition import Definition
from lakelog.ingest.transform import Transformer
from lakelog.store import disk, idrun, manifest, rows, segment
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.opening import Store
from lakelog.store.publish import Change, publish
from lakelog.store.refs import Head
from lakelog.store.seal import drop_known

if TYPE_CHECKING:
    import pyarrow as pa


_CUT = range(65_536, 65_546)
"""How long lines are that an earlier version cut to 64 KiB."""
_PARTS = "a line of over "
"""How the reason begins for which a line was taken in parts."""
Rules = Callable[[str], Definition | None]
"""What was said of the lines of an origin."""


@dataclass(frozen=True)
class Replayed:
    """What a replay did: lines that are events now, known ones, and lines that stay."""

    stored: int
    skipped: int
    left: int


def names(store: Store, branch: str) -> dict[str, str]:
    """Return the file name of each origin that a cursor knows."""
    state = store.manifests.load(store.refs.head(branch).move.snapshot)
    known = map(cursors.of_entry, store.manifests.entries(state, "cursor"))
    return {cursor.origin: cursor.name for cursor in known}


def drop(store: Store, branch: str) -> int:
    """Take all published quarantined lines off the branch; return how many."""
    gone = 0

    def plan(_: Head, state: Manifest) -> Change | None:
        nonlocal gone
        bad = _entries(store, state)
        gone = sum(e["events"] for e in bad)
        if not bad:
            return None
        message = f"{gone} quarantined lines dropped"
        return Change("quarantine", message, entries=tuple(map(manifest.removal, bad)))

    publish(store, branch, plan)
    return gone


def replay(
    store: Store, branch: str, connect: Callable[[], Any], *, form: str | None = None,
    type_: str | None = None, dry_run: bool = False,
) -> Replayed:  # fmt: skip
    """Try every quarantined line again, with `form` (else the lake's own for its file, else what
    it looks like) and a type for events without. Lines that are not kept letter for letter stay
    where they are.

    Rows keep their origin and position. Raises InvalidSetting for an unknown format.
    """
    while True:
        head = store.refs.head(branch)
        state = store.manifests.load(head.move.snapshot)
        rules = _rules(store, state, form)
        bad = _entries(store, state)
        if not bad:
            return Replayed(0, 0, 0)
        events, left = _try_again(store, connect, bad, rules, type_)
        fresh = drop_known(store, events, state.ids) if events is not None else None
        count = fresh.num_rows if fresh is not None else 0
        skipped = (events.num_rows if events is not None else 0) - count
        outcome = Replayed(count, skipped, left.num_rows)
        if dry_run or events is None:
            return outcome
        change = _change(store, bad, fresh, left, outcome)
        if publish(store, branch, _only_on(head, change)) is not None:
            return outcome


def _only_on(base: Head, change: Change) -> Callable[[Head, Manifest], Change | None]:
    """A plan that gives up when the branch has moved."""
    return lambda head, _: change if head.digest == base.digest else None


def _entries(store: Store, state: Manifest) -> list[Entry]:
    return [e for e in store.manifests.entries(state) if e["kind"] == "quarantine"]


def _try_again(
    store: Store,
    connect: Callable[[], Any],
    bad: list[Entry],
    rules: Rules,
    type_: str | None,
) -> tuple[pa.Table | None, pa.Table]:
    """Return the rows that lines make now, and the lines that make none."""
    import pyarrow as pa

    table = pa.concat_tables([segment.read(store.layout, e["key"]) for e in bad])
    made: list[pa.Table] = []
    left: list[int] = []
    by_origin: dict[str, list[tuple[dict[str, Any], int]]] = {}
    for index, row in enumerate(table.to_pylist()):
        rule = rules(row["origin"])
        events = _parse(rule, row["line"] or "", row["reason"] or "", type_)
        if events is None:
            left.append(index)
        else:
            places = itertools.count(row["position"])
            by_origin.setdefault(row["origin"], []).extend(zip(events, places, strict=False))
    for origin, pairs in by_origin.items():
        transformer = Transformer(connect(), jsonl, origin)
        made.append(transformer.rows_of([e for e, _ in pairs], [p for _, p in pairs]))
    return (pa.concat_tables(made) if made else None), table.take(pa.array(left, pa.int64()))


def _rules(store: Store, state: Manifest, form: str | None) -> Rules:
    """What says how lines of an origin are read: a format, nothing, or a zone alone."""
    formats = definitions.formats_of(store, state)
    asked = definitions.resolve(form, formats) if form is not None else None
    of_origin: dict[str, Definition | None] = {}
    if asked is None and formats:
        for cursor in map(cursors.of_entry, store.manifests.entries(state, "cursor")):
            of_origin[cursor.origin] = definitions.of_cursor(formats, cursor)
    return lambda origin: asked or of_origin.get(origin)


def _form(rule: Definition | None, text: bytes) -> Any:
    """The format of a line by what was said of it, else by its looks."""
    name = definitions.form_name(rule) if rule else ""
    if not name:
        name = known.told(text, text, "line.json").NAME
        name = known.in_zone(name, rule.zone) if rule and rule.zone else name
    return known.named(name)


def _parse(
    rule: Definition | None, line: str, reason: str, type_: str | None
) -> list[dict[str, Any]] | None:
    """Return the events of a line, None if it is none, or its bytes are not all there."""
    try:
        text = line.encode()
        if not text or len(text) in _CUT or reason.startswith(("not UTF-8", _PARTS)):
            return None
        found = _form(rule, text).parse(text)
        events = found if isinstance(found, list) else [found]
        for event in events:
            if type_ is not None and event.get("type") in (None, sqltext.DEFAULT_TYPE):
                event["type"] = type_
        encode(events)
        return events
    except (InvalidEvent, UnicodeEncodeError):
        return None


def _change(
    store: Store, bad: list[Entry], fresh: pa.Table | None, left: pa.Table, outcome: Replayed
) -> Change:
    """Write what the lines became, and the change that swaps it in."""
    commit = disk.random_hex()
    entries = list(map(manifest.removal, bad))
    ids: tuple[Entry, ...] = ()
    if fresh is not None and fresh.num_rows:
        entries.append(
            segment.write(store.layout, fresh, kind="events", order="arrival", commit=commit)
        )
        high, low = rows.key_arrays(fresh["key"].drop_null())
        ids = (idrun.write(store.layout, high, low, commit),) if len(high) else ()
    if left.num_rows:
        entries.append(
            segment.write(store.layout, left, kind="quarantine", order="arrival", commit=commit)
        )
    message = f"{outcome.stored} quarantined lines stored"
    return Change("quarantine", message, entries=tuple(entries), ids_add=ids)
