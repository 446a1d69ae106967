"""Chats in spans and log records: OpenTelemetry GenAI old and new, OpenInference, the AI SDK.

New GenAI conventions have `gen_ai.input.messages`, `gen_ai.output.messages` and
`gen_ai.system_instructions`; older ones an event a message (`gen_ai.user.message`), JSON in
`gen_ai.prompt`, or one attribute a field (`gen_ai.prompt.0.role`, `llm.input_messages.0...`).
"""

from __future__ import annotations

import re
from typing import Any

from lakelog.train.shapes.parts import Message, listed, parsed

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


def attributes(payload: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a span: a dict, OTLP's list of keys and values, or Langfuse's metadata."""
    found = payload.get("attributes")
    if found is None:
        metadata = parsed(payload.get("metadata"))
        found = metadata.get("attributes") if isinstance(metadata, dict) else None
    if isinstance(found, list):
        return {a["key"]: plain(a.get("value")) for a in found if _is_attribute(a)}
    if isinstance(found, dict):
        return found
    return {k: v for k, v in payload.items() if k.startswith(("gen_ai.", "llm."))}


def _is_attribute(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("key"), str)


def plain(value: Any) -> Any:
    """The value that OTLP/JSON wraps in a name of its type."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    kind, inner = next(iter(value.items()))
    if kind == "arrayValue":
        return [plain(v) for v in _values(inner)]
    if kind == "kvlistValue":
        return {v["key"]: plain(v.get("value")) for v in _values(inner) if _is_attribute(v)}
    if kind in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        return inner
    return _whole(inner) if kind == "intValue" else value


def _whole(value: Any) -> Any:
    try:
        return int(value)  # OTLP/JSON writes 64-bit integers as text
    except (TypeError, ValueError):
        return value


def _values(inner: Any) -> list[Any]:
    return listed(inner.get("values")) if isinstance(inner, dict) else []


def event(payload: dict[str, Any]) -> list[Any]:
    """The message of a log record that is an event such as `gen_ai.user.message`."""
    fields = attributes(payload)
    name = payload.get("eventName") or payload.get("event_name") or fields.get("event.name")
    match = _EVENT.fullmatch(str(name or payload.get("event.name") or ""))
    if not match:
        return []
    body = plain(parsed(payload.get("body")))
    if body is None:
        body = {k: v for k, v in payload.items() if k in ("role", "content", "message", "id")}
    return [_of_event(match, body if isinstance(body, dict) else {"content": body})]


def _of_event(match: re.Match[str], fields: dict[str, Any]) -> Message:
    role = match[1] or "assistant"
    message = parsed(fields.get("message"))
    inner = message if isinstance(message, dict) else fields
    return {"role": role, **inner, **({"content": message} if isinstance(message, str) else {})}


def spoken(fields: dict[str, Any], payload: dict[str, Any]) -> tuple[list[Any], list[Any]] | None:
    """What was said to the model and what it answered, by the attributes and events of a span."""
    asked = listed(fields.get("gen_ai.input.messages"))
    answered = listed(fields.get("gen_ai.output.messages"))
    if asked or answered:
        system = parsed(fields.get("gen_ai.system_instructions"))
        system = [system] if isinstance(system, str) and system else listed(system)
        return [*([{"role": "system", "parts": system}] if system else []), *asked], answered
    for pattern in _INDEXED:
        if found := _indexed(fields, pattern):
            return found, []
    if events := listed(fields.get("events")) or _span_events(payload):
        return events, []
    if asked := listed(fields.get("gen_ai.prompt")):
        return asked, _completion(fields.get("gen_ai.completion"))
    return None


def bodies(fields: dict[str, Any]) -> tuple[Any, Any] | None:
    """Request and answer that a span has as JSON in two attributes."""
    if fields.get("openinference.span.kind", "LLM") != "LLM":
        return None
    for asked, answered in _BODIES:
        if fields.get(asked):
            answer = parsed(fields.get(answered))
            if asked.startswith("ai.") and fields.get("ai.response.toolCalls"):
                answer = {"text": answer, "toolCalls": parsed(fields["ai.response.toolCalls"])}
            return parsed(fields[asked]), answer
    return None


def _completion(value: Any) -> list[Any]:
    made = parsed(value)
    return made if isinstance(made, list) else [{"role": "assistant", "content": made}]


def _indexed(fields: dict[str, Any], pattern: re.Pattern[str]) -> list[Message]:
    """Messages written as one attribute a field: `gen_ai.prompt.0.role`."""
    made: dict[tuple[int, int], Message] = {}
    for key, value in fields.items():
        if match := pattern.fullmatch(key):
            answer = match[1] in ("completion", "output_messages")
            place = (int(answer), int(match[2]))
            _put(made.setdefault(place, {"role": "assistant"} if answer else {}), match[3], value)
    for message in made.values():
        parts = message.pop("parts by place", {})
        if parts:
            message["content"] = [parts[place] for place in sorted(parts)]
    return [made[place] for place in sorted(made)]


def _put(made: Message, name: str, value: Any) -> None:
    """Set a field of a message, `tool_calls.0.tool_call.function.name` included."""
    if match := _CALL.fullmatch(name):
        calls = made.setdefault("tool_calls", {})
        calls.setdefault(int(match[1]), {})[match[2]] = value
    elif match := _CONTENT.fullmatch(name):
        parts = made.setdefault("parts by place", {})
        parts.setdefault(int(match[1]), {})[match[2]] = value
    else:
        made[name] = value


def _span_events(payload: dict[str, Any]) -> list[Any]:
    """Messages that a span has as events: `gen_ai.user.message` and older ones."""
    made: list[Any] = []
    events = payload.get("events")
    for one in events if isinstance(events, list) else []:
        if not isinstance(one, dict):
            continue
        name, fields = str(one.get("name", "")), attributes(one) or {}
        if match := _EVENT.fullmatch(name):
            made.append(_of_event(match, fields))
        elif name == "gen_ai.content.prompt":
            made += listed(fields.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            made += _completion(fields.get("gen_ai.completion"))
        elif name == "gen_ai.client.inference.operation.details":
            asked, answered = spoken(fields, {}) or ([], [])
            made += [*asked, *answered]
    return made
