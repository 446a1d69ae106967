"""Messages of streams to rows, published together with the streams' cursors.

A message is parsed like a small file: its lines are events by the format that fits the stream.
Nothing of it is lost:

    an event                      a row; key, headers and place are in the member of `data` that is
                                  named for the system, the key is the subject if there is none,
                                  and the message's time is the event's if that has none
    no value, an empty value      a row of type message.tombstone, message.empty
    not parsed, binary, too long  quarantined, with the place and the key in the reason, from where
                                  a replay takes them
    breach of a contract          the same, if the message is one event

A row's origin is the stream's, its position 4,096 times the message's number there, and on from
that. So a message that is read again after a rollback gives the same rows.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from lakelog.errors import InvalidSetting, StaleFiles
from lakelog.event.encode import to_micros
from lakelog.files.binary import refusal
from lakelog.files.cursors import WINDOW
from lakelog.files.source import LINE_MAX, PART, Chunk, between_characters
from lakelog.formats import registry
from lakelog.formats.format import Format
from lakelog.ingest import definitions, stream_cursor
from lakelog.ingest.batch import Batch, CursorMoved, Job
from lakelog.ingest.chunk_result import ChunkResult, RejectedLine
from lakelog.ingest.conformance import Conformance
from lakelog.ingest.stored_messages import drop_stored
from lakelog.ingest.stream_cursor import StreamCursor
from lakelog.ingest.transform import readable
from lakelog.libraries import np, pa, pc
from lakelog.store import hosts
from lakelog.store.entry import Entry
from lakelog.store.manifest import Manifest
from lakelog.store.publish import Change, publish
from lakelog.store.ref import Head

TOMBSTONE, EMPTY = "message.tombstone", "message.empty"
PLACES = 4096
"""Positions of one message; one with more events has an origin of its own."""
_SAMPLE = 1 << 18
_WITH_HEADERS = ("csv", "zeek", "w3c", "bulk", "parquet", "arrow")
"""Formats whose lines mean nothing without those before them; a message stands for itself."""
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_DETAILS = re.compile(r'; (\{"(\w+)":\{)')
_BREAKS = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as its server has it.

    `stream` is the key of its cursor, `position` what that says once the message is consumed, and
    `number` its place in the stream, which only grows within an `era` and is below 2^51.
    `time` is in us. `details` is a JSON object of where it stood, its key and its headers; `word`
    names it in `data`.
    """

    stream: str
    position: str
    number: int
    value: bytes | None
    key: bytes | None
    time: int | None
    details: bytes
    word: str
    era: str = ""
    """What the origin ends in, where numbers of one stream begin again."""

    def fingerprint(self) -> str:
        """A short hash of its content, and of where it stood."""
        content = self.details + b"\0" + (self.value or b"")
        return hashlib.blake2b(content, digest_size=6).hexdigest()


