"""Evaluating LogQL over a time range: lines and range aggregations by SQL, the remainder here."""

from __future__ import annotations

import math
import operator
import re
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from lakelog.libraries import pa, pc
from lakelog.server.logql import statements
from lakelog.server.logql.line_scope import scope_of
from lakelog.server.logql.result_lines import chosen_labels, streams
from lakelog.server.logql.statements import SERIES_MAX, TimeRange
from lakelog.server.logql.syntax import (
    BinaryOperation,
    ConstantVector,
    Grouping,
    LabelReplacement,
    LogQLFault,
    LogSelection,
    MetricExpression,
    RangeAggregation,
    VectorAggregation,
)
from lakelog.server.sql.workers import QueryWorkers

LabelSet = tuple[tuple[str, str], ...]
"""Labels of a series, sorted by name."""
SeriesMap = dict[LabelSet, dict[int, float]]
"""Values by step, by labels."""
_BY_VALUE = ("sort", "sort_desc")


def label_set(labels: dict[str, str]) -> LabelSet:
    """Labels as a key; those without a value are none."""
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def aggregated(aggregation: VectorAggregation, series: SeriesMap) -> SeriesMap:
    """Put series together, step by step."""
    function = aggregation.function
    if function in _BY_VALUE:
        ordered = sorted(
            series.items(), key=lambda item: max(item[1].values()), reverse=function == "sort_desc"
        )
        return dict(ordered)
    grouping = aggregation.grouping
    if function in ("topk", "bottomk", "approx_topk"):
        return _extreme(series, function == "bottomk", aggregation.parameter or 1, grouping)
    reduce = _REDUCTIONS[function]
    groups: dict[LabelSet, dict[int, list[float]]] = {}
    for labels, values in series.items():
        group = groups.setdefault(grouped(labels, grouping), {})
        for step, value in values.items():
            group.setdefault(step, []).append(value)
    return {
        labels: {step: reduce(values) for step, values in sorted(steps.items())}
        for labels, steps in groups.items()
    }


def grouped(labels: LabelSet, grouping: Grouping | None) -> LabelSet:
    """The labels that a grouping leaves; without one, none."""
    if grouping is None:
        return ()
    return tuple(pair for pair in labels if (pair[0] in grouping.names) != grouping.is_without)


def _extreme(
    series: SeriesMap, is_lowest: bool, count: int, grouping: Grouping | None
) -> SeriesMap:
    """The highest or lowest series at each step, of each group."""
    at_steps: dict[tuple[LabelSet, int], list[tuple[float, LabelSet]]] = {}
    for labels, values in series.items():
        for step, value in values.items():
            at_steps.setdefault((grouped(labels, grouping), step), []).append((value, labels))
    result: SeriesMap = {}
    for (_, step), candidates in sorted(at_steps.items()):
        sign = 1 if is_lowest else -1
        candidates.sort(key=lambda item: (sign * item[0], item[1]))
        for value, labels in candidates[:count]:
            result.setdefault(labels, {})[step] = value
    return result


def replaced(replacement: LabelReplacement, series: SeriesMap) -> SeriesMap:
    """Set a label from another one, where a pattern matches that whole; in linear time."""
    pattern = f"^(?s:{replacement.pattern})$"
    # What Prometheus writes as $1 is \1 for RE2, and a backslash there means itself.
    template = re.sub(r"\\", r"\\\\", replacement.replacement)
    template = re.sub(r"\$(?:\{([0-9])\}|([0-9]))", r"\\\1\2", template)
    values = pa.array([dict(labels).get(replacement.source, "") for labels in series], pa.string())
    try:
        is_matched = pc.match_substring_regex(values, pattern).to_pylist()
        replacements = pc.replace_substring_regex(values, pattern, template).to_pylist()
    except pa.ArrowInvalid as error:
        raise LogQLFault(f"label_replace: {error}") from None
    result: SeriesMap = {}
    for (labels, steps), is_replaced, value in zip(
        series.items(), is_matched, replacements, strict=True
    ):
        label_values = dict(labels)
        if is_replaced:
            label_values[replacement.target] = value
        result[label_set(label_values)] = steps
    return result


