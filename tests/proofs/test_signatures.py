"""Signatures of tags and states: what is signed, and every way in which it can be wrong."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import document
from lakelog.disk import disk
from lakelog.errors import AlreadyExists, InvalidKey
from lakelog.history import delete_tag
from lakelog.maintain import gc, hotcopy
from lakelog.proofs import envelope, keys, signing
from lakelog.proofs.keys import PrivateKey
from lakelog.proofs.signing import Target
from lakelog.refs import Tag
from lakelog.store import SignatureFile, Signatures
from tests.conftest import MakeLake
from tests.support.lakes import events


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    """A key of the tests."""
    keys.PrivateKey.generate(str(tmp_path / "key"), "of the tests")
    return keys.PrivateKey.load(str(tmp_path / "key"))


@pytest.fixture
def other(tmp_path: Path) -> PrivateKey:
    """Another one."""
    keys.PrivateKey.generate(str(tmp_path / "other"))
    return keys.PrivateKey.load(str(tmp_path / "other"))


def signed(lake: lakelog.Lake, key: PrivateKey, name: str = "v1") -> Target:
    """Tag and sign what is in a lake after a few more events."""
    lake.append(events("A", 20, lake.count()))
    what = Target(name, lake.tag(name).snapshot)
    signing.sign(lake.store, "main", what, key)
    return what


def findings(lake: lakelog.Lake, what: Target, *accepted: PrivateKey) -> list[str]:
    check = signing.SignatureCheck(lake.store, [k.public for k in accepted])
    return [reason for _, reason in check.target(what)]


def signature_path(lake: lakelog.Lake, what: Target) -> Path:
    (file,) = signing.files(lake.store, what)
    return Path(file.path)


def resign(lake: lakelog.Lake, what: Target, key: PrivateKey, **changed: Any) -> None:
    """Replace a signature by a valid one of another statement."""
    said = envelope.Statement.unverified(SignatureFile.read(str(signature_path(lake, what))))
    said = envelope.Statement(**(vars(said) | changed))
    body = envelope.sign(said, key)
    Signatures(lake.store.paths).write(what.tag, what.snapshot, key.public.id, body)


def test_keys_are_private_and_readable(tmp_path: Path) -> None:
    """The private key has mode 0600, both have the comment, neither is overwritten."""
    path = str(tmp_path / "key")
    public = keys.PrivateKey.generate(path, "a comment\nof two lines")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert public.comment == "a comment of two lines"
    raw = base64.b64encode(public.raw).decode()
    assert keys.PublicKey.load(f"{path}.pub") == keys.PublicKey.load(path) == public
    assert keys.PublicKey.load(raw).id == public.id
    with pytest.raises(AlreadyExists, match="not overwritten"):
        keys.PrivateKey.generate(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.chmod(0o640), "other users may read"),
        (lambda p: p.write_bytes(b""), "no private key"),
        (lambda p: p.write_bytes(b"\xff" * 100), "no private key"),
        (lambda p: p.write_bytes(b"x" * 100_000), "too long"),
        (lambda p: p.write_bytes(p.read_bytes()[:60]), "damaged"),
        (lambda p: shutil.copyfile(f"{p}.pub", p), "no private key"),
    ],
)
def test_what_is_no_private_key_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    """In one line, whatever is in the file."""
    path = tmp_path / "key"
    keys.PrivateKey.generate(str(path))
    change(path)
    with pytest.raises(InvalidKey, match=words) as error:
        keys.PrivateKey.load(str(path))
    assert "\n" not in str(error.value)


def test_a_key_is_not_made_in_a_lake(make_lake: MakeLake) -> None:
    """A copy of the lake would have it."""
    lake = make_lake()
    with pytest.raises(InvalidKey, match="in the lake"):
        keys.PrivateKey.generate(f"{lake.path}/refs/key")
    assert not os.path.exists(f"{lake.path}/refs/key")


def test_a_signed_tag_is_valid(make_lake: MakeLake, key: PrivateKey, other: PrivateKey) -> None:
    """By its key alone, or among others; also after compaction, gc and another signature."""
    lake = make_lake()
    what = signed(lake, key)
    lake.append(events("B", 20))
    lake.compact()
    lake.gc()
    assert findings(lake, what, key) == findings(lake, what, other, key) == []
    signing.sign(lake.store, "main", what, other)
    assert findings(lake, what, other) == findings(lake, what, key) == []
    assert signing.SignatureCheck(lake.store, [key.public]).tags() == []


def test_the_envelope_is_dsse_with_in_toto(make_lake: MakeLake, key: PrivateKey) -> None:
    """The file is a DSSE envelope, its payload an in-toto statement about the manifest."""
    lake = make_lake()
    what = signed(lake, key)
    body = json.loads(signature_path(lake, what).read_bytes())
    assert body["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(body["payload"])
    said = json.loads(payload)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["subject"] == [{"name": "v1", "digest": {"sha256": what.snapshot}}]
    assert said["predicateType"] == "https://lakelog.dev/snapshot/v1"
    assert said["predicate"]["lake"] == lake.store.lake_id
    assert said["predicate"]["events"] == 20
    assert said["predicate"]["seq"] == [0, 19]
    assert said["predicate"]["expires"] is None
    # The example of the protocol of DSSE.
    assert envelope.authenticated("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    (each,) = body["signatures"]
    signature = base64.b64decode(each["sig"])
    assert key.public.verifies(signature, envelope.authenticated(body["payloadType"], payload))


def test_automatic_tags_need_no_signature(make_lake: MakeLake, key: PrivateKey) -> None:
    """Those of exports, saves and rollbacks do not count unless one is signed; others do."""
    lake = make_lake()
    signed(lake, key)
    stamp = "20261122-091939"
    automatic = ["train-0123456789abcdef", f"state-{stamp}", f"before-rollback-{stamp}-2", stamp]
    for name in automatic:
        lake.tag(name)
    assert signing.SignatureCheck(lake.store, [key.public]).tags() == []
    for name in (f"state-{stamp}-by-hand", "train-", f"my-{stamp}"):
        lake.tag(name)
        (problem,) = signing.SignatureCheck(lake.store, [key.public]).tags()
        assert name in problem[1]
        delete_tag(lake.store, name)
    what = Target(automatic[0], lake.store.refs.tag(automatic[0]).snapshot)
    signing.sign(lake.store, "main", what, key)
    assert signing.SignatureCheck(lake.store, [key.public]).tags() == []
    path = signature_path(lake, what)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    (problem,) = signing.SignatureCheck(lake.store, [key.public]).tags()
    assert problem[0] == str(path)
    path.write_bytes(whole)


def test_no_signature(make_lake: MakeLake, key: PrivateKey) -> None:
    """Of a tag, a state, and a lake without tags."""
    lake = make_lake()
    lake.append(events("A", 3))
    tags = signing.SignatureCheck(lake.store, [key.public]).tags()
    assert [reason for _, reason in tags] == ["the lake has no tag that could be signed"]
    what = Target("v1", lake.tag("v1").snapshot)
    (reason,) = findings(lake, what, key)
    assert reason == "tag v1 has no signature: `lakelog sign v1 --key KEY` makes one"
    (reason,) = findings(lake, Target("", what.snapshot), key)
    assert f"snapshot {what.snapshot[:12]} has no signature" in reason


def test_another_key(make_lake: MakeLake, key: PrivateKey, other: PrivateKey) -> None:
    """It is named; one that claims to be the accepted one does not match."""
    lake = make_lake()
    what = signed(lake, other)
    name = other.public.id[:16]
    assert findings(lake, what, key) == [
        f"tag v1: it is signed by the key {name}, which is not accepted"
    ]
    body = SignatureFile.read(str(signature_path(lake, what)))
    body["signatures"][0]["keyid"] = key.public.id
    signature_path(lake, what).write_bytes(document.encode(body))
    assert findings(lake, what, key) == ["tag v1: the signature does not match the statement"]


def test_a_moved_tag(make_lake: MakeLake, key: PrivateKey) -> None:
    """A tag file that names another state, with the old signature beside it."""
    lake = make_lake()
    what = signed(lake, key)
    lake.append({"type": "LATER"})
    later = lake.tag("later")
    os.unlink(lake.store.paths.tag("v1"))
    lake.store.refs.link_tag(Tag(**(vars(later) | {"name": "v1"})))
    (reason,) = findings(lake, Target("v1", later.snapshot), key)
    a, b = what.snapshot[:12], later.snapshot[:12]
    assert reason == f"tag v1: the tag was moved: {a} was signed, {b} is there now"


def test_a_signature_of_another_tag_or_lake(make_lake: MakeLake, key: PrivateKey) -> None:
    """A valid signature that is put beside what was not signed."""
    lake, elsewhere = make_lake(), make_lake("elsewhere")
    what, foreign = signed(lake, key), signed(elsewhere, key)
    v2 = Target("v2", lake.tag("v2", "v1").snapshot)
    source = signature_path(lake, what)
    shutil.copyfile(source, str(source).replace("/v1.", "/v2."))
    assert findings(lake, v2, key) == [
        "tag v2: it is the signature of the tag v1, under another name"
    ]
    shutil.copyfile(signature_path(elsewhere, foreign), source)
    (reason,) = findings(lake, what, key)
    lake_id = elsewhere.store.lake_id
    words = f"it was signed in another lake: `--signed-in {lake_id}` accepts that one"
    assert reason == f"tag v1: {words}"


def test_an_expired_signature(
    make_lake: MakeLake, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is valid until then."""
    lake = make_lake()
    lake.append({"type": "A"})
    what = Target("v1", lake.tag("v1").snapshot)
    said = signing.sign(lake.store, "main", what, key, 3_600_000_000)
    assert findings(lake, what, key) == []
    assert said.expires is not None
    expires = said.expires
    monkeypatch.setattr(disk, "now_us", lambda: expires)
    (reason,) = findings(lake, what, key)
    assert reason.startswith("tag v1: the signature expired on 20")


