"""Completion in the shell: tables, columns, tags, functions, keywords, values, file names.

It looks only at the text before the cursor: the open quote, the table before a dot, the word
before. Functions and keywords are read from the engine once, everything else each time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from lakelog import sql, typed_columns
from lakelog.cli.app import counted_values
from lakelog.cli.shell.statements import StatementRunner
from lakelog.compat import omega
from lakelog.engine.catalog import EngineCatalog
from lakelog.errors import LakelogError
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import duckdb
from lakelog.query import TypeTable
from lakelog.runtime.lazy import LazyProperty
from lakelog.segments import QUARANTINE_COLUMNS
from lakelog.sql import identifier
from lakelog.store import Store

_TOKEN = re.compile(
    r"""--[^\n]*(?P<line>\n|$)|/\*.*?(?P<block>\*/|$)|'(?:[^']|'')*(?P<text>'|$)"""
    r"""|"(?:[^"]|"")*(?P<name>"|$)""",
    re.S,
)
_WORD = re.compile(r'(?:("[^"]*"|\w+)\.)?(\w*)$')
_FIELD_COMES = re.compile(r'\bfields((?:\.(?:"[^"]*"|\w+))*)\.(\w*)$', re.I)
_TABLE_COMES = re.compile(r"\b(from|join|into|table|describe|summarize)\s+$", re.I)
_VALUE_COMES = re.compile(
    r"\b(type|source|level)\s*(?:=|<>|!=|\b(?:not\s+)?in\s*\([^()]*|\bi?like)\s*$", re.I
)
_NAME = re.compile(r"[A-Za-z_]\w*")
_STEP = re.compile(r'\.(?:"([^"]*)"|(\w+))')
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_TYPE_TABLE = re.compile(r'\btypes\s*\.\s*(?:"((?:[^"]|"")*)"|(\w+))', re.I)
_READ_MAX = 200_000
"""Payloads of so many events are read for the names of fields while somebody waits."""
Named = tuple[str, str]
"""What is offered, and what kind of thing it is."""


class CompletionNames:
    """The names in a lake and its engine."""

    def __init__(self, store: Store, branch: str, runner: StatementRunner) -> None:
        self._store, self._branch, self._runner = store, branch, runner

    def refs(self) -> list[Named]:
        """Tags and branches."""
        # Completion never complains: a lake may be damaged, or gone, while the shell is open.
        with contextlib.suppress(LakelogError, OSError):
            refs = self._store.refs
            tags = [(tag.name, "tag") for tag in refs.tags()]
            return tags + [(name, "branch") for name in refs.branches()]
        return []

    def tables(self) -> dict[str, list[str]]:
        """Return the columns of each table, the lake's first, then those created in this
        session."""
        columns = {"events": [*EVENT_COLUMNS, "seq"], "quarantine": list(QUARANTINE_COLUMNS)}
        for table, column in self._ask(EngineCatalog.COLUMNS):
            if table not in ("events", "quarantine"):
                columns.setdefault(table, []).append(column)
        return columns

    def views(self) -> list[Named]:
        """Views that are tables in SQL, and what each is about."""
        with contextlib.suppress(LakelogError, OSError):
            definitions = (definition for definition, _ in self._runner.views.definitions())
            return [(definition.name, definition.about) for definition in definitions]
        return []

    @LazyProperty
    def functions(self) -> list[Named]:
        """Functions of the engine."""
        rows = self._ask(EngineCatalog.FUNCTIONS)
        return sorted(
            (name, function_kind) for name, function_kind in rows if _PLAIN.fullmatch(name)
        )

    @LazyProperty
    def keywords(self) -> list[str]:
        """Keywords of the engine, in capitals."""
        return sorted({name.upper() for (name,) in self._ask(EngineCatalog.KEYWORDS)})

    def fields(self, path: list[str]) -> list[Named]:
        """Members of payloads in typed segments: those of an object, or of the whole."""
        members: dict[str, str] = {}
        with contextlib.suppress(LakelogError, OSError):
            entries = self._store.manifests.segments(self._store.state(self._branch), "events")
            # One typed segment for each set of fields: thousands of segments often have the same
            # few.
            distinct = {entry.fields: entry for entry in entries if entry.fields}.values()
            for schema in (
                typed_columns.Schema.of_entry(self._store.paths, entry) for entry in distinct
            ):
                inside = schema.members
                for name in path:
                    inside = next((member.members for member in inside if member.name == name), ())
                members |= {member.name: member.kind for member in inside if member.name}
        return [(_written(name), type_name) for name, type_name in members.items()]

    def types(self) -> list[Named]:
        """Types of the published events, as tables `types.NAME`."""
        return [(_written(name), "events of the type") for name in self.values("type")]

    def type_columns(self, type_: str) -> list[Named]:
        """Columns of `types.NAME`; of a large lake whose fields nobody has asked for yet, those of
        events and the members of typed payloads of any type."""
        with contextlib.suppress(LakelogError, OSError, duckdb.Error):
            views = self._runner.views
            pinned = views.session.state(None)
            # The ledger says at once which fields a type has; without it payloads have to be read.
            if views.has_ledger or pinned[0].totals.events <= _READ_MAX:
                columns = views.type_table(pinned, type_).columns
                fields = [(_written(field), value.cast or "text") for field, value in columns]
                return [*fields, *((name, "column") for name in TypeTable.COLUMNS)]
        return [*self.fields([]), *((name, "column") for name in TypeTable.COLUMNS)]

    def values(self, column: str) -> list[str]:
        """Values of type, source or level that the published segments count."""
        with contextlib.suppress(LakelogError, OSError):
            return counted_values(self._store, self._branch, column)
        return []

    def _ask(self, query: str) -> list[tuple[str, ...]]:
        # Completion never complains: a running transaction may have failed.
        with contextlib.suppress(duckdb.Error):
            rows: list[tuple[str, ...]] = self._runner.cursor().sql(query).fetchall()
            return rows
        return []


