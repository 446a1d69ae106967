"""Shapes: what a row is made of, and what it may know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakelog import train
from lakelog.errors import ExportRefused, InvalidRecipe
from lakelog.train.shapes.chats import chats
from tests.support import trainsets
from tests.support.decision_histories import at, expected, history
from tests.support.requirements import need
from tests.support.trainsets import lake_of, recipe, rows
from tests.support.tree import SHARED as DATA

ALL = {"split": {"train": 1.0}}


def chat(subject: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "chat", "subject": subject, "time": at(n), "data": message}
        for n, message in enumerate(messages)
    ]


def test_events_keep_their_types(home: Path) -> None:
    """Rows have the columns and types of the query, and a typed payload is one struct."""
    with lake_of(home / "lake", trainsets.notes(50)) as lake:
        query = "SELECT time, subject, (data->>'$.n')::INT AS n, data FROM events"
        train.export(lake, recipe("events", query, shape={"data": "typed"}, **ALL), home / "out")
    found = rows(home / "out")
    assert sorted(row["n"] for row in found) == list(range(50))
    assert all(row["data"]["n"] == row["n"] and row["data"]["tag"] in "abc" for row in found)
    assert all(row["time"].tzinfo is not None for row in found)


def test_payloads_that_differ_make_one_struct(home: Path) -> None:
    """Missing keys are null, numbers widen, and what conflicts stays JSON text."""
    payloads = [{"a": 1}, {"a": 2.5, "b": [1]}, {"b": [2, 3], "c": {"d": "x"}}, {"c": "text"}]
    events = [{"type": "t", "data": data} for data in payloads]
    with lake_of(home / "lake", events) as lake:
        train.export(lake, recipe("events", shape={"data": "typed"}, **ALL), home / "out")
    found = [row["data"] for row in rows(home / "out")]
    assert [row["a"] for row in found] == [1.0, 2.5, None, None]
    assert [row["b"] for row in found] == [None, [1], [2, 3], None]
    assert [row["c"] and json.loads(row["c"]) for row in found] == [None, None, {"d": "x"}, "text"]


def test_classification_has_text_and_label(home: Path) -> None:
    """Rows without text or label are left out; kept columns come along."""
    events = [
        *trainsets.notes(40),
        {"type": "note", "level": "INFO"},
        {"type": "x", "message": "y"},
    ]
    with lake_of(home / "lake", events) as lake:
        made = recipe("classification", shape={"label": "level", "keep": ["data.tag"]}, **ALL)
        train.export(lake, made, home / "out")
    found = rows(home / "out")
    assert len(found) == 40
    assert {row["label"] for row in found} == {"INFO", "WARN", "ERROR"}
    assert {row["tag"] for row in found} == set("abc")


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
WHOLE = [
    {"role": "human", "content": "add"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "2", "tool_call_id": "c1"},
    {"role": "ai", "content": "two"},
    {"role": "user", "content": "thanks"},
]


@pytest.mark.parametrize("shape", [{}, {"role": "data.role", "content": "data.content"}])
def test_messages_keep_tool_calls_whole(home: Path, shape: dict[str, str]) -> None:
    """A conversation ends with an answer; one with a broken call or no answer is left out."""
    events = [
        *chat("whole", *WHOLE),
        *chat("unanswered", *WHOLE[:2], WHOLE[3]),
        *chat("orphan", WHOLE[0], *WHOLE[2:4]),
        *chat("silent", WHOLE[0], WHOLE[4]),
        *chat("plain", WHOLE[0], WHOLE[3]),
    ]
    shape = {**shape, "also": ["openai", "sharegpt"]}  # type: ignore[dict-item]
    drop = {"drop": ["no_answer", "broken_call"]}
    with lake_of(home / "lake", events) as lake:
        with pytest.raises(ExportRefused, match=r"conversation silent.*drop = "):
            train.export(lake, recipe("messages", shape=shape, **ALL), home / "out")
        made = recipe("messages", shape={**shape, **drop}, **ALL)
        done = train.export(lake, made, home / "out")
    assert done.manifest["losses"] == {"no_answer": 1, "broken_call": 2, "trailing": 1}
    assert "messages after the last answer (1)" in (home / "out/README.md").read_text()
    found = {row["conversation"]: row["messages"] for row in rows(home / "out")}
    assert sorted(found) == ["plain", "whole"]
    whole = found["whole"]
    assert [m["role"] for m in whole] == ["user", "assistant", "tool", "assistant"]
    assert whole[1]["tool_calls"] == [CALL]
    assert whole[2]["tool_call_id"] == "c1"
    lines = (home / "out/openai/train.jsonl").read_text().splitlines()
    said = [message for line in lines for message in json.loads(line)["messages"]]
    assert {"role": "assistant", "content": "two"} in said
    lines = (home / "out/sharegpt/train.jsonl").read_text().splitlines()
    turns = [[turn["from"] for turn in json.loads(line)["conversations"]] for line in lines]
    assert ["human", "function_call", "tool", "gpt"] in turns


def test_traces_of_every_framework_are_understood() -> None:
    """Each real trace gives a conversation with a user's and an assistant's message."""
    need("../shared")
    files = sorted((DATA / "llm_traces").glob("*.json"))
    assert files
    for file in files:
        found = list(chats(json.loads(file.read_text())))
        roles = [{m["role"] for m in c.messages} for c in found]
        assert any({"user", "assistant"} <= r for r in roles), file.name
        assert all(m["content"] or m["tool_calls"] for c in found for m in c.messages)


SPANS = [
    {
        "attributes": [
            {
                "key": "gen_ai.input.messages",
                "value": {
                    "stringValue": json.dumps(
                        [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
                    )
                },
            },
            {
                "key": "gen_ai.output.messages",
                "value": {
                    "stringValue": json.dumps(
                        [{"role": "assistant", "parts": [{"type": "text", "content": "hello"}]}]
                    )
                },
            },
        ]
    },
    {
        "attributes": {
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": "hi",
            "gen_ai.completion.0.content": "hello",
        }
    },
    {
        "attributes": {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": "hi",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "hello",
        }
    },
    {
        "messages": [{"role": "user", "content": "hi"}],
        "choices": [{"message": {"role": "assistant", "content": "hello"}}],
    },
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
    {"input": "hi", "output": "hello"},
]


@pytest.mark.parametrize("payload", SPANS)
def test_dialects_say_the_same(payload: dict[str, Any]) -> None:
    """GenAI and OpenInference attributes, OpenAI bodies, ShareGPT and pairs give equal messages."""
    (found,) = chats({"traceId": "t1", **payload})
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("user", "hi"),
        ("assistant", "hello"),
    ]
    assert found.trace == "t1"


def test_a_trace_becomes_its_longest_conversation(home: Path) -> None:
    """Spans that repeat the conversation so far make one row; the trace is its key."""
    said: list[dict[str, Any]] = []
    events = []
    for n in range(3):
        said = [*said, {"role": "user", "content": f"q{n}"}]
        data = {"traceId": "t", "messages": said, "response": f"a{n}"}
        events.append({"type": "span", "time": at(n), "data": data})
        said = [*said, {"role": "assistant", "content": f"a{n}"}]
    with lake_of(home / "lake", events) as lake:
        train.export(lake, recipe("messages", **ALL), home / "out")
    (row,) = rows(home / "out")
    assert [m["content"] for m in row["messages"]] == ["q0", "a0", "q1", "a1", "q2", "a2"]
    assert row["conversation"] == "t"


@pytest.mark.parametrize("seed", range(4))
def test_a_decision_never_looks_ahead(home: Path, seed: int) -> None:
    """Context, outcome and label time are those of the rule, in random histories."""
    events = history(seed)
    shape = {"outcome": ["COMPLETE", "FAIL"], "window": "10m", "history": 5, "keep": ["data.r"]}
    with lake_of(home / "lake", events) as lake:
        train.export(lake, recipe("decision", shape=shape, **ALL), home / "out")
    found = rows(home / "out")
    wanted = expected(events, 600, 5)
    assert len(found) == len(wanted)
    for row in found:
        context = [json.loads(e["data"])["r"] for e in row["context"]]
        assert (row["outcome"], row["label_time"], context) == wanted[int(row["r"])]
        assert all(e["time"] <= row["time"] for e in row["context"])


def test_a_clock_that_was_ahead_ends_no_window(home: Path) -> None:
    """A decision whose outcome may still come stays open, whatever one event says of the time."""
    events = [
        {"type": "START", "subject": "a", "time": at(0)},
        {"type": "FAIL", "subject": "a", "time": at(1)},
        {"type": "START", "subject": "b", "time": at(2)},
        {"type": "NOTE", "subject": "c", "time": "2100-01-01T00:00:00Z"},
    ]
    shape = {"decision": "START", "chosen": "type", "outcome": ["FAIL"], "window": "10m"}
    with lake_of(home / "lake", events) as lake:
        asked = recipe("decision", shape=shape, **ALL)
        train.export(lake, asked, home / "out")
        (batch,) = train.undecided(lake, asked)
    assert [(row["subject"], row["outcome"]) for row in rows(home / "out")] == [("a", "FAIL")]
    assert batch["subject"].to_pylist() == ["b"]


@pytest.mark.parametrize(
    ("kind", "more", "split"),
    [
        ("text", {"keep": ["source", "data.source"]}, {}),
        ("text", {"keep": ["data.text"]}, {}),
        ("text", {"keep": ["data.time"]}, {"before": at(5), "test": 0.5, "train": 0.5}),
        ("text", {"keep": ["data.source"]}, {"group": "source"}),
        ("events", {}, {"group": "data.source"}),
        ("decision", {"keep": ["data.options"]}, {}),
        ("decision", {"keep": ["data.time"]}, {}),
    ],
)
def test_columns_of_one_name_are_refused(
    home: Path, kind: str, more: dict[str, Any], split: dict[str, Any]
) -> None:
    """Rows could have but one of them."""
    shape = {"decision": "a", "chosen": "type", "outcome": ["b"], "window": "1h"}
    asked = recipe(kind, shape={**(shape if kind == "decision" else {}), **more}, split=split)
    with (
        lake_of(home / "lake", trainsets.notes(9)) as lake,
        pytest.raises((InvalidRecipe, ExportRefused), match="rows have another column"),
    ):
        train.export(lake, asked, home / "out")


def test_what_a_decision_keeps_may_have_the_name_of_a_column_of_events(home: Path) -> None:
    """It is what the recipe names, and not that column."""
    data = {"type": "inner", "seq": 77, "data": "d"}
    events = [{"type": t, "subject": "s", "time": at(n), "data": data} for n, t in enumerate("ab")]
    keep = ["data.type", "data.seq", "data.data"]
    shape = {"decision": "a", "chosen": "type", "outcome": ["b"], "window": "1h", "keep": keep}
    with lake_of(home / "lake", events) as lake:
        train.export(lake, recipe("decision", shape=shape, **ALL), home / "out")
    (row,) = rows(home / "out")
    assert (row["type"], row["seq"], row["data"], row["chosen"]) == ("inner", "77", "d", "a")


@pytest.mark.parametrize("kind", ["text", "decision"])
def test_members_whose_names_have_dots_are_kept(home: Path, kind: str) -> None:
    """As those of OpenTelemetry have; what is nested comes before."""
    attributes = {"gen_ai.request.model": "m", "a": {"b": "nested"}, "a.b": "dotted"}
    event = {"subject": "s", "message": "x", "data": {"attributes": attributes}}
    events = [{**event, "type": name, "time": at(n)} for n, name in enumerate("ab")]
    keep = ["data.attributes.gen_ai.request.model", "data.attributes.a.b"]
    shape = {"decision": "a", "chosen": "type", "outcome": ["b"], "window": "1h"}
    asked = recipe(kind, shape={**(shape if kind == "decision" else {}), "keep": keep}, **ALL)
    with lake_of(home / "lake", events) as lake:
        train.export(lake, asked, home / "out")
    assert {(row["model"], row["b"]) for row in rows(home / "out")} == {("m", "nested")}


def test_preference_puts_best_against_worst(home: Path) -> None:
    """Of scored answers the best stands against the worst; equal scores make no pair."""
    answers = [("p", "good", 2), ("p", "bad", 0), ("p", "fair", 1), ("q", "x", 1), ("q", "y", 1)]
    events = [
        {"type": "a", "time": at(n), "data": {"prompt": p, "response": r, "score": s}}
        for n, (p, r, s) in enumerate(answers)
    ]
    shape = {"response": "data.response", "score": "data.score"}
    with lake_of(home / "lake", events) as lake:
        train.export(lake, recipe("preference", shape=shape, **ALL), home / "out")
    (row,) = rows(home / "out")
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("p", "good", "bad")


def test_an_answer_whose_score_is_no_number_is_in_no_pair(home: Path) -> None:
    """It is neither the best nor the worst, and is counted among what is left out."""
    events = [
        {"type": "a", "time": at(n), "data": {"prompt": "p", "response": f"r{n}", "score": score}}
        for n, score in enumerate((1, "2.5", "NaN", "inf", "good", "", None, [3]))
    ]
    shape = {"response": "data.response", "score": "data.score"}
    with lake_of(home / "lake", events) as lake:
        made = train.export(lake, recipe("preference", shape=shape, **ALL), home / "out")
    (row,) = rows(home / "out")
    assert (row["chosen"], row["rejected"]) == ("r1", "r0")
    assert (row["chosen_score"], row["rejected_score"]) == (2.5, 1.0)
    assert made.manifest["losses"] == {"no_pair": 6}


def test_sequence_windows_end_before_their_label(home: Path) -> None:
    """A row has at most `length` tokens before the next one, of one subject, in order."""
    events = [{"type": t, "subject": s, "time": at(n)} for n, t in enumerate("abcd") for s in "xy"]
    with lake_of(home / "lake", events) as lake:
        train.export(lake, recipe("sequence", shape={"length": 2}, **ALL), home / "out")
    found = [("".join(r["history"]), r["label"]) for r in rows(home / "out") if r["subject"] == "x"]
    assert found == [("a", "b"), ("ab", "c"), ("bc", "d")]


def test_order_is_asked_for_where_it_is_needed(home: Path) -> None:
    """A query that hides the order of events cannot make sequences."""
    with lake_of(home / "lake", trainsets.notes(10)) as lake:
        made = recipe("sequence", "SELECT DISTINCT type, subject, time FROM events")
        with pytest.raises(ExportRefused, match="add the column seq"):
            train.export(lake, made, home / "out")
