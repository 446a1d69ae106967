"""What a model knows of a decision: numbers and names from the decision and what came before it.

A row has the columns of a training set of the shape `decision`. Nothing that came after the
decision is a feature: neither its outcome and reward nor the time of these, and the shape's context
has earlier events of the subject only.
"""

from __future__ import annotations

import collections
import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.libraries import Floats, np

DecisionRow = Mapping[str, Any]
NOT_BEFORE = frozenset(("outcome", "reward", "label_time"))
"""Columns of a row that are known only after the decision."""
_IDENTITY = frozenset(("subject", "time", "context", "options"))
COLUMN, COUNT, FIELD = "column", "count", "field"
HOUR, WEEKDAY, HISTORY, GAP, PREVIOUS = "hour", "weekday", "history", "gap", "previous"
SOURCES = (COLUMN, COUNT, FIELD, HOUR, WEEKDAY, HISTORY, GAP, PREVIOUS)
CLOCKS = frozenset((HOUR, WEEKDAY))
"""Sources whose values depend on when a model is asked, and say nothing of drift."""
VALUES_MAX, FIELDS_MAX, TYPES_MAX, COLUMNS_MAX = 30, 20, 20, 60
_SHARE_MIN = 0.05
"""Share of rows whose earlier events must have a type or field for it to be a feature."""
_NUMBERS = 0.95
"""Share of values that must be numbers for a feature to be one."""
_VALUE_LENGTH = 200
# They tell rows apart, which a model learns by heart and which tells nothing of new ones.
_IDENTIFIER = re.compile(r"(?i)(^|[_.])(id|uuid|port|pid|line|seq)\Z")
# What lakelog itself found, which depends on when somebody looked.
_FINDINGS = frozenset(("ANOMALY", "PREDICTION", "PATTERN_DETECTED"))


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing that is known of each row. `values` are the names that a feature of names had in
    training, the most frequent first; without them it is a number, and `fill` stands for one that
    is missing."""

    source: str
    key: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    fill: float = 0.0

    @property
    def name(self) -> str:
        """What people read."""
        return {
            COLUMN: self.key[0] if self.key else "",
            COUNT: f"earlier {'.'.join(self.key)}",
            FIELD: f"last {'.'.join(self.key)}",
            HOUR: "hour of the day",
            WEEKDAY: "day of the week",
            HISTORY: "earlier events",
            GAP: "seconds since the event before",
            PREVIOUS: "type of the event before",
        }[self.source]

    @property
    def width(self) -> int:
        """How many columns of a matrix it has."""
        return len(self.values) + 1 if self.values else 2


def choose_features(
    rows: Iterable[DecisionRow], columns: Iterable[str]
) -> tuple[tuple[Feature, ...], list[Floats]]:
    """Return the features of rows of a training set that have these columns, of training rows only,
    and a column of the rows for each. What is equal in all rows is none, nor what looks like an
    identifier."""
    candidates = [
        Feature(COLUMN, (name,))
        for name in columns
        if name not in NOT_BEFORE | _IDENTITY and not name.startswith("__")
    ][:COLUMNS_MAX]
    candidates += [Feature(source) for source in (HOUR, WEEKDAY, HISTORY, GAP, PREVIOUS)]
    types, fields = collections.Counter[str](), collections.Counter[tuple[str, ...]]()
    count = 0
    for row in rows:
        count += 1
        events = _events(row)
        types.update({str(event["type"]) for event in events})
        fields.update({key for event in events for key in _numbers(event)})
    least = max(2, int(_SHARE_MIN * count))
    candidates += [Feature(COUNT, (key,)) for key in _frequent(types, least)[:TYPES_MAX]]
    candidates += [Feature(FIELD, key) for key in _frequent(fields, least)[:FIELDS_MAX]]
    features: list[Feature] = []
    column_list: list[Floats] = []
    for candidate, raw in _raw(candidates, rows):
        feature = _fitted(candidate, raw)
        if feature is not None:
            features.append(feature)
            column_list.append(_indexed(feature, raw))
    return tuple(features), column_list


def columns_of(features: Sequence[Feature], rows: Iterable[DecisionRow]) -> list[Floats]:
    """Return a column for each feature: numbers, NaN where there is none, or the index of a name in
    `values`, their count for another name and one more for none."""
    return [_indexed(feature, raw) for feature, raw in _raw(features, rows)]


def matrix_of(features: Sequence[Feature], columns: Sequence[Floats]) -> Floats:
    """Return the matrix that a scorer reads: a number and whether it is missing, or a column for
    each name and one for others."""
    blocks = []
    for feature, column in zip(features, columns, strict=True):
        if feature.values:
            indexes = np.arange(feature.width)
            blocks.append((column[:, None] == indexes[None]).astype(np.float64))
        else:
            missing = np.isnan(column)
            blocks.append(np.stack([np.where(missing, feature.fill, column), missing], axis=1))
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((0, 0))


def _frequent(counts: collections.Counter[Any], least: int) -> list[Any]:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [key for key, count in ordered if count >= least]


def _raw(
    features: Sequence[Feature], rows: Iterable[DecisionRow]
) -> list[tuple[Feature, list[object]]]:
    """The value of each feature in each row, as the row has it."""
    raw: list[list[object]] = [[] for _ in features]
    reads_fields = any(feature.source == FIELD for feature in features)
    for row in rows:
        events = _events(row)
        types = collections.Counter(str(event["type"]) for event in events)
        latest: dict[tuple[str, ...], float] = {}
        for event in events if reads_fields else ():
            latest.update(_numbers(event))
        time = _utc(row["time"])
        # By source, so that each is asked of a row once.
        measures: dict[str, object] = {
            HOUR: float(time.hour),
            WEEKDAY: float(time.weekday()),
            HISTORY: float(len(events)),
            GAP: (time - _utc(events[-1]["time"])).total_seconds() if events else None,
            PREVIOUS: str(events[-1]["type"]) if events else None,
        }
        for feature, values in zip(features, raw, strict=True):
            if feature.source == COLUMN:
                values.append(row.get(feature.key[0]))
            elif feature.source == COUNT:
                values.append(float(types[feature.key[0]]))
            elif feature.source == FIELD:
                values.append(latest.get(feature.key))
            else:
                values.append(measures[feature.source])
    return list(zip(features, raw, strict=True))


def _events(row: DecisionRow) -> list[DecisionRow]:
    return [event for event in row["context"] or () if event["type"] not in _FINDINGS]


def _numbers(event: DecisionRow) -> dict[tuple[str, ...], float]:
    """The numbers in an event's payload, by type and field."""
    try:
        payload = orjson.loads(event["data"] or b"null")
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(payload, dict):
        return {}
    return {
        (str(event["type"]), field): float(value)
        for field, value in payload.items()
        if isinstance(value, (int, float)) and not _IDENTIFIER.search(field)
    }


