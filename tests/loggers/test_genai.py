"""The real clients of OpenAI and Anthropic, with a server that speaks the formats of both."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import multiprocessing
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

import lakelog
from lakelog.errors import LakelogError
from lakelog.loggers.spans import recorder_of
from tests.conftest import MakeLake
from tests.support.model_server import KEY, ModelServer, served
from tests.support.requirements import need_module

openai = need_module("openai")
anthropic = need_module("anthropic")

AUTHORITIES = ssl.create_default_context()
ASK = [{"role": "user", "content": "hi"}]
TEXT = "Hello, wörld!"
SAID = [{"type": "text", "content": TEXT}]
CALLED = {"type": "tool_call", "name": "weather", "arguments": {"city": "Paris"}}
TOKENS = {
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 20,
    "gen_ai.usage.cache_read.input_tokens": 40,
}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """The models."""
    with served() as server:
        yield server


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    """Where calls are recorded."""
    return make_lake()


def settings(server: ModelServer, package: Any, *, is_async: bool = False) -> dict[str, Any]:
    base = server.base + ("/v1" if package is openai else "")
    connect = package.DefaultAsyncHttpxClient if is_async else package.DefaultHttpxClient
    # Each client would read the certificates of all authorities, which takes as long as a test.
    return {
        "api_key": KEY,
        "base_url": base,
        "max_retries": 0,
        "http_client": connect(verify=AUTHORITIES),
    }


@pytest.fixture
def gpt(server: ModelServer) -> Iterator[Any]:
    """A client of OpenAI."""
    with openai.OpenAI(**settings(server, openai)) as client:
        yield client


@pytest.fixture
def claude(server: ModelServer) -> Iterator[Any]:
    """A client of Anthropic."""
    with anthropic.Anthropic(**settings(server, anthropic)) as client:
        yield client


def recorded(lake: lakelog.Lake) -> list[dict[str, Any]]:
    """The spans of a lake in the order of their start, with the level."""
    assert recorder_of(lake.path).flush(240)
    rows = lake.sql("SELECT level, data FROM events WHERE type = 'span' ORDER BY time, seq")
    return [orjson.loads(data) | {"level": level} for level, data in rows.fetchall()]


def attributes(lake: lakelog.Lake) -> dict[str, Any]:
    """The attributes of the only span."""
    (span,) = recorded(lake)
    return dict(span["attributes"])


def has(fields: dict[str, Any], expected: dict[str, Any]) -> bool:
    return {k: fields.get(k) for k in expected} == expected


def read(stream: Any) -> list[Any]:
    return list(stream)


CALLS: dict[str, Callable[[Any, Any, str], Any]] = {
    "chat": lambda g, c, m: g.chat.completions.create(model=m, messages=ASK),
    "chat stream": lambda g, c, m: read(
        g.chat.completions.create(
            model=m, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    ),
    "response": lambda g, c, m: g.responses.create(model=m, input="hi"),
    "response stream": lambda g, c, m: read(g.responses.create(model=m, input="hi", stream=True)),
    "message": lambda g, c, m: c.messages.create(model=m, max_tokens=9, messages=ASK),
    "message stream": lambda g, c, m: read(
        c.messages.create(model=m, max_tokens=9, messages=ASK, stream=True)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_a_span_with_what_was_said_and_used(
    name: str, lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """Chats, responses and messages, plain and streamed, give the same attributes."""
    with lakelog.instrument_openai(gpt, lake=lake), lakelog.instrument_anthropic(claude, lake=lake):
        CALLS[name](gpt, claude, "m-1")
    (span,) = recorded(lake)
    fields = span["attributes"]
    provider = "anthropic" if name.startswith("message") else "openai"
    assert (span["name"], span["kind"], span["level"], span["status"]) == ("chat m-1", 3, None, {})
    assert int(span["endTimeUnixNano"]) > int(span["startTimeUnixNano"])
    head = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": "m-1",
        "gen_ai.response.model": "m-1",
        "server.address": "127.0.0.1",
    }
    assert has(fields, head | TOKENS)
    detail = "cache_creation.input" if provider == "anthropic" else "reasoning.output"
    assert fields[f"gen_ai.usage.{detail}_tokens"] in (8, 10)
    question = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
    assert fields["gen_ai.input.messages"] == question
    (answer,) = fields["gen_ai.output.messages"]
    (reason,) = fields["gen_ai.response.finish_reasons"]
    assert answer == {"role": "assistant", "parts": SAID, "finish_reason": reason}
    assert reason in ("stop", "completed", "end_turn")
    if "stream" in name:
        assert fields["lakelog.stream"] == "complete"
        assert fields["gen_ai.request.stream"] is True
        assert fields["gen_ai.response.time_to_first_chunk"] > 0
    else:
        assert "lakelog.stream" not in fields


@pytest.mark.parametrize("name", [n for n in CALLS if n != "response stream"])
def test_tool_calls_have_their_arguments(
    name: str, lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """As data, whether they came at once or in fragments of JSON."""
    with lakelog.instrument_openai(gpt, lake=lake), lakelog.instrument_anthropic(claude, lake=lake):
        CALLS[name](gpt, claude, "tools")
    (answer,) = attributes(lake)["gen_ai.output.messages"]
    identity = "toolu_1" if name.startswith("message") else "call_1"
    assert answer["parts"][-1] == {**CALLED, "id": identity}


def test_results_of_tools_and_instructions_are_part_of_the_request(
    lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """In one form, whichever API it was; objects of the client are taken for what they hold."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    with lakelog.instrument_openai(gpt, lake=lake):
        answer = gpt.chat.completions.create(model="tools", messages=ASK, tools=tools)
        result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
        turn = [*ASK, answer.choices[0].message, result]
        gpt.chat.completions.create(model="m", messages=turn)
        output = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
        gpt.responses.create(model="m", instructions="Be brief.", input=[*ASK, output])
    with lakelog.instrument_anthropic(claude, lake=lake):
        message = claude.messages.create(model="tools", max_tokens=9, messages=ASK, system="S")
        block = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
        turn = [*ASK, {"role": "assistant", "content": message.content}]
        turn.append({"role": "user", "content": [block]})
        claude.messages.create(model="m", max_tokens=9, messages=turn)
    first, chat, response, system, last = (span["attributes"] for span in recorded(lake))
    assert first["gen_ai.tool.definitions"] == tools
    reply = {"type": "tool_call_response", "id": "call_1", "response": "sunny"}
    assert chat["gen_ai.input.messages"][1]["parts"] == [{**CALLED, "id": "call_1"}]
    assert chat["gen_ai.input.messages"][2] == {"role": "tool", "parts": [reply]}
    assert response["gen_ai.system_instructions"] == [{"type": "text", "content": "Be brief."}]
    assert response["gen_ai.input.messages"][1] == {"role": "tool", "parts": [reply]}
    assert system["gen_ai.system_instructions"] == [{"type": "text", "content": "S"}]
    assert last["gen_ai.input.messages"][1]["parts"][1] == {**CALLED, "id": "toolu_1"}
    assert last["gen_ai.input.messages"][2]["parts"] == [{**reply, "id": "toolu_1"}]


