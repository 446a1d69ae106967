"""Word indexes: a search reads only blocks that may have its words, and misses no row."""

from __future__ import annotations

import itertools
import os
import random
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import lakelog
from lakelog.maintain import indexing
from lakelog.search import Search, WordHistogram
from lakelog.segments import SegmentScan
from lakelog.tokenization import tokens
from lakelog.word_indexes import joint_filter, word_index
from lakelog.word_indexes.word_dictionary import (
    NAME_MAX,
    PartWords,
    WordPiece,
    encode_part,
    stored_name,
)
from lakelog.word_indexes.word_index import AllOf, AnyOf, JoinedWords

ROWS = 9_000
DIGEST = "cd" * 32
TEXTS = st.text(st.sampled_from("aB9 -_é東ไ\u0301\u212a😀\0"), max_size=40)


@pytest.fixture(scope="module")
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    """An engine."""
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def compacted(tmp_path: Path) -> Iterator[lakelog.Lake]:
    """A lake of three compacted segments, each event with a number of its own."""
    with lakelog.open(tmp_path / "lake", settings={"segment_rows": ROWS + 1}) as lake:
        for first in range(0, 3 * ROWS, ROWS):
            numbers = range(first, first + ROWS)
            lake.append([{"type": "log", "message": f"Step n{n} end"} for n in numbers])
            lake.compact()
        yield lake


def count(index: word_index.WordIndex, need: str | WordPiece) -> int | None:
    """How many rows have a word, None where that is not known."""
    counts = [block.count for block in index.block_counts(need)]
    return None if None in counts else sum(counts)


def words_of(cursor: duckdb.DuckDBPyConnection, texts: list[str | None]) -> list[list[int]]:
    """The hashes of the words of each text, in order of size."""
    words: list[list[int]] = [[] for _ in texts]
    for piece in tokens.of_texts(cursor, pa.array(texts, pa.string())):
        for row, hashed in zip(piece.rows, piece.hashes, strict=True):
            words[row].append(int(hashed))
    return [sorted(row_words) for row_words in words]


def test_words_of_texts(cursor: duckdb.DuckDBPyConnection) -> None:
    """Runs of letters, digits and marks in small letters, by whichever way; characters of scripts
    without spaces by themselves."""
    texts = {
        "Connection to 10.0.0.5:8080": "connection to 10 0 0 5 8080",
        "deadlock_detected/a-b": "deadlock detected a b",
        "averyveryverylongword and eightlet": "averyveryverylongword and eightlet",
        "Zoë 東京x \u212aelvin e\u0301a": "zoë 東 京 x kelvin e\u0301a" + " \x80" * 4,
        "": "",
        "... ,": "",
    }
    expected = [sorted(map(tokens.of_word, words.split())) for words in texts.values()]
    assert words_of(cursor, list(texts)) == expected
    assert words_of(cursor, ["ends", None, "with", "words"]) == [
        [tokens.of_word("ends")],
        [],
        [tokens.of_word("with")],
        [tokens.of_word("words")],
    ]
    array = pa.array(["a b", None, "a b", "c"], pa.string())
    ((names,), (whole,)) = (list(f(cursor, array)) for f in (tokens.of_names, tokens.of_texts))
    assert (names.rows.tolist(), names.hashes.tolist()) == (
        whole.rows.tolist(),
        whole.hashes.tolist(),
    )


def test_long_words_are_words(cursor: duckdb.DuckDBPyConnection) -> None:
    """Of any length, as an encoded picture is one; equal ones alone are equal."""
    sizes = [7, 8, 9, 511, 512, 513, 20_000, 5_000_000]
    words = ["a" * size for size in sizes] + ["a" * (size - 1) + "b" for size in sizes]
    hashes = list(map(tokens.of_word, words))
    assert words_of(cursor, [" ".join(words), *words]) == [sorted(hashes), *([h] for h in hashes)]
    assert len(set(hashes)) == len(words)


