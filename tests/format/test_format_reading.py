"""The rules of FORMAT.md, sections 12 to 16: reading rows, keys, damage, versions, the medium."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pytest

import lakelog
from lakelog import document
from lakelog.disk import LockFile, disk
from lakelog.entries.entry import Record
from lakelog.errors import DamagedLake, DamagedSegment, DamagedWal, FormatTooNew, UnsupportedStore
from lakelog.event import EncodedBatch
from lakelog.moves.publication import Change, publish
from lakelog.refs import Refs
from lakelog.store import Store
from lakelog.wal import frames as wal
from lakelog.wal.tail import Tail
from tests.support import damage, lakes, second_reader, statements

pytestmark = pytest.mark.damaged


def elsewhere(work: Callable[[], Any]) -> Any:
    """Do what another process does in the middle of a call here, whose locks it does not know."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(work).result()


# --- 12. reading rows ---------------------------------------------------------------------------


def test_wals_are_read_before_the_head(tmp_path: Path) -> None:
    """F12.1, F12.2: WALs first, then the head: what is sealed in between is seen once."""
    with lakes.opened(str(tmp_path / "lake")) as lake, lakes.opened(str(tmp_path / "lake")) as b:
        lake.append(lakes.events("A", 3))
        real = Refs.head
        sealed = []

        def late(self: Refs, branch: str) -> Any:
            if self is lake.store.refs and not sealed:
                sealed.append(elsewhere(b.settle))
            return real(self, branch)

        with mock.patch.object(Refs, "head", late):
            assert len(lake.sql("SELECT * FROM events").fetchall()) == 3
        assert sealed


def test_a_vanished_wal_without_a_watermark_starts_over(tmp_path: Path) -> None:
    """F12.3: a file read and then gone, without a watermark in the head, means: read again."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake, lakes.opened(path) as b:
        with lakes.opened(path) as writer:
            writer.append(lakes.events("A", 3))
        real, once = Refs.head, []

        def late(self: Refs, branch: str) -> Any:
            if self is lake.store.refs and not once:
                once.append(elsewhere(b.settle))
                publish(b.store, "main", lambda *_: Change("snapshot"))
                assert b.store.refs.head("main").move.wal == {}
            return real(self, branch)

        with mock.patch.object(Refs, "head", late):
            assert len(lake.sql("SELECT * FROM events").fetchall()) == 3


def test_the_tail_of_a_writer(tmp_path: Path) -> None:
    """F12.4: frames above the watermark, each once, doubtful ones passed over, no gap allowed."""
    for build in (lakes.doubtful, lakes.writers):
        lake = lakes.at_rest(build)
        with lakelog.open(str(lake)) as opened:
            mine = Tail(opened.store.paths, opened.store.refs, "main").collect()
        for writer, frames in mine.frames.items():
            numbers = [frame.sequence for frame in frames]
            assert numbers == sorted(set(numbers))
            assert numbers[0] > mine.watermark(writer)
    copy = Path(damage.copied(str(lakes.at_rest(lakes.doubtful)), tmp_path / "lake"))
    files = sorted((copy / "wal/main").iterdir())
    files[1].unlink()
    with pytest.raises(second_reader.Damaged):
        second_reader.rows(str(copy))
    assert isinstance(damage.outcome(str(copy)), DamagedWal)


def test_a_lost_start_of_a_writer_is_damage(tmp_path: Path) -> None:
    """F12.4: without a watermark some earlier move must have sealed what came before `first`."""
    path = str(tmp_path / "lake")
    lakes.writers(path)
    assert isinstance(damage.outcome(path), tuple)
    with lakes.opened(path) as lake:
        lake.append({"type": "X"})
        lake.append({"type": "Y"})
        name = lake.writer().name
    os.unlink(f"{path}/wal/main/{name}-000000.jsonl.zst")
    assert isinstance(damage.outcome(path), DamagedWal)
    (problem,) = damage.checked(path).problems
    assert problem.path.endswith(f"{name}-000001.jsonl.zst")


def test_rows_of_the_tail(tmp_path: Path) -> None:
    """F12.5: a tail row has the frame's ingested_at, the writer as origin, its count, and the seq
    that sealing would give it."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append([{"type": "A"}, {"type": "B", "data": 1}])
        lake.quarantine([("f.log", 77, "bad", "{")])
        lake.append([{"type": "C"}])
        rows = lake.sql(
            "SELECT origin, position, seq, epoch_us(ingested_at) FROM events ORDER BY position"
        ).fetchall()
        bad = lake.sql("SELECT origin, position FROM quarantine").fetchall()
        name = lake.writer().name
    (found,) = statements.wals(tmp_path / "lake").values()
    when = [frame["ingested_at"] for frame in found.frames]
    assert rows == [(name, 0, 0, when[0]), (name, 1, 1, when[0]), (name, 3, 2, when[2])]
    assert bad == [("f.log", 77)]


