"""Odd, cut and huge bodies: what is answered with 2xx is stored or counted, and memory is bounded.

LAKELOG_ODD_BODIES sets how many odd ones are sent.
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import os
import random
import socket
import threading
import zlib
from collections.abc import Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

import lakelog
from lakelog.server.arrivals import RequestRefused
from lakelog.server.bodies import body_of, decompressed, texts_of
from lakelog.server.intake import EventIntake
from lakelog.server.limits import ServerLimits
from tests.conftest import MakeLake
from tests.support.http_lake import HttpLake, lines, serving
from tests.support.requirements import need_module

COUNT = int(os.environ.get("LAKELOG_ODD_BODIES", "60"))
SEED = int(os.environ.get("LAKELOG_ODD_SEED", "1"))
MEMORY_MAX = 500 << 20
TYPES = (
    *("", "application/json", "application/x-ndjson", "text/plain", "multipart/form-data"),
    *("application/x-www-form-urlencoded", "application/x-protobuf", "APPLICATION/JSON"),
)
ENCODERS = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    with serving(tmp_path_factory.mktemp("odd") / "lake") as each:
        yield each


def proper(rng: random.Random, protocol: str, number: int) -> tuple[str, bytes]:
    """A path and a body that is right."""
    rows = [{"n": number * 10 + place, "message": "x"} for place in range(rng.randrange(1, 4))]
    texts = [json.dumps(row).encode() for row in rows]
    if protocol == "lines":
        return "/ingest", b"\n".join(texts)
    if protocol == "array":
        return "/ingest", json.dumps(rows).encode()
    if protocol == "bulk":
        return "/_bulk", b"".join(b'{"create":{}}\n' + text + b"\n" for text in texts)
    times = [str(1_790_000_000_000_000_000 + row["n"]) for row in rows]
    if protocol == "loki":
        values = [[time, "x"] for time in times]
        push = {"streams": [{"stream": {"app": "x"}, "values": values}]}
        return "/loki/api/v1/push", json.dumps(push).encode()
    records = [{"timeUnixNano": time, "body": {"stringValue": "x"}} for time in times]
    request = {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}
    return "/v1/logs", json.dumps(request).encode()


def damaged(rng: random.Random, body: bytes) -> bytes:
    choice, place = rng.randrange(12), rng.randrange(len(body))
    changes = (
        *(b"", body[:place], b"\n\n" + body + b"\n \n", body.replace(b'"', b"'", 3)),
        *(body[:place] + bytes([rng.randrange(256)]) + body[place + 1 :], body + b"\0\xff"),
        *(b"\xef\xbb\xbf" + body, body.replace(b"\n", b"\r\n"), body * 2),
    )
    return changes[choice] if choice < len(changes) else body


def test_nothing_odd_is_answered_2xx_and_lost(server: HttpLake) -> None:
    rng = random.Random(SEED)
    query = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM quarantine)"
    with lakelog.open(server.path, create=False) as lake:
        before = lake.sql(query).fetchall()[0]
        for number in range(COUNT):
            protocol = rng.choice(["lines", "array", "bulk", "loki", "otlp"])
            path, body = proper(rng, protocol, number)
            body = damaged(rng, body)
            is_empty = body.strip() in (b"", b"{}")
            headers = {"idempotency-key": str(number), "content-type": rng.choice(TYPES)}
            encoding = rng.choice([*ENCODERS, "gzip", *["none"] * 6])
            if encoding in ENCODERS:
                headers["content-encoding"] = encoding
                # Now and then it is not what it is said to be.
                body = ENCODERS[encoding](body) if rng.random() < 0.8 else body
            status, answer = send(rng, server, path, body, headers)
            after = lake.sql(query).fetchall()[0]
            stored, refused = after[0] - before[0], after[1] - before[1]
            before, place = after, (number, protocol, status, headers, body, answer)
            assert status < 500, place
            if status == 200 and protocol in ("lines", "array"):
                assert stored + refused > 0, place
                told = json.loads(answer)
                assert (told["accepted"], told["rejected"]) == (stored, refused), place
            elif status == 200 and protocol == "bulk":
                told = [next(iter(item.values()))["status"] for item in json.loads(answer)["items"]]
                assert told.count(201) == stored, place
                assert len(told) == stored + refused > 0, place
            elif status in (200, 204):
                assert stored or (protocol == "otlp" and is_empty), place
            elif protocol != "loki":  # whose 400 says how many lines were stored
                assert stored == 0, place


@pytest.mark.parametrize("body", [b'[{"n":1},', b'[{"n":1}', b'[{"n":1},{"n"', b'{"n":1},', b"["])
def test_a_document_that_was_cut_is_refused_whole(server: HttpLake, body: bytes) -> None:
    """What its start holds is no answer to what was sent, and comes with the whole again."""
    before = len(server.events("SELECT 1 FROM events"))
    assert server.ask("/ingest", body).status == 400
    assert len(server.events("SELECT 1 FROM events")) == before


def send(
    rng: random.Random, server: HttpLake, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, bytes]:
    if rng.random() < 0.7:
        reply = server.ask(path, body, headers)
        return reply.status, reply.body
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        chunks = iter((body[:5], body[5:]))
        chunked = {**headers, "transfer-encoding": "chunked"}
        connection.request("POST", path, chunks, chunked, encode_chunked=True)
        response = connection.getresponse()
        return response.status, response.read()


def test_huge_bodies_together_take_bounded_memory(tmp_path: Path) -> None:
    need_module("uvicorn")
    small = b'{"type":"a"}\n' * ((4 << 20) // 13)
    bodies: list[tuple[bytes, str, int]] = [
        (small, "", 200),
        (gzip.compress(small, 1), "gzip", 200),
        (b"[" + b'{"a":1},' * 200_000 + b"{}]", "", 200),
        (b"[" + b"{}," * 600_000 + b"{}]", "", 413),
        (b'[{"a":"' + b"x" * (9 << 20) + b'"}]', "", 413),
        (gzip.compress(bytes(100 << 20), 1), "gzip", 413),
        (zstandard.compress(bytes(1 << 30)), "zstd", 413),
    ]
    statuses: dict[int, int] = {}
    with serving(tmp_path / "lake") as server:

        def ask(place: int) -> None:
            body, encoding, _ = bodies[place]
            headers = {"content-encoding": encoding} if encoding else {}
            statuses[place] = server.ask("/ingest", body, headers, timeout=90).status

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.peak() < MEMORY_MAX
    assert [statuses[place] for place in range(len(bodies))] == [body[2] for body in bodies]


def test_many_short_records_take_bounded_memory(tmp_path: Path) -> None:
    """A record of two bytes, and a line that is no event, take hundreds of them until stored."""
    need_module("uvicorn")
    count = 1 << 20
    zeros = b"[" + b"0," * count + b"0]"
    logs = b"\x0a\x85\x80\x80\x01\x12\x80\x80\x80\x01" + b"\x12\x00" * count
    bodies: list[tuple[str, bytes, str, int]] = [
        ("/ingest", b"0\n" * count, "", 413),
        ("/ingest", b"oops\n" * 100_000, "", 400),
        ("/ingest", zeros, "", 413),
        ("/_bulk", b"x\n" * count, "application/x-ndjson", 413),
        ("/v1/logs", logs, "application/x-protobuf", 413),
    ]
    with serving(tmp_path / "lake") as server:
        for path, body, media_type, status in bodies:
            reply = server.ask(path, body, {"content-type": media_type}, timeout=90)
            assert reply.status == status, path
        assert server.peak() < MEMORY_MAX


def test_a_body_without_end_is_refused(server: HttpLake) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
        head = "POST /ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        with pytest.raises(ConnectionError, match=r"pipe|reset"):
            connection.sendall(piece * 200)


@pytest.mark.parametrize("size", [33 << 20, 70 << 20])
def test_who_sends_too_much_reads_why(server: HttpLake, size: int) -> None:
    """Clients that write a whole body before they read: reset, they would send it for ever."""
    reply = server.ask("/ingest", b" " * size)
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert "send it in parts" in reply.json["error"]
    assert server.ask("/v1/logs", b" " * (9 << 20)).status == 413


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"level": 50, "time": 1_795_947_749_445, "pid": 1, "msg": "no"}, ("log", "ERROR", "no")),
        (
            {"@timestamp": "2026-11-29T10:22:28Z", "log.level": "error", "message": "no"},
            ("log", "ERROR", "no"),
        ),
        ({"time": "2026-11-29T10:22:28Z", "level": "WARN", "msg": "no"}, ("log", "WARN", "no")),
        (
            {"time": "2026-11-29T10:22:28Z", "level": "WARN", "msg": "no", "type": "own"},
            ("own", "WARN", None),
        ),
    ],
    ids=["pino", "ecs", "slog", "envelope"],
)
def test_lines_of_loggers_are_the_events_of_their_files(
    server: HttpLake, line: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    """As are arrays of them; a type of its own makes a line an envelope."""
    source = f"logger-{expected[0]}-{len(str(line))}"
    server.ask(f"/ingest/{source}", lines(line))
    (event,) = server.events(f"SELECT * FROM events WHERE source = '{source}'")
    assert (event["type"], event["level"], event["message"]) == expected


def test_the_level_of_elastics_schema_in_bulk(server: HttpLake) -> None:
    """What Beats send has its level under log; a level of a document's own comes first."""
    at = {"@timestamp": "2026-11-20T10:00:00Z", "message": "m"}
    documents: list[dict[str, Any]] = [
        at | {"log": {"level": "error", "file": {"path": "/var/log/x"}}},
        at | {"log.level": "warning"},
        at | {"log": {"level": "debug"}, "level": "INFO"},
        at | {"log": {"level": ["error"]}},
        at | {"log": "error"},
        {"log": {"level": "error"}},
    ]
    pairs = ([{"create": {"_index": "ecs"}}, document] for document in documents)
    body = "".join(json.dumps(line) + "\n" for pair in pairs for line in pair)
    assert not server.ask("/_bulk", body.encode()).json["errors"]
    rows = server.events("SELECT level, data FROM events WHERE source = 'ecs' ORDER BY seq")
    assert [row["level"] for row in rows] == ["ERROR", "WARN", "INFO", None, None, None]
    assert json.loads(rows[0]["data"])["log"] == documents[0]["log"]


