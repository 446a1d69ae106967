"""One chat message out of any dialect: OpenAI, Anthropic, Gemini, Bedrock, LangChain, ShareGPT, ...

`read` returns messages of one form: role, content (text), name, tool_calls (OpenAI's, arguments as
JSON text) and tool_call_id. One message may become several, as a tool's result is a message of its
own. An assistant's message of weight 0 has a `weight`. Calls and results without an id have None;
`pair_calls` gives them one. In place of an image, audio, video or file stands `<image>` and so on.
What is not kept is counted in `lost`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lakelog.train.shapes.parts import (
    BUILTIN,
    CALL_IDS,
    CALLS,
    PART_FIELDS,
    REASONING,
    REPLIES,
    ChatMessage,
    Payload,
    are_parts,
    as_text,
    calls,
    from_json,
    id_of,
    is_calls,
    kind_of,
    list_from_json,
    parts_from_json,
    reply_of,
)
from lakelog.train.tables import DIALECTS, invert, read_table

_WORDS = read_table(DIALECTS)["messages"]
ROLES = invert(read_table(DIALECTS)["roles"])
_READ = frozenset(_WORDS["handled"])
_METADATA = frozenset(_WORDS["metadata"])
"""Fields about a message that are neither said nor shown to a model."""


ITEMS = CALLS | REPLIES | REASONING | BUILTIN
"""Items of OpenAI's Responses that stand beside messages, not in them."""


def read(value: Any, lost: Counter[str]) -> list[ChatMessage]:
    """Return the messages that something in any dialect is; count what they are without."""
    if _is_pair(value):
        value = {"role": value[0], "content": value[1]}
    if not isinstance(value, dict):
        lost["other_message"] += 1
        return []
    value = _unwrap(value)
    kind = str(value.get("type", ""))
    # Items of OpenAI's Responses have a type and no role; with a role they are messages that happen
    # to share a type name.
    if kind in ITEMS and "role" not in value:
        return _Turns("assistant", None, lost).convert([value])
    named = value.get("role") or value.get("from") or value.get("type") or ""
    role = ROLES.get(str(named).lower(), "")
    if not role:
        lost["other_message"] += 1
        return []
    return _message(value, role, lost)


def _is_pair(value: Any) -> bool:
    """Whether it is LangChain's short form of a message: its role and its text."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(g, str) for g in value)
        and value[0].lower() in ROLES
    )


def _unwrap(fields: Payload) -> Payload:
    """Take a message out of what LangChain, spans and choices put around it."""
    # LangChain's `dumps`: the class name at the end of `id` says the role.
    if fields.get("type") == "constructor" and isinstance(fields.get("kwargs"), dict):
        name = str([*list_from_json(fields.get("id")), ""][-2:][0])
        return {"type": name, **fields["kwargs"], **_as_role(fields["kwargs"], name)}
    if isinstance(fields.get("data"), dict) and str(fields.get("type", "")).lower() in ROLES:
        return {**fields["data"], **_as_role(fields["data"], str(fields["type"]))}
    message = from_json(fields.get("message"))
    if isinstance(message, dict):
        return {"role": "assistant", **message}
    return fields


def _as_role(fields: Payload, name: str) -> Payload:
    return {} if fields.get("role") else {"role": name}


def _message(fields: Payload, role: str, lost: Counter[str]) -> list[ChatMessage]:
    content = parts_from_json(fields.get("content", fields.get("value", fields.get("text"))))
    parts = fields.get("parts", content if isinstance(content, list) else None)
    answer_to = id_of(fields, ("tool_call_id", "toolCallId"))
    if role == "tool" and answer_to is None and isinstance(fields.get("id"), str):
        answer_to = fields["id"]  # OpenTelemetry's tool messages name the call so
    named = fields.get("name") or fields.get("tool_name")
    turns = _Turns(role, named if isinstance(named, str) else None, lost, answer_to)
    # ShareGPT writes a call as a turn from function_call whose value is JSON.
    if isinstance(content, str) and str(fields.get("from", fields.get("role"))) == "function_call":
        parts, content = [*_as_list(from_json(content))], None
        turns.calls += calls(parts)
        parts = []
    elif isinstance(content, str) and role in ("assistant", "tool") and is_calls(content):
        # Some frameworks log calls as the text of a message.
        turns.role, parts = "assistant", []
        turns.calls += calls(from_json(content))
    if not isinstance(parts, list):
        parts = [] if content is None else [as_text(content)]
    # OpenAI's audio answers and Ollama's images are fields next to the content.
    for medium, field_name in (("audio", "audio"), ("image", "images")):
        media = fields.get(field_name)
        for medium_part in _as_list(media) if media else []:
            parts = [*parts, {"type": medium, "transcript": _transcript(medium_part)}]
    # A refusal is the answer if there is no other content.
    if not parts and isinstance(fields.get("refusal"), str):
        parts = [fields["refusal"]]
    _count_fields(fields, lost)
    messages = turns.convert(parts, _calls_in_fields(fields))
    # OpenAI's fine-tuning format: what has no weight is context, not to be learnt.
    if role == "assistant" and fields.get("weight") == 0:
        messages = [{**message, "weight": 0} for message in messages]
    return messages


def _count_fields(given: Payload, lost: Counter[str]) -> None:
    """Count what a message says of itself in fields that a row has no place for."""
    for key in ("reasoning_content", "reasoning", "thinking"):
        lost["reasoning"] += bool(given.get(key))
    lost["builtin_call"] += len(list_from_json(given.get("invalid_tool_calls")))
    more = given.get("additional_kwargs")
    fields = {**given, **(more if isinstance(more, dict) else {})}
    handled = _READ | _METADATA
    other = (
        k for k, v in fields.items() if k not in handled and v not in (None, "", [], {}, False)
    )
    lost["field"] += sum(not k.startswith(("gen_ai.", "llm.")) for k in other)


def _calls_in_fields(fields: Payload) -> list[ChatMessage]:
    """The calls that stand beside a message's content, the same ones once."""
    more = fields["additional_kwargs"] if isinstance(fields.get("additional_kwargs"), dict) else {}
    for holder in (fields, more):
        for key in ("tool_calls", "toolCalls", "function_call"):
            if tool_calls := calls(from_json(holder.get(key))):
                return tool_calls
    return []


