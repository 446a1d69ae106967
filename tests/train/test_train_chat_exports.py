"""Chats of ChatGPT's export and of Claude Code's sessions; calls, prefills and weights of turns."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lakelog
from lakelog import train
from lakelog.train.shapes.chats import chats
from tests.support.trainsets import lake_of, recipe, rows

ALL = {"split": {"train": 1.0}}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}


def said(messages: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """Role and content of each message."""
    return [(m["role"], m["content"]) for m in messages]


def export(home: Path, data: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    """The rows of a set of conversations, each event of its own subject."""
    events = [{"type": "chat", "subject": str(n), "data": each} for n, each in enumerate(data)]
    with lake_of(home / "lake", events) as lake:
        train.export(lake, recipe("messages", **ALL, **options), home / "out")
    return rows(home / "out")


def test_a_conversation_may_end_in_a_call(home: Path) -> None:
    """Function calling is what is trained: the call is the answer, though nothing answered it or
    only its result did."""
    asked = {"role": "user", "content": "what time is it"}
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}
    again = {**called, "tool_calls": [{**CALL, "id": "c2"}]}
    found = export(
        home,
        [
            {"messages": [asked, called]},
            {"messages": [asked, called, result]},
            {"messages": [asked, called, result, again]},
        ],
    )
    ends = sorted((len(r["messages"]), r["messages"][-1]["tool_calls"][0]["id"]) for r in found)
    assert ends == [(2, "c1"), (2, "c1"), (4, "c2")]


def test_a_prefill_is_one_turn_with_its_answer() -> None:
    """What the request makes the assistant begin with, the answer goes on with."""
    payload: dict[str, Any] = {
        "request": {
            "model": "claude",
            "messages": [
                {"role": "user", "content": "as JSON"},
                {"role": "assistant", "content": '{"a":'},
            ],
        },
        "response": {"role": "assistant", "content": [{"type": "text", "text": " 1}"}]},
    }
    (chat,) = chats(payload)
    assert said(chat.messages) == [("user", "as JSON"), ("assistant", '{"a": 1}')]
    payload["response"]["content"][0]["text"] = '{"a": 1}'  # some servers repeat it
    (chat,) = chats(payload)
    assert said(chat.messages) == [("user", "as JSON"), ("assistant", '{"a": 1}')]


def node(key: str, parent: str | None, role: str, text: str, **more: Any) -> dict[str, Any]:
    """A node of ChatGPT's tree."""
    content = {"content_type": "text", "parts": [text]}
    message = {"id": key, "author": {"role": role}, "content": content, "recipient": "all", **more}
    return {"id": key, "message": message, "parent": parent, "children": []}


def chatgpt() -> dict[str, Any]:
    """A conversation whose second prompt was edited, with a tool and what is not shown."""
    hidden = {"is_visually_hidden_from_conversation": True}
    nodes = [
        {"id": "root", "message": None, "parent": None, "children": ["s"]},
        node("s", "root", "system", "", metadata=hidden),
        node("u1", "s", "user", "hello"),
        node("a1", "u1", "assistant", "hi"),
        node("u2", "a1", "user", "first try"),
        node("a2", "u2", "assistant", "old answer"),
        node("u3", "a1", "user", "second try"),
        node("t1", "u3", "assistant", "I look."),
        node("t2", "t1", "assistant", "print(1)", recipient="python"),
        node("t3", "t2", "tool", "1"),
        node("a3", "t3", "assistant", "It is 1."),
    ]
    return {
        "title": "T",
        "create_time": 1_700_000_000.0,
        "mapping": {each["id"]: each for each in nodes},
        "current_node": "a3",
        "conversation_id": "c-1",
    }


def test_a_conversation_of_chatgpt_is_its_current_branch(
    lake: lakelog.Lake, tmp_path: Path, home: Path
) -> None:
    """The file as it is exported is ingested, each conversation a row: its branch, without what the
    tools did."""
    (tmp_path / "conversations.json").write_text(json.dumps([chatgpt(), chatgpt()]))
    assert lake.ingest(str(tmp_path / "conversations.json")).events == 2
    shape = {"by": "data.conversation_id"}
    done = train.export(lake, recipe("messages", shape=shape, **ALL), home / "out")
    (row,) = rows(home / "out")
    assert row["conversation"] == "c-1"
    assert said(row["messages"]) == [
        ("user", "hello"),
        ("assistant", "hi"),
        ("user", "second try"),
        ("assistant", "I look.\n\nIt is 1."),
    ]
    assert done.manifest["losses"]["builtin_call"] == 2


