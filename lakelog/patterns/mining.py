"""From the shapes of messages to templates: which words differ only as values do.

Shapes that are equal but for one word are one template where that word takes the values of a
variable: many different ones, or a masked value too, or a few of which most are rare. So are
shapes that are equal but for two words, with more evidence. What comes out depends on the shapes
and their counts alone, never on their order: a state has the same templates however it came to be.

The measure is Zhu et al., "Tools and benchmarks for automated log parsing" (ICSE-SEIP 2019).
"""

from __future__ import annotations

import collections
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lakelog.libraries import Booleans, Integers, np
from lakelog.patterns.masks import SIGNS, TOKEN, VALUE

Tokens = tuple[str, ...]
"""The words and signs of a shape; each begins with a space where there was one before it."""

_MANY, _FEW, _PAIRS = 8, 4, 8
"""Shapes that differ in one word: so many make it a value whatever they are, and so few may; and so
many are needed where two words differ."""
_PAIR_TOKENS = 24
"""Tokens of a shape whose pairs of words are looked at: their number grows with the square."""
_RARE = 10
"""How many times rarer than the most frequent word those are that make a word a value."""
_TOKENS_MAX = 60
_ROUNDS = (1, 1, 1, 2, 1, 2, 1)
"""In how many words shapes may differ in each round: a merge makes others equal but for one."""
_SIGNS = frozenset(SIGNS)
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_TOKEN = re.compile(TOKEN)
WILDCARD = "<*>"


@dataclass(frozen=True, slots=True)
class Template:
    """What messages have in common: `pattern`, with <*> for each value; `id` is a digest of it."""

    id: str
    pattern: str

    @classmethod
    def of(cls, tokens: Tokens) -> Template:
        """Return the template of tokens."""
        pattern = "".join(tokens).strip().replace(VALUE, WILDCARD)
        return cls(hashlib.blake2b(pattern.encode(), digest_size=6).hexdigest(), pattern)

    @classmethod
    def of_shape(cls, shape: str) -> Template:
        """Return the template of a shape that is merged with no other."""
        return cls.of(tokens(shape))


def templates_of(counts: Mapping[str, int]) -> dict[str, Template]:
    """Return the template of each shape, given how many messages have it."""
    merging = _TemplateMerger(_summed((tokens(shape), counts[shape]) for shape in counts))
    merging.run()
    templates = {sequence: Template.of(sequence) for sequence in set(merging.template.values())}
    # Cut again and not kept: the words of all shapes are much longer than these.
    return {shape: templates[merging.template[tokens(shape)]] for shape in counts}


def tokens(shape: str) -> Tokens:
    """Cut a shape into words and signs; a space before one is kept as one space."""
    cut_words = [
        # Interned: the words of all shapes are a few, said again and again.
        sys.intern(" " + word.lstrip() if word[0].isspace() else word)
        for word in _TOKEN.findall(shape.strip())[: _TOKENS_MAX + 1]
    ]
    if len(cut_words) > _TOKENS_MAX:
        # What is that long is a dump of values, and no two would be equal.
        cut_words[_TOKENS_MAX:] = [" " + VALUE]
    return _collapsed(cut_words)


def _collapsed(sequence: Iterable[str]) -> Tokens:
    """Values that follow one another are one value."""
    collapsed: list[str] = []
    follows_value = False
    for word in sequence:
        is_value = word.endswith(VALUE)
        if not (is_value and follows_value):
            collapsed.append(word)
        follows_value = is_value
    return tuple(collapsed)


def _is_value(word: str) -> bool:
    return word.endswith(VALUE)


def _is_sign(word: str) -> bool:
    return word[-1] in _SIGNS and len(word.lstrip()) == 1


def _as_value(word: str) -> str:
    return " " + VALUE if word[0] == " " else VALUE


def _summed(pairs: Iterable[tuple[Tokens, int]]) -> dict[Tokens, int]:
    counts: dict[Tokens, int] = collections.defaultdict(int)
    for key, count in pairs:
        counts[key] += count
    return dict(counts)


