"""The live tail: each event once for each client, from wherever it stands, while others read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import lakelog
from lakelog.errors import QueryFailed
from lakelog.lake import Lake
from lakelog.server import TokenFile, TokenScope
from lakelog.server.conditions import condition_of
from lakelog.server.limits import ServerLimits
from lakelog.server.tail_feed import TailFeed
from lakelog.server.tail_hub import TailClient, TailHub
from lakelog.subscriptions import LivePages
from lakelog.subscriptions.live_pages import LivePage
from tests.conftest import MakeLake
from tests.support.cli import run
from tests.support.http_lake import HttpLake, lines, serving
from tests.support.live_tail import SocketClient, StreamClient
from tests.support.requirements import need_module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    with serving(tmp_path_factory.mktemp("tailed") / "lake") as each:
        yield each


def send(server: HttpLake, *numbers: int, **columns: Any) -> None:
    events = ({"data": {"n": number}, **columns} for number in numbers)
    assert server.ask("/ingest", lines(*events), {"idempotency-key": str(numbers)}).status == 200


def follow(server: HttpLake, **query: str) -> contextlib.closing[StreamClient]:
    return contextlib.closing(StreamClient(server.port, **query))


def test_live_events_arrive_with_positions_to_go_on_from(server: HttpLake) -> None:
    with follow(server, where="source = 'live'") as client:
        send(server, *range(5), source="live")
        stream = client.events()
        given = [next(stream) for _ in range(5)]
        send(server, 5, source="live")
        assert next(stream).content["data"] == {"n": 5}
    assert [event.content["data"]["n"] for event in given] == [0, 1, 2, 3, 4]
    assert given[0].content.keys() >= {"time", "type", "source", "message", "data", "seq"}
    for place, event in enumerate(given):
        with follow(server, where="source = 'live'", after=event.position) as again:
            assert again.numbers(5 - place) == list(range(place + 1, 6))


def test_the_header_of_browsers_comes_before_the_address(server: HttpLake) -> None:
    with follow(server, where="source = 'header'") as client:
        send(server, 1, 2, source="header")
        first = next(client.events())
    headers = {"Last-Event-ID": first.position}
    with contextlib.closing(
        StreamClient(server.port, headers, where="source = 'header'", after="beginning")
    ) as client:
        assert client.numbers(1) == [2]


def test_a_client_without_events_has_a_position_too(server: HttpLake) -> None:
    """What is stored while it is away follows when it comes back."""
    with follow(server, where="source = 'quiet'") as client:
        next(client._lines())
        lines_ = client._lines()
        while not (line := next(lines_)).startswith("id: "):
            pass
    send(server, 1, source="quiet")
    with follow(server, where="source = 'quiet'", after=line[4:]) as client:
        assert client.numbers(1) == [1]


def test_only_a_get_is_answered_without_end(server: HttpLake) -> None:
    assert server.ask("/tail", method="HEAD").headers["content-type"].startswith("text/event-st")
    assert server.ask("/tail", b"").status == 405


def test_a_search_is_a_condition(server: HttpLake) -> None:
    with follow(server, q="timeout -type:noise", where="source = 'search'") as client:
        send(server, 1, source="search", type="noise", message="timeout")
        send(server, 2, source="search", type="http", message="a Timeout")
        assert client.numbers(1) == [2]


@pytest.mark.parametrize(
    "query",
    [
        {"where": "nothing = 1"},
        {"where": "getenv('HOME') = 'x'"},
        {"where": "EXISTS (FROM events)"},
        {"where": "true) UNION ALL (FROM events"},
        {"where": "true) LIMIT (1"},
        {"where": "source IN (SELECT content FROM read_text('/etc/hostname'))"},
        {"where": "len(range(100000000000)) > 0"},
        {"where": "length(repeat(message, 1000000000)) > 0"},
        {"where": "search('a') AND levenshtein(message, message) > 0"},
        {"where": "message || message = 'aa'"},
        {"where": "seq::INTEGER[1000000] IS NULL"},
        {"where": "[seq, seq] IS NULL"},
        {"where": "COLUMNS('.*') IS NULL"},
        {"where": "x" * 9_000},
        {"q": '"'},
        {"after": "nowhere"},
        {"after": "99999999"},
    ],
    ids=lambda query: next(iter(query.values()))[:20],
)
def test_what_cannot_be_followed_is_refused(server: HttpLake, query: dict[str, str]) -> None:
    reply = server.ask(f"/tail?{urlencode(query)}")
    assert reply.status == 400
    assert "\n" not in reply.json["error"]


@pytest.mark.parametrize(
    "where",
    [
        "level IN ('ERROR', 'FATAL') AND source NOT LIKE 'test%' OR message ILIKE '%timeout%'",
        "(data->>'$.status')::INT >= 500 AND TRY_CAST(data->>'ms' AS DOUBLE) * 2 > 1e3",
        "(data->'$.a') = '1'",
        "search('refused -type:noise status>=500') AND regexp_matches(message, '^a+$')",
        "time > now() - INTERVAL 1 HOUR AND date_trunc('hour', time) = '2026-11-26'",
        "CASE WHEN length(message) > 9 THEN subject = lower(source) ELSE seq % 2 = 0 END",
    ],
    ids=lambda where: where[:16],
)
def test_conditions_compare_cut_and_convert(server: HttpLake, where: str) -> None:
    with follow(server, where=where) as client:
        assert client.status == 200


def test_a_websocket_has_the_same_events(server: HttpLake) -> None:
    with contextlib.closing(SocketClient(server.port, where="source = 'ws'")) as client:
        messages = client.messages()
        start = next(messages)["id"]
        send(server, 1, 2, source="ws")
        message = next(messages)
        assert [event["data"]["n"] for event in message["events"]] == [1, 2]
    with contextlib.closing(
        SocketClient(server.port, where="source = 'ws'", after=message["id"])
    ) as client:
        send(server, 3, source="ws")
        news = next(message for message in client.messages() if "events" in message)
        assert [event["data"]["n"] for event in news["events"]] == [3]
    with follow(server, where="source = 'ws'", after=start) as stream:
        assert stream.numbers(3) == [1, 2, 3]


def status(
    kind: type[StreamClient] | type[SocketClient], server: HttpLake, headers: dict[str, str]
) -> int:
    with contextlib.closing(kind(server.port, headers)) as client:
        return client.status


def test_pages_of_other_origins_cannot_follow(server: HttpLake) -> None:
    headers = {"Origin": "https://evil.example"}
    assert status(StreamClient, server, headers) == 403
    assert status(SocketClient, server, headers) == 403


def test_a_rollback_is_told(tmp_path: Path) -> None:
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server:
        send(server, 1)
        with lakelog.open(server.path) as lake:
            lake.tag("v1")
            with follow(server, after="beginning") as client:
                stream = client.events()
                assert next(stream).content["data"] == {"n": 1}
                send(server, 2)
                assert next(stream).content["data"] == {"n": 2}
                lake.rollback("v1")
                state = next(stream)
                assert (state.name, state.content["op"], state.content["events"]) == (
                    "state",
                    "rollback",
                    1,
                )
                send(server, 3)
                event = next(stream)
                assert (event.content["data"], event.content["seq"]) == ({"n": 3}, 1)
        with follow(server, after=state.position) as client:
            assert client.numbers(1) == [3]


def test_a_slow_client_is_told_and_loses_nothing(tmp_path: Path) -> None:
    """Its events fit neither in its connection nor in what the server keeps; others go on."""
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server, follow(server) as slow, follow(server) as quick:
        batches, size = 30, 400
        for batch in range(batches):
            send(server, *range(batch * size, (batch + 1) * size), message="x" * 900)
            assert quick.numbers(size) == list(range(batch * size, (batch + 1) * size))
        names, numbers = set[str](), list[int]()
        for event in slow.events():
            names.add(event.name)
            if not event.name:
                numbers.append(event.content["data"]["n"])
            if len(numbers) == batches * size:
                break
        assert numbers == list(range(batches * size))
        assert "behind" in names


def test_what_a_slow_client_catches_up_with_is_read_about_once(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are no larger than what is kept of them until the client asks for its next events."""
    lake, events, read = make_lake(), 12_000, list[int]()
    lake.append([{"type": "a", "message": "x" * 900}] * events)

    def page(*arguments: Any, **more: Any) -> LivePage:
        given = LivePages.page(pages, *arguments, **more)
        read.append(given.events.num_rows)
        return given

    async def catch_up() -> int:
        feed, position, count = TailFeed(lambda: pages, ServerLimits()), "beginning", 0
        while count < events:
            answer = await feed.catch_up(position)
            assert answer.chunk is not None
            position, count = answer.position, count + len(answer.chunk.lines)
        feed.end()
        await asyncio.to_thread(feed.join, time.monotonic() + 240)
        return count

    pages = LivePages(lake.subscriptions(), None)
    monkeypatch.setattr(pages, "page", page)
    assert asyncio.run(catch_up()) == events
    assert sum(read) < 3 * events


