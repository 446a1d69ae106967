"""Protected fields, read by what FORMAT.md says and none of our own code (section 25)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import lakelog
from lakelog import document
from lakelog.segments import segment
from tests.support import encrypted, protected
from tests.support.attached import SharedMachines


class Keys:
    """The file of keys (F25.7), and the keys that it derives (F25.2)."""

    def __init__(self, path: Path) -> None:
        line, _, sealed = path.read_bytes().partition(b"\n")
        head = json.loads(line)
        self.id = head["id"]
        context = b"lakelog data key" + self.id.encode()
        master = bytes.fromhex(encrypted.KEY)
        secret = encrypted.opened(base64.b64decode(head["wrapped"]), master, context)
        data = encrypted.opened(sealed, secret, line)
        self.destroyed, count = struct.unpack_from("<II", data)
        nodes = list(struct.iter_unpack("<BQ32s", data[8:]))
        assert len(nodes) == count
        self.nodes = {(level, place): node for level, place, node in nodes}

    def key(self, owner: str, generation: int) -> bytes | None:
        """The key of an owner, None if it was destroyed."""
        message = struct.pack("<H", generation) + owner.encode()
        digest = hmac.digest(bytes.fromhex(self.id), message, "sha256")
        bits = f"{int.from_bytes(digest[:8], 'big'):064b}"
        for level in range(65):
            node = self.nodes.get((level, int(bits[:level] or "0", 2)))
            if node is not None:
                for bit in bits[level:]:
                    child = b"lakelog subject key" + bytes([int(bit)]) + node
                    node = hashlib.sha256(child).digest()
                return node
        return None

    def text(self, owner: str, sealed: bytes, purpose: bytes) -> bytes | None:
        """What a ciphertext has (F25.3)."""
        key = self.key(owner, struct.unpack_from("<H", sealed)[0])
        return AESGCM(key).decrypt(sealed[2:14], sealed[14:], purpose) if key else None


def blocks(path: Path) -> dict[str, bytes]:
    """The blocks of a segment by their ids, in base64 (F25.4)."""
    note = (pq.read_metadata(path).metadata or {}).get(b"lakelog.sealed")
    if note is None:
        return {}
    data = path.read_bytes()[json.loads(note)["at"] :]
    (count,) = struct.unpack_from("<I", data)
    entries = list(struct.iter_unpack("<9sI", data[4 : 4 + 13 * count]))
    found, start = {}, 4 + 13 * count
    for name, size in entries:
        found[base64.b64encode(name).decode()] = data[start : start + size]
        start += size
    return found


def payload(keys: Keys, owner: str, data: str, of_segment: dict[str, bytes]) -> dict[str, Any]:
    """A payload with its protected fields, None for those of a destroyed key."""
    stays = json.loads(data)
    token = stays.pop("$sealed")
    if token[:1] == "v":
        text = keys.text(owner, base64.b64decode(token[1:]), b"lakelog value")
    else:
        name, _, number = token[1:].partition(".")
        frame = keys.text(owner, of_segment[name], b"lakelog block")
        text = frame and zstandard.decompress(frame).split(b"\0")[int(number)]
    if text is None:
        return dict(stays)
    if text[:1] == b"=":
        return dict(json.loads(text[1:]))
    places, brace, members = text[1:].partition(b"{")
    taken = list(json.loads(brace + members).items())
    order = list(stays.items())
    for place, member in zip(map(int, places.split(b",")), taken, strict=True):
        order.insert(place, member)
    return dict(order)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[lakelog.Lake, Path]:
    """A lake with protected fields, and its file of keys."""
    lake = protected.create(tmp_path / "lake", monkeypatch)
    return lake, protected.key_file(tmp_path)


def lines(lake: lakelog.Lake) -> list[dict[str, Any]]:
    """The lines of all frames of the lake's WALs (F3.8)."""
    found = []
    for path in (Path(lake.path) / "wal/main").iterdir():
        data = path.read_bytes()
        start = data.find(b"\x28\xb5\x2f\xfd")
        while start >= 0:
            text = zstandard.ZstdDecompressor().decompressobj().decompress(data[start:])
            found += [json.loads(line) for line in text.splitlines()]
            start = data.find(b"\x28\xb5\x2f\xfd", start + 1)
    return [line for line in found if "type" in line]


def test_fields_in_a_wal_are_ciphertexts(lake: tuple[lakelog.Lake, Path]) -> None:
    """F25.1, F25.2, F25.3, F25.7: each event has its own, under the key of its subject."""
    opened_lake, path = lake
    protected.append(opened_lake, range(7))
    opened_lake.append({"type": "SIGNUP", "subject": "s1", "data": {"email": "x", "long": 10**30}})
    config = document.decode((Path(opened_lake.path) / "lakelog.json").read_bytes())
    keys = Keys(path)
    assert config["protect"]["id"] == keys.id
    assert config["protect"]["fields"] == list(protected.FIELDS)
    assert "protect" in config["requires"]
    assert config["format"] == 4
    found = [payload(keys, e["subject"], json.dumps(e["data"]), {}) for e in lines(opened_lake)]
    wanted = [*(protected.payload(n) for n in range(7)), {"email": "x", "long": 10**30}]
    assert [json.dumps(e) for e in found] == [json.dumps(e) for e in wanted]


