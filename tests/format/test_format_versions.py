"""FORMAT.md, event streams: versions in frames and rows, their keys, their lock, and format 4."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from dataclasses import replace
from pathlib import Path
from unittest import mock

import orjson
import pytest
import zstandard

import lakelog
from lakelog import document
from lakelog.appends.stream_lock import StreamLock
from lakelog.disk import disk
from lakelog.errors import Diverged, FormatTooNew, InvalidEvent, WrongVersion
from lakelog.identities import IdentityKeys
from lakelog.manifest import manifest, manifests
from lakelog.moves.publication import Change, publish
from lakelog.remotes import known
from lakelog.remotes.fetches import clone, pull
from lakelog.remotes.pushes import push
from lakelog.wal import frames as wal
from lakelog.wal.tail import Tail
from tests.support import lakes, second_reader, statements

EVENT = {"type": "A", "subject": "order-17", "time": 0}


def frames(lake: lakelog.Lake) -> list[wal.Frame]:
    """The frames of the tail."""
    pending = Tail(lake.store.paths, lake.store.refs, "main").collect()
    return [frame for group in pending.frames.values() for frame in group]


def config(path: Path) -> dict[str, object]:
    return document.decode((path / "lakelog.json").read_bytes())


def test_versions_in_lines_and_rows(tmp_path: Path) -> None:
    """F13.6: version and key begin the line; origin and position of the row tell the stream."""
    path = tmp_path / "lake"
    with lakes.opened(str(path)) as lake:
        lake.append([EVENT, {**EVENT, "id": "i"}, {"type": "PLAIN"}], expect={"order-17": 0})
        [frame] = frames(lake)
        assert frame.flags == wal.Frame.KEYED | wal.Frame.VERSIONED
        lines = frame.lines().splitlines()
        digest = hashlib.sha256(b"order-17").hexdigest()
        for version, line in enumerate(lines[:2], 1):
            key = hashlib.sha256(f"stream:{digest}:{version}".encode()).hexdigest()[:24]
            assert line.startswith(f'{{"version":"{version}","key":"{key}","time":'.encode())
        assert b"version" not in lines[2]
        for settled in (False, True):
            if settled:
                lake.settle()
            rows = lake.sql("SELECT origin, position FROM events ORDER BY type, position")
            assert rows.fetchall()[:2] == [("stream:order-17", 1), ("stream:order-17", 2)]
            places = [(row["origin"], row["position"]) for row in second_reader.rows(str(path))]
            assert sorted(places)[1:] == [("stream:order-17", 1), ("stream:order-17", 2)]
        [run] = lake.store.state("main").ids
        read = IdentityKeys.read(lake.store, run)
        keys = {struct.pack(">QI", h, n).hex() for h, n in zip(read.high, read.low, strict=True)}
        key = hashlib.sha256(f"stream:{digest}:1".encode()).hexdigest()[:24]
        assert len(keys) == 2
        assert key in keys


def test_the_example_of_a_key() -> None:
    """F13.6: the key of version 3 of order-17."""
    digest = hashlib.sha256(b"order-17").hexdigest()
    key = hashlib.sha256(f"stream:{digest}:3".encode()).hexdigest()[:24]
    text = (statements.ROOT / "FORMAT.md").read_text("utf-8")
    assert f"has the key `{key}`" in text


def test_an_append_is_one_frame(tmp_path: Path) -> None:
    """F3.12: an append with expected versions is one frame, however long; others are cut."""
    events = [{**EVENT, "data": "x" * 1000}] * 5000
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append(events, expect={"order-17": 0})
        assert [frame.events for frame in frames(lake)] == [5000]
        lake.append(events)
        assert len(frames(lake)) > 4
        with pytest.raises(InvalidEvent, match="all or nothing"):
            lake.append([EVENT] * 65_537, expect={"order-17": 5000})
        with pytest.raises(InvalidEvent, match="all or nothing"):
            lake.append({**EVENT, "data": "x" * (17 << 20)}, expect={"order-17": 5000})


def test_versions_are_given_under_a_lock(tmp_path: Path) -> None:
    """F13.7: who holds the flock of the directory of moves keeps others from giving versions."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake, lakes.opened(path) as other:
        fd = os.open(f"{path}/refs/heads/main", os.O_RDONLY)
        assert disk.lock(fd)
        waiting = threading.Thread(
            target=lake.append, args=(EVENT,), kwargs={"expect": {"order-17": 0}}
        )
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        other.append({"type": "B"})  # an ordinary append does not wait
        os.close(fd)
        waiting.join()
        assert lake.stream("order-17").version == 1


