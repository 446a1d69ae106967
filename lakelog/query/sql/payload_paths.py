"""Which member of the payload an expression takes out of it, and in which way."""

from __future__ import annotations

import re

from lakelog.engine.syntax import Node
from lakelog.query.sql.extractions import PathStep

FIELDS = "fields"
"""The name under which queries address typed columns: `fields.x.y`."""
_FUNCTIONS = {
    "->": "json",
    "->>": "text",
    "json_extract": "json",
    "json_extract_path": "json",
    "json_extract_string": "text",
    "json_extract_path_text": "text",
    "json_value": "value",
}
_PATH = re.compile(r'\$(?:\.[\w\-@: ]+|\."[^"\\*]+"|\[\d{1,9}\])+')
_STEP = re.compile(r'\.([\w\-@: ]+)|\."([^"\\*]+)"|\[(\d+)\]')


def path_of(value: Node | None) -> tuple[list[str], tuple[PathStep, ...], str] | None:
    """Return (qualifiers, path, mode) of what an expression takes out of `data` or `fields`."""
    if not isinstance(value, dict):
        return None
    node_class = value.get("class")
    if node_class == "COLUMN_REF":
        return _payload(value["column_names"])
    if node_class == "CAST":  # data::JSON
        is_json = (
            str(value["type_expr"].get("type_name")).upper() == "JSON" and not value["try_cast"]
        )
        chain = path_of(value["child"]) if is_json else None
        return chain if chain and not chain[1] else None
    if node_class == "LAMBDA" and value.get("syntax_type") == "SINGLE_ARROW":
        # The engine parses a->'b'->>'c' as a->('b'->>'c').
        operands = (
            arguments_of(value["expr"])
            if extraction_mode(value["expr"]) == "text"
            else [value["expr"]]
        )
        mode = "json" if len(operands) == 1 else "text"
        return _longer(path_of(value["lhs"]), operands, mode)
    mode = extraction_mode(value)
    operands = arguments_of(value) if mode else []
    return _longer(path_of(operands[0]), operands[1:], mode) if len(operands) == 2 else None


def _payload(names: list[str]) -> tuple[list[str], tuple[PathStep, ...], str] | None:
    """Return the same of a reference to a column: `e.data`, or `fields.x.y`."""
    if names[-1].lower() == "data":
        return names[:-1], (), "json"
    for start in (0, 1):
        if len(names) > start + 1 and names[start].lower() == FIELDS:
            return names[:start], tuple(names[start + 1 :]), FIELDS
    return None


def _longer(
    chain: tuple[list[str], tuple[PathStep, ...], str] | None, operands: list[Node], mode: str
) -> tuple[list[str], tuple[PathStep, ...], str] | None:
    if chain is None or chain[2] != "json":
        return None
    owner, steps, _ = chain
    for operand in operands:
        next_steps = _steps(operand)
        if not next_steps:
            return None
        steps += next_steps
    return owner, steps, mode


def extraction_mode(value: Node) -> str:
    """Whether a function call extracts JSON, text or a value; "" for none of them."""
    if not isinstance(value, dict) or value.get("class") != "FUNCTION" or value["schema"]:
        return ""
    plain = not value["distinct"] and not value["filter"] and not value["order_bys"]["orders"]
    has_names = any(argument["name"] for argument in value["arguments"])
    return _FUNCTIONS.get(value["function_name"], "") if plain and not has_names else ""


def arguments_of(value: Node) -> list[Node]:
    """The arguments of a function call."""
    return [argument["expression"] for argument in value["arguments"]]


def _steps(value: Node) -> tuple[PathStep, ...]:
    """Return the path that a constant is: names, and places in lists; empty for any other."""
    if not isinstance(value, dict) or value.get("class") != "CONSTANT":
        return ()
    literal_kind, literal = value["literal"]["kind"], str(value["literal"].get("text", ""))
    if literal_kind == "INTEGER" and literal.isdigit() and len(literal) < 10:
        return (int(literal),)
    if (
        literal_kind != "STRING"
        or not literal
        or ('"' in literal.removeprefix("$") and literal[0] != "$")
    ):
        return ()
    if literal[0] == "$":
        steps = _STEP.findall(literal) if _PATH.fullmatch(literal) else ()
        return tuple(bare or quoted or int(place) for bare, quoted, place in steps)
    is_name = literal[0] != "/" and not any(c in literal for c in '\\*"\0')
    return (literal,) if is_name else ()
