"""Servers that are reached by a socket, with our certificate, by Sentinels, or with few rights."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lakelog.clients.address import Address
from lakelog.clients.redis_client import RedisClient
from lakelog.clients.redis_config import RedisConfig
from lakelog.consume.consume import consume
from lakelog.errors import InvalidSetting, Unreachable
from lakelog.oos.redis import RedisManager
from lakelog.recent.redis_feed import RecentFeeder
from lakelog.recent.redis_recent import RecentEntries
from tests.support.cli import run
from tests.support.lakes import opened
from tests.support.odd_passwords import LONG, is_told
from tests.support.redis_server import Authority, RedisServer, free_port, running
from tests.support.requirements import need, need_module
from tests.support.tree import ROOT

need_module("redis")
PASSWORD = "Quite-Secret-4242"


def hasty(url: str, environ: dict[str, str] | None = None) -> RedisConfig:
    return dataclasses.replace(RedisConfig.from_url(url, environ or {}), retries=0)


def until(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_socket(home: Path) -> None:
    path = home / "redis @#.sock"
    options = ("--unixsocket", str(path), "--requirepass", PASSWORD)
    url = f"unix://:{PASSWORD}@{home}/redis%20%40%23.sock?db=3"
    config, environ = RedisConfig.from_url(url, {}), {"REDIS_PASSWORD": PASSWORD}
    assert PASSWORD not in repr(config) + config.address + config.url()
    assert RedisConfig.from_url(config.url(), environ) == config
    with pytest.raises(Unreachable, match="is that its socket"):
        RedisClient(hasty(url))
    with running(RedisServer(home / "redis", options=options)):
        with RedisManager(config) as manager:
            manager.set_cached("k", 1)
            manager.client.xadd("st", {"data": '{"type":"t"}'})
        RedisManager(RedisConfig.from_env({"REDIS_SOCKET": str(path), **environ})).close()
        with opened(str(home / "lake")) as lake:
            assert consume(lake, f"{url}&stream=st").events == 1
            assert consume(lake, f"{url}&stream=st").events == 0


def test_server_that_wants_our_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "own")
    server = RedisServer(tmp_path / "redis", tls=(*authority.issue("localhost"), authority.file))
    server.options = ("--tls-auth-clients", "yes")
    ours = authority.issue("client")
    with running(server):
        url = f"rediss://localhost:{server.port}/0?ssl_ca_certs={authority.file}"
        with pytest.raises(Unreachable, match="REDIS_CLIENT_CERT"):
            RedisClient(hasty(url))
        config = hasty(f"{url}&ssl_certfile={ours[0]}&ssl_keyfile={ours[1]}")
        with contextlib.closing(RedisClient(config)) as client:
            assert client.call("PING", lambda c: c.ping())
        assert hasty(config.url()) == config


class Sentinel:
    """A primary, a replica, and a Sentinel, each guarded by a password."""

    def __init__(self, folder: Path) -> None:
        self.primary = RedisServer(folder / "a", options=("--requirepass", PASSWORD))
        options = ["--replicaof", "127.0.0.1", str(self.primary.port), "--masterauth", PASSWORD]
        options += ["--requirepass", PASSWORD, "--repl-diskless-sync-delay", "0"]
        self.replica = RedisServer(folder / "b", options=tuple(options))
        self.port, self._folder = free_port(), folder

    @contextlib.contextmanager
    def running(self, *, has_replica: bool = True) -> Iterator[Sentinel]:
        with contextlib.ExitStack() as servers:
            servers.enter_context(running(self.primary))
            if has_replica:
                servers.enter_context(running(self.replica))
            file = self._folder / "sentinel.conf"
            file.write_text(
                f"port {self.port}\nbind 127.0.0.1\nrequirepass guards-9\ndir {self._folder}\n"
                f"sentinel monitor main 127.0.0.1 {self.primary.port} 1\n"
                f"sentinel auth-pass main {PASSWORD}\n"
                "sentinel down-after-milliseconds main 300\n"
                "sentinel failover-timeout main 1000\n"
            )
            log = ["--logfile", str(self._folder / "sentinel.log")]
            process = subprocess.Popen([need("redis-server"), str(file), "--sentinel", *log])
            try:
                yield self
            finally:
                process.kill()
                process.wait()


def test_primary_that_sentinels_name(home: Path) -> None:
    with Sentinel(home).running(has_replica=False) as sentinel:
        url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{sentinel.port}/main/1"
        environ = {"REDIS_SENTINEL_PASSWORD": "guards-9"}
        config = RedisConfig.from_url(url, environ)
        assert "guards-9" not in repr(config)
        assert PASSWORD not in config.address + repr(config)
        assert RedisConfig.from_url(config.url(), environ | {"REDIS_PASSWORD": PASSWORD}) == config
        with contextlib.closing(RedisClient(config)) as client:
            assert client.call("PING", lambda redis: redis.ping())
        environ |= {"REDIS_SENTINELS": f"127.0.0.1:{sentinel.port}", "REDIS_MASTER": "main"}
        RedisClient(RedisConfig.from_env({**environ, "REDIS_PASSWORD": PASSWORD})).close()
        with pytest.raises(Unreachable, match="other"):
            RedisClient(hasty(url.replace("main", "other"), environ))


@pytest.mark.thorough
def test_fail_over_by_sentinel(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client and a consumer go on with the new primary, and nothing is stored twice."""
    with Sentinel(home).running() as sentinel, opened(str(home / "lake")) as lake:
        hosts = f"127.0.0.1:1,127.0.0.1:{sentinel.port}"
        monkeypatch.setenv("REDIS_SENTINEL_PASSWORD", "guards-9")
        url = f"redis+sentinel://:{PASSWORD}@{hosts}/main/0"
        config = RedisConfig.from_url(url)
        asked = RedisClient(RedisConfig(port=sentinel.port, password="guards-9"))
        until(lambda: bool(asked.client.execute_command("SENTINEL", "REPLICAS", "main")))

        def primary() -> str:
            answer = asked.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
            return str(answer[1])

        def add(n: int) -> None:
            entry = {"data": f'{{"type":"t","n":{n}}}'}
            client.call("XADD", lambda redis: redis.xadd("st", entry))

        was = RedisClient(RedisConfig(port=sentinel.primary.port, password=PASSWORD))
        with contextlib.closing(was), contextlib.closing(RedisClient(config)) as client:
            for n in range(5):
                add(n)
            assert consume(lake, f"{url}/st").events == 5
            assert client.call("WAIT", lambda redis: redis.wait(1, 20_000)) == 1
            # The old primary lives on as a replica, which the open connections find out.
            old = primary()
            asked.client.execute_command("SENTINEL", "FAILOVER", "main")
            until(lambda: primary() != old)
            until(lambda: was.call("ROLE", lambda redis: redis.role())[0] == "slave")
            add(5)
            assert consume(lake, f"{url}/st").events == 1
        asked.close()


