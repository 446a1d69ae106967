"""Folds: states of subjects, from saved states too, which are never wrong."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import functools
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import lakelog
from lakelog.errors import InvalidEvent, InvalidSetting, QueryFailed
from lakelog.folds import Fold, Upcaster, aggregate, on
from lakelog.folds.upcasting import FoldEvent
from tests.support.effort import share

HISTORIES = int(os.environ.get("LAKELOG_FOLD_HISTORIES", share(48)))
State = dict[str, int]


def paid(state: State, event: FoldEvent) -> State:
    return {"sum": state["sum"] + event.data["amount"], "events": state["events"] + 1}


def fold(every: int = 10, **options: Any) -> Fold[State]:
    return Fold("sum", lambda: {"sum": 0, "events": 0}, {"paid": paid}, every=every, **options)


def payments(count: int, subject: str = "a", amount: int = 1) -> list[dict[str, Any]]:
    return [{"type": "paid", "subject": subject, "data": {"amount": amount}} for _ in range(count)]


@pytest.fixture
def lake(home: Path) -> Iterator[lakelog.Lake]:
    with lakelog.open(home / "lake") as lake:
        yield lake


def test_a_saved_state_spares_the_events_before_it(lake: lakelog.Lake) -> None:
    """Also once they are sealed and compacted."""
    lake.append([*payments(25), *payments(3, "b"), {"type": "other", "subject": "a"}])
    folded = fold().of(lake, "a")
    assert (folded.state, folded.events, folded.applied) == ({"sum": 25, "events": 25}, 26, 26)
    lake.append(payments(2))
    folded = fold().of(lake, "a")
    assert (folded.state["sum"], folded.events, folded.applied) == (27, 28, 2)
    lake.compact()
    assert (fold().of(lake, "a").state["sum"], fold().of(lake, "b").state["sum"]) == (27, 3)
    assert fold().of(lake, "nobody").events == 0


def test_a_past_state_is_folded_as_it_was(lake: lakelog.Lake) -> None:
    """With the state that was saved, if it begins so, and the version of then; and it leaves the
    saved state of the present alone."""
    lake.append(payments(12), expect={"a": 0})
    assert fold().of(lake, "a").applied == 12
    lake.append(payments(1), expect={"a": 12})
    lake.tag("v1")
    lake.append(payments(20), expect={"a": 13})
    assert fold().of(lake, "a").applied == 21
    past = fold().of(lake.at("v1"), "a")
    assert (past.state["sum"], past.events, past.applied, past.version) == (13, 13, 13, 13)
    present = fold().of(lake, "a")
    assert (present.state["sum"], present.applied, present.version) == (33, 0, 33)


@pytest.mark.parametrize("subject", [None, "", 5])
def test_a_fold_is_of_a_subject(lake: lakelog.Lake, subject: Any) -> None:
    with pytest.raises(InvalidEvent, match="is a text, not"):
        fold().of(lake, subject)


@pytest.mark.parametrize("history", range(HISTORIES))
def test_a_fold_is_right_through_random_histories(home: Path, history: int) -> None:
    """Rollbacks, branches, compaction and dropped caches: as without saved states."""
    rng = random.Random(history)
    with lakelog.open(home / "lake") as lake:
        tags, lakes = 0, [lake]
        for step in range(14):
            here = rng.choice(lakes)
            match rng.choice("append append append tag rollback branch compact drop".split()):
                case "append":
                    subject, count = rng.choice("ab"), rng.randrange(1, 12)
                    here.append(payments(count, subject, rng.randrange(1, 9)))
                case "tag":
                    here.tag(f"t{tags}")
                    tags += 1
                case "rollback" if tags and here is lake:
                    lake.rollback(f"t{rng.randrange(tags)}")
                case "branch" if len(lakes) < 3:
                    lakes.append(here.branch(f"b{step}"))
                case "compact":
                    here.compact()
                case "drop":
                    shutil.rmtree(home / "lake/cache/folds", ignore_errors=True)
            for one_lake in lakes:
                for subject in "ab":
                    saved = fold(5).of(one_lake, subject)
                    assert saved.state == fold(0).of(one_lake, subject).state
        for one_lake in lakes[1:]:
            one_lake.close()


def test_integers_of_any_length_are_added_up(lake: lakelog.Lake) -> None:
    """Also those that no float holds."""
    lake.append(payments(1, amount=amount)[0] for amount in (2**70, 10**400, 1, -(10**400)))
    assert fold().of(lake, "a").state == {"sum": 2**70 + 1, "events": 4}
    lake.append(
        payments(1, "b", 0)[0] | {"data": orjson.Fragment('{"amount": 1' + "0" * 5_000 + "}")}
    )
    with pytest.raises(QueryFailed, match=r"\(paid of b\): its payload cannot be read"):
        fold().of(lake, "b")


def test_a_number_beyond_floats_is_infinite(lake: lakelog.Lake) -> None:
    """What may be stored can be folded: one event does not hide the others of its subject."""
    lake.append(payments(1)[0] | {"data": orjson.Fragment('{"amount": 1e400}')})
    lake.append(payments(1, amount=5))
    assert fold().of(lake, "a").state == {"sum": float("inf"), "events": 2}


def test_a_saved_state_is_that_of_any_process(lake: lakelog.Lake, home: Path) -> None:
    """Sets in code have another order in each, by the seed of their hashes."""
    lake.append(payments(20))
    program = (
        "import lakelog, lakelog.folds, sys\n"
        "def add(state, event): return state + (event.type in {'paid', 'due', 'gift', 'fee'})\n"
        "with lakelog.open(sys.argv[1]) as lake:\n"
        "    fold = lakelog.folds.Fold('n', lambda: 0, {'paid': add}, every=10)\n"
        "    print(fold.of(lake, 'a').applied)"
    )
    applied = [
        subprocess.run(
            [sys.executable, "-c", program, str(home / "lake")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in "123"
    ]
    assert applied == ["20", "0", "0"]


def test_a_damaged_or_other_saved_state_is_not_used(lake: lakelog.Lake, home: Path) -> None:
    """A flipped bit, a truncated file, and code that changed."""
    lake.append(payments(20))
    fold().of(lake, "a")
    (file,) = (home / "lake/cache/folds").iterdir()
    content = file.read_bytes()
    for damaged in (content.replace(b'"sum":20', b'"sum":21'), content[:40], b"", b"[]\n"):
        file.write_bytes(damaged)
        assert fold().of(lake, "a").state["sum"] == 20

    def doubled(state: State, event: FoldEvent) -> State:
        return {"sum": state["sum"] + 2 * event.data["amount"], "events": 0}

    changed = Fold("sum", lambda: {"sum": 0, "events": 0}, {"paid": doubled}, every=10)
    assert changed.of(lake, "a").state["sum"] == 40
    assert fold(revision=2).of(lake, "a").applied == 20


def test_a_state_that_json_does_not_hold_is_not_saved(lake: lakelog.Lake, home: Path) -> None:
    """A tuple would come back as a list: it is folded anew."""
    lake.append(payments(20))
    handlers = {"paid": lambda state, event: (state[0] + event.data["amount"],)}
    tuples = Fold[Any]("t", lambda: (0,), handlers, every=5)
    assert [tuples.of(lake, "a").state for _ in range(2)] == [(20,), (20,)]


def test_a_state_that_equals_what_json_gives_back_is_not_saved(lake: lakelog.Lake) -> None:
    """An enum is its number only in a comparison."""

    class Phase(enum.IntEnum):
        OPEN, CLOSED = 1, 2

    handlers = {"paid": lambda state, event: Phase.CLOSED if state is Phase.OPEN else Phase.OPEN}
    phases = Fold[Any]("p", lambda: Phase.OPEN, handlers, every=5)
    lake.append(payments(20))
    assert phases.of(lake, "a").state is Phase.OPEN
    lake.append(payments(1))
    assert phases.of(lake, "a").state is Phase.CLOSED


def test_a_saved_state_is_not_used_where_a_handler_was_made_otherwise(lake: lakelog.Lake) -> None:
    """Its defaults, what it closes over, what it wraps, and what a class begins with."""

    def by_default(factor: int) -> Any:
        return lambda state, event, by=factor: state + by

    def by_closure(factor: int) -> Any:
        return lambda state, event: state + factor

    def wrapped(factor: int) -> Any:
        inner = by_closure(factor)
        return lambda state, event: inner(state, event)

    def partial(factor: int) -> Any:
        return functools.partial(lambda by, state, event: state + by, factor)

    lake.append(payments(20))
    for make in (by_default, by_closure, wrapped, partial):
        sums = [Fold("f", int, {"paid": make(n)}, every=5).of(lake, "a").state for n in (1, 2)]
        assert sums == [20, 40], make

    def till(first: int) -> Any:
        class Till:
            def __init__(self) -> None:
                self.sum = first

            @on("paid")
            def paid(self, event: FoldEvent) -> None:
                self.sum += event.data["amount"]

        return aggregate("till", every=5)(Till).fold

    assert [till(first).of(lake, "a").state.sum for first in (0, 100)] == [20, 120]


def test_a_saved_state_is_not_used_where_types_changed_their_handlers(lake: lakelog.Lake) -> None:
    """Two of them swapped, in a mapping or by their decorators, or one that others have as well."""

    def add(state: int, _: FoldEvent) -> int:
        return state + 1

    def take(state: int, _: FoldEvent) -> int:
        return state - 1

    def counter(first: str, other: str) -> Fold[Any]:
        class Counter:
            count = 0

            @on(first)
            def add(self, _: FoldEvent) -> None:
                self.count += 1

            @on(other)
            def take(self, _: FoldEvent) -> None:
                self.count -= 1

        return aggregate("counter", every=5)(Counter).fold  # type: ignore[attr-defined,no-any-return]

    lake.append([*payments(20), *({"type": "repaid", "subject": "a"} for _ in range(5))])
    for handlers, total in (
        ({"paid": add, "repaid": take, "void": take}, 15),
        ({"repaid": add, "paid": take, "void": take}, -15),
        ({"repaid": add, "paid": add, "void": take}, 25),
    ):
        assert Fold("f", int, handlers, every=5).of(lake, "a").state == total
    counts = [counter(*types).of(lake, "a").state.count for types in KINDS]
    assert counts == [15, -15]


KINDS = (("paid", "repaid"), ("repaid", "paid"))
FEE = decimal.Decimal(1)


@dataclasses.dataclass
class Tariff:
    """What a handler may look at."""

    fee: int


def test_a_saved_state_is_not_used_where_values_of_handlers_changed(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any kind, and those that a module names."""

    def closing_over(value: object) -> Any:
        return lambda state, event: str(value)

    lake.append(payments(20))
    for pair in (
        ({"a"}, {"b"}),
        ((1, 23), (12, 3)),
        ([[1], 2], [[1, 2]]),
        (Tariff(1), Tariff(2)),
        (decimal.Decimal(1), decimal.Decimal(2)),
    ):
        folds = [Fold("v", str, {"paid": closing_over(value)}, every=5) for value in pair]
        assert [f.of(lake, "a").state for f in folds] == [str(value) for value in pair]
    for fee in (1, 2):
        monkeypatch.setitem(globals(), "FEE", decimal.Decimal(fee))
        handlers = {"paid": lambda state, event: state + int(FEE)}
        assert Fold("fee", int, handlers, every=5).of(lake, "a").state == 20 * fee