class MessageBatch:
    """Messages that are parsed and published together. Close it when done."""

    def __init__(self, job: Job) -> None:
        """Read the cursors; `job.label` is the source of events that name none."""
        self._job = job
        # Taken before anything is read: the publish compares the cursors of now with these.
        self._batch = Batch(job)
        self.cursors: Mapping[str, StreamCursor] = stream_cursor.of_state(
            job.store, self._batch.state
        )
        self._moves: dict[str, StreamCursor] = {}
        self._repeated = 0

    @property
    def rows(self) -> int:
        """New events; complete after `publish`."""
        return self._batch.rows

    @property
    def known(self) -> int:
        """Events that the lake has, by their id or as messages that were read again."""
        return self._batch.skipped + self._repeated

    @property
    def bad(self) -> list[RejectedLine]:
        """Quarantined lines."""
        return self._batch.bad

    def add(self, messages: Sequence[Message], name: str, *, is_retry: bool = False) -> None:
        """Parse messages of the topic or stream `name`, in their order.

        With `is_retry` they are of one stream that was read before, and may be in the lake: what it
        has is neither stored nor counted as consumed.
        """
        if not messages:
            return
        values = [_flat(message.value or b"") for message in messages]
        form_name, form = self._format(messages[0].stream, name, values, is_retry)
        began = to_micros(datetime.now(UTC))
        parsed = self._parse(messages, values, form)
        result, of_row = _located(messages, parsed, began, self._origins())
        if self._job.conformance and result.table is not None:
            alone = _alone(parsed, len(messages))
            self._quarantine_breaches(
                result, [messages[number] if alone[number] else None for number in of_row]
            )
        repeated = 0
        if is_retry:
            repeated = drop_stored(self._job, self._batch.state, messages[0].stream, result)
            self._repeated += repeated
        self._batch.take(result)
        by_stream = dict[str, list[Message]]()
        for message in messages:
            by_stream.setdefault(message.stream, []).append(message)
        for stream, values_read in by_stream.items():
            cursor = self._moves[stream]
            self._moves[stream] = replace(
                cursor,
                position=values_read[-1].position,
                messages=cursor.messages + max(0, len(values_read) - repeated),
                bytes=cursor.bytes + sum(len(message.value or b"") for message in values_read),
                form=form_name,
                time=next(
                    (m.time for m in reversed(values_read) if m.time is not None), cursor.time
                ),
                host=hosts.host_name(),
            )

    def move(self, cursor: StreamCursor) -> None:
        """Publish this cursor; messages that are added later move it on."""
        self._moves[cursor.key] = cursor

    def publish(self, name: str) -> Head | None:
        """Publish rows, quarantined lines and cursors as one move; None if nothing changed.

        Raises CursorMoved if another consumer was faster or the branch was rewound: read the
        cursors again.
        """
        moves = {k: c for k, c in self._moves.items() if self.cursors.get(k) != c}
        if not moves:
            return None
        batch, job = self._batch, self._job
        entries: list[Entry] = [*batch.write(), *(cursor.entry() for cursor in moves.values())]
        ids = tuple(batch.id_run())

        def plan(head: Head, state: Manifest) -> Change | None:
            if head.digest != batch.base.digest:
                cursors_now = stream_cursor.of_state(job.store, state)
                # After a rewind the cursors may be equal though the rows they counted are gone.
                is_rewound = head.move.generation != batch.base.move.generation
                is_moved = any(cursors_now.get(key) != self.cursors.get(key) for key in moves)
                if is_rewound or is_moved or batch.clashes(state):
                    return None
            return Change("ingest", name, tuple(entries), ids_add=ids, is_right=batch.is_first)

        try:
            head = publish(job.store, job.branch, plan)
        # This process slept, and garbage collection took what it had written.
        except StaleFiles:
            head = None
        if head is None:
            raise CursorMoved
        return head

    def close(self) -> None:
        """End the threads that encode and write."""
        self._batch.close()

    def cursor(self, stream: str) -> StreamCursor | None:
        """The cursor of a stream as it will be published."""
        return self._moves.get(stream) or self.cursors.get(stream)

    def _origins(self) -> dict[str, str]:
        return {key: cursor.origin for key, cursor in self._moves.items()}

    def _format(
        self, stream: str, name: str, values: list[bytes], is_retry: bool
    ) -> tuple[str, Format]:
        """The format that was asked for or that the lake defines; else the one detected, which is
        final once there were enough bytes."""
        job, cursor = self._job, self.cursor(stream)
        definition = job.definition(name)
        format_name = definitions.form_name(definition) if definition else ""
        forced = bool(format_name)
        if format_name.partition("@")[0] in _WITH_HEADERS:
            raise InvalidSetting(
                f"{format_name} needs the lines before a line: messages cannot be of that format"
            )
        sample = b"\n".join(values[: 1 << 10])[:_SAMPLE] + b"\n"
        if not format_name:
            last_format = cursor.form if cursor and cursor.form else registry.LAST
            is_open = registry.is_last(last_format) or definitions.is_gone(last_format, job.formats)
            # What was read before is compared with its rows, which that format gave.
            is_settled = (is_retry or (cursor and cursor.bytes >= WINDOW)) and not is_open
            format_name = last_format if is_settled else registry.detect(b"", sample, name).NAME
            format_name = registry.LAST if format_name in _WITH_HEADERS else format_name
            if definition and definition.zone:
                format_name = registry.in_zone(format_name, definition.zone)
        form = registry.specialize(registry.by_name(format_name), sample)
        return format_name, registry.tolerant(form, name, forced=forced)

    def _parse(self, messages: Sequence[Message], values: list[bytes], form: Format) -> _Parsed:
        lines, special, bad = list[int](), list[int](), list[tuple[int, str, str]]()
        for number, value in enumerate(values):
            if not value.strip():
                special.append(number)
            elif reason := _refusal(value):
                bad.append((number, reason, base64.b64encode(value).decode()))
            elif len(value) > LINE_MAX:
                bad += [(number, *rejected) for rejected in _parts(value)]
            else:
                lines.append(number)
        data = b"".join([values[number] + b"\n" for number in lines])
        sizes = np.fromiter((len(values[number]) + 1 for number in lines), np.int64, len(lines))
        starts = np.cumsum(sizes) - sizes
        begins = starts.tolist()
        # Each message begins a file: no record goes on in the next one, no time is carried to it.
        files = dict.fromkeys(begins, b"")
        chunk = Chunk(data, 0, seams=tuple(begins[1:]))
        # A contract is that of the whole payload, with the details of its message.
        job = replace(self._job, mode="last", conformance=Conformance({}))
        transformer = job.transformer(form, "", files=files)
        result = transformer.run(chunk, final=True) if lines else ChunkResult()
        which = np.array(lines, np.int64)
        index: np.ndarray = np.empty(0, np.int64)
        if result.table is not None:
            index = which[np.searchsorted(starts, result.table["position"], "right") - 1]
        for line in result.bad:
            number = int(which[np.searchsorted(starts, line.position, "right") - 1])
            bad.append((number, line.reason, line.line))
        # What gave nothing, such as an empty list, is there all the same.
        silent = np.setdiff1d(which, np.concatenate([index, np.array([b[0] for b in bad], int)]))
        bad += [
            (number, "it holds no event", readable(values[number])) for number in silent.tolist()
        ]
        tables = [result.table] if result.table is not None else []
        if special:
            tables.append(
                transformer.rows_of([self._special(messages[i]) for i in special], special)
            )
            index = np.concatenate([index, np.array(special, np.int64)])
        return _Parsed(pa.concat_tables(tables) if tables else None, index, bad)

    def _quarantine_breaches(self, result: ChunkResult, whole: list[Message | None]) -> None:
        """Make rows that breach a contract bad lines; `whole` has the messages of those rows that
        are all of their message, as a message is ingested completely or not at all."""
        table = result.table
        stays = np.ones(table.num_rows, dtype=bool)
        for row, reason in sorted(
            self._job.conformance.reasons(self._job.connect(), table).items()
        ):
            message = whole[row]
            if message is not None:
                origin, position = table["origin"][row].as_py(), table["position"][row].as_py()
                line = readable(_flat(message.value or b""))
                result.bad.append(RejectedLine(position, _placed(reason, message), line, origin))
                stays[row] = False
        result.table = table.filter(pa.array(stays))

    def _special(self, message: Message) -> dict[str, Any]:
        """The event of a message without content."""
        event: dict[str, Any] = {"source": self._job.label}
        if message.value is None:
            return event | {"type": TOMBSTONE}
        blank = {"data": {"value": message.value.decode()}} if message.value else {}
        return event | {"type": EMPTY} | blank


