"""Which texts of payloads are smaller in parts, by trial on a sample: as words, or as numbers.

A text of words that come again and again is a list of them, in whose dictionary each is stored once
and takes a few bits where it occurs. A text that is always spelled alike but for numbers, such as a
URL with an id, or a time, is those numbers. Either is proved row by row like every other kind.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakelog.runtime.lazy import Lazy
from lakelog.segments import column_encoding, typed
from lakelog.segments.typed import Member, Schema

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")

LEAST = 256
"""So many texts of a column tell how the others are."""
_GAIN = 0.75
"""In parts, a column has to be smaller than this part of it: a text is read faster, and any reader
of Parquet understands it."""
_SAVED = 1
"""Bytes that parts have to save of each text."""
_WORDS = 3, 64
"""A text has at least and at most so many words, on average."""
_FEW = 0.1
"""Different words of a column, as a part of all of its words, that a dictionary may have."""
_NUMBERS_MAX, _SPELLED = 8, 2_048
"""A text has at most so many numbers; so many texts tell how a column is spelled."""
_NUMBER = re.compile(rf"([0-9]{{1,{typed.DIGITS_MAX}}})")
_LEVEL = 10
"""Of zstd in trials: it finds more repetitions in texts than lower ones, and thus less to gain."""


def refined(schema: Schema, structs: pa.StructArray, scale: float) -> Schema:
    """Return a schema with the texts in parts that are smaller so, by a sample of its structs.

    The columns are `scale` times as long as the sample.
    """
    return dataclasses.replace(schema, members=_refined(schema.members, structs, scale))


def plain(schema: Schema) -> Schema:
    """Return a schema with all texts as a whole."""
    return dataclasses.replace(schema, members=_plain(schema.members))


def _plain(members: Sequence[Member]) -> tuple[Member, ...]:
    return tuple(
        Member(m.name, "text" if m.kind in typed.TEXTS else m.kind, m.null, _plain(m.members))
        for m in members
    )


def _refined(
    members: Sequence[Member], structs: pa.StructArray, scale: float
) -> tuple[Member, ...]:
    new = []
    for nth, member in enumerate(members):
        values = structs.field(nth)
        if member.kind == "object":
            parts = _refined(member.members, values, scale)
            new.append(dataclasses.replace(member, members=parts))
        elif member.kind == "text":
            new.append(_of_texts(member, values.drop_null(), scale))
        else:
            new.append(member)
    return tuple(new)


def _of_texts(member: Member, texts: pa.Array, scale: float) -> Member:
    """Return the kind of member that suits its texts best."""
    if len(texts) < LEAST or column_encoding.are_few(texts):
        return member
    pieces = spelling(texts.take(column_encoding.sample(len(texts), _SPELLED)).to_pylist())
    words = _words(texts) if not pieces else None
    if not pieces and words is None:
        return member
    whole = column_encoding.estimate(texts, scale, _LEVEL)
    limit = min(_GAIN * whole, whole - _SAVED * len(texts) * scale)
    if words is not None:
        size = column_encoding.estimate(words, scale, _LEVEL)
        return dataclasses.replace(member, kind="words") if size < limit else member
    new = dataclasses.replace(member, kind="numbers", pieces=pieces)
    size = sum(column_encoding.estimate(each, scale, _LEVEL) for each in _numbers(new, texts))
    return new if size < limit else member


def _words(texts: pa.Array) -> pa.ListArray | None:
    """Return the words of each text, None where they are not few."""
    lists = pc.split_pattern(texts, " ")
    words = lists.flatten()
    least, most = (n * len(texts) for n in _WORDS)
    is_likely = least <= len(words) <= most and pc.count_distinct(words).as_py() < _FEW * len(words)
    return lists if is_likely else None


def spelling(texts: Sequence[str]) -> tuple[str | int, ...]:
    """Return the pieces that all of these texts have in common, empty where they differ in more
    than their numbers."""
    literals, rows = list[str](), list[list[str]]()
    for text in texts:
        parts = _NUMBER.split(text)
        literals = literals or parts[::2]
        if parts[::2] != literals or len(literals) > 2 * _NUMBERS_MAX:
            return ()
        # Escapes of these differ between programs.
        if min(text, default=" ") < " ":
            return ()
        rows.append(parts[1::2])
    pieces: list[str | int] = []
    for nth, literal in enumerate(literals):
        column = [row[nth] for row in rows if nth < len(row)]
        before = pieces.pop() if pieces and isinstance(pieces[-1], str) else ""
        pieces.append(f"{before}{literal}")
        if _is_constant(literal, column):
            pieces[-1] = f"{pieces[-1]}{column[0]}"
        elif column:
            pieces.append(_least_digits(column))
    pieces = [piece for piece in pieces if piece]
    return tuple(pieces) if 0 < sum(isinstance(p, int) for p in pieces) <= _NUMBERS_MAX else ()


def _is_constant(before: str, column: Sequence[str]) -> bool:
    """Whether digits are part of a name, as in `mp3`: a day or year that is always the same is a
    number, as it will be another one."""
    return len(set(column)) == 1 and len(column[0]) == 1 and before[-1:].isalpha()


def _least_digits(column: Sequence[str]) -> int:
    # Two digits are most often a part of a time: an hour from 10 on says nothing of those before.
    is_padded = {*map(len, column)} == {2} or any(d[0] == "0" and len(d) > 1 for d in column)
    return min(map(len, column)) if is_padded else 1


def pattern(member: Member) -> str:
    """Return the regular expression whose groups are the numbers of a text."""
    groups = (
        re.escape(piece) if isinstance(piece, str) else f"([0-9]{{{piece},{typed.DIGITS_MAX}}})"
        for piece in member.pieces
    )
    return f"^{''.join(groups)}$"


def _numbers(member: Member, texts: pa.Array) -> list[pa.Array]:
    """Return the numbers of texts, of those that are spelled as the member says."""
    named = pattern(member)
    for name in member.numbers:
        named = named.replace("([0-9]", f"(?P<n{name}>[0-9]", 1)
    found: Any = pc.extract_regex(texts, named).drop_null()
    return [found.field(nth).cast(pa.int64()) for nth in range(len(member.numbers))]
