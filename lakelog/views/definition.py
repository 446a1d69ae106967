"""A view as one file of SQL: a header, then one SELECT, or the three sections of a projection.

    -- name: busiest                      -- map      SELECT ... FROM segment
    -- version: 1                         -- merge    SELECT ... FROM partials
    -- about: Events by source.           -- finish   SELECT ... FROM state
    -- params: type text = null
    -- key: source                        (may be left out, as may the next two)
    -- merged: yes                        -- totals   SELECT ... FROM state GROUP BY ...
    -- by: type

`map` turns rows of `events` (with `seq`, and `place`, which orders events by time and then seq)
into a partial; `merge` turns any number of partials, or of what it gave before, into one with the
same columns; `finish` answers from it, and is the only one to know `$now`. With `key`, merge works
on each value of those columns by itself, so only what is touched is merged again. `merged: yes`
says that a partial is already what merge would make of it alone. `totals`, between merge and
finish, may add the state up by the columns of `by`: all others are counts, or sums of whole
numbers, one of them never 0. What is new is then added to what is known, and finish may read
`totals` too. A view without sections is one SELECT over `events`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, field

from lakelog.errors import InvalidView
from lakelog.search import expanded
from lakelog.views import params as parameters
from lakelog.views.params import Param, Values

SECTIONS = {"map": "segment", "merge": "partials", "finish": "state"}
PLAIN, TOTALS = "query", "totals"
# A view of such a name could not be told from the table or the verb.
RESERVED = frozenset(("create", "drop", "show", "events", "quarantine", *SECTIONS.values()))
TEXT_MAX = 100_000
_HEADER = re.compile(
    r"--\s*((?:name|version|params|about|key|merged)\b|(?:by|main)(?=:))\s*:?\s*(.*?)\s*$"
)
_SECTION = re.compile(r"--\s*(map|merge|totals|finish)\s*:?\s*$")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Section:
    """One SELECT of a file, and the line of the file it begins on."""

    name: str
    sql: str
    line: int

    @property
    def relation(self) -> str:
        """The table it reads."""
        return "state" if self.name == TOTALS else SECTIONS.get(self.name, "events")


@dataclass(frozen=True)
class ViewDefinition:
    """One view. `sections` are map, merge and finish, perhaps totals, or one called query. `main`
    are the columns that a narrow table shows first."""

    name: str
    version: str
    about: str
    params: tuple[Param, ...]
    key: tuple[str, ...]
    merged: bool
    by: tuple[str, ...]
    sections: dict[str, Section] = field(hash=False)
    text: str = field(repr=False)
    main: tuple[str, ...] = ()

    @property
    def is_projection(self) -> bool:
        """Whether its state is kept; a plain view is computed from all events."""
        return PLAIN not in self.sections

    def filled(self, section: str, values: Values, now: int | None = None) -> str:
        """Return a section's SQL with its parameters put in."""
        return parameters.filled(self.sections[section].sql, self.params, values, now)

    def state(self, values: Values, engine: str) -> str:
        """Name the states that this view's map and merge make: equal for views that share them."""
        # Of map and merge only: views that differ in `finish` alone share what is kept.
        inputs = [
            engine,
            ",".join(self.key),
            str(self.merged),
            *(self.filled(s, values) for s in ("map", "merge")),
        ]
        return hashlib.sha256("\0".join(inputs).encode()).hexdigest()


# A view that is asked for by its text is so again and again.
@functools.lru_cache(64)
def parse(source: str, name: str | None = None) -> ViewDefinition:
    """Read a definition; `name` overrides the header's. Raises InvalidView: line, what."""
    # By bytes, as the manifest stores it.
    if len(source.encode()) > TEXT_MAX:
        raise InvalidView(f"a view has at most {TEXT_MAX:,} bytes of text")
    header, params, sections = _split(source)
    name = name or header.get("name")
    if not name:
        raise InvalidView("the view has no name: begin with a line `-- name: NAME`")
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise InvalidView(
            f"{name!r} cannot name a view: use a-z, 0-9 and _, and no word of lakelog"
        )
    if header.get("by") and TOTALS not in sections:
        raise InvalidView(
            "`by` says what totals are grouped by: the view has no section `-- totals`"
        )
    # SQL could not tell which of the two a name means.
    if len({p.name for p in params}) != len(params):
        raise InvalidView("a parameter is declared twice")
    # A view is either one plain SELECT or has every section: with some of them missing it would be
    # unclear which of the two was meant.
    missing = SECTIONS.keys() - sections.keys()
    if missing and PLAIN not in sections:
        raise InvalidView(f"the view has no section `-- {sorted(missing)[0]}`")
    if PLAIN in sections and len(sections) > 1:
        line = sections[PLAIN].line
        raise InvalidView(f"line {line} stands before the sections: it belongs into one of them")
    for section in sections.values():
        if not section.sql.strip():
            raise InvalidView(f"section {section.name}, line {section.line}, is empty")
    key, by, main = (
        tuple(re.findall(r"[^,\s]+", header.get(name, ""))) for name in ("key", "by", "main")
    )
    return ViewDefinition(
        name,
        header.get("version", "1"),
        header.get("about", ""),
        tuple(params),
        key,
        header.get("merged", "no") == "yes",
        by,
        sections,
        source,
        main,
    )


def _split(source: str) -> tuple[dict[str, str], list[Param], dict[str, Section]]:
    """Take a file apart into its header, parameters and sections."""
    header: dict[str, str] = {}
    params: list[Param] = []
    starts: list[tuple[str, int]] = []
    lines = source.replace("\r\n", "\n").split("\n")
    has_sql = False
    # Positions count lines of the file, so that an error points into what the user wrote.
    for number, line in enumerate(lines):
        if match := _SECTION.match(line):
            if match[1] in {name for name, _ in starts}:
                raise InvalidView(f"line {number + 1}: a second section {match[1]}")
            starts.append((match[1], number + 1))
            has_sql = True
        elif not has_sql and (match := _HEADER.match(line)):
            if match[1] == "params":
                params += _declared(match[2], number + 1)
            else:
                header[match[1]] = match[2]
        elif not has_sql and line.strip() and not line.startswith("--"):
            # SQL before any section is a plain view; comments in it are no header any more.
            starts.append((PLAIN, number))
            has_sql = True
    # A section ends above the line that names the next one; plain SQL has no such line.
    ends = [start - (name != PLAIN) for name, start in starts[1:]] + [len(lines)]
    sections = {}
    for (name, start), end in zip(starts, ends, strict=False):
        query = "\n".join(lines[start:end]).rstrip().rstrip(";")
        sections[name] = Section(name, expanded(query), start + 1)
    return header, params, sections


def _declared(declarations: str, line: int) -> list[Param]:
    try:
        return parameters.declared(declarations)
    except InvalidView as error:
        raise InvalidView(f"line {line}: {error}") from None
