"""What Tab offers in the shell: tables, columns, tags, functions, keywords, values, file names.

It looks only at what stands before the cursor: the quote that is still open, the table before a
dot, the word before. Functions and keywords are asked of the engine once, all else each time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from lakelog.cli.shell.statements import StatementRunner
from lakelog.compat import omega
from lakelog.errors import LakelogError
from lakelog.lazy import Lazy
from lakelog.store import sql
from lakelog.store.bootstrap import Store
from lakelog.store.segment import EVENT_COLUMNS, QUARANTINE_COLUMNS
from lakelog.store.sql import identifier

if TYPE_CHECKING:
    import duckdb
else:
    duckdb = Lazy("duckdb")


_TOKEN = re.compile(
    r"""--[^\n]*(?P<line>\n|$)|/\*.*?(?P<block>\*/|$)|'(?:[^']|'')*(?P<text>'|$)"""
    r"""|"(?:[^"]|"")*(?P<name>"|$)""",
    re.S,
)
_WORD = re.compile(r'(?:("[^"]*"|\w+)\.)?(\w*)$')
_TABLE_COMES = re.compile(r"\b(from|join|into|table|describe|summarize)\s+$", re.I)
_VALUE_COMES = re.compile(
    r"\b(type|source|level)\s*(?:=|<>|!=|\b(?:not\s+)?in\s*\([^()]*|\bi?like)\s*$", re.I
)
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_VALUES_MAX = 200
Named = tuple[str, str]
"""What is offered, and what kind of thing it is."""


class Names:
    """The names there are in a lake and its engine."""

    def __init__(self, store: Store, branch: str, runner: StatementRunner) -> None:
        self._store, self._branch, self._runner = store, branch, runner

    def refs(self) -> list[Named]:
        """Tags and branches."""
        with contextlib.suppress(LakelogError, OSError):
            refs = self._store.refs
            tags = [(tag.name, "tag") for tag in refs.tags()]
            return tags + [(name, "branch") for name in refs.branches()]
        return []

    def tables(self) -> dict[str, list[str]]:
        """Columns of each table, the lake's first, then those made in this session."""
        found = {"events": [*EVENT_COLUMNS, "seq"], "quarantine": list(QUARANTINE_COLUMNS)}
        query = (
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
            " AND schema_name = 'main' AND NOT starts_with(table_name, 'lakelog_')"
        )
        for table, column in self._ask(query):
            if table not in ("events", "quarantine"):
                found.setdefault(table, []).append(column)
        return found

    def views(self) -> list[Named]:
        """Views that are tables in SQL, and what each is about."""
        with contextlib.suppress(LakelogError, OSError):
            found = (definition for definition, _ in self._runner.views.definitions())
            return [(definition.name, definition.about) for definition in found]
        return []

    @cached_property
    def functions(self) -> list[Named]:
        """Functions of the engine."""
        query = "SELECT DISTINCT function_name, function_type FROM duckdb_functions()"
        return sorted((name, kind) for name, kind in self._ask(query) if _PLAIN.fullmatch(name))

    @cached_property
    def keywords(self) -> list[str]:
        """Keywords of the engine, in capitals."""
        return sorted(
            {name.upper() for (name,) in self._ask("SELECT keyword_name FROM duckdb_keywords()")}
        )

    def values(self, column: str) -> list[str]:
        """Values of type, source or level that the published segments count."""
        found: set[str] = set()
        with contextlib.suppress(LakelogError, OSError):
            manifests = self._store.manifests
            state = self._store.state(self._branch)
            for entry in manifests.entries(state):
                counts = entry.get(f"{column}s")
                found |= counts.keys() if isinstance(counts, dict) else set()
        return sorted(found)[:_VALUES_MAX]

    def _ask(self, query: str) -> list[tuple[str, ...]]:
        with contextlib.suppress(duckdb.Error):
            rows: list[tuple[str, ...]] = self._runner.cursor().sql(query).fetchall()
            return rows
        return []


