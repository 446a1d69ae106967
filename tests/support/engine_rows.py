"""The rows of a state as other engines read them: `python engine_rows.py ENGINE LAKE OUT`.

For each branch and ref that it reads, as a line of JSON, it writes OUT/all and OUT/filtered, which
are Arrow files, and then a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

import lakelog
from lakelog.dataframes.event_scan import schema
from tests.support.tree import ROOT

WHERE = "type = 'T1' AND seq > 200"
"""What `filtered` rows are, of which there are the columns seq and subject."""
Tables = tuple[pa.Table, pa.Table]
WRITTEN = "written\n"
"""The line of a process that has done what it was asked for."""


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
    none = schema().empty_table()  # Ray has no table where there are no rows
    rows = pa.concat_tables([none, *ray.get(dataset.to_arrow_refs())])
    few = [none.select(["seq", "subject"]), *ray.get(filtered.to_arrow_refs())]
    assert dataset.count() == rows.num_rows
    assert filtered.count() == sum(table.num_rows for table in few)
    return rows, pa.concat_tables(few)


def by_spark(state: Any) -> Tables:
    """All rows and the filtered ones, by Spark."""
    from pyspark.sql import SparkSession

    frame = state.to_spark(SparkSession.getActiveSession())
    return frame.toArrow(), frame.where(WHERE).select("seq", "subject").toArrow()


READERS: dict[str, Callable[[Any], Tables]] = {
    "polars": by_polars,
    "dask": by_dask,
    "daft": by_daft,
    "daft on ray": by_daft,
    "ray": by_ray,
    "spark": by_spark,
}


@contextlib.contextmanager
def engine_process(*command: str) -> Iterator[Callable[..., None]]:
    """Run an engine in a process of its own, as some start others; yield what sends it a line of
    JSON and waits until it has written what that asks for."""
    # Spark starts the first python3 of PATH unless it is told another one.
    own = {"PYTHONPATH": str(ROOT), "TZ": "America/New_York", "PYSPARK_PYTHON": sys.executable}
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **own},
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout

        def ask(*request: str) -> None:
            print(json.dumps(request), file=process.stdin, flush=True)
            while (line := process.stdout.readline()) != WRITTEN:  # engines print, too
                assert line, f"{command} has ended"

        try:
            yield ask
        finally:
            process.stdin.close()


@contextlib.contextmanager
def reader(engine: str, path: str, out: Path) -> Iterator[Callable[..., Tables]]:
    """Run an engine; yield what has it read a ref of a branch: "" is the branch with its tail."""

    def read(ref: str, branch: str = "main") -> Tables:
        ask(branch, ref)
        return _read(out / "all"), _read(out / "filtered")

    with engine_process(__file__, engine, path, str(out)) as ask:
        yield read


def _read(path: Path) -> pa.Table:
    with pa.ipc.open_file(path) as file:
        return file.read_all()


def main(engine: str, path: str, out: str) -> None:
    """Start an engine, write what it reads, and stop it."""
    stop = _STARTS.get(engine, lambda: lambda: None)()
    try:
        for line in sys.stdin:
            branch, ref = json.loads(line)
            with lakelog.open(path, branch=branch) as lake:
                tables = READERS[engine](lake.at(ref) if ref else lake)
            for name, table in zip(("all", "filtered"), tables, strict=True):
                with pa.ipc.new_file(f"{out}/{name}", table.schema) as file:
                    file.write_table(table)
            print(WRITTEN, end="", flush=True)
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


def spark_session(**more: str) -> Any:
    """Start Spark for few rows: most of its time is a compiler's, of code that runs once."""
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.pyspark.python": sys.executable,
    }
    spark = SparkSession.builder.master("local[2]").config(map=settings | more).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _start_spark() -> Callable[[], object]:
    return spark_session().stop


def _start_daft_on_ray() -> Callable[[], object]:
    stop = start_ray()
    import daft

    daft.set_runner_ray()
    return stop


_STARTS = {"ray": start_ray, "spark": _start_spark, "daft on ray": _start_daft_on_ray}


if __name__ == "__main__":
    main(*sys.argv[1:])
