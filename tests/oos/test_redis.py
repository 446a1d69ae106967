"""The Redis manager of system C on real servers: values, faults, TLS, rotation, figures."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakelog
from lakelog import RedisConfig, RedisManager
from lakelog.clients.redis_client import RedisClient
from lakelog.errors import InvalidSetting, Unreachable
from tests.support.odd_passwords import PASSWORDS, is_told
from tests.support.redis_server import Authority, RedisServer, free_port, running
from tests.support.requirements import need_module
from tests.support.tree import ROOT

need_module("redis")

LOOKALIKES = [
    "1",
    "-0",
    "1e5",
    "true",
    "null",
    '"x"',
    "[1]",
    '{"a":1}',
    "NaN",
    "Infinity",
    " 1",
    "",
]
PASSWORD = "Correct-Horse-77-Battery"
USERS = tuple(f"--user app on >{PASSWORD} ~* &* +@all --user default off".split())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One plain server for the tests that do not hurt it."""
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as found:
        yield found


@pytest.fixture
def manager(server: RedisServer) -> Iterator[RedisManager]:
    """A manager on an empty database."""
    with RedisManager(RedisConfig(port=server.port)) as made:
        made.client.flushall()
        yield made


def secured(folder: Path, **changes: Any) -> tuple[RedisServer, RedisConfig]:
    """A server with TLS and a user, and how to reach it."""
    authority = Authority(folder / "tls", "authority")
    server = RedisServer(folder, tls=(*authority.issue("localhost"), authority.file), options=USERS)
    known = {"host": "localhost", "port": server.port, "username": "app", "password": PASSWORD}
    known |= {"use_tls": True, "cert": str(authority.file), "retries": 4}
    return server, RedisConfig(**{**known, **changes})


# --- values ---


def test_cached_values_come_back_until_they_expire(manager: RedisManager) -> None:
    """Any JSON value; a ttl below a second counts too."""
    value = {"text": "ä\u2028", "numbers": [1, 2.5, None, True], "deep": {"x": []}}
    assert manager.set_cached("a", value)
    assert manager.get_cached("a") == value
    assert manager.set_cached("b", 1, ttl=0.05)
    assert manager.client.pttl("b") <= 50
    time.sleep(0.1)
    assert manager.get_cached("b") is None
    for ttl in (0, -1, float("nan"), float("inf"), 1e300, "60", timedelta(seconds=1)):
        with pytest.raises(ValueError, match="ttl"):
            manager.set_cached("c", 1, ttl=ttl)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not JSON serializable"):
        manager.set_cached("c", object())
    for number in (float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="NaN and infinities"):
            manager.set_cached("c", {"a": [None, (1.5, number)]})
    assert manager.get_cached("c") is None


def test_invalidation_by_key_and_by_pattern(manager: RedisManager) -> None:
    """A key with a mark in it is a pattern; others stay."""
    for n in range(2500):
        manager.client.set(f"page:{n}", "1")
    manager.set_cached("user:1", "one")
    assert manager.invalidate("user:1") == 1
    assert manager.get_cached("user:1") is None
    manager.set_cached("other", 1)
    assert manager.invalidate("page:*") == 2500
    assert manager.get_cached("other") == 1


def test_reading_another_kind_is_empty_and_never_an_error(manager: RedisManager) -> None:
    """As for a key that is absent."""
    manager.client.rpush("list", "a", "b", "c")
    manager.set_cached("text", 1)
    assert manager.safe_lrange("list") == ["a", "b", "c"]
    assert manager.safe_lrange("list", 1, 1) == ["b"]
    assert manager.safe_lrange("text") == manager.safe_lrange("absent") == []
    assert manager.zrange("list") == manager.zrange("absent", withscores=True) == []
    assert manager.get_cached("list") is None


def test_sorted_sets(manager: RedisManager) -> None:
    """By rank, with scores if asked for; a score has to be a number."""
    assert manager.zadd("z", {"b": 2, "a": 1.5}) == 2
    assert manager.zadd("z", {"b": 3, "c": 9}) == 1
    assert manager.zrange("z") == ["a", "b", "c"]
    assert manager.zrange("z", 0, 1, withscores=True) == [("a", 1.5), ("b", 3.0)]
    for wrong in ({}, {"a": "x"}, {"a": float("nan")}, {"a": 10**400}, {"a": True}):
        with pytest.raises(ValueError, match="scores"):
            manager.zadd("z", wrong)  # type: ignore[arg-type]


