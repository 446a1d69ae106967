"""lakelog append: events from arguments, lines and documents; what is no event is kept aside."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.cli import stdin_lines as cut
from lakelog.cli.app import App
from lakelog.cli.arguments import event_of
from lakelog.cli.write import Intake
from tests.support.cli import answer, lines, run
from tests.support.requirements import need
from tests.support.tree import ROOT

DATA = ROOT.parent / "shared" / "data"
ALL = "SELECT type, source, data FROM events ORDER BY position"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake that is not there yet."""
    return tmp_path / "lake"


def real(name: str) -> bytes:
    """Return a real file, or skip where the shared data is not."""
    path = DATA / name
    need("../shared")
    return path.read_bytes()


def quarantined(lake: Path) -> list[dict[str, Any]]:
    """Return the lines set aside, in the order of the input."""
    query = "SELECT origin, position, reason, line FROM quarantine ORDER BY position"
    return answer(lake, "sql", query)


def test_interrupting_a_commit_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a batch is stored ends append behind it: its lines are gone from the pipe."""
    with lakelog.open(str(tmp_path / "lake")) as lake:
        append = lake.append

        def pressed(*events: Any, **options: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return append(*events, **options)

        monkeypatch.setattr(lake, "append", pressed)
        intake = Intake(App(lake.path, quiet=True), lake, None, None, None)
        for number, text in enumerate((b'{"type":"a"}', b"no event"), 1):
            intake.take(cut.InputLine(number, 20 * number, text))
        with pytest.raises(KeyboardInterrupt):
            intake.commit()
        assert (lake.count(), intake.stored, intake.quarantined) == (1, 1, 1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- one event from arguments ---------------------------------------------------------------------


def test_an_event_is_spelled_with_pairs(lake: Path) -> None:
    """KEY=VALUE makes one event; dotted and unknown keys go into data; the id is reported."""
    said = run(
        lake,
        "append",
        "type=deploy",
        "source=ci",
        "data.version=3",
        'data.by={"name":"ann"}',
        "message=to production",
        "region=eu",
    )
    assert "created a lake" in said.stderr
    assert "stored 1 event, id " in said.stderr
    (event,) = answer(lake, "sql", "SELECT * FROM events")
    assert (event["type"], event["source"], event["message"]) == ("deploy", "ci", "to production")
    assert event["data"] == {"version": 3, "by": {"name": "ann"}, "region": "eu"}


@pytest.mark.parametrize(
    ("pairs", "event"),
    [
        (("type=a",), {"type": "a"}),
        (("type=a", "message="), {"type": "a", "message": ""}),
        (("a.b.c=1",), {"data": {"a": {"b": {"c": 1}}}}),
        (("data.a=1", "data.b=2"), {"data": {"a": 1, "b": 2}}),
        (("x=1.5", "y=true", "z=null", "u=[1]"), {"x": 1.5, "y": True, "z": None, "u": [1]}),
        (('x={"a"', "y=a=b", "z=NaN"), {"x": '{"a"', "y": "a=b", "z": "NaN"}),
        (('x=1,"y":2',), {"x": '1,"y":2'}),
    ],
)
def test_values_are_json_where_they_parse(pairs: tuple[str, ...], event: dict[str, Any]) -> None:
    """A value that is JSON is taken as such, all others as text."""
    assert event_of(pairs) == event


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (("data.x=1",), "no type"),
        (("type=a", "time=99999-01-01"), "not a date"),
        (("type=a", "time=0000-01-01"), "not a date"),
        (("type={}",), "type is text"),
        (("events.jsonl",), "not KEY=VALUE"),
        (("=x",), "not KEY=VALUE"),
        (("type=a", "type=b"), "given twice"),
        (("type=a", "data=1", "data.x=1"), "value of its own"),
    ],
)
def test_an_impossible_event_is_wrong_usage(
    lake: Path, pairs: tuple[str, ...], reason: str
) -> None:
    """One event that cannot be stored is wrong usage, in one line, and makes no lake."""
    said = run(lake, "append", *pairs, code=2)
    assert reason in said.stderr
    assert said.stderr.count("\n") == 1
    assert not lake.exists()


def test_defaults_fill_in_what_is_missing(lake: Path) -> None:
    """--type and --source are for events that have none, hints of a type included."""
    text = '{"x":1}\n{"type":"own","source":"s"}\n{"eventName":"hint"}\n{"type":"","source":null}\n'
    run(lake, "append", "--type", "given", "--source", "me", input=text)
    found = [(r["type"], r["source"]) for r in answer(lake, "sql", ALL)]
    assert found == [("given", "me"), ("own", "s"), ("hint", "me"), ("given", "me")]
    run(lake, "append", "--type", "given", "n=1")
    assert answer(lake, "stats")["pending"] == 5


def test_dedupe_content_drops_equal_events(lake: Path) -> None:
    """With --dedupe content the same lines twice are stored once, from pairs as from stdin."""
    text = lines(3, time="2026-01-01")
    for _ in range(2):
        run(lake, "append", "--dedupe", "content", input=text)
        run(lake, "append", "--dedupe", "content", "type=one", "data.n=1")
    assert answer(lake, "sql", "SELECT count(*) AS n FROM events") == [{"n": 4}]


# --- lines ----------------------------------------------------------------------------------------


def test_lines_are_taken_as_files_have_them(lake: Path) -> None:
    """A byte order mark, CRLF, blank lines and a missing last newline are no trouble."""
    text = b'\xef\xbb\xbf{"type":"a"}\r\n\r\n   \n{"type":"b"}\r\n{"type":"c"}'
    said = run(lake, "append", input=text)
    assert "stored 3 events in " in said.stderr
    assert [r["type"] for r in answer(lake, "sql", ALL)] == ["a", "b", "c"]


def test_no_input_stores_nothing(lake: Path) -> None:
    """Empty input is fine, and so is one of blank lines."""
    assert "stored 0 events" in run(lake, "append", input="").stderr
    assert "stored 0 events" in run(lake, "append", "-", input=" \n\n").stderr


def test_bad_lines_are_kept_aside_and_stop_nothing(lake: Path) -> None:
    """Each bad line goes to quarantine with its offset and reason; all others are stored."""
    bad = [b"{oops", b"[1,2]", b'{"type":"x","time":"99999-01-01"}', b'{"a":1}', b"\xff{}"]
    text = b"".join(b'{"type":"ok"}\n' + line + b"\n" for line in bad) + b'{"type":"last"}\n'
    said = run(lake, "append", input=text, code=1)
    assert "stored 6 events, 5 quarantined (SELECT * FROM quarantine shows them)" in said.stderr
    assert "lakelog: line 2: not JSON" in said.stderr
    kept = quarantined(lake)
    assert [k["position"] for k in kept] == [text.index(line) for line in bad]
    assert len({k["origin"] for k in kept}) == 1
    assert answer(lake, "quarantine", "list")[0]["file"] == "stdin"
    reasons = ["not JSON", "a list", "not a date", "no type", "not UTF-8"]
    assert all(r in k["reason"] for r, k in zip(reasons, kept, strict=True))
    assert kept[4]["line"] == "\\xff{}"
    assert answer(lake, "stats")["quarantined"] == 5


def test_only_the_first_bad_lines_are_shown(lake: Path) -> None:
    """Five bad lines are named, the rest counted; --quiet leaves the count."""
    said = run(lake, "append", input="{\n" + "bad\n" * 20, code=1)
    assert said.stderr.count(": not JSON") == 5
    assert "and 16 more bad lines" in said.stderr
    assert "21 quarantined" in run(lake, "-q", "append", input="bad\n" * 21, code=1).stderr


def test_thousands_of_bad_lines_are_quick(lake: Path) -> None:
    """A file of lines without a type is sorted out in one pass."""
    said = run(lake, "append", input='{"a":1}\n{"type":"ok"}\n' * 5000, code=1)
    assert "stored 5,000 events, 5,000 quarantined" in said.stderr


def test_what_no_line_should_hold_breaks_nothing(lake: Path) -> None:
    """Deep nesting, NUL bytes, odd Unicode and huge numbers are stored or set aside."""
    deep = b'{"type":"deep","data":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    odd = [
        b"\x00\x00",
        b'{"type":"nul\x00"}',
        b'{"type":"\\u0000"}',
        b'{"type":"s","x":"\\ud800"}',
        b'{"type":"n","x":1e999,"y":' + b"9" * 5000 + b"}",
        b'{"type":"d","a":1,"a":2}',
        b"NaN",
        b'{"type":"t","time":1e300}',
        b"\xe2\x80\xa8",
        b'"' + b"x" * 100_000,
    ]
    text = b"\n".join([b'{"type":"first"}', deep, *odd, b'{"type":"last"}'])
    run(lake, "append", input=text, code=1)
    # Numbers stay numbers, of which Python takes 4,300 digits.
    said = run(lake, "sql", ALL, "--json").stdout
    stored, kept = json.loads(said, parse_int=str), quarantined(lake)
    assert len(stored) + len(kept) == len(odd) + 3
    assert {e["type"]: e["data"] for e in stored}["n"]["y"] == "9" * 5000
    assert [stored[0]["type"], stored[-1]["type"]] == ["first", "last"]
    assert {"s", "d"} <= {e["type"] for e in stored}
    assert kept[0]["line"] == deep.decode()


def test_an_endless_line_is_kept_in_parts(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line beyond the limit is quarantined with all of its bytes; the next one is fine."""
    monkeypatch.setattr(cut, "LINE_MAX", 1 << 20)
    monkeypatch.setattr(cut, "PART", 1 << 19)
    text = b'{"type":"a"}\n{"type":"b","x":"' + "é".encode() * (3 << 20) + b'"}\n{"type":"c"}\n'
    run(lake, "append", input=text, code=1)
    assert [r["type"] for r in answer(lake, "sql", ALL)] == ["a", "c"]
    parts = sorted(quarantined(lake), key=lambda part: part["position"])
    assert "".join(part["line"] for part in parts).encode() == text.splitlines()[1]
    assert parts[0]["position"] == 13
    assert "a line of over 1,048,576 bytes is too long: part 1" in parts[0]["reason"]
    for part, following in itertools.pairwise(parts):
        assert following["position"] == part["position"] + len(part["line"].encode())
    run(lake, "quarantine", "replay")
    assert len(quarantined(lake)) == len(parts)


