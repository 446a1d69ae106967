"""Dialects of JSON lines: what they mean, and that SQL and the exact rule agree on them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.formats import dialects, jsonl
from lakelog.formats.dialect import Dialect
from lakelog.formats.registry import FORMATS
from tests.support.effort import share
from tests.support.samples import objects_of
from tests.support.tree import SHARED
from tests.support.two_ways import (
    EPOCHS,
    HAZARDS,
    ISO,
    SPACES,
    VALUES,
    compare,
    decided,
    members,
    one_by_one,
    parsed,
    string,
)

FORMS = dialects.LINES
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.NAME)
ODD = [
    '""',
    '"[x]"',
    '"1.5"',
    "null",
    '"\\u0000"',
    "30",
    '" Info "',
    "[104,105]",
    "true",
    '"loud"',
    '"\\tinfo"',
    "1e3",
    "NaN",
]
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@st.composite
def edited(draw: st.DrawFn, seeds: list[dict[str, Any]]) -> bytes:
    """A line of a dialect, some of its members left out, doubled, replaced or put deeper."""
    seed = dict(draw(st.sampled_from(seeds)))
    pairs = []
    for key, value in seed.items():
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        chance = draw(st.integers(0, 29))
        if chance == 0:
            continue
        if chance == 1:
            text = draw(VALUES)
        elif chance == 2:
            text = draw(EPOCHS | string(ISO))
        elif chance == 3:
            text = draw(st.sampled_from(ODD))
        elif chance == 4 and isinstance(value, dict):
            text = text[:-1] + "," * bool(value) + f'"{draw(st.sampled_from([*value, "x"]))}":1}}'
        pairs.append((draw(string(st.just(key))), text))
        if draw(st.integers(0, 59)) == 0:
            pairs.append((json.dumps(key), draw(VALUES)))
    if draw(st.integers(0, 19)) == 0:
        key = draw(st.sampled_from(["data", "type", "Level", "TIME", "message", "x", "msg", "log"]))
        pairs.insert(draw(st.integers(0, len(pairs))), (json.dumps(key), draw(VALUES)))
    body = draw(members(pairs))
    line = draw(st.sampled_from(["", "", "", " ", "\r"])) + body + draw(SPACES)
    return line.encode("utf-8", "surrogatepass").replace(b"\n", b" ")


def has_time(form: Any) -> Any:
    """What says whether a line tells its time."""
    return lambda line: form.parse(line.strip()).get("time") is not None


def row(engine: Any, form: Any, seed: dict[str, Any]) -> dict[str, Any]:
    """The row of one object by the exact rule, without nulls; the query's is the same."""
    line = json.dumps(seed).encode()
    (exact,) = one_by_one(engine, form, [line]).values()
    assert isinstance(exact, dict), exact
    assert decided(engine, form, form.QUERY, [line]).get(0, exact) == exact
    found = {k: v for k, v in exact.items() if v is not None}
    return found | {"data": dict(found["data"]) if "data" in found else {}}


# --- the two ways ---------------------------------------------------------------------------------


@pytest.mark.matrix
@each_form
@settings(max_examples=share(10))
@given(data=st.data())
def test_a_dialect_by_sql_is_that_of_the_exact_rule(engine: Any, form: Dialect, data: Any) -> None:
    """Whatever the query of a dialect decides, it decides as the exact rule does."""
    lines = data.draw(st.lists(edited(objects_of(form.NAME)), min_size=8, max_size=20))
    compare(engine, form, form.QUERY, lines, has_time(form))


@pytest.mark.matrix
@each_form
def test_hazards_in_a_line_of_a_dialect(engine: Any, form: Dialect) -> None:
    """Numbers, keys and text that are easily spoilt are not, whatever stands beside them."""
    seed = json.dumps(objects_of(form.NAME)[0]).encode()[:-1] + b","
    lines = [seed + hazard[1:] for hazard in HAZARDS if hazard.startswith(b'{"ts":5,"type":"A",')]
    lines += [seed + b'"n":0.30000000000000001}', seed + b'"o":{"a":null,"b":1,"b":2}}', seed[:-1]]
    compare(engine, form, form.QUERY, lines, has_time(form))


