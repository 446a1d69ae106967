"""Zeek's logs with tabs: #fields and #types say what the columns hold, #path the type.

`ts` is the time and `uid` the subject; numbers, booleans, sets and vectors are those of JSON. What
is unset is null. Text keeps what is escaped (`\\x09`) as it is written. A header further down that
says the same is no event; after one that says something else, what was read at once with it is
read as it says.
"""

from __future__ import annotations

import re

from lakelog.formats.columns import DATA, Column, LineTable
from lakelog.formats.hash_headers import HashHeaders

_NUMBERS = ("count", "int", "port", "double", "interval", "time")
_LIST = re.compile(r"(?:set|vector)\[(\w+)\]")


def _is_log(lines: list[bytes]) -> bool:
    """Whether this is a log of Zeek: its header comes first."""
    return bool(lines) and lines[0].startswith(b"#separator ")


def _table(header: list[str]) -> LineTable | None:
    """The table that the lines of a header describe."""
    directives = {}
    for line in header:
        key, _, value = line.partition("\t" if "\t" in line else " ")
        directives[key] = value
    if "#fields" not in directives:
        return None
    names, kinds = directives["#fields"].split("\t"), directives.get("#types", "").split("\t")
    # Types that do not match the fields are of no use; text loses nothing.
    if len(kinds) != len(names):
        kinds = ["string"] * len(names)
    places = {"ts": "time", "uid": "subject"}
    columns = tuple(
        Column(name, _kind(column_type), places.get(name, DATA))
        for name, column_type in zip(names, kinds, strict=True)
    )
    return LineTable(
        columns,
        # Zeek escapes tabs within values, so every tab is a separator.
        lambda text: text.split("\t"),
        "string_split(text, chr(9))",
        directives.get("#path") or "zeek",
        (names.index("ts"),) if "ts" in names else (),
        unset=directives.get("#unset_field", "-"),
        empty=directives.get("#empty_field", "(empty)"),
        between=directives.get("#set_separator") or ",",
        tabs=True,
    )


def _kind(column_type: str) -> str:
    of_list = _LIST.fullmatch(column_type)
    if of_list:
        return "[" + _kind(of_list[1])
    return "cell" if column_type in _NUMBERS else "bool" if column_type == "bool" else "text"


FORM = HashHeaders("zeek", __doc__, "#fields", _table, _is_log)
