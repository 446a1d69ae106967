"""MySQL, tested on MariaDB: the suite of all targets, and faults of a server."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lakelog.errors import InvalidSetting, SyncRefused, Unreachable
from lakelog.sync.comparison import check
from lakelog.sync.sync import target_of
from lakelog.sync.target import SyncTarget
from tests.support.cli import run
from tests.support.effort import share
from tests.support.lakes import copied, opened
from tests.support.mysql_server import MysqlPlace, MysqlServer, mysql_server
from tests.support.odd_passwords import PASSWORDS, is_told
from tests.support.sync_places import PASSWORD, Faulty, Proxy, expected, synced
from tests.support.target_suite import POINTS, REWOUND, TargetSuite, add, rewind, three_segments


@pytest.fixture(scope="module")
def server() -> Iterator[MysqlServer]:
    with mysql_server() as running:
        yield running


@pytest.mark.matrix
class TestMysql(TargetSuite):
    TEXT = "VARCHAR(500)"

    @pytest.fixture
    def place(self, server: MysqlServer) -> MysqlPlace:
        return MysqlPlace(server)


@pytest.fixture
def place(server: MysqlServer) -> MysqlPlace:
    return MysqlPlace(server)


@pytest.fixture
def proxy(server: MysqlServer) -> Iterator[Proxy]:
    made = Proxy(server.port)
    yield made
    made.close()


@pytest.fixture
def path(home: Path) -> str:
    """A lake of three segments, the first one tagged."""
    return copied(three_segments, home)


@pytest.mark.matrix
@pytest.mark.parametrize("side", ["up", "down"])
@pytest.mark.parametrize("size", [1, 200, 900, 3000, 7000, 12000, 20000])
def test_retry_after_a_cut_connection(
    path: str, place: MysqlPlace, proxy: Proxy, side: str, size: int
) -> None:
    """Wherever in the conversation it is cut, each row is there once."""
    for change in (lambda path: None, rewind):
        change(path)
        proxy.limit = side, size
        synced(path, place.server.url(place.database, port=proxy.port))
        assert place.rows() == expected(path)


@pytest.mark.matrix
@pytest.mark.parametrize("number", [1, 2, 3])
def test_lost_reply_of_commit(path: str, place: MysqlPlace, proxy: Proxy, number: int) -> None:
    seen = []

    def is_commit(data: bytes) -> bool:
        seen.extend(re.findall(rb"COMMIT", data))
        return len(seen) >= number

    proxy.on_up = is_commit
    result = synced(path, place.server.url(place.database, port=proxy.port))
    assert proxy.cuts == 1
    assert place.rows() == expected(path)
    assert result.total == 120


@pytest.mark.matrix
@pytest.mark.parametrize(("method", "moment", "number"), [POINTS[0], *REWOUND])
def test_crash_recovery_of_the_server(
    path: str, place: MysqlPlace, method: str, moment: str, number: int
) -> None:
    """It is killed and started again, at each step."""
    synced(path, place.url)
    rewind(path)

    def crash(_: SyncTarget) -> None:
        place.server.stop()
        place.server.start()

    target = Faulty(place.target(), method, moment, number, crash)
    synced(path, target)
    assert target.has_struck
    assert place.rows() == expected(path)


@pytest.mark.matrix
@pytest.mark.parametrize("right", ["INSERT", "SELECT", "ACCOUNT"])
def test_revoked_right(path: str, place: MysqlPlace, right: str) -> None:
    """In the middle of a back-fill: one line says it, and the next run continues."""
    user, everything = f"{place.database}_app", f"{place.database}.*"
    place.ask(f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")
    place.ask(f"GRANT ALL ON {everything} TO {user}")
    url = place.server.url(place.database, user)
    off, on = f"REVOKE {right} ON {everything} FROM {user}", f"GRANT ALL ON {everything} TO {user}"
    if right == "ACCOUNT":
        off, on = f"ALTER USER {user} ACCOUNT LOCK", f"ALTER USER {user} ACCOUNT UNLOCK"

    def revoke(target: SyncTarget) -> None:
        place.ask(off)
        target.close()

    with pytest.raises(SyncRefused, match=r"denied|locked") as caught:
        synced(path, Faulty(target_of(url), "commit", "after", 1, revoke))
    assert "\n" not in str(caught.value)
    assert place.ask("SELECT count(*) FROM events") == [(40,)]
    place.ask(on)
    synced(path, url)
    assert place.rows() == expected(path)


@pytest.mark.parametrize(
    "setting",
    [
        "default_storage_engine = 'Aria'",
        "default_storage_engine = 'MyISAM'",
        "sql_select_limit = 1",
        "max_join_size = 10",
        "sql_safe_updates = 1",
        "sql_notes = 0",
        "tx_read_only = 1",
        "max_statement_time = 0.00001",
    ],
)
def test_defaults_of_the_server(path: str, place: MysqlPlace, setting: str) -> None:
    """A batch leaves all or nothing and a check reads all rows, whatever sessions begin with."""
    name = setting.partition(" ")[0]
    before = place.ask(f"SELECT @@GLOBAL.{name}")[0][0]
    place.ask(f"SET GLOBAL {setting}")
    try:
        target = Faulty(place.target(), "commit", "before", 2, lambda inner: inner.close())
        synced(path, target, mode="append")
        assert target.has_struck
        assert target_checked(path, place) == (0, 0, 0)
        assert synced(path, place.url, mode="replace").is_rebuilt
    finally:
        restored = f"'{before}'" if isinstance(before, str) else before
        place.ask(f"SET GLOBAL {name} = {restored}")
    assert place.rows() == expected(path)


def target_checked(path: str, place: MysqlPlace) -> tuple[int, int, int]:
    """How many rows a check finds missing, extra and different."""
    with opened(path) as lake:
        (result,) = check(lake, place.url)
    return result.missing, result.extra, result.different


@pytest.mark.parametrize("isolation", ["REPEATABLE-READ", "READ-COMMITTED"])
def test_check_beside_a_sync(path: str, place: MysqlPlace, isolation: str) -> None:
    """What is committed while the table is read differs from nothing."""
    synced(path, place.url)
    before = place.ask("SELECT @@GLOBAL.tx_isolation")[0][0]
    place.ask(f"SET GLOBAL tx_isolation = '{isolation}'")
    query = "SELECT 1 FROM information_schema.processlist WHERE state LIKE '%metadata lock'"
    try:
        other: Any = place.target()
        with ThreadPoolExecutor(1) as pool, contextlib.closing(other):
            other.connect()
            other._fetch("LOCK TABLES events WRITE")
            checking = pool.submit(target_checked, path, place)
            while not place.ask(query):
                assert not checking.done()
            other._fetch("INSERT INTO events (seq) VALUES (500)")
            other._fetch("UNLOCK TABLES")
            assert checking.result() == (0, 0, 0)
    finally:
        place.ask(f"SET GLOBAL tx_isolation = '{before}'")


@pytest.mark.parametrize("table", ["events", "lakelog_sync"])
def test_table_without_transactions(path: str, place: MysqlPlace, table: str) -> None:
    """One that cannot take a batch back is refused, before anything is written to it."""
    synced(path, place.url)
    rows = place.rows()
    add(path, "new", 5)
    # The key of names is longer than MyISAM takes.
    shorter = "MODIFY name VARCHAR(200)," if table == "lakelog_sync" else ""
    place.ask(f"ALTER TABLE {table} {shorter} ENGINE = MyISAM")
    with pytest.raises(SyncRefused, match=f"table {table} is of the engine MyISAM"):
        synced(path, place.url)
    assert place.rows() == rows
    place.ask(f"ALTER TABLE {table} ENGINE = InnoDB")
    synced(path, place.url)
    assert place.rows() == expected(path)


@pytest.mark.parametrize(
    "declared", ["time DATETIME", "time TIMESTAMP(3)", "n DOUBLE(10, 0)", "exact DECIMAL(10, 2)"]
)
def test_column_with_too_few_digits(path: str, place: MysqlPlace, declared: str) -> None:
    """One that would cut fractions off is refused, and not filled with other values."""
    place.ask(f"CREATE TABLE events (seq BIGINT PRIMARY KEY, {declared})")
    name, declared_type = declared.lower().split(" ", 1)
    said = f"column {name} is {declared_type}".replace(", ", ",")
    query = """SELECT time, (data->>'n')::DOUBLE AS n, (data->>'n')::DECIMAL(9, 3) AS exact
        FROM events"""
    with pytest.raises(SyncRefused, match=re.escape(said)):
        synced(path, place.url, query=query)
    whole = {"n": "DOUBLE", "exact": "DECIMAL(10, 3)"}.get(name, "DATETIME(6)")
    place.ask(f"ALTER TABLE events MODIFY {name} {whole}")
    synced(path, place.url, query=query)
    assert target_checked(path, place) == (0, 0, 0)


def test_column_that_is_too_narrow(path: str, place: MysqlPlace) -> None:
    place.ask("CREATE TABLE events (seq BIGINT PRIMARY KEY, message VARCHAR(3))")
    with pytest.raises(SyncRefused, match=r"Data too long for column 'message'.*widen"):
        synced(path, place.url)
    assert place.ask("SELECT count(*) FROM events") == [(0,)]
    place.ask("ALTER TABLE events MODIFY message VARCHAR(9)")
    synced(path, place.url)
    assert place.rows() == expected(path)


def test_blanks_beyond_a_narrow_column(path: str, place: MysqlPlace) -> None:
    """The server cuts them with a mere note, so that the value would be another one."""
    place.ask("CREATE TABLE events (seq BIGINT PRIMARY KEY, message VARCHAR(9))")
    with opened(path) as lake:
        lake.append([{"type": "d", "message": "d 1" + " " * 9}])
    query = "SELECT message FROM events"
    with pytest.raises(SyncRefused, match=r"truncated for column 'message'.*widen"):
        synced(path, place.url, query=query)
    assert synced(path, place.url, query=query, on_error="quarantine").quarantined == 1
    assert place.rows(columns="message") == expected(path, "message", "type <> 'd'")


def test_first_event_where_the_key_is_counted(path: str, place: MysqlPlace) -> None:
    """AUTO_INCREMENT takes 0 for no number, and the second event would replace the first."""
    place.ask("CREATE TABLE events (seq BIGINT AUTO_INCREMENT PRIMARY KEY, message VARCHAR(9))")
    synced(path, place.url, query="SELECT message FROM events", batch_rows=1)
    assert place.rows(columns="seq, message") == expected(path, "seq, message")


@pytest.mark.parametrize(
    "declared", ["n BIGINT NOT NULL AUTO_INCREMENT UNIQUE", "n TIMESTAMP(6) NOT NULL"]
)
def test_null_for_a_column_that_has_none(path: str, place: MysqlPlace, declared: str) -> None:
    """It is refused, and not stored as the next number or the time of the sync."""
    place.ask(f"CREATE TABLE events (seq BIGINT PRIMARY KEY, {declared})")
    number = "nullif((data->>'n')::BIGINT, 7)"
    value = number if "BIGINT" in declared else f"make_timestamp({number} + 1)::TIMESTAMPTZ"
    query = f"SELECT {value} AS n FROM events WHERE type = 'a'"
    with pytest.raises(SyncRefused, match="Column 'n' cannot be null"):
        synced(path, place.url, query=query)
    assert place.ask("SELECT count(*) FROM events") == [(0,)]
    assert synced(path, place.url, query=query, on_error="quarantine").quarantined == 1
    assert place.ask("SELECT count(*) FROM events WHERE seq <> 7") == [(39,)]


@pytest.mark.parametrize(
    "refusal",
    [
        "ALTER TABLE events ADD FOREIGN KEY (message) REFERENCES words (word)",
        """CREATE TRIGGER t BEFORE INSERT ON events FOR EACH ROW IF char_length(NEW.message) > 40
        THEN SIGNAL SQLSTATE '45000' SET message_text = 'too many words'; END IF""",
    ],
)
def test_rows_that_the_rules_of_a_table_refuse(path: str, place: MysqlPlace, refusal: str) -> None:
    """They go to the quarantine, and all others are written."""
    place.ask("CREATE TABLE words (word VARCHAR(50) PRIMARY KEY)")
    with opened(path) as lake:
        words = [row[0] for row in lake.sql("SELECT message FROM events").fetchall()]
        lake.append([{"type": "d", "message": "long " * 10}])
    place.ask("INSERT INTO words VALUES " + ", ".join(f"({word!r})" for word in words))
    place.ask("CREATE TABLE events (seq BIGINT PRIMARY KEY, message VARCHAR(50))")
    place.ask(refusal)
    query = "SELECT message FROM events"
    assert synced(path, place.url, query=query, on_error="quarantine").quarantined == 1
    assert place.rows(columns="message") == expected(path, "message", "type <> 'd'")


@pytest.mark.parametrize("setting", ["read_only = 1", "max_user_connections = 1"])
def test_server_that_takes_no_writes_for_a_while(
    path: str, place: MysqlPlace, setting: str
) -> None:
    """As in a fail-over: the sync waits for it."""
    user, name = f"{place.database}_app", setting.partition(" ")[0]
    place.ask(f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")
    place.ask(f"GRANT ALL ON {place.database}.* TO {user}")
    limit = "WITH MAX_USER_CONNECTIONS"
    on, off = f"SET GLOBAL {setting}", "SET GLOBAL read_only = 0"
    if name == "max_user_connections":
        on, off = f"ALTER USER {user} {limit} 1", f"ALTER USER {user} {limit} 0"
    url, said = place.server.url(place.database, user), list[str]()
    place.ask(on)

    def says(message: str) -> None:
        said.append(message)
        place.ask(off)

    with contextlib.closing(target_of(url)) as other:
        if name == "max_user_connections":
            other.connect()
        try:
            synced(path, url, say=says)
        finally:
            place.ask(off)
    assert len(said) == 1
    assert name[:4] in said[0]
    assert place.rows() == expected(path)


def test_upsert_leaves_rows_that_are_equal_in_another_column(path: str, place: MysqlPlace) -> None:
    """ON DUPLICATE KEY would replace them, and lose an event."""
    place.ask("CREATE TABLE events (seq BIGINT PRIMARY KEY, message VARCHAR(99) UNIQUE)")
    synced(path, place.url, query="SELECT seq, message FROM events")
    place.ask("UPDATE events SET message = 'd 1' WHERE message = 'a 1'")
    place.ask("INSERT INTO events (seq, message) VALUES (160, 'mine')")
    add(path, "d", 40)
    with pytest.raises(SyncRefused, match="Duplicate entry 'd 1'"):
        synced(path, place.url, query="SELECT seq, message FROM events")


def test_row_beyond_the_packets_of_the_server(path: str, place: MysqlPlace) -> None:
    with opened(path) as lake:
        lake.append({"type": "large", "message": "x" * (17 << 20)})
    with pytest.raises(SyncRefused, match="raise max_allowed_packet on the server"):
        synced(path, place.url)
    assert place.rows() == expected(path)[:80], "the batches before it"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://lake:{p}x@127.0.0.1:{port}/mysql",
        "mysql://lake:{p}@127.0.0.1:{port}/nowhere",
        "mysql://nobody:{p}@127.0.0.1:{port}/mysql",
        "mysql://lake:{p}@127.0.0.1:1/mysql",
        "mysql://lake:{p}@127.0.0.1:port/mysql",
        "mysql://lake:{p}@127.0.0.1:{port}",
        "mysql://lake:{p}@127.0.0.1:{port}/mysql?tls=yes",
        "mysql://lake:{p}@127.0.0.1:{port}/mysql?ssl_ca=/nowhere.pem",
        "mysqll://lake:{p}@127.0.0.1:{port}/mysql",
    ],
)
def test_wrong_url_is_one_line_without_the_password(
    path: str, server: MysqlServer, url: str
) -> None:
    with pytest.raises((InvalidSetting, SyncRefused, Unreachable)) as caught:
        synced(path, url.format(p=PASSWORD, port=server.port), retries=0)
    assert PASSWORD not in repr(caught.value)
    assert "\n" not in str(caught.value)


def test_odd_passwords_log_in(
    path: str, place: MysqlPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the URL and from a variable, which is literal; a refusal tells no piece of them."""
    user = f"{place.database}_odd"
    place.ask(f"CREATE USER {user}")
    place.ask(f"GRANT ALL ON {place.database}.* TO {user}")
    url = place.server.url(place.database, user)
    for password in PASSWORDS[-share(len(PASSWORDS)) :]:
        place.ask(f"ALTER USER {user} IDENTIFIED BY '{password.replace(chr(39), chr(39) * 2)}'")
        monkeypatch.setenv("MYSQL_PWD", password)
        for login in ("", f":{quote(password, safe='')}"):
            with contextlib.closing(target_of(url.replace(f":{PASSWORD}", login))) as target:
                target.connect()
        with contextlib.closing(target_of(url.replace(PASSWORD, f"{login[1:]}x"))) as target:
            with pytest.raises(SyncRefused) as caught:
                target.connect()
            assert not is_told(repr(caught.value) + str(caught.value))
    done = run(path, "sync", url.replace(f":{PASSWORD}", login), "--once", "--json")
    assert not is_told(done.stdout + done.stderr)
    assert not is_told(str(place.ask("SELECT watermark FROM lakelog_sync")))


def test_password_is_in_no_output(path: str, place: MysqlPlace) -> None:
    done = run(path, "sync", place.url, "--once", "--json")
    assert PASSWORD not in done.stdout + done.stderr
    assert PASSWORD not in run(path, "sync", "status", place.url).stdout
    assert PASSWORD not in str(place.ask("SELECT watermark FROM lakelog_sync"))
