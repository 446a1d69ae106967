"""Dedupe queries: equal to plain SQL, and exactly what was planned leaves the branch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.analyze import dedupe, similar
from lakelog.audit.audit import audit
from lakelog.cli import cli
from lakelog.errors import InvalidSetting, StalePlan
from tests.support import protected
from tests.support.effort import share
from tests.support.plants import drop_rows, places

MakeLake = Callable[..., lakelog.Lake]
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from("AB"),
            "time": st.integers(1_770_000_000, 1_770_000_003),
            "subject": st.sampled_from([None, "s", "t"]),
            "data": st.sampled_from([None, {"e": 1}, {"e": 2, "f": "x"}, [3]]),
        }
    ),
    max_size=12,
)
NUMBERS = itertools.count()
BYS = [["type"], ["subject"], ["data.e"], ["type", "data.e"], ["time", "subject"], ["content"]]


def run(lake: Any, *words: str, code: int = 0) -> Result:
    """Run a command line on a lake; its exit code must be `code`."""
    result = CliRunner().invoke(cli, ["--lake", lake.path, *words], env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result


def rows(lake: Any) -> list[tuple[Any, ...]]:
    """Return all rows, by seq."""
    found: list[tuple[Any, ...]] = lake.sql("SELECT * FROM events ORDER BY seq").fetchall()
    return found


def values(row: tuple[Any, ...], by: list[str]) -> tuple[Any, ...]:
    """The key of a row, worked out by plain Python."""
    columns = dict(zip("time type category source subject level message data".split(), row))  # noqa: B905
    names = [*columns, "id"] if by == ["content"] else by
    columns["id"] = row[8]
    data = json.loads(columns["data"]) if columns["data"] else None
    for name in ("e", "f"):
        value = data.get(name) if isinstance(data, dict) else None
        columns[f"data.{name}"] = value
    return tuple(columns[name] for name in names)


def expected(found: list[tuple[Any, ...]], by: list[str], keep: str) -> list[tuple[Any, ...]]:
    """The rows that should be left, worked out one by one."""
    best: dict[Any, tuple[Any, ...]] = {}
    for row in found:
        key = values(row, by)
        old = best.get(key)
        order, before = (row[0], row[-1]), old and (old[0], old[-1])
        if before is None or (order < before if keep == "first" else order > before):
            best[key] = row
    return [r for r in found if not has_key(values(r, by), by) or best[values(r, by)] is r]


def has_key(key: tuple[Any, ...], by: list[str]) -> bool:
    """Whether an event has a key: nothing of it is null, but for `content`."""
    return set(key) != {None} if by == ["content"] else None not in key


@given(
    batches=st.lists(EVENTS, max_size=3), by=st.sampled_from(BYS), keep=st.sampled_from(dedupe.KEEP)
)
@settings(max_examples=share(60))
@example(batches=[[], [], [{"type": "B"}, {"type": "B"}]], by=["type"], keep="first")
def test_one_of_each_is_left(
    make_lake: MakeLake, batches: list[Any], by: list[str], keep: str
) -> None:
    """What is left is, row for row, what going through all events one by one would leave."""
    lake = make_lake(f"lake{next(NUMBERS)}")
    lake.append([{"type": "A", "data": {"e": 1}, "subject": "s"}])
    for number, batch in enumerate(batches):
        lake.append(batch)
        lake.settle()
        if number == 1:
            lake.compact()
    lake.settle()
    before = rows(lake)
    plan = dedupe.plan(lake, by, keep)
    listed = dedupe.rows(lake, plan).fetchall()
    assert rows(lake) == before
    segments = lake.store.manifests.segments(lake.store.state("main"))
    done = dedupe.apply(lake, plan)
    assert rows(lake) == expected(before, by, keep)
    # Segments without duplicates are not written again.
    touched = [e for e in segments if any(e.seq[0] <= n <= e.seq[1] for n in plan.seqs)]
    assert done.removed + done.rewritten == len(touched)
    assert sorted([*rows(lake), *listed], key=lambda row: row[-1]) == before
    assert done.events == len(plan) == len(listed)
    assert len(dedupe.plan(lake, by, keep)) == 0
    if len(plan):
        lake.undo()
        assert rows(lake) == before


@given(events=EVENTS, by=st.sampled_from(BYS))
@settings(max_examples=share(40))
def test_duplicates_are_counted(make_lake: MakeLake, events: list[Any], by: list[str]) -> None:
    """Each key that is there twice is listed once, with its count and times, live or published."""
    lake = make_lake(f"lake{next(NUMBERS)}")
    lake.append(events[:5])
    lake.settle()
    lake.append(events[5:])
    counted: dict[Any, list[Any]] = {}
    for row in lake.sql("FROM events").fetchall():
        key = values(row, by)
        if has_key(key, by):
            counted.setdefault(key, []).append(row[0])
    wanted = {(len(t), min(t), max(t)) for t in counted.values() if len(t) > 1}
    found = dedupe.duplicates(lake, by).fetchall()
    assert {row[-5:-2] for row in found} == wanted
    assert len(found) == sum(len(t) > 1 for t in counted.values())


def test_nulls_are_compared_when_asked_for(lake: lakelog.Lake) -> None:
    """Events that lack a part of the key are left alone, unless nulls are to equal nulls."""
    lake.append([{"type": t, "source": s} for t, s in ("Aa", "Aa", "Bb")] + [{"type": "A"}] * 3)
    assert len(dedupe.plan(lake, ["type", "source"])) == 1
    assert len(dedupe.plan(lake, ["type", "source"], nulls=True)) == 3
    run(lake, "dedupe", "--by", "type", "--by", "source", "--nulls", "--apply", "--yes")
    assert lake.count() == 3


def test_first_last_and_latest(lake: lakelog.Lake) -> None:
    """First and last go by time, latest by when it was stored; each key once."""
    for n, time in enumerate([5, 1, 9, 3]):
        lake.append({"type": "T", "time": 1_770_000_000 + time, "subject": "s", "data": {"n": n}})
    lake.append({"type": "T"})
    shown = [
        f(lake, "subject").fetchall()[0][7] for f in (dedupe.first, dedupe.last, dedupe.latest)
    ]
    assert shown == ['{"n":1}', '{"n":2}', '{"n":3}']
    assert len(dedupe.first(lake, "subject").fetchall()) == 1


def test_a_rollback_gives_the_same_bytes(lake: lakelog.Lake) -> None:
    """After dedupe and rollback every query answers with the bytes of before."""
    for _ in range(3):
        lake.append([{"type": f"T{i}", "subject": f"s{i % 3}", "data": {"n": i}} for i in range(9)])
        lake.settle()
    lake.tag("v1")
    before = run(lake, "sql", "FROM events ORDER BY seq").stdout_bytes
    run(lake, "dedupe", "--by", "type", "--apply", "--yes")
    assert lake.count() == 9
    assert run(lake, "sql", "FROM events ORDER BY seq").stdout_bytes != before
    run(lake, "rollback", "v1")
    assert run(lake, "sql", "FROM events ORDER BY seq").stdout_bytes == before
    assert lake.at("v1").id == lake.at("main").id


def test_what_comes_meanwhile_is_kept(make_lake: MakeLake) -> None:
    """Events appended, published and compacted between plan and apply stay, duplicates or not."""
    lake, other = make_lake(), make_lake()
    event = {"type": "T", "subject": "s"}
    lake.append([event, event, {"type": "U"}])
    plan = dedupe.plan(lake, "subject")
    other.append([event, event])
    other.settle()
    other.append(event)
    other.compact()
    assert dedupe.apply(lake, plan).events == 1
    assert lake.sql("SELECT type, seq FROM events ORDER BY seq").fetchall() == [
        ("T", 0),
        ("U", 2),
        ("T", 3),
        ("T", 4),
        ("T", 5),
    ]


def test_a_plan_of_another_state_is_refused(lake: lakelog.Lake) -> None:
    """After a rewind, or once its rows are gone, a plan removes nothing."""
    lake.append([{"type": "T", "subject": "s"}] * 3)
    lake.tag("v1")
    plan = dedupe.plan(lake, "subject")
    dedupe.apply(lake, plan)
    with pytest.raises(StalePlan, match="plan"):
        dedupe.apply(lake, plan)
    lake.rollback("v1")
    with pytest.raises(StalePlan, match="rewound"):
        dedupe.apply(lake, plan)
    assert lake.count() == 3


def test_an_audit_says_what_a_dedupe_took(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A line whose row was removed as a duplicate is let go while its equal is there; a row
    that was lost is missing all the same."""
    lines = [{"type": "T", "subject": f"s{n % 4}", "data": {"n": n}} for n in range(10)]
    lines += [{"type": "K", "subject": "s0", "id": f"k{n}"} for n in range(3)]
    (tmp_path / "f").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lake.ingest(str(tmp_path / "f"))
    assert run(lake, "dedupe", "--by", "type,subject", "--apply", "--yes").exit_code == 0
    (file,) = audit(lake.store, "main", lake.engine, []).files
    assert (file.stored, file.let_go, file.known, file.missing) == (5, 8, 0, 0)
    assert "8 removed by retention, dedupe or erasure" in run(lake, "audit").stderr
    drop_rows(lake, places(lake)[:1])
    (file,) = audit(lake.store, "main", lake.engine, []).files
    assert (file.stored, file.let_go, file.missing) == (4, 6, 3)
    run(lake, "audit", code=3)
    drop_rows(lake, places(lake)[1:])
    ((name, subject),) = lake.sql("SELECT type, subject FROM events").fetchall()
    equals = sum((line["type"], line["subject"]) == (name, subject) for line in lines)
    (file,) = audit(lake.store, "main", lake.engine, []).files
    assert (file.stored, file.let_go, file.missing) == (1, equals - 1, 13 - equals)