@given(before=TEXTS, fragment=TEXTS, behind=TEXTS)
def test_what_contains_a_fragment_has_its_words(
    cursor: duckdb.DuckDBPyConnection, before: str, fragment: str, behind: str
) -> None:
    """The words that are certain of a fragment are among those of every text around it, joined as
    there, and what is of words at its ends is at an end of one, or inside."""
    fragment = fragment.lower()
    ((text,),) = cursor.execute("SELECT lower(?)", [before + fragment + behind]).fetchall()
    certain, ending, beginning = tokens.of_fragment(
        cursor, fragment, is_open_before=True, is_open_behind=True
    )
    pieces = list(tokens.of_texts(cursor, pa.array([text])))
    words = [word for piece in pieces for word in names(piece)]
    joined = {
        tuple(names(piece)[place : place + 2]) for piece in pieces for place in piece.joints()
    }
    assert {word for run in certain for word in run} <= set(words)
    assert {pair for run in certain for pair in itertools.pairwise(run)} <= joined
    if ending == beginning == fragment:
        assert any(fragment in word for word in words) or not fragment
    else:
        assert any(word.endswith(ending) for word in words) or not ending
        assert any(word.startswith(beginning) for word in words) or not beginning


def names(words: tokens.Words) -> list[str]:
    """The texts of some words."""
    return [words.word(place).decode() for place in range(len(words.hashes))]


def test_escapes_are_taken_out(cursor: duckdb.DuckDBPyConnection) -> None:
    """The words of a payload are those of its strings, and a sign that it has escapes."""
    payloads = pa.array(['{"a":"x\\nfoo"}', None, '{"b":1}', '"caf\\u00e9"'], pa.string())
    words: list[set[int]] = [set() for _ in payloads]
    for piece in tokens.of_payloads(cursor, payloads):
        for row, hashed in zip(piece.rows, piece.hashes, strict=True):
            words[row].add(int(hashed))
    expected = [{"\\", "a", "x", "foo"}, set(), {"b", "1"}, {"\\", "café", "\x80"}]
    assert words == [set(map(tokens.of_word, texts)) for texts in expected]


def index_of(
    parts: list[dict[str, int]],
    counts: dict[str, list[int]],
    joined: Sequence[tuple[str, str]] = (),
) -> bytes:
    """The index of a segment of words with their blocks, by part, counts of some, and pairs of
    them that are joined in every part."""
    encoded = []
    for words in parts:
        ordered = sorted((stored_name(word.encode()), word) for word in words)
        sizes = (len(name) + 1 for name, _ in ordered)
        starts = [*itertools.accumulate(sizes, initial=0)][:-1]
        frequent = [i for i, (_, word) in enumerate(ordered) if word in counts]
        part_words = PartWords(
            b"".join(b"\0" + name for name, _ in ordered) + b"\0",
            np.array(starts, np.int64),
            np.array([words[word] for _, word in ordered], np.uint32),
            np.array(frequent, np.int64),
            np.array([counts[ordered[i][1]] for i in frequent], np.int64).reshape(-1, 32),
            joints_of([word for _, word in ordered], [*words.values()], joined),
        )
        encoded.append(encode_part(part_words, [(0, 9)] * 32))
    return word_index.encode(DIGEST, 65_536 * len(parts), encoded)


def joints_of(words: list[str], blocks: list[int], joined: Sequence[tuple[str, str]]) -> bytes:
    """The filter of some pairs of the words of a part of 65,536 rows."""
    pairs = np.array([(words.index(a), words.index(b)) for a, b in joined], np.int64)
    sides = joint_filter.JointPairs(*pairs.reshape(-1, 2).T)
    block_counts = np.array([number.bit_count() for number in blocks], np.int64)
    is_number = np.array([word.isdigit() for word in words], bool)
    return joint_filter.encode(sides, block_counts, is_number, 65_536)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1_000, 2_048, 2_049, 10_000])
