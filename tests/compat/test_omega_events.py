"""The older event store: its columns in SQL, quick look-ups that agree with SQL, its old verbs."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.cli import cli
from lakelog.compat import omega, packs
from lakelog.compat.lookups import Lookups
from lakelog.errors import InvalidName, InvalidSetting, QueryFailed
from tests.golden import make
from tests.support.effort import share

MakeLake = Callable[..., lakelog.Lake]
NUMBERS = itertools.count()
START = 1_770_000_000
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["A", "B", "omega.pattern"]),
            "time": st.integers(START, START + 50),
            "source": st.sampled_from([None, "s", "t"]),
            "data": st.sampled_from([None, {"action": "go"}, {"action": {"a": 1}}, "x", [1]]),
        }
    ),
    max_size=15,
)


def run(lake: Any, *words: str, code: int = 0) -> Result:
    """Run a command line on a lake; its exit code must be `code`."""
    result = CliRunner().invoke(cli, ["events", "--db", str(lake), *words], env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result


def records(text: str) -> list[dict[str, Any]]:
    """Return JSON lines as objects."""
    return [json.loads(line) for line in text.splitlines()]


def table(lake: Any, name: str = "events") -> list[dict[str, Any]]:
    """Return a table of the old schema, by id."""
    found: list[dict[str, Any]] = (
        lake.sql(f"SELECT * FROM omega.{name} ORDER BY id").to_arrow_table().to_pylist()
    )
    return found


@pytest.fixture
def golden(lake: lakelog.Lake) -> dict[str, Any]:
    """The golden events, taken in, and one of them marked; the right rows."""
    right: dict[str, Any] = json.loads((make.HERE / "events.json").read_text("utf-8"))
    lake.ingest(str(make.HERE / "events.jsonl"))
    lake.append({"type": omega.PROCESSED, "data": {"ids": right["processed"]}})
    return right


def test_the_golden_events_have_their_old_columns(
    lake: lakelog.Lake, golden: dict[str, Any]
) -> None:
    """Each table has exactly the old columns, ids and epoch times, live, published, compacted."""
    for _ in range(2):
        rows = table(lake)
        assert list(rows[0]) == list(omega.COLUMNS)
        assert all(abs(row.pop("created_at") - time.time()) < 3600 for row in rows)
        assert len({row.pop("hash") for row in rows}) == 4
        for row in rows:
            text = row.pop("data_json")
            row["data"] = json.loads(text) if text else None
        assert rows == sorted(golden["events"], key=lambda row: row["id"])
        (pattern,) = table(lake, "patterns")
        assert {**pattern, "pattern_data": json.loads(pattern["pattern_data"])} == (
            golden["patterns"][0]
        )
        (stats,) = table(lake, "system_stats")
        assert stats.pop("created_at") > 0
        assert [stats] == golden["system_stats"]
        lake.compact()


def test_the_schema_beside_the_lake_s_own_tables(lake: lakelog.Lake) -> None:
    """Both tables called events can be asked in one query, in scripts, and of a past state."""
    lake.append({"type": "A", "source": "s"})
    lake.settle()
    lake.append({"type": "B", "time": START})
    lake.settle()
    apart = "(SELECT count(*) FROM events WHERE type = 'B')"
    assert lake.sql(f"SELECT {apart}, (SELECT count(*) FROM omega.events)").fetchall() == [(1, 2)]
    lake.tag("v1")
    lake.append({"type": "A"})
    both = "SELECT count(*) FROM OMEGA.events o, events e WHERE e.type = 'B' AND o.event_type = 'A'"
    assert lake.sql(both).fetchall() == [(2,)]
    assert lake.at("v1").sql("SELECT count(*) FROM omega.events").fetchall() == [(1 + 1,)]
    assert lake.sql("SELECT count(*) FROM omega.events").fetchall() == [(3,)]
    script = "CREATE TABLE t AS SELECT id FROM omega.events; SELECT count(*) AS n FROM t"
    result = CliRunner().invoke(cli, ["--lake", lake.path, "sql", script])
    assert json.loads(result.stdout.splitlines()[-1]) == {"n": 3}
    with pytest.raises(InvalidName, match="SQL has a schema"):
        lake.branch("omega")


@given(
    batches=st.lists(EVENTS, min_size=1, max_size=4),
    limit=st.integers(1, 12),
    steps=st.lists(st.integers(0, 3), min_size=4),
    block=st.integers(1, 5),
)
@settings(max_examples=share(40))
def test_look_ups_agree_with_sql(
    make_lake: MakeLake,
    monkeypatch: pytest.MonkeyPatch,
    batches: list[Any],
    limit: int,
    steps: list[int],
    block: int,
) -> None:
    """Through appends, seals, compactions and rollbacks each look-up gives what SQL gives."""
    monkeypatch.setattr(packs, "BLOCK", block)
    lake = make_lake(f"lake{next(NUMBERS)}")
    lookups = Lookups(lake)
    lake.tag("start")
    for batch, step in zip(batches, steps, strict=False):
        lake.append(batch)
        if step >= 1:
            lake.settle()
        if step == 2:
            lake.compact()
        if step == 3:
            lake.rollback("start")
        rows = {row["id"]: row for row in table(lake)}
        if rows and step == 0:
            lake.append({"type": omega.PROCESSED, "data": {"ids": [min(rows)]}})
            rows[min(rows)]["processed"] = True
        for narrow, found in (
            ({}, lookups.between(limit=limit)),
            ({"event_type": "A"}, lookups.between(event_type="A", limit=limit)),
            ({"source": "s"}, lookups.between(source="s", limit=limit)),
            ({"event_type": "B", "source": "t"}, lookups.between(None, None, "B", "t", limit)),
        ):
            check(rows, found, limit, narrow)
        within = {k: r for k, r in rows.items() if START + 10 <= r["timestamp"] <= START + 30}
        check(within, lookups.between(START + 10, START + 30, limit=limit), limit, {})
        assert all(lookups.find(number) == row for number, row in rows.items())
        assert lookups.find(1) is None
        assert lookups.stats()["total_events"] == len(rows)
        assert lookups.stats()["event_types"].get("A", 0) == sum(
            row["event_type"] == "A" for row in rows.values()
        )


def check(
    rows: dict[int, Any], found: list[dict[str, Any]], limit: int, narrow: dict[str, str]
) -> None:
    """The rows found are right, as many as there can be, and the newest there are."""
    fit = [r for r in rows.values() if all(r[k] == v for k, v in narrow.items())]
    assert all(row == rows[row["id"]] for row in found)
    assert len({row["id"] for row in found}) == len(found)
    times = sorted((r["timestamp"] for r in fit), reverse=True)[:limit]
    assert [row["timestamp"] for row in found] == times
    assert all(row in fit for row in found)


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("SELECT event_type FROM events", "the older event store's event_type is in omega.events"),
        ("SELECT data_json FROM events", "the older event store's data_json is in omega.events"),
        ("SELECT * FROM system_stats", "did you mean omega.system_stats?"),
    ],
)
def test_old_names_without_their_schema(lake: lakelog.Lake, query: str, hint: str) -> None:
    """The error says where they are."""
    with pytest.raises(QueryFailed) as raised:
        lake.sql(query).fetchall()
    assert hint in str(raised.value)


def test_an_answer_is_the_caller_s_own(lake: lakelog.Lake) -> None:
    """What a caller does to an answer does not show in the next one."""
    lake.append({"type": "A"})
    lookups = Lookups(lake)
    lookups.between()[0]["source"] = "changed"
    lookups.stats()["event_types"].clear()
    assert lookups.between()[0]["source"] is None
    assert lookups.stats()["event_types"] == {"A": 1}
    assert lookups.find(lookups.between()[0]["id"]) is not None
    lake.append({"type": "B"})
    assert all(lookups.find(row["id"]) == row for row in lookups.between())
    with pytest.raises(InvalidSetting, match="at least 1"):
        lookups.between(limit=0)


def test_little_memory_is_enough(make_lake: MakeLake) -> None:
    """With hardly any memory allowed, packs make room for each other and answers stay right."""
    lake = make_lake(memory_bytes=50_000_000)
    for n in range(4):
        lake.append([{"type": "A", "time": START + 10 * n + i} for i in range(10)])
        lake.settle()
    lookups = Lookups(lake)
    lookups._memory_max = 1
    assert len(lookups.between(limit=35)) == 35
    assert len(lookups._packs) == 1
    assert all(lookups.find(row["id"]) == row for row in table(lake))


def test_the_old_verbs(lake: lakelog.Lake, golden: dict[str, Any], tmp_path: Path) -> None:
    """stats, list, search and export answer in the old columns, newest first, within hours."""
    lake.append({"type": "now", "source": "s", "data": {"text": "Needle in hay"}})
    stats = json.loads(run(lake.path, "stats", "--json").stdout)
    assert (stats["total_events"], stats["processed"]) == (5, 1)
    assert stats["event_types"] == {"market_signal": 2, "mutation": 2, "now": 1}
    assert "2,".strip(",") in run(lake.path, "stats", "--format", "table").stdout
    listed = records(run(lake.path, "list", "--limit", "3").stdout)
    assert [row["event_type"] for row in listed] == ["now", "mutation", "mutation"]
    assert list(listed[0]) == list(omega.COLUMNS)
    assert len(records(run(lake.path, "list", "--hours", "1").stdout)) == 1
    assert len(records(run(lake.path, "list").stdout)) == 5
    (found,) = records(run(lake.path, "search", "nEEDLE").stdout)
    assert found["event_type"] == "now"
    assert records(run(lake.path, "search", "100%_").stdout) == []
    assert len(records(run(lake.path, "search", "feed", "--limit", "2").stdout)) == 2
    run(lake.path, "export", str(tmp_path / "out.json"))
    rows = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert [row["timestamp"] for row in rows] == sorted(r["timestamp"] for r in table(lake))
    run(lake.path, "export", str(tmp_path / "day"), "--hours", "24")
    assert len(json.loads((tmp_path / "day").read_text("utf-8"))) == 1
    run(lake.path, "export", str(tmp_path / "out.csv"))
    head = (tmp_path / "out.csv").read_text("utf-8").splitlines()[0]
    assert head == ",".join(omega.COLUMNS)
    shown = run(lake.path, "list", "--format", "table").stdout
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--hours", "0"), "0 is no number of hours above 0"),
        (("list", "--hours", "nan"), "nan is no number of hours"),
        (("list", "--hours", "-3"), "-3 is no number of hours"),
        (("list", "--hours", "many"), "'many' is not a valid float"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("search",), "Missing argument 'TEXT'"),
        (("export",), "Missing argument 'FILE'"),
        (("export", "/no/such/place/x.json"), "/no/such/place/x.json: no such file"),
        (("--db", "/nowhere", "stats"), "No such option"),
    ],
)
def test_bad_input(lake: lakelog.Lake, words: tuple[str, ...], said: str) -> None:
    """A mistake is one line that says what is wrong."""
    result = CliRunner().invoke(cli, ["events", "--db", lake.path, *words])
    if words[0] == "--db":
        assert "no lake at /nowhere" in result.stderr
        return
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
