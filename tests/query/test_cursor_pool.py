"""Queries that take over the views of earlier ones answer as if each had made its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

import lakelog
from lakelog.errors import QueryFailed

MakeLake = Callable[..., lakelog.Lake]

ASKED = "SELECT type, count(*) AS n FROM events GROUP BY type ORDER BY type"


def test_an_answer_stays_at_its_state_while_later_queries_run(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": "A"}, {"type": "B"}])
    lake.settle()
    first = lake.sql(ASKED)
    assert lake.sql(ASKED).fetchall() == [("A", 1), ("B", 1)]
    lake.append({"type": "A"})
    assert lake.sql(ASKED).fetchall() == [("A", 2), ("B", 1)]
    lake.settle()
    assert lake.sql(ASKED).fetchall() == [("A", 2), ("B", 1)]
    assert first.fetchall() == [("A", 1), ("B", 1)]
    assert first.columns == ["type", "n"]
    assert len(first) == 2


def test_answers_that_are_read_at_once_do_not_share_a_cursor(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": f"T{n}"} for n in range(3000)])
    lake.settle()
    query = "SELECT type FROM events ORDER BY type"
    lake.sql(query).fetchall()
    rows = lake.sql(query).iter_rows(100)
    assert next(rows) == ("T0",)
    assert len(lake.sql(query).fetchall()) == 3000
    assert len(list(rows)) == 2999
    left: list[int] = []
    threads = [
        threading.Thread(target=lambda: left.append(len(lake.sql(query).fetchall())))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == [3000] * 4


def test_relations_of_an_answer_outlive_it(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": "A"}, {"type": "B"}])
    lake.settle()
    narrowed = lake.sql("SELECT type FROM events").filter("type = 'A'")
    assert lake.sql("SELECT type FROM events").fetchall() == [("A",), ("B",)]
    lake.append({"type": "A"})
    assert lake.sql("SELECT type FROM events").to_arrow_table().num_rows == 3
    assert narrowed.fetchall() == [("A",)]


def test_wrong_queries_are_refused_each_time_they_are_asked(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append({"type": "A"})
    lake.settle()
    for _ in range(2):
        with pytest.raises(QueryFailed, match="nothing"):
            lake.sql("SELECT nothing FROM events")
        with pytest.raises(QueryFailed):
            lake.sql("SELECT type FROM events WHERE type = ?")


def test_a_macro_that_is_replaced_is_used_by_the_next_query(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append({"type": "A"})
    lake.settle()
    query = "SELECT marked(type) FROM events"
    lake.sql("CREATE MACRO marked(x) AS x || '!'")
    assert [lake.sql(query).fetchall() for _ in range(2)] == [[("A!",)]] * 2
    lake.sql("CREATE OR REPLACE MACRO marked(x) AS len(x)")
    assert lake.sql(query).fetchall() == [(1,)]
    lake.sql("DROP MACRO marked")
    with pytest.raises(QueryFailed, match="marked"):
        lake.sql(query)


def test_a_closed_lake_gives_no_cursor_to_others(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append({"type": "A"})
    lake.settle()
    kept = lake.sql(ASKED)
    lake.close()
    assert kept.fetchall() == [("A", 1)]
    del kept
    with pytest.raises(lakelog.LakelogError, match="closed"):
        lake.sql(ASKED)


def test_a_file_that_is_written_again_in_place_is_read_again(
    make_lake: MakeLake, tmp_path: Path
) -> None:
    """Footers are kept of segments alone: a file of a user's may change within one tick of the
    clock and have the same size."""
    lake = make_lake()
    lake.append({"type": "A"})
    lake.settle()
    assert lake.sql(ASKED).fetchall() == [("A", 1)]
    path, new = tmp_path / "x.parquet", tmp_path / "new.parquet"
    for column in ("a", "b", "c", "d"):
        duckdb.sql(f"SELECT 7 AS {column}").write_parquet(str(new))
        path.write_bytes(new.read_bytes())
        assert lake.sql(f"FROM '{path}'").columns == [column]
        assert lake.sql(f"SELECT type, {column} FROM events, '{path}'").fetchall() == [("A", 7)]
