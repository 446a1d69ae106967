"""What a remote gives is judged before anything of it gets a name in the lake.

Digests prove that bytes are those that a ref names, not that whoever wrote the ref meant well. So
documents are bounded before they are decompressed and parsed, and every name in them that becomes
a path has to be a digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any

import orjson
import zstandard

from lakelog import chunks, document, proofs
from lakelog.disk import NotIntact
from lakelog.entries import Entry, SegmentEntry, parse
from lakelog.errors import LakelogError, NotProven
from lakelog.keys import VAULT
from lakelog.manifest import of_json
from lakelog.paths import CHUNK, FORMAT, INDEX
from lakelog.refs import Move, Ref, Tag
from lakelog.store import SignatureFile

if TYPE_CHECKING:
    from lakelog.proofs import Statement

TEXT_MAX = 32 << 20
"""Bytes of the JSON of a manifest or page at most."""
_VALUES_MAX = 1_000_000
_CONTAINERS_MAX = 250_000
_SIZE_MAX = 1 << 44
_LAYOUTS = ("arrival", "sorted")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WRITER = re.compile(r"[0-9a-f]{32}")
_OFFER = frozenset("number generation base sealed entries ids checked".split())
_MOVE_TEXTS = "branch prev commit author op message snapshot".split()


class NotBelieved(NotIntact):
    """Raised for what a lake would not have written; the caller says where it is from."""


def lake_id(data: bytes) -> tuple[str, dict[str, Any]]:
    """Return the id in the bytes of a lakelog.json, and its body. Raises NotBelieved."""
    body = _document(data, "its lakelog.json is damaged")
    lake, number = body.get("lake"), body.get("format")
    if not (isinstance(lake, str) and _WRITER.fullmatch(lake) and isinstance(number, int)):
        raise NotBelieved("its lakelog.json is malformed")
    # A newer lake may hold what this lakelog would misread.
    if number > FORMAT:
        raise NotBelieved(f"it has format {number}, this lakelog knows {FORMAT}: upgrade lakelog")
    return lake, body


def move(data: bytes, branch: str, number: int) -> Move:
    """Return the move in a file. Raises NotBelieved."""
    body, carried = _ref(data)
    _require(all(isinstance(body.get(name), str) for name in _MOVE_TEXTS), "a move is malformed")
    counts = [body.get(name) for name in ("number", "time", "generation")]
    wal = body.get("wal")
    _require(all(_is_count(n) for n in counts) and isinstance(wal, dict), "a move is malformed")
    # A move copied to another name would be a valid document in a wrong place.
    _require(body["number"] == number and body["branch"] == branch, "a move has a wrong name")
    marks = wal.items() if isinstance(wal, dict) else ()
    _require(all(_WRITER.fullmatch(w) and _is_count(n) for w, n in marks), "a move is malformed")
    return Move(**_opened(_members(Move, body)), carried=carried)


def tag(data: bytes, name: str) -> Tag:
    """Return the tag in a file. Raises NotBelieved."""
    body, carried = _ref(data)
    text_members = "name snapshot author message branch commit".split()
    _require(all(isinstance(body.get(n), str) for n in text_members), "a tag is malformed")
    _require(_is_count(body.get("time")) and body["name"] == name, "a tag is malformed")
    return Tag(**_opened(_members(Tag, body)), carried=carried)


def offer(data: bytes) -> dict[str, Any]:
    """Return the members of an offer in a bucket. Raises NotBelieved."""
    body, malformed = _document(data, "an offer is damaged"), "an offer is malformed"
    # Exactly these members: what is unknown may mean something to a newer lakelog.
    _require(body.keys() == _OFFER, malformed)
    marks, runs = [body["base"], body["sealed"]], body["ids"]
    _require(_is_count(body["number"]) and _is_count(body["generation"]), malformed)
    _require(all(isinstance(item, dict) for item in marks), malformed)
    pairs = [pair for item in marks for pair in item.items()]
    _require(all(_WRITER.fullmatch(w) and _is_count(n) for w, n in pairs), malformed)
    _require(isinstance(runs, list) and isinstance(body["checked"], list), malformed)
    for run in runs:
        _require(isinstance(run, list) and len(run) == 3 and _is_count(run[2]), malformed)
        _check_object(run[0], run[1])
    for digest in body["checked"]:
        _check_object(digest, 0)
    return body


def manifest_text(data: bytes, digest: str) -> bytes:
    """Return the JSON of a manifest or page from its file's bytes. Raises NotBelieved."""
    _require(document.digest(data) == digest, "a manifest does not have the bytes of its name")
    return _decompressed(_decrypted(VAULT.decrypt, data))


def _decompressed(data: bytes) -> bytes:
    try:
        size = zstandard.get_frame_parameters(data).content_size
        # Looked at before decompressing: a bomb says its size in its header, or does not open.
        _require(size <= TEXT_MAX, "a manifest is too long")
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError:
        raise NotBelieved("a manifest cannot be decompressed") from None


def check_page(encoded: bytes) -> None:
    """Refuse the text of a page that a lake would not have written."""
    body = _parsed(encoded)
    entries(body.get("entries"))


def check_manifest(encoded: bytes) -> None:
    """Refuse the text of a manifest that a lake would not have written."""
    body = _parsed(encoded)
    entries(body.get("tail"))
    pages, runs = body.get("pages"), body.get("ids")
    _require(isinstance(pages, list) and isinstance(runs, list), "a manifest is malformed")
    for item in [*pages, *runs]:  # type: ignore[misc]
        _require(isinstance(item, dict), "a manifest is malformed")
        _check_object(item.get("digest"), item.get("bytes"))
    _check_members(body)


