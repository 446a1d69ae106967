"""Typed segments by their statements, on real files, with a reader that shares no code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakelog.event import EncodedBatch
from tests.support import lakes, second_reader, statements
from tests.support.json_documents import ACCEPTED

KINDS = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "number": pa.float64(),
    "bool": pa.bool_(),
    "json": pa.string(),
}
WORDS = "é model latency token cache retry timeout segment audio speech queue worker".split()
NUMBERS = [0.5, -0.0, 1e16, 1e15, 1e-4, 1e-5, 123456.789, 5e-324, 1.7976931348623157e308, 1e22, 3.0]


def payloads() -> dict[str, str]:
    """Payloads of every kind, by their ids."""
    values: list[Any] = [
        {
            "text": f'é"\\\b\t\n\f\r/\x7f{n}\u2028',
            "int": -n,
            "float": NUMBERS[n % len(NUMBERS)],
            "number": [n, n + 0.25][n % 2],
            "bool": n % 2 == 0,
            "null": None if n % 3 else "x",
            "mixed": [n, "a", [n], {"b": n}][n % 4],
            "object": {"x": n} | ({"y": "z"} if n % 2 else {}),
            "list": [[None, n * 0.5][n % 2], 1.5],
            "objects": [{"p": n}, {}, None],
            "words": " ".join(WORDS[n * k % 97 % len(WORDS)] for k in range(9)),
            "inner": {"numbers": f"https://example.com/é/{n * 7919 % 1000:03d}?id={n * n}"},
        }
        for n in range(200)
    ]
    texts = [orjson.dumps(value).decode() for value in values] + ACCEPTED + ["null"]
    # orjson writes exponents in another way than F4.7.
    texts += [json.dumps(value, separators=(",", ":"), ensure_ascii=False) for value in values]
    texts += [text.replace('"int":-', '"int":-9') for text in texts[:200]]
    return {f"e{n}": text for n, text in enumerate(texts)}


def built(path: str, spaced: bool = False) -> dict[str, str | None]:
    """Make a lake of one typed segment; return the payloads of its events by id."""
    texts: dict[str, str | None] = {**payloads()}
    if spaced:
        values = [json.loads(text) for text in list(payloads().values())[-200:]]
        texts = {
            f"s{n}": json.dumps(value | {"mixed": n}, ensure_ascii=False)
            for n, value in enumerate(values)
        }
    head = '{"time":"2026-01-01T00:00:00Z","type":"t","id":"'
    lines = [f'{head}{name}","data":{text}}}'.encode() for name, text in texts.items()]
    with lakes.opened(path) as lake:
        lake.append_encoded(EncodedBatch(b"\n".join(lines), [None] * len(lines), False))
        lake.compact()
    return texts | ({} if spaced else {n: None for n, text in texts.items() if text == "null"})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str | None]]:
    """A lake of one typed segment, and its payloads."""
    path = tmp_path_factory.mktemp("typed") / "lake"
    return path, built(str(path))


def segment(lake: Path, layout: bytes = b"sorted") -> pq.ParquetFile:
    """The segment of a layout of a lake."""
    files = [pq.ParquetFile(path) for path in (lake / "segments").rglob("*.parquet")]
    (found,) = (f for f in files if f.metadata.metadata[b"lakelog.layout"] == layout)
    return found


def test_segments_of_loaded_files(tmp_path: Path) -> None:
    """F4.6: a segment of a long file is typed in the order of arrival, and its entry says so; a
    reader that follows the statements gets the payloads."""
    path, texts = tmp_path / "lake", dict[str, str | None]()
    for n in range(17_000):
        text = orjson.dumps(
            {"n": n, "s": f"é{n % 7}", "f": n / 4} | ({"o": {"p": n}} if n % 9 else {})
        )
        texts[f"e{n:070d}"] = text.decode() if n % 5 else f'{{"n": {n}}}'
    head = '{"time":"2026-01-01T00:00:00Z","type":"t","subject":"%s","message":"%s","data":%s}\n'
    lines = [head % (name, "m" * 400, text) for name, text in texts.items()]
    (tmp_path / "long.ndjson").write_text("".join(lines), "utf-8")
    with lakes.opened(str(path)) as lake:
        lake.ingest(str(tmp_path / "long.ndjson"))
    file = segment(path, b"arrival")
    assert file.schema_arrow.names[-2:] == ["position", "fields"]
    entries = [entry for state in statements.carried(path).values() for entry in state["tail"]]
    (entry,) = (e for e in entries if e.get("layout") == "arrival")
    key = hashlib.sha256(file.metadata.metadata[b"lakelog.fields"]).hexdigest()[:16]
    structs = sum(row["fields"] is not None for row in file.read(["fields"]).to_pylist())
    assert (entry["fields"], entry["texts"]) == (key, len(texts) - structs)
    assert 0 < structs < len(texts)
    found = {row["subject"]: row["data"] for row in second_reader.rows(str(path))}
    assert {name: json.loads(str(text)) for name, text in found.items()} == {
        name: json.loads(str(text)) for name, text in texts.items()
    }


def test_columns_of_typed_segments(lake: tuple[Path, dict[str, str | None]]) -> None:
    """F4.6, F4.7: `fields` comes last, of the types that the schema says, and one of it and `data`
    is null; lakelog.text_bytes is the length of the payloads that it stands for."""
    path, texts = lake
    file = segment(path)
    names = file.schema_arrow.names
    assert names[-2:] == ["seq", "fields"]
    schema = json.loads(file.metadata.metadata[b"lakelog.fields"])
    assert arrow({"kind": "object", **schema}) == file.schema_arrow.field("fields").type
    rows = file.read().to_pylist()
    assert all(row["data"] is None or row["fields"] is None for row in rows)
    typed = [texts[row["id"]] or "" for row in rows if row["fields"] is not None]
    size = int(file.metadata.metadata[b"lakelog.text_bytes"])
    assert (len(typed) > 200, sum(len(text.encode()) for text in typed)) == (True, size)


def arrow(member: dict[str, Any]) -> pa.DataType:
    """The type of a member's column by F4.7."""
    if member["kind"] == "object":
        return pa.struct([(each["name"], arrow(each)) for each in member["members"]])
    if member["kind"] == "list":
        (element,) = member["members"]
        assert (element["name"], element["null"]) == ("", True)
        return pa.list_(pa.field("element", arrow(element)))
    return KINDS[member["kind"]]


