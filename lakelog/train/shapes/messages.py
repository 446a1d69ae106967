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
    JsonList,
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


def read(value: Any, losses: Counter[str]) -> list[ChatMessage]:
    """Return the messages that something in any dialect is; count what they are without."""
    if _is_pair(value):
        value = {"role": value[0], "content": value[1]}
    if not isinstance(value, dict):
        losses["other_message"] += 1
        return []
    value = _unwrap(value)
    item_type = str(value.get("type", ""))
    # Items of OpenAI's Responses have a type and no role; with a role they are messages that happen
    # to share a type name.
    if item_type in ITEMS and "role" not in value:
        return _Turns("assistant", None, losses).convert([value])
    speaker = value.get("role") or value.get("from") or value.get("type") or ""
    role = ROLES.get(str(speaker).lower(), "")
    if not role:
        losses["other_message"] += 1
        return []
    return _message(value, role, losses)


def _is_pair(value: object) -> bool:
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


def _message(fields: Payload, role: str, losses: Counter[str]) -> list[ChatMessage]:
    content = parts_from_json(fields.get("content", fields.get("value", fields.get("text"))))
    items = fields.get("parts", content if isinstance(content, list) else None)
    answer_to = id_of(fields, ("tool_call_id", "toolCallId"))
    if role == "tool" and answer_to is None and isinstance(fields.get("id"), str):
        answer_to = fields["id"]  # OpenTelemetry's tool messages name the call so
    tool_name = fields.get("name") or fields.get("tool_name")
    turns = _Turns(role, tool_name if isinstance(tool_name, str) else None, losses, answer_to)
    # ShareGPT writes a call as a turn from function_call whose value is JSON.
    if isinstance(content, str) and str(fields.get("from", fields.get("role"))) == "function_call":
        items, content = [*_as_list(from_json(content))], None
        turns.calls += calls(items)
        items = []
    elif isinstance(content, str) and role in ("assistant", "tool") and is_calls(content):
        # Some frameworks log calls as the text of a message.
        turns.role, items = "assistant", []
        turns.calls += calls(from_json(content))
    if not isinstance(items, list):
        items = [] if content is None else [as_text(content)]
    # OpenAI's audio answers and Ollama's images are fields next to the content.
    for medium, field_name in (("audio", "audio"), ("image", "images")):
        media = fields.get(field_name)
        for medium_part in _as_list(media) if media else []:
            said = medium_part.get("transcript") if isinstance(medium_part, dict) else None
            items = [*items, {"type": medium, "transcript": said}]
    # A refusal is the answer if there is no other content.
    if not items and isinstance(fields.get("refusal"), str):
        items = [fields["refusal"]]
    _count_fields(fields, losses)
    messages = turns.convert(items, _calls_in_fields(fields))
    # OpenAI's fine-tuning format: what has no weight is context, not to be learnt.
    if role == "assistant" and fields.get("weight") == 0:
        messages = [{**message, "weight": 0} for message in messages]
    return messages


def _count_fields(message: Payload, losses: Counter[str]) -> None:
    """Count what a message says of itself in fields that a row has no place for."""
    for key in ("reasoning_content", "reasoning", "thinking"):
        losses["reasoning"] += bool(message.get(key))
    losses["builtin_call"] += len(list_from_json(message.get("invalid_tool_calls")))
    extra = message.get("additional_kwargs")
    fields = {**message, **(extra if isinstance(extra, dict) else {})}
    handled = _READ | _METADATA
    unread = (
        k for k, v in fields.items() if k not in handled and v not in (None, "", [], {}, False)
    )
    losses["field"] += sum(not k.startswith(("gen_ai.", "llm.")) for k in unread)


def _calls_in_fields(fields: Payload) -> list[ChatMessage]:
    """The calls that stand beside a message's content, the same ones once."""
    extra = fields["additional_kwargs"] if isinstance(fields.get("additional_kwargs"), dict) else {}
    for holder in (fields, extra):
        for key in ("tool_calls", "toolCalls", "function_call"):
            if tool_calls := calls(from_json(holder.get(key))):
                return tool_calls
    return []


