"""Faults of a real PostgreSQL server: cut connections, stops, lost replies, rights, passwords."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from lakelog.analyze import dedupe
from lakelog.errors import InvalidSetting, SyncRefused, Unreachable
from lakelog.sync.comparison import check
from lakelog.sync.databases import postgres
from lakelog.sync.sync import target_of
from lakelog.sync.syncer import SyncResult
from lakelog.sync.target import SyncTarget
from tests.support.cli import run
from tests.support.effort import share
from tests.support.lakes import copied, opened
from tests.support.odd_passwords import PASSWORDS, is_told
from tests.support.requirements import need_module
from tests.support.sync_places import (
    PASSWORD,
    Faulty,
    PostgresPlace,
    PostgresServer,
    Proxy,
    admin,
    expected,
    postgres_server,
    synced,
)
from tests.support.target_suite import POINTS, REWOUND, rewind, three_segments

dbapi = need_module("adbc_driver_postgresql.dbapi")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def place(server: PostgresServer) -> PostgresPlace:
    return PostgresPlace(server)


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    made = Proxy(server.port)
    yield made
    made.close()


@pytest.fixture
def path(home: Path) -> str:
    """A lake of three segments, the first one tagged."""
    return copied(three_segments, home)


@pytest.mark.matrix
@pytest.mark.parametrize("side", ["up", "down"])
@pytest.mark.parametrize("size", [1, 200, 700, 1500, 3000, 6000, 9000, 14000, 20000])
def test_retry_after_a_cut_connection(
    path: str, place: PostgresPlace, proxy: Proxy, side: str, size: int
) -> None:
    """Wherever in the conversation it is cut, each row is there once."""
    proxy.limit = side, size
    synced(path, place.server.url(place.database, port=proxy.port))
    assert place.rows() == expected(path)
    proxy.limit = side, size
    rewind(path)
    synced(path, place.server.url(place.database, port=proxy.port))
    assert place.rows() == expected(path)


@pytest.mark.matrix
@pytest.mark.parametrize("number", [1, 2, 3])
def test_lost_reply_of_commit(path: str, place: PostgresPlace, proxy: Proxy, number: int) -> None:
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
    path: str, place: PostgresPlace, method: str, moment: str, number: int
) -> None:
    """It is stopped at once and started again, at each step."""
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
@pytest.mark.parametrize(("method", "moment", "number"), REWOUND)
def test_retry_after_a_terminated_session(
    path: str, place: PostgresPlace, method: str, moment: str, number: int
) -> None:
    """As by an administrator or a pooler."""
    synced(path, place.url)
    rewind(path)

    def terminate(_: SyncTarget) -> None:
        place.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{place.database}' AND pid <> pg_backend_pid()"
        )

    synced(path, Faulty(place.target(), method, moment, number, terminate))
    assert place.rows() == expected(path)


def test_server_that_is_away(path: str, place: PostgresPlace) -> None:
    place.server.stop()
    try:
        with pytest.raises(Unreachable, match="Connection refused"):
            synced(path, place.url, retries=1)
    finally:
        place.server.start()
    synced(path, place.url)
    assert place.rows() == expected(path)


def test_standby_that_takes_over(path: str, place: PostgresPlace) -> None:
    """As in a fail-over: the sync waits until the server may be written to."""
    place.server.stop()
    place.server.become_standby()
    place.server.start()
    said = list[str]()

    def says(message: str) -> None:
        said.append(message)
        place.ask("SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote() END")

    try:
        synced(path, place.url, say=says)
    finally:
        says("")
    assert len(said) == 2
    assert "read-only transaction" in said[0]
    assert place.rows() == expected(path)


@pytest.mark.matrix
@pytest.mark.parametrize("right", ["INSERT", "SELECT", "LOGIN"])
def test_revoked_right(path: str, place: PostgresPlace, right: str) -> None:
    """In the middle of a back-fill: one line says it, and the next run continues."""
    user = f"{place.database}_app"
    place.ask(f"CREATE USER {user} PASSWORD '{PASSWORD}'")
    place.ask(f"GRANT CREATE, USAGE ON SCHEMA public TO {user}")
    url = place.server.url(place.database, user)
    off, on = f"REVOKE {right} ON events FROM {user}", f"GRANT {right} ON events TO {user}"
    if right == "LOGIN":
        off, on = f"ALTER USER {user} NOLOGIN", f"ALTER USER {user} LOGIN"

    def revoke(target: SyncTarget) -> None:
        place.ask(off)
        if right == "LOGIN":
            target.close()

    with pytest.raises(SyncRefused, match=r"permission denied|not permitted") as caught:
        synced(path, Faulty(target_of(url), "commit", "after", 1, revoke))
    assert "\n" not in str(caught.value)
    assert place.ask("SELECT count(*) FROM events") == [(40,)]
    place.ask(on)
    synced(path, url)
    assert place.rows() == expected(path)


def test_column_that_is_too_narrow(path: str, place: PostgresPlace) -> None:
    place.ask("CREATE TABLE events (seq bigint PRIMARY KEY, message varchar(3))")
    with pytest.raises(
        SyncRefused, match=r"too long for type character varying\(3\).*message.*wid"
    ):
        synced(path, place.url)
    assert place.ask("SELECT count(*) FROM events") == [(0,)]
    place.ask("ALTER TABLE events ALTER message TYPE varchar(9)")
    synced(path, place.url)
    assert place.rows() == expected(path)


@pytest.mark.parametrize(
    "refusal",
    [
        "CREATE INDEX ON events (message)",
        "CREATE TRIGGER t BEFORE INSERT ON events FOR EACH ROW WHEN (length(NEW.message) > 99)"
        " EXECUTE FUNCTION refuse()",
    ],
)
def test_rows_that_the_rules_of_a_table_refuse(
    path: str, place: PostgresPlace, refusal: str
) -> None:
    """They go to the quarantine, and all others are written."""
    place.ask("CREATE TABLE events (seq bigint PRIMARY KEY, message text)")
    place.ask(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'too many words'; END $$"
    )
    place.ask(refusal)
    with opened(path) as lake:
        # Longer than a page of an index holds, also when it is compressed.
        lake.append([{"type": "d", "message": random.Random(1).randbytes(5_000).hex()}])
    query = "SELECT message FROM events"
    assert synced(path, place.url, query=query, on_error="quarantine").quarantined == 1
    assert place.rows(columns="message") == expected(path, "message", "type <> 'd'")


@pytest.mark.parametrize("of", ["environment", "role", "database"])
def test_another_encoding_of_clients(
    path: str, place: PostgresPlace, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As administrators of older systems set it."""
    if of == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    else:
        name = "ROLE postgres" if of == "role" else f"DATABASE {place.database}"
        place.ask(f"ALTER {name} SET client_encoding = 'LATIN1'")
        place.ask(f"ALTER {name} SET standard_conforming_strings = off")
    try:
        synced(path, place.url)
        rewind(path)
        with opened(path) as lake:
            lake.append([{"type": "é", "message": "\u20ac\\'"}])
        synced(path, place.url)
    finally:
        place.ask("ALTER ROLE postgres RESET ALL")
        place.ask(f"ALTER DATABASE {place.database} RESET ALL")
        monkeypatch.delenv("PGCLIENTENCODING", raising=False)
    assert place.rows() == expected(path)


