"""Chats as programs for people keep them: ChatGPT's export, and the sessions of Claude Code.

Both are trees, as a prompt that was edited begins another branch. `conversations.json` of ChatGPT
has a `mapping` of nodes, each with its `parent`, in every conversation; read is the branch that
ends in `current_node`. A session of Claude Code is a file of JSON lines, each of which names the
line before it (`parentUuid`); read is the branch of its last line, a side chain (a sub-agent's)
apart. One answer of the model may be several lines with one message id.

Conversations as JSON lines of other tools: OpenAI's fine-tuning format and ShareGPT's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from lakelog.libraries import pa
from lakelog.train.shapes.messages import read
from lakelog.train.shapes.parts import ChatMessage, Payload

_SKIPPED = ("user_editable_context", "model_editable_context")
"""ChatGPT's instructions and memories of a user, which are no turns."""
_REASONING = ("thoughts", "reasoning_recap")


@dataclass
class Line:
    """One line of a session: who it is, what it follows, and what it says."""

    uuid: str
    parent: str
    answer: str = ""
    """The id of the model's answer that it is a part of."""
    messages: list[ChatMessage] = field(default_factory=list)


def is_chatgpt(payload: Payload) -> bool:
    """Whether a payload is a conversation of ChatGPT's export."""
    mapping = payload.get("mapping")
    return isinstance(mapping, dict) and any(
        isinstance(node, dict) and "parent" in node and "message" in node
        for node in mapping.values()
    )


def of_chatgpt(payload: Payload, losses: Counter[str]) -> list[ChatMessage]:
    """Return the messages of the current branch. What its tools did, which OpenAI runs, is counted
    in `losses`."""
    turns: list[ChatMessage] = []
    for node in _branch(payload["mapping"], payload.get("current_node")):
        turns += _turn(node.get("message"), losses)
    return _joined(turns)


def _branch(mapping: Payload, current: object) -> list[Payload]:
    """The nodes from the root to the current one; without one, to the newest leaf."""
    nodes = {key: node for key, node in mapping.items() if isinstance(node, dict)}
    if current not in nodes:
        leaves = [key for key, node in nodes.items() if not node.get("children")]
        current = max(leaves, key=lambda key: _created(nodes[key]), default=None)
    branch: list[Payload] = []
    # A damaged export may have a node that is its own ancestor.
    visited = set()
    while current in nodes and current not in visited:
        visited.add(current)
        branch.append(nodes[current])
        current = nodes[current].get("parent")
    return branch[::-1]


def _created(node: Payload) -> float:
    message = node.get("message")
    created = message.get("create_time") if isinstance(message, dict) else None
    return created if isinstance(created, (int, float)) else 0.0


def _turn(message: object, losses: Counter[str]) -> list[ChatMessage]:
    """The turn of a node; none for what ChatGPT does not show."""
    if not isinstance(message, dict):
        return []
    author, content = message.get("author"), message.get("content")
    metadata = message.get("metadata")
    is_hidden = isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation")
    if not isinstance(author, dict) or not isinstance(content, dict) or is_hidden:
        return []
    role, content_type = str(author.get("role")), content.get("content_type")
    if content_type in _SKIPPED:
        return []
    if content_type in _REASONING:
        losses["reasoning"] += 1
        return []
    # An assistant that speaks to a tool, and the tool's answer: OpenAI runs all of them itself.
    if role == "tool" or message.get("recipient") not in (None, "all"):
        losses["builtin_call"] += 1
        return []
    items = content.get("parts")
    spoken = items if isinstance(items, list) else [content.get("text") or ""]
    return read({"role": role, "parts": [_part(item) for item in spoken if item]}, losses)


def _part(item: object) -> Any:
    """A part in a form that `read` knows."""
    if not isinstance(item, dict):
        return item
    content_type = str(item.get("content_type", ""))
    if content_type == "audio_transcription":
        return str(item.get("text", ""))
    medium = next((m for m in ("image", "audio", "video") if m in content_type), "file")
    return {"type": medium}


def _joined(turns: list[ChatMessage]) -> list[ChatMessage]:
    """Turns of which no two of the assistant follow each other: tools stood between them."""
    joined: list[ChatMessage] = []
    for turn in turns:
        if joined and turn["role"] == joined[-1]["role"] == "assistant":
            content = "\n\n".join(filter(None, (joined[-1]["content"], turn["content"])))
            joined[-1] = {**joined[-1], "content": content}
        else:
            joined.append(turn)
    return joined


