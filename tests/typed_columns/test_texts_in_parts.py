"""Segments of earlier versions, with texts stored as words and numbers, are read as before."""

from __future__ import annotations

from pathlib import Path

import duckdb
import orjson
import pyarrow as pa
import pytest

import lakelog
from lakelog import typed_columns
from lakelog.typed_columns import Member, Schema
from tests.golden import kit
from tests.support import lakes

SCHEMA = Schema(
    (
        Member("w", "words"),
        Member("n", "numbers", pieces=("a\"'%", 3, "/ep.", 1, "")),
        Member("o", "object", False, (Member("w", "words", null=True), Member("i", "int"))),
        Member("t", "numbers", pieces=(4, "-", 2)),
    )
)
ROWS = {
    "{}": None,
    '{"w":"","o":{"w":null,"i":2}}': {"w": [""], "o": {"i": 2}},
    '{"w":" a  b ","n":"a\\"\'%007/ep.0"}': {"w": ["", "a", "", "b", ""], "n": {"1": 7, "2": 0}},
    '{"w":"é","n":"a\\"\'%1234567/ep.999999999999999999","o":{"w":"a b","i":1},"t":"2026-01"}': {
        "w": ["é"],
        "n": {"1": 1_234_567, "2": 999_999_999_999_999_999},
        "o": {"w": ["a", "b"], "i": 1},
        "t": {"1": 2026, "2": 1},
    },
}
KINDS = {"title": "words", "url": "numbers", "n": "int", "day": "text"}


def test_texts_in_parts_are_read_as_they_were() -> None:
    """Spaces, padding, quotes, absent members and nulls come back byte for byte."""
    structs = pa.array([row or {} for row in ROWS.values()], SCHEMA.arrow_type())
    rows = pa.table({"data": pa.nulls(len(structs), pa.string()), "fields": structs})
    assert typed_columns.restored(duckdb.connect(), SCHEMA, rows)["data"].to_pylist() == [*ROWS]


def test_whole_texts_take_the_place_of_parts() -> None:
    """The schema that is written has the same members, each text as a whole."""
    members = SCHEMA.plain().members
    assert [member.kind for member in members] == ["text", "text", "object", "text"]
    assert [member.kind for member in members[2].members] == ["text", "int"]
    assert {member.pieces for member in members} == {()}


@pytest.fixture
def parts(tmp_path: Path) -> str:
    """A lake that an earlier version compacted."""
    return kit.unpack("texts-in-parts", str(tmp_path))


def _kinds(lake: lakelog.Lake) -> dict[str, str]:
    newest = max(lake.store.manifests.segments(lake.store.state("main")), key=lambda e: e.seq[1])
    title, place, *others = typed_columns.Schema.of_entry(lake.store.paths, newest).members
    return {member.name: member.kind for member in (title, *place.members, *others)}


def test_queries_see_texts_and_not_their_parts(parts: str) -> None:
    """Every query gives the text of members, before they are compacted to whole texts and after."""
    payloads = [
        orjson.loads(row[7]) for row in kit.kept("texts-in-parts")["branches"]["main"]["events"]
    ]
    some = payloads[77]
    query = """SELECT data, data->>'title', data->'title', data->>'$.at.url', data->'at',
            fields.title, fields.at.url, json_value(data, '$.title')
        FROM events WHERE data->>'title' = ? OR data->>'$.at.url' LIKE '%7' ORDER BY seq"""
    typed_query = 'SELECT title, day FROM types."T" ORDER BY seq'
    with lakes.opened(parts) as lake:
        assert _kinds(lake) == KINDS
        before = lake.sql(query, [some["title"]]).fetchall(), lake.sql(typed_query).fetchall()
        titles = [some["title"]]
        assert [row[1] for row in before[0] if row[1] in titles] == titles
        assert [row[0] for row in before[1]] == [payload.get("title") for payload in payloads]
        lake.append([{"type": "T", "data": {"title": "new", "n": -1}} for _ in range(20)])
        lake.settle()
        lake.compact()
        assert _kinds(lake) == KINDS | {"title": "text", "url": "text"}
        after = lake.sql(query, [some["title"]]).fetchall(), lake.sql(typed_query).fetchall()
        assert (after[0], after[1][: len(payloads)]) == before