CENTS = Upcaster("paid", 1, lambda data: {"amount": data["euros"] * 100})
CHECKED = Upcaster("paid", 2, lambda data: data | {"amount": data["amount"] + 1})


def test_old_payloads_are_brought_to_the_present_version(lake: lakelog.Lake) -> None:
    """One version after the other, each from where its event stands."""
    old = {"type": "paid", "subject": "a", "data": {"euros": 2}}
    middle = {"type": "paid", "subject": "a", "data": {"schema_version": 2, "amount": 50}}
    new = {"type": "paid", "subject": "a", "data": {"schema_version": 3, "amount": 7}}
    lake.append([old, middle, new])
    assert fold(upcasters=(CENTS, CHECKED)).of(lake, "a").state["sum"] == 201 + 51 + 7


def test_a_failing_upcaster_or_handler_names_its_event(lake: lakelog.Lake) -> None:
    """In one line."""
    lake.append([{"type": "paid", "subject": "a", "id": "p-1", "data": {"cents": 2}}])
    with pytest.raises(QueryFailed, match=r"event p-1 \(paid of a\): its upcaster from version 1"):
        fold(upcasters=(CENTS,)).of(lake, "a")
    with pytest.raises(QueryFailed, match=r"event p-1 .*: the fold sum failed: KeyError: 'amount'"):
        fold().of(lake, "a")
    wrong = Upcaster("paid", 1, lambda _: 7)  # type: ignore[arg-type,return-value]
    with pytest.raises(QueryFailed, match="returned int, not a dict"):
        fold(upcasters=(wrong,)).of(lake, "a")
    with pytest.raises(InvalidSetting, match="two upcasters are of paid, version 1"):
        fold(upcasters=(CENTS, CENTS))


