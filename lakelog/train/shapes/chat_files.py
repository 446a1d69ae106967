"""Conversations as JSON lines of other tools: OpenAI's fine-tuning format and ShareGPT's."""

from __future__ import annotations

import orjson

from lakelog.libraries import pa
from lakelog.train.shapes.parts import Payload

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
