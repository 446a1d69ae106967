"""Reading chats from the payloads of any API, SDK or tracing tool.

A payload is a request with its answer (OpenAI chat and Responses, Anthropic, Gemini, Bedrock's
Converse, Ollama; as one body, or as `request` and `response`, `input` and `output`, ...), a span or
log record (`telemetry`), an observation or trace of Langfuse, a run of LangSmith, a state of
LangGraph, a line of ShareGPT or Alpaca, what `chat_exports` reads, or a single message. `messages`
reads the messages and `schemas` the tools; what neither can keep is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lakelog.train.shapes import chat_exports, schemas, streams, telemetry
from lakelog.train.shapes.chat_exports import Line
from lakelog.train.shapes.messages import ITEMS, ROLES, read
from lakelog.train.shapes.parts import (
    CALLS,
    REPLIES,
    ChatMessage,
    JsonList,
    Payload,
    from_json,
    list_from_json,
)
from lakelog.train.shapes.schemas import ToolSchema
from lakelog.train.tables import DIALECTS, read_table

_WORDS = read_table(DIALECTS)["bodies"]
_REQUESTS = tuple(_WORDS["requests"])
_ANSWERS = tuple(_WORDS["answers"])
_TEXTUAL = tuple(_WORDS["textual"])
"""Of those, the ones that may be plain text; a `request` that is text is a line of HTTP."""
_TEXTS = tuple(_WORDS["texts"])
_OTLP = (
    ("resourceSpans", ("scopeSpans", "instrumentationLibrarySpans"), "spans"),
    ("resourceLogs", ("scopeLogs",), "logRecords"),
)
# Names are those of the tools' own APIs: Langfuse in capitals, LangSmith in small letters.
_PARTS_OF_TRACES = frozenset(_WORDS["trace_parts"])
"""Observations and runs without messages of their own: these stand in those of the model."""


@dataclass(frozen=True)
class Chat:
    """What one payload says: a whole conversation so far, or messages that follow others."""

    messages: list[ChatMessage]
    whole: bool
    trace: str | None
    time: str
    tools: list[ToolSchema]
    losses: Counter[str]
    """What could not be kept, by the reasons of `losses`."""
    line: Line | None = None
    """Of a line of a session of Claude Code, its place in the tree."""
    side_chain: str = ""
    """The side chain that the line is of."""


def chats(payload: object, losses: Counter[str] | None = None) -> Iterator[Chat]:
    """Yield the chats of a payload; of a document with many spans, one a span.

    Payloads that no chat can be read from are counted in `losses`.
    """
    losses = Counter() if losses is None else losses
    if isinstance(payload, dict) and chat_exports.is_session(payload):
        yield from _lines_of_session(payload)
        return
    inner = list(_documents(payload)) if isinstance(payload, dict) else []
    # A document of several spans is one chat per span; `conversations` joins those of one trace.
    if inner:
        for span in inner:
            yield from chats(span, losses)
        return
    chat = _chat(payload) if isinstance(payload, dict) else None
    if chat is not None:
        yield chat
    else:
        losses["no_messages" if _is_part_of_trace(payload) else "unknown_payload"] += 1


def _lines_of_session(payload: Payload) -> Iterator[Chat]:
    """The line of a session, if it is one of its tree: it follows others of them."""
    losses: Counter[str] = Counter()
    if line := chat_exports.line_of(payload, losses):
        session, side_chain = chat_exports.session_of(payload)
        yield Chat(line.messages, False, session, "", [], +losses, line, side_chain)


def _of_chatgpt(payload: Payload) -> Chat | None:
    losses: Counter[str] = Counter()
    messages = chat_exports.of_chatgpt(payload, losses)
    if not messages:
        return None
    trace = payload.get("conversation_id") or payload.get("id")
    created = str(payload.get("create_time") or "")
    return Chat(messages, True, str(trace) if trace else None, created, [], +losses)


def _documents(payload: Payload) -> Iterator[Any]:
    """The spans of an OTLP document, or the observations of a trace."""
    for outer, scopes, inner in _OTLP:
        for resource in _dicts(payload.get(outer)):
            # Older exporters wrote instrumentationLibrarySpans.
            for scope in [s for key in scopes for s in _dicts(resource.get(key))]:
                yield from list_from_json(scope.get(inner))
    if isinstance(payload.get("observations"), list):
        yield from payload["observations"]


def _dicts(value: object) -> list[Payload]:
    return [v for v in list_from_json(value) if isinstance(v, dict)]


def _kind_of_part(payload: Payload) -> str:
    return str(payload.get("type") or payload.get("run_type") or "")


def _is_part_of_trace(payload: object) -> bool:
    """Whether it is a span or record whose messages, if there are any, stand elsewhere."""
    if not isinstance(payload, dict):
        return False
    return _kind_of_part(payload) in _PARTS_OF_TRACES or any(
        key in payload for key in ("spanId", "span_id", "startTimeUnixNano", "parentObservationId")
    )


def _chat(payload: Payload) -> Chat | None:
    if chat_exports.is_chatgpt(payload):
        return _of_chatgpt(payload)
    losses: Counter[str] = Counter()
    fields = telemetry.attributes(payload)
    # Telemetry first: a span may also have fields named input or output that hold the same messages
    # in a less exact form.
    exchange = _of_telemetry(fields, payload, losses) or _of_body(payload, losses)
    if exchange is None:
        return None
    request, response, is_whole = exchange
    # Some traces list tool definitions as messages of role tool; left there, they would be read as
    # tool results without a call.
    request, defined = schemas.extract(request)
    prompt, answers = _read_all(request, losses), _read_all(response, losses)
    # The answer may stand next to attributes that hold only the request.
    if is_whole and not response and prompt and prompt[-1]["role"] != "assistant":
        answers = _read_all(_answers(payload, losses), losses)
    # The state of a graph repeats what was asked before its answer.
    has_prompt = prompt and len(answers) > len(prompt) and agree(answers, prompt)
    messages = answers if has_prompt else _spoken(prompt, answers)
    if not messages:
        return None
    # Attributes, body and messages may each define the same tools.
    tools = schemas.unique([*schemas.of_attributes(fields), *_tools(payload), *defined])
    started = str(payload.get("startTime") or payload.get("startTimeUnixNano") or "")
    return Chat(messages, is_whole, _trace_of(payload), started, tools, +losses)


def _read_all(items: JsonList, losses: Counter[str]) -> list[ChatMessage]:
    """The messages of several; calls that stand beside messages belong to the one before them."""
    messages: list[ChatMessage] = []
    for item in items:
        item_messages = read(item, losses)
        # OpenAI's Responses emit a call as an item next to the message; in chat form it belongs to
        # the assistant's turn before it, and parallel calls to one turn.
        is_call = isinstance(item, dict) and "role" not in item and str(item.get("type")) in CALLS
        if is_call and item_messages and messages and messages[-1]["role"] == "assistant":
            calls = [*(messages[-1]["tool_calls"] or []), *(item_messages[0]["tool_calls"] or [])]
            messages[-1] = {**messages[-1], "tool_calls": calls or None}
        else:
            messages += item_messages
    return messages


def _spoken(prompt: list[ChatMessage], answers: list[ChatMessage]) -> list[ChatMessage]:
    """A prompt and its answer. Where the prompt ends in the assistant's words, the answer goes on
    with them (a prefill): both are one turn."""
    prefill, continuation = prompt[-1:], answers[:1]
    if not all(m["role"] == "assistant" and m["content"] for m in (*prefill, *continuation)):
        return [*prompt, *answers]
    if not prefill or not continuation or prefill[0]["tool_calls"]:
        return [*prompt, *answers]
    # some servers repeat what they were given
    answer = continuation[0]["content"]
    content = answer if answer.startswith(prefill[0]["content"]) else prefill[0]["content"] + answer
    return [*prompt[:-1], {**continuation[0], "content": content}, *answers[1:]]


def agree(one: list[ChatMessage], other: list[ChatMessage]) -> bool:
    """Whether the shorter list of messages begins the longer one, by who says what."""
    pairs = zip(one, other, strict=False)
    return all((a["role"], a["content"]) == (b["role"], b["content"]) for a, b in pairs)


def _trace_of(payload: Payload) -> str | None:
    context = payload.get("context") if isinstance(payload.get("context"), dict) else {}
    for holder in (payload, context):
        for key in ("traceId", "trace_id", "session_id", "conversation_id", "thread_id"):
            if isinstance(holder, dict) and isinstance(holder.get(key), str) and holder[key]:
                return str(holder[key])
    return None


def _tools(body: object) -> list[ToolSchema]:
    """The tool definitions of a body or of the request in it."""
    body = from_json(body)
    definitions = schemas.of_body(body)
    if isinstance(body, dict):
        for key in (*_REQUESTS, "response"):  # OpenAI's Responses repeat their tools
            if isinstance(from_json(body.get(key)), dict):
                definitions += _tools(body[key])
    return definitions


_Exchange = tuple[JsonList, JsonList, bool]


def _of_telemetry(fields: Payload, payload: Payload, losses: Counter[str]) -> _Exchange | None:
    if record := telemetry.event(payload):
        return record, [], False
    if exchange := telemetry.exchange_of(fields, payload):
        request, response = exchange
        # Several assistant messages as an answer are alternatives (n > 1), not turns of one
        # conversation.
        alone = all(isinstance(a, dict) and a.get("role") == "assistant" for a in response)
        if len(response) > 1 and alone:
            losses["alternative"] += len(response) - 1
            response = response[:1]
        return request, response, True
    if body := telemetry.bodies(fields):
        request = _request(body[0])
        return (request, _answer(body[1], losses), True) if request else None
    return None


def _of_body(payload: Payload, losses: Counter[str]) -> _Exchange | None:
    """What a body asks and answers; messages alone, or an answer alone, follow others."""
    # A chain or retriever span repeats the input and output of the model span inside it.
    if _kind_of_part(payload) in _PARTS_OF_TRACES:
        return None
    # A single message follows others of its key; a body with a `messages` list is a request, even
    # if it has a role.
    if _is_message(payload) and not isinstance(from_json(payload.get("messages")), list):
        return [payload], [], False
    if request := _request_of(payload):
        response = _answers(payload, losses)
        if not response and _is_text(request) and not _names_model(payload):
            return None  # any record may have a field that is called prompt or input
        return request, response, not _follows(payload)
    return ([], _answers(payload, losses), False) if _is_answer(payload) else None


def _is_text(request: JsonList) -> bool:
    return all(isinstance(a, dict) and set(a) == {"role", "content"} for a in request[-1:])


def _names_model(payload: Payload) -> bool:
    bodies = (payload, *(from_json(payload.get(key)) for key in _REQUESTS))
    return any(isinstance(b, dict) and ("model" in b or "messages" in b) for b in bodies)


def _follows(payload: Payload) -> bool:
    """Whether a request says only what is new since the answer that it names."""
    bodies = (payload, *(from_json(payload.get(key)) for key in _REQUESTS))
    return any(isinstance(b, dict) and b.get("previous_response_id") for b in bodies)


def _is_answer(payload: Payload) -> bool:
    """Whether a payload without a request is what a model's API returns."""
    for body in (payload, *(from_json(payload.get(key)) for key in ("response", "output", "body"))):
        if isinstance(body, dict) and (
            any(isinstance(body.get(k), list) for k in ("choices", "candidates", "generations"))
            or body.get("object") == "response"
            or isinstance(body.get("message"), dict)
            or _is_message(body)
            or (body is not payload and _is_answer(body))
        ):
            return True
    return False


