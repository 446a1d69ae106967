"""Run the same work on every peer, one after the other, and print the tables.

    python -m benchmarks.peers [PEER...] [--quick] [--python FILE] [--json FILE] [--plots DIR]

The peers run in an environment of their own, whose Python is named by --python (`make bench` makes
it). A peer that is not installed, or cannot do a piece of work, is said and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import gen
from benchmarks.measure import ROOT, WORK, progress
from benchmarks.peers import NAMES, plots, sql

Figures = dict[str, dict[str, Any]]
"""By piece of work, then by peer."""


class Run:
    """One comparison: what was measured of whom."""

    def __init__(self, python: str, names: list[str], quick: bool, where: Path) -> None:
        self._python, self._names, self._where = python, names, where
        self.bulk = 100_000 if quick else 1_000_000
        self.many, self.span = (200, 5.0) if quick else (2_000, 30.0)
        self.processes, self.burst = (4, 2.0) if quick else (10, 5.0)
        self.figures: Figures = {}
        self._events = where / "events.jsonl"

    def all(self) -> Figures:
        """Do every piece of work on every peer."""
        gen.write(self.bulk, str(self._events))
        for name in self._names:
            self._work("bulk", name, "bulk")
            self._work("first", name, "first", keep="bulk")
            for each in (1, 10, 100):
                self._work(f"commits of {each}", name, "commits", each, self.many, self.span)
            self._work("processes", name, "processes", self.processes, 10, self.burst)
            self._work("recovery", name, "recovery", 100, self.bulk // 1000)
        return self.figures

    def _work(self, title: str, name: str, what: str, *words: object, keep: str = "") -> None:
        root = self._where / name / (keep or title).replace(" ", "-")
        root.mkdir(parents=True, exist_ok=True)
        python = sys.executable if name == "lakelog" else self._python
        progress(f"{name}: {title}")
        command = [python, "-m", "benchmarks.peers.work", name, what, root, self._events, *words]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, cwd=self._where,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self._where)}, timeout=1800,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it failed"])[-1]
            print(f"  {name} cannot do {title}: {last[:160]}", file=sys.stderr)
        else:
            self.figures.setdefault(title, {})[name] = json.loads(done.stdout.splitlines()[-1])


def tables(figures: Figures, count: int) -> str:
    """The figures as Markdown; whoever is first in a column is starred, lakelog in bold where it
    is not."""
    bulk = figures.get("bulk", {})
    first = figures.get("first", {})
    rows = {
        name: {
            "load, ev/s": count / f["load"],
            "bytes/event": f.get("tidy_bytes", f["bytes"]) / count,
            "open + first query, ms": 1000 * first[name]["first"] if name in first else None,
            "roll back, ms": 1000 * f["back"] if "back" in f else None,
            "peak, MB": f["peak"],
        }
        for name, f in bulk.items()
    }
    text = ["### Bulk\n", _table(rows, most={"load, ev/s"})]
    asked = {n: {q: 1000 * f["ask"][q] for q in sql.ALL} for n, f in bulk.items()}
    text += ["\n### Questions over it, ms\n", _table(asked, most=set())]
    commits: dict[str, dict[str, float | None]] = {}
    for each in (1, 10, 100):
        for name, f in figures.get(f"commits of {each}", {}).items():
            row = commits.setdefault(name, {})
            row[f"{each}: ev/s"] = f["rate"]
            row[f"{each}: p99 ms"] = 1000 * f["p99"]
            row[f"{each}: growth"] = f["last"] / f["head"]
    for name, f in figures.get("processes", {}).items():
        row = commits.setdefault(name, {})
        row["processes: ev/s"] = f["rate"]
        row["refused"] = f["refused"]
    for name, f in figures.get("recovery", {}).items():
        commits.setdefault(name, {})["after kill, ms"] = 1000 * f["recovery"]
    most = {"1: ev/s", "10: ev/s", "100: ev/s", "processes: ev/s"}
    text += ["\n### Small durable commits\n", _table(commits, most)]
    return "\n".join(text)


def _table(rows: dict[str, dict[str, float | None]], most: set[str]) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    best = {}
    for column in columns:
        values = [row[column] for row in rows.values() if row.get(column) is not None]
        best[column] = (max if column in most else min)(v for v in values if v is not None)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = []
        for column in columns:
            value = row.get(column)
            cell = "–" if value is None else _short(value)
            if value is not None and value == best[column]:
                cell += " *"
            elif value is not None and name == "lakelog":
                cell = f"**{cell}**"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:.2f} M"
    if value >= 10_000:
        return f"{value / 1000:.0f} k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PEER", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    parser.add_argument("--python", default=sys.executable, help="that of the peers' environment")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write plots there, as SVG")
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="peers-") as where:
        run = Run(given.python, given.names or list(NAMES), given.quick, Path(where))
        figures = run.all()
    print(tables(figures, run.bulk))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))
    if given.plots:
        plots.write(figures, run.bulk, given.plots)
    return 0
