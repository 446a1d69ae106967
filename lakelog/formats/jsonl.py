"""JSON lines in every spelling of the envelope; unknown keys go into `data`.

`id` is that of an event only beside a type, as lakelog's own events have it. In other lines it may
mean anything, such as the request that several lines are about, so that it stays in `data`. A word
for a level stays there, too, where it is not the name of the severity (`warning`, which is WARN).
"""

from __future__ import annotations

from lakelog.event import Severity, gather, merge
from lakelog.formats import moments, narrow_queries
from lakelog.formats.format import EventMembers, Format, share
from lakelog.formats.sqltext import (
    DEFAULT_TYPE,
    HINTS,
    IN_RANGE,
    PAIRS,
    TIMES,
    VALID,
    level_sql,
    odd_sql,
    stray_sql,
    time_sql,
    unchanged_sql,
    with_word_sql,
)
from lakelog.formats.uniform.uniform_lines import UniformLines, uniform_lines
from lakelog.values import parse_line

_TEXTS = ("category", "content_type", "source", "subject", "item_id", "level", "message", "id")
_SHAPED = HINTS[:-1]
"""Names of a struct ignore case, so the last hint is looked up by itself."""
_TIMES = frozenset(TIMES)
_KNOWN = (*TIMES, "type", "event_type", *_TEXTS, "data")


class JsonLines(Format):
    """The format of JSON lines, and the one for objects of no dialect."""

    NAME = "jsonl"

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are JSON lines."""
        # Python prints its own dictionaries with single quotes: those are text.
        return share(lines, lambda line: line.lstrip()[:1] == b"{" and line.lstrip()[:2] != b"{'")

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one line. Raises InvalidEvent."""
        return JsonLines.typed(parse_line(line))

    def _query(self) -> str:
        return query("lines")

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return the cheaper query for files whose lines look like these."""
        return narrow_queries.queries(lines)

    def uniform(self, lines: list[bytes]) -> UniformLines | None:
        """Return how to cut lines that look like the first of these, if it is spelled plainly."""
        return uniform_lines(lines)

    @staticmethod
    def typed(event: EventMembers) -> EventMembers:
        """Return a parsed line with a type, which some other key may hint at; without one of its
        own its `id` is no event's, and goes into `data`. Its time is ISO text if its spelling is
        known."""
        times = _TIMES.intersection(event)
        is_spelled = any(isinstance(event[key], (str, dict, list)) for key in times)
        if is_spelled and not _has_plain_time(event, times):
            event = _timed(event)
        if all(event.get(k) in (None, "") for k in ("type", "event_type")):
            hints = (event[k] for k in HINTS if isinstance(event.get(k), str) and event[k])
            event_type = next(hints, DEFAULT_TYPE)
            # Without a type of its own a line is no envelope, and its `id` may be that of a user or
            # a row.
            event = _without_id(event) if "id" in event else event
            event["type"] = event_type
        level = event.get("level")
        if isinstance(level, str):
            name = Severity.without_offset(level)
            if Severity.of(name) not in (None, level):
                return Severity.with_word(gather({**event, "level": name}), level)
        return event


FORM = JsonLines(__doc__)


def _has_plain_time(event: EventMembers, times: frozenset[str]) -> bool:
    """Whether the only time is text that `parse_time` reads."""
    if len(times) > 1:
        return False
    (key,) = times
    return isinstance(event[key], str) and moments.is_plain(event[key])


def _timed(event: EventMembers) -> EventMembers:
    """An event whose time is text that `parse_time` reads, if its spelling is known. The other
    times of several stay as they are; an empty text is no time."""
    times = [k for k in event if k in TIMES and event[k] is not None]
    # The envelope's own name first; an empty text only if there is nothing else.
    key = min(times, key=lambda k: (event[k] == "", k != TIMES[0]))
    if key != TIMES[0] or event[key] == "":
        event = {k: v for k, v in event.items() if k not in times or v != ""}
    moment = moments.unboxed(event.get(key))
    if not isinstance(moment, str):
        return event
    time, zone = moments.respelled(moment)
    event = {**event, key: time}
    return event if zone is None else {"tz": zone, **event}


def _without_id(event: EventMembers) -> EventMembers:
    """An event whose `id` is in `data` like other unknown keys, in their order."""
    envelope = {k: v for k, v in event.items() if k in _KNOWN and k != "id"}
    extra = {k: v for k, v in event.items() if k not in envelope}
    return envelope | {"data": merge(event.get("data"), extra)}


def query(lines: str) -> str:
    """SQL over a table of lines."""
    # Only the keys of the envelope are parsed into a struct; all others stay JSON text.
    columns = {**dict.fromkeys((*TIMES, "type", "event_type", *_TEXTS), "VARCHAR"), "data": "JSON"}
    columns.update(dict.fromkeys(_SHAPED, "JSON"))
    shape = "{" + ", ".join(f'"{k}":"{v}"' for k, v in columns.items()) + "}"
    untyped = "j.type IS NULL AND j.event_type IS NULL"
    # A merge patch with nulls removes the keys of the envelope; without a type the `id` stays.
    nulls, anonymous = (
        "{" + ", ".join(f'"{k}":null' for k in _KNOWN if k != but) + "}" for but in ("", "id")
    )
    # Counting is cheaper than patching: a line without other keys needs no patch.
    present = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in _KNOWN if k != "id")
    present += f" + (j.id IS NOT NULL AND NOT ({untyped}))::INT"
    # Two spellings of one column (type and event_type): which one counts is for the exact rule to
    # say.
    twice = " OR ".join(f'(j."{a}" IS NOT NULL AND j."{b}" IS NOT NULL)' for a, b in PAIRS.items())
    times = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in TIMES)
    hint_values = {k: f'j."{k}"' for k in _SHAPED}
    hint_values[HINTS[-1]] = f"json_extract(line, '$.{HINTS[-1]}')"
    # Only text is a hint; a number or an object under such a key is not.
    hints = ", ".join(
        f"CASE WHEN starts_with({v}, '\"') THEN nullif({v}->>'$', '') END"
        for v in hint_values.values()
    )
    moment = ", ".join(f'j."{k}"' for k in TIMES)
    # The first step is materialized: DuckDB 2.0 pushes the filter on `j` below the parsing, and
    # would parse each line twice.
    return f"""
