"""A receipt of an erasure says what was erased and where it had been, and can be checked alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import lakelog
from lakelog import document, proofs
from lakelog.errors import NotProven, UnknownRef
from tests.support.requirements import need

ADA = "ada-3f9k2m"


def test_a_receipt_is_signed_and_has_no_data(tmp_path: Path) -> None:
    """What, how many, why, where and which copies; any change of it is noticed, and no word of the
    subject is in it, though a copy, a tag and a branch were named after it."""
    need("cryptography")
    key, other = str(tmp_path / "key"), str(tmp_path / "other")
    proofs.PrivateKey.generate(key, "")
    public, stranger = proofs.PublicKey.load(key), proofs.PrivateKey.generate(other, "")
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([{"type": "A", "subject": ADA, "message": "secret-8x4q7t"}, {"type": "A"}])
        lake.tag(f"before-{ADA}")
        lake.export("events", tmp_path / f"{ADA}.csv")
        lake.export("events", tmp_path / "out.csv")
        status = lake.erase(subject=ADA, why="request 17")
        (tmp_path / "out.csv").unlink()
        data = lake.erasure_receipt(status.erasure.key[:6], key)
        with pytest.raises(UnknownRef):
            lake.erasure_receipt("xyz")
    assert ADA.encode() not in data
    assert b"secret-8x4q7t" not in data
    receipt = proofs.ErasureReceipt.check(data, [public])
    erasure = receipt.erasure
    assert receipt.key == public
    assert (erasure["events"], erasure["lines"], erasure["why"]) == (1, 0, "request 17")
    assert erasure["branches"] == {"main": 1}
    assert list(erasure["tags"].values()) == [1]
    assert {(copy["place"], copy["clean"], "gone" in copy) for copy in erasure["copies"]} == {
        ("export", True, True),
        ("export", False, False),
    }
    assert all(copy["command"] for copy in erasure["copies"])
    assert status.erasure.is_of(ADA)
    assert erasure["digest"] == status.erasure.subject
    with pytest.raises(NotProven, match="not accepted"):
        proofs.ErasureReceipt.check(data, [stranger])
    edited = document.decode(data)
    edited["erasure"]["events"] = 0
    with pytest.raises(NotProven, match="not the one that was signed"):
        proofs.ErasureReceipt.check(document.encode(edited), [public])
    with pytest.raises(NotProven, match="damaged"):
        proofs.ErasureReceipt.check(data.replace(b"request 17", b"request 18"), [public])


def test_a_receipt_without_a_key_says_so(tmp_path: Path) -> None:
    """Nobody vouches for what is not signed."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "A", "subject": ADA})
        key = lake.erase(subject=ADA, why="asked").erasure.key
        data = lake.erasure_receipt(key)
    assert proofs.ErasureReceipt.is_one(data)
    assert document.decode(data)["erasure"]["state"] == "done"
    with pytest.raises(NotProven, match="not signed"):
        proofs.ErasureReceipt.check(data, [])
