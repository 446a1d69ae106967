"""llm_usage, llm_errors, tool_calls and decisions: what agents did, by the view's names."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import orjson
import pytest

import lakelog
from lakelog import views
from lakelog.loggers.spans import recorder_of
from tests.conftest import MakeLake
from tests.support import viewmodel
from tests.support.model_server import KEY, served
from tests.support.requirements import need_module
from tests.support.viewhistory import AGENTS, History

NAMES = ("llm_usage", "llm_errors", "tool_calls", "decisions")


def check(lake: Any) -> None:
    """Compare the four views with the model in Python."""
    rows = viewmodel.events(lake)
    for name in NAMES:
        found = sorted(viewmodel.given(name, views.read(lake, name)), key=str)
        assert found == sorted(viewmodel.MODEL[name](rows), key=str), name


def agent_events(count: int, seed: int) -> list[dict[str, Any]]:
    """Events of agents, many of them late or about the same call."""
    made = History.__new__(History)
    made.random = random.Random(seed)
    events = (made.event() for _ in range(count * 10))
    return [e for e in events if e.get("subject") in AGENTS][:count]


def test_incremental_in_the_tail_after_compaction_and_rollback(make_lake: MakeLake) -> None:
    """At every step of a lake's life, and of a past state, the answers are those of all events."""
    lake = make_lake(seal="never")
    for seed in range(6):
        lake.append(agent_events(25, seed))
        check(lake)
        if seed % 2:
            lake.settle()
            check(lake)
        if seed == 2:
            lake.tag("v1")
            past = [views.read(lake, name).to_pylist() for name in NAMES]
    lake.compact()
    check(lake)
    assert [views.read(lake.at("v1"), name).to_pylist() for name in NAMES] == past
    lake.rollback("v1")
    assert [views.read(lake, name).to_pylist() for name in NAMES] == past
    lake.append(agent_events(25, 7))
    check(lake)
    lake.undo(force=True)
    check(lake)


def by_key(lake: lakelog.Lake, name: str, key: str, **params: Any) -> dict[Any, dict[str, Any]]:
    return {row[key]: row for row in lake.view(name, params).to_pylist()}


def test_what_clients_and_loggers_record(make_lake: MakeLake) -> None:
    """A call of a tool from request to result, a refused call, and two decisions."""
    openai = need_module("openai")
    lake = make_lake()
    ask = [{"role": "user", "content": "hi"}]
    prices = {"tools": {"input": 1.0, "output": 10.0}}
    with served() as server:
        settings = {"api_key": KEY, "base_url": f"{server.base}/v1", "max_retries": 0}
        with (
            openai.OpenAI(**settings) as client,
            lakelog.instrument_openai(client, lake=lake, prices=prices) as calls,
        ):
            create = client.chat.completions.create
            message = create(model="tools", messages=ask).choices[0].message
            assert calls.flush(240)
            opened = by_key(lake, "tool_calls", "id")["call_1"]
            assert (opened["status"], opened["tool"], opened["seconds"]) == (
                "open",
                "weather",
                None,
            )
            fields = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"}
            fields["gen_ai.tool.call.id"] = message.tool_calls[0].id
            with (
                contextlib.suppress(OSError),
                lakelog.span("execute_tool weather", lake=lake, **fields),
            ):
                raise OSError("no route")
            result = {"role": "tool", "tool_call_id": "call_1", "content": "unknown"}
            create(model="m", messages=[*ask, message, result])
            for _ in range(2):
                with contextlib.suppress(openai.RateLimitError):
                    create(model="error-429", messages=ask)
    ai = lakelog.get_ai_logger(None, lake=lake, source="agent")
    first = ai.ai_decision("route", ["a", "b"], "a", 0.5, "default", subject="user-1")
    ai.ai_decision("size", [1, 2], 2)
    first.outcome("unclear")
    first.outcome("accepted", reward=1.0)
    assert ai.flush(240)
    assert recorder_of(lake.path).flush(240)
    call = by_key(lake, "tool_calls", "id")["call_1"]
    assert (call["status"], call["error"], call["result"]) == ("failed", "no route", "unknown")
    assert orjson.loads(call["arguments"]) == {"city": "Paris"}
    assert call["model"] == "tools"
    assert call["seconds"] > 0
    usage = by_key(lake, "llm_usage", "model")
    assert {m: (u["calls"], u["errors"]) for m, u in usage.items()} == {
        "tools": (1, 0),
        "m": (1, 0),
        "error-429": (2, 2),
    }
    tools = usage["tools"]
    assert (tools["provider"], tools["operation"]) == ("openai", "chat")
    assert (tools["input_tokens"], tools["output_tokens"]) == (100, 20)
    assert (tools["cached_tokens"], tools["reasoning_tokens"]) == (40, 8)
    assert tools["cost"] == pytest.approx(0.0003)
    (error,) = lake.view("llm_errors").to_pylist()
    assert (error["error"], error["status"], error["failures"]) == ("RateLimitError", 429, 2)
    assert "refused" in error["message"]
    decided = by_key(lake, "decisions", "point")
    assert (decided["route"]["outcome"], decided["route"]["reward"]) == ("accepted", 1.0)
    assert (decided["route"]["chosen"], decided["route"]["confidence"]) == ("a", 0.5)
    assert decided["route"]["seconds"] > 0
    assert (decided["size"]["outcome"], decided["size"]["chosen"]) == (None, "2")
    assert list(by_key(lake, "decisions", "point", point="size")) == ["size"]
    query = "SELECT avg(reward) FROM decisions WHERE chosen = 'a'"
    assert lake.sql(query).fetchall() == [(1.0,)]


