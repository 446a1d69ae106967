"""Every fact that is known of the real files, asked of the lake that ingested them.

The facts were computed without lakelog and the libraries it stands on. They live with the files
beside the repository, in ../shared/data; without them these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
from fnmatch import fnmatch
from typing import Any

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.formats.dialect import Dialect
from lakelog.formats.registry import FORMATS
from lakelog.formats.sqltext import COLUMN
from lakelog.ingest.records import joins
from tests.support.text_facts import FACTS, SHARED

pytestmark = pytest.mark.needs("../shared")
APART = ("jsontestsuite/", "feedparser/")
"""Folders whose facts are of parsers alone: of JSON (test_real_files) and of feeds."""
QUARANTINED = {
    "lnav/logfile_invalid_json.json": (1, "a JSON line that was cut off"),
    "bulk/elasticoffee.bulk": (1, "POST _bulk, which a console was given, is no document"),
}
"""The few lines that are in quarantine for good, and why."""
HEADED = ("csv", "zeek", "w3c", "bulk", "json", "otlp")
"""Formats of which not each line is an event: headers, actions, lines of a document."""
OF_FILES = {
    "what",
    "licence",
    "sha256",
    "newline_bytes",
    "crlf",
    "ends_with_newline",
    "utf8",
    "first_bad_byte",
    "nul_bytes",
    "bom",
    "xml_ok",
    "xml_error",
    "root",
    "bytes",
    "lines",
    "blank_lines",
}
"""Facts of the bytes of a file, of which the lake keeps none."""
NOT_ASKED = {
    ("lnav/logfile_w3c.*", "directive_lines"): "headers name columns and are no events",
    ("lnav/logfile_w3c.3", "data_rows"): "three of them are blank lines",
    ("lnav/logfile_*", "esc_bytes"): "colours around a time, a host and a source are left out",
    ("services/*malformed__nginx*", "methods"): "requests that are none have no method",
    ("services/*malformed__nginx*", "top_path"): "requests that are none have no path",
    **{
        (document, key): "lines of a document, which is one event"
        for document in ("cloudevents/*.json", "nab/*.json")
        for key in (
            "json_lines_ok",
            "json_lines_bad",
            "line_types",
            "distinct_top_keys",
            "keys_in_every_object",
            "distinct_leaf_paths",
            "conflicting_path_count",
            "paths_with_conflicting_scalar_types",
        )
    },
}
"""Facts that count something else than what the lake holds, and what."""


def stack(member: str, table: str = "events") -> str:
    """SQL for how often each value of a member of `data` is there."""
    return f"SELECT data->>'$.{member}', count(*) FROM {table} GROUP BY 1"


ACCESS = "FROM events WHERE type = 'access' AND (data->'vhost') IS NULL"
OBSERVED = """FROM (SELECT unnest(from_json(data->'observations', '["JSON"]')) AS o FROM events)"""
STATUSES = """FROM (SELECT unnest(from_json(data->'statuses', '["JSON"]')) AS s FROM events)"""
LINES = "FROM (SELECT unnest(string_split(message, chr(10))) AS line FROM events)"
TEXT = "FROM (SELECT string_agg(message, chr(10) ORDER BY position) AS text FROM events)"
ITEM = "<(?:item|entry)[ >]"
GUID = "(?s)(?:<guid[^>]*>|<entry>.*?<id>)"
VALUE = "(data->>'value')::DOUBLE"
STAMP = "strftime(time, '%Y-%m-%dT%H:%M:%SZ')"
LOG4J = "strftime(time, '[%Y-%m-%d %H:%M:%S,%g]')"
LOCAL = "strftime(time, '[%d/%b/%Y:%H:%M:%S +0000]')"
WORD = "coalesce(data->>'level', lower(level))"
SECONDS = "strftime(time, '%Y-%m-%d %H:%M:%S')"
SCALARS = {str: ("string",), bool: ("bool",), int: ("number",), float: ("number",)}
KEYS_MAX = 40
"""So many names of members the facts list."""
QUESTIONS: dict[str, dict[str, str]] = {
    "*": {
        "esc_bytes": "SELECT coalesce(sum(length(message) - length(replace(message, chr(27), ''))),"
        " 0) FROM events"
    },
    "loghub/*.log": {
        "nonblank_lines": "SELECT count(*) FROM events",
        "distinct_lines": "SELECT count(DISTINCT (time, level, source, message, data)) FROM events",
        "error_lines": f"SELECT count(*) FROM events WHERE {WORD} = 'error'",
        "notice_lines": f"SELECT count(*) FROM events WHERE {WORD} = 'notice'",
        "warn_lines": "SELECT count(*) FROM events WHERE level = 'WARN'",
        "distinct_blocks": r"SELECT count(DISTINCT b) FROM (SELECT"
        r" unnest(regexp_extract_all(message, 'blk_-?\d+')) AS b FROM events)",
        "failed_password": "SELECT count(*) FROM events WHERE message LIKE '%Failed password%'",
        "invalid_user": "SELECT count(*) FROM events WHERE message LIKE 'Invalid user%'",
        "top_rhost": "SELECT count(*)::VARCHAR AS n, 'from', r[1], 'port' FROM (SELECT"
        " regexp_extract_all(message, 'from ([0-9.]+) port', 1) AS r FROM events"
        " WHERE message LIKE 'Failed password%') GROUP BY r ORDER BY count(*) DESC LIMIT 1",
    },
    "loghub/*.csv": {
        "rows": "SELECT count(*) FROM events",
        "distinct_event_ids": "SELECT count(DISTINCT data->>'EventId') FROM events",
        "top_event": stack("EventId"),
        "levels": "SELECT upper(coalesce(data->>'level', level)), count(*) FROM events"
        " WHERE level IS NOT NULL GROUP BY 1",
        "distinct_content": "SELECT count(DISTINCT data->>'Content') FROM events",
        "distinct_templates": "SELECT count(DISTINCT data->>'EventTemplate') FROM events",
    },
    "[ws]e[br]*/*": {
        "clf_lines": f"SELECT count(*) {ACCESS}",
        "not_clf": f"SELECT count(*) - (SELECT count(*) {ACCESS}) FROM events",
        "status": f"SELECT data->>'status', count(*) {ACCESS} GROUP BY 1",
        "http_404": f"SELECT count(*) {ACCESS} AND data->>'status' = '404'",
        "awk_404": f"SELECT count(*) {ACCESS} AND data->>'status' = '404'",
        "distinct_client_ip": f"SELECT count(DISTINCT data->>'host') {ACCESS}",
        "top_client_ip": f"SELECT data->>'host', count(*) {ACCESS} GROUP BY 1",
        "awk_top_ip": f"SELECT count(*)::VARCHAR, data->>'host' {ACCESS} GROUP BY 2"
        " ORDER BY count(*) DESC LIMIT 1",
        "methods": f"SELECT data->>'method', count(*) {ACCESS} GROUP BY 1",
        "sum_response_bytes": f"SELECT coalesce(sum((data->>'bytes')::BIGINT), 0) {ACCESS}",
        "top_path": f"SELECT data->>'path', count(*) {ACCESS} GROUP BY 1",
        "first_time": f"SELECT {LOCAL} FROM events ORDER BY position LIMIT 1",
        "last_time": f"SELECT {LOCAL} FROM events ORDER BY position DESC LIMIT 1",
    },
    "bulk/*": {
        "actions": "SELECT 'index', count(*) FROM events",
        "documents": "SELECT count(*) FROM events",
        "non_json_lines": "SELECT count(*) FROM quarantine",
        "distinct_keys": "SELECT count(DISTINCT k) + 1 FROM"  # the time is moved
        " (SELECT unnest(json_keys(data)) AS k FROM events)",
        "by_beverage": stack("beverage"),
        "sum_quantity": "SELECT sum((data->>'quantity')::INT) FROM events",
        "min_ts": f"SELECT min({STAMP}) FROM events",
        "max_ts": f"SELECT max({STAMP}) FROM events",
    },
    "rotated/*": {
        "event_start_lines": "SELECT count(*) FROM events",
        "continuation_lines": "SELECT coalesce(sum(length(message)"
        " - length(replace(message, chr(10), ''))), 0) FROM events",
        "levels": "SELECT level, count(*) FROM events GROUP BY 1",
        "first_ts": f"SELECT {LOG4J} FROM events ORDER BY position LIMIT 1",
        "last_ts": f"SELECT {LOG4J} FROM events ORDER BY position DESC LIMIT 1",
    },
    "lnav/*": {
        "event_start_lines": "SELECT count(*) FROM events",
        "data_rows": "SELECT count(*) FROM events",
        "by_type": "SELECT type, count(*) FROM events GROUP BY 1",
        "distinct_ids": "SELECT count(DISTINCT id) FROM events",
        "distinct_actors": "SELECT count(DISTINCT subject) FROM events",
        "distinct_repos": "SELECT count(DISTINCT source) FROM events",
        "top_repo": "SELECT source, count(*) FROM events GROUP BY 1",
        "first_created": f"SELECT min({STAMP}) FROM events",
        "last_created": f"SELECT max({STAMP}) FROM events",
        "bot_actors": "SELECT count(*) FROM events WHERE subject LIKE '%[bot]'",
        "ids_beyond_int32": "SELECT count(*) FROM events WHERE id::BIGINT > 2147483647",
    },
    "otlp/*": {
        "kind": "SELECT CASE type WHEN 'span' THEN 'traces' WHEN 'log' THEN 'logs' END FROM events",
        "resources": "SELECT count(DISTINCT data->'resource') FROM events",
        "records": "SELECT count(*) FROM events",
        "severity": stack("severityText"),
        "time_unix_nano": "SELECT list(data->>'timeUnixNano') FROM events",
        "attribute_keys": "SELECT list_sort(json_keys(data->'attributes')) FROM events",
        "event_names": "SELECT list(data->>'eventName') FROM events",
        "spans": "SELECT count(*) FROM events",
        "trace_ids": "SELECT list(DISTINCT data->>'traceId') FROM events",
        "names": "SELECT list(message) FROM events",
        "duration_ns": "SELECT list((data->>'endTimeUnixNano')::BIGINT"
        " - (data->>'startTimeUnixNano')::BIGINT) FROM events",
    },
    "cloudevents/*.feature": {
        "scenarios": f"SELECT count(*) {LINES} WHERE line LIKE '%Scenario Outline:%'",
        "ce_ids": f"SELECT list(DISTINCT regexp_extract(line, 'ce-id: (.*)', 1)) {LINES}"
        " WHERE line LIKE '%ce-id: %'",
    },
    "feeds/*": {
        "items": f"SELECT len(regexp_extract_all(text, '{ITEM}')) {TEXT}",
        "item_open_tags": f"SELECT len(regexp_extract_all(text, '{ITEM}')) {TEXT}",
        "title": f"SELECT trim(regexp_extract(text, '<title[^>]*>([^<]*)', 1)) {TEXT}",
        "guids": f"SELECT len(regexp_extract_all(text, '{GUID}')) {TEXT}",
        "distinct_guids": f"SELECT len(list_distinct(regexp_extract_all(text, '{GUID}([^<]*)')))"
        f" {TEXT}",
        "enclosures": f"SELECT len(regexp_extract_all(text, '<(?:enc:)?enclosure ')) {TEXT}",
        "enclosure_bytes": "SELECT coalesce(list_sum(list_transform(regexp_extract_all(text,"
        f" '<enclosure [^>]*length=.([0-9]+)', 1), lambda n: n::BIGINT)), 0) {TEXT}",
        "items_with_date": f"SELECT len(regexp_extract_all(text, '(?s){ITEM}.*?<(?:pubDate"
        f"|dc:date|updated)>')) {TEXT}",
        "declared_encoding": f"SELECT regexp_extract(text, 'encoding=.([A-Za-z0-9-]+)', 1) {TEXT}",
    },
    "llm_traces/*": {
        "top_keys": "SELECT list_sort(json_keys(data)) FROM events",
        "observations": f"SELECT count(*) {OBSERVED}",
        "types": f"SELECT o->>'type', count(*) {OBSERVED} GROUP BY 1",
        "models": f"SELECT o->>'model', count(*) {OBSERVED} WHERE o->>'model' <> '' GROUP BY 1",
        "distinct_observation_ids": f"SELECT count(DISTINCT o->>'id') {OBSERVED}",
        "roots": f"SELECT count(*) {OBSERVED} WHERE (o->>'parentObservationId') IS NULL",
        "with_error_level": f"SELECT count(*) {OBSERVED} WHERE o->>'level' = 'ERROR'",
        "trace_id": "SELECT data->>'$.trace.id' FROM events",
        "trace_name": "SELECT data->>'$.trace.name' FROM events",
        **{
            f"sum_{kind}Usage": f"SELECT coalesce(sum((o->>'{kind}Usage')::BIGINT), 0) {OBSERVED}"
            for kind in ("input", "output", "total")
        },
    },
    "nab/*.csv": {
        "rows": "SELECT count(*) FROM events",
        "min": f"SELECT min({VALUE}) FROM events",
        "max": f"SELECT max({VALUE}) FROM events",
        "mean": f"SELECT avg({VALUE}) FROM events",
        "first": f"SELECT {SECONDS} FROM events ORDER BY position LIMIT 1",
        "last": f"SELECT {SECONDS} FROM events ORDER BY position DESC LIMIT 1",
        "distinct_timestamps": "SELECT count(DISTINCT time) FROM events",
        "argmax_ts": f"SELECT {SECONDS} FROM events ORDER BY {VALUE} DESC, position LIMIT 1",
        "sorted": "SELECT bool_and(before IS NULL OR before <= time) FROM"
        " (SELECT time, lag(time) OVER (ORDER BY position) AS before FROM events)",
    },
    "github/*": {
        "distinct_event_types": "SELECT count(DISTINCT type) FROM events",
        "with_action": "SELECT count(*) FROM events WHERE (data->'$.payload.action') IS NOT NULL",
        "top_events": "SELECT type, count(*) FROM events GROUP BY 1",
    },
    "cloudtrail/*": {
        "by_eventName": "SELECT type, count(*) FROM events GROUP BY 1",
        "distinct_eventID": "SELECT count(DISTINCT id) FROM events",
        "by_source": "SELECT source, count(*) FROM events GROUP BY 1",
        "error_events": "SELECT count(*) FROM events WHERE level = 'ERROR'",
    },
    "zeek/*": {
        **{
            f"by_{key}": f"SELECT coalesce(data->>'{key}', 'None'), count(*) FROM events GROUP BY 1"
            for key in ("proto", "service", "method", "status_code", "host", "qtype_name")
        },
        "min_ts": "SELECT epoch_us(min(time)) / 1e6 FROM events",
    },
    "json/*": {
        "statuses": f"SELECT count(*) {STATUSES}",
        "distinct_users": f"SELECT count(DISTINCT s->>'$.user.id') {STATUSES}",
        "retweets": f"SELECT count(*) {STATUSES} WHERE (s->'retweeted_status') IS NOT NULL",
        "langs": f"SELECT s->>'lang', count(*) {STATUSES} GROUP BY 1",
        "max_id": f"SELECT max((s->>'id')::BIGINT) {STATUSES}",
    },
}


def files() -> list[str]:
    """The files that are ingested one by one."""
    return [name for name in FACTS if not name.startswith(APART)]


def asked(name: str) -> dict[str, Any]:
    """The facts of a file that a lake can answer."""
    out = {key for (files, key) in NOT_ASKED if fnmatch(name, files)}
    return {key: fact for key, fact in FACTS[name].items() if key not in out | OF_FILES}


def answer(lake: lakelog.Lake, query: str, fact: Any) -> Any:
    """What a query says, in the shape of the fact: the value, all counts, or the highest ones."""
    rows = lake.sql(query).fetchall()
    if isinstance(fact, dict):
        return {str(value): count for value, count in rows}
    if isinstance(fact, list) and fact and isinstance(fact[0], list):
        counts = dict(rows)
        top = sorted(counts.values(), reverse=True)[: len(fact)]
        return [[v, counts.get(v)] for v, _ in fact] if top == [n for _, n in fact] else counts
    if not rows:
        return None
    return list(rows[0]) if len(rows[0]) > 1 else rows[0][0]


def members(lake: lakelog.Lake, name: str, form: Any) -> dict[str, Any]:
    """What the lake says of lines of JSON: those that are some, and what members they have.

    Members that became columns are looked up in the file, for the lake does not say their names.
    """
    found = [value for value in map(parsed, raw(name)) if isinstance(value, dict)]
    known_keys = (*form.time, *form.message) if isinstance(form, Dialect) else COLUMN
    moved = {m for key in known_keys if any((m := key.partition("=")[0]) in x for x in found)}
    everywhere = {key for key in moved if all(key in value for value in found)}
    [(ok, bad)] = lake.sql("""SELECT count(data), count(*) - count(data)
      + (SELECT count(*) FROM quarantine) FROM events""").fetchall()
    keys = dict(
        lake.sql("""SELECT key, count(*) FROM (SELECT unnest(json_keys(data)) AS key
      FROM events) GROUP BY 1""").fetchall()
    )
    kinds = leaves(lake)
    conflicts = {path: sorted(types) for path, types in kinds.items() if len(types) > 1}
    everywhere |= {key for key, count in keys.items() if count == ok}
    return {
        "json_lines_ok": ok,
        "json_lines_bad": bad,
        "line_types": {"dict": ok},
        "distinct_top_keys": len(keys.keys() | moved),
        "distinct_leaf_paths": len({*kinds, *moved}),
        "keys_in_every_object": sorted(everywhere)[:KEYS_MAX],
        "paths_with_conflicting_scalar_types": conflicts,
        "conflicting_path_count": len(conflicts),
    }


def leaves(lake: lakelog.Lake) -> dict[str, set[str]]:
    """The paths of all scalars that payloads hold, and the types of each but null."""
    found: dict[str, set[str]] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}".removeprefix("."))
        elif isinstance(value, list):
            for inner in value:
                walk(inner, path)
        else:
            found.setdefault(path, set()).update(SCALARS.get(type(value), ()))

    for (data,) in lake.sql("SELECT data FROM events WHERE data IS NOT NULL").fetchall():
        walk(json.loads(data), "")
    return found


def columns(lake: lakelog.Lake, names: list[str]) -> list[str]:
    """The names of columns that payloads have as members, or that are columns of every event."""
    [(keys, level, subject, time)] = (
        lake.sql("""SELECT list_distinct(flatten(list(json_keys(data)))),
      count(level), count(subject), count(time) FROM events""").fetchall()
    )
    places = {"Level": level, "uid": subject, "ts": time, "Date": time, "Time": time}
    return [name for name in names if name in keys or places.get(name)]


def raw(name: str) -> list[bytes]:
    """The lines of a file."""
    return (SHARED / name).read_bytes().splitlines()


def parsed(line: bytes) -> Any:
    """The JSON of a line, None where it is none."""
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return None


@pytest.mark.matrix
@pytest.mark.parametrize("name", files())
def test_every_fact_is_what_the_lake_answers(lake: lakelog.Lake, name: str) -> None:
    """Counts, times, levels, sources and sums are the facts'; an audit finds each line once."""
    facts, report = FACTS[name], lake.ingest(str(SHARED / name))
    assert report.quarantined == QUARANTINED.get(name, (0, ""))[0]
    (file,) = report.files
    full = facts["lines"] - facts["blank_lines"]
    assert report.events + report.quarantined <= full
    if not file.format:
        assert facts["bytes"] == 0
        return
    form = FORMATS.by_name(file.format)
    if not (joins(form) or form.traits.many or file.format in HEADED):
        assert report.events + report.quarantined == full
    said: dict[str, Any] = {}
    if "json_lines_ok" in asked(name):
        said = members(lake, name, form)
    elif "distinct_leaf_paths" in asked(name):
        said = {"distinct_leaf_paths": len(leaves(lake))}
    for key in facts.keys() & {"columns", "fields"}:
        said[key] = columns(lake, facts[key])
    for group in (group for files, group in QUESTIONS.items() if fnmatch(name, files)):
        said |= {k: answer(lake, q, facts[k]) for k, q in group.items() if k in facts}
    for key, fact in asked(name).items():
        if key == "levels" and fact:
            fact = {level.upper(): count for level, count in fact.items()}
        fact = int(fact) if isinstance(fact, str) and fact.isdigit() else fact
        fact = pytest.approx(fact, rel=1e-6) if isinstance(fact, float) else fact
        assert fact is None or (key, said.get(key)) == (key, fact)
    (checked,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert (checked.wrong, checked.seen + checked.waiting) == (0, facts["bytes"])
