"""Dedupe: choosing the duplicates among many events, and taking them off, in bounded memory."""

from __future__ import annotations

import shutil

from benchmarks import gen
from benchmarks.measure import Scale, child, directory
from benchmarks.report import Row, Target

_RUN = """
import lakelog
from lakelog.analyze import dedupe
lake = lakelog.open(sys.argv[1])
import time
start = time.perf_counter()
plan = dedupe.plan(lake, sys.argv[2])
planned = time.perf_counter() - start
dedupe.apply(lake, plan)
result = [planned, time.perf_counter() - start - planned, len(plan), lake.count()]
"""
_INGEST = "import lakelog; result = lakelog.open(sys.argv[1]).ingest(sys.argv[2]).events"
MEMORY = 2_000
"""Megabytes that a process may take, whatever the lake's size."""


def rows(scale: Scale) -> list[Row]:
    """Take one in a hundred events off as a copy, and all but one of each subject."""
    found = []
    with directory() as root:
        path = root / "events.jsonl"
        gen.write(scale.bulk, path)
        with path.open("rb") as file:
            copies = [line for number, line in enumerate(file) if number % 100 == 0]
        with path.open("ab") as file:
            file.writelines(copies)
        child(_INGEST, str(root / "lake"), str(path))
        path.unlink()
        for name, by in (("1 % copies, by content", "content"), ("by subject", "subject")):
            shutil.copytree(root / "lake", root / by)
            done = child(_RUN, str(root / by), by)
            planned, applied, removed, left = done.result
            if by == "content" and (removed, left) != (len(copies), scale.bulk):
                raise AssertionError(f"{removed} removed, {left} left")
            found += [
                Row(f"{name}: to plan", "s", [planned]),
                Row(f"{name}: to apply", "s", [applied]),
                Row(f"{name}: peak", "MB", [done.peak], target=Target("<=", MEMORY, "figure")),
            ]
    return found
