"""Bad input: one clear line each, the right exit code, good lines kept, bad ones in quarantine."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli
from lakelog.ingest import gather, transform
from lakelog.lines import inflate, source
from tests.support.feeds import PACKED, bad_lines, feed, numbers, put, text
from tests.support.peak_memory import growth

GOOD = feed(3)
NOISE = random.Random(5).randbytes(20_000)


def run(lake: lakelog.Lake, *words: str, code: int) -> Result:
    """Ingest by the command line and check its exit code."""
    result = CliRunner().invoke(cli, ["--lake", lake.path, "ingest", *words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def said(lake: lakelog.Lake, *paths: str, code: int) -> list[str]:
    """What ingest says of files, one line each; the last line, its summary, is left out."""
    lines = run(lake, *paths, code=code).stderr.splitlines()
    assert "new event" in lines[-1]
    return [line.split(": ", 1)[1] for line in lines[:-1]]


# --- lines ----------------------------------------------------------------------------------------

DEEP = b"[" * 10_000 + b"]" * 10_000
LINES = {
    "binary": (b"\x00\xff\xfe\x80\x81binary", "not UTF-8 at byte 1"),
    "not json": (b"Oct 11 22:14:15 host su: failed", "not JSON: .*"),
    "cut json": (b'{"type":"A","data":{"n":', "not JSON: .*"),
    "trailing comma": (b'{"type":"A","time":1,}', "not JSON: .*"),
    "nan": (b'{"type":"A","time":1,"data":{"n":NaN}}', "not JSON: NaN is not a JSON number"),
    "two values": (b'{"type":"A","time":1}{"type":"B"}', "not JSON: .*"),
    "a list": (b'[{"type":"A"}]', "expected a JSON object, not a list"),
    "text": (b'"text"', "expected a JSON object, not text"),
    "deep": (b'{"type":"A","time":1,"data":' + DEEP + b"}", "nested too deeply"),
    "deep objects": (
        b'{"type":"A","x":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
        "nested too deeply",
    ),
    "invalid utf-8": (b'{"type":"A","time":1,"data":{"n":"\xff\x01"}}', "not UTF-8 at byte 34"),
    "nul": (b'{"type":"A","time":1}\x00', "not JSON: .*"),
    "nul in text": (b'{"type":"A\x00","time":1}', "not JSON: .*"),
    "year 0": (b'{"type":"A","time":"0000-01-01T00:00:00Z"}', "time '0000.* year 1 to 9999"),
    "year 99999": (b'{"type":"A","time":"99999-01-01T00:00:00Z"}', "time '99999.* 1 to 9999"),
    "no date": (b'{"type":"A","time":"2024-02-30"}', "time '2024-02-30' is not a date .*"),
    "a time that is none": (b'{"type":"A","time":{"a":1}}', "time .* is not a date .*"),
    "a type that is none": (b'{"type":[1],"time":1}', "type is text, not a list"),
}


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, 100])
@pytest.mark.parametrize("name", LINES)
def test_a_bad_line(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, few: int
) -> None:
    """A bad line between good ones is quarantined with file, offset and reason; exit 1, once."""
    monkeypatch.setattr(transform, "FEW", few)
    line, reason = LINES[name]
    path = put(tmp_path / "some.jsonl", GOOD + line + b"\n" + feed(3, 3))
    (words,) = said(lake, path, code=1)
    assert words.startswith("1 bad line, first: ")
    assert words.endswith(f"(at byte {len(GOOD)})")
    assert numbers(lake) == list(range(6))
    ((at, why, kept),) = bad_lines(lake)
    assert at == len(GOOD)
    assert kept == line.decode("utf-8", "backslashreplace")[: len(kept)]
    assert re.fullmatch(reason, why), why
    assert said(lake, path, code=0) == []


def test_harmless_oddities(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A byte order mark, CR LF, blank lines and a missing last newline are no faults."""
    lines = GOOD.splitlines()
    odd = b"\xef\xbb\xbf" + b"\r\n\r\n  \n".join(lines)
    assert said(lake, put(tmp_path / "f", odd), code=0) == []
    assert (numbers(lake), bad_lines(lake)) == ([0, 1, 2], [])
    marked = b"\xef\xbb\xbf2026-05-01T12:00:00|A|||x|{}\r\n"
    assert lake.ingest(put(tmp_path / "g", marked)).events == 1
    marked = b'\xef\xbb\xbf{"index":{}}\n{"n":7}\n'
    assert lake.ingest(put(tmp_path / "h", marked)).events == 1
    assert lake.sql("SELECT data FROM events WHERE position = 16").fetchall() == [('{"n":7}',)]


