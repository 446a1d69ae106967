"""Queries of a server over a shared lake: what its processes need is fetched by the server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from lakelog.errors import TransferRefused
from lakelog.server.api.answer_process import MODULE, AnswerRequest
from lakelog.server.sql.bucket_relay import BucketRelay, FetchAllowance
from lakelog.server.sql.query_limits import QueryLimits, QueryRefused
from lakelog.server.sql.workers import SQL_MODULE, QueryWorkers
from tests.support.attached import SharedMachines
from tests.support.http_lake import serving
from tests.support.requirements import need_module

LIMITS = QueryLimits(workers=1, seconds=60, memory=700 << 20)
SEGMENTS = 6


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Two machines, of which `b` has the moves and no segment yet."""
    machines = SharedMachines(tmp_path)
    fill(machines)
    yield machines
    machines.close()


def fill(machines: SharedMachines) -> None:
    """Have segments published, each of one subject and long enough for a file of names."""
    lake = machines["a"]
    for number in range(SEGMENTS):
        noise = os.urandom(60_000).hex()
        lake.append([{"type": "T", "subject": f"s{number}", "data": {"n": number, "noise": noise}}])
        lake.exchange()
    machines["b"].exchange()
    assert present(machines) == []


def present(machines: SharedMachines) -> list[str]:
    """Return the segments that the directory of `b` has."""
    return sorted(p.name for p in Path(machines["b"].path, "segments").rglob("*.parquet"))


def on(
    machines: SharedMachines,
    work: Callable[[QueryWorkers], Coroutine[Any, Any, Any]],
    limits: QueryLimits = LIMITS,
    module: str = SQL_MODULE,
) -> Any:
    """Run work with the processes of a server on `b`."""

    async def run() -> Any:
        workers = QueryWorkers(machines["b"].path, "main", limits, module)
        try:
            return await work(workers)
        finally:
            await workers.close()

    return asyncio.run(run())


def numbers_of(subject: str | None = None) -> Callable[[QueryWorkers], Coroutine[Any, Any, Any]]:
    condition = f"subject = '{subject}'" if subject else "true"

    async def work(workers: QueryWorkers) -> list[int]:
        query = f"SELECT (data->>'n')::int AS n FROM events WHERE {condition} ORDER BY 1"
        return (await workers.query(query))["n"].to_pylist()

    return work


def test_a_query_fetches_what_it_needs_and_no_more(machines: SharedMachines) -> None:
    assert on(machines, numbers_of("s3")) == [3]
    assert len(present(machines)) == 1
    assert on(machines, numbers_of()) == [*range(SEGMENTS)]
    assert len(present(machines)) == SEGMENTS


def test_a_store_is_reached_with_the_keys_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_module("moto.server")
    from tests.support import object_stores

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with object_stores.moto_process() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        machines = SharedMachines(tmp_path, "s3://lakes/x")
        fill(machines)
        assert on(machines, numbers_of("s3")) == [3]
        assert len(present(machines)) == 1
        assert on(machines, numbers_of()) == [*range(SEGMENTS)]
        machines.close()


def test_the_dashboard_fetches_too(machines: SharedMachines) -> None:
    async def work(workers: QueryWorkers) -> dict[str, Any]:
        request = AnswerRequest(workers.next_number(), "events", {}, "me", ["read"])
        head, *chunks = [chunk async for chunk in workers.frames(request)]
        assert orjson.loads(head)["status"] == 200, b"".join(chunks)
        return dict(orjson.loads(b"".join(chunks)))

    answer = on(machines, work, module=MODULE)
    assert len(answer["rows"]) == SEGMENTS


def test_agents_and_loki_fetch_too(machines: SharedMachines) -> None:
    need_module("uvicorn")
    need_module("mcp")
    arguments = {"query": "SELECT data->>'n' FROM events WHERE subject = 's3'"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    call["params"] = {"name": "sql", "arguments": arguments}
    json = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    with serving(machines["b"].path) as server:
        answer = server.ask("/mcp", orjson.dumps(call), json).json
        assert answer["result"]["structuredContent"]["rows"] == [["3"]]
        assert len(present(machines)) == 1
        query = "/loki/api/v1/query?query=count_over_time({type=%22T%22}[1d])"
        (series,) = server.ask(query).json["data"]["result"]
        assert series["value"][1] == str(SEGMENTS)
        assert len(present(machines)) == SEGMENTS


def test_a_query_that_needs_too_much_is_refused_with_what_to_do(machines: SharedMachines) -> None:
    limits = QueryLimits(workers=1, seconds=60, memory=700 << 20, fetch=50_000)
    with pytest.raises(QueryRefused, match="more than 50,000 bytes") as caught:
        on(machines, numbers_of(), limits)
    assert caught.value.code == "fetch_limit"
    assert caught.value.hint


def test_a_bucket_that_is_away_is_named(machines: SharedMachines, tmp_path: Path) -> None:
    os.rename(tmp_path / "bucket", tmp_path / "away")
    with pytest.raises(QueryRefused, match="the shared lake is not there now") as caught:
        on(machines, numbers_of())
    assert caught.value.code == "unavailable"


NOT_FOR_QUERIES: list[dict[str, Any]] = [
    {"keys": ["lakelog.json"]},
    {"keys": [f"segments/ab/../{'0' * 64}.parquet"]},
    {"keys": [f"wal/{'0' * 32}"]},
    {"key": "lakelog.json", "start": 0, "length": 10},
    {"key": f"cache/names/../{'0' * 64}", "start": 0, "length": 10},
    {"key": f"cache/names/{'0' * 64}", "start": 0, "length": 1 << 40},
]


def test_a_process_gets_nothing_else_of_the_bucket(machines: SharedMachines) -> None:
    """It runs SQL of others, so what it asks for may be theirs."""
    attachment, relay = machines["b"].store.attachment, BucketRelay(machines["b"].path)
    assert attachment is not None
    for request in NOT_FOR_QUERIES:
        with pytest.raises(TransferRefused, match="not for queries"):
            attachment.answer(request)
        answer = relay.answer(orjson.dumps({**request, "number": 7}), FetchAllowance(1000))
        assert orjson.loads(answer)["error"] == "TransferRefused"
