"""Typed segments give every reader the rows that text segments give, payloads byte for byte."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import lakelog
from lakelog.analyze import dedupe
from lakelog.cli.connect import script
from lakelog.maintain import payloads
from lakelog.subscriptions import Follower
from lakelog.sync import delta
from tests.support.typed_segments import OTHER, SCHEMA, retype

MakeLake = Callable[..., lakelog.Lake]
PAYLOADS = [
    '{"s":"a","i":1}',
    '{"s":"quote \\" and \\n","f":0.5,"n":2,"b":true,"e":null}',
    '{"i":-9,"n":2.5,"e":"x","o":{"i":1,"a.b":"dot"},"l":[1,null,3],"j":{"k":[1,{}]}}',
    '{"i":1.0,"z":"other","o":null}',
    '{"i": 1, "s": "spaced"}',
    '{"i":1,"i":2}',
    "[1,2]",
    '{"I":7,"unknown":1}',
    "{}",
    "null",
]
START = 1_770_000_000


@pytest.fixture(autouse=True)
def _text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction writes text, as lakes of earlier formats have it; `retype` chooses schemas."""
    monkeypatch.setattr(payloads, "TYPED", False)


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    """Three sorted segments, and two that are not compacted."""
    lake = make_lake(segment_rows=100)
    _append(lake, 100)
    _append(lake, 100, 100)
    _append(lake, 100, 200)
    lake.compact()
    lake.tag("v1")
    _append(lake, 50, 300)
    lake.append([{"type": "A", "time": START + n, "data": {"i": n, "s": "a"}} for n in range(20)])
    lake.settle()
    return lake


def _append(lake: lakelog.Lake, count: int, start: int = 0) -> None:
    """Ingest events, whose payloads keep their spelling."""
    lines = (
        f'{{"time":{START + n},"type":"A","subject":"x","data":{PAYLOADS[n % len(PAYLOADS)]}}}\n'
        for n in range(start, start + count)
    )
    path = Path(lake.path).with_name(f"{start}.jsonl")
    path.write_text("".join(lines))
    assert lake.ingest(path).events == count


def _answers(lake: lakelog.Lake) -> dict[str, Any]:
    """What every reader of SQL says of a lake."""
    store = lake.store
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    entries = store.manifests.segments(state, "events")
    answers: dict[str, Any] = {
        query: lake.sql(query).fetchall()
        for query in (
            "FROM events ORDER BY seq",
            'FROM "v1".events ORDER BY seq',
            "SELECT data, count(*) FROM events WHERE seq % 3 = 0 GROUP BY ALL ORDER BY 1",
            "SELECT type, h FROM (SELECT type, hash(data) AS h FROM events) ORDER BY ALL",
        )
    }
    answers["dedupe"] = dedupe.duplicates(lake, "data").fetchall()
    with contextlib.closing(lake.engine().cursor()) as cursor:
        steps = [s.rows_sql(store) for s in delta.everything(entries, state).steps]
        answers["delta"] = cursor.execute(
            f"SELECT * FROM ({' UNION ALL '.join(steps)}) ORDER BY seq"
        ).fetchall()
    answers["behaviour"] = str(lake.diff("v1", "main").behaviour)
    answers["last"] = Follower(lake.subscriptions()).last(400)
    with duckdb.connect() as plain:
        plain.execute("SET TimeZone = 'UTC'")
        plain.execute(script(lake, state))
        answers["connect"] = plain.execute("FROM events ORDER BY seq").fetchall()
    return answers


def test_all_readers_of_sql_see_typed_payloads_as_text(lake: lakelog.Lake) -> None:
    """Queries, tags, dedupe, deltas, diffs, followers and DuckDB without lakelog are unaffected."""
    before = _answers(lake)
    texts = retype(lake, SCHEMA, OTHER, None)
    assert 0 < min(texts) < max(texts) < 100
    after = _answers(lake)
    for name, answer in before.items():
        assert after[name] == answer, name