# --- what they mean -------------------------------------------------------------------------------


@pytest.mark.matrix
@each_form
def test_nothing_is_lost(engine: Any, form: Dialect) -> None:
    """All members but the time and the message stay in data, as they are; of an event as lakelog
    has them, those of its envelope stay beside it."""
    for seed in objects_of(form.NAME):
        found = row(engine, form, seed)
        kept = found["data"]
        if form.plain:
            envelope = {name for name in seed if name != "time" and found.get(name) == seed[name]}
            seed = {n: seed[n] for n in seed if n not in {*envelope, "data"}} | seed["data"]
        moved = {form.time[0].partition("=")[0], *form.message[:1]}
        assert set(seed) - set(kept) <= moved
        assert set(kept) <= set(seed)


WEBHOOKS = SHARED / "github/webhook_payloads.ndjson"


@pytest.mark.needs("../shared")
@pytest.mark.parametrize(
    ("line", "time", "columns"),
    [
        (9, "2019-05-15T15:20:39", {"type": "commit_comment", "category": "created"}),
        # the time of its repository, in seconds
        (64, "2019-05-15T15:20:57", {"type": "push"}),
    ],
)
def test_the_time_of_a_webhook_is_that_of_its_object(
    engine: Any, line: int, time: str, columns: dict[str, str]
) -> None:
    """GitHub sends none of the delivery; all of the payload stays in data."""
    text = WEBHOOKS.read_bytes().splitlines()[line - 1]
    form = FORMATS.detect(text[:4096], text + b"\n", "some.log")
    found = row(engine, form, json.loads(text))
    assert found.pop("time") == dt.datetime.fromisoformat(f"{time}+00:00")
    assert dict(found.pop("data")) == dict(parsed(text.decode()))
    assert (form.NAME, found) == (
        "github-delivery",
        {**columns, "source": "Codertocat/Hello-World", "subject": "Codertocat"},
    )


def test_a_message_that_is_no_text_stays_in_data(engine: Any) -> None:
    """An object cannot be a message; the next member that can is not looked for in it."""
    found = row(engine, dialects.NAMED["golog"], objects_of("golog")[0] | {"msg": {"a": 1}})
    assert "message" not in found
    assert dict(found["data"]["msg"]) == {"a": 1}


@pytest.mark.parametrize(
    ("number", "bunyan", "gelf"),
    [
        (10, "TRACE", None),
        (20, "DEBUG", None),
        (30, "INFO", None),
        (35, "INFO", None),
        (40, "WARN", None),
        (50, "ERROR", None),
        (60, "FATAL", None),
    ],
)
def test_levels_as_numbers(engine: Any, number: int, bunyan: str | None, gelf: str | None) -> None:
    """A number means what the dialect's scale says; beyond the scale it is no level."""
    seed = objects_of("bunyan")[0] | {"level": number}
    assert row(engine, dialects.NAMED["bunyan"], seed)["level"] == bunyan
    assert row(engine, dialects.NAMED["bunyan"], seed)["data"]["level"] == number
    seed = objects_of("gelf")[0] | {"level": number}
    assert row(engine, dialects.NAMED["gelf"], seed).get("level") == gelf


@pytest.mark.parametrize(
    ("number", "level"), list(enumerate("FATAL FATAL FATAL ERROR WARN INFO INFO DEBUG".split()))
)
def test_levels_of_syslog_in_json(engine: Any, number: int, level: str) -> None:
    """GELF and the journal count as syslog does, as numbers or as text."""
    seed = objects_of("gelf")[0] | {"level": number}
    assert row(engine, dialects.NAMED["gelf"], seed)["level"] == level
    seed = objects_of("journald")[0] | {"PRIORITY": str(number)}
    assert row(engine, dialects.NAMED["journald"], seed)["level"] == level