class _TemplateMerger:
    """Merges token sequences; `template` has what became of each that was given."""

    def __init__(self, counts: dict[Tokens, int]) -> None:
        self.template = {key: key for key in counts}
        self._counts = counts

    def run(self) -> None:
        """Merge in a few rounds, each over what the one before left."""
        self._apply(self._contractions())
        unmergeable = set[int]()
        for width in _ROUNDS:
            # Only a merge makes others equal: what a round left is left by the next of its width.
            if width not in unmergeable:
                moves = self._slots(width)
                unmergeable = set() if moves else {*unmergeable, width}
                self._apply(moves)

    def _apply(self, moves: dict[Tokens, Tokens]) -> None:
        if moves:
            self.template = {
                key: moves.get(merged_key, merged_key) for key, merged_key in self.template.items()
            }
            self._counts = _summed((moves.get(k, k), count) for k, count in self._counts.items())

    def _contractions(self) -> dict[Tokens, Tokens]:
        """Values that are at times spelled with more: `LOCAL(0)`, `proxy:8080`."""
        moves = {}
        for key in self._counts:
            for shorter in _contracted(key):
                if shorter in self._counts:
                    moves[key] = shorter
                    break
        # What is moved to may move itself.
        return {key: _last(moves, shorter) for key, shorter in moves.items()}

    def _slots(self, width: int) -> dict[Tokens, Tokens]:
        """Sequences that differ in as many words as `width`, where these are values."""
        by_length: dict[int, list[Tokens]] = collections.defaultdict(list)
        for key in self._counts:
            by_length[len(key)].append(key)
        moves: dict[Tokens, Tokens] = {}
        for length, keys in sorted(by_length.items()):
            if len(keys) >= (2 if width == 1 else _PAIRS) and (
                width == 1 or length <= _PAIR_TOKENS
            ):
                self._move(_TokenMatrix(keys), width, moves)
        return moves

    def _move(self, sequences: _TokenMatrix, width: int, moves: dict[Tokens, Tokens]) -> None:
        slots = []
        for places, members in sequences.similar(width):
            if len(places) > 1 or self._is_slot(places[0], members):
                slots.append((-len(members), places, _opened(members[0], places), members))
        # The slot of the most members first: a sequence that fits several goes where most others
        # do.
        for _, _, sequence, members in sorted(slots, key=lambda slot: slot[:3]):
            template = _collapsed(sequence)
            for key in members:
                if key != template:
                    moves.setdefault(key, template)

    def _is_slot(self, place: int, members: list[Tokens]) -> bool:
        """Whether the words that sequences have at the only place in which they differ are values:
        of a few words, because most of them are rare beside the most frequent one."""
        if len(members) >= _MANY or any(_is_value(key[place]) for key in members):
            return True
        # `name=word` is an assignment, also of a word that two shapes alone have.
        if place and members[0][place - 1].endswith("="):
            return True
        # Two frequent words are two messages (`opened`, `closed`); a frequent one and rare others
        # are a value and its usual one.
        sizes = [self._counts[key] for key in members]
        return 2 * sum(size * _RARE <= max(sizes) for size in sizes) >= len(members) - 1


