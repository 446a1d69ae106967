"""Which fields of events are sealed under the keys of their subjects, in one lake.

lakelog.json says it in `protect`: {id, fields, types, subject, since, destroyed}. The keys are in a
file elsewhere (`subject_keys`), which is looked at whenever something is sealed or opened: a key
that any process destroyed is used by none any more.

    ciphertext   u16 generation of the key, nonce of 12 bytes, AES-256-GCM

A process without protected lakes asks `PROTECTIONS` and loads nothing else.
"""

from __future__ import annotations

import functools
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from lakelog import keys
from lakelog.errors import InvalidKey, InvalidSetting, NotAllowed
from lakelog.runtime.lazy import Lazy
from lakelog.values import JsonObject

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from lakelog.keys import SubjectKeys
    from lakelog.protect import sealed_payload
else:
    sealed_payload = Lazy("lakelog.protect.sealed_payload")

_GENERATION = struct.Struct("<H")
_NONCE, _LEAST = 12, 2 + 12 + 16
_KEPT_MAX = 1 << 16
_SUBJECT = "subject"
VALUE, BLOCK = b"lakelog value", b"lakelog block"
"""What a ciphertext is for, which it opens with alone."""


@dataclass
class Protection:
    """The protected fields of one lake; `since` (us) is when they became so, and `destroyed` how
    many keys had been destroyed when somebody last erased. Safe for threads."""

    id: str
    fields: tuple[str, ...]
    types: tuple[str, ...] = ()
    """Types of the events whose fields are protected; empty for all."""
    subject: str = _SUBJECT
    """What has the subject: the column, or a field of the payload, which itself stays plain."""
    since: int = 0
    destroyed: int = 0
    _ciphers: SubjectCiphers | None = field(default=None, repr=False, compare=False)
    _file: object = field(default=None, repr=False, compare=False)

    @staticmethod
    def of_json(body: Any) -> Protection:
        """Return what lakelog.json says. Raises InvalidKey."""
        try:
            return Protection(
                str(body["id"]),
                tuple(map(str, body["fields"])),
                tuple(map(str, body["types"])),
                str(body["subject"]),
                int(body["since"]),
                int(body["destroyed"]),
            )
        except (KeyError, TypeError, ValueError):
            raise InvalidKey(
                "the protected fields in lakelog.json cannot be read: take the file from a copy"
            ) from None

    def config_members(self, config: JsonObject) -> JsonObject:
        """Return what lakelog.json has besides, with what it requires already."""
        names = ("id", "fields", "types", "subject", "since", "destroyed")
        required = sorted({*config.get("requires", ()), "protect"})
        return {"requires": required, "protect": {name: getattr(self, name) for name in names}}

    def check(self) -> None:
        """Refuse names that cannot be protected. Raises InvalidSetting."""
        if not self.fields or not all(self.fields):
            raise InvalidSetting("name the fields of payloads that are to be protected")
        if self.subject in self.fields or sealed_payload.MEMBER in self.fields:
            raise InvalidSetting(f"{self.subject} is whose key seals: it cannot be protected")

    def joined(self, other: Protection, since: int) -> Protection:
        """Return what seals the fields of both, in events of the types of both. Where `other` adds
        some, what arrived before `since` (us) may have them plain."""
        fields = tuple(dict.fromkeys((*self.fields, *other.fields)))
        # No types mean all.
        both = self.types and other.types
        types = tuple(dict.fromkeys((*self.types, *other.types))) if both else ()
        is_wider = (fields, types) != (self.fields, self.types)
        newest = max(self.since, other.since, since if is_wider else 0)
        return replace(self, fields=fields, types=types, since=newest)

    def joined_to(self, config: JsonObject) -> Protection:
        """Return this with the fields that a lakelog.json protects, which another process may have
        changed meanwhile. Raises InvalidKey, NotAllowed where those have other keys."""
        if not config.get("protect"):
            return self
        present = Protection.of_json(config["protect"])
        if present.id != self.id:
            raise NotAllowed(
                "another process has just protected fields of the lake, and made their keys: run"
                " it again"
            )
        destroyed = max(self.destroyed, present.destroyed)
        return replace(self.joined(present, 0), destroyed=destroyed)

    @property
    def path(self) -> str:
        """The file of the keys."""
        return keys.SubjectKeys.path_of(self.id)

    def ciphers(self) -> SubjectCiphers | None:
        """Return what seals and opens, by the file of keys as it is now; None where there is none.
        Raises InvalidKey."""
        path = self.path
        try:
            status = os.stat(path)
            file = path, status.st_ino, status.st_mtime_ns, status.st_size
            if file != self._file:
                self._ciphers = SubjectCiphers(self._loaded(path))
                self._file = file
        except FileNotFoundError:
            self._file = self._ciphers = None
        return self._ciphers

    def _loaded(self, path: str) -> SubjectKeys:
        subject_keys = keys.SubjectKeys.load(path, self.id)
        if subject_keys.destroyed < self.destroyed:
            raise InvalidKey(
                f"{path} is an older file of keys: {self.destroyed} were destroyed in this lake,"
                f" and in it {subject_keys.destroyed}; give the newest file, or destroy them in"
                " this one by `lakelog repair`, of a shared lake by `lakelog exchange`"
            )
        return subject_keys

    def require_ciphers(self) -> SubjectCiphers:
        """Return the same. Raises InvalidKey where there is no file of keys."""
        ciphers = self.ciphers()
        if ciphers is None:
            raise keys.SubjectKeys.missing(self.path)
        return ciphers

    def require_sealable(self, types: Sequence[str], payloads: Sequence[str | None]) -> None:
        """Refuse payloads whose protected fields would stay plain. Raises InvalidKey without a file
        of keys."""
        for type_, data in zip(types, payloads, strict=True) if self.ciphers() is None else ():
            if data and self.without_fields(type_, data.encode()) != data.encode():
                self.require_ciphers()

    @functools.cached_property
    def mention(self) -> re.Pattern[bytes]:
        """What a payload with a protected field matches, and few others do: an escape may spell the
        name."""
        names = [orjson.dumps(name) for name in (*self.fields, sealed_payload.MEMBER)]
        return re.compile(rb"|".join([*map(re.escape, names), rb"\\"]))

    def is_of(self, type_: str | None) -> bool:
        """Whether fields of events of a type are protected."""
        return not self.types or type_ in self.types

    def covers(self, type_: str | None, member: str) -> bool:
        """Whether a member of payloads of a type, such as `name` or `name.inner`, is protected."""
        return self.is_of(type_) and member.partition(".")[0] in self.fields

    def seal(self, subject: str | None, type_: str | None, data: bytes) -> bytes:
        """Return a payload with its protected fields sealed; the same one where it has none, or has
        them sealed already. Raises InvalidKey."""
        if not self.mention.search(data):
            return data
        before, names = sealed_payload.without_token(data), frozenset(self.fields)
        halves = sealed_payload.split(data, names) if self.is_of(type_) else None
        if before is not None:
            if self.is_sealed(subject, *before):
                return data
            halves = sealed_payload.split_whole(data, names | {sealed_payload.MEMBER})
        if halves is None:
            return data
        stays, taken_out = halves
        sealed = self.require_ciphers().seal(self.owner(subject, stays), taken_out)
        return sealed_payload.with_token(stays, sealed_payload.token_of(sealed))

    def without_fields(self, type_: str | None, data: bytes) -> bytes:
        """Return a payload without its protected fields, as `seal` leaves it for who has no key."""
        if not self.mention.search(data) or not self.is_of(type_):
            return data
        halves = sealed_payload.split(data, frozenset(self.fields))
        return data if halves is None else halves[0]

    def is_sealed(self, subject: str | None, stays: bytes, token: str) -> bool:
        """Whether the token of a payload is a ciphertext of this lake, and no protected field stays
        beside it. What is not would be taken for one, and could not be read. Raises InvalidKey
        without a file of keys."""
        ciphers = self.require_ciphers()
        try:
            # No key opens what is too short; blocks are named by segments alone.
            ciphertext = sealed_payload.ciphertext_of(token) or b""
            ciphers.open(self.owner(subject, stays), ciphertext)
        except ValueError:
            return False
        return sealed_payload.split(stays, frozenset(self.fields)) is None

    def owner(self, subject: str | None, stays: bytes) -> str:
        """Return whose key seals the fields of an event, "" for nobody's."""
        if self.subject == _SUBJECT:
            return subject or ""
        value = orjson.loads(stays).get(self.subject)
        return "" if value is None else value if isinstance(value, str) else str(value)

    def seal_line(self, line: str) -> str:
        """Return a line that is no event, sealed for nobody's key: who knows whose it is? Raises
        InvalidKey."""
        halves = sealed_payload.without_token(line.encode())
        # Without the keys a line that looks sealed is one that is moved.
        if halves and halves[0] == b"{}" and (not self.ciphers() or self.is_sealed(None, *halves)):
            return line
        sealed = self.require_ciphers().seal("", b"=" + line.encode())
        return sealed_payload.with_token(b"{}", sealed_payload.token_of(sealed)).decode()

    def seal_reason(self, reason: str) -> str:
        """Seal the reason of such a line as the line itself, where it may have a protected field:
        that of a message has its details. Raises InvalidKey."""
        return self.seal_line(reason) if self.mention.search(reason.encode()) else reason

    def seal_lines(self, encoded: bytes) -> bytes:
        """Return lines of events (F3.13) with their protected fields sealed. Raises InvalidKey."""
        if not self.mention.search(encoded):
            return encoded
        lines = encoded.split(b"\n")
        for number, line in enumerate(lines):
            head, separator, tail = line.partition(b',"data":')
            if separator and self.mention.search(tail):
                event = orjson.loads(head + b"}")
                names = ("subject", "item_id"), ("type", "event_type")
                subject, type_ = (_first(event, pair) for pair in names)
                sealed = self.seal(subject, type_, tail[:-1])
                lines[number] = b"".join((head, separator, sealed, b"}"))
        return b"\n".join(lines)


