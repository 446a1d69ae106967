"""Packed moves: the files of many old moves of a branch in one, packed-<a>-<b>.jsonl.zst.

One zstd frame of the files of moves a to b, oldest first, and a skippable frame that holds the
SHA-256 of all before it (magic 0x184D2A5D, size 36, "LKP1", 32 bytes). gc drops moves from them
that no rule keeps (F7.12); then the first line is a document that names the span, so that a move
that was left out is distinguished from one that is lost, and a file under a wrong name is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
from dataclasses import dataclass
from typing import ClassVar

import zstandard

from lakelog import document
from lakelog.disk import DOCUMENT_MAX, File, NotIntact
from lakelog.errors import DamagedRef
from lakelog.paths import FileName
from lakelog.values import JsonObject

_SEAL = struct.pack("<II4s", 0x184D2A5D, 36, b"LKP1")
_NUMBER = re.compile(rb'\{"number":(\d+),')


@dataclass(frozen=True)
class MovePack:
    """The packed file of the moves `low` to `high` of a branch."""

    MOVES_MAX: ClassVar[int] = 4_096
    """Moves in one at most: it is read as a whole."""

    branch: str
    low: int
    high: int

    @property
    def _span(self) -> JsonObject:
        return {"branch": self.branch, "first": self.low, "last": self.high}

    def encode(self, moves: dict[int, bytes]) -> bytes:
        """Return the bytes of a packed file; where numbers of its span are left out, it says so."""
        content = b"".join(moves.values())
        # A pack without gaps stays as format 1 has it.
        if len(moves) <= self.high - self.low:
            content = document.encode(self._span) + content
        # Written once and rarely read: level 9 is worth its time.
        data = zstandard.ZstdCompressor(level=9).compress(content) + _SEAL
        return data + hashlib.sha256(data).digest()

    def decode(self, data: bytes) -> dict[int, bytes]:
        """Return {number: file bytes} of the bytes of a packed file. Raises NotIntact."""
        if len(data) < 44 or hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise NotIntact("its checksum does not match")
        try:
            # What a remote sends may say that it is many gigabytes long, and be so.
            if zstandard.get_frame_parameters(data).content_size > DOCUMENT_MAX:
                raise NotIntact("it is longer than any")
            content = zstandard.ZstdDecompressor().decompress(data[:-44])
        except zstandard.ZstdError as error:
            raise NotIntact(str(error)) from None
        head, numbers, moves = b"", list[int](), dict[int, bytes]()
        for line in content.splitlines(keepends=True):
            if match := _NUMBER.match(line):
                numbers.append(int(match[1]))
                moves[numbers[-1]] = line
            elif numbers:
                moves[numbers[-1]] += line  # the manifest that the move carries
            else:
                head += line
        # The checksum is right, so this is about a file under a wrong name, or with moves of
        # another branch: a list of numbers in ascending order within the span, without gaps unless
        # it says so.
        expected = list(range(self.low, self.high + 1))
        if head:
            expected = sorted(set(numbers)) if document.decode(head) == self._span else []
            expected = [number for number in expected if self.low <= number <= self.high]
        if numbers != expected:
            raise NotIntact("it holds other moves than its name says")
        return moves

    @classmethod
    def read(cls, path: str) -> dict[int, bytes]:
        """Return {number: file bytes} of a packed file. Raises DamagedRef, FileNotFoundError."""
        span = FileName.of(path).packed or (0, 0)
        pack = cls(FileName.of(os.path.dirname(path)).ref, *span)
        try:
            return pack.decode(File(path).read(DOCUMENT_MAX))
        except NotIntact as error:
            raise DamagedRef(path, f"packed moves are damaged: {error}") from None

    @staticmethod
    def readable(data: bytes) -> dict[int, bytes]:
        """Return the moves that can be read in the bytes of a packed file, damaged or not, with the
        manifests they carry."""
        readable: dict[int, bytes] = {}
        number, snapshot = 0, ""
        for line in _beginning(data).splitlines(keepends=True):
            with contextlib.suppress(NotIntact, KeyError):
                body = document.decode(line)
                number, snapshot = body["number"], body["snapshot"]
                readable[number] = line
                continue
            # A damaged line is skipped; so a manifest counts only for the move right before it.
            if snapshot and document.digest(line[:-1]) == snapshot and line[-1:] == b"\n":
                readable[number] += line
            snapshot = ""
        return readable

    @staticmethod
    def is_thinned(data: bytes) -> bool:
        """Whether the bytes of a packed file, damaged or not, say that moves were left out."""
        try:
            return "first" in document.decode(document.split(_beginning(data))[0])
        except NotIntact:
            return False


def _beginning(data: bytes) -> bytes:
    """Decompress the bytes before the first damage."""
    reader, content = zstandard.ZstdDecompressor().decompressobj(), bytearray()
    with contextlib.suppress(zstandard.ZstdError):
        # In small pieces: zstd gives out nothing of the piece in which it meets the damage.
        for start in range(0, len(data), 64):
            content += reader.decompress(data[start : start + 64])
    return bytes(content)
