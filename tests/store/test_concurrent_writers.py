"""Many processes on one directory: nobody waits, nothing is lost, the count never goes back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.disk import FileSystem
from lakelog.store import LakeConfig, Store, new_directory

WRITER = """
import sys, lakelog
lake = lakelog.open(sys.argv[1], create=False)
for i in range(0, 2000, 10):
    lake.append([{"type": "p", "source": sys.argv[2], "data": {"n": i + j}} for j in range(10)])
lake.close()
"""
_COUNTER = """
import sys, lakelog
with lakelog.open(sys.argv[1], create=False) as lake:
    for _ in sys.stdin:
        print(lake.sql("SELECT count(*) FROM events").fetchall()[0][0], flush=True)
"""


def test_concurrent_appends_of_ten_processes_while_one_counts(tmp_path: Path) -> None:
    """10 processes x 200 appends of 10 events: 20,000, each once; a reader never counts back."""
    path = str(tmp_path / "lake")
    lakelog.open(path, settings={"rotate_events": 500}).close()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(n)]) for n in range(10)]
    counts = [0]
    with lakelog.open(path) as lake:
        while any(w.poll() is None for w in writers):
            counts.append(lake.sql("SELECT count(*) FROM events").fetchall()[0][0])
        assert [w.returncode for w in writers] == [0] * 10
        assert counts == sorted(counts)
        query = "SELECT count(*), count(DISTINCT (source, data->>'n')) FROM events"
        assert lake.sql(query).fetchall() == [(20_000, 20_000)]
        assert lake.verify().intact


def test_an_append_is_visible_to_an_open_process_at_once(tmp_path: Path) -> None:
    """Every event that was acknowledged is in the next query of a process that was open before."""
    path = str(tmp_path / "lake")
    lakelog.open(path).close()
    command = [sys.executable, "-c", _COUNTER, path]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with lakelog.open(path) as writer, subprocess.Popen(command, **pipes) as reader:
        for count in range(1, 101):
            writer.append({"type": "x", "data": count})
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == f"{count}\n"
            if count % 20 == 0:
                writer.settle()
        reader.stdin.close()


def test_a_forked_child_is_a_writer_of_its_own(tmp_path: Path) -> None:
    """Parent and forked children append on; each event is there once, origins differ."""
    path = str(tmp_path / "lake")
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        lake.append({"type": "parent"})
        children = []
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                for n in range(20):
                    lake.append({"type": "child", "data": n})
                os._exit(0)
            children.append(pid)
            lake.append({"type": "parent"})
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 5
        rows = lake.sql("SELECT type, count(*), count(DISTINCT origin) FROM events GROUP BY 1")
        assert sorted(rows.fetchall()) == [("child", 100, 5), ("parent", 6, 1)]


@pytest.mark.parametrize("moment", ["probe", "refuse_orphan", "start_branch", "create"])
def test_two_processes_that_make_one_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whenever another process makes the lake while this one does, and appends, both go on."""
    place = {"probe": FileSystem, "start_branch": Store, "create": LakeConfig}.get(
        moment, new_directory
    )
    path, real, once = str(tmp_path / "lake"), getattr(place, moment), [True]

    def after_another(*given: Any) -> Any:
        if once and once.pop():
            with lakelog.open(path) as other:
                other.append({"type": "other"})
        return real(*given)

    monkeypatch.setattr(place, moment, after_another)
    with lakelog.open(path) as lake:
        assert not once
        lake.append({"type": "ours"})
        assert lake.count() == 2
        assert lake.verify().problems == ()
