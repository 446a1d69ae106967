"""Documents of JSON, and records of several lines: arrays, requests, containers, the journal."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.formats import docker, documents, journal, otlp
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from lakelog.ingest.chunk_result import ChunkResult
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.document_texts import (
    ENTRY,
    EVENT,
    LOG,
    PLAIN,
    POOL,
    SPAN,
    TRAIL,
    WRITTEN,
    binary,
    logs,
    piece,
    spans,
    value,
)
from tests.support.effort import share
from tests.support.two_ways import parsed


def made(engine: Any, form: Any, data: bytes, *, sql: bool, **options: Any) -> ChunkResult:
    """What comes of bytes, by SQL as far as it goes or one by one."""
    few = (0, 0) if sql else (10**9, 10**9)
    with mock.patch.multiple(transform, FEW=few[0], _FEW_BYTES=few[1]):
        return Transformer(lambda: engine, form, "o", **options).run(Chunk(data, 0), final=True)


def both(engine: Any, form: Any, data: bytes) -> list[dict[str, Any]]:
    """The rows of some bytes, which are the same whichever way they are decided."""
    shown = []
    for sql in (True, False):
        found = made(engine, form, data, sql=sql)
        rows = found.table.to_pylist() if found.table is not None else []
        for row in rows:
            row |= {"data": parsed(row["data"]), "ingested_at": None}
            row["time"] = None if row["time"].year == 2026 else row["time"]
        shown.append((rows, [(bad.position, bad.reason) for bad in found.bad], found.length))
    assert shown[0] == shown[1]
    return list(shown[0][0])


def fitted(data: bytes) -> Any:
    """The form for a file of these bytes."""
    return FORMATS.specialize(FORMATS.detect(data[:4096], data, "x.json"), data[:4096])


@pytest.mark.matrix
@pytest.mark.parametrize("style", WRITTEN)
@pytest.mark.parametrize("elements", [TRAIL, PLAIN, [EVENT, EVENT | {"id": "2"}]])
def test_each_element_is_an_event(engine: Any, style: str, elements: list[Any]) -> None:
    """However an array is written, its elements are events in the dialect of the first."""
    data = WRITTEN[style](elements).encode()
    form = fitted(data)
    assert form.NAME == "json"
    found = both(engine, form, data)
    expected = elements + elements[:1] * (style == "two documents")
    types = {id(TRAIL): ["ListSecrets", "ObjectCreated:Put"], id(PLAIN): ["A", "event"]}
    names = types.get(id(elements), ["T", "T"])
    assert [row["type"] for row in found] == (names + names[:1])[: len(expected)]
    places = [row["position"] for row in found]
    assert places == sorted(set(places))
    if elements is TRAIL:
        assert [row["level"] for row in found][:2] == ["ERROR", "INFO"]
        assert found[1]["subject"] == "a/b.gz"
    if elements[0] is EVENT:
        assert [(row["id"], row["source"]) for row in found][:2] == [("1", "/s"), ("2", "/s")]


@pytest.mark.parametrize("count", [1, 3])
def test_objects_that_end_with_commas_are_events(engine: Any, count: int) -> None:
    """As auditors write an array that is never closed, whose bracket may be in another file."""
    lines = [
        f'{{"time": "2024-03-12T10:00:0{n}Z", "type": "a", "k": {n}}},\n' for n in range(count)
    ]
    data = "".join(lines).encode()
    form = FORMATS.detect(data, data, "audit.log")
    assert form.NAME == "json"
    rows = both(engine, form, data)
    assert [row["data"] for row in rows] == [parsed(f'{{"k": {n}}}') for n in range(count)]
    assert [row["position"] for row in rows] == [len(lines[0]) * n for n in range(count)]


def test_an_object_over_several_lines_is_one_event(engine: Any) -> None:
    """So are several of them, one behind the other."""
    data = "\n".join(json.dumps(found, indent=2) for found in [*PLAIN, *TRAIL]).encode()
    assert fitted(data).NAME == "json"
    assert [row["type"] for row in both(engine, fitted(data), data)][:2] == ["A", "event"]


def test_members_beside_a_list_are_kept(engine: Any) -> None:
    """What stands beside the records of a document stays in the data of each."""
    text = {
        "messageType": "DATA_MESSAGE",
        "logGroup": "g",
        "logEvents": [{"id": "1", "timestamp": 1510109208016, "message": "one"}],
    }
    data = json.dumps(text).encode()
    (found,) = both(engine, fitted(data), data)
    assert (found["message"], dict(found["data"])["logGroup"]) == ("one", "g")


@pytest.mark.parametrize(
    "odd", [7, "text", None, [1], {"time": "noon"}, {"type": {}}, {"time": {"$date": 1}}]
)
def test_an_element_that_can_be_no_event_is_kept(engine: Any, odd: Any) -> None:
    """It is the data of an event, so that the others of its document are not lost."""
    data = json.dumps([PLAIN[0], odd, PLAIN[0]]).encode()
    found = both(engine, documents.FORM, data)
    assert [row["type"] for row in found] == ["A", "event", "A"]
    assert found[1]["data"] == parsed(json.dumps(odd) if odd is not None else None)


@pytest.mark.parametrize(
    "text", [b'[{"a":1}, nope]', b"[1, 2", b'{"a":1}}', b"[[[", b'{"Records":[{', b"\xff[]", b'["']
)
def test_what_is_no_document_is_quarantined_whole(engine: Any, text: bytes) -> None:
    """A document that is no JSON gives no event at all, and its text is kept."""
    found = made(engine, documents.FORM, text, sql=True)
    assert [bad.line.encode("utf-8", "surrogateescape") for bad in found.bad] in (
        [text],
        [text.replace(b"\xff", b"\\xff")],
    )
    assert found.table is None or not found.table.num_rows


def test_a_document_that_is_still_written_is_held_back(engine: Any) -> None:
    """Following a file, a document is taken when its end is there, and not before."""
    text = (json.dumps(TRAIL, indent=2) + "\n").encode()
    ends = [at + 1 for at, sign in enumerate(text[:-1]) if sign == 10]
    for end in ends:
        chunk = Chunk(text[:end], 0)
        found = Transformer(lambda: engine, documents.FORM, "o", mode="follow").run(chunk)
        assert found.length == 0
    found = Transformer(lambda: engine, documents.FORM, "o", mode="follow").run(Chunk(text, 0))
    assert (found.length, found.table.num_rows) == (len(text), 2)


@settings(max_examples=share(12))
@given(data=st.data())
def test_documents_by_sql_are_those_of_the_exact_rule(engine: Any, data: Any) -> None:
    """Whatever elements a document has, and however it is spoilt, both ways agree."""
    pool = [*PLAIN, *TRAIL, EVENT, {}, {"a": {"b": None}}, {"n": 0.1, "big": 10**25}, [], 5]
    found = [data.draw(st.sampled_from(pool)) for _ in range(data.draw(st.integers(1, 6)))]
    text = data.draw(st.sampled_from(sorted(WRITTEN)).map(lambda style: WRITTEN[style](found)))
    at = data.draw(st.integers(0, len(text)))
    text = (
        text[:at]
        + data.draw(st.sampled_from(["", "", ",", "]", '"', "\n", "{", "1e400"]))
        + text[at:]
    )
    both(engine, documents.FORM.specialize(text.encode()[:4096]), text.encode())


# --- OpenTelemetry --------------------------------------------------------------------------------


def test_a_request_gives_its_records(engine: Any) -> None:
    """Each log record and span is an event: time, level, message, service, plain attributes."""
    lines = [logs(LOG, LOG | {"severityNumber": 0, "severityText": "warn"}), spans(SPAN)]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert fitted(data) is otlp.FORM
    first, second, span = both(engine, otlp.FORM, data)
    assert (first["type"], first["level"], first["message"]) == ("log", "INFO", "hello")
    assert (first["source"], second["level"]) == ("shop", "WARN")
    assert first["time"].timestamp() == 1544712660.3
    held = json.loads(made(engine, otlp.FORM, data, sql=True).table["data"][0].as_py())
    assert held["attributes"] == {"s": "x", "i": 10, "d": 637.704, "b": True}
    assert held["resource"] == {"service.name": "shop"}
    assert held["scope"] == {"name": "lib", "version": "1", "attributes": {"sa": "y"}}
    assert held["traceId"] == "5B8"
    assert (span["type"], span["level"], span["message"]) == ("span", "ERROR", "a span")
    assert span["time"].timestamp() == 1544712660


def test_values_of_every_kind_are_plain(engine: Any) -> None:
    """Lists and maps within values come out as such; a body that is no text stays in data."""
    body = {"kvlistValue": {"values": [value(arrayValue={"values": [{"intValue": "1"}, {}]})]}}
    data = json.dumps(logs(LOG | {"body": body, "attributes": [value(bytesValue="aGk=")]})).encode()
    (found,) = both(engine, otlp.FORM, data)
    assert found["message"] is None
    (event,) = otlp.FORM.parse(data)
    assert event["data"]["body"] == {"k": [1, None]}
    assert event["data"]["attributes"] == {"k": "aGk="}


@pytest.mark.parametrize("moment", ["x", "1.79e18", "9" * 24, True])
def test_a_time_that_is_none_takes_nothing_else_with_it(engine: Any, moment: Any) -> None:
    (found,) = both(engine, otlp.FORM, json.dumps(logs(LOG | {"timeUnixNano": moment})).encode())
    assert (found["message"], found["source"], found["level"]) == ("hello", "shop", "INFO")


@pytest.mark.parametrize(
    ("old", "other"), [("scopeLogs", "instrumentationLibraryLogs"), ("logRecords", "log_records")]
)
def test_records_under_another_name_are_never_passed_over(old: str, other: str) -> None:
    """Senders of before 2022 have one; without a refusal they would take it for stored."""
    record = json.dumps(logs(LOG)).replace(f'"{old}"', f'"{other}"').encode()
    with pytest.raises(InvalidEvent, match=other):
        otlp.FORM.parse(record)
    for empty in ({}, {"resource": {"attributes": []}}, {"scopeLogs": [{"scope": {}}]}):
        assert otlp.FORM.parse(json.dumps({"resourceLogs": [empty]}).encode()) == []


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("number", "level"),
    [
        (1, "TRACE"),
        (4, "TRACE"),
        (5, "DEBUG"),
        (9, "INFO"),
        (12, "INFO"),
        (13, "WARN"),
        (17, "ERROR"),
        (21, "FATAL"),
        (24, "FATAL"),
        (0, None),
        (25, None),
        ("17", "ERROR"),
        ("SEVERITY_NUMBER_WARN2", "WARN"),
    ],
)
def test_severity_numbers(engine: Any, number: Any, level: str | None) -> None:
    """A severity's number gives its level, whether it is a number, text or a name."""
    record = {k: v for k, v in LOG.items() if k != "severityText"} | {"severityNumber": number}
    (found,) = both(engine, otlp.FORM, json.dumps(logs(record)).encode())
    assert found["level"] == level