def test_sessions_that_only_read_by_default(path: str, place: PostgresPlace) -> None:
    place.ask(f"ALTER DATABASE {place.database} SET default_transaction_read_only = on")
    synced(path, place.url)
    assert place.rows() == expected(path)


def test_another_isolation_of_transactions(path: str, place: PostgresPlace) -> None:
    """A sync that waited for another one sees what that has written, whatever the database says."""
    place.ask(f"ALTER DATABASE {place.database} SET default_transaction_isolation = 'serializable'")

    def outrun(_: SyncTarget) -> None:
        # The first one has the lock: the second waits for it in a transaction of its own.
        waiting.append(pool.submit(synced, path, place.url, on_error="quarantine"))
        query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not place.ask(query):
            assert not waiting[0].done()

    waiting: list[Future[SyncResult]] = []
    with ThreadPoolExecutor(1) as pool:
        synced(path, Faulty(place.target(), "begin", "after", 1, outrun))
    assert (waiting[0].result().total, waiting[0].result().quarantined) == (120, 0)
    assert place.rows() == expected(path)


def test_check_beside_a_sync(path: str, place: PostgresPlace) -> None:
    """What is committed while the table is read differs from nothing."""
    synced(path, place.url)
    query = "SELECT 1 FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted"
    with (
        ThreadPoolExecutor(1) as pool,
        opened(path) as lake,
        contextlib.closing(dbapi.connect(place.url)) as other,
        contextlib.closing(other.cursor()) as cursor,
    ):
        cursor.execute("LOCK TABLE events")
        checking = pool.submit(check, lake, place.url)
        while not place.ask(query):
            assert not checking.done()
        cursor.execute("INSERT INTO events (seq) VALUES (500)")
        other.commit()
        assert checking.result()[0].is_equal


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_database_of_another_encoding(path: str, place: PostgresPlace, encoding: str) -> None:
    """What it cannot hold is refused with one line; all else is there as it is."""
    name = f"{place.database}_{encoding.lower()}"
    place.ask(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
    url = place.server.url(name)
    with opened(path) as lake:
        lake.append([{"type": "é"}])
    synced(path, url)
    query = "SELECT encode(convert_to(type, 'UTF8'), 'hex') FROM events WHERE seq = 120"
    assert admin(
        url, query if encoding == "LATIN1" else query.replace("'UTF8'", "'SQL_ASCII'")
    ) == [("c3a9",)]
    if encoding == "LATIN1":
        with opened(path) as lake:
            lake.append([{"type": "\u20ac"}])
        with pytest.raises(SyncRefused, match=r"no equivalent in encoding .*encoding UTF8"):
            synced(path, url)


def test_columns_of_the_user_keep_their_defaults(path: str, place: PostgresPlace) -> None:
    """Also where rows are written again, by dedupe and its undo, between others."""
    place.ask(
        "CREATE TABLE events (seq bigint PRIMARY KEY, type text,"
        " number int GENERATED ALWAYS AS IDENTITY, added timestamptz NOT NULL DEFAULT now())"
    )
    query = "SELECT seq, type FROM events"
    synced(path, place.url, query=query)
    with opened(path) as lake:
        dedupe.apply(lake, dedupe.plan(lake, "type", "last"))
    assert synced(path, place.url, query=query).total == 3
    with opened(path) as lake:
        lake.undo(force=True)
    synced(path, place.url, query=query)
    assert place.rows(columns="seq, type") == expected(path, "seq, type")
    assert place.ask("SELECT count(DISTINCT number) FROM events") == [(120,)]


def test_types_by_column(path: str, place: PostgresPlace) -> None:
    """Of a table that the user has created: JSON, UUIDs, smaller integers and arrays."""
    place.ask(
        "CREATE TABLE events (seq bigint PRIMARY KEY, data jsonb, n integer, small smallint,"
        " exact numeric, key uuid, words text[], numbers integer[])"
    )
    query = """SELECT seq, data, (data->>'n')::BIGINT AS n, 7 AS small, seq AS exact,
        '00000000-0000-0000-0000-00000000000' || (seq % 10) AS key,
        ['a"b', NULL, type] AS words, [seq, NULL] AS numbers FROM events"""
    synced(path, place.url, query=query)
    rewind(path)
    synced(path, place.url, query=query)
    asked = "data->>'n', n, small, exact::text, key::text, words::text, numbers::text"
    rows = place.ask(f"SELECT seq, {asked} FROM events ORDER BY seq")
    key = "00000000-0000-0000-0000-000000000001"
    assert rows[41] == (41, "1", 1, 7, "41", key, '{"a\\"b",NULL,after}', "{41,NULL}")
    assert len(rows) == 80
    place.ask("ALTER TABLE events ALTER n TYPE smallint")
    with pytest.raises(SyncRefused, match="smallint out of range"):
        synced(path, place.url, query=query.replace("(data->>'n')::BIGINT", "seq * 10000"))
    # It would round them without a word.
    place.ask("ALTER TABLE events ALTER n TYPE integer, ALTER exact TYPE numeric(9, 2)")
    with pytest.raises(SyncRefused, match=r"column exact is numeric\(9,2\), where numeric is"):
        synced(path, place.url, query=query.replace("seq AS", "(seq / 8)::DECIMAL(9, 3) AS"))
    place.ask("ALTER TABLE events ALTER data TYPE text[] USING NULL")
    with pytest.raises(SyncRefused, match=r"column data is text\[\], where text is needed"):
        synced(path, place.url, query=query)


def test_check_of_integers_in_a_numeric_column(path: str, place: PostgresPlace) -> None:
    """They have digits after the point there, and are the same numbers."""
    place.ask("CREATE TABLE events (seq bigint PRIMARY KEY, n numeric(9, 2), exact numeric(9, 3))")
    query = "SELECT seq, seq * 7 AS n, (seq / 8)::DECIMAL(9, 2) AS exact FROM events"
    synced(path, place.url, query=query)
    with opened(path) as lake:
        assert check(lake, place.url)[0].is_equal
        place.ask("UPDATE events SET n = n + 0.01 WHERE seq < 3")
        place.ask("UPDATE events SET exact = exact + 0.001 WHERE seq = 3")
        assert check(lake, place.url)[0].different == 4
        assert check(lake, place.url, repair=True)[0].is_repaired
        assert check(lake, place.url)[0].is_equal


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("DATE 'infinity'", "date out of range"),
        ("TIMESTAMP 'infinity'", "column t has an infinite time"),
        ("TIMESTAMPTZ '-infinity'", "column t has an infinite time"),
    ],
)
def test_time_that_neither_the_server_nor_python_has(
    path: str, place: PostgresPlace, value: str, reason: str
) -> None:
    """Its row is refused like any other, and not written with another time."""
    query = f"SELECT CASE seq WHEN 7 THEN {value} ELSE '2024-03-01' END AS t FROM events"
    with pytest.raises(SyncRefused, match=reason):
        synced(path, place.url, query=query)
    result = synced(path, place.url, query=query, on_error="quarantine")
    assert (result.quarantined, result.total) == (1, 119)
    with opened(path) as lake:
        assert lake.sql("SELECT position FROM quarantine").fetchall() == [(7,)]
        assert check(lake, place.url)[0].is_equal