def test_dedupe_of_the_tail(tmp_path: Path) -> None:
    """F12.6: of a key the first by time, writer, sequence and line counts, unless a run has it."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as a, lakes.opened(path) as b:
        a.append([{"type": "1", "id": "x"}, {"type": "2", "id": "x"}, {"type": "n"}])
        b.append([{"type": "3", "id": "x"}, {"type": "4", "id": "y"}, {"type": "n"}])
        a.append([{"type": "5", "id": "y"}, {"type": "n"}])
        for _ in range(2):
            types = sorted(row["type"] for row in second_reader.rows(path))
            assert types == ["1", "4", "n", "n", "n"]
            found = a.sql("SELECT type FROM events ORDER BY 1").fetchall()
            assert [row[0] for row in found] == types
            a.settle()
        b.append([{"type": "6", "id": "x"}, {"type": "7", "id": "y"}])
        assert b.count() == 5
        assert a.sql("SELECT count(*) FROM events").fetchall() == [(5,)]


def test_overlapping_appends_of_one_id(tmp_path: Path) -> None:
    """F12.6: of two appends that overlap the one with the lower ingested_at counts, whichever was
    durable first, unless the other is sealed by then."""
    for is_sealed, wanted in ((False, "EARLY"), (True, "LATE")):
        path = str(tmp_path / f"{is_sealed}")
        with lakes.opened(path) as early, lakes.opened(path) as late:
            early.append({"type": "n"})
            stamp = early.writer()._clock.stamp()
            late.append({"type": "LATE", "id": "x"})
            if is_sealed:
                late.settle()
            with mock.patch.object(early.writer()._clock, "stamp", return_value=stamp):
                early.append({"type": "EARLY", "id": "x"})
            for _ in range(2):
                assert sorted(row["type"] for row in second_reader.rows(path)) == [wanted, "n"]
                found = early.sql("SELECT type FROM events ORDER BY 1").fetchall()
                assert found == [(wanted,), ("n",)]
                late.settle()


def test_rows_of_a_manifest(tmp_path: Path) -> None:
    """F12.7: seq is the column of sorted segments, first plus row number in arrival ones."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append([{"type": f"{9 - i}", "data": i} for i in range(6)])
        lake.settle()
        first = lake.sql("SELECT seq, data FROM events").fetchall()
        assert sorted(first) == [(i, str(i)) for i in range(6)]
        lake.compact()
        assert sorted(lake.sql("SELECT seq, data FROM events").fetchall()) == sorted(first)
        assert sorted((r["seq"], r["data"]) for r in second_reader.rows(path)) == sorted(first)


def test_missing_segments(tmp_path: Path) -> None:
    """F12.8: a missing segment that the head names is damage; the rows are state plus tail."""
    path = tmp_path / "lake"
    lakes.sealed(str(path))
    (entry, *_) = statements.segment_entries(path)
    with lakelog.open(str(path)) as lake:
        rows = lake.sql("SELECT seq FROM events").fetchall()
        assert {row[0] > entry["seq"][1] for row in rows} == {True, False}
        (path / f"segments/{entry['key'][:2]}/{entry['key']}.parquet").unlink()
        with pytest.raises(DamagedSegment, match="missing"):
            lake.sql("SELECT * FROM events")


