"""Evaluating LogQL over a time range: lines and range aggregations by SQL, the remainder here."""

from __future__ import annotations

from typing import Any

from lakelog.server.logql import series as series_of
from lakelog.server.logql import statements
from lakelog.server.logql.line_scope import scope_of
from lakelog.server.logql.result_lines import chosen_labels, streams
from lakelog.server.logql.series import LabelSet, SeriesMap, label_set
from lakelog.server.logql.statements import SERIES_MAX, TimeRange
from lakelog.server.logql.syntax import (
    BinaryOperation,
    ConstantVector,
    Grouping,
    LabelReplacement,
    LogQLFault,
    LogSelection,
    MetricExpression,
    NumberLiteral,
    RangeAggregation,
    VectorAggregation,
)
from lakelog.server.sql.workers import QueryWorkers

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
        if isinstance(expression, NumberLiteral):
            return expression.value
        if isinstance(expression, ConstantVector):
            return {(): dict.fromkeys(range(self._span.points), expression.value)}
        if isinstance(expression, RangeAggregation):
            return await self._range(expression, None)
        if isinstance(expression, VectorAggregation):
            return await self._vector(expression)
        if isinstance(expression, LabelReplacement):
            return series_of.replaced(expression, await self._series(expression.operand))
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
        return series_of.aggregated(expression, await self._series(operand))

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
                return series_of.calculate(operation.operator, left_side, right_side)
            if isinstance(left_side, float):
                assert isinstance(right_side, dict)
                return series_of.with_scalar(operation, right_side, left_side, is_left=True)
            assert isinstance(right_side, float)
            return series_of.with_scalar(operation, left_side, right_side, is_left=False)
        return series_of.combined(operation, left_side, right_side)
