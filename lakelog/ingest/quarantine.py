"""Quarantined lines: listed, replayed under another format, or dropped.

Quarantined lines are rows of segments of that kind, so they commit, roll back and are verified
like events. `replay` and `drop` are moves that can be undone.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lakelog import maintain
from lakelog.database import Connect
from lakelog.disk import disk
from lakelog.entries import Entry, IdRun, SegmentEntry
from lakelog.erased import Refusal
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.files import FileCursor
from lakelog.formats import FORMATS, Format, FormatDefinition
from lakelog.identities import IdentityKeys, unique_rows
from lakelog.ingest import message_events
from lakelog.ingest.conformance import Conformance
from lakelog.ingest.definitions import LakeFormat
from lakelog.ingest.stream_cursor import StreamCursor
from lakelog.ingest.tail_keys import TailKeys
from lakelog.ingest.transform import Transformer
from lakelog.libraries import pa
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.protect import sealed_blocks
from lakelog.refs import Head
from lakelog.segments import Segment, SegmentEncoder, put_segment, write_segment
from lakelog.store import Policy, Store
from lakelog.views import Contract

_LINES = 1024
"""Lines that are parsed at a time."""
_EVENT_BYTES = 64_000_000
"""Events are written as a segment once they have so many bytes."""
_CUT = range(65_536, 65_546)
"""Lengths of lines that an earlier version cut to 64 KiB."""
_PARTS = "a line of over "
"""The beginning of the reason of a line that was quarantined in parts."""
_CHANNEL = re.compile(r"(\w+):[0-9a-f]{32}")
"""The origin of lines that came together by a channel, such as stdin, and stand in no file."""
_Placed = tuple[dict[str, Any], int, int]
"""An event, its position, and the index of its line."""
Rules = Callable[[str], FormatDefinition | None]
"""The definition for the lines of an origin, if there is one."""


@dataclass(frozen=True)
class ReplayResult:
    """The result of a replay: lines that are events now, known ones, and lines that stay."""

    stored: int
    skipped: int
    left: int


class Quarantine:
    """The lines of a branch that could not be parsed."""

    def __init__(self, store: Store, branch: str) -> None:
        self._store, self._branch = store, branch

    def names(self) -> dict[str, str]:
        """Return the file name of each origin that a cursor knows."""
        state = self._store.state(self._branch)
        all_cursors = FileCursor.of_state(self._store, state)
        return {cursor.origin: cursor.name for cursor in all_cursors}

    def sources(self) -> Callable[[str], str]:
        """Return what gives for an origin the name of its file, or its channel."""
        files = self.names()

        def source_of(origin: str) -> str:
            channel = _CHANNEL.fullmatch(origin)
            return files.get(origin) or (channel[1] if channel else origin)

        return source_of

    def drop(self) -> int:
        """Remove all published quarantined lines from the branch; return how many. Raises
        NotAllowed."""
        Policy.require(self._store.paths, "drop-quarantine")
        count = 0

        def plan(_: Head, state: Manifest) -> Change | None:
            nonlocal count
            bad = _entries(self._store, state)
            count = sum(e.events for e in bad)
            if not bad:
                return None
            message = f"{count} quarantined lines dropped"
            return Change("quarantine", message, entries=tuple(entry.tombstone() for entry in bad))

        publish(self._store, self._branch, plan)
        return count

    def replay(
        self,
        connect: Connect,
        *,
        form: str | None = None,
        type_: str | None = None,
        dry_run: bool = False,
    ) -> ReplayResult:
        """Try every quarantined line again, with `form` (else the lake's own for its file, else
        what it looks like) and a type for events without. Lines that are not stored byte for byte
        stay quarantined.

        Rows keep their origin and position. Raises InvalidSetting for an unknown format,
        DamagedSegment, InvalidKey where lines are sealed and the keys are missing.
        """
        # Another move may publish meanwhile: all is then done again on the new head, since it may
        # hold other lines and other ids.
        while True:
            head = self._store.refs.head(self._branch)
            state = self._store.manifests.of(head.move)
            rules = _rules(self._store, state, form)
            bad = _entries(self._store, state)
            if not bad:
                return ReplayResult(0, 0, 0)
            if self._store.paths.protection is not None:
                # A sealed line is an event of its own to every format.
                self._store.paths.protection.require_ciphers()
            retry = _Retry(
                self._store, self._branch, connect, state, rules, type_, is_kept=not dry_run
            )
            self._store.verified.require(bad)
            for entry in bad:
                retry.take(entry)
            retry.flush()
            outcome = retry.outcome
            # A line whose id is known leaves the quarantine, too: it is an event that the lake has.
            if dry_run or not outcome.stored + outcome.skipped:
                return outcome
            message = f"{outcome.stored} quarantined lines stored"
            change = Change(
                "quarantine",
                message,
                entries=tuple(retry.entries),
                ids_add=tuple(retry.runs),
                is_right=retry.is_first,
            )
            if publish(self._store, self._branch, _only_on(head, change)) is not None:
                return outcome


def _only_on(base: Head, change: Change) -> Callable[[Head, Manifest], Change | None]:
    """A plan that gives up when the branch has moved."""
    return lambda head, _: change if head.digest == base.digest else None


def _entries(store: Store, state: Manifest) -> list[SegmentEntry]:
    return store.manifests.segments(state, "quarantine")


class _Retry:
    """Parses lines again, some at a time, so that memory holds few of them.

    With `is_kept` the resulting segments are written at once; `entries` and `runs` are then to be
    published.
    """

    def __init__(
        self,
        store: Store,
        branch: str,
        connect: Connect,
        state: Manifest,
        rules: Rules,
        type_: str | None,
        *,
        is_kept: bool,
    ) -> None:
        self._store, self._connect, self._state = store, connect, state
        self._tail_keys = functools.partial(TailKeys().look, store, branch, connect)
        self._rules, self._type, self._is_kept = rules, type_, is_kept
        contracts = Contract.of_state(store, state)
        self._conformance = Conformance(contracts, store.paths.protection)
        streams = StreamCursor.of_state(store, state).values()
        self._streams = tuple(cursor.origin for cursor in streams)
        self._commit = disk.random_hex()
        self._waiting: list[pa.Table] = []
        self._keys: list[IdentityKeys] = []
        self._parsed_count = self._stored = self._unparsed_count = 0
        self.entries: list[Entry] = []
        self.runs: list[IdRun] = []

    @property
    def outcome(self) -> ReplayResult:
        """The result so far."""
        return ReplayResult(self._stored, self._parsed_count - self._stored, self._unparsed_count)

    def take(self, entry: SegmentEntry) -> None:
        """Parse the lines of a segment; a segment without any event stays as it is."""
        before, encoder = (
            self._parsed_count,
            SegmentEncoder("quarantine", "arrival", self._commit),
        )
        times: list[pa.Table] = []
        paths = self._store.paths
        fields = sealed_blocks.of_lake(paths)
        for table in Segment(paths, entry.key).batches(_LINES):
            table = fields.quarantined(table) if fields else table
            events, unparsed = self._parse_lines(table)
            encoder.add(sealed_blocks.sealed_lines(paths, unparsed))
            times.append(unparsed.select(["ingested_at"]))
            self._unparsed_count += unparsed.num_rows
            if events is not None:
                self._parsed_count += events.num_rows
                self._waiting.append(events)
            if sum(t.nbytes for t in self._waiting) > _EVENT_BYTES:
                self.flush()
        # Rewriting a segment that gave nothing would only change its name.
        if self._parsed_count == before or not self._is_kept:
            return
        self.entries.append(entry.tombstone())
        if (stays := pa.concat_tables(times)).num_rows:
            data = encoder.finish()
            self.entries.append(put_segment(paths, data, stays, "quarantine", "arrival"))

    def flush(self) -> None:
        """Write the pending events, without those whose id is known."""
        if not self._waiting:
            return
        waiting, self._waiting = pa.concat_tables(self._waiting), []
        # Against the keys of this replay, too: it may meet one id in two segments.
        stored_keys = [*self._keys, *self._tail_keys()]
        fresh, _ = unique_rows(self._store, waiting, self._state.ids, stored_keys)
        fresh = Refusal(self._store.paths).without(fresh, self._store.paths.protection)
        self._stored += fresh.num_rows
        self._keys.append(keys := IdentityKeys.of(fresh["key"]))
        if not fresh.num_rows or not self._is_kept:
            return
        paths, commit = self._store.paths, self._commit
        entry = write_segment(paths, fresh, kind="events", layout="arrival", commit=commit)
        self.entries.append(entry)
        self.runs += keys.write(paths, commit)

    def is_first(self) -> bool:
        """Whether the tail has none of our keys: an event that was acknowledged before stays."""
        if not self.runs:
            return True
        return not any(keys.overlaps(self._keys) for keys in self._tail_keys())

    def _parse_lines(self, table: pa.Table) -> tuple[pa.Table | None, pa.Table]:
        """Return the rows of lines that are events now, and the other lines."""
        tables: list[pa.Table] = []
        unparsed: list[int] = []
        by_origin: dict[str, list[_Placed]] = {}
        details: dict[int, tuple[str, str]] = {}
        for index, row in enumerate(table.to_pylist()):
            rule, reason = self._rules(row["origin"]), row["reason"] or ""
            events = _parse(rule, row["line"] or "", reason, self._type)
            if events is None:
                unparsed.append(index)
            else:
                is_message = row["origin"].startswith(self._streams)
                if is_message and (of_message := message_events.details_of(reason)):
                    details[index] = of_message
                places = itertools.count(row["position"])
                placed = by_origin.setdefault(row["origin"], [])
                placed += [(e, place, index) for e, place in zip(events, places, strict=False)]
        # A transformer stamps one origin on all of its rows.
        for origin, placed in by_origin.items():
            transformer = Transformer(self._connect, FORMATS.JSON_LINES, origin)
            events_of = transformer.rows_of([e for e, _, _ in placed], [p for _, p, _ in placed])
            lines = [index for _, _, index in placed]
            events_of = message_events.with_details_of(
                events_of, [details.get(place) for place in lines]
            )
            events_of, breaching = self._conforming(events_of, lines)
            tables.append(events_of)
            unparsed += breaching
        return (pa.concat_tables(tables) if tables else None), table.take(
            pa.array(sorted(unparsed), pa.int64())
        )

    def _conforming(self, events: pa.Table, lines: list[int]) -> tuple[pa.Table, list[int]]:
        """Return the rows that breach no contract, and the lines of the others; `lines` are those
        of all rows. As when it was ingested, a line of several events stays whole."""
        if not self._conformance or not events.num_rows:
            return events, []
        counts = Counter(lines)
        reasons = self._conformance.reasons(self._connect(), events)
        breaching = {row for row in reasons if counts[lines[row]] == 1}
        stays = [row not in breaching for row in range(events.num_rows)]
        return events.filter(pa.array(stays)), [lines[row] for row in breaching]


def _rules(store: Store, state: Manifest, form: str | None) -> Rules:
    """The definitions by origin: a format, nothing, or a time zone alone."""
    formats = LakeFormat.of_state(store, state)
    requested = LakeFormat.resolve(form, formats) if form is not None else None
    of_origin: dict[str, FormatDefinition | None] = {}
    if requested is None and formats:
        for cursor in FileCursor.of_state(store, state):
            of_origin[cursor.origin] = LakeFormat.of_cursor(formats, cursor)
    return lambda origin: requested or of_origin.get(origin)


def _form(rule: FormatDefinition | None, head: bytes) -> Format:
    """The format of a line: by its definition, else detected."""
    # Quarantine has text, decoded as far as its encoding was known; ISO-2022 is ASCII without it.
    is_text = not head.isascii()
    if rule and is_text:
        rule = replace(rule, encoding="")
    name = FORMATS.name_of(rule) if rule else ""
    if not name:
        name = FORMATS.completed(FORMATS.name_in(rule, head, head, "line.json"), rule)
    return FORMATS.by_name(FORMATS.in_encoding(name, "utf-8") if is_text else name)


def _parse(
    rule: FormatDefinition | None, line: str, reason: str, type_: str | None
) -> list[dict[str, Any]] | None:
    """Return the events of a line, None if it is none, or not stored byte for byte."""
    try:
        record = line.encode()
        # What was cut, escaped or split is not what the file held: an event of it would be wrong.
        if not record or len(record) in _CUT or reason.startswith(("not UTF-8", _PARTS)):
            return None
        # As its id is known it would count as stored, and be in no place any more.
        if reason in (maintain.Sealer.TAKEN, maintain.Sealer.TAKEN_VERSION):
            return None
        events = _form(rule, record).events(record)
        for event in events:
            if type_ is not None and event.get("type") in (None, Format.DEFAULT_TYPE):
                event["type"] = type_
        # Refused here, a line stays in quarantine; later it would fail the whole replay.
        EncodedBatch.of(events)
        return events
    except (InvalidEvent, UnicodeEncodeError):
        return None
