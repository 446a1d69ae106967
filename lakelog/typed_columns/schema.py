"""Schemas of typed segments: which payloads a struct stands for, and the SQL for their text.

A segment may have a column `fields`, a struct (FORMAT.md 4). Where it is not null, `data` is null,
and the payload is the text that `Schema.text_sql` builds from the struct, byte for byte: a row gets
there only after that was proved to be the text it had. `lakelog.fields` in the key-value metadata
is the JSON of the schema, and its key, in the entry, the first 16 hex digits of the SHA-256 of it.

The kinds of members, how DuckDB and Parquet store them, and how they are written:

    text     VARCHAR   a JSON string, as the engine escapes it
    int      BIGINT    digits
    float    DOUBLE    the shortest digits that give the number, with a point or an exponent
    number   DOUBLE    whole numbers below 2^53 as digits, others as float
    bool     BOOLEAN   true, false
    json     VARCHAR   the value's own JSON text
    words    VARCHAR[] a text as its words, between spaces
    numbers  STRUCT    a text that is always spelled alike but for whole numbers, which are members
    object   STRUCT    its members, in the order of the schema
    list     LIST      values of one kind

Segments of earlier versions have texts as words and numbers, which are read and not written.
NULL means null in a list; elsewhere that the member is absent or null, which the schema says.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from lakelog import sql
from lakelog.disk import File
from lakelog.entries import SegmentEntry
from lakelog.errors import DamagedSegment
from lakelog.keys import VAULT
from lakelog.libraries import pa
from lakelog.paths import Paths

COLUMN = "fields"
"""The column of a typed segment that holds its structs."""
TEXT_BYTES = "text_bytes"
"""The column, of rows and not of segments, of the lengths that payloads in structs have as text."""
DEPTH_MAX = 8
"""Objects and lists may be nested this deep; what is deeper is a member of kind json."""
SCALARS = {
    "text": "VARCHAR",
    "int": "BIGINT",
    "float": "DOUBLE",
    "number": "DOUBLE",
    "bool": "BOOLEAN",
    "json": "JSON",
}
"""The kinds that have no members, and the type from which the engine reads each."""
_TEXTS = frozenset(("text", "words", "numbers"))
"""The kinds of values that are texts."""
DIGITS_MAX = 18
"""A number in a text has at most so many digits, which fit an int."""
_NESTED_MAX = 64
_EXACT = 1 << 53


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object: `null` says that NULL stands for an explicit null, not for absence.

    `members` are those of an object; a list has exactly one, of the name "" and with `null`.
    `pieces` are those of numbers: texts, and for each number the digits that it has at least.
    """

    name: str
    kind: str
    null: bool = False
    members: tuple[Member, ...] = ()
    pieces: tuple[str | int, ...] = ()

    @property
    def numbers(self) -> list[str]:
        """The names of the members of the struct of numbers: "1", "2", ..."""
        count = sum(isinstance(width, int) for width in self.pieces)
        return [str(nth) for nth in range(1, count + 1)]

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return self.kind in _TEXTS

    def json_sql(self, value: str) -> str:
        """Return SQL for the JSON text of a value, compact; NULL where that is NULL.

        `value` is an SQL expression, here and below.
        """
        return _value_sql(self, value, False, 0)

    def plain_sql(self, value: str) -> str:
        """Return SQL for the text that a value stands for, if it is one; NULL where it is NULL."""
        if self.kind == "words":
            return f"array_to_string({value}, ' ')"
        return _numbers_sql(self.pieces, value) if self.kind == "numbers" else value

    def arrow_type(self) -> pa.DataType:
        """Return the Arrow type of its values."""
        if self.kind == "object":
            return _struct(self.members)
        if self.kind == "list":
            return pa.list_(pa.field("element", self.members[0].arrow_type()))
        if self.kind == "words":
            return pa.list_(pa.field("element", pa.string()))
        if self.kind == "numbers":
            return pa.struct([pa.field(name, pa.int64()) for name in self.numbers])
        scalars = {"int": pa.int64(), "bool": pa.bool_(), "text": pa.string(), "json": pa.string()}
        return scalars.get(self.kind, pa.float64())


