"""Servers of databases behind TLS: what is checked of their certificates, and what is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lakelog.errors import SyncRefused, Unreachable
from tests.support.lakes import opened
from tests.support.mysql_server import MysqlPlace, MysqlServer, mysql_server
from tests.support.redis_server import Authority
from tests.support.sync_places import (
    Place,
    PostgresPlace,
    PostgresServer,
    expected,
    postgres_server,
    synced,
)

Serve = Callable[[str, int], Place]
"""Serves a certificate of a host that is valid for so many days; returns a fresh database."""


def _owned(files: tuple[Path, Path], server: PostgresServer | MysqlServer, user: str) -> list[str]:
    """Copies of a certificate and its key that the server may read."""
    copies = []
    for file in files:
        copy = server.folder / file.name
        shutil.copy(file, copy)
        copy.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(copy, user)
        copies.append(str(copy))
    return copies


@pytest.fixture(scope="module", params=["postgres", "mysql"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer | MysqlServer]:
    with postgres_server() if request.param == "postgres" else mysql_server() as running:
        yield running


@pytest.fixture
def authority(home: Path) -> Authority:
    return Authority(home / "certificates", "ours")


@pytest.fixture
def serve(server: PostgresServer | MysqlServer, authority: Authority) -> Serve:
    def start(host: str, days: int) -> Place:
        files = authority.issue(host, days)
        server.stop()
        if isinstance(server, PostgresServer):
            certificate, key = _owned(files, server, "postgres")
            server.options = f"-c ssl=on -c ssl_cert_file={certificate} -c ssl_key_file={key}"
            server.start()
            place: Place = PostgresPlace(server)
            place.url += f"?sslmode=verify-full&sslrootcert={authority.file}"
        else:
            certificate, key = _owned(files, server, "mysql")
            server.options = [f"--ssl-cert={certificate}", f"--ssl-key={key}"]
            server.start()
            place = MysqlPlace(server)
            place.url += f"?ssl_ca={authority.file}"
        place.url = place.url.replace("127.0.0.1", "localhost")
        return place

    return start


@pytest.fixture
def path(home: Path) -> str:
    with opened(home / "lake") as lake:
        lake.append([{"type": "a", "message": str(n)} for n in range(20)])
    return str(home / "lake")


def test_certificate_that_is_valid(path: str, serve: Serve) -> None:
    place = serve("localhost", 30)
    synced(path, place.url)
    assert place.rows() == expected(path)


@pytest.mark.matrix
@pytest.mark.parametrize(("host", "days"), [("localhost", -1), ("db.example.com", 30)])
def test_certificate_that_is_expired_or_of_another_host(
    path: str, serve: Serve, host: str, days: int
) -> None:
    place = serve(host, days)
    with pytest.raises((SyncRefused, Unreachable), match=r"(?i)certificate") as caught:
        synced(path, place.url, retries=0)
    assert "\n" not in str(caught.value)
    # Once the server has a valid one, the same command goes on.
    place = serve("localhost", 30)
    synced(path, place.url)
    assert place.rows() == expected(path)


def test_certificate_of_another_authority(path: str, serve: Serve, home: Path) -> None:
    place = serve("localhost", 30)
    other = Authority(home / "others", "theirs")
    url = place.url.replace(str(home / "certificates" / "ours.pem"), str(other.file))
    with pytest.raises((SyncRefused, Unreachable), match=r"(?i)certificate") as caught:
        synced(path, url, retries=0)
    assert "\n" not in str(caught.value)
