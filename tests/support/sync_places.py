"""Databases that tests sync to: how to reach each, read it, and change it behind a sync's back."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb

import lakelog
from lakelog.sync.sync import target_of
from lakelog.sync.syncer import Syncer, SyncResult
from lakelog.sync.target import SyncTarget
from tests.support.redis_server import free_port
from tests.support.requirements import find, need, need_module

PASSWORD = "s3cret-Pa55word"
COMPARED = "seq, type, source, subject, message, data, id, position"
"""Columns that all databases return alike; times are compared apart."""
Rows = list[tuple[Any, ...]]
_NUMBERS = itertools.count()


class Place:
    """A database as its own client sees it."""

    url: str

    def ask(self, statement: str) -> Rows:
        """Run a statement in a transaction of its own; return its rows."""
        raise AssertionError

    def rows(self, table: str = "events", columns: str = COMPARED) -> Rows:
        """The rows of a table by seq."""
        return self.ask(f"SELECT {columns} FROM {table} ORDER BY seq")

    def target(self) -> SyncTarget:
        """A fresh target of this place."""
        return target_of(self.url)


class SqlitePlace(Place):
    """A file of SQLite."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "target.db"
        self.url = f"sqlite:{self.path}"

    def ask(self, statement: str) -> Rows:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()


class DuckdbPlace(Place):
    """A file of DuckDB."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "target.duckdb"
        self.url = f"duckdb:{self.path}"

    def ask(self, statement: str) -> Rows:
        with contextlib.closing(duckdb.connect(str(self.path))) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []


class PostgresServer:
    """A real server on a loopback port, with a password for its superuser."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._data = folder / "data"
        # A server refuses to run as root.
        self._prefix = [str(find("runuser")), "-u", "postgres", "--"] if os.geteuid() == 0 else []
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if self._prefix:
            for path in (folder, secret):
                shutil.chown(path, "postgres")
        words = ["-A", "scram-sha-256", "-U", "postgres", "--pwfile", str(secret), "--no-sync"]
        self._run("initdb", "-D", str(self._data), *words)
        self.used = ""
        """The database of the newest test."""
        self.options = ""
        """Of the server's next start."""
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += f" {self.options}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-w", "-l", log, "start")

    def stop(self) -> None:
        """Stop at once, as a crash would; what was not committed is gone."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def become_standby(self) -> None:
        """Take no writes from the next start on, until it is promoted."""
        signal_file = self._data / "standby.signal"
        signal_file.touch()
        shutil.chown(signal_file, self._data.stat().st_uid)

    def url(self, database: str = "postgres", user: str = "postgres", port: int = 0) -> str:
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def _run(self, name: str, *words: str) -> None:
        command = [*self._prefix, need(name), *words]
        subprocess.run(
            command, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


class PostgresPlace(Place):
    """A fresh database of a server."""

    def __init__(self, server: PostgresServer) -> None:
        self.server, self.database = server, f"t{next(_NUMBERS)}"
        # Each has a thousand files: removing those of all tests at the end takes a minute.
        if server.used:
            admin(server.url(), f"DROP DATABASE IF EXISTS {server.used} WITH (FORCE)")
        admin(server.url(), f"CREATE DATABASE {self.database}")
        server.used = self.database
        self.url = server.url(self.database)

    def ask(self, statement: str) -> Rows:
        return admin(self.url, statement)


def admin(url: str, statement: str) -> Rows:
    """Run a statement on PostgreSQL."""
    import adbc_driver_postgresql.dbapi

    with (
        contextlib.closing(adbc_driver_postgresql.dbapi.connect(url, autocommit=True)) as link,
        contextlib.closing(link.cursor()) as cursor,
    ):
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server for the tests of a module; skips where there is none."""
    need_module("adbc_driver_postgresql")
    need("initdb", "pg_ctl", *(["runuser"] if os.geteuid() == 0 else []))
    # Not in the folder of the test: its parents are closed to the user that the server runs as.
    folder = Path(tempfile.mkdtemp("", "lakelog-pg-", os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Faulty:
    """A target at which something happens before or after the nth call of a method."""

    def __init__(
        self,
        inner: SyncTarget,
        method: str,
        moment: str,
        number: int,
        fault: Callable[[SyncTarget], None],
    ) -> None:
        self._inner, self._method, self._moment = inner, method, moment
        self._left, self._fault = number, fault

    @property
    def has_struck(self) -> bool:
        """Whether it has happened."""
        return self._left <= 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._method:
            return found

        def call(*args: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._moment == "before":
                self._fault(self._inner)
            result = found(*args)
            if self._left == 0 and self._moment == "after":
                self._fault(self._inner)
            return result

        return call


def kill(_: SyncTarget) -> None:
    """Kill this process: nothing of it runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], object]) -> int:
    """Run something in a forked process; return its exit code, negative for a signal."""
    pid = os.fork()
    if not pid:
        code = 9
        # Garbage of the parent may be a database, whose threads are not in this process.
        gc.freeze()
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def synced(path: str, target: str | SyncTarget, **options: Any) -> SyncResult:
    """Sync a lake by its path, in small batches."""
    say = options.pop("say", None)
    with lakelog.open(path, create=False) as lake:
        syncer = Syncer(lake, target, **{"batch_rows": 50, "say": say, **options})
        with contextlib.closing(syncer):
            return syncer.run()


def expected(path: str, columns: str = COMPARED, where: str = "true") -> Rows:
    """What the mapping over the lake is, by a query of the lake itself."""
    with lakelog.open(path, create=False) as lake:
        lake.settle()
        query = f"SELECT {columns} FROM events WHERE {where} ORDER BY seq"
        return [tuple(row.values()) for row in lake.sql(query).to_arrow_table().to_pylist()]


class Proxy:
    """A TCP proxy that can cut its connections: after so many bytes of a side, or when told."""

    def __init__(self, port: int) -> None:
        self._to, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._pumps: list[threading.Thread] = []
        self.limit: tuple[str, int] | None = None
        """A side (`up` to the server, `down` from it) and bytes after which all is cut, once."""
        self.on_up: Callable[[bytes], bool] = lambda data: False
        """Says whether the server's answers to what is sent now are to be lost."""
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        # Which wakes the thread that accepts; it closes what it has.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._cut()
        for thread in self._pumps:
            thread.join()

    def _cut(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                deaf = threading.Event()
                for side, source, to in (("up", client, server), ("down", server, client)):
                    arguments = (side, source, to, deaf)
                    thread = threading.Thread(target=self._pump, args=arguments)
                    thread.start()
                    self._pumps.append(thread)

    def _pump(
        self, side: str, source: socket.socket, to: socket.socket, deaf: threading.Event
    ) -> None:
        # Each thread closes the socket that it reads, and wakes the other one.
        with source, contextlib.suppress(OSError):
            while (data := source.recv(4096)) and self._passes(side, data, deaf):
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)

    def _passes(self, side: str, data: bytes, deaf: threading.Event) -> bool:
        """Whether data goes on; else everything is cut."""
        if side == "up" and self.on_up(data):
            self.on_up = lambda data: False
            deaf.set()
        is_over = False
        if self.limit and self.limit[0] == side:
            left = self.limit[1] - len(data)
            self.limit, is_over = ((side, left), False) if left > 0 else (None, True)
        if is_over or (side == "down" and deaf.is_set()):
            deaf.clear()
            self.cuts += 1
            self._cut()
            return False
        return True
