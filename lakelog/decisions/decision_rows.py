"""The decisions of a state with their latest outcomes, as SQL.

An outcome belongs to the decision with its `decision_id`; of several the one with the latest time
counts, as in the view `decisions`, and of a decision that was written twice the latest. A decision
without an id is one of its own, and its outcome is not known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import orjson

from lakelog import protect
from lakelog import query as queries
from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.query import Relation
from lakelog.sql import json_path, literal
from lakelog.values import JsonObject

REWARD = """coalesce(reward, CASE
    WHEN lower(outcome) IN ('true', 'success', 'succeeded', 'ok', 'accepted', 'won') THEN 1
    WHEN lower(outcome) IN ('false', 'failure', 'failed', 'error', 'rejected', 'lost') THEN 0
    ELSE TRY_CAST(outcome AS DOUBLE) END)"""
"""What an outcome is worth unless somebody says so."""
ANSWERS = frozenset(
    """decision_id decision_point options chosen confidence reason alternatives outcome reward
    propensity probability traceId spanId parentSpanId""".split()
) | {protect.MEMBER}
"""Members of a decision that are no context: what was answered, and what has a place of its own."""
MEMORY_BYTES, MEMORY_MAX, THREADS = 300_000_000, 1_000_000_000, 1
"""What the engine may take; it spills rows that are more."""
_TOGETHER, _COPIES = 2_048, 20
"""Rows that a thread looks at are not spilled, and each function that reads their payloads has
memory of its own for them: the longest payload says how much more there has to be."""
WORTH_MAX = 1e60
"""Outcomes that are worth more are not known: their variance would be infinite."""
_COLUMNS = ("subject", "source")
_DIGITS = 19
"""Digits of an integer that may not fit into 64 bits."""


@dataclass(frozen=True)
class DecisionScope:
    """Which decisions: those of a state, "" for the present one, of a point, in contexts, and for
    which SQL conditions hold; what an outcome is worth, in SQL over the columns of the view
    `decisions`; and whether protected fields stay sealed, as what is found is recorded."""

    ref: str = ""
    point: str | None = None
    context: tuple[tuple[str, str], ...] = ()
    conditions: tuple[str, ...] = ()
    reward: str = REWARD
    keeps_sealed: bool = False


class DecisionRows:
    """Queries of the decisions of one state, in bounded memory."""

    def __init__(self, lake: Lake, scope: DecisionScope) -> None:
        """Raises UnknownRef, OSError."""
        self.scope = scope
        self.snapshot = lake.at(scope.ref or lake.settle().move.snapshot).id
        self._session = self._opened(lake, MEMORY_BYTES)
        longest = "SELECT max(strlen(data)) FROM events WHERE type IN ('decision', 'outcome')"
        ((size,),) = self._session.ask(longest, None, self.snapshot).fetchall()
        more = (size or 0) * _TOGETHER * _COPIES
        if more > MEMORY_BYTES // 2:
            self._session.close()
            self._session = self._opened(lake, min(MEMORY_BYTES + more, MEMORY_MAX))

    def _opened(self, lake: Lake, memory: int) -> queries.Session:
        store = lake.store.bounded(memory, THREADS)
        return queries.Session(store, lake.branch_name, keeps_sealed=self.scope.keeps_sealed)

    def ask(self, query: str) -> Relation:
        """Run SQL over `decided`. Raises QueryFailed."""
        statement = f"WITH {decided(self.scope)}\n{query}"
        return self._session.ask(statement, None, self.snapshot)


def decided(scope: DecisionScope) -> str:
    """Return the common table expressions of which `decided` has a row for each decision: the
    columns of the view `decisions`, `seq`, `id`, `message`, `details`, `propensity`, `place` in the
    order of time, and `worth`, NULL if it is not known."""
    clauses = [f"(\n{condition}\n)" for condition in scope.conditions]
    if scope.point is not None:
        # Decisions that name no point are listed as those of a point without a name.
        clauses.append(f"coalesce({_MEMBERS['decision_point_text']}, '') = {literal(scope.point)}")
    clauses += [f"{member(name)} = {literal(value)}" for name, value in scope.context]
    condition = "".join(f" AND {clause}" for clause in clauses)
    return _DECIDED.format(condition=condition, reward=scope.reward, largest=WORTH_MAX, **_MEMBERS)


def details_of(text: str) -> JsonObject:
    """Return the details of a decision."""
    try:
        details: JsonObject = orjson.loads(text)
    except orjson.JSONDecodeError:  # an integer that is larger than any float
        details = json.loads(text, parse_int=lambda n: int(n) if len(n) < _DIGITS else float(n))
    return details


def member(name: str) -> str:
    """Return the SQL of a member of a decision's context, as text: by its name or path, also within
    `context`; or of its subject or source. Raises InvalidSetting for an empty name."""
    if name in _COLUMNS:
        return name
    if not name or name in ANSWERS:
        raise InvalidSetting(f"{name!r} is no member of a context: it is a part of the answer")
    paths = dict.fromkeys((json_path([name]), json_path(name.split("."))))
    extractions = [f"details ->> {path}, details -> '$.context' ->> {path}" for path in paths]
    return f"coalesce({', '.join(extractions)})"


_READ = """decision_id decision_point options chosen reason traceId confidence propensity
    probability outcome reward""".split()
# Read at once: each function of its own parses the payload again.
_MEMBERS = {
    "paths": ", ".join(literal(f"$.{name}") for name in _READ),
    **{f"{name}_text": f"answer[{number}]" for number, name in enumerate(_READ, 1)},
}
_DECIDED = """events_of AS NOT MATERIALIZED (
    SELECT *, json_extract_string(details, [{paths}]) AS answer
    FROM (SELECT *, CASE WHEN json_exists(data, '$.details.decision_id')
                OR json_exists(data, '$.details.chosen')
            THEN data -> '$.details' ELSE data END AS details,
            epoch_us(time)::HUGEINT * 9223372036854775808
                + coalesce(seq, 9223372036854775807) AS place
        FROM events WHERE type IN ('decision', 'outcome'))
), latest AS (
    SELECT {decision_id_text} AS decision_id, max(place) FILTER (type = 'decision') AS place,
        arg_max({{'outcome': {outcome_text}, 'time': time,
            'reward': TRY_CAST({reward_text} AS DOUBLE)}}, place)
            FILTER (type = 'outcome') AS came
    FROM events_of WHERE {decision_id_text} IS NOT NULL GROUP BY 1
), made AS NOT MATERIALIZED (
    SELECT seq, id, time, subject, source, message, details, place,
        {decision_id_text} AS decision_id, {decision_point_text} AS point,
        {options_text} AS options, {chosen_text} AS chosen, {reason_text} AS reason,
        {traceId_text} AS trace_id, TRY_CAST({confidence_text} AS DOUBLE) AS confidence,
        TRY_CAST(coalesce({propensity_text}, {probability_text}) AS DOUBLE) AS propensity
    FROM events_of WHERE type = 'decision' AND {chosen_text} IS NOT NULL{condition}
), joined AS NOT MATERIALIZED (
    SELECT m.*, l.came.outcome AS outcome, l.came.reward AS reward, l.came.time AS outcome_time,
        epoch(l.came.time) - epoch(m.time) AS seconds
    FROM made m LEFT JOIN latest l ON l.decision_id = m.decision_id
    WHERE l.place IS NULL OR l.place = m.place
), rated AS NOT MATERIALIZED (
    SELECT *, CASE WHEN outcome IS NOT NULL OR reward IS NOT NULL THEN (
{reward}
)::DOUBLE END AS value FROM joined
), decided AS NOT MATERIALIZED (
    SELECT * EXCLUDE (value), CASE WHEN abs(value) <= {largest} THEN value END AS worth FROM rated
)"""
