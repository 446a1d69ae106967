"""Watching more files than a process may open."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import lakelog
from lakelog.collect.watch import Watcher
from lakelog.files.file_cursor import FileCursor

FILES, DESCRIPTORS = 300, 64


def _write(path: Path, number: int) -> str:
    subject = f"{path.name} {number}"
    with open(path, "a") as file:
        file.write(f'{{"type":"T","subject":"{subject}"}}\n')
    return subject


def _stored(lake: lakelog.Lake) -> Counter[str]:
    rows = lake.sql("SELECT subject FROM events WHERE type = 'T'").fetchall()
    return Counter(subject for (subject,) in rows)


def _wait_for(lake: lakelog.Lake, wanted: Counter[str], watcher: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 240
    while _stored(lake) != wanted and time.monotonic() < until:
        assert watcher.poll() is None, "the watcher ended"
        time.sleep(0.2)
    assert _stored(lake) == wanted


def test_more_files_than_descriptors_are_all_followed(lake: lakelog.Lake, tmp_path: Path) -> None:
    """300 files with 64 descriptors: what is there, grows, is renamed or new is read once."""
    (tmp_path / "logs").mkdir()
    paths = [tmp_path / "logs" / f"a{n}.log" for n in range(FILES)]
    wanted = Counter(_write(path, 0) for path in paths)
    words = [sys.executable, "-m", "lakelog", "--lake", lake.path, "watch", f"{tmp_path}/logs"]
    limited = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *words]
    with (tmp_path / "out").open("wb") as out:
        watcher = subprocess.Popen(limited, stdout=out, stderr=out)
    try:
        _wait_for(lake, wanted, watcher)
        wanted += Counter(_write(path, 1) for path in paths)
        _wait_for(lake, wanted, watcher)
        for path in paths[::3]:
            path.rename(path.with_suffix(".log.1"))
        wanted += Counter(_write(path, 2) for path in paths)
        _wait_for(lake, wanted, watcher)
        watcher.terminate()
        assert watcher.wait(240) == 0, (tmp_path / "out").read_text()
    finally:
        watcher.kill()
        watcher.wait()
    said = (tmp_path / "out").read_text()
    assert "Too many open files" not in said
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(0,)]


def test_removed_files_are_finished_with_the_cursors_that_are_known(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finishing many removed files does not read the cursors of all of them for each."""
    folder = tmp_path / "logs"
    folder.mkdir()
    wanted = Counter(_write(folder / f"{n}.log", 0) for n in range(30))
    watcher = Watcher(lake, [str(folder)])
    watcher.round()
    watcher.round()
    for path in list(folder.iterdir()):
        wanted[_write(path, 1)] += 1
        path.unlink()
    real, reads = FileCursor.of_state, list[object]()
    monkeypatch.setattr(FileCursor, "of_state", lambda *args: (reads.append(args), real(*args))[1])
    for _ in range(3):
        watcher.round()
    watcher.close()
    assert _stored(lake) == wanted
    assert len(reads) <= 2
