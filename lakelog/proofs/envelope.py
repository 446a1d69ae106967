"""What is signed, and how: an in-toto statement about a state of a lake, in a DSSE envelope.

The statement names the state by its digest; its predicate says of which lake and branch the state
is, what is in it, and the root of the Merkle tree over its events (event_tree.py). The signature
is over DSSE's pre-authentication encoding, so that a signed payload cannot be read as another type.
See https://github.com/secure-systems-lab/dsse and https://in-toto.io/Statement/v1.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.errors import InvalidEvent, NotProven
from lakelog.proofs.keys import PrivateKey, PublicKey
from lakelog.values import JsonObject, from_micros, parse_time, to_micros

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://lakelog.dev/snapshot/v1"
_STATEMENT = {"_type", "subject", "predicateType", "predicate"}


@dataclass(frozen=True)
class Statement:
    """What a signer says of a state. `snapshot` and `root` are 64 hex digits, `tag` is "" where
    none is signed, `seq` the range in which all events are, or None without any; `time` and
    `expires` are us, and `expires` is None where the signature does not expire."""

    lake: str
    branch: str
    tag: str
    snapshot: str
    seq: tuple[int, int] | None
    events: int
    root: str
    time: int
    expires: int | None = None

    @staticmethod
    def unverified(envelope: object) -> Statement:
        """Return the statement in an envelope without checking who signed it. Raises NotProven."""
        return _from_json(_open(envelope)[0])


@dataclass(frozen=True)
class Signed:
    """A statement, and the id and comment of the accepted key that signed it."""

    statement: Statement
    key: PublicKey


def sign(statement: Statement, key: PrivateKey) -> JsonObject:
    """Return the envelope of a statement."""
    return sign_body(_to_json(statement), key)


def sign_body(body: JsonObject, key: PrivateKey) -> JsonObject:
    """Return the envelope of any in-toto statement."""
    payload = orjson.dumps(body)
    signature = key.sign(authenticated(PAYLOAD_TYPE, payload))
    # Signed as bytes: whoever checks must not have to make the same JSON.
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.public.id, "sig": base64.b64encode(signature).decode()}],
    }


def open_signed(envelope: object, keys: Sequence[PublicKey]) -> Signed:
    """Return what one of the keys signed. Raises NotProven, in this order: not an envelope, no
    accepted key, another signature, not a statement of ours."""
    payload, key = open_payload(envelope, keys)
    return Signed(_from_json(payload), key)


def open_payload(envelope: object, keys: Sequence[PublicKey]) -> tuple[bytes, PublicKey]:
    """Return the payload that one of the keys signed, and the key. Raises NotProven."""
    payload, signatures = _open(envelope)
    # Other signatures of the envelope say nothing: only accepted keys count.
    accepted = {key.id: key for key in keys}
    matching = [(accepted[name], sig) for name, sig in signatures if name in accepted]
    if not matching:
        names = ", ".join(name[:16] for name, _ in signatures)
        raise NotProven(f"it is signed by the key {names}, which is not accepted")
    # Over the bytes that came, and not over what was parsed from them.
    data = authenticated(PAYLOAD_TYPE, payload)
    valid = next((key for key, sig in matching if key.verifies(sig, data)), None)
    if valid is None:
        raise NotProven("the signature does not match the statement")
    return payload, valid


def authenticated(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding, the bytes that are signed."""
    name = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def _open(envelope: Any) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the payload of an envelope, and (key id, signature) pairs. Raises NotProven."""
    try:
        # Checked before the payload is looked at.
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise NotProven(f"its payload is of another type than {PAYLOAD_TYPE}")
        signatures = [
            (str(signature["keyid"]), _decode(signature["sig"]))
            for signature in envelope["signatures"]
        ]
        payload = _decode(envelope["payload"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise NotProven("it is no DSSE envelope") from None
    if not signatures:
        raise NotProven("the envelope has no signature")
    return payload, signatures


def _decode(encoded: str) -> bytes:
    data = base64.b64decode(encoded, validate=True)
    # Bits that pad the last character would otherwise be free to change.
    if base64.b64encode(data).decode() != encoded:
        raise binascii.Error("not canonical")
    return data


def _to_json(statement: Statement) -> JsonObject:
    predicate = {
        "lake": statement.lake,
        "branch": statement.branch,
        "tag": statement.tag or None,
        "seq": None if statement.seq is None else list(statement.seq),
        "events": statement.events,
        "root": statement.root,
        "time": _iso(statement.time),
        "expires": None if statement.expires is None else _iso(statement.expires),
    }
    subject = {"name": statement.tag or "snapshot", "digest": {"sha256": statement.snapshot}}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def _from_json(payload: bytes) -> Statement:
    """Return the statement in a payload. Raises NotProven."""
    try:
        body = json.loads(payload)
        # Exactly these members: what a checker does not know might change the meaning.
        if body.keys() != _STATEMENT or body["_type"] != STATEMENT_TYPE:
            raise NotProven("the signed payload is no in-toto statement")
        if body["predicateType"] != PREDICATE_TYPE:
            raise NotProven(f"the statement is not about a snapshot ({PREDICATE_TYPE})")
        (subject,), predicate = body["subject"], body["predicate"]
        first_last = predicate["seq"]
        statement = Statement(
            predicate["lake"],
            predicate["branch"],
            predicate["tag"] or "",
            subject["digest"]["sha256"],
            None if first_last is None else (first_last[0], first_last[1]),
            predicate["events"],
            predicate["root"],
            to_micros(parse_time(predicate["time"])),
            None if predicate["expires"] is None else to_micros(parse_time(predicate["expires"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, InvalidEvent):
        raise NotProven("the signed statement lacks a member, or has a malformed one") from None
    # Written again: a statement that says something twice, or more, is none that was made here.
    if _to_json(statement) != body:
        raise NotProven("the signed statement has members of another kind")
    return statement


def _iso(micros: int) -> str:
    return from_micros(micros).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
