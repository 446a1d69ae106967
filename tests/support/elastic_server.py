"""A server that speaks as much of Elasticsearch as a sync needs, and checks every byte of it.

Searches, counts and deletes by query see what was there at the last refresh; documents by id are as
they are. Values are checked against the mapping as Elasticsearch does it.
"""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import orjson

from tests.support.strict_server import ProtocolError, Refused, Request, StrictServer
from tests.support.sync_places import COMPARED, Place, Rows

_TERM_MAX = 32_766


class Index:
    """An index: its fields, its documents, and those that searches see."""

    def __init__(self, mappings: dict[str, Any]) -> None:
        self.fields: dict[str, Any] = mappings.get("properties", {})
        self.documents: dict[str, tuple[dict[str, Any], int]] = {}
        self.visible: dict[str, tuple[dict[str, Any], int]] = {}
        self.numbers = 0


class ElasticServer(StrictServer):
    """A cluster of one node."""

    def __init__(self, version: dict[str, Any] | None = None, bytes_max: int = 1 << 27) -> None:
        self.indices: dict[str, Index] = {}
        self.version, self.bytes_max = version or {"number": "8.15.0"}, bytes_max
        self.password: str | None = None
        self.busy = 0
        """So many of the next items are answered with 429."""
        super().__init__()

    def answer(self, request: Request) -> tuple[int, bytes]:
        if self.password and request.headers.get("Authorization") != self.password:
            raise Refused(401, _error("security_exception", "missing authentication credentials"))
        if len(request.body) > self.bytes_max:
            raise Refused(413, b"")
        name, _, action = request.path.strip("/").partition("/")
        if not name:
            return 200, orjson.dumps({"version": self.version})
        if not action:
            _require(request.method == "PUT", request)
            return self._create(name, _json(request.body))
        call = getattr(self, f"_do{action.split('/')[0]}", None)
        _require(call is not None, request)
        assert call is not None
        return 200, orjson.dumps(call(name, action.partition("/")[2], request))

    def _create(self, name: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if name != name.lower():
            raise Refused(400, _error("invalid_index_name_exception", "must be lowercase"))
        if name in self.indices:
            raise Refused(400, _error("resource_already_exists_exception", f"index [{name}]"))
        self.indices[name] = Index(body["mappings"])
        return 200, b'{"acknowledged":true}'

    def _index(self, name: str) -> Index:
        if name not in self.indices:
            raise Refused(404, _error("index_not_found_exception", f"no such index [{name}]"))
        return self.indices[name]

    def _do_mapping(self, name: str, _: str, request: Request) -> Any:
        index = self._index(name)
        if request.method == "GET":
            return {name: {"mappings": {"dynamic": "false", "properties": index.fields}}}
        index.fields.update(_json(request.body)["properties"])
        return {"acknowledged": True}

    def _do_refresh(self, name: str, _: str, request: Request) -> Any:
        _require(request.method == "POST" and not request.body, request)
        index = self._index(name)
        index.visible = dict(index.documents)
        return {}

    def _do_search(self, name: str, _: str, request: Request) -> Any:
        _require(request.options == {"size": "10000"}, request)
        hits = self._index(name).visible.items()
        return {"hits": {"hits": [{"_id": key, "_source": each[0]} for key, each in hits]}}

    def _do_count(self, name: str, _: str, request: Request) -> Any:
        return {"count": len(self._matching(self._index(name), request.body))}

    def _do_delete_by_query(self, name: str, _: str, request: Request) -> Any:
        _require(request.options == {"conflicts": "proceed"}, request)
        index, deleted = self._index(name), 0
        for key in self._matching(index, request.body):
            # One that has changed since the refresh is a conflict, and stays.
            if index.documents.get(key) is index.visible[key]:
                del index.documents[key]
                deleted += 1
        return {"deleted": deleted}

    def _matching(self, index: Index, body: bytes) -> list[str]:
        if not body:
            return list(index.visible)
        query = _json(body)["query"]
        if query == {"match_all": {}}:
            return list(index.visible)
        start = query["range"]["seq"]["gte"]
        return [key for key, (source, _) in index.visible.items() if source["seq"] >= start]

    def _do_doc(self, name: str, key: str, request: Request) -> Any:
        if request.method == "PUT":
            wanted = int(request.options["if_seq_no"])
            _require(request.options["if_primary_term"] == "1", request)
            found = self._index(name).documents.get(key)
            if found is None or found[1] != wanted:
                raise Refused(409, _error("version_conflict_engine_exception", "if_seq_no"))
            return self._put(name, key, request.body)
        index = self._index(name)
        if key not in index.documents:
            raise Refused(404, b'{"found":false}')
        source, number = index.documents[key]
        return {"found": True, "_source": source, "_seq_no": number, "_primary_term": 1}

    def _do_create(self, name: str, key: str, request: Request) -> Any:
        if key in self._index(name).documents:
            raise Refused(409, _error("version_conflict_engine_exception", "exists"))
        return self._put(name, key, request.body)

    def _put(self, name: str, key: str, body: bytes) -> Any:
        index = self._index(name)
        index.numbers += 1
        index.documents[key] = _json(body), index.numbers
        return {"_seq_no": index.numbers, "_primary_term": 1}

    def _do_bulk(self, name: str, _: str, request: Request) -> Any:
        _require(request.headers["Content-Type"] == "application/x-ndjson", request)
        _require(request.body.endswith(b"\n"), request)
        index = self._index(name)
        lines, items = iter(request.body[:-1].split(b"\n")), []
        for line in lines:
            ((action, meta),) = _json(line).items()
            _require(list(meta) == ["_id"] and isinstance(meta["_id"], str), request)
            _require(action in ("index", "delete"), request)
            source = _json(next(lines)) if action == "index" else {}
            items.append({action: self._item(index, action, meta["_id"], source)})
        failed = any("error" in each for item in items for each in item.values())
        return {"errors": failed, "items": items}

    def _item(self, index: Index, action: str, key: str, source: dict[str, Any]) -> Any:
        if self.busy > 0:
            self.busy -= 1
            return {"status": 429, "error": {"type": "es_rejected_execution_exception"}}
        if action == "delete":
            return {"status": 200 if index.documents.pop(key, None) else 404}
        if str(source.get("seq")) != key:
            raise ProtocolError(f"document {key} has the seq {source.get('seq')}")
        for name, value in source.items():
            field = index.fields.get(name)
            if field and (fault := _fault(field, value)):
                words = f"failed to parse field [{name}] of type [{field['type']}]"
                caused = {"type": "illegal_argument_exception", "reason": fault}
                error = {"type": "document_parsing_exception", "reason": words, "caused_by": caused}
                return {"status": 400, "error": error}
        index.numbers += 1
        index.documents[key] = source, index.numbers
        return {"status": 201}


class ElasticPlace(Place):
    """A cluster with nothing in it."""

    def __init__(self, server: ElasticServer) -> None:
        self.server = server
        self.url = f"elasticsearch://127.0.0.1:{server.port}"

    def rows(self, table: str = "events", columns: str = COMPARED) -> Rows:
        index = self.server.indices.get(table)
        documents = sorted(
            (each[0] for each in index.documents.values()) if index else [],
            key=lambda source: source["seq"],
        )
        names = columns.split(", ")
        return [tuple(_text(source.get(name)) for name in names) for source in documents]


def _text(value: Any) -> Any:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else value


def _fault(field: dict[str, Any], value: Any) -> str:
    """Why a value does not fit a field, as Elasticsearch sees it."""
    kind = field["type"]
    if kind in ("keyword", "text"):
        if isinstance(value, dict):
            return "Can't get text on a START_OBJECT"
        text = value if isinstance(value, str) else json.dumps(value)
        is_long = len(text.encode()) > _TERM_MAX and len(text) <= field.get("ignore_above", 1 << 31)
        return "immense term" if kind == "keyword" and is_long else ""
    if kind == "long":
        return "" if isinstance(value, int) and -(2**63) <= value < 2**63 else f"For input {value}"
    if kind == "double":
        return "" if math.isfinite(float(value)) else "not finite"
    if kind == "boolean":
        return "" if isinstance(value, bool) else "not a boolean"
    if kind == "date":
        try:
            datetime.datetime.fromisoformat(value)
        except (ValueError, TypeError):
            return f"failed to parse date field [{value}]"
    if kind in ("flattened", "flat_object") and not isinstance(value, dict):
        return "Failed to parse object: expecting token of type [START_OBJECT]"
    if kind == "flattened" and _levels(value) > field.get("depth_limit", 20):
        return "The provided [flattened] field exceeds the maximum depth limit"
    return ""


def _levels(value: Any) -> int:
    """How many objects are in each other."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict) + max(map(_levels, below), default=0)


def _json(text: bytes) -> dict[str, Any]:
    """An object, as strictly as the server reads it: no repeated names, no NaN, UTF-8 alone."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in items}) != len(items):
            raise ProtocolError(f"repeated name in {text[:200]!r}")
        return dict(items)

    def constant(name: str) -> Any:
        raise ProtocolError(f"{name} in {text[:200]!r}")

    if b"\r" in text:
        raise ProtocolError("a line break within a line")
    found = json.loads(text.decode(), object_pairs_hook=pairs, parse_constant=constant)
    if not isinstance(found, dict):
        raise ProtocolError(f"no object: {text[:200]!r}")
    return found


def _require(holds: bool, request: Request) -> None:
    if not holds:
        raise ProtocolError(f"{request.method} {request.path} {request.options}")


def _error(kind: str, reason: str) -> bytes:
    return orjson.dumps({"error": {"type": kind, "reason": reason}})
