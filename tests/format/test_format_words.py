"""F8.14, F8.17: the bytes of word indexes, and the files of rank indexes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import struct
import zlib
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

import lakelog
from tests.support import statements
from tests.support.requirements import need_module


def test_word_indexes(tmp_path: Path) -> None:
    """F8.14: a compacted segment's index has the blocks of its words, where the statement says."""
    path = str(tmp_path / "lake")
    texts = [
        f"Step{n} {n // 2_048}x caf\u00e9 \u6771\u4eac {'long' * (n % 12)}" for n in range(5_000)
    ]
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        lake.append([{"type": "T", "data": {"t": f"{t}\n"}} for t in texts])
        lake.compact()
    (name,) = os.listdir(f"{path}/cache/words")
    data = Path(path, "cache/words", name).read_bytes()
    assert Path(path, f"segments/{name[:2]}/{name}.parquet").exists()
    magic, crc, rows, engine, size, frames, digest = struct.unpack_from("<4sIQIII4x32s", data)
    assert (magic, crc, rows) == (b"LKX3", zlib.crc32(data[8 : 64 + size]), 5_000)
    assert frames == zlib.crc32(data[64 + size :])
    assert (engine, digest.hex()) == (zlib.crc32(duckdb.__version__.encode()), name)
    blocks, counts, times = statements.word_blocks(data[64 : 64 + size], data[64 + size :])
    expected_blocks = dict[str, int]()
    for number, text in enumerate(texts):
        words = re.findall(r"[\u6771\u4eac]|[a-z0-9\u00e9]+", text.lower())
        for word in ("t", "\\", "\x80", *words):
            stored = word if len(word) <= 40 else "\x01" + blake2b(word)
            expected_blocks[stored] = expected_blocks.get(stored, 0) | 1 << number // 2_048
    assert blocks == expected_blocks
    assert (counts["0x"][:4], counts["2x"][:4]) == ([2_048, 0, 0, 0], [0, 0, 904, 0])
    assert (sum(counts["t"]), sum(counts["caf\u00e9"])) == (5_000, 5_000)
    assert not {"step7", "caf"} & set(counts)
    rows_in_order = pq.read_table(f"{path}/segments/{name[:2]}/{name}.parquet")["time"]
    micros = [int(t.value) for t in rows_in_order]
    for number, place in enumerate(range(0, 5_000, 2_048)):
        block = micros[place : place + 2_048]
        assert times[number] == (min(block), max(block))
    assert set(times[3:]) == {(2**63 - 1, -(2**63))}


def test_joined_words(tmp_path: Path) -> None:
    """F8.14: the filter of a part has the pairs of words that a text joins, in the bits that the
    statement says; too many pairs of numbers are left out, and then nothing is known of them."""
    for a, has_numbers in ((11, True), (95, False)):
        path = str(tmp_path / f"lake{a}")
        numbers_of = [(n % a, n * 7 % (a + 2), n % (a - 6), n % (a - 1)) for n in range(9_000)]
        texts = [f"Id{q % 7}_{r % 5} {q}.{r} {s}.{t}, y" for q, r, s, t in numbers_of]
        with lakelog.open(path, settings={"seal": "never"}) as lake:
            lake.append([{"type": "T", "time": n, "message": text} for n, text in enumerate(texts)])
            lake.compact()
        (file,) = Path(path, "cache/words").iterdir()
        data = file.read_bytes()
        (size,) = struct.unpack_from("<I", data, 20)
        directory, frames = data[64 : 64 + size], data[64 + size :]
        blocks, _, _ = statements.word_blocks(directory, frames)
        numbers = {name: number for number, name in enumerate(sorted(blocks))}
        found = (re.findall(r"\w+", text.lower().replace("_", " ")) for text in texts)
        pairs = {tuple(words[place : place + 2]) for words in found for place in (0, 2, 4)}
        wide = {p for p in pairs if all(blocks[name].bit_count() >= 4 for name in p)}
        kept = {p for p in wide if has_numbers or not all(map(str.isdigit, p))}
        assert (len(wide) > 6_750 * 8 // 6) is not has_numbers
        keys = [numbers[first] << 22 | numbers[second] for first, second in kept]
        expected = bytes([not has_numbers]) + statements.bloom(keys, len(keys) * 6 // 8)
        assert statements.joint_filter(directory, frames) == expected


def blake2b(word: str) -> str:
    """The hash by which a long word is known."""
    return hashlib.blake2b(word.encode(), digest_size=16).hexdigest()


def test_rank_indexes(tmp_path: Path) -> None:
    """F8.17: any program that has tantivy reads the index of a segment, whose files are as its list
    of checksums says."""
    tantivy = need_module("tantivy")
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(
            [{"type": "T", "message": f"Step{n} caf\u00e9", "data": "a\n"} for n in range(9)]
        )
        lake.settle()
        (first,) = lake.search("step3", rank=True).fetchall()
    (folder,) = (tmp_path / "lake/cache/ranks").iterdir()
    made_by, *lines = (folder / "lakelog").read_text().splitlines()
    versions = [importlib.metadata.version(name) for name in ("duckdb", "tantivy")]
    assert folder.name[64:] == f"-{zlib.crc32(made_by.encode()):08x}"
    assert made_by.replace(" v", " ").split() == ["LKR1", *versions]
    for checksum, name in (line.split() for line in lines):
        assert f"{zlib.crc32((folder / name).read_bytes()):08x}" == checksum
    index = tantivy.Index.open(str(folder))
    searcher = index.searcher()
    for word, count in {"step3": 1, "caf\u00e9": 9, "\\": 9, "a": 9}.items():
        query = tantivy.Query.term_query(index.schema, "words", word, "freq")
        assert searcher.search(query).count == count, word
    query = tantivy.Query.term_query(index.schema, "words", "step3", "freq")
    addresses = [address for _, address in searcher.search(query).hits]
    names = ("segment", "row", "seq")
    values = [searcher.fast_field_values(name, addresses)[0] for name in names]
    assert values == [int(folder.name[:15], 16) | 1, 3, first[-2]]
