"""Events over HTTP: what is answered with 2xx is stored or counted, once, whatever sent it."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import shlex
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

import lakelog
from lakelog.event import EncodedBatch, payload_of
from lakelog.formats import otlp as otlp_format
from lakelog.server.protocols import otlp, otlp_logs
from lakelog.values import parse_time
from tests.support.attached import SharedMachines
from tests.support.http_lake import JSON_LINES, HttpLake, lines, serving
from tests.support.requirements import need_module

DEEP = '{"a":' * 300 + "1" + "}" * 300
"""JSON that is read, and cannot be written again."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    with serving(tmp_path_factory.mktemp("served") / "lake") as each:
        yield each


def stored(server: HttpLake, source: str) -> list[dict[str, Any]]:
    return server.events(f"SELECT * FROM events WHERE source = '{source}' ORDER BY seq")


def test_json_lines_are_stored(server: HttpLake) -> None:
    body = lines({"type": "a", "data": {"n": 1}}, {"type": "b", "time": "2026-01-02T03:04:05Z"})
    reply = server.ask("/ingest/web", body, JSON_LINES)
    assert (reply.status, reply.json) == (200, {"accepted": 2, "rejected": 0})
    assert [event["type"] for event in stored(server, "web")] == ["a", "b"]


@pytest.mark.parametrize("space", ["", " "], ids=["without", "with"])
def test_an_empty_source_is_that_of_the_path(server: HttpLake, space: str) -> None:
    """However the lines are spaced."""
    body = f'{{"type":{space}"a","source":{space}"","data":{space}{{"space":{space}"{space}"}}}}\n'
    source = f"empty{len(space)}"
    assert server.ask(f"/ingest/{source}", body.encode(), JSON_LINES).status == 200
    assert [json.loads(event["data"]) for event in stored(server, source)] == [{"space": space}]


def test_a_bad_line_loses_no_other(server: HttpLake) -> None:
    body = b'{"n":1}\nnot json\n[1]\n{"n":2}\n'
    reply = server.ask("/ingest/bad", body, JSON_LINES)
    assert reply.status == 200
    assert (reply.json["accepted"], reply.json["rejected"]) == (2, 2)
    assert [error["line"] for error in reply.json["errors"]] == [2, 3]
    assert len(stored(server, "bad")) == 2
    server.ask("/ingest/bad", b'{"n":1}\nnor this\n', JSON_LINES)
    query = """SELECT line, count(DISTINCT (origin, position)) OVER () AS places FROM quarantine
        WHERE starts_with(origin, 'http:') AND position = 1 AND line IN ('not json', 'nor this')"""
    kept = server.events(f"{query} ORDER BY line")
    assert kept == [{"line": "nor this", "places": 2}, {"line": "not json", "places": 2}]


def test_a_refused_record_is_named_by_its_own_place(server: HttpLake) -> None:
    """Also one that is JSON, and no event only by its time; the quarantine has it as it was."""
    bad = b'{"time":"nonsense", "n":3}'
    body = b'\n5\n{"n":1}\n' + bad + b'\n{"n":2}\n'
    reply = server.ask("/ingest/places", body, JSON_LINES)
    assert [error["line"] for error in reply.json["errors"]] == [2, 4]
    assert reply.json["accepted"] == len(stored(server, "places")) == 2
    assert {"line": bad.decode()} in server.events("SELECT line FROM quarantine")
    bulk = b'{"delete":{"_id":"0"}}\n{"index":{}}\n' + bad + b'\n{"index":{}}\n{"n":1}\n'
    items = server.ask("/bulk-places/_bulk", bulk).json["items"]
    assert [next(iter(item.values()))["status"] for item in items] == [400, 400, 201]
    assert len(stored(server, "bulk-places")) == 1
    readings = [{}, {"values": [1], "dsnames": ["x"], "meta": json.loads(DEEP)}]
    reply = server.ask("/collectd", json.dumps(readings).encode())
    assert [error["line"] for error in reply.json["errors"]] == [1, 2]