def _is_message(value: object) -> bool:
    """Whether it is one message, or one item of OpenAI's Responses."""
    if not isinstance(value, dict):
        return False
    if value.get("type") == "constructor":
        return isinstance(value.get("kwargs"), dict)
    if "role" in value or "from" in value:
        keys = ("content", "tool_calls", "parts", "value", "message", "toolCalls")
        return any(key in value for key in keys)
    item_type = str(value.get("type", ""))
    if item_type in CALLS | REPLIES:
        return True
    return item_type.lower() in ROLES and any(key in value for key in ("content", "data"))


def _request(value: object) -> JsonList:
    """What was said to a model: a list of messages, a body with one, or a prompt."""
    value = from_json(value)
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value else []
    if isinstance(value, list):
        # LangChain records a list of conversations per run; the first one is read. A list of (role,
        # text) pairs looks similar and is one conversation.
        batched = value and all(isinstance(g, list) for g in value)
        batched = batched and not all(len(g) == 2 and isinstance(g[0], str) for g in value)
        return [_as_user(g) for g in (value[0] if batched else value)]
    if isinstance(value, dict):
        return [value] if _is_message(value) and "messages" not in value else _request_of(value)
    return []


def _as_user(value: object) -> Any:
    """A part or a text alone is the user's, as in Gemini's `contents`."""
    if isinstance(value, dict) and "parts" in value and "role" not in value:
        return {"role": "user", **value}
    return value


