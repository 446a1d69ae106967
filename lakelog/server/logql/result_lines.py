"""Rows of a query for lines as Loki's streams: labels with [time, line] pairs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from lakelog.server.logql.line_scope import STREAM_COLUMNS, LabelSource, LineScope

_PAIR = re.compile(r'(?:^|(?<=\s))([^\s="]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))')
_NAME = re.compile(r"[^A-Za-z0-9_]")
_DEPTH_MAX = 32
Labels = dict[str, str]


def streams(rows: Iterable[Mapping[str, Any]], scope: LineScope) -> list[dict[str, object]]:
    """Return the streams of rows, in the order in which they first come.

    A row has `time` (us), `line`, the columns of a stream, `labels` and `metadata` as JSON, and
    `source_0`, … for each source of labels.
    """
    by_labels = dict[tuple[tuple[str, str], ...], list[list[str]]]()
    for row in rows:
        labels = chosen_labels(row, scope)
        key = tuple(sorted(labels.items()))
        # Nanoseconds as text, as Loki has them: a number of JSON would lose digits.
        by_labels.setdefault(key, []).append([f"{row['time']}000", row["line"] or ""])
    return [{"stream": dict(key), "values": values} for key, values in by_labels.items()]


def stream_labels(row: Mapping[str, Any]) -> Labels:
    """The labels of the stream of a row: its columns, and what was pushed with it."""
    labels = {name: str(row[name]) for name in STREAM_COLUMNS if row.get(name)}
    # As for `LineScope.label`: what was pushed goes before columns, and labels before metadata.
    for home in ("metadata", "labels"):
        members = _members(row.get(home))
        labels |= {name: _text(value) for name, value in members.items() if _text(value)}
    return labels


def chosen_labels(row: Mapping[str, Any], scope: LineScope) -> Labels:
    """The labels of a row of a result: those of its stream, of its line, and of its pipeline."""
    labels = stream_labels(row)
    own_names = frozenset(labels)
    for number, source in enumerate(scope.sources):
        for name, value in _extracted(source, row.get(f"source_{number}")).items():
            is_other = name in own_names and source.category != "value"
            labels[f"{name}_extracted" if is_other else name] = value
    hidden = {name for name, value in scope.overrides if value == "NULL"}
    for name in hidden:
        labels.pop(name, None)
    for choice in scope.choices:
        if choice.is_kept:
            labels = {name: labels[name] for name in labels if name in choice.names}
    return {name: value for name, value in labels.items() if value}


def _extracted(source: LabelSource, value: Any) -> Labels:
    if source.category == "value":
        return {source.name: _text(value)} if value is not None else {}
    if source.category == "json":
        return flattened(_members(value))
    return {
        _label(match[1]): (match[2] or "").replace('\\"', '"') + (match[3] or "")
        for match in _PAIR.finditer(value or "")
    }


def _label(key: str) -> str:
    """The label that a key is: it has letters, digits and _ alone, and begins with no digit."""
    label = _NAME.sub("_", key)
    return f"_{label}" if label[:1].isdigit() else label


def flattened(members: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Labels:
    """The members of a JSON object as labels: {"a": {"b": 1}} is a_b; lists are left out."""
    labels = Labels()
    for name, value in members.items():
        label = prefix + _NAME.sub("_", name) if prefix else _label(name)
        if isinstance(value, dict):
            if depth < _DEPTH_MAX:
                labels |= flattened(value, f"{label}_", depth + 1)
        elif value is not None and not isinstance(value, list):
            labels[label] = _text(value)
    return labels


def _members(value: Any) -> dict[str, Any]:
    if not value:
        return {}
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return members if isinstance(members, dict) else {}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()
