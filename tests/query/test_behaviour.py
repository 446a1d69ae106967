"""Behavioural diff: what is new, gone, of another kind, or shifted, with counts and examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli, history
from lakelog.query.behaviour import Behaviour

MakeLake = Callable[..., lakelog.Lake]
START = 1_770_000_000


def run(lake: lakelog.Lake, *words: str, code: int = 0) -> Result:
    """Run a command line on a lake; its exit code must be `code`."""
    result = CliRunner().invoke(cli, ["--lake", lake.path, *words], env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result


def feed(count: int, name: str, start: int = 0, step: int = 60, **columns: Any) -> list[Any]:
    """Return events of one type, `step` seconds apart."""
    return [
        {"type": name, "source": "s", "time": START + start + step * n, "data": {"n": n}} | columns
        for n in range(count)
    ]


def told(findings: Any) -> set[tuple[Any, ...]]:
    """Return findings in short."""
    return {(f.change, f.type, f.name, f.before, f.after) for f in findings}


def between(lake: lakelog.Lake, a: str, b: str) -> Behaviour:
    """Return what changed between two states."""
    found: Behaviour = lake.diff(a, b).behaviour
    return found


def test_types_and_fields(lake: lakelog.Lake) -> None:
    """Types and fields that came, went or changed their kind are named, with counts and events."""
    lake.append(
        feed(10, "A", data={"kept": 1, "gone": 2, "kind": 3, "maybe": None, "in": {"a": 1}})
    )
    lake.append(feed(10, "B") + feed(1, "RARE"))
    lake.tag("v1")
    lake.append(feed(6, "A", 9000, data={"kept": 2.5, "kind": "x", "maybe": 1, "in": {"b": [1]}}))
    lake.append(feed(2, "NEW", 9000, data={"x": 1}))
    found = between(lake, "v1", "main")
    assert (found.before["events"], found.before["whole"]) == (21, True)
    assert (found.after["events"], found.after["whole"]) == (8, False)
    assert told(found.types) == {("new", "", "NEW", 0, 2), ("vanished", "", "B", 10, 0)}
    assert told(found.fields) == {
        ("vanished", "A", "gone", 10, 0),
        ("changed", "A", "kind", 10, 6),
        ("vanished", "A", "in.a", 10, 0),
        ("new", "A", "in.b", 0, 6),
    }
    (kind,) = [f for f in found.fields if f.name == "kind"]
    assert kind.detail == {"kinds_before": ["number"], "kinds_after": ["text"], "other": 6}
    assert kind.example is not None
    assert json.loads(kind.example["data"])["kind"] == "x"
    (new,) = [f for f in found.types if f.change == "new"]
    assert new.example is not None
    assert new.example["type"] == "NEW"


def test_sources(lake: lakelog.Lake) -> None:
    """Sources that are new, silent, as often again, or fail more are named; chance is not."""

    def all_of(start: int, step: int, fails: int, *more: Any) -> list[Any]:
        made = feed(100, "COMPLETE", start, 60, source="steady") + feed(100, "X", start, step)
        made += feed(100 - fails, "COMPLETE", start, source="weak")
        return made + feed(fails, "FAIL", start, source="weak") + list(more)

    lake.append(all_of(0, 60, 5, *feed(30, "X", source="silent"), *feed(1, "X", source="once")))
    lake.tag("v1")
    lake.append(all_of(100_000, 10, 30, *feed(3, "X", 100_000, source="young")))
    lake.append(feed(400, "X", 101_000, 12))
    found = between(lake, "v1", "main")
    assert {(f.change, f.name) for f in found.sources} == {
        ("new", "young"),
        ("vanished", "silent"),
        ("rate", "s"),
        ("outcome", "weak"),
    }
    (weak,) = [f for f in found.sources if f.name == "weak"]
    assert (weak.detail["failed_before"], weak.detail["failed_after"]) == (0.05, 0.3)
    assert weak.example is not None
    assert weak.example["type"] == "FAIL"


def test_the_same_rows_in_other_segments_are_no_change(lake: lakelog.Lake) -> None:
    """Compaction changes no behaviour, and does not hide what came beside it."""
    for _ in range(3):
        lake.append(feed(5, "A"))
        lake.settle()
    lake.tag("v1")
    lake.compact()
    assert not between(lake, "v1", "main")
    lake.append(feed(2, "B"))
    lake.compact()
    found = between(lake, "v1", "main")
    assert told(found.types) == {("new", "", "B", 0, 2)}  # two events are too few to miss an A
    assert found.after["events"] == 2


def test_branches_and_what_was_taken_off(lake: lakelog.Lake) -> None:
    """Two branches are compared by what each has of its own; after a removal nothing is due."""
    lake.append(feed(1, "A") + feed(1, "GONE", source="other"))
    lake.settle()
    side = lake.branch("side")
    lake.append(feed(3, "HERE"))
    side.append(feed(4, "THERE"))
    side.close()
    found = between(lake, "main", "side")
    assert told(found.types) == {("new", "", "THERE", 0, 4), ("vanished", "", "HERE", 3, 0)}
    lake.tag("v1")
    run(lake, "dedupe", "--by", "data.n", "--apply", "--yes")
    found = between(lake, "v1", "main")
    assert ("vanished", "", "GONE", 1, 0) in told(found.types)


def test_an_empty_side(lake: lakelog.Lake) -> None:
    """Against an empty state nothing is called new, and nothing fails."""
    lake.tag("v0")
    lake.append(feed(3, "A"))
    assert not between(lake, "v0", "main")
    assert told(between(lake, "main", "v0").types) == set()
    assert not between(lake, "main", "main")


def test_the_command_line(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """diff shows behaviour in words and JSON, not if it is told so, not unasked on large lakes."""
    lake.append(feed(30, "A"))
    lake.tag("v1")
    lake.append(feed(30, "A", 9000, data={"n": "text"}) + feed(1, "NEW", 9000, message="hello"))
    shown = run(lake, "diff", "v1", "--format", "table").stdout
    assert "behaviour: all 30 events of a against 31 events of b" in shown
    assert "+ NEW, in 1 event" in shown
    assert "~ A: n: number -> text, in 30 events" in shown
    assert "NEW s hello" in shown
    assert max(map(len, shown.splitlines())) <= 80
    record = json.loads(run(lake, "diff", "v1", "--json").stdout)
    assert record["behaviour"]["types"][0]["example"]["message"] == "hello"
    assert record["behaviour"]["fields"][0]["example"]["data"] == {"n": "text"}
    assert record["types"] == {"A": 30, "NEW": 1}
    assert (
        json.loads(run(lake, "diff", "v1", "--no-behaviour", "--json").stdout)["behaviour"] is None
    )
    monkeypatch.setattr(history, "SMALL", 10)
    shown = run(lake, "diff", "v1", "--format", "table").stdout
    assert "--behaviour says what changed" in shown
    assert "+ NEW" in run(lake, "diff", "v1", "--behaviour", "--format", "table").stdout
