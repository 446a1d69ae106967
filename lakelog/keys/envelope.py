"""The envelope: bytes that only a key opens, in chunks that can be opened one by one.

    0   4   "LKN1"
    4   1   u8, k: a chunk has 2^k bytes of plaintext, the last one fewer or as many
    5   3   zero
    8   8   the id of the data key
    16  16  salt
    32      the chunks: each the AES-256-GCM of its plaintext and the tag of 16 bytes

The key of an envelope is HMAC-SHA256(data key, "lakelog envelope" + salt), so that no key meets a
nonce twice, however many envelopes there are. The nonce of a chunk is its number (u64, big-endian),
three zero bytes, and one byte that is 1 for the last chunk: the STREAM construction of Hoang,
Reyhanitabar, Rogaway and Vizár (2015), as age uses it. The associated data are the 32 bytes of the
header and a context, which says where the envelope belongs. So a chunk that was changed, moved,
left out or cut off is noticed, and a reader opens the chunks that it needs and no others.
"""

from __future__ import annotations

import hmac
import os
import struct
from typing import TYPE_CHECKING

from lakelog.errors import MissingPackage

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"LKN1"
HEAD_BYTES, TAG_BYTES, SECRET_BYTES = 32, 16, 32
CHUNK_BITS = 16
_BITS = range(10, 25)
_HEAD = struct.Struct("<4sB3x8s16s")
_NONCE = struct.Struct(">Q3xB")
_PURPOSE, _SALT = b"lakelog envelope", b"lakelog salt"
_AEAD: list[type[AESGCM]] = []


class NotDecrypted(ValueError):
    """Raised for bytes that are no envelope, or not as they were written: the reason alone."""


def sealed_size(size: int, bits: int = CHUNK_BITS) -> int:
    """How long the envelope of `size` bytes is."""
    return HEAD_BYTES + size + TAG_BYTES * max(-(-size >> bits), 1)


def encrypt(
    data: bytes | memoryview, key_id: bytes, secret: bytes, context: bytes = b"", salt: bytes = b""
) -> bytes:
    """Return the envelope of bytes. `secret` has 32 bytes and `key_id` 8; `salt` has 16, random
    ones unless given: the same salt must never come with other bytes. Raises MissingPackage."""
    bits = CHUNK_BITS
    head = _HEAD.pack(MAGIC, bits, key_id, salt or os.urandom(16))
    aead, associated = _cipher(secret, head), head + context
    step, view = 1 << bits, memoryview(data)
    final = max(-(-len(view) >> bits), 1) - 1
    ciphertexts = [head]
    for number in range(final + 1):
        chunk = view[number * step : (number + 1) * step]
        ciphertexts.append(aead.encrypt(_NONCE.pack(number, number == final), chunk, associated))
    return b"".join(ciphertexts)


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
        if bits not in _BITS or head[5:8] != bytes(3):
            raise NotDecrypted("the header of its envelope is damaged")
        self.step = 1 << bits
        self._stride = self.step + TAG_BYTES
        body = size - HEAD_BYTES
        self.count = max(-(-body // self._stride), 1)
        """How many chunks it has."""
        self.plain_bytes = body - TAG_BYTES * self.count
        if self.plain_bytes < (self.count - 1) * self.step + (self.count > 1):
            raise NotDecrypted("its envelope is cut off")
        self._aead, self._associated = _cipher(secret, head), head + context

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
                nonce = _NONCE.pack(number, number == self.count - 1)
                chunk = view[offset : offset + stride]
                plaintexts.append(decrypt_chunk(nonce, chunk, self._associated))
        except (InvalidTag, ValueError):
            place = "its last chunk" if number == self.count - 1 else f"its chunk {number}"
            raise NotDecrypted(f"{place} was changed, moved or cut off") from None
        return plaintexts[0] if len(plaintexts) == 1 else b"".join(plaintexts)


def _cipher(secret: bytes, head: bytes) -> AESGCM:
    """Return the cipher of one envelope."""
    return cipher_of(hmac.digest(secret, _PURPOSE + head[16:32], "sha256"))


def cipher_of(secret: bytes) -> AESGCM:
    """Return the cipher of a key of 32 bytes. Raises MissingPackage."""
    if not _AEAD:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            message = (
                "encrypted lakes need the package cryptography: pip install 'lakelog[encrypt]'"
            )
            raise MissingPackage(message) from None
        _AEAD.append(AESGCM)
    return _AEAD[0](secret)
