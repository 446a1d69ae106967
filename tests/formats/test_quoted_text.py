"""The next quote of many places of a text, found at once, is the one that a search finds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lakelog.formats.uniform.quoted_text import QuotedText


def text_of(rng: random.Random, gaps: list[int]) -> bytes:
    """Return text with quotes so far from each other."""
    return b"".join(bytes(rng.choices(b"abc\\\n", k=rng.choice(gaps))) + b'"' for _ in range(200))


@pytest.mark.parametrize("gaps", [[0, 1, 7], [55, 56, 57, 58], [63, 64, 65, 500], [3, 2000]])
@pytest.mark.parametrize("low", [0, 1, 9])
def test_next_quotes_are_those_that_a_search_finds(gaps: list[int], low: int) -> None:
    """Whatever the distance, and wherever in a byte of the bits a place is."""
    data = text_of(random.Random(len(gaps) + low), gaps) + b"abc"
    end = data.rfind(b'"') + 1
    text = QuotedText(data + bytes(99), low, len(data), 32)
    found = text.next_quotes(np.arange(end - low))
    assert found.tolist() == [data.index(b'"', low + at) - low for at in range(end - low)]
    # There is none in what follows: the place is behind the text, and may be asked for.
    past = text.next_quotes(np.arange(end - low, len(data) - low + 32))
    assert (past >= len(data) - low).all()
    assert (past < len(data) - low + 40).all()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 23])
def test_a_piece_stands_only_where_each_byte_does(size: int) -> None:
    """A byte that differs anywhere is seen, and one behind the piece is not."""
    piece = bytes(range(65, 65 + size))
    others = [piece[:n] + b"!" + piece[n + 1 :] for n in range(size)]
    cells = [piece + b"?", piece + b"!", *(other + b"?" for other in others)]
    data = b"".join(cells)
    text = QuotedText(data + bytes(64), 0, len(data), 32)
    found = text.stands(piece, np.arange(len(cells)) * (size + 1))
    assert found.tolist() == [True, True, *[False] * size]


def test_backslashes_are_seen_within_spans_alone() -> None:
    """One at the end of a span is not in it."""
    text = QuotedText(b'ab\\c"' + bytes(32), 0, 5, 8)
    found = text.has_backslash(np.array([0, 0, 2, 3]), np.array([2, 3, 3, 5]))
    assert found.tolist() == [False, True, True, False]
    assert QuotedText(b"ab" + bytes(32), 0, 2, 8).backslashes.tolist() == []
