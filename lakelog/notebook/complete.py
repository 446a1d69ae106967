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

from lakelog.cli.shell.complete import CompletionNames, SqlCompleter
from lakelog.cli.shell.statements import StatementRunner
from lakelog.errors import LakelogError
from lakelog.lake import Lake

_LINE = re.compile(r"(?:^|=\s*)%sql\s(.*)$")
_IDENTIFIER = "lakelog.sql"
_REF = re.compile(r"--at[ =](\S*)$")


def matcher(lake: Callable[[], Lake]) -> Any:
    """Return a matcher of IPython over the lake that `lake` gives."""
    known: dict[str, SqlCompleter] = {}

    @context_matcher(identifier=_IDENTIFIER)  # type: ignore[untyped-decorator]
    def complete(context: CompletionContext) -> SimpleMatcherResult:
        before = sql_before(context.full_text, context.cursor_position, context.cursor_line)
        if before is None:
            return {"completions": []}
        try:
            opened = lake()
        except LakelogError:
            return {"completions": []}
        if match := _REF.search(before):
            refs = [*opened.branches(), *(tag.name for tag in opened.tags())]
            return _result(match[1], [ref for ref in refs if ref.startswith(match[1])])
        completer = known.get(opened.path)
        if completer is None:
            known.clear()
            completer = known[opened.path] = _completer(opened)
        after = sql_after(context.full_text, context.cursor_position, context.cursor_line)
        document = Document(before + after, len(before))
        found = [*completer.get_completions(document, CompleteEvent())]
        typed = before[len(before) + found[0].start_position :] if found else ""
        return _result(typed, [each.text for each in found])

    return complete


def is_ours(matcher: Any) -> bool:
    """Whether a matcher was made here."""
    return getattr(matcher, "matcher_identifier", "") == _IDENTIFIER


def sql_before(text: str, position: int, line: int) -> str | None:
    """Return the SQL before the cursor, None where the cursor is not in SQL."""
    lines = text.split("\n")
    before = "\n".join([*lines[:line], lines[line][:position]])
    if text.lstrip().startswith("%%sql"):
        return before.lstrip().removeprefix("%%sql")
    match = _LINE.search(before.split("\n")[-1])
    return match[1] if match else None


def sql_after(text: str, position: int, line: int) -> str:
    """Return the SQL behind a cursor that is in SQL."""
    lines = text.split("\n")
    rest = lines[line + 1 :] if text.lstrip().startswith("%%sql") else []
    return "\n".join([lines[line][position:], *rest])


def _completer(lake: Lake) -> SqlCompleter:
    runner = StatementRunner(lake.store, lake.branch_name)
    return SqlCompleter(CompletionNames(lake.store, lake.branch_name, runner), {})


def _result(typed: str, words: list[str]) -> SimpleMatcherResult:
    offers = [SimpleCompletion(text=word, type="sql") for word in words]
    return {"completions": offers, "matched_fragment": typed, "suppress": bool(offers)}
