"""Section 23 of FORMAT.md: what stands in the place of erased states, and what says so."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

import lakelog
from lakelog import document
from lakelog.lake import Lake
from tests.support import second_reader

EVENTS: list[dict[str, Any]] = [
    {"type": "A", "subject": subject, "id": f"{subject}1", "source": "s", "message": "hello"}
    for subject in ("ada", "bob", "cid")
]


def body(path: Path) -> dict[str, Any]:
    """The members of a document."""
    return document.decode(path.read_bytes())


@pytest.fixture
def erased(tmp_path: Path) -> Lake:
    """A lake with a tag from before ada was erased."""
    lake = lakelog.open(tmp_path / "lake", settings={"seal": "never"})
    lake.append(EVENTS)
    lake.tag("v1")
    lake.quarantine([("file", 7, "no event", "broken ada")])
    lake.erase(subject="ada", why="asked")
    return lake


def test_what_is_read_in_the_place_of_a_state(erased: Lake, tmp_path: Path) -> None:
    """F23.1, F23.2, F15.8, F15.9: by states.json alone a reader finds the rows that stayed."""
    root = tmp_path / "lake"
    assert body(root / "lakelog.json")["requires"] == ["erasure"]
    assert body(root / "lakelog.json")["format"] == 4
    places = body(root / "erasures/states.json")
    snapshot = body(root / "refs/tags/v1.json")["snapshot"]
    stored = places["states"][snapshot]
    state = orjson.loads(
        zstandard.ZstdDecompressor().decompress(
            (root / f"manifests/{stored[:2]}/{stored}.json.zst").read_bytes()
        )
    )
    (entry,) = (e for e in state["tail"] if e.get("add") == "segment")
    assert (entry["events"], entry["seq"], state["totals"]["events"]) == (2, [0, 2], 2)
    assert entry["subject"] == ["bob", "cid"]
    assert entry["key"] in places["segments"].values()
    rows = erased.at("v1").sql("SELECT seq, subject FROM events ORDER BY seq").fetchall()
    assert rows == [(1, "bob"), (2, "cid")]


def test_what_an_erasure_takes_away(erased: Lake, tmp_path: Path) -> None:
    """F23.3, F10.4, F7.7: old texts and segments are gone, the chain is as before."""
    root = tmp_path / "lake"
    places = body(root / "erasures/states.json")
    for old in places["segments"]:
        assert not (root / f"segments/{old[:2]}/{old}.parquet").exists()
    moves = sorted((root / "refs/heads/main").glob("0*.json"))
    lines = [document.split(path.read_bytes()) for path in moves]
    heads = [document.decode(line) for line, _ in lines]
    assert [head["op"] for head in heads] == ["init", "seal", "seal", "erase"]
    for (line, _), head in zip(lines, heads[1:], strict=False):
        assert head["prev"] == hashlib.sha256(line).hexdigest()
    for (_, text), head in zip(lines, heads, strict=True):
        assert bool(text) == (head["snapshot"] not in places["states"])
    assert document.split((root / "refs/tags/v1.json").read_bytes())[1] == b""


def test_what_is_known_of_the_rows(erased: Lake, tmp_path: Path) -> None:
    """F23.4: the subject, the places and the ids are there as salted digests alone."""
    root = tmp_path / "lake"
    (path,) = (p for p in (root / "erasures").glob("*.json") if p.name != "states.json")
    note = body(path)
    salt = bytes.fromhex(note["salt"])
    assert note["key"] == path.stem
    assert note["subject"] == hashlib.sha256(salt + b"ada").hexdigest()
    assert (note["phase"], note["events"], note["lines"], note["condition"]) == ("swept", 1, 1, "")
    assert (note["branches"], note["tags"]) == ({"main": 1}, {"v1": 1})
    rows = body(path.with_suffix(".rows"))
    assert base64.b64decode(rows["keys"]) == hashlib.sha256(salt + b"s\0ada1").digest()[:16]
    places = base64.b64decode(rows["places"])
    assert hashlib.sha256(salt + b"file\x007").digest()[:16] in (places[:16], places[16:])
    assert (rows["contents"], rows["leaves"]) == ("", {})
    assert rows["times"] == [2**63 - 1, -(2**63)]
    origins = base64.b64decode(rows["origins"])
    assert hashlib.sha256(salt + b"file").digest()[:16] in (origins[:16], origins[16:])


def test_a_replaced_config_begins_a_new_wal(erased: Lake, tmp_path: Path) -> None:
    """F23.5: the next frame but one after lakelog.json was replaced is in another file."""
    erased.append({"type": "A"})
    wals = tmp_path / "lake/wal/main"
    config = tmp_path / "lake/lakelog.json"
    replacement = tmp_path / "lake/.tmp-config"
    replacement.write_bytes(config.read_bytes())
    os.rename(replacement, config)
    erased.append({"type": "A"})
    assert len(list(wals.iterdir())) == 1
    erased.append({"type": "A"})
    assert len(list(wals.iterdir())) == 2
    magic = struct.unpack("<I", min(wals.iterdir()).read_bytes()[-24:-20])[0]
    assert magic == 0x184D2A5C
    assert erased.count() == 5


def test_where_rows_went_is_noted(erased: Lake, tmp_path: Path) -> None:
    """F23.6: an export is noted under the digest of its place and path."""
    out = str(tmp_path / "out.csv")
    erased.export("events", out)
    name = hashlib.sha256(f"export\0{out}".encode()).hexdigest()[:16]
    note = body(tmp_path / f"lake/copies/{name}.json")
    assert (note["place"], note["name"]) == ("export", out)


@pytest.mark.parametrize("count", [200, 3000])
def test_a_long_note_of_states_has_parts(count: int, erased: Lake, tmp_path: Path) -> None:
    """F23.7: an index names the shards by what the digests in them begin with; readers agree."""
    root = tmp_path / "lake"
    whole = body(root / "erasures/states.json")
    many = {
        hashlib.sha256(b"%d" % n).hexdigest(): hashlib.sha256(b"").hexdigest() for n in range(count)
    }
    erased.store.erased.add(many, dict.fromkeys(many, ""))
    index = body(root / "erasures/states.json")
    assert index.keys() == {"shards"}
    width = {16: 1, 256: 2}[len(index["shards"])]
    assert width == (1 if count == 200 else 2)
    states, segments = {}, {}
    for number, name in enumerate(index["shards"]):
        data = (root / f"erasures/{name}.shard").read_bytes()
        assert hashlib.sha256(data).hexdigest() == name
        shard = document.decode(data)
        digests = {*shard["states"], *shard["segments"]}
        assert all(int(digest[:width], 16) == number for digest in digests)
        states |= shard["states"]
        segments |= shard["segments"]
    assert states == whole["states"] | many
    assert segments == whole["segments"] | dict.fromkeys(many, "")
    assert {path.stem for path in root.glob("erasures/*.shard")} == {*index["shards"]}
    for tag in ("v1", ""):
        rows = [row["subject"] for row in second_reader.rows(str(root), tag=tag)]
        assert rows == ["bob", "cid"]
    (root / "erasures/states.json").write_bytes(document.encode(whole))
    assert lakelog.open(root, create=False).at("v1").count() == 2


def test_subjects_of_erasures_are_kept_together(erased: Lake, tmp_path: Path) -> None:
    """F23.8: a list for each, of the folder as it is; without it the documents are read."""
    root = tmp_path / "lake"
    (path,) = (p for p in (root / "erasures").glob("*.json") if p.name != "states.json")
    note = body(path)
    time.sleep(0.1)
    with lakelog.open(root) as fresh:
        fresh.append({"type": "A"})
    kept = body(root / "cache/erasures.json")
    folder = os.stat(root / "erasures")
    assert kept["version"] == [folder.st_ino, folder.st_ctime_ns]
    erasure = [note["key"], note["time"], False]
    assert kept["subjects"] == {note["salt"]: {note["subject"]: [erasure]}}
    assert kept["keys"] == [note["key"]]
    # What changed just now may change again within the tick of the file system.
    soon = time.time_ns() + 10**10
    os.utime(root / "erasures", ns=(soon, soon))
    (root / "cache/erasures.json").unlink()
    with lakelog.open(root) as fresh:
        fresh.append({"type": "A"})
    assert body(root / "cache/erasures.json") == {**kept, "version": [folder.st_ino, 0]}


def test_what_erasures_know_rows_by_is_kept_together(erased: Lake, tmp_path: Path) -> None:
    """F23.9: of each file as it is, where it has changed no more."""
    root = tmp_path / "lake"
    (path,) = (root / "erasures").glob("*.rows")
    rows, salt = body(path), body(path.with_suffix(".json"))["salt"]
    time.sleep(0.1)
    with lakelog.open(root) as fresh:
        fresh.append({"type": "A"})
        fresh.tag("v2")
    kept = body(root / "cache/erased_rows.json")
    folder, status = os.stat(root / "erasures"), path.stat()
    assert kept["version"] == [folder.st_ino, folder.st_ctime_ns]
    packed = base64.b64decode(rows["origins"]).hex()
    origins = [packed[:32], packed[32:]]
    stamp = [status.st_ino, status.st_ctime_ns, status.st_size]
    assert kept["rows"] == {path.stem: [stamp, [salt, origins, *rows["times"]]]}