def test_who_begins_while_all_others_are_slow_is_not_kept_by_them(tmp_path: Path) -> None:
    """The ring is not read on for those who do not read; each still gets all that is its own."""
    need_module("uvicorn")
    batches, size = 30, 400
    with serving(tmp_path / "lake") as server, follow(server) as first, follow(server) as second:
        for batch in range(batches):
            send(server, *range(batch * size, (batch + 1) * size), message="x" * 900)
        with follow(server) as newcomer:
            send(server, -1)
            assert newcomer.numbers(1) == [-1]
        for slow in (first, second):
            assert slow.numbers(batches * size + 1) == [*range(batches * size), -1]


async def followed(lake: Lake, where: str, each: Callable[[TailClient], object]) -> list[str]:
    """The types of what a client is given that begins at the beginning; `each` is called with it
    as soon as it waits for more."""
    hub = TailHub(lake, ServerLimits())
    client, names = await hub.client(condition_of(where, ""), "beginning"), list[str]()
    async for chunk in client.chunks():
        names.append(chunk.name)
        asyncio.get_running_loop().call_soon(each, client)
    hub.end()
    await asyncio.to_thread(hub.join)
    return names


def test_who_catches_up_is_told_why_it_ends(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a condition that fits the first events, and not a later one."""
    whole = LivePages.page

    def page(pages: LivePages, position: str, *arguments: Any, **more: Any) -> LivePage:
        if position != "beginning" and not more:  # what follows is asked for by the client
            raise QueryFailed("it does not fit")
        return whole(pages, position, *arguments, **more)

    monkeypatch.setattr(LivePages, "page", page)
    lake = make_lake()
    lake.append([{"type": "a"}] * 5_000)
    names = asyncio.run(followed(lake, "", bool))
    assert names[-1] == "failure"
    assert not any(names[:-1])


@pytest.mark.parametrize(
    "end", [TailClient.leave, lambda client: client._hub.end()], ids=["leave", "stop"]
)
def test_a_client_that_leaves_is_no_fault(
    make_lake: MakeLake, end: Callable[[TailClient], object]
) -> None:
    """Nor is a stop, while it catches up."""
    lake = make_lake()
    lake.append([{"type": "a", "message": "x" * 900}] * 5_000)
    names = asyncio.run(followed(lake, "", end))
    assert names
    assert not any(names)


def test_a_stop_ends_streams_and_the_next_server_goes_on(tmp_path: Path) -> None:
    need_module("uvicorn")
    path = tmp_path / "lake"
    with serving(path) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(follow(server)) for _ in range(20)]
        messages = SocketClient(server.port)
        stack.callback(messages.close)
        send(server, 1)
        positions = {next(client.events()).position for client in clients}
        assert server.stop() == 0
        assert [event for client in clients for event in client.events()] == []
        assert [m for m in messages.messages() if "failure" in m] == []
    assert len(positions) == 1
    with serving(path) as server:
        send(server, 2)
        with follow(server, after=positions.pop()) as client:
            assert client.numbers(1) == [2]


def test_a_stop_lets_go_of_clients_that_do_not_read(tmp_path: Path) -> None:
    """Whatever they follow or asked: it is no fault of the server, of which it would say much."""
    need_module("uvicorn")
    query = json.dumps({"sql": "SELECT * FROM range(9), events", "format": "csv"}).encode()
    with serving(tmp_path / "lake") as server, contextlib.ExitStack() as stack:
        for start in range(0, 4_000, 500):
            send(server, *range(start, start + 500), message="a" * 5_000)
        for kind in (StreamClient, SocketClient):
            client = kind(server.port, after="beginning")
            stack.callback(client.close)
        asking = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        head = f"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(query)}\r\n\r\n"
        asking.sendall(head.encode() + query)
        assert asking.recv(12) == b"HTTP/1.1 200"
        time.sleep(1.0)  # until they have what their sockets take
        assert server.stop() == 0
        assert server.process.stderr is not None
        # Behind it some versions of DuckDB's binding say at length what they let go of.
        text = server.process.stderr.read().partition("\nnanobind: ")[0]
        assert text.splitlines()[2:] == ["stopped"]


def test_a_stop_does_not_wait_for_a_condition(tmp_path: Path) -> None:
    """To try it with all that there is would take minutes, also once nobody waits for it."""
    need_module("uvicorn")
    where = "regexp_matches(message, '(a?){30}(a{50}){20}b')"
    address = f"/tail?{urlencode({'where': where, 'after': 'beginning'})}"
    with serving(tmp_path / "lake") as server, contextlib.ExitStack() as stack:
        for start in range(0, 1_000, 500):
            send(server, *range(start, start + 500), message="a" * 30_000)
        for _ in range(2):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        time.sleep(1.0)  # until it is tried
        assert server.ask("/healthz").status == 200  # the server goes on beside it
        assert server.stop() == 0


def test_only_a_token_that_reads_follows(tmp_path: Path) -> None:
    need_module("uvicorn")
    path = tmp_path / "lake"
    lakelog.open(path).close()
    tokens = {}
    for scope in ("read", "ingest"):
        made = run(path, "token", "add", scope, "--scope", scope)
        tokens[scope] = {"Authorization": f"Bearer {made.stdout.strip()}"}
    with serving(path) as server:
        assert status(StreamClient, server, {}) == 401
        for kind, answer in ((StreamClient, 200), (SocketClient, 101)):
            assert status(kind, server, tokens["ingest"]) == 403
            assert status(kind, server, tokens["read"]) == answer
        figures = server.ask("/metrics", headers=tokens["read"]).body
        assert b"lakelog_tail_clients" in figures


@pytest.mark.parametrize("kind", [StreamClient, SocketClient])
def test_a_token_that_is_revoked_follows_no_longer(
    tmp_path: Path, kind: type[StreamClient] | type[SocketClient]
) -> None:
    need_module("uvicorn")
    tokens = TokenFile(str(tmp_path / "lake"))
    lakelog.open(tmp_path / "lake").close()
    reader = {"Authorization": f"Bearer {tokens.add('reader', frozenset([TokenScope.READ]))}"}
    sender = {"Authorization": f"Bearer {tokens.add('sender', frozenset([TokenScope.INGEST]))}"}
    with (
        serving(tmp_path / "lake") as server,
        contextlib.closing(kind(server.port, reader)) as client,
    ):
        # Another token that comes or goes changes nothing.
        assert tokens.revoke("nobody") is False
        tokens.add("other", frozenset([TokenScope.READ]))
        assert server.ask("/ingest", lines({"data": {"n": 1}}), sender).status == 200
        following = client.events() if isinstance(client, StreamClient) else client.messages()
        assert "failure" not in str(next(following))
        assert tokens.revoke("reader")
        assert server.ask("/ingest", lines({"data": {"n": 2}}), sender).status == 200
        ends = [str(each) for each in following]
    assert "revoked" in ends[-1]
    assert not [each for each in ends if "'n': 2" in each]