@pytest.mark.parametrize(
    ("word", "level"),
    [("ERROR+2", "ERROR"), ("WARN+1", "WARN"), ("INFO-1", "INFO"), ("DEBUG-4", "DEBUG")],
)
def test_levels_of_slog_between_names(engine: Any, word: str, level: str) -> None:
    """Go's slog writes a level without a name as the one below it; its own text is kept."""
    seed = {"time": "2023-10-11T22:14:15Z", "level": word, "msg": "m"}
    line = f"time=2023-10-11T22:14:15Z level={word} msg=m".encode()
    by_pairs = FORMATS["logfmt"]
    for form in (dialects.NAMED["golog"], jsonl.FORM):
        found = row(engine, form, seed)
        assert (found["level"], found["data"]["level"]) == (level, word)
    (found,) = one_by_one(engine, by_pairs, [line]).values()
    assert (found["level"], dict(found["data"])["level"]) == (level, word)
    compare(engine, by_pairs, by_pairs.QUERY, [line], lambda _: True)


# --- telling them apart ---------------------------------------------------------------------------


@each_form
def test_a_dialect_is_told_by_its_members(form: Dialect) -> None:
    """Lines of a dialect are taken for it, also where a few others are among them."""
    lines = [json.dumps(seed) for seed in objects_of(form.NAME)]
    for text in ("\n".join(lines), "\n".join([*lines, *lines, '{"x":1}'])):
        assert FORMATS.detect(text.encode(), text.encode(), "x.log").NAME == form.NAME


@each_form
def test_a_dialect_is_told_by_the_beginning_of_a_long_line(form: Dialect) -> None:
    """A first line that goes on beyond what is looked at is known by what is seen of it."""
    for seed in objects_of(form.NAME):
        head = json.dumps(seed | {"long": [{"a": "x, {" * 3000}]}).encode()
        assert FORMATS.detect(head[:4096], head, "x.log").NAME == form.NAME


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("[Dec 21 12:56:57] SECURITY[77]: x", "plain"),
        ("[INFO] x", "maven"),
        ("[INFO] 7", "plain"),
        ("[a] {}", "plain"),
    ],
)
def test_a_word_in_brackets_is_text(line: str, name: str) -> None:
    """Lines that begin with a bracket are no JSON for that."""
    assert name == FORMATS.detect(line.encode(), line.encode(), "x.log").NAME


@pytest.mark.parametrize(
    "line",
    [
        '{"time":"2024-05-01","type":"A","message":"x","level":"info"}',
        '{"a":1}',
        '{"event":"login","level":"info","timestamp":"2024-05-01"}',
        '{"level":"info","message":"x"}',
        '{"ts":5,"uid":"x","data":{}}',
        '{"@timestamp":"2024-05-01","message":"x"}',
    ],
)
def test_plain_json_lines_stay_plain(line: str) -> None:
    """Lines that no dialect is sure of are JSON lines."""
    assert FORMATS.detect(line.encode(), line.encode(), "x.log") is jsonl.FORM


def test_lines_of_no_dialect_are_read_as_plain_ones(engine: Any) -> None:
    """A line among those of a dialect that lacks its members is an event all the same."""
    lines = [b'{"time":5,"type":"A","x":1}']
    (found,) = one_by_one(engine, dialects.NAMED["bunyan"], lines).values()
    assert (found["type"], dict(found["data"])) == ("A", {"x": 1})


def test_a_type_may_be_the_number_zero(engine: Any) -> None:
    """By SQL and by the exact rule, as any other number."""
    (form,) = (form for form in FORMS if form.NAME == "azure-monitor")
    seed = {"SourceSystem": "Linux", "TimeGenerated": "2024-01-01T00:00:00Z", "EventType": 0}
    assert row(engine, form, seed)["type"] == "0"


POSTGRES = objects_of("postgres-json")[0]
TIMES = [
    ("2023-10-11 22:14:15.123 CEST", "20:14:15.123", "CEST"),
    ("2023-10-11 22:14:15.123 +03", "19:14:15.123", None),
    ("2023-10-11 22:14:15.123 Z", "22:14:15.123", None),
    ("2023-10-11 22:14:15.123 +02:00", "20:14:15.123", None),
    ("2023-10-11 22:14:15.123 +0200", "20:14:15.123", None),
    ("2023-10-11 22:14:15 +0200 CEST", "20:14:15", None),
    ("2023-10-11 22:14:15.5 +0000 UTC", "22:14:15.5", None),
    ("2023-10-11 22:14:15 CST", "22:14:15", "CST"),
    ("2023/10/11 22:14:15.123", "22:14:15.123", None),
    ("11/Oct/2023:22:14:15 +0200", "20:14:15", None),
    ("Wed Oct 11 22:14:15 2023", "22:14:15", None),
    ("Wed, 11 Oct 2023 22:14:15 GMT", "22:14:15", "GMT"),
    ("2023-10-11T22:14:60Z", "22:14:59.999999", None),
    ("2023-10-11 22:14:60,5", "22:14:59.999999", None),
]


