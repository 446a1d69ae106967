"""SQL for requests of OpenTelemetry whose values are plain: those of `otlp` that need no recursion.

A request is parsed by SQL as a whole, or left to the exact rule: where an attribute holds a list,
say, or a member is not known.
"""

from __future__ import annotations

from lakelog.formats import sqltext
from lakelog.formats.dialect import SCALES
from lakelog.formats.sqltext import in_range_sql, level_sql, time_sql

_DIGITS = "-?[0-9]{1,18}"
_DECIMAL = r"-?[0-9]{1,9}(?:\.[0-9]{1,6})?"
_NUMBERED = "regexp_full_match(grade, '[1-9]|1[0-9]|2[0-4]')"
_SCHEMA = """CASE WHEN part->>'$.schemaUrl' <> ''
      THEN '{"schemaUrl":' || (part->'$.schemaUrl')::VARCHAR || '}' ELSE '{}' END"""
_BODY = """(r.body IS NULL OR (r.body->>'$.stringValue' IS NOT NULL
        AND r.body = '{"stringValue":' || (r.body->'$.stringValue')::VARCHAR || '}'
        AND starts_with(r.body, '{"stringValue":"')))"""
_TAGGED = """('{"attributes":' || flat || '}')"""
_MORE = """('{' || concat_ws(',', CASE WHEN 'attributes' IN keys THEN '"attributes":' || flat END,
      CASE WHEN resource <> '{}' THEN '"resource":' || resource END,
      CASE WHEN scope <> '{}' THEN '"scope":' || scope END) || '}')"""
_PAIRS = """[{"key":"JSON","value":{"stringValue":"JSON","boolValue":"JSON","intValue":"JSON",
  "doubleValue":"JSON"}}]"""
_TEXTS = (
    "timeUnixNano",
    "observedTimeUnixNano",
    "startTimeUnixNano",
    "severityNumber",
    "severityText",
    "eventName",
    "name",
)
_SHAPE = "{" + ",".join(f'"{k}":"VARCHAR"' for k in _TEXTS)
_SHAPE += ',"body":"JSON","attributes":"JSON","status":{"code":"VARCHAR"}}'
_SCOPE = ("name", "version", "attributes", "droppedAttributesCount")


def flat_sql(pairs: str) -> str:
    """SQL for the object that a list of attributes makes, a column of its text; else null.

    It is what its values give when they are written again, so that nothing else stands in it.
    """
    # Written back and compared: what does not give the same text has a value of another type, which
    # the exact rule reads.
    parsed = f"from_json({pairs}, '{_PAIRS}')"
    kinds = ("stringValue", "boolValue", "intValue", "doubleValue")
    value_of = ", ".join(f"""'"{value_type}":' || e.value.{value_type}""" for value_type in kinds)
    repeated = f"""list_transform({parsed}, lambda e:
      '{{"key":' || e.key || ',"value":{{' || coalesce({value_of}) || '}}}}')"""
    value = f"""CASE
      WHEN starts_with(e.value.stringValue, '"') THEN e.value.stringValue::VARCHAR
      WHEN e.value.boolValue IN ('true', 'false') THEN e.value.boolValue::VARCHAR
      WHEN regexp_full_match(e.value.intValue, '"?{_DIGITS}"?')
        THEN trim(e.value.intValue, '"')::BIGINT::VARCHAR
      WHEN regexp_full_match(e.value.doubleValue, '{_DECIMAL}') THEN e.value.doubleValue::VARCHAR
      END"""
    members = f"""list_transform({parsed}, lambda e:
      CASE WHEN starts_with(e.key, '"') THEN e.key || ':' || {value} END)"""
    keys = f"list_transform({parsed}, lambda e: e.key)"
    return f"""CASE WHEN {pairs} IS NULL THEN '{{}}'
      WHEN {pairs} = '[' || array_to_string({repeated}, ',') || ']'
        AND list_unique({keys}) = len({keys}) AND list_count({members}) = len({keys})
        THEN '{{' || array_to_string({members}, ',') || '}}' END"""


