"""A preview of the first lines of a file: the format, why it was chosen, and every field."""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from lakelog import arrays
from lakelog.database import Connect
from lakelog.errors import InvalidEvent
from lakelog.files import printable
from lakelog.formats import FORMATS, Format, FormatDefinition
from lakelog.ingest.definitions import Formats, LakeFormat
from lakelog.ingest.spool import BUSY, Spool
from lakelog.ingest.transform import Transformer, readable
from lakelog.lines import Chunk, Source, visible
from lakelog.values import parse_value

SAMPLE = 256 << 10
"""Bytes of a file that are read for a preview."""
_COLUMNS = ("time", "type", "category", "source", "subject", "level", "message", "id")
_SHOWN = 400
"""Characters of a line that are shown."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one line, or of the lines of one record: an event, or a quarantined line.

    `timeless` says that the line has no time of its own, so that it gets that of ingest.
    """

    line: int
    offset: int
    text: str
    event: dict[str, Any] | None = None
    data: Any = None
    timeless: bool = False
    reason: str = ""
    fits: str = ""
    """The text that the longest fitting part of the pattern matches, of a line that does not
    fit."""
    then: str = ""
    """The part of the pattern that comes next."""


@dataclass(frozen=True)
class Preview:
    """The format of a file, why it was chosen, how sure others are, and what its lines become.

    `events`, `quarantined` and `arrivals` (events without a time of their own) count all of the
    sample, `outcomes` show the first of it. `groups`
    say where the groups of a pattern go, `note` which time zone abbreviations are ambiguous.
    """

    file: str
    format: str
    why: str
    scores: list[tuple[str, float]]
    lines: int
    events: int
    quarantined: int
    arrivals: int
    outcomes: list[Outcome]
    groups: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""

    @classmethod
    def of(
        cls,
        path: str,
        connect: Connect,
        *,
        formats: Formats,
        requested: FormatDefinition | None = None,
        label: str | None = None,
        count: int = 5,
    ) -> Preview:
        """Read the beginning of a file (- is stdin) as an ingest would, and store nothing.

        `requested` is the definition that a user requested, `formats` those of the lake. Raises
        OSError, InvalidSetting.
        """
        data, whole = _beginning(path)
        head = data[: Source.WINDOW]
        name, why = _choose(path, head, data, formats, requested, label)
        # The same three steps as in an ingest, so that the preview cannot differ from it.
        form = FORMATS.specialize(FORMATS.by_name(name), head or data)
        form = FORMATS.tolerant(form, path, forced=requested is not None)
        run = Transformer(connect, form, "preview", label).run(
            Chunk(data, 0, whole and not data.endswith(b"\n")), final=whole
        )
        outcomes = _outcomes(run, data, count, form)
        events = run.table.num_rows if run.table is not None else 0
        return cls(
            printable(path),
            form.label,
            why,
            _scores(data, form, formats),
            data.count(b"\n"),
            events,
            len(run.bad),
            int(arrays.arrived(run.table).sum()) if run.table is not None else 0,
            outcomes,
            list(form.groups),
            FORMATS.zone_note(form, head),
        )


def _beginning(path: str) -> tuple[bytes, bool]:
    """The first whole lines of a file, decompressed, and whether they are all of it."""
    data = visible(_piped() if path == "-" else _read(path))
    if len(data) <= SAMPLE:
        return data, True
    # Cut at a line: half a line would look like a line that no format fits.
    return data[: data.rfind(b"\n", 0, SAMPLE) + 1] or data[:SAMPLE], False


def _read(path: str) -> bytes:
    with closing(Source(path)) as source:
        return source.read(SAMPLE + 1)


def _piped() -> bytes:
    """The beginning of standard input, which is decompressed and decoded as that of a file is."""
    if sys.stdin is None:
        raise OSError("standard input is closed")
    with closing(Spool(sys.stdin.buffer, tempfile.gettempdir(), bool)) as spool:
        while spool.size <= SAMPLE and not spool.is_ended:
            spool.pull(BUSY)
        with closing(Source(spool.path)) as source:
            is_packed = bool(source.compression)
        # Of some files the end says how the beginning is read.
        if is_packed:
            spool.fill_all()
        return _read(spool.path)


def _choose(
    path: str,
    head: bytes,
    data: bytes,
    formats: Formats,
    requested: FormatDefinition | None,
    label: str | None,
) -> tuple[str, str]:
    """The name of the format, and why it is that one."""
    lake_definition = None if requested else LakeFormat.find(formats, path, label)
    definition = lake_definition.definition if lake_definition else requested
    name = FORMATS.name_of(definition) if definition else ""
    if name and lake_definition:
        return name, f"this lake's {lake_definition.name} is for {_files(lake_definition, label)}"
    if name:
        return name, "as asked for"
    name, why = FORMATS.name_in(definition, head, data, path), "it fits the first lines best"
    if name == FORMATS.LAST:
        why = "no other format fits the first lines"
    if definition and definition.zone:
        why = f"{why}; {definition.zone} for times that name no zone"
    if definition and definition.encoding:
        why = f"{why}; {definition.encoding}"
    return FORMATS.completed(name, definition), why


def _files(form: LakeFormat, label: str | None) -> str:
    if label is not None and label in form.sources:
        return f"--source {label}"
    return ", ".join(form.globs)


def _scores(data: bytes, form: Format, formats: Formats) -> list[tuple[str, float]]:
    """The score of each format for the first lines, the best first, without those of 0."""
    # Only patterns have a rule of their own; a renamed built-in format is in the list already.
    own_scores = {
        name: FORMATS.by_name(form_.definition.spelled())
        for name, form_ in formats.items()
        if form_.definition.pattern
    }
    sure = FORMATS.scores(data, {**own_scores, form.label: form})
    ranked = sorted(sure.items(), key=lambda pair: -pair[1])
    return [(name, round(score, 3)) for name, score in ranked if score > 0]


def _outcomes(run: Any, data: bytes, count: int, form: Format) -> list[Outcome]:
    """The first records of a run, in the order of the file."""
    rows = run.table.slice(0, count).to_pylist() if run.table is not None else []
    pairs = [(row["position"], row) for row in rows]
    pairs += [(bad.position, bad) for bad in sorted(run.bad, key=lambda b: b.position)[:count]]
    outcomes = []
    for position, record in sorted(pairs, key=lambda pair: pair[0])[:count]:
        end = data.find(b"\n", position)
        text = readable(data[position : end if end >= 0 else len(data)])[:_SHOWN]
        line = data.count(b"\n", 0, position) + 1
        if isinstance(record, dict):
            event = {name: record[name] for name in _COLUMNS if record[name] is not None}
            timeless = record["time"] == record["ingested_at"]
            outcomes.append(Outcome(line, position, text, event, _data(record["data"]), timeless))
        else:
            fits, next_name = form.reach(text.encode())
            reason = record.reason
            outcomes.append(Outcome(line, position, text, reason=reason, fits=fits, then=next_name))
    return outcomes


def _data(payload: str | None) -> Any:
    try:
        return parse_value(payload.encode()) if payload is not None else None
    except InvalidEvent:
        return payload