def test_a_root_of_other_events(make_lake: MakeLake, key: PrivateKey) -> None:
    """A signer's own mistake or lie about the events is noticed where the lake is."""
    lake = make_lake()
    what = signed(lake, key)
    for changed in ({"root": "0" * 64}, {"events": 19}):
        resign(lake, what, key, **changed)
        (reason,) = findings(lake, what, key)
        assert reason == "tag v1: its events are not those of the signed Merkle root"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.update(payloadType="text/plain"), "another type"),
        (lambda b: b.update(payload="%"), "no DSSE envelope"),
        (lambda b: b.update(signatures=[]), "has no signature"),
        (lambda b: b.update(signatures=7), "no DSSE envelope"),
        (lambda b: b.update(payload=base64.b64encode(b"{}").decode()), "does not match"),
        (lambda b: b["signatures"][0].update(sig=""), "does not match"),
    ],
)
def test_a_garbled_envelope(make_lake: MakeLake, key: PrivateKey, change: Any, words: str) -> None:
    """An intact document that is no envelope, or another one."""
    lake = make_lake()
    what = signed(lake, key)
    path = signature_path(lake, what)
    body = SignatureFile.read(str(path))
    change(body)
    path.write_bytes(document.encode(body))
    (reason,) = findings(lake, what, key)
    assert words in reason


