"""Texts of payloads in parts: which are stored so, and that each is read as it was."""

from __future__ import annotations

import random
from collections.abc import Sequence

import duckdb
import orjson
import pyarrow as pa
import pytest

import lakelog
from lakelog.event.encode import EncodedBatch
from lakelog.segments import text_kinds, typed, typed_rows
from lakelog.segments.typed import Member, Schema

WORDS = "model latency token cache retry timeout segment audio speech queue worker batch".split()
SCHEMA = Schema(
    (
        Member("w", "words"),
        Member("n", "numbers", pieces=("a\"'%", 3, "/ep.", 1, "")),
        Member("o", "object", False, (Member("w", "words", null=True), Member("i", "int"))),
        Member("t", "numbers", pieces=(4, "-", 2)),
    )
)
FITTING = [
    "{}",
    '{"w":"","o":{"w":null}}',
    '{"w":" a  b ","n":"a\\"\'%007/ep.0"}',
    '{"w":"é","n":"a\\"\'%1234567/ep.999999999999999999","o":{"w":"a b","i":1},"t":"2026-01"}',
]
STRANGE = [
    '{"n":"a\\"\'%07/ep.1"}',
    '{"n":"a\\"\'%0070/ep.1"}',
    '{"n":"a\\"\'%007/ep.01"}',
    '{"n":"a\\"\'%007/epx1"}',
    '{"n":"a\\"\'%007/ep.1 "}',
    '{"n":"a\\"\'%007/ep.1\\n"}',
    '{"n":"a\\"\'%/ep."}',
    '{"n":"a\\"\'%007/ep.1234567890123456789"}',
    '{"n":"a\\"\'%٣٣٣/ep.1"}',
    '{"t":""}',
    '{"t":null}',
]


def _rebuilt(texts: Sequence[str | None]) -> list[str | None]:
    """Return what the structs of payloads give back, None for a payload that stays text."""
    cursor = duckdb.connect()
    structs, _ = typed_rows.prove(cursor, SCHEMA, pa.chunked_array([pa.array(texts, pa.string())]))
    cursor.register("rows", pa.table({"fields": structs}))
    return [row[0] for row in cursor.sql(f"SELECT {typed.text_sql(SCHEMA)} FROM rows").fetchall()]


def test_texts_in_parts_are_read_as_they_were() -> None:
    """Spaces, padding, quotes, absent members and nulls come back byte for byte."""
    plain = [text.replace('"o":{"w":null}', '"o":{"w":null,"i":2}') for text in FITTING]
    assert _rebuilt([*plain, None]) == [*plain, None]


def test_texts_that_do_not_fit_stay_text() -> None:
    """Other digits, other spelling, numbers that are too long and explicit nulls are left alone."""
    assert _rebuilt(STRANGE) == [None] * len(STRANGE)


@pytest.mark.parametrize(
    ("texts", "pieces"),
    [
        (["/a/1/b.mp3", "/a/27/b.mp3"], ("/a/", 1, "/b.mp3")),
        (["P007-12", "P012-9"], ("P", 3, "-", 1)),
        (
            ["2026-10-01T00:00:00", "2026-10-11T01:00:00"],
            (1, "-", 2, "-", 2, "T", *(2, ":") * 2, 2),
        ),
        (["a1", "b2"], ()),
        (["\x1f1", "\x1f2"], ()),
        (["a", "a"], ()),
        (["mp3", "mp3"], ()),
        (["1.1.1.1.1.1.1.1.1", "2.2.2.2.2.2.2.2.2"], ()),
        ([], ()),
    ],
)
def test_what_texts_have_in_common(texts: list[str], pieces: tuple[str | int, ...]) -> None:
    """Texts are spelled alike if they differ in numbers only, which may be padded with zeros."""
    assert text_kinds.spelling(texts) == pieces


def _append(lake: lakelog.Lake, first: int, count: int) -> list[str]:
    chance, texts = random.Random(first), list[str]()
    for n in range(count):
        url = f"https://media.example.com/{chance.randrange(1000):03d}/ep{chance.randrange(10**6)}"
        title = " ".join(chance.choices(WORDS, k=8))
        prose = "".join(chance.choices("abcdefghij ", k=40))
        payload = {"n": n, "title": title, "at": {"url": url}, "prose": prose, "kind": WORDS[n % 3]}
        texts.append(orjson.dumps(payload).decode())
    head = b'{"time":"2026-01-01T00:00:00Z","type":"t","data":'
    lines = [head + text.encode() + b"}" for text in texts]
    lake.append_encoded(EncodedBatch(b"\n".join(lines), [None] * len(lines), False))
    lake.settle()
    return texts


def _kinds(lake: lakelog.Lake) -> dict[str, str]:
    (entry,) = lake.store.manifests.segments(lake.store.state("main"))
    title, at, *others = typed.of_entry(lake.store.paths, entry).members[1:]
    return {each.name: each.kind for each in (title, *at.members, *others)}


def test_queries_see_texts_and_not_their_parts(lake: lakelog.Lake) -> None:
    """A sample decides for words and numbers; every query answers what it did before."""
    texts = _append(lake, 0, 2_000)
    some = orjson.loads(texts[77])
    query = """SELECT data, data->>'title', data->'title', data->>'$.at.url', data->'at',
            fields.title, fields.at.url, json_value(data, '$.title'), (data->>'title')::BLOB
        FROM events WHERE data->>'title' = ? OR data->>'$.at.url' LIKE '%7' ORDER BY seq"""
    typed_query = "SELECT title, prose FROM types.t ORDER BY seq"
    before = lake.sql(query, [some["title"]]).fetchall(), lake.sql(typed_query).fetchall()
    lake.compact()
    assert _kinds(lake) == {"title": "words", "url": "numbers", "prose": "text", "kind": "text"}
    assert (lake.sql(query, [some["title"]]).fetchall(), lake.sql(typed_query).fetchall()) == before
    assert [
        data for (data,) in lake.sql("SELECT data FROM events ORDER BY seq").fetchall()
    ] == texts


def test_a_lake_finds_parts_once_it_has_enough_texts(lake: lakelog.Lake) -> None:
    """The schema of a small segment does not keep later texts whole; parts are kept."""
    texts = _append(lake, 0, 20)
    lake.compact()
    assert set(_kinds(lake).values()) == {"text"}
    texts += _append(lake, 1, 2_000)
    lake.compact()
    kinds = _kinds(lake)
    assert kinds["title"] == "words"
    texts += _append(lake, 2, 50)
    lake.compact()
    assert _kinds(lake) == kinds
    assert [
        data for (data,) in lake.sql("SELECT data FROM events ORDER BY seq").fetchall()
    ] == texts