def test_completions_and_embeddings(lake: lakelog.Lake, gpt: Any) -> None:
    """The older API, and vectors, of which the number of dimensions is kept."""
    with lakelog.instrument_openai(gpt, lake=lake):
        gpt.completions.create(model="m", prompt="Say hi", temperature=0.5, stop="\n")
        read(gpt.completions.create(model="m", prompt=["a", "b"], stream=True))
        gpt.embeddings.create(model="v", input=["a", "b"])
    text, streamed, vectors = (span["attributes"] for span in recorded(lake))
    assert text["gen_ai.operation.name"] == "text_completion"
    assert text["gen_ai.request.temperature"] == 0.5
    assert text["gen_ai.request.stop_sequences"] == ["\n"]
    assert text["gen_ai.output.messages"][0]["parts"] == SAID
    assert streamed["gen_ai.output.messages"][0]["parts"] == SAID
    assert len(streamed["gen_ai.input.messages"]) == 2
    assert vectors["gen_ai.operation.name"] == "embeddings"
    assert vectors["gen_ai.embeddings.dimension.count"] == 8
    assert vectors["gen_ai.usage.input_tokens"] == 7
    assert vectors["lakelog.embeddings.input"] == ["a", "b"]


def test_helpers_raw_responses_and_copies_of_a_client(
    lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """Whatever way the client offers: each is one span, with the answer."""
    openai_calls = lakelog.instrument_openai(gpt, lake=lake)
    with openai_calls, lakelog.instrument_anthropic(claude, lake=lake):
        gpt.with_options(timeout=9).chat.completions.create(model="m", messages=ASK)
        raw = gpt.chat.completions.with_raw_response.create(model="m", messages=ASK)
        assert raw.parse().choices[0].message.content == TEXT
        lazy = gpt.chat.completions.with_streaming_response.create(model="m", messages=ASK)
        with lazy as response:
            response.parse()
        with gpt.chat.completions.stream(model="m", messages=ASK) as stream:
            assert stream.get_final_completion().choices[0].message.content == TEXT
        with gpt.responses.stream(model="m", input="hi") as stream:
            assert stream.get_final_response().output_text == TEXT
        claude.copy().messages.create(model="m", max_tokens=9, messages=ASK)
        with claude.messages.stream(model="m", max_tokens=9, messages=ASK) as stream:
            assert stream.get_final_text() == TEXT
    spans = recorded(lake)
    assert len(spans) == 7
    for span in spans:
        assert span["attributes"]["gen_ai.output.messages"][0]["parts"] == SAID
        assert span["level"] is None


RESOURCES: dict[str, tuple[Callable[[Any, Any], Any], dict[str, Any]]] = {
    "chat": (lambda g, c: g.chat.completions, {"messages": ASK}),
    "response": (lambda g, c: g.responses, {"input": "hi"}),
    "message": (lambda g, c: c.messages, {"max_tokens": 9, "messages": ASK}),
}
READS: dict[str, Callable[[Any], Any]] = {
    "parse": lambda r: [*p] if hasattr(p := r.parse(), "response") else p,
    "read": lambda r: r.read(),
    "text": lambda r: r.text(),
    "iter_bytes": lambda r: list(r.iter_bytes(7)),
    "iter_text": lambda r: list(r.iter_text()),
    "iter_lines": lambda r: list(r.iter_lines()),
    "iter_raw": lambda r: list(r.http_response.iter_raw()),
}


def check_read(span: dict[str, Any], *, is_stream: bool, kind: str) -> None:
    """The span of a call that was read to its end, by whatever way."""
    fields = span["attributes"]
    assert (span["level"], span["status"]) == (None, {})
    assert fields.get("lakelog.stream") == ("complete" if is_stream else None)
    assert ("gen_ai.response.time_to_first_chunk" in fields) == is_stream
    assert fields["gen_ai.output.messages"][0]["parts"] == SAID
    if not (is_stream and kind == "chat"):  # its usage has to be asked for
        assert has(fields, TOKENS)


@pytest.mark.matrix
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("kind", RESOURCES)
def test_a_raw_response_that_nobody_keeps(
    kind: str, is_stream: bool, lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """In one expression, as both packages document it; a stream outlives the response."""
    resource, request = RESOURCES[kind]
    with lakelog.instrument_openai(gpt, lake=lake), lakelog.instrument_anthropic(claude, lake=lake):
        raw = resource(gpt, claude).with_raw_response
        answer = raw.create(model="m", stream=is_stream, **request).parse()
        gc.collect()
        if is_stream:
            assert read(answer)
    (span,) = recorded(lake)
    check_read(span, is_stream=is_stream, kind=kind)


@pytest.mark.matrix
@pytest.mark.parametrize("model", ["m", "packed"])
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("kind", RESOURCES)
def test_a_streaming_response_is_recorded_however_it_is_read(
    kind: str, is_stream: bool, model: str, lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """Parsed, or as bytes, text or lines: to its end it is complete, and the caller gets the same
    as without lakelog."""
    resource, request = RESOURCES[kind]

    def answers() -> list[str]:
        streaming, results = resource(gpt, claude).with_streaming_response, list[str]()
        for read_it in READS.values():
            with streaming.create(model=model, stream=is_stream, **request) as response:
                results.append(repr(read_it(response)))
        return results

    expected = answers()
    with lakelog.instrument_openai(gpt, lake=lake), lakelog.instrument_anthropic(claude, lake=lake):
        assert answers() == expected
    spans = recorded(lake)
    assert len(spans) == len(READS)
    for span in spans:
        check_read(span, is_stream=is_stream, kind=kind)


@pytest.mark.parametrize("kind", RESOURCES)
def test_an_asynchronous_streaming_response(
    kind: str, lake: lakelog.Lake, server: ModelServer
) -> None:
    """The same for asynchronous clients, a raw response that nobody keeps included."""
    resource, request = RESOURCES[kind]

    async def main() -> None:
        async with (
            openai.AsyncOpenAI(**settings(server, openai, is_async=True)) as gpt,
            anthropic.AsyncAnthropic(**settings(server, anthropic, is_async=True)) as claude,
        ):
            lakelog.instrument_openai(gpt, lake=lake)
            lakelog.instrument_anthropic(claude, lake=lake)
            streaming = resource(gpt, claude).with_streaming_response
            for is_stream in (False, True):
                async with streaming.create(model="m", stream=is_stream, **request) as response:
                    assert [line async for line in response.iter_lines()]
                async with streaming.create(model="m", stream=is_stream, **request) as response:
                    assert await response.read()
            raw = resource(gpt, claude).with_raw_response
            stream = (await raw.create(model="m", stream=True, **request)).parse()
            if inspect.isawaitable(stream):
                stream = await stream
            gc.collect()
            assert [chunk async for chunk in stream]

    asyncio.run(main())
    spans = recorded(lake)
    assert len(spans) == 5
    for span, is_stream in zip(spans, (False, False, True, True, True), strict=True):
        check_read(span, is_stream=is_stream, kind=kind)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("kind", RESOURCES)
def test_a_streaming_response_that_is_not_read_to_its_end(
    kind: str, is_stream: bool, lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """Left unread it is abandoned; a stream that the server cuts is cut, with what had arrived."""
    resource, request = RESOURCES[kind]
    with lakelog.instrument_openai(gpt, lake=lake), lakelog.instrument_anthropic(claude, lake=lake):
        streaming = resource(gpt, claude).with_streaming_response
        with streaming.create(model="m", stream=is_stream, **request):
            pass
        if is_stream:
            with streaming.create(model="m", stream=True, **request) as response:
                next(response.iter_lines())
            with streaming.create(model="cut", stream=True, **request) as response:
                assert response.read()
    spans = recorded(lake)
    outcomes = [span["attributes"]["lakelog.stream"] for span in spans]
    assert outcomes == ["abandoned"] + ["abandoned", "cut"] * is_stream
    if is_stream:
        assert spans[2]["level"] == "ERROR"
        parts = spans[2]["attributes"]["gen_ai.output.messages"][0]["parts"]
        assert parts[0]["content"] in ("Hello", "Hello, ", "Hello, wörld")


def test_asynchronous_clients(lake: lakelog.Lake, server: ModelServer) -> None:
    """Calls and streams of concurrent tasks, each within the span of its task."""

    async def ask(number: int, gpt: Any, claude: Any) -> None:
        with lakelog.span(f"task {number}"):
            await gpt.chat.completions.create(model=f"plain {number}", messages=ASK)
            stream = await gpt.responses.create(model=f"resp {number}", input="hi", stream=True)
            assert [event async for event in stream]
            model = f"stream {number}"
            async with claude.messages.stream(model=model, max_tokens=9, messages=ASK) as stream:
                assert await stream.get_final_text() == TEXT
            stream = await gpt.chat.completions.create(model="left", messages=ASK, stream=True)
            async for _ in stream:
                break
            await stream.close()
            with pytest.raises(openai.RateLimitError):
                await gpt.chat.completions.create(model="error-429", messages=ASK)

    async def main() -> None:
        async with (
            openai.AsyncOpenAI(**settings(server, openai, is_async=True)) as gpt,
            anthropic.AsyncAnthropic(**settings(server, anthropic, is_async=True)) as claude,
        ):
            lakelog.instrument_openai(gpt)
            lakelog.instrument_anthropic(claude)
            with lakelog.span("root", lake=lake):
                await asyncio.gather(*(ask(n, gpt, claude) for n in range(5)))

    asyncio.run(main())
    spans = recorded(lake)
    by_name = {span["name"]: span for span in spans}
    assert len(spans) == 1 + 5 * 6
    for n in range(5):
        for kind in ("plain", "resp", "stream"):
            span = by_name[f"chat {kind} {n}"]
            assert span["parentSpanId"] == by_name[f"task {n}"]["spanId"]
            assert span["traceId"] == by_name["root"]["traceId"]
            assert span["attributes"]["gen_ai.output.messages"][0]["parts"] == SAID
    left = [s["attributes"]["lakelog.stream"] for s in spans if s["name"] == "chat left"]
    assert left == ["abandoned"] * 5
    assert sum(s["level"] == "ERROR" for s in spans) == 5


def leave_by_close(stream: Any) -> None:
    next(stream)
    stream.close()


def leave_by_with(stream: Any) -> None:
    with stream:
        next(iter(stream))


def leave_by_forgetting(stream: Any) -> None:
    next(iter(stream))


def leave_forked(stream: Any) -> None:
    next(iter(stream))
    (child := multiprocessing.get_context("fork").Process(target=stream.close)).start()
    child.join()


def leave_unread(stream: Any) -> None:
    with stream:
        pass


def forget_unread(stream: Any) -> None:
    assert stream


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["chat", "response", "message"])
@pytest.mark.parametrize(
    "leave",
    [leave_by_close, leave_by_with, leave_by_forgetting, leave_forked, leave_unread, forget_unread],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_stream_that_is_left_is_abandoned(
    kind: str, leave: Callable[[Any], None], lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """It is no error; what had arrived is kept, once."""
    asked: dict[str, Any] = {"model": "m", "messages": ASK, "stream": True}
    create = {
        "chat": lambda: gpt.chat.completions.create(**asked),
        "response": lambda: gpt.responses.create(model="m", input="hi", stream=True),
        "message": lambda: claude.messages.create(max_tokens=9, **asked),
    }
    with lakelog.instrument_openai(gpt, lake=lake), lakelog.instrument_anthropic(claude, lake=lake):
        leave(create[kind]())
        gc.collect()
        (span,) = recorded(lake)
    assert span["attributes"]["lakelog.stream"] == "abandoned"
    assert (span["level"], span["status"]) == (None, {})
    if kind == "chat" and leave not in (leave_unread, forget_unread):
        parts = span["attributes"]["gen_ai.output.messages"][0]["parts"]
        assert parts == [{"type": "text", "content": "Hello"}]


@pytest.mark.parametrize("name", [n for n in CALLS if "stream" in n])
@pytest.mark.parametrize("model", ["cut", "reset"])
def test_a_stream_that_ends_too_early_is_cut(
    name: str, model: str, lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """With or without an error of the client, the span failed, and has what had arrived."""
    with lakelog.instrument_openai(gpt, lake=lake), lakelog.instrument_anthropic(claude, lake=lake):
        error = None
        try:
            CALLS[name](gpt, claude, model)
        except Exception as raised:
            error = raised
    assert (error is None) == (model == "cut")
    (span,) = recorded(lake)
    fields = span["attributes"]
    assert (span["level"], span["status"]["code"]) == ("ERROR", 2)
    assert fields["lakelog.stream"] == "cut"
    assert fields["error.type"] == ("stream_cut" if error is None else type(error).__qualname__)
    (answer,) = fields["gen_ai.output.messages"]
    assert answer["parts"][0]["content"] in ("Hello", "Hello, ", "Hello, wörld")
    assert "finish_reason" not in answer


@pytest.mark.matrix
@pytest.mark.parametrize("status", [400, 401, 429, 500])
@pytest.mark.parametrize("name", CALLS)
def test_errors_reach_the_caller_and_the_lake_without_the_key(
    status: int, name: str, lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """Even where the server repeats the key in its message, and what is around the call stores
    the same error."""
    ai = lakelog.get_ai_logger(None, lake=lake)
    with (
        lakelog.instrument_openai(gpt, lake=lake),
        lakelog.instrument_anthropic(claude, lake=lake),
        pytest.raises((openai.APIStatusError, anthropic.APIStatusError), match=KEY) as raised,
        lakelog.span("outer", lake=lake),
        ai.measure_operation("within"),
    ):
        CALLS[name](gpt, claude, f"error-{status}")
    assert ai.flush(240)
    outer, span = recorded(lake)
    assert outer["level"] == "ERROR"
    fields = span["attributes"]
    assert span["level"] == "ERROR"
    assert fields["error.type"] == type(raised.value).__qualname__
    assert fields["http.response.status_code"] == status
    assert fields["exception"]["type"].endswith(fields["error.type"])
    assert "refused: " in span["status"]["message"]
    assert fields["gen_ai.input.messages"][0]["parts"] == [{"type": "text", "content": "hi"}]
    everything = lake.sql("SELECT string_agg(to_json(e)::VARCHAR, '') FROM events e").fetchall()
    assert KEY not in everything[0][0]
    assert everything[0][0].count("<api key>") >= 4


def test_a_response_that_failed(lake: lakelog.Lake, gpt: Any) -> None:
    """The HTTP request succeeded, but not the model."""
    with lakelog.instrument_openai(gpt, lake=lake):
        gpt.responses.create(model="failed", input="hi")
    (span,) = recorded(lake)
    assert span["level"] == "ERROR"
    assert span["status"]["message"] == "it broke"
    assert span["attributes"]["error.type"] == "server_error"


def test_without_content_only_names_of_tools_are_stored(
    lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """Tokens, models and errors are; nothing that was said."""
    ask = [{"role": "user", "content": "my secret"}]
    with lakelog.instrument_openai(gpt, lake=lake, content=False):
        gpt.chat.completions.create(model="tools", messages=ask)
        gpt.responses.create(model="m", input="my secret", instructions="secret")
        gpt.embeddings.create(model="v", input="my secret")
    with lakelog.instrument_anthropic(claude, lake=lake, content=False):
        claude.messages.create(model="m", max_tokens=9, messages=ask, system="secret")
    spans = recorded(lake)
    text = orjson.dumps(spans).decode()
    for word in ("secret", "Hello", "Paris"):
        assert word not in text
    assert has(spans[0]["attributes"], TOKENS)
    (answer,) = spans[0]["attributes"]["gen_ai.output.messages"]
    assert answer["parts"] == [{"type": "tool_call", "id": "call_1", "name": "weather"}]


def test_a_function_redacts_content(lake: lakelog.Lake, gpt: Any) -> None:
    """It gets every text of prompts, answers and arguments; structure stays."""

    def redact(text: str) -> str:
        return text.replace("Paris", "<city>").replace("Hello", "<word>")

    with lakelog.instrument_openai(gpt, lake=lake, content=redact):
        parts = [{"type": "text", "text": "Paris?"}]
        gpt.chat.completions.create(model="tools", messages=[{"role": "user", "content": parts}])
        gpt.embeddings.create(model="v", input="Paris")
        with pytest.raises(openai.APIStatusError):
            gpt.chat.completions.create(model="error-400", messages=ASK)
    called, vectors, _ = (span["attributes"] for span in recorded(lake))
    asked = called["gen_ai.input.messages"][0]
    assert asked == {"role": "user", "parts": [{"type": "text", "content": "<city>?"}]}
    arguments = called["gen_ai.output.messages"][0]["parts"][0]["arguments"]
    assert arguments == {"city": "<city>"}
    assert vectors["lakelog.embeddings.input"] == "<city>"


def test_content_that_cannot_be_redacted_is_left_out(lake: lakelog.Lake, gpt: Any) -> None:
    """The call is recorded with its tokens, the caller notices nothing."""

    def redact(text: str) -> str:
        raise KeyError(text)

    with lakelog.instrument_openai(gpt, lake=lake, content=redact):
        gpt.chat.completions.create(model="m", messages=ASK)
        with pytest.raises(openai.BadRequestError):
            gpt.chat.completions.create(model="error-400", messages=ASK)
    spans = recorded(lake)
    assert has(spans[0]["attributes"], TOKENS | {"lakelog.content.error": "KeyError"})
    assert spans[1]["level"] == "ERROR"
    assert b"hi" not in orjson.dumps([s["attributes"].get("gen_ai.input.messages") for s in spans])
    assert "refused" not in spans[1]["status"]["message"]


def test_cost_by_a_table_of_prices(lake: lakelog.Lake, gpt: Any, claude: Any) -> None:
    """By the model that answered, with or without its date; cached tokens have prices of their
    own; a model that is not in the table costs nothing that is known."""
    prices = {
        "big": {"input": 10.0, "output": 100.0, "cache_read": 1.0},
        "claude": {"input": 10.0, "output": 100.0, "cache_read": 1.0, "cache_creation": 20.0},
    }
    with lakelog.instrument_openai(gpt, lake=lake, prices=prices):
        gpt.chat.completions.create(model="big-2026-01-31", messages=ASK)
        gpt.chat.completions.create(model="big-mini", messages=ASK)
    with lakelog.instrument_anthropic(claude, lake=lake, prices=prices):
        claude.messages.create(model="claude-20260131", max_tokens=9, messages=ASK)
    costs = [span["attributes"].get("gen_ai.usage.cost") for span in recorded(lake)]
    expected = (60 * 10 + 40 * 1 + 20 * 100) / 1e6
    assert costs == [pytest.approx(expected), None, pytest.approx((500 + 40 + 200 + 2000) / 1e6)]


def test_long_conversations_are_kept_whole(lake: lakelog.Lake, gpt: Any) -> None:
    """A megabyte, and more messages than other tools keep attributes."""
    messages = [{"role": "user", "content": f"{n} " + "x" * 5_000} for n in range(300)]
    with lakelog.instrument_openai(gpt, lake=lake):
        gpt.chat.completions.create(model="m", messages=messages)
    kept = attributes(lake)["gen_ai.input.messages"]
    assert [m["parts"][0]["content"] for m in kept] == [m["content"] for m in messages]


def test_all_clients_until_it_is_undone(
    lake: lakelog.Lake, server: ModelServer, gpt: Any, claude: Any
) -> None:
    """Those that exist already, and those that are made later."""
    request = openai.OpenAI.request, anthropic.AsyncAnthropic.request
    first = lakelog.instrument_openai(lake=lake)
    with lakelog.instrument_anthropic(lake=lake):
        gpt.chat.completions.create(model="m", messages=ASK)
        with openai.OpenAI(**settings(server, openai)) as another:
            another.chat.completions.create(model="m", messages=ASK)
        claude.messages.create(model="m", max_tokens=9, messages=ASK)
    first.undo()
    first.undo()
    gpt.chat.completions.create(model="m", messages=ASK)
    claude.messages.create(model="m", max_tokens=9, messages=ASK)
    assert len(recorded(lake)) == 3
    assert request == (openai.OpenAI.request, anthropic.AsyncAnthropic.request)


def test_patching_twice_is_idempotent(lake: lakelog.Lake, server: ModelServer, gpt: Any) -> None:
    """A client, its class, both, in any order, sync or async: one call is one span."""
    instrumentations = [
        lakelog.instrument_openai(gpt, lake=lake),
        lakelog.instrument_openai(lake=lake),
        lakelog.instrument_openai(openai.OpenAI, lake=lake),
        lakelog.instrument_openai(gpt, lake=lake),
        lakelog.instrument_openai(lake=lake),
    ]

    async def ask() -> None:
        async with openai.AsyncOpenAI(**settings(server, openai, is_async=True)) as client:
            await client.chat.completions.create(model="m", messages=ASK)

    read(gpt.chat.completions.create(model="m", messages=ASK, stream=True))
    asyncio.run(ask())
    assert len(recorded(lake)) == 2
    for instrumentation in instrumentations:  # not in the order of a stack
        instrumentation.undo()
    gpt.chat.completions.create(model="m", messages=ASK)
    asyncio.run(ask())
    assert len(recorded(lake)) == 2


def test_what_goes_wrong_in_recording_is_counted(
    lake: lakelog.Lake, gpt: Any, claude: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """An answer of an unknown form reaches the caller as ever; the call is recorded."""
    calls = lakelog.instrument_openai(gpt, lake=lake)
    with calls, lakelog.instrument_anthropic(claude, lake=lake):
        assert gpt.chat.completions.create(model="odd", messages=ASK).choices == 5
        for stream in (True, False):
            with contextlib.suppress(anthropic.APIError):
                claude.messages.create(model="odd", max_tokens=9, messages=ASK, stream=stream)
    spans = recorded(lake)
    assert len(spans) >= 2
    assert spans[0]["attributes"]["gen_ai.request.model"] == "odd"
    assert calls.stats().refused >= 1
    assert "an event was refused" in capfd.readouterr().err


def test_wrong_clients_and_prices_are_refused_at_once(
    lake: lakelog.Lake, gpt: Any, claude: Any
) -> None:
    """With what is wrong and what would be right."""
    with pytest.raises(ValueError, match="instrument_openai takes a client of openai, not"):
        lakelog.instrument_openai(claude, lake=lake)
    with pytest.raises(ValueError, match="instrument_anthropic takes a client of anthropic"):
        lakelog.instrument_anthropic(gpt, lake=lake)
    with pytest.raises(ValueError, match="'inptu', not one of input, output, cache_read"):
        lakelog.instrument_openai(gpt, lake=lake, prices={"m": {"inptu": 1.0}})


def test_a_missing_package_is_named(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(LakelogError, match="pip install openai"):
        lakelog.instrument_openai(lake=lake)