def test_a_line_may_be_as_long_as_the_limit() -> None:
    """A line of exactly the limit is whole, however it was cut into pieces; a longer one is not."""
    line = b"x" * cut.LINE_MAX
    pieces = [line[i : i + (5 << 20)] for i in range(0, len(line), 5 << 20)]
    (whole,) = cut.split([*pieces, b"\n"])
    assert whole is not None
    assert (whole.text == line, whole.fault) == (True, "")
    parts = [part for part in cut.split([*pieces, b"x", b"\n"]) if part is not None]
    assert all(part.fault and len(part.text) <= cut.PART for part in parts)
    assert sum(len(part.text) for part in parts) == len(line) + 1


def test_bytes_split_anywhere_give_the_same_lines() -> None:
    """Numbers, offsets and texts do not depend on how the input arrives."""
    text = b"\xef\xbb\xbfone\r\ntwo\n\nthree"
    whole = [(x.number, x.offset, x.text) for x in cut.split([text]) if x]
    assert whole == [(1, 0, b"one\r"), (2, 8, b"two"), (3, 12, b""), (4, 13, b"three")]
    for size in range(1, len(text)):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert [(x.number, x.offset, x.text) for x in cut.split(pieces) if x] == whole


# --- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("document", "types"),
    [
        ([{"type": "a"}, {"type": "b"}], ["a", "b"]),
        ({"Records": [{"eventName": "r"}, {"type": "s"}]}, ["r", "s"]),
        ({"type": "whole", "Records": [{"type": "no"}]}, ["whole"]),
        ({"type": "whole", "data": {"x": [1, 2]}}, ["whole"]),
        ([], []),
    ],
)
def test_one_document_gives_its_events(
    lake: Path, document: Any, indent: int | None, types: list[str]
) -> None:
    """An array gives its elements, Records its records, an object itself; on one line or many."""
    run(lake, "append", input=f"\n{json.dumps(document, indent=indent)}\n\n")
    assert [r["type"] for r in answer(lake, "sql", ALL)] == types


