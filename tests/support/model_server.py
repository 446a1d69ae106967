"""A server on this machine that speaks the wire formats of OpenAI's and Anthropic's APIs.

The model that a request names says what happens: `error-429` is refused, `cut` ends a stream half
way, `reset` breaks the connection there, `tools` calls a tool, `alike` streams two calls under one
index, `odd` answers with JSON of another form, `packed` compresses its answer; any other one
answers.
"""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

KEY = "sk-test-1234567890abcdef"
CHAT_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 8},
}
RESPONSE_USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "total_tokens": 120,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens_details": {"reasoning_tokens": 8},
}
MESSAGE_USAGE = {
    "input_tokens": 50,
    "output_tokens": 20,
    "cache_read_input_tokens": 40,
    "cache_creation_input_tokens": 10,
}
GZIP = 31
WORDS = ["Hello", ", ", "wörld", "!"]
ARGUMENTS = ['{"city": ', '"Paris"}']


class ModelServer(ThreadingHTTPServer):
    """Serves both APIs; `requests` has what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[dict[str, Any]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that stops reading is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: ModelServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer as the model and the path say."""
        body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        model = body["model"]
        path = self.path.partition("?")[0].removeprefix("/v1")
        if model.startswith("error-"):
            # Some gateways repeat the key that they refuse.
            key = self.headers.get("Authorization") or self.headers.get("X-Api-Key")
            error = {"message": f"refused: {key}", "type": "some_error", "code": "some_code"}
            self._json({"type": "error", "error": error}, int(model.removeprefix("error-")))
        elif model == "odd":
            self._json({"choices": 5, "content": 5, "usage": {"prompt_tokens": "many"}})
        elif body.get("stream"):
            self._stream(STREAMS[path](body), model)
        else:
            self._json(ANSWERS[path](body), is_packed=model == "packed")

    def _json(self, value: Any, status: int = 200, *, is_packed: bool = False) -> None:
        text = orjson.dumps(value)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if is_packed:
            packer = zlib.compressobj(wbits=GZIP)
            text = packer.compress(text) + packer.flush()
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _stream(self, events: list[Any], model: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        packer = zlib.compressobj(wbits=GZIP) if model == "packed" else None
        if packer:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        kept = len(events) // 2 if model in ("cut", "reset") else len(events)
        for event in events[:kept]:
            name = (
                f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
            )
            data = event if isinstance(event, str) else orjson.dumps(event).decode()
            text = f"{name}data: {data}\n\n".encode()
            if packer:
                text = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
            self.wfile.flush()
        if model == "reset":  # with the client still waiting for the next chunk
            self.close_connection = True
            return
        if packer:
            end = packer.flush()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(end), end))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


# --- OpenAI -----------------------------------------------------------------------------------


def chat(body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS)}
    if body["model"] == "tools":
        function = {"name": "weather", "arguments": "".join(ARGUMENTS)}
        call = {"id": "call_1", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    reason = "tool_calls" if body["model"] == "tools" else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
    return {**head, "choices": [choice], "usage": CHAT_USAGE}


def chat_stream(body: dict[str, Any]) -> list[Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
    head["model"] = body["model"]
    deltas: list[Any] = [{"role": "assistant", "content": word} for word in WORDS]
    if body["model"] == "tools":
        call = {"index": 0, "id": "call_1", "type": "function"}
        deltas = [
            {"role": "assistant", "tool_calls": [{**call, "function": {"name": "weather"}}]},
            *({"tool_calls": [{"index": 0, "function": {"arguments": a}}]} for a in ARGUMENTS),
        ]
    if body["model"] == "alike":
        function = {"name": "weather", "arguments": "".join(ARGUMENTS)}
        calls = [{"index": 0, "id": f"call_{n}", "function": function} for n in (1, 2)]
        deltas = [{"role": "assistant", "tool_calls": [call]} for call in calls]
    reason = "tool_calls" if body["model"] == "tools" else "stop"
    chunks: list[Any] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": CHAT_USAGE})
    return [*chunks, "[DONE]"]


def completion(body: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "text": "".join(WORDS), "finish_reason": "stop", "logprobs": None}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    return {**head, "choices": [choice], "usage": CHAT_USAGE}


def completion_stream(body: dict[str, Any]) -> list[Any]:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    choices = [{"index": 0, "text": word, "finish_reason": None} for word in WORDS]
    choices.append({"index": 0, "text": "", "finish_reason": "stop"})
    return [*({**head, "choices": [choice]} for choice in choices), "[DONE]"]


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vectors = [
        {"object": "embedding", "index": n, "embedding": [0.5] * 8} for n in range(len(texts))
    ]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return {"object": "list", "data": vectors, "model": body["model"], "usage": usage}


def response(body: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    item: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant"}
    item |= {"status": "completed", "content": [text]}
    if body["model"] == "tools":
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather"}
        item |= {"arguments": "".join(ARGUMENTS), "status": "completed"}
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"]}
    head |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    failed = body["model"] == "failed"
    error = {"code": "server_error", "message": "it broke"} if failed else None
    status = "failed" if failed else "completed"
    output = [] if failed else [reasoning, item]
    return {**head, "status": status, "error": error, "output": output, "usage": RESPONSE_USAGE}


def response_stream(body: dict[str, Any]) -> list[Any]:
    whole = response(body)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    item = {**whole["output"][1], "content": [], "status": "in_progress"}
    text = {"type": "output_text", "text": "", "annotations": []}
    at = {"output_index": 1, "item_id": "msg_1", "content_index": 0, "logprobs": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        {"type": "response.content_part.added", **at, "part": text},
        *({"type": "response.output_text.delta", **at, "delta": word} for word in WORDS),
        {"type": "response.output_text.done", **at, "text": "".join(WORDS)},
        {"type": "response.output_item.done", "output_index": 1, "item": whole["output"][1]},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": n} for n, event in enumerate(events)]


# --- Anthropic --------------------------------------------------------------------------------


def message(body: dict[str, Any]) -> dict[str, Any]:
    blocks: list[Any] = [{"type": "text", "text": "".join(WORDS)}]
    if body["model"] == "tools":
        tool = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
        blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}, tool]
    reason = "tool_use" if body["model"] == "tools" else "end_turn"
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}
    end = {"stop_reason": reason, "stop_sequence": None}
    return {**head, "content": blocks, **end, "usage": MESSAGE_USAGE}


def message_stream(body: dict[str, Any]) -> list[Any]:
    whole = message(body)
    begun = {**whole, "content": [], "stop_reason": None}
    begun["usage"] = {**MESSAGE_USAGE, "output_tokens": 1}
    events: list[Any] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(whole["content"]):
        kind = block["type"]
        empty = {"text": "", "thinking": "", "input": {}, "signature": ""}
        start = {k: empty.get(k, v) for k, v in block.items()}
        deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word} for word in WORDS]
        if kind == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": a} for a in ARGUMENTS]
        elif kind == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": "hm"}]
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += ({"type": "content_block_delta", "index": index, "delta": d} for d in deltas)
        events.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": 20}})
    return [*events, {"type": "message_stop"}]


ANSWERS = {
    "/chat/completions": chat,
    "/completions": completion,
    "/embeddings": embeddings,
    "/responses": response,
    "/messages": message,
}
STREAMS = {
    "/chat/completions": chat_stream,
    "/completions": completion_stream,
    "/responses": response_stream,
    "/messages": message_stream,
}


@contextlib.contextmanager
def served() -> Iterator[ModelServer]:
    """A server that runs within `with`."""
    with ModelServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
