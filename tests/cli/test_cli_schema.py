"""lakelog schema: the fields of payloads as people and programs read them, and comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lakelog
from tests.support.cli import run

LONG = "system_metrics"
LONGER = "system_metrics_of_every_machine_and_of_its_disks"


@pytest.fixture
def lake(home: Path) -> Path:
    """A lake whose field n widens and id conflicts after v1."""
    path = home / "lake"
    day = {"type": "a", "time": "2026-01-01T00:00:00Z"}
    with lakelog.open(str(path), settings={"seal": "never"}) as made:
        made.append({**day, "data": {"n": 1, "id": 1, LONG: {"memory_percent": 0.5}}})
        made.append({**day, "type": "c", "data": {LONGER: {"last_name": 1}}})
        made.append({**day, "type": "b", "data": "text"})
        made.tag("v1")
        made.append({**day, "time": "2026-01-09T00:00:00Z", "data": {"n": 1.5, "id": "x"}})
    return path


def answer(lake: Path, *words: str) -> Any:
    result = run(lake, "schema", *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_schema_is_listed_by_type_and_state(lake: Path) -> None:
    """--type and --at choose; events that no segment has yet are counted."""
    kinds = {r["path"]: r["kind"] for r in answer(lake, "--type", "a")}
    assert (kinds["n"], kinds["id"], kinds["$"]) == ("number", "int|text", "object")
    assert {r["type"] for r in answer(lake)} == {"a", "b", "c"}
    past = {r["path"]: r for r in answer(lake, "--type", "a", "--at", "v1")}
    assert (past["n"]["kind"], past["n"]["kinds"][0]["events"]) == ("int", 1)
    assert answer(lake, "--type", "none") == []


def test_a_schema_is_readable_in_80_columns(lake: Path) -> None:
    """A path stays whole beside its kind, share and days; of a longer one its end is shown."""
    text = run(lake, "schema", "--format", "table").stdout
    assert max(map(len, text.splitlines())) <= 80
    line = next(line for line in text.splitlines() if "memory_percent" in line)
    assert line.split()[1:] == ["float", "50.0%", "2026-01-01", "2026-01-01"]
    assert any("…" in line and ".last_name  int" in line for line in text.splitlines())
    assert "a  2 events, 2026-01-01 00:00:00Z to 2026-01-09 00:00:00Z" in text
    assert run(lake, "schema", "--type", "none", "--format", "table").output.strip() == "no events"


def test_states_are_compared_by_their_fields(lake: Path) -> None:
    """--diff lists the fields that differ, in every format; a state differs in nothing from
    itself, and --at has no place beside it."""
    found = {(r["path"], r["change"], r["before"], r["after"]) for r in answer_diff(lake)}
    assert found == {("n", "widened", "int", "number"), ("id", "conflict", "int", "int|text")}
    assert answer(lake, "--diff", "v1", "v1") == []
    assert "widened" in run(lake, "schema", "--diff", "v1", "main", "--format", "table").stdout
    run(lake, "schema", "--diff", "v1", "main", "--at", "v1", code=2)
    run(lake, "schema", "--diff", "v1", "v2", code=1)


def answer_diff(lake: Path) -> Any:
    return answer(lake, "--diff", "v1", "main")


def test_a_contract_is_pinned_checked_and_dropped(lake: Path, tmp_path: Path) -> None:
    """check exits with 3 and doctor warns on a breach; --at takes the contract of a past state."""
    assert "no contract" in run(lake, "schema", "check").stderr
    assert all(c["check"] != "schema" for c in json.loads(run(lake, "doctor", "--json").stdout))
    run(lake, "schema", "pin")
    assert run(lake, "schema", "check").stdout == ""
    checks = {c["check"]: c["state"] for c in json.loads(run(lake, "doctor", "--json").stdout)}
    assert checks["schema"] == "OK"
    said = run(lake, "schema", "pin", "--type", "a", "--at", "v1", "--on-breach", "quarantine")
    assert said.stderr == "pinned 5 fields of 1 type: quarantine on a breach\n"
    found = json.loads(run(lake, "schema", "check", "--json", code=3).stdout)
    assert [(b["path"], b["breach"], b["kind"], b["events"]) for b in found] == [
        ("id", "other kind", "text", 1),
        ("n", "other kind", "float", 1),
        (LONG, "missing", None, 1),
        (f"{LONG}.memory_percent", "missing", None, 1),
    ]
    assert run(lake, "schema", "check", "--at", "v1").stdout == ""
    checks = {c["check"]: c["state"] for c in json.loads(run(lake, "doctor", "--json").stdout)}
    assert checks["schema"] == "warning"
    file = tmp_path / "in.jsonl"
    file.write_text('{"type": "a", "data": {"n": "text"}}\n')
    assert "contract of type a: id is missing" in run(lake, "ingest", str(file), code=1).stderr
    assert run(lake, "schema", "unpin", "--type", "a").stderr == "unpinned a\n"
    run(lake, "schema", "unpin", "--type", "a", code=1)
    assert run(lake, "schema", "unpin").stderr == "unpinned b, c\n"
    assert "no events of type" in run(lake, "schema", "pin", "--type", "none", code=1).stderr
    assert "come after it" in run(lake, "schema", "--type", "a", "check", code=2).stderr
