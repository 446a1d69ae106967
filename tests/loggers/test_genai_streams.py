"""What the servers of other models stream differently."""

from __future__ import annotations

import orjson

import lakelog
from lakelog.loggers.spans import recorder_of
from tests.conftest import MakeLake
from tests.support.model_server import KEY, served
from tests.support.requirements import need_module

openai = need_module("openai")


def test_tool_calls_under_one_index_are_calls_of_their_own(make_lake: MakeLake) -> None:
    """Some servers number each of them 0: they are told by their ids."""
    lake = make_lake()
    with (
        served() as server,
        openai.OpenAI(api_key=KEY, base_url=f"{server.base}/v1") as client,
        lakelog.instrument_openai(client, lake=lake),
    ):
        question = [{"role": "user", "content": "hi"}]
        list(client.chat.completions.create(model="alike", messages=question, stream=True))
    assert recorder_of(lake.path).flush(240)
    ((data,),) = lake.sql("SELECT data FROM events WHERE type = 'span'").fetchall()
    (answer,) = orjson.loads(data)["attributes"]["gen_ai.output.messages"]
    called = {"type": "tool_call", "name": "weather", "arguments": {"city": "Paris"}}
    assert answer["parts"] == [{**called, "id": "call_1"}, {**called, "id": "call_2"}]