@pytest.mark.parametrize("form", ["%s", '{"n":1}\n%s\n', '{"type":"a","data":{"x":%s}}', "[%s]"])
def test_what_is_nested_too_deeply_is_refused_alone(server: HttpLake, form: str) -> None:
    source = f"deep{len(form)}"
    reply = server.ask(f"/ingest/{source}", (form % DEEP).encode(), JSON_LINES)
    others = form.count("\n") // 2
    assert reply.status == (200 if others else 400)
    assert (reply.json["accepted"], reply.json["rejected"]) == (others, 1)
    assert "too deeply" in reply.json["errors"][0]["reason"]
    assert len(stored(server, source)) == others


@pytest.mark.parametrize("body", [b"null", b"null\nnull", b'null\n{"a":1}\n', b'{"a":1}\n null'])
def test_a_line_of_null_is_counted(server: HttpLake, body: bytes) -> None:
    source = f"null{body.count(b'null')}{body.find(b'{')}"
    told = server.ask(f"/ingest/{source}", body, JSON_LINES).json
    assert told["accepted"] + told["rejected"] == body.count(b"\n", 0, -1) + 1
    assert told["accepted"] == len(stored(server, source))


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_the_type_of_the_body_decides_nothing(server: HttpLake, media_type: str) -> None:
    source = f"type-{media_type[-8:].replace('/', '')}"
    headers = {"content-type": media_type} if media_type else {}
    reply = server.ask(f"/ingest/{source}", b'{"a":1}\n{"a":2}', headers)
    assert (reply.status, reply.json["accepted"]) == (200, 2)
    assert len(stored(server, source)) == 2


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b'[{"a":1},{"a":2},{"a":3}]', 3),
        (b'{\n  "a": 1\n}\n', 1),
        (b'{"Records":[{"a":1},{"a":2}]}', 2),
        (b'  [\n {"a":1}\n ,{"a":2}]', 2),
        (b'{"a":1}\r\n\r\n{"a":2}\r\n', 2),
        (b'\xef\xbb\xbf{"a":1}\n{"a":2}\n', 2),
        (b'\xef\xbb\xbf[{"a":1},{"a":2}]', 2),
    ],
)
def test_json_documents_are_stored(server: HttpLake, body: bytes, count: int) -> None:
    reply = server.ask(f"/ingest/doc{len(body)}", body, {"content-type": "application/json"})
    assert (reply.status, reply.json["accepted"]) == (200, count)


@pytest.mark.parametrize(
    "body", [b"", b" \n\n", b"nonsense", b"\xff\xfe", b"[1,2", b" [", b'{"records":[']
)
def test_what_is_no_event_is_never_answered_200(server: HttpLake, body: bytes) -> None:
    reply = server.ask("/ingest/none", body, JSON_LINES)
    assert reply.status == 400
    assert "error" in reply.json or reply.json["rejected"] == 1
    assert stored(server, "none") == []


def test_values_keep_their_text(server: HttpLake) -> None:
    """Also where one line of the body needs the exact way."""
    values = [
        '{"n":123456789012345678901234567890}',
        '{"x":0.10000000000000000555}',
        '{"a":1,"a":2}',
        '{"s":"\\ud800"}',
        '{"s":"\\u0022:"}',
    ]
    body = "\n".join(f'{{"source":"exact","data":{value}}}' for value in values).encode()
    assert server.ask("/ingest", body, JSON_LINES).json["accepted"] == len(values)
    texts = [event["data"] for event in stored(server, "exact")]
    assert texts[:3] == values[:3]


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:])),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("zstd", lambda body: zstandard.compress(body[:30]) + zstandard.compress(body[30:])),
    ],
)
def test_compressed_bodies(server: HttpLake, encoding: str, encode: Any) -> None:
    source = f"{encoding}{time.monotonic_ns()}"
    body = lines(*({"n": number, "source": source} for number in range(50)))
    reply = server.ask("/ingest", encode(body), {"content-encoding": encoding})
    assert (reply.status, reply.json) == (200, {"accepted": 50, "rejected": 0})
    assert len(stored(server, source)) == 50


