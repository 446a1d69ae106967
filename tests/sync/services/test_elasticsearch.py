"""Elasticsearch as a target: the inherited faults, and those of a store without transactions."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from lakelog.clients import http_client
from lakelog.errors import InvalidSetting, LakelogError, SyncRefused, Unreachable
from lakelog.sync.services import intent
from lakelog.sync.sync import target_of
from lakelog.sync.target import Watermark
from tests.support.cli import run
from tests.support.elastic_server import ElasticPlace, ElasticServer, Index
from tests.support.lakes import EXOTIC, copied, opened
from tests.support.redis_server import Authority
from tests.support.strict_server import Refused, Request, StrictServer, killed_at, nth, running
from tests.support.sync_places import PASSWORD, Place, expected, synced
from tests.support.target_suite import CHANGES, TargetSuite, rewind, three_segments


@pytest.fixture
def server() -> Iterator[ElasticServer]:
    with running(ElasticServer()) as each:
        yield each


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries not wait."""
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.001)


@pytest.mark.matrix
class TestElasticsearch(TargetSuite):
    # An index has no constraints and is asked nothing in SQL.
    test_column_of_another_type = None
    test_column_that_was_dropped = None
    test_constraint_that_a_row_violates = None
    test_table_without_key = None
    test_table_that_is_gone = None
    test_table_with_rows_of_somebody_else = None
    test_upsert_replaces_rows_of_the_same_key = None
    test_older_state_that_was_collected = None
    test_move_that_was_dropped = None
    test_check_finds_and_repairs_what_differs = None
    test_check_of_numbers_that_a_database_may_not_have = None
    test_refused_rows_go_to_the_quarantine = None
    test_table_that_was_emptied = None
    test_watermark_of_a_later_version = None

    @pytest.fixture
    def place(self, server: ElasticServer) -> Place:
        return ElasticPlace(server)

    def test_values_of_every_kind(self, home: Path, place: Place) -> None:
        """As JSON; what is no object is the field `value` of one."""
        path = str(home / "exotic")
        with opened(path) as lake:
            lake.append(EXOTIC)
        synced(path, place.url)
        for found, wanted in zip(place.rows(), expected(path), strict=True):
            assert found[:5] + found[6:] == wanted[:5] + wanted[6:]
            if wanted[5] is not None and wanted[5].startswith("{"):
                assert json.loads(found[5]) in (json.loads(wanted[5]), {"value": wanted[5]})
            elif wanted[5] is not None:
                assert json.loads(found[5]) == {"value": wanted[5]}


@pytest.fixture
def place(server: ElasticServer) -> ElasticPlace:
    return ElasticPlace(server)


@pytest.fixture
def path(home: Path) -> str:
    """A lake of three segments, the first one tagged."""
    return copied(three_segments, home)


def check(path: str, place: ElasticPlace) -> None:
    result = synced(path, place.url)
    assert place.rows() == expected(path)
    assert result.total == len(place.rows())
    assert synced(path, place.url).commits == 0


@pytest.mark.matrix
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 20))
def test_crash_recovery_at_each_request_of_a_back_fill(
    path: str, place: ElasticPlace, number: int, moment: str
) -> None:
    """Then the lake is rolled back: of what the batch wrote nothing is left over."""
    assert killed_at(place.server, number, moment, lambda: synced(path, place.url))
    rewind(path)
    check(path, place)


def test_refused_before_half_a_batch_is_taken_back(path: str, place: ElasticPlace) -> None:
    """The table stays as the sync that was killed has left it."""
    synced(path, place.url)
    with opened(path) as lake:
        lake.append([{"type": "more", "data": {"n": number}} for number in range(20)])
    assert killed_at(place.server, 12, "after", lambda: synced(path, place.url))
    before = place.rows()
    rewind(path)
    assert before != expected(path)
    with pytest.raises(SyncRefused, match="--on-rewind propagate"):
        synced(path, place.url, on_rewind="refuse")
    assert place.rows() == before
    check(path, place)


@pytest.mark.matrix
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(6, 18))
def test_crash_recovery_at_each_request_of_a_rewind(
    path: str, place: ElasticPlace, number: int, moment: str
) -> None:
    """Then the rollback is undone: what the batch had deleted is there again."""
    synced(path, place.url)
    rewind(path)
    if not killed_at(place.server, number, moment, lambda: synced(path, place.url)):
        assert number > 12
    with opened(path) as lake:
        lake.undo(force=True)
    check(path, place)


@pytest.mark.matrix
@pytest.mark.parametrize("change", ["rewind", "compact", "retention", "add", "dedupe"])
@pytest.mark.parametrize("number", [11, 14])
def test_crash_recovery_when_the_lake_changed_meanwhile(
    path: str, place: ElasticPlace, change: str, number: int
) -> None:
    assert killed_at(place.server, number, "after", lambda: synced(path, place.url))
    CHANGES[change](path)
    check(path, place)


