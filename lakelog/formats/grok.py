"""Patterns as users write them: grok (`%{IP:client} %{WORD:method}`) or named groups of a regex.

`expand` turns one into a regex that RE2 reads, whose groups are numbered `g1`, `g2` ... in the
order of `fields`; all other groups do not capture. Names of grok patterns are those that Logstash
documents, which `grok.toml` defines, and those a user defines.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lakelog.errors import InvalidSetting
from lakelog.runtime.closest import did_you_mean
from lakelog.runtime.tables import ModuleFiles


@functools.cache
def built_in() -> dict[str, str]:
    """The patterns that can be named; a user's own of the same name goes before."""
    patterns = ModuleFiles(__file__).tables("grok.toml")
    return {name: "".join(lines) for name, lines in patterns.items()}


KINDS = ("int", "float")
NAME = re.compile(r"[A-Za-z_]\w*")
LENGTH_MAX = 64 * 1024
"""Characters of a regex once all names in it are replaced."""
FIELDS_MAX = 100
# Bounds for definitions that refer to each other; each name costs something even if it is empty.
_DEPTH_MAX, _NAME_COST = 50, 32
_TOKEN = re.compile(
    r"(?P<escape>\\.)|(?P<set>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\])"
    r"|%\{(?P<ref>[^{}:]*)(?::(?P<field>[^{}:]*))?(?::(?P<kind>[^{}]*))?\}"
    r"|\(\?P?<(?![=!])(?P<group>[^>]*)>|(?P<odd>\(\?(?:<?[=!]|>|P=|P>|#|&|\w*R|\())"
    r"|(?P<other>\(\?)|(?P<plain>\()",
    re.DOTALL,
)
_ODD = {
    "(?=": "looks ahead",
    "(?!": "looks ahead",
    "(?<=": "looks behind",
    "(?<!": "looks behind",
    "(?>": "is atomic: write (?:",
    "(?P=": "refers back",
    "(?#": "is a comment: leave it out",
}


@dataclass(frozen=True)
class Field:
    """A named group, with `int` or `float` where its text is to be a number."""

    name: str
    kind: str = ""


@dataclass(frozen=True)
class Expansion:
    """A regex whose groups are g1, g2 ... and what they are called."""

    regex: str
    fields: tuple[Field, ...]


@dataclass
class _Expander:
    """One expansion: the text that it is of, the definitions, and the fields so far."""

    text: str
    names: Mapping[str, str]
    fields: list[Field] = field(default_factory=list)
    length: int = 0


def expand(pattern: str, defines: Mapping[str, str] | None = None) -> Expansion:
    """Return what a pattern means; `defines` are the user's own. Raises InvalidSetting."""
    expander = _Expander(pattern, {**built_in(), **(defines or {})})
    regex = _expanded(expander, pattern, ())
    return Expansion(regex, tuple(expander.fields))


def pieces(pattern: str) -> list[str]:
    """Cut a pattern into names and what stands between them, so that parts of it can be tried."""
    tokens, end = list[str](), 0
    for token in _TOKEN.finditer(pattern):
        if token["ref"] is not None or token["set"] or token["escape"]:
            tokens += [*pattern[end : token.start()], token[0]]
            end = token.end()
    return [*tokens, *pattern[end:]]


def _expanded(expander: _Expander, pattern: str, within: tuple[str, ...]) -> str:
    """The regex of a text that stands within patterns of these names."""
    regexes, end = list[str](), 0
    for token in _TOKEN.finditer(pattern):
        regexes += [pattern[end : token.start()], _replaced(expander, token, within)]
        end = token.end()
    regexes.append(pattern[end:])
    regex = "".join(regexes)
    if len(regex) > LENGTH_MAX:
        raise _wrong(expander, f"it is longer than {LENGTH_MAX:,} characters, written out")
    return regex


def _replaced(expander: _Expander, token: re.Match[str], within: tuple[str, ...]) -> str:
    """The regex for a token."""
    if token["odd"]:
        reason = _ODD.get(token["odd"], "is not known")
        raise _wrong(expander, f"{token['odd']!r} {reason}, which RE2 does not do")
    if token["plain"]:
        return "(?:"
    if token["group"] is not None:
        return f"(?P<{_group(expander, token['group'], '')}>"
    if token["ref"] is None:
        return token[0]
    name = token["ref"]
    if name not in expander.names:
        near = did_you_mean(name, expander.names)
        hint = f"{near} Or define" if near else "define"
        raise _wrong(expander, f"there is no pattern {name!r}: {hint} it with --define NAME=REGEX")
    if name in within or len(within) > _DEPTH_MAX:
        raise _wrong(expander, f"%{{{name}}} refers to itself")
    opening = "(?:"
    if token["field"]:
        opening = f"(?P<{_group(expander, token['field'], token['kind'] or '')}>"
    inner = _expanded(expander, expander.names[name], (*within, name))
    expander.length += len(inner) + _NAME_COST
    if expander.length > 8 * LENGTH_MAX:  # names that stand for ever more names
        raise _wrong(expander, f"it is longer than {LENGTH_MAX:,} characters, written out")
    return f"{opening}{inner})"


def _group(expander: _Expander, name: str, field_type: str) -> str:
    """Add a field; return the name of its group. `[a][b]` is called a.b, as Logstash means it."""
    plain = ".".join(re.findall(r"\[([^\[\]]+)\]", name)) if name.startswith("[") else name
    if not re.fullmatch(r"[A-Za-z_@][\w@.-]{0,63}", plain):
        raise _wrong(expander, f"{name!r} cannot name a group: use letters, digits, _ and .")
    if field_type not in ("", "string", *KINDS):
        raise _wrong(expander, f"{field_type!r} is no type of group {name!r}: choose int or float")
    if len(expander.fields) >= FIELDS_MAX:
        raise _wrong(expander, f"it has more than {FIELDS_MAX} named groups")
    expander.fields.append(Field(plain, field_type if field_type in KINDS else ""))
    return f"g{len(expander.fields)}"


def _wrong(expander: _Expander, reason: str) -> InvalidSetting:
    return InvalidSetting(f"pattern {shortened(expander.text)!r}: {reason}")


def shortened(pattern: str) -> str:
    """A pattern as a message shows it."""
    return pattern if len(pattern) <= 60 else f"{pattern[:59]}…"
