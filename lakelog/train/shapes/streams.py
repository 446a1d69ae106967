"""Reassembling answers that were recorded as streams.

Chunks of OpenAI's chats, events of its Responses, of Anthropic and of Bedrock's ConverseStream,
chunks of Gemini and of Ollama; as a list, or as the text of server-sent events.
"""

from __future__ import annotations

from typing import Any

from lakelog.train.shapes.parts import JsonList, Payload, from_json, list_from_json

_BLOCK_TEXTS = {"text_delta": "text", "thinking_delta": "thinking"}
_BEDROCK = {"messageStart", "contentBlockStart", "contentBlockDelta", "messageStop"}


def merge(value: object) -> Any:
    """Assemble the chunks of a stream to the body of an answer; return anything else as it is."""
    # Text is parsed as server-sent events; a single chunk is a stream of one.
    chunks = _events(value) if isinstance(value, str) else [value] if _is_delta(value) else value
    if not isinstance(chunks, list) or not all(isinstance(p, dict) for p in chunks):
        return value
    # Told apart by marks that only one API has, since recorded streams do not name it.
    kinds = {str(chunk.get("type", "")) for chunk in chunks}
    if any(map(_is_delta, chunks)):
        return _of_chunks(chunks)
    if "message_start" in kinds or "content_block_delta" in kinds:
        return _of_blocks(chunks)
    if any(event_type.startswith("response.") for event_type in kinds):
        return _of_responses(chunks, value)
    if any(not _BEDROCK.isdisjoint(chunk) for chunk in chunks):
        return _of_bedrock(chunks)
    if chunks and all(isinstance(chunk.get("candidates"), list) for chunk in chunks):
        return _of_candidates(chunks)
    if len(chunks) > 1 and all("done" in chunk for chunk in chunks):
        return _of_ollama(chunks)
    return value


def _events(content: str) -> JsonList | None:
    """The JSON of server-sent events; None for any other text."""
    if not content.startswith(("data:", "event:")):
        return None
    data = [line[5:].strip() for line in content.splitlines() if line.startswith("data:")]
    return [from_json(line) for line in data if line not in ("", "[DONE]")]


def _is_delta(value: object) -> bool:
    return isinstance(value, dict) and any(
        isinstance(choice, dict) and isinstance(choice.get("delta"), dict)
        for choice in list_from_json(value.get("choices"))
    )


def _add(target: Payload, delta: Payload) -> None:
    """Merge a delta: append to texts, merge calls by index, set everything else."""
    for key, value in delta.items():
        if key == "tool_calls" and isinstance(value, list):
            calls = target.setdefault(key, {})
            for place, call in enumerate(value):
                if isinstance(call, dict):
                    _add(calls.setdefault(str(call.get("index", place)), {}), call)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _add(target[key], value)
        elif isinstance(value, str) and isinstance(target.get(key), str) and key not in _WHOLE:
            # Strings are fragments and are appended, except members that some servers repeat with
            # every chunk.
            target[key] += value
        elif value is not None or key not in target:
            target[key] = dict(value) if isinstance(value, dict) else value


_WHOLE = ("role", "id", "type", "name")
"""Members that some servers repeat with each piece."""


def _of_chunks(chunks: list[Payload]) -> Payload:
    messages: dict[str, Payload] = {}
    for choice in [c for chunk in chunks for c in list_from_json(chunk.get("choices"))]:
        if isinstance(choice, dict):
            target = messages.setdefault(str(choice.get("index", 0)), {"role": "assistant"})
            delta = choice.get("delta") or choice.get("message")
            _add(target, delta if isinstance(delta, dict) else {})
    # Calls were collected by index; the readers expect a list.
    for message in messages.values():
        if isinstance(message.get("tool_calls"), dict):
            message["tool_calls"] = list(message["tool_calls"].values())
    return {"choices": [{"message": message} for message in messages.values()]}


