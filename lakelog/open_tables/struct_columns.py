"""The columns of a table that knows them by their names, as Delta does: structs of payloads.

A column is of one member and one type for good, and says so in its metadata. A member of that name
and another kind has another column, such as `n_2`, and so has one that other systems cannot name.
A segment whose struct has other names than its columns is written again under theirs.
"""

from __future__ import annotations

import re

from lakelog import typed_columns
from lakelog.libraries import pa
from lakelog.open_tables.field_columns import free_name
from lakelog.segments import segment_schema
from lakelog.typed_columns import Member

_NAME, _KIND = b"lakelog.name", b"lakelog.kind"
_UNNAMEABLE = re.compile(r"[ ,;{}()\n\t=]+")
"""What Delta refuses in names."""


def event_columns() -> pa.Schema:
    """Return the schema of a table without typed payloads."""
    return pa.schema([(f.name, f.type) for f in segment_schema("events", "sorted")])


def with_members(
    table: pa.Schema, payloads: typed_columns.Schema
) -> tuple[pa.Schema, pa.DataType | None]:
    """Return a schema that also has the members of typed payloads, and the type of their struct
    under its names, None where it has these names already."""
    place = table.get_field_index(typed_columns.COLUMN)
    before = table.field(place).type if place >= 0 else None
    type_, renamed = _struct(payloads.members, before)
    column = pa.field(typed_columns.COLUMN, type_)
    schema = table.set(place, column) if place >= 0 else table.append(column)
    return schema, None if renamed == payloads.arrow_type() else renamed


def _struct(
    members: tuple[Member, ...], before: pa.DataType | None
) -> tuple[pa.DataType, pa.DataType]:
    """Return the type of a column with these members among its own, and that of these alone."""
    children = {(f.metadata[_NAME], f.metadata[_KIND]): f for f in before or ()}
    names, alone = {field.name.casefold() for field in children.values()}, []
    for member in members:
        # By name and type: of one name with two types each is a column.
        key = member.name.encode(), _spelling(member).encode()
        child = children.get(key)
        name = child.name if child else free_name(_UNNAMEABLE.sub("_", member.name), names)
        type_, own_type = _types(member, child.type if child else None)
        children[key] = pa.field(name, type_, metadata={_NAME: key[0], _KIND: key[1]})
        names.add(name.casefold())
        alone.append(pa.field(name, own_type))
    return pa.struct(list(children.values())), pa.struct(alone)


def _types(member: Member, before: pa.DataType | None) -> tuple[pa.DataType, pa.DataType]:
    if member.kind == "object":
        return _struct(member.members, before)
    if member.kind == "list":
        element = before.value_type if before else None
        type_, own_type = _types(member.members[0], element)
        return pa.list_(type_), pa.list_(pa.field("element", own_type))
    scalar = member.arrow_type()
    return scalar, scalar


def _spelling(member: Member) -> str:
    """Return the kind of a member. The float 1.0 and the number 1 are one value in a table."""
    if member.kind == "list":
        return f"list {_spelling(member.members[0])}"
    return "float" if member.kind == "number" else member.kind
