"""Answers that were recorded as the stream they came in: put together as they are without one.

Chunks of OpenAI's chats, events of its Responses, of Anthropic and of Bedrock's ConverseStream,
chunks of Gemini and of Ollama; as a list, or as the text of server-sent events.
"""

from __future__ import annotations

from typing import Any

from lakelog.train.shapes.parts import listed, parsed

Piece = dict[str, Any]
_BLOCK_TEXTS = {"text_delta": "text", "thinking_delta": "thinking"}
_BEDROCK = {"messageStart", "contentBlockStart", "contentBlockDelta", "messageStop"}


def merged(given: Any) -> Any:
    """Return the body of an answer for the pieces of its stream; anything else as it is."""
    pieces = _events(given) if isinstance(given, str) else [given] if _is_delta(given) else given
    if not isinstance(pieces, list) or not all(isinstance(p, dict) for p in pieces):
        return given
    kinds = {str(piece.get("type", "")) for piece in pieces}
    if any(map(_is_delta, pieces)):
        return _of_chunks(pieces)
    if "message_start" in kinds or "content_block_delta" in kinds:
        return _of_blocks(pieces)
    if any(kind.startswith("response.") for kind in kinds):
        return _of_responses(pieces, given)
    if any(not _BEDROCK.isdisjoint(piece) for piece in pieces):
        return _of_bedrock(pieces)
    if pieces and all(isinstance(piece.get("candidates"), list) for piece in pieces):
        return _of_candidates(pieces)
    if len(pieces) > 1 and all("done" in piece for piece in pieces):
        return _of_ollama(pieces)
    return given


def _events(text: str) -> list[Any] | None:
    """The JSON of server-sent events, or nothing if a text is none of those."""
    if not text.startswith(("data:", "event:")):
        return None
    data = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    return [parsed(one) for one in data if one not in ("", "[DONE]")]


def _is_delta(given: Any) -> bool:
    return isinstance(given, dict) and any(
        isinstance(choice, dict) and isinstance(choice.get("delta"), dict)
        for choice in listed(given.get("choices"))
    )


def _add(made: Piece, more: Piece) -> None:
    """Add what a piece says: texts go on, calls by their index, all else is set."""
    for key, value in more.items():
        if key == "tool_calls" and isinstance(value, list):
            calls = made.setdefault(key, {})
            for place, call in enumerate(value):
                if isinstance(call, dict):
                    _add(calls.setdefault(str(call.get("index", place)), {}), call)
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            _add(made[key], value)
        elif isinstance(value, str) and isinstance(made.get(key), str) and key not in _WHOLE:
            made[key] += value
        elif value is not None or key not in made:
            made[key] = dict(value) if isinstance(value, dict) else value


_WHOLE = ("role", "id", "type", "name")
"""Members that some servers repeat with each piece."""


def _of_chunks(pieces: list[Piece]) -> Piece:
    messages: dict[str, Piece] = {}
    for choice in [c for piece in pieces for c in listed(piece.get("choices"))]:
        if isinstance(choice, dict):
            made = messages.setdefault(str(choice.get("index", 0)), {"role": "assistant"})
            delta = choice.get("delta") or choice.get("message")
            _add(made, delta if isinstance(delta, dict) else {})
    for message in messages.values():
        if isinstance(message.get("tool_calls"), dict):
            message["tool_calls"] = list(message["tool_calls"].values())
    return {"choices": [{"message": message} for message in messages.values()]}


def _of_blocks(pieces: list[Piece]) -> Piece:
    blocks: dict[str, Piece] = {}
    for piece in pieces:
        block, delta = piece.get("content_block"), piece.get("delta")
        if isinstance(block, dict):
            blocks[str(piece.get("index"))] = dict(block)
        elif piece.get("type") == "content_block_delta" and isinstance(delta, dict):
            kind = str(delta.get("type"))
            made = blocks.setdefault(str(piece.get("index")), {"type": "text", "text": ""})
            if key := _BLOCK_TEXTS.get(kind):
                _add(made, {key: delta.get(key)})
            elif kind == "input_json_delta":
                _add(made, {"json": delta.get("partial_json")})
            elif kind == "citations_delta":
                made["citations"] = [*listed(made.get("citations")), delta.get("citation")]
    return {"role": "assistant", "content": [_with_input(b, "input") for b in blocks.values()]}


def _with_input(block: Piece, key: str) -> Piece:
    """Give a call the arguments whose JSON came in pieces."""
    text = block.pop("json", None)
    return {**block, key: parsed(text)} if text else block


def _of_responses(pieces: list[Piece], given: Any) -> Any:
    """What the last event repeats whole; of a stream that broke off, the items that are done."""
    whole = [p["response"] for p in pieces if isinstance(p.get("response"), dict)]
    if whole and whole[-1].get("output"):
        return whole[-1]
    items = [p["item"] for p in pieces if p.get("type") == "response.output_item.done"]
    return {"object": "response", "output": items} if items else given


def _of_bedrock(pieces: list[Piece]) -> Piece:
    blocks: dict[str, Piece] = {}
    for piece in pieces:
        for key, inner in (("contentBlockStart", "start"), ("contentBlockDelta", "delta")):
            event = piece.get(key)
            if isinstance(event, dict) and isinstance(event.get(inner), dict):
                _add(blocks.setdefault(str(event.get("contentBlockIndex")), {}), event[inner])
    for block in blocks.values():
        use = block.get("toolUse")
        if isinstance(use, dict) and isinstance(use.get("input"), str):
            use["input"] = parsed(use["input"]) if use["input"] else {}
    return {"output": {"message": {"role": "assistant", "content": list(blocks.values())}}}


def _of_candidates(pieces: list[Piece]) -> Piece:
    texts: dict[str, list[Any]] = {}
    for candidate in [c for piece in pieces for c in piece["candidates"]]:
        content = candidate.get("content") if isinstance(candidate, dict) else None
        if isinstance(content, dict):
            made = texts.setdefault(str(candidate.get("index", 0)), [])
            for part in listed(content.get("parts")):
                if made and _goes_on(made[-1], part):
                    made[-1] = {**made[-1], **part, "text": made[-1]["text"] + part["text"]}
                else:
                    made.append(part)
    answers = [{"content": {"role": "model", "parts": parts}} for parts in texts.values()]
    return {"candidates": answers}


def _goes_on(last: Any, part: Any) -> bool:
    """Whether a part is more text of the same kind, thought or said."""
    both = isinstance(last, dict) and isinstance(part, dict)
    if not both or not isinstance(last.get("text"), str) or not isinstance(part.get("text"), str):
        return False
    return bool(last.get("thought")) == bool(part.get("thought"))


def _of_ollama(pieces: list[Piece]) -> Piece:
    made: Piece = {"role": "assistant", "content": ""}
    for piece in pieces:
        message = piece.get("message")
        message = dict(message) if isinstance(message, dict) else {"content": piece.get("response")}
        made["tool_calls"] = [*made.get("tool_calls", []), *listed(message.pop("tool_calls", None))]
        _add(made, message)
    return {"message": made}
