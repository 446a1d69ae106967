"""The statements of FORMAT.md that views and contracts rest on: their entries, and what compaction
says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lakelog.entries.entry import SegmentEntry
from lakelog.views import Contract, LakeViews, Ledger, catalog
from lakelog.views.definition import parse
from tests.conftest import MakeLake
from tests.support.own_views import BUSIEST
from tests.support.view_events import event, rows


def test_many_views_fill_pages_of_the_manifest(make_lake: MakeLake) -> None:
    """F6.14: more views than a manifest's tail holds are all there, and verify is content."""
    lake = make_lake()
    for n in range(20):
        catalog.create(lake.store, "main", parse(BUSIEST, f"v{n}"))
    LakeViews(lake).drop("v3")
    mine = [d.name for d, is_own in LakeViews(lake).listed() if is_own]
    assert sorted(mine) == sorted(f"v{n}" for n in range(20) if n != 3)
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    (entry,) = (e for e in lake.store.manifests.records(state, "view") if e.key == "v7")
    assert entry.members.keys() == {"sql", "version", "time"}
    assert entry.members["sql"] == BUSIEST
    assert lake.verify().intact


def test_contracts_are_entries_of_the_manifest(make_lake: MakeLake) -> None:
    """F6.18: a contract is found by its type, replaced, removed, and taken back by a rollback."""
    lake = make_lake()
    lake.append([event(0, "PING", data={"n": 1}), event(1, "PONG", data={"n": None})])
    fields = Ledger.of_table(lake.schema()).values()
    contracts = [Contract.of_ledger(name, fields) for name in ("PING", "PONG")]
    Contract.pin(lake.store, "main", contracts)
    lake.tag("v1")

    def live() -> dict[str, dict[str, Any]]:
        state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
        return {e.key: e.members for e in lake.store.manifests.records(state, "contract")}

    members = live()
    assert members["PING"]["fields"] == {"$": ["object"], "n": ["int"]}
    assert (members["PING"]["required"], members["PONG"]["required"]) == (["n"], [])
    assert members["PING"].keys() == {"fields", "required", "open", "on_breach", "time"}
    Contract.pin(lake.store, "main", [replace(contracts[0], on_breach="quarantine")])
    Contract.unpin(lake.store, "main", "PONG")
    assert {name: each["on_breach"] for name, each in live().items()} == {"PING": "quarantine"}
    lake.rollback("v1")
    assert live() == members
    assert lake.verify().intact


def test_a_compacted_segment_says_that_it_holds_the_same_rows(make_lake: MakeLake) -> None:
    """F6.15: rows of `from` sum up to those of a compaction's output, not of a retention's."""
    lake = make_lake()

    def entries() -> dict[str, SegmentEntry]:
        state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
        return {e.key: e for e in lake.store.manifests.segments(state)}

    for minute in (0, 10**6):
        lake.append([event(minute + n, "PING") for n in range(20)])
        lake.settle()
    before = entries()
    lake.compact()
    (made,) = entries().values()
    assert set(made.made_from) == before.keys()
    assert made.events == sum(e.events for e in before.values())
    lake.retention("1d", apply=True)
    (rest,) = entries().values()
    assert rest.made_from == (made.key,)
    assert rest.events < made.events
    assert rows(lake, "status") == [("podcast", "PING", 1)]
