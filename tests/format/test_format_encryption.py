"""Encrypted lakes, read by what FORMAT.md says and none of our own code (section 24)."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

import lakelog
from lakelog import document
from tests.support import encrypted
from tests.support.statements import parse_document

WORD = "zzplanted"


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any], bytes]:
    """An encrypted lake with a segment, a tail and a tag; its lakelog.json and its data key."""
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    with lakelog.open(root) as opened_lake:
        opened_lake.append([{"type": WORD, "data": {"n": n}} for n in range(1200)])
        opened_lake.settle()
        opened_lake.sql("SELECT * FROM events WHERE id = 'x'").fetchall()
        opened_lake.tag("v1", message=WORD)
        opened_lake.append({"type": WORD, "message": "the tail"})
    config = document.decode((root / "lakelog.json").read_bytes())
    name = config["encryption"]["key"]
    wrapped = base64.b64decode(config["encryption"]["keys"][name]["wrapped"])
    secret = encrypted.opened(
        wrapped, bytes.fromhex(encrypted.KEY), b"lakelog data key" + name.encode()
    )
    return root, config, secret


def test_data_keys_are_wrapped_in_lakelog_json(lake: tuple[Path, dict[str, Any], bytes]) -> None:
    """F24.1, F24.2: what a lakelog.json has, and the id of the master key that wraps."""
    _, config, secret = lake
    assert config["format"] == 4
    assert config["requires"] == ["encryption"]
    assert config["encryption"].keys() == {"ring", "key", "master", "former", "keys"}
    digest = hashlib.sha256(b"lakelog master key" + bytes.fromhex(encrypted.KEY)).hexdigest()
    assert config["encryption"]["master"] == digest[:16]
    assert len(secret) == 32


def test_objects_are_envelopes(lake: tuple[Path, dict[str, Any], bytes]) -> None:
    """F24.3, F24.4: a segment is an envelope of Parquet, by its own digest; id runs are plain."""
    root, config, secret = lake
    (path,) = root.glob("segments/*/*.parquet")
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == path.stem
    assert data[8:16].hex() == config["encryption"]["key"]
    assert set(pq.read_table(io.BytesIO(encrypted.opened(data, secret)))["type"].to_pylist()) == {
        WORD
    }
    for run in root.glob("ids/*/*.ids"):
        assert run.read_bytes()[:4] == b"LKI1"


def test_frames_are_envelopes(lake: tuple[Path, dict[str, Any], bytes]) -> None:
    """F24.5: flag 16, and the context by which a frame opens in its place alone."""
    root, _, secret = lake
    frames = 0
    for path in root.glob("wal/main/*.zst"):
        data = path.read_bytes()
        size = struct.unpack_from("<I", data, 4)[0]
        assert b'"requires":["encryption"]' in data[: 8 + size]
        start = 8 + size
        while data[start + 8 : start + 12] == b"LKF1":
            sequence, p, raw, events, flags, position, time = struct.unpack_from(
                "<QIIIIQq", data, start + 12
            )
            assert flags & 16
            context = b"frame" + struct.pack(
                "<QIIIQq", sequence, raw, events, flags, position, time
            )
            body = encrypted.opened(data[start + 64 : start + 64 + p], secret, context)
            assert zstandard.ZstdDecompressor().decompress(body).count(b"\n") == events
            start, frames = start + 64 + p, frames + 1
    assert frames


def test_what_refs_carry_is_encrypted(lake: tuple[Path, dict[str, Any], bytes]) -> None:
    """F24.6: the text of a manifest and the message of a tag, as lines of base64."""
    root, _, secret = lake
    data = (root / "refs/tags/v1.json").read_bytes()
    line, carried = document.split(data)
    body = parse_document(line)
    assert encrypted.opened(base64.b64decode(body["message"][5:]), secret) == WORD.encode()
    assert body["message"][:5] == "lkn1:"
    assert hashlib.sha256(carried[:-1]).hexdigest() == body["snapshot"]
    packed = encrypted.opened(base64.b64decode(carried[5:-1]), secret)
    assert WORD.encode() in zstandard.ZstdDecompressor().decompress(packed)


def test_caches_are_envelopes(lake: tuple[Path, dict[str, Any], bytes]) -> None:
    """F24.7: filters, indexes and the like; what is plain holds no word."""
    root, _, secret = lake
    filters = list((root / "cache/bloom").iterdir())
    assert filters
    assert all(encrypted.opened(path.read_bytes(), secret)[:4] == b"LKB1" for path in filters)
    assert encrypted.found(root, [WORD]) == []
