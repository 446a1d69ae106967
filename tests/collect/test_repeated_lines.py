"""Files that hold old lines and are none that was read: their lines may be stored twice, and each
time that is an event and a count."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.audit.audit import audit
from lakelog.cli import cli
from lakelog.collect import watch
from lakelog.collect.watch import Watcher
from lakelog.files.scan import FileScan
from tests.support.requirements import need

TIMED = "2026-11-24 10:00:{:02} INFO app: request {}\n"
JSON = '{{"type":"T","subject":"e{}"}}\n'
WAYS: dict[str, Callable[[Path], None]] = {}


def way(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register a way to change a log."""
    WAYS[change.__name__] = change
    return change


@way
def sed_first_line(path: Path) -> None:
    """sed -i, which changes the first line."""
    subprocess.run([need("sed"), "-i", "1s/./X/", str(path)], check=True)


@way
def sed_deletes(path: Path) -> None:
    """sed -i, which deletes a line in the middle."""
    subprocess.run([need("sed"), "-i", "5d", str(path)], check=True)


@way
def tail_moved(path: Path) -> None:
    """tail -n 20 x > y; mv y x"""
    lines = path.read_text().splitlines(keepends=True)
    aside = path.parent.parent / "aside"
    aside.write_text("".join(lines[-20:]))
    os.rename(aside, path)


@way
def trimmed_in_place(path: Path) -> None:
    """The last lines are written over the first, into the same inode."""
    lines = path.read_text().splitlines(keepends=True)
    with open(path, "r+") as file:
        file.write("".join(lines[-20:]))
        file.truncate()


def fill(path: Path, line: str, start: int, count: int) -> None:
    """Append lines that are like no others."""
    with open(path, "a") as file:
        for n in range(start, start + count):
            file.write(line.format(n, n) if "INFO" in line else line.format(n))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy need be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)


@pytest.mark.matrix
@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("line", [TIMED, JSON])
@pytest.mark.parametrize("name", WAYS)
def test_lines_that_are_stored_twice_are_said(
    lake: lakelog.Lake, tmp_path: Path, name: str, line: str, is_away: bool
) -> None:
    """Whoever rewrites a log may have lines stored again: as many as status and an event say."""
    path = tmp_path / "logs" / "a.log"
    path.parent.mkdir()
    fill(path, line, 0, 40)
    watcher = Watcher(lake, [str(path.parent)])
    watcher.round()
    watcher.round()
    if is_away:
        watcher.close()
        watcher = Watcher(lake, [str(path.parent)])
    WAYS[name](path)
    fill(path, line, 40, 3)
    for _ in range(3):
        watcher.round()
    watcher.close()
    query = """SELECT sum(n - 1) FROM (SELECT count(*) AS n FROM events
        WHERE type <> 'lakelog.watch' GROUP BY type, subject, message)"""
    twice = lake.sql(query).fetchall()[0][0]
    assert twice >= 20
    assert watcher.totals.repeated_lines == twice
    query = "SELECT data->>'repeated_lines' FROM events WHERE type = 'lakelog.watch'"
    assert lake.sql(query).fetchall() == [(str(int(twice)),)]
    missing = lake.sql("SELECT count(DISTINCT (type, subject, message)) FROM events").fetchall()
    assert missing[0][0] >= 43
    if line is TIMED:
        found = audit(lake.store, "main", lake.engine, [str(path.parent)])
        assert sum(file.doubled for file in found.wrong) == twice


def test_rotation_repeats_nothing(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A log that is removed, or copied and cut, and begun again with the banner of its program, is
    no repetition."""
    path = tmp_path / "logs" / "a.log"
    path.parent.mkdir()
    watcher = Watcher(lake, [str(path.parent)])
    for n in range(4):
        with open(path, "a") as file:
            file.write("INFO app: starting\nINFO app: ready\n")
        fill(path, TIMED, 10 * n, 5)
        watcher.round()
        watcher.round()
        path.unlink() if n % 2 else os.truncate(path, 0)
    watcher.close()
    assert watcher.totals.repeated_lines == 0


def test_a_trimmed_file_that_is_ingested_again(tmp_path: Path) -> None:
    """`ingest` says it, too, and status and audit count it."""
    path, at = tmp_path / "a.log", ["--lake", str(tmp_path / "lake")]
    fill(path, TIMED, 0, 40)
    run = CliRunner().invoke
    assert run(cli, [*at, "ingest", str(path)]).exit_code == 0
    trimmed_in_place(path)
    assert "20 lines may be stored twice" in run(cli, [*at, "ingest", str(path)]).output
    assert "20 lines reported as perhaps stored twice" in run(cli, [*at, "audit"]).output


def test_lines_that_a_program_ingests_again(lake: lakelog.Lake, tmp_path: Path) -> None:
    """An ingest from Python leaves the same event, and a dry run none."""
    path = tmp_path / "a.log"
    fill(path, TIMED, 0, 40)
    lake.ingest(path)
    trimmed_in_place(path)
    lake.ingest(path, dry_run=True)
    query = """SELECT subject, level, data->>'repeated_lines' FROM events
        WHERE type = 'lakelog.watch'"""
    assert lake.sql(query).fetchall() == []
    assert lake.ingest([path]).files[0].repeated == 20
    lake.ingest(path)
    assert lake.sql(query).fetchall() == [(str(path), "WARN", "20")]


def test_another_process_reads_on_behind_a_scan(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grew and was read further by somebody else after it was measured was not
    truncated."""
    path = tmp_path / "logs" / "a.log"
    path.parent.mkdir()
    fill(path, TIMED, 0, 1)
    watcher = Watcher(lake, [str(path.parent)])
    watcher.round()
    fill(path, TIMED, 1, 1)
    real = FileScan.look_again

    def read_on(*args: object) -> list[object]:
        found: list[object] = real(*args)  # type: ignore[arg-type,assignment]
        fill(path, TIMED, 2, 2)
        lake.ingest(str(path))
        return found

    monkeypatch.setattr(FileScan, "look_again", read_on)
    watcher.round()
    watcher.round()
    watcher.close()
    assert lake.sql("SELECT count(*) FROM events").fetchall()[0][0] == 2 + 2 * 2
