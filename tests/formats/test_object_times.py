"""Times of JSON lines in the spellings that text may have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lakelog


def times_in(lake: lakelog.Lake, path: Path) -> list[str]:
    """The times of the events of a file, in its order."""
    report = lake.ingest(str(path))
    assert (report.quarantined, report.arrivals) == (0, 0)
    query = "SELECT strftime(time, '%Y-%m-%d %H:%M:%S.%g') FROM events ORDER BY position"
    return [moment for (moment,) in lake.sql(query).fetchall()]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("24.11.2026 10:00:00", "2026-11-24 10:00:00.000"),
        ("11/24/2026, 3:05:00 PM", "2026-11-24 15:05:00.000"),
        ("Nov 24, 2026 10:00:00 AM", "2026-11-24 10:00:00.000"),
        ("[24/Nov/2026:10:00:00 +0100]", "2026-11-24 09:00:00.000"),
        (
            "Tue Nov 24 2026 10:00:00 GMT+0100 (Central European Standard Time)",
            "2026-11-24 09:00:00.000",
        ),
        ("2026-11-24 10:00:00.123456789 +0000 UTC m=+0.0001", "2026-11-24 10:00:00.123"),
        ({"$date": "2026-11-24T10:00:00Z"}, "2026-11-24 10:00:00.000"),
        ({"$date": {"$numberLong": "1790000000123"}}, "2026-09-21 14:13:20.123"),
        ([2026, 11, 24, 10, 0, 0, 123000000], "2026-11-24 10:00:00.123"),
        ([2026, 11, 24, 10, 0], "2026-11-24 10:00:00.000"),
    ],
)
@pytest.mark.parametrize("members", [{"message": "m"}, {"level": "info", "msg": "m"}])
def test_a_time_is_read_as_in_text(
    lake: lakelog.Lake, tmp_path: Path, moment: object, expected: str, members: dict[str, str]
) -> None:
    """By plain JSON lines as by a dialect."""
    line = json.dumps({**members, "time": moment})
    (tmp_path / "a.jsonl").write_text(f"{line}\n")
    assert times_in(lake, tmp_path / "a.jsonl") == [expected]


@pytest.mark.parametrize(
    "moment", ["10:00:00", "never", [2026, 11], [2026, 13, 1, 0, 0], {"$date": "x"}, {"at": 1}]
)
def test_what_is_no_time_is_told(lake: lakelog.Lake, tmp_path: Path, moment: object) -> None:
    """Such a line is kept aside with the reason."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"time": moment, "message": "m"}) + "\n")
    assert lake.ingest(str(tmp_path / "a.jsonl")).quarantined == 1


@pytest.mark.parametrize("name", ["a.log", "a.jsonl", "a.json"])
def test_a_file_settles_the_order_of_day_and_month(
    lake: lakelog.Lake, tmp_path: Path, name: str
) -> None:
    """Also of the dates before the one that settles it, wherever in a line they stand."""
    pairs = [(3, 4), (4, 5), (4, 13), (5, 6)]
    lines = [
        {"level": "info", "message": "x" * 200, "timestamp": f"{m:02}-{d:02}-2026 10:00:00"}
        for m, d in pairs
    ]
    (tmp_path / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = times_in(lake, tmp_path / name)
    assert found == [f"2026-{m:02}-{d:02} 10:00:00.000" for m, d in pairs]


def test_files_that_are_read_together_have_orders_of_their_own(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    """Many small files are one chunk; the dates of one say nothing about those of another."""
    for number, text in enumerate(("04-13-2026", "13-04-2026")):
        lines = [{"message": "m", "time": f"{day} 10:00:00"} for day in ("04-05-2026", text)]
        content = "".join(f"{json.dumps(line)}\n" for line in lines)
        (tmp_path / f"{number}.jsonl").write_text(content)
    lake.ingest(str(tmp_path / "*.jsonl"))
    query = "SELECT strftime(time, '%m-%d') FROM events ORDER BY origin, position"
    assert [day for (day,) in lake.sql(query).fetchall()] == ["04-05", "04-13", "05-04", "04-13"]
