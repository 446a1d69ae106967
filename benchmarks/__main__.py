"""Run the benchmarks and print the acceptance table.

    python -m benchmarks [NAME...] [--quick] [--json FILE]

The other two rows of the acceptance, 300 random `kill -9` and 1,000 flipped bits, are tests.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    append,
    bulk,
    bytes,
    claims,
    dedupe,
    export,
    files,
    history,
    ingest,
    loggers,
    older,
    publish,
    redaction,
    redis_tier,
    report,
    seal,
    start,
    state,
    streams,
    sync,
    train,
    transfer,
    views,
    watch,
    years,
)
from benchmarks import open as opening
from benchmarks.measure import FULL, QUICK, Scale, progress
from benchmarks.report import Row

BENCHMARKS: dict[str, Callable[[Scale], list[Row]]] = {
    "append": append.batched,
    "single": append.single,
    "streams": streams.expected,
    "recorders": streams.recorders,
    "processes": append.processes,
    "history": history.rewinds,
    "together": history.together,
    "publish": publish.commits,
    "gc": years.marking,
    "entries": years.entries,
    "still": years.idle,
    "month": years.watched,
    "open": opening.count,
    "hour": opening.hour,
    "seal": seal.identities,
    "sql": start.command,
    "start": start.first_append,
    "bulk": bulk.life,
    "bytes": bytes.columns,
    "logs": bytes.logs,
    "ingest": ingest.rate,
    "ids": ingest.identities,
    "memory": ingest.memory,
    "needle": ingest.needles,
    "watch": watch.rates,
    "idle": watch.idle,
    "files": files.many,
    "dedupe": dedupe.rows,
    "handlers": loggers.handlers,
    "logger": loggers.logger,
    "killed": loggers.killed,
    "claims": claims.claims,
    "claim": older.claim,
    "lookups": older.lookups,
    "sqlite": older.memory,
    "views": views.speed,
    "scaling": views.scaling,
    "beside": views.beside,
    "state": state.against_restic,
    "sync": sync.rates,
    "redis": redis_tier.rates,
    "push": transfer.push,
    "export": export.text,
    "train": train.events,
    "redaction": redaction.corpus,
    "near": train.near,
    "leaks": train.leaks,
    "rebuild": train.rebuilds,
    "lookahead": train.lookahead,
}


def run(names: list[str], scale: Scale) -> tuple[list[Row], bool]:
    """Run benchmarks by name; return their rows, and whether every one ran to its end."""
    rows: list[Row] = []
    whole = True
    for name in names:
        progress(name)
        try:
            rows += BENCHMARKS[name](scale)
        except Exception:
            traceback.print_exc()
            rows.append(Row(name, "", [], note="failed"))
            whole = False
    return rows, whole


def main() -> int:
    """Read the command line, run, print; 1 if a benchmark failed or a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    given = parser.parse_args()
    unknown = set(given.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: choose from {[*BENCHMARKS]}")
    rows, whole = run(given.names or [*BENCHMARKS], QUICK if given.quick else FULL)
    report.paint(rows)
    if given.json:
        report.save(rows, given.json)
    return 0 if whole and all(row.holds is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
