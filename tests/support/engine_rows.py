"""The rows of a state as other engines read them: `python engine_rows.py ENGINE LAKE OUT REF...`.

For each ref it writes OUT/all-REF and OUT/filtered-REF, as Arrow files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa

import lakelog

WHERE = "type = 'T1' AND seq > 200"
"""What `filtered` rows are, of which there are the columns seq and subject."""
Tables = tuple[pa.Table, pa.Table]


def by_polars(state: Any) -> Tables:
    """All rows and the filtered ones, by Polars."""
    import polars

    frame = state.to_polars()
    condition = (polars.col("type") == "T1") & (polars.col("seq") > 200)
    filtered = frame.filter(condition).select("seq", "subject")
    return frame.collect().to_arrow(), filtered.collect().to_arrow()


def by_dask(state: Any) -> Tables:
    """All rows and the filtered ones, by Dask."""
    frame = state.to_dask()
    filtered = frame[(frame["type"] == "T1") & (frame["seq"] > 200)][["seq", "subject"]]
    return _of_pandas(frame.compute()), _of_pandas(filtered.compute())


def _of_pandas(frame: Any) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def by_daft(state: Any) -> Tables:
    """All rows and the filtered ones, by Daft."""
    import daft

    frame = state.to_daft()
    condition = (daft.col("type") == "T1") & (daft.col("seq") > 200)
    return frame.to_arrow(), frame.where(condition).select("seq", "subject").to_arrow()


def by_ray(state: Any) -> Tables:
    """All rows and the filtered ones, by Ray; it counts what no column is read of, too."""
    import ray
    from ray.data.expressions import col

    dataset = state.to_ray()
    condition = (col("type") == "T1") & (col("seq") > 200)
    filtered = dataset.filter(expr=condition).select_columns(["seq", "subject"])
    tables = [pa.concat_tables(ray.get(d.to_arrow_refs())) for d in (dataset, filtered)]
    assert [dataset.count(), filtered.count()] == [table.num_rows for table in tables]
    return tables[0], tables[1]


def by_spark(state: Any) -> Tables:
    """All rows and the filtered ones, by Spark."""
    from pyspark.sql import SparkSession

    frame = state.to_spark(SparkSession.getActiveSession())
    return frame.toArrow(), frame.where(WHERE).select("seq", "subject").toArrow()


READERS: dict[str, Callable[[Any], Tables]] = {
    "polars": by_polars,
    "dask": by_dask,
    "daft": by_daft,
    "ray": by_ray,
    "spark": by_spark,
}


def main(engine: str, path: str, out: str, *refs: str) -> None:
    """Start an engine, write what it reads, and stop it."""
    stop = start_ray() if engine == "ray" else _start_spark()
    try:
        with lakelog.open(path) as lake:
            for ref in refs:
                tables = READERS[engine](lake.at(ref) if ref else lake)
                for name, table in zip(("all", "filtered"), tables, strict=True):
                    with pa.ipc.new_file(f"{out}/{name}-{ref}", table.schema) as file:
                        file.write_table(table)
    finally:
        stop()


def start_ray() -> Callable[[], object]:
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
    )
    return ray.shutdown


def _start_spark() -> Callable[[], object]:
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.pyspark.python": sys.executable,
    }
    spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark.stop


if __name__ == "__main__":
    main(*sys.argv[1:])
