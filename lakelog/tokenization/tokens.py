"""The words of texts, each with a number of 64 bits by which equal ones are found.

Letters count without their case, as the engine's `lower` makes them. A word is a longest run of
letters, digits and combining marks; a character of a script that is written without spaces is a
word of its own. Texts of ASCII, as nearly all are, are cut by NumPy: a table says which bytes are
of words, and the words are where that changes. The engine cuts all others, as it also answers
searches: libraries differ in the version of Unicode that they know.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lakelog import arrays
from lakelog.libraries import duckdb, np, pa, pc

SEARCHED = ("message", "type", "category", "source", "subject", "id", "data")
"""The columns that a word without a field is looked for in."""
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts that are written without spaces between words."""
ESCAPE, FOREIGN = "\\", "\x80"
"""Stand among the words of a row for a payload with escapes, and for words that are not of ASCII:
no word is one of them."""
_JOINTS = "_-./:@#=+&%$~\\"
"""Each of these joins two words if it stands alone between them."""
_SPACES = bytes(
    byte
    if byte > 127 or chr(byte) in "\\0123456789"
    else ord(chr(byte).lower())
    if chr(byte).isalpha()
    else 32
    for byte in range(256)
)
"""Of each byte: small letters, digits, what is not of ASCII, and else a space."""
_SPACED = rf"regexp_replace(lower(text), '([{UNSPACED}])', ' \1 ', 'g')"
_WORDS = rf"regexp_extract_all({_SPACED}, '[\pL\pN\pM]+')"
_ASCII_WORD = re.compile(r"[0-9a-z]+")
_PIECE = 1_000_000
"""Bytes of texts that are cut at once: what is made of them stays in the processor's cache."""
_MASK = (1 << 64) - 1
_MIX, _MIX_LONGER = (int.from_bytes(os.urandom(8)) | 1 for _ in range(2))
"""Of each process others, so that nobody can make words that are taken for one another."""
_LONG, _LONG_KEY = 512, os.urandom(16)
"""Words of more bytes are hashed one by one: eight bytes of all words at a time, one of 100 MB, as
an encoded picture is, would take minutes."""


@dataclass(frozen=True)
class Words:
    """The words of some texts: the hash of each, the number of the row that has it, and where it
    stands among the bytes of the texts."""

    hashes: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    content: np.ndarray

    def joints(self) -> np.ndarray:
        """Return the places of words that are joined with the next."""
        is_same_row = self.rows[1:] == self.rows[:-1]
        gaps = self.starts[1:] - self.ends[:-1]
        # Of what the engine cut it is not known what was between: there all are joined.
        side_by_side, parted = np.flatnonzero(is_same_row & (gaps == 0)), is_same_row & (gaps == 1)
        candidates = np.flatnonzero(parted)
        is_joint = _is_joint()[self.content[self.ends[candidates]]]
        return np.concatenate([side_by_side, candidates[is_joint]])

    def word(self, place: int) -> bytes:
        """Return one of the words."""
        word: bytes = self.content[self.starts[place] : self.ends[place]].tobytes()
        return word


def payload_text(data: str) -> str:
    """SQL for the text of a payload: its JSON, strings without their escapes."""
    # One JSON string is made of the text: its own escapes stay, and quotes become escapes. So the
    # engine's reader of strings takes all escapes out, those of surrogates as well.
    whole = f"replace(replace(replace({data}, '\\\\', '\\u005c'), '\\\"', '\\u0022'), '\"', '\\\"')"
    unescaped = f"try(json_extract_string('\"' || {whole} || '\"', '$'))"
    return f"(CASE WHEN contains({data}, '\\') THEN coalesce({unescaped}, {data}) ELSE {data} END)"


def of_texts(cursor: duckdb.DuckDBPyConnection, strings: pa.Array) -> Iterator[Words]:
    """Yield the words of texts, in pieces."""
    for start, chunk in _pieces(strings):
        if len(chunk) == chunk.null_count:
            continue
        if chunk.null_count:
            chunk = _without(chunk, ~arrays.truths(chunk.is_valid()))
        is_other = _where(pc.invert(pc.string_is_ascii(chunk)))
        if is_other.any():
            yield _by_engine(cursor, chunk, is_other, start, "text")
            chunk = _without(chunk, is_other)
        yield _of_ascii(chunk, start)


