"""One call of a language model: a span that ends when its answer was read.

The result that a client returns is watched, never changed: the answer of a plain call at once, a
stream and a raw response as they are read. How a stream ended is `lakelog.stream`:
"complete"; "abandoned" if the program stopped reading; "cut" if it failed or ended before the model
did. What goes wrong in recording is counted and never reaches the caller.
"""

from __future__ import annotations

import functools
import os
import re
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lakelog.loggers.exceptions import exception_data
from lakelog.loggers.genai_fields import (
    Fields,
    answer_error,
    answer_fields,
    answer_messages,
    map_texts,
    redacted,
    request_content,
    request_fields,
    tool_calls_only,
)
from lakelog.loggers.genai_streams import (
    AnswerChunks,
    ChatChunks,
    MessageEvents,
    ResponseBody,
    ResponseEvents,
    json_object,
)
from lakelog.loggers.recorder import Recorder, open_span
from lakelog.loggers.spans import CLIENT, Span
from lakelog.loggers.values import plain

ContentFilter = bool | Callable[[str], object]
Prices = Mapping[str, Mapping[str, float]]

OPERATIONS: dict[str, tuple[str, Callable[[], AnswerChunks]]] = {
    "/chat/completions": ("chat", ChatChunks),
    "/responses": ("chat", ResponseEvents),
    "/completions": ("text_completion", ChatChunks),
    "/embeddings": ("embeddings", ChatChunks),
    "/v1/messages": ("chat", MessageEvents),
}
"""Paths of requests that are recorded, and what they are."""
_PROVIDERS = {"Azure": "azure.ai.openai", "Bedrock": "aws.bedrock", "Vertex": "gcp.vertex_ai"}
_SECRETS = ("api_key", "auth_token", "admin_api_key", "webhook_secret", "_azure_ad_token")
_SECRET_LENGTH_MIN = 6
PRICES = ("input", "output", "cache_read", "cache_creation")
# Providers answer with a dated name of the model that was asked for.
_DATED = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}$")
_PER_TOKENS = 1e6


@contextmanager
def counted(recorder: Recorder) -> Iterator[None]:
    """Count an error of recording, which is none of the caller's."""
    try:
        yield
    except Exception as error:
        # Counting may fail as well, while the interpreter ends.
        with suppress(Exception):
            recorder.fail(error)