@dataclass(frozen=True)
class _Parsed:
    """Rows, which message each is of, and (message, reason, line) of what is none."""

    table: Any
    index: np.ndarray
    bad: list[tuple[int, str, str]]


def _flat(value: bytes) -> bytes:
    """A value whose lines are one, if it is one JSON document over several."""
    if b"\n" in value and value.lstrip()[:1] in (b"{", b"["):
        try:
            orjson.loads(value)
        except ValueError:
            return value
        # JSON has line breaks between its tokens only.
        return value.translate(_BREAKS)
    return value


def _refusal(value: bytes) -> str:
    """Why a value cannot be lines; empty if it may be."""
    if b"\0" not in value:
        try:
            value.decode()
            return ""
        except UnicodeDecodeError:
            # It may still be text of an older encoding.
            if not _NO_TEXT.search(value) and not refusal(value):
                return ""
    return "binary, here in base64"


def _parts(value: bytes) -> list[tuple[str, str]]:
    """The reasons and texts of the parts of a value that is too long."""
    rejections, position = list[tuple[str, str]](), 0
    while position < len(value):
        stop = min(position + PART, len(value))
        stop = stop if stop == len(value) else between_characters(value, stop)
        reason = f"a line of over {LINE_MAX:,} bytes is too long: part {len(rejections) + 1:,}"
        rejections.append((reason, readable(value[position:stop])))
        position = stop
    return rejections


def details_of(reason: str) -> tuple[str, str] | None:
    """The word and the details of the message that was quarantined for a reason, None if it was
    none."""
    for match in _DETAILS.finditer(reason):
        with contextlib.suppress(ValueError):
            orjson.loads(reason[match.start(1) :])
            return match[2], reason[match.end(2) + 2 : -1]
    return None


def _placed(reason: str, message: Message) -> str:
    return f'{reason}; {{"{message.word}":{message.details.decode()}}}'


def _alone(parsed: _Parsed, count: int) -> list[bool]:
    """Whether each of so many messages is one event and nothing else."""
    counts = np.bincount(parsed.index, minlength=count)
    counts[[number for number, _, _ in parsed.bad]] = 0
    return [*(counts == 1)]


