"""Identity: a given id is stored once, however often, wherever and whenever it arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import lakelog
from lakelog import identities

MakeLake = Callable[..., lakelog.Lake]


def once(ident: str = "x", source: str | None = "s", data: Any = 0) -> dict[str, Any]:
    """Return an event with an id."""
    return {"type": "A", "source": source, "id": ident, "data": data}


def rows(
    lake: lakelog.Lake, query: str = "SELECT source, id, data FROM events", count: int | None = None
) -> list[Any]:
    """Return (source, id, data) of all events, sorted; both counts must agree with them."""
    found = sorted(lake.sql(query).fetchall(), key=str)
    expected = len(found) if count is None else count
    assert lake.count() == lake.sql("SELECT count(*) FROM events").fetchall()[0][0] == expected
    return found


STATES = {
    "in the tail": lambda lake: None,
    "sealed": lambda lake: lake.settle(),
    "compacted": lambda lake: lake.compact(),
    "tagged": lambda lake: lake.tag("v1"),
}


@pytest.mark.matrix
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("later", ["same handle", "another handle", "reopened"])
def test_retrying_an_id_is_idempotent(make_lake: MakeLake, state: str, later: str) -> None:
    """In the same batch, tail, segment or after compaction: the first stays, others vanish."""
    lake = make_lake()
    lake.append([once(data=1), once(data=2), {"type": "B"}])
    STATES[state](lake)
    if later == "reopened":
        lake.close()
    again = lake if later == "same handle" else make_lake()
    again.append([once(data=3), once("y"), once(data=4)])
    expected = [("s", "x", "1"), ("s", "y", "0"), (None, None, None)]
    for change in (lambda: None, again.settle, again.compact):
        change()
        assert rows(again) == expected
    assert rows(make_lake()) == expected


def test_the_earliest_of_two_tails_wins(make_lake: MakeLake) -> None:
    """Two writers append the same id before either is sealed: the first to arrive stays."""
    one, two = make_lake(), make_lake()
    two.append({"type": "first to open a file"})
    one.append(once(data=1))
    two.append(once(data=2))
    for _ in range(2):
        assert one.sql("SELECT data FROM events WHERE id = 'x'").fetchall() == [("1",)]
        assert two.count() == 2
        two.settle()


def test_the_earliest_wins_though_a_long_tail_is_sealed_in_parts(make_lake: MakeLake) -> None:
    """What a query showed of an id stays what it shows: parts are cut by arrival, not by writer."""
    one, two = make_lake(segment_rows=1), make_lake()
    one.append({"type": "first to open a file"})
    two.append(once(data=1))
    one.append(once(data=2))
    # Each has one of them first, as writers are in no order of their own.
    one.append(once("y", data=3))
    two.append(once("y", data=4))
    for _ in range(2):
        assert rows(one, "SELECT id, data FROM events WHERE id <> ''", 3) == [
            ("x", "1"),
            ("y", "3"),
        ]
        one.settle()
    assert one.stats().segments == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (once(source="a"), once(source="b")),
        (once(source=None), once(source="a")),
        (once("x"), once("X")),
        (once("x"), once("x ")),
        (once("ab", "c"), once("b", "ca")),
    ],
)
def test_source_and_id_together_identify(
    lake: lakelog.Lake, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The same id of another source is another event, and ids are compared exactly."""
    lake.append([first, second, first, second])
    lake.settle()
    lake.append([second, first])
    assert len(rows(lake)) == 2


def test_only_the_id_counts_not_what_the_event_says(lake: lakelog.Lake) -> None:
    """Another time, type or payload under a known id is the same event, redelivered."""
    lake.append({**once(), "time": "2020-01-01"})
    lake.settle()
    lake.append({**once(data="other"), "type": "B", "time": "2021-01-01"})
    assert lake.sql("SELECT type, data, time::DATE::VARCHAR FROM events").fetchall() == [
        ("A", "0", "2020-01-01")
    ]


def test_an_absent_source_and_an_empty_one_are_the_same(lake: lakelog.Lake) -> None:
    """Identity is SHA-256(source NUL id) with an empty source where there is none."""
    lake.append([once(source=None), once(source="")])
    assert len(rows(lake)) == 1


