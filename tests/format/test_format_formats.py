"""The statements of FORMAT.md that formats of a lake rest on: their entries, and who reads them."""

from __future__ import annotations

from typing import Any

import lakelog
from lakelog.entries.entry import Record, Removal
from lakelog.formats.definition import FormatDefinition
from lakelog.ingest.definitions import LakeFormat
from lakelog.maintain.repair import recover
from lakelog.manifest import Manifest
from tests.conftest import MakeLake

FORM = FormatDefinition(
    "%{WORD:a} %{OWN:b}",
    begins="x",
    continues="y",
    time_format="%F %T",
    zone="Europe/Berlin",
    levels=(("SCHWER", "ERROR"),),
    define=(("OWN", "z"),),
    name="mine",
)


def head(lake: lakelog.Lake) -> Manifest:
    return lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)


def entries(lake: lakelog.Lake) -> list[Record]:
    return lake.store.manifests.records(head(lake), "format")


def add(lake: lakelog.Lake, form: FormatDefinition, **rest: Any) -> None:
    LakeFormat(form, **rest).add(lake.store, "main")


def test_an_entry_says_all_of_a_format(make_lake: MakeLake) -> None:
    """F6.16: its members, and only those that it says; what is read of it is what was said."""
    lake = make_lake()
    add(lake, FORM, globs=("*.log",), sources=("s",))
    add(lake, FormatDefinition(zone="+02:00", name="zone"))
    full, zone = entries(lake)
    assert full.key == "mine"
    assert {k: v for k, v in full.members.items() if k != "time"} == {
        "for": ["*.log"],
        "sources": ["s"],
        "pattern": "%{WORD:a} %{OWN:b}",
        "begins": "x",
        "continues": "y",
        "time_format": "%F %T",
        "zone": "Europe/Berlin",
        "levels": {"SCHWER": "ERROR"},
        "define": {"OWN": "z"},
    }
    assert zone.members.keys() == {"for", "sources", "time", "zone"}
    assert LakeFormat.present(lake.store, "main")["mine"].definition == FORM
    LakeFormat.remove(lake.store, "main", "zone")
    assert head(lake).recent[-1] != zone
    assert [e.key for e in entries(lake)] == ["mine"]


def test_many_formats_fill_pages_and_survive_repair(make_lake: MakeLake) -> None:
    """F6.16: more than a manifest's tail holds are all there, verified, compacted and salvaged."""
    lake = make_lake()
    for n in range(20):
        add(lake, FormatDefinition("%{WORD:a}", name=f"f{n}"))
    LakeFormat.remove(lake.store, "main", "f3")
    lake.append([{"type": "a"}, {"type": "b"}])
    lake.compact()
    assert len(LakeFormat.present(lake.store, "main")) == 19
    assert lake.verify().intact
    changes = recover.changes(lake.store, head(lake), [])
    removed = {e.key for e in changes if isinstance(e, Removal) and e.entry_type == "format"}
    assert removed == {e.key for e in entries(lake)}


def test_a_reader_that_knows_no_formats_passes_over_them(
    make_lake: MakeLake, monkeypatch: Any
) -> None:
    """F15.2: entries of an unknown `what` change nothing for rows, and are carried on."""
    lake = make_lake()
    lake.append({"type": "a"})
    lake.settle()
    add(lake, FORM)
    unknown = Record("later", "x", {"anything": [1]})
    monkeypatch.setattr(LakeFormat, "entry", lambda self: unknown)
    add(lake, FormatDefinition("%{WORD:a}", name="n"))
    lake.append({"type": "b"})
    lake.settle()
    assert lake.count() == 2
    assert lake.verify().intact
    assert [e.key for e in lake.store.manifests.records(head(lake), "later")] == ["x"]
    assert [e.key for e in entries(lake)] == ["mine"]