def session(name: str = "s1") -> list[dict[str, Any]]:
    """A session of Claude Code: a prompt that was edited, two calls at once, a sub-agent."""

    def line(uuid: str, parent: str | None, role: str, content: Any, **more: Any) -> dict[str, Any]:
        lines.append(len(lines))
        return {
            "parentUuid": parent,
            "isSidechain": False,
            "sessionId": name,
            "type": role,
            "message": {"role": role, "content": content, **more.pop("message", {})},
            "uuid": uuid,
            "timestamp": f"2026-11-24T10:00:{len(lines):02}.000Z",
            **more,
        }

    def call(key: str) -> list[dict[str, Any]]:
        return [{"type": "tool_use", "id": key, "name": "Read", "input": {"path": key}}]

    def result(key: str) -> list[dict[str, Any]]:
        return [{"type": "tool_result", "tool_use_id": key, "content": f"text {key}"}]

    lines: list[int] = []
    one = {"message": {"id": "m1"}}
    return [
        {"type": "summary", "summary": "Fix", "leafUuid": "u9"},
        line("u1", None, "user", "caveat", isMeta=True),
        line("u2", "u1", "user", "fix the tset"),
        line("a0", "u2", "assistant", [{"type": "text", "text": "What is a tset?"}]),
        line("u3", "u1", "user", "fix the test"),
        line("a1", "u3", "assistant", [{"type": "text", "text": "I look."}], **one),
        line("a2", "a1", "assistant", call("t1"), **one),
        line("a3", "a2", "assistant", call("t2"), **one),
        line("r1", "a2", "user", result("t1"), toolUseResult={"x": 1}),
        line("x1", None, "user", "search it", isSidechain=True),
        line("x2", "x1", "assistant", [{"type": "text", "text": "found"}], isSidechain=True),
        line("r2", "a3", "user", result("t2")),
        line("a4", "r2", "assistant", [{"type": "text", "text": "Done."}]),
    ]


def test_a_session_of_claude_code_is_its_current_branch(
    lake: lakelog.Lake, tmp_path: Path, home: Path
) -> None:
    """The files of sessions are ingested as they are: a row for each, with both results behind
    their calls, and one for what its sub-agent did."""
    for name in ("s1", "s2"):
        lines = "".join(f"{json.dumps(each)}\n" for each in session(name))
        (tmp_path / f"{name}.jsonl").write_text(lines)
    lake.ingest(str(tmp_path))
    shape = {"by": "data.sessionId"}
    train.export(lake, recipe("messages", shape=shape, **ALL), home / "out")
    found = {row["conversation"]: row["messages"] for row in rows(home / "out")}
    assert sorted(found) == ["s1#0", "s1#1", "s2#0", "s2#1"]
    assert said(found["s1#0"]) == [
        ("user", "fix the test"),
        ("assistant", "I look."),
        ("tool", "text t1"),
        ("tool", "text t2"),
        ("assistant", "Done."),
    ]
    assert [call["id"] for call in found["s1#0"][1]["tool_calls"]] == ["t1", "t2"]
    assert said(found["s1#1"]) == [("user", "search it"), ("assistant", "found")]


def test_lines_of_a_session_that_say_nothing_are_no_loss() -> None:
    """Summaries, snapshots and what the program notes for itself are no payloads without a chat."""
    lost: Counter[str] = Counter()
    for payload in (
        {"summary": "Fix", "leafUuid": "u9"},
        {"messageId": "m", "snapshot": {}, "isSnapshotUpdate": False},
        {"operation": "enqueue", "sessionId": "s"},
        {"sessionId": "s", "parentUuid": None, "uuid": "u", "content": "x", "subtype": "info"},
    ):
        assert all(not chat.messages for chat in chats(payload, lost))
    assert not lost


def test_preferences_may_be_conversations(home: Path) -> None:
    """TRL's lists of messages, with a prompt, with one that the answers repeat, or with none but
    what both begin with; texts among them become messages."""
    ask = [{"role": "user", "content": "2+2?"}]
    good, bad = [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}]
    again = [{"role": "user", "content": "sure?"}, {"role": "assistant", "content": "yes"}]
    data: list[dict[str, Any]] = [
        {"prompt": ask, "chosen": good, "rejected": bad, "n": 0},
        {"chosen": [*ask, *good], "rejected": [*ask, *bad], "n": 1},
        {"prompt": ask, "chosen": [*ask, *good], "rejected": [*ask, *bad, *again], "n": 2},
        {"prompt": "2+2?", "chosen": "4", "rejected": "5", "n": 3},
        {"chosen": good, "rejected": bad, "n": 4},
    ]
    events = [{"type": "p", "subject": str(each["n"]), "data": each} for each in data]
    shape = {"chosen": "data.chosen", "rejected": "data.rejected", "keep": ["subject"]}
    with lake_of(home / "lake", events) as lake:
        done = train.export(lake, recipe("preference", shape=shape, **ALL), home / "out")
    assert done.manifest["losses"] == {"no_pair": 1}
    found = {row["subject"]: row for row in rows(home / "out")}
    assert sorted(found) == ["0", "1", "2", "3"]
    for number, row in found.items():
        assert (row["prompt"], row["chosen"]) == (ask, good)
        assert row["rejected"] == ([*bad, *again] if number == "2" else bad)


def test_turns_of_no_weight_are_context(home: Path) -> None:
    """OpenAI's `weight: 0`: no row ends with such a turn, and those before its end say so, also in
    OpenAI's own format."""
    ask, good = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
    bad = {"role": "assistant", "content": "5", "weight": 0}
    found = export(
        home,
        [{"messages": [ask, bad, ask, good]}, {"messages": [ask, {**good, "weight": 1}, ask, bad]}],
        shape={"also": ["openai"], "system": "Be brief."},
    )
    weights = {
        row["conversation"]: [(m["content"], m["weight"]) for m in row["messages"]] for row in found
    }
    assert weights == {
        "0": [("Be brief.", None), ("2+2?", None), ("5", 0), ("2+2?", None), ("4", None)],
        "1": [("Be brief.", None), ("2+2?", None), ("4", None)],
    }
    lines = (home / "out/openai/train.jsonl").read_text().splitlines()
    said_so = [[m.get("weight") for m in json.loads(line)["messages"]] for line in lines]
    assert sorted(said_so, key=len) == [[None, None, None], [None, None, 0, None, None]]
