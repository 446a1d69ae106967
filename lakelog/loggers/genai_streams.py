"""Streamed answers of language models, put together as they arrive.

Each class takes the chunks of one dialect and gives, at any time, the answer so far in the form in
which the same call without a stream returns it. `is_ended` says whether the model has finished;
a stream that ends before that was cut. `ResponseBody` takes the bytes of a response, of a stream or
not.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import Any, Protocol

import orjson

from lakelog.loggers.genai_fields import Fields


class AnswerChunks(Protocol):
    """The chunks of a stream, put together."""

    @property
    def is_ended(self) -> bool:
        """Whether the model has finished."""

    def add(self, chunk: Fields) -> None:
        """Take in the next chunk."""

    def answer(self) -> Fields:
        """The answer as far as it is known."""


class ChatChunks:
    """Chunks of OpenAI's chats and completions; the usage comes last, if it was asked for."""

    def __init__(self) -> None:
        self._head: Fields = {}
        self._choices: dict[int, Fields] = {}

    @property
    def is_ended(self) -> bool:
        """Whether every choice has its finish reason."""
        return bool(self._choices) and all(c["finish_reason"] for c in self._choices.values())

    def add(self, chunk: Fields) -> None:
        """Take in the next chunk."""
        self._head |= {k: v for k, v in chunk.items() if k != "choices" and v is not None}
        for part in chunk.get("choices") or []:
            empty = {"message": {"role": "assistant"}, "finish_reason": None}
            choice = self._choices.setdefault(part.get("index", 0), empty)
            delta = part.get("delta") or {"content": part.get("text")}
            _append(choice["message"], delta)
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]

    def answer(self) -> Fields:
        """The answer as far as it is known."""
        choices = []
        for _, choice in sorted(self._choices.items()):
            message = dict(choice["message"])
            if calls := message.get("tool_calls"):
                message["tool_calls"] = sorted(calls, key=lambda call: int(call["index"]))
            choices.append({**choice, "message": message})
        return {**self._head, "choices": choices}


class ResponseEvents:
    """Events of OpenAI's Responses; the last has all of the response."""

    def __init__(self) -> None:
        self.is_ended = False
        self._response: Fields = {}
        self._items: dict[int, Fields] = {}

    def add(self, chunk: Fields) -> None:
        """Take in the next event."""
        event_type = str(chunk.get("type", ""))
        if isinstance(chunk.get("response"), dict):
            self._response = chunk["response"]
        if event_type in ("response.completed", "response.incomplete", "response.failed"):
            self.is_ended = True
        elif event_type == "error":
            self.is_ended = True
            self._response = {**self._response, "status": "failed", "error": chunk}
        elif event_type.startswith("response.output_item."):
            self._items[chunk.get("output_index", 0)] = dict(chunk.get("item") or {})
        elif event_type.endswith(".delta") and isinstance(chunk.get("delta"), str):
            item = self._items.setdefault(chunk.get("output_index", 0), {"type": "message"})
            if event_type.endswith("_arguments.delta"):
                item["arguments"] = item.get("arguments", "") + chunk["delta"]
            elif event_type.startswith(("response.output_text.", "response.refusal.")):
                item["text"] = item.get("text", "") + chunk["delta"]

    def answer(self) -> Fields:
        """The response, or what was said before it was cut."""
        if self.is_ended and self._response.get("output"):
            return self._response
        output = []
        for _, item in sorted(self._items.items()):
            # A finished item has its content; of an open one the deltas are all there is.
            item = dict(item)
            if "text" in item:
                item["content"] = [{"type": "output_text", "text": item.pop("text")}]
            output.append(item)
        return {"object": "response", **self._response, "output": output}


