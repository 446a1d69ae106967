"""Which file is it: look-alikes, copies, truncation and rotation, on real files (FORMAT.md 18)."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.collect import watch
from lakelog.collect.watch import Watcher
from lakelog.files import FileCursor, identity, rotation
from tests.support.histories import History
from tests.support.plants import change, entries


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """An empty directory of logs."""
    path = tmp_path / "logs"
    path.mkdir()
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that appear are read at once, not after they stood still for a while."""
    monkeypatch.setattr(watch, "STABLE", 0.0)
    monkeypatch.setattr(watch, "GRACE", 0.0)


def stored(lake: lakelog.Lake) -> Counter[str]:
    """How often each line is stored."""
    query = "SELECT message, count(*) FROM events WHERE type <> 'lakelog.watch' GROUP BY 1"
    return Counter(dict(lake.sql(query).fetchall()))


def on_disk(folder: Path) -> Counter[str]:
    """How often each line stands in the files of a directory."""
    lines: Counter[str] = Counter()
    for path in folder.iterdir():
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        lines.update(text.decode().splitlines())
    return lines


def look(lake: lakelog.Lake, folder: Path) -> None:
    """Watch a directory for three looks, with a watcher that knows only the lake."""
    watcher = Watcher(lake, [str(folder)])
    try:
        for _ in range(3):
            watcher.round()
    finally:
        watcher.close()


def is_sound(lake: lakelog.Lake, folder: Path) -> bool:
    """Whether the audit of a directory finds nothing."""
    proof = audit(lake.store, "main", lake.engine, [str(folder)])
    return not proof.wrong and not proof.failed


