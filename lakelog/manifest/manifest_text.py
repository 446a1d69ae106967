"""The text of manifests and pages as it is stored: compressed, perhaps encrypted (F6.1, F24.6)."""

from __future__ import annotations

import threading

import zstandard

from lakelog.keys import VAULT

FILE_FORMAT = 1
"""That of segments, manifests and pages: their bytes are still those of format 1."""
# Decompressors are not safe for threads, so each thread has its own.
_LOCAL = threading.local()


def compressed(encoded: bytes) -> bytes:
    """Return the bytes of a file of this text, in a plain lake."""
    return zstandard.ZstdCompressor(level=3).compress(encoded)


def decompressed(data: bytes) -> bytes:
    """Return the text of the bytes of such a file. Raises ValueError."""
    # Creating a decompressor takes longer than decompressing a manifest.
    if not hasattr(_LOCAL, "decompressor"):
        _LOCAL.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _LOCAL.decompressor
    try:
        return decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


def plain_text(carried: bytes) -> bytes:
    """Return the text of a manifest that a ref carries, encrypted or not. Raises ValueError,
    InvalidKey."""
    data = VAULT.decrypt_line(carried)
    return carried if data is carried else decompressed(data)