class MessageEvents:
    """Events of Anthropic's messages."""

    def __init__(self) -> None:
        self.is_ended = False
        self._message: Fields = {}
        self._blocks: dict[int, Fields] = {}

    def add(self, chunk: Fields) -> None:
        """Take in the next event."""
        event_type, delta = chunk.get("type"), chunk.get("delta") or {}
        if event_type == "message_start":
            self._message = dict(chunk.get("message") or {})
        elif event_type == "content_block_start":
            self._blocks[chunk.get("index", 0)] = dict(chunk.get("content_block") or {})
        elif event_type == "content_block_delta":
            _extend(self._blocks.setdefault(chunk.get("index", 0), {"type": "text"}), delta)
        elif event_type == "message_delta":
            self._message |= {k: v for k, v in delta.items() if v is not None}
            used = {k: v for k, v in (chunk.get("usage") or {}).items() if v is not None}
            self._message["usage"] = {**(self._message.get("usage") or {}), **used}
        elif event_type == "message_stop":
            self.is_ended = True

    def answer(self) -> Fields:
        """The message as far as it is known."""
        blocks = []
        for _, block in sorted(self._blocks.items()):
            partial_json = block.get("partial_json")
            block = {k: v for k, v in block.items() if k != "partial_json"}
            blocks.append({**block, "input": _from_json(partial_json)} if partial_json else block)
        return {**self._message, "content": blocks}


class ResponseBody:
    """A response whose bytes the caller reads, as they are or through the client. What they say is
    decoded once, after the last of them."""

    def __init__(self, response: Any, decoder: Any, chunks: AnswerChunks) -> None:
        """`decoder` is the client's own for events of a stream, whose data `chunks` gets."""
        self._response_type, self._headers = type(response), response.headers
        self._decoder, self._chunks = decoder, chunks
        self._parts: list[bytes] = []

    def add_bytes(self, chunk: bytes) -> None:
        """Take in the next bytes, compressed if the server has compressed them."""
        self._parts.append(chunk)

    @property
    def is_ended(self) -> bool:
        """Whether the model has finished."""
        return self._decoded[0]

    def answer(self) -> Fields:
        """The answer as far as it was read."""
        return self._decoded[1]

    def add(self, chunk: Fields) -> None:
        """Take in an event of a stream."""
        self._chunks.add(chunk)

    @functools.cached_property
    def _decoded(self) -> tuple[bool, Fields]:
        with suppress(Exception):  # it may end within a compressed block, or a character
            raw = b"".join(self._parts)
            content = self._response_type(200, headers=self._headers, content=raw).content
            if "json" in self._headers.get("content-type", ""):
                answer = json_object(content)
                return bool(answer), answer
            for event in self._decoder.iter_bytes(iter([content])):
                self.add(json_object(event.data))
        return self._chunks.is_ended, self._chunks.answer()


def json_object(document: str | bytes) -> Fields:
    """The object that JSON stands for, an empty one for anything else."""
    value = _from_json(document)
    return value if isinstance(value, dict) else {}


def _append(message: Fields, delta: Fields) -> None:
    """Add a delta: texts and arguments are appended to those of the same call."""
    for key, value in delta.items():
        if key == "tool_calls":
            calls = message.setdefault(key, [])
            for place, call in enumerate(value or []):
                _append(_tool_call(calls, call, place), call)
        elif isinstance(value, dict):
            _append(message.setdefault(key, {}), value)
        elif isinstance(value, str) and key not in ("role", "id", "type", "name"):
            message[key] = (message.get(key) or "") + value
        elif value is not None:
            message[key] = value


def _tool_call(calls: list[Fields], delta: Fields, place: int) -> Fields:
    """The call of a delta: the newest one of its index, or another one that begins with it."""
    index = place if delta.get("index") is None else delta["index"]
    newest: Fields = next((c for c in reversed(calls) if c["index"] == index), {})
    # Some servers give all calls one index, and some each delta of a call an id of its own: but
    # only what begins a call names its function.
    names_other = delta.get("id") and newest.get("id") not in (None, delta["id"])
    if not newest or (names_other and (delta.get("function") or {}).get("name")):
        newest = {"index": index}
        calls.append(newest)
    return newest


def _extend(block: Fields, delta: Fields) -> None:
    for key in ("text", "thinking", "partial_json", "signature"):
        if isinstance(delta.get(key), str):
            block[key] = (block.get(key) or "") + delta[key]
    if "citation" in delta:
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]


def _from_json(document: str | bytes) -> object:
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError:
        return document