def test_a_document_keeps_its_digits(lake: Path) -> None:
    """Numbers and repeated keys of a pretty-printed document are as exact as those of a line."""
    text = '[\n {"type":"a",\n "n": 1.10000000000000000001},\n {"type":"b", "k":1, "k":2}\n]'
    run(lake, "append", input=text)
    data = run(lake, "sql", ALL).stdout.splitlines()
    assert '"data":{"n":1.10000000000000000001}' in data[0]
    assert '"data":{"k":[1,2]}' in data[1]


def test_elements_that_are_no_events_are_kept_aside(lake: Path) -> None:
    """Of an array, what is no event goes to quarantine by its number."""
    said = run(lake, "append", input='[\n{"type":"a"},\n5,\n null,\n{"x":1}\n]', code=1)
    assert [r["type"] for r in answer(lake, "sql", ALL)] == ["a"]
    assert "element 2: expected a JSON object, not a number" in said.stderr
    assert sorted(k["line"] for k in quarantined(lake)) == ["5", "null", '{"x":1}']


def test_a_broken_first_line_does_not_hold_up_the_rest(lake: Path) -> None:
    """Where lines follow that are events of their own, the input is no document."""
    text = '{"type": "cut off", "data": {\n' + lines(50)
    assert "stored 50 events, 1 quarantined" in run(lake, "append", input=text, code=1).stderr
    held = list(cut.documents(cut.split([text.encode()[:500]])))
    assert len([x for x in held if x]) > 5


