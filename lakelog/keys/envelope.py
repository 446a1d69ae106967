"""The envelope: bytes that only a key opens, in chunks that can be opened one by one.

    0   4   "LKN1"
    4   1   u8, k: a chunk has 2^k bytes of plaintext, the last one fewer or as many
    5   1   u8, 1 for one of a series, else 0
    6   2   zero
    8   8   the id of the data key
    16  16  salt
    32      the chunks: each the AES-256-GCM of its plaintext and the tag of 16 bytes

The key of an envelope is HMAC-SHA256(data key, "lakelog envelope" + salt), so that no key meets a
nonce twice, however many envelopes there are. The nonce of a chunk is its number (u64, big-endian),
three zero bytes, and one byte that is 1 for the last chunk: the STREAM construction of Hoang,
Reyhanitabar, Rogaway and Vizár (2015), as age uses it. The associated data are the 32 bytes of the
header and a context, which says where the envelope belongs. So a chunk that was changed, moved,
left out or cut off is noticed, and a reader opens the chunks that it needs and no others.

The envelopes of a series, such as the frames of a writer, share a key: that of a small one takes
longer than all else. It is HMAC-SHA256(data key, "lakelog series" + the first 8 bytes of the salt),
and a nonce is the last 8 bytes, the number of the chunk (u24) and the byte of the last. These 8 are
the number of the envelope (u16), and 6 random bytes: what was copied while it ran, as a child of
fork or a machine of an image, goes on with the same key and number, and still repeats no nonce.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import itertools
import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from lakelog.errors import MissingPackage

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"LKN1"
HEAD_BYTES, TAG_BYTES, SECRET_BYTES = 32, 16, 32
CHUNK_BITS = 16
_BITS = range(10, 25)
_HEAD = struct.Struct("<4sBB2x8s8s8s")
_NONCE, _OWN_NONCE = struct.Struct(">Q3xB"), struct.Struct(">8s3sB")
_ONLY = bytes(3) + b"\1"  # how the nonce of a chunk ends that is the only one
_SERIES_MAX = 1 << 16
_PADS = tuple(bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_PURPOSES, _SALT = (b"lakelog envelope", b"lakelog series"), b"lakelog salt"
_AEAD: list[type[AESGCM]] = []


class NotDecrypted(ValueError):
    """Raised for bytes that are no envelope, or not as they were written: the reason alone."""


def sealed_size(size: int) -> int:
    """How long the envelope of `size` bytes is."""
    return HEAD_BYTES + size + TAG_BYTES * max(-(-size >> CHUNK_BITS), 1)


def encrypt(
    data: bytes | memoryview, key_id: bytes, secret: bytes, context: bytes = b"", salt: bytes = b""
) -> bytes:
    """Return the envelope of bytes. `secret` has 32 bytes and `key_id` 8; `salt` has 16, random
    ones unless given: the same salt must never come with other bytes. Raises MissingPackage."""
    salt = salt or os.urandom(16)
    head = _HEAD.pack(MAGIC, CHUNK_BITS, 0, key_id, salt[:8], salt[8:])
    return _chunks(_cipher(secret, head), head, data, context)


class _Series(NamedTuple):
    next_number: Callable[[], int]
    start: bytes
    aead: AESGCM
    following: list[_Series]


class EnvelopeSeries:
    """Makes many envelopes in the time of their ciphers. Threads may share it."""

    def __init__(self, key_id: bytes, secret: bytes) -> None:
        self._key_id, self._secret = key_id, secret
        self._current = self._begun()

    def _begun(self) -> _Series:
        head = _HEAD.pack(MAGIC, CHUNK_BITS, 1, self._key_id, os.urandom(8), bytes(8))
        return _Series(itertools.count().__next__, head[:24], _cipher(self._secret, head), [])

    def encrypt(self, data: bytes | memoryview, context: bytes = b"") -> bytes:
        """Return the envelope of bytes, which opens in this context alone."""
        # Taken together, as another thread may begin the next series meanwhile.
        next_number, start, aead, following = self._current
        number = next_number()
        if number >= _SERIES_MAX:
            # Threads that come here at once go on with the same one: the first of the list, which
            # needs no lock that a child of fork could find held for ever.
            following.append(self._begun())
            self._current = following[0]
            return self.encrypt(data, context)
        own = number.to_bytes(2, "big") + os.urandom(6)
        head = start + own
        if len(data) <= 1 << CHUNK_BITS:
            return head + aead.encrypt(own + _ONLY, data, head + context)
        return _chunks(aead, head, data, context)


def _chunks(aead: AESGCM, head: bytes, data: bytes | memoryview, context: bytes) -> bytes:
    """Return the envelope of a header, with its chunks."""
    view, step = memoryview(data), 1 << CHUNK_BITS
    # An envelope of nothing has a chunk, too: its tag says that nothing was cut off.
    final = max(-(-len(view) >> CHUNK_BITS), 1) - 1
    ciphertexts = [head]
    for number in range(final + 1):
        chunk = view[number * step : (number + 1) * step]
        ciphertexts.append(aead.encrypt(_nonce(head, number, final), chunk, head + context))
    return b"".join(ciphertexts)


def _nonce(head: bytes, number: int, final: int) -> bytes:
    """Return the nonce of a chunk of an envelope whose last one is `final`."""
    if head[5]:
        return _OWN_NONCE.pack(head[24:], number.to_bytes(3, "big"), number == final)
    return _NONCE.pack(number, number == final)


def fixed_salt(secret: bytes, data: bytes) -> bytes:
    """Return a salt that only the same bytes have."""
    return hmac.digest(secret, _SALT + data, "sha256")[:16]


def decrypt(data: bytes | memoryview, secret: bytes, context: bytes = b"") -> bytes:
    """Return the plaintext. Raises NotDecrypted, MissingPackage."""
    view = memoryview(data)
    reader = EnvelopeReader(view[:HEAD_BYTES], len(view), secret, context)
    return reader.chunks(0, reader.count, view[HEAD_BYTES:])


class EnvelopeReader:
    """An envelope of `size` bytes of which the header is known, and what opens its chunks."""

    def __init__(
        self, head: bytes | memoryview, size: int, secret: bytes, context: bytes = b""
    ) -> None:
        """Raises NotDecrypted, MissingPackage."""
        head = bytes(head)
        if len(head) < HEAD_BYTES or head[:4] != MAGIC:
            raise NotDecrypted("it is no envelope")
        bits = head[4]
        if bits not in _BITS or head[5] > 1 or head[6:8] != bytes(2):
            raise NotDecrypted("the header of its envelope is damaged")
        self.step = 1 << bits
        self._stride = self.step + TAG_BYTES
        body = size - HEAD_BYTES
        self.count = max(-(-body // self._stride), 1)
        """How many chunks it has."""
        self.plain_bytes = body - TAG_BYTES * self.count
        if self.plain_bytes < (self.count - 1) * self.step + (self.count > 1):
            raise NotDecrypted("its envelope is cut off")
        # Nonces of a series have 24 bits for the number of a chunk.
        if self.count >> 24 and head[5]:
            raise NotDecrypted("its envelope is too long")
        self._aead, self._head, self._associated = _cipher(secret, head), head, head + context

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Where chunks `start` to `stop` are in the file: their first byte, and the one after."""
        begin = HEAD_BYTES + start * self._stride
        end = HEAD_BYTES + stop * self._stride
        return begin, min(end, HEAD_BYTES + self.plain_bytes + TAG_BYTES * self.count)

    def chunks(self, start: int, stop: int, data: bytes | memoryview) -> bytes:
        """Return the plaintext of chunks `start` to `stop`, of their bytes in the file. Raises
        NotDecrypted."""
        from cryptography.exceptions import InvalidTag

        view, stride, plaintexts = memoryview(data), self._stride, list[bytes]()
        decrypt_chunk: Callable[..., bytes] = self._aead.decrypt
        try:
            for number in range(start, stop):
                offset = (number - start) * stride
                nonce = _nonce(self._head, number, self.count - 1)
                chunk = view[offset : offset + stride]
                plaintexts.append(decrypt_chunk(nonce, chunk, self._associated))
        except (InvalidTag, ValueError):
            # The nonce has the number and whether it is the last, so that each of the three shows.
            place = "its last chunk" if number == self.count - 1 else f"its chunk {number}"
            raise NotDecrypted(f"{place} was changed, moved or cut off") from None
        return plaintexts[0] if len(plaintexts) == 1 else b"".join(plaintexts)