def is_session(payload: Payload) -> bool:
    """Whether a payload is a line of a session of Claude Code."""
    if "leafUuid" in payload or ("snapshot" in payload and "messageId" in payload):
        return True
    return isinstance(payload.get("sessionId"), str) and any(
        key in payload for key in ("parentUuid", "isSidechain", "operation")
    )


def session_of(payload: Payload) -> tuple[str | None, str]:
    """Return the id of the session of a line, and the name of its side chain if it is of one."""
    session = payload.get("sessionId")
    side_chain = str(payload.get("agentId") or "side") if payload.get("isSidechain") else ""
    return session if isinstance(session, str) else None, side_chain


def line_of(payload: Payload, losses: Counter[str]) -> Line | None:
    """Return what a line of a session says; None if it is no line of the tree."""
    uuid, message = payload.get("uuid"), payload.get("message")
    if not isinstance(uuid, str):
        return None
    line = Line(uuid, str(payload.get("parentUuid") or ""))
    if isinstance(message, dict) and not (
        payload.get("isMeta") or payload.get("isApiErrorMessage")
    ):
        answer = message.get("id")
        line.answer = answer if isinstance(answer, str) else ""
        line.messages = read(message, losses)
    return line


def conversation(lines: list[Line]) -> list[ChatMessage]:
    """Return the messages of the branch that the last of some lines ends, each answer whole."""
    by_uuid = {line.uuid: line for line in lines}
    # By their parents from the last line up, as for a conversation: a line that is its own ancestor
    # ends the way.
    chain: set[str] = set()
    place = lines[-1].uuid if lines else ""
    while place in by_uuid and place not in chain:
        chain.add(place)
        place = by_uuid[place].parent
    on_branch = [line for line in lines if line.uuid in chain]
    answered = (message["tool_calls"] or [] for line in on_branch for message in line.messages)
    open_calls = {call["id"] for calls in answered for call in calls}
    messages: list[ChatMessage] = []
    answers: dict[str, int] = {}
    for line in lines:
        # Results of calls made at once follow one call each, and only one is followed by the rest.
        if line.uuid not in chain and not _answers(line.messages, open_calls):
            continue
        for message in line.messages:
            whole = answers.get(line.answer) if message["role"] == "assistant" else None
            if line.answer and whole is not None:
                messages[whole] = _continued(messages[whole], message)
                continue
            if line.answer:
                answers[line.answer] = len(messages)
            messages.append(message)
    return messages


def _answers(messages: list[ChatMessage], calls: set[str]) -> bool:
    """Whether messages are nothing but results of some calls."""
    return bool(messages) and all(
        message["role"] == "tool" and message["tool_call_id"] in calls for message in messages
    )


def _continued(message: ChatMessage, continuation: ChatMessage) -> ChatMessage:
    """One answer out of two parts of it."""
    calls = [*(message["tool_calls"] or []), *(continuation["tool_calls"] or [])]
    content = "\n".join(filter(None, (message["content"], continuation["content"])))
    return {**message, "content": content or None, "tool_calls": calls or None}


_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def lines(batch: pa.RecordBatch, dialect: str) -> bytes:
    """Return the conversations of a batch, one a line."""
    convert = _openai if dialect == "openai" else _sharegpt
    rows = batch.column(batch.schema.get_field_index("messages")).to_pylist()
    tools = batch.column(batch.schema.get_field_index("tools")).to_pylist()
    pairs = zip(rows, tools, strict=True)
    return b"".join(orjson.dumps(convert(*pair)) + b"\n" for pair in pairs)


def _openai(messages: list[Payload], tools: str | None) -> Payload:
    record = {"messages": [_drop_nulls(message) for message in messages]}
    return {**record, "tools": orjson.loads(tools)} if tools else record


def _drop_nulls(message: Payload) -> Payload:
    fields = {key: value for key, value in message.items() if value not in (None, [])}
    fields.setdefault("content", None)
    return fields


def _sharegpt(messages: list[Payload], tools: str | None) -> Payload:
    turns = []
    for message in messages:
        if message["content"]:
            turns.append({"from": _SPEAKERS[message["role"]], "value": message["content"]})
        for call in message["tool_calls"] or []:
            turns.append(
                {"from": "function_call", "value": orjson.dumps(call["function"]).decode()}
            )
    return {"conversations": turns, **({"tools": tools} if tools else {})}
