"""Audit: every line of a file exactly once is proven, and each planted fault is found."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.audit.audit import Audit, audit
from lakelog.audit.file_audit import FileAudit
from lakelog.cli import cli
from lakelog.collect.watch import Watcher
from lakelog.disk import disk
from lakelog.errors import InvalidSetting
from lakelog.ingest import batch, transform
from lakelog.ingest.quarantine import Quarantine
from lakelog.lines import source
from tests.support.feeds import PACKED, event, feed, keyed, put, text
from tests.support.plants import (
    PLANTS,
    Plant,
    change,
    change_cursor,
    double_rows,
    drop_rows,
    move_cursor,
    move_row,
    places,
    published,
    rewrite,
    two_faults,
)

MakeLake = Callable[..., lakelog.Lake]
MIXED = (
    b"\xef\xbb\xbf"
    + feed(20)
    + b"\n  \r\n\xef\xbb\xbf\n"
    + text(["oops"])
    + feed(10, 20)
    + b'{"no":\n\r\n'
    + feed(20, 30)
    + b"\xff\xfe\n"
    + text([event(50)])[:-1]
)
OOS = b"".join(b"2026-05-01T12:00:%02d|A|c|s|x|{}\n" % n for n in range(50)) + b"\nbad|line\n"
BULK = b'{"index":{"_index":"i"}}\n{"n":1}\n{"delete":{"_id":"x"}}\nstray\n{"update":{}}\n{"n":2}\n'
KEYED_BULK = b"".join(b'{"create":{"_id":"%d"}}\n{"n":%d}\n' % (n % 20, n) for n in range(30))


def found(lake: lakelog.Lake, *paths: str | Path, **options: Any) -> Audit:
    """Audit files of the branch."""
    return audit(lake.store, lake.branch_name, lake.engine, list(map(str, paths)), **options)


def one(lake: lakelog.Lake, *paths: str | Path, **options: Any) -> FileAudit:
    """Audit what is a single file."""
    (file,) = found(lake, *paths, **options).files
    return file


def faults(file: FileAudit) -> tuple[int, int, int]:
    """(missing, doubled, foreign) of a file."""
    return file.missing, file.doubled, file.foreign


def sound(file: FileAudit) -> tuple[int, int, int, int]:
    """(lines, stored, quarantined, known) of a file that is in order."""
    assert (faults(file), file.error, file.gone, file.first) == ((0, 0, 0), "", "", {})
    assert file.lines == file.stored + file.quarantined + file.known + file.let_go
    return file.lines, file.stored, file.quarantined, file.known


def run(lake: lakelog.Lake, *words: str, code: int) -> Result:
    """Run `lakelog audit` and check its exit code."""
    result = CliRunner().invoke(cli, ["--lake", lake.path, "audit", *words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


# --- files that are in order ----------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize(
    ("data", "counts"),
    [
        (MIXED, (54, 51, 3, 0)),
        (OOS, (51, 50, 1, 0)),
        (BULK, (3, 1, 2, 0)),
        (KEYED_BULK, (30, 20, 0, 10)),
        (keyed([*range(40), *range(30)]), (70, 40, 0, 30)),
        (b"\n\n \n", (0, 0, 0, 0)),
    ],
)
def test_a_file_in_order(
    lake: lakelog.Lake, tmp_path: Path, packing: str, data: bytes, counts: tuple[int, ...]
) -> None:
    """Of every format and packing each line is accounted for, also under another name."""
    path = put(tmp_path / "f.jsonl", PACKED[packing](data))
    lake.ingest(path)
    file = one(lake, path)
    assert sound(file) == counts
    assert (file.seen, file.waiting) == (len(data), 0)
    os.rename(path, tmp_path / "g")
    assert sound(one(lake, tmp_path)) == counts
    lake.compact()
    assert sound(one(lake, put(tmp_path / "g", data))) == counts


@pytest.mark.matrix
@pytest.mark.parametrize("chunk", [50, 300, 5000])
@pytest.mark.parametrize("data", [MIXED * 3, BULK * 30, KEYED_BULK + BULK, OOS, keyed([1, 2] * 12)])
def test_chunks(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, data: bytes
) -> None:
    """Where a file is cut into chunks changes nothing, nor who decides lines without a row."""
    path = put(tmp_path / "f.jsonl", data)
    lake.ingest(path)
    before = sound(one(lake))
    monkeypatch.setattr(source.Source, "CHUNK", chunk)
    monkeypatch.setattr(transform, "FEW", 0)
    assert sound(one(lake)) == before
    assert sound(one(lake, put(tmp_path / "f.gz", PACKED["gz"](data)))) == before


def test_growth(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What came later waits until it is taken in; a short file keeps its account as it grows."""
    path = tmp_path / "f.jsonl"
    for turn in range(1, 5):
        lake.ingest(put(path, feed(30 * turn)))
        put(path, feed(30 * turn + 2) + b"{cut")
        file = one(lake)
        assert sound(file) == (30 * turn, 30 * turn, 0, 0)
        assert file.waiting == len(feed(30 * turn + 2)) - len(feed(30 * turn)) + 4
        assert one(lake, put(tmp_path / "z", PACKED["zst"](path.read_bytes()))) == FileAudit(
            **{**vars(file), "source": str(tmp_path / "z")}
        )