def of_names(cursor: duckdb.DuckDBPyConnection, strings: pa.Array) -> Iterator[Words]:
    """The same of texts that repeat: each distinct one is cut once."""
    encoded = pc.dictionary_encode(strings)
    numbers = arrays.numbers(encoded.indices.drop_null().cast(pa.int64()))
    rows_with_text = np.flatnonzero(arrays.truths(strings.is_valid()))
    for words_of_names in of_texts(cursor, encoded.dictionary):
        # The dictionary is one chunk, or the names of others have no words in this one.
        order = np.argsort(words_of_names.rows, kind="stable")
        sizes = np.bincount(words_of_names.rows, minlength=len(encoded.dictionary))
        counts = sizes[numbers]
        # Of each row in turn, the places of the words of its text.
        offsets = (np.cumsum(sizes) - sizes)[numbers] - (np.cumsum(counts) - counts)
        places = order[np.repeat(offsets, counts) + np.arange(int(counts.sum()))]
        yield Words(
            words_of_names.hashes[places],
            np.repeat(rows_with_text, counts),
            words_of_names.starts[places],
            words_of_names.ends[places],
            words_of_names.content,
        )


def of_payloads(cursor: duckdb.DuckDBPyConnection, payloads: pa.Array) -> Iterator[Words]:
    """Yield the words of the texts of payloads, JSON."""
    has_escapes = _where(pc.match_substring(payloads, ESCAPE))
    if has_escapes.any():
        rows = np.flatnonzero(has_escapes)
        hashes, zeros = np.full(len(rows), of_word(ESCAPE), np.uint64), np.zeros(len(rows), int)
        yield Words(hashes, rows, zeros, zeros + 1, np.frombuffer(ESCAPE.encode(), np.uint8))
        for start, chunk in _pieces(payloads):
            escaped = has_escapes[start : start + len(chunk)]
            yield _by_engine(cursor, chunk, escaped, start, payload_text("text"))
        payloads = _without(payloads, has_escapes)
    yield from of_texts(cursor, payloads)


def spaced(cursor: duckdb.DuckDBPyConnection, rows: pa.Table) -> pa.Array:
    """Return the words of each row of events as one text, a space or more between two. A payload
    with escapes has ESCAPE among them."""
    columns = (payload_text(name) if name == "data" else name for name in SEARCHED)
    # The engine cuts what is not of ASCII; of all else the table below makes words.
    cursor.register("texts", rows.select(SEARCHED))
    try:
        texts = cursor.sql(
            "SELECT CASE WHEN contains(text, '\\') OR contains(data, '\\')"
            f" OR strlen(text) > length(text) THEN array_to_string({_WORDS}, ' ')"
            " || CASE WHEN contains(data, '\\') THEN ' \\' ELSE '' END ELSE text END AS words"
            f" FROM (SELECT concat_ws(chr(10), {', '.join(columns)}) AS text,"
            " coalesce(data, '') AS data FROM texts)"
        ).to_arrow_table()["words"]
    finally:
        cursor.unregister("texts")
    strings = texts.combine_chunks()
    _, offsets, content = strings.buffers()
    spaced_content = pa.py_buffer((content.to_pybytes() if content else b"").translate(_SPACES))
    buffers = [None, offsets, spaced_content]
    return pa.Array.from_buffers(strings.type, len(strings), buffers, 0, strings.offset)


