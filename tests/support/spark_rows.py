"""The rows of Parquet files as Spark reads them: `python spark_rows.py OUT FILE...`.

Times are datetimes without a zone, in UTC, made here: those of Spark are of the zone of the
machine, and none is in the year 1.
"""

from __future__ import annotations

import datetime as dt
import pickle
import sys
from typing import Any

EPOCH = dt.datetime(1970, 1, 1)


def main(out: str, files: list[str]) -> None:
    """Write the rows of each file, as a list of lists of dicts."""
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    rows = [rows_of(spark, file) for file in files]
    with open(out, "wb") as written:
        pickle.dump(rows, written)
    spark.stop()


def rows_of(spark: Any, file: str) -> list[dict[str, Any]]:
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
    main(sys.argv[1], sys.argv[2:])