def _located(
    messages: Sequence[Message], parsed: _Parsed, began: int, origins: Mapping[str, str]
) -> tuple[ChunkResult, Any]:
    """Rows and bad lines with the places, keys and times of their messages, in their order; and the
    index of each row's message."""
    bad = sorted(parsed.bad, key=lambda each: each[0])
    index, table = parsed.index, parsed.table
    order = np.argsort(index, kind="stable")
    index = index[order]
    of_bad = np.array([number for number, _, _ in bad], np.int64)
    every = np.concatenate([index, of_bad])
    counts = np.bincount(every, minlength=len(messages))
    # Numbered from 0 in each message, rows first.
    by_message = np.argsort(every, kind="stable")
    firsts = np.cumsum(counts) - counts
    nth = np.empty(len(every), np.int64)
    nth[by_message] = np.arange(len(every)) - firsts[every[by_message]]
    homes = [
        (origins[m.stream] + m.era, m.number * PLACES)
        if counts[i] <= PLACES
        else (f"{origins[m.stream]}/{m.position}", 0)
        for i, m in enumerate(messages)
    ]
    result = ChunkResult(lines=len(messages))
    for (number, reason, line), place in zip(bad, nth[len(index) :].tolist(), strict=True):
        origin, base = homes[number]
        details = _placed(reason, messages[number])
        result.bad.append(RejectedLine(base + place, details, line, origin))
    if table is not None:
        bases = np.array([base for _, base in homes], np.int64)
        table = _filled(table.take(pa.array(order)), messages, index, began)
        result.table = _with(
            table,
            position=pa.array(bases[index] + nth[: len(index)]),
            origin=pa.array([origin for origin, _ in homes]).take(pa.array(index)),
        )
    return result, index


def _filled(
    table: pa.Table, messages: Sequence[Message], index: np.ndarray, began: int
) -> pa.Table:
    """Rows with what their messages say where they say nothing."""
    times = table["time"].cast("int64").to_numpy().copy()
    # A time from after the message was read is that of the parsing: the event had none.
    of_message = np.array([-1 if m.time is None else m.time for m in messages], np.int64)[index]
    is_untimed = (times >= began) & (of_message >= 0)
    times[is_untimed] = of_message[is_untimed]
    keys = pa.array([_subject(m.key) for m in messages], pa.string()).take(pa.array(index))
    details = [m.details.decode() for m in messages]
    payloads = [
        _with_details(payload, messages[number].word, details[number])
        for payload, number in zip(table["data"].to_pylist(), index.tolist(), strict=True)
    ]
    return _with(
        table,
        time=pa.array(times).cast(table["time"].type),
        subject=pc.coalesce(table["subject"].cast(pa.string()), keys),
        data=pa.array(payloads, pa.large_string()),
    )


def _with(table: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        column_index = table.schema.get_field_index(name)
        table = table.set_column(
            column_index, name, values.cast(table.schema.field(column_index).type)
        )
    return table


def _with_details(payload: str | None, word: str, details: str) -> str:
    """A payload with the details of its message, under a name that it does not use."""
    if not payload or payload in ("{}", "null"):
        return f'{{"{word}":{details}}}'
    while f'"{word}"' in payload:
        word += "_"
    if not payload.startswith("{"):
        return f'{{"value":{payload},"{word}":{details}}}'
    return f'{payload[:-1]},"{word}":{details}}}'


def with_details_of(table: pa.Table, details: list[tuple[str, str] | None]) -> pa.Table:
    """Rows with the word and details of their messages in their payloads."""
    if not any(details):
        return table
    payloads = [
        _with_details(payload, *of_message) if of_message else payload
        for payload, of_message in zip(table["data"].to_pylist(), details, strict=True)
    ]
    return _with(table, data=pa.array(payloads, pa.large_string()))


def _subject(key: bytes | None) -> str | None:
    """A key as text, if it is text."""
    try:
        subject = key.decode() if key else None
    except UnicodeDecodeError:
        return None
    return subject if subject and subject.isprintable() else None


def text_or_base64(data: bytes) -> Any:
    """Bytes as JSON has them: as text, or an object that names their encoding."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def time_or_none(milliseconds: int) -> int | None:
    """A server's time in us, None for what is no time, such as a chosen id of Redis."""
    micros = milliseconds * 1000
    # From 2000 on, and within what an event can have.
    return micros if 946_684_800_000_000 <= micros < 253_402_300_800_000_000 else None
