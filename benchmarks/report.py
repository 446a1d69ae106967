"""Rows of the acceptance table: what was measured, against what, and whether it holds."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

WIDTHS = (31, 12, 12, 6, 9, 5)
HEADS = ("what", "lakelog", "peer", "ratio", "target", "holds")
_SIGNS = {">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, "==": lambda a, b: a == b}


@dataclass(frozen=True)
class Target:
    """A limit on one number of a row: its `ratio`, its `figure`, or its `excess` over the peer."""

    sign: str
    limit: float
    of: str = "ratio"


@dataclass(frozen=True)
class Row:
    """One line: figures of every round of lakelog and of its peer, measured in turn."""

    what: str
    unit: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    target: Target | None = None
    note: str = ""

    @property
    def figure(self) -> float:
        """The median round of lakelog."""
        return statistics.median(self.ours)

    @property
    def ratio(self) -> float | None:
        """The median of lakelog over its peer, round by round."""
        if not self.peer or not all(self.peer):
            return None
        if len(self.peer) != len(self.ours):
            return self.figure / statistics.median(self.peer)
        return statistics.median(a / b for a, b in zip(self.ours, self.peer, strict=True))

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None without a target or without figures."""
        if self.target is None or not self.ours:
            return None
        excess = self.figure - statistics.median(self.peer) if self.peer else None
        values = {"ratio": self.ratio, "figure": self.figure, "excess": excess}
        value = values[self.target.of]
        return value is not None and _SIGNS[self.target.sign](value, self.target.limit)


def cells(row: Row) -> list[str]:
    """Return the texts of a row's columns."""
    if not row.ours:
        return [row.what, row.note or "not run", "", "", _limit(row), ""]
    ratio = f"{row.ratio:.2f}x" if row.ratio is not None else ""
    peer = number(statistics.median(row.peer), row.unit) if row.peer else ""
    answer = {True: "yes", False: "NO", None: ""}[row.holds]
    return [row.what, number(row.figure, row.unit), peer, ratio, _limit(row), answer]


def number(value: float, unit: str) -> str:
    """Return a figure with its unit, in about three digits."""
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def plain(rows: list[Row]) -> str:
    """Return the table as text of 80 columns."""
    lines = [_line(list(HEADS)), " ".join("-" * w for w in WIDTHS)]
    return "\n".join([*lines, *(_line(cells(row)) for row in rows)])


def paint(rows: list[Row]) -> None:
    """Print the table, in colour on a terminal."""
    if not sys.stdout.isatty():
        print(plain(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False)
    for index, (head, width) in enumerate(zip(HEADS, WIDTHS, strict=True)):
        justify = "left" if index in (0, 5) else "right"
        table.add_column(head, width=width, justify=justify, no_wrap=index > 0)
    for row in rows:
        table.add_row(*cells(row), style="bold red" if row.holds is False else None)
    Console(width=sum(WIDTHS) + len(WIDTHS)).print(table)


def save(rows: list[Row], path: Path) -> None:
    """Write the machine and every round of every row as JSON."""
    body = [
        {
            "what": r.what,
            "unit": r.unit,
            "lakelog": r.ours,
            "peer": r.peer,
            "ratio": r.ratio,
            "target": vars(r.target) if r.target else None,
            "holds": r.holds,
            "note": r.note,
        }
        for r in rows
    ]
    path.write_text(json.dumps({"machine": machine(), "rows": body}, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packages = ("duckdb", "pyarrow", "numpy", "orjson", "zstandard")
    return {
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load": [round(x, 2) for x in os.getloadavg()],
        **{name: version(name) for name in packages},
    }


def _commit() -> str:
    """Return the commit that was measured; with a + if lakelog was changed since."""
    here = Path(__file__).parent.parent
    try:
        name = subprocess.check_output(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, text=True, stderr=subprocess.DEVNULL
        )
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "lakelog"], cwd=here)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + ("+" if changed.returncode else "")


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [x.split(":", 1)[1].strip() for x in text.splitlines() if x.startswith("model name")]
    return names[0] if names else platform.processor()


def _limit(row: Row) -> str:
    if row.target is None:
        return ""
    unit = "x" if row.target.of == "ratio" else row.unit
    plus = "+" if row.target.of == "excess" else ""
    sign = "" if row.target.sign == "==" else f"{row.target.sign} "
    return f"{sign}{plus}{row.target.limit:,g}{'' if unit == 'x' else ' '}{unit}"


def _line(texts: list[str]) -> str:
    parts = []
    for index, (text, width) in enumerate(zip(texts, WIDTHS, strict=True)):
        parts.append(text.ljust(width) if index in (0, 5) else text.rjust(width))
    return " ".join(parts).rstrip()
