"""The schema ledger: fields of payloads at every state, their drift, and what is bounded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

import lakelog
from lakelog.event import EncodedBatch
from lakelog.lake import Lake
from lakelog.views import Ledger
from tests.conftest import MakeLake


def fields(lake: Any, **more: Any) -> dict[Any, tuple[str, int]]:
    """(kind, events) by type and path."""
    rows = lake.schema(**more).to_pylist()
    return {(r["type"], r["path"]): (r["kind"], r["events"]) for r in rows}


def changes(old: Any, new: Any) -> dict[str, tuple[str, str | None, str | None]]:
    """(change, before, after) by path, of events of one type."""
    answers = [Ledger.of_table(state.schema()) for state in (old, new)]
    return {c.path: (c.change, c.before, c.after) for c in Ledger.changes(*answers)}


def put(lake: Lake, *payloads: Any, type: str = "a") -> None:
    lake.append([{"type": type, "data": data} for data in payloads])


def test_a_field_has_its_kinds_counts_and_times(make_lake: MakeLake) -> None:
    """Nested objects, elements of lists, nulls and payloads that are no objects are fields."""
    lake = make_lake()
    lake.append({"type": "a", "time": "2026-01-01T00:00:00Z", "data": {"n": 1, "o": {"t": "x"}}})
    lake.append({"type": "a", "time": "2026-01-03T00:00:00Z", "data": {"n": None, "l": [1, 2.5]}})
    put(lake, "text", type="b")
    assert fields(lake) == {
        ("a", "$"): ("object", 2),
        ("a", "l"): ("list", 1),
        ("a", "l[]"): ("float", 1),
        ("a", "n"): ("int", 2),
        ("a", "o"): ("object", 1),
        ("a", "o.t"): ("text", 1),
        ("b", "$"): ("text", 1),
    }
    rows = {r["path"]: r for r in lake.schema("a").to_pylist()}
    assert {r["type"] for r in rows.values()} == {"a"}
    assert [rows["n"][name].day for name in ("first_seen", "last_seen")] == [1, 3]
    assert {k["kind"]: k["events"] for k in rows["n"]["kinds"]} == {"int": 1, "null": 1}
    assert (rows["n"]["share"], rows["l"]["share"]) == (1.0, 0.5)


def test_typed_segments_have_the_schema_of_their_text(make_lake: MakeLake) -> None:
    """Compaction to typed columns changes no field, neither of one that was read before it nor of
    a cache that is built from typed segments alone."""
    lake = make_lake(seal="never")
    put(lake, *({"n": n, "o": {"t": "x", "u": n / 4}, "l": [n, None]} for n in range(40)))
    put(lake, *({"n": None, "o": {}} for _ in range(3)), "text", [1, {"a": 1}])
    lake.settle()
    before = fields(lake)
    put(lake, {"n": 5, "o": {"t": "y"}}, {"n": 5, "new": True})
    lake.settle()
    lake.compact()
    entries = lake.store.manifests.segments(lake.store.state("main"))
    assert any(entry.fields for entry in entries)
    after = fields(lake)
    assert after == {
        **{key: (kind, count) for key, (kind, count) in before.items()},
        ("a", "$"): (before["a", "$"][0], before["a", "$"][1] + 2),
        ("a", "n"): (before["a", "n"][0], before["a", "n"][1] + 2),
        ("a", "new"): ("bool", 1),
        ("a", "o"): (before["a", "o"][0], before["a", "o"][1] + 1),
        ("a", "o.t"): (before["a", "o.t"][0], before["a", "o.t"][1] + 1),
    }
    shutil.rmtree(lake.store.paths.cache)
    assert fields(lakelog.open(lake.path)) == after


def test_drift_over_time_is_recorded_at_every_state(make_lake: MakeLake) -> None:
    """A tag keeps its schema; widening, conflicts and new fields show after it; rollback undoes."""
    lake = make_lake()
    put(lake, {"n": 1, "id": 1, "gone": True})
    lake.tag("v1")
    put(lake, {"n": 2.5, "id": "x", "fresh": []})
    lake.tag("v2")
    drift = {r["path"]: (r["kind"], r["drift"]) for r in lake.schema().to_pylist()}
    assert drift["n"] == ("number", "widened")
    assert drift["id"] == ("int|text", "conflict")
    expected = {
        "n": ("widened", "int", "number"),
        "id": ("conflict", "int", "int|text"),
        "fresh": ("added", None, "list"),
    }
    assert changes(lake.at("v1"), lake) == expected
    assert changes(lake.at("v2"), lake.at("v1")) == {
        "n": ("narrowed", "number", "int"),
        "id": ("narrowed", "int|text", "int"),
        "fresh": ("removed", "list", None),
    }
    lake.rollback("v1")
    assert changes(lake.at("v1"), lake) == {}
    lake.undo()
    assert changes(lake.at("v1"), lake) == expected


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [(1, "x", "conflict"), (1, 0.5, "widened"), (None, "x", "widened"), ("x", None, "narrowed")],
)
def test_branches_that_drifted_apart_are_compared(
    make_lake: MakeLake, before: Any, after: Any, change: str
) -> None:
    """Kinds that no one reader expects are a conflict, though each branch has only one of them."""
    lake = make_lake()
    put(lake, {"y": 1})
    lake.settle()
    with lake.branch("side") as side:
        put(lake, {"x": before})
        put(side, {"x": after})
        assert changes(lake, side)["x"][0] == change


def test_a_schema_is_the_same_however_events_are_divided(make_lake: MakeLake) -> None:
    """One segment, many, compacted ones and a tail of the same events have one schema."""
    payloads = [{f"k{n % 7}": n, "o": {"deep": [{"x": n % 3 or None}]}} for n in range(60)]
    one, many = make_lake(), make_lake("many")
    put(one, *payloads)
    one.settle()
    for number, part in enumerate(_parts(payloads, 7)):
        put(many, *part)
        if number % 2:
            many.settle()
        assert fields(many)["a", "$"] == ("object", min(7 * (number + 1), 60))
    assert fields(many) == fields(one)
    many.compact()
    assert fields(many) == fields(one)


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def test_names_of_any_text_are_told_apart(make_lake: MakeLake) -> None:
    """Dots, quotes, brackets, stars, control characters and NULs in names; names of other case."""
    odd = ["a.b", 'q"x', "*", "$", "", "a[0]", "a[]", "[]", ".", "-- x"]
    names = [*odd, "\n", "\0", "é", "A", "\\"]
    lake = make_lake()
    put(lake, {"a": {"b": 1}, **dict.fromkeys(names, "t")}, {"a": [{"a[0]": 1}]})
    assert fields(lake)["a", "a.b"] == ("int", 1)
    assert fields(lake)["a", 'a[]."a[0]"'] == ("int", 1)
    texts = [path for (_, path), (kind, _) in fields(lake).items() if kind == "text"]
    assert len(texts) == len(names)
    assert {"A", '"a.b"', '"*"', '"$"', '""'} <= set(texts)


def test_a_path_is_one_of_json_extract(make_lake: MakeLake) -> None:
    """After `$.`, the path of a field gives its value."""
    lake = make_lake()
    names = ["plain", "a.b", "sp ace", "é"]
    put(lake, {name: {"x": 7} for name in names})
    paths = [path for _, path in fields(lake) if path.endswith(".x")]
    assert len(paths) == len(names)
    for path in paths:
        query = "SELECT json_extract(data, $1)::INT FROM events"
        assert lake.sql(query, [f"$.{path}"]).fetchall() == [(7,)]


def test_keys_of_a_map_are_counted_as_one(make_lake: MakeLake) -> None:
    """10,000 keys in one object are one field; fields beside them stay."""
    lake = make_lake()
    put(lake, *({"by": {f"user{n}": n, f"u{n}": {"z": 1}}, "id": n} for n in range(10_000)))
    found = fields(lake)
    assert found.pop(("a", "by.*")) == ("int|object", 10_000)
    assert found == {
        ("a", "$"): ("object", 10_000),
        ("a", "by"): ("object", 10_000),
        ("a", "by.*.*"): ("int", found["a", "by.*.*"][1]),
        ("a", "id"): ("int", 10_000),
    }


def test_the_ledger_is_bounded_and_exact_beyond_its_bounds(make_lake: MakeLake) -> None:
    """Many keys in each event, many types and deep payloads: at most 1,000 of each, the rest
    counted, the same in one part and in many."""
    wide = [{**{f"k{n:05}": 1 for n in range(start, start + 700)}, "id": 1} for start in (0, 400)]
    deep: Any = 1
    for _ in range(30):
        deep = {"x": deep}
    types = [{"type": f"t{n:04}", "data": {"v": 1}} for n in range(1_100)]
    one, many = make_lake(), make_lake("many")
    for lake, step in ((one, False), (many, True)):
        for part in ([wide[0]], [wide[1]], [{"id": 2, "deep": deep}]):
            put(lake, *part)
            if step:
                lake.settle()
        lake.append(types[:600])
        if step:
            lake.settle()
        lake.append(types[600:])
    found = fields(one)
    assert found == fields(many)
    paths = [path for type, path in found if type == "a"]
    assert len(paths) <= 1_002
    assert ("a", "*") in found
    assert found["a", "id"] == ("int", 3)
    assert max(path.count("x") for path in paths) == 7
    assert len({type for type, _ in found if type is not None}) == 1_000
    assert found[None, "$"] == ("other", 101)


def test_payloads_too_large_or_deep_are_counted_as_such(make_lake: MakeLake) -> None:
    """Over 64 KiB, or beyond the nesting that the engine reads: the others are answered."""
    lake = make_lake()
    put(lake, {"n": 1}, {"text": "x" * 70_000})
    lake.append_encoded(_deep(200))
    # DuckDB 2.0.0 reads fewer levels than later versions do.
    assert fields(lake)["a", "$"] in [("deep|large|object", 3), ("large|object", 3)]
    assert fields(lake)["a", "n"] == ("int", 1)
    assert lake.schema().to_pylist()[0]["drift"] is None


def _deep(levels: int) -> EncodedBatch:
    return EncodedBatch.of(
        [{"type": "a", "data": orjson.loads('{"a":' * levels + "1" + "}" * levels)}]
    )


@pytest.mark.damaged
def test_an_incremental_schema_reads_no_segment_twice(make_lake: MakeLake, home: Path) -> None:
    """Once asked for, a schema is answered without the segments, also after a compaction."""
    lake = make_lake()
    put(lake, {"x": 1})
    lake.settle()
    put(lake, {"x": 1})
    lake.settle()
    before = fields(lake)
    lake.compact()
    lake.close()
    shutil.rmtree(home / "lake" / "segments")
    with lakelog.open(str(home / "lake"), create=False) as again:
        assert fields(again) == before
