"""Loki's HTTP API for queries, as Grafana asks it (grafana.com/docs/loki, reference of the API).

What cannot be answered is a 400 with the reason as text, as Loki does it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from lakelog.errors import InvalidEvent
from lakelog.server.bodies import read_body
from lakelog.server.gate import Caller
from lakelog.server.limits import ServerLimits, is_number
from lakelog.server.logql import statements
from lakelog.server.logql.evaluation import Evaluation, SeriesMap
from lakelog.server.logql.parser import parse, parse_selection
from lakelog.server.logql.result_lines import stream_labels
from lakelog.server.logql.statements import TimeRange
from lakelog.server.logql.syntax import LogQLFault, LogSelection, seconds
from lakelog.server.protocols.protocol import Answer
from lakelog.server.sql.endpoint import ClientLeft, while_connected
from lakelog.server.sql.query_limits import QueryRefused
from lakelog.server.sql.workers import QueryWorkers
from lakelog.values import from_micros, parse_time, to_micros

if TYPE_CHECKING:
    from starlette.requests import Request

PREFIX = "/loki/api/v1"
BUILD = {"version": "2.9.0", "branch": "lakelog", "revision": "", "goVersion": ""}
"""The version of Loki whose answers these are."""
_HOUR = 3_600_000_000
_LIMIT, _LIMIT_MAX, _VALUES_MAX = 100, 50_000, 10_000
_NANOSECONDS = re.compile(r"-?[0-9]{11,20}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_DURATION = re.compile(r"(?:[0-9.]+(?:ns|us|µs|ms|s|m|h|d|w|y))+")
LokiParameters = dict[str, list[str]]


class LokiQueries:
    """Answers queries; `routes` has the handler of each path."""

    def __init__(self, workers: QueryWorkers, limits: ServerLimits) -> None:
        self._workers, self._limits = workers, limits

    def routes(self) -> dict[str, Callable[[Request, Caller], Awaitable[Answer]]]:
        """The paths of the API and their handlers, for GET and POST."""
        handlers = {
            "/labels": self._labels,
            "/label": self._labels,
            "/label/{name}/values": self._values,
            "/series": self._series,
            "/query": self._query,
            "/query_range": self._query_range,
            "/index/stats": self._statistics,
        }
        return {PREFIX + path: self._answering(handler) for path, handler in handlers.items()}

    def _answering(
        self, handler: Callable[[LokiRequest], Awaitable[object]]
    ) -> Callable[[Request, Caller], Awaitable[Answer]]:
        async def answer(request: Request, caller: Caller) -> Answer:
            try:
                asked_for = await LokiRequest.read(request, self._limits)
                content = await while_connected(request, handler(asked_for))
            except ClientLeft:
                return Answer(499)
            except LogQLFault as error:
                return Answer(400, str(error).encode(), media_type="text/plain; charset=utf-8")
            except QueryRefused as error:
                reason = f"{error}: {error.hint}" if error.hint else str(error)
                return Answer(error.status, reason.encode(), media_type="text/plain; charset=utf-8")
            return Answer(200, content)

        return answer

    async def _labels(self, request: LokiRequest) -> object:
        statement = statements.label_names_sql(request.selections("query"), request.span())
        table = await self._workers.query(statement)
        return _success(table["name"].to_pylist())

    async def _values(self, request: LokiRequest) -> object:
        statement = statements.label_values_sql(
            *(request.label, request.selections("query"), request.span(), _VALUES_MAX)
        )
        table = await self._workers.query(statement)
        return _success(table["value"].to_pylist())

    async def _series(self, request: LokiRequest) -> object:
        selections = request.selections("match[]") + request.selections("match")
        table = await self._workers.query(statements.stream_sql(selections, request.span()))
        return _success([stream_labels(row) for row in table.to_pylist()])

    async def _statistics(self, request: LokiRequest) -> object:
        statement = statements.statistics_sql(request.selections("query"), request.span())
        (row,) = (await self._workers.query(statement)).to_pylist()
        return {**row, "chunks": row["streams"]}

    async def _query_range(self, request: LokiRequest) -> object:
        expression, span = parse(request.text("query")), request.span(is_stepped=True)
        evaluation = Evaluation(self._workers, span)
        if isinstance(expression, LogSelection):
            return await self._lines(request, expression, evaluation)
        value = await evaluation.value(expression)
        if isinstance(value, float):
            value = {(): dict.fromkeys(range(span.points), value)}
        return _success({"resultType": "matrix", "result": _matrix(value, span), "stats": {}})

    async def _query(self, request: LokiRequest) -> object:
        expression, moment = parse(request.text("query")), request.time("time", _now())
        if isinstance(expression, LogSelection):
            evaluation = Evaluation(self._workers, TimeRange(moment - _HOUR, moment + 1))
            return await self._lines(request, expression, evaluation)
        value = await Evaluation(self._workers, TimeRange(moment, moment)).value(expression)
        if isinstance(value, float):
            sample = [moment / 1e6, number_text(value)]
            return _success({"resultType": "scalar", "result": sample, "stats": {}})
        vector = [
            {"metric": dict(labels), "value": [moment / 1e6, number_text(steps[0])]}
            for labels, steps in value.items()
            if 0 in steps
        ]
        return _success({"resultType": "vector", "result": vector, "stats": {}})

    async def _lines(
        self, request: LokiRequest, selection: LogSelection, evaluation: Evaluation
    ) -> object:
        is_forward = request.text("direction", "backward").lower() == "forward"
        result = await evaluation.lines(selection, request.limit(), is_forward=is_forward)
        return _success({"resultType": "streams", "result": result, "stats": {}})


class LokiRequest:
    """The parameters of a request, of its URL and of its form."""

    def __init__(self, parameters: LokiParameters, label: str) -> None:
        self._parameters, self.label = parameters, label

    @classmethod
    async def read(cls, request: Request, limits: ServerLimits) -> LokiRequest:
        """Read a request. Raises RequestRefused, LogQLFault."""
        pairs = list(request.query_params.multi_items())
        if request.method == "POST":
            body = await read_body(request, limits)
            try:
                pairs += parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1_000)
            except (UnicodeDecodeError, ValueError):
                raise LogQLFault("the body is no form: query=…&start=…") from None
        parameters: LokiParameters = {}
        for name, value in pairs:
            parameters.setdefault(name, []).append(value)
        return cls(parameters, request.path_params.get("name", ""))

    def text(self, name: str, default: str | None = None) -> str:
        """A parameter. Raises LogQLFault where it is missing and there is no default."""
        value = self._parameters.get(name, [default])[-1]
        if value is None:
            raise LogQLFault(f"the parameter {name} is missing")
        return value

    def selections(self, name: str) -> list[LogSelection]:
        """The selections that a parameter has, which may come several times."""
        selectors = [value for value in self._parameters.get(name, []) if value.strip()]
        return [parse_selection(value) for value in selectors]

    def limit(self) -> int:
        """How many lines are asked for. Raises LogQLFault."""
        value = self.text("limit", str(_LIMIT))
        if not is_number(value, 9) or not 0 < int(value) <= _LIMIT_MAX:
            raise LogQLFault(f"limit is a number from 1 to {_LIMIT_MAX:,}")
        return int(value)

    def time(self, name: str, default: int) -> int:
        """A time in us: nanoseconds, seconds with a fraction, or text. Raises LogQLFault."""
        value = self.text(name, "")
        if not value:
            return default
        try:
            # Eleven digits or more: as seconds they would be after the year 2286.
            if _NANOSECONDS.fullmatch(value):
                # Up, as clients go on a nanosecond behind a line: it is in a range that ends there,
                # and in none that begins there.
                micros = -(-int(value) // 1000)
            elif _NUMBER.fullmatch(value):
                micros = round(float(value) * 1e6)
            else:
                micros = to_micros(parse_time(value))
            from_micros(micros)  # which raises for what is no time
            return micros
        except (InvalidEvent, ValueError, OverflowError):
            reason = "a time is nanoseconds, seconds, or 2026-11-20T08:00:00Z"
            raise LogQLFault(f"{name}: {reason}, not {value[:40]!r}") from None

    def span(self, *, is_stepped: bool = False) -> TimeRange:
        """The time range: the last hour unless it is given; stepped, from the first step on.

        Raises LogQLFault.
        """
        end = self.time("end", _now())
        since = self.text("since", "")
        start = self.time("start", end - (self._duration("since", since) if since else _HOUR))
        if end < start:
            raise LogQLFault("end is before start")
        step = self.text("step", "") if is_stepped else ""
        width = self._duration("step", step) if step else max(1_000_000, (end - start) // 250)
        if width < 1_000:
            raise LogQLFault("step is at least a millisecond")
        return TimeRange(start, end, width)

    @staticmethod
    def _duration(name: str, value: str) -> int:
        if _NUMBER.fullmatch(value) and not value.startswith("-"):
            return int(min(float(value), 1e9) * 1e6)
        if _DURATION.fullmatch(value):
            return int(min(seconds(value), 1e9) * 1e6)
        raise LogQLFault(f"{name} is a duration such as 30s, not {value[:40]!r}")


def number_text(value: float) -> str:
    """A number as Prometheus writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    # Up to here a float holds every whole number.
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _matrix(series: SeriesMap, span: TimeRange) -> list[dict[str, object]]:
    return [
        {
            "metric": dict(labels),
            "values": [
                [(span.start + step * span.step) / 1e6, number_text(value)]
                for step, value in sorted(steps.items())
            ],
        }
        for labels, steps in sorted(series.items())
        if steps
    ]


def _success(data: Any) -> object:
    return {"status": "success", "data": data}


def _now() -> int:
    return int(time.time() * 1e6)
