"""Lines that are all spelled alike are cut without a query, as the exact rule reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.formats import jsonl
from lakelog.formats.uniform.uniform_lines import uniform_lines
from lakelog.ingest.records import records
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.effort import share
from tests.support.two_ways import HAZARDS, NOW, VALUES, one_by_one, shown

HEAD = b'{"ts":"2026-05-01T10:00:00.25Z","type":"A","source":"s","level":"INFO","data":'
ODD = [
    HEAD + b"null}",
    HEAD + b"NaN}",
    HEAD + b'{"a":-Infinity}}',
    HEAD + b"[1,]}",
    HEAD + b'"\\ud800"}',
    HEAD + b"1}}",
    HEAD + b"1,2}",
    HEAD + b'1,"data":2}',
    HEAD + b'{"n":0.30000000000000001}}',
    HEAD + b"[" * 300 + b"]" * 300 + b"}",
    HEAD + b"}",
    HEAD + b"{}",
    HEAD[:-8] + b"}",
    HEAD.replace(b'"A"', b'"A","type":"B"') + b"1}",
    HEAD.replace(b'"A"', b'""') + b"1}",
    HEAD.replace(b'"A"', b'"\\u0041"') + b"1}",
    HEAD.replace(b'"A"', b'"A\\"B"') + b"1}",
    HEAD.replace(b'"s"', b'"' + b"s" * 200 + b'"') + b"1}",
    HEAD.replace(b'"s"', b'"s\\","type":"B"') + b"1}",
    HEAD.replace(b'"s"', b"null") + b"1}",
    HEAD.replace(b'"s"', b'"s\x01"') + b"1}",
    HEAD + b'{"a":"\x01"}}',
    HEAD + b"1}\r",
    HEAD.replace(b"2026", b"0000") + b"1}",
    HEAD.replace(b"-05-01", b"-02-30") + b"1}",
    HEAD.replace(b"10:00:00.25", b'10:00","a":') + b"1}",
    HEAD.replace(b"INFO", b"info") + b"1}",
    b"",
    b"{",
    b'{"ts":"',
]


def plain(data: str, kind: str = "A", source: str = "s") -> bytes:
    """A line of the layout; what is special in its texts is escaped."""
    return HEAD.replace(b'"A"', json.dumps(kind, ensure_ascii=False).encode()).replace(
        b'"s"', json.dumps(source, ensure_ascii=False).encode()
    ) + (data + "}").encode("utf-8", "replace")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=20)
LINES = st.lists(
    st.builds(plain, VALUES, TEXT.filter(bool), TEXT) | st.sampled_from(ODD), min_size=1, max_size=9
)


def decided(engine: Any, lines: list[bytes]) -> dict[int, Any]:
    """The rows that are cut from lines, by position."""
    chunk = Chunk(b"".join(line + b"\n" for line in lines), 0)
    transformer = Transformer(lambda: engine, jsonl.FORM, "o")
    transformer._uniform = uniform_lines([HEAD + b"1}"])
    assert transformer._uniform is not None
    lines_of = records(chunk, jsonl.FORM, "once", final=True)
    tables, _ = transformer._by_layout(chunk, lines_of, NOW)
    return shown(tables[0]) if tables else {}


@settings(max_examples=share(150))
@example(lines=ODD)
@example(lines=HAZARDS)
@given(lines=LINES)
def test_lines_are_cut_as_the_exact_rule_reads_them(engine: Any, lines: list[bytes]) -> None:
    """Whatever is cut is what the exact rule gives, whatever lines stand beside it."""
    lines = [line.replace(b"\n", b" ") for line in lines]
    for some in (lines, *([line] for line in lines)):
        exact, at = one_by_one(engine, jsonl.FORM, some), 0
        fast = decided(engine, some)
        for line in some:
            if at in fast:
                assert fast[at] == exact[at], line
            at += len(line) + 1


def test_plain_lines_are_all_cut(engine: Any) -> None:
    """Each line of the layout is cut, wherever it stands, be its texts short or long."""
    lines = [
        plain(f'{{"n":{n},"text":"é \\n"}}', "é" * (1 + n % 9), "x" * (n % 40)) for n in range(99)
    ]
    assert len(decided(engine, lines)) == 99
    assert all(len(decided(engine, [line])) == 1 for line in lines)


def test_a_control_character_in_a_payload_leaves_its_line_alone(engine: Any) -> None:
    """A line whose payload has a raw control character is not cut, and those beside it are."""
    bad = [HEAD + b'{"a":"\x01"}}', HEAD + b'{"a":1\t}}', HEAD + b"1}\r"]
    lines = [plain("1"), *bad, plain("2")]
    assert [*decided(engine, lines)] == [0, sum(len(line) + 1 for line in lines[:-1])]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"A","time":"2026-05-01T10:00:00Z"}',
        b'{"time":"2026-05-01T10:00:00Z","type":"A","id":"1"}',
        b'{"time":"2026-05-01T10:00:00Z","type":"A","x":"1"}',
        b'{"time":"2026-05-01T10:00:00Z","type":"A","event_type":"B"}',
        b'{"time":"2026-05-01T10:00:00+02:00","type":"A"}',
        b'{"time": "2026-05-01T10:00:00Z", "type": "A"}',
        b'{"time":"2026-05-01T10:00:00Z"}',
        b'"time":"2026-05-01T10:00:00Z","type":"A"}',
        b"",
    ],
)
def test_other_lines_have_no_layout(line: bytes) -> None:
    """Where columns are spelled otherwise, an id makes a key or a member is unknown, none is
    looked for."""
    assert uniform_lines([line]) is None


def test_files_of_uniform_lines_are_ingested_without_loss(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    """Plain lines, odd ones and lines that are no events of one file all have their place."""
    lines = [plain(f'{{"n":{n}}}') for n in range(3000)]
    for place, line in enumerate(ODD):
        lines.insert(place * 100, line)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    report = lake.ingest(path)
    assert report.events + report.quarantined == sum(map(bool, lines))
    rows = lake.sql("SELECT position, data, source FROM events ORDER BY position").fetchall()
    at, places = 0, {}
    for line in lines:
        places[at] = line
        at += len(line) + 1
    assert len(rows) == report.events > 3000
    assert all(
        data is None
        or data.encode() in places[place]
        or b"\\" in places[place]
        or b"0.3" in places[place]
        for place, data, _ in rows
    )
    assert lake.ingest(path).events == 0


def test_ingest_and_queries_load_no_pandas(tmp_path: Path) -> None:
    """Neither ingest, also of bad lines, nor a query of what is appended, nor compaction loads
    pandas, which pyarrow would do."""
    path = tmp_path / "a.jsonl"
    lines = [plain(f'{{"n":{n},"text":"number {n} of these"}}') for n in range(2000)]
    path.write_bytes(b"\n".join([*lines, b"not an event\n"]))
    program = f"""
import sys
looked_for = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        looked_for.extend([name] * (name == "pandas"))
sys.meta_path.insert(0, Finder())
import lakelog
with lakelog.open({str(tmp_path / "lake")!r}) as lake:
    assert lake.ingest({str(path)!r}).events == 2000
    lake.append([{{"type": "B", "id": "1"}}, {{"type": "B", "level": "warning", "x": 1}}] * 9)
    assert lake.sql("SELECT count(*) FROM events WHERE type = 'A'").fetchall() == [(2000,)]
    assert len(lake.sql("SELECT * FROM events WHERE type = 'B'").fetchall()) == 10
    assert lake.compact().removed
assert not looked_for
"""
    subprocess.run([sys.executable, "-c", program], check=True)
