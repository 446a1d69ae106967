"""Settings of a session: a shell's answers are those of a plain database with the same settings.

Random statements are compared over lakes in each state of their events; `make torture` compares
five times as many.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import re
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

import lakelog
from lakelog.cli.shell.statements import StatementRunner
from lakelog.errors import QueryFailed
from lakelog.maintain import payloads
from tests.support.cli import run
from tests.support.effort import share

SESSIONS = int(os.environ.get("LAKELOG_SESSIONS", share(10)))
STATES = ("tail", "sealed", "typed", "mixed")
SETTINGS = {
    "TimeZone": ["Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "UTC", "Europe/Prague"],
    "Calendar": ["gregorian", "gregorian", "buddhist", "japanese"],
    "default_collation": ["NOCASE", "NOACCENT", "NOCASE.NOACCENT", ""],
    "default_null_order": ["nulls_first", "nulls_last"],
    "default_order": ["desc", "asc"],
    "integer_division": ["true", "false"],
    "ieee_floating_point_ops": ["false", "true"],
    "preserve_identifier_case": ["lowercase", "preserve_case"],
    "scalar_subquery_error_on_multiple_rows": ["false", "true"],
    "preserve_insertion_order": ["false", "true"],
}
WORDS = ["ping", "PING", "Ping", "píng", "pong"]
DAY = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module", params=STATES)
def lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[lakelog.Lake]:
    """A lake of a week in one state, whose tag v1 has the first half of it if any is sealed."""
    path, state, random_ = tmp_path_factory.mktemp("set"), request.param, random.Random(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "TYPED", True)
        with lakelog.open(str(path / "lake"), settings={"seal": "never"}) as lake:
            for part in range(28):
                lake.append(event(random_, 6 * part + hour, f"{part}") for hour in range(6))
                if state != "tail" and (state != "mixed" or part < 26):
                    lake.settle()
                if state == "typed" or (state == "mixed" and part == 20):
                    lake.compact()
                if part == 14:
                    lake.tag("v1")
            yield lake


def event(random_: random.Random, hour: int, name: str) -> dict[str, Any]:
    """An event with words that collations take for equal, near the ends of days."""
    minutes = random_.choice([0, 1, 30, 59])
    return {
        "time": DAY + dt.timedelta(hours=hour, minutes=minutes),
        "type": random_.choice(WORDS),
        "subject": random_.choice([*WORDS, None]),
        "source": random_.choice(WORDS),
        "id": f"{random_.choice('aAáb')}{name}{hour}",
        "data": {"n": hour, "word": random_.choice(WORDS), "ok": random_.random() < 0.5},
    }


class Pair:
    """A shell over a lake, and a session of a plain database with the same rows."""

    def __init__(self, lake: lakelog.Lake, runner: StatementRunner) -> None:
        self.runner = runner
        self._database = duckdb.connect()
        self.plain = self._database.cursor()
        self.plain.execute("SET TimeZone = 'UTC'")
        pinned = lake.at("v1") if lake.at("v1").count() else lake
        for schema, source in (("main", lake), ("v1", pinned)):
            rows = source.sql("FROM events").to_arrow_table()
            self.plain.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            self.plain.register("rows", rows)
            self.plain.execute(f"CREATE TABLE {schema}.events AS FROM rows")

    def set(self, name: str, value: str, spelling: int) -> None:
        """Set something in both, in one of its spellings for the shell."""
        self.plain.execute(f"SET SESSION {name} = '{value}'")
        text = [
            f"SET {name} = '{value}'",
            f"set session {name} to '{value}'",
            f"PRAGMA {name}='{value}'",
            f"SET /* here */ {name} -- and\n = '{value}'",
        ][spelling]
        self.runner.sql(text)

    def compare(self, query: str, params: dict[str, Any]) -> bool:
        """Assert that both give the same rows, or neither any; return whether they give some."""
        as_table = query
        for word in WORDS:
            rows = f"(SELECT * FROM events WHERE type = '{word}' COLLATE C) AS \"{word}\""
            as_table = as_table.replace(f'types."{word}"', rows)
        try:
            expected = self.plain.execute(as_table, params or None).fetchall()
        except duckdb.Error:
            expected = None
        try:
            answer = self.runner.sql(query, params or None).fetchall()
        except (duckdb.Error, QueryFailed):
            answer = None
        assert answer == expected, (query, params)
        return expected is not None

    def close(self) -> None:
        self._database.close()


@pytest.fixture
def pair(lake: lakelog.Lake) -> Iterator[Pair]:
    """A shell over the lake beside a plain database."""
    with StatementRunner(lake.store, lake.branch_name) as runner:
        made = Pair(lake, runner)
        yield made
        made.close()


class Queries:
    """Makes random queries with their parameters."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.params: dict[str, Any] = {}

    def param(self, value: Any) -> str:
        """A parameter of a value."""
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f"${name}"

    def time(self) -> str:
        """A time in one of its spellings, many of which depend on the zone."""
        hour, minute = self.random.randrange(170), self.random.choice([0, 0, 30])
        naive = DAY.replace(tzinfo=None) + dt.timedelta(hours=hour, minutes=minute)
        day = naive.date().isoformat()
        return self.random.choice(
            [
                *(f"'{naive}'", f"'{day}'", f"DATE '{day}'", f"TIMESTAMP '{naive}'"),
                *(f"TIMESTAMPTZ '{naive}'", f"'{naive}+02'", f"'{naive}Z'::TIMESTAMPTZ"),
                f"date_trunc('day', TIMESTAMPTZ '{naive}Z')",
                f"make_timestamptz(2026, 2, {naive.day}, {naive.hour}, {minute}, 0)",
                f"'{day}'::DATE + INTERVAL 1 day",
                f"TIMESTAMPTZ '{naive}Z' - INTERVAL {self.random.randrange(3)} days",
                "(SELECT max(time) FROM events) - INTERVAL 1 day",
                *(self.param(str(naive)), self.param(naive), self.param(naive.date())),
                self.param(naive.replace(tzinfo=dt.UTC)),
            ]
        )

    def condition(self) -> str:
        """A condition on what segments are chosen by, or on a payload."""
        choose = self.random.choice
        word, name = choose(WORDS), choose(["type", "subject", "source"])
        sign = choose(["<", "<=", ">", ">=", "="])
        return choose(
            [
                *[f"time {sign} {self.time()}", f"time BETWEEN {self.time()} AND {self.time()}"]
                * 2,
                f"{self.time()} {sign} time",
                *(f"{name} = '{word}'", f"'{word}' = {name}", f"{name} IN ('{word}', 'x')"),
                f"{name} = {self.param(word)}",
                f"id = '{choose('aAb')}{choose(range(28))}{choose(range(170))}'",
                *(f"data->>'word' = '{word}'", f"(data->>'n')::BIGINT / 2 = {choose(range(80))}"),
                f"({name} = '{word}' OR time < {self.time()})",
                f"{name} = '{word}' COLLATE C",
            ]
        )

    def query(self) -> tuple[str, dict[str, Any]]:
        """A query and its parameters."""
        choose, self.params = self.random.choice, {}
        table = choose(["events", "events", '"v1".events', f'types."{choose(WORDS)}"'])
        where = " AND ".join(self.condition() for _ in range(choose([1, 1, 2])))
        item = choose(
            [
                *("count(*)", "count(*)", "min(time)::VARCHAR", "list(seq ORDER BY seq)"),
                *(
                    "count(DISTINCT time::DATE)",
                    "count(DISTINCT subject)",
                    "sum(7 / 2), sum(seq / 8)",
                ),
                *("max(hour(time)), max(dayofweek(time))", "max(1 / (seq - 3))"),
                "list(subject ORDER BY subject, seq)",
            ]
        )
        tail = choose(
            ["", "", " GROUP BY date_trunc('day', time) ORDER BY date_trunc('day', time)"]
        )
        if choose(range(5)) == 0:
            item, tail = "subject, seq", " ORDER BY subject, seq LIMIT 5"
        if table.startswith("types"):
            where = where.replace("data->>'word'", "source").replace("(data->>'n')", "(seq)")
        query = f"SELECT {item} FROM {table} WHERE {where}{tail}"
        named = re.findall(r"\$(p\d+)", query)  # the engine refuses others
        return query, {name: self.params[name] for name in named}


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("seed", range(SESSIONS))
def test_random_statements_under_random_settings(pair: Pair, seed: int) -> None:
    """Whatever a session has set, and however, it gets the rows of a table that holds them all."""
    queries, answered = Queries(seed), 0
    for _ in range(50):
        if queries.random.random() < 0.4:
            name = queries.random.choice([*SETTINGS])
            pair.set(name, queries.random.choice(SETTINGS[name]), queries.random.randrange(4))
        answered += pair.compare(*queries.query())
    assert answered > 25


