"""Every way to ask, by every caller: who is let in is what a table says, without an exception."""

from __future__ import annotations

import http.client
import itertools
import ssl
from collections.abc import Iterator, Mapping
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
    if origin == "foreign":
        return 403
    scopes = CALLERS[caller]
    if scopes is None:
        return 401
    return None if needed in scopes else 403


def test_who_is_let_in(served: tuple[HttpLake, Mapping[str, dict[str, str]]]) -> None:
    """600 requests: by each caller, to each place, with hosts and origins of this and elsewhere."""
    server, headers_of = served
    hosts = {"own": f"127.0.0.1:{server.port}", "foreign": "evil.example"}
    origins = {
        "none": {},
        "own": f"http://127.0.0.1:{server.port}",
        "foreign": "http://evil.example",
    }
    wrong = []
    for place, caller, host, origin in itertools.product(PLACES, CALLERS, hosts, origins):
        method, path, body, needed = place
        if host == "foreign" and origin == "own":
            continue  # an origin is compared with the host that is named
        headers = {"host": hosts[host], **JSON, **headers_of[caller]}
        if origin != "none":
            headers["origin"] = str(origins[origin])
        status = server.ask(path, body, headers, method=method).status
        refusal = expected(needed, caller, host, origin)
        right = status == refusal if refusal else status not in (401, 403, 421)
        if not right:
            wrong.append(f"{method} {path} by {caller}, host {host}, origin {origin}: {status}")
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
    wrong, asked = [], 0
    with serving(path, *options) as server:
        own = f"127.0.0.1:{server.port}"
        origins = {"none": "", "own": f"https://{own}", "foreign": "http://evil.example"}
        for call in itertools.product(places, callers, ("own", "foreign"), (*origins, "plain")):
            (method, url, body, needed), caller, host, origin = call
            if host == "foreign" and origin != "none":
                continue
            headers = {"host": {"own": own}.get(host, "evil.example"), **JSON, **headers_of[caller]}
            headers |= {"origin": {**origins, "plain": f"http://{own}"}[origin]}
            if origin == "none":
                del headers["origin"]
            server.context = context
            status = server.ask(url, body, headers, method=method).status
            refusal = expected(needed, caller, host, "foreign" if origin == "plain" else origin)
            asked += 1
            if status != refusal if refusal else status in (401, 403, 421):
                wrong.append(f"{method} {url} by {caller}, host {host}, origin {origin}: {status}")
        assert asked == 250
        assert not wrong, "\n".join(wrong)
        before = server.events()
        for stranger in (None, ssl.create_default_context()):
            server.context = stranger
            with pytest.raises((OSError, http.client.HTTPException)):
                server.ask("/ingest", lines({"n": 2}), headers_of["ingest"])
        assert server.events() == before
