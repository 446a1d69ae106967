"""What a program pays for having lakelog in it: importing, opening, the first append; the CLI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import lakes
from benchmarks.measure import Scale, child, directory, interleave, process
from benchmarks.report import Row, Target

FIRST = """
import sys
import lakelog
lake = lakelog.open(sys.argv[1])
result = lake.append({"type": "START", "source": "benchmark", "data": {"n": 1}}).count
"""
IMPORT = "import lakelog"
BARE = "result = 0"


def first_append(scale: Scale) -> list[Row]:
    """Import, open and append once, each in a new interpreter, against an interpreter alone."""
    with directory() as root:
        path = str(root / "lake")
        lakes.new(root / "lake")
        child(FIRST, path)
        ours, bare, imported, first, nothing = interleave(
            scale.starts,
            lambda: child(FIRST, path),
            lambda: child(BARE),
            lambda: _whole(IMPORT),
            lambda: _whole(FIRST, path),
            lambda: _whole("pass"),
        )
    return [
        Row("import, open, first append", "ms", first, nothing, Target("<=", 80, "excess")),
        Row(
            "the same, peak memory",
            "MB",
            [c.peak for c in ours],
            [c.peak for c in bare],
            Target("<=", 20, "excess"),
        ),
        Row("import alone", "ms", imported, nothing),
    ]


def _whole(code: str, *arguments: str) -> float:
    """Return the milliseconds of an interpreter that runs nothing but the code."""
    return process([sys.executable, "-c", code, *arguments])[0] * 1000


def command(scale: Scale) -> list[Row]:
    """Time `lakelog sql` as a process on a settled lake."""
    what = f"lakelog sql count(*), {scale.bulk:,}"
    target = Target("<=", 0.6, "figure")
    lake = lakes.filled(scale.bulk)
    script = Path(sys.executable).with_name("lakelog")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "lakelog"]
    query = [*start, "--lake", str(lake), "sql", "select count(*) from events"]
    try:
        _, text = process(query)
    except (subprocess.CalledProcessError, OSError):
        text = ""
    if str(scale.bulk) not in text.replace(",", ""):
        return [Row(what, "s", [], target=target, note="no CLI yet")]
    taken, bare = interleave(
        scale.rounds, lambda: process(query)[0], lambda: process([sys.executable, "-c", "pass"])[0]
    )
    return [Row(what, "s", taken, bare, target)]