def test_a_hash_is_validated_and_replaced_whole(manager: RedisManager) -> None:
    """What is refused leaves the old one."""
    assert manager.set_with_validation("h", {"s": "x", "i": 2**70, "f": 0.5, "b": True, "n": None})
    assert manager.client.hgetall("h") == {
        "s": "x",
        "i": str(2**70),
        "f": "0.5",
        "b": "true",
        "n": "null",
    }
    found = manager.get_key_with_type_detection("h")
    for wrong in ({}, [1], "text", None, {1: "x"}, {"a": [1]}, {"a": {}}, {"a": b"x"}):
        with pytest.raises(ValueError, match=r"^h: "):
            manager.set_with_validation("h", wrong)  # type: ignore[arg-type]
    assert manager.get_key_with_type_detection("h") == found
    assert manager.set_with_validation("h", {"only": "this"})
    assert manager.get_key_with_type_detection("h") == {"only": "this"}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.dictionaries(st.text(), SCALARS | st.sampled_from(LOOKALIKES), min_size=1))
def test_a_hash_keeps_its_types(
    manager: RedisManager, fields: dict[str, str | int | float | bool | None]
) -> None:
    """Text that looks like a number or a constant stays text."""
    manager.set_with_validation("h", fields)
    stored = manager.get_key_with_type_detection("h")
    assert {n: (type(v), v) for n, v in stored.items()} == {
        n: (type(v), v) for n, v in fields.items()
    }


def test_cached_values_have_their_types(manager: RedisManager) -> None:
    """As `get_cached` returns them."""
    for value in ("value", "42", 42, [1, "a"], {"a": None}, True, None):
        manager.set_cached("k", value)
        assert manager.get_key_with_type_detection("k") == value


def test_a_hash_is_held_against_its_schema(manager: RedisManager) -> None:
    """Names and types; a bool is no number."""
    schema = {"name": str, "age": (int, float)}
    assert manager.set_with_validation("p", {"name": "Ada", "age": 36}, schema)
    wrong: list[dict[str, Any]] = [
        {"name": "Ada"},
        {"name": 1, "age": 2},
        {"name": "A", "age": True},
    ]
    for value in [*wrong, {"name": "A", "age": 1, "extra": 1}]:
        with pytest.raises(ValueError, match="schema"):
            manager.set_with_validation("p", value, schema)


def test_keys_of_every_kind(manager: RedisManager) -> None:
    """A stream is of another kind, and a key may be absent."""
    client = manager.client
    client.set("s", "text")
    client.rpush("l", "1", "2")
    client.sadd("set", "x", "y")
    client.zadd("z", {"m": 2})
    client.xadd("stream", {"a": 1})
    found = {key: manager.get_key_with_type_detection(key) for key in ("s", "l", "set", "z")}
    assert found == {"s": "text", "l": ["1", "2"], "set": {"x", "y"}, "z": [("m", 2.0)]}
    assert manager.get_key_with_type_detection("stream") is None
    assert manager.get_key_with_type_detection("absent") is None


def test_bytes_that_are_no_text_survive(manager: RedisManager, server: RedisServer) -> None:
    """Values that other programs stored are read, whatever they are."""
    manager.client.eval(r"return redis.call('SET', 'raw', '\255\0x')", 0)
    text = manager.get_key_with_type_detection("raw")
    assert text.encode("utf-8", "surrogateescape") == b"\xff\0x"
    assert manager.get_cached("raw") is None
    # Other programs have such keys, too, which a pattern meets.
    manager.client.eval(r"return redis.call('SET', 'page:\255', '1')", 0)
    assert manager.get_key_with_type_detection("page:\udcff") == 1
    assert manager.client.pipeline().exists("page:\udcff").execute() == [1]
    assert manager.invalidate("page:*") == 1


# --- faults ---


def test_nothing_answers() -> None:
    """A ConnectionError at construction, with where it looked."""
    port = free_port()
    with pytest.raises(
        ConnectionError, match=rf"redis://127.0.0.1:{port}/0 does not answer"
    ) as told:
        RedisManager(RedisConfig(port=port, retries=1))
    assert "\n" not in str(told.value)


def test_retry_until_the_server_is_back(tmp_path: Path) -> None:
    """A restart in the middle of calls is noticed by nobody; what is stored stays."""
    server = RedisServer(tmp_path, options=("--appendonly", "yes", "--appendfsync", "always"))
    server.start()
    try:
        with RedisManager(RedisConfig(port=server.port, retries=30)) as manager:
            manager.set_cached("n", 1)
            server.stop()
            restart = threading.Timer(0.5, server.start)
            restart.start()
            assert manager.get_cached("n") == 1
            restart.join()
            assert manager.get_metrics()["errors"]["ConnectionError"] >= 1
    finally:
        server.stop()


