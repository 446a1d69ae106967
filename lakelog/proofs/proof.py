"""Proofs that one event is in a signed state, which are checked without the lake.

A proof is a document (FORMAT.md, 2) with `lakelog_proof` (1), `event`, `index`, `events`, `root`,
`path` and `envelope`. Nothing in it has to be believed but the key: the event gives the leaf, the
path leads from there to the root, and the signed statement has the root and the number of events.
docs/proofs.md describes it for those who write a checker.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lakelog import document
from lakelog.disk import NotIntact, disk
from lakelog.errors import NotProven
from lakelog.proofs import envelope, event_tree, signing, snapshot_tree
from lakelog.proofs.envelope import Signed
from lakelog.proofs.event_tree import HEIGHT, NUMBERS, TEXTS, ProofStep
from lakelog.proofs.keys import PublicKey
from lakelog.proofs.signing import Target
from lakelog.store import Store
from lakelog.values import JsonObject

VERSION = 1
_MEMBERS = {"lakelog_proof", "event", "index", "events", "root", "path", "envelope"}
_STEP = {"height", "events", "hash"}
_ENVELOPE = {"payloadType", "payload", "signatures"}
_SIGNATURE = {"keyid", "sig"}


@dataclass(frozen=True)
class Proven:
    """What a proof shows: the event was number `index`, from 0, of the signed state's events."""

    event: JsonObject
    index: int
    signed: Signed


def prove(store: Store, target: Target, seq: int, keys: Sequence[PublicKey] = ()) -> bytes:
    """Return the proof that the event `seq` is in a signed state. Raises UnknownRef where the
    state has no such event or no signature (of one of the keys, if any), Damaged, NotProven."""
    signed, statement = signing.newest(store, target, keys)
    # Of the lake that signed it, which is another one in a clone.
    event, path = snapshot_tree.path_of(store, target.snapshot, seq, statement.lake)
    root, events, index = event_tree.follow(
        event_tree.event_bytes(statement.lake, event), seq, path
    )
    # The segments may have been damaged since: then nothing is proven.
    if (root.hex(), events) != (statement.root, statement.events):
        raise NotProven(f"{target}: its events are not those of the signed Merkle root")
    return document.encode(
        {
            "lakelog_proof": VERSION,
            "event": event,
            "index": index,
            "events": events,
            "root": root.hex(),
            "path": [{"height": s.height, "events": s.count, "hash": s.hash.hex()} for s in path],
            "envelope": signed,
        }
    )


def check_proof(data: bytes, keys: Sequence[PublicKey]) -> Proven:
    """Return what a proof shows, with nothing but the keys. Raises NotProven."""
    try:
        body = document.decode(data)
    except NotIntact as error:
        raise NotProven(f"the proof is damaged: {error}") from None
    # Before anything is believed.
    _require_members(body)
    signed = envelope.open_signed(body["envelope"], keys)
    statement = signed.statement
    # By the clock of whoever checks.
    if statement.expires is not None and statement.expires <= disk.now_us():
        raise NotProven("the signature has expired")
    event = body["event"]
    try:
        leaf_data = event_tree.event_bytes(statement.lake, event)
        path = [_step(pair) for pair in body["path"]]
        root, events, index = event_tree.follow(leaf_data, event["seq"], path)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
        raise NotProven(f"the proof is malformed: {error}") from None
    # Root and count are those of the signed statement: all else follows from them.
    if (root.hex(), events) != (statement.root, statement.events):
        raise NotProven("the event and its path do not lead to the signed root")
    if (body["root"], body["events"], body["index"]) != (statement.root, statement.events, index):
        raise NotProven("its root, events or index are not those that the path gives")
    return Proven(event, index, signed)


def _require_members(body: dict[str, object]) -> None:
    """Refuse a proof with other members than this version checks: they would be believed."""
    # `true` equals 1, and so does 1.0.
    version = body.get("lakelog_proof")
    if type(version) is not int or version != VERSION:
        raise NotProven("it is no proof of version 1")
    event, outer = body.get("event"), body.get("envelope")
    is_whole = (
        body.keys() == _MEMBERS
        and isinstance(event, dict)
        and event.keys() == {*NUMBERS, *TEXTS}
        and all(_is_count(event[name]) or event[name] is None for name in NUMBERS)
        and 0 <= (-1 if event["seq"] is None else event["seq"]) < 1 << HEIGHT
        and _is_count(body["index"])
        and _is_count(body["events"])
        and isinstance(body["path"], list)
        and isinstance(outer, dict)
        and outer.keys() == _ENVELOPE
        and isinstance(outer["signatures"], list)
        and all(isinstance(s, dict) and s.keys() == _SIGNATURE for s in outer["signatures"])
    )
    if not is_whole:
        raise NotProven("the proof lacks a member, or has one that it should not have")


def _is_count(value: object) -> bool:
    return type(value) is int


def _step(body: Any) -> ProofStep:
    if body.keys() != _STEP or not (_is_count(body["height"]) and _is_count(body["events"])):
        raise ValueError("a step of its path")
    digest = bytes.fromhex(body["hash"])
    # One spelling only: otherwise a changed file would be as good.
    if len(digest) != 32 or digest.hex() != body["hash"]:
        raise ValueError("a hash of its path")
    return ProofStep(body["height"], body["events"], digest)