class Call:
    """One request and what becomes of it; recorded once, whatever is heard of it first."""

    def __init__(
        self,
        content: ContentFilter,
        prices: Prices,
        recorder: Recorder,
        operation: tuple[str, Callable[[], AnswerChunks]],
        client: Any,
        request: Any,
    ) -> None:
        self.request, self._client, self._recorder = request, client, recorder
        self._content, self._prices = content, prices
        name, self._chunk_type = operation
        # An answer or an error may repeat the key that it was asked with.
        secrets = {k: getattr(client, k, None) for k in _SECRETS}.values()
        # Short values are no keys, and would be replaced everywhere.
        self._secrets = [s for s in secrets if isinstance(s, str) and len(s) >= _SECRET_LENGTH_MIN]
        # `extra_body` has what the client does not know, and takes the place of what it does.
        sent = {**request.json_data, **(request.extra_json or {})}
        body = {k: plain(v) for k, v in sent.items() if _is_given(v)}
        model = body.get("model")
        self._is_stream = body.get("stream") is True
        self._span = Span(f"{name} {model}", recorder, open_span())
        self._span.kind = CLIENT
        address = getattr(client, "base_url", None)
        self._span.set(
            **{"gen_ai.operation.name": name, "gen_ai.provider.name": _provider(client)},
            **request_fields(body),
            **{"server.address": getattr(address, "host", None)},
        )
        self._said = request_content(name, body) if content is not False else {}
        self._chunks: AnswerChunks | None = None
        self._is_recorded = self._is_reading = False
        self._pid = os.getpid()
        self._span.start()

    def watch(self, result: object) -> None:
        """Record a result: at once, or as it is read."""
        with counted(self._recorder):
            # By what the clients' own classes have: their modules change from release to release.
            if hasattr(type(result), "__stream__"):
                self._watch_stream(result)
            elif hasattr(type(result), "parse") and hasattr(result, "http_response"):
                self._watch_raw(result)
            else:
                self._record(_as_dict(result))

    @property
    def reads_bytes(self) -> bool:
        """Whether the caller reads the answer as bytes, or parses what it has read."""
        return isinstance(self._chunks, ResponseBody)

    def add(self, chunk: Any) -> None:
        """Take in a chunk of a stream, or bytes of a response."""
        with counted(self._recorder):
            name = "gen_ai.response.time_to_first_chunk"
            # The first chunk is what a person waits for.
            if self._is_stream and name not in self._span.attributes:
                self._span.attributes[name] = round(self._span.elapsed_ns() / 1e9, 6)
            if isinstance(self._chunks, ResponseBody):
                self._chunks.add_bytes(chunk)
            elif self._chunks is not None:
                self._chunks.add(_as_dict(chunk))

    def complete(self) -> None:
        """The stream ended; before the model did, it was cut."""
        if not self._is_recorded:
            # A connection that ends looks like a stream that ended: only its last chunk tells.
            is_cut = self._chunks is not None and not self._chunks.is_ended
            self._end_stream("cut" if is_cut else "complete")

    def abandon(self) -> None:
        """Nobody reads on. What the model had to say may be complete nevertheless."""
        # A forked process lets go of what is its parent's, who may still read it.
        if not self._is_recorded and os.getpid() == self._pid:
            is_ended = self._chunks is not None and self._chunks.is_ended
            self._end_stream("complete" if is_ended else "abandoned")

    def closed(self) -> None:
        """The connection was closed: by the reader's end, which `complete` hears of, or before."""
        if not self._is_reading:
            self.abandon()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The next chunk of the stream is read: note its end, and its errors."""
        self._is_reading = True
        try:
            yield
        except (StopIteration, StopAsyncIteration):
            self.complete()
            raise
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self._is_reading = False

    def fail(self, error: BaseException) -> None:
        """The call or the stream raised an error."""
        with counted(self._recorder):
            # Other exceptions say that somebody stopped it.
            if isinstance(error, Exception):
                self._set_error(error)
                if self._chunks is not None:
                    self._span.attributes["lakelog.stream"] = "cut"
            else:  # cancelled or interrupted, which is no failure of the model
                self._span.attributes["lakelog.stream"] = "abandoned"
            self._record(self._chunks.answer() if self._chunks is not None else {})

    def _end_stream(self, outcome: str) -> None:
        with counted(self._recorder):
            if self._is_stream or outcome != "complete":
                self._span.attributes["lakelog.stream"] = outcome
            if outcome == "cut":
                self._span.attributes["error.type"] = "stream_cut"
                self._span.fail("the stream ended before the answer did")
            self._record(self._chunks.answer() if self._chunks is not None else {})

    def _set_error(self, error: Exception) -> None:
        span = self._span
        message = self._scrubbed(str(error))
        # What is around the call, spans and handlers of logging, stores this error, too.
        with suppress(AttributeError):
            error.lakelog_text = message  # type: ignore[attr-defined]
        span.fail(message)
        span.attributes["error.type"] = type(error).__qualname__
        if isinstance(status := getattr(error, "status_code", None), int):
            span.attributes["http.response.status_code"] = status
        span.attributes["exception"] = map_texts(exception_data(error), self._scrubbed)

    def _scrubbed(self, message: str) -> str:
        """A text of an error, in which providers may quote a key or what was said."""
        message = self._without_secrets(message)
        if not callable(self._content):
            return message
        try:
            return str(self._content(message))
        except Exception as error:
            return f"<{type(error).__name__}>"

    def _without_secrets(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, "<api key>")
        return message

    def _record(self, answer: Fields) -> None:
        """Store the span, once."""
        if self._is_recorded:
            return
        # First of all: whatever fails below, it is not recorded twice.
        self._is_recorded = True
        attributes = self._span.attributes
        try:
            attributes.update(answer_fields(answer))
            if (cost := _cost(attributes, self._prices)) is not None:
                attributes["gen_ai.usage.cost"] = cost
            if error := answer_error(answer):
                attributes["error.type"], message = error
                self._span.fail(self._scrubbed(message))
            attributes.update(self._content_of(answer))
        finally:
            # Answers may repeat a key, too.
            if self._secrets:
                self._span.attributes = map_texts(attributes, self._without_secrets)
            self._span.end()

    def _content_of(self, answer: Fields) -> Fields:
        messages = answer_messages(answer)
        # Which tools were called is no content; what was said to them is.
        if self._content is False:
            messages = tool_calls_only(messages)
        content = self._said | ({"gen_ai.output.messages": messages} if messages else {})
        if not callable(self._content):
            return content
        try:
            return redacted(content, self._content)
        except Exception as error:  # never unredacted
            return {"lakelog.content.error": type(error).__name__}

    def _watch_stream(self, stream: Any) -> None:
        self._chunks = self._chunk_type()
        # The client's iterator is what all of its ways to read go through.
        inner = stream._iterator
        watched = _AsyncReader if hasattr(inner, "__anext__") else _CallReader
        stream._iterator = watched(self, inner)
        # A stream that nobody reads to its end is recorded when it is let go.
        weakref.finalize(stream, self.abandon)
        self._watch_response(stream.response)

    def _watch_raw(self, raw: Any) -> None:
        """A response that the caller parses or reads: whatever it does, the bytes pass through its
        HTTP response."""
        response = raw.http_response
        if response.is_closed:  # it has been read
            self._record(json_object(response.content))
            return
        self._chunks = ResponseBody(response, self._client._make_sse_decoder(), self._chunk_type())
        self._watch_response(response)
        weakref.finalize(response, self.abandon)

    def _watch_response(self, response: Any) -> None:
        # Every way to read a response ends in `iter_raw`, and every way to leave it in `close`. Not
        # by functions that refer to it: a connection should be closed as soon as nobody has it.
        response_type: object = type(response)
        response.__class__, response.lakelog_call = _watched_response(response_type), self


@functools.cache
def _watched_response(response_type: Any) -> type:
    """Return a class of responses that tell their call what is read, and when they are closed."""

    def iter_raw(self: Any, chunk_size: int | None = None) -> object:
        inner = response_type.iter_raw(self, chunk_size)
        return _CallReader(self.lakelog_call, inner) if self.lakelog_call.reads_bytes else inner

    def aiter_raw(self: Any, chunk_size: int | None = None) -> object:
        inner = response_type.aiter_raw(self, chunk_size)
        return _AsyncReader(self.lakelog_call, inner) if self.lakelog_call.reads_bytes else inner

    def close(self: Any) -> None:
        response_type.close(self)
        self.lakelog_call.closed()

    async def aclose(self: Any) -> None:
        await response_type.aclose(self)
        self.lakelog_call.closed()

    # A subclass made once for each class of responses.
    members = {"iter_raw": iter_raw, "aiter_raw": aiter_raw, "close": close, "aclose": aclose}
    return type(response_type.__name__, (response_type,), members)


class _CallReader:
    """The iterator of a stream, watched."""

    def __init__(self, call: Call, inner: Generator[object, None, None]) -> None:
        self._call, self._inner = call, inner

    def __iter__(self) -> _CallReader:
        return self

    def __next__(self) -> object:
        with self._call.reading():
            chunk = next(self._inner)
        self._call.add(chunk)
        return chunk

    def close(self) -> None:
        """Close the stream."""
        self._inner.close()


class _AsyncReader:
    """The asynchronous iterator of a stream, watched."""

    def __init__(self, call: Call, inner: AsyncGenerator[object, None]) -> None:
        self._call, self._inner = call, inner

    def __aiter__(self) -> _AsyncReader:
        return self

    async def __anext__(self) -> object:
        with self._call.reading():
            chunk = await anext(self._inner)
        self._call.add(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the stream."""
        await self._inner.aclose()


