"""Proofs that an event is in a signed state; a checker written from the document agrees."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import document
from lakelog.disk import disk
from lakelog.errors import NotProven, UnknownRef
from lakelog.proofs import envelope, keys, proof, signing
from lakelog.proofs.event_tree import NUMBERS, TEXTS
from lakelog.proofs.keys import PrivateKey
from lakelog.proofs.signing import Target
from tests.conftest import MakeLake
from tests.support import proof_checker
from tests.support.cli import run
from tests.support.effort import share
from tests.support.lakes import EXOTIC, events

Body = dict[str, Any]
Forgery = Callable[[Body, Body, random.Random], object]


def sign(lake: lakelog.Lake, key: PrivateKey, name: str) -> Target:
    what = Target(name, lake.tag(name).snapshot)
    signing.sign(lake.store, "main", what, key)
    return what


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    """The key that is accepted."""
    keys.PrivateKey.generate(str(tmp_path / "key"))
    return keys.PrivateKey.load(str(tmp_path / "key"))


@pytest.fixture
def stranger(tmp_path: Path) -> PrivateKey:
    """A key that is not."""
    keys.PrivateKey.generate(str(tmp_path / "stranger"))
    return keys.PrivateKey.load(str(tmp_path / "stranger"))


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    """Events of every kind in several segments, and gaps where some were removed."""
    lake = make_lake()
    for start in range(0, 1000, 125):
        lake.append([*events("A", 120, start), *EXOTIC[:5]])
        lake.settle()
    return lake


def agree(data: bytes, key: PrivateKey) -> bool:
    """Whether a proof holds; both checkers have to say the same."""
    try:
        event = proof.check_proof(data, [key.public]).event
    except NotProven:
        with pytest.raises(proof_checker.Refused):
            proof_checker.check(data, key.public.pem.encode())
        return False
    assert proof_checker.check(data, key.public.pem.encode()) == event
    return True


@pytest.mark.rounds
def test_true_proofs_of_a_thousand_events(lake: lakelog.Lake, key: PrivateKey) -> None:
    """Of every twentieth event, or each, in what was sealed and what was compacted afterwards, both
    checkers say that it is proven, and at which place."""
    sealed = sign(lake, key, "sealed")
    lake.compact()
    compacted = sign(lake, key, "compacted")
    assert sealed.snapshot != compacted.snapshot
    for seq in range(0, 1000, 1000 // share(1000, 20)):
        what = sealed if seq % 2 else compacted
        data = proof.prove(lake.store, what, seq)
        assert agree(data, key)
        assert json.loads(data)["index"] == json.loads(data)["event"]["seq"] == seq


def a_text(body: Body, _: Body, chance: random.Random) -> object:
    name = chance.choice(TEXTS)
    was = body["event"][name]
    options = [f"{was or ''}x", "", None] if name != "type" else [f"{was}x", ""]
    body["event"][name] = chance.choice([text for text in options if text != was])
    return None


def a_number(body: Body, _: Body, chance: random.Random) -> object:
    name = chance.choice(NUMBERS)
    body["event"][name] = (body["event"][name] or 0) + chance.choice([1, 2, 256])
    return None


def a_hash(body: Body, _: Body, chance: random.Random) -> object:
    step = chance.choice(body["path"])
    step["hash"] = chance.randbytes(32).hex()
    return None


def the_order(body: Body, _: Body, chance: random.Random) -> object:
    at = chance.randrange(len(body["path"]) - 1)
    body["path"][at], body["path"][at + 1] = body["path"][at + 1], body["path"][at]
    return None


def a_height(body: Body, _: Body, chance: random.Random) -> object:
    chance.choice(body["path"])["height"] += chance.choice([-1, 1, 2, 50])
    return None


def a_count(body: Body, _: Body, chance: random.Random) -> object:
    chance.choice(body["path"])["events"] += chance.choice([-1, 1, 1000])
    return None


def a_step_less(body: Body, _: Body, chance: random.Random) -> object:
    return body["path"].pop(chance.randrange(len(body["path"])))


def a_step_more(body: Body, _: Body, chance: random.Random) -> object:
    step = {"height": 40 + chance.randrange(20), "events": 1, "hash": chance.randbytes(32).hex()}
    return body["path"].append(step)


def the_index(body: Body, _: Body, chance: random.Random) -> object:
    body["index"] += chance.choice([-1, 1, 7])
    return None


def the_events(body: Body, _: Body, chance: random.Random) -> object:
    body["events"] += chance.choice([-1, 1, 7])
    return None


def the_root(body: Body, _: Body, chance: random.Random) -> object:
    body["root"] = chance.randbytes(32).hex()
    return None


def the_signature(body: Body, _: Body, chance: random.Random) -> object:
    each = body["envelope"]["signatures"][0]
    each["sig"] = base64.b64encode(chance.randbytes(64)).decode()
    return None


def the_key(body: Body, _: Body, chance: random.Random) -> object:
    body["envelope"]["signatures"][0]["keyid"] = chance.randbytes(32).hex()
    return None


def the_statement(body: Body, _: Body, chance: random.Random) -> object:
    said = json.loads(base64.b64decode(body["envelope"]["payload"]))
    name = chance.choice(["lake", "root", "events", "tag"])
    said["predicate"][name] = chance.choice(["00" * 16, body["root"][::-1], 5, "x", None])
    payload = json.dumps(said, separators=(",", ":")).encode()
    body["envelope"]["payload"] = base64.b64encode(payload).decode()
    return None


def another_state(body: Body, other: Body, _: random.Random) -> object:
    body["envelope"] = other["envelope"]
    return None


def a_member(body: Body, _: Body, chance: random.Random) -> object:
    places = [body, body["event"], body["envelope"], chance.choice(body["path"])]
    chance.choice(places)["extra"] = 1
    return None


def the_version(body: Body, _: Body, chance: random.Random) -> object:
    body["lakelog_proof"] = chance.choice([True, 1.0, "1", 2])
    return None


FORGERIES: list[Forgery] = [
    a_text, a_number, a_hash, the_order, a_height, a_count, a_step_less, a_step_more, the_index,
    the_events, the_root, the_signature, the_key, the_statement, another_state, a_member,
    the_version,
]  # fmt: skip


def test_a_thousand_forged_proofs(
    lake: lakelog.Lake, key: PrivateKey, stranger: PrivateKey
) -> None:
    """With one thing forged, and the checksum made right, both checkers refuse each."""
    what = sign(lake, key, "v1")
    lake.append({"type": "LATER"})
    later = json.loads(proof.prove(lake.store, sign(lake, key, "v2"), 3))
    chance, refused = random.Random(6), 0
    for number in range(1000):
        if number % 20 == 0:
            true = proof.prove(lake.store, what, chance.randrange(1000))
            assert agree(true, key)
        body = json.loads(true)
        del body["checksum"]
        FORGERIES[number % len(FORGERIES)](body, later, chance)
        assert not agree(document.encode(body), key), FORGERIES[number % len(FORGERIES)]
        refused += 1
    assert refused == 1000
    assert not agree(true, stranger)


def test_a_flipped_bit_in_a_proof_is_refused(lake: lakelog.Lake, key: PrivateKey) -> None:
    """250 random bits of a proof, each in a proof of its own, and every cut."""
    data = proof.prove(lake.store, sign(lake, key, "v1"), 500)
    chance = random.Random(7)
    for _ in range(250):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        assert not agree(bytes(flipped), key)
    for size in range(0, len(data), 50):
        assert not agree(data[:size], key)


def test_a_proof_outlives_the_event(lake: lakelog.Lake, key: PrivateKey) -> None:
    """A proof that was written holds after the event was removed and its tag deleted; while the
    tag is there it can be proven again; the state without it has no proof."""
    what = sign(lake, key, "v1")
    data = proof.prove(lake.store, what, 7)
    assert lake.retention("1d", apply=True).applied
    lake.append({"type": "LEFT"})
    after = sign(lake, key, "v2")
    assert proof.prove(lake.store, what, 7) == data
    with pytest.raises(UnknownRef, match="no event with seq 7"):
        proof.prove(lake.store, after, 7)
    assert agree(data, key)


def test_an_erasure_names_the_files_of_proofs(
    lake: lakelog.Lake, key: PrivateKey, tmp_path: Path
) -> None:
    """Each has the whole event, until it is gone."""
    sign(lake, key, "v1")
    path = tmp_path / "event.proof"
    run(lake.path, "prove", "--seq", "7", "--at", "v1", "-o", str(path))
    status = lake.erase(where="message = 'hello 7'", why="asked")
    assert [copy["name"] for copy in status.copies] == [str(path)]
    path.unlink()
    assert lake.erasures()[0].is_done


def test_an_unsigned_state_has_no_proof(lake: lakelog.Lake, key: PrivateKey) -> None:
    """It says how to sign it; neither has one of another key."""
    what = Target("v1", lake.tag("v1").snapshot)
    with pytest.raises(UnknownRef, match="lakelog sign v1"):
        proof.prove(lake.store, what, 0)
    with pytest.raises(UnknownRef, match="nothing in this lake is signed"):
        signing.Target.last_signed(lake.store)
    signing.sign(lake.store, "main", what, key)
    assert signing.Target.last_signed(lake.store) == what
    other = keys.PublicKey(bytes(32))
    with pytest.raises(UnknownRef, match="has no signature"):
        proof.prove(lake.store, what, 0, [other])


def test_a_false_root_is_not_proven(lake: lakelog.Lake, key: PrivateKey) -> None:
    """Where the signed root is not that of the events, no proof is written."""
    what = sign(lake, key, "v1")
    _, said = signing.newest(lake.store, what)
    false = envelope.sign(envelope.Statement(**(vars(said) | {"root": "0" * 64})), key)
    (file,) = signing.files(lake.store, what)
    Path(file.path).write_bytes(document.encode(false))
    with pytest.raises(NotProven, match="not those of the signed Merkle root"):
        proof.prove(lake.store, what, 0)


def test_an_expired_proof_is_refused(
    lake: lakelog.Lake, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock of who checks it."""
    what = Target("v1", lake.tag("v1").snapshot)
    said = signing.sign(lake.store, "main", what, key, 1_000_000)
    data = proof.prove(lake.store, what, 0)
    expires = said.expires or 0
    monkeypatch.setattr(disk, "now_us", lambda: expires + 1)
    with pytest.raises(NotProven, match="expired"):
        proof.check_proof(data, [key.public])
