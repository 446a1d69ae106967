"""The columns of an Iceberg table, by the numbers that segments have in their files (FORMAT.md 4).

Columns of events and `seq` have the numbers 1 to 13, the struct `fields` has 14, and members of
payloads those of their keys. A member stays once it is there, under the name that it got: numbers
tell columns apart, so members of one name and two kinds are two columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lakelog import typed_columns
from lakelog.runtime.lazy import Lazy
from lakelog.segments import segment_schema

if TYPE_CHECKING:
    from pyiceberg import schema as schemas
    from pyiceberg import types
    from pyiceberg.schema import Schema
    from pyiceberg.types import IcebergType, NestedField

    from lakelog.typed_columns import Member
else:
    types, schemas = Lazy("pyiceberg.types"), Lazy("pyiceberg.schema")

FIELDS = 14
"""The number of the column of typed payloads."""
_PLAIN = re.compile(r"\W+")


class NumberConflict(ValueError):
    """Raised where a number of a member is another member's in the table, or it has none."""


def event_columns() -> Schema:
    """Return the schema of a table without typed payloads."""
    columns = segment_schema("events", "sorted")
    of_arrow = {"timestamp[us, tz=UTC]": types.TimestamptzType(), "int64": types.LongType()}
    return schemas.Schema(
        *(
            types.NestedField(
                number, column.name, of_arrow.get(str(column.type), types.StringType())
            )
            for number, column in enumerate(columns, 1)
        )
    )


def with_members(table: Schema, payloads: typed_columns.Schema) -> Schema:
    """Return a schema that also has the members of typed payloads; the same one where it has them.
    Raises NumberConflict."""
    columns = {column.field_id: column for column in table.fields}
    merging = _MemberMerge(payloads, columns.get(FIELDS))
    structs = columns[FIELDS].field_type if FIELDS in columns else None
    before = structs.fields if isinstance(structs, types.StructType) else ()
    children = merging.merged(before, payloads.members, ())
    if children == before:
        return table
    columns[FIELDS] = types.NestedField(FIELDS, typed_columns.COLUMN, types.StructType(*children))
    return schemas.Schema(*columns.values(), schema_id=table.schema_id + 1)


class _MemberMerge:
    """Merges the members of one schema of payloads into those of a table."""

    def __init__(self, payloads: typed_columns.Schema, column: NestedField | None) -> None:
        self._members = typed_columns.member_numbers(payloads)
        self._keys = dict(_keys(column.field_type, "object", ())) if column else {}

    def merged(
        self,
        children: tuple[NestedField, ...],
        members: tuple[Member, ...],
        parent: tuple[str, ...],
    ) -> tuple[NestedField, ...]:
        """Return the fields of a struct with these members among them."""
        by_number = {child.field_id: child for child in children}
        for member in members:
            path = (*parent, member.name)
            key, number = self._key_and_number(path)
            child = by_number.get(number)
            before = child.field_type if child else None
            type_ = self._type(member, path, before)
            if child is None:
                # Spark and Hive tell names apart without case; the number is what a reader of
                # Iceberg goes by.
                names = {sibling.name.casefold() for sibling in by_number.values()}
                name = free_name(_PLAIN.sub("_", member.name), names)
                by_number[number] = types.NestedField(number, name, type_, doc=json.dumps(key))
            elif type_ != before:
                by_number[number] = types.NestedField(number, child.name, type_, doc=child.doc)
        return tuple(by_number.values())

    def _type(
        self, member: Member, path: tuple[str, ...], before: IcebergType | None
    ) -> IcebergType:
        if member.kind == "object":
            children = before.fields if isinstance(before, types.StructType) else ()
            return types.StructType(*self.merged(children, member.members, path))
        if member.kind == "list":
            element, inside = member.members[0], (*path, "")
            # Numbers of elements have to stay, too: a reader finds columns of files by them.
            old = before.element_type if isinstance(before, types.ListType) else None
            _, number = self._key_and_number(inside)
            return types.ListType(
                element_id=number,
                element_type=self._type(element, inside, old),
                element_required=False,
            )
        return {
            "int": types.LongType(),
            "float": types.DoubleType(),
            "number": types.DoubleType(),
            "bool": types.BooleanType(),
        }.get(member.kind, types.StringType())

    def _key_and_number(self, path: tuple[str, ...]) -> tuple[str, int]:
        key, number = self._members.get(path, ("", 0))
        if not number or self._keys.setdefault(number, key) != key:
            raise NumberConflict(path)
        return key, number


def _keys(type_: IcebergType, member_kind: str, path: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield the number and the key of each member inside one of a kind, at a path."""
    if isinstance(type_, types.StructType):
        for child in type_.fields:
            key = json.loads(child.doc or '""')
            *names, child_kind = key.split("\0")
            yield child.field_id, key
            yield from _keys(child.field_type, child_kind, tuple(names))
    elif isinstance(type_, types.ListType):
        inside, element_kind = (*path, ""), member_kind.removeprefix("list ")
        yield type_.element_id, "\0".join((*inside, element_kind))
        yield from _keys(type_.element_type, element_kind, inside)


def free_name(name: str, names: set[str]) -> str:
    """Return a name for a member that differs from its siblings' in more than case."""
    plain = name or "_"
    number, free = 1, plain
    while free.casefold() in names:
        number += 1
        free = f"{plain}_{number}"
    return free
