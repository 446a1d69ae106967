"""Inputs that chance spoils, for every format and every document: no crash, no hang, nothing lost.

Every line of a spoilt text is an event or is quarantined, or belongs to a record of several lines;
what the quick way decides the exact rule decides alike; no line takes a tenth of a second. Every
few cases a whole spoilt file is taken in, packed somehow, and audited.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import random
import time
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any
from unittest import mock

import duckdb
import zstandard

from lakelog import document
from lakelog.audit.audit import audit
from lakelog.disk import NotIntact
from lakelog.errors import LakelogError
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from lakelog.ingest.records import joins, simple
from lakelog.ingest.transform import Transformer
from lakelog.lines import pieces
from lakelog.lines.pieces import Chunk
from lakelog.values import parse_time
from lakelog.wal import frames as wal
from tests.support import lakes
from tests.support.document_texts import POOL
from tests.support.feeds import PACKED, feed, keyed
from tests.support.record_texts import AUDIT, CRI
from tests.support.samples import all_samples
from tests.support.table_heads import HEADS
from tests.support.world import warm_engine
from tests.torture.case import Case, Row

SLOW = 0.1
"""Seconds of processor time that no line may take."""
LINES, AUDITED = 400, 12
JSON = [
    *feed(5).decode().splitlines(),
    *keyed(range(3)).decode().splitlines(),
    *(json.dumps(e, ensure_ascii=False) for e in lakes.EXOTIC),
    '{"eventName":"x","details":{"a":[1,2,{"b":null}]},"level":"warn"}',
    '{"ts":1777630000.123456,"type":"A","data":{"n":1e400,"m":-0.0,"k":18446744073709551616}}',
    "[1,2]",
    "null",
    '"text"',
    "{}",
    '{"type":"\\ud800"}',
]
SAMPLED: dict[str, list[Any]] = {}
for sample in all_samples():
    SAMPLED.setdefault(sample.name, []).append(sample.text)
TEXTS: dict[str, list[Any]] = {
    **SAMPLED,
    "jsonl": JSON,
    "oos": [
        "2026-05-01T12:00:00|A|c|s|x|7",
        '2026-05-01T12:00:00|A|||x|{"n":3}',
        "||||",
        "|" * 9,
        "2026-05-01T12:00:00.5+02:00|Type|podcast|src|item|[1,2]",
        "1777630000|B||||",
    ],
    "bulk": [
        '{"index":{"_index":"i","_id":"1"}}',
        '{"n":1,"@timestamp":"2026-01-01T00:00:00Z"}',
        '{"create":{}}',
        '{"type":"T","data":[1]}',
        '{"delete":{"_id":"3"}}',
        '{"update":{"_id":"4"}}',
        '{"doc":{"n":5}}',
        '{"index":{}}',
    ],
    "plain": ["some words", "", "  indented", "2026-05-01 12:00:00 words", "\tat java.lang", "=="],
    "cri": CRI,
    "auditd": AUDIT,
    **POOL,
    **{name: [header + mark.join(cells)] for name, (_, header, cells, mark) in HEADS.items()},
}
SEEDED = {
    name: [text if isinstance(text, bytes) else text.encode() for text in texts]
    for name, texts in TEXTS.items()
}
PARTS = [text for texts in SEEDED.values() for text in texts[:3]]
PIECES = [
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"\n\n",
    b'"',
    b"\\",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b"]",
    b"," * 20,
    b":",
    b"|",
    b" " * 50,
    b"\t",
    b"=",
    b"-",
    b"9" * 30,
    b"1e999",
    b"null",
    b"NaN",
    b"\xe2\x80\xa8",
    b"<34>1 ",
    b"%s",
    b"'",
    b"[" * 200,
    b'{"a":' * 50,
    b"a" * 3000,
    b"\x1b[31m",
    b"\xf0\x9f\x98\x80",
    b"2026-02-30T25:61:61Z",
    b"Feb 29 00:00:00 ",
]


@functools.cache
def engine(process: int) -> duckdb.DuckDBPyConnection:
    """One database a process."""
    connection = duckdb.connect(":memory:", config={"threads": "1"})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def spoilt(line: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """A line with something changed, put in, left out, said twice or joined to another."""
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3, 8])):
        at = dice.randint(0, len(line))
        to = min(len(line), at + dice.choice([0, 0, 1, 1, 2, 5, 30]))
        way = dice.randrange(6)
        if way == 0:
            line = line[:at] + dice.choice(PIECES) + line[to:]
        elif way == 1:
            line = line[:at] + dice.randbytes(dice.randint(0, 3)) + line[to:]
        elif way == 2 and line:
            at = min(at, len(line) - 1)
            line = line[:at] + bytes([line[at] ^ (1 << dice.randrange(8))]) + line[at + 1 :]
        elif way == 3:
            line = line[:to] + line[at:]
        elif way == 4:
            line = line[:at] + dice.choice(others)[dice.randint(0, 20) :]
        else:
            line = line[:at]
    return line


def fuzzed(case: Case) -> None:
    """Spoil a text of one format, or documents of a lake."""
    names = [*FORMATS, "documents"]
    name, turn = names[case.number % len(names)], case.number // len(names)
    if name == "documents":
        _documents(case)
        return
    dice, seeds = case.dice, SEEDED.get(name, SEEDED["jsonl"])
    lines = [spoilt(dice.choice(seeds), dice, seeds + PARTS) for _ in range(case.some(LINES))]
    if name in HEADS:
        header, mark = HEADS[name][1].encode(), HEADS[name][3].encode()
        cells = [*seeds[0][len(header) :].split(mark), *PIECES]
        lines += [
            mark.join(dice.choices(cells, k=header.count(mark) + dice.randint(-1, 1)))
            for _ in lines
        ]
        lines[: dice.choice([0, 1, 1, 1])] = [header.rstrip(b"\n")]
    text = b"\n".join(lines) + dice.choice([b"\n", b"\n", b"", b"\r\n"])
    form = FORMATS.specialize(FORMATS[name], dice.choice([text[:4096]] * 9 + [b""]))
    _no_line_is_slow(form, lines)
    if turn % AUDITED == 1 or name == "bulk":
        _audited(case, name, text)
    else:
        with mock.patch.object(transform, "FEW", dice.choice([0, 0, 1000])):
            _nothing_is_lost(form, text)
    case.tally.notes[f"{name} lines"] += len(lines)
    case.verified(len(lines), len(lines))


def _no_line_is_slow(form: Any, lines: list[bytes]) -> None:
    """Every line is an event or a named refusal, in no time."""
    for line in lines:
        began = time.thread_time()
        try:
            form.parse(line.strip())
        except LakelogError:
            pass
        except UnicodeDecodeError:
            pass  # lines that are no text never come so far
        took = time.thread_time() - began
        assert took < SLOW, f"{form.NAME}: {took:.2f} s for {line[:200]!r}"


def _nothing_is_lost(form: Any, text: bytes) -> None:
    """Every full line gives one row or one bad line, or goes on a record."""
    made = Transformer(lambda: engine(os.getpid()), form, "o").run(Chunk(text, 0), final=True)
    found = made.table["position"].to_pylist() if made.table is not None else []
    places = sorted(found + [b.position for b in made.bad])
    full = list(_full_lines(text[: made.length]))
    assert found == sorted(found), "rows are not in the order of the text"
    assert not text[made.length :].strip() or b"\n" not in text[made.length :].strip(b"\n")
    if form.traits.many:
        assert len(places) == len({*places}), "a place is there twice"
        assert all(0 <= place < len(text) for place in places)
        assert form.places is None or {*places} <= {*full}
    elif simple(form):
        assert places == full, f"at {sorted({*places} ^ {*full})[:5]}"
    else:
        assert len(places) == len({*places}), "a record is there twice"
        assert joins(form)
        begins = {0, *_full_lines(text, b"")}  # a blank first line, and a lone mark, may
        assert {*places} <= begins, f"a record begins at {sorted({*places} - begins)[:5]}"
        assert not full or {0, full[0]} & {*places}, "the first line is not there"


def _full_lines(text: bytes, mark: bytes = BOM_UTF8) -> Iterator[int]:
    """Where lines begin that are not blank, but perhaps for a byte order mark; after a hole."""
    at = 0
    for line in text.split(b"\n"):
        hole = len(line) - len(line.lstrip(b"\0"))
        hole = hole if hole >= pieces.START_MIN else 0
        if line[hole:].strip().removeprefix(mark):
            yield at + hole
        at += len(line) + 1


def _audited(case: Case, name: str, text: bytes) -> None:
    """Take a spoilt file in, and prove that each of its lines is stored or quarantined."""
    warm_engine(case.patch)
    path = case.place / "f"
    packing = case.dice.choice(list(PACKED))
    path.write_bytes(PACKED[packing](text))
    with lakes.opened(str(case.place / "lake"), threads=1) as lake:
        for _ in range(2):
            (report,) = lake.ingest(str(path), format=name).files
            assert report.error == "", f"{name}, {packing}: {report.error}"
        proof = audit(lake.store, lake.branch_name, lake.engine, [str(path)])
        assert not proof.wrong, f"{name}, {packing}: the audit finds something wrong"
        assert not proof.failed, f"{name}, {packing}: the audit could not read the file"
        lake.settle()
    case.tally.notes["files audited"] += 1


def _documents(case: Case) -> None:
    """Spoilt WALs, documents and packed moves are refused by name or read as they were."""
    dice = case.dice
    lines = [json.dumps({"type": "T", "data": n}).encode() for n in range(3)]
    header = wal.Header("lake", "main", "w" * 32, 0, 0, (), "h", 1, 5)
    compressor = zstandard.ZstdCompressor()
    text = b"\n".join(lines)
    frames = [wal.encode_frame(text, len(lines), n, 0, 3 * n, 5, compressor) for n in range(4)]
    whole = wal.Header.encode(header) + b"".join(frames) + wal.encode_end(3)
    good = document.encode({"names": {"a": 1}, "text": "x" * 50})
    good_frames = [
        f.payload for f in wal.scan(whole[len(wal.Header.encode(header)) :], 0, "w").frames
    ]
    for _ in range(case.some(LINES)):
        data = spoilt(whole, dice, [whole, b"\n"])
        began = time.thread_time()
        opened = wal.Header.decode(data)
        if opened is not None:
            assert opened[0] == header, "a header that never was"
            seen = wal.scan(data[opened[1] :], opened[1], "w")
            assert all(f.payload in good_frames for f in (*seen.frames, *seen.resumed))
        text = spoilt(good, dice, [good])
        with contextlib.suppress(NotIntact):
            assert document.decode(text) == document.decode(good), "a document that never was"
        _moment(spoilt(dice.choice(MOMENTS), dice, MOMENTS))
        assert time.thread_time() - began < SLOW, f"slow: {data[:100]!r}"
    case.tally.notes["documents and WALs"] += case.some(LINES)
    case.verified(case.some(LINES), case.some(LINES))


MOMENTS = [b"2026-05-01T12:00:00.123456789+02:00", b"1777630000", b"1777630000123", b"2026-05-01"]


def _moment(data: bytes) -> None:
    """A time is a moment or a refusal."""
    with contextlib.suppress(LakelogError):
        assert isinstance(parse_time(data.decode("utf-8", "replace")), dt.datetime)


ROWS = [Row("fuzz", "fuzzed inputs", 200_000, 1_000_000, 60, fuzzed)]
