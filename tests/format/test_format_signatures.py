"""The statements of FORMAT.md on signatures, on real files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import zlib
from pathlib import Path

import pytest

import lakelog
from lakelog import document
from lakelog.history import delete_tag
from lakelog.proofs import keys, signing, snapshot_tree
from lakelog.proofs.keys import PrivateKey
from lakelog.proofs.signing import Target
from lakelog.store import SignatureFile, Signatures
from tests.conftest import MakeLake
from tests.support.lakes import events


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    """A key outside the lakes."""
    keys.PrivateKey.generate(str(tmp_path / "key"))
    return keys.PrivateKey.load(str(tmp_path / "key"))


def sign(lake: lakelog.Lake, key: PrivateKey, name: str) -> Target:
    lake.append(events("A", 40, lake.count()))
    what = Target(name, lake.tag(name).snapshot)
    signing.sign(lake.store, "main", what, key)
    return what


def test_a_signature_is_a_document_and_an_envelope(make_lake: MakeLake, key: PrivateKey) -> None:
    """F20.1, F1.4: its members, its name, the digest of its subject."""
    lake = make_lake()
    what = sign(lake, key, "Größe 1.0")
    (name,) = os.listdir(f"{lake.path}/refs/signatures")
    assert name == f"%47r%c3%b6%c3%9fe%201.0.{key.public.id[:16]}.json"
    with open(f"{lake.path}/refs/signatures/{name}", "rb") as file:
        data = file.read()
    body = document.decode(data)
    assert list(body) == ["payloadType", "payload", "signatures"]
    said = json.loads(base64.b64decode(body["payload"]))
    assert said["subject"][0]["digest"] == {"sha256": what.snapshot}
    assert said["predicateType"] == "https://lakelog.dev/snapshot/v1"
    signing.sign(lake.store, "main", Target("", what.snapshot), key)
    names = set(os.listdir(f"{lake.path}/refs/signatures"))
    assert names == {name, f"@{what.snapshot}.{key.public.id[:16]}.json"}


def test_what_a_valid_signature_names(make_lake: MakeLake, key: PrivateKey) -> None:
    """F20.2: the lake, the tag, the manifest, the root and the number of events."""
    lake = make_lake()
    what = sign(lake, key, "v1")
    said = signing.newest(lake.store, what)[1]
    assert (said.lake, said.tag, said.snapshot) == (lake.store.lake_id, "v1", what.snapshot)
    assert (said.root, said.events) == snapshot_tree.root(lake.store, what.snapshot)
    assert said.expires is None
    assert signing.SignatureCheck(lake.store, [key.public]).target(what) == []
    later = Target("v1", sign(lake, key, "v2").snapshot)
    assert signing.SignatureCheck(lake.store, [key.public]).target(later) != []


def test_peaks_are_those_of_the_range(make_lake: MakeLake, key: PrivateKey) -> None:
    """F20.3, F8.7: the cached peaks of a segment, and the root, which compaction leaves."""
    lake = make_lake()
    sign(lake, key, "a")
    what = sign(lake, key, "b")
    found = {}
    for entry in lake.store.manifests.segments(lake.store.manifests.load(what.snapshot)):
        with open(f"{lake.path}/cache/merkle/{entry.key}", "rb") as file:
            data = file.read()
        assert data[:4] == b"LKT1"
        assert struct.unpack_from("<I", data, 4)[0] == zlib.crc32(data[8:])
        assert data[8:24].hex() == lake.store.lake_id
        assert struct.unpack_from("<qq", data, 24) == (entry.seq[0], entry.seq[1] + 1)
        nodes = [data[at : at + 49] for at in range(40, len(data), 49)]
        peaks = [(n[0], *struct.unpack_from("<qq", n, 1)) for n in nodes]
        found[entry.seq] = sorted(peaks, key=lambda peak: peak[1] << peak[0])
    assert found == {
        (0, 39): [(5, 0, 32), (3, 4, 8)],
        (40, 79): [(3, 5, 8), (4, 3, 16), (4, 4, 16)],
    }
    before = snapshot_tree.root(lake.store, what.snapshot)
    assert before[0] != hashlib.sha256(b"").hexdigest()
    lake.compact()
    head = lake.store.refs.head("main").move.snapshot
    assert head != what.snapshot
    assert snapshot_tree.root(lake.store, head) == before


def test_signatures_live_as_long_as_what_they_sign(make_lake: MakeLake, key: PrivateKey) -> None:
    """F20.4, F10.4: signing again replaces; a deleted tag has none; gc removes what is left."""
    lake = make_lake()
    what = sign(lake, key, "v1")
    (file,) = Signatures(lake.store.paths).listing()
    before = SignatureFile.read(file.path)
    signing.sign(lake.store, "main", what, key)
    assert [f.path for f in Signatures(lake.store.paths).listing()] == [file.path]
    assert SignatureFile.read(file.path) != before
    delete_tag(lake.store, "v1")
    assert Signatures(lake.store.paths).listing() == []
    Signatures(lake.store.paths).write("v1", "", key.public.id, before)
    lake.gc()
    assert Signatures(lake.store.paths).listing() == []
    assert not any("key" in name for _, _, names in os.walk(lake.path) for name in names)