@pytest.mark.matrix
@pytest.mark.parametrize("fault", ["drop", "lose", "half", "429", "503"])
@pytest.mark.parametrize("number", [1, 4, 7, 9, 10, 11, 12, 13])
def test_retry_after_a_fault(path: str, place: ElasticPlace, fault: str, number: int) -> None:
    """Lost and cut replies, and a server that is busy, in the middle of a rewind."""
    synced(path, place.url)
    rewind(path)
    place.server.fault = nth(number, fault)
    synced(path, place.url)
    check(path, place)


@pytest.mark.matrix
@pytest.mark.parametrize("number", range(1, 20, 2))
def test_crash_recovery_of_the_server(path: str, place: ElasticPlace, number: int) -> None:
    server, cuts = place.server, []

    def crash(request: Request) -> str:
        if request.number == number:
            cuts.append(number)
            server._cut(*server._sockets)
            return "lose"
        return ""

    server.fault = crash
    synced(path, place.url)
    assert cuts
    check(path, place)


def test_server_that_lost_its_data(path: str, place: ElasticPlace) -> None:
    synced(path, place.url)
    place.server.stop()
    place.server.indices.clear()
    place.server.start()
    check(path, place)


def test_busy_items_are_sent_again(path: str, place: ElasticPlace) -> None:
    place.server.busy = 75
    check(path, place)


def test_too_large_request_is_divided(home: Path, path: str) -> None:
    with running(ElasticServer(bytes_max=3000)) as server:
        check(path, ElasticPlace(server))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seq": {"type": "keyword"}}, "column seq is keyword, where long is needed"),
        ({"message": {"type": "long"}}, "column message is long, where text is needed"),
    ],
)
def test_field_of_another_type(
    path: str, place: ElasticPlace, fields: dict[str, Any], words: str
) -> None:
    place.server.indices["events"] = Index({"properties": fields})
    with pytest.raises(SyncRefused, match=words):
        synced(path, place.url)
    assert place.rows() == []


def test_document_that_is_refused_leaves_nothing(path: str, place: ElasticPlace) -> None:
    """Earlier batches stay; the line names document, field and reason."""
    with opened(path) as lake:
        lake.append([{"type": "d", "message": f"{i}", "id": "x" * 40_000} for i in range(3)])
    fields = {name: {"type": "keyword"} for name in ("type", "id", "message")}
    place.server.indices["events"] = Index({"properties": fields | {"seq": {"type": "long"}}})
    query = "SELECT seq, type, message, id FROM events"
    with pytest.raises(SyncRefused, match=r"document 120: .*\[id\].*immense term.*query") as caught:
        synced(path, place.url, query=query)
    assert "\n" not in str(caught.value)
    assert len(place.rows()) % 40 == 0
    with pytest.raises(SyncRefused, match="document 120"):
        synced(path, place.url, query=query)
    assert synced(path, place.url, query=query, on_error="quarantine").quarantined == 1
    assert [row[0] for row in place.rows(columns="seq")] == list(range(120))
    place.server.indices.clear()
    check(path, place)


@pytest.mark.parametrize("limit", [20, 100])
def test_deep_data_does_not_stop_the_sync(path: str, place: ElasticPlace, limit: int) -> None:
    """What is deeper than the field may be is the text `data.value`."""
    synced(path, place.url)
    if limit == 20:  # as of an index that the user has created
        del place.server.indices["events"].fields["data"]["depth_limit"]
    deep = {n: '{"a":' * n + "1" + "}" * n for n in (5, 19, 99, 200)}
    with opened(path) as lake:
        lake.append([{"type": "deep", "data": json.loads(text)} for text in deep.values()])
    synced(path, place.url)
    found = [json.loads(row[0]) for row in place.rows(columns="data")[-4:]]
    assert found == [json.loads(text) if n < limit else {"value": text} for n, text in deep.items()]


def test_documents_of_somebody_else(path: str, place: ElasticPlace) -> None:
    place.server.indices["events"] = Index({})
    place.server.indices["events"].documents["7"] = {"seq": 7, "message": "mine"}, 1
    with pytest.raises(SyncRefused, match="rows that no sync wrote"):
        synced(path, place.url)
    assert place.rows(columns="message") == [("mine",)]