def combined(operation: BinaryOperation, left_side: SeriesMap, right_side: SeriesMap) -> SeriesMap:
    """Combine two vectors, series with equal labels at a time, as Prometheus matches one to one.

    Arithmetic and comparisons leave out steps that one side lacks; what only one side has is there
    for `or` and, of the left side, for `unless`. Raises LogQLFault where several series of a side
    have the same labels.
    """
    matching, result = operation.matching, SeriesMap()
    right_series = {_matched(labels, matching): values for labels, values in right_side.items()}
    if len(right_series) < len(right_side):
        raise LogQLFault("several series of the right side have the same labels")
    is_set = operation.operator in ("and", "or", "unless")
    matches = set[LabelSet]()
    for labels, values in left_side.items():
        key = _matched(labels, matching)
        matches.add(key)
        right_steps = right_series.get(key, {})
        if is_set:
            kept_steps = {
                step: value
                for step, value in values.items()
                if operation.operator == "or"
                or (step in right_steps) == (operation.operator == "and")
            }
        else:
            kept_steps = _calculated(
                operation, ((s, v, right_steps[s]) for s, v in values.items() if s in right_steps)
            )
        # Sets and comparisons choose series, which keep their labels. Arithmetic makes new ones, of
        # the labels that were matched.
        is_named = is_set or (operation.operator in _COMPARISONS and not operation.is_bool)
        result_labels = labels if is_named or matching is None else key
        if result_labels in result:
            raise LogQLFault("several series of the left side have the same labels")
        if kept_steps:
            result[result_labels] = kept_steps
    if operation.operator == "or":
        result |= {
            labels: values
            for labels, values in right_side.items()
            if _matched(labels, matching) not in matches
        }
    return result


def _matched(labels: LabelSet, matching: Grouping | None) -> LabelSet:
    return labels if matching is None else grouped(labels, matching)


def with_scalar(
    operation: BinaryOperation, series: SeriesMap, scalar: float, *, is_left: bool
) -> SeriesMap:
    """Combine a vector and a number, which is on the left or on the right. A comparison without
    `bool` leaves the values of the vector for which it holds."""
    result: SeriesMap = {}
    for labels, values in series.items():
        triples = (
            (step, scalar, value) if is_left else (step, value, scalar)
            for step, value in values.items()
        )
        calculated = _calculated(operation, triples, values)
        if calculated:
            result[labels] = calculated
    return result


def calculate(operator_name: str, left_value: float, right_value: float) -> float:
    """Two numbers; a comparison is 1 or 0."""
    if operator_name in _COMPARISONS:
        return float(_COMPARISONS[operator_name](left_value, right_value))
    try:
        return float(_ARITHMETIC[operator_name](left_value, right_value))
    except ZeroDivisionError:
        # As IEEE 754 has it, and Go, in which Loki divides; Python raises.
        is_nan = left_value == 0 or math.isnan(left_value) or operator_name == "%"
        return math.nan if is_nan else math.copysign(math.inf, left_value)
    except (OverflowError, ValueError, TypeError):
        return math.nan


def _calculated(
    operation: BinaryOperation,
    triples: Iterable[tuple[int, float, float]],
    original: dict[int, float] | None = None,
) -> dict[int, float]:
    result = {}
    for step, left_value, right_value in triples:
        value = calculate(operation.operator, left_value, right_value)
        if operation.operator in _COMPARISONS and not operation.is_bool:
            if not value:
                continue
            value = left_value if original is None else original[step]
        result[step] = value
    return result


_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
    "^": operator.pow,
}
_REDUCTIONS: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "avg": statistics.fmean,
    "min": min,
    "max": max,
    "count": lambda values: float(len(values)),
    "stddev": statistics.pstdev,
    "stdvar": statistics.pvariance,
}


_ADDITIVE = frozenset("rate count_over_time bytes_rate bytes_over_time sum_over_time".split())
_PUSHED = {**dict.fromkeys(_ADDITIVE, "sum"), "max_over_time": "max", "min_over_time": "min"}
"""Aggregates of series that the engine makes at once: the sum of counts is the count of all."""
_SETS = ("and", "or", "unless")