def test_a_number_as_id_is_its_text(lake: lakelog.Lake) -> None:
    """The id 7 and the id "7" are one."""
    lake.append([{"type": "A", "id": 7}, {"type": "A", "id": "7"}])
    assert rows(lake) == [(None, "7", None)]


@pytest.mark.parametrize("mates", [[], [once("z")]])
def test_an_empty_id_identifies_nothing(lake: lakelog.Lake, mates: list[Any]) -> None:
    """Events with an empty id are all kept, whoever shares their frame."""
    for _ in range(2):
        lake.append([once(""), once(""), *mates])
        lake.settle()
    assert len(rows(lake)) == 4 + len(mates)


def test_plain_events_are_never_dropped(lake: lakelog.Lake) -> None:
    """Two equal events without id are two events."""
    event = {"type": "A", "time": "2024-01-01T00:00:00Z", "data": 1}
    lake.append([event, event])
    lake.append(event)
    lake.settle()
    lake.append(event)
    assert lake.count() == 4


# --- content --------------------------------------------------------------------------------------

CONTENT = {"type": "A", "time": "2024-01-01T00:00:00Z", "source": "s", "data": {"a": 1, "b": [2]}}


def test_content_counts_only_when_asked(lake: lakelog.Lake) -> None:
    """With dedupe="content" an equal event is stored once, before and after sealing."""
    for _ in range(2):
        lake.append([CONTENT, CONTENT], dedupe="content")
        assert lake.count() == 1
        lake.settle()
    lake.append([CONTENT, CONTENT])
    assert lake.count() == 3


@pytest.mark.parametrize(
    "equal",
    [
        {**CONTENT, "data": {"b": [2], "a": 1}},
        {**CONTENT, "time": "2024-01-01T01:00:00+01:00"},
        {**CONTENT, "time": 1704067200},
        {"ts": CONTENT["time"], "event_type": "A", "source": "s", "a": 1, "b": [2]},
    ],
)
def test_spelling_is_no_content(lake: lakelog.Lake, equal: dict[str, Any]) -> None:
    """Key order, time zone and the spelling of names do not make an event another one."""
    lake.append(CONTENT, dedupe="content")
    lake.append(equal, dedupe="content")
    assert lake.count() == 1


@pytest.mark.parametrize(
    "other",
    [
        {**CONTENT, "type": "B"},
        {**CONTENT, "time": "2024-01-01T00:00:00.000001Z"},
        {**CONTENT, "data": {"a": 1.0, "b": [2]}},
        {**CONTENT, "data": {"a": "1", "b": [2]}},
        {**CONTENT, "data": {"a": 1, "b": [2], "c": None}},
        {**CONTENT, "message": ""},
    ],
)
def test_any_difference_is_content(lake: lakelog.Lake, other: dict[str, Any]) -> None:
    """A microsecond, a null or a number's kind makes another event."""
    lake.append(CONTENT, dedupe="content")
    lake.append(other, dedupe="content")
    assert lake.count() == 2


@pytest.mark.parametrize(
    ("a", "b"), [(10**30, 10**30 + 1), ({"\ud800": 1}, {"\ud801": 1}), ([2**64], [2**64 + 1])]
)
def test_content_is_compared_to_the_last_digit(lake: lakelog.Lake, a: Any, b: Any) -> None:
    """Numbers beyond 64 bits and text beyond Unicode are content like any other."""
    lake.append([{"type": "A", "data": a}, {"type": "A", "data": b}], dedupe="content")
    lake.append([{"type": "A", "data": a}, {"type": "A", "data": b}], dedupe="content")
    assert lake.count() == 2


def test_the_arrival_time_is_no_content(lake: lakelog.Lake) -> None:
    """Without a time of its own an event is equal to the one that came before it."""
    for _ in range(3):
        lake.append({"type": "A", "data": 1}, dedupe="content")
    assert lake.count() == 1


def test_an_id_outranks_content(lake: lakelog.Lake) -> None:
    """Events with ids are told apart by them, also where content dedupe was asked for."""
    lake.append([once("x"), once("y"), once("x"), {"type": "A"}, {"type": "A"}], dedupe="content")
    assert len(rows(lake)) == 3


# --- across moves and branches --------------------------------------------------------------------


