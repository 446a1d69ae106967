"""What a query in LogQL is, as a tree of values (grafana.com/docs/loki, reference of LogQL)."""

from __future__ import annotations

from dataclasses import dataclass

from lakelog.errors import LakelogError


class LogQLFault(LakelogError):
    """A query that does not parse, or asks for what lakelog does not have."""


@dataclass(frozen=True)
class LabelMatcher:
    """A label compared with a text: by =, !=, =~ or !~."""

    name: str
    operator: str
    value: str


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
    """A label compared with a text, a number, or a number of seconds or bytes by its `unit`."""

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

    matchers: tuple[LabelMatcher, ...]
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
class NumberLiteral:
    """A number."""

    value: float


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
    | NumberLiteral
    | ConstantVector
    | LabelReplacement
)
Expression = LogSelection | MetricExpression
