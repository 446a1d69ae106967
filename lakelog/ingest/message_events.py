"""What one message of a stream is as an event: its time, type, subject and details."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.ingest.chunk_result import ChunkResult, RejectedLine
from lakelog.ingest.stream_cursor import Mark
from lakelog.ingest.transform import readable
from lakelog.libraries import np, pa, pc
from lakelog.lines import Overlong, Source, refusal

PLACES = 4096
"""Positions of one message; one with more events has an origin of its own."""
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

    def mark(self, number: int) -> Mark:
        """Return what its stream is known again by, `number` being how many messages it has had."""
        return Mark(self.position, self.fingerprint(), number)


@dataclass(frozen=True)
class ParsedMessages:
    """Rows, which message each is of, and (message, reason, line) of what is none."""

    table: Any
    index: np.ndarray
    bad: list[tuple[int, str, str]]


def as_one_line(value: bytes) -> bytes:
    """A value whose lines are one, if it is one JSON document over several."""
    if b"\n" in value and value.lstrip()[:1] in (b"{", b"["):
        try:
            orjson.loads(value)
        except ValueError:
            return value
        # JSON has line breaks between its tokens only.
        return value.translate(_BREAKS)
    return value


def why_no_lines(value: bytes) -> str:
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


def rejected_pieces(value: bytes) -> list[tuple[str, str]]:
    """The reasons and texts of the parts of a value that is too long."""
    rejections, position = list[tuple[str, str]](), 0
    while position < len(value):
        stop = min(position + Source.PART, len(value))
        stop = stop if stop == len(value) else Overlong.end(value, stop)
        reason = (
            f"a line of over {Source.LINE_MAX:,} bytes is too long: part {len(rejections) + 1:,}"
        )
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


def with_reason(reason: str, message: Message) -> str:
    """A reason with the details of its message, which `details_of` finds in it."""
    return f'{reason}; {{"{message.word}":{message.details.decode()}}}'


def are_single_events(parsed: ParsedMessages, count: int) -> list[bool]:
    """Whether each of so many messages is one event and nothing else."""
    counts = np.bincount(parsed.index, minlength=count)
    counts[[number for number, _, _ in parsed.bad]] = 0
    return [*(counts == 1)]


def located_rows(
    messages: Sequence[Message], parsed: ParsedMessages, began: int, origins: Mapping[str, str]
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
        details = with_reason(reason, messages[number])
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