@pytest.mark.matrix
def test_a_setting_that_is_reset_is_that_of_lakelog(pair: Pair) -> None:
    """After RESET times are those of the zone that the engine says, and texts differ by case."""
    pair.set("TimeZone", "Asia/Tokyo", 0)
    pair.set("default_collation", "NOCASE", 0)
    for setting in ("TimeZone", "default_collation"):
        pair.runner.sql(f"RESET {setting}")
        pair.plain.execute(f"RESET SESSION {setting}")
    pair.compare("SELECT count(*) FROM events WHERE time < '2026-02-03' AND type = 'ping'", {})


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["TimeZone", "default_collation", "preserve_insertion_order"])
@pytest.mark.parametrize("verb", ["SET GLOBAL {} = 'x'", "reset global {}", 'SET GLOBAL "{}" = 1'])
def test_what_others_are_answered_by_cannot_be_set(
    pair: Pair, lake: lakelog.Lake, name: str, verb: str
) -> None:
    """What would change stored views and other queries of the process is refused, and how to set it
    for a session is said."""
    text = verb.format(name)
    for ask in (pair.runner.sql, lake.sql):
        with pytest.raises(QueryFailed, match=f"SET SESSION .?{name}"):
            ask(text)
        with pytest.raises(QueryFailed, match=f"SET SESSION .?{name}"):
            ask(f"SELECT 1; /* */ {text}; SELECT 2")


