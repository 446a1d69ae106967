"""The columns of a table that knows them by their names, as Delta does: structs of payloads.

A member has one type under one name for good. A segment with a member of that name and another
kind, or one that other systems cannot name, does not fit, and comes as text.
"""

from __future__ import annotations

from lakelog.libraries import pa
from lakelog.segments import segment, typed, typed_rows
from lakelog.segments.typed import Member

_KIND = b"lakelog.kind"
_UNNAMEABLE = frozenset(" ,;{}()\n\t=")
"""Characters that Delta refuses in names."""


class UnfitMember(ValueError):
    """Raised where a member cannot be a column."""


def event_columns() -> pa.Schema:
    """Return the schema of a table without typed payloads."""
    return pa.schema([(f.name, f.type) for f in segment.schema("events", "sorted")])


def with_members(table: pa.Schema, payloads: typed.Schema) -> pa.Schema:
    """Return a schema that also has the members of typed payloads. Raises UnfitMember."""
    place = table.get_field_index(typed.COLUMN)
    before = table.field(place).type if place >= 0 else None
    column = pa.field(typed.COLUMN, _struct(payloads.members, before))
    return table.set(place, column) if place >= 0 else table.append(column)


def _struct(members: tuple[Member, ...], before: pa.DataType | None) -> pa.DataType:
    children = {child.name.casefold(): child for child in before or ()}
    for member in members:
        spelling = _spelling(member).encode()
        child = children.get(member.name.casefold())
        if not member.name or _UNNAMEABLE & {*member.name}:
            raise UnfitMember(member.name)
        if child and (child.name, child.metadata[_KIND]) != (member.name, spelling):
            raise UnfitMember(member.name)
        type_ = _type(member, child.type if child else None)
        children[member.name.casefold()] = pa.field(member.name, type_, metadata={_KIND: spelling})
    return pa.struct(list(children.values()))


def _spelling(member: Member) -> str:
    """Return the kind of a member. The float 1.0 and the number 1 are one value in a table."""
    if member.kind == "list":
        return f"list {_spelling(member.members[0])}"
    return "float" if member.kind == "number" else member.kind


def _type(member: Member, before: pa.DataType | None) -> pa.DataType:
    if member.kind == "object":
        return _struct(member.members, before)
    if member.kind == "list":
        return pa.list_(_type(member.members[0], before.value_type if before else None))
    return typed_rows.arrow_type(typed.Schema((member,))).field(0).type