def test_retry_until_the_cluster_is_up(tmp_path: Path) -> None:
    """A server of a cluster that is down, as in a fail-over, is as one that does not answer."""
    server = RedisServer(tmp_path, options=("--cluster-enabled", "yes"))
    server.start()
    try:
        with RedisManager(RedisConfig(port=server.port, retries=1)) as manager:
            for call in (lambda: manager.set_cached("n", 1), lambda: manager.get_cached("n")):
                with pytest.raises(Unreachable, match=r"answers: .*not served"):
                    call()
        with RedisManager(RedisConfig(port=server.port, retries=60)) as manager:
            slots = ("CLUSTER", "ADDSLOTS", *range(16384))
            rescue = threading.Timer(0.3, manager.client.execute_command, slots)
            rescue.start()
            assert manager.set_with_validation("n", {"a": 1})
            assert manager.get_key_with_type_detection("n") == {"a": 1}
            rescue.join()
    finally:
        server.stop()


def test_broken_connections_are_replaced(manager: RedisManager) -> None:
    """The server closes those that are idle, or all of them."""
    manager.set_cached("a", 1)
    manager.client.client_kill_filter(_type="normal", skipme=False)
    assert manager.get_cached("a") == 1


def test_a_pool_that_is_exhausted_says_so(server: RedisServer) -> None:
    """Threads wait for a connection, and no longer than the timeout."""
    config = RedisConfig(port=server.port, pool_size=1, timeout=2.0, retries=0)
    with RedisManager(config) as manager:
        taken = manager.client.connection_pool.get_connection()
        with pytest.raises(Unreachable, match=r"did not answer within 2 s"):
            manager.get_cached("a")
        manager.client.connection_pool.release(taken)
        assert manager.get_cached("absent") is None


def test_concurrent_threads_share_the_pool(manager: RedisManager) -> None:
    """Each call gets its own answer."""
    wrong: list[int] = []

    def work(number: int) -> None:
        for n in range(50):
            manager.set_cached(f"t:{number}", n)
            wrong.extend([n] if manager.get_cached(f"t:{number}") != n else [])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert manager.get_metrics()["pool"]["in_use"] == 0


# --- TLS, users, rotation ---


def test_tls_with_a_user(tmp_path: Path) -> None:
    """Certificate and host name are checked; the server's restart is survived."""
    server, config = secured(tmp_path)
    with running(server), RedisManager(config) as manager:
        assert manager.set_cached("a", 1)
        figures = manager.get_metrics()
        assert figures["certificate_days"] == 30
        server.stop()
        server.start()
        assert manager.ping()
        assert manager.set_cached("a", 2)


def test_certificates_are_refused_in_one_line(tmp_path: Path) -> None:
    """A wrong authority, a wrong host, an expired certificate, a file that is absent: at once."""
    server, config = secured(tmp_path)
    other = Authority(tmp_path / "other", "stranger")
    known = vars(config)
    cases = [
        (
            {"cert": str(other.file)},
            "certificate of rediss://localhost:.* is refused: .*REDIS_CERT",
        ),
        ({"cert": str(tmp_path / "absent.pem")}, "REDIS_CERT names a file that is not there"),
        ({"use_tls": False}, "does not answer|did not answer"),
        ({"password": "wrong-one"}, "refuses user or password: see REDIS_USERNAME"),
    ]
    with running(server):
        for change, said in cases:
            with pytest.raises(ConnectionError, match=said) as told:
                RedisManager(RedisConfig(**{**known, "retries": 0, **change}))
            assert PASSWORD not in str(told.value)
            assert "\n" not in str(told.value)
    authority = Authority(tmp_path / "tls2", "authority")
    for host, days, said in (
        ("elsewhere", 30, "mismatch|not valid for"),
        ("localhost", -2, "expired"),
    ):
        bad = RedisServer(
            tmp_path, tls=(*authority.issue(host, days), authority.file), options=USERS
        )
        with running(bad), pytest.raises(Unreachable, match=said):
            RedisManager(RedisConfig(**{**known, "port": bad.port, "cert": str(authority.file)}))


