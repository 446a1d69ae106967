"""What else is done daily in the lake of `years`: streams, a subscriber, searches, views, alerts,
templates, copies on a remote, and the erasure of people. Each is held to the model of its life."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lakelog
from lakelog import remotes
from lakelog.maintain import indexing
from tests.support import cli

if TYPE_CHECKING:
    from tests.torture.years import Life

DAY = 86_400_000_000
ACCOUNTS = [f"account-{n}" for n in range(4)]
SHIPPED = "of "
"""How the message begins of what the subscriber appends for an event."""
MONTH = 30 * DAY


def person(now: int, number: int) -> str:
    """Somebody of this month: a month later nothing new is stored about them."""
    return f"person-{now // MONTH}-{number % 5}"


class Chores:
    """What one life does beside appending and keeping house."""

    def __init__(self, life: Life, home: Path) -> None:
        self._life, self._remote = life, home / "remote"
        self.people: dict[str, set[str]] = {}
        """The messages about each person."""
        self._is_set_up = False

    def set_up(self) -> None:
        """Add the rule, the remote and the subscriber, who begins with what comes."""
        with lakelog.open(self._life.path, create=False) as lake:
            remotes.add_tested(lake.store, "origin", str(self._remote))
            lake.subscribe("ship", where="type = 'T'", from_="end").close()
        question = "SELECT count(*) AS value FROM events WHERE time >= $since"
        cli.run(self._life.path, "alerts", "add", "silent", "--below", "1", question)

    def daily(self) -> None:
        """Do what each day asks for."""
        life = self._life
        for _ in range(2):
            self._order()
        self._ship()
        if life.chance(1 / 7):
            self._look()
        if life.chance(1 / 7):
            life.verb(push)
        if life.chance(1 / 30):
            self._erase()

    def _order(self) -> None:
        """Append to a stream what its version allows."""
        life = self._life
        subject, told = life.dice.choice(ACCOUNTS), life.new_message("order")
        record = {"type": "ORDER", "subject": subject, "message": told, "time": life.now / 1e6}

        def play(lake: lakelog.Lake) -> None:
            lake.append([record], expect={subject: lake.stream(subject).version})

        if not life.verb(play) or life.holds_message(told):
            life.alive.add(told)

    def _ship(self) -> None:
        """Let the subscriber append one event for each that is there, exactly once."""
        life = self._life
        while life.verb(ship):
            pass  # it died
        shipped = {m for m in life.alive if m.startswith(SHIPPED)}
        due = {SHIPPED + m for m in life.alive if m.startswith("event ")} - shipped
        life.times |= {message: life.times[message.removeprefix(SHIPPED)] for message in due}
        life.alive |= due

    def _look(self) -> None:
        """Ask as a person would: words, a view, templates, alerts."""
        life = self._life
        told = life.dice.choice(sorted(life.alive))
        with lakelog.open(life.path, create=False) as lake:
            indexing.build_missing(lake.store, "main")
            found = [row[0] for row in lake.search(f'"{told}"').project("message").fetchall()]
            rows = lake.view("throughput", {"type": "T"}).to_pylist()
            assert told in found, f"a search does not find {told}: {found}"
            counted = sum(row["events"] for row in rows)
            there = sum(message.startswith("event ") for message in life.alive)
            assert counted == there, f"the view counts {counted}, not {there}"
            lake.sql("SELECT count(*) FROM patterns").fetchall()
        cli.run(life.path, "alerts", "run", "--once")

    def _erase(self) -> None:
        """Erase somebody of an earlier month from every state, whoever dies meanwhile."""
        life = self._life
        this_month = person(life.now, 0).rpartition("-")[0]
        earlier = [name for name in self.people if not name.startswith(f"{this_month}-")]
        if not earlier:
            return
        gone = min(earlier)
        while life.verb(lambda lake: lake.erase(subject=gone, why="asked")):
            pass
        told = self.people.pop(gone)
        life.forget(told | {SHIPPED + message for message in told})

    def check(self) -> None:
        """Versions of streams have no gap, and each event was shipped once."""
        query = "SELECT subject, position FROM events WHERE starts_with(origin, 'stream:')"
        with lakelog.open(self._life.path, create=False) as lake:
            rows = lake.sql(query).fetchall()
        for subject in ACCOUNTS:
            versions = sorted(version for name, version in rows if name == subject)
            if versions:
                wanted = list(range(versions[0], versions[0] + len(versions)))
                assert versions == wanted, f"{subject}: {Counter(versions).most_common(3)}"


def ship(lake: lakelog.Lake) -> None:
    """Run the subscriber over what is there."""

    def handle(event: Any) -> dict[str, Any]:
        return {
            "type": "SHIPPED",
            "subject": event["subject"],
            "message": SHIPPED + event["message"],
            "time": event["time"],
        }

    with lake.subscribe("ship", where="type = 'T'") as subscription:
        subscription.run(handle, once=True)


def push(lake: lakelog.Lake) -> None:
    """Push the branch, whatever the remote has of it."""
    remotes.push(lake, "origin", branches=["main"], force=True)


def play_chores(
    lake: lakelog.Lake, path: str, turn: int, timed: Callable[[str, Callable[[], Any]], Any]
) -> None:
    """Do each chore once; `timed` gets its name and what it does."""
    account = ACCOUNTS[0]
    record = {"type": "ORDER", "subject": account, "message": f"cost {turn}"}
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    chores: dict[str, Callable[[], Any]] = {
        "stream": lambda: lake.append([record], expect={account: lake.stream(account).version}),
        "subscriber": lambda: ship(lake),
        "search": lambda: lake.search(f'"event {turn}"').fetchall(),
        "view": lambda: lake.view("throughput", {"type": "T"}),
        "count since": lambda: lake.sql(
            "SELECT count(*) FROM events WHERE time > ?", [since]
        ).fetchall(),
        "patterns": lambda: lake.sql("SELECT count(*) FROM patterns").fetchall(),
        "alerts": lambda: cli.run(path, "alerts", "run", "--once"),
        "push": lambda: push(lake),
        "erase": lambda: lake.erase(subject=f"nobody-{turn}", why="asked"),
    }
    # What a remote keeps of states that are gone here is erased from with the first push behind an
    # erasure, however much that is.
    push(lake)
    for name, play in chores.items():
        lake.append({"type": "T", "message": f"{name} {turn}", "data": json.dumps({"n": turn})})
        timed(name, play)