# --- 13. keys -----------------------------------------------------------------------------------


def test_keys_of_ids(tmp_path: Path) -> None:
    """F13.1: an id counts with its source; an empty id is no id."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        twice = [{"type": "A", "id": "1"}, {"type": "A", "id": "1", "source": "s"}] * 2
        lake.append([*twice, {"type": "E", "id": ""}, {"type": "E", "id": ""}])
        for _ in range(2):
            assert lake.count() == 4
            lake.settle()


def test_content_keys(tmp_path: Path) -> None:
    """F13.2: a content key is that of the columns without arrival; equal values have one key."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        for data in ('{"b":1,"a":2}', '{"a":2,"b":1}', '{"a":2,"b":2}'):
            lake.append([{"type": "A", "data": orjson.Fragment(data)}], dedupe="content")
        lake.append([{"type": "A", "time": "2026-01-01"}], dedupe="content")
        lake.append([{"timestamp": "2026-01-01T00:00:00Z", "type": "A"}], dedupe="content")
        assert lake.count() == 3
    (found,) = statements.wals(tmp_path / "lake").values()
    keys = [orjson.loads(frame["text"])["key"] for frame in found.frames]
    assert len(set(keys)) == 3
    assert all(len(key) == 24 for key in keys)


def test_keys_of_requests(tmp_path: Path) -> None:
    """F13.9: the key of the first event of the request of the example; an id stays what tells."""
    batch = EncodedBatch.of([{"type": "A"}, {"type": "A", "id": "1"}]).of_request(bytes(range(16)))
    first, second = map(orjson.loads, batch.lines)
    assert f"`{first['key']}`" in (statements.ROOT / "FORMAT.md").read_text("utf-8")
    assert "key" not in second
    with lakes.opened(str(tmp_path / "lake")) as lake:
        for _ in range(2):
            lake.append_encoded(batch)
            assert lake.count() == 2


def test_the_worked_example_of_a_content_key() -> None:
    """F13.2: the canonical text shown has the key shown, and lakelog gives it to that event."""
    event, canonical = ("".join(lines) for lines in statements.shown("F13.2"))
    key = hashlib.sha256(canonical.encode()).hexdigest()[:24]
    assert f"its key `{key}`" in (statements.ROOT / "FORMAT.md").read_text("utf-8")
    encoded = lakelog.event.EncodedBatch.of([orjson.loads(event)], dedupe="content")
    assert orjson.loads(encoded.lines[0])["key"] == key


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1e-5, "0.00001"),
        (1e-6, "1e-6"),
        (2**64 - 1, "18446744073709551615"),
        (10**20, "100000000000000000000"),
    ],
)
def test_numbers_of_a_content_key(number: float, text: str) -> None:
    """F13.2: numbers have one spelling, whatever version of the JSON library writes them."""
    canonical = f'{{"data":{text},"time":"2026-01-01T00:00:00Z","type":"A"}}'
    event = {"type": "A", "time": "2026-01-01T00:00:00Z", "data": number}
    found = orjson.loads(lakelog.event.EncodedBatch.of([event], dedupe="content").lines[0])["key"]
    assert found == hashlib.sha256(canonical.encode()).hexdigest()[:24]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ('{"\U0001f600":1,"\uffff":"\x7f"}', '{"\uffff":"\x7f","\U0001f600":1}'),
        ('"\\"\\\\\\/\\b\\t\\n\\f\\r\\u001F\u2028"', '"\\"\\\\/\\b\\t\\n\\f\\r\\u001f\u2028"'),
        ('"\u00e9\\ud83d"', '"\\u00e9\\ud83d"'),
        ('{"z":{"y":1,"b":2},"a":1,"z":3}', '{"z":{"y":1,"b":2},"a":1,"z":3}'),
        ("1.10", "1.1"),
        ("0.1000000000000000055", "0.1000000000000000055"),
    ],
)
def test_texts_of_a_content_key(data: str, text: str) -> None:
    """F13.2: names go by their bytes; strings, numbers and repeated names have one spelling."""
    canonical = f'{{"data":{text},"time":"2026-01-01T00:00:00Z","type":"A"}}'
    event = {"type": "A", "time": "2026-01-01T00:00:00Z", "data": orjson.Fragment(data)}
    found = orjson.loads(lakelog.event.EncodedBatch.of([event], dedupe="content").lines[0])["key"]
    assert found == hashlib.sha256(canonical.encode()).hexdigest()[:24]


