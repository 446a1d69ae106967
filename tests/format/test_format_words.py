"""F8.14: the bytes of word indexes."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path

import duckdb

import lakelog
from tests.support import statements


def test_word_indexes(tmp_path: Path) -> None:
    """F8.14: a compacted segment's index has the blocks of its words, where the statement says."""
    path = str(tmp_path / "lake")
    texts = [
        f"Step{n} {n // 2_048}x caf\u00e9 \u6771\u4eac {'long' * (n % 9)}" for n in range(5_000)
    ]
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        lake.append([{"type": "T", "data": {"t": f"{t}\n"}} for t in texts])
        lake.compact()
    (name,) = os.listdir(f"{path}/cache/words")
    data = Path(path, "cache/words", name).read_bytes()
    assert Path(path, f"segments/{name[:2]}/{name}.parquet").exists()
    magic, crc, rows, engine, digest = struct.unpack_from("<4sIQI12x32s", data)
    assert (magic, crc, rows) == (b"LKW1", zlib.crc32(data[8:]), 5_000)
    assert (engine, digest.hex()) == (zlib.crc32(duckdb.__version__.encode()), name)
    blocks, counts = statements.word_blocks(data[64:])
    for number, text in enumerate(texts):
        for word in (
            "t",
            "\\",
            "\x80",
            *re.findall(r"[\u6771\u4eac]|[a-z0-9\u00e9]+", text.lower()),
        ):
            assert blocks(word) >> number // 2_048 & 1
    assert [blocks(word) for word in ("0x", "1x", "2x", "x", "step")] == [1, 2, 4, 0, 0]
    assert sum(blocks(f"no{n}") > 0 for n in range(1000)) < 20
    expected = {f"{n}x": 2_048 for n in range(2)} | {"2x": 904, "t": 5_000, "caf": 0}
    assert {word: counts.get(word, 0) for word in expected} == expected
