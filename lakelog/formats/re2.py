"""RE2 on single texts, by way of Arrow: for regexes of users, which may take exponential time in
Python."""

from __future__ import annotations

from lakelog.engine.messages import EngineMessage
from lakelog.errors import InvalidSetting
from lakelog.formats.grok import shortened
from lakelog.libraries import duckdb, pa, pc
from lakelog.sql import literal


def check(regex: str, subject: str, definition: str) -> None:
    """Compile a regex where it will be used. Raises InvalidSetting with RE2's reason."""
    reason = ""
    try:
        matches(regex, "")
        # Arrow and DuckDB each bundle an RE2 of their own: a regex has to compile in both.
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            connection.execute(f"SELECT regexp_matches('', {literal(regex)})").fetchall()
    except pa.ArrowInvalid as error:
        reason = str(error).removeprefix("Invalid regular expression: ")
    except duckdb.Error as error:
        reason = EngineMessage(error).reason()
    if reason:
        short = reason.split(": ")[0].splitlines()[0]
        raise InvalidSetting(
            f"{subject} {shortened(definition)!r}: {short} (RE2 reads it, not Python)"
        )


def groups(regex: str, line: str) -> dict[str, str] | None:
    """The values of the groups of a regex, None if it does not match."""
    values: dict[str, str] | None = pc.extract_regex(pa.array([line]), regex)[0].as_py()
    return values


def first(regex: str, line: str) -> str:
    """The text that a regex fits. Raises InvalidSetting where it is no regex."""
    try:
        return (groups(regex, line) or {"g0": ""})["g0"]
    except pa.ArrowInvalid as error:
        raise InvalidSetting(str(error)) from None


def matches(regex: str, line: str) -> bool:
    """Whether a regex fits anywhere in a text."""
    return bool(pc.match_substring_regex(pa.array([line]), regex)[0].as_py())