def _cipher(secret: bytes, head: bytes) -> AESGCM:
    """Return the cipher of one envelope."""
    return _cipher_of_series(secret, head[16:24]) if head[5] else _derived(secret, 0, head[16:])


@functools.lru_cache(maxsize=64)
def _cipher_of_series(secret: bytes, salt: bytes) -> AESGCM:
    return _derived(secret, 1, salt)


def _derived(secret: bytes, purpose: int, salt: bytes) -> AESGCM:
    """Return the cipher whose key is the HMAC-SHA256 of a purpose and a salt (RFC 2104)."""
    # Not by `hmac.digest`: OpenSSL 3 looks up its algorithm for each call, which takes as long as
    # the cipher of a frame.
    started = _hmac_states(secret)
    inner, outer = started[purpose].copy(), started[2].copy()
    inner.update(salt)
    outer.update(inner.digest())
    return cipher_of(outer.digest())


@functools.lru_cache(maxsize=64)
def _hmac_states(secret: bytes) -> tuple[Any, Any, Any]:
    """Return the hashes of the HMAC with a data key as far as all envelopes share them: the inner
    one of both purposes, and the outer."""
    inner, outer = (secret.ljust(64, b"\0").translate(pad) for pad in _PADS)
    one, series = (hashlib.sha256(inner + purpose) for purpose in _PURPOSES)
    return one, series, hashlib.sha256(outer)


def cipher_of(secret: bytes) -> AESGCM:
    """Return the cipher of a key of 32 bytes. Raises MissingPackage."""
    if not _AEAD:
        with MissingPackage.unless("encrypt", "encrypted lakes need the package cryptography"):
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        _AEAD.append(AESGCM)
    return _AEAD[0](secret)