def test_near_duplicates(lake: lakelog.Lake) -> None:
    """Messages that differ in numbers, ids or a word or two are one group, others are not."""
    texts = [f"request {n} of user {n * 7} took {n / 3:.2f} ms on host a{n % 2}" for n in range(6)]
    lake.append([{"type": "log", "source": "w", "message": text} for text in texts])
    lake.append([{"type": "log", "message": "disk full"}, {"type": "log"}])
    (group,) = similar.near_duplicates(lake)
    assert (group["events"], group["variants"], group["sources"]) == (6, 6, ["w"])
    assert similar.near_duplicates(lake, "data.text") == []
    assert "disk" not in run(lake, "dedupe", "--by", "message", "--show", "similar").stdout


def test_the_command_line(lake: lakelog.Lake) -> None:
    """Listing changes nothing, a dry run lists what goes, applying asks first and can be undone."""
    lake.append([{"type": "T", "source": "a"}, {"type": "T", "source": "b"}, {"type": "U"}])
    (found,) = json.loads(run(lake, "dedupe", "--by", "type", "--json").stdout)
    assert (found["type"], found["events"], found["sources"]) == ("T", 2, ["a", "b"])
    dry = run(lake, "dedupe", "--by", "type", "--keep", "last", "--dry-run", "--apply")
    assert [json.loads(line)["source"] for line in dry.stdout.splitlines()] == ["a"]
    assert "1 event of 3 events of main" in dry.stderr
    run(lake, "dedupe", "--by", "type", "--apply", code=2)
    assert lake.count() == 3
    done = json.loads(run(lake, "dedupe", "--by", "type", "--apply", "--yes", "--json").stdout)
    assert (done["events"], done["left"], done["keys"]) == (1, 2, 1)
    assert lake.log(1)[0].move.op == "dedupe"
    run(lake, "undo")
    assert lake.count() == 3
    (latest, _) = run(lake, "dedupe", "--by", "type", "--show", "latest").stdout.splitlines()
    assert json.loads(latest)["type"] in "TU"
    lake.append([{"type": "U"}] * 2)
    listed = run(lake, "dedupe", "--by", "type", "-n", "1").stdout.splitlines()
    assert [json.loads(line)["type"] for line in listed] == ["U"]  # of which there are most


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--by", "nope"), 2, "no column 'nope': choose from time, type"),
        (("--by", "data."), 2, "no column 'data.'"),
        ((), 2, "nothing to dedupe by: name columns"),
        (("--by", ","), 2, "nothing to dedupe by"),
        (("--by", "data.nope", "--dry-run"), 2, "nothing to dedupe by: no event has data.nope"),
        (("--by", "type", "--keep", "newest"), 2, "'newest' is not one of"),
        (("--by", "type", "--show", "first", "--apply"), 2, "only lists"),
        (("--by", "type,source", "--by", "data.x", "--show", "similar"), 2, "one text"),
    ],
)
def test_bad_input(lake: lakelog.Lake, words: tuple[str, ...], code: int, said: str) -> None:
    """A mistake is one line that says what is wrong."""
    lake.append({"type": "T"})
    answer = run(lake, "dedupe", *words, code=code)
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_an_empty_lake_has_nothing_to_remove(lake: lakelog.Lake) -> None:
    """On an empty lake a plan is empty and applying it makes no move."""
    assert len(dedupe.plan(lake, "type")) == 0
    moves = len(lake.log())
    assert dedupe.apply(lake, dedupe.plan(lake, "type")).events == 0
    assert len(lake.log()) == moves
    with pytest.raises(InvalidSetting):
        dedupe.plan(lake, "type", "newest")


def test_protected_fields_of_a_plan_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever has the keys, as by a query: before the events are removed, they are looked at."""
    event = {"type": "A", "time": 1_770_000_000, "subject": "s", "data": {"email": "e", "n": 1}}
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        lake.append([event, event])
        (row,) = dedupe.rows(lake, dedupe.plan(lake, "content")).fetchall()
        assert row == rows(lake)[1]
        assert json.loads(row[7]) == event["data"]


def test_a_member_whose_name_has_dots_is_a_part_of_a_key(tmp_path: Path) -> None:
    """As those of OpenTelemetry have: events that differ in it are no duplicates."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([{"type": "A", "data": {"attributes": {"order.id": n // 2}}} for n in range(4)])
        by = ["type", "data.attributes.order.id"]
        for _ in ("tail", "typed"):
            assert len(dedupe.plan(lake, by)) == len(dedupe.plan(lake, by, nulls=True)) == 2
            lake.compact()