@settings(max_examples=share(15))
@given(data=st.data())
def test_requests_by_sql_are_those_of_the_exact_rule(engine: Any, data: Any) -> None:
    """However members of a request are changed, both ways agree or the walk decides."""
    odd = [
        None,
        0,
        "0",
        "",
        "x",
        1.5,
        True,
        [],
        {},
        [1],
        {"a": 1},
        "1544712660300000000",
        "\u017fx",
        [value(intValue="007")],
        [value(stringValue="a"), value(stringValue="b")],
        [value(doubleValue="NaN")],
        [value(arrayValue={})],
        {"stringValue": 5},
        {"code": "2"},
    ]
    names = [*LOG, *SPAN, "resource", "scope", "eventName", "schemaUrl", "observedTimeUnixNano"]
    requests = []
    for record, wrap in ((LOG, logs), (SPAN, spans), (LOG, logs)):
        found = dict(record)
        for _ in range(data.draw(st.integers(0, 2))):
            found[data.draw(st.sampled_from(names))] = data.draw(st.sampled_from(odd))
        text = json.dumps(wrap(record, found))
        if data.draw(st.integers(0, 4)) == 0:
            old = data.draw(
                st.sampled_from(['"scopeLogs"', '{"name": "lib"', '[{"key"', '"traceId"'])
            )
            text = text.replace(
                old, data.draw(st.sampled_from(['"x": 1, ', '"schemaUrl"', "{", old]))
            )
        requests.append(text)
    both(engine, otlp.FORM, ("\n".join(requests) + "\n").encode())