def _of_blocks(chunks: list[Payload]) -> Payload:
    blocks: dict[str, Payload] = {}
    for chunk in chunks:
        block, delta = chunk.get("content_block"), chunk.get("delta")
        if isinstance(block, dict):
            blocks[str(chunk.get("index"))] = dict(block)
        elif chunk.get("type") == "content_block_delta" and isinstance(delta, dict):
            delta_type = str(delta.get("type"))
            target = blocks.setdefault(str(chunk.get("index")), {"type": "text", "text": ""})
            if key := _BLOCK_TEXTS.get(delta_type):
                _add(target, {key: delta.get(key)})
            elif delta_type == "input_json_delta":
                # Fragments of JSON are not valid on their own and are parsed at the end.
                _add(target, {"json": delta.get("partial_json")})
            elif delta_type == "citations_delta":
                target["citations"] = [
                    *list_from_json(target.get("citations")),
                    delta.get("citation"),
                ]
    return {"role": "assistant", "content": [_with_input(b, "input") for b in blocks.values()]}


def _with_input(block: Payload, key: str) -> Payload:
    """Parse the arguments of a call whose JSON arrived in fragments."""
    json_text = block.pop("json", None)
    return {**block, key: from_json(json_text)} if json_text else block


def _of_responses(chunks: list[Payload], value: object) -> Any:
    """The complete response of the last event, or the finished items of an aborted stream."""
    repeated = [p["response"] for p in chunks if isinstance(p.get("response"), dict)]
    if repeated and repeated[-1].get("output"):
        return repeated[-1]
    items = [p["item"] for p in chunks if p.get("type") == "response.output_item.done"]
    return {"object": "response", "output": items} if items else value


def _of_bedrock(chunks: list[Payload]) -> Payload:
    blocks: dict[str, Payload] = {}
    for chunk in chunks:
        for key, inner in (("contentBlockStart", "start"), ("contentBlockDelta", "delta")):
            event = chunk.get(key)
            if isinstance(event, dict) and isinstance(event.get(inner), dict):
                _add(blocks.setdefault(str(event.get("contentBlockIndex")), {}), event[inner])
    # An empty input means a call without arguments.
    for block in blocks.values():
        use = block.get("toolUse")
        if isinstance(use, dict) and isinstance(use.get("input"), str):
            use["input"] = from_json(use["input"]) if use["input"] else {}
    return {"output": {"message": {"role": "assistant", "content": list(blocks.values())}}}


def _of_candidates(chunks: list[Payload]) -> Payload:
    parts_by_index: dict[str, JsonList] = {}
    for candidate in [c for chunk in chunks for c in chunk["candidates"]]:
        content = candidate.get("content") if isinstance(candidate, dict) else None
        if isinstance(content, dict):
            joined = parts_by_index.setdefault(str(candidate.get("index", 0)), [])
            for item in list_from_json(content.get("parts")):
                if joined and _goes_on(joined[-1], item):
                    joined[-1] = {**joined[-1], **item, "text": joined[-1]["text"] + item["text"]}
                else:
                    joined.append(item)
    answers = [{"content": {"role": "model", "parts": items}} for items in parts_by_index.values()]
    return {"candidates": answers}


def _goes_on(previous: object, item: object) -> bool:
    """Whether a part is more text of the same kind, thought or said."""
    if not isinstance(previous, dict) or not isinstance(item, dict):
        return False
    are_texts = isinstance(previous.get("text"), str) and isinstance(item.get("text"), str)
    return are_texts and bool(previous.get("thought")) == bool(item.get("thought"))


def _of_ollama(chunks: list[Payload]) -> Payload:
    answer: Payload = {"role": "assistant", "content": ""}
    for chunk in chunks:
        message = chunk.get("message")
        message = dict(message) if isinstance(message, dict) else {"content": chunk.get("response")}
        answer["tool_calls"] = [
            *answer.get("tool_calls", []),
            *list_from_json(message.pop("tool_calls", None)),
        ]
        _add(answer, message)
    return {"message": answer}
