"""The paths of a server as a document of OpenAPI 3.1, for programs that make clients of it.

The table of operations is kept by hand; a test holds that it has every route, and no other. Those
of the dashboard are taken from their handlers: they are what its pages need, and change with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lakelog.event.types import JsonObject

JSON = "application/json"
_TEXT, _LINES, _ARROW = "text/plain", "application/x-ndjson", "application/vnd.apache.arrow.stream"
_PROTOBUF, _FORM = "application/x-protobuf", "application/x-www-form-urlencoded"
_LOKI = "/loki/api/v1"
_QUERY_PARAMETERS: dict[str, tuple[str, str]] = {
    "at": ("string", "A tag, branch, snapshot or time to read."),
    "format": ("string", "json, ndjson, csv or arrow; without it, Accept decides."),
    "limit": ("integer", "At most so many rows or lines."),
    "where": ("string", "A condition of SQL over the columns of an event."),
    "q": ("string", "A search."),
    "after": ("string", "end, beginning, the seq of an event, or a position."),
    "query": ("string", "A query in LogQL."),
    "match[]": ("array", "Selectors of LogQL."),
    "start": ("string", "Nanoseconds, seconds, or ISO 8601."),
    "end": ("string", "Nanoseconds, seconds, or ISO 8601."),
    "since": ("string", "A span before the end, such as 6h."),
    "time": ("string", "Nanoseconds, seconds, or ISO 8601."),
    "step": ("string", "Seconds, or a span such as 30s."),
    "direction": ("string", "backward or forward."),
}
_RANGE = ("start", "end", "since")


@dataclass(frozen=True)
class PathOperation:
    """What a path does for a method: the scope it needs ("" for none), names of parameters in the
    query of the URL, media types of the body, and of the answer."""

    method: str
    path: str
    group: str
    summary: str
    scope: str = ""
    query: tuple[str, ...] = ()
    body: tuple[str, ...] = ()
    answer: tuple[str, ...] = (JSON,)
    status: str = "200"


def _ingests(path: str, summary: str, *body: str, method: str = "POST") -> PathOperation:
    return PathOperation(method, path, "Send events", summary, "ingest", body=body)


def _loki(path: str, summary: str, *query: str) -> Iterable[PathOperation]:
    for method, body in (("GET", ()), ("POST", (_FORM,))):
        yield PathOperation(method, _LOKI + path, "Loki", summary, "read", query, body)


OPERATIONS: tuple[PathOperation, ...] = (
    PathOperation("GET", "/healthz", "Watch", "That the process answers."),
    PathOperation("GET", "/readyz", "Watch", "That the lake can be read and written."),
    PathOperation("GET", "/metrics", "Watch", "Figures for Prometheus.", "read", answer=(_TEXT,)),
    PathOperation("GET", "/openapi.json", "Watch", "This document.", "read"),
    _ingests("/ingest", "Store JSON lines, a JSON document, or CloudEvents.", _LINES, JSON),
    _ingests("/ingest/{source}", "The same, of a source.", _LINES, JSON),
    _ingests("/v1/{signal}", "Store logs, traces or metrics of OpenTelemetry.", _PROTOBUF, JSON),
    *(
        _ingests(path, "Store documents of Elasticsearch's bulk API.", _LINES, method=method)
        for path in ("/_bulk", "/{index}/_bulk")
        for method in ("POST", "PUT")
    ),
    _ingests("/loki/api/v1/push", "Store lines of Loki's push API.", JSON, _PROTOBUF),
    PathOperation("GET", "/", "Send events", "What Elasticsearch's clients look for.", "ingest"),
    PathOperation("GET", "/_license", "Send events", "The same: a licence.", "ingest"),
    PathOperation(
        *("POST", "/sql", "Ask", "Answer one SELECT.", "read", ("at", "limit", "format")),
        body=(JSON, _TEXT),
        answer=(JSON, _LINES, "text/csv", _ARROW),
    ),
    PathOperation(
        *("GET", "/tail", "Ask", "Events as they are stored.", "read", ("where", "q", "after")),
        answer=("text/event-stream",),
    ),
    PathOperation("POST", "/mcp", "Ask", "The Model Context Protocol.", "read", body=(JSON,)),
    *_loki("/labels", "Names of labels.", "query", *_RANGE),
    *_loki("/label", "Names of labels.", "query", *_RANGE),
    *_loki("/label/{name}/values", "Values of a label.", "query", *_RANGE),
    *_loki("/series", "Labels of streams.", "match[]", *_RANGE),
    *_loki("/query", "A query at one time.", "query", "time", "limit", "direction"),
    *_loki("/query_range", "A query.", "query", *_RANGE, "step", "limit", "direction"),
    *_loki("/index/stats", "How much there is.", "query", *_RANGE),
)
_SQL = {
    "type": "object",
    "required": ["sql"],
    "additionalProperties": False,
    "properties": {
        "sql": {"type": "string", "minLength": 1},
        "params": {"type": ["array", "object", "null"]},
        "at": {"type": ["string", "null"]},
        "limit": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**31 - 1},
        "format": {"enum": ["json", "ndjson", "csv", "arrow"]},
    },
}
_QUERY_ERROR = {
    "type": "object",
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "hint": {"type": "string"},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/Fault"}]}
    },
}


def document(version: str, handlers: Mapping[tuple[str, str], Callable[..., object]]) -> JsonObject:
    """Return the document; `handlers` are those of the dashboard by method and path, whose
    docstrings say what they do."""
    paths: dict[str, JsonObject] = {}
    dashboard = [
        PathOperation(
            *(method, path, "Dashboard", (handler.__doc__ or path).partition("\n")[0]),
            "read" if method == "GET" else "admin",
            body=(JSON,) if method == "POST" else (),
        )
        for (method, path), handler in handlers.items()
    ]
    for operation in (*OPERATIONS, *dashboard):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lakelog",
            "version": version or "0",
            "description": "One lake of events over HTTP: see docs/serving.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Query": _SQL, "Fault": _QUERY_ERROR, "Error": _ERROR},
        },
    }


def _described(operation: PathOperation) -> JsonObject:
    error = {"schema": {"$ref": "#/components/schemas/Error"}}
    described: JsonObject = {
        "operationId": f"{operation.method} {operation.path}",
        "tags": [operation.group],
        "summary": operation.summary,
        "parameters": [*_in_path(operation.path), *map(_in_query, operation.query)],
        "responses": {
            operation.status: {
                "description": "The answer.",
                "content": {media_type: {} for media_type in operation.answer},
            },
            "default": {
                "description": "An error: what is wrong, and what to do next.",
                "content": {JSON: error, _TEXT: {"schema": {"type": "string"}}},
            },
        },
    }
    if operation.scope:
        # Without tokens a server on loopback lets everybody of its machine in.
        described["security"] = [{}, {"token": []}]
        described["description"] = f"A token needs the scope `{operation.scope}`."
    if operation.body:
        is_sql = operation.path == "/sql"
        described["requestBody"] = {
            "required": True,
            "content": {
                media_type: {"schema": {"$ref": "#/components/schemas/Query"}}
                if is_sql and media_type == JSON
                else {}
                for media_type in operation.body
            },
        }
    return described


def _in_path(path: str) -> Iterable[JsonObject]:
    for fragment in path.split("/"):
        if fragment.startswith("{"):
            name = fragment.strip("{}")
            schema = {"type": "string", "minLength": 1}
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(name: str) -> JsonObject:
    value_type, description = _QUERY_PARAMETERS[name]
    schema: JsonObject = {"type": value_type}
    if value_type == "array":
        schema["items"] = {"type": "string"}
    return {"name": name, "in": "query", "description": description, "schema": schema}