@pytest.mark.parametrize(
    ("encoding", "encode", "status"),
    [
        ("gzip", lambda body: body, 400),
        ("gzip", lambda body: gzip.compress(body)[:-9], 400),
        ("zstd", lambda body: zstandard.compress(body)[:-3], 400),
        ("br", lambda body: body, 415),
        ("gzip", lambda body: gzip.compress(bytes(200 << 20), 1), 413),
        ("zstd", lambda body: zstandard.compress(bytes(200 << 20)), 413),
    ],
    ids=["no-gzip", "cut-gzip", "cut-zstd", "brotli", "gzip-bomb", "zstd-bomb"],
)
def test_broken_compression_and_bombs_are_refused(
    server: HttpLake, encoding: str, encode: Any, status: int
) -> None:
    body = encode(b'{"a":1}\n' * 99)
    reply = server.ask("/ingest", body, {"content-encoding": encoding})
    assert reply.status == status
    assert reply.json["error"]


def test_cloud_events_in_each_of_their_modes(server: HttpLake) -> None:
    event = {"specversion": "1.0", "id": "s1", "source": "/ce", "type": "t.made", "data": {"n": 1}}
    structured = {"content-type": "application/cloudevents+json; charset=utf-8"}
    assert server.ask("/ingest", json.dumps(event).encode(), structured).status == 204
    batch = {"content-type": "application/cloudevents-batch+json"}
    body = json.dumps([{**event, "id": "b1"}, {**event, "id": "b2"}]).encode()
    assert server.ask("/ingest", body, batch).json["accepted"] == 2
    binary = {
        "ce-specversion": "1.0",
        "ce-id": "h1",
        "ce-source": "/ce",
        "ce-type": "t.%C3%A9",
        "content-type": "application/json",
    }
    assert server.ask("/ingest", b'{"n":2}', binary).status == 204
    assert server.ask("/ingest", b"", {**binary, "ce-id": ""}).status == 400
    # Another event of the same content, then that one again.
    for _ in range(2):
        assert server.ask("/ingest", b'{"n":2}', {**binary, "ce-id": "h2"}).status == 204
    found = stored(server, "/ce")
    assert [(event["id"], event["type"]) for event in found] == [
        ("s1", "t.made"),
        ("b1", "t.made"),
        ("b2", "t.made"),
        ("h1", "t.é"),
        ("h2", "t.é"),
    ]


def test_the_same_request_again_is_answered_and_not_stored_again(server: HttpLake) -> None:
    body = lines({"n": 1, "source": "again"})
    first = server.ask("/ingest", body, JSON_LINES)
    assert server.ask("/ingest", body, JSON_LINES).json == first.json
    assert len(stored(server, "again")) == 1
    # Another key says that it is another request.
    server.ask("/ingest", body, {**JSON_LINES, "idempotency-key": "2"})
    assert len(stored(server, "again")) == 2


def test_a_request_with_a_key_is_stored_once_by_servers_of_a_shared_lake(tmp_path: Path) -> None:
    body = lines({"n": 1}, {"n": 1})
    machines = SharedMachines(tmp_path)
    with serving(machines["a"].path) as one, serving(machines["b"].path) as two:
        for each in (one, two):
            reply = each.ask("/ingest", body, {"idempotency-key": "7"})
            assert reply.json == {"accepted": 2, "rejected": 0}
        assert two.ask("/ingest", body, {"idempotency-key": "8"}).status == 200
    machines.exchange("a", "b")
    assert [machines[name].count() for name in "ab"] == [4, 4]
    machines.close()


def test_requests_that_come_together_are_each_stored_once(server: HttpLake) -> None:
    body = lines({"n": 1, "source": "together"})
    replies: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: replies.append(server.ask("/ingest", body, JSON_LINES).status)
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [200] * 16
    assert len(stored(server, "together")) == 1


