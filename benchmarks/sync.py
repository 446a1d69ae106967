"""Syncing: rows a second into SQLite, DuckDB and PostgreSQL, the last against `executemany`.

PostgreSQL is measured where its server and the driver are installed; both sides write the same rows
into a table with the same primary key, in turn.
"""

from __future__ import annotations

import contextlib
import time
from importlib.util import find_spec
from pathlib import Path

import lakelog
from benchmarks import gen
from benchmarks.measure import Scale, directory
from benchmarks.report import Row, Target
from lakelog.lake import Lake
from lakelog.sync.sync import sync
from tests.support.requirements import find
from tests.support.sync_places import admin, postgres_server

_EXECUTED = 20
"""executemany gets this part of the rows: it is that much slower to wait for."""


def rates(scale: Scale) -> list[Row]:
    """Fill new tables with all events of a lake, round by round."""
    figures: dict[str, list[float]] = {"SQLite": [], "DuckDB": [], "PostgreSQL": []}
    peer: list[float] = []
    with directory() as root, contextlib.ExitStack() as stack:
        lake = stack.enter_context(_lake(root, scale.bulk))
        url = ""
        if find_spec("adbc_driver_postgresql") and find("initdb"):
            url = stack.enter_context(postgres_server()).url()
        for number in range(min(scale.rounds, 3)):
            figures["SQLite"].append(_rate(lake, f"sqlite:{root}/{number}.db"))
            figures["DuckDB"].append(_rate(lake, f"duckdb:{root}/{number}.duckdb"))
            if url:
                figures["PostgreSQL"].append(_rate(lake, url, f"t{number}"))
                peer.append(_executemany(lake, url, f"t{number}"))
    rows = [
        Row(f"sync to {name}", "rows/s", figures[name], target=Target(">=", 300_000, "figure"))
        for name in ("SQLite", "DuckDB")
    ]
    limit, ratio = Target(">=", 100_000, "figure"), Target(">=", 5)
    rows.append(Row("sync to PostgreSQL", "rows/s", figures["PostgreSQL"], target=limit))
    rows.append(Row("against executemany", "rows/s", figures["PostgreSQL"], peer, ratio))
    return rows


def _lake(root: Path, count: int) -> Lake:
    gen.write(count, root / "events.jsonl")
    lake = lakelog.open(root / "lake", settings={"seal": "never"})
    lake.ingest(root / "events.jsonl")
    lake.compact()
    return lake


def _rate(lake: Lake, url: str, table: str = "events") -> float:
    began = time.perf_counter()
    result = sync(lake, url, table=table)
    return result.written / (time.perf_counter() - began)


def _executemany(lake: Lake, url: str, table: str) -> float:
    """Rows a second of the driver's executemany into an empty copy of a table, one transaction."""
    import adbc_driver_postgresql.dbapi

    admin(url, f"CREATE TABLE {table}_peer (LIKE {table} INCLUDING ALL)")
    count = lake.count() // _EXECUTED
    rows = lake.sql(f"SELECT * FROM events LIMIT {count}").to_arrow_table()
    names = ", ".join(rows.column_names)
    marks = ", ".join(f"${number + 1}" for number in range(rows.num_columns))
    with (
        contextlib.closing(adbc_driver_postgresql.dbapi.connect(url)) as link,
        contextlib.closing(link.cursor()) as cursor,
    ):
        began = time.perf_counter()
        cursor.executemany(f"INSERT INTO {table}_peer ({names}) VALUES ({marks})", rows)
        link.commit()
        return count / (time.perf_counter() - began)