def _request_of(body: Payload) -> JsonList:
    """The messages of a request, its system prompt first."""
    # With previous_response_id the conversation already has its system prompt.
    system = [] if body.get("previous_response_id") else _system(body)
    for key in ("conversations", "messages", "contents"):
        value = from_json(body.get(key))
        if isinstance(value, str) and value and key == "contents":
            return [*system, {"role": "user", "content": value}]
        if isinstance(value, dict) and _is_message(_as_user(value)):
            return [*system, _as_user(value)]
        if isinstance(value, list) and value:
            # Gemini accepts plain strings: together they are one message of the user.
            are_texts = key == "contents" and all(isinstance(g, str) for g in value)
            return [
                *system,
                *([{"role": "user", "parts": value}] if are_texts else _request(value)),
            ]
    if isinstance(body.get("instruction"), str):
        return [*system, *_instruction(body)]
    # Wrappers last: a body with messages of its own is the request, whatever else it nests.
    for key in _REQUESTS:
        if (request := _request(body.get(key))) and _may_be_text(key, body):
            has_system = isinstance(request[0], dict) and request[0].get("role") == "system"
            return request if has_system else [*system, *request]
    for key in ("question", "query", "inputText"):
        if isinstance(body.get(key), str) and body[key]:
            return [*system, {"role": "user", "content": body[key]}]
    return []


