"""Random queries over `events`, of which some can be followed row by row and most cannot."""

from __future__ import annotations

from random import Random

_VALUES = (
    "type",
    "message",
    "upper(message)",
    "length(message)",
    "(data->>'n')::INT",
    "(data->>'n')::INT % 3",
    "type || ':' || message",
    "coalesce(subject, type)",
    "CASE WHEN (data->>'n')::INT > 4 THEN 'high' ELSE 'low' END",
    "list_sum([x * 2 FOR x IN [1, (data->>'n')::INT]])",
)
_TESTS = (
    "type <> 'b'",
    "(data->>'n')::INT % 2 = 0",
    "message LIKE '%3'",
    "type IN ('a', 'c', 'd')",
    "EXISTS (SELECT 1)",
    "seq > 5",
)
_OVER_ALL = (
    "seq IN (SELECT max(seq) FROM events GROUP BY type)",
    "EXISTS (SELECT 1 FROM events f WHERE f.seq > e.seq)",
    "NOT EXISTS (SELECT 1 FROM events f WHERE f.type = e.type AND f.seq < e.seq)",
    "type = (SELECT f.type FROM events f ORDER BY f.seq DESC LIMIT 1)",
    "message NOT IN (SELECT message FROM events WHERE type = 'a')",
)
_WHOLE = (
    "(SELECT count(*) FROM events)",
    "(SELECT min(f.seq) FROM events f WHERE f.type = e.type)",
    "row_number() OVER (ORDER BY seq)",
    "lag(type) OVER (ORDER BY seq)",
)
_KEYS = (
    "seq",
    "seq",
    "e.seq",
    "seq::BIGINT AS seq",
    "seq + 1 AS seq",
    "position AS seq",
    "7 AS seq",
)
_JOINED = (
    "JOIN (VALUES ('a', 1), ('b', 2), ('c', 3)) v(kind, rank) ON v.kind = e.type",
    "LEFT JOIN (VALUES ('a', 1), ('a', 2)) v(kind, rank) ON v.kind = e.type",
    "RIGHT JOIN (VALUES ('a', 1), ('z', 2)) v(kind, rank) ON v.kind = e.type",
    "FULL JOIN (VALUES ('a', 1), ('z', 2)) v(kind, rank) ON v.kind = e.type",
    "ANTI JOIN (VALUES ('a', 1)) v(kind, rank) ON v.kind = e.type",
    "CROSS JOIN (VALUES (1), (2)) v(rank)",
    ", unnest([1, (data->>'n')::INT]) v(rank)",
    ", LATERAL (SELECT length(e.message) AS rank) v",
    "JOIN events f ON f.type = e.type AND f.seq = e.seq - 1",
    "LEFT JOIN (SELECT type, count(*) AS rank FROM events GROUP BY type) v ON v.type = e.type",
)
_ENDS = ("ORDER BY e.seq LIMIT 3", "ORDER BY e.seq DESC LIMIT 4", "ORDER BY e.seq OFFSET 2")
_INNER = (
    "SELECT * FROM events WHERE {test}",
    "SELECT * FROM events ORDER BY seq LIMIT 9",
    "SELECT * FROM events ORDER BY seq DESC LIMIT 9",
    "SELECT DISTINCT ON (type) * FROM events ORDER BY type, seq",
    "SELECT * FROM events UNION ALL SELECT * FROM events WHERE type = 'a'",
    "SELECT * FROM events EXCEPT SELECT * FROM events WHERE type = 'b'",
    "SELECT * REPLACE (upper(message) AS message) FROM events",
    "SELECT * REPLACE (seq * 2 AS seq) FROM events",
    "SELECT * FROM events QUALIFY row_number() OVER (PARTITION BY type ORDER BY seq) = 1",
    "SELECT * FROM (SELECT * FROM events WHERE {test})",
    "SELECT * FROM (SELECT * FROM events ORDER BY seq LIMIT 20) WHERE {test}",
)


def random_mapping(random: Random) -> str:
    """Return a query; some give an error, and no query depends on chance."""
    if random.random() < 0.1:
        return _aggregate(random)
    source, before = "events e", ""
    if random.random() < 0.4:
        inner = random.choice(_INNER).format(test=random.choice(_TESTS))
        if random.random() < 0.5:
            source = f"({inner}) e"
        else:
            name = random.choice(("w", "events"))
            before, source = f"WITH {name} AS ({inner}) ", f"{name} e"
    is_single = "UNION" not in before + source
    if random.random() < 0.25:
        source, is_single = f"{source} {random.choice(_JOINED)}", False
    listed = [random.choice(_KEYS)] if random.random() < 0.7 else []
    count = random.randint(1, 3)
    # Of several rows of one event none is the first: a window over them is chance.
    whole = _WHOLE if is_single else _WHOLE[:2]
    values = _VALUES if random.random() < 0.85 else whole
    chosen = random.sample(values, min(count, len(values)))
    listed += [f"{_of(value)} AS c{number}" for number, value in enumerate(chosen)]
    if "rank" in source and random.random() < 0.7:
        listed.append("rank")
    if random.random() < 0.1:
        listed = ["e.*" if random.random() < 0.5 else "e.* EXCLUDE (time, data)"]
    distinct = "DISTINCT " if random.random() < 0.05 else ""
    tests = [_of(random.choice(_TESTS))] if random.random() < 0.5 else []
    tests += [random.choice(_OVER_ALL)] if random.random() < 0.15 else []
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    is_ended = random.random() < 0.1 and not distinct
    end = f" {random.choice(_ENDS)}" if is_ended else ""
    end += random.choice(("", "", " -- all of it", ";"))
    return f"{before}SELECT {distinct}{', '.join(listed)} FROM {source}{where}{end}"


def _of(value: str) -> str:
    """Name the table of columns that a joined one may have, too."""
    return value.replace("type", "e.type").replace("message", "e.message")


def _aggregate(random: Random) -> str:
    value = random.choice(("count(*)", "max(seq)", "string_agg(message, ',' ORDER BY seq)"))
    form = random.choice(
        (
            "SELECT type, {v} AS v FROM events GROUP BY type",
            "SELECT {v} AS v FROM events",
            "SELECT type, {v} AS v FROM events GROUP BY ALL HAVING count(*) > 3",
            "SELECT * FROM (SELECT type, {v} AS v FROM events GROUP BY type)",
            "SELECT type, {v} AS v FROM events GROUP BY GROUPING SETS ((type), ())",
        )
    )
    return form.format(v=value)
