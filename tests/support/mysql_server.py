"""A real server of MariaDB on a free loopback port."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.redis_server import free_port
from tests.support.requirements import need, need_module
from tests.support.sync_places import PASSWORD, Place, Rows

_NUMBERS = itertools.count()


class MysqlServer:
    """A server with a password for its user `lake`, who may do everything."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []
        """Of the server's next start."""
        self._user = "mysql" if os.geteuid() == 0 else os.environ.get("USER", "")
        words = ["--no-defaults", f"--datadir={self._data}", "--skip-test-db"]
        # Servers that start at once would remove each other's temporary tables.
        words += [
            f"--tmpdir={folder}",
            "--auth-root-authentication-method=normal",
            f"--user={self._user}",
        ]
        if os.geteuid() == 0:
            shutil.chown(folder, "mysql")
        _run("mariadb-install-db", *words)
        self.start()
        for statement in (
            f"CREATE USER lake@'%' IDENTIFIED BY '{PASSWORD}'",
            "GRANT ALL ON *.* TO lake@'%' WITH GRANT OPTION",
        ):
            self.ask(statement, user="root", password="")

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [
            need("mariadbd"),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self.folder}",
            f"--user={self._user}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder}/socket",
            "--innodb-flush-method=nosync",
            "--skip-name-resolve",
            *self.options,
        ]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while True:
            try:
                self.ask("SELECT 1", user="root", password="")
                return
            except Exception:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop at once, as a crash does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def url(self, database: str, user: str = "lake", port: int = 0) -> str:
        return f"mysql://{user}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def ask(
        self, statement: str, database: str = "mysql", user: str = "lake", password: str = PASSWORD
    ) -> Rows:
        """Run a statement in a transaction of its own."""
        import pymysql

        with (
            contextlib.closing(
                pymysql.connect(
                    host="127.0.0.1",
                    port=self.port,
                    user=user,
                    password=password,
                    database=database,
                    charset="utf8mb4",
                    autocommit=True,
                    init_command="SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return list(cursor.fetchall())


class MysqlPlace(Place):
    """A fresh database of a server."""

    def __init__(self, server: MysqlServer) -> None:
        self.server, self.database = server, f"t{next(_NUMBERS)}"
        server.ask(f"CREATE DATABASE {self.database} CHARACTER SET utf8mb4")
        self.url = server.url(self.database)

    def ask(self, statement: str) -> Rows:
        return self.server.ask(statement, self.database)


@contextlib.contextmanager
def mysql_server() -> Iterator[MysqlServer]:
    """A server for the tests of a module; skips where there is none."""
    need_module("pymysql")
    need("mariadbd", "mariadb-install-db")
    folder = Path(tempfile.mkdtemp("", "lakelog-my-", os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    folder.chmod(0o755)
    server = None
    try:
        server = MysqlServer(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: str, *words: str) -> None:
    done = subprocess.run([need(program), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
