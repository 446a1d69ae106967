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

What the lake has of messages that their server sends once more.

A row is the same if it stands at the same place of its stream, in whatever incarnation, and has the
same content. Times are not compared: of messages without one they are those of the arrival.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lakelog import database
from lakelog.entries import Entry
from lakelog.errors import InvalidSetting
from lakelog.formats import FORMATS, Format
from lakelog.ingest.batch import Batch, CursorMoved, Job
from lakelog.ingest.chunk_result import ChunkResult, RejectedLine
from lakelog.ingest.conformance import Conformance
from lakelog.ingest.definitions import LakeFormat
from lakelog.ingest.message_events import (
    Message,
    ParsedMessages,
    are_single_events,
    as_one_line,
    located_rows,
    rejected_pieces,
    why_no_lines,
    with_reason,
)
from lakelog.ingest.stream_cursor import StreamCursor
from lakelog.ingest.transform import readable
from lakelog.libraries import np, pa
from lakelog.lines import Chunk, Source
from lakelog.manifest import Manifest
from lakelog.moves import Change
from lakelog.protect import sealed_blocks
from lakelog.refs import Head
from lakelog.segments import rows_sql
from lakelog.store import Hosts
from lakelog.values import to_micros

TOMBSTONE, EMPTY = "message.tombstone", "message.empty"
_SAMPLE = 1 << 18
_WITH_HEADERS = ("csv", "zeek", "w3c", "bulk", "parquet", "arrow")
"""Formats whose lines mean nothing without those before them; a message stands for itself."""


