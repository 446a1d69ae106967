"""Reassembling answers that were recorded as streams.

Chunks of OpenAI's chats, events of its Responses, of Anthropic and of Bedrock's ConverseStream,
chunks of Gemini and of Ollama; as a list, or as the text of server-sent events.
"""

from __future__ import annotations

from typing import Any

from lakelog.train.shapes.parts import Payload, from_json, list_from_json

_BLOCK_TEXTS = {"text_delta": "text", "thinking_delta": "thinking"}
_BEDROCK = {"messageStart", "contentBlockStart", "contentBlockDelta", "messageStop"}


def merge(value: Any) -> Any:
    """Assemble the chunks of a stream to the body of an answer; return anything else as it is."""
    # Text is parsed as server-sent events; a single chunk is a stream of one.
    pieces = _events(value) if isinstance(value, str) else [value] if _is_delta(value) else value
    if not isinstance(pieces, list) or not all(isinstance(p, dict) for p in pieces):
        return value
    # Told apart by marks that only one API has, since recorded streams do not name it.
    kinds = {str(piece.get("type", "")) for piece in pieces}
    if any(map(_is_delta, pieces)):
        return _of_chunks(pieces)
    if "message_start" in kinds or "content_block_delta" in kinds:
        return _of_blocks(pieces)
    if any(kind.startswith("response.") for kind in kinds):
        return _of_responses(pieces, value)
    if any(not _BEDROCK.isdisjoint(piece) for piece in pieces):
        return _of_bedrock(pieces)
    if pieces and all(isinstance(piece.get("candidates"), list) for piece in pieces):
        return _of_candidates(pieces)
    if len(pieces) > 1 and all("done" in piece for piece in pieces):
        return _of_ollama(pieces)
    return value


def _events(text: str) -> list[Any] | None:
    """The JSON of server-sent events; None for any other text."""
    if not text.startswith(("data:", "event:")):
        return None
    data = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    return [from_json(line) for line in data if line not in ("", "[DONE]")]


def _is_delta(value: Any) -> bool:
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


def _of_chunks(pieces: list[Payload]) -> Payload:
    messages: dict[str, Payload] = {}
    for choice in [c for piece in pieces for c in list_from_json(piece.get("choices"))]:
        if isinstance(choice, dict):
            target = messages.setdefault(str(choice.get("index", 0)), {"role": "assistant"})
            delta = choice.get("delta") or choice.get("message")
            _add(target, delta if isinstance(delta, dict) else {})
    # Calls were collected by index; the readers expect a list.
    for message in messages.values():
        if isinstance(message.get("tool_calls"), dict):
            message["tool_calls"] = list(message["tool_calls"].values())
    return {"choices": [{"message": message} for message in messages.values()]}


def _of_blocks(pieces: list[Payload]) -> Payload:
    blocks: dict[str, Payload] = {}
    for piece in pieces:
        block, delta = piece.get("content_block"), piece.get("delta")
        if isinstance(block, dict):
            blocks[str(piece.get("index"))] = dict(block)
        elif piece.get("type") == "content_block_delta" and isinstance(delta, dict):
            kind = str(delta.get("type"))
            target = blocks.setdefault(str(piece.get("index")), {"type": "text", "text": ""})
            if key := _BLOCK_TEXTS.get(kind):
                _add(target, {key: delta.get(key)})
            elif kind == "input_json_delta":
                # Fragments of JSON are not valid on their own and are parsed at the end.
                _add(target, {"json": delta.get("partial_json")})
            elif kind == "citations_delta":
                target["citations"] = [
                    *list_from_json(target.get("citations")),
                    delta.get("citation"),
                ]
    return {"role": "assistant", "content": [_with_input(b, "input") for b in blocks.values()]}


def _with_input(block: Payload, key: str) -> Payload:
    """Parse the arguments of a call whose JSON arrived in fragments."""
    text = block.pop("json", None)
    return {**block, key: from_json(text)} if text else block


def _of_responses(pieces: list[Payload], value: Any) -> Any:
    """The complete response of the last event, or the finished items of an aborted stream."""
    repeated = [p["response"] for p in pieces if isinstance(p.get("response"), dict)]
    if repeated and repeated[-1].get("output"):
        return repeated[-1]
    items = [p["item"] for p in pieces if p.get("type") == "response.output_item.done"]
    return {"object": "response", "output": items} if items else value


def _of_bedrock(pieces: list[Payload]) -> Payload:
    blocks: dict[str, Payload] = {}
    for piece in pieces:
        for key, inner in (("contentBlockStart", "start"), ("contentBlockDelta", "delta")):
            event = piece.get(key)
            if isinstance(event, dict) and isinstance(event.get(inner), dict):
                _add(blocks.setdefault(str(event.get("contentBlockIndex")), {}), event[inner])
    # An empty input means a call without arguments.
    for block in blocks.values():
        use = block.get("toolUse")
        if isinstance(use, dict) and isinstance(use.get("input"), str):
            use["input"] = from_json(use["input"]) if use["input"] else {}
    return {"output": {"message": {"role": "assistant", "content": list(blocks.values())}}}


def _of_candidates(pieces: list[Payload]) -> Payload:
    texts: dict[str, list[Any]] = {}
    for candidate in [c for piece in pieces for c in piece["candidates"]]:
        content = candidate.get("content") if isinstance(candidate, dict) else None
        if isinstance(content, dict):
            joined = texts.setdefault(str(candidate.get("index", 0)), [])
            for part in list_from_json(content.get("parts")):
                if joined and _goes_on(joined[-1], part):
                    joined[-1] = {**joined[-1], **part, "text": joined[-1]["text"] + part["text"]}
                else:
                    joined.append(part)
    answers = [{"content": {"role": "model", "parts": parts}} for parts in texts.values()]
    return {"candidates": answers}


def _goes_on(last: Any, part: Any) -> bool:
    """Whether a part is more text of the same kind, thought or said."""
    both = isinstance(last, dict) and isinstance(part, dict)
    if not both or not isinstance(last.get("text"), str) or not isinstance(part.get("text"), str):
        return False
    return bool(last.get("thought")) == bool(part.get("thought"))


def _of_ollama(pieces: list[Payload]) -> Payload:
    answer: Payload = {"role": "assistant", "content": ""}
    for piece in pieces:
        message = piece.get("message")
        message = dict(message) if isinstance(message, dict) else {"content": piece.get("response")}
        answer["tool_calls"] = [
            *answer.get("tool_calls", []),
            *list_from_json(message.pop("tool_calls", None)),
        ]
        _add(answer, message)
    return {"message": answer}
