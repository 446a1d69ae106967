"""Typed segments: compaction stores payloads as columns, and their text stays what it was."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog import typed_columns
from lakelog.entries.entry import SegmentEntry
from lakelog.event import EncodedBatch
from lakelog.segments import Segment, segment
from lakelog.typed_columns.schema import DEPTH_MAX
from tests.support import effort
from tests.support.json_documents import ACCEPTED, RECORDS, VALUES
from tests.support.real_files import DATA
from tests.support.requirements import need, need_module

MakeLake = Callable[..., lakelog.Lake]


def append(lake: lakelog.Lake, payloads: list[str], kind: str = "t") -> None:
    """Append events with payloads of exactly this text, sealed into a segment of their own."""
    head = f'{{"time":"2026-01-01T00:00:00Z","type":"{kind}","data":'
    lines = [f"{head}{text}}}".encode() for text in payloads]
    lake.append_encoded(EncodedBatch(b"\n".join(lines), [None] * len(lines), False))
    lake.settle()


def segments(lake: lakelog.Lake) -> list[SegmentEntry]:
    """Return the event segments of the branch."""
    return [e for e in lake.store.manifests.segments(lake.store.state("main")) if e.events]


def stored(lake: lakelog.Lake) -> list[str | None]:
    """Return the payloads of all segments in order of seq, by the Arrow reader and by SQL."""
    rows = list[tuple[int, str | None]]()
    for entry in segments(lake):
        table = segment.Segment(lake.store.paths, entry.key).read()
        first = range(entry.seq[0], entry.seq[0] + entry.events)
        seqs = table["seq"].to_pylist() if entry.layout == "sorted" else first
        rows += zip(seqs, table["data"].to_pylist(), strict=True)
    texts = [text for _, text in sorted(rows, key=lambda row: row[0])]
    queried = lake.sql("SELECT data FROM events ORDER BY seq").fetchall()
    assert [text for (text,) in queried] == texts
    return texts


def share_typed(lake: lakelog.Lake) -> float:
    """Return the part of the rows whose payload is a struct."""
    found = segments(lake)
    assert all(e.layout == "sorted" for e in found)
    return sum(e.events - e.text_rows for e in found if e.fields) / sum(e.events for e in found)


def schema(lake: lakelog.Lake) -> typed_columns.Schema:
    """Return the schema of the only segment."""
    (entry,) = segments(lake)
    return typed_columns.Schema.of_entry(lake.store.paths, entry)


def records(count: int, **more: Any) -> list[str]:
    """Return payloads of one program."""
    return [
        orjson.dumps(
            {"n": n, "ratio": n / 7 + 0.5, "name": f"é{n}", "ok": n % 2 == 0} | more
        ).decode()
        for n in range(count)
    ]


def test_every_document_keeps_its_text(lake: lakelog.Lake) -> None:
    """Spellings that a struct does not give back stay text, among rows that become typed."""
    texts = [*ACCEPTED, *records(len(ACCEPTED))]
    append(lake, texts)
    lake.compact()
    assert stored(lake) == texts
    assert 0.3 < share_typed(lake) < 1


@pytest.mark.parametrize("name", ["y_", "i_"])
def test_documents_of_the_json_test_suite_keep_their_text(name: str, lake: lakelog.Lake) -> None:
    """Accepted documents of JSONTestSuite, those that parsers may refuse too."""
    folder = DATA / "jsontestsuite" / "test_parsing"
    need("../shared")
    texts = list[str]()
    for path in sorted(folder.glob(f"{name}*.json")):
        try:
            text = path.read_text("utf-8").removesuffix("\n").replace("\n", " ")
            orjson.loads(text)
        except ValueError:
            continue
        texts.append(text)
    assert texts
    texts += [f'{{"a":{text}}}' for text in texts] + records(20)
    append(lake, texts)
    before = stored(lake)
    lake.compact()
    assert stored(lake) == before
    assert share_typed(lake) > 0.1


@pytest.mark.timeout(2400)
@settings(max_examples=1_000 if effort.IS_WHOLE else 6)
@given(
    st.lists(RECORDS | VALUES, min_size=100, max_size=100),
    st.sampled_from([orjson.dumps, json.dumps, partial(json.dumps, ensure_ascii=False)]),
)
def test_generated_documents_keep_their_text(
    engine: duckdb.DuckDBPyConnection, values: list[Any], dump: Callable[[Any], Any]
) -> None:
    """Whatever compact or spaced JSON is written, its text comes back: of 600 documents, and of a
    hundred thousand by `make torture`."""
    texts = list[str]()
    for value in values:
        with contextlib.suppress(TypeError):  # numbers that orjson does not write
            text = dump(value)
            texts.append(text if isinstance(text, str) else text.decode())
    given_rows = pa.table({"data": pa.array(texts, pa.string())})
    typing = typed_columns.PayloadTyping(engine)
    columns = typing.choose(given_rows)
    if columns is None:
        return
    rows, size = typing.convert(columns.schema, given_rows)
    gone = [t for t, still in zip(texts, rows["data"].to_pylist(), strict=True) if still is None]
    assert size == sum(len(text.encode()) for text in gone)
    back = typed_columns.restored(engine, columns.schema, rows)
    assert back["data"].to_pylist() == texts


def test_structs_of_another_schema_are_read_as_text(engine: duckdb.DuckDBPyConnection) -> None:
    """Rows that are structs already, of this schema, another one or texts in parts, become structs
    of the schema that is chosen; those that are spelled otherwise stay text."""
    values = [
        {"u": f"https://e/{n}", "n": n, "o": {"w": f"a {n % 3} c"}} | ({} if n % 4 else {"x": "y"})
        for n in range(40)
    ]
    values += [{"u": "https://e/007", "n": 1}, {"u": "other"}, {"n": 2, "o": {}}, {"n": 3}]
    texts = [orjson.dumps(value).decode() for value in values] + ['{"n": 1}', "null"]
    number, word = typed_columns.Member("n", "int"), typed_columns.Member("w", "text")
    inner = typed_columns.Member("o", "object", members=(word,))
    plain = typed_columns.Schema(
        (typed_columns.Member("u", "text"), number, inner, typed_columns.Member("x", "text"))
    )
    fewer = typed_columns.Schema(plain.members[:3])
    typing = typed_columns.PayloadTyping(engine)
    first, size = typing.convert(plain, pa.table({"data": pa.array(texts, pa.string())}))
    second, less = typing.convert(fewer, first, plain)
    third, more = typing.convert(plain, second, fewer)
    for schema, rows, total in (
        (plain, first, size),
        (fewer, second, size + less),
        (plain, third, size + less + more),
    ):
        gone = [t for t, d in zip(texts, rows["data"].to_pylist(), strict=True) if d is None]
        assert total == sum(map(len, gone))
        assert typed_columns.restored(engine, schema, rows)["data"].to_pylist() == texts
    assert orjson.dumps(values[0]).decode() in second["data"].to_pylist()
    assert third["data"].to_pylist() == first["data"].to_pylist()


def test_an_object_of_many_kinds_is_typed(lake: lakelog.Lake) -> None:
    """Plain readers see the values of payloads as columns of their own types."""
    values = [
        {
            "text": f"t{n}",
            "int": n - 5,
            "float": n + 0.25,
            "number": n if n % 2 else n + 0.5,
            "bool": n % 3 == 0,
            "nothing": None,
            "mixed": [n, str(n), None, {"a": n}][n % 4],
            "object": {"x": n, "deep": {"y": [n]}},
            "list": [str(n)] * (n % 3),
            "objects": [{"p": n}, {"q": "r"}],
        }
        for n in range(60)
    ]
    texts = [orjson.dumps(value).decode() for value in values]
    append(lake, texts)
    lake.compact()
    assert share_typed(lake) == 1
    kinds = {member.name: member.kind for member in schema(lake).members}
    assert kinds == {
        "text": "text",
        "int": "int",
        "float": "float",
        "number": "number",
        "bool": "bool",
        "nothing": "json",
        "mixed": "json",
        "object": "object",
        "list": "list",
        "objects": "list",
    }
    (entry,) = segments(lake)
    table = pq.read_table(lake.store.paths.object("segments", entry.key))
    assert table["data"].null_count == 60
    rows = table["fields"].to_pylist()
    for name in ("text", "int", "float", "number", "bool", "nothing", "object", "list"):
        assert [row[name] for row in rows] == [value[name] for value in values]


def test_plain_readers_see_the_same_fields(lake: lakelog.Lake) -> None:
    """Polars, pandas and DuckDB read the columns of a typed segment as pyarrow does."""
    append(lake, records(50))
    lake.compact()
    (entry,) = segments(lake)
    path = lake.store.paths.object("segments", entry.key)
    rows = pq.read_table(path)["fields"].to_pylist()
    assert rows == [json.loads(text) for text in records(50)]
    queried = duckdb.execute("SELECT fields FROM read_parquet(?)", [path]).fetchall()
    assert [row for (row,) in queried] == rows
    assert need_module("polars").read_parquet(path)["fields"].to_list() == rows
    assert list(need_module("pandas").read_parquet(path)["fields"]) == rows


def test_repair_rebuilds_the_entry_of_a_typed_segment(lake: lakelog.Lake) -> None:
    """The schema and the number of texts are in the file, for a state that has to be rebuilt."""
    append(lake, [*records(50), "[1]"])
    lake.compact()
    (entry,) = segments(lake)
    rebuilt = Segment(lake.store.paths, entry.key).describe()
    assert dataclasses.replace(rebuilt, seq=entry.seq, made_from=entry.made_from) == entry
    assert (len(rebuilt.fields), rebuilt.text_rows) == (16, 1)


def test_rows_that_retention_keeps_stay_typed(lake: lakelog.Lake) -> None:
    """A segment that loses rows is written typed again, and the others keep their text."""
    texts = records(50)
    old = [line.replace('"n":', '"m":') for line in records(3)]
    lines = [f'{{"time":"2020-01-01T00:00:00Z","type":"t","data":{text}}}' for text in old]
    lake.append_encoded(EncodedBatch("\n".join(lines).encode(), [None] * 3, False))
    append(lake, texts)
    lake.compact()
    assert lake.retention("1000d", apply=True).events == 3
    assert (stored(lake), share_typed(lake)) == (texts, 1)


def test_spaced_payloads_are_typed(lake: lakelog.Lake) -> None:
    """What json.dumps wrote with its defaults comes back with its spaces."""
    values = [{"a": n, "b": {"c": [n, n + 1]}, "d": "x", "e": [{"f": 0.5}]} for n in range(30)]
    texts = [json.dumps(value) for value in values]
    append(lake, texts)
    lake.compact()
    assert (stored(lake), share_typed(lake), schema(lake).spaced) == (texts, 1, True)


def test_null_and_absent_members_stay_apart(lake: lakelog.Lake) -> None:
    """Of null and absence the rarer one keeps its rows as text."""
    texts = [
        f'{{"n":{n}' + ("" if n % 4 == 0 else ',"x":null' if n % 4 < 3 else ',"x":1') + "}"
        for n in range(80)
    ]
    append(lake, texts)
    lake.compact()
    assert (stored(lake), share_typed(lake)) == (texts, 0.75)


def test_payloads_that_are_no_objects_stay_text(lake: lakelog.Lake) -> None:
    """Where a struct fits hardly any row, the segment is an ordinary one."""
    texts = [*(f"[{n},2]" for n in range(90)), '{"a":1}', "{}"]
    append(lake, texts)
    lake.compact()
    (entry,) = segments(lake)
    assert (stored(lake), entry.fields, entry.text_rows) == (texts, "", 0)
    names = pq.read_schema(lake.store.paths.object("segments", entry.key)).names
    assert "fields" not in names


def test_rows_without_payload_have_none(lake: lakelog.Lake) -> None:
    """No payload is neither a struct nor a text."""
    append(lake, ["null", '{"a":1}', "null", '{"a":2}', "{}"])
    lake.compact()
    (entry,) = segments(lake)
    assert stored(lake) == [None, '{"a":1}', None, '{"a":2}', "{}"]
    assert entry.text_rows == 0


def test_a_schema_is_kept_while_it_fits(lake: lakelog.Lake) -> None:
    """Typed segments and later ones of the same program have one schema, merged ones too."""
    append(lake, records(50))
    lake.compact()
    first = schema(lake)
    append(lake, [text for text in records(60) if '"ok":true' in text])
    lake.compact()
    assert schema(lake) == first
    append(lake, records(70))
    lake.compact()
    assert schema(lake) == first
    assert (len(stored(lake)), share_typed(lake)) == (150, 1)


def test_a_schema_grows_with_the_program(lake: lakelog.Lake) -> None:
    """New members join, whole numbers and fractions become one kind, and dropped ones stay."""
    texts = [f'{{"a":{n},"b":{n}}}' for n in range(50)]
    append(lake, texts)
    lake.compact()
    more = [f'{{"a":{n},"b":{n + 0.5},"c":"x"}}' for n in range(50)]
    append(lake, more)
    lake.compact()
    assert [(m.name, m.kind) for m in schema(lake).members] == [
        ("a", "int"),
        ("b", "number"),
        ("c", "text"),
    ]
    last = [f'{{"a":{n},"c":"y"}}' for n in range(500)]
    append(lake, last)
    lake.compact()
    assert [m.name for m in schema(lake).members] == ["a", "b", "c"]
    assert (stored(lake), share_typed(lake)) == ([*texts, *more, *last], 1)


def test_conflicting_types_in_every_file_stay_readable(lake: lakelog.Lake) -> None:
    """A member that is a text here and an object there is JSON, and every row keeps its text."""
    texts = list[str]()
    for value in ('"a"', "1", "1.5", "{}", '{"x":[1]}', "[1]", "true", "null"):
        part = [f'{{"n":{n},"x":{value}}}' for n in range(20)]
        append(lake, part)
        texts += part
    lake.compact()
    assert stored(lake) == texts
    assert share_typed(lake) > 0.85
    assert {m.name: m.kind for m in schema(lake).members} == {"n": "int", "x": "json"}


def test_ten_thousand_names_stay_few_columns(lake: lakelog.Lake) -> None:
    """An object that is used as a map is one column, and the columns are bounded."""
    texts = [f'{{"n":{n},"by":{{"k{n}":{n},"k{n + 1}":1}}}}' for n in range(10_000)]
    texts += [f'{{"n":{n},"top{n}":1}}' for n in range(2_000)]
    append(lake, texts)
    lake.compact()
    assert stored(lake) == texts
    members = {m.name: m.kind for m in schema(lake).members}
    assert (members["n"], members["by"]) == ("int", "json")
    assert len(members) <= 256
    assert share_typed(lake) > 0.8


def test_deep_payloads_are_json_from_some_depth(lake: lakelog.Lake) -> None:
    """64 levels are eight columns deep, and the rest is the text of the last."""
    texts = ['{"a":' * 63 + f'{{"n":{n}}}' + "}" * 63 for n in range(40)]
    append(lake, texts)
    lake.compact()
    assert (stored(lake), share_typed(lake)) == (texts, 1)
    depth, members = 0, schema(lake).members
    while members:
        depth, members = depth + 1, members[0].members
    assert depth <= DEPTH_MAX + 1


def test_long_payloads_stay_text(lake: lakelog.Lake) -> None:
    """Payloads above 64 KiB are never structs, so that conversion takes bounded memory."""
    long = orjson.dumps({"n": 1, "name": "x" * 70_000}).decode()
    texts = [*records(30), long]
    append(lake, texts)
    lake.compact()
    (entry,) = segments(lake)
    assert (stored(lake), entry.text_rows) == (texts, 1)


def test_names_that_structs_cannot_tell_apart(lake: lakelog.Lake) -> None:
    """Of names that differ only in case the more frequent one is a column."""
    texts = [f'{{"id":{n}}}' for n in range(60)] + [f'{{"ID":{n}}}' for n in range(20)]
    texts += ['{"id":1,"ID":2}'] * 5
    append(lake, texts)
    lake.compact()
    assert stored(lake) == texts
    assert [m.name for m in schema(lake).members] == ["id"]
    assert round(share_typed(lake), 2) == round(60 / 85, 2)


def test_real_documents_keep_their_text(lake: lakelog.Lake) -> None:
    """Records of the real data: lines, and the elements of the longest array of each file."""
    need("../shared")
    files = [p for p in sorted(DATA.rglob("*.json*")) if "test_parsing" not in p.parts]
    assert files
    texts = list[str]()
    for path in files:
        for line in path.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                orjson.loads(line)
                texts += [line.strip()] * (line.strip() != "null")
        with contextlib.suppress(ValueError, TypeError):  # a document of several lines
            value = orjson.loads(path.read_bytes())
            while isinstance(value, dict):
                value = max(value.values(), key=lambda each: len(orjson.dumps(each)))
            texts += [orjson.dumps(each).decode() for each in value]
    append(lake, texts)
    lake.compact()
    assert stored(lake) == texts


@pytest.mark.thorough
@pytest.mark.matrix
def test_a_payload_of_100_mb_is_compacted(make_lake: MakeLake) -> None:
    """One huge value among typed ones stays text, and needs no multiple of its size."""
    lake = make_lake(memory_bytes=2_000_000_000)
    texts = [*records(2_000), orjson.dumps({"n": 1, "name": "x" * 100_000_000}).decode()]
    append(lake, texts)
    lake.compact()
    assert stored(lake) == texts
    assert share_typed(lake) > 0.99
