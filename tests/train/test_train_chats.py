"""Chats of every dialect: nothing is lost, or it is counted by its reason."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from lakelog import train
from lakelog.errors import ExportRefused, InvalidRecipe
from lakelog.train import losses
from lakelog.train.shapes.chats import chats
from lakelog.train.shapes.messages import pair_calls
from tests.support import chat_samples as samples
from tests.support.chat_samples import ANSWER, ASK, RESULT, SAMPLES, SYSTEM, TOOL
from tests.support.requirements import need
from tests.support.trainsets import lake_of, recipe, rows
from tests.support.tree import SHARED as DATA

ALL = {"split": {"train": 1.0}}


def assert_is_the_conversation(messages: list[dict[str, Any]]) -> None:
    """Check that messages are those of the samples, the tool call whole and answered."""
    said = [(m["role"], m["content"]) for m in messages]
    answered = RESULT if said[3][1] == RESULT else json.dumps({"result": RESULT})
    assert [(r, json.dumps(json.loads(c)) if c and c[:1] == "{" else c) for r, c in said] == [
        ("system", SYSTEM),
        ("user", ASK),
        ("assistant", None),
        ("tool", answered),
        ("assistant", ANSWER),
    ]
    (call,) = messages[2]["tool_calls"]
    assert call["function"]["name"] == samples.NAME
    assert json.loads(call["function"]["arguments"]) == samples.ARGUMENTS
    assert messages[3]["tool_call_id"] == call["id"]
    assert [bool(m["tool_calls"]) for m in messages] == [False, False, True, False, False]


@pytest.mark.parametrize("kind", SAMPLES)
def test_every_dialect_says_the_same(kind: str) -> None:
    """System prompt, question, call, result, answer and schema are whole in every dialect."""
    unread: Counter[str] = Counter()
    (chat,) = chats(json.loads(json.dumps(SAMPLES[kind])), unread)
    assert not unread
    assert not chat.losses
    assert chat.whole
    assert chat.tools == [TOOL]
    assert_is_the_conversation(pair_calls(chat.messages))


def test_every_dialect_is_exported(home: Path) -> None:
    """One lake with every dialect gives a row each, tools and all, and nothing is lost."""
    events = [{"type": "chat", "subject": kind, "data": data} for kind, data in SAMPLES.items()]
    for record in samples.RECORDS:
        events.append({"type": "log", "subject": "otel log records", "data": record})
    shape = {"also": ["openai", "sharegpt"], "keep": ["type", "time"]}
    with lake_of(home / "lake", events) as lake:
        done = train.export(lake, recipe("messages", shape=shape, **ALL), home / "out")
    found = {row["conversation"]: row for row in rows(home / "out")}
    assert set(found) == {*SAMPLES, "otel log records"}
    assert done.manifest["losses"] == {}
    for kind, row in found.items():
        assert_is_the_conversation(row["messages"])
        assert kind == "otel log records" or json.loads(row["tools"]) == [TOOL]
        assert row["type"] in ("chat", "log")
        assert row["time"] is not None
    lines = (home / "out/openai/train.jsonl").read_text().splitlines()
    assert sum(json.loads(line).get("tools") == [TOOL] for line in lines) == len(SAMPLES)


INSTRUCTIONS = [
    {"instruction": "Translate.", "input": "Hallo", "output": "Hello"},
    {"instruction": "Translate.", "context": "Hallo", "response": "Hello", "category": "x"},
    {
        "instruction": "Translate.",
        "input": "Hallo",
        "output": "Hello",
        "system": "Be brief.",
        "history": [["Hi", "Hi!"]],
    },
]


@pytest.mark.parametrize("payload", INSTRUCTIONS)
def test_instructions_keep_what_was_asked(payload: dict[str, Any]) -> None:
    """Alpaca and Dolly records give instruction and input, history and system prompt."""
    (chat,) = chats(payload)
    said = [(m["role"], m["content"]) for m in chat.messages]
    assert said[-2:] == [("user", "Translate.\nHallo"), ("assistant", "Hello")]
    if "history" in payload:
        assert said[:3] == [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hi!")]


MEDIA: list[tuple[str, dict[str, Any]]] = [
    ("image", {"type": "image_url", "image_url": {"url": "https://x/y.png"}}),
    ("image", {"type": "input_image", "image_url": "https://x/y.png"}),
    ("image", {"type": "image", "source": {"type": "base64", "media_type": "image/png"}}),
    ("image", {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
    ("image", {"file_data": {"mime_type": "image/png", "file_uri": "gs://a/b"}}),
    ("image", {"image": {"format": "png", "source": {"bytes": "aGk="}}}),
    ("image", {"type": "blob", "modality": "image", "content": "aGk="}),
    ("image", {"type": "uri", "modality": "image", "uri": "https://x/y.png"}),
    ("image", {"type": "image-url", "url": "https://x/y.png"}),
    ("image", {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aGk="}),
    ("audio", {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}),
    ("audio", {"inlineData": {"mimeType": "audio/mp3", "data": "aGk="}}),
    ("video", {"video": {"format": "mp4", "source": {"bytes": "aGk="}}}),
    ("file", {"type": "input_file", "file_id": "f"}),
    ("file", {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}),
    ("file", {"document": {"format": "pdf", "name": "x", "source": {"bytes": "aGk="}}}),
]


@pytest.mark.parametrize(("medium", "part"), MEDIA)
def test_media_leave_a_mark_and_are_counted(medium: str, part: dict[str, Any]) -> None:
    """Where an image, audio, video or file stood is a mark, and the text beside it stays."""
    text = {"type": "text", "text": "What is it?"} if "type" in part else {"text": "What is it?"}
    (chat,) = chats({"messages": [{"role": "user", "content": [part, text]}], "response": "A cat."})
    assert chat.messages[0]["content"] == f"<{medium}>\nWhat is it?"
    assert chat.losses == {medium: 1}


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("reasoning", {"type": "thinking", "thinking": "hm", "signature": "s"}),
    ("reasoning", {"type": "redacted_thinking", "data": "s"}),
    ("reasoning", {"text": "hm", "thought": True}),
    ("reasoning", {"reasoningContent": {"reasoningText": {"text": "hm"}}}),
    ("reasoning", {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}),
    ("builtin_call", {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
    ("builtin_call", {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}),
    ("builtin_call", {"executableCode": {"language": "PYTHON", "code": "1"}}),
    ("other_part", {"type": "hologram", "data": 1}),
    ("field", {"type": "text", "text": "x", "citations": [{"cited_text": "y"}]}),
]


@pytest.mark.parametrize(("reason", "part"), OTHERS)
def test_other_parts_are_counted(reason: str, part: dict[str, Any]) -> None:
    """Reasoning, the provider's own tools, citations and unknown parts are counted by reason."""
    answer = {"role": "assistant", "content": [part, {"type": "text", "text": "yes"}]}
    (chat,) = chats({"messages": [{"role": "user", "content": "is it?"}, answer]})
    assert chat.losses == {reason: 1}
    assert chat.messages[-1]["content"].endswith("yes")


FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("reasoning", {"reasoning_content": "hm"}),
    ("image", {"images": ["aGk="]}),
    ("audio", {"audio": {"id": "a", "data": "aGk=", "transcript": "yes"}}),
    ("field", {"weight": 1}),
    ("field", {"annotations": [{"type": "url_citation"}]}),
    ("builtin_call", {"invalid_tool_calls": [{"name": "f", "args": "{"}]}),
]


@pytest.mark.parametrize(("reason", "fields"), FIELDS)
def test_fields_without_a_place_are_counted(reason: str, fields: dict[str, Any]) -> None:
    """A field of a message that a row has no place for is counted."""
    answer = {"role": "assistant", "content": "yes", **fields}
    (chat,) = chats({"messages": [{"role": "user", "content": "is it?"}, answer]})
    assert chat.losses == {reason: 1}


def test_items_of_responses_are_counted() -> None:
    """Reasoning and calls of the provider's tools are counted, alternatives too."""
    output = [
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "web_search_call", "id": "w", "status": "completed"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    ]
    (chat,) = chats({"model": "m", "input": "q", "output": output})
    assert chat.losses == {"reasoning": 1, "builtin_call": 1}
    choices = [{"index": n, "message": {"role": "assistant", "content": "x"}} for n in range(3)]
    (chat,) = chats({"messages": [{"role": "user", "content": "q"}], "choices": choices})
    assert chat.losses == {"alternative": 2}


