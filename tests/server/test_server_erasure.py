"""Erasures and protected fields beside a server that runs: what it answers, and that it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.http_lake import HttpLake, lines, serving
from tests.support.requirements import need_module


def answers(server: HttpLake) -> list[bytes]:
    """What all doors answer that read events."""
    query = b"SELECT subject, data->>'mail' AS mail FROM events"
    replies = [
        server.ask("/sql", query),
        server.ask("/api/events?columns=mail"),
        server.ask("/api/values?field=mail"),
        server.ask("/api/counts"),
        server.ask("/loki/api/v1/query_range?query=%7Btype%3D%22a%22%7D&since=1h"),
    ]
    assert [(reply.status, reply.body) for reply in replies if reply.status != 200] == []
    return [reply.body for reply in replies]


@pytest.mark.parametrize("protected", ["never", "before", "meanwhile"])
def test_a_subject_is_erased_beside_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protected: str
) -> None:
    """Processes that were bound to files of the lake before there was an erasure, or a protected
    field, read on."""
    need_module("uvicorn")
    monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(tmp_path / "keys"))
    (tmp_path / "keys").mkdir()
    monkeypatch.setenv("LAKELOG_KEY", "ab" * 32)
    path = tmp_path / "lake"
    run(path, "init")
    if protected == "before":
        run(path, "config", "protect", "mail")
    events = [
        {"type": "a", "subject": name, "data": {"mail": f"{name}@x.org"}} for name in ("ada", "bob")
    ]
    with serving(path) as server:
        assert server.ask("/ingest", lines(*events)).status == 200
        before = answers(server)
        assert any(b"bob@x.org" in body for body in before) is (protected != "before")
        if protected == "meanwhile":
            run(path, "config", "protect", "mail")
            assert server.ask("/ingest", lines(events[0] | {"subject": "eve"})).status == 200
            assert any(b"eve" in body for body in answers(server))
        run(path, "erase", "--subject", "bob", "--rows", "--why", "a request", "--yes")
        after = answers(server)
        assert [body for body in after if b"bob" in body] == []
        assert b"ada" in after[0]


def test_what_was_erased_keeps_no_other_event_away(tmp_path: Path) -> None:
    """A sender that has it sends until it is accepted: it is left out, and not answered 503."""
    need_module("uvicorn")
    path = tmp_path / "lake"
    run(path, "init")
    old = [
        {"type": "a", "subject": name, "time": "2026-11-01T00:00:00Z", "id": f"{name}{n}"}
        for n in range(2)
        for name in ("ada", "bob")
    ]
    with serving(path) as server:
        assert server.ask("/ingest", lines(*old[:2])).status == 200
        run(path, "erase", "--subject", "bob", "--why", "a request", "--yes")
        reply = server.ask("/ingest", lines(*old))
        assert (reply.status, json.loads(reply.body)["accepted"]) == (200, 2)
        assert server.ask("/ingest", lines(*old)).status == 200
        assert server.ask("/ingest", lines(old[1])).status == 200
        reply = server.ask("/ingest", lines(old[1]) + b"oops\n")
        assert (reply.status, json.loads(reply.body)["rejected"]) == (200, 1)
        query = b"SELECT string_agg(id, ' ' ORDER BY id) AS ids FROM events"
        assert b'"ada0 ada1"' in server.ask("/sql", query).body
        assert b"bob" not in server.ask("/sql", b"SELECT line FROM quarantine").body


def test_a_request_that_comes_again_with_times_to_come(tmp_path: Path) -> None:
    """Its events are known by their contents: answered as before, shown and stored no more."""
    need_module("uvicorn")
    path = tmp_path / "lake"
    run(path, "init")
    events = [{"type": "a", "subject": s, "time": "2999-01-01T00:00:00Z"} for s in ("ada", "bob")]
    with serving(path) as server:
        assert server.ask("/ingest", lines(*events)).status == 200
        run(path, "erase", "--subject", "bob", "--why", "a request", "--yes")
        reply = server.ask("/ingest?again", lines(*events))
        assert (reply.status, json.loads(reply.body)["accepted"]) == (200, 1)
        query = b"SELECT string_agg(subject, ' ' ORDER BY ALL) AS subjects FROM events"
        assert b'"ada ada"' in server.ask("/sql", query).body
