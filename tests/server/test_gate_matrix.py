"""Every way to ask, by every caller: who is let in is what a table says, without an exception."""

from __future__ import annotations

import http.client
import itertools
import ssl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.http_lake import HttpLake, certified, lines, serving
from tests.support.requirements import need, need_module

NOBODY, READ, INGEST, ADMIN = "nobody", "read", "ingest", "admin"
JSON = {"content-type": "application/json"}
PLACES: list[tuple[str, str, bytes | None, str]] = [
    ("GET", "/healthz", None, NOBODY),
    ("GET", "/readyz", None, NOBODY),
    ("GET", "/explore", None, NOBODY),
    ("GET", "/", None, INGEST),
    ("GET", "/_license", None, INGEST),
    ("GET", "/ready", None, NOBODY),
    ("GET", "/_cluster/health", None, INGEST),
    ("PUT", "/_template/one", b"{}", INGEST),
    ("HEAD", "/one", None, INGEST),
    ("OPTIONS", "/ingest/two", None, INGEST),
    ("GET", "/loki/api/v1/status/buildinfo", None, READ),
    ("POST", "/ingest", lines({"n": 1}), INGEST),
    ("POST", "/ingest/one", lines({"n": 1}), INGEST),
    ("POST", "/_bulk", b'{"create":{}}\n{"n":1}\n', INGEST),
    ("POST", "/loki/api/v1/push", b'{"streams":[]}', INGEST),
    ("POST", "/v1/logs", b"", INGEST),
    ("GET", "/metrics", None, READ),
    ("GET", "/openapi.json", None, READ),
    ("POST", "/sql", b'{"sql":"SELECT 1"}', READ),
    ("POST", "/mcp", b"{}", READ),
    ("GET", "/tail?where=((", None, READ),
    ("GET", "/loki/api/v1/labels", None, READ),
    ("GET", "/api/overview", None, READ),
    ("GET", "/api/alerts", None, READ),
    ("POST", "/api/tag", b"{}", ADMIN),
    ("POST", "/api/undo", b"{}", ADMIN),
]
"""A method, a path, a body, and the scope that is needed."""
OVER_TLS = (
    *("/healthz", "/", "/ingest", "/ingest/one", "/_bulk", "/v1/logs", "/metrics", "/sql"),
    *("/api/overview", "/api/tag"),
)
HOSTS = ("own", "foreign")
CALLERS = {
    "read": {READ},
    "ingest": {INGEST},
    "admin": {ADMIN},
    "both": {READ, INGEST},
    "revoked": None,
    "none": None,
}
"""The scopes of callers by their names; None for those who are nobody."""


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[HttpLake, Mapping[str, dict[str, str]]]]:
    """A server, and the headers of each caller."""
    need_module("uvicorn")
    need_module("mcp")
    path = str(tmp_path_factory.mktemp("matrix") / "lake")
    headers = headers_of_callers(path)
    with serving(path) as server:
        yield server, headers


def headers_of_callers(path: str) -> dict[str, dict[str, str]]:
    """Make a lake with tokens; return what each caller sends."""
    run(path, "init")
    headers: dict[str, dict[str, str]] = {"none": {}}
    for name, scopes in {**CALLERS, "revoked": {READ, INGEST, ADMIN}}.items():
        if scopes:
            options = [word for scope in sorted(scopes) for word in ("--scope", scope)]
            token = run(path, "token", "add", name, *options).stdout.strip()
            headers[name] = {"authorization": f"Bearer {token}"}
    run(path, "token", "revoke", "revoked")
    return headers


def expected(needed: str, caller: str, host: str, origin: str) -> int | None:
    """The status of a refusal; None for a request that is let in, whatever it is answered."""
    if needed == NOBODY:
        return None
    if host == "foreign":
        return 421
    if origin in ("foreign", "plain"):
        return 403
    scopes = CALLERS[caller]
    if scopes is None:
        return 401
    return None if needed in scopes else 403


Call = tuple[tuple[str, str, bytes | None, str], str, str, str]
"""A place, a caller, a host and an origin."""


def mistakes(
    server: HttpLake,
    headers_of: Mapping[str, dict[str, str]],
    calls: Iterable[Call],
    origins: Mapping[str, str],
) -> list[str]:
    """Make calls; return those that were let in or refused against what is expected."""
    hosts = {"own": f"127.0.0.1:{server.port}", "foreign": "evil.example"}
    wrong = []
    for (method, path, body, needed), caller, host, origin in calls:
        headers = {"host": hosts[host], **JSON, **headers_of[caller]}
        if origin != "none":
            headers["origin"] = origins[origin]
        status = server.ask(path, body, headers, method=method).status
        refusal = expected(needed, caller, host, origin)
        right = status == refusal if refusal else status not in (401, 403, 421)
        if not right:
            wrong.append(f"{method} {path} by {caller}, host {host}, origin {origin}: {status}")
    return wrong


def test_who_is_let_in(served: tuple[HttpLake, Mapping[str, dict[str, str]]]) -> None:
    """600 requests: by each caller, to each place, with hosts and origins of this and elsewhere."""
    server, headers_of = served
    origins = {"own": f"http://127.0.0.1:{server.port}", "foreign": "http://evil.example"}
    calls = [
        call
        for call in itertools.product(PLACES, CALLERS, HOSTS, ("none", *origins))
        if call[2:] != ("foreign", "own")  # an origin is compared with the host that is named
    ]
    wrong = mistakes(server, headers_of, calls, origins)
    assert not wrong, "\n".join(wrong)


def test_who_is_let_in_over_tls(tmp_path: Path) -> None:
    """250 requests: an origin is one of its own with the right scheme alone; and nobody is heard
    without TLS, or who does not trust the certificate is served."""
    need_module("uvicorn")
    need_module("mcp")
    need("openssl")
    path = str(tmp_path / "lake")
    headers_of = headers_of_callers(path)
    options, context = certified(tmp_path)
    places = [place for place in PLACES if place[1] in OVER_TLS]
    callers = ("read", "ingest", "admin", "revoked", "none")
    with serving(path, *options) as server:
        server.context = context
        own = f"127.0.0.1:{server.port}"
        origins = {"own": f"https://{own}", "foreign": "http://evil.example"}
        origins["plain"] = f"http://{own}"
        calls = [
            call
            for call in itertools.product(places, callers, HOSTS, ("none", *origins))
            if call[2] == "own" or call[3] == "none"
        ]
        assert len(calls) == 250
        wrong = mistakes(server, headers_of, calls, origins)
        assert not wrong, "\n".join(wrong)
        before = server.events()
        for stranger in (None, ssl.create_default_context()):
            server.context = stranger
            with pytest.raises((OSError, http.client.HTTPException)):
                server.ask("/ingest", lines({"n": 2}), headers_of["ingest"])
        assert server.events() == before
