"""Every sample of every format, by every way to read it: each field of its events."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.audit.audit import audit
from lakelog.cli import cli
from lakelog.formats import dialects, mixture, sqltext
from lakelog.formats.format import Format
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.samples import Event, Sample, all_samples, assert_events, samples_of

SAMPLES = all_samples()
NAMES = list(dict.fromkeys(sample.name for sample in SAMPLES))
WAYS = pytest.mark.parametrize("few", [0, 10_000], ids=["queries", "exact rule"])
TEXT = FORMATS.by_name("plain")
each = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.label)
readable = pytest.mark.parametrize(
    "sample",
    [s for s in SAMPLES if not s.reason and s.detected == s.name],
    ids=lambda sample: sample.label,
)


def test_every_declared_format_has_a_sample() -> None:
    """No format of text or of JSON lines is declared without a line that shows it."""
    declared = {*mixture.STYLES, *dialects.LINES} - {mixture.STYLES[-2]}
    assert {form.NAME for form in declared} <= set(NAMES)


def shown(rows: list[Event], started: dt.datetime) -> list[Event]:
    """Rows with their times as samples write them, None where it is that of the ingest."""
    now = dt.datetime.now(dt.UTC)
    times = [row["time"].astimezone(dt.UTC) for row in rows]
    return [
        row | {"time": None if started <= time <= now else time.replace(tzinfo=None).isoformat()}
        for row, time in zip(rows, times, strict=True)
    ]


class Reading:
    """What a chunk gives: rows by where they begin, why others are bad, and how many lines were
    decided one by one."""

    def __init__(self, engine: Any, form: Format, text: bytes, few: int) -> None:
        started, exact = dt.datetime.now(dt.UTC), Transformer._exact
        self.by_rule = 0

        def counted(transformer: Any, chunk: Any, starts: Any, slow: Any, *others: Any) -> Any:
            self.by_rule = len(slow)
            return exact(transformer, chunk, starts, slow, *others)

        with (
            mock.patch.object(transform, "FEW", few),
            mock.patch.object(Transformer, "_exact", counted),
        ):
            result = Transformer(lambda: engine, form, "o").run(Chunk(text, 0), final=True)
        table = [] if result.table is None else result.table.to_pylist()
        self.rows = shown(table, started)
        self.reasons = {bad.position: bad.reason for bad in result.bad}


def decided_by_rule(form: Format, samples: list[Sample]) -> int:
    """How many of the samples no query decides."""
    has_query = sqltext.none_sql("lines") != form.QUERY
    return sum(sample.by_rule or not has_query for sample in samples)


@WAYS
@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_line(engine: Any, name: str, few: int) -> None:
    """All lines of a format in one chunk give their events, by SQL as by the exact rule."""
    lines = [s for s in samples_of(name) if s.is_line and not s.reason and name != "plain"]
    form, text = FORMATS[name], b"".join(sample.content for sample in lines)
    reading = Reading(engine, form, text, few)
    places = itertools.accumulate((len(sample.content) for sample in lines), initial=0)
    assert not reading.reasons
    for place, sample in zip(places, lines, strict=False):
        rows = [row for row in reading.rows if row["position"] == place]
        assert_events(rows, sample.events)
    assert reading.by_rule == (len(lines) if few else decided_by_rule(form, lines))


@WAYS
@pytest.mark.parametrize(
    "sample",
    [s for s in SAMPLES if not s.is_line or s.reason or s.name == "plain"],
    ids=lambda sample: sample.label,
)
def test_every_field_of_a_file(engine: Any, sample: Sample, few: int) -> None:
    """A file of several lines gives its events, and what is none its reason, by every way."""
    form = FORMATS.specialize(FORMATS[sample.name], sample.content)
    tolerant = form if sample.reason else FORMATS.tolerant(form, sample.file, forced=False)
    reading = Reading(engine, tolerant, sample.content, few)
    assert_events(reading.rows, sample.events)
    assert [*reading.reasons.values()] == [sample.reason] * bool(sample.reason)


@each
def test_a_sample_is_detected(sample: Sample) -> None:
    """A text is taken for what it is, in colours of a terminal too if it is of one program, which
    no other program claims."""
    text = sample.content
    assert sample.detected == FORMATS.detect(text[:4096], text, sample.file).NAME
    if not sample.is_line:
        return
    programs = {form.NAME: form for form in mixture.PROGRAMS}
    if sample.name in programs:
        line = sample.text.encode()
        for other in (line + b"\r\n\tat a.b\n", b"\x1b[36m" + line + b"\x1b[0m\n"):
            assert sample.name == FORMATS.detect(other, other, sample.file).NAME
    sure = [n for n, form in programs.items() if form.sniff([sample.text.encode()])]
    assert sure == [sample.name] * (sample.name in programs)


@pytest.mark.parametrize(
    "sample",
    [
        sample
        for sample in SAMPLES
        if sample.is_line
        and not sample.reason
        and sample.name != "plain"
        and FORMATS[sample.name].traits.begins
        and not FORMATS[sample.name].traits.whole
    ],
    ids=lambda sample: sample.label,
)
def test_what_follows_a_line_stays_with_it(engine: Any, sample: Sample) -> None:
    """Lines that begin otherwise are one event with the line before them."""
    line, more = sample.text, "\tat a.b(C.java:1)\n  more: x"
    text = f"{line}\n{more}\n{line}\n".encode()
    reading = Reading(engine, FORMATS[sample.name], text, 10_000)
    message = sample.events[0].get("message")
    whole = "\n".join(filter(None, (message, more)))
    assert [row["message"] for row in reading.rows] == [whole, message]


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, lakelog.Lake]]:
    """Lakes that all samples share, by how many lines the exact rule takes for itself."""
    lakes = {
        few: lakelog.open(
            str(tmp_path_factory.mktemp("samples") / "lake"), settings={"seal": "never"}
        )
        for few in (0, transform.FEW)
    }
    yield lakes
    for lake in lakes.values():
        assert lake.verify().problems == ()
        lake.close()


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, transform.FEW])
@readable
def test_a_file_is_ingested(
    lakes: dict[int, lakelog.Lake],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sample: Sample,
    few: int,
) -> None:
    """A file of a sample, a line three times, gives all of its events; those with an id once."""
    monkeypatch.setattr(transform, "FEW", few)
    lake, started = lakes[few], dt.datetime.now(dt.UTC)
    times = 3 if sample.is_line and "id" not in sample.events[0] else 1
    path = tmp_path / sample.file
    path.write_bytes(sample.content * times)
    (file,) = lake.ingest(str(path)).files
    assert (file.format, file.quarantined) == (sample.name, 0)
    query = "SELECT * FROM events WHERE origin = ? ORDER BY position"
    rows = lake.sql(query, [file.begun_origin]).to_arrow_table().to_pylist()
    assert_events(shown(rows, started), sample.events * times)


def test_each_line_of_a_sample_is_there_once(lakes: dict[int, lakelog.Lake]) -> None:
    """An audit of all these files finds each line once."""
    for lake in lakes.values():
        files = audit(lake.store, lake.branch_name, lake.engine, []).files
        assert [file.wrong for file in files] == [0] * len(files)


@pytest.mark.matrix
@readable
def test_a_sample_can_be_tried(tmp_path: Path, sample: Sample) -> None:
    """`formats test` says which format it has, and what became of each field."""
    path = tmp_path / sample.file
    path.write_bytes(sample.content)
    done = CliRunner().invoke(cli, ["formats", "test", str(path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["format"], found["quarantined"]) == (sample.name, 0)
    events = [outcome["event"] for outcome in found["outcomes"]]
    assert events
    columns = ("type", "level", "message")
    assert [{name: event.get(name) for name in columns} for event in events] == [
        {name: event.get(name) for name in columns} for event in sample.events[: len(events)]
    ]
