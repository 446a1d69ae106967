"""Which requests of the real clients are recorded, and what of them is what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

import lakelog
from lakelog.loggers.spans import recorder_of
from tests.conftest import MakeLake
from tests.support.model_server import KEY, ModelServer, served
from tests.support.requirements import need_module

openai = need_module("openai")
ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """The models."""
    with served() as server:
        yield server


@pytest.fixture
def gpt(server: ModelServer) -> Iterator[Any]:
    """A client of OpenAI."""
    with openai.OpenAI(api_key=KEY, base_url=f"{server.base}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    """Where calls are recorded."""
    return make_lake()


def test_other_requests_are_not_recorded(
    lake: lakelog.Lake, gpt: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Such as lists of the models, and of the chats that the provider stored; none is refused."""
    with lakelog.instrument_openai(gpt, lake=lake) as recording:
        for resource in (gpt.models, gpt.chat.completions):
            with pytest.raises(openai.APIError):
                resource.list()
        assert recording.flush(240)
        assert recording.stats().refused == 0
    assert lake.sql("SELECT count(*) FROM events").fetchall() == [(0,)]
    assert capfd.readouterr().err == ""


def test_a_body_of_the_callers_own_is_part_of_the_request(
    server: ModelServer, lake: lakelog.Lake, gpt: Any
) -> None:
    """`extra_body` is sent in place of what the client knows, and so it is recorded."""
    own = {"top_k": 20, "messages": [{"role": "user", "content": "bye"}]}
    with lakelog.instrument_openai(gpt, lake=lake):
        gpt.chat.completions.create(model="m", messages=ASK, temperature=0.5, extra_body=own)
    assert recorder_of(lake.path).flush(240)
    ((data,),) = lake.sql("SELECT data FROM events WHERE type = 'span'").fetchall()
    fields = orjson.loads(data)["attributes"]
    (sent,) = server.requests
    assert (sent["top_k"], sent["messages"]) == (20, own["messages"])
    assert (fields["gen_ai.request.top_k"], fields["gen_ai.request.temperature"]) == (20, 0.5)
    (message,) = fields["gen_ai.input.messages"]
    assert message["parts"] == [{"type": "text", "content": "bye"}]
