"""Contracts of schemas: what breaches one, at which states it holds, and that it loses nothing."""

from __future__ import annotations

from typing import Any

import pytest

from lakelog.errors import InvalidSetting, UnknownRef
from lakelog.lake import Lake
from lakelog.views import Contract, Ledger
from tests.conftest import MakeLake


def put(lake: Lake, *payloads: Any, type: str = "a") -> None:
    lake.append([{"type": type, "data": data} for data in payloads])


def pin(lake: Lake, **more: Any) -> Contract:
    fields = Ledger.of_table(lake.schema("a")).values()
    made = Contract.of_ledger("a", fields, **more)
    Contract.pin(lake.store, lake.branch_name, [made])
    return made


def found(lake: Lake, ref: str = "main") -> set[tuple[str, str, str | None, int]]:
    """(path, breach, kind, events) of what breaches the contracts of a state."""
    state = lake.at(ref)
    contracts = Contract.of_state(lake.store, lake.store.manifests.load(state.id))
    answer = lake.schema() if ref == "main" else state.schema()
    ledger = Ledger.of_table(answer)
    listed = [breach for pinned in contracts.values() for breach in pinned.breaches(ledger)]
    return {(b.path, b.breach, b.kind, b.events) for b in listed}


def test_a_contract_names_new_fields_other_kinds_and_missing_ones(make_lake: MakeLake) -> None:
    """What all events had is required; nulls count as missing; other types are not its concern."""
    lake = make_lake()
    put(lake, {"n": 1.5, "t": "x", "o": {"k": True}}, {"n": 2.5, "t": "y", "l": [1], "z": None})
    made = pin(lake)
    assert made.required == ("n", "t")
    assert found(lake) == set()
    put(lake, {"n": 3, "t": "x", "l": [], "z": "any"}, type="a")
    put(lake, {"anything": 1}, type="b")
    assert found(lake) == set()
    put(lake, {"n": "1", "t": None, "l": [{"x": 1}], "o": {"k": True, "new": 1}}, {"t": "x"})
    assert found(lake) == {
        ("n", "other kind", "text", 1),
        ("n", "missing", None, 1),
        ("t", "missing", None, 1),
        ("l[]", "other kind", "object", 1),
        ("l[].x", "new field", "int", 1),
        ("o.new", "new field", "int", 1),
    }


def test_an_open_contract_allows_other_fields(make_lake: MakeLake) -> None:
    """Of an open contract, fields that it knows keep their kinds."""
    lake = make_lake()
    put(lake, {"n": 1})
    pin(lake, is_open=True)
    put(lake, {"n": 1, "new": {"x": 1}}, {"n": "x"}, "no object")
    assert found(lake) == {("n", "other kind", "text", 1), ("$", "other kind", "text", 1)}


def test_keys_of_a_map_breach_nothing(make_lake: MakeLake) -> None:
    """Below a field that is a map any key is allowed; beside it none."""
    lake = make_lake()
    put(lake, *({"by": {f"user{n}": n}, "id": n} for n in range(300)))
    assert "by.*" in pin(lake).fields
    put(lake, {"by": {"somebody": 1}, "id": 1})
    assert found(lake) == set()
    put(lake, {"by": {"else": 1}, "id": 1, "more": 1})
    assert found(lake) == {("more", "new field", "int", 1)}


def test_a_contract_follows_tags_branches_and_rollbacks(make_lake: MakeLake) -> None:
    """Each state has the contracts that held then."""
    lake = make_lake()
    put(lake, {"n": 1})
    lake.tag("before")
    pin(lake)
    lake.tag("pinned")
    put(lake, {"n": "x"})
    lake.settle()
    breach = {("n", "other kind", "text", 1)}
    assert (found(lake, "before"), found(lake, "pinned"), found(lake)) == (set(), set(), breach)
    with lake.branch("side", "pinned") as side:
        put(side, {"m": 1})
        side.settle()
    assert {path for path, *_ in found(lake, "side")} == {"m", "n"}
    assert Contract.unpin(lake.store, "main") == ["a"]
    assert found(lake) == set()
    lake.rollback("pinned")
    put(lake, {"n": False})
    lake.settle()
    assert found(lake) == {("n", "other kind", "bool", 1)}
    lake.rollback("before")
    put(lake, {"n": False})
    assert found(lake) == set()
    assert lake.verify().problems == ()


def test_mistakes_with_contracts_are_refused(make_lake: MakeLake) -> None:
    """A contract that is not there is not dropped, and one that is too large not made."""
    lake = make_lake()
    put(lake, {"n": 1})
    pin(lake)
    with pytest.raises(UnknownRef, match="did you mean 'a'"):
        Contract.unpin(lake.store, "main", "aa")
    put(lake, {"x" * 60_000: 1}, {"y" * 60_000: 1}, type="a")
    with pytest.raises(InvalidSetting, match="too many fields"):
        pin(lake)


def test_appended_events_are_stored_whatever_a_contract_says(make_lake: MakeLake) -> None:
    """What was acknowledged is in the lake, and its breach is reported."""
    lake = make_lake()
    put(lake, {"n": 1})
    pin(lake, on_breach=Contract.QUARANTINE)
    put(lake, *({"n": "x"} for _ in range(50)))
    lake.settle()
    lake.compact()
    assert lake.count() == 51
    assert found(lake) == {("n", "other kind", "text", 50)}
