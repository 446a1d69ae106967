"""Definitions of formats by users, and how they are written as the name of a format.

A cursor stores the whole definition as the name of the format that its file was read in. So an
audit reads the file in the same way on any machine, whatever happened to the definition since.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

import orjson

from lakelog.errors import InvalidSetting
from lakelog.formats import re2
from lakelog.formats.grok import shortened


@dataclass(frozen=True)
class FormatDefinition:
    """How lines are read, as a user defines it; what is empty is left to lakelog.

    `format` names a format in place of a `pattern`; `name` is that of the definition in a lake.
    """

    PREFIX: ClassVar = "pattern:"
    """The prefix of the name of a format that is written out; JSON of a definition follows."""
    pattern: str = ""
    format: str = ""
    begins: str = ""
    continues: str = ""
    time_format: str = ""
    zone: str = ""
    levels: tuple[tuple[str, str], ...] = ()
    define: tuple[tuple[str, str], ...] = ()
    name: str = ""
    encoding: str = ""

    def members(self) -> dict[str, Any]:
        """The members that are set, as JSON values."""
        values = {**asdict(self), "levels": dict(self.levels), "define": dict(self.define)}
        return {name: value for name, value in values.items() if value}

    def spelled(self) -> str:
        """The whole definition as the name of a format, which `of_name` parses."""
        return self.PREFIX + orjson.dumps(self.members()).decode()

    def over(self, base: FormatDefinition) -> FormatDefinition:
        """Return another definition, overridden by all that this one sets."""
        overrides = {
            name: value for name, value in vars(self).items() if value and name != "format"
        }
        return replace(base, **overrides)

    @classmethod
    def of_name(cls, name: str) -> FormatDefinition:
        """Return the definition that the name of a format means: one written out, a pattern, or a
        name. Raises InvalidSetting."""
        if name.startswith(cls.PREFIX):
            try:
                return cls.of_members(orjson.loads(name.removeprefix(cls.PREFIX)))
            except (orjson.JSONDecodeError, AttributeError):
                raise InvalidSetting(f"{shortened(name)!r} is not a format") from None
        if cls.is_pattern(name):
            return cls(pattern=name)
        return cls(format=name)

    @staticmethod
    def is_pattern(name: str) -> bool:
        """Whether a text is a pattern and no name of a format."""
        return not name.startswith("access:") and any(m in name for m in ("%{", "(?P<", "(?<"))

    @classmethod
    def of_members(cls, members: dict[str, Any]) -> FormatDefinition:
        """Return the definition that members of a JSON object give; others are ignored."""
        values: dict[str, Any] = {f.name: members.get(f.name) or "" for f in fields(cls)}
        for name, value in values.items():
            if name in ("levels", "define"):
                values[name] = tuple(sorted((str(k), str(v)) for k, v in dict(value or {}).items()))
            else:
                values[name] = str(value)
        return cls(**values)

    check_regex = staticmethod(re2.check)
