"""The grammar of recipes out of `recipe_keys.toml`: sections and keys, values and meanings."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeGuard

import orjson

from lakelog.train.tables import read_table

SHAPES = ("events", "text", "classification", "messages", "decision", "preference", "sequence")
TEXTUAL = ("text", "classification", "messages", "preference")
"""Shapes whose rows are compared as texts, so that near duplicates never straddle a split."""

NEEDS = {
    "events": "rows of any kind",
    "text": "rows with text in the column that [shape] text names",
    "classification": "rows with a text and a label",
    "messages": "events with a role and a content, or bodies of a chat API",
    "decision": "subjects with an event that [shape] outcome names",
    "preference": "events with a chosen and a rejected answer",
    "sequence": "subjects with events",
}
"""What each shape needs to form a row."""

_PATH = "a column of the selection, or a path such as data.title"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_tokenizer(value: object) -> bool:
    library, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    return library in ("tiktoken", "tokenizers") and bool(name)


_CHECKS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "text": ("text", _is_text),
    "path": ("text", _is_text),
    "number": ("a number", lambda value: _is_whole(value) or isinstance(value, float)),
    "whole": ("a whole number", _is_whole),
    "above 0": ("a number above 0", lambda value: _is_whole(value) and value >= 1),
    "time": ("a time", lambda value: _is_text(value) or isinstance(value, date)),
    "flag": ("true or false", lambda value: isinstance(value, bool)),
    "texts": ("a list", _is_list),
    "all or texts": ('a list, or "all"', lambda value: value == "all" or _is_list(value)),
    "flag or texts": (
        "true, false or columns",
        lambda value: isinstance(value, bool) or _is_list(value),
    ),
    "flag or number": (
        "a number, or true or false",
        lambda value: isinstance(value, (bool, int, float)),
    ),
    "tokenizer": ("tiktoken:ENCODING or tokenizers:FILE", _is_tokenizer),
}
"""What `takes` may be: how an error calls such a value, and whether a value is one."""


@dataclass(frozen=True)
class RecipeKey:
    """One key: its values, its default, and the shapes it belongs to (all, if empty)."""

    doc: str
    takes: str = "text"
    value_name: str = ""
    one_of: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    default: object = None
    example: object = None
    active: bool | tuple[str, ...] = False

    @property
    def meaning(self) -> str:
        """What the key is for."""
        return f"{self.doc}: {_PATH}" if self.takes == "path" else self.doc

    @property
    def values(self) -> str:
        """What its values are, as an error says it."""
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
        return self.value_name or _CHECKS[self.takes][0]

    def accepts(self, value: object) -> bool:
        """Whether a value is one of those."""
        return value in self.one_of if self.one_of else _CHECKS[self.takes][1](value)

    def is_needed(self, shape: object) -> bool:
        """Whether a recipe of that shape must give it."""
        return "*" in self.needed or shape in self.needed

    def is_active(self, shape: str) -> bool:
        """Whether it is in force in a new recipe of that shape, and not only shown."""
        return self.active if isinstance(self.active, bool) else shape in self.active

    def default_for(self, shape: object) -> Any:
        """The value of a recipe that leaves it out."""
        default = self.default.get(shape) if isinstance(self.default, dict) else self.default
        return list(default) if isinstance(default, list) else default


def _key(members: dict[str, Any]) -> RecipeKey:
    # The lists that describe a key are fixed; those that are values stay what a recipe may hold.
    described = ("one_of", "shapes", "needed", "active")
    tuples = {
        name: tuple(members[name]) for name in described if isinstance(members.get(name), list)
    }
    return RecipeKey(**(members | tuples))


KEYS: dict[str, dict[str, RecipeKey]] = {
    section: {name: _key(members) for name, members in keys.items()}
    for section, keys in read_table("recipe_keys.toml").items()
}


_TEMPLATE = """\
# A recipe: `lakelog train export {name}.toml -o {name}/`
# Lines that begin with `# key =` show keys that may be set; the others are set.
# `name` is the family: in all its exports of one seed a group keeps its split.
name = "{name}"
"""


def template(shape: str, name: str) -> str:
    """Return a commented recipe of a shape that is valid as it stands."""
    lines = [_TEMPLATE.format(name=name)]
    own_values = {("shape", "kind"): shape, ("card", "title"): name}
    for section, keys in KEYS.items():
        lines.append(f"\n[{section}]\n")
        for key, spec in keys.items():
            if spec.shapes and shape not in spec.shapes:
                continue
            lines += [f"# {line}\n" for line in textwrap.wrap(spec.meaning, 76)]
            example = spec.default_for(shape) if spec.example is None else spec.example
            value = orjson.dumps(own_values.get((section, key), example)).decode()
            # What every recipe should decide is active; the other keys show an example in a
            # comment.
            lines.append(f"{'' if spec.is_active(shape) else '# '}{key} = {value}\n")
    return "".join(lines)