# --- containers -----------------------------------------------------------------------------------


def test_pieces_of_a_line_are_joined(engine: Any) -> None:
    """Pieces are put together by stream, and the newline that ends a line is no part of it."""
    parts = [
        piece("one\n"),
        piece("a long "),
        piece("oops\n", "stderr"),
        piece("li"),
        piece("ne\n"),
        piece("\\n"),
        piece('"\\\\n"\n', attrs={"tag": "x"}),
    ]
    found = both(engine, docker.FORM, b"".join(parts))
    assert [row["message"] for row in found] == ["one", "a long line", "oops", '\\n"\\\\n"']
    assert [row["category"] for row in found] == ["stdout", "stdout", "stderr", "stdout"]
    assert fitted(b"".join(parts)) is docker.FORM
    starts = [0, *itertools.accumulate(map(len, parts))]
    assert [row["position"] for row in found] == [0, starts[1], starts[1] + 1, starts[5]]


@settings(max_examples=share(12))
@given(data=st.data())
def test_every_piece_is_kept_once(engine: Any, data: Any) -> None:
    """However streams are mixed, what they print is there whole and in order."""
    drawn = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b\n", "\n", "\\n", '"', "é\n"]),
                st.sampled_from(["stdout", "stderr"]),
            ),
            min_size=1,
            max_size=12,
        )
    )
    found = both(engine, docker.FORM, b"".join(itertools.starmap(piece, drawn)))
    for stream in ("stdout", "stderr"):
        text = "".join(log for log, of in drawn if of == stream)
        rows = [row["message"] for row in found if row["category"] == stream]
        assert "\n".join(rows) == text.removesuffix("\n")


