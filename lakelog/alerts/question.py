"""Asking what a rule asks, within limits: its rows, as alerts with labels and a value.

Rules have a session of their own, whose `events` leave out what alerts themselves append: a rule
never sees the bookkeeping of any rule. A question ends after the rule's time, takes one thread and
a bounded memory, may only read, and gives few rows.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lakelog import query as queries
from lakelog import views
from lakelog.alerts.rule import AlertRule
from lakelog.engine.messages import EngineMessage
from lakelog.engine.syntax import Node, ParsedStatement, SyntaxFault, parse
from lakelog.engine.volatility import FunctionCall
from lakelog.errors import InvalidSetting, QueryFailed
from lakelog.lake import Lake
from lakelog.libraries import duckdb
from lakelog.query import Query
from lakelog.values import from_micros

ALERT, DELIVERY = "lakelog.alert", "lakelog.alert.delivery"
NO_ALERTS = f"NOT (source IS NOT DISTINCT FROM 'lakelog' AND type IN ('{ALERT}', '{DELIVERY}'))"
"""SQL for the events that rules see."""
ROWS_MAX = 1_000
LABEL_MAX = 500
# Rules are asked beside whatever else the machine does.
_MEMORY, _SPILL = 512_000_000, "2GB"
_LABELS = re.compile(r"VARCHAR|ENUM.*|BOOLEAN|UUID|STRING|bool|str", re.I)
# Names of types of DuckDB, and of Arrow, in which views answer.
_NUMBERS = re.compile(
    r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL.*|BIGNUM|NUMBER", re.I
)
_LOOK = 0.05
QuestionTimes = Mapping[str, datetime.datetime]
"""The parameters of a question: `since` and `now`."""


@dataclass(frozen=True)
class AlertRow:
    """A row of an answer: labels that tell it from others, and its value, if it has one."""

    labels: dict[str, str]
    value: float | None


class RuleQueries:
    """Asks questions of a lake's branch. Close it when done."""

    def __init__(self, lake: Lake, stop: threading.Event | None = None) -> None:
        # One thread: many rules, one after another, must not slow down those who store.
        store = lake.store.bounded(_MEMORY, threads=1)
        # Labels and samples of what fires become events.
        self._session = queries.Session(store, lake.branch_name, only=NO_ALERTS, keeps_sealed=True)
        self._views = views.ViewTables(self._session)
        # A question that never ends must not fill the disk before its time is over.
        self._session.connect().execute(f"SET max_temp_directory_size = '{_SPILL}'")
        self._stop = stop or threading.Event()

    def close(self) -> None:
        """Let go of the database."""
        self._session.close()

    def ask(self, rule: AlertRule, since: int, until: int) -> list[AlertRow]:
        """Return the rows of a rule that are firing, for the times (us) of `$since` and `$now`.

        Raises QueryFailed, InvalidSetting and other LakelogErrors, each with one line.
        """
        columns, rows = self._answer(rule, since, until)
        if len(rows) > ROWS_MAX:
            raise QueryFailed(f"more than {ROWS_MAX:,} rows: group them by fewer columns")
        names = label_columns(rule, columns)
        value_column = value_name(rule, columns, names)
        answers: dict[tuple[tuple[str, str], ...], AlertRow] = {}
        for row in rows:
            cells = dict(zip(columns, row, strict=True))
            value = _number(cells[value_column]) if value_column else None
            # A threshold without a value is not passed: NULL says nothing.
            if rule.threshold and not rule.exceeds(value):
                continue
            labels = {n: str(cells[n])[:LABEL_MAX] for n in names if cells[n] is not None}
            # The first row of equal labels counts, as a fingerprint stands for one alert.
            answers.setdefault(tuple(labels.items()), AlertRow(labels, value))
        return list(answers.values())

    def rows(self, query: str, values: QuestionTimes, seconds: float, limit: int) -> AnswerTable:
        """Return the columns, with their types, and the first rows of a SELECT. Raises
        QueryFailed."""
        cursor = self._session.connect().cursor()
        with self._ended(cursor, seconds):
            # Only those that the query names: the engine refuses others.
            times = {name: values[name] for name in _parameters(cursor, query) if name in values}
            statement, params = self._session.binder.bind(cursor, query, times or None, None)
            # Its own LIMIT around all of it, as the query may end in one.
            cursor.execute(f"SELECT * FROM (\n{statement}\n) LIMIT {limit}", params or None)
            columns = {name: str(type_) for name, type_, *_ in cursor.description or ()}
            return columns, cursor.fetchall()

    def newest(self, until: int) -> int:
        """The time (us) of the newest event before `until` that rules see, 0 without any. Raises
        QueryFailed."""
        query = "SELECT epoch_us(max(time)) FROM events WHERE time < $now"
        _, rows = self.rows(query, values_of(0, until), 10, 1)
        time_us = rows[0][0]
        return time_us if isinstance(time_us, int) else 0

    def tree(self, query: str) -> Node:
        """The parser's tree of a SELECT. Raises SyntaxFault."""
        return parse(self._session.connect().cursor(), query)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor of the database, to write trees as SQL."""
        return self._session.connect().cursor()

    def check(self, rule: AlertRule) -> str:
        """Return what an author should know of a question that may be asked, or nothing. Raises
        InvalidSetting for one that may not, QueryFailed where it is wrong."""
        if rule.view:
            self._views.definition(rule.view)
            return ""
        cursor = self.cursor()
        try:
            # Before it runs: statements that are no SELECT may have effects while they are bound.
            parsed = ParsedStatement.list_of(cursor, rule.sql())
            if len(parsed) != 1 or not parsed[0].is_query:
                raise InvalidSetting(f"{rule.name}: a rule is one SELECT")
            tree = parse(cursor, rule.sql())
        except SyntaxFault as fault:
            raise InvalidSetting(f"{rule.name}: a rule is one SELECT: {fault}") from None
        except duckdb.Error as error:
            raise QueryFailed(EngineMessage(error).gist()) from None
        if reason := FunctionCall.first_foreign(tree):
            raise InvalidSetting(f"{rule.name}: {reason}")
        if unknown := parsed[0].parameters - {"since", "now"}:
            raise InvalidSetting(
                f"{rule.name}: ${min(unknown)} is no parameter: a rule has $since and $now"
            )
        # Any times: only whether they bound the rows is asked.
        values = values_of(0, 1)
        needs = Query.of(cursor, rule.sql(), {n: values[n] for n in parsed[0].parameters}).needs
        if all(need.is_bounded for need in needs):
            return ""
        return "it reads all events at each turn: compare time with $since or $now"

    def _answer(self, rule: AlertRule, since: int, until: int) -> AnswerTable:
        seconds = rule.timeout / 1e6
        values = values_of(since, until)
        if not rule.view:
            return self.rows(rule.sql(), values, seconds, ROWS_MAX + 1)
        definition = self._views.definition(rule.view)
        window = values if definition.is_projection and rule.window else {}
        table = self._views.view(rule.view, since=window.get("since"), until=window.get("now"))
        columns = {field.name: str(field.type) for field in table.schema}
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        place = list(columns).index("type") if "type" in columns else None
        # A view counts all events, those of alerts, too.
        others = (r for r in rows if place is None or r[place] not in (ALERT, DELIVERY))
        # One more than are allowed tells that there are too many.
        return columns, list(itertools.islice(others, ROWS_MAX + 1))

    @contextlib.contextmanager
    def _ended(self, cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
        """End what a cursor does after some seconds, or when told to stop."""
        finished, deadline = threading.Event(), time.monotonic() + seconds

        def watch() -> None:
            while not finished.wait(_LOOK):
                # Again and again: one that comes between two steps of the engine is lost.
                if self._stop.is_set() or time.monotonic() > deadline:
                    cursor.interrupt()

        watcher = threading.Thread(target=watch, name="lakelog-alert-limit", daemon=True)
        watcher.start()
        try:
            yield
        except (duckdb.Error, RuntimeError, MemoryError) as error:
            if EngineMessage.is_interrupt(error):
                reason = "told to stop" if self._stop.is_set() else f"ran longer than {seconds:g} s"
                raise QueryFailed(reason) from None
            # A RuntimeError that is none of the engine's is a fault of ours.
            if isinstance(error, RuntimeError) and not isinstance(error, duckdb.Error):
                raise
            raise QueryFailed(EngineMessage(error).gist()) from None
        finally:
            finished.set()
            # Joined before the cursor goes: an interrupt of a later question would end that.
            watcher.join()


AnswerTable = tuple[dict[str, str], list[tuple[object, ...]]]
"""The types of columns by their names, and rows."""


def values_of(since: int, until: int) -> dict[str, datetime.datetime]:
    """The parameters of a question."""
    return {"since": from_micros(since), "now": from_micros(until)}


def label_columns(rule: AlertRule, columns: Mapping[str, str]) -> list[str]:
    """Return the columns that tell alerts of a rule apart: those that it names, or all texts.
    Raises InvalidSetting."""
    if not rule.labels_by:
        # Texts only: a number among the labels would make each value an alert of its own.
        return [name for name, type_ in columns.items() if _LABELS.fullmatch(type_)]
    for name in rule.labels_by:
        if name not in columns:
            raise InvalidSetting(f"{rule.name}: --by {name}: columns are {', '.join(columns)}")
    return list(rule.labels_by)


def value_name(rule: AlertRule, columns: Mapping[str, str], labels: Sequence[str]) -> str:
    """Return the column of the value: the one that a rule names, `value`, or the only number;
    empty where none is needed. Raises InvalidSetting."""
    numbers = [n for n, t in columns.items() if _NUMBERS.fullmatch(t) and n not in labels]
    name = rule.value or ("value" if "value" in columns else "")
    if name and name not in columns:
        raise InvalidSetting(f"{rule.name}: --value {name}: columns are {', '.join(columns)}")
    if name or not rule.threshold:
        return name or (numbers[0] if len(numbers) == 1 else "")
    if len(numbers) != 1:
        choice = f"one of {', '.join(numbers)}" if numbers else "a number, and it has none"
        raise InvalidSetting(f"{rule.name}: say which column is compared with --value: {choice}")
    return numbers[0]


def _parameters(cursor: duckdb.DuckDBPyConnection, query: str) -> frozenset[str]:
    parsed = ParsedStatement.list_of(cursor, query)
    if len(parsed) != 1:
        raise QueryFailed("a rule is one SELECT")
    return parsed[0].parameters


def _number(value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise QueryFailed(f"the value {str(value)[:40]!r} is no number") from None
    # NaN is not comparable: it passes no threshold.
    return number if number == number else None