def _fitted(feature: Feature, raw: list[object]) -> Feature | None:
    """The feature as these values need it: a number, or names; None where it tells nothing."""
    present = [value for value in raw if value is not None]
    numbers = [number for value in present if (number := _number(value)) is not None]
    # Also where its values repeat in training rows.
    if feature.source == COLUMN and _IDENTIFIER.search(feature.key[0]):
        return None
    if len(numbers) >= max(1, _NUMBERS * len(present)):
        varies = len(set(numbers)) > 1 or (numbers and len(present) < len(raw))
        return (
            Feature(feature.source, feature.key, (), float(np.median(numbers))) if varies else None
        )
    counts = collections.Counter(map(_named, present))
    # Nearly as many names as rows are names of single things, and not of groups of them.
    if len(counts) > VALUES_MAX and 2 * len(counts) > len(present):
        return None
    # A name that was seen once has no outcome but that one.
    values = tuple(_frequent(counts, 2)[:VALUES_MAX])
    return Feature(feature.source, feature.key, values) if values and len(counts) > 1 else None


def _indexed(feature: Feature, raw: list[object]) -> Floats:
    if not feature.values:
        return np.array(
            [math.nan if (number := _number(value)) is None else number for value in raw]
        )
    index = {value: float(place) for place, value in enumerate(feature.values)}
    unknown = float(len(feature.values))
    return np.array(
        [unknown + 1 if value is None else index.get(_named(value), unknown) for value in raw]
    )


def _named(value: object) -> str:
    return str(value)[:_VALUE_LENGTH]


def _number(value: object) -> float | None:
    if isinstance(value, str) and len(value) > 40:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    # A tree compares in single precision, in which larger numbers have no place.
    return number if math.isfinite(number) and abs(number) < 1e30 else None


def _utc(time: datetime.datetime) -> datetime.datetime:
    return (
        time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time.astimezone(datetime.UTC)
    )