def test_only_keyed_frames_have_keys() -> None:
    """F13.3: a frame without the flag has rows without keys; `key` comes before an id."""
    line = b'{"time":"2026-01-01T00:00:00Z","type":"A","id":"1","key":"00"}'
    assert second_reader.parse(line, 0)["key"] == 0
    assert second_reader.parse(line, 1)["key"] == "00"
    compressor = lakelog.wal.frames.zstandard.ZstdCompressor()
    for flags, key in ((0, None), (1, "00")):
        data = wal.encode_frame(line, 1, 0, flags, 0, 0, compressor)
        frames = list(wal.scan(data, 0, "w").frames)
        with contextlib.closing(lakelog.database.connection.connect(*engine_place())) as connection:
            table = lakelog.frame_rows.rows.events(lambda: connection, frames)
        assert table["key"].to_pylist() == [key]


def engine_place() -> tuple[Any, Any]:
    return lakelog.paths.Paths("/nowhere"), lakelog.Settings()


def test_keys_outlive_compaction_and_follow_rollback(tmp_path: Path) -> None:
    """F13.4: runs are merged by eight and stay; a rollback goes back to its target's keys."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        for i in range(9):
            lake.append([{"type": "A", "id": str(i)}])
            lake.settle()
            if i == 3:
                lake.tag("four")
        runs = lake.store.manifests.load(lake.settle().move.snapshot).ids
        assert sorted(run.count for run in runs) == [1, 8]
        lake.compact()
        lake.retention("0s", apply=True)
        lake.append([{"type": "AGAIN", "id": str(i)} for i in range(9)])
        assert lake.count() == 0
        lake.rollback("four")
        lake.append([{"type": "AGAIN", "id": str(i)} for i in range(9)])
        assert lake.count() == 9


# --- 14. damage and repair ----------------------------------------------------------------------


def test_torn_ends(tmp_path: Path) -> None:
    """F14.1: a torn end is left out, named torn, and kept in cache/cut when its file is trimmed."""
    path = str(tmp_path / "lake")
    lakes.torn(path)
    (problem,) = damage.checked(path).problems
    assert problem.kind == "torn"
    with lakelog.open(path) as lake:
        assert lake.count() == 3
        lake.settle()
        assert lake.count() == 3
        assert len(lake.verify().cut) == 1


@pytest.mark.parametrize("failures", [1, 2], ids=["repeated", "doubtful"])
def test_torn_ends_that_were_never_acknowledged(tmp_path: Path, failures: int) -> None:
    """F14.1: what a failed write has left is no damage where the next file says so; what follows on
    a frame that is nowhere is named."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        (file,) = Path(path, "wal/main").iterdir()
        end = file.stat().st_size
        with lakes.failing("sync_file", failures), contextlib.suppress(OSError):
            lake.append({"type": "B"})
        lake.append({"type": "C"})
        os.truncate(file, end + 70)
    with lakelog.open(path) as lake:
        assert lake.verify().problems == ()
        assert lake.count() == 4 - failures
    os.truncate(file, end - 20)
    assert damage.checked(path).problems


def test_a_damaged_end_before_another_file_is_named(tmp_path: Path) -> None:
    """F14.1: an END with a flipped bit is no append that failed: `verify` names it, wherever the
    bit is."""
    path = str(tmp_path / "lake")
    damage.build(path)
    file, _ = sorted(Path(path, "wal/main").iterdir(), key=lambda p: p.stat().st_mtime)[-2:]
    whole = file.read_bytes()
    assert file.name.endswith("-000000.jsonl.zst")
    for place in range(len(whole) - damage.END_BYTES, len(whole)):
        file.write_bytes(damage.flipped(whole, place, place % 8))
        assert [p.path for p in damage.checked(path).problems] == [str(file)], place