def of_fragment(
    cursor: duckdb.DuckDBPyConnection, fragment: str, *, is_open_before: bool, is_open_behind: bool
) -> tuple[list[tuple[str, ...]], str, str]:
    """Return the words that every text has which contains a fragment, in small letters, together
    those that are joined. Where it is open, it may be in the middle of a word: also what is of such
    a word before, and behind; both are the same if there is one word that is open on both sides."""
    # A letter at an open end becomes part of the word there, if there is one; otherwise it is a
    # word alone.
    glued = "a" * is_open_before + fragment + "a" * is_open_behind
    if glued.isascii():
        found_words = _ASCII_WORD.findall(glued.lower())
        between = _ASCII_WORD.split(glued.lower())[1:]
    else:
        query = f"SELECT {_WORDS} FROM (SELECT ?::VARCHAR AS text)"
        ((found_words,),) = cursor.execute(query, [glued]).fetchall()
        between = [""] * len(found_words)
    ending = found_words[0][1:] if is_open_before else ""
    beginning = found_words[-1][:-1] if is_open_behind else ""
    if len(found_words) == 1 and is_open_before and is_open_behind:
        ending = beginning = found_words[0][1:-1]
    joined, is_next = list[tuple[str, ...]](), False
    for number in range(is_open_before, len(found_words) - is_open_behind):
        joined += [(*(joined.pop() if is_next else ()), found_words[number])]
        is_next = len(between[number]) == 1 and between[number] in _JOINTS
    return joined, ending, beginning


def of_word(word: str) -> int:
    """Return the hash that one word has in this process."""
    data, mixed = word.encode(), 0
    if len(data) > _LONG:
        return _of_long(data)
    for place in range(0, len(data), 8):
        mixed = (mixed ^ int.from_bytes(data[place : place + 8], "little")) * _MIX & _MASK
        mixed ^= mixed >> 29
        if len(data) > place + 8:
            mixed = mixed * _MIX_LONGER & _MASK
    return mixed


def _of_long(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=_LONG_KEY).digest(), "little")