def test_entries_of_typed_segments(lake: tuple[Path, dict[str, str | None]]) -> None:
    """F6.7: the entry names the schema by its key, and counts the payloads in `data`."""
    path, _ = lake
    file = segment(path)
    key = hashlib.sha256(file.metadata.metadata[b"lakelog.fields"]).hexdigest()[:16]
    texts = sum(row["data"] is not None for row in file.read().to_pylist())
    entries = statements.segment_entries(path)
    (entry,) = (e for e in entries if e.get("layout") == "sorted")
    assert (entry["fields"], entry["texts"]) == (key, texts)
    assert texts > 0


@pytest.mark.parametrize("spaced", [False, True])
def test_the_text_of_typed_payloads(spaced: bool, tmp_path: Path) -> None:
    """F4.7, F4.8: a reader that follows the statements gets every payload's own text."""
    path = tmp_path / "lake"
    texts = built(str(path), spaced)
    rows = second_reader.rows(str(path))
    assert {row["id"]: row["data"] for row in rows} == texts
    schema = segment(path).metadata.metadata[b"lakelog.fields"].decode()
    assert set(schema.split('"')) >= {"text", "int", "float", "number", "bool", "object", "list"}
    assert '"kind":"words"' not in schema
    assert '"kind":"numbers"' not in schema