def append(path: Path, *lines: str) -> None:
    """Write lines to the end of a file."""
    with open(path, "a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_lookalikes_keep_their_lines(lake: lakelog.Lake, logs: Path) -> None:
    """F18.4, F18.1: files that begin with the same line are files of their own, before and after
    they differ."""
    for n in range(3):
        append(logs / f"worker-{n}.log", "INFO Starting worker")
    look(lake, logs)
    assert stored(lake) == {"INFO Starting worker": 3}
    for n in range(3):
        append(logs / f"worker-{n}.log", f"INFO job {n}")
    look(lake, logs)
    assert stored(lake) == on_disk(logs)
    assert is_sound(lake, logs)


def test_rotations_of_a_job_log_without_times(lake: lakelog.Lake, logs: Path) -> None:
    """F18.4: equal files that rotation leaves side by side each count."""
    for _ in range(5):
        for number in range(5, 0, -1):
            if (logs / f"job.log.{number}").exists():
                os.rename(logs / f"job.log.{number}", logs / f"job.log.{number + 1}")
        if (logs / "job.log").exists():
            os.rename(logs / "job.log", logs / "job.log.1")
        append(logs / "job.log", "INFO begin", "INFO done")
        look(lake, logs)
    assert stored(lake) == on_disk(logs) == {"INFO begin": 5, "INFO done": 5}
    assert is_sound(lake, logs)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("restart", [False, True])
def test_copytruncate_while_lines_are_read(
    lake: lakelog.Lake, tmp_path: Path, logs: Path, hidden: bool, restart: bool
) -> None:
    """F18.6, F18.4: a copy that is shorter than what was read of its original is not read again,
    whether it is seen while it is made or put there when it is done."""
    append(logs / "app.log", *(f"INFO line {n}" for n in range(2000)))
    watcher = Watcher(lake, [str(logs)])
    watcher.round()
    watcher.round()
    copy = tmp_path / "c" if hidden else logs / "app.log.1"
    shutil.copyfile(logs / "app.log", copy)
    append(logs / "app.log", "INFO X")
    watcher.round()
    watcher.round()
    if restart:
        watcher.close()
        watcher = Watcher(lake, [str(logs)])
    if hidden:
        os.rename(copy, logs / "app.log.1")
    os.truncate(logs / "app.log", 0)
    append(logs / "app.log", "INFO Y")
    for _ in range(3):
        watcher.round()
    watcher.close()
    assert sum(stored(lake).values()) == 2002
    assert is_sound(lake, logs)


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.usefixtures("settled")
def test_a_packed_file_of_a_banner_alone(lake: lakelog.Lake, logs: Path, is_new: bool) -> None:
    """F18.4: it is the file that is gone if it kept its time; one begun anew with the same words,
    rotated and packed while nobody looked, was written later, and its line counts."""
    append(logs / "app.log", "INFO Starting")
    look(lake, logs)
    packed = logs / "app.log.1.gz"
    packed.write_bytes(gzip.compress(b"INFO Starting\n"))
    was = os.stat(logs / "app.log")
    os.utime(packed, ns=(was.st_atime_ns, was.st_mtime_ns + is_new * 50_000_000))
    os.unlink(logs / "app.log")
    look(lake, logs)
    assert stored(lake) == {"INFO Starting": 1 + is_new}
    assert is_sound(lake, logs)


@pytest.mark.usefixtures("settled")
def test_the_number_of_a_removed_file_is_used_again(lake: lakelog.Lake, logs: Path) -> None:
    """F18.4: what has the inode of a file with a banner alone, but another one's lines behind the
    same words and a name that the first cannot have, is that other one."""
    append(logs / "app.log.1", "INFO Starting")
    append(logs / "app.log", "INFO Starting", *(f"INFO line {n}" for n in range(5)))
    look(lake, logs)
    before = stored(lake)
    older, newer = os.stat(logs / "app.log.1"), os.stat(logs / "app.log")
    (logs / "app.log.2.gz").write_bytes(gzip.compress((logs / "app.log.1").read_bytes()))
    (logs / "app.log.1").write_bytes(gzip.compress((logs / "app.log").read_bytes()))
    os.rename(logs / "app.log.1", logs / "app.log.1.gz")  # as another file with its inode would be
    os.utime(logs / "app.log.2.gz", ns=(older.st_atime_ns, older.st_mtime_ns))
    os.utime(logs / "app.log.1.gz", ns=(newer.st_atime_ns, newer.st_mtime_ns))
    os.unlink(logs / "app.log")
    look(lake, logs)
    assert stored(lake) == before == on_disk(logs)
    assert is_sound(lake, logs)


@pytest.mark.usefixtures("settled")
def test_the_cursor_of_a_file_that_was_seen_removed(lake: lakelog.Lake, logs: Path) -> None:
    """F18.1: it names no inode any more, for its number may be that of another file next."""
    append(logs / "app.log", "INFO Starting")
    watcher = Watcher(lake, [str(logs)])
    watcher.round()
    watcher.round()
    os.unlink(logs / "app.log")
    watcher.round()
    watcher.close()
    entry = members(lake)
    assert entry["inode"] == -1


@pytest.mark.usefixtures("settled")
def test_a_copy_without_the_line_that_was_begun(lake: lakelog.Lake, logs: Path) -> None:
    """F18.3: what was remembered of a log's beginning with a line that was not finished yet is more
    than a copy holds that was made before; the copy is known by what was consumed."""
    append(logs / "app.log", "INFO line 1", "INFO line 2")
    watcher = Watcher(lake, [str(logs)])
    watcher.round()
    shutil.copyfile(logs / "app.log", logs / "app.log.1")
    with open(logs / "app.log", "a") as writer:
        writer.write(f"INFO {'x' * 60}")
    watcher.round()
    watcher.round()
    os.truncate(logs / "app.log", 0)
    for _ in range(3):
        watcher.round()
    watcher.close()
    assert stored(lake) == {"INFO line 1": 1, "INFO line 2": 1}
    assert is_sound(lake, logs)


@pytest.mark.usefixtures("settled")
def test_a_banner_half_written_at_a_rename(lake: lakelog.Lake, logs: Path) -> None:
    """F18.4: as long as it ends within a line a rotated file may be a copy of the log beside it; an
    equal line that it ends with is its own."""
    append(logs / "app.log", "INFO Starting")
    (logs / "app.log.1").write_text("INFO Sta")
    look(lake, logs)
    append(logs / "app.log", "INFO ready")
    with open(logs / "app.log.1", "a") as writer:
        writer.write("rting\n")
    look(lake, logs)
    assert stored(lake) == {"INFO Starting": 2, "INFO ready": 1}
    assert is_sound(lake, logs)


def test_copies_of_a_log_that_goes_on(lake: lakelog.Lake, logs: Path) -> None:
    """F18.5: copies that rotation keeps of a growing log give nothing, and what is in a copy alone,
    for the log was truncated before it was read, is read from there."""
    for number in range(6, 0, -1):
        append(logs / "app.log", *(f"INFO line {number * 100 + n}" for n in range(50)))
        look(lake, logs)
        shutil.copyfile(logs / "app.log", logs / f"app.log.{number}")
        look(lake, logs)
    assert sum(stored(lake).values()) == 300
    append(logs / "app.log", "INFO unread")
    shutil.copyfile(logs / "app.log", logs / "app.log.7")
    os.truncate(logs / "app.log", 0)
    append(logs / "app.log", "INFO new")
    look(lake, logs)
    assert (stored(lake)["INFO unread"], sum(stored(lake).values())) == (1, 302)


def test_a_line_half_written_at_a_rename(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F18.4: its halves become one event as long as somebody has the file open; after that the half
    is stored as it is."""
    monkeypatch.setattr(watch, "GRACE", 0.0)
    with open(logs / "app.log", "wb", buffering=0) as writer:
        writer.write(b"INFO first\nINFO a line of ")
        watcher = Watcher(lake, [str(logs)])
        watcher.round()
        os.rename(logs / "app.log", logs / "app.log.1")
        append(logs / "app.log", "INFO other")
        for _ in range(3):
            watcher.round()
        assert stored(lake) == {"INFO first": 1, "INFO other": 1}
        writer.write(b"two halves\nINFO cut")
        for _ in range(3):
            watcher.round()
    for _ in range(3):
        watcher.round()
    watcher.close()
    assert stored(lake)["INFO a line of two halves"] == stored(lake)["INFO cut"] == 1
    assert sum(stored(lake).values()) == 4
    assert is_sound(lake, logs)


def test_an_explicit_ingest_names_what_it_passes_over(lake: lakelog.Lake, tmp_path: Path) -> None:
    """F18.7: equal logs of two hosts are stored once, with a word; --source keeps both."""
    for host in ("one", "two"):
        (tmp_path / host).mkdir()
        append(tmp_path / host / "app.log", "INFO begin", "INFO done")
    paths = [str(tmp_path / host / "app.log") for host in ("one", "two")]
    first, second = lake.ingest(paths).files
    assert (first.events, second.events, second.same_as) == (2, 0, paths[0])
    assert lake.ingest(paths[1], source="two").events == 2
    append(tmp_path / "two" / "app.log", "INFO more")
    assert lake.ingest(paths[1]).events == 3, "it is a file of its own by now"


def test_audit_finds_lines_stored_under_two_names(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F18.5: lines of a file that is gone and that another one brought again are doubled; those of
    two files that were there side by side are not."""
    monkeypatch.setattr(watch, "STABLE", 0.0)
    lines = [f"INFO line {n}" for n in range(100)]
    append(logs / "a.log", *lines)
    look(lake, logs)
    shutil.copyfile(logs / "a.log", logs / "b.log")
    look(lake, logs)
    # Not removed: a file system may give its inode to the next file, which then is a.log again.
    os.rename(logs / "a.log", logs.parent / "a.log")
    assert sum(stored(lake).values()) == 200
    assert not audit(lake.store, "main", lake.engine, []).wrong
    shutil.copyfile(logs / "b.log", logs / "c.log")
    os.rename(logs / "b.log", logs.parent / "b.log")
    with monkeypatch.context() as patch:  # a bug: the copy is not known again
        patch.setattr(identity._UnknownFile, "_ranked", lambda *_: [])
        look(lake, logs)
    assert sum(stored(lake).values()) == 300
    found = audit(lake.store, "main", lake.engine, [])
    assert {file.doubled for file in found.wrong} == {100}


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("app.log", "app.log"),
        ("app.log.1", "app.log"),
        ("app.log.12.gz", "app.log"),
        ("app.log-20261121", "app.log"),
        ("app.log-20261121.zst", "app.log"),
        ("app-20261121.log", "app.log"),
        ("app.log.2026-11-21", "app.log"),
        ("app.log.2026-11-21_10", "app.log"),
        ("app.log.old", "app.log"),
        ("app.1.log", "app.log"),
        ("worker-1.log", "worker-1.log"),
        ("server.8080", "server.8080"),
        ("syslog.1", "syslog"),
        ("x", "x"),
    ],
)
def test_names_of_rotated_logs(name: str, base: str) -> None:
    """What rotation puts behind a name is told from what belongs to it."""
    assert rotation.base_name(f"/var/log/{name}") == base
    assert rotation.LogName(name).is_rotated == (name != base)