def _transcript(part: Any) -> str | None:
    return part.get("transcript") if isinstance(part, dict) else None


@dataclass
class _Turns:
    """Makes messages of the parts of one: a tool's result ends what stands before it."""

    role: str
    name: str | None
    lost: Counter[str]
    answer_to: str | None = None
    texts: list[str] = field(default_factory=list)
    calls: list[ChatMessage] = field(default_factory=list)
    messages: list[ChatMessage] = field(default_factory=list)

    def convert(
        self, parts: list[Any], more_calls: list[ChatMessage] | None = None
    ) -> list[ChatMessage]:
        """Return the messages of the parts, and of the calls that stand beside them."""
        for part in parts:
            self._take(part)
        # LangChain gives a call of Anthropic both as a part and as a field; ids tell them apart
        # from two calls of one function.
        seen = {(c["id"], c["function"]["name"]) for c in self.calls if c["id"]}
        self.calls += [c for c in more_calls or [] if (c["id"], c["function"]["name"]) not in seen]
        self._flush()
        return self.messages

    def _take(self, part: Any) -> None:
        if isinstance(part, str):
            self.texts.append(part)
            return
        if not isinstance(part, dict):
            self.lost["other_part"] += 1
            return
        kind, inner = kind_of(part)
        if kind == "call":
            self.calls += calls([inner])
        elif kind == "invocation":
            self.calls += calls([inner])
            if reply_of(inner) is not None:
                self._reply(inner)
        elif kind == "reply":
            self._reply(inner)
        elif kind == "text":
            self.texts.append(inner)
            self.lost["field"] += sum(bool(part[key]) for key in part if key not in PART_FIELDS)
        elif kind == "parts":
            for inner_part in inner:
                self._take(inner_part)
        elif kind != "silent":
            self._lose(kind, part)

    def _lose(self, kind: str, part: Payload) -> None:
        self.lost[kind] += 1
        if kind in ("image", "audio", "video", "file"):
            self.texts.append(f"<{kind}>")
            if isinstance(part.get("transcript"), str):
                self.texts.append(part["transcript"])

    def _reply(self, part: Payload) -> None:
        """Put a tool's result behind what was said before it."""
        # The result ends the text and calls before it, or they would be put behind it.
        self._flush()
        name = part.get("name") or part.get("toolName")
        answer_to = id_of(part, CALL_IDS)
        inner = _Turns("tool", name if isinstance(name, str) else None, self.lost, answer_to)
        self.lost["tool_error"] += bool(part.get("is_error")) or part.get("status") == "error"
        value = reply_of(part)
        if are_parts(value):
            for inner_part in value:
                inner._take(inner_part)
        else:
            inner.texts.append(as_text("" if value is None else value))
        content = "\n".join(filter(None, inner.texts))
        self.messages.append(_as_message("tool", content, inner.name, [], answer_to))

    def _flush(self) -> None:
        content = "\n".join(filter(None, self.texts))
        # An empty tool result is still a result: without it its call would be broken.
        if content or self.calls or (self.role == "tool" and self.answer_to):
            # A tool message that turns out to hold calls answers nothing.
            named = None if self.calls and self.role == "tool" else self.answer_to
            self.messages.append(_as_message(self.role, content, self.name, self.calls, named))
        self.texts, self.calls = [], []


def _as_message(
    role: str, content: str, name: str | None, tool_calls: list[ChatMessage], answer_to: str | None
) -> ChatMessage:
    text = content if role == "tool" else content or None
    return {
        "role": role,
        "content": text,
        "name": name,
        "tool_calls": tool_calls or None,
        "tool_call_id": answer_to,
    }


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def pair_calls(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Give every call an id, and every result without one that of the call it answers.

    A result answers the first open call of its name, or of any name if it has none.
    """
    result: list[ChatMessage] = []
    open_calls: list[tuple[str, str]] = []
    for place, message in enumerate(messages):
        if message["tool_calls"]:
            named = [
                {**call, "id": call["id"] or f"call_{place}_{number}"}
                for number, call in enumerate(message["tool_calls"])
            ]
            open_calls += [(call["id"], call["function"]["name"]) for call in named]
            message = {**message, "tool_calls": named}
        elif message["role"] == "tool":
            message = _link_reply(message, open_calls)
        result.append(message)
    return result


def _link_reply(message: ChatMessage, open_calls: list[tuple[str, str]]) -> ChatMessage:
    call_id, name = message["tool_call_id"], message["name"]
    if call_id is None:
        # Gemini and ShareGPT have no ids: results are matched to open calls by name, in order.
        candidates = [w for w in open_calls if w[1] == name] or (open_calls if name is None else [])
        if candidates:
            call = candidates[0]
            open_calls.remove(call)
            return {**message, "tool_call_id": call[0]}
        return message
    for call in open_calls:
        if call[0] == call_id:
            open_calls.remove(call)
            break
    return message
