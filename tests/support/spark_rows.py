"""The rows of Parquet files as Spark reads them: `python spark_rows.py OUT`.

Times are datetimes without a zone, in UTC, made here: those of Spark are of the zone of the
machine, and none is in the year 1.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support import engine_rows

EPOCH = dt.datetime(1970, 1, 1)


Rows = list[dict[str, Any]]


@contextlib.contextmanager
def reading(out: Path) -> Iterator[Callable[[str], Rows]]:
    """Run Spark; yield what has it read a file, once each."""

    def read(file: str) -> Rows:
        ask(file)
        rows: Rows = pickle.loads(out.read_bytes())
        return rows

    with engine_rows.engine_process(__file__, str(out)) as ask:
        yield functools.cache(read)


def main(out: str) -> None:
    """Write the rows of each file that a line names, as a list of dicts."""
    spark = engine_rows.spark_session(**{"spark.sql.session.timeZone": "UTC"})
    for line in sys.stdin:
        Path(out).write_bytes(pickle.dumps(rows_of(spark, *json.loads(line))))
        print(engine_rows.WRITTEN, end="", flush=True)
    spark.stop()


def rows_of(spark: Any, file: str) -> Rows:
    """Return the rows of a file."""
    from pyspark.sql import functions

    table = spark.read.parquet(file)
    times = [name for name, kind in table.dtypes if kind == "timestamp"]
    numbers = {name: functions.unix_micros(table[name]) for name in times}
    rows = [row.asDict(recursive=True) for row in table.withColumns(numbers).collect()]
    for row in rows:
        row |= {n: EPOCH + dt.timedelta(microseconds=row[n]) for n in times if row[n] is not None}
    return rows


if __name__ == "__main__":
    main(sys.argv[1])