def test_elasticsearch_bulk(server: HttpLake) -> None:
    """As its clients and Filebeat send it; lines between pairs may be blank."""
    about = server.ask("/")
    assert about.headers["x-elastic-product"] == "Elasticsearch"
    assert int(about.json["version"]["number"].partition(".")[0]) >= 8
    body = (
        b'{"create":{"_id":"e1"}}\n{"message":"one"}\n\n'
        b'{"index":{"_index":"other"}}\nnot json\n'
        b'{"delete":{"_id":"e0"}}\n'
        b'{"index":{}}\n{"message":"two"}\n'
    )
    accept = {"accept": "application/vnd.elasticsearch+json; compatible-with=9"}
    reply = server.ask("/logs-app/_bulk", body, accept, method="PUT")
    assert reply.headers["content-type"] == accept["accept"]
    assert reply.headers["x-elastic-product"] == "Elasticsearch"
    assert reply.json["errors"] is True
    statuses = [next(iter(item.values()))["status"] for item in reply.json["items"]]
    assert statuses == [201, 400, 400, 201]
    assert [event["message"] for event in stored(server, "logs-app")] == ["one", "two"]
    refused = server.ask("/_bulk", b"")
    assert refused.status == 400
    assert refused.json["error"]["type"]


def test_loki_push_as_json(server: HttpLake) -> None:
    labels = {"service_name": "checkout", "level": "error"}
    values = [["1790000000123456789", "it broke", {"trace_id": "t1"}], ["x", "no time"]]
    body = json.dumps({"streams": [{"stream": labels, "values": values}]}).encode()
    reply = server.ask("/loki/api/v1/push", body, {"content-type": "application/json"})
    assert reply.status == 400
    assert b"1 stored" in reply.body
    (event,) = stored(server, "checkout")
    assert (event["message"], event["level"]) == ("it broke", "ERROR")
    assert json.loads(event["data"])["metadata"] == {"trace_id": "t1"}
    good = json.dumps({"streams": [{"stream": labels, "values": values[:1]}]}).encode()
    assert server.ask("/loki/api/v1/push", good).status == 204


@pytest.mark.parametrize(("body", "status"), [(b"\0", 204), (b"\x05\x10\x12\x03abc", 400)])
def test_a_push_that_holds_nothing_that_is_known(
    server: HttpLake, body: bytes, status: int
) -> None:
    assert server.ask("/loki/api/v1/push", body).status == status


