"""Tool definitions in OpenAI's form, whatever API, SDK or span they stand in.

A definition is `{"type": "function", "function": {name, description, parameters}}`; tools that the
provider runs itself, such as a web search, stay as they are.
"""

from __future__ import annotations

import re

from lakelog.train.shapes.parts import JsonList, Payload, from_json
from lakelog.train.tables import DIALECTS, read_table

_WORDS = read_table(DIALECTS)["tools"]
ToolSchema = Payload
_PARAMETERS = tuple(_WORDS["parameters"])
_KEYS = tuple(_WORDS["lists"])
_HOLDERS = tuple(_WORDS["holders"])
_PLAIN = (None, "", "function", "custom", "default")
_INDEXED = re.compile(
    r"llm\.(?:request\.functions|tools)\.(\d+)\.(?:tool\.)?(name|description|parameters|json_schema)"
)
_ATTRIBUTES = tuple(_WORDS["attributes"])


def schemas(value: object) -> list[ToolSchema]:
    """Return the definitions in a list of tools of any dialect, or in its JSON text."""
    value = from_json(value)
    if isinstance(value, dict):
        is_by_name = _is_by_name(value)
        value = [{"name": n, **from_json(v)} for n, v in value.items()] if is_by_name else [value]
    return (
        [s for tool in value for s in _schema(from_json(tool))] if isinstance(value, list) else []
    )


def _is_by_name(fields: Payload) -> bool:
    """Whether it maps names to definitions, as Langfuse keeps them."""
    names = "name type function toolSpec functionDeclarations function_declarations"
    return set(names.split()).isdisjoint(fields) and all(
        isinstance(from_json(v), dict) for v in fields.values()
    )


def _schema(tool: object) -> list[ToolSchema]:
    # Bedrock lists marks of its cache among the tools.
    if not isinstance(tool, dict) or set(tool) <= {"cachePoint"}:
        return []
    for key in ("functionDeclarations", "function_declarations"):
        if isinstance(tool.get(key), list):
            # Gemini puts its built-in tools into the same object as the functions.
            builtin_tools = {k: v for k, v in tool.items() if k != key and v is not None}
            return [*schemas(tool[key]), *([builtin_tools] if builtin_tools else [])]
    if isinstance(tool.get("toolSpec"), dict):
        return _schema(tool["toolSpec"])
    if isinstance(tool.get("function"), dict):
        return [{"type": "function", **{k: v for k, v in tool.items() if v is not None}}]
    if tool.get("name") and tool.get("type") in _PLAIN and "format" not in tool:
        return [{"type": "function", "function": _function(tool)}]
    return [tool]


def _function(tool: Payload) -> Payload:
    """Name, description, parameters and whatever else a definition says but its cache mark."""
    key = next((k for k in _PARAMETERS if tool.get(k) is not None), None)
    parameters = from_json(tool[key]) if key else None
    if isinstance(parameters, dict) and isinstance(parameters.get("json"), dict):
        parameters = parameters["json"]
    description = tool.get("description")
    function = {"name": tool["name"], "description": description, "parameters": parameters}
    handled = ("name", "description", "type", "cache_control", "kind", key)
    function |= {k: v for k, v in tool.items() if k not in handled}
    return {k: v for k, v in function.items() if v is not None}


def of_body(body: object) -> list[ToolSchema]:
    """Return the definitions of a request, wherever it keeps them."""
    definitions: list[ToolSchema] = []
    body = from_json(body)
    if not isinstance(body, dict):
        return definitions
    for key in _KEYS:
        if body.get(key):
            definitions += schemas(body[key])
    # Bedrock, Gemini and LangChain nest the tools one or two levels deeper.
    for key in _HOLDERS:
        definitions += of_body(body.get(key))
    return definitions


def of_attributes(attributes: Payload) -> list[ToolSchema]:
    """Return the definitions that a span has in its attributes."""
    definitions = [s for key in _ATTRIBUTES for s in schemas(attributes.get(key))]
    indexed: dict[int, Payload] = {}
    for key, value in attributes.items():
        if match := _INDEXED.fullmatch(key):
            decoded = from_json(value)
            fields = decoded if match[2] == "json_schema" and isinstance(decoded, dict) else None
            indexed.setdefault(int(match[1]), {}).update(fields or {match[2]: decoded})
    definitions += [s for place in sorted(indexed) for s in _schema(indexed[place])]
    requested = from_json(attributes.get("model_request_parameters"))
    if isinstance(requested, dict):
        definitions += schemas(requested.get("function_tools")) + schemas(
            requested.get("output_tools")
        )
    return definitions


def extract(messages: JsonList) -> tuple[JsonList, list[ToolSchema]]:
    """Separate tool definitions that are listed among messages, with role `tool`."""
    remaining, definitions = [], []
    for message in messages:
        content = from_json(message.get("content")) if isinstance(message, dict) else None
        is_tool = isinstance(message, dict) and message.get("role") == "tool"
        if is_tool and isinstance(content, dict) and isinstance(content.get("function"), dict):
            definitions += schemas([content])
        else:
            remaining.append(message)
    return remaining, definitions


def unique(items: list[ToolSchema]) -> list[ToolSchema]:
    """Return the distinct definitions in their order."""
    # Compared one by one: no set holds dicts, and a request has few tools.
    distinct: list[ToolSchema] = []
    for schema in items:
        if schema not in distinct:
            distinct.append(schema)
    return distinct