def _joined(left: str, right: str) -> str:
    """SQL for the members of two objects as one."""
    return f"""CASE WHEN {left} = '{{}}' THEN {right} WHEN {right} = '{{}}' THEN {left}
      ELSE {left}[:-2] || ',' || {right}[2:] END"""


def _listed(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def _is_known_sql(name: str, lists: str, inner: tuple[str, ...]) -> str:
    """SQL that says whether a part of a request holds what is known, each once."""
    keys, names = "json_keys(part)", f"json_keys(part, '$.{name}')"
    return f"""coalesce(json_type(part) = 'OBJECT'
      AND coalesce(json_type(part, '$.{lists}'), 'ARRAY') = 'ARRAY'
      AND len({keys}) = list_unique({keys})
      AND list_has_all({_listed((name, lists, "schemaUrl"))}, {keys})
      AND coalesce(json_type(part, '$.{name}'), 'OBJECT') = 'OBJECT'
      AND coalesce(json_type(part, '$.schemaUrl'), 'VARCHAR') = 'VARCHAR'
      AND coalesce(list_has_all({_listed(inner)}, {names})
        AND len({names}) = list_unique({names}), true),
      false)"""


def _records_sql(signal: str, scopes: str, records: str) -> str:
    """SQL for the records of requests of one kind, with their resource and scope as text."""
    # One step for each level of nesting, materialized and numbered: order and owner of every record
    # have to survive the unnesting.
    return f"""
requests AS MATERIALIZED (
  SELECT position, line FROM (SELECT {sqltext.VALID} AS line, position FROM lines)
  WHERE json_type(line) = 'OBJECT' AND json_keys(line) = ['{signal}']
    AND json_type(line, '$.{signal}') = 'ARRAY'
    AND NOT {sqltext.document_sql("line")}),
parts AS MATERIALIZED (
  SELECT position, unnest(parts) AS part, generate_subscripts(parts, 1) AS part_at
  FROM (SELECT position, json_extract(line, '$.{signal}[*]') AS parts FROM requests)),
resources AS MATERIALIZED (
  SELECT position, part_at, part, {flat_sql("(part->'$.resource.attributes')::VARCHAR")} AS flat,
    {_SCHEMA} AS link, {_is_known_sql("resource", scopes, ("attributes",))} AS good FROM parts),
sections AS MATERIALIZED (
  SELECT position, part_at, resource, unnest(parts) AS part,
    generate_subscripts(parts, 1) AS inner_at
  FROM (SELECT position, part_at, {_joined("flat", "link")} AS resource,
          json_extract(part, '$.{scopes}[*]') AS parts FROM resources WHERE good)),
scopes AS MATERIALIZED (
  SELECT position, part_at, inner_at, resource, part, {_SCHEMA} AS link,
    {flat_sql("(part->'$.scope.attributes')::VARCHAR")} AS flat,
    CASE WHEN (part->'$.scope') IS NULL THEN '{{}}'
      ELSE json_merge_patch((part->'$.scope'), '{{"attributes":null}}')::VARCHAR END AS own,
    {_is_known_sql("scope", records, _SCOPE)} AS good FROM sections),
tagged AS MATERIALIZED (
  SELECT *, CASE WHEN flat = '{{}}' THEN own ELSE {_joined("own", _TAGGED)} END AS tagged
  FROM scopes WHERE good),
listed AS MATERIALIZED (
  SELECT position, part_at, inner_at, resource, scope, unnest(parts) AS record,
    generate_subscripts(parts, 1) AS record_at
  FROM (SELECT position, part_at, inner_at, resource, {_joined("tagged", "link")} AS scope,
          json_extract(part, '$.{records}[*]') AS parts FROM tagged))"""


def _odd(signal: str) -> str:
    """SQL that says whether a record is left to the exact rule."""
    stray = " OR ".join(
        f"coalesce(regexp_matches(r.{k}, '{sqltext.STRAY}|^[tf]') AND"
        f" json_type(record, '$.{k}') <> 'VARCHAR', false)"
        for k in ("severityText", "eventName", "name")
    )
    has_own = """coalesce(json_type(record, '$.status') <> 'OBJECT'
        OR json_type(record, '$.status.code') NOT IN ('VARCHAR', 'UBIGINT', 'BIGINT')
        OR len(json_keys(record, '$.status')) <> list_unique(json_keys(record, '$.status')),
        false)"""
    if signal == "resourceLogs":
        has_own = f"NOT {_BODY} OR 'status' IN keys"
    return f"""coalesce(resource IS NULL OR scope IS NULL OR flat IS NULL OR {has_own} OR {stray}
      OR r IS NULL OR len(keys) <> list_unique(keys)
      OR list_has_any(keys, ['resource', 'scope']) OR {sqltext.deep_sql("rest")}
      OR coalesce(NOT {_NUMBERED} AND grade <> '0', false)
      OR coalesce(regexp_matches(r.severityText, '[^ -~]|^[0-9-]'), false)
      OR NOT coalesce({in_range_sql("time")}, false), true)"""


def query(signal: str, scopes: str, records: str) -> str:
    """SQL over `lines` of requests of one kind."""
    logs = signal == "resourceLogs"
    # The empty text and "0" mean that the time is not set.
    moment = ", ".join(f"nullif(nullif(r.{k}, ''), '0')" for k in _TEXTS[:3])
    arms = " ".join(f"WHEN grade::INT >= {n} THEN '{name}'" for n, name in SCALES["otel"][-2::-1])
    removed = '{"attributes":null,"body":null}' if logs else '{"attributes":null}'
    name = "coalesce(nullif(r.eventName, ''), 'log')" if logs else "'span'"
    message = "r.body->>'$.stringValue'" if logs else "r.name"
    # A request with a single record that SQL cannot decide is left whole, so that its events keep
    # their numbers.
    return f"""
SELECT position, nth, time, type, NULL::VARCHAR AS category, source, NULL::VARCHAR AS subject,
  level, message, data, NULL::VARCHAR AS id, false AS slow FROM (
WITH {_records_sql(signal, scopes, records)},
read AS MATERIALIZED (
  SELECT *, from_json(record, '{_SHAPE}') AS r, json_keys(record) AS keys,
    row_number() OVER (PARTITION BY position ORDER BY part_at, inner_at, record_at) - 1 AS nth
  FROM listed),
timed AS MATERIALIZED (
  SELECT * EXCLUDE (at_text), {flat_sql("pairs")} AS flat, r.severityNumber AS grade,
    CASE WHEN at_text IS NULL THEN $now::TIMESTAMPTZ ELSE {time_sql("at_text")} END AS time
  FROM (SELECT *, coalesce({moment}) AS at_text, r.attributes::VARCHAR AS pairs,
          json_merge_patch(record, '{removed}')::VARCHAR AS rest FROM read)),
made AS MATERIALIZED (
  SELECT position, nth, time, {name} AS type, {message} AS message,
    CASE WHEN json_type(resource, '$."service.name"') = 'VARCHAR'
      THEN resource->>'$."service.name"' END AS source,
    CASE WHEN {_NUMBERED} THEN CASE {arms} END
      ELSE coalesce({level_sql("r.severityText")},
        CASE WHEN r.status.code IN ('2', 'STATUS_CODE_ERROR') THEN 'ERROR' END) END AS level,
    nullif({_joined("rest", _MORE)}, '{{}}') AS data, {_odd(signal)} AS slow
  FROM timed),
spoilt AS MATERIALIZED (
  SELECT position FROM resources WHERE NOT good OR flat IS NULL
  UNION ALL SELECT position FROM scopes WHERE NOT good OR flat IS NULL
  UNION ALL SELECT position FROM made WHERE slow)
SELECT * FROM made WHERE position NOT IN (SELECT position FROM spoilt))"""


QUERY = " UNION ALL ".join(
    query(*kind)
    for kind in (
        ("resourceLogs", "scopeLogs", "logRecords"),
        ("resourceSpans", "scopeSpans", "spans"),
    )
)