class MessageBatch:
    """Messages that are parsed and published together. Close it when done."""

    Moved = CursorMoved
    """Raised where another process was faster, or the branch was rewound."""

    def __init__(self, job: Job) -> None:
        """Read the cursors; `job.label` is the source of events that name none."""
        self._job = job
        # Taken before anything is read: the publish compares the cursors of now with these.
        self._batch = Batch(job)
        self.cursors: Mapping[str, StreamCursor] = StreamCursor.of_state(
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
        values = [as_one_line(message.value or b"") for message in messages]
        form_name, form = self._format(messages[0].stream, name, values, is_retry)
        began = to_micros(datetime.now(UTC))
        parsed = self._parse(messages, values, form)
        result, of_row = located_rows(
            messages, parsed, began, {key: cursor.origin for key, cursor in self._moves.items()}
        )
        if self._job.conformance and result.table is not None:
            alone = are_single_events(parsed, len(messages))
            self._quarantine_breaches(
                result, [messages[number] if alone[number] else None for number in of_row]
            )
        repeated = 0
        if is_retry:
            repeated = drop_stored(self._job, self._batch.state, messages[0].stream, result)
            self._repeated += repeated
            # What was erased is known by its place under the name that the stream had at first.
            cursor = self._moves[messages[0].stream]
            for origin in {line.origin for line in result.bad}:
                first_origin = cursor.key + origin.removeprefix(cursor.origin)
                self._batch.note_earlier(origin, [first_origin])
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
                host=Hosts.own_name(),
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

        def stand(state: Manifest) -> bool:
            cursors_now = StreamCursor.of_state(job.store, state)
            return all(cursors_now.get(key) == self.cursors.get(key) for key in moves)

        return batch.publish(lambda _: Change("ingest", name, tuple(entries)), stand)

    def close(self) -> None:
        """End the threads that encode and write."""
        self._batch.close()

    def cursor(self, stream: str) -> StreamCursor | None:
        """The cursor of a stream as it will be published."""
        return self._moves.get(stream) or self.cursors.get(stream)

    def _format(
        self, stream: str, name: str, values: list[bytes], is_retry: bool
    ) -> tuple[str, Format]:
        """The format that was asked for or that the lake defines; else the one detected, which is
        final once there were enough bytes."""
        job, cursor = self._job, self.cursor(stream)
        definition = job.definition(name)
        format_name = FORMATS.name_of(definition) if definition else ""
        forced = bool(format_name)
        if FORMATS.bare(format_name) in _WITH_HEADERS:
            raise InvalidSetting(
                f"{format_name} needs the lines before a line: messages cannot be of that format"
            )
        sample = b"\n".join(values[: 1 << 10])[:_SAMPLE] + b"\n"
        if not format_name:
            last_format = cursor.form if cursor and cursor.form else FORMATS.LAST
            is_open = FORMATS.is_last(last_format) or LakeFormat.is_gone(last_format, job.formats)
            # What was read before is compared with its rows, which that format gave.
            is_settled = (is_retry or (cursor and cursor.bytes >= Source.WINDOW)) and not is_open
            detected = last_format if is_settled else FORMATS.name_in(definition, b"", sample, name)
            detected = FORMATS.LAST if detected in _WITH_HEADERS else detected
            format_name = FORMATS.completed(detected, definition)
        form = FORMATS.specialize(FORMATS.by_name(format_name), sample)
        return format_name, FORMATS.tolerant(form, name, forced=forced)

    def _parse(
        self, messages: Sequence[Message], values: list[bytes], form: Format
    ) -> ParsedMessages:
        lines, special, bad = list[int](), list[int](), list[tuple[int, str, str]]()
        for number, value in enumerate(values):
            if not value.strip():
                special.append(number)
            elif reason := why_no_lines(value):
                bad.append((number, reason, base64.b64encode(value).decode()))
            elif len(value) > Source.LINE_MAX:
                bad += [(number, *rejected) for rejected in rejected_pieces(value)]
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
        return ParsedMessages(pa.concat_tables(tables) if tables else None, index, bad)

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
                line = readable(as_one_line(message.value or b""))
                result.bad.append(
                    RejectedLine(position, with_reason(reason, message), line, origin)
                )
                stays[row] = False
        result.table = table.filter(pa.array(stays))

    def _special(self, message: Message) -> dict[str, Any]:
        """The event of a message without content."""
        event: dict[str, Any] = {"source": self._job.label}
        if message.value is None:
            return event | {"type": TOMBSTONE}
        blank = {"data": {"value": message.value.decode()}} if message.value else {}
        return event | {"type": EMPTY} | blank


_TEXTS = ("type", "category", "source", "subject", "level", "message", "data", "id")
_EVENT = "hash((" + ", ".join(f"coalesce({name}::VARCHAR, '')" for name in _TEXTS) + "))"


def drop_stored(job: Job, state: Manifest, stream: str, result: ChunkResult) -> int:
    """Take rows and bad lines of a stream that a state has out of a result; return how many.

    Raises DamagedSegment.
    """
    segments = [
        e for e in job.store.manifests.segments(state) if e.kind in ("events", "quarantine")
    ]
    job.store.verified.require(segments)
    paths, before = job.store.paths, 0
    with closing(job.connect().cursor()) as cursor:
        events = [e for e in segments if e.kind == "events"]
        if result.table is not None and events:
            before += result.table.num_rows
            # What was read again is plain: of sealed rows no content would be equal to it.
            keys = [entry.key for entry in events]
            plain_rows = sealed_blocks.opened_sql(paths, rows_sql(paths, events), keys)
            rows = f"SELECT * FROM ({plain_rows})"
            stays = _places(cursor, stream, rows, result.table, _EVENT)
            result.table = result.table.take(pa.array(stays, pa.int64()))
            before -= result.table.num_rows
        lines = [e for e in segments if e.kind == "quarantine"]
        if result.bad and lines:
            before += len(result.bad)
            files = database.parquet_sql(paths.object("segments", e.key) for e in lines)
            rows = sealed_blocks.opened_lines_sql(paths, f"SELECT * FROM {files}")
            names = ("origin", "position", "line")
            table = pa.table({name: [getattr(bad, name) for bad in result.bad] for name in names})
            stays = _places(cursor, stream, rows, table, "hash(line)")
            result.bad = [result.bad[number] for number in stays]
            before -= len(result.bad)
    return before


def _places(cursor: Any, stream: str, rows: str, table: pa.Table, content: str) -> list[int]:
    """The places of rows that are not among the stored `rows`, by their `content` as SQL."""
    # What follows the stream's key and the incarnation: see F19.3.
    place = f"regexp_replace(substr(origin, {len(stream) + 1}), '^#[0-9a-f]+', '')"
    cursor.register("read_again", table.append_column("nth", pa.array(range(table.num_rows))))
    low, high = (f"(SELECT {name}(position) FROM read_again)" for name in ("min", "max"))
    matches = cursor.execute(
        f"""WITH stored AS (SELECT {place} AS place, position, {content} AS content
            FROM ({rows}) WHERE starts_with(origin, $1) AND position BETWEEN {low} AND {high})
        SELECT nth FROM (SELECT nth, {place} AS place, position, {content} AS content
            FROM read_again) ANTI JOIN stored USING (place, position, content) ORDER BY nth""",
        [stream],
    ).fetchall()
    cursor.unregister("read_again")
    return [nth for (nth,) in matches]
