"""Types that a user gives columns of a table, in place of those that the mapping has for them.

A name means the same for all targets, of which each has its own spelling and lacks some. Values are
converted by the engine, so that a row whose value cannot be converted is known before it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lakelog import sql
from lakelog.errors import InvalidSetting
from lakelog.runtime.closest import did_you_mean
from lakelog.runtime.tables import ModuleFiles

_DIGITS_MAX = 38
_TABLES = ModuleFiles(__file__).tables("types.toml")
_ENGINE_TYPES, _ALIASES = _TABLES["engine"], _TABLES["aliases"]
_KINDS = dict.fromkeys(("varchar", "keyword", "json", "jsonb", "uuid"), "text") | dict.fromkeys(
    ("smallint", "integer"), "bigint"
)
_ITEMS = ("text", "uuid", "smallint", "integer", "bigint", "double", "boolean")
"""What an array may be of."""
_ARGUMENTS = {"varchar": (1, "a length, such as varchar(80)")} | {
    "numeric": (2, "digits and those after the point, such as numeric(12,2)")
}
_SYNTAX = re.compile(r"([a-z][a-z0-9 ]*?) ?(?:\(([\d, ]+)\))?(\[\])?")


@dataclass(frozen=True)
class ColumnType:
    """A type by its name; with its length, or its digits in all and after the point."""

    name: str
    arguments: tuple[int, ...] = ()
    is_array: bool = False

    @classmethod
    def parse(cls, spelling: str) -> ColumnType:
        """Return the type of `numeric(12,2)`, `integer[]` and the like. Raises InvalidSetting."""
        match = _SYNTAX.fullmatch(" ".join(spelling.lower().split()))
        name = _ALIASES.get(match[1], match[1]) if match else ""
        if match is None or name not in _ENGINE_TYPES:
            raise InvalidSetting(
                f"there is no type {spelling!r}: it is one of {', '.join(_ENGINE_TYPES)}"
            )
        arguments = tuple(int(digits) for digits in (match[2] or "").split(",") if digits.strip())
        count, usage = _ARGUMENTS.get(name, (0, "nothing in parentheses"))
        # The defaults let the checks below name what is missing, in place of an IndexError.
        digits, scale = (*arguments, 1, 0)[:2]
        is_fitting = name != "numeric" or (digits <= _DIGITS_MAX and scale <= digits)
        if len(arguments) != count or not digits or not is_fitting:
            raise InvalidSetting(f"the type {spelling!r}: {name} has {usage}")
        if match[3] and name not in _ITEMS:
            raise InvalidSetting(f"the type {spelling!r}: an array is of {', '.join(_ITEMS)}")
        return cls(name, arguments, bool(match[3]))

    def __str__(self) -> str:
        return self.spelled(self.name)

    def spelled(self, base: str) -> str:
        """Return the type with another name."""
        arguments = f"({','.join(map(str, self.arguments))})" if self.arguments else ""
        return f"{base}{arguments}{'[]' if self.is_array else ''}"

    @property
    def kind(self) -> str:
        """The kind of its values, as a TargetColumn has it: those of arrays are JSON text."""
        return "text" if self.is_array else _KINDS.get(self.name, self.name)

    @property
    def is_json(self) -> bool:
        """Whether its values are JSON text."""
        return self.is_array or self.name in ("json", "jsonb")

    @property
    def scale(self) -> int:
        """The digits after the point."""
        return self.arguments[1] if self.name == "numeric" else 0

    @property
    def engine_type(self) -> str:
        """What the engine calls it."""
        base = _ENGINE_TYPES[self.name]
        return f"{base}[]" if self.is_array else self.spelled(base)


@dataclass(frozen=True)
class TypeNames:
    """The types of a target: its own spelling of each, by name."""

    names: Mapping[str, str]
    has_arrays: bool = False
    has_arguments: bool = True

    def spell(self, column_type: ColumnType) -> str:
        """Return the spelling of a type that `require` has let pass."""
        base = self.names[column_type.name]
        return column_type.spelled(base) if self.has_arguments else base

    def require(self, column_type: ColumnType, place: str) -> None:
        """Raise InvalidSetting for a type that the target does not have."""
        if column_type.name not in self.names:
            raise InvalidSetting(
                f"{place} has no type {column_type}: it has {', '.join(self.names)}"
            )
        if column_type.is_array and not self.has_arrays:
            raise InvalidSetting(f"{place} has no arrays: use json, or text")


@dataclass(frozen=True)
class Conversion:
    """SQL that makes values of a column those of a type: `value` is null where one cannot be
    converted, `source` only where there is none."""

    column: str
    column_type: ColumnType
    source: str
    value: str

    @classmethod
    def of(cls, column: str, sql_type: str, column_type: ColumnType) -> Conversion:
        """Return the conversion of a column that has a type of the engine."""
        source, is_nested = sql.identifier(column), bool(re.search(r"\]$|\)$", sql_type))
        is_nested = is_nested and not sql_type.startswith("DECIMAL")
        # JSON's null is no list: it stays null, and is not a value that failed.
        if sql_type == "JSON" and column_type.is_array:
            source = f"CASE WHEN {source}::VARCHAR <> 'null' THEN {source} END"
        elif sql_type == "JSON" and not column_type.is_json:
            # A string without its quotes, and null where it is null.
            source = f"({source}->>'$')"
        if column_type.is_array:
            items = source if sql_type.endswith("]") else f"TRY_CAST({source} AS JSON)"
            value = _array(items, column_type.engine_type)
        elif column_type.is_json:
            is_text = sql_type in ("VARCHAR", "JSON")
            # A text that is no JSON fails; any other value has a form in JSON.
            value = f"TRY_CAST({source} AS JSON)" if is_text else f"to_json({source})"
        elif is_nested and column_type.kind == "text":
            value = f"to_json({source})::VARCHAR"
        else:
            value = f"TRY_CAST({source} AS {column_type.engine_type})"
        if column_type.name == "varchar":
            value = f"CASE WHEN length({value}) <= {column_type.arguments[0]} THEN {value} END"
        return cls(column, column_type, source, value)

    @property
    def has_failed(self) -> str:
        """SQL for whether a value cannot be converted."""
        return f"({self.source} IS NOT NULL AND {self.value} IS NULL)"


def read_types(
    columns: Mapping[str, str], names: list[str], types: TypeNames, place: str, key: str
) -> dict[str, ColumnType]:
    """Return types by column, checked against the columns that there are, of which `key` has its
    own type, and the types of a target. Raises InvalidSetting."""
    column_types = {}
    for column, spelling in columns.items():
        # A misspelt column would otherwise be without its type, and nobody would notice.
        if column not in names:
            hint = did_you_mean(column, names) or f"it has {', '.join(names)}"
            raise InvalidSetting(f"the mapping has no column {column!r}: {hint}")
        if column == key:
            raise InvalidSetting(f"{key} identifies the event: its type cannot be another one")
        column_types[column] = ColumnType.parse(spelling)
        types.require(column_types[column], place)
    return column_types


def _array(items: str, engine_type: str) -> str:
    """SQL that makes JSON text of a list whose items have a type, or of JSON text."""
    # A single item that cannot be cast would become null.
    texts = f"TRY_CAST({items} AS VARCHAR[])"
    values = f"TRY_CAST({texts} AS {engine_type})"
    # As text: JSON has no NaN.
    items = f"to_json(TRY_CAST({values} AS VARCHAR[]))"
    return f"CASE WHEN list_count({texts}) = list_count({values}) THEN {items} END"
