"""F8.14: the bytes of word indexes."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

import lakelog
from tests.support import statements


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
    magic, crc, rows, engine, size, digest = struct.unpack_from("<4sIQII8x32s", data)
    assert (magic, crc, rows) == (b"LKX2", zlib.crc32(data[8 : 64 + size]), 5_000)
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


def blake2b(word: str) -> str:
    """The hash by which a long word is known."""
    return hashlib.blake2b(word.encode(), digest_size=16).hexdigest()
