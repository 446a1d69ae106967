"""Who may send: hosts, origins, tokens and their scopes."""

from __future__ import annotations

import itertools
import json
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.http_lake import HttpLake, certified, lines, serving
from tests.support.requirements import need, need_module

BODY = lines({"n": 1})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    with serving(tmp_path_factory.mktemp("gate") / "lake", "--host-name", "Logs.Example") as each:
        yield each


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("logs.example", 200),
        ("logs.example:443", 200),
        ("evil.example", 421),
        ("evil.example:{port}", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.", 421),
        ("", 421),
    ],
)
def test_only_hosts_of_its_own_are_answered(served: HttpLake, host: str, status: int) -> None:
    """A name that was made to point here is no way in."""
    headers = {"host": host.format(port=served.port)}
    assert served.ask("/metrics", headers=headers).status == status


def test_a_request_names_one_host(served: HttpLake) -> None:
    """Of two, a proxy may have looked at the other one (RFC 9112, 3.2)."""
    host = f"Host: 127.0.0.1:{served.port}\r\n"
    for names in (host + "Host: evil.example\r\n", "host: evil.example\r\n" + host, host * 2):
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
            connection.sendall(f"GET /metrics HTTP/1.1\r\n{names}\r\n".encode())
            assert connection.makefile("rb").readline().split()[1] == b"400"


@pytest.mark.parametrize(
    ("site", "destination", "status"),
    [
        ("same-origin", "empty", 200),
        ("none", "document", 200),
        ("cross-site", "document", 200),
        ("cross-site", "image", 403),
        ("cross-site", "iframe", 403),
        ("same-site", "script", 403),
        ("", "empty", 403),
    ],
)
def test_no_page_elsewhere_has_a_browser_ask(
    served: HttpLake, site: str, destination: str, status: int
) -> None:
    """An image of another page is asked for without an Origin, and would have a query run."""
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": destination}
    for path in ("/metrics", "/api/counts", "/loki/api/v1/labels"):
        assert served.ask(path, headers=headers).status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:{port}", 200),
        ("http://127.0.0.1:1", 403),
        ("https://127.0.0.1:{port}", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_origins_cannot_send(served: HttpLake, origin: str, status: int) -> None:
    headers = {"origin": origin.format(port=served.port)}
    assert served.ask("/ingest/origin", BODY, headers).status == status


def test_tokens_allow_what_they_name(tmp_path: Path) -> None:
    """Made, used and revoked while the server runs; without one nobody is let in any more."""
    need_module("uvicorn")
    path = str(tmp_path / "lake")
    paths = {"ingest": ("/ingest", BODY), "read": ("/metrics", None)}
    with serving(path) as server:
        assert server.ask("/ingest", BODY).status == 200
        tokens = {}
        for scope in ("read", "ingest", "admin"):
            made = run(path, "token", "add", scope, "--scope", scope)
            tokens[scope] = made.stdout.strip()
        for scope, (place, body) in itertools.product(tokens, paths.values()):
            headers = {"authorization": f"Bearer {tokens[scope]}"}
            allowed = paths.get(scope) == (place, body)
            assert server.ask(place, body, headers).status == (200 if allowed else 403)
        for authorization in ("", "Bearer", "Bearer x", "Basic eDp5", f"bearer {tokens['read']}x"):
            reply = server.ask("/metrics", headers={"authorization": authorization})
            assert reply.status == 401
            assert reply.headers["www-authenticate"].startswith("Bearer")
        assert server.ask("/ingest", BODY).status == 401
        assert server.ask("/healthz").status == 200
        run(path, "token", "revoke", "read")
        headers = {"authorization": f"Bearer {tokens['read']}"}
        assert server.ask("/metrics", headers=headers).status == 401


def test_the_lake_keeps_no_token(tmp_path: Path) -> None:
    path = tmp_path / "lake"
    run(str(path), "init")
    token = run(str(path), "token", "add", "one", "--scope", "read").stdout.strip()
    again = run(str(path), "token", "add", "one", "--scope", "read", code=1)
    assert "there is a token 'one'" in again.stderr
    listed = run(str(path), "token", "list").stdout
    assert "one  read" in listed
    for file in path.rglob("*"):
        if file.is_file():
            assert token.encode() not in file.read_bytes()
    run(str(path), "token", "revoke", "two", code=1)
    records = json.loads((path / "server" / "tokens.json").read_text())
    assert [record["name"] for record in records] == ["one"]
    assert not stat.S_IMODE((path / "server" / "tokens.json").stat().st_mode) & 0o002


@pytest.mark.parametrize("arguments", [("--host", "0.0.0.0"), ("--host", "192.0.2.1")])
def test_beyond_this_machine_a_token_and_tls_are_needed(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    need_module("uvicorn")
    command = [sys.executable, "-m", "lakelog", "--lake", str(tmp_path / "lake"), "serve"]
    done = subprocess.run(
        [*command, "--port", "0", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "--tls-certificate" in done.stderr or "cannot listen" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_an_address_that_cannot_be_had_says_which_option_to_change(tmp_path: Path) -> None:
    """Another port is no advice for a host that is none."""
    need_module("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for host, option in (("127.0.0.1", "--port"), ("nosuch.invalid", "--host")):
            port = str(taken.getsockname()[1])
            refused = run(str(tmp_path / "lake"), "serve", "--host", host, "--port", port, code=2)
            assert refused.stderr.rstrip().endswith(f"choose another {option}")


def test_files_that_are_no_certificate_and_key_are_named(tmp_path: Path) -> None:
    need_module("uvicorn")
    need("openssl")
    (tmp_path / "other").mkdir()
    (_, certificate, _, key), _ = certified(tmp_path)
    (_, _, _, other_key), _ = certified(tmp_path / "other")
    locked = str(tmp_path / "locked.pem")
    locking = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked]
    subprocess.run(locking, check=True)
    attempts: list[tuple[list[str], str]] = [
        (["--tls-key", key], "--tls-certificate"),
        (["--tls-certificate", certificate], certificate),
        (["--tls-certificate", certificate, "--tls-key", other_key], other_key),
        (["--tls-certificate", certificate, "--tls-key", locked], f"{locked} has a password"),
        (["--tls-certificate", str(tmp_path), "--tls-key", key], str(tmp_path)),
        (["--syslog-ca", certificate], "--syslog PORT"),
        (["--syslog-from", "10.0.0.0/8"], "--syslog PORT"),
    ]
    for options, reason in attempts:
        command = ["serve", "--port", "0", *options]
        refused = run(str(tmp_path / "lake"), *command, code=2)
        assert reason in refused.stderr
        assert "_ssl.c" not in refused.stderr


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "prometheus_client"])
def test_without_its_extra_a_server_names_it(tmp_path: Path, package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from lakelog.cli import main\n"
        f"sys.argv[1:] = ['--lake', {str(tmp_path / 'lake')!r}, 'serve']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'lakelog[server]'" in done.stderr.splitlines()[-1]
