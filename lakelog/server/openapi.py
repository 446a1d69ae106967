"""The paths of a server as a document of OpenAPI 3.1, for programs that make clients of it.

`openapi.toml` has the operations; a test holds that it has every route, and no other. Those of the
dashboard are taken from their handlers: they are what its pages need, and change with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from lakelog.runtime.tables import ModuleFiles
from lakelog.settings import VERSION
from lakelog.values import JsonObject

JSON = "application/json"
_TEXT, _FORM = "text/plain", "application/x-www-form-urlencoded"


def document(handlers: Mapping[tuple[str, str], Callable[..., object]]) -> JsonObject:
    """Return the document; `handlers` are those of the dashboard by method and path, whose
    docstrings say what they do."""
    tables = ModuleFiles(__file__).tables("openapi.toml")
    paths: dict[str, JsonObject] = {}
    for group, operations in (*tables["operations"].items(), ("Dashboard", _dashboard(handlers))):
        for key, operation in operations.items():
            *methods, path = key.split()
            for method in methods:
                described = _described(method, path, operation, tables["parameters"])
                paths.setdefault(path, {})[method.lower()] = {"tags": [group], **described}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lakelog",
            "version": VERSION,
            "description": "One lake of events over HTTP: see docs/serving.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # In an order that does not change with that of the tables: clients are made from it.
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": tables["schemas"],
        },
    }


def _dashboard(handlers: Mapping[tuple[str, str], Callable[..., object]]) -> dict[str, JsonObject]:
    """The operations of the dashboard, as the table has those of others."""
    return {
        f"{method} {path}": {
            "summary": (handler.__doc__ or path).partition("\n")[0],
            "scope": "read" if method == "GET" else "admin",
            "body": [JSON] if method == "POST" else [],
        }
        for (method, path), handler in handlers.items()
    }


def _described(method: str, path: str, operation: JsonObject, parameters: JsonObject) -> JsonObject:
    error = {"schema": {"$ref": "#/components/schemas/Error"}}
    in_query = []
    for name in operation.get("query", ()):
        schema: JsonObject = {"type": parameters[name]["type"]}
        if schema["type"] == "array":
            schema["items"] = {"type": "string"}
        about = parameters[name]["description"]
        in_query.append({"name": name, "in": "query", "description": about, "schema": schema})
    described: JsonObject = {
        "operationId": f"{method} {path}",
        "summary": operation["summary"],
        "parameters": [*_in_path(path), *in_query],
        "responses": {
            "200": {
                "description": "The answer.",
                "content": _content(operation.get("answer", (JSON,))),
            },
            "default": {
                "description": "An error: what is wrong, and what to do next.",
                "content": {JSON: error, _TEXT: {"schema": {"type": "string"}}},
            },
        },
    }
    if scope := operation.get("scope"):
        # Without tokens a server on loopback lets everybody of its machine in.
        described["security"] = [{}, {"token": []}]
        described["description"] = f"A token needs the scope `{scope}`."
    is_form = operation.get("form") and method == "POST"
    if body := operation.get("body") or ([_FORM] if is_form else []):
        content = _content(body)
        if "schema" in operation:
            content[JSON] = {"schema": {"$ref": f"#/components/schemas/{operation['schema']}"}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _content(media_types: Iterable[str]) -> JsonObject:
    """What may be of these types: makers of clients leave out what has no schema."""
    schemas: dict[str, JsonObject] = {JSON: {}, _FORM: {"type": "object"}}
    return {each: {"schema": schemas.get(each, {"type": "string"})} for each in media_types}


def _in_path(path: str) -> Iterator[JsonObject]:
    for fragment in path.split("/"):
        if fragment.startswith("{"):
            name = fragment.strip("{}")
            schema = {"type": "string", "minLength": 1}
            yield {"name": name, "in": "path", "required": True, "schema": schema}