def test_what_is_distinctive() -> None:
    """F18.4: a banner is not; times, serial numbers and long beginnings are."""
    assert not FileCursor.is_distinctive(b"INFO Starting worker\nINFO ready\n")
    assert FileCursor.is_distinctive(b"2026-11-21 10:00:00 INFO Starting\n")
    assert FileCursor.is_distinctive(b"line 1\nline 2\n")
    assert FileCursor.is_distinctive(b"x" * 4096)


def test_a_lake_from_before_inodes(lake: lakelog.Lake, logs: Path) -> None:
    """F18.9: cursors without inodes are taken over by their files; nothing is stored again."""
    for n in range(3):
        append(logs / f"{n}.log", "INFO Starting", *(f"INFO {n} {k}" for k in range(20)))
    look(lake, logs)
    before = stored(lake)
    strip_inodes(lake)
    os.rename(logs / "0.log", logs / "0.log.1")
    append(logs / "1.log", "INFO new")
    look(lake, logs)
    assert stored(lake) == before + Counter({"INFO new": 1})
    assert is_sound(lake, logs)


def strip_inodes(lake: lakelog.Lake) -> None:
    """Publish every cursor as it was written before inodes were kept."""
    new = ("device", "inode", "mtime", "crc", "places", "head", "looked")
    for record in lake.store.manifests.records(lake.store.state("main"), "cursor"):
        kept = {name: value for name, value in record.members.items() if name not in new}
        change(lake, replace(record, members=kept))


