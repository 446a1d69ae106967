"""Readers of Parquet that know nothing of lakelog read every segment, with the same values."""

from __future__ import annotations

import datetime as dt
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow.parquet as pq
import pytest

import lakelog
from tests.support import lakes, real_files, spark_rows
from tests.support.requirements import need
from tests.support.scratch import memory

_EACH = 4
Rows = list[dict[str, Any]]
Reader = Callable[[list[str]], list[Rows]]
PAYLOADS: list[dict[str, Any]] = [
    {
        "url": f"https://example.com/items/{1000 + n}/page-{n % 7:03d}",
        "words": ["timeout", "user", "memory"][n % 3] + " " + ["latency", "cache"][n % 2],
        "n": n * 10**12 - 5,
        "ratio": n / 7,
        "tiny": 5e-324 * (n + 1),
        "ok": n % 2 == 0,
        "deep": {"a": {"b": [{"c": n, "d": [[n], []]}, {"c": None, "d": None}]}},
        "odd names; {}": {"a.b": n, "ä ß": "x\u0000y", "1": None},
        **({"rare": "\U0001f600" * (n % 3)} if n % 5 == 0 else {}),
    }
    for n in range(600)
]


@pytest.fixture(scope="module")
def made() -> Iterator[list[str]]:
    """Segments of every kind: those of other tests, and payloads and real logs as they were sealed,
    loaded, compacted and made small."""
    home = Path(tempfile.mkdtemp(prefix="lakelog-", dir=memory()))
    homes = [str(lakes.at_rest(build)) for build in dict.fromkeys(lakes.ALL.values())]
    log = real_files.DATA / "web" / "apache_combined_access.log"
    for state in ("sealed", "compacted", "smallest"):
        homes.append(str(home / state))
        with lakelog.open(homes[-1]) as lake:
            lake.append([{"type": f"t{n % 3}", "data": each} for n, each in enumerate(PAYLOADS)])
            if log.exists():
                lake.ingest(str(log))
            lake.settle()
            if state != "sealed":
                lake.compact(smallest=state == "smallest")
    yield sorted(str(file) for root in homes for file in Path(root).glob("segments/*/*.parquet"))
    shutil.rmtree(home)


def by_polars(files: list[str]) -> list[Rows]:
    """Read with Polars."""
    return [polars.read_parquet(file).to_dicts() for file in files]


def by_pandas(files: list[str]) -> list[Rows]:
    """Read with pandas; numbers with gaps are doubles there."""
    return [pandas.read_parquet(file).to_dict("records") for file in files]


def by_spark(files: list[str]) -> list[Rows]:
    """Read with Spark, in a process of its own."""
    need("pyspark", "java")
    with tempfile.TemporaryDirectory() as home, spark_rows.reading(Path(home, "rows")) as read:
        return [read(file) for file in files]


def kinds(files: list[str]) -> list[str]:
    """Return the longest segments of each set of columns and encodings: Spark takes a fifth of a
    second for each."""
    found: dict[str, list[tuple[int, str]]] = {}
    for file in files:
        footer = pq.read_metadata(file)
        groups = map(footer.row_group, range(footer.num_row_groups))
        chunks = (group.column(n) for group in groups for n in range(group.num_columns))
        kind = sorted({f"{chunk.path_in_schema} {sorted(chunk.encodings)}" for chunk in chunks})
        found.setdefault("".join(kind), []).append((footer.num_rows, file))
    return [file for each in found.values() for _, file in sorted(each)[-_EACH:]]


def plain(value: Any) -> Any:
    """Return a value as all readers give it: UTC without a zone, lists, None for what is not."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if hasattr(value, "tolist") and not isinstance(value, (str, bytes)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if value is pandas.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, pandas.Timestamp):
        value = value.to_pydatetime()
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC).replace(tzinfo=None)
    return value


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "reader", [by_polars, by_pandas, pytest.param(by_spark, marks=pytest.mark.thorough)]
)
def test_plain_readers_give_the_same_values(reader: Reader, made: list[str]) -> None:
    """Polars, pandas and Spark read every column of every segment as pyarrow does."""
    files = kinds(made) if reader is by_spark else made
    found = reader(files)
    typed = 0
    for file, rows in zip(files, found, strict=True):
        expected = pq.read_table(file).to_pylist()
        typed += bool(expected) and "fields" in expected[0]
        assert [plain(row) for row in rows] == [plain(row) for row in expected], file
    assert typed > 1