@pytest.mark.parametrize(("text", "clock", "word"), TIMES)
def test_times_in_other_spellings(engine: Any, text: str, clock: str, word: str | None) -> None:
    """A time may be written as servers write it, in a dialect or not; a zone's word is kept."""
    for form, seed in ((dialects.NAMED["postgres-json"], POSTGRES), (jsonl.FORM, {"x": 1})):
        found = row(engine, form, {**seed, "timestamp": text})
        assert found["time"] == dt.datetime.fromisoformat(f"2023-10-11T{clock}+00:00")
        assert found["data"].get("tz") == word


def test_an_empty_time_is_none(engine: Any) -> None:
    """It is as a missing one, and another member may have the time."""
    seed = {"level": "info", "msg": "x", "ts": ""}
    for form in (jsonl.FORM, dialects.NAMED["golog"]):
        line = json.dumps(seed).encode()
        assert form.parse(line).get("time") is None
        compare(engine, form, form.QUERY, [line], has_time(form))
    found = row(engine, jsonl.FORM, {"time": "", "ts": "11/Oct/2023:22:14:15 +0000"})
    assert found["time"] == dt.datetime(2023, 10, 11, 22, 14, 15, tzinfo=dt.UTC)


def test_of_two_times_the_other_stays_as_it_is(engine: Any) -> None:
    """What is not the time of the event goes into data as it was written."""
    both = {"ts": "11/Oct/2023:22:14:15 +0000", "time": "2023-10-11 22:14:15 Z"}
    assert row(engine, jsonl.FORM, both)["data"] == {"ts": both["ts"]}


def test_a_time_that_none_can_read_is_refused(engine: Any) -> None:
    """Such a line is quarantined, so that it is kept."""
    for line in (b'{"time":"never"}', b'{"time":"2023-13-41 22:14:15 CEST"}'):
        (reason,) = one_by_one(engine, jsonl.FORM, [line]).values()
        assert "is not a date" in str(reason)


@pytest.mark.parametrize("digits", ["152734279632568", "500000", "0"])
def test_a_number_of_any_digits_is_the_time_of_a_record(digits: str) -> None:
    """Fluent Bit writes as many as its version does."""
    line = f'{{"date":1691063424.{digits},"log":"GET /"}}'.encode()
    event = dialects.NAMED["fluent-bit"].parse(line)
    assert (event["message"], "data" in event) == ("GET /", False)


def test_fluent_bit_sends_documents(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Their `log` is the message; where it is more than text, or beside one, it stays a field."""
    documents = [
        {"@timestamp": "2026-11-24T10:00:01.123Z", "log": "hello\n", "container_name": "c"},
        {"@timestamp": "2026-11-24T10:00:02Z", "log": {"level": "warn"}, "message": "of Elastic"},
        {"@timestamp": "2026-11-24T10:00:03Z", "log": "app.log", "message": "both"},
        {"@timestamp": "2026-11-24T10:00:04Z", "log": "l", "type": "ORDER", "subject": "s"},
    ]
    lines = [orjson.dumps(part) for document in documents for part in ({"index": {}}, document)]
    path = tmp_path / "bulk.ndjson"
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert lake.ingest(str(path)).files[0].format == "bulk"
    query = "SELECT message, type, source, subject, data FROM events ORDER BY time"
    assert lake.sql(query).fetchall() == [
        ("hello\n", "log", "c", None, '{"container_name":"c"}'),
        ("of Elastic", "event", None, None, '{"log":{"level":"warn"}}'),
        ("both", "event", None, None, '{"log":"app.log"}'),
        (None, "ORDER", None, "s", '{"log":"l"}'),
    ]