def test_concurrent_sync_is_waited_for(
    path: str, place: ElasticPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that another sync writes is not touched; one that it gave up is taken over."""
    monkeypatch.setattr(intent, "LEASE", 0.5)
    first = target_of(place.url)
    first.connect()
    first.begin("events", 0)
    said: list[str] = []
    result = synced(path, place.url, say=said.append)
    assert result.total == 120
    # The earlier one cannot acknowledge anything any more.
    with pytest.raises(LakelogError, match="another sync is writing"):
        first.commit("events", Watermark("lake", "main", "", "upsert", version=1))
    first.close()
    check(path, place)


def test_index_of_the_url(path: str, place: ElasticPlace) -> None:
    synced(path, f"{place.url}/logs-app")
    assert place.rows("logs-app") == expected(path)
    synced(path, f"{place.url}/logs-app", table="other")
    assert place.rows("other") == expected(path)


@pytest.mark.parametrize("number", ["6.8.23", "7.2.1"])
def test_old_server_is_refused(path: str, number: str) -> None:
    refused = pytest.raises(SyncRefused, match=f"{number} is too old: upgrade it to 7.3 or later")
    with running(ElasticServer({"number": number})) as server, refused:
        synced(path, ElasticPlace(server).url)


class _Gateway(ElasticServer):
    """Stands before a cluster and answers in words of its own, as proxies do."""

    def _create(self, name: str, body: dict[str, Any]) -> tuple[int, bytes]:
        raise Refused(400, b'{"detail": "blocked by policy"}')


def test_a_gateway_is_quoted(path: str) -> None:
    """What has no member `error` or `message` is shown as it came, never as nothing."""
    refused = pytest.raises(SyncRefused, match=r"HTTP 400 .*blocked by policy")
    with running(_Gateway()) as server, refused:
        synced(path, ElasticPlace(server).url)


@pytest.mark.parametrize(("number", "kind"), [("2.11.0", "flat_object"), ("1.3.0", "object")])
def test_opensearch(path: str, number: str, kind: str) -> None:
    with running(ElasticServer({"number": number, "distribution": "opensearch"})) as server:
        place = ElasticPlace(server)
        place.url = place.url.replace("elasticsearch", "opensearch")
        check(path, place)
        assert server.indices["events"].fields["data"]["type"] == kind


def test_secrets_are_in_no_output(
    path: str, place: ElasticPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.server.password = "Basic YXBwOnMzY3JldC1QYTU1d29yZA=="
    url = place.url.replace("://", f"://app:{PASSWORD}@")
    assert PASSWORD not in repr(vars(target_of(url)))
    done = run(path, "sync", url, "--once")
    assert PASSWORD not in done.stdout + done.stderr
    assert PASSWORD not in run(path, "sync", "status", url).stdout
    for wrong in (place.url, url.replace("app:", "other:")):
        done = run(path, "sync", wrong, "--once", code=1)
        assert "HTTP 401" in done.stderr
        assert PASSWORD not in done.stderr + repr(done.exception)
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", PASSWORD)
    place.server.password = f"ApiKey {PASSWORD}"
    synced(path, place.url)
    check(path, place)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("elasticsearch:", "looks like elasticsearch://HOST:9200/INDEX"),
        ("elasticsearch://h:port/x", "looks like"),
        ("elasticsearch://h/a/b", "looks like"),
        ("elasticsearch+ftp://h/a", "a target is"),
        ("elasticsearch://h/a?nope=1", "its options are ca_cert"),
        ("elasticsearch://127.0.0.1:1/Upper", "Connection refused"),
    ],
)
def test_mistakes_are_one_line(path: str, url: str, words: str) -> None:
    with pytest.raises((InvalidSetting, SyncRefused, Unreachable), match=words) as caught:
        synced(path, url, retries=0)
    assert "\n" not in str(caught.value)


def test_index_that_cannot_be_named(path: str, place: ElasticPlace) -> None:
    with pytest.raises(InvalidSetting, match="'Upper' cannot be an index: write it in lower case"):
        synced(path, f"{place.url}/Upper")


@pytest.mark.parametrize(
    ("url", "is_tls"),
    [
        ("elasticsearch://localhost/x", False),
        ("elasticsearch://[::1]/x", False),
        ("elasticsearch://search.example.com/x", True),
        ("elasticsearch+http://search.example.com/x", False),
        ("elasticsearch+https://127.0.0.1/x", True),
    ],
)
def test_tls_unless_it_is_this_machine(url: str, is_tls: bool) -> None:
    assert http_client.Endpoint.parse(url, 9200, "", ()).is_tls is is_tls


@pytest.mark.parametrize("case", ["good", "expired", "host name", "authority"])
def test_certificates(path: str, home: Path, case: str) -> None:
    """A server that cannot prove who it is gets nothing: neither events nor a password."""
    ours, other = Authority(home / "a", "ours"), Authority(home / "b", "other")
    name = "db.example.com" if case == "host name" else "localhost"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours.issue(name, -2 if case == "expired" else 30))
    with mock.patch.object(StrictServer, "tls", context), running(ElasticServer()) as server:
        place = ElasticPlace(server)
        known = other if case == "authority" else ours
        url = place.url.replace("://", f"+https://app:{PASSWORD}@") + f"?ca_cert={known.file}"
        if case == "good":
            synced(path, url)
            assert place.rows() == expected(path)
            return
        refused = "the certificate is not accepted: .*: its authority has to be in .*"
        with pytest.raises(SyncRefused, match=refused) as caught:
            synced(path, url)
        assert (server.count, "\n" in str(caught.value)) == (0, False)
        if case == "authority":
            with pytest.raises(SyncRefused, match=r"name its authority with \?ca_cert=FILE"):
                synced(path, url.partition("?")[0])
