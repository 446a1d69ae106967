"""Extractions from the payload: which member an expression takes out of it, and the SQL that
gives that over segments of one kind.

The answer is always that of the JSON function over the payload's text. Over typed segments it comes
from the column of the member, where that is the same: so DuckDB reads no other column, and filters
on it skip row groups by their statistics. Otherwise the text of that member alone is put together
again, and the JSON function applied to that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lakelog import sql, typed_columns
from lakelog.engine.syntax import Node
from lakelog.event import EVENT_COLUMNS
from lakelog.query.sql.tree import FIELDS, TYPES
from lakelog.segments import SegmentScan
from lakelog.typed_columns import Member, Schema

_ESCAPED, _BEHIND = re.compile(r'[\\"]'), r"\\\g<0>"
PathStep = str | int
"""A name of a member, or a place in a list, the first being 0."""
_FUNCTIONS = {"json": "json_extract", "text": "json_extract_string", "value": "json_value"}
_CASTS = {frozenset(("int",)): "BIGINT", frozenset(("bool",)): "BOOLEAN"}
_CASTS |= {frozenset(kinds): "DOUBLE" for kinds in (("float",), ("int", "float"))}
_NESTED = frozenset(("object", "list", "mixed"))
"""Kinds of the ledger whose values are JSON."""
_SAME = {
    "int": frozenset(
        "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT DOUBLE".split()
    ),
    "float": frozenset(("DOUBLE",)),
    "number": frozenset(("DOUBLE",)),
    "bool": frozenset(("BOOLEAN",)),
}
"""Types to which a value of a kind is cast as its text would be. Others round differently."""
_SAFE = {**_SAME, "int": frozenset(("BIGINT", "HUGEINT", "DOUBLE"))}
"""Those of them that every value of a kind has."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a query takes out of the payload.

    `mode` is `json` (->), `text` (->>), `value` (json_value), or `fields`: the value in the type of
    its kinds, for which `with_kinds` gives another extraction. `cast` is the type around it, "" for
    none; with `is_try` what has no value of that type is NULL. With `is_guarded` it stands in a
    cast that fails.
    """

    path: tuple[PathStep, ...]
    mode: str
    cast: str = ""
    is_try: bool = False
    is_guarded: bool = False

    def with_kinds(self, kinds: frozenset[str]) -> Extraction:
        """Return the extraction of a field whose values are of these kinds of the ledger, in the
        type that holds them all: text where they contradict each other."""
        # Only nested values: they are JSON in any type.
        if kinds and kinds <= _NESTED:
            return replace(self, mode="json")
        cast = _CASTS.get(kinds, "")
        return replace(self, mode="text", cast=cast, is_try=bool(cast))

    def column_sql(self, schema: Schema | None, has_texts: bool) -> str:
        """Return the SQL of it over rows with columns `data` and, with a schema, `fields`."""
        if schema is None:
            return self.text_sql()
        value = self._typed_sql(schema)
        # A segment may have payloads as text beside its columns, which are then read for their
        # rows.
        return f"coalesce({value}, {self.text_sql()})" if has_texts else value

    def text_sql(self) -> str:
        """Return the SQL of it over payloads that are text in `data`."""
        return self._cast(f"{_FUNCTIONS[self.mode]}(data, {_path(self.path)})")

    def _typed_sql(self, schema: Schema) -> str:
        member, steps, parent = _find(schema, self.path)
        if member is None:
            return f"NULL::{self._type()}"
        column = f"{parent}.{sql.identifier(member.name)}"
        member_kind = _kind(member) if not steps else ""
        is_coded = member_kind == "text" != member.kind  # then no member alone is the text
        is_cast = self.is_guarded or self.cast not in ("", *_SAFE.get(member_kind, ()))
        if not is_coded and (member_kind == "text" or is_cast):
            column = _guarded(column)
        value = member.plain_sql(column) if member_kind == "text" else column
        if self.mode in ("json", "text") and self.cast in _SAME.get(member_kind, ()):
            # Straight from the column where its value casts as its text would.
            return f"{'TRY_' if self.is_try else ''}CAST({column} AS {self.cast})"
        if self.mode == "text" and member_kind == "text":
            return self._cast(value)
        if self.mode == "text" and member_kind in ("int", "bool"):
            return self._cast(f"{column}::VARCHAR")
        if (
            member_kind == "number"
            and self.mode == "text"
            and self.cast == "BIGINT"
            and self.is_try
        ):
            # A double of 1e3 is 1000 to BIGINT, though its text is not.
            return _whole_sql(column)
        # Spelled as the JSON functions do, which is not always as in the payload.
        if self.mode == "text" and member_kind == "number":
            return self._cast(_number_sql(column))
        if self.mode == "text" and member_kind == "float":
            return self._cast(f"to_json({column})::VARCHAR")
        if (
            self.mode == "json"
            and member_kind in ("text", "int", "bool", "float")
            and not member.null
        ):
            return self._cast(f"to_json({value})")
        function = _FUNCTIONS[self.mode]
        if member.null and self.mode != "text":  # null and absence are two things to the others
            rendered = typed_columns.Schema((member,)).text_sql(parent)
            return self._cast(f"{function}({rendered}, {_path((member.name, *steps))})")
        rendered = member.json_sql(column)
        return self._cast(f"{function}({rendered}, {_path(steps)})")

    def _cast(self, value: str) -> str:
        if not self.cast:
            return value
        return f"{'TRY_' if self.is_try else ''}CAST({value} AS {self.cast})"

    def _type(self) -> str:
        return self.cast or ("JSON" if self.mode == "json" else "VARCHAR")


class WideColumns:
    """The columns of a table for extractions, in scans of any kind."""

    def __init__(self, columns: Sequence[Extraction]) -> None:
        self._columns = columns

    def __call__(self, scan: SegmentScan) -> list[str]:
        """Return the columns as SQL over the rows of a scan."""
        return [
            f"{extraction.column_sql(scan.schema, scan.has_texts)} AS {sql.identifier(name(place))}"
            for place, extraction in enumerate(self._columns)
        ]


@dataclass(frozen=True)
class TypeTable:
    """The events of a type, and the fields of their payloads as columns of names instead of
    `data`."""

    SCHEMA: ClassVar = TYPES
    """The schema of such tables."""
    COLUMNS: ClassVar = (*(column for column in EVENT_COLUMNS if column != "data"), "seq")
    """The columns of events that it has."""
    type: str
    columns: tuple[tuple[str, Extraction], ...]

    @property
    def values(self) -> tuple[Extraction, ...]:
        """The values of the columns of fields."""
        return tuple(value for _, value in self.columns)

    def rows_sql(self, rows: str) -> str:
        """SQL for the table over `rows`: those of events, with `values` as more columns."""
        fields = (
            f"{sql.identifier(name(place))} AS {sql.identifier(field)}"
            for place, (field, _) in enumerate(self.columns)
        )
        columns = ", ".join((*self.COLUMNS, *fields))
        # A session may have a collation by which other types are equal to it.
        return f"SELECT {columns} FROM ({rows}) WHERE type = {sql.literal(self.type)} COLLATE C"


def name(place: int) -> str:
    """Return the name of the column for the extraction of a place in the list."""
    return f"data~{place}"


def _find(
    schema: Schema, path: tuple[PathStep, ...]
) -> tuple[Member | None, tuple[PathStep, ...], str]:
    """Return the deepest member on a path that is a column, the rest of the path, and the SQL of
    the struct that holds it; None where no row of the schema has a value there."""
    members, parent = schema.members, "fields"
    for depth, step in enumerate(path):
        # The engine's names of columns ignore case, those of JSON do not.
        member = next((m for m in members if m.name == step), None)
        # No member of the schema: every row of these segments lacks it.
        if member is None:
            break
        steps = path[depth + 1 :]
        if not steps or member.kind in ("list", "json"):
            return member, steps, parent
        members, parent = member.members, f"{parent}.{sql.identifier(member.name)}"
        if member.kind != "object":
            break
    return None, (), parent


def _kind(member: Member) -> str:
    """Return the kind of the values of a member, `text` for texts however they are stored."""
    return "text" if member.is_text else member.kind


def _guarded(column: str) -> str:
    """SQL for a member that the reader gives as it is.

    Of a bare member it does a cast itself, for all rows: those too that a condition or a CASE
    leaves out, and that may fail. Conditions on a guarded one reach the reader all the same.
    """
    return f"coalesce({column}, NULL)"


def _number_sql(column: str) -> str:
    whole = f"TRY_CAST({column} AS BIGINT)::VARCHAR"
    return f"CASE WHEN {_is_whole(column)} THEN {whole} ELSE to_json({column})::VARCHAR END"


def _whole_sql(column: str) -> str:
    """SQL for the cast of the text of a number to BIGINT, where that does not make a text."""
    # Above 2**53 doubles no longer hold every integer.
    from_text = f"TRY_CAST(to_json({column})::VARCHAR AS BIGINT)"
    return f"CASE WHEN {_is_whole(column)} THEN TRY_CAST({column} AS BIGINT) ELSE {from_text} END"


def _is_whole(column: str) -> str:
    return f"abs({column}) < {1 << 53} AND {column} = trunc({column})"


def _path(path: tuple[PathStep, ...]) -> str:
    steps = (f"[{s}]" if isinstance(s, int) else f'."{_ESCAPED.sub(_BEHIND, s)}"' for s in path)
    return sql.literal("$" + "".join(steps))


_MODES = {
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
    # DISTINCT or FILTER in a call are of an aggregate of that name.
    plain = not value["distinct"] and not value["filter"] and not value["order_bys"]["orders"]
    has_names = any(argument["name"] for argument in value["arguments"])
    return _MODES.get(value["function_name"], "") if plain and not has_names else ""


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
        # A path in JSON's own syntax, a name with quotes or none.
        or not literal
        or ('"' in literal.removeprefix("$") and literal[0] != "$")
    ):
        return ()
    if literal[0] == "$":
        steps = _STEP.findall(literal) if _PATH.fullmatch(literal) else ()
        return tuple(bare or quoted or int(place) for bare, quoted, place in steps)
    is_name = literal[0] != "/" and not any(c in literal for c in '\\*"\0')
    return (literal,) if is_name else ()
