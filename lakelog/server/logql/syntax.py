"""What a query in LogQL is, as a tree of values and as tokens (grafana.com/docs/loki, reference of
LogQL)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lakelog.errors import LakelogError
from lakelog.server.protocols.loki import unescaped


class LogQLFault(LakelogError):
    """A query that does not parse, or asks for what lakelog does not have."""


@dataclass(frozen=True)
class LineFilter:
    """Lines that contain one of some texts (|=, !=), or match one of some patterns (|~, !~)."""

    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class LineParser:
    """What takes labels out of a line: json, logfmt, regexp or pattern. `expressions` are of
    labels by name, of json and logfmt alone; `pattern` is that of regexp and pattern."""

    name: str
    expressions: tuple[tuple[str, str], ...] = ()
    pattern: str = ""


@dataclass(frozen=True)
class LabelTest:
    """A label compared with a text, by =, !=, =~ or !~; with a number, or with a number of seconds
    or bytes by its `unit`."""

    name: str
    operator: str
    value: str | float
    unit: str = ""


@dataclass(frozen=True)
class LabelLogic:
    """Tests of labels, of which all (and) or any (or) hold."""

    operator: str
    tests: tuple[LabelCondition, ...]


LabelCondition = LabelTest | LabelLogic


@dataclass(frozen=True)
class LineFormat:
    """The line anew, by a template."""

    template: str


@dataclass(frozen=True)
class LabelFormat:
    """Labels anew: (name, name of another label or template, whether it is a template)."""

    labels: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True)
class LabelChoice:
    """Labels that are kept, or dropped."""

    is_kept: bool
    names: tuple[str, ...]


@dataclass(frozen=True)
class Decolorize:
    """The line without the codes of colours."""


PipelineStage = (
    LineFilter
    | LineParser
    | LabelTest
    | LabelLogic
    | LineFormat
    | LabelFormat
    | LabelChoice
    | Decolorize
)


@dataclass(frozen=True)
class LogSelection:
    """Lines: those whose labels match, through the stages of a pipeline."""

    matchers: tuple[LabelTest, ...]
    stages: tuple[PipelineStage, ...] = ()


@dataclass(frozen=True)
class Grouping:
    """By which labels series are put together, or with `is_without` by which not."""

    names: tuple[str, ...]
    is_without: bool = False


@dataclass(frozen=True)
class RangeAggregation:
    """A function of the lines of a span before each moment; times in us. `unwrap` is the label
    whose numbers it is of, `conversion` says duration, duration_seconds or bytes."""

    function: str
    selection: LogSelection
    span: int
    offset: int = 0
    unwrap: str = ""
    conversion: str = ""
    parameter: float | None = None
    grouping: Grouping | None = None


@dataclass(frozen=True)
class VectorAggregation:
    """An aggregate of series; `parameter` is the number of topk and bottomk."""

    function: str
    operand: MetricExpression
    grouping: Grouping | None = None
    parameter: int | None = None


@dataclass(frozen=True)
class BinaryOperation:
    """Two operands; `is_bool` makes 0 and 1 of a comparison, `matching` says by which labels
    series are compared."""

    operator: str
    left_side: MetricExpression
    right_side: MetricExpression
    is_bool: bool = False
    matching: Grouping | None = None


@dataclass(frozen=True)
class ConstantVector:
    """vector(1): one series without labels."""

    value: float


@dataclass(frozen=True)
class LabelReplacement:
    """label_replace: a label made of another one where a pattern matches it whole."""

    operand: MetricExpression
    target: str
    replacement: str
    source: str
    pattern: str


MetricExpression = (
    RangeAggregation
    | VectorAggregation
    | BinaryOperation
    | float
    | ConstantVector
    | LabelReplacement
)
Expression = LogSelection | MetricExpression


_DURATIONS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
    "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0,
}  # fmt: skip
_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15, "kib": 1 << 10,
    "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50, "k": 10**3, "g": 10**9,
    "t": 10**12,
}  # fmt: skip
_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<duration>(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|μs|ms|s|m|h|d|w|y))+(?![A-Za-z0-9_.]))
    |(?P<bytes>[0-9]+(?:\.[0-9]+)?(?:[kKMGTP]i?)?[bB](?![A-Za-z0-9_]))
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
        (?![A-Za-z0-9_]))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<mark>\|=|\|~|\|>|!=|!~|!>|=~|==|>=|<=|[{}()\[\],=<>|+\-*/%^])""",
    re.X,
)
LENGTH_MAX = 131_072


@dataclass(frozen=True)
class LogQLToken:
    """A token: its type (string, duration, bytes, number, name, mark, end), its spelling, its
    value, and the character at which it begins."""

    category: str
    spelling: str
    value: str | float
    start: int


def tokens(query: str) -> list[LogQLToken]:
    """Return the tokens of a query, the last of them its end. Raises LogQLFault."""
    if len(query) > LENGTH_MAX:
        raise LogQLFault(f"the query has more than {LENGTH_MAX:,} characters")
    token_list, place = [], 0
    while place < len(query):
        match = _TOKEN.match(query, place)
        if match is None:
            raise fault(query, place, f"unexpected {query[place]!r}")
        category = str(match.lastgroup)
        if category != "space":
            value = _value(category, match[0], query, place)
            token_list.append(LogQLToken(category, match[0], value, place))
        place = match.end()
    # Two, for who looks at the token behind this one.
    return [*token_list, *2 * [LogQLToken("end", "", "", len(query))]]


def fault(query: str, place: int, reason: str) -> LogQLFault:
    """An error at a character of a query."""
    line = query.count("\n", 0, place) + 1
    column = place - (query.rfind("\n", 0, place) + 1) + 1
    return LogQLFault(f"parse error at line {line}, col {column}: {reason}")


def seconds(spelling: str) -> float:
    """The seconds of a duration such as 1h30m."""
    return sum(
        float(number) * _DURATIONS[unit]
        for number, unit in re.findall(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h|d|w|y)", spelling)
    )


def _value(category: str, spelling: str, query: str, place: int) -> str | float:
    if category == "string":
        return spelling[1:-1] if spelling[0] == "`" else _unescaped(spelling[1:-1], query, place)
    if category == "duration":
        return seconds(spelling)
    if category == "bytes":
        number = re.match(r"[0-9.]+", spelling)
        assert number is not None
        return float(number[0]) * _BYTES[spelling[number.end() :].lower()]
    if category == "number":
        return float(int(spelling, 16)) if spelling[:2].lower() == "0x" else float(spelling)
    return spelling


def _unescaped(spelling: str, query: str, place: int) -> str:
    try:
        return unescaped(spelling)
    except ValueError as error:
        raise fault(query, place, str(error)) from None
