"""Completion of SQL in cells: the words that the shell offers, in `%sql` and `%%sql`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from lakelog.cli import CompletionNames, SqlCompleter, StatementRunner
from lakelog.errors import LakelogError
from lakelog.lake import Lake

_LINE = re.compile(r"(?:^|=\s*)%sql\s(.*)$")
_IDENTIFIER = "lakelog.sql"
_REF = re.compile(r"--at[ =](\S*)$")


def matcher(lake: Callable[[], Lake]) -> Any:
    """Return a matcher of IPython over the lake that `lake` gives."""
    completers: dict[tuple[str, str], SqlCompleter] = {}

    @context_matcher(identifier=_IDENTIFIER)  # type: ignore[untyped-decorator]
    def complete(context: CompletionContext) -> SimpleMatcherResult:
        before = sql_before(context.full_text, context.cursor_position, context.cursor_line)
        if before is None:
            return {"completions": []}
        try:
            open_lake = lake()
        # Completion offers nothing where no lake is open: it must not fail a key press.
        except LakelogError:
            return {"completions": []}
        if match := _REF.search(before):
            refs = [*open_lake.branches(), *(tag.name for tag in open_lake.tags())]
            return _result(match[1], [ref for ref in refs if ref.startswith(match[1])])
        place = open_lake.path, open_lake.branch_name
        completer = completers.get(place)
        if completer is None:
            # One lake at a time: a completer holds the names of all that it offers.
            completers.clear()
            runner = StatementRunner(open_lake.store, open_lake.branch_name)
            names = CompletionNames(open_lake.store, open_lake.branch_name, runner)
            completer = completers[place] = SqlCompleter(names, {})
        lines = context.full_text.split("\n")[context.cursor_line :]
        # Of a magic of one line, what stands below it is Python.
        is_cell = context.full_text.lstrip().startswith("%%sql")
        after = "\n".join(lines if is_cell else lines[:1])[context.cursor_position :]
        document = Document(before + after, len(before))
        completions = [*completer.get_completions(document, CompleteEvent())]
        prefix = before[len(before) + completions[0].start_position :] if completions else ""
        return _result(prefix, [completion.text for completion in completions])

    return complete


def is_ours(matcher: object) -> bool:
    """Whether a matcher was made here."""
    return getattr(matcher, "matcher_identifier", "") == _IDENTIFIER


def sql_before(cell: str, position: int, line: int) -> str | None:
    """Return the SQL before the cursor, None where the cursor is not in SQL."""
    lines = cell.split("\n")
    before = "\n".join([*lines[:line], lines[line][:position]])
    if cell.lstrip().startswith("%%sql"):
        return before.lstrip().removeprefix("%%sql")
    match = _LINE.search(before.split("\n")[-1])
    return match[1] if match else None


def _result(prefix: str, candidates: list[str]) -> SimpleMatcherResult:
    offers = [SimpleCompletion(text=word, type="sql") for word in candidates]
    return {"completions": offers, "matched_fragment": prefix, "suppress": bool(offers)}
