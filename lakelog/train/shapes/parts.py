"""What a part of a chat message is: text, a tool call, a tool's result, an image, ..., by dialect.

Parts are told apart by `type` (OpenAI, Anthropic, OpenTelemetry, the AI SDK) or by the one key that
they have (Gemini, Bedrock). Tool calls come out in OpenAI's form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from lakelog.train.tables import DIALECTS, invert, read_table

_WORDS = read_table(DIALECTS)["parts"]
Payload = dict[str, Any]
"""An object of JSON: what was logged, a message in it, or a part of one, in any dialect."""
JsonList = list[Any]
ChatMessage = Payload
"""A message in the form of a row, see `messages`."""
_TEXTS = frozenset(_WORDS["texts"])
CALLS = frozenset(_WORDS["calls"])
REPLIES = frozenset(_WORDS["replies"])
REASONING = frozenset(_WORDS["reasoning"])
BUILTIN = frozenset(_WORDS["builtin"])
_MEDIA = invert(read_table(DIALECTS)["media"])
PART_FIELDS = frozenset(_WORDS["fields"])
"""Fields of a text part that are read or say nothing to a model."""
_SILENT = frozenset(_WORDS["silent"])


def from_json(value: object) -> Any:
    """Return what JSON text holds, or the value itself."""
    # Only what can be an object, list or string: the text 42 or true is content, not JSON.
    if isinstance(value, str) and value[:1] in ('"', "[", "{"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def list_from_json(value: object) -> JsonList:
    """Return a list, also one that a text holds as JSON; of anything else an empty one."""
    decoded = from_json(value)
    return decoded if isinstance(decoded, list) else []


def as_text(value: object) -> str:
    """Return a text as it is and anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def kind_of(item: Payload) -> tuple[str, Any]:
    """Return what a part is, and the value that is read of it."""
    part_type = str(item.get("type", ""))
    # Gemini and Bedrock have no type; the one key of the part says what it is.
    for key in ("functionCall", "function_call", "toolUse"):
        if isinstance(item.get(key), dict):
            return "call", item[key]
    for key in ("functionResponse", "function_response", "toolResult"):
        if isinstance(item.get(key), dict):
            return "reply", item[key]
    if part_type in CALLS:
        return "call", item
    if part_type in REPLIES:
        return "reply", item
    if part_type == "tool-invocation" and isinstance(item.get("toolInvocation"), dict):
        return "invocation", item["toolInvocation"]
    # The AI SDK 5 puts the tool's name into the type.
    if part_type.startswith("tool-") and "toolCallId" in item:
        return "invocation", {"toolName": part_type.removeprefix("tool-"), **item}
    # Before text: a thought of Gemini is a text part with a flag.
    if part_type in REASONING or item.get("thought") is True or "reasoningContent" in item:
        return "reasoning", None
    if part_type in BUILTIN or part_type.endswith("_tool_result") or not BUILTIN.isdisjoint(item):
        return "builtin_call", None
    if medium := _medium_of(item, part_type):
        return medium, None
    return _textual(item, part_type)


def _textual(item: Payload, part_type: str) -> tuple[str, Any]:
    if part_type in _TEXTS or not part_type:
        for key in ("text", "content", "refusal"):
            if isinstance(item.get(key), str):
                return "text", item[key]
    guarded = item.get("guardContent") or item.get("citationsContent")
    if isinstance(guarded, dict):
        inner = guarded.get("content", guarded.get("text"))
        return "parts", inner if isinstance(inner, list) else [inner]
    if "json" in item:
        return "text", as_text(item["json"])
    return (
        "silent" if part_type in _SILENT or not _SILENT.isdisjoint(item) else "other_part"
    ), None


def _medium_of(item: Payload, part_type: str) -> str | None:
    """Return image, audio, video or file for a part that is one."""
    key = (
        part_type
        if part_type in _MEDIA
        else next((k for k in _MEDIA if isinstance(item.get(k), dict)), "")
    )
    if not key:
        return None
    body = item.get(key) if isinstance(item.get(key), dict) else {}
    names = ("mime_type", "mimeType", "mediaType", "media_type", "modality")
    mime_type = next(
        (h[n] for h in (item, body or {}) for n in names if isinstance(h.get(n), str)), ""
    )
    # The MIME type is more exact than the part's name: Gemini's inlineData may be any medium.
    medium = mime_type.split("/")[0].lower()
    return medium if medium in ("image", "audio", "video") else _MEDIA[key]


CALL_IDS = tuple(_WORDS["call_ids"])


def id_of(fields: Payload, names: tuple[str, ...]) -> str | None:
    """Return the first id that stands under one of the names, as text."""
    ids = (fields.get(name) for name in names)
    return next((str(f) for f in ids if f), None)


def reply_of(fields: Payload) -> Any:
    """What a tool answered; the AI SDK says its type beside it."""
    value = next(
        (fields[k] for k in ("result", "response", "content", "output") if k in fields), None
    )
    if isinstance(value, dict) and set(value) == {"type", "value"}:
        return value["value"]
    return value


def are_parts(value: object) -> bool:
    """Whether a value is a list of parts, all of known kinds."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, dict) and kind_of(v)[0] != "other_part" for v in value)
    )


def parts_from_json(value: object) -> Any:
    """Return the parts that a text holds as JSON, as attributes of spans do; else the value."""
    decoded = from_json(value) if isinstance(value, str) and value.startswith('[{"type"') else value
    return decoded if isinstance(decoded, list) and are_parts(decoded) else value


def calls(value: object) -> list[ChatMessage]:
    """Return tool calls in OpenAI's form; arguments are JSON text, a missing id is None."""
    tool_calls = []
    for call in _in_order(value):
        call = from_json(call)
        if not isinstance(call, dict):
            continue
        # Chat completions nest name and arguments under function, Responses and Anthropic do not.
        inner = next(
            (call[k] for k in ("function", "custom") if isinstance(call.get(k), dict)), call
        )
        name = inner.get("name") or call.get("toolName")
        if not name:
            continue
        arguments: object = next(
            (inner[k] for k in ("arguments", "args", "input", "parameters") if k in inner), {}
        )
        tool_calls.append(
            {
                "id": id_of(call, CALL_IDS),
                "type": "function",
                "function": {"name": str(name), "arguments": as_text(arguments)},
            }
        )
    return tool_calls


def _in_order(value: object) -> Iterator[Any]:
    if isinstance(value, dict):
        # Streams and span attributes number the calls, and dicts keep the order of arrival instead.
        indexed = value and all(isinstance(k, int) for k in value)
        value = [value[k] for k in sorted(value)] if indexed else [value]
    yield from value if isinstance(value, list) else ()


def is_calls(content: str) -> bool:
    """Whether a text is a JSON list of tool calls, as some frameworks write them."""
    if not content.startswith('[{"') or '"function"' not in content:
        return False
    return bool(calls(from_json(content)))
