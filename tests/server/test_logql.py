"""LogQL as it is parsed: what Grafana's editor takes is taken, or is refused by name."""

from __future__ import annotations

import json
import subprocess

import pytest

from lakelog.server.logql.evaluation import calculate
from lakelog.server.logql.line_scope import scope_of
from lakelog.server.logql.parser import parse
from lakelog.server.logql.result_lines import flattened
from lakelog.server.logql.syntax import LogQLFault, LogSelection, seconds
from tests.support.logql_queries import PARSED, UNSUPPORTED, WRONG
from tests.support.requirements import give_up, need

_ORACLE = """
const {parser} = require('@grafana/lezer-logql');
const queries = JSON.parse(require('fs').readFileSync(0));
const isWhole = (query) => {
    let whole = true;
    parser.parse(query).iterate({enter: (node) => { if (node.type.isError) whole = false; }});
    return whole;
};
process.stdout.write(JSON.stringify(queries.map(isWhole)));
"""


def verdicts(queries: list[str]) -> list[bool]:
    """Which queries Grafana's grammar takes; NODE_PATH names the directory that has it."""
    need("node")
    process = subprocess.run(
        ["node", "-e", _ORACLE], input=json.dumps(queries), capture_output=True, text=True
    )
    if "Cannot find module" in process.stderr:
        give_up("@grafana/lezer-logql (npm package), and NODE_PATH")
    assert process.returncode == 0, process.stderr
    return list(json.loads(process.stdout))


def fault_of(query: str) -> str:
    try:
        parse(query)
    except LogQLFault as fault:
        return str(fault)
    return ""


def test_queries_parse() -> None:
    assert {query: fault for query in PARSED if (fault := fault_of(query))} == {}


def test_what_is_not_supported_is_named() -> None:
    words = ("not supported", "takes no flags", "take names alone")
    faults = {query: fault_of(query) for query in UNSUPPORTED}
    assert {q: f for q, f in faults.items() if not any(word in f for word in words)} == {}


def test_what_is_no_query_is_refused_with_its_place() -> None:
    faults = [fault_of(query) for query in WRONG]
    assert all("line 1, col " in fault for fault in faults), faults
    assert "an operand is a number" in fault_of('{app="web"} + 1')
    assert "line 2, col 5" in fault_of('{a="b"}\n |= x')


def test_grafanas_grammar_agrees() -> None:
    queries = [*PARSED, *UNSUPPORTED, *WRONG]
    expected = [True] * len(PARSED + UNSUPPORTED) + [False] * len(WRONG)
    judged = verdicts(queries)
    assert [q for q, is_whole, wanted in zip(queries, judged, expected, strict=True)
            if is_whole is not wanted] == []  # fmt: skip


def test_precedence_is_that_of_arithmetic() -> None:
    def value(query: str) -> float:
        def of(tree: object) -> float:
            if isinstance(tree, float):
                return tree
            return calculate(tree.operator, of(tree.left_side), of(tree.right_side))  # type: ignore[attr-defined]

        return of(parse(query))

    cases = {"1 + 2 * 3": 7, "(1 + 2) * 3": 9, "2 ^ 3 ^ 2": 512, "10 - 2 - 3": 5, "7 % 4 + 1": 4}
    assert {query: value(query) for query in cases} == cases


def test_texts_in_quotes_and_backticks() -> None:
    tree = parse('{a="x\\"\\u00e9\\x41\\n", b=`c\\d"`}')
    assert isinstance(tree, LogSelection)
    assert [matcher.value for matcher in tree.matchers] == ['x"éA\n', 'c\\d"']


def test_a_query_of_any_depth_and_length_ends() -> None:
    assert "too deeply" in fault_of("(" * 5_000 + "1" + ")" * 5_000)
    assert "too deeply" in fault_of('{a="b"} | ' + "(" * 5_000)
    assert "more than" in fault_of("1 + " * 50_000 + "1")
    assert "more than" in fault_of("1 + " * 5_000 + "1")
    assert "more than" in fault_of('{a="b"}' + " | json" * 3_000)
    doubled = parse('{a="b"}' + ' | line_format "{{__line__}}{{__line__}}"' * 40)
    with pytest.raises(LogQLFault, match="too long"):
        scope_of(doubled)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"), [("1h30m", 5400), ("1.5s", 1.5), ("100ms", 0.1), ("1d", 86400)]
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


def test_nested_members_are_flattened() -> None:
    assert flattened({"a": {"b": 1, "c-d": "x"}, "l": [1], "n": None, "t": True}) == {
        "a_b": "1",
        "a_c_d": "x",
        "t": "true",
    }
