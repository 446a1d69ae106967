"""Numbers of columns, by which open tables know them whatever they are called (FORMAT.md 4).

`PARQUET:field_id` in the schema of a segment: columns have fixed numbers, and each member of typed
payloads one that follows from its path and kind alone. So a member has the same number on every
branch and machine, and one of another kind has another number.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

from lakelog.libraries import pa
from lakelog.typed_columns.schema import COLUMN, Member, Schema

COLUMNS = {
    name: number
    for number, name in enumerate(
        "time type category source subject level message data id ingested_at origin position seq"
        " fields reason line".split(),
        1,
    )
}
"""The numbers of the columns of segments."""
NUMBER_NOTE = b"PARQUET:field_id"
"""The metadata of an Arrow field that Arrow writes to Parquet as the column's number."""
_FIRST, _BITS = 1 << 16, 30


def key_of(path: tuple[str, ...], member: Member) -> str:
    """Return the text that stands for a member: the names on its path, and its kind with that of
    its elements, as a column has elements of one kind."""
    return "\0".join((*path, _kind(member)))


def _kind(member: Member) -> str:
    return f"list {_kind(member.members[0])}" if member.kind == "list" else member.kind


def number_of(key: str) -> int:
    """Return the number of a member by its key: from 2^16 on, below 2^31."""
    digest = hashlib.sha256(key.encode()).digest()
    return _FIRST + (int.from_bytes(digest[:4], "big") >> (32 - _BITS))


def member_numbers(schema: Schema) -> dict[tuple[str, ...], tuple[str, int]]:
    """Return the key and the number of each member that has one, by its path. Of members of one
    schema that have the same number by chance none has it."""
    keys = {path: key_of(path, member) for path, member in _walk(schema.members, ())}
    numbers = Counter(map(number_of, keys.values()))
    numbered = ((path, key, number_of(key)) for path, key in keys.items())
    return {path: (key, number) for path, key, number in numbered if numbers[number] == 1}


def _walk(
    schema_members: tuple[Member, ...], parent: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Member]]:
    for member in schema_members:
        path = (*parent, member.name)
        yield path, member
        if member.kind in ("object", "list"):
            yield from _walk(member.members, path)


def numbered_column(name: str, type_: pa.DataType) -> pa.Field:
    """Return a column of a segment with its number."""
    return pa.field(name, type_, metadata=_note(COLUMNS[name]))


def numbered_structs(schema: Schema) -> pa.Field:
    """Return the column of typed payloads, its members with their numbers."""
    numbers = {path: number for path, (_, number) in member_numbers(schema).items()}
    children = [_numbered(member, (), numbers) for member in schema.members]
    return numbered_column(COLUMN, pa.struct(children))


def _numbered(
    member: Member, parent: tuple[str, ...], numbers: dict[tuple[str, ...], int]
) -> pa.Field:
    path = (*parent, member.name)
    type_ = member.arrow_type()
    if member.kind == "object":
        type_ = pa.struct([_numbered(child, path, numbers) for child in member.members])
    elif member.kind == "list":
        element = _numbered(member.members[0], path, numbers)
        type_ = pa.list_(element.with_name("element"))
    number = numbers.get(path)
    return pa.field(member.name, type_, metadata=None if number is None else _note(number))


def _note(number: int) -> dict[bytes, bytes]:
    return {NUMBER_NOTE: str(number).encode()}
