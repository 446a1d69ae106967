"""Opening a large lake in a fresh process: count it, and query an hour of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from benchmarks import gen, lakes
from benchmarks.history import FEW
from benchmarks.measure import Child, Scale, child, directory, interleave
from benchmarks.report import Row, Target
from lakelog.paths import Paths

COUNT = """
import lakelog
lake = lakelog.open(sys.argv[1], create=False)
result = lake.sql("SELECT count(*) FROM events").fetchall()[0][0]
"""
METHOD = """
import lakelog
result = lakelog.open(sys.argv[1], create=False).count()
"""
QUERY = """
import lakelog
lake = lakelog.open(sys.argv[1], create=False)
result = lake.sql(sys.argv[2]).fetchall()
"""
BARE = "result = 0"


def count(scale: Scale) -> list[Row]:
    """Count a lake of many segments, against one of ten, in a new interpreter each."""
    many, few = lakes.segmented(scale.many), lakes.segmented(FEW, per_move=1)
    ours, peer, method, bare = interleave(
        scale.rounds,
        lambda: child(COUNT, str(many)),
        lambda: child(COUNT, str(few)),
        lambda: child(METHOD, str(many)),
        lambda: child(BARE),
    )
    expected = scale.many * lakes.ROWS
    assert all(c.result == expected for c in (*ours, *method)), [c.result for c in ours]
    inside, whole = [c.inside for c in ours], [c.whole for c in ours]
    return [
        Row(
            "open + count(*): in process",
            "s",
            inside,
            [c.inside for c in peer],
            Target("<=", 0.3, "figure"),
        ),
        Row("open + count(*): whole process", "s", whole, [c.whole for c in peer]),
        Row(
            "open + count(*): peak memory",
            "MB",
            [c.peak for c in ours],
            [c.peak for c in peer],
            Target("<=", 300, "figure"),
        ),
        Row("open + lake.count(): in process", "s", [c.inside for c in method]),
        Row("python -c pass", "s", [c.whole for c in bare]),
    ]


def hour(scale: Scale) -> list[Row]:
    """Group one hour of a lake of many segments, with its segments verified before or not."""
    minutes = min(60, scale.many // 2)
    query, expected = hour_query(scale.many, minutes)
    with directory() as root:
        lake = lakes.copy(lakes.segmented(scale.many), root / "lake")
        marks = Path(Paths(str(lake)).verified)
        held = marks.read_bytes()

        def cold() -> Child:
            marks.unlink(missing_ok=True)
            try:
                return child(QUERY, str(lake), query)
            finally:
                marks.write_bytes(held)

        ours, unverified = interleave(scale.rounds, lambda: child(QUERY, str(lake), query), cold)
    for run in (*ours, *unverified):
        assert sum(n for _, n in run.result) == expected, run.result
    return [
        Row(
            "one hour of it: in process",
            "s",
            [c.inside for c in ours],
            target=Target("<=", 0.6, "figure"),
        ),
        Row("one hour of it: whole process", "s", [c.whole for c in ours]),
        Row(
            "one hour of it: peak memory",
            "MB",
            [c.peak for c in ours],
            target=Target("<=", 300, "figure"),
        ),
        Row("one hour, not yet verified", "s", [c.inside for c in unverified]),
    ]


def hour_query(segments: int, minutes: int) -> tuple[str, int]:
    """Return a query of `minutes` in the middle of a lake, and how many events match."""
    start = gen.START + timedelta(minutes=segments // 2)
    end = start + timedelta(minutes=minutes)
    where = f"time >= TIMESTAMPTZ '{start.isoformat()}' AND time < TIMESTAMPTZ '{end.isoformat()}'"
    query = f"SELECT type, count(*) FROM events WHERE {where} GROUP BY type"
    return query, minutes * lakes.ROWS