def test_parallel_calls_without_ids_are_paired() -> None:
    """Two calls of one function, and their two results, stay two."""
    args = [{"city": "Paris"}, {"city": "Rome"}]
    contents = [
        {"role": "user", "parts": [{"text": "q"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": a}} for a in args]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"result": n}}} for n in range(2)
            ],
        },
        {"role": "model", "parts": [{"text": "a"}]},
    ]
    (chat,) = chats({"contents": contents})
    messages = pair_calls(chat.messages)
    ids = [call["id"] for call in messages[1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [m["tool_call_id"] for m in messages if m["role"] == "tool"] == ids


CALLS = [("a", "f", '{"x":1}'), ("b", "g", "{}")]
_BLOCKS = [
    {"index": n, "content_block": {"type": "tool_use", "id": i, "name": f, "input": {}}}
    for n, (i, f, _) in enumerate(CALLS)
]
STREAMS: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"choices": [{"index": 0, "delta": {"tool_calls": [delta]}}]}
        for delta in (
            {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"x":'}},
            {
                "index": 1,
                "id": "b",
                "type": "function",
                "function": {"name": "g", "arguments": "{}"},
            },
            {"index": 0, "function": {"arguments": "1}"}},
        )
    ],
    "anthropic": [
        *({"type": "content_block_start", **block} for block in _BLOCKS),
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": text},
            }
            for text in ('{"x"', ":1}")
        ),
    ],
    "bedrock": [
        *(
            {
                "contentBlockStart": {
                    "contentBlockIndex": n,
                    "start": {"toolUse": {"toolUseId": i, "name": f}},
                }
            }
            for n, (i, f, _) in enumerate(CALLS)
        ),
        *(
            {"contentBlockDelta": {"contentBlockIndex": n, "delta": {"toolUse": {"input": text}}}}
            for n, text in ((0, '{"x":'), (0, "1}"), (1, "{}"))
        ),
    ],
    "openai responses": [
        {
            "type": "response.output_item.done",
            "item": {"type": "function_call", "call_id": i, "name": f, "arguments": arguments},
        }
        for i, f, arguments in CALLS
    ],
}


@pytest.mark.parametrize("kind", STREAMS)
def test_streamed_calls_are_one_turn(kind: str) -> None:
    """Calls whose arguments came in pieces are whole, and parallel ones are one message."""
    (chat,) = chats(
        {"request": {"messages": [{"role": "user", "content": "q"}]}, "response": STREAMS[kind]}
    )
    assert not chat.losses
    (_, answer) = chat.messages
    functions = [(call["id"], call["function"]) for call in answer["tool_calls"]]
    assert [(i, f["name"], f["arguments"]) for i, f in functions] == CALLS


def test_what_cannot_be_read_is_counted_once() -> None:
    """A request whose answer has no known form is counted for it, each part once."""
    answer = [{"type": "new_event", "delta": "x"}]
    (chat,) = chats({"request": {"messages": [{"role": "user", "content": "q"}]}, "output": answer})
    assert chat.losses == {"other_message": 1}


STRANGE: list[Any] = [
    {"method": "GET", "status": 200},
    {"text": "a log line"},
    {"message": "hi", "level": "INFO"},
    {"request": "GET / HTTP/1.1", "response": "200"},
    {"messages": ["mail one", "mail two"]},
    {"from": "a@example.org", "content": "a mail"},
    {"prompt": "$ ", "shell": "bash"},
    17,
    "x",
    ["x"],
    {"result": "ok"},
    {"type": "user", "data": {"id": 5}},
    {"body": {"content": "x"}},
    {"query": "select 1", "rows": 5},
]


@pytest.mark.parametrize("payload", STRANGE)
def test_what_is_no_chat_is_not_taken_for_one(payload: Any) -> None:
    """Records with a text, a request or a message of another kind are unknown payloads."""
    unread: Counter[str] = Counter()
    assert list(chats(payload, unread)) == []
    assert unread == {"unknown_payload": 1}


def test_the_loss_of_rows_needs_consent(home: Path) -> None:
    """Unknown payloads are refused with their number and place; consent counts them."""
    events = [
        {"type": "chat", "subject": "a", "data": {"input": "q", "output": "a"}},
        {"type": "http", "subject": "b", "data": {"method": "GET"}},
        {"type": "http", "subject": "c"},
        {"type": "span", "subject": "d", "data": {"spanId": "1", "name": "db"}},
    ]
    with lake_of(home / "lake", events) as lake:
        with pytest.raises(ExportRefused, match=r"no known chat format \(2.*seq.*unknown_payload"):
            train.export(lake, recipe("messages", **ALL), home / "out")
        assert not (home / "out").exists()
        made = recipe("messages", shape={"drop": ["unknown_payload"]}, **ALL)
        done = train.export(lake, made, home / "out")
    assert done.manifest["losses"] == {"unknown_payload": 2, "no_messages": 1}
    for page in ("README.md", "report.md"):
        assert losses.ROWS["unknown_payload"] in (home / "out" / page).read_text()