class Evaluation:
    """Evaluates one query over a lake."""

    def __init__(self, workers: QueryWorkers, span: TimeRange) -> None:
        self._workers, self._span = workers, span

    async def lines(
        self, selection: LogSelection, limit: int, *, is_forward: bool
    ) -> list[dict[str, object]]:
        """Return the lines of the time range, as streams. Raises LogQLFault, QueryRefused."""
        statement = statements.lines_sql(selection, self._span, limit, is_forward=is_forward)
        table = await self._workers.query(statement)
        return streams(table.to_pylist(), scope_of(selection))

    async def value(self, expression: MetricExpression) -> SeriesMap | float:
        """Return the series of an expression, or its number. Raises LogQLFault, QueryRefused."""
        if isinstance(expression, float):
            return expression
        if isinstance(expression, ConstantVector):
            return {(): dict.fromkeys(range(self._span.points), expression.value)}
        if isinstance(expression, RangeAggregation):
            return await self._range(expression, None)
        if isinstance(expression, VectorAggregation):
            return await self._vector(expression)
        if isinstance(expression, LabelReplacement):
            return replaced(expression, await self._series(expression.operand))
        return await self._binary(expression)

    async def _series(self, expression: MetricExpression) -> SeriesMap:
        value = await self.value(expression)
        if isinstance(value, float):
            raise LogQLFault("a number stands where series are needed, such as rate({…}[5m])")
        return value

    async def _vector(self, expression: VectorAggregation) -> SeriesMap:
        operand, grouping = expression.operand, expression.grouping
        if (
            # Made by the engine in one step: the series of single streams, of which there may be
            # many more, need not leave it.
            isinstance(operand, RangeAggregation)
            and operand.grouping is None
            and _PUSHED.get(operand.function) == expression.function
            and not (grouping and grouping.is_without)
        ):
            return await self._range(operand, grouping or Grouping(()))
        return aggregated(expression, await self._series(operand))

    async def _range(self, aggregation: RangeAggregation, grouping: Grouping | None) -> SeriesMap:
        statement = statements.series_sql(aggregation, self._span, grouping)
        table = await self._workers.query(statement.sql)
        result: SeriesMap = {}
        is_additive = aggregation.function in _ADDITIVE
        for row in table.to_pylist():
            labels = self._labels(row, statement)
            steps = result.setdefault(labels, {})
            if len(result) > SERIES_MAX:
                raise LogQLFault(f"more than {SERIES_MAX:,} series: aggregate by fewer labels")
            step = row["step"]
            # Streams are told apart by the text of their labels, in which the same ones may stand
            # in another order. Counts of both add up; means and extremes do not.
            if step in steps and not is_additive:
                raise LogQLFault(
                    "labels of one stream stand in several orders: say by which labels"
                )
            steps[step] = steps.get(step, 0.0) + row["value"]
        own_grouping = aggregation.grouping
        if own_grouping is not None and own_grouping.is_without:
            raise LogQLFault("without is not supported here: say by which labels")
        return result

    @staticmethod
    def _labels(row: dict[str, Any], statement: statements.SeriesStatement) -> LabelSet:
        if statement.names is None:
            return label_set(chosen_labels(row, statement.scope))
        values = (row[f"label_{number}"] for number in range(len(statement.names)))
        return label_set(
            {name: value or "" for name, value in zip(statement.names, values, strict=True)}
        )

    async def _binary(self, operation: BinaryOperation) -> SeriesMap | float:
        left_side, right_side = (
            await self.value(operation.left_side),
            await self.value(operation.right_side),
        )
        if isinstance(left_side, float) or isinstance(right_side, float):
            if operation.operator in _SETS:
                raise LogQLFault(f"{operation.operator} is of series, not of numbers")
            if isinstance(left_side, float) and isinstance(right_side, float):
                return calculate(operation.operator, left_side, right_side)
            if isinstance(left_side, float):
                assert isinstance(right_side, dict)
                return with_scalar(operation, right_side, left_side, is_left=True)
            assert isinstance(right_side, float)
            return with_scalar(operation, left_side, right_side, is_left=False)
        return combined(operation, left_side, right_side)