def test_credentials_rotate_without_restart(tmp_path: Path) -> None:
    """New ones are tried first; wrong ones change nothing; the old ones may then be revoked."""
    server, config = secured(tmp_path)
    with running(server), RedisManager(config) as manager:
        with pytest.raises(Unreachable, match="refuses user or password"):
            manager.rotate_credentials("app", "no-such-password")
        assert manager.ping()
        manager.client.execute_command(
            "ACL", "SETUSER", "next", "on", ">Next-55", "~*", "&*", "+@all"
        )
        manager.rotate_credentials("next", "Next-55")
        assert manager.client.execute_command("ACL", "WHOAMI") == "next"
        manager.client.execute_command("ACL", "DELUSER", "app")
        assert manager.set_cached("a", 1)


def test_a_revoked_user_is_replaced_from_the_password_file(tmp_path: Path) -> None:
    """As where a secret is mounted as a file: it is read again when the password is refused."""
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    server, config = secured(tmp_path, password="", password_file=str(file))
    with running(server), RedisManager(config) as manager:
        manager.set_cached("a", 1)
        admin = manager.client.connection_pool.get_connection()
        admin.send_command("ACL", "SETUSER", "app", "resetpass", ">Second-66")
        admin.read_response()
        admin.send_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
        admin.disconnect()
        manager.client.connection_pool.release(admin)
        with pytest.raises(Unreachable, match="refuses user or password"):
            manager.get_cached("a")
        file.write_text("Second-66\n")
        assert manager.get_cached("a") == 1


# --- configuration ---