def test_spans_of_other_libraries(make_lake: MakeLake) -> None:
    """Older names, messages as JSON text, calls without an id, spans of agents that repeat."""
    lake = make_lake()
    call = {"type": "tool_call", "name": "find", "arguments": {}}
    messages = orjson.dumps([{"role": "assistant", "parts": [call]}]).decode()
    old = {
        "gen_ai.system": "mistral_ai",
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": "m",
        "gen_ai.usage.prompt_tokens": "7",
        "gen_ai.output.messages": messages,
    }
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m"}
    agent["gen_ai.usage.input_tokens"] = "7"
    for number, fields in enumerate((old, agent)):
        data = {"spanId": f"s{number}", "attributes": fields, "status": {"code": number * 2}}
        lake.append({"type": "span", "data": data})
    (row,) = lake.view("llm_usage").to_pylist()
    assert (row["provider"], row["model"], row["calls"]) == ("mistral_ai", "m", 1)
    assert row["input_tokens"] == 7
    assert by_key(lake, "tool_calls", "id")["s0/0"]["tool"] == "find"
    assert lake.view("llm_errors").num_rows == 0


@pytest.mark.parametrize("odd", ["[", "5", '[{"parts": 5}]', '[{"parts": [1, null]}]', 5, None, {}])
def test_values_of_other_kinds_are_no_error(odd: Any, make_lake: MakeLake) -> None:
    """What is no message is no call of a tool, what is no number is not counted."""
    lake = make_lake()
    fields = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": odd if isinstance(odd, dict) else "many",
        "gen_ai.output.messages": odd,
        "gen_ai.input.messages": odd,
    }
    lake.append({"type": "span", "data": {"attributes": fields, "status": odd}})
    lake.append({"type": "decision", "data": {"decision_id": "d", "confidence": odd}})
    (row,) = lake.view("llm_usage").to_pylist()
    assert (row["calls"], row["errors"], row["input_tokens"]) == (1, 0, None)
    for name in ("llm_errors", "tool_calls"):
        assert lake.view(name).num_rows == 0
    assert lake.view("decisions").num_rows == 1


def test_numbers_that_no_sum_holds(make_lake: MakeLake) -> None:
    """Spans whose counts, cost or times are absurd do not take the answer from all others."""
    lake = make_lake()
    bound = (1 << 63) - 1
    fields = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    names = ("input_tokens", "output_tokens", "cache_read.input_tokens", "reasoning.output_tokens")
    for count, cost in ((7, 0.5), (bound, "NaN"), (-bound, "inf")):
        usage = {f"gen_ai.usage.{name}": count for name in names} | {"gen_ai.usage.cost": cost}
        lake.append({"type": "span", "data": {"attributes": fields | usage}})
    times = {"startTimeUnixNano": -bound, "endTimeUnixNano": bound}
    lake.append({"type": "span", "data": {"attributes": fields, **times}})
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": "call"}
    lake.append({"type": "span", "data": {"attributes": tool, **times}})
    for _ in range(2):
        (row,) = lake.view("llm_usage").to_pylist()
        assert (row["calls"], row["input_tokens"], row["output_tokens"]) == (4, 7, 7)
        assert (row["cached_tokens"], row["reasoning_tokens"], row["cost"]) == (7, 7, 0.5)
        (call,) = lake.view("tool_calls").to_pylist()
        assert call["seconds"] == pytest.approx(2 * bound / 1e9)
        lake.settle()


def test_calls_before_1970(make_lake: MakeLake) -> None:
    """A call of a tool happened when its span says, also before 1970."""
    lake = make_lake()
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": "call"}
    time = "1965-02-03T04:05:06+00:00"
    lake.append({"time": time, "type": "span", "data": {"attributes": tool}})
    (call,) = lake.view("tool_calls").to_pylist()
    assert call["time"].isoformat() == time