def _instruction(body: Payload) -> list[ChatMessage]:
    """The turns of an Alpaca or Dolly record: its history, then instruction and input."""
    turns: list[ChatMessage] = []
    for turn in list_from_json(body.get("history")):
        if isinstance(turn, list) and len(turn) == 2:
            turns += [
                {"role": "user", "content": turn[0]},
                {"role": "assistant", "content": turn[1]},
            ]
    context = body.get("input") or body.get("context")
    lines = [body["instruction"], *([context] if isinstance(context, str) and context else [])]
    return [*turns, {"role": "user", "content": "\n".join(lines)}]


def _system(body: Payload) -> list[ChatMessage]:
    """The system prompt that stands beside the messages: a text, parts, or messages."""
    config = body.get("config")
    for holder in (body, config if isinstance(config, dict) else {}):
        for key in ("system", "system_instruction", "systemInstruction", "instructions"):
            value = from_json(holder.get(key))
            if isinstance(value, str) and value:
                return [{"role": "system", "content": value}]
            if isinstance(value, dict) and isinstance(value.get("parts"), (list, dict)):
                items = value["parts"]
                return [{"role": "system", "parts": items if isinstance(items, list) else [items]}]
            if isinstance(value, dict) and isinstance(value.get("text"), str):
                return [{"role": "system", "content": value["text"]}]
            # Anthropic and Bedrock give a list of parts, LangChain a list of messages.
            if isinstance(value, list) and value:
                are_messages = all(_is_message(g) for g in value)
                return value if are_messages else [{"role": "system", "parts": value}]
    return []