def test_the_environment_names_the_server(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All variables; what is wrong is said by its name."""
    for name in list(os.environ):
        if name.startswith("REDIS_"):
            monkeypatch.delenv(name)
    assert RedisConfig.from_env() == RedisConfig("127.0.0.1", 6379)
    monkeypatch.setenv("REDIS_PORT", str(server.port))
    monkeypatch.setenv("REDIS_DB", "3")
    with RedisManager() as manager:
        assert manager.config == RedisConfig(port=server.port, db=3)
        assert manager.client.connection_pool.connection_kwargs["db"] == 3
    env = {"REDIS_HOST": "cache.example.com", "REDIS_USERNAME": "u", "REDIS_PASSWORD": PASSWORD}
    assert RedisConfig.from_env(env).use_tls
    assert not RedisConfig.from_env(env | {"REDIS_USE_TLS": "no"}).use_tls
    assert not RedisConfig.from_env({"REDIS_HOST": "redis"}).use_tls
    for name, value in (("PORT", "http"), ("PORT", "0"), ("DB", "-1"), ("USE_TLS", "perhaps")):
        with pytest.raises(InvalidSetting, match=f"REDIS_{name}"):
            RedisConfig.from_env({f"REDIS_{name}": value})
    with pytest.raises(InvalidSetting, match="REDIS_HOST"):
        RedisConfig.from_env({"REDIS_HOST": f"user:{PASSWORD}@host"})


def test_urls() -> None:
    """With and without TLS; an URL that is none is not repeated, for it may hold a password."""
    config = RedisConfig.from_url("rediss://ada:a%2Fb@[::1]:7000/4", {})
    assert (config.host, config.port, config.db, config.use_tls) == ("::1", 7000, 4, True)
    assert (config.username, config.password) == ("ada", "a/b")
    assert config.address == "rediss://[::1]:7000/4"
    for wrong in (f"http://u:{PASSWORD}@h", f"redis://u:{PASSWORD}@h:port", "redis://h/x"):
        with pytest.raises(InvalidSetting, match="a Redis URL looks like") as told:
            RedisConfig.from_url(wrong, {})
        assert PASSWORD not in str(told.value)


def test_odd_passwords_log_in(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the URL, a variable, a file and a rotation; a refusal tells no piece of them."""
    secret = tmp_path / "secret"
    with RedisManager(RedisConfig(port=server.port)) as admin:
        for password in PASSWORDS[::6]:
            admin.client.acl_setuser("odd", enabled=True, reset_passwords=True)
            admin.client.execute_command(
                "ACL", "SETUSER", "odd", f">{password}", "+ping", "+acl", "+client"
            )
            secret.write_bytes(f"{password}\n".encode())
            at, url = f"127.0.0.1:{server.port}", f"redis://odd:{quote(password, safe='')}@"
            configs = [RedisConfig.from_url(url + at, {})]
            for name, value in (("REDIS_PASSWORD", password), ("REDIS_PASSWORD_FILE", secret)):
                environ = {name: str(value)}
                configs.append(RedisConfig.from_url(f"redis://odd@{at}", environ))
            configs[2:] = configs[2:] if password[-1] not in "\r\n" else []
            for config in configs:
                with contextlib.closing(RedisClient(config)) as client:
                    assert client.call("ACL", lambda c: c.acl_whoami()) == "odd"
            with contextlib.closing(RedisClient(RedisConfig(port=server.port))) as client:
                client.rotate("odd", password)
                with pytest.raises(Unreachable) as told:
                    client.rotate("odd", f"{password}x")
            assert not is_told(str(told.value) + repr(told.value) + repr(configs))
        admin.client.acl_deluser("odd")


def test_no_secret_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither by repr, errors, logs or events, nor by what the attributes of an error hold."""
    caplog.set_level(logging.DEBUG)
    server, config = secured(tmp_path)
    texts = [repr(config), str(config)]
    with running(server), RedisManager(config, lake=tmp_path / "lake") as manager:
        texts += [repr(manager), str(vars(manager)["config"]), json.dumps(manager.get_metrics())]
        manager.flush(240)
        with pytest.raises(Unreachable) as told:
            manager.rotate_credentials("app", PASSWORD + "x")
        texts += [str(told.value), repr(told.value), str(told.value.__cause__)]
    lake = lakelog.open(tmp_path / "lake")
    texts += [str(lake.sql("FROM events").fetchall()), caplog.text, *capfd.readouterr()]
    for file in (tmp_path / "lake").rglob("*"):
        if file.is_file():
            assert PASSWORD.encode() not in file.read_bytes()
    assert not [text for text in texts if PASSWORD in text]


# --- figures, ends ---


def test_figures(manager: RedisManager) -> None:
    """Latency, hit rate, memory, errors, pool and what is asked for."""
    for n in range(8):
        manager.set_cached(f"user:{n}", n)
        manager.get_cached(f"user:{n}")
    manager.get_cached("absent:1")
    manager.client.config_set("maxmemory", 10**9)
    figures = manager.get_metrics()
    manager.client.config_set("maxmemory", 0)
    assert figures["cache"] == {"hits": 8, "misses": 1}
    assert figures["hit_rate"] == pytest.approx(8 / 9)
    assert figures["latency_ms"]["GET"]["count"] == 9
    assert 0 < figures["latency_ms"]["GET"]["p50"] <= figures["latency_ms"]["GET"]["max"]
    assert figures["access_patterns"] == {"user": 16, "absent": 1}
    assert figures["memory"]["limit_bytes"] == 10**9
    assert 0 < figures["memory"]["share"] < 0.1
    assert (figures["error_rate"], figures["errors"]) == (0, {})
    assert figures["pool"]["size"] == 20
    assert figures["certificate_expires"] is None


def test_figures_are_events(server: RedisServer, tmp_path: Path) -> None:
    """Every so often, at the end, and when the server is away."""
    config = RedisConfig(port=server.port)
    with RedisManager(config, lake=tmp_path / "lake", record_seconds=0.05) as manager:
        manager.set_cached("a", 1)
        with lakelog.open(tmp_path / "lake") as lake:
            while not lake.count():
                time.sleep(0.05)
    rows = lakelog.open(tmp_path / "lake").sql(
        "SELECT level, source, (data->>'calls')::INT FROM events WHERE type = 'redis.metrics'"
    )
    found = rows.fetchall()
    assert len(found) >= 2
    assert {(level, source) for level, source, _ in found} == {("INFO", config.address)}
    assert found[-1][2] >= 2


ENDS = """
import os, signal, sys
from lakelog import RedisConfig, RedisManager
def mine(number, frame):
    print("application", number, manager.ping(), flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, mine)
signal.signal(signal.SIGINT, mine)
manager = RedisManager(RedisConfig(port=int(sys.argv[1])), lake=sys.argv[2], record_seconds=60)
manager.set_cached("kept", 1)
os.write(1, b"ready\\n")  # a signal within a print could not print
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_application(
    server: RedisServer, tmp_path: Path, number: signal.Signals
) -> None:
    """Its handler runs, the manager still works in it, and the last figures are kept."""
    command = [sys.executable, "-c", ENDS, str(server.port), str(tmp_path / "lake")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == f"application {int(number)} True\n"
    assert process.returncode == 3
    assert lakelog.open(tmp_path / "lake").count() >= 1


def test_a_fork_has_connections_of_its_own(manager: RedisManager) -> None:
    """Answers of parent and child never mix."""
    manager.set_cached("a", "parent")
    pid = os.fork()
    if pid == 0:
        right = all(manager.set_cached("c", n) and manager.get_cached("c") == n for n in range(200))
        os._exit(0 if right else 1)
    assert all(manager.get_cached("a") == "parent" for _ in range(200))
    assert os.waitpid(pid, 0)[1] == 0
