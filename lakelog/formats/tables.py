"""Tables of formats, read from the part of TOML in which they are written.

`tomllib` takes 14 ms for them in each process that ingests, this a fifth of it. A test compares the
two, so that a table is plain TOML for everybody else.
"""

from __future__ import annotations

import os.path
import re
from typing import Any

import orjson

_STRING = re.compile("'([^']*)'|\"([^\"]*)\"")
_KEY = re.compile(r"([\w-]+) = ")


def read_tables(path: str) -> dict[str, dict[str, Any]]:
    """Return the tables of a file; raises ValueError for what is not of this part of TOML.

    Statements begin a line. Values take one, but for arrays of strings: those end with a line `]`.
    """
    tables: dict[str, dict[str, Any]] = {}
    members: dict[str, Any] = {}
    array: list[Any] | None = None
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line in lines:
        if array is not None:
            if line == "]":
                array = None
            else:
                array += _value(f"[{line.strip().removesuffix(',')}]")
        elif line.startswith("["):
            members = _table(tables, line)
        elif line and not line.startswith("#"):
            key, sign, value = line.partition(" = ")
            if not sign:
                raise ValueError(f"{os.path.basename(path)}: no statement: {line}")
            if value == "[":
                array = members[key] = []
            else:
                members[key] = _value(value)
    return tables


def path_beside(module: str, name: str) -> str:
    """The path of a file beside a module; pathlib would take longer to load than the tables."""
    return os.path.join(os.path.dirname(module), name)


def _table(tables: dict[str, dict[str, Any]], header: str) -> dict[str, Any]:
    """The new table of a header: `[name]`, `[name.inner]`, or one of a list, `[[name.inner]]`."""
    members: dict[str, Any] = {}
    name, _, inner = header.strip("[]").partition(".")
    if not inner:
        tables[name] = members
    elif header.startswith("[["):
        tables[name].setdefault(inner, []).append(members)
    else:
        tables[name][inner] = members
    return members


def _value(text: str) -> Any:
    """The value of a text; all but literal strings and inline tables are JSON as well."""
    if text.startswith("'''") and text.endswith("'''"):
        return text[3:-3]
    if text.startswith("'") and text.endswith("'") and text.count("'") == 2:
        return text[1:-1]
    if "'" in text and text.startswith("["):
        return [literal or basic for literal, basic in _STRING.findall(text)]
    return orjson.loads(_KEY.sub(r'"\1": ', text) if text.startswith("{") else text)
