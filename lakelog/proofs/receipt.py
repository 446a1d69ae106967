"""Receipts of erasures: what was erased, why and where it had been, never the data.

A receipt is a document (FORMAT.md, 2) with `lakelog_receipt` (1), `erasure` and `envelope`. The
envelope is that of an in-toto statement whose predicate is `erasure`; it is null in a receipt that
nobody signed. It is checked without the lake, as a proof is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from lakelog import document
from lakelog.disk import NotIntact
from lakelog.errors import NotProven
from lakelog.proofs import envelope
from lakelog.proofs.keys import PrivateKey, PublicKey
from lakelog.values import JsonObject

VERSION = 1
PREDICATE_TYPE = "https://lakelog.dev/erasure/v1"
_VERSION_MEMBER = b'"lakelog_receipt":'
_MEMBERS = {"lakelog_receipt", "erasure", "envelope"}


@dataclass(frozen=True)
class ErasureReceipt:
    """What is said of an erasure, and the key that signed it, None where nobody did."""

    erasure: JsonObject
    key: PublicKey | None = None

    @staticmethod
    def issue(erasure: JsonObject, key: PrivateKey | None = None) -> bytes:
        """Return the bytes of a receipt, whose `erasure` has at least `key` and `digest`."""
        signed = envelope.sign_body(_statement(erasure), key) if key else None
        return document.encode({"lakelog_receipt": VERSION, "erasure": erasure, "envelope": signed})

    @staticmethod
    def is_one(data: bytes) -> bool:
        """Whether a document is a receipt, and no proof."""
        # Near the beginning, as document.encode writes it; no proof has it there.
        return _VERSION_MEMBER in data[:64]

    @staticmethod
    def check(data: bytes, keys: Sequence[PublicKey]) -> ErasureReceipt:
        """Return what one of the keys signed. Raises NotProven, also for one without signature."""
        try:
            body = document.decode(data)
        except NotIntact as error:
            raise NotProven(f"the receipt is damaged: {error}") from None
        version, erasure = body.get("lakelog_receipt"), body.get("erasure")
        if type(version) is not int or version != VERSION or body.keys() != _MEMBERS:
            raise NotProven("it is no receipt of version 1")
        # Unsigned receipts are for the lake's own records.
        if body["envelope"] is None:
            raise NotProven("the receipt is not signed: it says what anybody could have written")
        payload, key = envelope.open_payload(body["envelope"], keys)
        # Compared as bytes: a statement that says something twice is none that was made here.
        names_one = isinstance(erasure, dict) and {"key", "digest"} <= erasure.keys()
        if not names_one or payload != orjson.dumps(_statement(body["erasure"])):
            raise NotProven("its erasure is not the one that was signed")
        return ErasureReceipt(body["erasure"], key)


def _statement(erasure: JsonObject) -> JsonObject:
    """Return the in-toto statement about an erasure, named by the digest of what it chose."""
    return {
        "_type": envelope.STATEMENT_TYPE,
        "subject": [{"name": f"erasure {erasure['key']}", "digest": {"sha256": erasure["digest"]}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": erasure,
    }