def _answers(body: Payload, losses: Counter[str]) -> JsonList:
    """What the model answered, wherever a body keeps it."""
    # A body with choices or candidates is the answer itself, not a wrapper of one.
    if any(key in body for key in ("choices", "candidates", "generations")):
        return _answer(body, losses)
    for key in _ANSWERS:
        candidate = from_json(body.get(key))
        if candidate not in (None, "", [], {}) and _may_be_text(key, body):
            return _answer(candidate, losses)
    if isinstance(body.get("message"), dict):
        return _answer(body["message"], losses)
    # A request of Anthropic and its answer as one body: the answer is the body's own content.
    message_fields = {key: body[key] for key in ("role", "content", "parts") if key in body}
    return [message_fields] if "role" in message_fields and len(message_fields) > 1 else []


def _may_be_text(key: str, body: Payload) -> bool:
    return key in _TEXTUAL or not isinstance(from_json(body[key]), str)


def _answer(value: object, losses: Counter[str]) -> JsonList:
    value = streams.merge(from_json(value))
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if isinstance(value, list):
        if value and all(
            isinstance(g, dict) and ("toolName" in g or "function" in g) for g in value
        ):
            return [{"role": "assistant", "content": None, "tool_calls": value}]
        if value and all(isinstance(g, list) for g in value):
            return _first(value, losses)
        return [g for item in value for g in _answer(item, losses) or [item]]
    return _answer_of(value, losses) if isinstance(value, dict) else []


def _first(items: JsonList, losses: Counter[str]) -> JsonList:
    """The first of several answers; the others are counted."""
    losses["alternative"] += len(items[1:])
    return [g for answer in items[:1] for g in _answer(answer, losses)]


def _answer_of(body: Payload, losses: Counter[str]) -> JsonList:
    # From the most specific form to the most general: a later test would also match earlier forms
    # and read less of them.
    for key in ("choices", "candidates"):
        if isinstance(body.get(key), list) and body[key]:
            return _first(body[key], losses)
    # LangChain nests generations per prompt of a batch; other APIs give a flat list.
    if isinstance(body.get("generations"), list) and body["generations"]:
        generation = body["generations"][0]
        return _first(generation if isinstance(generation, list) else [generation], losses)
    # The final state of a graph: the answer includes what was asked, and `_chat` removes the
    # repetition.
    if isinstance(from_json(body.get("messages")), list):
        return _request(body["messages"])
    for key in ("message", "content"):
        inner = from_json(body.get(key))
        # LangChain's serialized objects also have a `content`; they are unwrapped by `read`.
        if isinstance(inner, dict) and body.get("type") != "constructor":
            return _answer(inner if _is_message(inner) else {"role": "assistant", **inner}, losses)
    if _is_message(body) or str(body.get("type", "")) in ITEMS:
        return [body]
    if isinstance(body.get("content"), list) or isinstance(body.get("parts"), list):
        return [{"role": "assistant", **body}]
    # Wrappers of HTTP libraries and gateways, opened only after no known form fits.
    for key in (*_ANSWERS, "body"):
        if isinstance(from_json(body.get(key)), (dict, list)) and body[key]:
            return _answer(body[key], losses)
    if any(body.get(key) for key in ("tool_calls", "toolCalls")):
        content = body.get("text") or body.get("content")
        calls = body.get("tool_calls") or body.get("toolCalls")
        return [{"role": "assistant", "content": content, "tool_calls": calls}]
    content = next((body[k] for k in _TEXTS if isinstance(body.get(k), str) and body[k]), None)
    return [{"role": "assistant", "content": content}] if content else []
