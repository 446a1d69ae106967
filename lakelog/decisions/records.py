"""Recorded decisions and model calls, each with its input, its answer, and what came of it.

A decision has the outcome that the view `decisions` gives it, by its id. A call of a model has the
outcome of the decision in its trace, if there is one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import orjson

from lakelog.decisions.challengers import RecordedInput
from lakelog.pinned import PinnedLake

_ANSWERS = frozenset(
    """decision_id decision_point options chosen confidence reason alternatives outcome reward
    propensity probability traceId spanId parentSpanId""".split()
)
"""Members of a decision that are no context: what was answered, and what has a place of its own."""
_MATCHED = "SELECT * FROM decisions WHERE outcome IS NOT NULL OR reward IS NOT NULL"


class Recorded(Enum):
    """What is replayed."""

    DECISIONS = "decisions"
    CALLS = "calls"


@dataclass(frozen=True)
class RecordedAnswer:
    """One recorded input with its answer. `reward` and `propensity` are None if they are not
    known."""

    event_id: str
    seq: int
    cluster: str
    recorded: RecordedInput
    answer: object
    reward: float | None
    propensity: float | None

    def value(self, name: str) -> object:
        """Return a member of the input, by its name or path; one of `context` first."""
        for holder in (self.recorded.get("context"), self.recorded):
            value: object = holder
            for member in name.split("."):
                value = value.get(member) if isinstance(value, dict) else None
            if value is not None:
                return value
        return None


def read(
    state: PinnedLake, recorded: Recorded, conditions: tuple[str, ...], reward: str
) -> Iterator[RecordedAnswer]:
    """Yield what was recorded, in the order of time. `reward` is SQL over the columns of the view
    `decisions`. Raises QueryFailed."""
    condition = "".join(f" AND (\n{condition}\n)" for condition in conditions)
    query = _DECISIONS if recorded is Recorded.DECISIONS else _CALLS
    rows = state.sql(query.format(condition=condition, reward=reward, matched=_MATCHED))
    make = _decision if recorded is Recorded.DECISIONS else _call
    for row in rows.iter_rows():
        yield make(*row)


_DECISIONS = """
WITH recorded AS (
    SELECT seq, id, time, subject, message, coalesce(data -> '$.details', data) AS details
    FROM events WHERE type = 'decision'{condition}
), rated AS (SELECT decision_id, (\n{reward}\n)::DOUBLE AS reward FROM ({matched}))
SELECT r.seq, r.id, r.time::VARCHAR, r.subject, r.message, r.details::VARCHAR, o.reward
FROM recorded r LEFT JOIN rated o ON o.decision_id = r.details ->> '$.decision_id'
WHERE r.details ->> '$.chosen' IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY coalesce(r.details ->> '$.decision_id', r.seq::VARCHAR) ORDER BY r.time DESC, r.seq
) = 1
ORDER BY r.time, r.seq"""

_CALLS = """
WITH recorded AS (
    SELECT seq, id, time, subject, data ->> '$.traceId' AS trace, data -> '$.attributes' AS details
    FROM events WHERE type = 'span'
        AND json_exists(data, '$.attributes."gen_ai.input.messages"'){condition}
), rated AS (
    SELECT trace_id, any_value((\n{reward}\n)::DOUBLE) AS reward FROM ({matched})
    WHERE trace_id IS NOT NULL GROUP BY trace_id HAVING count(*) = 1
)
SELECT r.seq, r.id, r.time::VARCHAR, coalesce(r.subject, r.trace), r.details::VARCHAR, o.reward
FROM recorded r LEFT JOIN rated o ON o.trace_id = r.trace
WHERE json_exists(r.details, '$."gen_ai.output.messages"') ORDER BY r.time, r.seq"""


def _decision(
    seq: int,
    id: str | None,
    time: str,
    subject: str | None,
    message: str | None,
    details: str,
    reward: float | None,
) -> RecordedAnswer:
    members = orjson.loads(details)
    decision_id = members.get("decision_id")
    recorded = {
        "id": decision_id,
        "point": members.get("decision_point"),
        "time": time,
        "subject": subject,
        "message": message,
        "options": members.get("options"),
        "context": {name: value for name, value in members.items() if name not in _ANSWERS},
    }
    name = str(id or decision_id or f"seq {seq}")
    propensity = members.get("propensity", members.get("probability"))
    is_propensity = isinstance(propensity, (int, float)) and 0 < propensity <= 1
    return RecordedAnswer(
        name,
        seq,
        subject or name,
        recorded,
        members["chosen"],
        reward,
        float(propensity) if is_propensity else None,
    )


def _call(
    seq: int, id: str | None, time: str, cluster: str | None, details: str, reward: float | None
) -> RecordedAnswer:
    attributes = orjson.loads(details)
    recorded = {
        "id": id or f"seq {seq}",
        "time": time,
        "model": attributes.get("gen_ai.request.model"),
        "context": {
            "system": attributes.get("gen_ai.system_instructions"),
            "messages": attributes["gen_ai.input.messages"],
            "tools": attributes.get("gen_ai.tool.definitions"),
        },
    }
    answer = said(attributes["gen_ai.output.messages"])
    name = str(recorded["id"])
    return RecordedAnswer(name, seq, cluster or name, recorded, answer, reward, None)


def said(messages: object) -> object:
    """Return the text of a model's answer; its messages if there is more than text."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return messages
    contents = [content for message in messages for content in message.get("parts") or ()]
    if not all(isinstance(c, dict) and c.get("type") == "text" for c in contents):
        return messages
    return "".join(str(content.get("content", "")) for content in contents)