class Words(Completer):
    """Completes SQL, and the shell's own commands with what each of `commands` offers."""

    def __init__(self, names: Names, commands: dict[str, Callable[[], Iterable[str]]]) -> None:
        self._names, self._commands = names, commands
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        """Yield what fits the text before the cursor."""
        before = document.text_before_cursor
        if before.lstrip().startswith("."):
            yield from self._command(before.lstrip())
            return
        kind, at = open_token(before)
        if kind == "text":
            yield from self._quoted(before[:at], before[at + 1 :], event)
        elif kind == "name":
            yield from self._refs(before[at + 1 :])
        elif kind == "":
            yield from self._word(before)

    def _command(self, typed: str) -> Iterator[Completion]:
        name, space, argument = typed[1:].partition(" ")
        if not space:
            yield from _fitting(name, [(n, "command") for n in self._commands])
        elif name in self._commands:
            words = [(word, "") for word in self._commands[name]()]
            yield from _fitting(argument.lstrip(), words)

    def _quoted(self, before: str, typed: str, event: CompleteEvent) -> Iterator[Completion]:
        """A value where a column is compared, else a file."""
        column = _VALUE_COMES.search(before)
        if column is None:
            yield from self._files.get_completions(Document(typed), event)
            return
        for value in self._names.values(column[1].lower()):
            if value.startswith(typed):
                yield Completion(sql.literal(value)[1:], -len(typed), display=value)

    def _refs(self, typed: str, quote: str = "") -> Iterator[Completion]:
        """Tags and branches as the schemas they are; `quote` where none is typed yet."""
        for name, kind in self._names.refs():
            if name.startswith(typed):
                text = identifier(name).removeprefix('"')  # the quote may be typed already
                yield Completion(f"{quote}{text}.", -len(typed), display=name, display_meta=kind)

    def _word(self, before: str) -> Iterator[Completion]:
        found = _WORD.search(before)
        owner, typed = (found[1], found[2]) if found else (None, "")
        if owner is not None:
            yield from _fitting(typed, self._owned(owner.strip('"')))
            return
        tables = self._names.tables()
        table_comes = bool(_TABLE_COMES.search(before[: len(before) - len(typed)]))
        columns = dict.fromkeys(c for names in tables.values() for c in names)
        listed: list[Named] = [] if table_comes else [(c, "column") for c in columns]
        listed += [(table, "table") for table in tables]
        if table_comes:
            listed += [(name, "view") for name, _ in self._names.views() if name not in tables]
            listed += [(f"{omega.SCHEMA}.", "the older event store")]
        yield from _fitting(typed, listed)
        yield from self._refs(typed, quote='"')
        if typed:  # there are hundreds of them
            yield from self._of_the_engine(typed, {name for name, _ in listed}, table_comes)

    def _of_the_engine(
        self, typed: str, known: set[str], table_comes: bool
    ) -> Iterator[Completion]:
        """Keywords and functions; only those that give a table where one comes."""
        if not table_comes:
            words = [w.lower() if typed.islower() else w for w in self._names.keywords]
            yield from _fitting(typed, [(w, "keyword") for w in words if w not in known])
        functions = [
            (f"{name}(", kind)
            for name, kind in self._names.functions
            if not table_comes or kind.startswith("table")
        ]
        yield from _fitting(typed, functions)

    def _owned(self, owner: str) -> list[Named]:
        """What may follow a name and a dot: a ref's tables, a table's columns, any for an alias."""
        if owner in {name for name, _ in self._names.refs()}:
            return [("events", "table"), ("quarantine", "table")]
        if owner.lower() == omega.SCHEMA:
            return [(table, "table") for table in omega.TABLES]
        tables = self._names.tables()
        known = {owner: tables[owner]} if owner in tables else tables
        return [(c, "column") for c in dict.fromkeys(c for names in known.values() for c in names)]


def open_token(text: str) -> tuple[str, int]:
    """Return (`text`, `name`, `line`, `block` or nothing, place) of what is still open at the end.

    `text` is a string, `name` a quoted name, the others are comments.
    """
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup or ""
        if token.end() == len(text) and not token[kind]:
            return kind, token.start()
    return "", len(text)


def _fitting(typed: str, words: Iterable[Named]) -> Iterator[Completion]:
    for word, kind in words:
        if word.lower().startswith(typed.lower()):
            yield Completion(word, -len(typed), display_meta=kind)
