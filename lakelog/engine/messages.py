"""What the engine says in its errors: in one line, where, and which names it misses.

A message is `Kind Error: words`, then hints and lists, then `LINE n:` with a picture of the query.
The words are promised to nobody: each that lakelog looks for is here, and where one changes, its
hint is lost and the engine's own words are shown.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Protocol

from lakelog.errors import LakelogError
from lakelog.runtime.closest import did_you_mean

_DETAILS = re.compile(
    r"\n+LINE |\n\nPossible solutions|\n\s*Candidate|\n\nFor more info"
    r"| Candidate functions| You might need to add"
)
"""Where a message ends and its lists, hints and picture of the query begin."""
_TRACE = "Traceback (most recent call last)"
_CASTS = " In order to select one, please add explicit type casts."
_PLACE = re.compile(r"\n\s*LINE (\d+):")
_PICTURE = re.compile(r"^(LINE \d+: )(.*)\n( *\^+)", re.M)
_CATALOG = re.compile(r' ?Did you mean "(?:pg_|sqlite_|duckdb_|information_schema)\w*"\?')
_FIELD = re.compile(r"Cannot extract field '([^']*)' from expression \"data\"")
_NO_TABLE = re.compile(
    r'Table with name "?([^\s"]+)"? does not exist!(?:\s*Did you mean "([^"]*)"\?)?'
)
_NO_SCHEMA = re.compile(r'because schema "([^"]+)" does not exist\.?')
_NO_NAME = re.compile(r'(?:column|with name) "?(\w+)"? (?:not found|does not exist)')
_OWN_COLUMN = re.compile(r" when casting from source column data~\d+")
_NO_FIELDS = 'Referenced table "fields" not found'
_FEWER = ": ask of fewer events at once"
_NO_ROOM = "Out of Memory Error"
_READ_ONLY = re.compile(
    r"(?:events|quarantine) is not an table|Can only (?:delete from|update) base table"
    r'|Existing object "(?:events|quarantine)" is of type'
)
_LISTS_OF_REFS = "`lakelog tag` and `lakelog branch` list them"
_NO_COLUMN = re.compile(r'Referenced column "([^"]*)" not found')
_CANDIDATES = re.compile(r"Candidate bindings: (.*)")
_NAME = re.compile(r'"([^"]+)"')
_OLDER_COLUMNS = frozenset(
    "timestamp event_type action data_json data_compressed hash processed created_at".split()
)
_OLDER_TABLES = ("patterns", "system_stats")
"""Columns and tables of the older event store that are in the schema omega alone."""
_NO_SEGMENT = re.compile(r"No (?:such file|files found).*/segments/\w\w/(\w{12})\w+\.parquet")
_OF_VALUES = ("Conversion Error", "Out of Range Error", "Invalid Input Error")
_UNFINISHED = re.compile(r'unterminated|near "\$\w*\$')
_INTERRUPTED = ("Query interrupted", "INTERRUPT Error: Interrupted!")
_IN_HANDLER = re.compile(
    r"Invalid Input Error: [\w ]+ registered as '[^']*'[\w ]* failed: KeyboardInterrupt:"
)

# Of a message that was explained before.
_HINTS = ("write data->>'", "payload is data->>'", "see `lakelog views`", "only events have data")


class RefNames(Protocol):
    """The tags and branches of a lake, for which the engine takes schemas."""

    def tag_names(self) -> Iterable[str]:
        """The names of tags."""

    def branches(self) -> Iterable[str]:
        """The names of branches."""


class EngineMessage(str):
    """The words of an error of the engine."""

    __slots__ = ()

    def gist(self) -> str:
        """Return a message in one line, without its lists, hints and picture of the query."""
        message = _DETAILS.split(self, 1)[0].replace(_CASTS, "")
        if _TRACE in message:  # of a file that is read through Python: its last line says why
            message = message.strip().rpartition("\n")[2].partition(": ")[2]
        return " ".join(message.split())

    def reason(self) -> str:
        """Return a message without the kind of the error before it."""
        return self.partition(": ")[2]

    def names_file(self, folder: str) -> bool:
        """Whether a message is of a file below a folder."""
        return f"{folder}/" in self

    def line_of(self) -> int | None:
        """Return the line of the query that a message points at, from 1, if it does."""
        match = _PLACE.search(self)
        return int(match[1]) if match else None

    @staticmethod
    def is_interrupt(error: BaseException) -> bool:
        """Whether an error is the engine's answer to an interrupt, by whatever way it came: as one
        of its own, as Arrow's, or in the words of one that ran the handler of a signal."""
        message = str(error)
        return message in _INTERRUPTED or (
            EngineMessage.is_engine(error) and bool(_IN_HANDLER.match(message))
        )

    @staticmethod
    def is_engine(error: BaseException) -> bool:
        """Whether the engine raised it, by sys.modules: who has not loaded it need not for this."""
        engine = sys.modules.get("_duckdb")
        return engine is not None and isinstance(error, engine.Error)

    def is_of_value(self) -> bool:
        """Whether a query fails by a value that it meets, and not by what it says."""
        return self.startswith(_OF_VALUES)

    def is_locked(self) -> bool:
        """Whether another process or transaction has the file."""
        signs = ("Could not set lock", "onflict on tuple", "write-write conflict")
        return any(sign in self for sign in signs)

    def is_full(self) -> bool:
        """Whether the disk is full."""
        return "No space left" in self

    def is_of_row(self) -> bool:
        """Whether a table refuses a row: for a constraint, or a type that it does not fit."""
        return "onstraint" in self or "Conversion" in self

    def is_unfinished(self) -> bool:
        """Whether a text does not parse as a string, comment or name in it has no end yet."""
        return bool(_UNFINISHED.search(self))

    def missing_table(self) -> str:
        """Return the name of the table without a schema that there is not, or nothing."""
        match = _NO_TABLE.search(self)
        return match[1] if match and re.fullmatch(r"\w+", match[1]) else ""

    def missing_name(self) -> str:
        """Return the name of the table, column or function that there is not, or nothing."""
        match = _NO_NAME.search(self)
        return match[1] if match else ""

    def with_suggestion(
        self, list_tables: Callable[[], Iterable[str]], ref_names: RefNames
    ) -> EngineMessage:
        """Return the engine's words with the nearest of the lake's own tables or refs.

        The engine knows only the tables that the query needed, and suggests its catalog instead.
        """
        if "does not exist" not in self:
            return self
        tables: list[str] = []
        refs: list[str] = []
        with contextlib.suppress(LakelogError, OSError):  # the query's error is the one to report
            refs = [*ref_names.tag_names(), *ref_names.branches()]
            tables = [*list_tables()]
        if match := _NO_TABLE.search(self):
            name = match[1]
            scratch = [match[2]] if match[2] and not _CATALOG.search(match[0]) else []
            hint = did_you_mean(name, [*tables, *scratch])
            return self._with(match, f"Table with name {name} does not exist! {hint}".rstrip())
        if match := _NO_SCHEMA.search(self):
            hint = did_you_mean(match[1], [*refs, "omega"]) or _LISTS_OF_REFS
            return self._with(match, f'because there is no tag or branch "{match[1]}": {hint}')
        return self

    def _with(self, match: re.Match[str], sentence: str) -> EngineMessage:
        return EngineMessage(f"{self[: match.start()]}{sentence}{self[match.end() :]}")

    def clearer(self, as_asked: str) -> str:
        """Return what to say of a query that fails so, and so as it was asked: where it reads
        `fields`, which only its rewriting has, the first, without its picture of that."""
        return (
            _OWN_COLUMN.sub("", self.split("\n\nLINE")[0]) if _NO_FIELDS in as_asked else as_asked
        )

    def explained(self) -> str:
        """Return the gist of the engine's words in one line, with the hint that fits a lake."""
        message = _CATALOG.sub("", self.gist())
        # The engine's own hint knows the query better than one of ours.
        if any(hint in message for hint in _HINTS):
            return message
        if match := _NO_SEGMENT.search(message):
            return f"segment {match[1]} was collected since the query began: run it again"
        if _NO_ROOM in message:
            # An error of a query that others make may have been explained before.
            return f"{message.removesuffix(_FEWER)}{_FEWER}"
        if _READ_ONLY.search(message):
            return (
                "SQL only reads a lake: `append` and `ingest` store events,"
                " `retention` removes them"
            )
        if _NO_FIELDS in message:
            return (
                "fields are known where FROM names events, and not beside PIVOT, COLUMNS,"
                " NATURAL JOIN or an alias `data`: write data->>'name'"
            )
        if match := _FIELD.search(message):
            return f"{message}: write data->>'{match[1]}'"
        if (match := _NO_TABLE.search(message)) and match[1] in _OLDER_TABLES:
            return f"Table with name {match[1]} does not exist! did you mean omega.{match[1]}?"
        if _NO_TABLE.search(message) and "did you mean" not in message.lower():
            tables = 'events, types."TYPE", quarantine, "REF".events and views'
            return f"{message} There are {tables}: see `lakelog views`"
        if match := _NO_COLUMN.search(message):
            if match[1] == "data":
                return (
                    f"{message}; only events have data, tables of types have its fields as columns"
                )
            hint = f"a field of the payload is data->>'{match[1]}'"
            # Those that the engine has in mind are more than what is near.
            candidates = _CANDIDATES.search(self)
            if near := did_you_mean(match[1], _NAME.findall(candidates[1]) if candidates else ()):
                hint = f"{near} {hint}"
            if match[1] in _OLDER_COLUMNS:
                hint += f", the older event store's {match[1]} is in omega.events"
            return f"{message.removesuffix('!')}: {hint}"
        return message

    def renumbered(self, query: str) -> EngineMessage:
        """Return a message with line numbers of the query as it was typed.

        The engine counts the lines of the query as it was rewritten.
        """
        match = _PICTURE.search(self)
        if match is None:
            return self
        excerpt = match[2].strip().strip(".")
        # Only where exactly one line of the query fits: better the engine's own than a wrong one.
        numbers = [n for n, line in enumerate(query.split("\n"), 1) if excerpt and excerpt in line]
        if len(numbers) != 1:
            return self
        start = f"LINE {numbers[0]}: "
        caret = " " * len(start) + match[3][len(match[1]) :]
        return self._with(match, f"{start}{match[2]}\n{caret}")

    def picture(self) -> list[str]:
        """Return the line of the query that a message shows and the caret below it, if it does."""
        _, mark, caret_lines = self.partition("\nLINE ")
        return f"LINE {caret_lines}".splitlines()[:2] if mark else []