def test_loki_push_as_protobuf_in_snappy(server: HttpLake) -> None:
    import pyarrow as pa

    def part(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    stamp = b"\x08" + _varint(1_790_000_000) + b"\x10" + _varint(5_000)
    pair = part(1, b"trace") + part(2, b"t2")
    entry = part(1, stamp) + part(2, b"a line") + part(3, pair)
    labels = rb'{app="snap", path="C:\\x", go="a\tb\u00a0\"\x7f", no="\d\t"}'
    stream = part(1, labels) + part(2, entry)
    body = pa.Codec("snappy").compress(part(1, stream)).to_pybytes()
    assert server.ask("/loki/api/v1/push", body).status == 204
    (event,) = stored(server, "snap")
    data = json.loads(event["data"])
    assert event["message"] == "a line"
    assert data["labels"] == {
        "app": "snap",
        "path": "C:\\x",
        "go": 'a\tb\u00a0"\x7f',
        "no": r"\d\t",
    }
    assert data["metadata"] == {"trace": "t2"}
    # A length of four gigabytes in front of nothing.
    assert server.ask("/loki/api/v1/push", b"\xff\xff\xff\xff\x0fx").status == 413
    assert server.ask("/loki/api/v1/push", b"\x05nope").status == 400
    assert server.ask("/loki/api/v1/push", b"\xff" * 40).status == 400
    # Seconds, labels and a line of another type than they have in a push.
    entry = part(1, part(1, b"9" * 30)) + b"\x10\x05" + part(2, b"of 1970")
    stream = b"\x08\x05" + part(1, b'{app="odd"}') + part(2, entry) + b"\x10\x07"
    body = pa.Codec("snappy").compress(part(1, stream)).to_pybytes()
    assert server.ask("/loki/api/v1/push", body).status == 204
    assert [event["message"] for event in stored(server, "odd")] == ["of 1970"]


def test_a_loki_push_that_begins_like_json(server: HttpLake) -> None:
    """The length of a push of 123 bytes is the character {."""
    import pyarrow as pa

    line = b"\x12" + bytes([102]) + b"x" * 102
    stream = b"\x0a\x0d" + b'{app="brace"}' + b"\x12" + bytes([len(line)]) + line
    push = b"\x0a" + bytes([len(stream)]) + stream
    body = pa.Codec("snappy").compress(push).to_pybytes()
    assert body[:1] == b"{"
    for headers in ({"Content-Type": "application/x-protobuf"}, {"Content-Type": ""}):
        assert server.ask("/loki/api/v1/push", body, headers).status == 204
    assert len(stored(server, "brace")) == 2


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def test_otlp_as_protobuf_and_as_json_is_the_same(server: HttpLake) -> None:
    need_module("opentelemetry.proto")
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs

    request = logs.ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    name = resource.resource.attributes.add(key="service.name")
    name.value.string_value = "otel-proto"
    record = resource.scope_logs.add().log_records.add(
        time_unix_nano=1_790_000_000_000_000_001, severity_number=17, trace_id=bytes(range(16))
    )
    record.body.string_value = "failed"
    record.attributes.add(key="n").value.int_value = 2**63 - 1
    proto = {"content-type": "application/x-protobuf"}
    reply = server.ask("/v1/logs", request.SerializeToString(), proto)
    assert (reply.status, reply.body) == (200, b"")
    document = {
        "resourceLogs": [
            {
                "resource": {
                    "attributes": [{"key": "service.name", "value": {"stringValue": "otel-json"}}]
                },
                "scopeLogs": [
                    {
                        "logRecords": [
                            {
                                "timeUnixNano": "1790000000000000001",
                                "severityNumber": 17,
                                "body": {"stringValue": "failed"},
                                "attributes": [
                                    {"key": "n", "value": {"intValue": "9223372036854775807"}}
                                ],
                                "traceId": bytes(range(16)).hex(),
                            }
                        ]
                    }
                ],
            }
        ]
    }
    as_json = {"content-type": "application/json"}
    reply = server.ask("/v1/logs", json.dumps(document).encode(), as_json)
    assert (reply.status, reply.json) == (200, {})
    (one,), (other,) = stored(server, "otel-proto"), stored(server, "otel-json")
    data, other_data = json.loads(one["data"]), json.loads(other["data"])
    for each in (data, other_data):
        del each["resource"]
    assert data == other_data
    assert data["attributes"] == {"n": 2**63 - 1}
    assert (one["message"], one["level"], one["time"]) == (
        other["message"],
        other["level"],
        other["time"],
    )


@pytest.mark.parametrize(
    ("path", "body", "media_type", "status"),
    [
        ("/v1/logs", b"\xff\xff", "application/x-protobuf", 400),
        ("/v1/logs", b"{", "application/json", 400),
        ("/v1/logs", b"{}", "application/json", 200),
        ("/v1/logs", b"", "application/x-protobuf", 200),
        ("/v1/logs", b"\x12\x03abc", "application/x-protobuf", 400),
        ("/v1/traces", b"\x0a\x02\x28\x01", "application/x-protobuf", 400),
        ("/v1/metrics", b"\x0a\x02\x0a\x00", "application/x-protobuf", 200),
        ("/v1/logs", b"x", "text/plain", 415),
        ("/v1/nothing", b"", "application/x-protobuf", 404),
    ],
)
def test_otlp_errors(
    server: HttpLake, path: str, body: bytes, media_type: str, status: int
) -> None:
    assert server.ask(path, body, {"content-type": media_type}).status == status


def test_a_stop_loses_nothing(tmp_path: Path) -> None:
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server:
        for number in range(20):
            assert server.ask("/ingest", lines({"n": number}), JSON_LINES).status == 200
        assert server.stop() == 0
        assert len(server.events()) == 20


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    need_module("uvicorn")
    answered: list[int] = []
    with serving(tmp_path / "lake") as server:

        def send(first: int) -> None:
            for number in range(first, first + 1_000):
                try:
                    reply = server.ask("/ingest", lines({"data": {"n": number}}), JSON_LINES)
                except (OSError, http.client.HTTPException):
                    return
                if reply.status == 200:
                    answered.append(number)

        threads = [threading.Thread(target=send, args=(n * 1_000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 40:
            time.sleep(0.01)
        server.kill()
        for thread in threads:
            thread.join()
        numbers = [json.loads(event["data"])["n"] for event in server.events()]
    assert len(numbers) == len(set(numbers))
    assert set(answered) <= set(numbers)


def _otlp_request(rng: random.Random) -> Any:
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs

    def fill(value: Any, depth: int = 0) -> None:
        choice = rng.randrange(8 if depth < 2 else 6)
        if choice == 0:
            value.string_value = rng.choice(["", "text", "č\u2028\x01\n", r"\ud800\u0000 null"])
        elif choice == 1:
            value.int_value = rng.choice([0, -5, 2**53 + 1, 10**18, -(2**63)])
        elif choice == 2:
            value.double_value = rng.choice([0.0, 1.5, 1e300, float("nan")])
        elif choice == 3:
            value.bool_value = rng.random() < 0.5
        elif choice == 4:
            value.bytes_value = bytes(rng.randrange(4))
        elif choice == 6:
            for _ in range(rng.randrange(3)):
                fill(value.array_value.values.add(), depth + 1)
        elif choice == 7:
            for number in range(rng.randrange(3)):
                fill(value.kvlist_value.values.add(key=f"k{number}").value, depth + 1)

    request = logs.ExportLogsServiceRequest()
    for _ in range(rng.randrange(1, 3)):
        resource = request.resource_logs.add(schema_url=rng.choice(["", "url"]))
        for key in rng.sample(["service.name", "host", "pid"], rng.randrange(3)):
            fill(resource.resource.attributes.add(key=key).value)
        for _ in range(rng.randrange(1, 3)):
            scope = resource.scope_logs.add(schema_url=rng.choice(["", "url"]))
            scope.scope.name = rng.choice(["", "scope"])
            for _ in range(rng.randrange(1, 4)):
                record = scope.log_records.add(
                    time_unix_nano=rng.choice(
                        [1_790_000_000_123_456_789] * 30 + [0, 10**17, 10**16]
                    ),
                    observed_time_unix_nano=rng.choice([1_790_000_001_000_000_000] * 30 + [1]),
                    severity_number=rng.choice([0, 1, 9, 17, 24]),
                    severity_text=rng.choice(["", "warning", "odd"]),
                    trace_id=bytes(rng.choice([0, 16])),
                    flags=rng.randrange(2),
                    dropped_attributes_count=rng.randrange(2),
                )
                if rng.random() < 0.3:
                    record.event_name = "named"
                fill(record.body)
                for key in rng.choices(["a", "b", "c", "d", "e", ""], k=rng.randrange(3)):
                    fill(record.attributes.add(key=key).value)
    return request


def test_log_records_of_protobuf_are_those_of_their_json() -> None:
    need_module("opentelemetry.proto")
    rng, direct = random.Random(3), 0
    for _ in range(450):
        request = _otlp_request(rng)
        expected = EncodedBatch.of(otlp_format.OtlpRequests.events_of(otlp._object(request)))
        sent = otlp_logs.request_class().FromString(request.SerializeToString())
        try:
            batch = otlp_logs.encoded_logs(sent, otlp._object)
        except otlp_logs.NotPlain:
            continue
        direct += 1
        for line, other in zip(batch.lines, expected.lines, strict=True):
            row, other_row = json.loads(line), json.loads(other)
            assert payload_of(line) == payload_of(other)
            assert parse_time(row.pop("time")) == parse_time(other_row.pop("time"))
            assert row == other_row
    assert direct > 50


def test_the_same_request_after_a_kill_is_not_stored_again(tmp_path: Path) -> None:
    need_module("uvicorn")
    path, bodies = tmp_path / "lake", [lines({"data": {"n": n}}, {"data": {}}) for n in range(5)]
    bad = b'{"n":1}\nnot json\n'
    with serving(path) as server:
        replies = [server.ask("/ingest", body).json for body in (*bodies, bad)]
        server.kill()
    for _ in range(2):
        with serving(path) as server:
            assert [server.ask("/ingest", body).json for body in (*bodies, bad)] == replies
            assert len(server.events()) == 11
            assert len(server.events("SELECT * FROM quarantine")) == 1
            server.kill()
    with serving(path) as server:
        assert server.ask("/ingest", bodies[0], {"idempotency-key": "2"}).status == 200
        assert len(server.events()) == 13


def test_a_line_that_was_set_aside_before_a_kill_is_there_once(tmp_path: Path) -> None:
    """The kill came before it was said whose events come next: the journal ends behind its first
    record, of 88 bytes."""
    need_module("uvicorn")
    path, body = tmp_path / "lake", b'{"n":1}\nnot json\nneither\n'
    with serving(path) as server:
        reply = server.ask("/ingest", body).json
        (record,) = (path / "server" / "requests").iterdir()
        server.kill()
    record.write_bytes(record.read_bytes()[:88])
    with serving(path) as server:
        assert server.ask("/ingest", body).json == reply
        assert len(server.events("SELECT * FROM quarantine")) == 2
        assert server.ask("/ingest", b"not json\n").json["rejected"] == 1
        assert len(server.events("SELECT * FROM quarantine")) == 3


def test_a_request_of_which_a_kill_left_a_part_is_completed(tmp_path: Path) -> None:
    """The record of a request is there, and the first of its events: as between two frames."""
    need_module("uvicorn")
    path, body = tmp_path / "lake", lines(*({"data": {"n": n}} for n in range(6)))
    with serving(path) as server:
        server.ask("/ingest", body)
        (record,) = (path / "server" / "requests").iterdir()
        server.kill()
    content = record.read_bytes()
    shutil.rmtree(path)
    with lakelog.open(path) as lake:
        lake.append([{"type": "log", "data": {"n": n}} for n in range(2)])
        writer = lake.writer().name
    (path / "server" / "requests").mkdir(parents=True)
    content = content[:24] + writer.encode().ljust(40, b"\0") + content[64:-4]
    record.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    with serving(path) as server:
        assert server.ask("/ingest", body).json == {"accepted": 6, "rejected": 0}
        assert [json.loads(event["data"])["n"] for event in server.events()] == [*range(6)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
def test_a_damaged_journal_of_requests_stops_nothing(tmp_path: Path, damage: str) -> None:
    need_module("uvicorn")
    path = tmp_path / "lake"
    with serving(path) as server:
        server.ask("/ingest", lines({"data": {"n": 1}}))
        (record,) = (path / "server" / "requests").iterdir()
        server.kill()
    content = record.read_bytes()
    changed = {"cut": content[:-7], "flipped": content[:70] + b"\0" * 20 + content[90:]}
    record.write_bytes({**changed, "foreign": b"x" * 500, "empty": b""}[damage])
    with serving(path) as server:
        assert server.ask("/ingest", lines({"data": {"n": 2}})).status == 200


def test_a_unit_of_systemd_starts_the_same_server(tmp_path: Path) -> None:
    need_module("uvicorn")
    options = ["--port", "7800", "--host-name", "a.example", "--host-name", "b%c", "--syslog", "0"]
    command = [sys.executable, "-m", "lakelog", "--lake", "la ke", "serve", *options]
    unit = subprocess.run(
        [*command, "--print-unit"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert {"RestartSec=2", "TimeoutStopSec=30"} <= {*unit.splitlines()}
    (start,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(start.removeprefix("ExecStart=").replace("%%", "%"))
    assert words[1:] == ["-m", "lakelog", "--lake", str(tmp_path / "la ke"), "serve", *options]
    assert list(tmp_path.iterdir()) == []


def _doors() -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """A request of each protocol, with one event and no id: its path, its body, its headers."""
    import pyarrow as pa

    log = {"timeUnixNano": "1790000000000000000", "body": {"stringValue": "log"}}
    span = {"name": "span", "startTimeUnixNano": "1790000000000000000"}
    metric = {"name": "metric", "gauge": {"dataPoints": [{"asInt": "1"}]}}
    signals = {
        "logs": {"resourceLogs": [{"scopeLogs": [{"logRecords": [log]}]}]},
        "traces": {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]},
        "metrics": {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]},
    }
    entry = b"\x0a\x06\x08" + _varint(1_790_000_000) + b"\x12\x04snap"
    stream = b'\x0a\x07{a="b"}\x12' + bytes([len(entry)]) + entry
    push = pa.Codec("snappy").compress(b"\x0a" + bytes([len(stream)]) + stream).to_pybytes()
    values = [["1790000000000000000", "line"]]
    reading = {"values": [1], "dsnames": ["v"], "dstypes": ["gauge"], "time": 1767323045}
    reading |= {"host": "h", "plugin": "p", "type": "t", "plugin_instance": "", "type_instance": ""}
    cursor = b"__CURSOR=c\n__REALTIME_TIMESTAMP=1767323046000000\nMESSAGE=m\n\n"
    as_json = {"content-type": "application/json"}
    doors = {
        "lines": ("/ingest", lines({"n": 1}), JSON_LINES),
        "compressed": ("/ingest", gzip.compress(lines({"n": 2})), {"content-encoding": "gzip"}),
        "array": ("/ingest/a", b'[{"n":1}]', as_json),
        "bulk": ("/_bulk", b'{"create":{"_index":"i"}}\n{"n":1}\n', JSON_LINES),
        "loki json": (
            "/loki/api/v1/push",
            json.dumps({"streams": [{"stream": {"a": "b"}, "values": values}]}).encode(),
            as_json,
        ),
        "loki snappy": ("/loki/api/v1/push", push, {}),
        "collectd": ("/collectd", json.dumps([reading]).encode(), as_json),
        "journal": ("/upload", cursor, {"content-type": "application/vnd.fdo.journal"}),
    }
    for name, content in signals.items():
        doors[name] = (f"/v1/{name}", json.dumps(content).encode(), as_json)
    attributes = {"ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0"}
    doors["binary event"] = ("/ingest", b'{"n":1}', {**attributes, **as_json})
    return doors


def test_a_request_that_comes_again_is_stored_once_by_every_door(tmp_path: Path) -> None:
    """At once, and to the server after one that was killed; the answers are the same."""
    need_module("uvicorn")
    doors, path = _doors(), tmp_path / "lake"
    with serving(path) as server:
        replies = {name: server.ask(*door) for name, door in doors.items()}
        assert {name: r.status // 100 for name, r in replies.items()} == dict.fromkeys(doors, 2)
        assert len(server.events()) == len(doors)
        server.kill()
    with serving(path) as server:
        for name, door in (*doors.items(), *doors.items()):
            reply, before = server.ask(*door), replies[name]
            assert (name, reply.status) == (name, before.status)
            if name not in ("bulk", "journal"):  # which tell how long it took, and what is new
                assert (name, reply.body) == (name, before.body)
        assert len(server.events()) == len(doors)
