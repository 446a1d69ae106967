"""Which files are followed: what is excluded, too old, or there already is left alone."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.audit.audit import audit
from lakelog.cli import cli
from lakelog.collect import watch
from lakelog.collect.watch import Watcher
from tests.support.watching import Place, stored

HOUR = 3600.0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A directory of logs; no copy need be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    return Place(tmp_path / "logs")


def look(lake: lakelog.Lake, place: Place, **options: Any) -> Watcher:
    """Watch for some rounds."""
    watcher = Watcher(lake, [str(place.root)], **options)
    for _ in range(3):
        watcher.round()
    return watcher


def unwanted(place: Place, *names: str) -> None:
    """Write files of which no line may be stored."""
    for name in names:
        path = place.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text('{"type":"T","subject":"unwanted 12345678"}\n')


def age(path: Path, seconds: float) -> None:
    """Let a file be last written so long ago."""
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_excluded_names(lake: lakelog.Lake, place: Place) -> None:
    """A pattern leaves out files and directories, with what rotation makes of them; one with a
    slash is that of a path. What was excluded is no successor of a log either."""
    place.write("a.log")
    unwanted(place, "debug.log", "debug.log.1", "tmp/a.log", "b/c/a.log", "x/debug.log-20261124")
    (place.root / "b" / "d").mkdir()
    place.write("b/d/a.log")
    excluded = ("debug.log", "tmp", "b/c/*", "*.saved")
    watcher = look(lake, place, patterns=("*.log",), excluded=excluded)
    assert stored(lake) == Counter(place.written)
    place.move("a.log", "a.saved")
    watcher.round()
    assert not any("saved" in path for path in watcher._inodes.values())
    watcher.close()
    assert stored(lake) == Counter(place.written)


def test_old_files_are_left_out_until_they_are_written(lake: lakelog.Lake, place: Place) -> None:
    """One that nobody read and nobody wrote for a time is left alone, and read whole once it is
    written; one that was read before is followed though it is old."""
    place.write("known.log")
    look(lake, place).close()
    place.write("known.log")
    place.write("old.log")
    for name in ("known.log", "old.log"):
        age(place.root / name, 2 * HOUR)
    watcher = look(lake, place, ignore_older=HOUR)
    assert stored(lake) == Counter(place.written[:-3])
    assert not watcher.has_arriving_files
    place.write("old.log")
    watcher.round()
    watcher.close()
    assert stored(lake) == Counter(place.written)


def test_a_copy_of_an_old_file_is_not_waited_for(lake: lakelog.Lake, place: Place) -> None:
    """A young copy of a file that is left out is read, as the original is not."""
    place.write("a.log", 10)
    age(place.root / "a.log", 2 * HOUR)
    (place.root / "a.log.1").write_bytes((place.root / "a.log").read_bytes())
    watcher = look(lake, place, ignore_older=HOUR)
    assert not watcher.has_arriving_files
    watcher.close()
    assert stored(lake) == Counter(place.written)


def test_from_the_end(lake: lakelog.Lake, place: Place) -> None:
    """A first watcher begins at the ends of the files that are there, packed ones included; it
    and later ones read whatever is written from then on, through rotation."""
    unwanted(place, "a.log", "b.log", "packed.log")
    place.pack("packed.log")
    (place.root / "b.log").write_bytes((place.root / "b.log").read_bytes() + b'{"type":"T",')
    look(lake, place, from_end=True).close()
    assert stored(lake) == Counter()
    place.end("b.log", b'"subject":"e0"}\n')
    place.written.append("e0")
    place.write("a.log")
    place.move("a.log", "a.log.1")
    place.pack("a.log.1")
    place.write("a.log")
    look(lake, place, from_end=True).close()
    assert stored(lake) == Counter(place.written)
    found = audit(lake.store, "main", lake.engine, [str(place.root)])
    assert (found.wrong, found.failed, found.gone) == ([], [], [])


def test_the_options(place: Place, tmp_path: Path) -> None:
    """`watch` and `ingest` have them, and a unit repeats them."""
    place.write("a.log")
    place.write("b.log")
    unwanted(place, "debug.log", "old.log", "sub/a.log")
    age(place.root / "old.log", 2 * HOUR)
    run, at = CliRunner().invoke, ["--lake", str(tmp_path / "lake")]
    options = ["--exclude", "debug.*", "--exclude", "logs/sub", "--ignore-older", "1h"]
    assert run(cli, [*at, "watch", str(place.root), "--once", *options]).exit_code == 0
    unit = run(cli, [*at, "watch", str(place.root), *options, "--from-end", "--print-unit"]).output
    assert "--exclude 'debug.*' --exclude logs/sub --ignore-older 3600s --from-end" in unit
    other = ["--lake", str(tmp_path / "other")]
    assert run(cli, [*other, "ingest", str(place.root), *options]).exit_code == 0
    for path in ("lake", "other"):
        with lakelog.open(tmp_path / path) as lake:
            assert stored(lake) == Counter(place.written)
