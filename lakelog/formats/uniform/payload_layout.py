"""Payloads that are spelled alike: where the values of each stand, without parsing it.

The layout of a payload is the bytes between its values: `{"url":"`, `","size":` and `}`. As a text
without escapes ends at the next quote, and a number or a truth value a known number of bytes before
one or before the end, the quotes of a line tell where its values would be; the bytes between them
are then compared. What is `null`, and how many elements a list has, belongs to the layout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.formats.uniform.quoted_text import QuotedText
from lakelog.libraries import np

_MemberNames = tuple[str, ...]
_TOKEN = re.compile(rb'"[^"]*" *:|"([^"]*)"|(-?[0-9][0-9.eE+-]*|true|false)')
"""Names, and in groups the values: texts, numbers and truth values."""
_DEPTH_MAX = 8
LONGEST = 65_536
"""Longer payloads, in bytes, are left to the caller."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A value: the names that lead to it, whether it is a text, and whether a list's element."""

    path: tuple[str, ...]
    is_text: bool
    is_element: bool


@dataclass(frozen=True)
class PayloadLayout:
    """The bytes in front of each value and behind the last one, and what the values are.

    `objects` are the paths of objects in the payload, and `lists` those of lists, with the number
    of their elements.
    """

    literals: tuple[bytes, ...]
    slots: tuple[Slot, ...]
    objects: frozenset[tuple[str, ...]]
    lists: frozenset[tuple[tuple[str, ...], int]]

    def match(
        self, block: QuotedText, begins: np.ndarray, stops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a mask of the payloads that have the layout, and where their values begin and end,
        two columns for each slot.

        Payloads begin and end where these places of the text say. No backslash may be in them.
        """
        places, fits = begins, np.ones(len(begins), bool)
        bounds = np.empty((len(places), 2 * len(self.slots)), np.int32)
        for number, literal in enumerate(self.literals):
            fits &= block.stands(literal, places)
            begin = places + len(literal)
            if number == len(self.slots):
                fits &= begin == stops
                break
            next_literal = self.literals[number + 1]
            quote_offset = next_literal.find(b'"')
            quote = block.next_quotes(begin)
            if quote_offset >= 0:
                places = quote - quote_offset
            else:
                places = stops - len(next_literal)
                fits &= quote >= stops
            fits &= places >= begin
            # Where it does not fit, what follows may be anywhere, also before the text.
            places = np.maximum(places, begin)
            bounds[:, 2 * number], bounds[:, 2 * number + 1] = begin, places
        return fits, bounds


def payload_layout(payload: bytes) -> PayloadLayout | None:
    """Return the layout of a payload, an object in JSON; None if it is none that is looked for."""
    slots, objects = list[Slot](), list[_MemberNames]()
    lists, names = list[tuple[_MemberNames, int]](), list[str]()

    def add(value: Any, path: _MemberNames, *, is_element: bool = False) -> None:
        """Note what a value is, and those in it. Raises ValueError for one of no layout."""
        if isinstance(value, dict) and not is_element and len(path) <= _DEPTH_MAX:
            objects.append(path)
            names.extend(value)
            for name, member in value.items():
                add(member, (*path, name))
        elif isinstance(value, list) and not is_element and path:
            lists.append((path, len(value)))
            for element in value:
                add(element, path, is_element=True)
        elif isinstance(value, (str, int, float)):
            slots.append(Slot(path, isinstance(value, str), is_element))
        elif value is not None or is_element:
            raise ValueError("no value of a layout")

    try:
        add(orjson.loads(payload), ())
    except ValueError:
        return None
    # What stands between the values, which come in the same order.
    tokens = [*_TOKEN.finditer(payload)]
    spans = [token.span(token.lastindex) for token in tokens if token.lastindex]
    ends = [0, *(stop for _, stop in spans)]
    begins = [*(begin for begin, _ in spans), len(payload)]
    literals = tuple(payload[end:begin] for end, begin in zip(ends, begins, strict=True))
    # Of a name that is there twice one value counts; behind a backslash a quote ends no text.
    is_plain = len(tokens) - len(names) == len(spans) == len(slots) and b"\\" not in payload
    if not is_plain or () not in objects or not _are_found(literals, slots):
        return None
    return PayloadLayout(literals, tuple(slots), frozenset(objects), frozenset(lists))


def _are_found(literals: Sequence[bytes], slots: Sequence[Slot]) -> bool:
    """Whether a quote, or the end, tells where each value that is no text ends."""
    return all(
        slot.is_text or b'"' in literals[number + 1] or number + 1 == len(slots)
        for number, slot in enumerate(slots)
    )
