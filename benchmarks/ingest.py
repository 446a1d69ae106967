"""Bulk ingest: its rate against a bare COPY of the same events, repeats, memory, and needles."""

from __future__ import annotations

import gzip
import random
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

import lakelog
from benchmarks import gen, measure
from benchmarks.measure import Scale, child, directory, interleave, seconds
from benchmarks.report import Row, Target

_COLUMNS = (
    "{timestamp: 'TIMESTAMPTZ', event_type: 'VARCHAR', content_type: 'VARCHAR',"
    " source: 'VARCHAR', item_id: 'VARCHAR', data: 'JSON'}"
)
_TAKE_IN = """
import lakelog
lake = lakelog.open(sys.argv[1])
report = lake.ingest(sys.argv[2])
result = report.events, report.quarantined, report.skipped
"""
_BAD = (b"not JSON at all\n", b'{"event_type": "X", "timestamp": "yesterday"}\n')
_SAMPLES = 15


def rate(scale: Scale) -> list[Row]:
    """Ingest events of which one in a hundred is malformed, against COPY of the clean file."""
    with directory() as root:
        clean, bad = _files(root, scale.bulk)
        count = scale.bulk

        def ours(path: Path) -> float:
            shutil.rmtree(root / "lake", ignore_errors=True)
            with lakelog.open(str(root / "lake")) as lake:
                lake.sql("SELECT 1").fetchall()
                return count / seconds(lambda: lake.ingest(str(path)))

        def peer() -> float:
            return count / seconds(lambda: _copy(clean, root / "copy.parquet"))

        spoilt, whole, bare = interleave(scale.rounds, lambda: ours(bad), lambda: ours(clean), peer)
        rows = [
            Row("ingest, 1 % malformed, to COPY", "ev/s", spoilt, bare, Target(">=", 0.5)),
            Row("ingest, clean, to COPY", "ev/s", whole, bare, Target(">=", 0.5)),
        ]
        return rows + _again(root, clean)


