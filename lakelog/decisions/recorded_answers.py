"""Recorded decisions and model calls, each with its input, its answer, and what came of it.

A decision has the outcome that the view `decisions` gives it, by its id. A call of a model has the
outcome of the decision in its trace, if there is one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from lakelog.decisions.challengers import RecordedInput
from lakelog.decisions.decision_rows import ANSWERS, DecisionScope, decided, details_of
from lakelog.pinned import PinnedLake


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
        """Return a member of the input, by its name or path; one of `context` first, and of what a
        decision itself calls so, as `member` in decision_rows.py."""
        context = self.recorded.get("context")
        nested = context.get("context") if isinstance(context, dict) else None
        for path in ([name], name.split(".")):
            for holder in (context, nested, self.recorded):
                value: object = holder
                for member in path:
                    value = value.get(member) if isinstance(value, dict) else None
                if value is not None:
                    return value
        return None


def read(
    state: PinnedLake, recorded: Recorded, conditions: tuple[str, ...], reward: str
) -> Iterator[RecordedAnswer]:
    """Yield what was recorded, in the order of time. `reward` is SQL over the columns of the view
    `decisions`. Raises QueryFailed."""
    if recorded is Recorded.DECISIONS:
        query = f"WITH {decided(DecisionScope(conditions=conditions, reward=reward))} {_DECISIONS}"
    else:
        condition = "".join(f" AND (\n{condition}\n)" for condition in conditions)
        query = (
            f"WITH {decided(DecisionScope(reward=reward))}, {_CALLS.format(condition=condition)}"
        )
    rows = state.sql(query)
    make = _decision if recorded is Recorded.DECISIONS else _call
    for row in rows.iter_rows():
        yield make(*row)


_DECISIONS = """
SELECT seq, id, time::VARCHAR, subject, message, details::VARCHAR, worth,
    CASE WHEN propensity > 0 AND propensity <= 1 THEN propensity END
FROM decided ORDER BY time, seq"""

_CALLS = """
recorded AS (
    SELECT seq, id, time, subject, data ->> '$.traceId' AS trace, data -> '$.attributes' AS details
    FROM events WHERE type = 'span'
        AND json_exists(data, '$.attributes."gen_ai.input.messages"'){condition}
), matched AS (
    SELECT trace_id, any_value(worth) AS worth FROM decided
    WHERE trace_id IS NOT NULL AND (outcome IS NOT NULL OR reward IS NOT NULL)
    GROUP BY trace_id HAVING count(*) = 1
)
SELECT r.seq, r.id, r.time::VARCHAR, coalesce(r.subject, r.trace), r.details::VARCHAR, m.worth
FROM recorded r LEFT JOIN matched m ON m.trace_id = r.trace
WHERE json_exists(r.details, '$."gen_ai.output.messages"') ORDER BY r.time, r.seq"""


def _decision(
    seq: int,
    id: str | None,
    time: str,
    subject: str | None,
    message: str | None,
    details: str,
    reward: float | None,
    propensity: float | None,
) -> RecordedAnswer:
    members = details_of(details)
    decision_id = members.get("decision_id")
    recorded = {
        "id": decision_id,
        "point": members.get("decision_point"),
        "time": time,
        "subject": subject,
        "message": message,
        "options": members.get("options"),
        "context": {name: value for name, value in members.items() if name not in ANSWERS},
    }
    name = str(id or decision_id or f"seq {seq}")
    return RecordedAnswer(
        name, seq, subject or name, recorded, members["chosen"], reward, propensity
    )


def _call(
    seq: int, id: str | None, time: str, cluster: str | None, details: str, reward: float | None
) -> RecordedAnswer:
    attributes = details_of(details)
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