@dataclass
class _Turns:
    """Makes messages of the parts of one: a tool's result ends what stands before it."""

    role: str
    name: str | None
    losses: Counter[str]
    answer_to: str | None = None
    passages: list[str] = field(default_factory=list)
    calls: list[ChatMessage] = field(default_factory=list)
    messages: list[ChatMessage] = field(default_factory=list)

    def convert(
        self, items: JsonList, more_calls: list[ChatMessage] | None = None
    ) -> list[ChatMessage]:
        """Return the messages of the parts, and of the calls that stand beside them."""
        for item in items:
            self._take(item)
        # LangChain gives a call of Anthropic both as a part and as a field; ids tell them apart
        # from two calls of one function.
        known_calls = {(c["id"], c["function"]["name"]) for c in self.calls if c["id"]}
        self.calls += [
            c for c in more_calls or [] if (c["id"], c["function"]["name"]) not in known_calls
        ]
        self._flush()
        return self.messages

    def _take(self, item: object) -> None:
        if isinstance(item, str):
            self.passages.append(item)
            return
        if not isinstance(item, dict):
            self.losses["other_part"] += 1
            return
        part_type, inner = kind_of(item)
        if part_type == "call":
            self.calls += calls([inner])
        elif part_type == "invocation":
            self.calls += calls([inner])
            if reply_of(inner) is not None:
                self._reply(inner)
        elif part_type == "reply":
            self._reply(inner)
        elif part_type == "text":
            self.passages.append(inner)
            self.losses["field"] += sum(bool(item[key]) for key in item if key not in PART_FIELDS)
        elif part_type == "parts":
            for inner_part in inner:
                self._take(inner_part)
        elif part_type != "silent":
            self._lose(part_type, item)

    def _lose(self, loss: str, item: Payload) -> None:
        self.losses[loss] += 1
        if loss in ("image", "audio", "video", "file"):
            self.passages.append(f"<{loss}>")
            if isinstance(item.get("transcript"), str):
                self.passages.append(item["transcript"])

    def _reply(self, result_part: Payload) -> None:
        """Put a tool's result behind what was said before it."""
        # The result ends the text and calls before it, or they would be put behind it.
        self._flush()
        name = result_part.get("name") or result_part.get("toolName")
        answer_to = id_of(result_part, CALL_IDS)
        inner = _Turns("tool", name if isinstance(name, str) else None, self.losses, answer_to)
        self.losses["tool_error"] += (
            bool(result_part.get("is_error")) or result_part.get("status") == "error"
        )
        value = reply_of(result_part)
        if are_parts(value):
            for inner_part in value:
                inner._take(inner_part)
        else:
            inner.passages.append(as_text("" if value is None else value))
        content = "\n".join(filter(None, inner.passages))
        self.messages.append(_as_message("tool", content, inner.name, [], answer_to))

    def _flush(self) -> None:
        content = "\n".join(filter(None, self.passages))
        # An empty tool result is still a result: without it its call would be broken.
        if content or self.calls or (self.role == "tool" and self.answer_to):
            # A tool message that turns out to hold calls answers nothing.
            call_id = None if self.calls and self.role == "tool" else self.answer_to
            self.messages.append(_as_message(self.role, content, self.name, self.calls, call_id))
        self.passages, self.calls = [], []


def _as_message(
    role: str, content: str, name: str | None, tool_calls: list[ChatMessage], answer_to: str | None
) -> ChatMessage:
    message_text = content if role == "tool" else content or None
    return {
        "role": role,
        "content": message_text,
        "name": name,
        "tool_calls": tool_calls or None,
        "tool_call_id": answer_to,
    }


def _as_list(value: object) -> JsonList:
    return value if isinstance(value, list) else [value]


def pair_calls(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Give every call an id, and every result without one that of the call it answers.

    A result answers the first open call of its name, or of any name if it has none.
    """
    result: list[ChatMessage] = []
    open_calls: list[tuple[str, str]] = []
    for place, message in enumerate(messages):
        if message["tool_calls"]:
            identified = [
                {**call, "id": call["id"] or f"call_{place}_{number}"}
                for number, call in enumerate(message["tool_calls"])
            ]
            open_calls += [(call["id"], call["function"]["name"]) for call in identified]
            message = {**message, "tool_calls": identified}
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
