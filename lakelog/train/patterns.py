"""Patterns of personal data and secrets: RE2, and SQL conditions that reject look-alikes.

Each kind of `patterns.toml` has rules, applied in order. A rule has a `hint` (a cheap pattern that
every match contains), a `pattern`, and `holds`: a SQL condition on the match `m`, such as the Luhn
checksum; it may use `h`, the head of the match that is kept. A pattern includes the surrounding
words where they show that it is no match: `v1.2.3.4` is matched as a whole, and `holds` rejects it.
Names are words with a capital that stand in `names.txt`: the 10,000 most frequent given and family
names of the United States census of 1990 (public domain) that are no English words, months, places
or products.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from lakelog.runtime.tables import ModuleFiles
from lakelog.train.tables import expand, read_table

TOKENS_PER_RULE = 12
"""Formats of tokens in one pattern: RE2 is fast while the automaton of a pattern is small."""


@dataclass(frozen=True)
class RedactionRule:
    """One form of a secret or personal datum."""

    hint: str
    pattern: str
    holds: str = "true"
    keeps: str = ""
    """A pattern of what stands before the find and is kept, such as `Bearer `."""
    tail: str = ""
    """A text that may stand after the find and is kept, such as `@`."""


@dataclass(frozen=True)
class Kind:
    """One kind of data to redact. `mark` replaces a match, between < and >."""

    name: str
    rules: tuple[RedactionRule, ...]

    @property
    def mark(self) -> str:
        """`EMAIL` for email."""
        return self.name.upper()

    @property
    def hint(self) -> str:
        """A pattern that every text with a match of this kind contains."""
        return "|".join(f"(?:{rule.hint})" for rule in self.rules)


def _token_rules() -> Iterator[RedactionRule]:
    """The formats of `tokens.toml`, some in each rule."""
    table = read_table("tokens.toml")
    formats = [
        form
        if isinstance(form, dict)
        else {"hint": rf"\b(?:{form[0]})", "pattern": rf"\b(?:{form[0]}){form[1]}"}
        for form in table["tokens"].values()
    ]
    for start in range(0, len(formats), TOKENS_PER_RULE):
        group = formats[start : start + TOKENS_PER_RULE]
        hint, pattern = ("|".join(form[key] for form in group) for key in ("hint", "pattern"))
        fragments = table["fragments"]
        yield RedactionRule(expand(hint, fragments), expand(pattern, fragments))


def _kinds() -> Iterator[Kind]:
    table = read_table("patterns.toml")
    countries = {int(length): codes.split() for length, codes in table["iban_lengths"].items()}
    fragments = table["fragments"] | {
        "countries": "|".join(code for codes in countries.values() for code in codes),
        "iban": "|".join(
            rf"\b(?:{'|'.join(codes)})[0-9]{{2}}(?: ?[A-Z0-9]){{{length - 4}}}\b"
            for length, codes in countries.items()
        ),
    }
    for name, forms in table["kinds"].items():
        rules = [
            RedactionRule(**{key: expand(pattern, fragments) for key, pattern in form.items()})
            for form in forms
        ]
        if name == "key":
            # After private keys, which may contain what looks like a token.
            rules[1:1] = _token_rules()
        yield Kind(name, tuple(rules))


KINDS = {entry.name: entry for entry in _kinds()}
"""In the order in which they are looked for: the more certain first."""


@functools.cache
def names() -> tuple[str, ...]:
    """The 10,000 names that are redacted."""
    return tuple(ModuleFiles(__file__).text("names.txt").split())