def _again(root: Path, path: Path) -> list[Row]:
    """The same file once more, and grown by a hundredth."""
    with lakelog.open(str(root / "lake"), create=False) as lake:
        held = lake.count()
        lake.ingest(str(path))
        held = lake.count()
        same = seconds(lambda: lake.ingest(str(path)))
        _require(lake.count() == held)
        lines = path.read_bytes().splitlines(keepends=True)
        added = lines[: max(len(lines) // 100, 1)]
        with path.open("ab") as file:
            file.writelines(added)
        grown = seconds(lambda: lake.ingest(str(path)))
        _require(lake.count() == held + len(added))
        sealed = lake.stats().bytes / held
        lake.compact()
        packed = lake.stats().bytes / held
    return [
        Row("the same file again", "s", [same], target=Target("<=", 0.3, "figure")),
        Row("the file grown by 1 %", "s", [grown], target=Target("<=", 0.3, "figure")),
        Row("ingested", "B/ev", [sealed], target=Target("<=", 25.5, "figure")),
        Row("then compacted", "B/ev", [packed], target=Target("<=", 21.5, "figure")),
    ]


def identities(scale: Scale) -> list[Row]:
    """Events with ids come a second time, shuffled and packed, beside a long history of ids."""
    with directory() as root:
        lines = [_with_id(n, line) for n, line in enumerate(_lines(scale.bulk))]
        first, other = root / "first.jsonl", root / "other.log.gz"
        first.write_bytes(b"".join(lines))
        random.Random(1).shuffle(lines)
        with gzip.open(other, "wb", compresslevel=1) as file:
            file.write(b"".join(lines))
        path = root / "lake"
        with lakelog.open(str(path)) as lake:
            lake.ingest(str(_history(root, scale.history * 2)))
        once = child(_TAKE_IN, str(path), str(first))
        again = child(_TAKE_IN, str(path), str(other))
        _require(once.result[0] == again.result[2] == scale.bulk and again.result[0] == 0)
        rates = [scale.bulk / again.inside], [scale.bulk / once.inside]
        peak = max(once.peak, again.peak)
    return [
        Row("with ids, again to first", "ev/s", *rates, Target(">=", 0.3)),
        Row("peak memory of both", "MB", [peak], target=Target("<=", 1000, "figure")),
    ]


def memory(scale: Scale) -> list[Row]:
    """Peak memory of a process that takes in a large file."""
    with directory() as root:
        path = root / "large.jsonl"
        gen.write(scale.history, path)
        taken = child(_TAKE_IN, str(root / "lake"), str(path))
        _require(taken.result[0] == scale.history)
    limit = Target("<=", 1000, "figure")
    return [
        Row(f"ingest {scale.history // 1000:,} k: rate", "ev/s", [scale.history / taken.inside]),
        Row("the same: peak memory", "MB", [taken.peak], target=limit),
    ]


def needles(scale: Scale) -> list[Row]:
    """Find one event by its id, all of a subject, and one minute, in a large lake."""
    with directory() as root:
        path = root / "large.jsonl"
        with path.open("wb") as file:
            file.writelines(_with_id(n, line) for n, line in enumerate(_lines(scale.history)))
        with lakelog.open(str(root / "lake")) as lake:
            lake.ingest(str(path))
            sample = f"SELECT id, subject, time FROM events USING SAMPLE {_SAMPLES} ROWS"
            found = lake.sql(f"{sample} (reservoir, 3)").fetchall()
            minute = "time >= $v AND time < $v + INTERVAL 1 MINUTE"
            return [
                *_needle(lake, "by id", "id = $v", [row[0] for row in found]),
                *_needle(lake, "by subject", "subject = $v", [row[1] for row in found]),
                *_needle(lake, "by one minute", minute, [row[2] for row in found]),
            ]


def _needle(lake: lakelog.Lake, what: str, where: str, values: list[object]) -> list[Row]:
    query = f"SELECT * FROM events WHERE {where}"
    times, shares = [], []
    for value in values:
        began = time.perf_counter()
        lake.sql(query, {"v": value}).to_arrow_table()
        times.append((time.perf_counter() - began) * 1000)
        opened, segments = lake.explain(query, {"v": value})
        shares.append(100 * opened / segments)
    return [
        Row(f"needle {what}", "ms", times, target=Target("<=", 30, "figure")),
        Row("segments opened", "%", [statistics.mean(shares)], target=Target("<=", 5, "figure")),
    ]


def _files(root: Path, count: int) -> tuple[Path, Path]:
    """Write the events, and the events with one in a hundred malformed."""
    clean, bad = root / "events.jsonl", root / "bad.jsonl"
    dice = random.Random(3)
    with clean.open("wb") as good, bad.open("wb") as spoilt:
        for line in _lines(count):
            good.write(line)
            cut = line[: len(line) // 2] + b"\n"
            spoilt.write(dice.choice([cut, *_BAD]) if dice.random() < 0.01 else line)
    return clean, bad


def _lines(count: int) -> Iterator[bytes]:
    """The generator's events, kept for the next run."""
    measure.WORK.mkdir(parents=True, exist_ok=True)
    path = measure.WORK / f"events-{count}.jsonl"
    if not path.exists():
        gen.write(count, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
    with path.open("rb") as file:
        yield from file


def _with_id(number: int, line: bytes) -> bytes:
    return b'{"id":"%016x",' % (number * 0x9E3779B97F4A7C15 % 2**64) + line[1:]


def _history(root: Path, count: int) -> Path:
    """Write events that are hardly more than ids."""
    path = root / "history.jsonl"
    with path.open("wb") as file:
        for start in range(0, count, 100_000):
            numbers = range(start, min(start + 100_000, count))
            file.write(b"".join(b'{"ts":%d,"id":"h%d"}\n' % (n, n) for n in numbers))
    return path


def _copy(source: Path, target: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_json('{source}', format = 'newline_delimited',"
            f" columns = {_COLUMNS})) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
        )


def _require(holds: bool) -> None:
    if not holds:
        raise AssertionError("not every event is there once")
