"""Elasticsearch and OpenSearch as targets: `elasticsearch://HOST:9200/INDEX`.

A document is an event, its `_id` the seq, so that writing it again changes nothing. Documents go
in by `_bulk`, each batch announced in the index `lakelog_sync` before and acknowledged there after
it, by compare-and-swap (`if_seq_no`); see `intent` for what a cut leaves. Credentials come from the
URL, or ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD.

Each event is one document, exactly once, as long as nobody else writes to the index. During a batch
a search may see some of its documents, or after a rollback of the lake miss those that are
being written again.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import orjson

from lakelog import clients
from lakelog.clients import ConnectionLost, Endpoint, HttpConnection, Reply
from lakelog.errors import InvalidSetting, LakelogError, SyncRefused
from lakelog.libraries import pa
from lakelog.sync.column_types import TypeNames
from lakelog.sync.services.intent import IntentRecord, IntentTarget, reason_of
from lakelog.sync.target import (
    KEY,
    WATERMARKS,
    RowRefused,
    TableShape,
    TargetColumn,
    Watermark,
    WatermarkMoved,
)

EXAMPLE = "elasticsearch://HOST:9200/INDEX"
_BATCH_BYTES, _BATCH_ITEMS = 5_000_000, 5_000
_TRIES = 8
_JSON = "data"
_DEPTH, _DEPTH_OF_USERS = 100, 20
"""How deep objects may be: of an index that is created here, and by default."""
"""The column of events whose text is JSON: it is stored as an object."""
_OBJECTS = ("flattened", "flat_object", "object")
_DATES = {"type": "date", "format": "strict_date_optional_time_nanos||epoch_millis"}
_KEYWORD = {"type": "keyword", "ignore_above": 8191}
"""Lucene refuses terms of more than 32,766 bytes; longer text is stored and not indexed."""
_FIELDS: dict[str, dict[str, Any]] = {
    "text": _KEYWORD,
    "bigint": {"type": "long"},
    "double": {"type": "double"},
    "numeric": {"type": "double"},
    "boolean": {"type": "boolean"},
    "timestamptz": _DATES,
    "timestamp": _DATES,
    "date": _DATES,
    "blob": {"type": "binary"},
}
_NAME = re.compile(r"(?![-_+.])[^A-Z\\/*?\"<>| ,#:]{1,255}")
BulkItem = tuple[str, bytes]
"""The `_id` of a document and its lines in a request."""


class ElasticsearchTarget(IntentTarget):
    """The indices of an Elasticsearch or OpenSearch cluster."""

    type_names = TypeNames(
        {
            **{name: name for name in ("text", "keyword", "integer", "double", "boolean", "date")},
            "smallint": "short",
            "bigint": "long",
            "timestamptz": "date",
        }
    )
    ACCEPTED: ClassVar[dict[str, tuple[str, ...]]] = {
        "text": ("keyword", "text", "wildcard", "match_only_text", "constant_keyword"),
        "bigint": ("long", "unsigned_long"),
        "double": ("double",),
        "numeric": ("double", "keyword"),
        "boolean": ("boolean",),
        "timestamptz": ("date", "date_nanos"),
        "timestamp": ("date", "date_nanos"),
        "date": ("date", "date_nanos"),
        "blob": ("binary",),
    }
    """Types that take a kind without loss."""

    def __init__(self, url: str) -> None:
        """Take the target of a URL. Raises InvalidSetting, without the URL."""
        to = Endpoint.parse(url, 9200, EXAMPLE, ())
        key = os.environ.get("ELASTICSEARCH_API_KEY", "")
        super().__init__(HttpConnection(to, to.login("ApiKey", key, "ELASTICSEARCH")))
        self.address = to.address.removesuffix(f"/{to.path}")
        self.table = to.path or "events"
        self._object, self._depth = "flattened", _DEPTH
        """The type of objects, and how deep they may be to be indexed as such."""

    def connect(self) -> None:
        """Connect, and ask which server it is; see SyncTarget."""
        self.close()
        version = self._json("GET", "/").get("version", {})
        number = str(version.get("number", "0"))
        major, minor, *_ = (int(digits) for digits in re.findall(r"\d+", number + ".0.0"))
        # OpenSearch counts its versions anew, and calls the type of objects differently.
        if version.get("distribution") == "opensearch":
            self._object = "flat_object" if (major, minor) >= (2, 7) else "object"
        elif (major, minor) < (7, 3):
            raise SyncRefused(
                f"{self.address}: Elasticsearch {number} is too old: upgrade it to 7.3 or later"
            )
        self._own()

    def watermarks(self) -> dict[str, Watermark]:
        """The watermarks of all indices, by name."""
        # A search finds only what was refreshed; a document by its id would be found at once.
        self._link.request("POST", f"/{WATERMARKS}/_refresh", accept=(404,))
        reply = self._json("GET", f"/{WATERMARKS}/_search?size=10000", accept=(404,))
        hits = reply.get("hits", {}).get("hits", [])
        records = ((hit["_id"], hit["_source"].get("watermark")) for hit in hits)
        return {
            name: Watermark.parse(record, self._where(name))
            for name, record in sorted(records)
            if record
        }

    def shape(self, table: str) -> TableShape | None:
        """An index as it is, None where there is none."""
        _require_name(table)
        mappings = self._json("GET", f"/{_quoted(table)}/_mapping", accept=(404,))
        if "error" in mappings:
            return None
        # Writing to an alias of several goes to none of them.
        if len(mappings) != 1:
            raise SyncRefused(f"{self._where(table)}: it is an alias of several: name an index")
        fields = next(iter(mappings.values())).get("mappings", {}).get("properties", {})
        types = {name: str(definition.get("type", "object")) for name, definition in fields.items()}
        json_field = fields.get(_JSON, {})
        if json_field.get("type") == "flattened":
            self._depth = int(json_field.get("depth_limit", _DEPTH_OF_USERS))
        # Every document has KEY as its `_id`.
        return TableShape(types, True, not self._count(table))

    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """The type that a field has to have, where the declared one does not fit; or nothing."""
        if column.column_type:
            self._require_plain(column)
            expected = self.type_names.spell(column.column_type)
            return "" if declared == expected else expected
        accepted = self.ACCEPTED[column.kind]
        if column.name == _JSON:
            accepted += _OBJECTS
        return "" if declared in accepted else str(self._field(column)["type"])

    def create(self, table: str, columns: Sequence[TargetColumn], keyed: bool) -> None:
        """Create the index, with a field for each column."""
        self._require_key(table, [column.name for column in columns])
        fields = {column.name: self._field(column) for column in columns}
        # Documents have no other fields; of objects that are not indexed none is guessed.
        mapping = {"mappings": {"dynamic": False, "properties": fields}}
        reply = self._link.request(
            "PUT", f"/{_quoted(table)}", orjson.dumps(mapping), accept=(400,)
        )
        if reply.status == 400:
            if b"resource_already_exists" in reply.body:
                raise WatermarkMoved(f"{self.address}: another sync has created {table}")
            raise SyncRefused(f"{self._where(table)}: {reason_of(reply)}")

    def extend(self, table: str, columns: Sequence[TargetColumn]) -> None:
        """Add fields."""
        fields = {"properties": {column.name: self._field(column) for column in columns}}
        self._json("PUT", f"/{_quoted(table)}/_mapping", orjson.dumps(fields))

    def _require_plain(self, column: TargetColumn) -> None:
        if column.name == _JSON:
            raise SyncRefused(
                f"{self.address}: {_JSON} is an object, whose type cannot be another one: name the"
                " column otherwise with AS"
            )

    def _field(self, column: TargetColumn) -> dict[str, Any]:
        if column.column_type:
            self._require_plain(column)
            spelling = self.type_names.spell(column.column_type)
            fields: dict[str, dict[str, Any]] = {"date": _DATES, "keyword": _KEYWORD}
            return fields.get(spelling, {"type": spelling})
        if column.name == _JSON and column.kind == "text":
            if self._object == "flattened":
                return {"type": "flattened", "ignore_above": 8191, "depth_limit": _DEPTH}
            return {"type": self._object} | ({"enabled": False} if self._object == "object" else {})
        return {"type": "text"} if column.name == "message" else _FIELDS[column.kind]

    def _load(self, table: str) -> IntentRecord | None:
        path = f"/{WATERMARKS}/_doc/{_quoted(table)}"
        reply = self._json("GET", path, accept=(404,))
        if not reply.get("found"):
            return None
        token = reply["_seq_no"], reply["_primary_term"]
        return IntentRecord(**{**reply["_source"], "token": token})

    def _store(self, table: str, record: IntentRecord) -> IntentRecord:
        if record.token is None:
            # The record's index first: `_create` would else make it with mapped fields.
            self._create_records()
            path = f"/{WATERMARKS}/_create/{_quoted(table)}"
        else:
            number, term = record.token
            path = f"/{WATERMARKS}/_doc/{_quoted(table)}?if_seq_no={number}&if_primary_term={term}"
        fields = {n: getattr(record, n) for n in ("version", "watermark", "start", "owner")}
        reply = self._link.request("PUT", path, orjson.dumps(fields), accept=(409,))
        if reply.status == 409:
            raise self.moved(table)
        answer = orjson.loads(reply.body)
        token = answer["_seq_no"], answer["_primary_term"]
        return dataclasses.replace(record, token=token)

    def _create_records(self) -> None:
        """Have the index of the records. Its fields are not searched."""
        body = orjson.dumps({"mappings": {"dynamic": False}})
        reply = self._link.request("PUT", f"/{WATERMARKS}", body, accept=(400,))
        if reply.status == 400 and b"resource_already_exists" not in reply.body:
            raise SyncRefused(f"{self._where(WATERMARKS)}: {reason_of(reply)}")

    def _truncate(self, table: str, start: int) -> int:
        index = _quoted(table)
        query: dict[str, Any] = {"range": {KEY: {"gte": start}}} if start else {"match_all": {}}
        body = orjson.dumps({"query": query})
        for _ in range(_TRIES):
            # Deleting by query works on what is searchable.
            if self._refresh(table) == 404:
                return 0
            if not self._json("POST", f"/{index}/_count", body)["count"]:
                return self._count(table)
            # Documents that a late request changes meanwhile are met by the next attempt.
            self._json("POST", f"/{index}/_delete_by_query?conflicts=proceed", body)
        raise ConnectionLost(f"{self._where(table)}: documents are written while they are deleted")

    def _delete(self, table: str, keys: list[int]) -> int:
        lines = [(str(key), b'{"delete":{"_id":"%d"}}\n' % key) for key in keys]
        return sum(self._bulk(table, chunk) for chunk in _chunks(iter(lines)))

    def _write(self, table: str, rows: pa.Table) -> None:
        for chunk in _chunks(_documents(rows, self._depth)):
            self._bulk(table, chunk)
            self._touch(int(chunk[0][0]))

    def _bulk(self, table: str, items: list[BulkItem]) -> int:
        """Send items, those again that the server is too busy for; return how many it changed."""
        changed = 0
        for attempt in range(1, _TRIES + 1):
            reply = self._link.request(
                "POST",
                f"/{_quoted(table)}/_bulk?filter_path=errors,items.*.status,items.*.error",
                b"".join(lines for _, lines in items),
                "application/x-ndjson",
                accept=(413, 400),
            )
            # Too large as a whole: by halves, until single documents are too large.
            if reply.status == 413 and len(items) > 1:
                half = len(items) // 2
                return changed + self._bulk(table, items[:half]) + self._bulk(table, items[half:])
            if reply.status >= 400:
                place = f"{self._where(table)}, document {items[0][0]}"
                raise SyncRefused(f"{place}: {reason_of(reply)}: this batch was not written")
            results = [next(iter(outcome.values())) for outcome in _parsed(reply)["items"]]
            if len(results) != len(items):
                raise ConnectionLost(f"{self._where(table)}: the answer is not complete")
            busy = []
            # Answers come in the order of the items.
            for item, result in zip(items, results, strict=True):
                status = result["status"]
                changed += status < 300
                if status in (429, 503):
                    busy.append(item)
                # Deleting what is not there is no fault.
                elif status >= 300 and not (status == 404 and "error" not in result):
                    raise self._refused(table, item[0], result)
            if not busy:
                return changed
            items = busy
            time.sleep(clients.pause(attempt))
        raise ConnectionLost(f"{self._where(table)}: the server is too busy")

    def _refused(self, table: str, key: str, result: dict[str, Any]) -> RowRefused:
        """What a document is refused for, in one line."""
        error = result.get("error") or {}
        reasons = [error.get("reason", f"status {result['status']}")]
        while error := error.get("caused_by") or {}:
            reasons.append(error.get("reason", ""))
        summary = "; ".join(dict.fromkeys(filter(None, reasons)))
        return RowRefused(
            f"{self._where(table)}, document {key}: {' '.join(summary.split())[:400]}: change the"
            " mapping of the index, or the column in the query; this batch was not written"
        )

    def _refresh(self, table: str) -> int:
        return self._link.request("POST", f"/{_quoted(table)}/_refresh", accept=(404,)).status

    def _count(self, table: str) -> int:
        self._refresh(table)
        return int(self._json("GET", f"/{_quoted(table)}/_count")["count"])

    def _json(
        self, method: str, path: str, body: bytes = b"", accept: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        return _parsed(self._link.request(method, path, body, accept=accept))


def _parsed(reply: Reply) -> dict[str, Any]:
    try:
        answer = orjson.loads(reply.body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise LakelogError("the server does not answer as Elasticsearch does: check host and port")
    return answer


def _require_name(table: str) -> None:
    if not _NAME.fullmatch(table) or table in (".", ".."):
        raise InvalidSetting(
            f"{table!r} cannot be an index: write it in lower case, without spaces and"
            ' \\ / * ? " < > | , # :'
        )


def _documents(rows: pa.Table, depth: int) -> Iterator[BulkItem]:
    """Rows as items; a null is a field that is not there."""
    names = rows.column_names
    for values in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        body = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if _JSON in body and isinstance(body[_JSON], str):
            body[_JSON] = _object(body[_JSON], depth)
        key = body[KEY]
        line = orjson.dumps(body, default=lambda data: base64.b64encode(data).decode())
        yield str(key), b'{"index":{"_id":"%d"}}\n%b\n' % (key, line)


def _object(payload: str, depth: int) -> Any:
    """JSON text as an object that the server accepts: what is none, or too deep, is the field
    `value` of one.

    A repeated name keeps its last value.
    """
    encoded = payload.encode()
    try:
        value = orjson.loads(encoded)
        if isinstance(value, dict) and "\\u0000" not in payload and not _is_deep(payload, depth):
            # What is written again as it was has nothing that a strict parser refuses.
            if len(orjson.dumps(value)) == len(encoded) and b"\n" not in encoded:
                return orjson.Fragment(encoded)
            # Unlike orjson's, these integers are exact.
            return orjson.Fragment(json.dumps(json.loads(payload), allow_nan=False).encode())
    except (ValueError, RecursionError):
        pass
    return {"value": payload}


def _is_deep(payload: str, depth: int) -> bool:
    """Whether JSON may be nested as deep: by its brackets, those in strings included."""
    deepest = level = 0
    if payload.count("{") + payload.count("[") >= depth:
        for mark in re.findall(r"[\[{\]}]", payload):
            level += 1 if mark in "[{" else -1
            deepest = max(deepest, level)
    return deepest >= depth


def _chunks(items: Iterator[BulkItem]) -> Iterator[list[BulkItem]]:
    """Divide items into requests."""
    chunk: list[BulkItem] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += len(item[1])
        if size >= _BATCH_BYTES or len(chunk) >= _BATCH_ITEMS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")