def test_versions_are_those_of_the_state(tmp_path: Path) -> None:
    """F13.8: a rollback gives versions again; a retention takes rows and leaves the version."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append([EVENT, EVENT], expect={"order-17": 0})
        lake.tag("two")
        lake.append(EVENT, expect={"order-17": 2})
        lake.rollback("two")
        with pytest.raises(WrongVersion, match="at version 2, not 3"):
            lake.append(EVENT, expect={"order-17": 3})
        lake.append(EVENT, expect={"order-17": 2})
        lake.retention("1d", apply=True)
        assert lake.count() == 0
        assert lake.stream("order-17").version == 3
        lake.append({**EVENT, "time": None}, expect={"order-17": 3})
        assert [event["version"] for event in lake.stream("order-17")] == [4]


def marks_of(path: Path) -> tuple[object, ...]:
    """Magic, boot, inode, epoch, generation, move, running and whole of the marks of main."""
    return struct.unpack_from("<8s16sQQqQQQ", (path / "cache/streams/main").read_bytes())


def test_marks(tmp_path: Path) -> None:
    """F8.15: the marks of hot streams: where they are, when they count, and when not."""
    path = tmp_path / "lake"
    with lakes.opened(str(path)) as lake:
        lake.append(EVENT, expect={"order-17": 0})
        magic, _, inode, epoch, generation, move, running, whole = marks_of(path)
        file = path / "cache/streams/main"
        assert (magic, inode) == (b"LKV1\0\0\0\0", file.stat().st_ino)
        assert (generation, move, running, whole) == (0, 1, 0, 1)
        digest = hashlib.sha256(b"order-17").digest()
        place = 128 + 128 * int.from_bytes(digest[16:18], "little")
        mark = struct.unpack_from("<16sQQ", file.read_bytes(), place)
        assert mark == (digest[:16], 1, epoch)
        lake.settle()
        lake.append(EVENT, expect={"order-17": 1})
        assert marks_of(path)[3:6] == (epoch, 0, 2)  # a seal gives no version
        lake.rollback("@2")
        lake.append(EVENT, expect={"order-17": 1})
        assert marks_of(path)[3] > epoch  # a rollback may have taken some away
    wrong = bytearray(file.read_bytes())
    struct.pack_into("<QQ", wrong, place + 16, 7, marks_of(path)[3])
    file.write_bytes(wrong)
    with lakes.opened(str(path)) as lake:
        with pytest.raises(WrongVersion, match="at version 7"):
            lake.append(EVENT, expect={"order-17": 2})  # the marks are believed ...
        struct.pack_into("<Q", wrong, 56, 1)
        file.write_bytes(wrong)
        lake.append(EVENT, expect={"order-17": 2})  # ... but not if an append was cut off,
        copy = path / "cache/streams/copy"
        copy.write_bytes(wrong[:56] + bytes(8) + wrong[64:])
        os.rename(copy, file)
        lake.append(EVENT, expect={"order-17": 3})  # nor those of another file,
        file.unlink()
        lake.append(EVENT, expect={"order-17": 4})  # and nobody needs them
        assert lake.stream("order-17").version == 5


def test_a_state_has_all_versions_before_another(tmp_path: Path) -> None:
    """F9.13: who seals or copies meets no version without those before it; who rewinds waits."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as a, lakes.opened(path) as b, lakes.opened(path) as sealer:
        a.append(EVENT, expect={"order-17": 0})
        b.append(EVENT, expect={"order-17": 1})
        read, waiting = wal.scan, list[threading.Thread]()

        def scan(data: bytes, base: int, writer: str, *rest: int) -> wal.Scan:
            # Between two files a version is given in the one that was read, one in the other.
            if not waiting:
                waiting.append(threading.Thread(target=both))
                waiting[0].start()
                waiting[0].join(1)
            return read(data, base, writer, *rest)

        def both() -> None:
            (a if a.writer().name < b.writer().name else b).append(EVENT, expect={"order-17": 2})
            (b if a.writer().name < b.writer().name else a).append(EVENT, expect={"order-17": 3})

        with mock.patch.object(wal, "scan", scan):
            sealer.tag("v1")
        waiting[0].join()
        versions = [event["version"] for event in sealer.at("v1").stream("order-17")]
        assert versions == list(range(1, len(versions) + 1))
        with StreamLock(sealer.store, "main").held():
            rewinding = threading.Thread(target=a.rollback, args=("v1",))
            rewinding.start()
            rewinding.join(0.2)
            assert rewinding.is_alive()
        rewinding.join()


