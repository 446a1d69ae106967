"""Numbers of columns, as FORMAT.md states them: in files, and in the entries that record them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import lakelog
from lakelog import typed_columns
from lakelog.entries.entry import Record
from lakelog.moves.publication import Change, publish
from lakelog.typed_columns import Member, Schema
from tests.support import lakes

COLUMNS = "time type category source subject level message data id ingested_at origin position"
FIXED = {name: number for number, name in enumerate([*COLUMNS.split(), "seq", "fields"], 1)}
ORDERS = [
    {"type": "ORDER", "data": {"n": n, "nest": {"x": n / 7}, "list": [{"s": "a"}]}}
    for n in range(20)
]


def stated(path: list[str], kind: str) -> int:
    """The number of a member, as F4.9 says it."""
    digest = hashlib.sha256("\0".join([*path, kind]).encode()).digest()
    return 2**16 + (int.from_bytes(digest, "big") >> 226)


def numbers(type_: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """The numbers in an Arrow schema or type, by path."""
    for field in type_:
        name = f"{path}.{field.name}" if path else field.name
        if number := (field.metadata or {}).get(b"PARQUET:field_id"):
            yield name, int(number)
        if pa.types.is_struct(field.type):
            yield from numbers(field.type, name)
        elif pa.types.is_list(field.type):
            yield from numbers([field.type.value_field], name)


def numbers_of_segments(lake: lakelog.Lake) -> list[dict[str, int]]:
    """The numbers in the file of each segment of the branch."""
    segments = lake.store.manifests.segments(lake.store.state("main"))
    paths = [lake.store.paths.object("segments", entry.key) for entry in segments]
    return [dict(numbers(pq.read_schema(path))) for path in paths]


def test_columns_and_members_have_numbers(tmp_path: Path) -> None:
    """F4.9: columns have fixed numbers, members those of their paths and kinds."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append(ORDERS)
        lake.quarantine([("a.log", 0, "no event", "text")])
        lake.settle()
        columns = {name: FIXED[name] for name in COLUMNS.split()}
        lines = {"ingested_at": 10, "origin": 11, "position": 12, "reason": 15, "line": 16}
        assert sorted(map(len, numbers_of_segments(lake))) == [5, 12]
        assert {str(each) for each in numbers_of_segments(lake)} == {str(columns), str(lines)}
        lake.compact()
        found = next(each for each in numbers_of_segments(lake) if "seq" in each)
    members = {
        "fields.n": stated(["n"], "int"),
        "fields.nest": stated(["nest"], "object"),
        "fields.nest.x": stated(["nest", "x"], "float"),
        "fields.list": stated(["list"], "list object"),
        "fields.list.element": stated(["list", ""], "object"),
        "fields.list.element.s": stated(["list", "", "s"], "text"),
    }
    assert found == {**FIXED, **members}


def test_members_whose_numbers_meet_have_none() -> None:
    """F4.9: of two members of one schema that have one number by chance, neither has it."""
    pair = _members_of_one_number()
    schema = Schema((*pair, Member("n", "int")))
    assert typed_columns.member_numbers(schema) == {("n",): ("n\0int", stated(["n"], "int"))}
    assert dict(numbers([typed_columns.numbered_structs(schema)])) == {
        "fields": 14,
        "fields.n": stated(["n"], "int"),
    }


def _members_of_one_number() -> tuple[Member, Member]:
    names: dict[int, str] = {}
    for name in map(str, range(200_000)):
        if (other := names.setdefault(stated([name], "int"), name)) and other != name:
            return Member(other, "int"), Member(name, "int")
    raise AssertionError("there is a pair among so many")


def test_moves_record_the_numbers_of_members(tmp_path: Path) -> None:
    """F6.25: what adds sorted segments adds the entries of members that the state lacks, but for a
    number that is another member's; a rollback takes them back."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append(ORDERS)
        lake.settle()
        lake.tag("before")
        other = Record("field", "other\0text", {"id": stated(["nest", "x"], "float")})
        publish(lake.store, "main", lambda *_: Change("later", entries=(other,)))
        lake.compact()
        recorded = _recorded(lake)
        assert recorded.pop("other\0text") == other.members["id"]
        assert recorded == {
            "n\0int": stated(["n"], "int"),
            "nest\0object": stated(["nest"], "object"),
            "list\0list object": stated(["list"], "list object"),
            "list\0\0object": stated(["list", ""], "object"),
            "list\0\0s\0text": stated(["list", "", "s"], "text"),
        }
        move = lake.store.refs.head("main").move.number
        lake.compact()
        assert lake.store.refs.head("main").move.number == move
        lake.rollback("before")
        assert _recorded(lake) == {}


def _recorded(lake: lakelog.Lake) -> dict[str, int]:
    records = lake.store.manifests.records(lake.store.state("main"), "field")
    return {record.key: record.members["id"] for record in records}