def test_a_line_that_is_still_open_is_held_back(engine: Any) -> None:
    """Following a file, whole lines are taken at once, and pieces when their line ends."""
    whole, open_ = piece("one\n") + piece("two\n"), piece("thr")
    for data, taken in ((whole, len(whole)), (whole + open_, len(whole))):
        found = Transformer(lambda: engine, docker.FORM, "o", mode="follow").run(Chunk(data, 0))
        assert (found.length, found.table.num_rows) == (taken, 2)


# --- the journal ----------------------------------------------------------------------------------


def test_entries_of_the_journal(engine: Any) -> None:
    """Fields that are text, bytes or there several times are those of the journal's JSON."""
    text = b"MESSAGE=gone = away\n"
    bytes_ = ENTRY.replace(text, binary(b"MESSAGE", b"two\n\nlines=x \xc3\xa9"))
    raw = ENTRY.replace(text, binary(b"X", b"\xff\x00\n") + b"_COMM=bash\n")
    data = ENTRY + bytes_ + raw
    form = fitted(data)
    assert form.NAME == "journald-export"
    first, second, third = both(engine, form, data)
    assert (first["level"], first["source"], first["message"]) == ("ERROR", "sh", "gone = away")
    assert first["time"].timestamp() == 1534860261.221373
    assert second["message"] == "two\n\nlines=x é"
    assert third["data"] == parsed(
        json.dumps(
            {"__CURSOR": "s=1;i=2", "PRIORITY": "3", "_COMM": ["sh", "bash"], "X": [255, 0, 10]}
        )
    )


