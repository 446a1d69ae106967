"""What a registry may ask for, and may not: passwords, tokens, redirects, strange answers."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lakelog.errors import LakelogError, TransferRefused, Unreachable
from lakelog.remotes import known, oci, registry_connections
from lakelog.remotes.fetches import clone
from lakelog.remotes.oci import OciRemote
from lakelog.remotes.registry import MANIFEST_TYPE, Repository
from lakelog.remotes.registry_connections import Login
from tests.support import registry_server
from tests.support.fake_registry import Reply, faked
from tests.support.lakes import opened
from tests.support.remote_suite import add, cloned, push, rows

# Of the password "s3cret", by bcrypt.
HTPASSWD = "ada:$2b$05$z5EXG89T6lANZPHtHC.ou.50jxBCGcT1S1wDGh3vUV0yr8xjqXAB."
BASIC = "Basic " + base64.b64encode(b"ada:s3cret").decode()
Headers = dict[str, str]


@pytest.fixture(autouse=True)
def config(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Docker configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.0)
    monkeypatch.setattr(oci, "SETTLING", 0.0)
    return home / "config.json"


def write(config: Path, **members: Any) -> None:
    config.write_text(json.dumps(members))


def helper(home: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Install docker-credential-test, which knows one host."""
    program = home / "bin" / "docker-credential-test"
    program.parent.mkdir(exist_ok=True)
    answers = f"[ \"$host\" = known.example ] && echo '{answer}' && exit 0"
    unknown = "echo credentials not found in native keychain; exit 1"
    program.write_text(f"#!/bin/sh\nread host\n{answers}\n{unknown}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_password_of_the_docker_configuration(config: Path, home: Path) -> None:
    htpasswd = home / "htpasswd"
    htpasswd.write_text(HTPASSWD)
    with registry_server.served(auth={"htpasswd": {"realm": "x", "path": str(htpasswd)}}) as host:
        path, url = str(home / "lake"), f"oci://{host}/a"
        add(path, "event")
        with opened(path) as lake:
            known.add(lake.store, "origin", url)
        with pytest.raises(Unreachable, match="docker login"):
            push(path)
        write(config, auths={host: {"auth": base64.b64encode(b"ada:wrong").decode()}})
        with pytest.raises(Unreachable) as failed:
            push(path)
        assert "wrong" not in str(failed.value)
        write(config, auths={host: {"auth": base64.b64encode(b"ada:s3cret").decode()}})
        push(path)
        assert rows(cloned(url, home / "clone")) == rows(path)


@pytest.mark.parametrize("kind", ["password", "identity", "nobody"])
def test_a_token_is_asked_for_where_the_registry_says(config: Path, kind: str) -> None:
    def tokens(method: str, path: str, headers: Headers) -> Reply:
        allowed = headers.get("authorization") == BASIC or method == "POST" or kind == "nobody"
        body = json.dumps({"access_token": "t0ken"}).encode()
        return (200, {}, body) if allowed else (401, {}, b"")

    def registry(method: str, path: str, headers: Headers) -> Reply:
        if headers.get("authorization") == "Bearer t0ken":
            return 404, {}, b""
        challenge = f'Bearer realm="http://{server.address}/token?x=1",service="s",scope="repository:a/b:pull"'
        return 401, {"WWW-Authenticate": challenge}, b"{}"

    with faked(tokens) as server, faked(registry) as fake:
        login = {"auth": BASIC.removeprefix("Basic ")}
        if kind == "identity":
            login = {"identitytoken": "refresh"}
        write(config, auths={} if kind == "nobody" else {fake.address: login})
        with closing(Repository(f"oci://{fake.address}/a/b")) as repository:
            assert repository.manifest("x") is None
        ((method, path, _),) = server.seen
        assert method == ("POST" if kind == "identity" else "GET")
        assert kind == "identity" or "scope=repository%3Aa%2Fb%3Apull" in path
        # The password goes to the token's server alone.
        assert BASIC not in [headers.get("authorization") for _, _, headers in fake.seen]


def test_secrets_stay_with_the_host_that_asked(config: Path) -> None:
    def store(method: str, path: str, headers: Headers) -> Reply:
        return 200, {}, b"content"

    def registry(method: str, path: str, headers: Headers) -> Reply:
        if headers.get("authorization") != BASIC:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return 307, {"Location": f"http://{other.address}/blob?signed=1"}, b""

    with faked(store) as other, faked(registry) as fake:
        write(config, auths={fake.address: {"username": "ada", "password": "s3cret"}})
        with closing(Repository(f"oci://{fake.address}/a")) as repository:
            assert b"".join(repository.blob("sha256:0")) == b"content"
        assert [headers.get("authorization") for _, _, headers in other.seen] == [None]


@pytest.mark.parametrize("where", ["redirect", "realm", "upload", "redirects without end"])
def test_what_leads_elsewhere_in_the_clear_is_refused(where: str, config: Path) -> None:
    far = "http://example.com/x"

    def answer(method: str, path: str, headers: Headers) -> Reply:
        if where == "redirects without end":
            return 302, {"Location": path}, b""
        if where == "realm":
            return 401, {"WWW-Authenticate": f'Bearer realm="{far}"'}, b""
        return (202 if where == "upload" else 302), {"Location": far}, b""

    with faked(answer) as fake:
        words = r"leads to http://example.com|without end"
        with closing(Repository(f"oci://{fake.address}/a")) as repository:
            if where == "upload":
                with pytest.raises(TransferRefused, match=words):
                    repository.put_blob("sha256:0", iter([b"x"]), 1)
            else:
                with pytest.raises(TransferRefused, match=words):
                    list(repository.blob("sha256:0"))
    # Of a host that is not this machine, nothing is asked in the clear.
    assert Repository("oci://registry.example/a")._root == ("https", "registry.example")


@pytest.mark.parametrize("place", ["http://127.0.0.1:8200/v1/secret", "https://localhost/x"])
def test_a_registry_elsewhere_does_not_lead_to_this_machine(place: str) -> None:
    """A push to it would reach services that listen here for us alone."""
    with closing(Repository("oci://registry.example/a")) as repository:
        with pytest.raises(TransferRefused, match="leads to"):
            repository._absolute(place)
        assert repository._absolute("https://store.example/x") == "https://store.example/x"


@pytest.mark.parametrize("part", ["body", "headers"])
def test_an_answer_that_never_ends_is_given_up(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte every few seconds breaks no timeout of a connection."""
    monkeypatch.setattr("lakelog.remotes.remote.SLOW_SECONDS", 0.2)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n"
    at_once = head + (b"\r\n" if part == "body" else b"X: ")
    with (
        trickling(at_once) as address,
        closing(Repository(f"oci://{address}/a")) as repository,
        pytest.raises(Unreachable, match="100 bytes a second"),
    ):
        repository.manifest("main")


@contextmanager
def trickling(at_once: bytes) -> Iterator[str]:
    """Serve the beginning of an answer, and then a byte now and again; yield HOST:PORT."""
    ended = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while not ended.is_set():
                client, _ = listener.accept()
                with client, suppress(OSError):
                    client.recv(1 << 16)
                    client.sendall(at_once)
                    while not ended.wait(0.02):
                        client.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_credential_helpers(config: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, '{"Username": "ada", "Secret": "s3cret"}')
    write(config, credHelpers={"known.example": "test"})
    assert registry_connections.login("known.example").basic == BASIC
    write(config, credsStore="test", auths={"other.example": {"auth": BASIC[6:]}})
    assert registry_connections.login("known.example").basic == BASIC
    assert registry_connections.login("other.example").basic == BASIC
    assert registry_connections.login("unknown.example") == Login()
    helper(home, monkeypatch, '{"Username": "<token>", "Secret": "refresh"}')
    assert registry_connections.login("known.example") == Login(identity="refresh")
    for answer, words in (("[]", "something else"), ("s3cret", "something else")):
        helper(home, monkeypatch, answer)
        with pytest.raises(TransferRefused, match=words) as failed:
            registry_connections.login("known.example")
        assert "s3cret" not in str(failed.value)
    for name, words in (("none", "not installed"), ("../x", "no credential helper")):
        write(config, credsStore=name)
        with pytest.raises(TransferRefused, match=words):
            registry_connections.login("known.example")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": 1}', '{"auths": {"h": 1}}', '{"auths": {"h": {"auth": "s3"}}}']
)
def test_a_broken_docker_configuration_is_one_line(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(TransferRefused, match=r"config\.json"):
        registry_connections.login("h")


# --- answers that no registry should give -------------------------------------------------------


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def endless() -> Iterator[bytes]:
    return itertools.repeat(b"x" * 65_536)


def index(*manifests: object, kind: str = oci.SNAPSHOT) -> bytes:
    return json.dumps({"artifactType": kind, "manifests": manifests, "layers": manifests}).encode()


def forged(reference: str) -> dict[str, Any]:
    return {"digest": digest(reference.encode()), "size": 10, "mediaType": MANIFEST_TYPE}


LAKE = index({**forged("x"), "annotations": {"org.opencontainers.image.title": "lakelog.json"}},
             kind=oci.DOCUMENT)  # fmt: skip
MANIFESTS: dict[str, Any] = {
    "no JSON": b"{",
    "a list": b"[]",
    "deep": b"[" * 1_000_000,
    "wide": b'{"a":[' + b"[]," * 500_000 + b"[]]}",
    "endless": None,
    "no manifests": index(),
    "manifests of another kind": index().replace(b"[]", b"1"),
    "no descriptor": index(1),
    "a digest that is a path": index({"digest": "sha256:../../x", "size": 1}),
    "a negative length": index({"digest": digest(b""), "size": -1}),
    "a length that is true": index({"digest": digest(b""), "size": True}),
    "annotations that are none": index({**forged("x"), "annotations": []}),
    "a manifest that is not there": index(forged("missing")),
    "a manifest of other bytes": index(forged("wrong")),
    "a document of other bytes": LAKE,
    "a document that is endless": LAKE.replace(digest(b"x").encode(), digest(b"endless").encode()),
    "a document that is too long": LAKE.replace(b'"size": 10', b'"size": 99999999'),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_forged_manifest_is_refused_in_one_line(name: str, home: Path) -> None:
    data = MANIFESTS[name]

    def answer(method: str, path: str, headers: Headers) -> Reply:
        if path.endswith(("/manifests/_lakelog", "/manifests/main")):
            return 200, {}, endless() if data is None else data
        if path.endswith(digest(b"missing")):
            return 404, {}, b"{}"
        return 200, {}, endless() if path.endswith(digest(b"endless")) else b"wrong"

    with faked(answer) as fake:
        tracemalloc.start()
        remote = OciRemote(f"oci://{fake.address}/a")
        with closing(remote), pytest.raises((TransferRefused, FileNotFoundError)) as failed:
            list(remote.stream("lakelog.json"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "\n" not in str(failed.value)
        assert peak < 50_000_000
        with pytest.raises(LakelogError):
            clone(f"oci://{fake.address}/a", str(home / "clone"))
        assert not (home / "clone").exists()


@pytest.mark.parametrize("kind", ["pages", "names", "no list", "status", "many headers", "torn"])
def test_strange_answers_are_one_error(kind: str) -> None:
    def answer(method: str, path: str, headers: Headers) -> Reply:
        number = len(fake.seen)
        if kind == "pages":
            more = {"Link": f'</v2/a/tags/list?last={number}>; rel="next"'}
            return 200, more, b'{"tags": ["a"]}'
        if kind == "names":
            return 200, {}, b'{"tags": [' + b'"' + b"x" * 9_000_000
        if kind == "status":
            return 418, {}, b'{"errors": [{"code": "A\\u001b[31m", "message": "b\\nc"}]}'
        if kind == "many headers":
            return 200, {f"X-{n}": "y" for n in range(200)}, b"{}"
        if kind == "torn":
            return 200, {"Content-Length": "100", "Connection": "close"}, b"{}"
        return 200, {}, b'{"tags": 7}'

    with faked(answer) as fake:
        remote = OciRemote(f"oci://{fake.address}/a")
        with closing(remote), pytest.raises((LakelogError, ConnectionError)) as failed:
            list(remote.names("refs/tags"))
        assert not set(str(failed.value)) & {"\n", "\x1b"}
        assert str(failed.value).startswith(f"oci://{fake.address}/a: ")


def test_a_busy_registry_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)

    def answer(method: str, path: str, headers: Headers) -> Reply:
        if len(fake.seen) < 3:
            return 429, {"Retry-After": "7"}, b""
        return 404, {}, b""

    with faked(answer) as fake:
        with pytest.raises(LakelogError, match="there is no lake"):
            clone(f"oci://{fake.address}/a", "/nonexistent/x")
        assert waits.count(7.0) == 2
