"""Exporting a lake as text: rows per second, against DuckDB writing the same rows by its own COPY.

DuckDB reads the same segments through the same table, so the ratio is what the text costs. Its
files are not the same: times have a space and a zone, and JSON payloads are written as strings.
"""

from __future__ import annotations

import os

import lakelog
from benchmarks import gen
from benchmarks.measure import Scale, directory, interleave, seconds
from benchmarks.report import Row, Target

RATE = 1_500_000


def text(scale: Scale) -> list[Row]:
    """Export all events as CSV and as NDJSON, in turn with the peer."""
    count = scale.bulk
    with directory() as root:
        gen.write(count, root / "events.jsonl")
        with lakelog.open(str(root / "lake")) as lake:
            lake.ingest(str(root / "events.jsonl"))
            lake.settle()
            events = lake.sql("SELECT * FROM events")

            def export(form: str) -> float:
                path = root / f"events.{form}"
                taken = seconds(lambda: lake.export("events", path))
                os.unlink(path)
                return count / taken

            def copy() -> float:
                return count / seconds(lambda: events.write_csv(str(root / "copy.csv")))

            csv, ndjson, peer = interleave(
                scale.rounds, lambda: export("csv"), lambda: export("ndjson"), copy
            )
    target = Target(">=", RATE, "figure")
    return [
        Row("export CSV, vs DuckDB's COPY", "row/s", csv, peer, target),
        Row("export NDJSON, vs COPY to CSV", "row/s", ndjson, peer, target),
    ]
