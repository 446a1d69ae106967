"""Chat messages out of payloads, whatever wrote them.

Understood are: OpenAI bodies (`messages`, `choices`, `tool_calls`), OpenTelemetry GenAI spans
(`gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.prompt.0.role`, and the events
`gen_ai.user.message`), OpenInference spans (`llm.input_messages.0.message.role`), the observations
of Langfuse (`input`, `output`), ShareGPT (`conversations`), Gemini's `contents` and `parts`, the
tool calls of the AI SDK, whole OTLP and trace documents, and single messages (`role`, `content`).
A message is a dict of role, content, name, tool_calls and tool_call_id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

Message = dict[str, Any]
ROLES = {
    "system": "system", "developer": "system", "instructions": "system",
    "user": "user", "human": "user", "customer": "user",
    "assistant": "assistant", "ai": "assistant", "bot": "assistant", "gpt": "assistant",
    "model": "assistant", "agent": "assistant",
    "tool": "tool", "function": "tool", "tool_result": "tool", "tool-result": "tool",
}  # fmt: skip
_INDEXED = (
    re.compile(r"gen_ai\.(prompt|completion)\.(\d+)\.(.+)"),
    re.compile(r"llm\.(input_messages|output_messages)\.(\d+)\.message\.(.+)"),
)
_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message|gen_ai\.choice")
_CALL = re.compile(r"(?:message\.)?tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(\w+)")


@dataclass(frozen=True)
class Chat:
    """What one payload says: a whole conversation so far, or messages that follow others."""

    messages: list[Message]
    whole: bool
    trace: str | None = None
    time: str = ""


def chats(payload: Any) -> Iterator[Chat]:
    """Yield the chats of a payload; of a document with many spans, one a span."""
    if not isinstance(payload, dict):
        return
    if isinstance(payload.get("resourceSpans"), list):
        for span in _otlp_spans(payload):
            yield from chats(span)
        return
    if isinstance(payload.get("observations"), list):
        for observation in payload["observations"]:
            yield from chats(observation)
        return
    trace = _trace_of(payload)
    found = _of_attributes(_attributes(payload), payload) or _of_body(payload)
    if found:
        messages, whole = found
        made = [m for given in messages for m in said(given)]
        if made and made[-1]["role"] != "assistant" and whole:
            made += [m for given in _answers(payload) for m in said(given)]
        if made:
            when = str(payload.get("startTime") or payload.get("startTimeUnixNano") or "")
            yield Chat(made, whole, trace, when)


def _otlp_spans(document: dict[str, Any]) -> Iterator[Any]:
    for resource in document["resourceSpans"]:
        for scope in (
            resource.get("scopeSpans") or resource.get("instrumentationLibrarySpans") or []
        ):
            yield from scope.get("spans") or []


def _trace_of(payload: dict[str, Any]) -> str | None:
    context = payload.get("context") if isinstance(payload.get("context"), dict) else {}
    for holder in (payload, context):
        for key in ("traceId", "trace_id", "session_id", "conversation_id", "thread_id"):
            if isinstance(holder, dict) and isinstance(holder.get(key), str) and holder[key]:
                return str(holder[key])
    return None


def _attributes(payload: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a span: a dict, OTLP's list of keys and values, or Langfuse's metadata."""
    found = payload.get("attributes")
    if found is None:
        metadata = _parsed(payload.get("metadata"))
        found = metadata.get("attributes") if isinstance(metadata, dict) else None
    if isinstance(found, list):
        return {a["key"]: _otlp_value(a.get("value")) for a in found if _is_attribute(a)}
    if isinstance(found, dict):
        return found
    return {k: v for k, v in payload.items() if k.startswith(("gen_ai.", "llm."))}


def _is_attribute(made: Any) -> bool:
    return isinstance(made, dict) and isinstance(made.get("key"), str)


