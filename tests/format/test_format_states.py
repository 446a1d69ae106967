"""Section 21 of FORMAT.md: state directories, read here without lakelog's own reader."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import zstandard

import lakelog
from lakelog import document
from lakelog.chunks import state_files, state_index
from lakelog.disk import NotIntact
from lakelog.state.catalog import StateCatalog
from lakelog.state.retention import Retention
from lakelog.state.state import save_state
from lakelog.store import Store
from tests.support import lakes


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A lake with the state of one directory that has every kind of entry."""
    home = tmp_path / "app"
    (home / "sub").mkdir(parents=True)
    (home / "a").write_bytes(b"hello")
    (home / "sub" / "b").write_bytes(os.urandom(300_000))
    (home / "sub" / "link").symlink_to("../a")
    os.link(home / "a", home / "hard")
    (home / os.fsdecode(b"\xff")).write_bytes(b"x")
    with open(home / "holes", "wb") as file:
        file.truncate(1 << 20)
        file.seek(500_000)
        file.write(b"data")
    with lakes.opened(str(tmp_path / "lake"), gc_grace_hours=0, history_days=0) as lake:
        save_state(lake, {"app": str(home)}, name="one")
    return tmp_path / "lake"


def open_file(path: Path) -> bytes:
    """Return the content of a chunk or index, as F21.2 says."""
    data = path.read_bytes()
    assert data[-44:-32] == struct.pack("<II4s", 0x184D2A5D, 36, b"LKS1")
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    content: bytes = zstandard.ZstdDecompressor().decompress(data[:-44])
    assert zstandard.frame_content_size(data[:-44]) == len(content)
    assert hashlib.sha256(content).hexdigest() == path.name[:64]
    assert path.parent.name == path.name[:2]
    return content


def index_of(lake: Path) -> dict[str, Any]:
    (path,) = lake.glob("states/*/*.json.zst")
    body: dict[str, Any] = json.loads(open_file(path))
    return body


def test_a_move_adds_state_entries(saved: Path) -> None:
    """F21.1: the entry names the index and the directory; the move has the op `state`."""
    moves = sorted(saved.glob("refs/heads/main/*.json"))
    body, carried = moves[-1].read_bytes().splitlines()
    assert json.loads(body)["op"] == "state"
    (entry,) = json.loads(carried)["tail"]
    (index,) = saved.glob("states/*/*.json.zst")
    assert (entry["add"], entry["key"], entry["index"]) == ("state", "app", index.name[:64])
    assert entry["path"] == str(saved.parent / "app")
    assert entry["files"] == 5
    assert entry["bytes"] == sum(size for _, size in index_of(saved)["chunks"])
    assert 0 < entry["captured_at"] < json.loads(body)["time"]


def test_an_entry_names_and_proves_its_machine(saved: Path) -> None:
    """F8.13, F21.1: the document is bound to lakelog.json, and its key proves the entry."""
    body = document.decode((saved / "machine.json").read_bytes())
    assert body["path"] == str(saved)
    status = (saved / "lakelog.json").stat()
    assert [body["bound"][0][:2]] == [[status.st_ino, status.st_dev]]
    move, carried = sorted(saved.glob("refs/heads/main/*.json"))[-1].read_bytes().splitlines()
    manifest = json.loads(carried)
    (entry,) = manifest["tail"]
    assert (entry["machine"], entry["save"]) == (body["machine"], manifest["commit"])
    assert json.loads(move)["commit"] == entry["save"]
    names = "machine key index path captured_at number save parent before".split()
    defaults = {"number": 0, "save": "", "parent": "", "before": ""}
    facts = json.dumps([(defaults | entry)[name] for name in names], separators=(",", ":"))
    key = bytes.fromhex(body["keys"][body["machine"]])
    assert hashlib.blake2b(facts.encode(), key=key, digest_size=16).hexdigest() == entry["mac"]


def test_files_are_sealed_frames_named_by_their_content(saved: Path) -> None:
    """F21.2: both kinds of files open as described, and a chunk has at most 8 MiB."""
    chunks = list(saved.glob("states/*/*.chunk.zst"))
    assert chunks
    assert all(len(open_file(path)) <= 8 << 20 for path in chunks)


def test_content_is_that_of_the_files_back_to_back(saved: Path) -> None:
    """F21.3, F21.4: the chunks in order give every file, without its holes."""
    index = index_of(saved)
    parts = []
    for digest, size in index["chunks"]:
        parts.append(open_file(saved / "states" / digest[:2] / f"{digest}.chunk.zst"))
        assert len(parts[-1]) == size
    content, home, at = b"".join(parts), saved.parent / "app", 0
    for entry in index["entries"]:
        path, kind = entry["path"], entry["kind"]
        name = os.fsdecode(bytes.fromhex(path["hex"])) if isinstance(path, dict) else path
        status = os.lstat(home / name)
        if kind == "hard":
            assert status.st_ino == os.stat(home / entry["target"]).st_ino
            continue
        assert (entry["mode"], entry["uid"]) == (status.st_mode & 0o7777, status.st_uid)
        assert (entry["gid"], entry["mtime"]) == (status.st_gid, status.st_mtime_ns)
        if kind == "link":
            assert entry["target"] == os.readlink(home / name)
        if kind == "file":
            whole = bytearray(entry["size"])
            for start, length in entry.get("extents", [[0, entry["size"]]]):
                whole[start : start + length] = content[at : at + length]
                at += length
            assert bytes(whole) == (home / name).read_bytes()
    assert at == len(content)
    kinds = [entry["kind"] for entry in index["entries"]]
    assert set(kinds) == {"dir", "file", "link", "hard"}


def test_paths_stay_in_the_directory(saved: Path) -> None:
    """F21.5: the directory comes first, and an index that leads out of it is refused."""
    index = index_of(saved)
    assert index["entries"][0]["path"] == ""
    entry = {"path": "../x", "kind": "link", "mode": 0, "uid": 0, "gid": 0, "mtime": 0}
    index["entries"].append({**entry, "target": "a"})
    with pytest.raises(NotIntact):
        state_index.load(lambda: iter([json.dumps(index).encode()]), 0)


def test_gc_keeps_what_states_name_and_waits_for_saves(saved: Path) -> None:
    """F21.6: named files stay; others go after the grace, but not while a save holds the lock."""
    with lakelog.open(saved) as lake:
        lake.gc()
        assert lake.verify().intact
        before = set(saved.glob("states/*/*"))
        extra = state_files.seal(b"nobody names it")
        name = hashlib.sha256(b"nobody names it").hexdigest()
        path = saved / "states" / name[:2] / f"{name}.chunk.zst"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(extra)
        with open(saved / "cache" / "states.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            lake.gc()
            assert path.exists()
        lake.gc()
        assert not path.exists()
        assert {p for p in saved.glob("states/*/*") if p.is_file()} == before
        assert StateCatalog(lake).clean(Retention(0)) == []
    assert Store.load(str(saved)).refs.tag("one").name == "one"