class SubjectCiphers:
    """Seals and opens under the keys of subjects, as one reading of their file has them. Safe for
    threads."""

    def __init__(self, keys: SubjectKeys) -> None:
        self._keys = keys
        self._ciphers: dict[tuple[str, int], AESGCM | None] = {}
        self._newest: dict[str, int] = {}

    def seal(self, subject: str, data: bytes) -> bytes:
        """Return the ciphertext of bytes under the newest key of a subject. Raises InvalidKey."""
        return self.seal_as(subject, self.newest(subject), data, VALUE)

    def newest(self, subject: str) -> int:
        """Return the generation of the newest key of a subject. Raises InvalidKey."""
        generation = self._newest.get(subject)
        if generation is None:
            generation = self._newest[subject] = self._keys.newest(subject)
        return generation

    def seal_as(self, subject: str, generation: int, data: bytes, purpose: bytes) -> bytes:
        """Return the ciphertext under one key of a subject, which is there."""
        cipher = self._cipher(subject, generation)
        assert cipher is not None
        nonce = os.urandom(_NONCE)
        return _GENERATION.pack(generation) + nonce + cipher.encrypt(nonce, data, purpose)

    def open(self, subject: str, sealed: bytes, purpose: bytes = VALUE) -> bytes | None:
        """Return the bytes of a ciphertext, None if its key was destroyed. Raises InvalidKey for
        one that the key does not open."""
        from cryptography.exceptions import InvalidTag

        try:
            if len(sealed) < _LEAST:
                raise InvalidTag
            cipher = self._cipher(subject, generation_of(sealed))
            if cipher is None:
                return None
            return cipher.decrypt(sealed[2:14], sealed[14:], purpose)
        except InvalidTag:
            raise InvalidKey(
                "protected fields of an event do not open with the key of its subject: the event"
                " was changed, or is of another lake"
            ) from None

    def _cipher(self, subject: str, generation: int) -> AESGCM | None:
        place = subject, generation
        try:
            return self._ciphers[place]
        except KeyError:
            pass
        if len(self._ciphers) > _KEPT_MAX:
            self._ciphers, self._newest = {}, {}
        cipher = self._ciphers[place] = self._keys.cipher(subject, generation)
        return cipher


def generation_of(sealed: bytes) -> int:
    """Return which key of its subject a ciphertext is under."""
    generation: int = _GENERATION.unpack_from(sealed)[0]
    return generation


def _first(event: JsonObject, names: Sequence[str]) -> str | None:
    return next((event[name] for name in names if event.get(name) is not None), None)


PROTECTIONS: dict[str, Protection] = {}
"""Those of the lakes that this process has open, by their path."""