def _check_members(body: dict[str, Any]) -> None:
    """Refuse a manifest that lacks a member, or has one of another type."""
    try:
        # Its entries were parsed, which takes them apart.
        state = of_json({**body, "tail": []}, "")
        strings = [state.parent, state.commit, state.author, state.op, state.message]
        counts = [state.time, state.next_seq, *astuple(state.totals)]
        counts += [run.count for run in state.ids]
        for page in state.pages:
            counts += [page.level, page.entries, page.removals, page.events]
            _require(page.time is None or len(page.time) == 2, "a manifest is malformed")
            counts += page.time or ()
            strings += page.what or ()
        counts += astuple(state.retention) if state.retention else ()
    except (AttributeError, KeyError, TypeError, ValueError):
        raise NotBelieved("a manifest is malformed") from None
    _require(all(isinstance(string, str) for string in strings), "a manifest is malformed")
    _require(all(map(_is_count, counts)), "a manifest is malformed")


def check_state_file(data: bytes, file_type: str, digest: str) -> None:
    """Refuse the bytes of an `index` or a `chunk` of a saved state that are not what they should
    be, and an index of more files than a reader here can hold."""
    try:
        if file_type == "index":
            content = chunks.unseal(data, digest, TEXT_MAX)
            _check_counts(content, "the index of a saved state")
            del content
        chunks.check(data, digest + (INDEX if file_type == "index" else CHUNK))
    except NotBelieved:
        raise
    except NotIntact as error:
        raise NotBelieved(f"the {file_type} {digest} of a saved state: {error}") from None


def signature(data: bytes) -> Statement:
    """Return what a signature says, whoever made it. Raises NotBelieved."""
    body = _document(data, "a signature is malformed")
    _require(body.keys() == SignatureFile.MEMBERS, "a signature is another document")
    try:
        return proofs.Statement.unverified(body)
    except NotProven as error:
        raise NotBelieved(f"a signature is malformed: {error}") from None


def entries(bodies: Any) -> tuple[Entry, ...]:
    """Return the entries that JSON objects of a manifest or an offer stand for. Raises
    NotBelieved."""
    _require(isinstance(bodies, list), "a manifest is malformed")
    try:
        parsed = parse(bodies)
    except (ValueError, LakelogError):
        raise NotBelieved("an entry of a manifest is malformed") from None
    for entry in parsed:
        _require(isinstance(entry.key, str), "an entry has no key")
        if isinstance(entry, SegmentEntry):
            _check_object(entry.key, entry.bytes)
            # They become SQL.
            _require(all(map(_is_count, entry.seq)), "an entry has a wrong seq")
            _require(entry.layout in _LAYOUTS, "an entry has a wrong layout")
    return parsed


def _check_object(digest: Any, size: Any) -> None:
    is_digest = isinstance(digest, str) and bool(_DIGEST.fullmatch(digest))
    _require(is_digest and _is_count(size) and size <= _SIZE_MAX, "an object has a wrong name")


def _parsed(encoded: bytes) -> dict[str, Any]:
    _require(len(encoded) <= TEXT_MAX, "a manifest is too long")
    _check_counts(encoded, "a manifest")
    try:
        body = orjson.loads(encoded)
    except orjson.JSONDecodeError:
        raise NotBelieved("a manifest is no JSON") from None
    _require(isinstance(body, dict) and body.get("format") == 1, "a manifest is malformed")
    # A state that requires more than is known here could be read wrongly.
    _require(not body.get("requires"), "its state requires a newer lakelog: upgrade lakelog")
    return body  # type: ignore[no-any-return]


def _check_counts(encoded: bytes, subject: str) -> None:
    # A few bytes of JSON can take a hundred times as many as Python objects: so they are counted.
    containers = encoded.count(b"[") + encoded.count(b"{")
    is_small = encoded.count(b",") <= _VALUES_MAX and containers <= _CONTAINERS_MAX
    _require(is_small, f"{subject} has too many values")


def _ref(data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        body, carried = Ref.document_of(data)
    except NotIntact as error:
        raise NotBelieved(f"a move or tag is damaged: {error}") from None
    snapshot = body.get("snapshot")
    _require(isinstance(snapshot, str) and bool(_DIGEST.fullmatch(snapshot)), "a ref is malformed")
    # The manifest that a ref carries is parsed by everybody who reads the ref.
    if carried:
        encoded = _decrypted(VAULT.decrypt_line, carried)
        check_manifest(carried if encoded is carried else _decompressed(encoded))
    return body, carried


def _document(data: bytes, reason: str) -> dict[str, Any]:
    try:
        return document.decode(data)
    except NotIntact as error:
        raise NotBelieved(f"{reason}: {error}") from None


def _members(ref_type: type[Move | Tag], body: dict[str, Any]) -> dict[str, Any]:
    """Refuse a document with other members than a move or tag has."""
    required = {field.name for field in fields(ref_type)} - {"carried", "encrypted"}
    # Exactly: a member more could be what makes the move mean something else.
    _require(body.keys() == required, "a move or tag has other members than this lakelog knows")
    return body


def _opened(body: dict[str, Any]) -> dict[str, Any]:
    """Decrypt the message of a move or tag."""
    message = body["message"]
    plain = _decrypted(VAULT.decrypt_line, message.encode()).decode("utf-8", "replace")
    # The encrypted form is kept: the document's checksum is over it.
    return body if plain == message else {**body, "message": plain, "encrypted": message}


def _decrypted(decrypt: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Decrypt what may be encrypted."""
    try:
        return decrypt(data)
    except LakelogError:
        raise
    except ValueError as error:
        raise NotBelieved(f"what is encrypted cannot be read: {error}") from None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 62) < value < 1 << 62


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise NotBelieved(reason)
