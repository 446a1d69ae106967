"""A state as a Spark DataFrame: Spark reads the segments, and skips what a query leaves out."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from lakelog import typed_columns
from lakelog.dataframes import event_scan
from lakelog.dataframes.event_scan import EventScan, SegmentFile
from lakelog.libraries import pa

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_NAME, _FIRST, _ROW = "lakelog_file", "lakelog_first", "lakelog_row"


def to_spark(scan: EventScan, spark: SparkSession) -> DataFrame:
    """Return the events as a DataFrame of a session. Raises QueryFailed without PySpark,
    ExportRefused for an encrypted lake."""
    event_scan.require("pyspark", ".to_spark()", "pip install 'lakelog[spark]'")
    event_scan.require_plain(scan, ".to_spark()", "Spark reads its files")
    groups: dict[tuple[str, bool], list[SegmentFile]] = {}
    for file in scan.files:
        groups.setdefault((file.schema_json, file.first_seq is None), []).append(file)
    frames = [_frame(spark, scan.root, files) for files in groups.values()]
    if scan.tail is not None or not frames:
        rows = event_scan.schema().empty_table() if scan.tail is None else scan.tail
        frames.append(spark.createDataFrame(rows))
    return functools.reduce(lambda rows, added: rows.unionByName(added), frames)


def _frame(spark: SparkSession, root: str, files: list[SegmentFile]) -> DataFrame:
    """Return the rows of segments that are read alike."""
    from pyspark.sql import functions as f

    frame = spark.read.parquet(*(file.path for file in files))
    if files[0].first_seq is not None:
        firsts = [(os.path.basename(file.path), file.first_seq) for file in files]
        table = f.broadcast(spark.createDataFrame(firsts, f"{_NAME} string, {_FIRST} bigint"))
        frame = frame.select(
            "*", f.col("_metadata.file_name").alias(_NAME), f.col("_metadata.row_index").alias(_ROW)
        )
        frame = frame.join(table, _NAME).withColumn("seq", f.col(_FIRST) + f.col(_ROW))
    if files[0].is_typed:
        frame = frame.withColumn("data", _payload(root, files[0].schema_json))
    return frame.select(*event_scan.COLUMNS)


def _payload(root: str, schema_json: str) -> Column:
    from pyspark.sql import functions

    f: Any = functions  # its types lack arrow_udf

    # It names nothing but a module, as Spark sends functions with whatever else they name.
    def texts(structs: pa.Array, data: pa.Array) -> pa.Array:
        return event_scan.payload_array(root, schema_json, structs, data)

    # Spark evaluates the hints to tell what the function takes, and pa is loaded lazily here.
    texts.__annotations__ = dict.fromkeys(("structs", "data", "return"), pa.Array)
    payload: Column = f.arrow_udf(texts, "string")(f.col(typed_columns.COLUMN), f.col("data"))
    return payload