def test_no_piece_of_a_password_is_left(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In files, output and logs of all verbs that reach Redis, whether it lets us in or not."""
    caplog.set_level(logging.DEBUG)
    lake, said = home / "lake", ""
    with running(RedisServer(home / "redis")) as server:
        admin = RedisClient(RedisConfig(port=server.port))
        admin.client.execute_command("ACL", "SETUSER", "odd", "on", f">{LONG}", "~*", "+@all")
        admin.client.xadd("st", {"data": '{"type":"t"}'})
        right = f"redis://odd:{Address.quoted(LONG)}@127.0.0.1:{server.port}/0"
        for url, code in ((right, 0), (right.replace("odd:", "odd:x"), 1)):
            done = run(lake, "consume", f"{url}/st", "--once", code=code)
            for words in (["--rebuild"], ["--json"]):
                shown = run(
                    lake, "recent", "--redis-url", url, *words, code=code * ("--json" not in words)
                )
                said += shown.output
            said += done.output + repr(done.exception)
        said += run(lake, "watch", str(home), "--print-unit", "--redis-url", right).output
        admin.close()
    assert not is_told(said + caplog.text)
    for file in lake.rglob("*"):
        assert not file.is_file() or not is_told(file.read_bytes().decode("latin-1"))


def documented_rights() -> list[str]:
    text = (ROOT / "docs" / "sync-redis.md").read_text()
    found = re.search(r"Give the user\s+`([^`]*)`", text)
    assert found
    return found[1].split()


@pytest.mark.parametrize("db", [0, 3])
def test_documented_rights_are_enough(home: Path, db: int) -> None:
    """For recent entries, and for figures of a user who may not ask for INFO."""
    with running(RedisServer(home / "redis")) as server, opened(str(home / "lake")) as lake:
        admin = RedisClient(RedisConfig(port=server.port))
        rights = documented_rights()
        admin.client.execute_command("ACL", "SETUSER", "u", "on", f">{PASSWORD}", *rights)
        config = RedisConfig(port=server.port, username="u", password=PASSWORD, db=db, retries=0)
        lake.append([{"type": "t", "source": "s"}])
        lake.settle()
        with contextlib.closing(RecentFeeder(lake, config)) as feeder:
            assert feeder.feed() > 0
        with contextlib.closing(RedisClient(config)) as client:
            assert len(RecentEntries(lake, client).search("s*")) == 1
        with RedisManager(config, lake=str(home / "figures")) as manager:
            assert manager.get_metrics()["memory"]["used_bytes"] is None
        with opened(str(home / "figures")) as figures:
            assert figures.sql("SELECT count(*) FROM events").fetchall() == [(1,)]
        admin.client.execute_command("ACL", "SETUSER", "u", "-ping", "-select")
        with pytest.raises(Unreachable, match=r"give it \+ping"):
            RedisClient(config)
        admin.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://a,b/0",
        "unix://host/0x?db=x",
        "redis+sentinel://h//0",
        "redis+sentinel://h,/m/0",
        "redis://h/0/more",
        "redis://h?db=x",
        "redis://h?socket_timeout=never",
        "redis://h?ssl_cert_reqs=none",
    ],
)
def test_places_that_are_none(url: str) -> None:
    with pytest.raises(InvalidSetting):
        RedisConfig.from_url(url, {})
