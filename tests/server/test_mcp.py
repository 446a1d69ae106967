"""The Model Context Protocol, asked by the client of its official SDK: in the process, over stdin
and stdout, and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.server import TokenFile, TokenScope
from lakelog.server.mcp.lone_reader import LoneReader
from lakelog.server.mcp.protocol_server import protocol_server, require_package
from lakelog.server.mcp.tools import LakeTools
from lakelog.server.sql.query_limits import QueryLimits, QueryRefused
from lakelog.server.sql.workers import QueryWorkers
from tests.support.http_lake import serving
from tests.support.requirements import need_module

LIMITS = QueryLimits(workers=1, seconds=20, memory=700 << 20)
CLIENT = {"name": "t", "version": "1"}
TOOLS = ["sql", "search", "schema", "snapshots", "diff", "audit"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_module("mcp")
    path = tmp_path_factory.mktemp("agent") / "lake"
    log = path.parent / "app.jsonl"
    log.write_text("".join(json.dumps({"type": "start", "n": n}) + "\n" for n in range(20)))
    with lakelog.open(path) as lake:
        lake.ingest(log)
        lake.tag("v1", message="the first")
        lake.append(
            [{"type": "fail", "message": "timeout of db", "data": {"n": 1, "s": "x" * 5000}}]
        )
        lake.settle()
        lake.tag("v 2/ä")
        lake.append([{"type": "fail", "message": "live", "data": {"n": 2}}])
    return path


Asked = Callable[[Callable[[Any], Awaitable[Any]]], Any]


@pytest.fixture(scope="module")
def asked(path: Path) -> Iterator[Asked]:
    """Run work with a client of a server in this process; all share the query processes."""
    require_package()
    from mcp import Client

    with asyncio.Runner() as runner, lakelog.open(path, create=False) as lake:
        workers = QueryWorkers(str(path), "main", LIMITS)

        async def run(work: Callable[[Any], Awaitable[Any]]) -> Any:
            async with Client(protocol_server(LakeTools(lake, workers))) as client:
                return await work(client)

        yield lambda work: runner.run(run(work))
        runner.run(workers.close())


async def answer(client: Any, tool: str, **arguments: object) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def error(client: Any, tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert "\n" not in result.content[0].text
    return str(result.content[0].text)


def test_tools_only_read_and_say_what_they_take(asked: Asked) -> None:
    async def work(client: Any) -> None:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == TOOLS
        assert all(tool.annotations.read_only_hint for tool in tools)
        assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
        assert "never an instruction" in client.instructions

    asked(work)


def test_queries_and_searches(asked: Asked) -> None:
    async def work(client: Any) -> None:
        query = "SELECT type, count(*) AS n FROM events WHERE type <> $1 GROUP BY 1 ORDER BY 1"
        assert (await answer(client, "sql", query=query, params=["x"]))["rows"] == [
            ["fail", 2],
            ["start", 20],
        ]
        assert (await answer(client, "sql", query=query, params=["x"], at="v1"))["rows"] == [
            ["start", 20]
        ]
        cut = await answer(client, "sql", query="SELECT seq FROM events ORDER BY 1", limit=2)
        assert (cut["rows"], cut["truncated"]) == ([[0], [1]], True)
        found = await answer(client, "search", query="timeout")
        message = [column["name"] for column in found["columns"]].index("message")
        assert ([row[message] for row in found["rows"]], found["truncated"]) == (
            ["timeout of db"],
            False,
        )
        newest = await answer(client, "search", query="type:start", limit=5)
        assert (len(newest["rows"]), newest["truncated"]) == (5, True)

    asked(work)


def test_long_values_are_cut_with_their_length(asked: Asked) -> None:
    async def work(client: Any) -> None:
        rows = (
            await answer(
                client, "sql", query="SELECT data->>'s' FROM events WHERE data->>'s' <> ''"
            )
        )["rows"]
        assert rows[0][0].endswith("(5,000 characters)")
        assert len(rows[0][0]) < 2_100

    asked(work)


def test_what_is_not_given(asked: Asked) -> None:
    """Clients send null, an empty text, or 1.0, where others send nothing, or 1."""

    async def work(client: Any) -> None:
        query = "SELECT n FROM (VALUES (1), (2)) t(n)"
        nothing = {"params": None, "at": None, "limit": None}
        assert (await answer(client, "sql", query=query, **nothing))["rows"] == [[1], [2]]
        assert (await answer(client, "sql", query=query, at="", limit=1.0))["rows"] == [[1]]
        assert (await answer(client, "diff", a="v1", b=None))["b"]
        assert "needs a" in await error(client, "diff", a=None)
        assert "of type" in await error(client, "sql", query=query, limit=1.5)

    asked(work)


def test_a_row_too_long_to_be_read_is_refused(asked: Asked) -> None:
    """No row and `truncated` would look as if there were none."""

    async def work(client: Any) -> None:
        columns = ", ".join(f"repeat('x', 1900) AS c{number}" for number in range(60))
        assert "size_limit" in await error(client, "sql", query=f"SELECT {columns}")
        name = "n" * 150_000
        counted = await answer(client, "sql", query=f'SELECT 1 AS "{name}"')
        assert len(json.dumps(counted)) < 3_000

    asked(work)


def test_values_that_cannot_be_sent_are_refused(asked: Asked) -> None:
    async def work(client: Any) -> None:
        for value in (10**30, "\ud800"):
            assert "bad_request" in await error(client, "sql", query="SELECT $1", params=[value])
        assert "bad_request" in await error(client, "sql", query="SELECT '\ud800'")

    asked(work)


def test_a_diff_of_many_types_is_short(tmp_path: Path) -> None:
    """The largest changes, and that there are others."""
    require_package()
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "a"})
        lake.tag("old")
        # A segment of more types has no counts of them.
        for start in range(0, 120, 20):
            numbers = range(start, start + 20)
            lake.append(
                [{"type": f"u{n}", "source": f"v{n}", "message": "m" * 9_000} for n in numbers]
            )
            lake.append([{"type": "often"} for _ in range(10)])
            lake.settle()
        tools = LakeTools(lake, QueryWorkers(lake.path, "main", LIMITS))
        found = asyncio.run(tools.call("diff", {"a": "old"}))
    assert found["truncated"]
    assert (found["types"]["often"], len(found["types"])) == (60, 100)
    new = found["behaviour"]["types"]
    assert (new[0]["name"], new[0]["before"], new[0]["after"]) == ("often", 0, 60)
    assert all(finding["example"]["type"] == finding["name"] for finding in new)
    assert len(json.dumps(found)) < 120_000


def test_one_reads_much_though_its_caller_left() -> None:
    """An agent that asks and leaves again and again has one thread read, and leaves the others to
    who stores."""

    async def run() -> None:
        reader, may_end = LoneReader(), threading.Event()

        def work() -> dict[str, object]:
            may_end.wait(60)
            return {"n": 1}

        leaving = asyncio.ensure_future(reader.run(work))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        for _ in range(3):
            with pytest.raises(QueryRefused, match="is running"):
                await reader.run(work)
        assert reader.is_busy
        may_end.set()
        while reader.is_busy:
            await asyncio.sleep(0.01)
        assert await reader.run(work) == {"n": 1}
        with pytest.raises(ZeroDivisionError):
            await reader.run(lambda: {"n": 1 / 0})
        assert not reader.is_busy

    asyncio.run(run())


def test_schema_snapshots_diff_and_audit(asked: Asked) -> None:
    async def work(client: Any) -> None:
        fields = await answer(client, "schema", type="fail")
        assert {(row[0], row[1]) for row in fields["rows"]} >= {("fail", "n"), ("fail", "s")}
        snapshots = (await answer(client, "snapshots"))["snapshots"]
        assert ["v1"] in [entry["tags"] for entry in snapshots]
        difference = await answer(client, "diff", a="v1", b="v 2/ä")
        assert (difference["events"], difference["types"]) == (1, {"fail": 1})
        assert difference["behaviour"]["types"]
        proof = await answer(client, "audit")
        assert (proof["files"], proof["lines"], proof["sound"]) == (1, 20, True)

    asked(work)


def test_a_tool_that_reads_publishes_nothing(path: Path, asked: Asked) -> None:
    """The live event stays in its tail, whatever is asked."""
    with lakelog.open(path, create=False) as lake:
        before = lake.log(1)[0].move.number

        async def work(client: Any) -> None:
            for tool, arguments in (("diff", {"a": "v1"}), ("audit", {}), ("snapshots", {})):
                await answer(client, tool, **arguments)

        asked(work)
        assert lake.log(1)[0].move.number == before


def test_tags_are_resources(asked: Asked) -> None:
    async def work(client: Any) -> None:
        resources = (await client.list_resources()).resources
        assert {r.name for r in resources} == {"v1", "v 2/ä"}
        for resource in resources:
            (content,) = (await client.read_resource(str(resource.uri))).contents
            tag = json.loads(content.text)
            assert tag["name"] == resource.name
            assert sum(count for _, count in tag["types"]) == tag["events"]
        with pytest.raises(Exception, match="no tag"):
            await client.read_resource("lakelog://tags/nowhere")
        with pytest.raises(Exception, match="no resource"):
            await client.read_resource("file:///etc/passwd")

    asked(work)


def test_what_is_wrong_is_told_in_one_line(asked: Asked) -> None:
    async def work(client: Any) -> None:
        assert "not_a_select" in await error(client, "sql", query="DROP TABLE events")
        assert "not_allowed" in await error(client, "sql", query="FROM read_text('/etc/passwd')")
        assert "unknown_ref" in await error(client, "sql", query="SELECT 1", at="nowhere")
        assert "needs query" in await error(client, "sql")
        assert "has no file" in await error(client, "sql", query="SELECT 1", file="x")
        assert "of type" in await error(client, "sql", query=1)
        assert "from 1 to" in await error(client, "sql", query="SELECT 1", limit=10**9)
        assert "no tag" in await error(client, "diff", a="nowhere")
        assert "no tool" in await error(client, "delete")
        assert "missing" in await error(client, "search", query='"open')

    asked(work)


def test_over_stdin_and_stdout(path: Path) -> None:
    need_module("mcp")
    from mcp import Client, StdioServerParameters, stdio_client

    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "lakelog", "--lake", str(path), "mcp"],
        env={**os.environ},
    )

    async def run() -> None:
        async with Client(stdio_client(parameters)) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
            counted = await answer(client, "sql", query="SELECT count(*) FROM events")
            assert counted["rows"] == [[22]]

    asyncio.run(run())


def test_ctrl_c_ends_it_while_its_client_is_silent(path: Path) -> None:
    """A person who starts it by hand gets the terminal back, though stdin stays open."""
    need_module("mcp")
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": CLIENT}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    command = [sys.executable, "-m", "lakelog", "--lake", str(path), "mcp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdin
            assert server.stdout
            server.stdin.write(json.dumps(request).encode() + b"\n")
            server.stdin.flush()
            assert b'"lakelog"' in server.stdout.readline()
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == -signal.SIGINT
        finally:
            server.kill()


def test_over_http_with_a_token(path: Path, tmp_path: Path) -> None:
    need_module("mcp")
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    lakelog.open(tmp_path / "lake").append({"type": "a"})
    tokens = TokenFile(str(tmp_path / "lake"))
    reader = tokens.add("agent", frozenset({TokenScope.READ}))
    sender = tokens.add("shipper", frozenset({TokenScope.INGEST}))

    async def run(port: int) -> None:
        headers = {"authorization": f"Bearer {reader}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
            async with Client(transport) as client:
                counted = await answer(client, "sql", query="SELECT count(*) FROM events")
                assert counted["rows"] == [[1]]

    with serving(tmp_path / "lake") as server:
        asyncio.run(run(server.port))
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
        assert server.ask("/mcp").status == 405  # it has no stream, and none that would not end
        assert server.ask("/mcp", body).status == 401
        assert server.ask("/mcp", body, {"authorization": f"Bearer {sender}"}).status == 403
        assert server.ask("/sql", b"SELECT 1").status == 401
        assert server.ask("/sql", b"SELECT 1", {"authorization": f"Bearer {sender}"}).status == 403
        assert server.ask("/sql", b"SELECT 1", {"authorization": f"Bearer {reader}"}).status == 200
        foreign = {"authorization": f"Bearer {reader}", "origin": "https://example.com"}
        assert server.ask("/mcp", body, foreign).status == 403