def _otlp_value(value: Any) -> Any:
    """The value that OTLP/JSON wraps in a name of its type."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    kind, inner = next(iter(value.items()))
    if kind == "arrayValue":
        return [_otlp_value(v) for v in (inner or {}).get("values", [])]
    if kind == "kvlistValue":
        return {v["key"]: _otlp_value(v.get("value")) for v in (inner or {}).get("values", [])}
    return int(inner) if kind == "intValue" else inner


def _of_attributes(
    attributes: dict[str, Any], payload: dict[str, Any]
) -> tuple[list[Any], bool] | None:
    """Messages of a GenAI or OpenInference span."""
    asked = _listed(attributes.get("gen_ai.input.messages"))
    answered = _listed(attributes.get("gen_ai.output.messages"))
    if asked or answered:
        system = _listed(attributes.get("gen_ai.system_instructions"))
        head = [{"role": "system", "parts": system}] if system else []
        return [*head, *asked, *answered], True
    for pattern in _INDEXED:
        if found := _indexed(attributes, pattern):
            return found, True
    events = _listed(attributes.get("events")) or _span_events(payload)
    if events:
        return events, True
    return None


def _indexed(attributes: dict[str, Any], pattern: re.Pattern[str]) -> list[Message]:
    """Messages written as one attribute a field: `gen_ai.prompt.0.role`."""
    made: dict[tuple[int, int], Message] = {}
    for key, value in attributes.items():
        if match := pattern.fullmatch(key):
            answer = match[1] in ("completion", "output_messages")
            place = (int(answer), int(match[2]))
            _put(made.setdefault(place, {"role": "assistant"} if answer else {}), match[3], value)
    return [made[place] for place in sorted(made)]


def _put(made: Message, name: str, value: Any) -> None:
    """Set a field of a message, `tool_calls.0.tool_call.function.name` included."""
    if match := _CALL.fullmatch(name):
        calls = made.setdefault("tool_calls", {})
        calls.setdefault(int(match[1]), {})[match[2]] = value
    elif name.startswith("contents."):
        if name.endswith(".text"):
            made["content"] = "\n".join(filter(None, [made.get("content"), value]))
    else:
        made[name] = value


def _span_events(payload: dict[str, Any]) -> list[Any]:
    """Messages that a span has as events: `gen_ai.user.message` and the like."""
    made = []
    for event in payload.get("events") or []:
        if isinstance(event, dict) and _EVENT.fullmatch(str(event.get("name", ""))):
            role = event["name"].split(".")[1]
            fields = _attributes(event) or {}
            made.append({"role": "assistant" if role == "choice" else role, **fields})
    return made


def _of_body(payload: dict[str, Any]) -> tuple[list[Any], bool] | None:
    """Messages of a request and its answer, an observation, or one message."""
    for key in ("conversations", "messages", "contents"):
        if isinstance(_parsed(payload.get(key)), list):
            return [*_system(payload), *_parsed(payload[key]), *_answers(payload)], True
    if payload.get("type") in ("SPAN", "CHAIN", "TOOL", "AGENT", "EVENT"):
        return None  # parts of a trace whose messages stand in its generations
    if "input" in payload and "output" in payload:
        asked = _asked(_parsed(payload["input"]))
        return ([*asked, *_answers(payload)], True) if asked else None
    if "role" in payload and ("content" in payload or "tool_calls" in payload):
        return [payload], False
    if isinstance(payload.get("message"), dict) and "role" in payload["message"]:
        return [payload["message"]], False
    if isinstance(payload.get("prompt"), str):
        answers = _answers(payload)
        return (
            ([{"role": "user", "content": payload["prompt"]}, *answers], True) if answers else None
        )
    return None


def _asked(given: Any) -> list[Any]:
    """What was said to a model: a list of messages, a body with one, or a prompt."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if isinstance(given, list):
        return given
    if isinstance(given, dict):
        found = _of_body({k: v for k, v in given.items() if k != "output"})
        if found:
            return [*_system(given), *found[0]] if "messages" not in given else found[0]
        if isinstance(given.get("prompt"), str):
            return [{"role": "user", "content": given["prompt"]}]
    return []


def _system(body: dict[str, Any]) -> list[Message]:
    """The system prompt that stands beside the messages."""
    config = body.get("config") if isinstance(body.get("config"), dict) else {}
    for holder in (body, config):
        for key in ("system", "system_instruction", "instructions"):
            if isinstance(holder, dict) and isinstance(holder.get(key), str) and holder[key]:
                return [{"role": "system", "content": holder[key]}]
    return []


def _answers(body: dict[str, Any]) -> list[Any]:
    """What the model answered."""
    for key in ("response", "output", "completion", "answer"):
        given = _parsed(body.get(key))
        if given in (None, "", [], {}):
            continue
        return _answer(given)
    return _answer(body) if "choices" in body else []


