"""A table in a REST catalog, whose requests are signed: SeaweedFS' has the table buckets of S3."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.effort import share
from tests.support.requirements import lacking, need
from tests.support.table_shops import Shop, assert_table_is, follow, orders

KEY, SECRET = "lakelog", "a secret of these tests"
FLAGS = "master.port volume.port filer.port s3.port s3.port.iceberg".split()
OFF = "-s3.port.lance=0 -master.telemetry=false -volume.max=8 -master.volumeSizeLimitMB=64".split()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Run a store with a REST catalog and the table bucket `warehouse`; give its ports."""
    weed = need("pyiceberg", "boto3", "weed")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (tmp_path / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = dict(zip(FLAGS, free_ports(len(FLAGS)), strict=True))
    command = [weed, "server", f"-dir={tmp_path}", "-s3", f"-s3.config={tmp_path}/s3.json", *OFF]
    command += ["-ip=127.0.0.1", *(f"-{flag}={port}" for flag, port in ports.items())]
    grpc = zip(("master.port", "volume.port", "filer.port", "s3.port"), free_ports(4), strict=True)
    command += [f"-{flag}.grpc={port}" for flag, port in grpc]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _make_bucket(ports["s3.port"])
        yield ports
    finally:
        server.kill()
        server.wait()


def _make_bucket(port: int) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3tables",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_table_bucket(name="warehouse")
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.3)


@pytest.mark.filterwarnings("ignore:Iceberg scan planning")
def test_a_rest_catalog_has_every_state(
    ports: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lake that changes is published to a signed catalog, and its table has the rows each time,
    by pyiceberg and by Polars."""
    shop = Shop(tmp_path / "shop", segment_bytes=9000)
    shop.properties = {
        "type": "rest",
        "uri": f"http://127.0.0.1:{ports['s3.port.iceberg']}",
        "warehouse": "s3://warehouse",
        "rest.sigv4-enabled": "true",
        "rest.signing-name": "s3tables",
        "rest.signing-region": "us-east-1",
        "client.access-key-id": KEY,
        "client.secret-access-key": SECRET,
        "client.region": "us-east-1",
        "s3.endpoint": f"http://127.0.0.1:{ports['s3.port']}",
        "s3.access-key-id": KEY,
        "s3.secret-access-key": SECRET,
        "s3.region": "us-east-1",
    }
    for name, value in (  # by which Polars finds the files
        ("ENDPOINT_URL", shop.properties["s3.endpoint"]),
        ("ACCESS_KEY_ID", KEY),
        ("SECRET_ACCESS_KEY", SECRET),
        ("REGION", "us-east-1"),
        ("ALLOW_HTTP", "true"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    with shop.lake:
        shop.engines = ["polars"] if not lacking("polars") else []
        shop.lake.append(orders(30))
        assert shop.publish().is_new
        assert not shop.publish().is_new
        assert_table_is(shop)
        follow(shop, random.Random(3), share(50))
