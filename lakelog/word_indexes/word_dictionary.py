"""The words of a part of a segment, in order, and in which of its blocks each is.

A part has 32 blocks of rows. Its dictionary is an entry of the directory of an index and the frames
that the entry tells the sizes of, in the same file.

    entry   words u32, bytes of names u32; the least times of the blocks 32 x i64, the greatest
            32 x i64; of each chunk of 2,048 words the bytes of its frames of names and of blocks
            2 x u32; the bytes of the frame of joints u32; the first name of each chunk and the last
            of all, a zero byte between two
    frames  zstd with checksums, of each chunk the one of names, then that of blocks; then the one
            of joints (joint_filter.py)
    names   a zero byte before each name, and at the end
    blocks  bytes 0, 1, 2 and 3 of the blocks of words, a bit each, each byte for all words; then
            how many words many rows have u32, and the number of each in the chunk u32; how many
            rows of each block have it, the low bytes of all, then the high ones

Words of more than 40 bytes are named by a hash behind U+0001. A part of too many words has none and
says 2^32 - 1: it may have any. Times are microseconds since 1970; a block without rows has the
times 2^63 - 1 and -2^63. Frames are read when a search needs them.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import struct
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import add

import zstandard

from lakelog.libraries import np
from lakelog.word_indexes import joint_filter

BLOCKS = 32
"""Blocks of a part."""
NAME_MAX = 40
"""Bytes of the names of words; of longer words there are hashes."""
DAMAGE = zstandard.ZstdError, struct.error, ValueError, IndexError
"""What reading a damaged dictionary raises."""
_EVERY = (1 << BLOCKS) - 1
_PART_HEAD = struct.Struct("<II")
_TIMES = struct.Struct(f"<{BLOCKS}q{BLOCKS}q")
NO_TIMES = (1 << 63) - 1, -(1 << 63)
"""The least and the greatest time of a block without rows."""
_ANY, _WORDS_MAX, _CHUNK = (1 << 32) - 1, 1 << 22, 2_048
_COUNT_BYTES = 4 + 2 * BLOCKS
_NAMES_MAX, _BLOCKS_MAX = (NAME_MAX + 1) * _CHUNK + 1, (4 + _COUNT_BYTES) * _CHUNK + 4
_JOINTS_LEAST, _JOINTS_MAX = 2, 1 << 20
_LEVEL, _HASHED = 3, b"\1"


class _Decompressor(threading.local):
    """One for each thread: to make one takes as long as to decompress a frame."""

    def __init__(self) -> None:
        self.decompress = zstandard.ZstdDecompressor().decompress


_DECOMPRESSOR = _Decompressor()


@dataclass(frozen=True, slots=True)
class WordPiece:
    """Characters that stand together in one word: at its beginning, at its end, or anywhere."""

    characters: str
    begins: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class _ChunkBlocks:
    """The blocks of the words of a chunk, and the rows of those that are frequent."""

    content: bytes
    word_count: int
    frequent: int

    def of(self, number: int) -> int:
        """Return the blocks of a word, as bits."""
        content, count = self.content, self.word_count
        return (
            content[number]
            | content[count + number] << 8
            | content[2 * count + number] << 16
            | content[3 * count + number] << 24
        )

    def counts(self, number: int) -> tuple[bytes, bytes] | None:
        """Return the low and the high bytes of how many rows of each block have a word; None for
        one that is not frequent."""
        start = 4 * self.word_count + 4
        numbers = struct.unpack_from(f"<{self.frequent}I", self.content, start)
        row = bisect_left(numbers, number)
        if row == len(numbers) or numbers[row] != number:
            return None
        low = start + 4 * self.frequent + row * BLOCKS
        high = low + self.frequent * BLOCKS
        return self.content[low : low + BLOCKS], self.content[high : high + BLOCKS]


@dataclass(frozen=True, slots=True)
class _JoinableWord:
    """A word by its number; whether the filter of joints has pairs of it, as of words in many
    blocks, and whether it is of digits alone."""

    number: int
    is_wide: bool
    is_number: bool


@dataclass(frozen=True, slots=True)
class WordDictionary:
    """The dictionary of a part. `data` is the file; `firsts` has the first name of each chunk, and
    the frames of names and of blocks are from one of some places to the next."""

    data: bytes
    word_count: int
    times: tuple[int, ...]
    firsts: list[bytes]
    last_name: bytes
    frames: tuple[int, ...]

    @property
    def is_ascii(self) -> bool:
        """Whether all words are known to be of ASCII."""
        return self.word_count != _ANY and self.last_name < b"\x80"

    def find(self, need: str | WordPiece) -> int:
        """Return the blocks that have a word, or one with a piece, as bits; all where a frame is
        damaged."""
        if self.word_count == _ANY:
            return _EVERY
        with contextlib.suppress(*DAMAGE):
            blocks_mask = self._hashed_blocks() if isinstance(need, WordPiece) else 0
            for blocks_of_chunk, number in self._words_of(need):
                blocks_mask |= blocks_of_chunk.of(number)
                if blocks_mask == _EVERY:
                    break
            return blocks_mask
        return _EVERY

    def find_joined(self, run: Sequence[str]) -> int:
        """Return the blocks that have all of some words, as bits, none where no row has each joined
        to the next; all where a frame is damaged."""
        if self.word_count == _ANY:
            return _EVERY
        with contextlib.suppress(*DAMAGE):
            blocks_mask, joinable = _EVERY, list[_JoinableWord]()
            for word in run:
                place = self._place(stored_name(word.encode()))
                blocks = self._blocks(place[0]).of(place[1]) if place else 0
                blocks_mask &= blocks
                if not place or not blocks_mask:
                    return 0
                is_wide = blocks.bit_count() >= joint_filter.LEAST_BLOCKS
                number = place[0] * _CHUNK + place[1]
                joinable.append(_JoinableWord(number, is_wide, word.isdigit()))
            return blocks_mask if self._may_be_joined(joinable) else 0
        return _EVERY

    def _may_be_joined(self, joinable: list[_JoinableWord]) -> bool:
        """Whether each of some words may be joined to the next."""
        content = self._frame(2 * len(self.firsts), _JOINTS_MAX)
        if len(content) < _JOINTS_LEAST:
            return True
        has_numbers = joint_filter.knows_numbers(content)
        return all(
            joint_filter.may_be_joined(content, initial.number, following.number)
            for initial, following in itertools.pairwise(joinable)
            if initial.is_wide
            and following.is_wide
            and (has_numbers or not (initial.is_number and following.is_number))
        )

    def block_counts(self, need: str | WordPiece) -> list[int | None]:
        """Return how many rows of each block have a word, or one with a piece, None where that is
        not known: of several words that a block has, rows may have more than one."""
        if self.word_count == _ANY:
            return [None] * BLOCKS
        with contextlib.suppress(*DAMAGE):
            hashed = self._hashed_blocks() if isinstance(need, WordPiece) else 0
            return self._summed(self._words_of(need), hashed)
        return [None] * BLOCKS

    def _summed(self, words: Iterator[tuple[_ChunkBlocks, int]], unknown: int) -> list[int | None]:
        """How many rows of each block have the only word that the block has."""
        counts, before = [0] * BLOCKS, 0
        for blocks_of_chunk, number in words:
            blocks = blocks_of_chunk.of(number)
            planes = blocks_of_chunk.counts(number)
            unknown |= blocks & before if planes else blocks
            before |= blocks
            if planes:
                rows = (low + 256 * high for low, high in zip(*planes, strict=True))
                counts = [*map(add, counts, rows)]
            if unknown == _EVERY:
                break
        return [None if unknown >> n & 1 else count for n, count in enumerate(counts)]

    def check(self) -> None:
        """Read all frames. Raises what is in DAMAGE."""
        for chunk in range(len(self.firsts)):
            if self._names(chunk).count(b"\0") - 1 != self._blocks(chunk).word_count:
                raise ValueError("it has other words")
        if self.word_count != _ANY:
            self._frame(2 * len(self.firsts), _JOINTS_MAX)

    def _place(self, name: bytes) -> tuple[int, int] | None:
        """The chunk of a word and its number there, None where there is no such word."""
        chunk = bisect_right(self.firsts, name) - 1
        if chunk < 0 or name > self.last_name:
            return None
        names = self._names(chunk)
        start = names.find(b"\0" + name + b"\0")
        return (chunk, names.count(b"\0", 0, start)) if start >= 0 else None

    def _words_of(self, need: str | WordPiece) -> Iterator[tuple[_ChunkBlocks, int]]:
        """Yield the chunk and the number there of a word, or of each word that has a piece."""
        if isinstance(need, WordPiece):
            yield from self._with_piece(need)
        elif place := self._place(stored_name(need.encode())):
            yield self._blocks(place[0]), place[1]

    def _with_piece(self, piece: WordPiece) -> Iterator[tuple[_ChunkBlocks, int]]:
        characters = piece.characters.encode()
        pattern = b"\0" * piece.begins + characters + b"\0" * piece.ends
        # What begins so is in the chunks around its place; for all else each chunk is read.
        start, stop = 0, len(self.firsts)
        if piece.begins:
            start = max(bisect_right(self.firsts, characters) - 1, 0)
            stop = bisect_left(self.firsts, characters + b"\xff")
        for chunk in range(start, stop):
            names = self._names(chunk)
            place, counted, number = names.find(pattern), 0, -1
            blocks = self._blocks(chunk) if place >= 0 else None
            while blocks and place >= 0:
                inside = place + piece.begins
                number += names.count(b"\0", counted, inside)
                yield blocks, number
                counted = inside
                place = names.find(pattern, names.find(b"\0", inside))

    def _hashed_blocks(self) -> int:
        """The blocks of words that are known by their hash alone: they may have any piece."""
        blocks_mask = 0
        for chunk in range(bisect_left(self.firsts, b"\2")):
            count = self._names(chunk).count(b"\0" + _HASHED)
            blocks = self._blocks(chunk)
            for number in range(count):
                blocks_mask |= blocks.of(number)
        return blocks_mask

    def _names(self, chunk: int) -> bytes:
        return self._frame(2 * chunk, _NAMES_MAX)

    def _blocks(self, chunk: int) -> _ChunkBlocks:
        content = self._frame(2 * chunk + 1, _BLOCKS_MAX)
        word_count = min(self.word_count - chunk * _CHUNK, _CHUNK)
        (frequent,) = struct.unpack_from("<I", content, 4 * word_count)
        if len(content) != 4 * word_count + 4 + _COUNT_BYTES * frequent:
            raise ValueError("it has the blocks of other words")
        return _ChunkBlocks(content, word_count, frequent)

    def _frame(self, number: int, size_max: int) -> bytes:
        frame = self.data[self.frames[number] : self.frames[number + 1]]
        if not 0 <= zstandard.frame_content_size(frame) <= size_max:
            raise ValueError("it is too large")
        content: bytes = _DECOMPRESSOR.decompress(frame)
        return content


@dataclass(frozen=True)
class PartWords:
    """The distinct words of a part in order: `names` with a zero byte before each and at the end,
    where the n-th begins at `starts[n]`; which of the 32 blocks have each, as bits; and of some,
    by their numbers in order, how many rows of each block; `joints` is the filter of those that are
    joined."""

    names: bytes
    starts: np.ndarray
    blocks: np.ndarray
    frequent: np.ndarray
    counts: np.ndarray
    joints: bytes = b""


def stored_name(word: bytes) -> bytes:
    """Return what stands for a word in a dictionary: itself, or a hash if it is long."""
    if len(word) <= NAME_MAX:
        return word
    return _HASHED + hashlib.blake2b(word, digest_size=16).hexdigest().encode()


def encode_part(vocabulary: PartWords | None, times: list[tuple[int, int]]) -> tuple[bytes, bytes]:
    """Return the entry of the directory and the frames of a part, of whose blocks these are the
    least and the greatest times; None for one of too many words."""
    block_times = _TIMES.pack(*(low for low, _ in times), *(high for _, high in times))
    if vocabulary is None or len(vocabulary.blocks) > _WORDS_MAX:
        return _PART_HEAD.pack(_ANY, 0) + block_times, b""
    count, compressor = (
        len(vocabulary.blocks),
        zstandard.ZstdCompressor(_LEVEL, write_checksum=True),
    )
    bounds = [
        *(int(vocabulary.starts[n]) for n in range(0, count, _CHUNK)),
        len(vocabulary.names) - 1,
    ]
    names = [vocabulary.names[a : b + 1] for a, b in itertools.pairwise(bounds)]
    edges = [content[1:].partition(b"\0")[0] for content in names]
    edges += [names[-1][:-1].rpartition(b"\0")[2]] if names else []
    contents = (
        c
        for n, chunk_names in enumerate(names)
        for c in (chunk_names, _blocks_content(vocabulary, n))
    )
    # A filter does not get smaller: what it needs is the checksum of a frame.
    frames = [compressor.compress(content) for content in (*contents, vocabulary.joints)]
    blob = b"\0".join(edges)
    sizes = struct.pack(f"<{len(frames)}I", *map(len, frames))
    return _PART_HEAD.pack(count, len(blob)) + block_times + sizes + blob, b"".join(frames)


def _blocks_content(vocabulary: PartWords, chunk: int) -> bytes:
    start, stop = chunk * _CHUNK, (chunk + 1) * _CHUNK
    planes = vocabulary.blocks[start:stop].astype("<u4").view(np.uint8).reshape(-1, 4).T
    rows = slice(*np.searchsorted(vocabulary.frequent, (start, stop)))
    numbers, counts = vocabulary.frequent[rows] - start, vocabulary.counts[rows].astype("<u2")
    halves = counts.view(np.uint8).reshape(-1, 2).T
    head = struct.pack("<I", len(numbers)) + numbers.astype("<u4").tobytes()
    return planes.tobytes() + head + halves.tobytes()


def decode_part(data: bytes, place: int, frame: int) -> tuple[WordDictionary, int]:
    """Read an entry of the directory, of a part whose frames begin at some place; return also
    where the next entry is. Raises struct.error, ValueError."""
    word_count, blob_size = _PART_HEAD.unpack_from(data, place)
    times = _TIMES.unpack_from(data, place + _PART_HEAD.size)
    place += _PART_HEAD.size + _TIMES.size
    if word_count == _ANY:
        return WordDictionary(data, _ANY, times, [], b"", (frame,)), place
    if word_count > _WORDS_MAX:
        raise ValueError("it is too large")
    chunks = -(-word_count // _CHUNK)
    sizes = struct.unpack_from(f"<{2 * chunks + 1}I", data, place)
    place += 8 * chunks + 4
    edges = data[place : place + blob_size].split(b"\0") if chunks else [b""]
    if len(edges) != chunks + (chunks > 0 or 1):
        raise ValueError("it has other chunks")
    frames = tuple(itertools.accumulate(sizes, initial=frame))
    return WordDictionary(data, word_count, times, edges[:-1], edges[-1], frames), place + blob_size