def test_no_word_is_denied(count: int) -> None:
    """Whatever words a part has, its dictionary gives the blocks of each, and none of others; a
    piece of words those of all words that have it there."""
    dice = random.Random(count)
    parts = [
        {
            f"{dice.choice('aé東')}{n % 7 * 'x'}{n}{'z' * 60 * (n % 97 == 5)}": dice.getrandbits(32)
            for n in range(start, start + count)
        }
        for start in (0, count // 2)
    ]
    index = word_index.decode(index_of(parts, {}), DIGEST)
    assert index is not None
    index.check()

    every_word = {*parts[0], *parts[1]}
    # What is in them is not known.
    too_long = {word for word in every_word if len(word.encode()) > NAME_MAX}

    def expected(words: Iterable[str]) -> int:
        either = [0, 0]
        for word in words:
            for number, part in enumerate(parts):
                either[number] |= part.get(word, 0)
        return either[0] | either[1] << 32

    def with_piece(piece: WordPiece) -> int:
        text = piece.characters

        def fits(word: str) -> bool:
            if piece.begins and piece.ends:
                return word == text
            begins, ends = word.startswith(text), word.endswith(text)
            return (begins or not piece.begins) and (ends or not piece.ends)

        return expected({*too_long, *filter(fits, [word for word in every_word if text in word])})

    for word in dice.sample(sorted(every_word), min(count, 50)):
        whole = expected([word])
        assert index.blocks(word) == whole
        assert index.blocks(AllOf((word, word))) == whole
        assert index.blocks(AnyOf((word, "no"))) == whole
        assert index.blocks(word + "0") == expected([word + "0"])
        for text, begins, ends in itertools.product(
            (word[:2], word[-2:], word[1:3]), (True, False), (True, False)
        ):
            piece = WordPiece(text, begins=begins, ends=ends)
            assert index.blocks(piece) == with_piece(piece)


def test_rows_of_blocks_are_counted() -> None:
    """Of frequent words it is known how many rows of each block have them, of others where."""
    rows = [*range(0, 2_046, 66), 2_048]
    words = {f"w{n}": 1 for n in range(5_000)} | {"many": 2**32 - 2, "w17": 0b110}
    index = word_index.decode(index_of([words], {"many": rows}), DIGEST)
    assert index is not None
    assert [count(index, word) for word in ("many", "w17", "none")] == [sum(rows), None, 0]
    counts = [(b.first_row, b.last_row, b.count) for b in index.block_counts("many")]
    assert counts == [(n * 2_048, n * 2_048 + 2_047, rows[n]) for n in range(1, 32)]
    assert [(b.first_row, b.count, b.earliest, b.latest) for b in index.block_counts("w17")] == [
        (2_048, None, 0, 9),
        (4_096, None, 0, 9),
    ]


def test_rows_with_pieces_are_counted() -> None:
    """Where a block has one word with the piece, its rows are those of the word; of several words,
    or of one that is rare or known by a hash, that is not known."""
    words = {"xab": 0b1, "abx": 0b110, "xabx": 0b100, "rarely": 0b1, "l" * 50: 0b1000}
    rows = {"xab": [40], "abx": [0, 50, 60], "xabx": [0, 0, 70]}
    counts = {word: (blocks + [0] * 32)[:32] for word, blocks in rows.items()}
    index = word_index.decode(index_of([words], counts), DIGEST)
    assert index is not None

    def counted(characters: str, begins: bool, ends: bool) -> dict[int, int | None]:
        piece = WordPiece(characters, begins=begins, ends=ends)
        return {b.first_row // 2_048: b.count for b in index.block_counts(piece)}

    assert counted("ab", False, False) == {0: 40, 1: 50, 2: None, 3: None}
    assert counted("ab", True, False) == {1: 50, 2: 60, 3: None}
    assert counted("ab", False, True) == {0: 40, 3: None}
    assert counted("rare", True, False) == {0: None, 3: None}


def test_row_ranges() -> None:
    """Neighbouring blocks are one range."""
    assert list(word_index.row_ranges(0b1101)) == [(0, 2_047), (4_096, 8_191)]
    assert list(word_index.row_ranges(0)) == []


def test_searches_read_few_segments(compacted: lakelog.Lake) -> None:
    """A rare word opens only the segment that has it, and one that nothing has hardly any."""
    query = "SELECT message FROM events WHERE search('{}')"
    for number in (0, 12_345, 22_222):
        text = query.format(f"n{number}")
        assert compacted.sql(text).fetchall() == [(f"Step n{number} end",)]
        assert compacted.explain(text) == (1, 3)
    assert compacted.explain(query.format("nothing")) == (0, 3)
    assert compacted.explain(query.format("n1 n22222")) == (0, 3)
    assert compacted.explain(query.format("n1 OR n22222")) == (2, 3)
    assert compacted.explain(query.format("n1 OR *22222")) == (2, 3)
    assert compacted.explain(query.format("*9999*")) == (2, 3)
    assert compacted.explain(query.format("n2222*")) == (2, 3)
    assert compacted.explain(query.format("*tep")) == (3, 3)
    assert compacted.explain(query.format("-n1")) == (3, 3)
    assert compacted.sql("SELECT count(*) FROM events WHERE search('step')").fetchall() == [
        (27_000,)
    ]


def test_words_and_a_subject_are_searched_together(tmp_path: Path) -> None:
    """Of segments that all have the subject, only those are read that have the word as well, and it
    is no mistake if some or all of them have it not."""
    with lakelog.open(tmp_path / "lake", settings={"segment_rows": ROWS + 1}) as lake:
        for first in range(0, 2 * ROWS, ROWS):
            lake.append(
                [
                    {"type": "log", "subject": f"s{n % 7}", "message": f"n{n}"}
                    for n in range(first, first + ROWS)
                ]
            )
            lake.compact()
        query = "SELECT message FROM events WHERE subject = 's3' AND search('{}')"
        assert lake.sql(query.format("n10")).fetchall() == [("n10",)]
        assert lake.explain(query.format("n10")) == (1, 2)
        assert lake.sql(query.format("nothing")).fetchall() == []


def test_words_are_counted_without_reading(compacted: lakelog.Lake) -> None:
    """The number of events with a frequent word comes from the indexes, and is that of a scan."""
    query = "SELECT count(*) AS found FROM events WHERE search('{}')"
    compacted.append(
        [{"type": "log", "message": "one more step step", "data": {"end": "end"}}] * 40
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentScan, "queries", lambda *_: pytest.fail("a segment is read"))
        assert compacted.at("main").sql(query.format("step")).fetchall() == [(27_000,)]
        assert compacted.at("main").sql(query.format("nowhere")).fetchall() == [(0,)]
    for word, count in (
        ("step", 27_040),
        ("end", 27_040),
        ("STEP", 27_040),
        ("one", 40),
        ("n7", 1),
    ):
        relation = compacted.sql(query.format(word))
        assert (relation.columns, relation.fetchall()) == (["found"], [(count,)])
    doubled = "SELECT count(*) FROM events WHERE search('step') AND search('n7')"
    assert compacted.sql(doubled).fetchall() == [(1,)]


def test_a_search_of_an_outer_row_limits_no_other(compacted: lakelog.Lake) -> None:
    """In a query inside of another, the words are those of the row that is named."""
    inner = "SELECT 1 FROM events e WHERE search(o, 'n1') AND e.seq = o.seq + 20000"
    query = f"SELECT seq FROM events o WHERE EXISTS ({inner})"
    assert compacted.sql(query).fetchall() == [(1,)]


@pytest.mark.matrix
@pytest.mark.parametrize("harm", ["gone", "cut", "flipped", "junk", "swapped"])
def test_an_index_that_is_not_whole_counts_as_none(compacted: lakelog.Lake, harm: str) -> None:
    """A missing, damaged or foreign index hides no row, and maintenance builds it again."""
    folder = Path(compacted.store.paths.word_indexes)
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    names = list(whole)
    for name, data in whole.items():
        changed = {
            "cut": data[: len(data) // 2],
            "flipped": data[:100] + bytes([data[100] ^ 255]) + data[101:],
            "junk": random.Random(1).randbytes(500),
            "swapped": whole[names[names.index(name) - 1]],
        }
        if harm == "gone":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(changed[harm])
    query = "SELECT count(*) FROM events WHERE search('n22222')"
    with lakelog.open(compacted.path, create=False) as lake:
        assert lake.explain(query) == (3, 3)
        problems = [(problem.kind, Path(problem.path).name) for problem in lake.verify().problems]
        assert sorted(problems) == ([] if harm == "gone" else sorted(("derived", n) for n in names))
        assert lake.sql(query).fetchall() == [(1,)]
        assert indexing.build_missing(lake.store, "main") == 3
        assert lake.explain(query) == (1, 3)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole


def test_an_index_of_an_earlier_version_is_no_damage(compacted: lakelog.Lake) -> None:
    """F8.14: what an older lakelog left is rebuilt without a word, unless it is damaged."""
    file, damaged, *_ = sorted(Path(compacted.store.paths.word_indexes).iterdir())
    whole = {path: path.read_bytes() for path in (file, damaged)}
    for path, data in whole.items():
        end = 64 + int.from_bytes(data[20:24], "little")
        # It said nothing of its frames.
        summed = data[8:24] + bytes(4) + data[28:end]
        path.write_bytes(b"LKX2" + struct.pack("<I", zlib.crc32(summed)) + summed + data[end:])
    damaged.write_bytes(damaged.read_bytes()[:100] + b"?" + whole[damaged][101:])
    with lakelog.open(compacted.path, create=False) as lake:
        assert [Path(problem.path).name for problem in lake.verify().problems] == [damaged.name]
        query = "SELECT count(*) FROM events WHERE search('n22222')"
        assert lake.sql(query).fetchall() == [(1,)]
        assert indexing.build_missing(lake.store, "main") == 2
    assert {path: path.read_bytes() for path in whole} == whole


def test_every_cut_and_flip_is_noticed() -> None:
    """No byte of an index can be wrong: it is none, or the words are looked for in all blocks."""
    data = index_of([{f"w{n}": 15 for n in range(50)}], {"w7": [1] * 32}, [("w3", "w4")])
    joined, parted = JoinedWords(("w3", "w4")), JoinedWords(("w4", "w3"))
    assert word_index.decode(data, DIGEST)
    assert word_index.decode(data, "ce" * 32) is None
    every = 2**32 - 1
    for place in range(len(data)):
        assert word_index.decode(data[:place], DIGEST) is None
        flipped = data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]
        index = word_index.decode(flipped, DIGEST)
        assert not word_index.is_whole(flipped, DIGEST)
        if index and index.blocks(joined) != every:  # zstd has a bit that says nothing
            assert (index.blocks("w9"), count(index, "w7")) == (15, 32)
            assert (index.blocks(joined), index.blocks(parted)) == (15, 0)
        elif index:
            assert index.blocks(joined) == index.blocks(parted) == every
            is_whole = index.blocks("w9") != every
            assert count(index, "w7") == (32 if is_whole else None)
            assert index.blocks(WordPiece("w9", begins=True, ends=False)) in (15, every)


@pytest.mark.parametrize("frame", [b"x" * 40, b"", zstandard.compress(bytes(2**27))])
def test_an_index_that_somebody_made_hides_nothing(frame: bytes) -> None:
    """Whatever a frame has, though all sums are right, it counts as one that may have any word."""
    data = index_of([{f"w{n}": 15 for n in range(50)}], {})
    size = struct.unpack_from("<I", data, 20)[0]
    sizes = struct.unpack_from("<III", data, 64 + 520)
    for number in range(3):
        changed = [len(frame) if n == number else s for n, s in enumerate(sizes)]
        frames = [data[64 + size + sum(sizes[:n]) :][: sizes[n]] for n in range(3)]
        frames[number] = frame
        directory = data[64 : 64 + 520] + struct.pack("<III", *changed) + data[64 + 532 : 64 + size]
        index = word_index.decode(
            word_index.encode(DIGEST, 65_536, [(directory, b"".join(frames))]), DIGEST
        )
        assert index is not None
        assert index.blocks(JoinedWords(("w7", "w8"))) == 2**32 - 1
        if number < 2:
            assert index.blocks("w7") == 2**32 - 1
            assert count(index, "w7") is None


def test_indexes_go_with_their_segments(compacted: lakelog.Lake) -> None:
    """What compaction merged has no index any more; what it wrote has one."""
    segments = {path.stem for path in Path(compacted.path, "segments").rglob("*.parquet")}
    assert len(os.listdir(compacted.store.paths.word_indexes)) == 3
    assert set(os.listdir(compacted.store.paths.word_indexes)) <= segments
    files = Path(compacted.store.paths.word_indexes).iterdir()
    assert compacted.stats().words_bytes == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(
    ("word", "times"),
    [
        ("step", {}),
        ("n12345", {}),
        ("n7", {}),
        ("odd", {"since": "2026-03-01T00:03:20.5", "until": "2026-03-01T00:17"}),
        ("odd", {"since": "2026-03-01T00:10", "until": "2026-03-01T00:10:09"}),
        ("step", {"since": "2h"}),
        ("nothing", {}),
    ],
)
def test_histograms_of_words_are_those_of_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, times: dict[str, str]
) -> None:
    """By counts of blocks and reading the others, with a tail: as many events in each span."""
    monkeypatch.setattr(word_index, "BLOCK", 64)
    monkeypatch.setattr(word_index, "PART", 2_048)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    dice = random.Random(3)
    with lakelog.open(tmp_path / "lake", settings={"segment_rows": ROWS + 1}) as lake:
        for first in range(0, 2 * ROWS, ROWS):
            for half in (0, ROWS // 2):
                lake.append(
                    {
                        "type": dice.choice("ab"),
                        "time": (start + timedelta(seconds=n / 10)).isoformat(),
                        "message": f"step n{n}" + " odd odd" * (n % 2 and n % 3_000 > 900),
                    }
                    for n in range(first + half, first + half + ROWS // 2)
                )
            lake.compact()
        lake.append([{"type": "a", "time": "2026-03-01T00:00:01", "message": "step n7 odd"}] * 3)
        lake.append([{"type": "a", "message": "step"}] * (times == {"since": "2h"}))
        query = Search.of(word, **times).histogram()
        assert WordHistogram.of(query)
        bars = lake.sql(query).fetchall()
        lake.compact()
        assert lake.sql(query).fetchall() == bars
    for file in Path(lake.store.paths.word_indexes).iterdir():
        file.unlink()
    with lakelog.open(lake.path, create=False) as lake:
        assert lake.sql(query).fetchall() == bars


@pytest.mark.parametrize("tail", ["abé", "éab", "ab\u0301", "x\nabé"])
def test_words_of_the_tail_end_at_any_letter(tmp_path: Path, tail: str) -> None:
    """What is not sealed yet is searched by patterns for its letters: whole words of ASCII are not
    found in words of others, whichever column has them, and are found beside them."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([{"type": "log", "message": "Step ab end"}])
        # The first ones are answered by scans of frames.
        assert [lake.search("ab").to_arrow_table().num_rows for _ in range(10)] == [1] * 10
        lake.append([{"type": "log", "message": tail}, {"type": "log", "data": {"a": tail}}])
        assert lake.search("ab").to_arrow_table().num_rows == 1
        lake.append([{"type": "log", "message": f"{tail} ab"}])
        assert lake.search("ab").to_arrow_table().num_rows == 2