@dataclass(frozen=True, slots=True)
class Schema:
    """The members of the payloads in a struct; `spaced`: written with `, ` and `: `."""

    NOTE: ClassVar = "lakelog.fields"
    """The key of its JSON in the key-value metadata of a segment."""

    members: tuple[Member, ...]
    spaced: bool = False

    @classmethod
    def from_json(cls, schema_json: str) -> Schema:
        """Return the schema of its JSON. Raises ValueError for text that stands for none."""
        try:
            body = orjson.loads(schema_json)
            members = tuple(_from_json(member_body) for member_body in body["members"])
            spaced = body["spaced"]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"it is no schema of fields ({error!r})") from None
        if not isinstance(spaced, bool):
            raise ValueError("`spaced` is neither true nor false")
        _require_names(members)
        return cls(members, spaced)

    @classmethod
    def of_entry(cls, paths: Paths, entry: SegmentEntry) -> Schema:
        """Return the schema of a typed segment. Raises DamagedSegment.

        It is read from the footer of the file once per process and key.
        """
        schema = _schemas.get(entry.fields)
        if schema is None:
            path = paths.object("segments", entry.key)
            schema = _schemas[entry.fields] = _from_footer(path, entry.fields)
        return schema

    @staticmethod
    def key_of(schema_json: str) -> str:
        """Return the 16 hex digits that name the schema that has this JSON."""
        return hashlib.sha256(schema_json.encode()).hexdigest()[:16]

    @property
    def key(self) -> str:
        """The 16 hex digits that name the schema."""
        return self.key_of(self.to_json())

    def to_json(self) -> str:
        """Return its JSON."""
        body = {"spaced": self.spaced, "members": [_to_json(member) for member in self.members]}
        return orjson.dumps(body).decode()

    def plain(self) -> Schema:
        """Return the schema with all texts as a whole, as they are written."""
        return Schema(_plain(self.members), self.spaced)

    def structure(self) -> str:
        """Return the structure that from_json takes to make the struct of a payload."""
        return orjson.dumps({m.name: _structure(m) for m in self.members}).decode()

    def text_sql(self, column: str = COLUMN) -> str:
        """Return SQL for the payload's JSON text, NULL where the struct in `column` is NULL.

        `column` is an SQL expression.
        """
        payload = _object_sql(self.members, column, self.spaced)
        return f"CASE WHEN {column} IS NOT NULL THEN {payload} END"

    def arrow_type(self) -> pa.DataType:
        """Return the Arrow type of the structs."""
        return _struct(self.members)


def _struct(members: tuple[Member, ...]) -> pa.DataType:
    return pa.struct([pa.field(member.name, member.arrow_type()) for member in members])


def _plain(members: tuple[Member, ...]) -> tuple[Member, ...]:
    return tuple(
        Member(m.name, "text" if m.is_text else m.kind, m.null, _plain(m.members)) for m in members
    )


_schemas: dict[str, Schema] = {}
"""Those that were read from footers, by their keys."""


def _from_footer(path: str, key: str) -> Schema:
    try:
        footer = _footer(path)
    except FileNotFoundError:
        raise DamagedSegment(path, "the segment is missing") from None
    # In Thrift's compact protocol a text is its length and its bytes; one whose digest is the key
    # is the schema, wherever it was found. So queries need not load a library for Parquet.
    marker = bytes((0x18, len(Schema.NOTE))) + Schema.NOTE.encode() + b"\x18"
    marker_at = footer.find(marker)
    while marker_at >= 0:
        length, begin = _varint(footer, marker_at + len(marker))
        schema_json = footer[begin : begin + length].decode("utf-8", "replace")
        if Schema.key_of(schema_json) == key:
            try:
                return Schema.from_json(schema_json)
            except ValueError as error:
                raise DamagedSegment(path, f"its fields cannot be read: {error}") from None
        marker_at = footer.find(marker, marker_at + 1)
    raise DamagedSegment(path, "it does not have the schema of fields that its entry names")