def test_messages_without_a_role_need_consent(home: Path) -> None:
    """With `role` and `content`, events of no known role are refused, or counted."""
    said = [("user", "q"), ("assistant", "a"), ("narrator", "z"), (None, "y")]
    events = [{"type": "m", "subject": "s", "data": {"role": r, "content": c}} for r, c in said]
    shape = {"role": "data.role", "content": "data.content"}
    with lake_of(home / "lake", events) as lake:
        with pytest.raises(ExportRefused, match="unknown_role"):
            train.export(lake, recipe("messages", shape=shape, **ALL), home / "out")
        made = recipe("messages", shape={**shape, "drop": "all"}, **ALL)
        done = train.export(lake, made, home / "out")
    assert done.manifest["losses"] == {"unknown_role": 2}


def test_kept_columns_exist_and_come_along(home: Path) -> None:
    """`keep` names columns of the selection; a name that is none is refused."""
    events = [
        {
            "type": "chat",
            "subject": "s",
            "level": "INFO",
            "data": {"input": "q", "output": "a", "user": {"id": 7}},
        }
    ]
    with lake_of(home / "lake", events) as lake:
        for shape in ({}, {"role": "data.role", "content": "data.content"}):
            made = recipe("messages", shape={**shape, "keep": ["nowhere"]}, **ALL)
            with pytest.raises(ExportRefused, match=r"\[shape\] keep.*'nowhere'"):
                train.export(lake, made, home / "out")
        made = recipe("messages", shape={"keep": ["level", "data.user.id"]}, **ALL)
        train.export(lake, made, home / "out")
    (row,) = rows(home / "out")
    assert (row["level"], row["id"]) == ("INFO", "7")


def test_consent_names_known_reasons() -> None:
    """A reason that does not exist is refused with the nearest one."""
    with pytest.raises(InvalidRecipe, match="did you mean no_user"):
        train.load(recipe("messages", shape={"drop": ["no_users"]}))


def test_traces_lose_no_call_and_no_tool() -> None:
    """The tool names of real traces, wherever a span keeps them, are calls of the messages."""
    need("../shared")
    files = sorted((DATA / "llm_traces").glob("*.json"))
    assert files
    for file in files:
        unread: Counter[str] = Counter()
        found = list(chats(json.loads(file.read_text()), unread))
        assert set(unread) <= {"no_messages"}, file.name
        assert not sum((c.losses for c in found), Counter()), file.name
        for chat in found:
            assert all(m["content"] is not None or m["tool_calls"] for m in chat.messages)
            assert chat.messages[0]["role"] != "assistant", file.name
        names = {t["function"]["name"] for chat in found for t in chat.tools}
        for chat in found:
            for message in chat.messages:
                for call in message["tool_calls"] or []:
                    assert not chat.tools or call["function"]["name"] in names, file.name


def mutated(value: Any, rng: random.Random, odds: float = 0.04) -> Any:
    """Return a value with some of its members replaced by what nobody expects there."""
    if rng.random() < odds:
        return rng.choice(
            [
                None,
                0,
                -1.5,
                "",
                "x",
                "[",
                "[1]",
                '{"a":1}',
                [],
                {},
                [None],
                [[]],
                {"text": 1},
                ["a", "b"],
                True,
                {"type": "text"},
                [[["x"]]],
            ]
        )
    if isinstance(value, dict):
        return {key: mutated(inner, rng, odds) for key, inner in value.items()}
    if isinstance(value, list):
        return [mutated(inner, rng, odds) for inner in value]
    return value


def test_damaged_payloads_never_stop_a_run() -> None:
    """Any damage to a payload gives messages of the right form, or a count."""
    rng = random.Random(13)
    for payload in [*SAMPLES.values(), *samples.RECORDS, *INSTRUCTIONS] * 80:
        unread: Counter[str] = Counter()
        found = list(chats(mutated(payload, rng), unread))
        assert found or unread
        for chat in found:
            for message in pair_calls(chat.messages):
                assert message["content"] is None or isinstance(message["content"], str)
                assert message["name"] is None or isinstance(message["name"], str)
                assert message["role"] in ("system", "user", "assistant", "tool")
            assert not set(chat.losses) - set(losses.PARTS)
            orjson.dumps(chat.tools)