def members(lake: lakelog.Lake) -> dict[str, Any]:
    """What the manifest says of the only cursor."""
    (record,) = lake.store.manifests.records(lake.store.state("main"), "cursor")
    return record.members


def test_what_a_cursor_keeps(lake: lakelog.Lake, logs: Path) -> None:
    """F18.1, F18.2, F18.3: a cursor names the inode, and the sums are those of the bytes
    consumed."""
    for n in range(60):
        append(logs / "app.log", *(f"INFO line {n} {k}" for k in range(n)))
        lake.ingest(str(logs / "app.log"))
    data = (logs / "app.log").read_bytes()
    entry = members(lake)
    status = os.stat(logs / "app.log")
    assert (entry["device"], entry["inode"]) == (status.st_dev, status.st_ino)
    assert (entry["bytes"], entry["crc"]) == (len(data), zlib.crc32(data))
    assert entry["head"] == hashlib.sha256(data[: entry["head_len"]]).hexdigest()[:32]
    assert entry["head_len"] == 4096
    assert entry["tail"] == hashlib.sha256(data[-4096:]).hexdigest()[:32]
    assert 2 < len(entry["places"]) <= 12
    assert all(zlib.crc32(data[:place]) == crc for place, crc in entry["places"])


def test_an_unfinished_last_line_is_replaced_by_the_whole(lake: lakelog.Lake, logs: Path) -> None:
    """F18.8: it stands in quarantine in a segment of its own, until its rest comes."""
    (logs / "a.jsonl").write_text('{"type":"A"}\n{"type":')
    assert lake.ingest(str(logs / "a.jsonl")).quarantined == 1
    entry = members(lake)
    assert entry["unfinished"] == 8
    assert entry["tail_key"] in {e.key for e in entries(lake)}
    append(logs / "a.jsonl", '"B"}')
    assert lake.ingest(str(logs / "a.jsonl")).events == 1
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(0,)]
    entry = members(lake)
    assert "unfinished" not in entry


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(12))
def test_random_lives_of_logs(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However files are written, rotated, copied, packed and cut, with kills and absences of the
    watcher between: every line that could be seen is stored, none more often than written, and the
    audit agrees."""
    monkeypatch.setattr(watch, "STABLE", 0.0)
    monkeypatch.setattr(watch, "GRACE", 0.0)
    with lakelog.open(tmp_path / "lake") as lake:
        history = History(lake, tmp_path / "logs", random.Random(f"life {seed}"))
        history.interrupt(monkeypatch)
        history.play(20)
        assert history.faults() == [], "\n".join(history.steps)
        proof = history.audit()
        assert (proof.wrong, proof.failed) == ([], []), "\n".join(history.steps)