def _answer(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [{"role": "assistant", "content": given}]
    if isinstance(given, list):
        if given and all(
            isinstance(g, dict) and ("toolName" in g or "function" in g) for g in given
        ):
            return [{"role": "assistant", "content": None, "tool_calls": given}]
        return [g for item in given for g in _answer(item)]
    if isinstance(given, dict):
        if isinstance(given.get("choices"), list):
            return [g for choice in given["choices"][:1] for g in _answer(choice)]
        inner: dict[str, Any] = given
        if isinstance(given.get("message"), dict):
            inner = given["message"]
        inner = inner["content"] if isinstance(inner.get("content"), dict) else inner
        return [{"role": "assistant", **inner}]
    return []


def said(given: Any) -> list[Message]:
    """Return the messages that something in any of these dialects is, in one form."""
    if not isinstance(given, dict):
        return []
    if isinstance(given.get("message"), dict):
        given = {"role": "assistant", **given["message"]}
    parts = given.get("parts", given.get("content"))
    replies = [p for p in parts if _is_reply(p)] if isinstance(parts, list) else []
    if len(replies) > 1:
        key = "parts" if "parts" in given else "content"
        rest = [p for p in parts if not _is_reply(p)]
        single = [_message({**given, key: [reply]}) for reply in replies]
        return [m for m in [*single, _message({**given, key: rest}) if rest else None] if m]
    made = _message(given)
    return [made] if made else []


def _is_reply(part: Any) -> bool:
    return isinstance(part, dict) and (
        part.get("type") in ("tool_call_response", "tool_result", "tool-result")
        or "functionResponse" in part
        or "function_response" in part
    )


def _message(given: dict[str, Any]) -> Message | None:
    role = given.get("role") or given.get("from") or given.get("type") or ""
    role = ROLES.get(str(role).lower(), "")
    if not role:
        return None
    more = given["additional_kwargs"] if isinstance(given.get("additional_kwargs"), dict) else {}
    content = given.get("content", given.get("value", given.get("text")))
    parts = given.get("parts", content if isinstance(content, list) else None)
    calls = _calls(given.get("tool_calls") or more.get("tool_calls"))
    answer_to = given.get("tool_call_id") or given.get("toolCallId")
    if isinstance(parts, list):
        content, found, answered = _of_parts(parts)
        calls += found
        if answered is not None and answer_to is None:
            role, answer_to = "tool", answered
    elif isinstance(content, str) and role in ("assistant", "tool") and _is_calls(content):
        role, calls, content = "assistant", calls + _calls(orjson.loads(content)), None
    elif isinstance(content, dict) and role == "tool" and "function" in content:
        return None  # a tool's definition, not its answer
    if content is not None and not isinstance(content, str):
        content = orjson.dumps(content).decode()
    if not content and not calls:
        return None
    name = given.get("name")
    return {
        "role": role, "content": content or None, "name": name if isinstance(name, str) else None,
        "tool_calls": calls or None, "tool_call_id": str(answer_to) if answer_to else None,
    }  # fmt: skip


def _of_parts(parts: list[Any]) -> tuple[str | None, list[Message], str | None]:
    """Return (text, tool calls, the call that is answered) of a list of parts."""
    texts: list[str] = []
    calls: list[Message] = []
    answered = None
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind = str(part.get("type", ""))
            inner = part.get("functionCall") or part.get("function_call")
            reply = part.get("functionResponse") or part.get("function_response")
            if inner or kind in ("tool_call", "tool_use", "tool-call"):
                calls += _calls([inner or part])
            elif reply or kind in ("tool_call_response", "tool_result", "tool-result"):
                answered = _id_of(reply or part) or "call"
                texts.append(_as_text(_reply_of(reply or part)))
            elif isinstance(part.get("text", part.get("content")), str):
                texts.append(str(part.get("text", part.get("content"))))
    return "\n".join(filter(None, texts)) or None, calls, answered


def _reply_of(part: dict[str, Any]) -> Any:
    return next((part[k] for k in ("result", "response", "content", "output") if k in part), "")


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _id_of(part: dict[str, Any]) -> str | None:
    found = (part.get(k) for k in ("id", "tool_call_id", "tool_use_id", "toolCallId", "name"))
    return next((str(f) for f in found if f), None)


def _calls(given: Any) -> list[Message]:
    """Return tool calls in OpenAI's form; arguments are JSON text."""
    if isinstance(given, str):
        given = _parsed(given)
    if isinstance(given, dict):
        given = (
            [given[k] for k in sorted(given)] if all(isinstance(k, int) for k in given) else [given]
        )
    made = []
    for call in given if isinstance(given, list) else []:
        if not isinstance(call, dict):
            continue
        inner = call["function"] if isinstance(call.get("function"), dict) else call
        name = inner.get("name") or call.get("toolName")
        if not name:
            continue
        arguments: Any = next(
            (inner[k] for k in ("arguments", "args", "input", "parameters") if k in inner), {}
        )
        made.append({
            "id": _id_of(call) or str(name), "type": "function",
            "function": {"name": str(name), "arguments": _as_text(arguments)},
        })  # fmt: skip
    return made


def _is_calls(text: str) -> bool:
    """Whether a text is a JSON list of tool calls, as some frameworks write them."""
    if not text.startswith('[{"') or '"function"' not in text:
        return False
    return bool(_calls(_parsed(text)))


def _listed(value: Any) -> list[Any]:
    parsed = _parsed(value)
    return parsed if isinstance(parsed, list) else []


def _parsed(value: Any) -> Any:
    """Return what JSON text holds, or the value itself."""
    if isinstance(value, str) and value[:1] in ('"', "[", "{"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value
