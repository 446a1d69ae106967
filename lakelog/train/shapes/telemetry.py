"""Chats in spans and log records: OpenTelemetry GenAI old and new, OpenInference, the AI SDK.

New GenAI conventions have `gen_ai.input.messages`, `gen_ai.output.messages` and
`gen_ai.system_instructions`; older ones an event a message (`gen_ai.user.message`), JSON in
`gen_ai.prompt`, or one attribute a field (`gen_ai.prompt.0.role`, `llm.input_messages.0...`).
"""

from __future__ import annotations

import re
from typing import Any

from lakelog.train.shapes.parts import ChatMessage, JsonList, Payload, from_json, list_from_json

_INDEXED = (
    re.compile(r"gen_ai\.(prompt|completion)\.(\d+)\.(.+)"),
    re.compile(r"llm\.(input_messages|output_messages)\.(\d+)\.message\.(.+)"),
)
_EVENT = re.compile(r"gen_ai\.(?:(system|user|assistant|tool)\.message|(choice))")
_CALL = re.compile(r"(?:message\.)?tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(\w+)")
_CONTENT = re.compile(r"contents\.(\d+)\.(?:message_content\.)?(.+)")
_BODIES = (
    ("ai.prompt.messages", "ai.response.text"),
    ("ai.prompt", "ai.response.text"),
    ("gcp.vertex.agent.llm_request", "gcp.vertex.agent.llm_response"),
    ("input.value", "output.value"),
)


def attributes(payload: Payload) -> Payload:
    """The attributes of a span: a dict, OTLP's list of keys and values, or Langfuse's metadata."""
    fields = payload.get("attributes")
    # Langfuse keeps the original span attributes in the metadata of its observations.
    if fields is None:
        metadata = from_json(payload.get("metadata"))
        fields = metadata.get("attributes") if isinstance(metadata, dict) else None
    if isinstance(fields, list):
        return {a["key"]: plain(a.get("value")) for a in fields if _is_attribute(a)}
    if isinstance(fields, dict):
        return fields
    return {k: v for k, v in payload.items() if k.startswith(("gen_ai.", "llm."))}


def _is_attribute(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("key"), str)


def plain(value: object) -> Any:
    """Unwrap a value of OTLP/JSON, which names its type."""
    # OTLP/JSON wraps every value; SDKs that print spans do not.
    if not isinstance(value, dict) or len(value) != 1:
        return value
    value_type, inner = next(iter(value.items()))
    if value_type == "arrayValue":
        return [plain(v) for v in _values(inner)]
    if value_type == "kvlistValue":
        return {v["key"]: plain(v.get("value")) for v in _values(inner) if _is_attribute(v)}
    if value_type in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        return inner
    return _whole(inner) if value_type == "intValue" else value


def _whole(value: Any) -> Any:
    try:
        return int(value)  # OTLP/JSON writes 64-bit integers as text
    except (TypeError, ValueError):
        return value


def _values(inner: object) -> JsonList:
    return list_from_json(inner.get("values")) if isinstance(inner, dict) else []


def event(payload: Payload) -> JsonList:
    """The message of a log record that is an event such as `gen_ai.user.message`."""
    fields = attributes(payload)
    name = payload.get("eventName") or payload.get("event_name") or fields.get("event.name")
    match = _EVENT.fullmatch(str(name or payload.get("event.name") or ""))
    if not match:
        return []
    body = plain(from_json(payload.get("body")))
    if body is None:
        body = {k: v for k, v in payload.items() if k in ("role", "content", "message", "id")}
    return [_of_event(match, body if isinstance(body, dict) else {"content": body})]


def _of_event(match: re.Match[str], fields: Payload) -> ChatMessage:
    role = match[1] or "assistant"
    message = from_json(fields.get("message"))
    inner = message if isinstance(message, dict) else fields
    return {"role": role, **inner, **({"content": message} if isinstance(message, str) else {})}


def exchange_of(fields: Payload, payload: Payload) -> tuple[JsonList, JsonList] | None:
    """Return request and response messages from the attributes and events of a span."""
    request = list_from_json(fields.get("gen_ai.input.messages"))
    response = list_from_json(fields.get("gen_ai.output.messages"))
    if request or response:
        system = from_json(fields.get("gen_ai.system_instructions"))
        system = [system] if isinstance(system, str) and system else list_from_json(system)
        return [*([{"role": "system", "parts": system}] if system else []), *request], response
    # Newest convention first: libraries in transition emit both, and the old form has fewer
    # details.
    for pattern in _INDEXED:
        if messages := _indexed_messages(fields, pattern):
            return messages, []
    if events := list_from_json(fields.get("events")) or _span_events(payload):
        return events, []
    if request := list_from_json(fields.get("gen_ai.prompt")):
        return request, _completion(fields.get("gen_ai.completion"))
    return None


def bodies(fields: Payload) -> tuple[Any, Any] | None:
    """Request and answer that a span holds as JSON in two attributes."""
    # Other span kinds have input and output as well, which repeat those of the LLM span.
    if fields.get("openinference.span.kind", "LLM") != "LLM":
        return None
    for request_key, response_key in _BODIES:
        if fields.get(request_key):
            answer = from_json(fields.get(response_key))
            # The AI SDK writes text and tool calls of an answer to separate attributes.
            if request_key.startswith("ai.") and fields.get("ai.response.toolCalls"):
                answer = {"text": answer, "toolCalls": from_json(fields["ai.response.toolCalls"])}
            return from_json(fields[request_key]), answer
    return None


def _completion(value: object) -> JsonList:
    decoded = from_json(value)
    return decoded if isinstance(decoded, list) else [{"role": "assistant", "content": decoded}]


def _indexed_messages(fields: Payload, pattern: re.Pattern[str]) -> list[ChatMessage]:
    """Messages written as one attribute a field: `gen_ai.prompt.0.role`."""
    messages: dict[tuple[int, int], ChatMessage] = {}
    for key, value in fields.items():
        if match := pattern.fullmatch(key):
            answer = match[1] in ("completion", "output_messages")
            # Attributes come in any order; prompts sort before completions.
            place = (int(answer), int(match[2]))
            _put(
                messages.setdefault(place, {"role": "assistant"} if answer else {}), match[3], value
            )
    for message in messages.values():
        items = message.pop("parts by place", {})
        if items:
            message["content"] = [items[place] for place in sorted(items)]
    return [messages[place] for place in sorted(messages)]


def _put(message: ChatMessage, name: str, value: object) -> None:
    """Set a field of a message, `tool_calls.0.tool_call.function.name` included."""
    if match := _CALL.fullmatch(name):
        calls = message.setdefault("tool_calls", {})
        calls.setdefault(int(match[1]), {})[match[2]] = value
    elif match := _CONTENT.fullmatch(name):
        items = message.setdefault("parts by place", {})
        items.setdefault(int(match[1]), {})[match[2]] = value
    else:
        message[name] = value


def _span_events(payload: Payload) -> JsonList:
    """Messages that a span has as events: `gen_ai.user.message` and older ones."""
    messages: JsonList = []
    events = payload.get("events")
    for entry in events if isinstance(events, list) else []:
        if not isinstance(entry, dict):
            continue
        name, fields = str(entry.get("name", "")), attributes(entry) or {}
        if match := _EVENT.fullmatch(name):
            messages.append(_of_event(match, fields))
        elif name == "gen_ai.content.prompt":
            messages += list_from_json(fields.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            messages += _completion(fields.get("gen_ai.completion"))
        elif name == "gen_ai.client.inference.operation.details":
            request, response = exchange_of(fields, {}) or ([], [])
            messages += [*request, *response]
    return messages
