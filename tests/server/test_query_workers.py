"""Query processes: what they may do, and that SQL which gets past the guard does no harm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import duckdb
import pytest

import lakelog
from lakelog.server.api.answer_process import MODULE, AnswerRequest
from lakelog.server.sql.confinement import landlock_version
from lakelog.server.sql.query_limits import QueryFormat, QueryLimits, QueryRefused
from lakelog.server.sql.statement_guard import require_readable
from lakelog.server.sql.workers import SQL_MODULE, QueryWorkers
from tests.support.requirements import need_module
from tests.support.sql_escapes import ESCAPES

SECRET = "a-secret-that-no-query-may-read"
LIMITS = QueryLimits(workers=1, seconds=20, memory=700 << 20, spill=200 << 20)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("confined") / "lake"
    with lakelog.open(path) as lake:
        lake.append([{"type": "a", "data": {"n": n}} for n in range(100)])
        lake.settle()
    (path.parent / "secret.csv").write_text(f"{SECRET}\n")
    (path / "server").mkdir()
    (path / "server/tokens.json").write_text(f'[{{"name":"{SECRET}"}}]')
    return path


def on(
    path: Path,
    work: Callable[[QueryWorkers], Coroutine[Any, Any, Any]],
    limits: QueryLimits = LIMITS,
    *,
    module: str = SQL_MODULE,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Any:
    """Run work with a pool of processes."""

    async def run() -> Any:
        workers = QueryWorkers(str(path), "main", limits, module)
        try:
            return await work(workers)
        finally:
            await workers.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(run())


def test_a_fault_of_a_process_is_in_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the place in the code; who asked is told the fault alone."""

    async def work(workers: QueryWorkers) -> str:
        request = AnswerRequest(workers.next_number(), "no such question", {}, "me", ["read"])
        with pytest.raises(QueryRefused) as refused:
            [chunk async for chunk in workers.frames(request)]
        assert refused.value.status == 500
        return str(refused.value)

    told = on(path, work, module=MODULE)
    assert told == "a fault of the server: KeyError: 'no such question'"
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert "answer_process.py" in record.getMessage()
    assert "KeyError" in record.getMessage()


def spelled(statement: str, path: Path) -> str:
    """An escape with the names of files in it."""
    segment = next((path / "segments").rglob("*.parquet"))
    names = {"secret": path.parent / "secret.csv", "out": path.parent / "out", "lake": path}
    for name, value in {**names, "segment": segment}.items():
        statement = statement.replace(f"{{{name}}}", str(value))
    return statement


def is_refused(connection: duckdb.DuckDBPyConnection, statement: str) -> bool:
    try:
        require_readable(connection, statement, {"events", "quarantine"}, {"main", "v1"})
    except QueryRefused:
        return True
    return False


def test_the_guard_refuses_every_escape(path: Path) -> None:
    with duckdb.connect() as connection:
        passed = [s for s in ESCAPES if not is_refused(connection, spelled(s, path))]
    assert passed == []
    assert len(ESCAPES) >= 150


QUERIES = [
    "SELECT * FROM events",
    'SELECT * FROM "v1".events',
    'SELECT * FROM "v1".types."ORDER.PLACED"',
    'SELECT * FROM types."a/b"',
    "FROM events SELECT count(*)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 9) FROM t",
    "SELECT now(), random(), current_date, unnest([1, 2]) FROM range(3), generate_series(1, 2)",
    "SELECT row_number() OVER (PARTITION BY type ORDER BY time) FROM events QUALIFY true",
    "SELECT key FROM events, json_each(data)",
    "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1;",
    "VALUES (1)",
    "SELECT time_bucket(INTERVAL 1 hour, time), quantile_cont(seq, 0.5) FROM events GROUP BY 1",
]


def test_the_guard_lets_queries_through() -> None:
    with duckdb.connect() as connection:
        assert [query for query in QUERIES if is_refused(connection, query)] == []


def test_a_process_reads_nothing_but_the_lake(path: Path) -> None:
    """The guard is left out: the engine and the kernel refuse what they are to refuse."""

    async def work(workers: QueryWorkers) -> list[str]:
        leaks = []
        for statement in ESCAPES:
            try:
                table = await workers.query(spelled(statement, path), is_trusted=True)
            except QueryRefused:
                continue
            if SECRET in str(table.to_pylist()):
                leaks.append(statement)
        assert (await workers.query("SELECT count(*) FROM events"))[0].to_pylist() == [100]
        return leaks

    files = sorted(path.parent.rglob("*"))
    assert on(path, work) == []
    made = set(path.parent.rglob("*")) - {*files}
    # The process that starts one makes the directory of erasures, which it may read.
    assert all("cache" in file.parts or file.name == "erasures" for file in made), made
    with lakelog.open(path) as lake:
        lake.verify().require()


