"""Payloads that are spelled alike: where the values of each stand, without parsing it.

The layout of a payload is the bytes between its values: `{"url":"`, `","size":` and `}`. As a text
without escapes ends at the next quote, and a number or a truth value a known number of bytes before
one or before the end, the quotes of a line tell where its values would be; the bytes between them
are then compared. What is `null`, and how many elements a list has, belongs to the layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lakelog.formats.uniform.quoted_text import QuotedText
from lakelog.libraries import np

_TOKEN = re.compile(
    rb'"([^"\\\x00-\x1f]*)"|(-?[0-9][0-9.eE+-]*|true|false)|null|[{}\[\],:]|(?P<space> +)'
)
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


@dataclass
class _Reader:
    """Reads one payload; raises ValueError where it has no layout."""

    data: bytes
    position: int = 0
    literals: list[bytes] = field(default_factory=lambda: [b""])
    slots: list[Slot] = field(default_factory=list)
    objects: list[tuple[str, ...]] = field(default_factory=list)
    lists: list[tuple[tuple[str, ...], int]] = field(default_factory=list)

    def token(self) -> re.Match[bytes]:
        """Return the next token, but for spaces, which are a part of the piece."""
        match = _TOKEN.match(self.data, self.position)
        if match is None:
            raise ValueError("no token of a layout")
        self.position = match.end()
        if match["space"]:
            self.literals[-1] += match[0]
            return self.token()
        return match

    def value(self, token: re.Match[bytes], path: tuple[str, ...], *, is_element: bool) -> None:
        """Read the value that a token begins."""
        if token[0] == b"{" and not is_element and len(path) <= _DEPTH_MAX:
            self.literals[-1] += token[0]
            self.members(path)
        elif token[0] == b"[" and not is_element and path:
            self.literals[-1] += token[0]
            self.elements(path)
        elif token[1] is not None:
            self.literals[-1] += b'"'
            self.slot(Slot(path, True, is_element), b'"')
        elif token[2] is not None:
            self.slot(Slot(path, False, is_element), b"")
        elif token[0] == b"null" and not is_element:
            self.literals[-1] += token[0]
        else:
            raise ValueError("no value of a layout")

    def slot(self, slot: Slot, after: bytes) -> None:
        """End a piece with a value; the next one begins with these bytes."""
        self.slots.append(slot)
        self.literals.append(after)

    def members(self, path: tuple[str, ...]) -> None:
        """Read the members of an object up to its end."""
        self.objects.append(path)
        token = self.token()
        while token[0] != b"}":
            if token[1] is None:
                raise ValueError("no name")
            self.literals[-1] += token[0]
            self.symbol(b":")
            self.value(self.token(), (*path, token[1].decode()), is_element=False)
            token = self.token()
            if token[0] == b",":
                self.literals[-1] += token[0]
                token = self.token()
            elif token[0] != b"}":
                raise ValueError("no comma")
        self.literals[-1] += token[0]

    def elements(self, path: tuple[str, ...]) -> None:
        """Read the elements of a list up to its end."""
        count, token = 0, self.token()
        while token[0] != b"]":
            self.value(token, path, is_element=True)
            count, token = count + 1, self.token()
            if token[0] == b",":
                self.literals[-1] += token[0]
                token = self.token()
            elif token[0] != b"]":
                raise ValueError("no comma")
        self.literals[-1] += token[0]
        self.lists.append((path, count))

    def symbol(self, symbol: bytes) -> None:
        """Read a token that has to be these bytes."""
        token = self.token()
        if token[0] != symbol:
            raise ValueError("another token")
        self.literals[-1] += symbol


def payload_layout(payload: bytes) -> PayloadLayout | None:
    """Return the layout of a payload, an object in JSON; None if it is none that is looked for."""
    reader = _Reader(payload)
    try:
        reader.value(reader.token(), (), is_element=False)
    except (ValueError, RecursionError):
        return None
    paths = [slot.path for slot in reader.slots if not slot.is_element]
    paths += [*reader.objects, *(path for path, _ in reader.lists)]
    is_object = reader.position == len(payload) and () in reader.objects
    if not is_object or len({*paths}) < len(paths) or not _are_found(reader.literals, reader.slots):
        return None
    return PayloadLayout(
        tuple(reader.literals),
        tuple(reader.slots),
        frozenset(reader.objects),
        frozenset(reader.lists),
    )


def _are_found(literals: list[bytes], slots: list[Slot]) -> bool:
    """Whether a quote, or the end, tells where each value that is no text ends."""
    return all(
        slot.is_text or b'"' in literals[number + 1] or number + 1 == len(slots)
        for number, slot in enumerate(slots)
    )