@pytest.mark.parametrize(
    "spoilt", [b"no field\n", b"9X=1\n", binary(b"X", b"12")[:-4] + b"\xff" * 9]
)
def test_what_is_no_entry_is_quarantined(engine: Any, spoilt: bytes) -> None:
    """An entry that breaks off or holds what is no field is kept as it is."""
    with pytest.raises(InvalidEvent):
        journal.FORM.parse((ENTRY.strip() + b"\n" + spoilt).strip())
    found = made(engine, journal.FORM, ENTRY + ENTRY[:-1] + spoilt + b"\n" + ENTRY, sql=True)
    assert (found.table.num_rows, len(found.bad)) == (2, 1)


# --- inputs of any kind ---------------------------------------------------------------------------

SIGNS = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"1e999",
    b"\xff",
    b"\0",
    b"\n",
    b"  ",
    b"9" * 25,
    b"-",
    b"NaN",
    b"true",
    b"{}",
    b"[]",
    b"\\ud800",
    b'{"a":1,"a":2}',
    b"1e-" + b"9" * 20,
]


@pytest.mark.matrix
@pytest.mark.parametrize("name", POOL)
def test_spoilt_input_gives_events_or_a_reason(name: str) -> None:
    """However records are spoilt, they are events or refused as InvalidEvent, never a crash."""
    dice = random.Random(name)
    for _ in range(400):
        spoilt = bytearray(dice.choice(POOL[name]))
        for _ in range(dice.choice([1, 1, 2, 4, 8])):
            at = dice.randrange(len(spoilt) + 1)
            spoilt[at : at + dice.choice([0, 1, 1, 2, 8])] = dice.choice(SIGNS)
        text = bytes(spoilt).strip()
        form = FORMATS.specialize(FORMATS[name], text[:4096])
        with contextlib.suppress(InvalidEvent):
            found = form.parse(text)
            assert EncodedBatch.of(found if isinstance(found, list) else [found]) is not None
        if form.complete is not None:
            form.complete(text)


def test_answers_of_cloudwatch(engine: Any) -> None:
    """What its interface answers gives the events and where they are from; so do subscriptions,
    and `events` of others stay one event."""
    one = {
        "logStreamName": "s/1",
        "timestamp": 1396035378988,
        "message": "START\n",
        "ingestionTime": 1396035394997,
        "eventId": "31132629274945519779805322857203735586714",
    }
    answer = json.dumps({"events": [one, one | {"message": "END"}], "nextToken": "f/3"}, indent=4)
    data = {
        "messageType": "DATA_MESSAGE",
        "owner": "12",
        "logGroup": "/g",
        "logStream": "s/1",
        "subscriptionFilters": ["f"],
        "logEvents": [{"id": "3" * 56, "timestamp": 1396035378988, "message": "START\n"}],
    }
    for text, count, source in ((answer, 2, None), (json.dumps(data), 1, "/g")):
        form = fitted(text.encode())
        rows = Transformer(lambda: engine, form, "o").run(Chunk(text.encode(), 0), final=True)
        found = rows.table.to_pylist()
        assert (form.NAME, len(found)) == ("json", count)
        assert [found[0][c] for c in ("type", "source", "subject", "message")] == [
            "log",
            source,
            "s/1",
            "START\n",
        ]
        assert found[0]["time"].isoformat() == "2014-03-28T19:36:18.988000+00:00"
        assert found[0]["id"] == (one["eventId"] if source is None else "3" * 56)
        body = json.loads(found[0]["data"])
        assert "timestamp" not in body
        assert body.get("nextToken") == (None if source else "f/3")
    other = json.dumps({"events": [{"a": 1}], "b": 2}, indent=1).encode()
    assert len(fitted(other).parse(other)) == 1
