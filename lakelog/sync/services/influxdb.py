"""InfluxDB as a target: `influxdb://HOST:8086/BUCKET?org=ORG`, or without `org` a database of 1.x.

An event is a point of the measurement that is called as the table. InfluxDB knows a point by its
measurement, tags and time, so its time in nanoseconds is that of the event in microseconds, and in
the last three digits seq modulo 1,000: writing it again changes nothing, and 1,000 events in a row
may have equal tags and times. `?resolution=ms` or `s`, for logs whose times are no finer, makes
that a million or a billion. Events of a batch that would be one point are refused. `seq` is a
field. Tags are type, source and level, or those of `?tags=a,b`; all else is a field.

How far the sync is, is in the measurement `lakelog_sync` (see `intent`). InfluxDB has no
compare-and-swap: let one sync write to a measurement. A second one waits for the batch of the
first, and writes the same points, but if both start a batch in the same moment, and the lake is
rolled back meanwhile, points may be left over. NaN and infinities are left out.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, repeat
from typing import Any

import orjson

from lakelog import sql
from lakelog.clients import ConnectionLost, Endpoint, HttpConnection
from lakelog.errors import InvalidSetting, LakelogError, SyncRefused
from lakelog.libraries import pa
from lakelog.sync.column_types import TypeNames
from lakelog.sync.services.intent import IntentRecord, IntentTarget, reason_of
from lakelog.sync.target import KEY, WATERMARKS, RowRefused, TableShape, TargetColumn, Watermark

EXAMPLE = "influxdb://HOST:8086/BUCKET?org=ORG"
TAGS = "type,source,level"
_TIME = "time"
_BATCH_LINES, _DELETES = 5_000, 100
_TIME_MAX = 2**63 - 2
_GRAIN = {"us": 1, "ms": 1_000, "s": 1_000_000}
"""Microseconds of a unit of time, in which seq tells points apart."""
_TRIES = 4
_CONTROLS = dict.fromkeys([*range(32), 127], "\ufffd")
PointLine = tuple[int, bytes]
Point = tuple[int, dict[str, str], int]
"""Time in ns, tags and seq."""


class InfluxTarget(IntentTarget):
    """The measurements of a bucket, or of a database of InfluxDB 1.x."""

    NUMERIC = "DOUBLE"
    type_names = TypeNames({name: name for name in ("text", "bigint", "double", "boolean")})

    def __init__(self, url: str) -> None:
        """Take the target of a URL. Raises InvalidSetting, without the URL."""
        self._to = Endpoint.parse(url, 8086, EXAMPLE, ("org", "tags", "resolution", "token"))
        self.address, self.table, options = self._to.address, "events", self._to.options
        if not self._to.path:
            raise InvalidSetting(f"a target of this kind looks like {EXAMPLE}")
        if options.get("resolution", "us") not in _GRAIN:
            raise InvalidSetting(f"the resolution of a target is one of {', '.join(_GRAIN)}")
        self._grain = _GRAIN[options.get("resolution", "us")]
        self._tags = [name for name in options.get("tags", TAGS).split(",") if name]
        if reserved := {KEY, _TIME} & set(self._tags):
            raise InvalidSetting(
                f"{min(reserved)} cannot be a tag: it is another one in each event"
            )
        self._org = options.get("org", "")
        token = options.get("token") or os.environ.get("INFLUX_TOKEN", "")
        super().__init__(HttpConnection(self._to, self._to.login("Token", token, "INFLUX")))
        self._points: dict[tuple[bytes, int], int] = {}
        """The seq of each point of this batch."""

    def connect(self) -> None:
        """Connect; see SyncTarget."""
        self.close()
        self._link.request("GET", "/ping")
        self._own()

    def watermarks(self) -> dict[str, Watermark]:
        """The watermarks of all measurements, by name."""
        query = f'SELECT * FROM "{WATERMARKS}" GROUP BY "table" ORDER BY time DESC LIMIT 1'
        rows_by_table = {tags["table"]: row for tags, rows in self._query(query) for row in rows}
        return {
            name: Watermark.parse(row["watermark"], self._where(name))
            for name, row in sorted(rows_by_table.items())
            if row.get("watermark")
        }

    def shape(self, table: str) -> TableShape | None:
        """The columns that were written, None where there is no point. Raises InvalidSetting."""
        # A line that begins so is a comment, which the server accepts and drops.
        if table.startswith("#") or table.endswith("\\") or table != table.translate(_CONTROLS):
            raise InvalidSetting(
                f"{table!r} cannot be a measurement: it begins with #, ends with a backslash, or"
                " has a control character"
            )
        record = self._load(table)
        mark = self._mark(table, record) if record else None
        is_empty = not self._query(f"SELECT * FROM {_name(table)} LIMIT 1")
        if is_empty and not (mark and not mark.rows):
            return None
        return TableShape(record.columns if record else {}, True, is_empty)

    def value_sql(self, column: TargetColumn) -> str:
        """The time in us; other times and dates as text."""
        if column.kind == "timestamptz" and column.name == _TIME:
            return f"epoch_us({sql.identifier(_TIME)})"
        return super().value_sql(column)

    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """The kind that a field has to have, where it was written as another; or nothing."""
        return "" if declared == column.kind else column.kind

    def begin(self, table: str, version: int) -> None:
        """Announce a batch; see SyncTarget."""
        self._points.clear()
        super().begin(table, version)

    def create(self, table: str, columns: Sequence[TargetColumn], keyed: bool) -> None:
        """Remember the columns: a measurement is there with its first point."""
        kinds = {column.name: column.kind for column in columns}
        self._require_key(table, list(kinds))
        if kinds.get(_TIME) != "timestamptz":
            raise SyncRefused(
                f"{self._where(table)}: a point has a time: name a column of the query"
                f" {_TIME}, of the type TIMESTAMPTZ"
            )
        self._remember(kinds)

    def extend(self, table: str, columns: Sequence[TargetColumn]) -> None:
        """Remember more columns."""
        self._remember({column.name: column.kind for column in columns})

    def commit(self, table: str, watermark: Watermark) -> None:
        """Acknowledge the batch with its watermark; see SyncTarget."""
        super().commit(table, watermark)
        # Each version writes three points, of which only the newest is read: those before are
        # cleared now and then, and not each time.
        if watermark.version % 64 == 0:
            before, tag = self._batch[1].token - 1, {"table": table}
            self._remove_ranges(WATERMARKS, [(-_TIME_MAX, before, tag)])

    def _remember(self, kinds: dict[str, str]) -> None:
        table, record = self._batch
        columns = {**record.columns, **kinds}
        self._batch = table, self._store(table, dataclasses.replace(record, columns=columns))

    def _load(self, table: str) -> IntentRecord | None:
        query = (
            f'SELECT * FROM "{WATERMARKS}" WHERE "table" = {_literal(table)}'
            " ORDER BY time DESC LIMIT 1"
        )
        rows = [row for _, rows in self._query(query) for row in rows]
        if not rows:
            return None
        row = rows[0]
        return IntentRecord(
            row["version"],
            row["watermark"],
            # A field of a point cannot be null: -1 stands for none, see `_store`.
            row["start"] if row["start"] >= 0 else None,
            row["owner"],
            orjson.loads(row["columns"]),
            row["time"],
        )

    def _store(self, table: str, record: IntentRecord) -> IntentRecord:
        # There is no compare-and-swap: it is looked at as late as can be.
        present = self._load(table)
        if (present.token if present else None) != record.token:
            raise self.moved(table)
        # The newest counts, also where a clock was set back.
        moment = max(time.time_ns(), (record.token or 0) + 1)
        fields = {
            "version": record.version,
            "start": -1 if record.start is None else record.start,
            "watermark": record.watermark,
            "owner": record.owner,
            "columns": orjson.dumps(record.columns).decode(),
        }
        field_set = ",".join(f"{name}={_field(value)}" for name, value in fields.items())
        line = f"{WATERMARKS},table={_tag(table)} {field_set} {moment}".encode()
        self._send(table, [(-1, line)])
        return dataclasses.replace(record, token=moment)

    def _write(self, table: str, rows: pa.Table) -> None:
        lines = self._lines(table, rows)
        while chunk := [line for _, line in zip(range(_BATCH_LINES), lines, strict=False)]:
            self._send(table, chunk)
            self._touch(chunk[0][0])

    def _lines(self, table: str, rows: pa.Table) -> Iterator[PointLine]:
        """Rows as lines; a null is a tag or field that is not there."""
        columns = {name: rows[name].to_pylist() for name in rows.column_names}
        seqs, times = columns[KEY], columns.pop(_TIME)
        tag_columns = [columns.pop(name, [None] * len(seqs)) for name in self._tags]
        # By column: a call for each value would take most of the time.
        field_sets = zip(
            *(_fields(_key(name), values) for name, values in columns.items()), strict=True
        )
        series_of_tags: dict[tuple[Any, ...], bytes] = {}
        for seq, micros, tags, fields in zip(
            seqs,
            times,
            zip(*tag_columns, strict=True) if tag_columns else repeat(()),
            field_sets,
            strict=False,
        ):
            series = series_of_tags.get(tags)
            if series is None:
                series = series_of_tags[tags] = self._series(table, tags)
            # In units of the grain, so that seq fills the digits below it.
            timestamp = self._moment(table, micros, seq)
            if (occupant := self._points.setdefault((series, timestamp), seq)) != seq:
                raise RowRefused(
                    f"{self._where(table)}: events {occupant} and {seq} have one time and the same"
                    " tags, and would be one point: add ?resolution=ms or s to the target, or"
                    " another tag with ?tags=..."
                )
            field_set = "".join(fields)[1:]
            yield seq, b"%b %b %d" % (series, field_set.encode("utf-8", "replace"), timestamp)

    def _series(self, table: str, values: tuple[Any, ...]) -> bytes:
        """What a line begins with."""
        pairs = zip(self._tags, values, strict=True)
        tag_pairs = [(_key(name), _tag(str(v))) for name, v in pairs if v not in (None, "")]
        series = _measurement(table) + "".join(f",{name}={value}" for name, value in tag_pairs)
        return series.encode("utf-8", "replace")

    def _moment(self, table: str, micros: int | None, seq: int) -> int:
        """The time of a point in ns."""
        span = self._grain * 1000
        timestamp = None if micros is None else micros // self._grain * span + seq % span
        if timestamp is None or abs(timestamp) > _TIME_MAX:
            raise RowRefused(
                f"{self._where(table)}: event {seq} has no time between 1677 and 2262, which"
                f" InfluxDB could store: leave it out with --query ... WHERE {_TIME} > '1700-01-01'"
            )
        return timestamp

    def _send(self, table: str, lines: list[PointLine]) -> None:
        """Write lines. Raises SyncRefused, which names the first that the server refuses."""
        bucket = urllib.parse.quote(self._to.path, safe="")
        org = urllib.parse.quote(self._org, safe="")
        path = f"/write?db={bucket}&precision=ns"
        if self._org:
            path = f"/api/v2/write?org={org}&bucket={bucket}&precision=ns"
        body = b"\n".join(line for _, line in lines) + b"\n"
        accept = (400, 404, 413, 422)
        reply = self._link.request("POST", path, body, "text/plain; charset=utf-8", accept)
        if reply.status < 300:
            return
        if reply.status == 404:
            raise SyncRefused(f"{self.address}: {reason_of(reply)}: create it, and run it again")
        if len(lines) > 1:
            # Too large, or one line is at fault, which the server does not name: by halves, until
            # it is alone. What was written of the others is written again.
            half = len(lines) // 2
            self._send(table, lines[:half])
            self._send(table, lines[half:])
            if reply.status != 413:
                raise SyncRefused(f"{self._where(table)}: {reason_of(reply)}")
            return
        raise RowRefused(
            f"{self._where(table)}, event {lines[0][0]}: {reason_of(reply)}: change or leave out"
            " the column in the query; this batch was not written"
        )

    def _delete(self, table: str, keys: list[int]) -> int:
        doomed = frozenset(keys)
        condition = f'"{KEY}" >= {min(keys)} AND "{KEY}" <= {max(keys)}'
        return self._remove(table, condition, doomed.__contains__)

    def _truncate(self, table: str, start: int) -> int:
        if not start:
            self._remove_ranges(table, [(-_TIME_MAX, _TIME_MAX, {})])
            return 0
        # Seq is a field, which InfluxDB cannot delete by: points are found, then deleted by time
        # and tags.
        self._remove(table, f'"{KEY}" >= {start}', lambda seq: seq >= start)
        rows = [
            r for _, rows in self._query(f'SELECT count("{KEY}") FROM {_name(table)}') for r in rows
        ]
        return int(rows[0]["count"]) if rows else 0

    def _remove(self, table: str, condition: str, is_gone: Callable[[int], bool]) -> int:
        """Delete points by seq, which InfluxDB deletes by time and tags alone; return how many."""
        removed = 0
        for attempt in range(_TRIES):
            times = [
                timestamp for timestamp, _, seq in self._select(table, condition) if is_gone(seq)
            ]
            removed = removed or len(times)
            if not times:
                return removed
            points = self._select(table, f"time >= {min(times)} AND time <= {max(times)}")
            ranges = _ranges(points, is_gone)
            # Some versions leave out the end of a range: what is left is met by the next attempt.
            self._remove_ranges(table, [(a, b + attempt % 2, tags) for a, b, tags in ranges])
        raise ConnectionLost(f"{self._where(table)}: points are written while they are deleted")

    def _select(self, table: str, condition: str) -> list[Point]:
        query = f'SELECT "{KEY}" FROM {_name(table)} WHERE {condition} GROUP BY *'
        results = self._query(query)
        return [(row["time"], tags, row[KEY]) for tags, rows in results for row in rows]

    def _remove_ranges(self, table: str, ranges: list[tuple[int, int, dict[str, str]]]) -> None:
        """Delete the points between two times, both included, of some tags."""
        if self._org:
            # InfluxDB 2 deletes by an API of its own, one predicate at a time.
            org, bucket = (urllib.parse.quote(x, safe="") for x in (self._org, self._to.path))
            for start, end, tags in ranges:
                predicate_tags = {"_measurement": table, **{k: v for k, v in tags.items() if v}}
                conditions = (
                    f'"{k}"={orjson.dumps(v).decode()}' for k, v in predicate_tags.items()
                )
                body = {
                    "start": _rfc3339(start),
                    "stop": _rfc3339(end),
                    "predicate": " AND ".join(conditions),
                }
                path = f"/api/v2/delete?org={org}&bucket={bucket}"
                self._link.request("POST", path, orjson.dumps(body))
            return
        statements = []
        for start, end, tags in ranges:
            equal = "".join(f" AND {_name(k)} = {_literal(v)}" for k, v in tags.items())
            statements.append(
                f"DELETE FROM {_name(table)} WHERE time >= {start} AND time <= {end}{equal}"
            )
        for offset in range(0, len(statements), _DELETES):
            self._query("; ".join(statements[offset : offset + _DELETES]))

    def _query(self, query: str) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
        """Run InfluxQL, which 2.x has too; return the tags and rows of each series."""
        body = urllib.parse.urlencode({"db": self._to.path, "epoch": "ns", "q": query}).encode()
        form = "application/x-www-form-urlencoded"
        reply = self._link.request("POST", "/query", body, form, (400, 401, 403, 404))
        if reply.status in (401, 403):
            raise SyncRefused(
                f"{self.address}: {reason_of(reply)}: a sync reads how far it is: use a token, or a"
                f" user, that may read and write {self._to.path}"
            )
        try:
            results = orjson.loads(reply.body)["results"] if reply.status == 200 else []
        except (ValueError, KeyError):
            raise LakelogError(f"{self.address}: it does not answer as InfluxDB does") from None
        errors = [result["error"] for result in results if "error" in result]
        if reply.status != 200 or errors:
            reason = errors[0] if errors else reason_of(reply)
            # A measurement without points is none.
            if "measurement not found" in reason:
                return []
            raise SyncRefused(f"{self.address}: {reason}: check the name, or create it")
        return [
            (
                {k: v for k, v in series.get("tags", {}).items() if v},
                [dict(zip(series["columns"], row, strict=True)) for row in series["values"]],
            )
            for result in results
            for series in result.get("series", [])
        ]


def _ranges(
    points: list[Point], is_gone: Callable[[int], bool]
) -> list[tuple[int, int, dict[str, str]]]:
    """The fewest ranges of time that have all points to be deleted, and no other."""
    ranges: list[tuple[int, int, dict[str, str]]] = []
    is_running = False
    for timestamp, group in groupby(sorted(points, key=lambda p: p[0]), key=lambda p: p[0]):
        same = list(group)
        doomed = [tags for _, tags, seq in same if is_gone(seq)]
        if len(doomed) == len(same):
            start = ranges.pop()[0] if is_running else timestamp
            ranges.append((start, timestamp, {}))
        else:
            # Of one time, only tags tell them apart.
            ranges += [(timestamp, timestamp, tags) for tags in doomed]
        is_running = len(doomed) == len(same)
    return ranges


def _measurement(name: str) -> str:
    return re.sub(r"([, ])", r"\\\1", name)


def _key(name: str) -> str:
    return re.sub(r"([,= ])", r"\\\1", name)


def _tag(value: str) -> str:
    """A tag value. The protocol cannot express control characters, nor a backslash before one of
    the characters that it escapes, or at the end: they are replaced."""
    plain = re.sub(r"\\(?=[,= ]|\\*$)", "\u29f5", value.translate(_CONTROLS))
    return _key(plain)


def _field(value: Any) -> str | None:
    """A field value; None for one that is not written."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    return f'"{base64.b64encode(value).decode()}"' if isinstance(value, bytes) else None


def _fields(key: str, values: list[Any]) -> list[str]:
    """A column as parts of lines; a null is none."""
    start = f",{key}="
    if all(value is None or isinstance(value, str) for value in values):
        start += '"'
        return [
            ""
            if encoded is None
            else start + encoded.replace("\\", "\\\\").replace('"', '\\"') + '"'
            for encoded in values
        ]
    encoded_values = map(_field, values)
    return ["" if value is None else start + value for value in encoded_values]


def _name(name: str) -> str:
    """A name in InfluxQL."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _rfc3339(nanos: int) -> str:
    """A time with all its digits."""
    seconds, fraction = divmod(nanos, 10**9)
    moment = time.gmtime(seconds)
    return f"{moment.tm_year:04}-{time.strftime('%m-%dT%H:%M:%S', moment)}.{fraction:09}Z"