def test_a_process_that_is_killed_is_replaced(path: Path) -> None:
    async def work(workers: QueryWorkers) -> None:
        await workers.query("SELECT 1")
        (worker,) = workers._processes
        query = asyncio.ensure_future(workers.query("SELECT count(*) FROM range(1000000000000)"))
        while not workers.running:
            await asyncio.sleep(0.01)
        os.kill(worker._process.pid, 9)
        with pytest.raises(QueryRefused) as caught:
            await query
        assert caught.value.code == "process_ended"
        assert (await workers.query("SELECT 2 AS n")).to_pylist() == [{"n": 2}]

    on(path, work)


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_a_process_that_is_killed_gives_its_place_back(path: Path, library: str) -> None:
    """Also where its client left in the middle of an answer; loops differ in what they raise."""

    async def work(workers: QueryWorkers) -> None:
        running = await workers.start("SELECT * FROM range(100000000)")
        (worker,) = workers._processes
        os.kill(worker._process.pid, 9)
        await worker.ending()
        await running.chunks.aclose()
        assert (await workers.query("SELECT 2 AS n")).to_pylist() == [{"n": 2}]

    on(path, work, loop=need_module(library).new_event_loop)


def test_what_a_killed_process_has_spilled_is_removed(path: Path) -> None:
    async def work(workers: QueryWorkers) -> None:
        await workers.query("SELECT 1")
        (folder,) = (path / "cache").glob("spill-*")
        (folder / "duckdb_temp_storage-0.tmp").write_bytes(b"x" * 1000)
        (worker,) = workers._processes
        os.kill(worker._process.pid, 9)
        with contextlib.suppress(QueryRefused):  # the pool may not know of it yet
            await workers.query("SELECT 2")
        await workers.query("SELECT 3")
        await asyncio.gather(*workers._tasks)
        assert not folder.exists()

    on(path, work)
    assert not [*(path / "cache").glob("spill-*")]


def test_queries_beyond_the_queue_are_refused(path: Path) -> None:
    limits = QueryLimits(workers=1, seconds=20, memory=700 << 20, waiting=1)

    async def work(workers: QueryWorkers) -> None:
        endless = "SELECT count(*) FROM range(1000000000000)"
        running = asyncio.ensure_future(workers.query(endless))
        while not workers.running:
            await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(workers.query("SELECT 1"))
        await asyncio.sleep(0)
        with pytest.raises(QueryRefused) as caught:
            await workers.query("SELECT 1")
        assert (caught.value.code, caught.value.status) == ("busy", 429)
        running.cancel()
        assert (await waiting).num_rows == 1

    on(path, work, limits)


def test_who_waits_for_a_process_is_refused_when_the_server_stops(path: Path) -> None:
    """A client is told so; its task is not cancelled with the start of the process."""

    async def work(workers: QueryWorkers) -> None:
        query = asyncio.ensure_future(workers.query("SELECT 1"))
        await asyncio.sleep(0)
        await workers.close()
        with pytest.raises(QueryRefused):
            await query

    on(path, work)


def test_too_many_rows_are_never_cut_without_a_word(path: Path) -> None:
    """JSON says that there are more; of the others only who gave a limit knows it."""
    limits = QueryLimits(workers=1, seconds=20, memory=700 << 20, rows=10)

    async def work(workers: QueryWorkers) -> None:
        query = "SELECT range FROM range(11)"
        running = await workers.start(query, format=QueryFormat.JSON)
        answer = json.loads(b"".join([chunk async for chunk in running.chunks]))
        assert (answer["row_count"], answer["truncated"]) == (10, True)
        assert (await workers.query(query, limit=9)).num_rows == 9
        for limit in (None, 20):
            with pytest.raises(QueryRefused) as caught:
                await workers.query(query, limit=limit)
            assert caught.value.code == "row_limit"

    on(path, work, limits)


def test_what_is_appended_meanwhile_is_read(path: Path, tmp_path: Path) -> None:
    async def work(workers: QueryWorkers) -> None:
        with lakelog.open(tmp_path / "lake") as lake:
            for count in (1, 2, 3):
                lake.append({"type": "a"})
                rows = (await workers.query("SELECT count(*) AS n FROM events")).to_pylist()
                assert rows == [{"n": count}]
                if count == 2:
                    lake.settle()
                    lake.compact()

    lakelog.open(tmp_path / "lake").close()
    on(tmp_path / "lake", work)


def test_landlock_is_used_where_the_kernel_has_it(path: Path) -> None:
    async def work(workers: QueryWorkers) -> bool | None:
        await workers.query("SELECT 1")
        return workers.is_confined

    assert on(path, work) is (landlock_version() > 0)