class SqlCompleter(Completer):
    """Completes SQL, and the shell's own commands with the arguments in `commands`."""

    def __init__(
        self, names: CompletionNames, commands: dict[str, Callable[[], Iterable[str]]]
    ) -> None:
        self._names, self._commands = names, commands
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        """Yield what fits the text before the cursor."""
        # The whole statement and not only what stands before the cursor: FROM comes behind SELECT.
        before = document.text_before_cursor
        found = _TYPE_TABLE.findall(document.text)
        types = [quoted.replace('""', '"') or plain for quoted, plain in found]
        if before.lstrip().startswith("."):
            yield from self._command(before.lstrip())
            return
        token_kind, start = open_token(before)
        if token_kind == "text":
            yield from self._values_or_files(before[:start], before[start + 1 :], event)
        elif token_kind == "name" and before[:start].lower().endswith(f"{TypeTable.SCHEMA}."):
            names = [(identifier(name)[1:], name) for name in self._names.values("type")]
            yield from _matching(before[start + 1 :], names)
        elif token_kind == "name":
            yield from self._refs(before[start + 1 :])
        elif token_kind == "":
            yield from self._word(before, types)

    def _command(self, prefix: str) -> Iterator[Completion]:
        name, space, argument = prefix[1:].partition(" ")
        if not space:
            yield from _matching(name, [(n, "command") for n in self._commands])
        elif name in self._commands:
            candidates = [(word, "") for word in self._commands[name]()]
            yield from _matching(argument.lstrip(), candidates)

    def _values_or_files(
        self, before: str, prefix: str, event: CompleteEvent
    ) -> Iterator[Completion]:
        """Complete a value where a column is compared, else a file name."""
        column = _VALUE_COMES.search(before)
        if column is None:
            yield from self._files.get_completions(Document(prefix), event)
            return
        for value in self._names.values(column[1].lower()):
            if value.startswith(prefix):
                # Escaped as SQL wants it, without the first quote, which is typed already.
                yield Completion(sql.literal(value)[1:], -len(prefix), display=value)

    def _refs(self, prefix: str, quote: str = "") -> Iterator[Completion]:
        """Complete tags and branches as schemas; `quote` where none is typed yet."""
        for name, ref_kind in self._names.refs():
            # Refs are compared as they were typed: unlike SQL names, they have upper and lower
            # case.
            if name.startswith(prefix):
                spelling = identifier(name).removeprefix('"')  # the quote may be typed already
                yield Completion(
                    f"{quote}{spelling}.", -len(prefix), display=name, display_meta=ref_kind
                )

    def _word(self, token: str, type_names: list[str]) -> Iterator[Completion]:
        """Complete a word; `types` are those whose tables the statement reads."""
        if field := _FIELD_COMES.search(token):
            path = [quoted or plain for quoted, plain in _STEP.findall(field[1])]
            yield from _matching(field[2], self._names.fields(path))
            return
        match = _WORD.search(token)
        owner, prefix = (match[1], match[2]) if match else (None, "")
        if owner is not None:
            yield from _matching(prefix, self._members(owner.strip('"'), type_names))
            return
        tables = self._names.tables()
        table_comes = bool(_TABLE_COMES.search(token[: len(token) - len(prefix)]))
        columns = dict.fromkeys(c for names in tables.values() for c in names)
        offers: list[Named] = [] if table_comes else [(c, "column") for c in columns]
        if not table_comes:
            of_types = (
                column for type_ in type_names for column in self._names.type_columns(type_)
            )
            offers = [*{**dict(of_types), **dict(offers)}.items()]
        offers += [(table, "table") for table in tables]
        if table_comes:
            offers += [(name, "view") for name, _ in self._names.views() if name not in tables]
            offers += [(f"{TypeTable.SCHEMA}.", "the events of one type")]
            offers += [(f"{omega.SCHEMA}.", "the older event store")]
        yield from _matching(prefix, offers)
        yield from self._refs(prefix, quote='"')
        if prefix:  # there are hundreds of them
            yield from self._engine_names(prefix, {name for name, _ in offers}, table_comes)

    def _engine_names(
        self, prefix: str, taken_names: set[str], table_comes: bool
    ) -> Iterator[Completion]:
        """Complete keywords and functions; where a table is expected, only table functions."""
        if not table_comes:
            keywords = [w.lower() if prefix.islower() else w for w in self._names.keywords]
            yield from _matching(prefix, [(w, "keyword") for w in keywords if w not in taken_names])
        functions = [
            (f"{name}(", function_kind)
            for name, function_kind in self._names.functions
            if not table_comes or function_kind.startswith("table")
        ]
        yield from _matching(prefix, functions)

    def _members(self, owner: str, types: list[str]) -> list[Named]:
        """Return what may follow a name and a dot: types, a ref's tables, a table's columns, any
        column for an alias."""
        if owner.lower() == TypeTable.SCHEMA:
            return self._names.types()
        if owner in {name for name, _ in self._names.refs()}:
            return [("events", "table"), ("quarantine", "table")]
        if owner.lower() == omega.SCHEMA:
            return [(table, "table") for table in omega.TABLES]
        if same := [type_ for type_ in types if type_.lower() == owner.lower()]:
            return self._names.type_columns(same[0])
        tables = self._names.tables()
        # An unknown name before the dot is probably an alias: any column may be meant.
        candidates = {owner: tables[owner]} if owner in tables else tables
        of_types = types if owner not in tables else []
        columns = dict(column for type_ in of_types for column in self._names.type_columns(type_))
        columns |= {column: "column" for names in candidates.values() for column in names}
        return [*columns.items()]


def _written(name: str) -> str:
    """Return a name as SQL can have it."""
    return name if _NAME.fullmatch(name) else identifier(name)


def open_token(query: str) -> tuple[str, int]:
    """Return (`text`, `name`, `line`, `block` or nothing, place) of what is still open at the end.

    `text` is a string, `name` a quoted name, the others are comments.
    """
    for token in _TOKEN.finditer(query):
        token_kind = token.lastgroup or ""
        # A token that reaches the end and lacks its last character is the one that is open.
        if token.end() == len(query) and not token[token_kind]:
            return token_kind, token.start()
    return "", len(query)


def _matching(prefix: str, candidates: Iterable[Named]) -> Iterator[Completion]:
    for word, note in candidates:
        if word.lower().startswith(prefix.lower()):
            yield Completion(word, -len(prefix), display_meta=note)
