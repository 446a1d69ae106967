"""A lake of very many segments in a bucket: how long a machine takes to open, count and find.

    python -m benchmarks.shared_reads build s3://BUCKET/PREFIX [--segments 1000000]
    python -m benchmarks.shared_reads read s3://BUCKET/PREFIX DIRECTORY [--latency 0.03]

Store it in a service on this machine, such as SeaweedFS, which AWS_ENDPOINT_URL names; `read` puts
a proxy before it, which takes `latency` longer for each request. One segment in REAL is one, of 50
events, and LONG segments have 13 MB. All others are entries of the manifest alone, of 10,000
events and 10 MB each: a query that had to open one would fail.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import gen, lakes, measure
from benchmarks.measure import progress
from lakelog.bloom import Filters
from lakelog.disk import disk
from lakelog.entries import SegmentEntry
from lakelog.moves.publication import Change, publish, run_maintenance
from lakelog.remotes import remote as remotes
from lakelog.remotes.shared import attach, name_file, name_units
from lakelog.remotes.shared.attached import BucketAttachment
from lakelog.segments import segment
from lakelog.store import Store
from tests.support.flaky_bucket import FlakyBucket, Trouble, flaky_bucket

REAL, LONG, LONG_ROWS = 10_000, 4, 120_000
SUBJECTS = 50
PER_MOVE = 1_000
_START = int(gen.START.timestamp()) * 1_000_000


def build(url: str, count: int) -> None:
    """Make the lake."""
    with tempfile.TemporaryDirectory() as folder, lakes.unsynced():
        store = attach(url, f"{folder}/builder")
        store.volume.stamp = lambda _: time.time_ns()  # type: ignore[assignment]
        for first in range(0, count, PER_MOVE):
            entries = tuple(_entries(store, first, min(PER_MOVE, count - first), count))
            publish(store, "main", lambda *_, e=entries: Change("seal", entries=e))
            run_maintenance(store, "main")
            if first % (50 * PER_MOVE) == 0:
                progress(f"{first:,} segments")
        _index(store)


def needle(number: int) -> str:
    """Return the subject of an event of a real segment."""
    return f"needle-{number}-7"


def _entries(store: Store, first: int, count: int, total: int) -> Iterator[SegmentEntry]:
    pattern: SegmentEntry | None = None
    every_long = max(total // LONG // REAL, 1) * REAL
    for number in range(first, first + count):
        if number % REAL == 0:
            pattern = _real(store, number, LONG_ROWS if number % every_long == 0 else lakes.ROWS)
            yield pattern
            continue
        start = _START + number * lakes.MINUTE
        pattern = pattern or _real(store, number, lakes.ROWS)
        yield dataclasses.replace(
            pattern,
            key=hashlib.sha256(str(number).encode()).hexdigest(),
            bytes=10_000_000,
            events=10_000,
            time=(start, start + lakes.MINUTE - 1),
            types=dict.fromkeys(pattern.types, 10000),
            blocks="",
        )


def _real(store: Store, number: int, rows: int) -> SegmentEntry:
    base = lakes.template()
    table = base.take(pa.array(np.arange(rows) % len(base)))
    start = _START + number * lakes.MINUTE
    times = pa.array(start + np.arange(rows) * lakes.MINUTE // rows, pa.timestamp("us", tz="UTC"))
    subjects = [f"needle-{number}-{row % SUBJECTS}" for row in range(rows)]
    columns = {"time": times, "ingested_at": times, "subject": pa.array(subjects)}
    if rows > lakes.ROWS:
        columns["data"] = pa.array([f'{{"x":"{os.urandom(60).hex()}"}}' for _ in range(rows)])
    for name, column in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, column.cast(table.schema.field(place).type))
    return segment.write_segment(
        store.paths, table, kind="events", layout="arrival", commit=disk.random_hex()
    )


def _index(store: Store) -> None:
    """Put down in which segments of the pages subjects are, of which those that exist nowhere have
    some that nobody asks for."""
    attachment, chance = store.attachment, np.random.default_rng(1)
    assert isinstance(attachment, BucketAttachment)
    for unit in name_units.units(store.state("main").pages):
        keys = []
        for place, page in enumerate(unit):
            for number, entry in enumerate(store.manifests.page(page)):
                if isinstance(entry, SegmentEntry):
                    hashed = _hashes(store, entry, chance) & ~np.uint64(name_file.LOW)
                    keys.append(hashed | np.uint64(place * name_units.PAGE + number))
        digest = name_units.unit_digest(unit)
        data = name_file.encode(bytes.fromhex(digest), [None, np.sort(np.concatenate(keys))])
        remotes.put(attachment.volume.remote, name_file.key_of(digest), data)


def _hashes(store: Store, entry: SegmentEntry, chance: Any) -> Any:
    if not Path(store.paths.object("segments", entry.key)).exists():
        return chance.integers(0, 2**63, SUBJECTS, dtype=np.uint64)
    number = (entry.time[0] - _START) // lakes.MINUTE
    subjects = [f"needle-{number}-{row}" for row in range(SUBJECTS)]
    return np.unique(np.array(Filters.hashes_of(subjects), np.uint64))


_OPEN = "import lakelog; lake = lakelog.open({path!r}, create=False); "
_SQL = "result = lake.sql({sql!r}, {values!r}).fetchall()"


def read(url: str, path: str, latency: float) -> None:
    """Print what each question takes, each but the repeated ones in a new process."""
    target = os.environ["AWS_ENDPOINT_URL"]
    with flaky_bucket(target, Trouble(latency=latency)) as bucket:
        os.environ["AWS_ENDPOINT_URL"] = bucket.address
        one, many = "SELECT message FROM events WHERE subject = ?", "count(*), max(data)"
        begin = gen.START + timedelta(minutes=REAL)
        end = begin + timedelta(minutes=1)
        by_time = f"{one} AND time BETWEEN TIMESTAMPTZ '{begin}' AND TIMESTAMPTZ '{end}'"
        _ask(
            bucket,
            "attach",
            f"from lakelog.remotes.shared import attach; attach({url!r}, {path!r}); result = 0",
        )
        opened = _OPEN.format(path=path)
        _ask(bucket, "open and count", f"{opened}result = lake.count()")
        questions = {
            "one event by time and subject": (by_time, [needle(REAL)]),
            "events of a subject": (one.replace("message", many), [needle(REAL)]),
            "of a subject in a long segment": (one.replace("message", many), [needle(0)]),
            "of one that is nowhere": (one, ["nobody"]),
            "of another": (one, [needle(2 * REAL)]),
        }
        for name, (sql, values) in questions.items():
            for once in ("", ", again"):
                _ask(bucket, name + once, opened + _SQL.format(sql=sql, values=values))


def _ask(bucket: FlakyBucket, name: str, code: str) -> None:
    requests, size = bucket.count("requests"), bucket.count("bytes")
    child = measure.child(f"{code}; result = time.process_time(), str(result)[:40]")
    requests, size = bucket.count("requests") - requests, bucket.count("bytes") - size
    seconds = f"{child.inside:6.2f} s ({child.result[0]:.2f} s of processor time)"
    print(
        f"{name:40} {seconds} {child.peak:5.0f} MB {requests:4} requests {size:11,} bytes ",
        child.result[1],
        flush=True,
    )


def main() -> None:
    """Run from a shell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("build", "read"):
        added = verbs.add_parser(verb)
        added.add_argument("url")
        if verb == "build":
            added.add_argument("--segments", type=int, default=1_000_000)
        else:
            added.add_argument("directory")
            added.add_argument("--latency", type=float, default=0.03)
    arguments = parser.parse_args()
    if arguments.verb == "build":
        build(arguments.url, arguments.segments)
    else:
        read(arguments.url, arguments.directory, arguments.latency)


if __name__ == "__main__":
    main()