def test_damage_is_an_error_where_it_is_needed(tmp_path: Path) -> None:
    """F14.2: a bad frame with a good one or END behind it is damage; sealed ones are in no way."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        for i in range(3):
            lake.append({"type": "A", "data": i})
    (file,) = Path(path, "wal/main").iterdir()
    data = file.read_bytes()
    for frame in statements.parse_wal(data).frames:
        file.write_bytes(damage.flipped(data, frame["at"] + 70, 2))
        error = damage.outcome(path)
        assert isinstance(error, DamagedWal)
        assert (error.path, error.offset) == (str(file), frame["at"])
        assert [p.kind for p in damage.checked(path).problems] == ["damage"]
    file.write_bytes(data)
    with lakes.opened(path) as lake:
        lake.sealer().seal()
        file.write_bytes(damage.flipped(data, statements.parse_wal(data).frames[0]["at"] + 70, 2))
        assert lakes.opened(path).count() == 3
        assert [p.path for p in lake.verify().problems] == [str(file)]


def test_derived_files_cost_time_only(tmp_path: Path) -> None:
    """F14.3: a damaged hint or mark changes no row and is named derived."""
    copy = damage.copied(str(lakes.at_rest(damage.build)), tmp_path / "lake")
    right = damage.read(copy)
    for name in ("refs/heads/main/hint", "cache/verified.jsonl"):
        file = Path(copy, name)
        file.write_bytes(damage.flipped(file.read_bytes(), 20, 1))
        assert damage.read(copy) == right
        assert {p.kind for p in damage.checked(copy).problems} == {"derived"}
        file.unlink()


def test_what_cannot_be_noticed(tmp_path: Path) -> None:
    """F14.4: a WAL cut between frames or gone leaves no trace; verify looks behind the marks."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        for i in range(3):
            lake.append({"type": "A", "data": i})
        lake.tag("v1")
        lake.append({"type": "B"})
    (file,) = Path(path, "wal/main").iterdir()
    os.truncate(file, statements.parse_wal(file.read_bytes()).frames[-1]["at"])
    assert damage.checked(path).problems == ()
    file.unlink()
    Path(path, "refs/tags/v1.json").unlink()
    assert damage.checked(path).problems == ()
    (entry,) = statements.segment_entries(Path(path))
    segment = Path(path, f"segments/{entry['key'][:2]}/{entry['key']}.parquet")
    segment.write_bytes(damage.flipped(segment.read_bytes(), 30, 1))
    with lakelog.open(path) as lake:
        with mock.patch.object(type(lake.store.verified), "holds", return_value=True):
            lake.sql("SELECT 1 FROM events")
        assert [p.path for p in lake.verify().problems] == [str(segment)]


def test_lost_moves_are_proved_by_segments(tmp_path: Path) -> None:
    """F14.7: frames of a segment that are above all watermarks and in no WAL are damage, unless the
    branch was deleted or another lake sealed them."""
    path = str(tmp_path / "lake")
    for name in "AB":
        with lakes.opened(path) as lake:
            lake.append({"type": name})
        with lakes.opened(path) as lake:
            lake.settle()
    (_, second) = statements.segment_entries(Path(path))
    Path(path, "refs/heads/main/000000000003.json").unlink()
    Path(path, "refs/heads/main/hint").unlink()
    (problem,) = damage.checked(path).problems
    assert second["key"] in problem.path
    config = json.loads(Path(path, "lakelog.json").read_text())
    del config["checksum"]
    other = document.encode({**config, "lake": "0" * 32})
    Path(path, "lakelog.json").write_bytes(other)
    assert damage.checked(path).problems == ()