def test_a_setting_of_a_session_is_no_other_session_s(pair: Pair, lake: lakelog.Lake) -> None:
    """Even one that the engine sets for all unless told otherwise, such as a collation."""
    count = "SELECT count(*) FROM events WHERE type = 'ping'"
    [(before,)] = pair.runner.sql(count).fetchall()
    pair.runner.sql("SET default_collation = 'NOCASE'")
    pair.runner.sql("SET preserve_insertion_order = false")
    own = pair.runner.session.connect().cursor()
    current = "SELECT current_setting('default_collation'), current_setting('{}')"
    assert own.execute(current.format("preserve_insertion_order")).fetchall() == [("", True)]
    [(after,)] = pair.runner.sql(count).fetchall()
    assert before < after
    assert lake.sql(count).fetchall() == [(before,)]


def test_a_call_has_a_session_of_its_own(lake: lakelog.Lake) -> None:
    """In Python settings hold for the text that they stand in; alone, they are refused in words."""
    noon = "SELECT count(*) FROM events WHERE time >= '2026-02-07 21:00'"
    [(utc,)] = lake.sql(noon).fetchall()
    [(west,)] = lake.sql(f"SET TimeZone = 'America/New_York'; {noon}").fetchall()
    assert west < utc
    with pytest.raises(QueryFailed, match="TimeZone = 'Asia/Tokyo'; SELECT"):
        lake.sql("SET TimeZone = 'Asia/Tokyo'")
    lake.sql("SET threads = 1")
    assert lake.sql(noon).fetchall() == [(utc,)]


def test_the_command_line_keeps_settings_between_statements(lake: lakelog.Lake) -> None:
    """Statements of one command share a session."""
    noon = "SELECT count(*) AS n FROM events WHERE time >= '2026-02-07 21:00'"
    done = run(lake.path, "sql", f"SET TimeZone = 'America/New_York'; {noon}", "--format", "csv")
    utc = run(lake.path, "sql", noon, "--format", "csv")
    assert done.stdout.split() != utc.stdout.split()