class _TokenMatrix:
    """Token sequences of one length as numbers, to find those that are equal but for some words.

    The hash of a sequence is the sum of those of its words at their places, so that words are
    exchanged in it without reading the others."""

    def __init__(self, keys: list[Tokens]) -> None:
        self._keys = sorted(keys)
        vocabulary: dict[str, int] = {}
        token_ids = [
            vocabulary.setdefault(word, len(vocabulary)) for key in self._keys for word in key
        ]
        self._words = np.array(token_ids, dtype=np.int64).reshape(len(keys), -1)
        dice = np.random.Generator(np.random.PCG64(1))
        # Of a fixed seed, so that equal shapes are merged in equal order; a collision of 64 bits
        # would merge two, once in 10^11 lakes of 20,000 shapes.
        ids = dice.integers(1, 2**63, len(vocabulary) + 2, dtype=np.uint64)
        names = list(vocabulary)
        self._is_sign = np.array([_is_sign(name) for name in names])[self._words]
        self._is_value = np.array([_is_value(name) for name in names])[self._words]
        self._is_assigned = np.zeros_like(self._is_sign)
        ends = np.array([name.endswith("=") for name in names])[self._words]
        self._is_assigned[:, 1:] = ends[:, :-1]
        # Odd, so that a product is 0 for no word.
        weights = dice.integers(1, 2**63, self._words.shape[1], dtype=np.uint64) | np.uint64(1)
        values = np.where([name[0] == " " for name in names], ids[-1], ids[-2])[self._words]
        self._of_word = np.where(self._is_value, values, ids[self._words]) * weights
        self._change = values * weights - self._of_word
        self._hashes = self._of_word.sum(axis=1, dtype=np.uint64)
        self._constants = (~self._is_sign & ~self._is_value).sum(axis=1)

    def similar(self, width: int) -> Iterator[tuple[tuple[int, ...], list[Tokens]]]:
        """Yield places, and the sequences that are equal elsewhere and may be of one template."""
        places = range(self._words.shape[1])
        if width == 1:
            for place in places:
                yield from (((place,), members) for members in self._similar_but(place))
            return
        for place in places:
            for partner in places[place + 1 :]:
                yield from (
                    ((place, partner), members) for members in self._similar_but_two(place, partner)
                )

    def _similar_but(self, place: int) -> Iterator[list[Tokens]]:
        own_constant = ~self._is_value[:, place]
        # Of what stays equal a word has to be constant, or any two messages of that length would be
        # one.
        rows = np.flatnonzero(~self._is_sign[:, place] & (self._constants > own_constant))
        groups, sizes = self._groups(self._hashes[rows] + self._change[rows, place])
        has_value = np.bincount(groups, self._is_value[rows, place], len(sizes)) > 0
        is_assigned = np.bincount(groups, self._is_assigned[rows, place], len(sizes)) > 0
        is_slot = (sizes >= _FEW) | ((sizes > 1) & (has_value | is_assigned))
        yield from self._members(rows, groups, is_slot)

    def _similar_but_two(self, place: int, partner: int) -> Iterator[list[Tokens]]:
        literal = ~self._is_sign & ~self._is_value
        rows = np.flatnonzero(literal[:, place] & literal[:, partner] & (self._constants > 4))
        if len(rows) < _PAIRS:
            return
        changes = self._change[rows, place] + self._change[rows, partner]
        groups, sizes = self._groups(self._hashes[rows] + changes)
        for members in self._members(rows, groups, sizes >= _PAIRS):
            # Both places have to vary: else it is one word with a value beside it, which the rounds
            # of one word see.
            if all(len({key[p] for key in members}) >= _FEW for p in (place, partner)):
                yield members

    @staticmethod
    def _groups(hashes: np.ndarray) -> tuple[Integers, Integers]:
        _, groups, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
        return groups, sizes

    def _members(
        self, rows: Integers, groups: Integers, is_slot: Booleans
    ) -> Iterator[list[Tokens]]:
        """The sequences of each group that may have a value there."""
        if not is_slot.any():
            return
        of_slot = is_slot[groups]
        rows, groups = rows[of_slot], groups[of_slot]
        in_order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[in_order], prepend=-1))
        for members in np.split(rows[in_order], starts[1:]):
            yield [self._keys[row] for row in members]


def _opened(key: Tokens, places: tuple[int, ...]) -> Tokens:
    """A sequence with values at places."""
    sequence = list(key)
    for place in places:
        sequence[place] = _as_value(key[place])
    return tuple(sequence)


def _contracted(key: Tokens) -> Iterator[Tokens]:
    # By the values, as of most words none is the one after next.
    for place, value in enumerate(key[2:]):
        if not value.endswith(VALUE) or _is_sign(key[place]):
            continue
        word, opening, closing = key[place], key[place + 1], key[place + 3 : place + 4]
        if closing and closing[0] == _BRACKETS.get(opening):
            yield _collapsed((*key[:place], _as_value(word), *key[place + 4 :]))
        elif (opening, value) == (":", VALUE) and not _is_value(word):
            yield _collapsed((*key[:place], _as_value(word), *key[place + 3 :]))


def _last(moves: dict[Tokens, Tokens], key: Tokens) -> Tokens:
    # Each move makes a sequence shorter, so that it ends.
    while key in moves:
        key = moves[key]
    return key
