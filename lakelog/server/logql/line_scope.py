"""Labels and lines as SQL over `events`: what each stage of a pipeline makes of them.

The labels of an event are its type, category, source and level, and those with which Loki's push
brought it (`data.labels`, `data.metadata`); any other name means a member of its payload. Its line
is its message, or else its payload.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lakelog.server.logql.syntax import (
    Decolorize,
    LabelChoice,
    LabelCondition,
    LabelFormat,
    LabelLogic,
    LabelTest,
    LineFilter,
    LineFormat,
    LineParser,
    LogQLFault,
    LogSelection,
    PipelineStage,
)
from lakelog.sql import json_path, literal

LINE = "__line__"
_FIELD = re.compile(r"\{\{-?\s*(?:\.([A-Za-z_][A-Za-z0-9_]*)|(__line__))\s*-?\}\}")
_CAPTURE = re.compile(r"<([A-Za-z_][A-Za-z0-9_]*)>")
_STEP = re.compile(r'\.?([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+)\]|\["((?:[^"\\]|\\.)*)"\]')


def template_parts(template: str) -> list[tuple[str, bool]]:
    """Return a template as (text, whether it names a label). Raises LogQLFault."""
    fragments, place = [], 0
    for match in _FIELD.finditer(template):
        fragments.append((template[place : match.start()], False))
        fragments.append((match[1] or match[2], True))
        place = match.end()
    fragments.append((template[place:], False))
    if any("{{" in fragment for fragment, is_name in fragments if not is_name):
        raise LogQLFault("a template may have {{.label}} and {{__line__}}, and no functions")
    return [(fragment, is_name) for fragment, is_name in fragments if fragment]


def named_groups(pattern: str) -> dict[str, int]:
    """Return the named groups of a regular expression, by number. Raises LogQLFault."""
    try:
        groups = dict(re.compile(pattern).groupindex)
    except (re.error, RecursionError, OverflowError) as error:
        raise LogQLFault(f"the regular expression {pattern[:60]!r} is wrong: {error}") from None
    if not groups:
        raise LogQLFault("| regexp takes labels from groups with names: (?P<name>…)")
    return groups


def capture_pattern(pattern: str) -> str:
    """Return the regular expression of a pattern such as `<ip> - <_> <path>`."""
    fragments = _CAPTURE.split(pattern)
    names = [name for name in fragments[1::2] if name != "_"]
    if not names or len({*names}) < len(names):
        raise LogQLFault("| pattern takes labels from captures with different names: <name>")
    # A pattern that begins with a capture begins with the line: that would begin anywhere else.
    expression = "" if fragments[0] else "^"
    for number, fragment in enumerate(fragments):
        if number % 2 == 0:
            if not fragment and 0 < number < len(fragments) - 1:
                raise LogQLFault("two captures of a pattern need a text between them")
            expression += re.escape(fragment)
            continue
        is_final = number == len(fragments) - 2 and not fragments[-1]
        # The last one goes to the end of the line, each other one up to the text behind it.
        body = ".*" if is_final else ".*?"
        expression += f"(?:{body})" if fragment == "_" else f"(?P<{fragment}>{body})"
    return expression


def json_steps(expression: str) -> list[str | int]:
    """Return the steps of a path such as a.b[0]["c d"]. Raises LogQLFault."""
    steps, place = list[str | int](), 0
    while place < len(expression):
        match = _STEP.match(expression, place)
        if match is None:
            raise LogQLFault(f"{expression[:60]!r} is no path into JSON, such as a.b[0]")
        plain, index, quoted = match.groups()
        steps.append(int(index) if index else plain or re.sub(r"\\(.)", r"\1", quoted))
        place = match.end()
    if not steps:
        raise LogQLFault("a path into JSON is empty")
    return steps


STREAM_COLUMNS = ("type", "category", "source", "level")
"""Columns that are labels of a stream."""
_COLUMNS = (*STREAM_COLUMNS, "subject", "id")
_PLAIN_LINE = "coalesce(message, data)"
_PAYLOAD = "CASE WHEN message IS NOT NULL AND json_valid(message) THEN message ELSE data END"
_GAPS_MAX = 4
"""A label a_b_c may be a member "a_b_c", "c" in "a_b", and so on: so many underscores at most."""
_SQL_MAX = 1 << 16
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip


@dataclass(frozen=True)
class LabelSource:
    """Where labels of a result come from besides the stream: the members of a JSON text, the pairs
    of a logfmt line, or one value; `expression` is SQL."""

    category: str
    expression: str
    name: str = ""


@dataclass(frozen=True)
class LineScope:
    """The line and the labels at one place of a pipeline, and the conditions up to there."""

    line: str = _PLAIN_LINE
    conditions: tuple[str, ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()
    """Labels by name that a stage has made; "NULL" for those that are gone."""
    parsers: tuple[LabelSource, ...] = ()
    sources: tuple[LabelSource, ...] = ()
    choices: tuple[LabelChoice, ...] = ()

    def label(self, name: str) -> str:
        """SQL for the value of a label, NULL where there is none."""
        overridden = dict(self.overrides)
        if name in overridden:
            return overridden[name]
        if name.startswith("__error"):  # what does not parse has no labels, and no error
            return "NULL"
        # A label of the stream goes before a parsed one of the same name, which Loki calls
        # NAME_extracted.
        extractions = [_extraction(parser, name) for parser in self.parsers]
        base = name.removesuffix("_extracted")
        if base != name:
            extractions += [_extraction(parser, base) for parser in self.parsers]
        return _coalesced(_stream_label(name), *filter(None, extractions), _member(name))

    def applied(self, stage: PipelineStage) -> LineScope:
        """The scope behind a stage. Raises LogQLFault."""
        if isinstance(stage, LineFilter):
            function = "contains" if stage.operator in ("|=", "!=") else "regexp_matches"
            tests = [f"{function}({self.line}, {literal(value)})" for value in stage.values]
            matches = f"({' OR '.join(tests)})"
            return self._where(f"NOT {matches}" if stage.operator.startswith("!") else matches)
        if isinstance(stage, (LabelTest, LabelLogic)):
            return self._where(condition_sql(self, stage))
        if isinstance(stage, LineParser):
            return self._parsed(stage)
        if isinstance(stage, LineFormat):
            return dataclasses.replace(self, line=_bounded(self._filled(stage.template)))
        if isinstance(stage, Decolorize):
            line = f"regexp_replace({self.line}, '\\x1b\\[[0-9;]*m', '', 'g')"
            return dataclasses.replace(self, line=line)
        if isinstance(stage, LabelChoice):
            scope = dataclasses.replace(self, choices=(*self.choices, stage))
            if stage.is_kept:
                return scope
            dropped = tuple((name, "NULL") for name in stage.names)
            return dataclasses.replace(scope, overrides=(*self.overrides, *dropped))
        return self._formatted(stage)

    def _where(self, condition: str) -> LineScope:
        return dataclasses.replace(self, conditions=(*self.conditions, condition))

    def _parsed(self, stage: LineParser) -> LineScope:
        # Which labels these give only each line knows: one is extracted where a stage asks for it.
        if stage.name == "json" and not stage.expressions:
            json = _PAYLOAD if self.line == _PLAIN_LINE else _json_of(self.line)
            return self._with_parser(LabelSource("json", json))
        if stage.name == "logfmt" and not stage.expressions:
            return self._with_parser(LabelSource("logfmt", self.line))
        if stage.name == "json":
            json = _PAYLOAD if self.line == _PLAIN_LINE else _json_of(self.line)
            values = {
                name: f"json_extract_string({json}, {_path(json_steps(path))})"
                for name, path in stage.expressions
            }
        elif stage.name == "logfmt":
            values = {name: _logfmt(self.line, key) for name, key in stage.expressions}
        else:
            is_pattern = stage.name == "pattern"
            pattern = capture_pattern(stage.pattern) if is_pattern else stage.pattern
            values = {
                name: f"nullif(regexp_extract({self.line}, {literal(pattern)}, {number}), '')"
                for name, number in named_groups(pattern).items()
            }
        labels = {name: _coalesced(_stream_label(name), value) for name, value in values.items()}
        return self._with_labels(labels)

    def _with_parser(self, parser: LabelSource) -> LineScope:
        return dataclasses.replace(
            self, parsers=(*self.parsers, parser), sources=(*self.sources, parser)
        )

    def _with_labels(self, labels: dict[str, str]) -> LineScope:
        sources = [LabelSource("value", _bounded(value), name) for name, value in labels.items()]
        return dataclasses.replace(
            self,
            overrides=tuple({**dict(self.overrides), **labels}.items()),
            sources=(*self.sources, *sources),
        )

    def _formatted(self, stage: LabelFormat) -> LineScope:
        labels = {}
        for name, value, is_template in stage.labels:
            labels[name] = self._filled(value) if is_template else self.label(value)
            if not is_template:
                # A rename: the label of the old name is gone.
                labels.setdefault(value, "NULL")
        return self._with_labels(labels)

    def _filled(self, template: str) -> str:
        fragments = [
            literal(fragment)
            if not is_name
            else (self.line if fragment == LINE else f"coalesce({self.label(fragment)}, '')")
            for fragment, is_name in template_parts(template)
        ]
        return f"concat({', '.join(fragments) or literal('')})"


def scope_of(selection: LogSelection) -> LineScope:
    """The scope at the end of a pipeline. Raises LogQLFault."""
    scope = LineScope()
    for matcher in selection.matchers:
        scope = scope._where(condition_sql(scope, matcher))
    for stage in selection.stages:
        scope = scope.applied(stage)
    return scope


def number_sql(value: str, conversion: str) -> str:
    """SQL for the number that a label is; seconds of a duration, bytes of a size; NULL for none."""
    if conversion in ("duration", "duration_seconds"):
        return _sum_of_units(value, _UNITS)
    if conversion == "bytes":
        return f"coalesce(try_cast({value} AS DOUBLE), {_sum_of_units(f'lower({value})', _SIZES)})"
    return f"try_cast({value} AS DOUBLE)"


def condition_sql(scope: LineScope, condition: LabelCondition) -> str:
    """SQL for tests of labels."""
    if isinstance(condition, LabelLogic):
        tests = [condition_sql(scope, test) for test in condition.tests]
        return f"({f' {condition.operator.upper()} '.join(tests)})"
    if isinstance(condition.value, str):
        return _matcher_sql(scope, condition, condition.value)
    number = number_sql(scope.label(condition.name), condition.unit)
    operator = "=" if condition.operator == "==" else condition.operator
    # To the engine NaN is above all numbers.
    most = f" AND {number} <= 'Infinity'::DOUBLE" if operator in (">", ">=") else ""
    return f"coalesce({number} {operator} {condition.value!r}{most}, false)"


def _matcher_sql(scope: LineScope, matcher: LabelTest, matched_text: str) -> str:
    value = f"coalesce({scope.label(matcher.name)}, '')"
    operand = literal(matched_text)
    if matcher.operator in ("=~", "!~"):
        is_not = "NOT " if matcher.operator == "!~" else ""
        return f"{is_not}regexp_full_match({value}, {operand})"
    return f"{value} {'<>' if matcher.operator == '!=' else '='} {operand}"


def _stream_label(name: str) -> str:
    pushed = [f"(data->>{json_path((home, name))})" for home in ("labels", "metadata")]
    if name == "service_name":
        return _coalesced(*pushed, "source")
    if name == "detected_level":
        return _coalesced(*pushed, "lower(level)")
    return _coalesced(*pushed, name) if name in _COLUMNS else _coalesced(*pushed)


def _member(name: str) -> str:
    is_label = name in (*_COLUMNS, "labels", "metadata", "service_name", "detected_level")
    return "NULL" if is_label else f"(data->>{json_path((name,))})"


def _extraction(parser: LabelSource, name: str) -> str:
    if parser.category == "logfmt":
        return _logfmt(parser.expression, name)
    json = parser.expression
    paths = [json_path(path) for path in _spellings(name)]
    if "_" in name:
        paths.append(_pointer(json, name))
    return _coalesced(*(f"json_extract_string({json}, {path})" for path in paths))


def _pointer(json: str, name: str) -> str:
    """SQL for a JSON pointer to the member that is a label, NULL for none: http_route may be
    "http.route"."""
    keys = literal(_key_pattern(name, "[^A-Za-z0-9]"))
    key = f"list_filter(json_keys({json}), lambda k: regexp_full_match(k, {keys}))[1]"
    return f"'/' || replace(replace({key}, '~', '~0'), '/', '~1')"


def _key_pattern(name: str, other: str) -> str:
    """The regular expression of the keys that are a label: `other` is what stands as _ there, and
    so does nothing before a key that begins with a digit."""
    beginning = f"(?:{other})?" if name[:1] == "_" and name[1:2].isdigit() else ""
    return beginning + (name[1:] if beginning else name).replace("_", other)


def _spellings(name: str) -> list[list[str]]:
    """The members that are flattened to a name: a_b is "a_b", or "b" in "a"."""
    fragments = name.split("_")
    if len(fragments) - 1 > _GAPS_MAX:
        return [[name], fragments]
    spellings = []
    for joins in itertools.product("_.", repeat=len(fragments) - 1):
        joined = fragments[0] + "".join(
            ("_" if join == "_" else "\0") + fragment
            for join, fragment in zip(joins, fragments[1:], strict=True)
        )
        spellings.append(joined.split("\0"))
    return spellings


def _path(steps: list[str | int]) -> str:
    escaped = (
        f"[{step}]"
        if isinstance(step, int)
        else '."' + step.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for step in steps
    )
    return literal("$" + "".join(escaped))


def _bounded(expression: str) -> str:
    """SQL that a template made, which may double with each stage. Raises LogQLFault."""
    if len(expression) > _SQL_MAX:
        raise LogQLFault("the templates of the query become too long")
    return expression


def _json_of(line: str) -> str:
    return f"CASE WHEN json_valid({line}) THEN {line} END"


def _logfmt(line: str, name: str) -> str:
    key = _key_pattern(name, r'[^A-Za-z0-9\s="]')
    pattern = literal(rf'(?:^|\s){key}=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))')
    quoted, bare = (f"regexp_extract({line}, {pattern}, {group})" for group in (1, 2))
    return f"nullif(replace({quoted}, '\\\"', '\"') || {bare}, '')"


def _sum_of_units(value: str, units: Mapping[str, float]) -> str:
    # The longest first, or `ms` would be read as `m` with an `s` left over.
    names = "|".join(sorted(units, key=len, reverse=True))
    is_whole = f"regexp_full_match({value}, '-?([0-9.]+ ?({names}))+')"
    amounts = []
    for unit, size in units.items():
        amount = f"regexp_extract({value}, '([0-9.]+) ?{unit}(?:[^a-zµ]|$)', 1)"
        amounts.append(f"coalesce(try_cast({amount} AS DOUBLE), 0) * {size!r}")
    sign = f"CASE WHEN starts_with({value}, '-') THEN -1 ELSE 1 END"
    return f"CASE WHEN {is_whole} THEN {sign} * ({' + '.join(amounts)}) END"


def _coalesced(*expressions: str) -> str:
    present = [e for e in expressions if e != "NULL"]
    if not present:
        return "NULL"
    return present[0] if len(present) == 1 else f"coalesce({', '.join(present)})"


def require_known_labels(scope: LineScope) -> None:
    """Refuse to enumerate labels that only each line knows. Raises LogQLFault."""
    if scope.parsers:
        raise LogQLFault(
            "say by which labels: sum by (level) (…). Behind | json and | logfmt, series of all"
            " labels are not supported"
        )
