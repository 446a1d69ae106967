"""Rows of Arrow tables as events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, time, timedelta
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event.exported import assigned_columns, payload
from lakelog.libraries import pa
from lakelog.values import JsonObject

_MICROSECONDS = re.compile(r"\.[0-9]{6}")


def events_of(stream: object) -> Iterator[JsonObject]:
    """Yield the events of what exports an Arrow stream: nulls are left out, JSON text in `data` is
    JSON, and of exported rows what a lake assigns is left out. Raises InvalidEvent."""
    try:
        batches = pa.RecordBatchReader.from_stream(stream)
    except pa.ArrowException as error:  # a type that Arrow's own library has not
        raise InvalidEvent(f"a table has a column that cannot be read: {error}") from None
    for batch in batches:
        own_columns = assigned_columns(batch.schema.names)
        try:
            rows = _rows(batch)
        except (OverflowError, ValueError) as error:  # as the year of a date that Python has not
            raise InvalidEvent(f"a value of a table is none of Python's: {error}") from None
        for row in rows:
            event = {k: v for k, v in row.items() if v is not None and k not in own_columns}
            if "data" in event:
                event["data"] = payload(event["data"])
            yield event


def as_list(events: object) -> list[Any]:
    """Return one event, an iterable of them, or an Arrow stream, as a list."""
    if isinstance(events, dict):
        return [events]
    if isinstance(events, list):
        return events
    if hasattr(events, "__arrow_c_stream__"):
        return list(events_of(events))
    if isinstance(events, (str, bytes)) or not isinstance(events, Iterable):
        return [events]
    if hasattr(events, "keys"):
        return [events]
    return list(events)


def _rows(batch: pa.RecordBatch) -> list[JsonObject]:
    """Rows of Python's values; times with nanoseconds, which these cannot hold, are text."""
    fields = [f.with_type(_microseconds_type(f.type)) for f in batch.schema]
    in_micros = batch.cast(pa.schema(fields), safe=False)
    rows: list[JsonObject] = in_micros.to_pylist()
    for column, field in zip(batch.columns, fields, strict=True):
        if column.type == field.type or field.name == "time":
            continue
        counts = column.cast(pa.int64()).to_pylist()
        for row, nanos in zip(rows, counts, strict=True):
            if nanos is not None and nanos % 1000:
                row[field.name] = _with_nanoseconds(row[field.name], nanos)
    return rows


def _microseconds_type(arrow_type: pa.DataType) -> pa.DataType:
    """The type of a column without the nanoseconds that Python's times cannot hold."""
    if pa.types.is_timestamp(arrow_type) and arrow_type.unit == "ns":
        return pa.timestamp("us", arrow_type.tz)
    return pa.time64("us") if pa.types.is_time64(arrow_type) else arrow_type


def _with_nanoseconds(value: datetime | time, nanos: int) -> str:
    """A time of so many nanoseconds, which lost the last three digits, as ISO 8601."""
    if isinstance(value, datetime) and nanos < 0:  # it was cut towards 1970
        value -= timedelta(microseconds=1)
    text = value.isoformat(timespec="microseconds")
    exact = _MICROSECONDS.sub(rf"\g<0>{nanos % 1000:03d}", text)
    return exact.replace("+00:00", "Z")
