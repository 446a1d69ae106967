"""A checker of proofs written from docs/proofs.md alone; it imports nothing of lakelog."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

TEXTS = "type category source subject level message data id origin".split()
NUMBERS = "seq time ingested_at position".split()
PROOF = {"lakelog_proof", "event", "index", "events", "root", "path", "envelope"}


class Refused(Exception):
    """Raised for a proof that does not hold."""


def require(holds: object, reason: str) -> None:
    if not holds:
        raise Refused(reason)


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check(proof: bytes, public_pem: bytes) -> dict[str, Any]:
    """Return the event that a proof shows to be signed by a key. Raises Refused."""
    try:
        return _check(proof, public_pem)
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise Refused(f"malformed: {error!r}") from None


def _check(proof: bytes, public_pem: bytes) -> dict[str, Any]:
    # 1. the document
    text = proof[:-80] + b"}"
    tail = b',"checksum":"' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'
    require(proof[-80:] == tail, "checksum")
    body = json.loads(text)
    require(body.keys() == PROOF, "members")
    require(whole(body["lakelog_proof"]) and body["lakelog_proof"] == 1, "version")
    require(whole(body["index"]) and whole(body["events"]), "numbers")
    # 2. the signature
    said = _statement(body["envelope"], public_pem)
    # 3. the leaf
    event = body["event"]
    require(event.keys() == {*NUMBERS, *TEXTS}, "members of the event")
    require(whole(event["seq"]) and 0 <= event["seq"] < 1 << 62, "seq")
    data = _event_bytes(bytes.fromhex(said["lake"]), event)
    now, count, index, height = hashlib.sha256(b"\0" + data).digest(), 1, 0, -1
    # 4. the path
    for step in body["path"]:
        require(step.keys() == {"height", "events", "hash"}, "members of a step")
        require(whole(step["height"]) and height < step["height"] < 62, "height")
        require(whole(step["events"]) and step["events"] > 0, "events of a step")
        height, other = step["height"], bytes.fromhex(step["hash"])
        require(len(other) == 32 and other.hex() == step["hash"], "hash")
        if event["seq"] >> height & 1:
            index += step["events"]
            head = struct.pack("<BBQQ", 1, height, step["events"], count)
            now = hashlib.sha256(head + other + now).digest()
        else:
            head = struct.pack("<BBQQ", 1, height, count, step["events"])
            now = hashlib.sha256(head + now + other).digest()
        count += step["events"]
    # 5. the comparison
    require(now.hex() == said["root"] == body["root"], "root")
    require(count == said["events"] == body["events"], "events")
    require(index == body["index"], "index")
    return dict(event)


def _statement(envelope: dict[str, Any], public_pem: bytes) -> dict[str, Any]:
    require(envelope.keys() == {"payloadType", "payload", "signatures"}, "envelope")
    kind, payload = envelope["payloadType"], _base64(envelope["payload"])
    require(kind == "application/vnd.in-toto+json", "payload type")
    key = load_pem_public_key(public_pem)
    require(isinstance(key, Ed25519PublicKey), "key")
    raw = key.public_bytes_raw()  # type: ignore[union-attr]
    name = hashlib.sha256(bytes.fromhex("302a300506032b6570032100") + raw).hexdigest()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    valid = False
    for each in envelope["signatures"]:
        require(each.keys() == {"keyid", "sig"}, "signature")
        signature = _base64(each["sig"])
        if each["keyid"] == name:
            try:
                key.verify(signature, signed)  # type: ignore[union-attr, call-arg]
                valid = True
            except InvalidSignature:
                continue
    require(valid, "signature")
    statement = json.loads(payload)
    require(statement["_type"] == "https://in-toto.io/Statement/v1", "statement")
    require(statement["predicateType"] == "https://lakelog.dev/snapshot/v1", "predicate")
    predicate: dict[str, Any] = statement["predicate"]
    require(predicate["expires"] is None, "expires: a test of its own")
    return predicate


def _base64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    require(base64.b64encode(data).decode() == text, "base64")
    return data


def _event_bytes(lake: bytes, event: dict[str, Any]) -> bytes:
    numbers = [event[name] for name in NUMBERS]
    require(all(whole(n) for n in numbers[:3]), "numbers")
    require(numbers[3] is None or whole(numbers[3]), "position")
    texts = [None if event[name] is None else event[name].encode() for name in TEXTS]
    head = b"LKV1" + lake
    head += struct.pack("<qqqq", *numbers[:3], numbers[3] or 0)
    head += struct.pack("<I", numbers[3] is not None)
    head += struct.pack("<9I", *(0xFFFFFFFF if t is None else len(t) for t in texts))
    return head + b"".join(t or b"" for t in texts)