def test_a_copy_says_more(tmp_path: Path) -> None:
    """F14.8: what leads on from the lake in a copy is fetched from it, with what it names."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        lake.settle()
        lake.tag("v1")
        lake.backup(copy)
    right = damage.read(path)
    for name in ("refs/heads/main", "refs/tags", "segments", "wal"):
        shutil.rmtree(f"{path}/{name}")
    assert damage.repaired(path, copy).lost == []
    assert damage.read(path) == right
    assert Path(path, "refs/tags/v1.json").exists()


def test_repair_and_opening(tmp_path: Path) -> None:
    """F14.5, F14.6: a damaged lake opens or is named, and repair makes it work (test_repair.py)."""
    copy = damage.copied(str(lakes.at_rest(damage.build)), tmp_path / "lake")
    right = damage.read(copy)
    for name in ("lakelog.json", "refs/heads/main/000000000005.json"):
        file = Path(copy, name)
        file.write_bytes(damage.flipped(file.read_bytes(), 30, 1))
        if name == "lakelog.json":
            with pytest.raises(DamagedLake):
                lakelog.open(copy)
    assert damage.repaired(copy).lost == [
        "settings in lakelog.json: they are the defaults now",
        "branch main: move 5 of its log",
    ]
    assert damage.read(copy) == right


# --- 15. versions, 16. the medium ---------------------------------------------------------------


def test_newer_formats_are_refused(tmp_path: Path) -> None:
    """F15.1, F15.3: a lake, manifest or WAL of a later format is refused by name, lake first."""
    path = str(tmp_path / "lake")
    lakes.sealed(path)
    with lakelog.open(path) as lake, mock.patch.object(lakelog.manifest.manifest, "FILE_FORMAT", 2):
        publish(lake.store, "main", lambda *_: Change("snapshot"))
    with pytest.raises(FormatTooNew, match="upgrade"):
        lakelog.open(path).count()
    body = {"format": 5, "lake": "0" * 32, "settings": {}}
    Path(path, "lakelog.json").write_bytes(document.encode(body))
    with pytest.raises(FormatTooNew, match="upgrade"):
        lakelog.open(path)
    newer = wal.Header("l", "main", "0" * 32, 0, 0, (), "h", 1, 1)
    with mock.patch.object(wal, "PLAIN_FORMAT", 5):
        data = wal.Header.encode(newer)
    with pytest.raises(FormatTooNew, match="upgrade"):
        wal.Header.decode(data)


def test_unknown_members_are_passed_over(tmp_path: Path) -> None:
    """F15.2: unknown members of lakelog.json and entries, and entries of a new sort, do no harm."""
    path = str(tmp_path / "lake")
    lakes.plain(path)
    body = document.decode(Path(path, "lakelog.json").read_bytes())
    Path(path, "lakelog.json").write_bytes(document.encode({**body, "later": {"a": 1}}))
    with lakelog.open(path) as lake:
        before = lake.count()
        entry = replace(lakes.tiny_segment(lake, "NEW"), unknown={"bloom": "later"})
        strange = Record("model", "m", {"later": True})
        publish(lake.store, "main", lambda *_: Change("later", entries=(entry, strange)))
        assert lake.count() == before + 1
        assert lake.verify().problems == ()
    assert len(second_reader.rows(path)) == before + 1


def test_the_golden_lake_is_kept() -> None:
    """F15.4: a lake of each format is kept in the conformance kit (test_golden.py continues it)."""
    for number in (1, 2):
        file = statements.ROOT / f"docs/conformance/format{number}.tar.gz"
        assert file.stat().st_size < 200_000


def test_the_medium_is_probed(tmp_path: Path) -> None:
    """F16.1: a disk whose link overwrites, or whose lock does not exclude, is refused at init."""
    with (
        mock.patch.object(disk, "link", shutil.copy),
        pytest.raises(UnsupportedStore, match="link"),
    ):
        Store.create(str(tmp_path / "a"))
    with (
        mock.patch.object(LockFile, "is_held", return_value=False),
        pytest.raises(UnsupportedStore, match="flock"),
    ):
        Store.create(str(tmp_path / "b"))
    mounts = f"server:/x {tmp_path} nfs4 rw 0 0\n".encode()
    with mock.patch.object(disk, "read", return_value=mounts), pytest.raises(UnsupportedStore):
        Store.create(str(tmp_path / "c"))