@pytest.mark.parametrize("is_compacted", [False, True])
def test_fields_in_a_segment_are_blocks(
    lake: tuple[lakelog.Lake, Path], is_compacted: bool
) -> None:
    """F25.4: one for each subject, behind the last page of a file that any reader reads."""
    opened_lake, path = lake
    for start in (0, 20):
        protected.append(opened_lake, range(start, start + 20))
        opened_lake.settle()
    if is_compacted:
        opened_lake.compact()
    keys, found = Keys(path), []
    state = opened_lake.store.state("main")
    for entry in opened_lake.store.manifests.segments(state, "events"):
        file = Path(opened_lake.store.paths.object("segments", entry.key))
        of_segment = blocks(file)
        assert len(of_segment) == 5
        rows = segment.Segment(opened_lake.store.paths, entry.key).read().to_pylist()
        found += [payload(keys, row["subject"], row["data"], of_segment) for row in rows]
    assert sorted(found, key=lambda e: e["n"]) == [protected.payload(n) for n in range(40)]


def test_a_destroyed_key_cannot_be_derived(lake: tuple[lakelog.Lake, Path]) -> None:
    """F25.2, F25.6, F25.7: others can, and the next generation of the same subject."""
    opened_lake, path = lake
    before = Keys(path)
    opened_lake.erase(subject=["s1", "s3"], why="asked")
    keys = Keys(path)
    assert keys.destroyed == 2
    assert len(keys.nodes) > 64
    for owner in ("s0", "s1", "s2", "s3", "", "zoë"):
        wanted = None if owner in ("s1", "s3") else before.key(owner, 0)
        assert keys.key(owner, 0) == wanted
        assert keys.key(owner, 1) == before.key(owner, 1)
    (note,) = (
        p for p in (Path(opened_lake.path) / "erasures").glob("*.json") if p.stem != "states"
    )
    body = document.decode(note.read_bytes())
    digests = {hashlib.sha256(bytes.fromhex(body["salt"]) + s).hexdigest() for s in (b"s1", b"s3")}
    assert set(body["subjects"]) == digests
    assert body["subject"] == ""


def test_each_machine_of_a_shared_lake_destroys_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F25.8: the document of the erasure, the next file of `config/`, and the file of another."""
    protected.keys_in(tmp_path, monkeypatch)
    machines = SharedMachines(tmp_path)
    machines["a"].protect(["email"])
    shutil.copytree(tmp_path / "keys", tmp_path / "others")
    before = Keys(protected.key_file(tmp_path))
    machines["a"].erase(subject="s1", why="asked")
    (path,) = (tmp_path / "bucket/erasures").glob("?" * 16 + ".json")
    record = document.decode(path.read_bytes())
    message = struct.pack("<H", 0) + b"s1"
    digest = hmac.digest(bytes.fromhex(before.id), message, "sha256")
    assert record["places"] == [digest[:8].hex()]
    assert record["phase"] == "swept"
    config = document.decode((tmp_path / "bucket/config/000000000002.json").read_bytes())
    assert config["protect"]["destroyed"] == 1
    monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(tmp_path / "others"))
    machines["b"].exchange()
    (path,) = (tmp_path / "others").glob("*.subjects")
    after = Keys(path)
    assert (after.key("s1", 0), after.key("s2", 0)) == (None, before.key("s2", 0))
    assert after.destroyed == 1
    assert [path for path in (tmp_path / "bucket").rglob("*") if path.suffix == ".subjects"] == []
    machines.close()


def test_quarantined_lines_are_sealed(lake: tuple[lakelog.Lake, Path], tmp_path: Path) -> None:
    """F25.5: whole, with the key of nobody."""
    opened_lake, path = lake
    (tmp_path / "in.jsonl").write_text('{"type": "A", "data": {}}\nno event: zzplanted\n')
    opened_lake.ingest(str(tmp_path / "in.jsonl"))
    state = opened_lake.store.state("main")
    (entry,) = opened_lake.store.manifests.segments(state, "quarantine")
    (row,) = pq.read_table(opened_lake.store.paths.object("segments", entry.key)).to_pylist()
    sealed = json.loads(row["line"])
    text = Keys(path).text("", base64.b64decode(sealed["$sealed"][1:]), b"lakelog value")
    assert text == b"=no event: zzplanted"
