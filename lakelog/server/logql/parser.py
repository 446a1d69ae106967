"""Parsing LogQL: by hand, each rule of the grammar one method."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lakelog.server.logql.syntax import (
    BinaryOperation,
    ConstantVector,
    Decolorize,
    Expression,
    Grouping,
    LabelChoice,
    LabelCondition,
    LabelFormat,
    LabelLogic,
    LabelReplacement,
    LabelTest,
    LineFilter,
    LineFormat,
    LineParser,
    LogQLFault,
    LogQLToken,
    LogSelection,
    MetricExpression,
    PipelineStage,
    RangeAggregation,
    VectorAggregation,
    fault,
    tokens,
)

RANGE_FUNCTIONS = frozenset(
    """rate count_over_time bytes_rate bytes_over_time sum_over_time avg_over_time min_over_time
    max_over_time stddev_over_time stdvar_over_time quantile_over_time first_over_time
    last_over_time rate_counter absent_over_time""".split()
)
VECTOR_FUNCTIONS = frozenset(
    "sum avg min max count stddev stdvar topk bottomk sort sort_desc approx_topk".split()
)
_LINE_FILTERS = ("|=", "!=", "|~", "!~", "|>", "!>")
_COMPARISONS = ("==", "!=", ">", ">=", "<", "<=")
_PRECEDENCE = (("or",), ("and", "unless"), _COMPARISONS, ("+", "-"), ("*", "/", "%"), ("^",))
_CONVERSIONS = ("duration", "duration_seconds", "bytes")
_DEPTH_MAX, _STAGES_MAX, _OPERATIONS_MAX = 60, 50, 200
"""What is longer would make SQL that nobody can run."""


def parse(query: str) -> Expression:
    """Return the tree of a query. Raises LogQLFault."""
    parser = _LogQLParser(query)
    expression = parser.expression()
    parser.expect("end")
    return expression


def parse_selection(query: str) -> LogSelection:
    """Return the tree of a query for lines. Raises LogQLFault."""
    expression = parse(query)
    if not isinstance(expression, LogSelection):
        raise LogQLFault('a selector is needed here, such as {source="web"}')
    return expression


class _LogQLParser:
    def __init__(self, query: str) -> None:
        self._query, self._tokens, self._place, self._depth = query, tokens(query), 0, 0
        self._operations = 0

    @property
    def _token(self) -> LogQLToken:
        return self._tokens[self._place]

    def expect(self, *spellings: str) -> LogQLToken:
        """Return the token here, which is a mark, a word or of a category; go on behind it."""
        token = self._token
        if not self._is(*spellings):
            expected = " or ".join(spellings)
            actual = repr(token.spelling) if token.spelling else "the end"
            raise fault(self._query, token.start, f"{expected} expected, not {actual}")
        self._place += 1
        return token

    def _is(self, *spellings: str) -> bool:
        token = self._token
        # A text in quotes is no keyword, whatever it says.
        return token.category in spellings or (
            token.spelling in spellings and token.category != "string"
        )

    def _skip(self, *spellings: str) -> bool:
        is_there = self._is(*spellings)
        self._place += is_there
        return is_there

    def _refuse(self, reason: str) -> LogQLFault:
        return fault(self._query, self._token.start, reason)

    def expression(self, level: int = 0) -> Expression:
        """A chain of operands of one precedence; ^ binds to the right."""
        if level == len(_PRECEDENCE):
            return self._primary()
        left = self.expression(level + 1)
        while self._is(*_PRECEDENCE[level]):
            operator = self.expect("mark", "name").spelling
            self._operations += 1
            # A chain becomes a tree as deep as it is long, which is evaluated by recursion.
            if self._operations > _OPERATIONS_MAX:
                raise self._refuse(f"there are more than {_OPERATIONS_MAX} operations")
            is_bool, matching = self._modifiers()
            right = self.expression(level if operator == "^" else level + 1)
            left = BinaryOperation(
                operator, self._metric(left), self._metric(right), is_bool, matching
            )
        return left

    def _metric(self, expression: Expression) -> MetricExpression:
        if isinstance(expression, LogSelection):
            raise self._refuse("an operand is a number or made of lines, such as rate({…}[5m])")
        return expression

    def _modifiers(self) -> tuple[bool, Grouping | None]:
        is_bool, matching = self._skip("bool"), None
        if self._is("on", "ignoring"):
            matching = Grouping(
                is_without=self.expect("name").spelling == "ignoring", names=self._names()
            )
        if self._is("group_left", "group_right"):
            raise self._refuse(f"{self._token.spelling} is not supported")
        return is_bool, matching

    @contextlib.contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise self._refuse("the query is nested too deeply")
        yield
        self._depth -= 1

    def _primary(self) -> Expression:
        with self._deeper():
            return self._operand()

    def _operand(self) -> Expression:
        if self._is("{"):
            return self._selection()
        if self._skip("("):
            inner = self.expression()
            self.expect(")")
            # Stages may stand behind a selection in parentheses.
            if isinstance(inner, LogSelection) and self._is("mark") and not self._is(")", ","):
                return LogSelection(inner.matchers, (*inner.stages, *self._stages()))
            return inner
        if self._is("-", "+"):
            sign = -1.0 if self.expect("mark").spelling == "-" else 1.0
            return sign * float(self.expect("number").value)
        if self._is("number"):
            return float(self.expect("number").value)
        name = self._token.spelling
        if self._is("name") and name in RANGE_FUNCTIONS:
            return self._range_aggregation()
        if self._is("name") and name in VECTOR_FUNCTIONS:
            return self._vector_aggregation()
        if self._skip("vector"):
            self.expect("(")
            value = float(self.expect("number").value)
            self.expect(")")
            return ConstantVector(value)
        if self._skip("label_replace"):
            return self._label_replacement()
        expected = 'a selector such as {source="web"}, or a function of one, is expected'
        raise self._refuse(f"{expected}, not {name!r}" if name else expected)

    def _selection(self) -> LogSelection:
        self.expect("{")
        matchers = []
        while not self._is("}"):
            name = self.expect("name").spelling
            operator = self.expect("=", "!=", "=~", "!~").spelling
            matchers.append(LabelTest(name, operator, str(self.expect("string").value)))
            if not self._skip(","):
                break
        self.expect("}")
        return LogSelection(tuple(matchers), tuple(self._stages()))

    def _stages(self) -> list[PipelineStage]:
        stages: list[PipelineStage] = []
        while self._is(*_LINE_FILTERS, "|"):
            if len(stages) >= _STAGES_MAX:
                raise self._refuse(f"there are more than {_STAGES_MAX} stages")
            if self._is(*_LINE_FILTERS):
                stages.append(self._line_filter())
            # It belongs to a range, which reads it, and is no stage.
            elif self._tokens[self._place + 1].spelling == "unwrap":
                break
            else:
                self.expect("|")
                stages.append(self._stage())
        return stages

    def _line_filter(self) -> LineFilter:
        operator = self.expect(*_LINE_FILTERS).spelling
        if operator in ("|>", "!>"):
            raise self._refuse(f"{operator} is not supported: use |~ with a regular expression")
        values = [self._filter_text()]
        while self._skip("or"):
            values.append(self._filter_text())
        return LineFilter(operator, tuple(values))

    def _filter_text(self) -> str:
        if self._is("ip"):
            raise self._refuse("ip() is not supported")
        return str(self.expect("string").value)

    def _stage(self) -> PipelineStage:
        name = self._token.spelling
        following = self._tokens[self._place + 1]
        # A label may be called as a stage is: what follows it tells which one is meant.
        is_label = following.spelling in ("=", "!=", "=~", "!~", *_COMPARISONS) and (
            following.category == "mark"
        )
        if self._is("name") and not is_label:
            if name in ("json", "logfmt"):
                return self._extraction()
            if name in ("regexp", "pattern"):
                self.expect("name")
                return LineParser(name, pattern=str(self.expect("string").value))
            if name == "line_format":
                self.expect("name")
                return LineFormat(str(self.expect("string").value))
            if name == "label_format":
                return self._label_format()
            if name in ("drop", "keep"):
                self.expect("name")
                return LabelChoice(name == "keep", self._bare_names())
            if self._skip("decolorize"):
                return Decolorize()
            raise self._refuse(f"| {name} is not supported")
        return self._label_condition()

    def _extraction(self) -> LineParser:
        name, expressions = self.expect("name").spelling, []
        if name == "logfmt":
            while self._is("-"):
                self.expect("-")
                self.expect("-")
                raise self._refuse("logfmt takes no flags")
        while self._is("name") and not self._is("or", "and"):
            label = self.expect("name").spelling
            expression = str(self.expect("string").value) if self._skip("=") else label
            expressions.append((label, expression))
            if not self._skip(","):
                break
        return LineParser(name, tuple(expressions))

    def _label_format(self) -> LabelFormat:
        self.expect("label_format")
        labels = []
        while True:
            target = self.expect("name").spelling
            self.expect("=")
            token = self.expect("name", "string")
            labels.append((target, str(token.value), token.category == "string"))
            if not self._skip(","):
                return LabelFormat(tuple(labels))

    def _bare_names(self) -> tuple[str, ...]:
        names = [self.expect("name").spelling]
        while self._skip(","):
            names.append(self.expect("name").spelling)
        if self._is("=", "=~", "!=", "!~"):
            raise self._refuse("keep and drop take names alone")
        return tuple(names)

    def _label_condition(self) -> LabelCondition:
        tests = [self._label_conjunction()]
        while self._skip("or"):
            tests.append(self._label_conjunction())
        return tests[0] if len(tests) == 1 else LabelLogic("or", tuple(tests))

    def _label_conjunction(self) -> LabelCondition:
        tests = [self._label_test()]
        # Tests side by side are joined as by `and`.
        while self._skip("and", ",") or self._is("name"):
            if self._is("or"):
                break
            tests.append(self._label_test())
        return tests[0] if len(tests) == 1 else LabelLogic("and", tuple(tests))

    def _label_test(self) -> LabelCondition:
        if self._skip("("):
            with self._deeper():
                condition = self._label_condition()
            self.expect(")")
            return condition
        name = self.expect("name").spelling
        operator = self.expect("=", "=~", "!~", *_COMPARISONS).spelling
        if self._is("ip"):
            raise self._refuse("ip() is not supported")
        sign = -1.0 if self._skip("-") else 1.0
        token = self.expect("string", "number", "duration", "bytes")
        if token.category == "string":
            if operator not in ("=", "!=", "=~", "!~"):
                raise self._refuse(f"{operator} compares with a number")
            return LabelTest(name, operator, str(token.value))
        if operator in ("=~", "!~"):
            raise self._refuse(f"{operator} matches a text in quotes")
        unit = "" if token.category == "number" else token.category
        return LabelTest(
            name, "==" if operator == "=" else operator, sign * float(token.value), unit
        )

    def _range_aggregation(self) -> RangeAggregation:
        function, parameter = self.expect("name").spelling, None
        if function == "absent_over_time":
            raise self._refuse("absent_over_time is not supported")
        grouping = self._grouping()
        self.expect("(")
        if self._is("number"):
            parameter = float(self.expect("number").value)
            self.expect(",")
        if (function == "quantile_over_time") != (parameter is not None):
            raise self._refuse("quantile_over_time takes a number from 0 to 1, and no other does")
        selection, span, offset, unwrap, conversion = self._range()
        self.expect(")")
        needs_number = function.endswith("_over_time") and function[:5] not in ("count", "bytes")
        if needs_number and not unwrap:
            raise self._refuse(f"{function} is of numbers: | unwrap NAME says of which label")
        return RangeAggregation(
            *(function, selection, span, offset, unwrap, conversion, parameter),
            grouping or self._grouping(),
        )

    def _range(self) -> tuple[LogSelection, int, int, str, str]:
        selection = self._primary()
        if not isinstance(selection, LogSelection):
            raise self._refuse('lines are expected here: a selector, such as {source="web"}')
        unwrap, conversion = self._unwrap()
        self.expect("[")
        span = int(float(self.expect("duration").value) * 1e6)
        self.expect("]")
        if not span:
            raise self._refuse("the span is 0")
        # Loki's grammar has stages and unwrap before the span, or behind it.
        selection = LogSelection(selection.matchers, (*selection.stages, *self._stages()))
        if not unwrap:
            unwrap, conversion = self._unwrap()
        offset = 0
        if self._skip("offset"):
            sign = -1 if self._skip("-") else 1
            offset = sign * int(float(self.expect("duration").value) * 1e6)
        return selection, span, offset, unwrap, conversion

    def _unwrap(self) -> tuple[str, str]:
        if not self._is("|"):
            return "", ""
        self.expect("|")
        self.expect("unwrap")
        name, conversion = self.expect("name").spelling, ""
        if name in _CONVERSIONS and self._skip("("):
            conversion, name = name, self.expect("name").spelling
            self.expect(")")
        if self._is("|"):
            raise self._refuse("a filter behind unwrap is not supported: put it before")
        return name, conversion

    def _vector_aggregation(self) -> VectorAggregation:
        function, parameter = self.expect("name").spelling, None
        grouping = self._grouping()
        self.expect("(")
        if function in ("topk", "bottomk", "approx_topk"):
            parameter = int(float(self.expect("number").value))
            self.expect(",")
            if parameter < 1:
                raise self._refuse(f"{function} is of at least one series")
        operand = self._metric(self.expression())
        self.expect(")")
        return VectorAggregation(function, operand, grouping or self._grouping(), parameter)

    def _grouping(self) -> Grouping | None:
        if not self._is("by", "without"):
            return None
        return Grouping(is_without=self.expect("name").spelling == "without", names=self._names())

    def _names(self) -> tuple[str, ...]:
        self.expect("(")
        names = []
        while not self._is(")"):
            names.append(self.expect("name").spelling)
            if not self._skip(","):
                break
        self.expect(")")
        return tuple(names)

    def _label_replacement(self) -> LabelReplacement:
        self.expect("(")
        operand = self._metric(self.expression())
        strings = []
        for _ in range(4):
            self.expect(",")
            strings.append(str(self.expect("string").value))
        self.expect(")")
        return LabelReplacement(operand, *strings)
