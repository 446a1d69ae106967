"""Rows of Arrow tables as events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event.exported import assigned_columns, payload
from lakelog.libraries import pa
from lakelog.values import JsonObject


def events_of(stream: object) -> Iterator[JsonObject]:
    """Yield the events of what exports an Arrow stream: nulls are left out, JSON text in `data` is
    JSON, and of exported rows what a lake assigns is left out. Raises InvalidEvent."""
    try:
        batches = pa.RecordBatchReader.from_stream(stream)
    except pa.ArrowException as error:  # a type that Arrow's own library has not
        raise InvalidEvent(f"a table has a column that cannot be read: {error}") from None
    for batch in batches:
        own_columns = assigned_columns(batch.schema.names)
        fields = [f.with_type(_microseconds_type(f.type)) for f in batch.schema]
        try:
            rows = batch.cast(pa.schema(fields), safe=False).to_pylist()
        except OverflowError as error:  # a date or time of a year that Python has not
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


def _microseconds_type(arrow_type: pa.DataType) -> pa.DataType:
    """The type of a column without the nanoseconds that Python's datetime cannot hold."""
    nanos = pa.types.is_timestamp(arrow_type) and arrow_type.unit == "ns"
    return pa.timestamp("us", arrow_type.tz) if nanos else arrow_type