def test_a_fork_prevents_a_merge(tmp_path: Path) -> None:
    """F7.14: a version that both sides gave to events of their own prevents a merge."""
    here, there, hub = (str(tmp_path / name) for name in ("here", "there", "hub"))
    with lakes.opened(here) as lake:
        lake.append(EVENT, expect={"order-17": 0})
        known.add(lake.store, "origin", hub)
        push(lake, "origin", branches=["main"])
    clone(hub, there)
    with lakes.opened(there) as other:
        other.append({**EVENT, "type": "THERE"}, expect={"order-17": 1})
        other.append({"type": "N", "subject": "new-there"}, expect={"new-there": 0})
        push(other, "origin", branches=["main"])
    with lakes.opened(here) as lake:
        lake.append({"type": "N", "subject": "new-here"}, expect={"new-here": 0})
        lake.append({**EVENT, "type": "HERE"}, expect={"order-17": 1})
        with pytest.raises(Diverged, match="'order-17' has version 2 here and another one"):
            pull(lake, "origin", merge=True)
        assert lake.stream("order-17").version == 2


def test_only_streams_raise_the_format(tmp_path: Path) -> None:
    """F15.7, F2.3, F3.3: a lake without streams stays at format 3, one with them is of format 4."""
    path = tmp_path / "lake"
    with lakes.opened(str(path)) as lake:
        lake.append(EVENT)
        lake.settle()
        assert config(path)["format"] == 3
        lake.append(EVENT, expect={"order-17": 0})
        assert config(path)["format"] == 4
        lake.backup(tmp_path / "copy")
    assert config(tmp_path / "copy")["format"] == 4
    formats = []
    for file in sorted((path / "wal/main").iterdir()):
        data = file.read_bytes()
        formats.append(orjson.loads(data[16 : 8 + int.from_bytes(data[4:8], "little")])["format"])
    assert formats[-1] == 4


def test_what_is_required_is_refused(tmp_path: Path) -> None:
    """F15.8, F15.9: what a lake, a manifest, a WAL or a frame requires is not passed over."""
    path = tmp_path / "lake"
    lakes.plain(str(path))
    body = config(path)
    (path / "lakelog.json").write_bytes(document.encode({**body, "requires": ["erasure", "later"]}))
    with pytest.raises(FormatTooNew, match="requires later: upgrade"):
        lakelog.open(path)
    with pytest.raises(ValueError, match="newer"):
        second_reader.rows(str(path))
    (path / "lakelog.json").write_bytes(document.encode(body))

    def required(state: manifest.Manifest) -> bytes:
        encoded = encode(state)
        return orjson.dumps({**orjson.loads(encoded), "requires": ["later"]})

    encode = manifest.encode
    with lakes.opened(str(path)) as lake, mock.patch.object(manifests, "encode", required):
        publish(lake.store, "main", lambda *_: Change("snapshot"))
    with pytest.raises(FormatTooNew, match="requires later: upgrade"):
        lakelog.open(path).count()
    header = wal.Header("l", "main", "0" * 32, 0, 0, (), "h", 1, 1)
    dumps = orjson.dumps
    with mock.patch.object(wal, "orjson") as stub:
        stub.dumps = lambda members: dumps({**members, "requires": ["later"]})
        data = wal.Header.encode(header)
    with pytest.raises(FormatTooNew, match="requires later: upgrade"):
        wal.Header.decode(data)


def test_unknown_frames_are_refused(tmp_path: Path) -> None:
    """F15.8, F15.9: a frame with an unknown flag, as later ones may have, is not read."""
    frame = wal.encode_frame(b'{"type":"A"}', 1, 0, 32, 0, 0, zstandard.ZstdCompressor())
    with pytest.raises(FormatTooNew, match="flags 32: upgrade"):
        wal.scan(frame, 0, "w")


def test_field_ids_do_not_change_the_format(tmp_path: Path) -> None:
    """F15.10: a lake with numbers of columns keeps its format; an entry of one that is not known
    to any segment is passed over, and kept."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        entry = lakelog.entries.entry.Record("field", "n\0int", {"id": 70_000})
        publish(lake.store, "main", lambda *_: Change("later", entries=(entry,)))
        lake.append(EVENT)
        lake.compact()
        state = lake.store.state("main")
        assert lake.store.manifests.records(state, "field") == [entry]
        assert replace(entry) == entry
        assert lake.count() == 1
    assert orjson.loads((tmp_path / "lake/lakelog.json").read_bytes())["format"] == 3