@pytest.mark.parametrize("end", ['{"index":{}}\n{"n":', '{"index":{}}\n', '{"index":{}}'])
def test_an_unfinished_bulk_pair(lake: lakelog.Lake, tmp_path: Path, end: str) -> None:
    """A last action without its document, or with a part of it, is one row in quarantine."""
    path = str(tmp_path / "b.log")
    Path(path).write_bytes(BULK * 3 + end.encode())
    lake.ingest(path, format="bulk")
    account = one(lake, path, form="bulk")
    assert not account.wrong, account
    rows = lake.sql("SELECT line FROM quarantine WHERE starts_with(line, '{\"index\":{}}')")
    assert rows.fetchall() == [(end.rstrip(),)]


def test_more_behind_a_whole_last_line(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A last line taken without its newline, and what was written behind it, are two lines."""
    path, lines = tmp_path / "f.jsonl", feed(3).splitlines()
    for data in (lines[0], b"".join(lines[:2]), b"".join(lines) + b" \n" + feed(1, 3)):
        lake.ingest(put(path, data))
    assert sound(one(lake)) == (4, 4, 0, 0)
    drop_rows(lake, [len(lines[0])])
    assert faults(one(lake)) != (0, 0, 0)


RECORDS = {
    "java.log": "2024-05-01 10:00:0{n} ERROR boom\n  at a.b(C.java:1)\n  at d.e(F.java:2)\n",
    "mysql.log": "2024-05-01T10:00:0{n}.000000Z\t    8 Query\tSELECT 1,\n  2 FROM\n x\n",
    "words.log": "hello world {n}\n  indented more\n  and more\n",
    "syslog": "May  1 10:00:0{n} host app: one two\n",
}


@pytest.mark.matrix
@pytest.mark.parametrize("again", [0, 6])
@pytest.mark.parametrize("cut", range(3, 64, 10))
@pytest.mark.parametrize("name", RECORDS)
def test_a_text_record_that_grew_after_it_was_stored(
    lake: lakelog.Lake, tmp_path: Path, name: str, cut: int, again: int
) -> None:
    """A record that was cut where the file ended, and stored so, gives several rows: none is
    missing and none is foreign, wherever it was cut, and however often."""
    path, whole = tmp_path / name, "".join(RECORDS[name].format(n=n) for n in range(4))
    ends = [len(whole) // 2 + cut, len(whole) // 2 + cut + again, len(whole)]
    for end in ends:
        path.write_text(whole[:end])
        lake.ingest(str(path))
    file = one(lake, path)
    assert (faults(file), file.error) == ((0, 0, 0), "")


def test_a_row_between_two_values_of_a_line(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A row within a line that came in at once is foreign, even where a value ends."""
    joined = feed(1).strip() + feed(1, 1)
    lake.ingest(put(tmp_path / "f.jsonl", joined + feed(3, 2)))
    assert sound(one(lake)) == (4, 3, 1, 0)
    move_row(lake, places(lake)[0], len(feed(1)) - 1)
    assert one(lake).first == {"missing": [len(joined)], "foreign": [len(feed(1)) - 1]}


def test_ids_known_before(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Lines whose ids came by append, another file or the same one are known, not missing."""
    lake.append([event(n, id=f"id-{n}") for n in range(10)])
    lake.settle()
    lake.ingest(put(tmp_path / "a", keyed(range(5, 30))))
    lake.ingest(put(tmp_path / "b", keyed([*range(20, 40), *range(35, 45)])))
    assert [sound(f) for f in found(lake).files] == [(25, 20, 0, 5), (30, 15, 0, 15)]
    lake.compact()
    assert [f.known for f in found(lake).files] == [5, 15]


def test_an_id_whose_row_was_lost(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A key that stayed in the id runs does not hide that its row is gone."""
    path = put(tmp_path / "f.jsonl", keyed([1, 2, 3, 2]))
    lake.ingest(path)
    drop_rows(lake, [places(lake)[1]])
    file = one(lake)
    assert (faults(file), file.known) == ((2, 0, 0), 0)
    size = len(keyed([1]))
    assert file.first == {"missing": [size, 3 * size]}


@pytest.mark.parametrize("asked", [False, True])
def test_sources(lake: lakelog.Lake, tmp_path: Path, asked: bool) -> None:
    """Files taken in under a --source are found by it, and without it by what the lake knows."""
    path = put(
        tmp_path / "f.jsonl", text([{"type": "A", "time": 1, "id": str(n % 5)} for n in range(9)])
    )
    for name in ("web1", "web2"):
        lake.ingest(path, source=name)
    for name in ("web1", "web2"):
        assert sound(one(lake, path, label=name)) == (9, 5, 0, 4)
    files = found(lake, *([path] if asked else [])).files
    assert [(f.label, sound(f)) for f in files] == [(w, (9, 5, 0, 4)) for w in ("web1", "web2")]
    assert one(lake, path, label="web3").error == "never ingested under this source"
    assert [f.label for f in found(lake, label="web2").files] == ["web2"]


def test_a_forced_format(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A _bulk file taken in as JSON lines is told by the lake; any format can be forced."""
    path = put(tmp_path / "f.jsonl", BULK)
    lake.ingest(path, format="jsonl")
    assert (one(lake).format, sound(one(lake))[0]) == ("jsonl", 6)
    other = put(tmp_path / "g", b"first\n" + KEYED_BULK)
    lake.ingest(other, format="bulk")
    assert sound(one(lake, other, form="bulk")) == (31, 20, 1, 10)
    with pytest.raises(InvalidSetting, match="no format 'xml'"):
        found(lake, form="xml")


def test_rollback_undo_and_gc(make_lake: MakeLake, tmp_path: Path) -> None:
    """Cursors and rows go back and forth together, so an audit holds before and after."""
    lake = make_lake(gc_grace_hours=0, history_days=0)
    path = put(tmp_path / "f.jsonl", MIXED)
    lake.ingest(path)
    lake.tag("v1")
    lake.ingest(put(tmp_path / "f.jsonl", MIXED + b"\n" + feed(9, 60)))
    grown = sound(one(lake))
    lake.rollback("v1")
    assert (sound(one(lake)), one(lake).waiting) == ((54, 51, 3, 0), 1 + len(feed(9, 60)))
    lake.undo()
    assert sound(one(lake)) == grown == (63, 60, 3, 0)
    lake.compact()
    lake.gc()
    assert sound(one(lake)) == grown


def test_cursors_kept_over_a_rollback(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A rollback that kept cursors leaves lines that are nowhere, and the audit says so."""
    path = tmp_path / "f.jsonl"
    lake.ingest(put(path, feed(1)))
    lake.tag("v1")
    lake.ingest(put(path, feed(5)))
    lake.rollback("v1", cursors=False)
    assert faults(one(lake)) == (4, 0, 0)
    assert one(lake).first == {"missing": [len(feed(n)) for n in range(1, 5)]}
    os.remove(path)
    assert (one(lake).seen, one(lake).stored, one(lake).lines) == (len(feed(5)), 1, 5)


def test_branches(make_lake: MakeLake, tmp_path: Path) -> None:
    """Each branch answers for what it took in itself."""
    lake = make_lake()
    path = put(tmp_path / "f.jsonl", feed(10))
    lake.ingest(path)
    other = lake.branch("other")
    other.ingest(put(tmp_path / "f.jsonl", feed(15)))
    assert [sound(one(at))[0] for at in (lake, other)] == [10, 15]
    assert [one(at).waiting > 0 for at in (lake, other)] == [True, False]
    other.close()


def test_replayed_lines(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Quarantined lines that became events, or were known by their id, are accounted for."""
    lines = OOS + keyed([1, 2, 2])
    lake.ingest(put(tmp_path / "f.jsonl", lines), format="oos")
    assert sound(one(lake)) == (54, 50, 4, 0)
    Quarantine(lake.store, "main").replay(lake.engine)
    assert sound(one(lake)) == (54, 52, 1, 1)


def test_a_line_too_long(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line too long to be taken in at once is quarantined in parts, and each is needed."""
    monkeypatch.setattr(source.Source, "LINE_MAX", 1000)
    monkeypatch.setattr(source.Source, "CHUNK", 400)
    lake.ingest(put(tmp_path / "f.jsonl", feed(5) + b"x" * 5000 + b"\n" + feed(5, 5)))
    assert sound(one(lake)) == (16, 10, 6, 0)
    drop_rows(lake, [len(feed(5)), len(feed(5)) + 3000], "quarantine")
    pairs = BULK[:33] * 5 + BULK[:25]
    lake.ingest(put(tmp_path / "g", pairs + b"x" * 5000 + b"\n" + BULK[:33] * 5))
    assert sound(one(lake, tmp_path / "g")) == (17, 10, 7, 0)  # and an action before it
    missing = [len(feed(5)), len(feed(5)) + 3000]
    assert one(lake, tmp_path / "f.jsonl").first == {"missing": missing}


def test_retention(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Events that a retention took are let go, younger ones are missing once they are lost."""
    late = text([event(5, time=None), event(6, time=None), event(7000), event(8000)])
    lake.ingest(put(tmp_path / "f.jsonl", feed(5) + late))
    line = lakelog.values.parse_time("2026-02-02T03:00:00Z")
    age = disk.now_us() - lakelog.values.to_micros(line)
    lake.retention(f"{age}us", apply=True)
    file = one(lake)
    assert (file.let_go, sound(file)) == (5, (9, 4, 0, 0))
    assert "5 removed by retention" in run(lake, code=0).stderr
    drop_rows(lake, places(lake)[1:3])
    assert (one(lake).let_go, faults(one(lake))) == (6, (1, 0, 0))
    lake.undo()
    assert sound(one(lake)) == (9, 9, 0, 0)


def test_erasure(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What was erased is let go, and so is what was refused since; what was lost is missing."""
    hers = [event(n) | {"subject": "ada", "id": f"i{n}"} for n in (1, 2)]
    lines = text([*hers, event(3) | {"subject": "bob"}, "broken ada"])
    lake.ingest(put(tmp_path / "f.jsonl", lines))
    lake.erase(subject="ada", why="asked")
    lake.ingest(put(tmp_path / "later.jsonl", feed(3) + text(hers)))
    let_go = [(one(lake, tmp_path / name).let_go) for name in ("f.jsonl", "later.jsonl")]
    assert let_go == [3, 2]
    assert "5 removed by retention, dedupe or erasure" in run(lake, code=0).stderr
    drop_rows(lake, places(lake)[:1])
    assert sum(faults(file)[0] for file in found(lake).files) == 1


# --- planted faults -------------------------------------------------------------------------------

FILES: dict[str, tuple[bytes, str]] = {
    "plain": (MIXED, "plain"),
    "gz": (MIXED, "gz"),
    "zst": (MIXED, "zst"),
    "oos": (OOS, "plain"),
    "ids": (keyed(range(40)) + b"oops\n", "plain"),
    "bulk": (BULK * 9, "plain"),
    "bulk gz": (BULK * 9, "gz"),
    "long": (feed(3000) + b"oops\n", "plain"),
}


@pytest.mark.parametrize(
    "name", ["plain", *(pytest.param(n, marks=pytest.mark.matrix) for n in FILES if n != "plain")]
)
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault(lake: lakelog.Lake, tmp_path: Path, name: str, plant: Plant) -> None:
    """Each fault is found with its kind, its number and its first offset, in every file."""
    data, packing = FILES[name]
    path = put(tmp_path / "f.jsonl", PACKED[packing](data))
    lake.ingest(path)
    if name == "zst":
        lake.compact()
    sound(one(lake))
    expected = plant(lake, data, places(lake), places(lake, "quarantine"))
    if name == "ids" and expected[0] and sum(expected) == 2 and plant is not two_faults:
        expected = (0, *expected[1:])  # its id is known, by the row that stands elsewhere
    file = one(lake, path)
    assert faults(file) == expected
    assert {k: len(v) for k, v in file.first.items()} == {
        k: min(n, 5) for k, n in zip(("missing", "doubled", "foreign"), expected, strict=True) if n
    }
    assert one(lake) == file
    said = run(lake, path, code=3).stderr.splitlines()
    assert len(said) == 1 + sum(map(bool, expected))
    assert f"at byte {min(min(v) for v in file.first.values()):,}" in "\n".join(said)


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(16))
def test_many_faults_at_once(lake: lakelog.Lake, tmp_path: Path, seed: int) -> None:
    """Whatever rows are lost, doubled and moved at random, the numbers are those of plain sets."""
    chance = random.Random(seed)
    data = FILES[["plain", "oos", "bulk", "long"][seed % 4]][0]
    path = put(tmp_path / "f.jsonl", data)
    lake.ingest(path)
    at = places(lake)
    expected = {*at, *places(lake, "quarantine")}
    for place in chance.sample(at, 3):
        move_row(lake, place, chance.randrange(len(data) + 50))
    left = places(lake)
    drop_rows(lake, chance.sample(left, chance.randrange(1, 7)))
    double_rows(lake, chance.sample(left, chance.randrange(7)))
    there = places(lake) + places(lake, "quarantine")
    faulty = {
        "missing": sorted(expected.difference(there)),
        "doubled": sorted({place for place in there if there.count(place) > 1}),
        "foreign": sorted(set(there) - expected),
    }
    file = one(lake, path)
    assert faults(file) == tuple(map(len, faulty.values()))
    assert file.first == {fault: places[:5] for fault, places in faulty.items() if places}


@pytest.mark.parametrize("packing", ["plain", "gz", "zst"])
@pytest.mark.parametrize("size", [5, 300])
def test_a_cursor_moved_forward(
    lake: lakelog.Lake, tmp_path: Path, packing: str, size: int
) -> None:
    """Lines that a cursor says were taken in, and were not, are missing."""
    path, data = tmp_path / "f.jsonl", feed(size + 3)
    lake.ingest(put(path, PACKED[packing](feed(size))))
    put(path, PACKED[packing](data))
    move_cursor(lake, data, len(data))
    assert faults(one(lake)) == (3, 0, 0)
    assert one(lake).first["missing"][0] == len(feed(size))


@pytest.mark.parametrize("step", [-7, 7])
def test_a_cursor_that_fits_no_file(lake: lakelog.Lake, tmp_path: Path, step: int) -> None:
    """A cursor moved without the check of the bytes before it belongs to no file any more."""
    path = put(tmp_path / "f.jsonl", feed(20))
    lake.ingest(path)
    (cursor,) = published(lake)
    change_cursor(lake, bytes=cursor.bytes + step)
    assert one(lake, path).error == "another file has its name now"
    assert faults(one(lake)) == (0, 0, int(step < -100))


def test_taken_in_again_after_a_lost_cursor(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Without its cursor a file's rows stand alone, and once it came again they are doubled."""
    path = put(tmp_path / "f.jsonl", feed(200) + b"oops\n")
    lake.ingest(path)
    change(lake, published(lake)[0].removal())
    assert (one(lake).foreign, one(lake).gone) == (201, "no cursor remembers this file")
    assert one(lake, path).error == "never ingested"
    lake.ingest(path)
    assert faults(one(lake)) == (0, 201, 0)


def test_one_bad_file_of_many(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault is laid to its own file, over several publishes and id runs."""
    monkeypatch.setattr(batch, "ROWS_MAX", 20)
    monkeypatch.setattr(source.Source, "CHUNK", 700)
    for n in range(12):
        put(tmp_path / f"f{n:02}", keyed(range(100 * n, 100 * n + 50)) + feed(n, 5000 + 50 * n))
    lake.ingest(str(tmp_path))
    assert [sound(f) for f in found(lake, tmp_path).files] == [
        (50 + n,) * 2 + (0, 0) for n in range(12)
    ]
    origin = published(lake)[7].origin

    def alter(table: pa.Table) -> pa.Table:
        ours = pc.equal(table["origin"], origin)
        return table.filter(pc.invert(pc.and_(ours, pc.less(table["position"], 500))))

    rewrite(lake, "events", alter)
    (wrong,) = found(lake).wrong
    assert wrong.source == str(tmp_path / "f07")
    assert faults(wrong) == (
        len([n for n in range(50) if len(keyed(range(700, 700 + n))) < 500]),
        0,
        0,
    )


# --- files that are gone or cannot be read --------------------------------------------------------


def test_a_file_that_is_gone(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Of a file that is gone the lake's side is checked: each place once, no more than lines."""
    path = put(tmp_path / "f.jsonl", MIXED)
    lake.ingest(path)
    os.remove(path)
    file = one(lake)
    assert (file.gone, file.error, faults(file)) == ("no such file now", "", (0, 0, 0))
    assert (file.seen, file.stored, file.quarantined) == (len(MIXED), 51, 3)
    assert file.lines == MIXED.count(b"\n") + 1
    said = run(lake, code=1).stderr
    assert "51 events and 3 quarantined lines in the lake" in said
    assert "not proven: 1 of 1 files no longer exist" in said
    assert one(lake, path).error == "no such file now"
    run(lake, path, code=1)
    double_rows(lake, places(lake)[4:6])
    assert faults(one(lake)) == (0, 2, 0)
    run(lake, path, code=3)


def test_files_that_are_gone_beside_others(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Of how many files nothing is proven is said, and is no success."""
    for name in "ab":
        lake.ingest(put(tmp_path / f"{name}.jsonl", text([event(ord(name))])))
    assert run(lake, code=0).stderr.endswith("each is stored exactly once\n")
    os.remove(tmp_path / "a.jsonl")
    assert "; not proven: 1 of 2 files no longer exist" in run(lake, code=1).stderr


@pytest.mark.parametrize(("to", "foreign"), [(len(MIXED), 1), (-3, 1), (1, 0), (7, 0)])
def test_a_foreign_row_of_a_file_that_is_gone(
    lake: lakelog.Lake, tmp_path: Path, to: int, foreign: int
) -> None:
    """Rows beyond the cursor are foreign; where within a file its lines begin, nobody knows."""
    path = put(tmp_path / "f.jsonl", MIXED)
    lake.ingest(path)
    os.remove(path)
    move_row(lake, places(lake)[3], to)
    assert faults(one(lake)) == (0, 0, foreign)


def test_more_rows_than_lines(lake: lakelog.Lake, tmp_path: Path) -> None:
    """More places than lines cannot all be lines of a file that is gone."""
    path = put(tmp_path / "f.jsonl", feed(3))
    lake.ingest(path)
    os.remove(path)
    change_cursor(lake, lines=1)
    assert faults(one(lake)) == (0, 0, 2)


def test_another_file_under_the_name(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A log that was rotated away is found by what it holds, else reported as gone."""
    lake.ingest(put(tmp_path / "log", feed(50)))
    os.rename(tmp_path / "log", tmp_path / "log.1")
    lake.ingest(put(tmp_path / "log", feed(9, 50)))
    first, second = found(lake).files
    assert (sound(first)[0], second.gone, second.stored) == (9, "another file has its name now", 50)
    assert [sound(f)[0] for f in found(lake, tmp_path).files] == [9, 50]
    put(tmp_path / "log", feed(9, 70))
    files = found(lake, tmp_path / "log").files
    assert [(f.error, f.stored) for f in files] == [
        ("another file has its name now", n) for n in (50, 9)
    ]


def test_what_cannot_be_read(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Strangers, pipes and cut files are named with the reason, the others are audited."""
    good, whole = put(tmp_path / "good", feed(3, 90)), PACKED["gz"](feed(2000))
    cut = put(tmp_path / "cut.gz", whole[: len(whole) // 2])
    lake.ingest([good, cut])
    os.mkfifo(tmp_path / "pipe")
    names = [good, cut, str(tmp_path / "none"), str(tmp_path / "pipe"), "-"]
    names.append(put(tmp_path / "new", feed(5, 70)))
    files = found(lake, *names).files
    assert sound(files[0])[0] == 3
    assert (faults(files[1]), files[1].lines > 100) == ((0, 0, 0), True)
    assert files[1].error
    assert [f.error for f in files[2:]] == [
        "no such file now",
        "not a regular file",
        "standard input cannot be read twice: name a file",
        "never ingested",
    ]
    assert run(lake, *names, code=1).stderr.count("\n") == 6
    put(tmp_path / "cut.gz", whole[: len(whole) // 3])
    assert one(lake, cut).error == "another file has its name now"


def test_empty_files(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A file without a byte has nothing to take in, so nothing of it is missing."""
    lake.ingest(put(tmp_path / "f.jsonl", feed(3)))
    put(tmp_path / "empty", b"")
    put(tmp_path / "empty.gz", PACKED["gz"](b""))
    lake.ingest(str(tmp_path))
    files = found(lake, tmp_path).files
    assert [(f.lines, f.error, f.gone) for f in files] == [(0, "", ""), (0, "", ""), (3, "", "")]
    put(tmp_path / "f.jsonl", b"")
    reason = "another file has its name now"
    assert (one(lake).gone, one(lake, tmp_path / "f.jsonl").gone) == (reason, reason)
    assert one(lake, tmp_path / "f.jsonl").error == "", "an empty file has nothing to be read"
    assert one(lake, put(tmp_path / "g.gz", PACKED["gz"](b"x")[:12])).error


def test_an_emptied_file_that_moved(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A log that was copied, truncated and renamed before its next line has nothing to prove."""
    log = put(tmp_path / "a.log", feed(3))
    with closing(Watcher(lake, [str(tmp_path)])) as watcher:
        watcher.round(final=True)
        copy = put(tmp_path / "a.log.1", feed(3))
        put(Path(log), b"")
        watcher.round(final=True)
        os.rename(log, f"{log}.2")
        watcher.round(final=True)
    files = found(lake, tmp_path).files
    assert [(f.source, f.lines, f.gone) for f in files] == [(copy, 3, ""), (f"{log}.2", 0, "")]
    assert [(f.source, f.gone) for f in found(lake).files] == [(copy, "")]


def test_what_came_through_a_pipe(lake: lakelog.Lake) -> None:
    """Standard input is not there to be read again; the lake's side is checked."""
    words = ["--lake", lake.path, "ingest", "-"]
    assert CliRunner().invoke(cli, words, input=feed(4)).exit_code == 0
    file = one(lake)
    assert (file.gone, file.stored, faults(file)) == ("it came through a pipe", 4, (0, 0, 0))


# --- the command line -----------------------------------------------------------------------------


def test_an_empty_lake(lake: lakelog.Lake) -> None:
    """Where nothing was taken in there is nothing to prove, and no error."""
    assert json.loads(run(lake, "--json", code=0).stdout) == []
    assert run(lake, code=0).stderr == "nothing to read again\n"


def test_output(lake: lakelog.Lake, tmp_path: Path) -> None:
    """JSON has every number, a table fits 80 columns, and the last line sums up."""
    path = put(tmp_path / ("long" * 30 + ".jsonl"), MIXED)
    lake.ingest(path)
    (record,) = json.loads(run(lake, "--json", code=0).stdout)
    assert record["source"] == path
    assert (record["state"], record["lines"], record["missing_at"]) == ("sound", 54, [])
    shown = run(lake, "--format", "table", code=0)
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert re.search(r"54 +51 +3 +0 +0 +0 +0$", shown.stdout, re.M)
    assert shown.stderr.startswith("54 lines of 1 file read again (")
    assert shown.stderr.endswith("each is stored exactly once\n")
    drop_rows(lake, places(lake))
    (record,) = json.loads(run(lake, "--json", path, code=3).stdout)
    assert (record["state"], record["missing"], len(record["missing_at"])) == ("wrong", 51, 5)
    said = run(lake, path, code=3).stderr
    assert f"{path}: 51 lines missing: at byte 0, " in said
    assert "51 faults in 1 file" in said
    for name in ("csv", "md", "ndjson"):
        assert "51" in run(lake, "--format", name, code=3).stdout
    run(lake, "--format", "parquet", "-o", str(tmp_path / "out.parquet"), code=3)


def test_the_tail_changes_nothing(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Events that are not yet published are no rows of files, and an audit publishes nothing."""
    lake.ingest(put(tmp_path / "f.jsonl", feed(9)))
    lake.append(event(99))
    head = lake.store.refs.head("main").move
    assert sound(one(lake)) == (9, 9, 0, 0)
    assert lake.store.refs.head("main").move == head
