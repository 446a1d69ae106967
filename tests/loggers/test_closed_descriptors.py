"""Programs that close all descriptors, as those do that become daemons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lakelog

PROGRAM = """
import logging, os, sys
import lakelog

log = logging.getLogger("daemon")
log.setLevel(logging.INFO)
handler = lakelog.LakeHandler("lake")
log.addHandler(handler)
log.info("before")
handler.flush()
lake = lakelog.open("lake")
lake.append({"type": "before"})
if sys.argv[1] == "closed":
    os.closerange(3, 256)
else:  # but for those that Python's mmap has, which closes them whatever they are by now
    paths = [f"/proc/self/fd/{n}" for n in range(3, 256)]
    links = {path: os.readlink(path) for path in paths if os.path.lexists(path)}
    wanted = "/lake/wal/", "/lake/cache/buffer/"
    taken = [int(path[14:]) for path, link in links.items() if any(w in link for w in wanted)]
    assert len(taken) == 3, links
    for number in taken:
        os.close(number)
    files = [open(f"own-{n}", "w") for n in range(3)]
    assert {file.fileno() for file in files} == set(taken)
for n in range(10):
    log.info("after %d", n)
handler.flush()
lake.append({"type": "after"})
lake.close()
if sys.argv[1] == "reused":
    for file in files:
        file.write("mine")
        file.close()
assert (handler.stats().waiting, handler.stats().stored) == (0, 11), handler.stats()
"""


@pytest.mark.parametrize("numbers", ["closed", "reused"])
def test_a_program_that_closes_all_descriptors(numbers: str, tmp_path: Path) -> None:
    """Its own files, which get their numbers, are left alone, and its events are stored."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, numbers], cwd=tmp_path, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert {file.read_text() for file in tmp_path.glob("own-*")} <= {"mine"}
    with lakelog.open(tmp_path / "lake") as lake:
        rows = lake.sql("SELECT coalesce(message, type) FROM events").fetchall()
    expected = ["before", "before", "after", *(f"after {n}" for n in range(10))]
    assert sorted(text for (text,) in rows) == sorted(expected)