def _pieces(strings: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """Yield texts as arrays of about _PIECE bytes, each with the number of its first row."""
    offsets = _offsets(strings)
    start = 0
    while start < len(strings):
        reach = int(offsets[start]) + _PIECE
        stop = max(int(np.searchsorted(offsets, reach, side="right")) - 1, start + 1)
        stop = min(stop, len(strings))
        yield start, strings.slice(start, stop - start)
        start = stop


def _offsets(strings: pa.Array) -> np.ndarray:
    dtype = np.int64 if pa.types.is_large_string(strings.type) else np.int32
    size = len(strings) + 1
    return np.frombuffer(strings.buffers()[1], dtype, size, strings.offset * dtype().itemsize)


def _where(condition: pa.Array) -> np.ndarray:
    """Which of some truth values are true, and not null."""
    is_true: np.ndarray = arrays.truths(condition) & arrays.truths(condition.is_valid())
    return is_true


def _without(strings: pa.Array, mask: np.ndarray) -> pa.Array:
    """Texts, empty where a mask says so: of what is null, the bytes may still be there."""
    return pc.if_else(arrays.mask(mask), arrays.texts([""])[0], strings)


def _of_ascii(strings: pa.Array, start: int) -> Words:
    """The words of texts that are all of ASCII."""
    strings = pc.ascii_lower(strings)
    offsets = _offsets(strings).astype(np.int64)
    begin, size = int(offsets[0]), int(offsets[-1] - offsets[0])
    # Zeros around them, so that every word has an end and eight bytes can be read anywhere.
    padded = np.zeros(8 + size + 24, np.uint8)
    if size:
        padded[8 : 8 + size] = np.frombuffer(strings.buffers()[2], np.uint8, size, begin)
    is_of_word = _is_of_word()[padded]
    changes = np.diff(is_of_word.view(np.int8))
    starts, ends = changes == 1, changes == -1
    places = offsets - begin + 8
    # Where a text ends in a word and the next begins with one, nothing changes between them.
    inner = places[1:-1]
    joints = inner[is_of_word[inner] & is_of_word[inner - 1]] - 1
    starts[joints] = ends[joints] = True
    starts_at, ends_at = np.flatnonzero(starts) + 1, np.flatnonzero(ends) + 1
    counts = np.diff(np.searchsorted(starts_at, places))
    rows = np.repeat(np.arange(start, start + len(strings)), counts)
    return Words(_hashes(padded, starts_at, ends_at), rows, starts_at, ends_at, padded)


def _is_of_word() -> np.ndarray:
    """Which bytes of ASCII, without capitals, are of words."""
    table = np.zeros(256, bool)
    table[48:58] = table[97:123] = True
    return table


def _is_joint() -> np.ndarray:
    """Which bytes join words."""
    table = np.zeros(256, bool)
    table[np.frombuffer(_JOINTS.encode(), np.uint8)] = True
    return table


def _by_engine(
    cursor: duckdb.DuckDBPyConnection, chunk: pa.Array, mask: np.ndarray, start: int, text_sql: str
) -> Words:
    """The words of those texts that a mask names; `text_sql` is SQL for what is read of each."""
    numbers = arrays.integers(np.flatnonzero(mask))
    cursor.register("texts", pa.table({"row": numbers, "text": chunk.take(numbers)}))
    try:
        found_words = cursor.sql(
            f"SELECT row, unnest({_WORDS}) AS word FROM (SELECT row, {text_sql} AS text FROM texts)"
        ).to_arrow_table()
    finally:
        cursor.unregister("texts")
    strings = found_words["word"].combine_chunks()
    offsets = _offsets(strings).astype(np.int64)
    size = int(offsets[-1] - offsets[0])
    mark = FOREIGN.encode()
    padded = np.zeros(size + 24 + len(mark), np.uint8)
    if size:
        padded[:size] = np.frombuffer(strings.buffers()[2], np.uint8, size, int(offsets[0]))
    padded[size + 24 :] = np.frombuffer(mark, np.uint8)
    places = offsets - offsets[0]
    rows = arrays.numbers(found_words["row"]) + start
    foreign = rows[~arrays.truths(pc.string_is_ascii(strings))]
    hashes = _hashes(padded, places[:-1], places[1:])
    # Far behind the words: it is joined with none of them.
    mark_starts = np.full(len(foreign), size + 24, np.int64)
    return Words(
        np.concatenate([hashes, np.full(len(foreign), of_word(FOREIGN), np.uint64)]),
        np.concatenate([rows, foreign]),
        np.concatenate([places[:-1], mark_starts]),
        np.concatenate([places[1:], mark_starts + len(mark)]),
        padded,
    )


def is_ascii(rows: pa.Table) -> bool:
    """Whether all words of some rows are of ASCII, and no payload has others as escapes."""
    columns = map(rows.column, SEARCHED)
    are_ascii = all(pc.all(pc.string_is_ascii(c)).as_py() is not False for c in columns)
    return are_ascii and not pc.any(pc.match_substring(rows["data"], ESCAPE)).as_py()


def _hashes(padded: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the hash of each word, by its place among bytes that end with 16 zeros."""
    aligned = padded[: len(padded) // 8 * 8].view("<u8")
    lengths = ends - starts
    mixed = _mixed(aligned, np.uint64(0), starts, lengths)
    for number in np.flatnonzero(lengths > _LONG).tolist():
        mixed[number] = _of_long(padded[starts[number] : ends[number]].tobytes())
    longer, place = np.flatnonzero((lengths > 8) & (lengths <= _LONG)), 8
    while len(longer):
        remaining = lengths[longer] - place
        before = mixed[longer] * np.uint64(_MIX_LONGER)
        mixed[longer] = _mixed(aligned, before, starts[longer] + place, remaining)
        place += 8
        longer = longer[remaining > 8]
    return mixed


def _mixed(
    aligned: np.ndarray, before: np.ndarray | np.uint64, places: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return hashes after the next eight bytes of words, or as many as are left."""
    masks = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
    index, shift = places >> 3, ((places & 7) << 3).view(np.uint64)
    bits: np.ndarray = aligned[index] >> shift
    # Shifted in two steps, as a shift by 64 bits is none.
    bits |= aligned[index + 1] << (np.uint64(63) - shift) << np.uint64(1)
    bits &= masks[np.minimum(lengths, 8)]
    bits ^= before
    bits *= np.uint64(_MIX)
    bits ^= bits >> np.uint64(29)
    return bits