@aggregate(every=4)
class Account:
    """What an account holds."""

    balance: int = 0
    is_open: bool = False

    @on("opened")
    def opened(self, _: FoldEvent) -> None:
        self.is_open = True

    @on("deposited", "withdrawn")
    def moved(self, event: FoldEvent) -> None:
        self.balance += event.data["amount"] * (1 if event.type == "deposited" else -1)


def test_an_aggregate_is_a_class_whose_methods_apply_events(lake: lakelog.Lake) -> None:
    """Its attributes are the state, saved and loaded."""
    lake.append([{"type": "opened", "subject": "a"}])
    for amount in (5, 7, 1):
        lake.append([{"type": "deposited", "subject": "a", "data": {"amount": amount}}])
    for _ in range(2):
        lake.append([{"type": "withdrawn", "subject": "a", "data": {"amount": 2}}])
        folded = Account.fold.of(lake, "a")  # type: ignore[attr-defined]
    assert isinstance(folded.state, Account)
    assert (folded.state.balance, folded.state.is_open) == (9, True)
    assert (folded.events, folded.applied) == (6, 1)
    with pytest.raises(InvalidSetting, match="two methods of Twice are on 'x'"):

        @aggregate()
        class Twice:
            @on("x")
            def one(self, event: FoldEvent) -> None: ...

            @on("x")
            def two(self, event: FoldEvent) -> None: ...


def test_a_subject_that_is_erased_while_it_is_folded_leaves_no_state(lake: lakelog.Lake) -> None:
    """What the fold has read before is in no saved state afterwards, which nobody would remove."""
    notes = [{"type": "note", "subject": "ada", "data": {"text": "word"}} for _ in range(3)]
    lake.append(notes)

    def handle(state: list[str], event: FoldEvent) -> list[str]:
        if len(state) == 1:
            with lakelog.open(lake.path) as other:
                other.erase(subject="ada", why="asked")
        return [*state, event.data["text"]]

    fold = Fold[list[str]]("texts", list, {"note": handle}, every=1)
    assert fold.of(lake, "ada").state == ["word"] * 3
    assert [file for file in Path(lake.path, "cache", "folds").rglob("*") if file.is_file()] == []