def _provider(client: object) -> str:
    bases = type(client).__mro__
    for fragment, provider in _PROVIDERS.items():
        # By the classes above, since programs make their own.
        if any(fragment in base.__name__ for base in bases):
            return provider
    packages = {base.__module__.split(".")[0] for base in bases}
    return "anthropic" if "anthropic" in packages else "openai"


def _is_given(value: object) -> bool:
    """Whether a parameter was given: the clients have objects that stand for none."""
    return value is not None and type(value).__name__ not in ("Omit", "NotGiven")


def _as_dict(value: Any) -> Fields:
    """Return what the client made of an answer as it came."""
    if hasattr(type(value), "to_dict"):
        return dict(value.to_dict(warnings=False))
    result = plain(value)
    return result if isinstance(result, dict) else {}


def _cost(attributes: Fields, prices: Prices) -> float | None:
    """What the tokens of a call cost, in the unit of the prices; None for an unknown model."""
    models = [attributes.get(f"gen_ai.{k}.model") for k in ("response", "request")]
    # With its date first, as prices may be of one version.
    names = [name for m in models if isinstance(m, str) for name in (m, _DATED.sub("", m))]
    price = next((prices[name] for name in names if name in prices), None)
    tokens = {
        price_name: attributes.get(f"gen_ai.usage.{price_name}_tokens", 0)
        for price_name in ("input", "output", "cache_read.input", "cache_creation.input")
    }
    if price is None or not any(tokens.values()):
        return None
    # Cached tokens are part of the input, and have a price of their own.
    cached, cache_writes = tokens["cache_read.input"], tokens["cache_creation.input"]
    full = price.get("input", 0.0)
    cost = (tokens["input"] - cached - cache_writes) * full
    cost += tokens["output"] * price.get("output", 0.0)
    cache_cost = cached * price.get("cache_read", full)
    cost += cache_cost + cache_writes * price.get("cache_creation", full)
    return float(cost / _PER_TOKENS)