def test_an_id_rolled_back_can_be_retried(lake: lakelog.Lake) -> None:
    """The known ids are part of the state: going back before an id forgets it, undo recalls it."""
    lake.append(once("before"))
    lake.tag("v1")
    lake.append(once(data=1))
    lake.settle()
    lake.rollback("v1")
    lake.append([once(data=2), once("before")])
    assert rows(lake) == [("s", "before", "0"), ("s", "x", "2")]
    lake.settle()
    lake.append(once(data=3))
    assert rows(lake) == [("s", "before", "0"), ("s", "x", "2")]
    lake.undo(force=True)
    assert rows(lake) == [("s", "before", "0"), ("s", "x", "1")]
    lake.append(once(data=4))
    assert rows(lake) == [("s", "before", "0"), ("s", "x", "1")]


def test_a_pending_id_is_settled_by_a_rollback(lake: lakelog.Lake) -> None:
    """An id pending at the rollback leaves the branch with it, and may come again after."""
    lake.tag("v1")
    lake.append(once(data=1))
    lake.rollback("v1")
    assert rows(lake) == []
    lake.append(once(data=2))
    assert rows(lake) == [("s", "x", "2")]


def test_branches_know_their_own_ids(make_lake: MakeLake) -> None:
    """A branch starts with the ids of its origin; after that each goes its own way."""
    main = make_lake()
    main.append(once("shared"))
    dev = main.branch("dev")
    dev.append([once("shared"), once("new", data="dev")])
    main.append([once("shared"), once("new", data="main")])
    for _ in range(2):
        assert rows(dev) == [("s", "new", '"dev"'), ("s", "shared", "0")]
        assert rows(main) == [("s", "new", '"main"'), ("s", "shared", "0")]
        dev.settle()
        main.settle()
    dev.close()


def test_removed_events_do_not_come_back_by_redelivery(lake: lakelog.Lake) -> None:
    """Retention and compaction leave the ids alone: what was removed on purpose stays away."""
    lake.append([{**once("old"), "time": "2020-01-01"}, once("new")])
    lake.settle()
    lake.retention("365d", apply=True)
    lake.compact()
    lake.append([{**once("old"), "time": "2020-01-01"}, once("new")])
    lake.settle()
    assert rows(lake) == [("s", "new", "0")]


# --- id runs --------------------------------------------------------------------------------------


def test_many_runs_are_merged_and_still_know_every_id(lake: lakelog.Lake) -> None:
    """Eight runs of one size become one of the next; no id is forgotten on the way."""
    for n in range(80):
        lake.append([once(f"{n}-{i}") for i in range(1 + n % 3)])
        lake.settle()
    head = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    assert sum(run.count for run in head.ids) == lake.count() == sum(1 + n % 3 for n in range(80))
    assert len(head.ids) < 20
    assert identities.runs_to_merge(list(head.ids)) == []
    assert any(entry.move.op == "maintain" for entry in lake.log())
    lake.append([once(f"{n}-{i}") for n in range(80) for i in range(3)])
    assert lake.count() == 240
    lake.settle()
    assert lake.count() == 240


def test_a_seal_of_known_ids_alone_makes_no_segment(lake: lakelog.Lake) -> None:
    """Where every event was a redelivery the log moves on and nothing is written."""
    lake.append(once())
    lake.settle()
    lake.append([once(), once()])
    before = lake.stats()
    lake.settle()
    after = lake.stats()
    assert (after.segments, after.ids, after.events) == (1, 1, 1)
    assert (before.pending, after.pending) == (2, 0)


def test_plain_events_make_no_runs(lake: lakelog.Lake) -> None:
    """Who gives no ids pays nothing for identity."""
    lake.append([{"type": "A"}] * 10)
    lake.settle()
    assert (lake.stats().ids, lake.stats().ids_bytes) == (0, 0)


def test_concurrent_redelivery_is_idempotent(make_lake: MakeLake) -> None:
    """Four handles append the same ids while two of them seal: each id is there once."""
    lakes = [make_lake(rotate_events=20) for _ in range(4)]

    def deliver(lake: lakelog.Lake, seal: bool) -> None:
        for n in range(40):
            lake.append([once(str(n)), once(str(n + 1))])
            if seal and n % 5 == 0:
                lake.settle()

    threads = [
        threading.Thread(target=deliver, args=(lake, i % 2 == 0)) for i, lake in enumerate(lakes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(("s", str(n), "0") for n in range(41))
    assert rows(lakes[1]) == expected
    lakes[3].settle()
    assert rows(lakes[2]) == expected