def test_a_line_that_is_no_event_of_its_format(lake: lakelog.Lake, tmp_path: Path) -> None:
    """OOS lines with too few fields, bad JSON or a bad time are quarantined."""
    lines = [
        "2026-05-01T12:00:00|A|||x|{}",
        "2026-05-01T12:00:00|A",
        "2026-05-01T12:00:00|A|||x|{",
        "2026-13-01T12:00:00|A|||x|{}",
        "2026-05-01T12:00:00||||x|{}",
    ]
    assert len(said(lake, put(tmp_path / "f", text(lines)), code=1)) == 1
    assert [reason.split(":")[0] for _, reason, _ in bad_lines(lake)] == [
        "2 fields, but an OOS line has 6, separated by |",
        "not JSON",
        "time '2026-13-01T12",
        "no type",
    ]


# --- files ----------------------------------------------------------------------------------------


def test_files_that_are_not_there(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Each missing, dangling or unreadable path is named with a reason; the others are taken."""
    good = put(tmp_path / "good", GOOD)
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    missing, pattern = str(tmp_path / "missing"), str(tmp_path / "*.none")
    result = run(lake, missing, pattern, str(tmp_path), good, code=1)
    words = "No such file or directory"
    assert result.stderr.splitlines()[:3] == [
        f"{missing}: {words}",
        f"{pattern}: {words}",
        f"{tmp_path}/dangling: {words}",
    ]
    assert numbers(lake) == [0, 1, 2]


def test_a_file_that_vanishes_or_may_not_be_read(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is gone, or forbidden, when its turn comes is named; the others are taken."""
    for name in "abc":
        put(tmp_path / name, feed(1, ord(name)))
    real = source.Source.__init__

    def refuse(self: source.Source, path: str, name: str = "", **options: Any) -> None:
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        os.unlink(tmp_path / "c") if path.endswith("/a") else None
        real(self, path, name, **options)

    monkeypatch.setattr(source.Source, "__init__", refuse)
    assert said(lake, str(tmp_path), code=1) == ["Permission denied", "No such file or directory"]
    assert numbers(lake) == [97]


def test_a_disk_that_fails_while_reading(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before a read failed is kept, and the rest comes when it can be read."""
    path = put(tmp_path / "f", feed(100))

    class Failing:
        def __init__(self, file: Any) -> None:
            self._file, self._left = file, 5000

        def read(self, size: int) -> bytes:
            if not self._left:
                raise OSError(5, "Input/output error")
            data: bytes = self._file.read(min(size, self._left))
            self._left -= len(data)
            return data

    with monkeypatch.context() as patch:
        patch.setattr(source.Source, "_open", lambda self: Failing(self._file))
        words = said(lake, path, code=1)
    assert words[0] == "cannot be read any further: Input/output error"
    taken = lake.count()
    assert 0 < taken < 100
    assert lake.ingest(path).events == 100 - taken
    assert numbers(lake) == list(range(100))


def test_an_empty_file(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A file of nothing, blank lines or a byte order mark holds no events, and that is fine."""
    paths = [
        put(tmp_path / f"f{n}", data)
        for n, data in enumerate([b"", b"\n", b" \r\n\n", b"\xef\xbb\xbf", gzip.compress(b"")])
    ]
    assert said(lake, *paths, code=0) == []
    assert lake.count() == 0
    assert lake.ingest(put(tmp_path / "f0", GOOD)).events == 3


def test_binary_garbage(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Bytes in a log that are no text at all are quarantined, with or without newlines, once; but
    NULs at the end of a file are no line."""
    noise = NOISE[:2000]
    before, whole = feed(300, 10), noise.replace(b"\n", b"") + b"\n"
    paths = [put(tmp_path / "many", before + noise), put(tmp_path / "one", feed(300, 310) + whole)]
    paths.append(put(tmp_path / "sparse", GOOD + b"\0" * 5000))
    left = "5,000 bytes left: the last line has no newline yet"
    words = said(lake, *paths, code=1)
    assert len(words) == 3
    assert words[2] == left, words
    assert all("first: not UTF-8 at byte" in w or "not JSON" in w for w in words[:2]), words
    assert len(bad_lines(lake)) == len([x for x in noise.split(b"\n") if x.strip()]) + 1
    assert sorted(numbers(lake)) == [0, 1, 2, *range(10, 610)]
    assert said(lake, *paths, code=0) == [left]


@pytest.mark.thorough
@pytest.mark.matrix
@pytest.mark.parametrize("end", [b"", b"\n", b"\n" + feed(2, 5)])
def test_a_line_of_100_mb(lake: lakelog.Lake, tmp_path: Path, end: bytes) -> None:
    """A line beyond the limit is quarantined in parts, every byte of it; what stands around it is
    taken."""
    path = tmp_path / "f"
    line = b'{"type":"A","data":"' + "xž".encode() * 33_333_333 + b'"}'
    path.write_bytes(GOOD + line + end)
    (words,) = said(lake, str(path), code=1)
    reason = "a line of over 67,108,864 bytes is too long: part 1 (at byte 180)"
    assert words == f"6 bad lines, first: {reason}"
    parts = bad_lines(lake)
    assert parts[0][0] == len(GOOD)
    assert "".join(part for _, _, part in parts).encode() == line
    assert numbers(lake) == [0, 1, 2] + ([5, 6] if len(end) > 1 else [])
    assert said(lake, str(path), code=0) == []


def test_a_line_just_within_the_limit(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a line is too long does not depend on where a chunk ends."""
    monkeypatch.setattr(source.Source, "LINE_MAX", 10_000)
    monkeypatch.setattr(source.Source, "CHUNK", 4_000)
    lines = [b'{"type":"A","data":"%s"}\n' % (b"x" * n) for n in (9_976, 9_977, 9_978, 9_979, 5)]
    report = lake.ingest(put(tmp_path / "f", b"".join(lines * 3)))
    assert (report.events, report.quarantined) == (9, 6 + 6)  # two parts each
    assert {len(lines[0]), len(lines[1])} == {9_999, 10_000}


# --- compressed streams ---------------------------------------------------------------------------


KINDS = {"gz": "gzip", "zst": "zstd", "xz": "xz", "bz2": "bzip2"}


@pytest.mark.matrix
@pytest.mark.parametrize(
    "packing",
    ["gz", "zst", "xz", "bz2 of many streams", "gz of many members", "zst of many frames"],
)
@pytest.mark.parametrize("part", [0.0005, 0.3, 0.77, 0.999])
def test_a_truncated_stream(lake: lakelog.Lake, tmp_path: Path, packing: str, part: float) -> None:
    """All whole lines before the cut are kept, exit 1; the whole file later gives the rest."""
    noise = random.Random(4)  # always the same: a cut between two streams is no cut of a stream
    data = b"".join(feed(1, n, message=noise.randbytes(20).hex()) for n in range(3000))
    packed = PACKED[packing](data)
    path = put(tmp_path / "f", packed[: max(int(len(packed) * part), 10)])
    lines = said(lake, path, code=1)
    kind = KINDS[packing.split()[0]]
    assert lines[0].startswith(f"the {kind} stream ends too early")
    assert len(lines) <= 2  # the second tells of an unfinished line
    kept = lake.count()
    assert kept >= 3000 * part - (200 if kind == "gzip" else 1500)  # a block of zstd is 128 kB
    assert numbers(lake) == list(range(kept))
    assert bad_lines(lake) == []
    before = lake.store.refs.head("main").move
    assert said(lake, path, code=1)[0] == lines[0]
    assert lake.store.refs.head("main").move == before
    assert lake.ingest(put(tmp_path / "f", packed)).events == 3000 - kept
    assert numbers(lake) == list(range(3000))


@pytest.mark.parametrize("packing", KINDS)
def test_a_damaged_stream(lake: lakelog.Lake, tmp_path: Path, packing: str) -> None:
    """A stream with damage, or garbage after its end, gives what stands before that; after gzip and
    bzip2 garbage is ignored, as these programs do, and said."""
    packed = bytearray(PACKED[packing](feed(3000)))
    path = put(tmp_path / "f", bytes(packed) + b"garbage after the end")
    kind = KINDS[packing]
    if kind in ("gzip", "bzip2"):
        assert said(lake, path, code=0) == [
            f"bytes after the end of the {kind} stream were ignored"
        ]
    else:
        assert said(lake, path, code=1)[0].startswith(f"the {kind} stream is damaged: ")
    assert numbers(lake) == list(range(3000))
    packed[len(packed) // 2 :] = b"\xff" * (len(packed) - len(packed) // 2)
    path = put(tmp_path / "g", bytes(packed))
    assert said(lake, path, code=1)[0].startswith(f"the {kind} stream ")


def test_a_bomb_of_one_line(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A small file that inflates to one endless line is quarantined without being held."""
    path = tmp_path / "f.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(150):
            file.write(b"x" * 1_000_000)
    (words,) = said(lake, str(path), code=1)
    reason = "a line of over 67,108,864 bytes is too long: part 1 (at byte 0)"
    assert words == f"9 bad lines, first: {reason}"
    assert said(lake, str(path), code=0) == []


def test_a_bomb_beyond_belief(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that inflates beyond all reason is given up, what came before is kept."""
    monkeypatch.setattr(source, "RATIO_MAX", 100)
    monkeypatch.setattr(source, "_RATIO_FROM", 1_000_000)
    monkeypatch.setattr(source.Source, "CHUNK", 100_000)
    path = put(tmp_path / "f.zst", PACKED["zst"](feed(100) + b" " * 50_000_000))
    assert said(lake, path, code=1) == ["it inflates over 100 times: not read any further"]
    assert numbers(lake) == list(range(100))


@pytest.mark.parametrize("ending", KINDS)
def test_streams_in_pieces_of_any_size(ending: str, tmp_path: Path) -> None:
    """A stream gives the same bytes however it is asked for, and all before a cut."""
    data = b"".join(feed(1, n, message=os.urandom(n % 30).hex()) for n in range(500))
    for packing in (name for name in PACKED if name.split()[0] == ending):
        packed = PACKED[packing](data)
        for cut in [len(packed), *random.Random(3).sample(range(10, len(packed)), 12)]:
            path = put(tmp_path / "f", packed[:cut])
            for size in (7, 1 << 20):
                with open(path, "rb") as file:
                    stream, parts, why = inflate.inflated(file, KINDS[ending]), [], ""
                    try:
                        while part := stream.read(size):
                            assert len(part) <= size
                            parts.append(part)
                    except inflate.BrokenStream as error:
                        why = str(error)
                assert data.startswith(b"".join(parts))
                assert (b"".join(parts) == data and not why) or cut < len(packed)
                assert why.endswith("too early") or packed[:cut].endswith(b"abc") or not why


# --- memory and messages --------------------------------------------------------------------------


@pytest.mark.thorough
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A file many times larger than what is held at once is taken in bounded memory."""
    path = tmp_path / "f.gz"
    block = feed(2000, message="m" * 400)
    with gzip.open(path, "wb", 1) as file:
        for _ in range(60):
            file.write(block)  # 66 MB in all
    code = (
        "import sys, lakelog\n"
        "from lakelog.lines import source\n"
        "from lakelog.ingest import batch\n"
        "source.Source.CHUNK, batch.BYTES_MAX = 1 << 20, 8 << 20\n"
        "lake = lakelog.open(sys.argv[1], settings={'memory_bytes': '200MB', 'threads': 1})\n"
        "lake.ingest(sys.argv[3])\n"
        "begin()\n"
        "assert lake.ingest(sys.argv[2]).events == 120_000\n"
    )
    small = put(tmp_path / "small", feed(1000, 9_000_000))
    assert growth(code, str(tmp_path / "lake"), str(path), small) < 50_000_000


def test_the_outcome_as_json(lake: lakelog.Lake, tmp_path: Path) -> None:
    """With --json each file's outcome is a record on standard output, words stay on stderr."""
    path = put(tmp_path / "f.jsonl", GOOD + b"oops\n" + b'{"type":')
    with open(path, "ab"):
        found = json.loads(run(lake, path, str(tmp_path / "none"), "--json", code=1).stdout)
    assert found == [
        {
            "path": path,
            "format": "jsonl",
            "events": 3,
            "quarantined": 1,
            "arrivals": 0,
            "skipped": 0,
            "erased": 0,
            "lines": 4,
            "left": 8,
            "nuls": 0,
            "error": "",
            "ignored": "",
            "reason": "not JSON: unexpected character at column 1 (at byte 180)",
            "same_as": "",
            "repeated": 0,
            "note": "",
        },
        {
            "path": str(tmp_path / "none"),
            "format": "",
            "events": 0,
            "quarantined": 0,
            "arrivals": 0,
            "skipped": 0,
            "erased": 0,
            "lines": 0,
            "left": 0,
            "nuls": 0,
            "error": "No such file or directory",
            "ignored": "",
            "reason": "",
            "same_as": "",
            "repeated": 0,
            "note": "",
        },
    ]


def test_an_unfinished_line_is_told(lake: lakelog.Lake, tmp_path: Path) -> None:
    """An unfinished last line is said in words, and is no failure while somebody writes it; else
    it is a bad line."""
    path = put(tmp_path / "f", GOOD + b'{"type":')
    words = "8 bytes left: the last line has no newline yet"
    with open(path, "ab"):
        assert said(lake, path, code=0) == [words]
    (words,) = said(lake, path, code=1)
    assert "the last line has no newline and is no event" in words
    assert bad_lines(lake) == [(180, gather.UNFINISHED, '{"type":')]


def test_a_dry_run_makes_no_lake(tmp_path: Path) -> None:
    """--dry-run where there is no lake reads and counts, and there is still none."""
    path = put(tmp_path / "f", GOOD)
    words = ["--lake", str(tmp_path / "lake"), "ingest", path, "--dry-run"]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, (tmp_path / "lake").exists()) == (0, False)
    assert "3 new events from 1 file" in result.stderr
    assert result.stderr.endswith("(nothing was stored)\n")