WITH parsed AS MATERIALIZED (
  SELECT line, position, from_json(line, '{shape}') AS j, json_keys(line) AS keys
  FROM (SELECT {VALID} AS line, position FROM {lines})),
cut AS (
  SELECT *, coalesce({moment}) AS at_text, {present} AS present,
    CASE WHEN len(keys) = {present} THEN NULL
         WHEN {untyped} THEN json_merge_patch(line, '{anonymous}')::VARCHAR
         ELSE json_merge_patch(line, '{nulls}')::VARCHAR END AS extra,
    nullif(j.data::VARCHAR, 'null') AS body,
    {stray_sql(("type", "event_type", *_TEXTS))} OR {twice} OR ({times}) > 1
      OR len(keys) <> list_unique(keys) OR {odd_sql("line", unchanged_sql("line"))} AS odd
  FROM parsed WHERE j IS NOT NULL AND json_type(line) = 'OBJECT'),
typed AS (
  SELECT *, CASE WHEN at_text IS NULL THEN $now::TIMESTAMPTZ ELSE {time_sql("at_text")} END AS time,
    {level_sql("j.level")} AS severity FROM cut),
met AS (
  SELECT *,
    CASE WHEN extra <> '{{}}' AND starts_with(body, '{{') THEN json_keys(body) END AS "inner"
  FROM typed),
written AS (
  SELECT *, CASE WHEN extra IS NULL OR extra = '{{}}' THEN body
       WHEN body IS NULL THEN extra
       WHEN "inner" IS NOT NULL AND NOT list_has_any("inner", json_keys(extra))
         THEN CASE WHEN body = '{{}}' THEN extra ELSE body[:-2] || ',' || extra[2:] END
       ELSE '{{"data":' || body || ',' || extra[2:] END AS payload
  FROM met)
SELECT time,
  coalesce(j.type, j.event_type, {hints}, '{DEFAULT_TYPE}') AS type,
  coalesce(j.category, j.content_type) AS category, j.source AS source,
  coalesce(j.subject, j.item_id) AS subject, severity AS level, j.message AS message,
  {with_word_sql("payload", "j.level", "severity")} AS data,
  CASE WHEN NOT ({untyped}) THEN j.id END AS id, position,
  odd OR time IS NULL OR NOT {IN_RANGE}
    OR coalesce(coalesce(j.type, j.event_type) = '', false)
    OR (j.level IS NOT NULL AND severity IS NULL)
    OR ("inner" IS NOT NULL AND len("inner") <> list_unique("inner")) AS slow
FROM written"""
