"""The answers to a search, as SQL: its events, how many, when they were, and what they have."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lakelog import sql
from lakelog.search.calls import first_term
from lakelog.search.condition import field_text, search_condition
from lakelog.search.language import (
    COLUMNS,
    Conjunction,
    FieldComparison,
    Operator,
    SearchNode,
    fields_of,
    parse,
)
from lakelog.values import to_micros
from lakelog.word_indexes import WordPiece

FACETS = ("type", "category", "source", "subject", "level")
"""The fields whose values are counted unless others are named."""
VALUES_MAX = 10
"""How many values of a field are listed."""
_BARS = 30
_SECOND = 1_000_000
# Round widths, so that spans begin at times that people read.
_WIDTHS = (
    *(1_000, 10_000, 100_000, _SECOND, 5 * _SECOND, 15 * _SECOND, 60 * _SECOND, 300 * _SECOND),
    *(900 * _SECOND, 3_600 * _SECOND, 4 * 3_600 * _SECOND, 12 * 3_600 * _SECOND),
    *(days * 86_400 * _SECOND for days in (1, 7, 30, 90, 365)),
)
_HISTOGRAM = "WITH found AS MATERIALIZED (SELECT time FROM events WHERE "
_SPANS = f"""),
    ideal AS (
        SELECT (epoch_us(max(time)) - epoch_us(min(time))) / {_BARS} AS width FROM found),
    chosen AS (
        SELECT to_microseconds(coalesce(min(w), {_WIDTHS[-1]})) AS width
        FROM ideal, (SELECT unnest([{", ".join(map(str, _WIDTHS))}]) AS w) WHERE w >= ideal.width)
    SELECT time_bucket(chosen.width, time, TIMESTAMPTZ 'epoch') AS time, count(*) AS count
    FROM found, chosen GROUP BY 1 ORDER BY 1"""
# The very text that `condition` writes for a bound of time: no other query has it.
_TIME_TEST = re.compile(
    r"coalesce\(time (>=|<) (?:\(now\(\) - to_microseconds\((\d+)\)\)"
    r"|'([-+.:\dT]+)'::TIMESTAMPTZ), false\) AND "
)
_EVER = 1 << 62
_CLOCK = 60 * _SECOND
"""So much later at most a query runs than its spans were looked at."""
_NEWEST, _OLDEST = "time DESC, seq DESC", "time, seq"
_SEEN = 1_000


@dataclass(frozen=True)
class WordHistogram:
    """A histogram of the events that have one word, or a piece of one, and nothing else but times:
    the word, the condition of the search in SQL, and between which times (us) all events with the
    word are found, and outside of which none is."""

    word: str | WordPiece
    condition: str
    inner: tuple[int, int]
    outer: tuple[int, int]

    @classmethod
    def of(cls, query: str) -> WordHistogram | None:
        """Return what such a query asks for, None for any other."""
        # Only the very text of `histogram`: whatever differs is answered by the engine.
        if not (query.startswith(_HISTOGRAM) and query.endswith(_SPANS)):
            return None
        condition = query[len(_HISTOGRAM) : -len(_SPANS)]
        term = first_term(condition)
        if term is None:
            return None
        word, whole = term
        inner, outer = [-_EVER, _EVER], [-_EVER, _EVER]
        clock_us = time.time_ns() // 1_000

        def bound(match: re.Match[str]) -> str:
            moment = (
                clock_us - int(match[2])
                if match[2]
                else to_micros(datetime.fromisoformat(match[3]))
            )
            # The engine's now() comes later than this: what lies between may be on either side.
            margin = _CLOCK if match[2] else 0
            if match[1] == "<":
                inner[1], outer[1] = min(inner[1], moment), min(outer[1], moment + margin)
            else:
                inner[0], outer[0] = max(inner[0], moment + margin), max(outer[0], moment)
            return ""

        bare = _TIME_TEST.sub(bound, condition)
        # Around several tests there are parentheses.
        place = whole.index(" AND ") + len(" AND ")
        nested = f"{whole[:place]}({whole[place:-1]}))"
        # Anything beside the word and its times would count other events.
        if bare != (whole if bare == condition else nested):
            return None
        return cls(word, condition, (inner[0], inner[1]), (outer[0], outer[1]))

    @staticmethod
    def width(earliest: int, latest: int) -> int:
        """Return how long the spans are (us) of events between two times."""
        ideal = (latest - earliest) / _BARS
        return min((width for width in _WIDTHS if width >= ideal), default=_WIDTHS[-1])

    def extremes(self) -> str:
        """The least and the greatest time (us) of the events that it finds."""
        return f"SELECT epoch_us(min(time)), epoch_us(max(time)) FROM events WHERE {self.condition}"

    def counted(self, width: int, counts: Mapping[int, int]) -> str:
        """The answer for spans of a width (us), with counts of some of them, by their begins, that
        are of other events than those of the table."""
        rows = f"SELECT time, 1 AS events FROM events WHERE {self.condition}"
        if counts:
            values = ", ".join(f"(make_timestamptz({t}), {n})" for t, n in counts.items())
            rows += f" UNION ALL SELECT * FROM (VALUES {values})"
        return (
            f"SELECT time_bucket(to_microseconds({width}), time, TIMESTAMPTZ 'epoch') AS time,"
            f" sum(events)::BIGINT AS count FROM ({rows}) AS counted(time, events)"
            " GROUP BY 1 ORDER BY 1"
        )


@dataclass(frozen=True)
class Search:
    """A search, and the statements that answer it, over the table `events`."""

    node: SearchNode

    @classmethod
    def of(cls, query: str, since: str | None = None, until: str | None = None) -> Search:
        """Read a search; `since` and `until` are times, or spans before now.

        Raises InvalidSearch.
        """
        bounds = ((since, Operator.AT_LEAST), (until, Operator.LESS))
        times = [FieldComparison("time", how, value) for value, how in bounds if value is not None]
        node = parse(query)
        return cls(Conjunction((*times, node)) if times else node)

    @staticmethod
    def value(field: str) -> str:
        """SQL for the value of a field as text: a column, or a member of the payload."""
        return field_text(field)

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns and members of payloads that it looks at; None if at all of them."""
        names = fields_of(self.node)
        return None if "" in names else names

    def events(self, limit: int | None = None, *, oldest: bool = False) -> str:
        """The events, newest first."""
        order = _OLDEST if oldest else _NEWEST
        return f"SELECT * FROM events WHERE {search_condition(self.node)} ORDER BY {order}" + (
            "" if limit is None else f" LIMIT {limit}"
        )

    def count(self) -> str:
        """How many events it finds."""
        return f"SELECT count(*) AS count FROM events WHERE {search_condition(self.node)}"

    def histogram(self) -> str:
        """How many events it finds in each span of time, those without any left out. The spans are
        equal, and as long as makes about thirty of them."""
        return f"{_HISTOGRAM}{search_condition(self.node)}{_SPANS}"

    def names(self) -> str:
        """The members of the newest payloads, as fields, those of most of them first."""
        columns = ", ".join(map(sql.literal, sorted(COLUMNS)))
        field = f"CASE WHEN name IN ({columns}) THEN 'data.' || name ELSE name END"
        # Newest first: names of fields change over time.
        rows = f"SELECT data FROM events WHERE {search_condition(self.node)} ORDER BY {_NEWEST}"
        return (
            f"SELECT {field} FROM (SELECT unnest(json_keys(data)) AS name"
            f" FROM ({rows} LIMIT {_SEEN}) WHERE json_type(data) = 'OBJECT')"
            " GROUP BY name ORDER BY count(*) DESC, name LIMIT 20"
        )

    def fields(self, names: Sequence[str] = FACETS) -> str:
        """The most frequent values of fields, as rows of (field, value, count)."""
        # Columns of our own names, since a field may be called as a column.
        columns = [f"f{n}" for n in range(len(names))]
        field_columns = ", ".join(
            f"{field_text(n)} AS {c}" for n, c in zip(names, columns, strict=True)
        )
        # One pass for all fields, however many they are.
        sets = ", ".join(f"({column})" for column in columns)
        fields = " ".join(
            f"WHEN grouping({c}) = 0 THEN {sql.literal(n)}"
            for n, c in zip(names, columns, strict=True)
        )
        order = f"list_position([{', '.join(map(sql.literal, names))}], field)"
        return (
            f"SELECT field, value, count FROM (SELECT CASE {fields} END AS field,"
            f" coalesce({', '.join(columns)}) AS value, count(*) AS count"
            f" FROM (SELECT {field_columns} FROM events WHERE {search_condition(self.node)})"
            f" GROUP BY GROUPING SETS ({sets})) WHERE value IS NOT NULL"
            " QUALIFY row_number() OVER (PARTITION BY field ORDER BY count DESC, value)"
            f" <= {VALUES_MAX} ORDER BY {order}, count DESC, value"
        )

    def neighbours(
        self, limit: int | None, before: int, after: int, *, oldest: bool = False
    ) -> str:
        """The newest events that it finds, each with those of the same source around it; those
        that touch are one group. The column `found` says which are found; `hit` is the number of
        the newest of its group."""
        order = _OLDEST if oldest else _NEWEST
        limited = "" if limit is None else f" LIMIT {limit}"
        # Of places that follow each other, `shift` is the same: they are one group.
        return f"""
            WITH hits AS (
                SELECT seq AS hit_seq, source AS hit_source,
                    row_number() OVER (ORDER BY {order}) AS hit
                FROM events WHERE {search_condition(self.node)} ORDER BY {order}{limited}),
            places AS (
                SELECT seq, source, row_number() OVER (PARTITION BY source ORDER BY seq) AS place
                FROM events
                WHERE coalesce(source, '') IN (SELECT coalesce(hit_source, '') FROM hits)),
            of_hits AS (
                SELECT hit, p.source, p.place FROM hits JOIN places p ON p.seq = hit_seq),
            near AS (
                SELECT p.seq, p.source, min(h.hit) AS hit, bool_or(p.place = h.place) AS found,
                    p.place - row_number() OVER (PARTITION BY p.source ORDER BY p.place) AS shift
                FROM of_hits h JOIN places p ON p.source IS NOT DISTINCT FROM h.source
                    AND p.place BETWEEN h.place - {before} AND h.place + {after}
                GROUP BY p.seq, p.source, p.place),
            around AS (
                SELECT seq, found, min(hit) OVER (PARTITION BY source, shift) AS hit FROM near)
            SELECT events.*, around.hit, around.found FROM events JOIN around USING (seq)
            ORDER BY around.hit, events.seq"""