def test_a_bulk_request_may_be_as_large_as_its_clients_make_it(server: HttpLake) -> None:
    """Vector sends ten megabytes, and Elasticsearch's own client up to a hundred."""
    texts = ["x" * (1 << 20)] * 12
    documents = [json.dumps({"message": text, "n": n}) for n, text in enumerate(texts)]
    documents.insert(9, "no document")
    body = "".join(f'{{"create":{{"_id":"d{n}"}}}}\n{d}\n' for n, d in enumerate(documents))
    told = server.ask("/large/_bulk", body.encode()).json
    statuses = [next(iter(item.values()))["status"] for item in told["items"]]
    assert statuses == [201] * 9 + [400] + [201] * 3
    rows = server.events("SELECT id FROM events WHERE source = 'large' ORDER BY seq")
    assert [row["id"] for row in rows] == [f"d{n}" for n in range(13) if n != 9]
    assert server.ask("/_bulk", b'{"index":{}}\n{}\n' * 300_000).status == 413


def test_lines_of_a_large_body_have_their_numbers(server: HttpLake) -> None:
    """It is parsed in slices; what is refused is told by its line in the whole."""
    good = lines({"type": "a", "message": "x" * 1_000}) * 9_000
    body = good + b"not json\n" + good[:-1]
    reply = server.ask("/ingest/slices", body, timeout=60)
    assert (reply.status, reply.json["accepted"], reply.json["rejected"]) == (200, 18_000, 1)
    assert reply.json["errors"][0]["line"] == 9_001