@pytest.mark.parametrize("form", ["postgresql:///{0}", "postgresql:///{0}?host={1}"])
def test_socket_of_the_server(
    path: str, place: PostgresPlace, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address without a host: what libpq takes then, here by its variables."""
    folder = place.server.folder
    variables = {"PORT": str(place.server.port), "USER": "postgres", "PASSWORD": PASSWORD}
    for name, value in {**variables, "HOST": str(folder)}.items():
        monkeypatch.setenv(f"PG{name}", value)
    synced(path, form.format(place.database, folder))
    assert place.rows() == expected(path)


def test_names_that_the_server_would_cut_off(path: str, place: PostgresPlace) -> None:
    with pytest.raises(SyncRefused, match="longer than the 63 bytes"):
        synced(path, place.url, table="t" * 64)
    with pytest.raises(SyncRefused, match="longer than the 63 bytes"):
        synced(path, place.url, query=f"SELECT seq, type AS {'c' * 64} FROM events")
    synced(path, place.url, table="t" * 63)


def test_table_in_another_schema(path: str, place: PostgresPlace) -> None:
    place.ask("CREATE SCHEMA logs")
    synced(path, place.url, table="logs.events")
    rewind(path)
    synced(path, place.url, table="logs.events")
    assert place.rows("logs.events") == expected(path)


def test_password_of_the_environment(
    path: str, place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    synced(path, place.url.replace(f":{PASSWORD}", ""))
    assert place.rows() == expected(path)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres:{p}x@127.0.0.1:{port}/postgres",
        "postgresql://postgres:{p}@127.0.0.1:{port}/nowhere",
        "postgresql://nobody:{p}@127.0.0.1:{port}/postgres",
        "postgresql://postgres:{p}@127.0.0.1:1/postgres",
        "postgresql://postgres:{p}%ZZ@127.0.0.1:{port}/postgres",
        "postgresql://postgres:{p}@127.0.0.1:port/postgres",
        "postgresql://postgres@127.0.0.1:{port}/postgres?password={p}&nope=1",
        "postgresql://postgres:{p}@127.0.0.1:{port}/postgres/more",
        "postgressql://postgres:{p}@127.0.0.1:{port}/postgres",
    ],
)
def test_wrong_url_is_one_line_without_the_password(
    path: str, server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakelog.sync.syncer.RETRIES", 1)
    filled = url.format(p=PASSWORD, port=server.port)
    with pytest.raises((InvalidSetting, SyncRefused, Unreachable)) as caught:
        synced(path, filled, retries=0)
    assert PASSWORD not in repr(caught.value)
    assert "\n" not in str(caught.value)


def test_odd_passwords_log_in(
    path: str, place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the URL, its options and a variable; a refusal tells no piece of them."""
    user = f"{place.database}_odd"
    place.ask(f"CREATE USER {user}")
    bare = place.server.url(place.database, user).replace(f":{PASSWORD}", "")
    # Each login takes the time of a slow hash.
    for password in PASSWORDS[-share(len(PASSWORDS), 24) :]:
        place.ask(f"ALTER USER {user} PASSWORD '{password.replace(chr(39), chr(39) * 2)}'")
        monkeypatch.setenv("PGPASSWORD", password)
        escaped = quote(password, safe="")
        inside = bare.replace("@", f":{escaped}@")
        for url in (bare, inside, f"{bare}?password={escaped}"):
            with contextlib.closing(target_of(url)) as target:
                target.connect()
        with contextlib.closing(target_of(inside.replace("@", "x@"))) as target:
            with pytest.raises(SyncRefused) as caught:
                target.connect()
            assert not is_told(repr(caught.value) + str(caught.value))


def test_password_is_in_no_output(path: str, place: PostgresPlace) -> None:
    for code, words in ((0, ["--once", "--json"]), (1, ["--once", "--table", "x.y.z"])):
        done = run(path, "sync", place.url, *words, code=code)
        assert PASSWORD not in done.stdout + done.stderr + repr(done.exception)
    assert PASSWORD not in run(path, "sync", "status", place.url).stdout
    assert PASSWORD not in str(admin(place.url, "SELECT watermark FROM lakelog_sync"))


@pytest.mark.parametrize(("number", "name"), [(90_424, "9.4"), (110_021, "11")])
def test_old_server_is_refused(number: int, name: str) -> None:
    with pytest.raises(SyncRefused, match=f"PostgreSQL {name} is too old: upgrade it to 12"):
        postgres._require_version(number, "postgresql://db/x")