@pytest.mark.parametrize("text", ["{\n", "[\n1,\n", '{"a":\n1}\n{"b":1}', '[1]\n{"type":"x"}\n'])
def test_what_turns_out_no_document_is_taken_line_by_line(lake: Path, text: str) -> None:
    """Each line of a broken document is quarantined, or stored, on its own."""
    run(lake, "append", input=text, code=1)
    stored = answer(lake, "sql", "SELECT count(*) AS n FROM events")[0]["n"]
    assert stored + len(quarantined(lake)) == len(text.splitlines())


def test_a_huge_document_is_given_up(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a document is taken line by line, and nothing is held in memory."""
    monkeypatch.setattr(cut, "DOCUMENT_MAX", 1000)
    text = "[\n" + ",\n".join('{"type":"a"}' for _ in range(200)) + "\n]\n"
    assert "1 event, 201 quarantined" in run(lake, "append", input=text, code=1).stderr


# --- real files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "events", "kinds"),
    [
        ("github/webhook_payloads.ndjson", 90, 30),
        ("cloudtrail/ec2_proxy_s3_exfiltration.ndjson", 103, 26),
    ],
)
def test_real_lines_are_all_stored(lake: Path, name: str, events: int, kinds: int) -> None:
    """Every line of real logs is an event; its type is the one its own key names."""
    run(lake, "append", input=real(name))
    query = "SELECT count(*) AS events, count(DISTINCT type) AS kinds FROM events"
    assert answer(lake, "sql", query) == [{"events": events, "kinds": kinds}]


def test_a_real_document_is_one_event(lake: Path) -> None:
    """A pretty-printed document without a type is one event of the given type, and comes back."""
    data = real("json/twitter.json")
    run(lake, "append", "--type", "tweet", input=data)
    (event,) = answer(lake, "sql", ALL)
    assert (event["type"], event["data"]) == ("tweet", json.loads(data))


def test_real_broken_files_break_nothing(lake: Path) -> None:
    """Every file of the JSON test suite is stored, or set aside, one line at a time."""
    need("../shared")
    files = sorted((DATA / "jsontestsuite" / "test_parsing").glob("*.json"))
    assert files
    text = b"\n".join(path.read_bytes().replace(b"\n", b" ") for path in files)
    said = run(lake, "append", "--type", "t", input=b'{"type":"first"}\n' + text, code=1)
    given = sum(1 for line in text.split(b"\n") if line.strip())
    counted = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM quarantine) AS n"
    assert answer(lake, "sql", counted) == [{"n": given + 1}]
    assert "quarantined" in said.stderr


def test_an_element_that_is_nested_too_deeply_stops_no_other(tmp_path: Path) -> None:
    deep = '{"type":"a","data":' + '{"x":' * 300 + "1" + "}" * 301
    said = run(tmp_path / "lake", "append", input=f'[{{"type":"b"}},{deep}]\n', code=1)
    assert "stored 1 event, 1 quarantined" in said.stderr