def _footer(path: str) -> bytes:
    source = VAULT.file(path)
    with open(File(path).open(), "rb") if source is path else source as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 8, 0))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(size - 8 - length, 0))
        return bytes(file.read(length))


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at a byte, and where it ends."""
    value = shift = 0
    for byte in data[position : position + 5]:
        value, position = value | (byte & 0x7F) << shift, position + 1
        if byte < 0x80:
            break
        shift += 7
    return value, position


def _to_json(member: Member) -> dict[str, object]:
    body: dict[str, object] = {"name": member.name, "kind": member.kind, "null": member.null}
    if member.members:
        body["members"] = [_to_json(child) for child in member.members]
    if member.pieces:
        body["pieces"] = member.pieces
    return body


def _from_json(body: Any, depth: int = 1) -> Member:
    name, member_kind, null = body["name"], body["kind"], body["null"]
    if not (isinstance(name, str) and isinstance(member_kind, str) and isinstance(null, bool)):
        raise ValueError("a member has no name, kind or rule for null")
    if depth > _NESTED_MAX:
        raise ValueError("its members are nested too deeply")
    members = tuple(_from_json(child, depth + 1) for child in body.get("members", ()))
    template = tuple(body.get("pieces", ()))
    if member_kind == "list":
        is_sound = len(members) == 1 and members[0].name == "" and members[0].null
    elif member_kind == "object":
        is_sound = bool(members)
        _require_names(members)
    else:
        is_sound = (member_kind in SCALARS or member_kind in _TEXTS) and not members
    if not is_sound or not (_are_pieces(template) if member_kind == "numbers" else template == ()):
        raise ValueError(f"member {name!r} of kind {member_kind!r} is malformed")
    return Member(name, member_kind, null, members, template)


def _are_pieces(template: tuple[Any, ...]) -> bool:
    """Whether these are texts, and how many digits numbers have, of which there is one at least."""
    literals = [item for item in template if isinstance(item, str)]
    widths = [item for item in template if not isinstance(item, str)]
    are_widths = all(type(width) is int and 0 < width <= DIGITS_MAX for width in widths)
    return bool(widths) and are_widths and min("".join(literals), default=" ") >= " "


def _require_names(members: tuple[Member, ...]) -> None:
    """Raise ValueError unless these can be the members of one struct."""
    if not members or not all(is_name(member.name) for member in members):
        raise ValueError("a member has a name that a struct cannot have")
    if len({fold(member.name) for member in members}) < len(members):
        raise ValueError("two names differ only in case")


def is_name(name: str) -> bool:
    """Whether a member of this name can be one of a struct."""
    return name != "" and min(name) >= " "


def fold(name: str) -> str:
    """Return what the names of two members of a struct must not have in common."""
    return name.casefold()


def _structure(member: Member) -> Any:
    if member.kind == "object":
        return {child.name: _structure(child) for child in member.members}
    if member.kind == "list":
        return [_structure(member.members[0])]
    return SCALARS[member.kind]


def _object_sql(members: tuple[Member, ...], value: str, spaced: bool, depth: int = 0) -> str:
    comma, colon = (", ", ": ") if spaced else (",", ":")
    pairs = []
    for member in members:
        value_text = _value_sql(
            member, f"struct_extract({value}, {sql.literal(member.name)})", spaced, depth
        )
        value_text = f"coalesce({value_text}, 'null')" if member.null else value_text
        name = sql.literal(orjson.dumps(member.name).decode() + colon)
        pairs.append(f"{name} || {value_text}")
    # concat_ws leaves out what is NULL: the members that are absent.
    return f"concat('{{', concat_ws('{comma}', {', '.join(pairs)}), '}}')"


def _value_sql(member: Member, value: str, spaced: bool, depth: int) -> str:
    """SQL for the JSON text of a value, NULL where it is NULL."""
    if member.kind == "object":
        object_text = _object_sql(member.members, value, spaced, depth)
        return f"CASE WHEN {value} IS NOT NULL THEN {object_text} END"
    if member.kind == "list":
        return _list_sql(member.members[0], value, spaced, depth)
    if member.kind == "numbers":
        # Digits need no escapes, and the other pieces get theirs here.
        escaped = (
            orjson.dumps(p).decode()[1:-1] if isinstance(p, str) else p for p in member.pieces
        )
        return _numbers_sql(('"', *escaped, '"'), value)
    if member.is_text:
        return f"to_json({member.plain_sql(value)})::VARCHAR"
    return _SCALAR_SQL[member.kind](value)


def _list_sql(element: Member, value: str, spaced: bool, depth: int) -> str:
    # The engine's own function is several times as fast, where it writes as _SCALAR_SQL does.
    if element.kind in ("text", "int", "bool") and not spaced:
        return f"to_json({value})::VARCHAR"
    name = f"e{depth}"
    element_text = _value_sql(element, name, spaced, depth + 1)
    element_texts = f"list_transform({value}, lambda {name}: coalesce({element_text}, 'null'))"
    comma = ", " if spaced else ","
    return f"'[' || array_to_string({element_texts}, '{comma}') || ']'"


def _numbers_sql(template: Iterable[str | int], value: str) -> str:
    """SQL for a text with numbers in it."""
    names = itertools.count(1)
    arguments = (
        sql.literal(p) if isinstance(p, str) else _digits_sql(value, str(next(names)), p)
        for p in template
    )
    # concat is faster than ||, and takes NULL for an empty text.
    joined = ", ".join(arguments)
    return f"CASE WHEN struct_extract({value}, '1') IS NOT NULL THEN concat({joined}) END"


def _digits_sql(struct: str, name: str, width: int) -> str:
    number = f"struct_extract({struct}, '{name}')"
    if width == 1:
        return f"{number}::VARCHAR"
    # lpad would cut longer ones off.
    padded = f"lpad({number}::VARCHAR, {width}, '0')"
    return f"CASE WHEN {number} < {10**width} THEN {padded} ELSE {number}::VARCHAR END"


def _number_sql(value: str) -> str:
    is_whole = f"abs({value}) < {_EXACT} AND {value} = trunc({value})"
    # A strict cast of a member is done while it is read: for each row, whatever CASE says.
    whole = f"TRY_CAST({value} AS BIGINT)::VARCHAR"
    return f"CASE WHEN {is_whole} THEN {whole} ELSE {value}::VARCHAR END"


_SCALAR_SQL: dict[str, Callable[[str], str]] = {
    "int": "{}::VARCHAR".format,
    "float": "{}::VARCHAR".format,
    "number": _number_sql,
    "bool": "{}::VARCHAR".format,
    "json": "{}::VARCHAR".format,
}
