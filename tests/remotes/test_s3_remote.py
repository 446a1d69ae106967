"""Remotes in object stores: the suite, on a server of moto in this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.errors import TransferRefused, Unreachable
from lakelog.remotes import known
from lakelog.remotes.fetch import clone
from tests.support.remote_suite import RemoteSuite, push
from tests.support.requirements import need_module

obstore = need_module("obstore")
boto3 = need_module("boto3")
moto = need_module("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server with one bucket."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"

    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="lakes")
    yield address
    server.stop()


@pytest.mark.matrix
class TestS3(RemoteSuite):
    """A prefix of a bucket, a new one for each test."""

    CUTS = 16
    FORKS = False

    @pytest.fixture
    def url(self, home: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        return f"s3://lakes/a/{next(_NUMBERS)}"

    def test_credentials_of_a_profile(
        self, path: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        file = home / "credentials"
        file.write_text("[ada]\naws_access_key_id = test\naws_secret_access_key = test\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        monkeypatch.setenv("AWS_PROFILE", "ada")
        assert push(path).refs == {"main": "new"}


def test_a_missing_bucket_and_a_dead_server_are_one_line(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakelog.clients.backoff.pause", lambda attempt: 0.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)

    with pytest.raises(TransferRefused):
        clone("s3://nowhere/x", "/nonexistent/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable) as failed:
        clone("s3://lakes/x", "/nonexistent/x")
    assert "secret" not in str(failed.value)


def test_plain_http_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://example.com")
    with pytest.raises(TransferRefused, match="use https"):
        known.open_remote("s3://lakes/x")
