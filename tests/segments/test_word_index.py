"""Word indexes: a search reads only blocks that may have its words, and misses no row."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
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
from lakelog.segments import segment_sql, tokens, word_index
from lakelog.segments.word_index import AllOf, AnyOf

ROWS = 9_000
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


@given(before=TEXTS, fragment=TEXTS, behind=TEXTS)
def test_what_contains_a_fragment_has_its_words(
    cursor: duckdb.DuckDBPyConnection, before: str, fragment: str, behind: str
) -> None:
    """The words that are certain of a fragment are among those of every text around it."""
    fragment = fragment.lower()
    ((text,),) = cursor.execute("SELECT lower(?)", [before + fragment + behind]).fetchall()
    certain = tokens.of_fragment(cursor, fragment, is_open_before=True, is_open_behind=True)
    assert set(map(tokens.of_word, certain)) <= set(words_of(cursor, [text])[0])


def test_escapes_are_taken_out(cursor: duckdb.DuckDBPyConnection) -> None:
    """The words of a payload are those of its strings, and a sign that it has escapes."""
    payloads = pa.array(['{"a":"x\\nfoo"}', None, '{"b":1}', '"caf\\u00e9"'], pa.string())
    words: list[set[int]] = [set() for _ in payloads]
    for piece in tokens.of_payloads(cursor, payloads):
        for row, hashed in zip(piece.rows, piece.hashes, strict=True):
            words[row].add(int(hashed))
    expected = [{"\\", "a", "x", "foo"}, set(), {"b", "1"}, {"\\", "café", "\x80"}]
    assert words == [set(map(tokens.of_word, texts)) for texts in expected]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1_000, 40_000])
def test_no_word_is_denied(count: int) -> None:
    """Whatever words a part has, its table gives the blocks of each; hardly any of others."""
    dice = np.random.default_rng(count)
    hashes = dice.integers(0, 2**64, count, np.uint64, endpoint=False)
    blocks = dice.random((count, 32)) < 0.1
    parts = [word_index.encode_part(hashes, mask, {}) for mask in (blocks, ~blocks)]
    digest = "ab" * 32
    index = word_index.decode(word_index.encode(digest, 100_000, parts), digest)
    assert index is not None
    masks = np.packbits(blocks, axis=1, bitorder="little").view("<u4").ravel()
    for hashed, mask in zip(hashes.tolist()[:500], masks.tolist(), strict=False):
        whole = mask | (~mask & 0xFFFFFFFF) << 32
        assert index.blocks(hashed) & whole == whole
        assert index.blocks(AllOf((hashed, hashed))) == index.blocks(hashed)
        assert index.blocks(AnyOf((hashed, 5))) == index.blocks(hashed) | index.blocks(5)
    strangers = dice.integers(0, 2**64, 1_000, np.uint64, endpoint=False).tolist()
    assert sum(index.blocks(hashed) > 0 for hashed in strangers) < 30


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
    assert compacted.explain(query.format("n1 OR *22222")) == (3, 3)
    assert compacted.explain(query.format("-n1")) == (3, 3)
    assert compacted.sql("SELECT count(*) FROM events WHERE search('step')").fetchall() == [
        (27_000,)
    ]


def test_words_are_counted_without_reading(compacted: lakelog.Lake) -> None:
    """The number of events with a frequent word comes from the indexes, and is that of a scan."""
    query = "SELECT count(*) AS found FROM events WHERE search('{}')"
    compacted.append(
        [{"type": "log", "message": "one more step step", "data": {"end": "end"}}] * 40
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_sql, "queries", lambda *_: pytest.fail("a segment is read"))
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


def test_every_cut_and_flip_is_noticed() -> None:
    """No byte of an index can be wrong."""
    part = word_index.encode_part(
        np.arange(50, dtype=np.uint64) << np.uint64(58), np.ones((50, 32), bool), {b"a": 7}
    )
    digest = "cd" * 32
    data = word_index.encode(digest, 10, [part])
    assert word_index.decode(data, digest)
    assert word_index.decode(data, "ce" * 32) is None
    for place in range(len(data)):
        assert word_index.decode(data[:place], digest) is None
        flipped = data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]
        assert word_index.decode(flipped, digest) is None


@pytest.mark.parametrize("frame", [b"x" * 40, b"", zstandard.compress(bytes(2**27))])
def test_an_index_that_somebody_made_hides_nothing(frame: bytes) -> None:
    """Whatever a frame has, though all sums are right, it counts as one that may have any word."""
    digest = "cd" * 32
    hashes = np.arange(50, dtype=np.uint64) << np.uint64(58)
    part = word_index.encode_part(hashes, np.zeros((50, 32), bool), {})
    count, bits, size, _ = struct.unpack_from("<IIII", part)
    details = struct.pack("<IIII", count, bits, size, len(frame)) + part[16 : 16 + size] + frame
    index = word_index.decode(word_index.encode(digest, 10, [details]), digest)
    assert index is not None
    assert index.blocks(int(hashes[7])) == 2**32 - 1
    assert index.count("step") in (0, None)
    table = struct.pack("<IIII", count, bits, len(frame), 0) + frame
    assert word_index.decode(word_index.encode(digest, 10, [table]), digest) is None


def test_indexes_go_with_their_segments(compacted: lakelog.Lake) -> None:
    """What compaction merged has no index any more; what it wrote has one."""
    segments = {path.stem for path in Path(compacted.path, "segments").rglob("*.parquet")}
    assert len(os.listdir(compacted.store.paths.word_indexes)) == 3
    assert set(os.listdir(compacted.store.paths.word_indexes)) <= segments
    files = Path(compacted.store.paths.word_indexes).iterdir()
    assert compacted.stats().words_bytes == sum(file.stat().st_size for file in files)
