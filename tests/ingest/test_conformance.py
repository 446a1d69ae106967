"""Lines that breach a contract: quarantined with the reason, audited, and replayed later."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from lakelog.audit import audit
from lakelog.ingest.quarantine import Quarantine
from lakelog.lake import Lake
from lakelog.views import Contract, Ledger
from tests.conftest import MakeLake
from tests.support import protected


def pinned(make_lake: MakeLake, *payloads: Any, on_breach: str = Contract.QUARANTINE) -> Lake:
    """A lake with events of type a and the contract that they fulfil."""
    lake = make_lake()
    lake.append([{"type": "a", "data": data} for data in payloads])
    fields = Ledger.of_table(lake.schema()).values()
    Contract.pin(lake.store, "main", [Contract.of_ledger("a", fields, on_breach=on_breach)])
    return lake


def reasons(lake: Lake) -> dict[str, int]:
    query = "SELECT reason, count(*) FROM quarantine GROUP BY ALL"
    return dict(lake.sql(query).fetchall())


def is_sound(lake: Lake, path: Path) -> bool:
    """Whether an audit finds each line of a file stored exactly once."""
    report = audit.audit(lake.store, "main", lake.engine, [str(path)])
    return not report.wrong and not report.failed


@pytest.mark.matrix
@pytest.mark.parametrize("count", [9, 3_000])
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_lines_that_breach_a_contract_are_quarantined(
    make_lake: MakeLake, home: Path, count: int, ending: str
) -> None:
    """Few lines and many, plain and compressed: good ones are stored, the others wait with the
    reason and their text, and a replay stores them once the contract is gone."""
    lake = pinned(make_lake, {"n": 1, "by": {"x": "t"}}, {"n": 1, "by": {}})
    good = {"type": "a", "data": {"n": 2, "by": {}}}
    bad = [
        {"type": "a", "data": {"n": "text", "by": {}}},
        {"type": "a", "data": {"by": {"x": "t"}, "n": None}},
        {"type": "a", "data": {"n": 1, "by": {"y": 1}}},
    ]
    other = {"type": "b", "data": {"z": 1}}
    lines = [orjson.dumps(event) + b"\n" for event in (good, *bad, other) for _ in range(count)]
    path = home / f"in.{ending}"
    path.write_bytes(gzip.compress(b"".join(lines)) if "gz" in ending else b"".join(lines))
    report = lake.ingest(path)
    assert (report.events, report.quarantined) == (2 * count, 3 * count)
    before = "contract of type a: "
    assert reasons(lake) == {
        f"{before}n is text, not int": count,
        f"{before}n is missing": count,
        f"{before}by.y is a new field": count,
    }
    texts = lake.sql("SELECT DISTINCT line FROM quarantine").fetchall()
    assert {line for (line,) in texts} == {orjson.dumps(event).decode() for event in bad}
    assert is_sound(lake, path)
    assert lake.ingest(path).events == 0
    kept = Quarantine(lake.store, "main").replay(lake.engine)
    assert (kept.stored, kept.left) == (0, 3 * count)
    Contract.unpin(lake.store, "main")
    assert Quarantine(lake.store, "main").replay(lake.engine).stored == 3 * count
    assert lake.count() == 5 * count + 2
    assert is_sound(lake, path)


def test_protected_fields_breach_no_contract(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events have them sealed and lines plain: neither is a new field, nor what stands for them
    missing; other fields are judged as ever, also when what is quarantined is replayed."""
    good = {"type": "a", "subject": "s", "data": {"n": 1, "email": "e", "person": {"x": [1]}}}
    bad = {**good, "data": {"n": "text", "email": "e"}}
    path = home / "in.jsonl"
    path.write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in (good, bad)))
    with protected.create(home / "lake", monkeypatch) as lake:
        lake.append(good)
        fields = Ledger.of_table(lake.schema()).values()
        contract = Contract.of_ledger("a", fields, on_breach=Contract.QUARANTINE)
        Contract.pin(lake.store, "main", [contract])
        report = lake.ingest(path)
        assert (report.events, report.quarantined) == (1, 1)
        assert reasons(lake) == {"contract of type a: n is text, not int": 1}
        assert Quarantine(lake.store, "main").replay(lake.engine).stored == 0
        lake.append({"type": "a", "data": {"n": 2}})
        assert contract.breaches(Ledger.of_table(lake.schema())) == []


def test_a_line_that_was_escaped_is_no_event_of_another_format(
    make_lake: MakeLake, home: Path
) -> None:
    """Its text in quarantine is not what the file held."""
    lake = pinned(make_lake, {"n": 1})
    path = home / "in.jsonl"
    path.write_bytes(b'{"type":"a","data":{"n":"caf\xe9"}}\n')
    lake.ingest(path)
    assert reasons(lake) == {"not UTF-8: contract of type a: encoding is a new field": 1}
    assert Quarantine(lake.store, "main").replay(lake.engine, form="plain").left == 1


def test_a_contract_that_warns_lets_lines_in(make_lake: MakeLake, home: Path) -> None:
    """Without --on-breach quarantine a breach is only reported."""
    lake = pinned(make_lake, {"n": 1}, on_breach=Contract.WARN)
    path = home / "in.jsonl"
    path.write_bytes(b'{"type":"a","data":{"n":"x"}}\n')
    assert lake.ingest(path).events == 1
    assert reasons(lake) == {}


def test_lines_of_several_events_and_large_ones_are_not_taken_apart(
    make_lake: MakeLake, home: Path
) -> None:
    """A line is ingested completely or not at all; payloads over 64 KiB are not looked into."""
    lake = pinned(make_lake, {"n": 1})
    events = [{"type": "a", "data": {"n": 1}}, {"type": "a", "data": {"n": "x"}}]
    path = home / "in.jsonl"
    large = {"type": "a", "data": {"text": "x" * 70_000}}
    path.write_bytes(orjson.dumps(events) + b"\n" + orjson.dumps(large) + b"\n")
    assert lake.ingest(path).events == 3
    assert reasons(lake) == {}
    assert is_sound(lake, path)


def test_table_rows_and_log_lines_have_contracts(make_lake: MakeLake, home: Path) -> None:
    """CSV rows and lines of programs are checked as what they become."""
    lake = pinned(make_lake, {"n": 1, "t": "x"})
    path = home / "in.csv"
    rows = "".join(f"a,{n},x\n" if n % 3 else f"a,{n}.5,x\n" for n in range(1_200))
    path.write_text("type,n,t\n" + rows)
    report = lake.ingest(path)
    assert report.events + report.quarantined == 1_200
    assert sum(reasons(lake).values()) == report.quarantined > 0
    assert is_sound(lake, path)