@pytest.mark.parametrize(
    "payload",
    [b"[]", b"{}", b"not JSON", b'{"_type":"x","subject":[],"predicateType":"","predicate":{}}'],
)
def test_a_signed_payload_that_is_no_statement(
    make_lake: MakeLake, key: PrivateKey, payload: bytes
) -> None:
    """Signed by the accepted key, but about something else."""
    lake = make_lake()
    what = signed(lake, key)
    sig = key.sign(envelope.authenticated(envelope.PAYLOAD_TYPE, payload))
    body = SignatureFile.read(str(signature_path(lake, what)))
    body["payload"] = base64.b64encode(payload).decode()
    body["signatures"][0]["sig"] = base64.b64encode(sig).decode()
    signature_path(lake, what).write_bytes(document.encode(body))
    (reason,) = findings(lake, what, key)
    assert "statement" in reason


@pytest.mark.damaged
def test_a_flipped_bit_in_a_signature_is_named(make_lake: MakeLake, key: PrivateKey) -> None:
    """250 random bits: verify names the file, and no signature is valid; repair sets it aside."""
    lake = make_lake()
    what = signed(lake, key)
    path = signature_path(lake, what)
    data, chance = path.read_bytes(), random.Random(5)
    for _ in range(250):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        assert str(path) in {problem.path for problem in lake.verify().problems}
        assert len(findings(lake, what, key)) == 1
    outcome = lake.repair()
    assert outcome.after is not None
    assert outcome.after.intact
    assert outcome.lost == [f"signature {path.name}: sign the state again"]
    assert not path.exists()


def test_a_copy_has_the_signatures(make_lake: MakeLake, key: PrivateKey, home: Path) -> None:
    """A backup has those of the source, and a later one no longer those that are gone."""
    lake = make_lake()
    what = signed(lake, key)
    signing.sign(lake.store, "main", Target("", what.snapshot), key)
    hotcopy.copy(lake.store, str(home / "copy"))
    with lakelog.open(home / "copy", create=False) as copy:
        assert findings(copy, what, key) == findings(copy, Target("", what.snapshot), key) == []
        assert copy.verify().problems == ()
    delete_tag(lake.store, "v1")
    hotcopy.copy(lake.store, str(home / "copy"))
    with lakelog.open(home / "copy", create=False) as copy:
        assert [file.tag for file in Signatures(copy.store.paths).listing()] == [""]


def test_a_deleted_tag_takes_its_signatures(make_lake: MakeLake, key: PrivateKey) -> None:
    """Also where names resemble each other; one of that name again is unsigned."""
    lake = make_lake()
    signed(lake, key)
    similar = signed(lake, key, "v1.0")
    delete_tag(lake.store, "v1")
    assert findings(lake, Target("v1", lake.tag("v1").snapshot), key)[0].startswith("tag v1 has no")
    assert findings(lake, similar, key) == []


def test_gc_keeps_signatures_of_what_is_there(make_lake: MakeLake, key: PrivateKey) -> None:
    """Those of tags that vanished and of states that were collected are removed."""
    lake = make_lake()
    kept = signed(lake, key)
    signed(lake, key, "gone")
    signing.sign(lake.store, "main", Target("", kept.snapshot), key)
    body = SignatureFile.read(str(signature_path(lake, kept)))
    Signatures(lake.store.paths).write("", "ab" * 32, key.public.id, body)
    os.unlink(lake.store.paths.tag("gone"))
    gc.gc(lake.store)
    found = {(file.tag, file.state) for file in Signatures(lake.store.paths).listing()}
    assert found == {("v1", ""), ("", kept.snapshot)}
    assert findings(lake, kept, key) == []
