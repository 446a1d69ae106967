"""Make the golden lake of the present format: `python -m tests.golden.make`.

It writes docs/conformance/format4.tar.gz, a lake with every kind of file, and format4.json here,
what is in it. Both are kept for ever: later versions must open, verify and continue the lake. Run
it again only for a new format, under a new name. Names and times are made up, so the lake is much
the same every time.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lakelog
from lakelog.disk import disk
from lakelog.entries.entry import Record
from lakelog.history import thinning
from lakelog.manifest import manifests
from lakelog.moves.publication import Change, publish
from lakelog.values import to_micros
from lakelog.wal import frames as wal
from tests.support import lakes

FORMAT = 4
HERE = Path(__file__).resolve().parent
LAKES = HERE.parents[1] / "docs/conformance"
"""Where golden lakes are kept: with the conformance kit, which has more of them (kit.py)."""
NEW_YEAR = 1_767_225_600
"""2026-01-01 00:00:00 UTC, in seconds."""
BRANCHES = ("main", "Übung/ä")


def build(path: str) -> None:
    """Make the lake: events, ids, quarantine, pages, packed moves of which some were dropped, a
    manifest too long to be carried, rewinds, branches and tails."""
    with lakes.opened(path, history_days=0, rotate_events=40) as lake:
        for number in range(130):
            note = Record("artifact", f"n{number % 9}", {})
            publish(lake.store, "main", lambda *_, note=note: Change("ingest", entries=(note,)))
        timed = {"time", "timestamp", "ts"}
        lake.append([e if timed & e.keys() else {**e, "time": NEW_YEAR} for e in lakes.EXOTIC])
        lake.append([{"type": "ID", "id": f"i{i}", "time": NEW_YEAR} for i in range(10)])
        lake.settle()
        lake.append(lakes.events("C", 3), dedupe="content")
        lake.quarantine([("a.log", 12, "not JSON", "{oops"), ("a.log", 20, "no type", '{"é":1}')])
        lake.append(lakes.events("OPENED", 2, subject="order/ž"), expect={"order/ž": 0})
        lake.tag("v1", message="the first tag")
        lake.append([{"type": "GONE", "id": "gone", "time": NEW_YEAR}])
        lake.rollback("v1")
        lake.append([{"type": "AGAIN", "id": "gone", "time": NEW_YEAR}])
        lake.append({"type": "PAID", "subject": "order/ž", "time": NEW_YEAR}, expect={"order/ž": 2})
        lake.compact()
        cursor = Record("cursor", "0123-12-0", {"bytes": 12, "lines": 1})
        other = [Record("artifact", f"a{i}", {}) for i in range(30)]
        other += [Record("artifact", "long", {"text": "x" * manifests.CARRIED_MAX})]
        publish(lake.store, "main", lambda *_: Change("ingest", entries=(cursor, *other)))
        with mock.patch.object(thinning, "UNPACKED", 3):
            assert lake.gc().packed
        with lake.branch(BRANCHES[1]) as branch:
            branch.append(lakes.events("BRANCH", 4))
            branch.tag("Tag ü")
            branch.append([{"type": "LATE", "id": "i1", "time": NEW_YEAR}])
        lake.append(lakes.events("D", 5))
        lake.settle()
    tails(path)


def tails(path: str) -> None:
    """Leave unsealed frames: two writers, a doubtful append, an id twice, a file without END that
    ends in space."""
    with lakes.opened(path) as lake:
        lake.append(lakes.events("TAIL", 3))
        lake.append(lakes.events("SENT", 2, subject="order/ž"), expect={"order/ž": 3})
        with lakes.failing("sync_file", 2):
            try:
                lake.append(lakes.events("DOUBT", 2))
            except OSError:
                lake.append(lakes.events("TAIL", 2, 3))
        lake.append([{"type": "TWICE", "id": i, "time": NEW_YEAR} for i in ("i3", "new", "new")])
        lake.quarantine([("b.log", 0, "not UTF-8", "\ufffd")])
        name = lake.writer().name
    newest = sorted(n for n in os.listdir(f"{path}/wal/main") if n.startswith(name))[-1]
    file = f"{path}/wal/main/{newest}"
    size = os.path.getsize(file) - wal.END_BYTES
    os.truncate(file, size)
    with open(file, "ab") as end:
        head, zeros = wal.space_after(size, 0, 0)
        end.write(head + bytes(zeros))
    with lakes.opened(path) as lake:
        lake.append([{"type": "OTHER", "id": "new", "time": NEW_YEAR}, *lakes.events("OTHER", 2)])


def contents(path: str) -> dict[str, Any]:
    """Return what is in a lake: rows of every branch and tag, and the log."""
    number = json.loads(Path(path, "lakelog.json").read_bytes())["format"]
    found: dict[str, Any] = {"format": number, "branches": {}, "tags": {}}
    for name in BRANCHES:
        with lakelog.open(path, create=False, branch=name) as lake:
            found["branches"][name] = {
                "events": rows(lake, "events"),
                "quarantine": rows(lake, "quarantine"),
                "moves": [[e.move.number, e.move.op, e.move.snapshot] for e in lake.log()],
            }
            for tag in lake.store.refs.tags():
                found["tags"][tag.name] = rows(lake, f'"{tag.name}".events')
    return found


def rows(lake: lakelog.Lake, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table, times in microseconds, in one order."""
    found = lake.sql(f"SELECT * FROM {table}").to_arrow_table().to_pylist()
    for row in found:
        row |= {k: to_micros(row[k]) for k in ("time", "ingested_at") if row.get(k) is not None}
    return sorted(found, key=lambda row: json.dumps(row, sort_keys=True))


def pack(path: str) -> bytes:
    """Return a lake as a tar.gz without empty directories, times, owners or caches."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for file in sorted(p for p in Path(path).rglob("*") if p.is_file()):
            name = file.relative_to(path).as_posix()
            if not name.startswith("cache/"):
                info = tarfile.TarInfo(f"lake/{name}")
                info.size, info.mtime = file.stat().st_size, NEW_YEAR
                archive.addfile(info, io.BytesIO(file.read_bytes()))
    return buffer.getvalue()


def stamps() -> Iterator[int]:
    """Times of a made-up clock, a millisecond apart."""
    moment = NEW_YEAR * 1_000_000
    while True:
        moment += 1000
        yield moment


def main() -> None:
    """Write the golden lake of this format and what is in it; refuse to replace one."""
    lake, beside = LAKES / f"format{FORMAT}.tar.gz", HERE / f"format{FORMAT}.json"
    if lake.exists():
        sys.exit(f"{lake} is there already: golden lakes are kept for ever")
    dice, clock = random.Random(FORMAT), stamps()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/lake"
        with (
            mock.patch.object(disk, "random_hex", side_effect=lambda n=16: dice.randbytes(n).hex()),
            mock.patch.object(disk, "now_us", side_effect=clock),
        ):
            build(path)
        lake.write_bytes(pack(path))
        found = contents(path)
    beside.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
