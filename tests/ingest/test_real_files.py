"""Real data: files as other systems wrote them, counted by SQL against facts found without us.

They live beside the repository, in ../shared/data, and are not part of it; without them these
tests are skipped, which the report says.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import InvalidEvent
from lakelog.values import parse_line, parse_value
from tests.support.real_files import DATA, FACTS

SUITE = DATA / "jsontestsuite" / "test_parsing"
pytestmark = pytest.mark.needs("../shared")

Query = Callable[[str], list[Any]]


def lines(name: str) -> list[bytes]:
    """Return the lines of a file, which must be the one that the facts are about."""
    data = (DATA / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == FACTS[name]["sha256"]
    return data.splitlines()


def exact(text: bytes | str) -> Any:
    """Parse JSON without rounding its numbers."""
    return json.loads(text, parse_float=Decimal)


def taken_in(lake: lakelog.Lake, events: list[dict[str, Any]]) -> Iterator[Query]:
    """Append events; yield a way to query them, unsealed, sealed and compacted."""
    half = len(events) // 2
    lake.append(events[:half])
    lake.append(events[half:])
    for change in (lambda: None, lake.settle, lake.compact):
        change()
        yield lambda query: lake.sql(query).fetchall()


def test_github_webhooks(lake: lakelog.Lake) -> None:
    """Ninety payloads of thirty kinds, nothing alike: types, actions and every value are kept."""
    name = "github/webhook_payloads.ndjson"
    facts, raw = FACTS[name], lines(name)
    assert len(raw) == facts["json_lines_ok"]
    for query in taken_in(lake, [parse_line(line) for line in raw]):
        assert query("SELECT count(*), count(DISTINCT type) FROM events") == [
            (facts["lines"], facts["distinct_event_types"])
        ]
        acted = "SELECT count(*) FROM events WHERE data->>'$.payload.action' IS NOT NULL"
        assert query(acted) == [(facts["with_action"],)]
        most = "SELECT type, count(*) n FROM events GROUP BY 1 ORDER BY n DESC, type LIMIT 3"
        assert query(most) == [tuple(pair) for pair in facts["top_events"]]
        kept = query("SELECT data FROM events ORDER BY position")
        assert [exact(data) for (data,) in kept] == [exact(line) for line in raw]


def test_cloudtrail(lake: lakelog.Lake) -> None:
    """Audit events of a cloud: the hint gives the type, @timestamp the time, eventID identity."""
    name = "cloudtrail/ec2_proxy_s3_exfiltration.ndjson"
    facts, raw = FACTS[name], [json.loads(line) for line in lines(name)]
    events = [{**parse_line(line), "id": json.loads(line)["eventID"]} for line in lines(name)]
    for query in taken_in(lake, [*events, *events[:7]]):
        assert query("SELECT count(*), count(DISTINCT id) FROM events") == [
            (facts["json_lines_ok"], facts["distinct_eventID"])
        ]
        ranked = "SELECT {}, count(*) n FROM events GROUP BY 1 ORDER BY n DESC, 1 LIMIT 5"
        by_type = dict(query(ranked.format("type")))
        assert by_type == dict(facts["by_eventName"])
        sources = query(ranked.format("data->>'eventSource'"))
        assert sources == [tuple(pair) for pair in facts["by_source"]]
        failed = "SELECT count(*) FROM events WHERE data->>'errorCode' IS NOT NULL"
        assert query(failed) == [(facts["error_events"],)]
        times = Counter(
            t for (t,) in query("SELECT strftime(time, '%Y-%m-%dT%H:%M:%S.%gZ') FROM events")
        )
        assert times == Counter(event["@timestamp"] for event in raw)


@pytest.mark.parametrize("log", ["conn", "http", "dns"])
def test_zeek(lake: lakelog.Lake, log: str) -> None:
    """Network logs: epoch seconds with microseconds keep every digit; the rest is in data."""
    name = f"zeek/{log}.log"
    facts, raw = FACTS[name], lines(name)
    events = [{**parse_line(line), "type": json.loads(line)["@stream"]} for line in raw]
    for query in taken_in(lake, events):
        assert query("SELECT count(*) FROM events") == [(facts["lines"],)]
        assert query("SELECT DISTINCT type FROM events") == [(log,)]
        first = int(Decimal(str(facts["min_ts"])) * 10**6)
        assert query("SELECT epoch_us(min(time)) FROM events") == [(first,)]
        for key, counts in facts.items():
            if key.startswith("by_"):
                column = f"coalesce(data->>'{key[3:]}', 'None')"
                ranked = f"SELECT {column}, count(*) n FROM events GROUP BY 1 ORDER BY n DESC, 1"
                assert Counter(dict(query(ranked))) & Counter(dict(counts)) == Counter(dict(counts))
        rows = query("SELECT data, epoch_us(time) FROM events ORDER BY position")
        for (data, micros), line in zip(rows, raw, strict=True):
            original = exact(line)
            assert micros == int(original.pop("ts") * 10**6)
            assert exact(data) == original


def test_auditd(lake: lakelog.Lake) -> None:
    """Lines ended by CR LF, with quotes within quotes: all fifty, each with its own text."""
    name = "auditd/log4shell_auoms.ndjson"
    facts, raw = FACTS[name], lines(name)
    assert (DATA / name).read_bytes().count(b"\r\n") == facts["crlf"] == len(raw)
    for query in taken_in(lake, [parse_line(line) for line in raw]):
        assert query("SELECT type, count(*) FROM events GROUP BY 1") == [
            ("AUOMS_EXECVE", facts["lines"])
        ]
        shown = "SELECT data->>'SyslogMessage', data FROM events ORDER BY position"
        for (message, data), line in zip(query(shown), raw, strict=True):
            assert message == exact(line)["SyslogMessage"]
            assert exact(data) == exact(line)


@pytest.mark.thorough
def test_twitter(lake: lakelog.Lake) -> None:
    """A hundred statuses in Japanese and Chinese, with ids beyond doubles, each once."""
    name = "json/twitter.json"
    facts = FACTS[name]
    statuses = json.loads(b"\n".join(lines(name)))["statuses"]
    events = [
        parse_line(json.dumps({"type": "tweet", **s}, ensure_ascii=s["id"] % 2 == 0).encode())
        for s in statuses
    ]
    for query in taken_in(lake, [*events, *events]):
        columns = "count(*), count(DISTINCT data->>'$.user.id'), max(id::BIGINT)"
        retweets = "count(*) FILTER ((data->'retweeted_status') IS NOT NULL)"
        assert query(f"SELECT {columns}, {retweets} FROM events") == [
            (facts["statuses"], facts["distinct_users"], facts["max_id"], facts["retweets"])
        ]
        langs = "SELECT data->>'lang', count(*) FROM events GROUP BY 1"
        assert dict(query(langs)) == facts["langs"]
        kept = query("SELECT id, source, data FROM events ORDER BY position")
        for (ident, source, data), status in zip(kept, statuses, strict=True):
            original = dict(status)
            assert (int(ident), source) == (original.pop("id"), original.pop("source"))
            assert exact(data) == original


# --- the JSON test suite --------------------------------------------------------------------------


def suite(letter: str) -> list[Any]:
    """Return the files of one class: y must be accepted, n refused, i either."""
    names = sorted(SUITE.glob(f"{letter}_*.json")) if FACTS else []
    return [pytest.param(path.read_bytes(), id=path.stem) for path in names]


def wrapped(text: bytes) -> bytes:
    """Return an event whose data is a JSON text."""
    return b'{"type":"A","data":' + text + b"}"


def test_the_suite_is_whole() -> None:
    """As many files of each class are there as the facts count."""
    counts = Counter(Path(name).name[0] for name in FACTS if name.startswith("jsontestsuite/"))
    assert counts == {"y": 63, "n": 125, "i": 24}
    assert {letter: len(suite(letter)) for letter in "yni"} == counts


@pytest.mark.parametrize("text", suite("y"))
def test_valid_json_is_accepted(lake: lakelog.Lake, text: bytes) -> None:
    """An object is an event, anything valid is a payload, and its value comes back."""
    value = json.loads(text, object_pairs_hook=lambda pairs: ("{}", pairs))
    stored = [parse_line(wrapped(text)), {"type": "A", "data": parse_value(text)}]
    if isinstance(value, tuple):
        stored.append({**parse_line(text), "type": "A"})
    else:
        with pytest.raises(InvalidEvent, match="expected a JSON object"):
            parse_line(text)
    lake.append(stored)
    rows = lake.sql("SELECT data FROM events ORDER BY position").fetchall()
    for (data,) in rows[:2]:
        assert json.loads(data or "null", object_pairs_hook=lambda pairs: ("{}", pairs)) == value


@pytest.mark.parametrize("text", suite("n"))
def test_invalid_json_is_refused(text: bytes) -> None:
    """What is no JSON is InvalidEvent with a reason of one line, alone and as a payload."""
    for parse, line in ((parse_line, text), (parse_line, wrapped(text)), (parse_value, text)):
        with pytest.raises(InvalidEvent) as caught:
            parse(line)
        assert str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", suite("i"))
def test_what_parsers_disagree_on_never_crashes(lake: lakelog.Lake, text: bytes) -> None:
    """Huge numbers, lone surrogates and bad encodings are stored whole or refused, both cleanly."""
    try:
        event = parse_line(wrapped(text))
    except InvalidEvent:
        return
    lake.append(event)
    [(data,)] = lake.sql("SELECT data FROM events").fetchall()
    spelled = {"parse_int": str, "parse_float": lambda digits: digits.lower().replace("e+", "e")}
    stored = json.loads(data, **spelled)
    if isinstance(stored, dict) and "lakelog_exact" in stored:
        stored = json.loads(stored["lakelog_exact"], **spelled)
    assert stored == json.loads(text, **spelled)
    lake.sql("SELECT data->>'x' FROM events").fetchall()
