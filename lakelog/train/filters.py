"""Filters of texts: published rules of quality, and languages. Each drop is counted by its rule.

`gopher` are the quality rules of Rae et al. 2021 (MassiveText, table A1), `gopher_repetition` their
rules of repetition, `c4` the rules on whole pages of Raffel et al. 2020. They were designed
for English web pages. A text is counted under the first rule that it breaks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from lakelog.libraries import pa
from lakelog.train.losses import FILTERS, Losses

SETS = {
    "gopher": [n for n in FILTERS if n.startswith("gopher_") and n != "gopher_repetition"],
    "c4": [n for n in FILTERS if n.startswith("c4_")],
}
RULE_NAMES = [n for n in FILTERS if n != "language"]
_BULLET = re.compile(r"\s*[•‣▪●○*-](?:\s|$)")
_ELLIPSIS = ("...", "…")
_SENTENCE = re.compile(r"[.!?][\"'”’)]*(?:\s|$)")
_STOP_WORDS = frozenset("the be to of and that have with".split())
# Limits of Rae et al. 2021, table A1: the share of characters in the most frequent 2- to 4-gram,
# and in all 5- to 10-grams that occur repeatedly.
_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


class _Document:
    """A text with its words and lines."""

    def __init__(self, content: str) -> None:
        self.text = content
        self.words = content.split()
        self.lines = [line for line in content.split("\n") if line.strip()]

    def part(self, count: int, units: str = "words") -> float:
        """A count as a fraction of the words or lines."""
        return count / max(len(getattr(self, units)), 1)


def expand(names: Iterable[str]) -> list[str]:
    """Expand names of rules and rule sets to rules, in their order."""
    rules = {rule for name in names for rule in SETS.get(name, [name])}
    return [rule for rule in FILTERS if rule in rules]


def first_broken_rule(content: str, rules: Iterable[str]) -> str | None:
    """Return the first of the rules that a text breaks."""
    document = _Document(content)
    return next((rule for rule in rules if _BREAKS[rule](document)), None)


def passing_rows(
    batches: Iterable[pa.RecordBatch], column: str, filter: dict[str, list[str]], losses: Losses
) -> Iterator[pa.RecordBatch]:
    """Yield the rows whose text in a column passes the filters of a recipe, batch by batch in their
    order; count the others in `losses`, each by the first rule that it breaks."""
    rules, languages = expand(filter["quality"]), set(filter["languages"])
    for batch in batches:
        passes = []
        for content in _texts(batch.column(batch.schema.get_field_index(column))):
            # Language detection is the slowest rule and runs only for texts that pass the others.
            reason = first_broken_rule(content, rules)
            if reason is None and languages and _language(content) not in languages:
                reason = "language"
            if reason is not None:
                losses.add(reason, 1, f"{content[:40]!r}")
            passes.append(reason is None)
        # Filtering copies the batch; most batches pass whole.
        yield batch if all(passes) else batch.filter(pa.array(passes))


def _texts(column: pa.Array) -> Iterator[str]:
    """The text of each row; of a conversation, the contents of its messages."""
    for value in column.to_pylist():
        if isinstance(value, list):
            yield "\n".join(m["content"] or "" for m in value)
        else:
            yield "" if value is None else str(value)


def _language(content: str) -> str:
    """The ISO 639-1 code of the most likely language of a text."""
    import py3langid  # an extra, of which only filters by language know; 0.3 s to load

    code, _ = py3langid.classify(content)
    return str(code)


def _repeats(document: _Document) -> bool:
    """Whether lines, paragraphs or word sequences repeat too often."""
    paragraphs = [p for p in re.split(r"\n{2,}", document.text) if p.strip()]
    for passages in (document.lines, paragraphs):
        repeated = _repeated_pieces(passages)
        if len(repeated) > 0.3 * len(passages) or _size(repeated) > 0.2 * _size(passages):
            return True
    terms, total = document.words, max(_size(document.words), 1)
    # The paper weighs n-grams by characters, not by words, so long repeated phrases count more.
    for size, share_max in _TOP.items():
        grams = Counter(_grams(terms, size))
        gram, count = max(grams.items(), key=lambda g: g[1] * _size(g[0]), default=((), 0))
        if count > 1 and count * _size(gram) > share_max * total:
            return True
    for size, share_max in _REPEATED.items():
        earlier_grams: set[tuple[str, ...]] = set()
        covered: set[int] = set()
        for place, gram in enumerate(_grams(terms, size)):
            if gram in earlier_grams:
                # Positions in a set: overlapping n-grams must not count a word twice.
                covered.update(range(place, place + size))
            earlier_grams.add(gram)
        if sum(len(terms[place]) for place in covered) > share_max * total:
            return True
    return False


def _repeated_pieces(passages: list[str]) -> list[str]:
    """The pieces that repeat an earlier one."""
    earlier: set[str] = set()
    return [p for p in passages if p in earlier or earlier.add(p)]  # type: ignore[func-returns-value]


def _size(strings: Iterable[str]) -> int:
    return sum(map(len, strings))


def _grams(terms: list[str], size: int) -> Iterator[tuple[str, ...]]:
    return zip(*(terms[step:] for step in range(size)), strict=False)


_BREAKS: dict[str, Callable[[_Document], bool]] = {
    "gopher_length": lambda t: not 50 <= len(t.words) <= 100_000,
    "gopher_word_length": lambda t: not 3 <= t.part(_size(t.words)) <= 10,
    "gopher_symbols": lambda t: any(t.part(t.text.count(s)) > 0.1 for s in ("#", *_ELLIPSIS)),
    "gopher_bullets": lambda t: t.part(sum(map(bool, map(_BULLET.match, t.lines))), "lines") > 0.9,
    "gopher_ellipses": lambda t: (
        t.part(sum(line.rstrip().endswith(_ELLIPSIS) for line in t.lines), "lines") > 0.3
    ),
    "gopher_letters": lambda t: t.part(sum(any(map(str.isalpha, w)) for w in t.words)) < 0.8,
    "gopher_stop_words": lambda t: (
        len(_STOP_WORDS.intersection(w.lower().strip(".,;:!?\"'()") for w in t.words)) < 2
    ),
    "gopher_repetition": _repeats,
    "c4_sentences": lambda t: len(_SENTENCE.findall(t.text)) < 3,
    "c4_curly_bracket": lambda t: "{" in t.text,
    "c4_lorem_ipsum": lambda t: "lorem ipsum" in t.text.lower(),
}