RAW = zlib.compressobj(wbits=-15)
TEXT = b"some text of a body\n" * 50


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        *((name, encode(TEXT)) for name, encode in ENCODERS.items()),
        ("deflate", RAW.compress(TEXT) + RAW.flush()),
        ("x-gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("zstd", zstandard.compress(TEXT[:100]) + zstandard.compress(TEXT[100:])),
    ],
    ids=[*ENCODERS, "raw deflate", "two of gzip", "two of zstd"],
)
def test_every_stream_of_an_encoding_is_read(encoding: str, body: bytes) -> None:
    assert decompressed(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_stream_is_refused_that_is_cut_too_long_or_followed(encoding: str) -> None:
    body = ENCODERS[encoding](TEXT)
    for odd in (body[:-3], body + b"behind", b"{}"):
        with pytest.raises(RequestRefused) as refused:
            decompressed(odd, encoding, 1 << 20)
        assert refused.value.status == 400
    with pytest.raises(RequestRefused) as refused:
        decompressed(body, encoding, len(TEXT) - 1)
    assert refused.value.status == 413


@pytest.mark.parametrize("is_there", [False, True], ids=["waited", "there"])
def test_a_body_of_no_declared_length_has_the_same_bound(is_there: bool) -> None:
    """Whether it has to be waited for, or was there with its head."""

    def reading(size: int) -> bytes:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": bytes(size), "more_body": False}

        limits = ServerLimits(body_bytes=100)
        return asyncio.run(body_of({}, receive, limits, is_there=is_there))

    assert len(reading(100)) == 100
    with pytest.raises(RequestRefused) as refused:
        reading(101)
    assert refused.value.status == 413


def test_bodies_of_no_declared_length_have_the_room_of_others(make_lake: MakeLake) -> None:
    """As they come: one more is refused, and those before it are read to their ends."""

    async def reading(intake: EventIntake[object], size: int, may_end: asyncio.Event) -> int:
        async def receive() -> dict[str, Any]:
            if sent:
                await may_end.wait()
            sent.append(size)
            return {"type": "http.request", "body": bytes(size), "more_body": len(sent) < 2}

        sent = list[int]()
        with intake.room(1) as reserve:
            return len(await body_of({}, receive, limits, reserve=reserve))

    async def together() -> tuple[int, ...]:
        intake, may_end = EventIntake[object](make_lake(), limits), asyncio.Event()
        readings = [asyncio.create_task(reading(intake, size, may_end)) for size in (400, 40)]
        await asyncio.sleep(0)
        with pytest.raises(RequestRefused) as refused:
            await reading(intake, 600, may_end)
        assert refused.value.status == 429
        may_end.set()
        sizes = await asyncio.gather(*readings)
        assert await reading(intake, 2_000, may_end) == 4_000  # alone, it is let in
        intake.close()
        return tuple(sizes)

    limits = ServerLimits(waiting_bytes=1_000)
    assert asyncio.run(together()) == (800, 80)


def test_a_body_that_comes_too_slowly_is_refused() -> None:
    """Whether it is read as a whole or while it comes; another one is read to its end."""
    quick = ServerLimits(body_seconds=0.1)

    async def silent() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError("nobody waited so long")

    async def text() -> dict[str, Any]:
        return {"type": "http.request", "body": b"text", "more_body": False}

    async def streamed(receive: Any) -> bytes:
        return b"".join([chunk async for chunk in texts_of({}, receive, quick)])

    for reading in (lambda receive: body_of({}, receive, quick), streamed):
        assert asyncio.run(reading(text)) == b"text"
        with pytest.raises(RequestRefused) as refused:
            asyncio.run(reading(silent))
        assert refused.value.status == 408


def test_a_body_that_a_stop_cuts_off_is_sent_again() -> None:
    """As an answer with 503 says, which is no fault of the server."""

    async def silent() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError("nobody waited so long")

    async def streamed() -> bytes:
        return b"".join([chunk async for chunk in texts_of({}, silent, ServerLimits())])

    async def cancelled(reading: Coroutine[Any, Any, bytes]) -> None:
        task = asyncio.create_task(reading)
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    for reading in (body_of({}, silent, ServerLimits()), streamed()):
        with pytest.raises(RequestRefused) as refused:
            asyncio.run(cancelled(reading))
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
