"""schema: the fields of payloads, by state, and what changed between two states."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from lakelog.cli.app import App, complete_ref
from lakelog.cli.render.output import Target, emit, emit_words, with_output
from lakelog.cli.render.results import result_of
from lakelog.cli.render.tables import ROWS_MAX, cell
from lakelog.cli.render.terminal import many, paint, say, width
from lakelog.export.formats import of_records
from lakelog.lazy import Lazy

if TYPE_CHECKING:
    from rich import cells as rich_cells

    from lakelog.lake import Lake
    from lakelog.views import ledger
else:
    rich_cells = Lazy("rich.cells")
    ledger = Lazy("lakelog.views.ledger")

_CHANGE = ("change", "type", "path", "before", "after")
_KIND, _SHARE, _DAY = 14, 6, 10
"""Widths of columns: a kind, a share, a day or a time of day."""
_PATH_MIN = 20


@click.group(
    invoke_without_command=True,
    epilog="\b\nExamples:\n  lakelog schema\n  lakelog schema --type COMPLETE --at v1 --json\n"
    "  lakelog schema --diff v1 main",
)
@click.option("--type", "type_", metavar="T", help="Only events of this type.")
@click.option(
    "--at", metavar="REF", shell_complete=complete_ref, help="Use a tag, branch, snapshot or time."
)
@click.option(
    "--diff",
    "compared",
    nargs=2,
    metavar="A B",
    shell_complete=complete_ref,
    help="List the fields in which states A and B differ.",
)
@with_output
@click.pass_context
def schema(
    ctx: click.Context,
    type_: str | None,
    at: str | None,
    compared: tuple[str, str] | None,
    target: Target,
) -> None:
    """List the fields of payloads by type of event.

    Each field has the kinds of its values, the share of events that have it, and when it
    was first and last seen. `int|text` is a conflict, `number` is int and float.
    """
    # click runs the group before its verb, and the list is only wanted without one.
    if ctx.invoked_subcommand is not None:
        return
    if compared and at:
        raise click.UsageError("--at and --diff do not go together: --diff names both states")
    app = ctx.ensure_object(App)
    with app.open() as lake:
        if compared:
            _emit_diff(lake, *compared, type_, target)
        else:
            answer = (lake.at(at) if at else lake).schema(type_)
            result = result_of(lake.engine().cursor().from_arrow(answer), target.format)
            rows = answer.drop_columns(["kinds"]).to_pylist()
            emit_words(result, target, lambda: "".join(f"{w}\n" for w in panel(rows)))
            if not rows and target.format == "table":
                say("no events", dim=True)


def _emit_diff(lake: Lake, a: str, b: str, type_: str | None, target: Target) -> None:
    changes = ledger.diff(*(ledger.fields_of(state_of(lake, r).schema(type_)) for r in (a, b)))
    emit(of_records([asdict(change) for change in changes], _CHANGE), target)


def state_of(lake: Lake, ref: str) -> Any:
    """Return a state; that of the lake's own branch has its live events."""
    return lake if ref == lake.branch_name else lake.at(ref)


def panel(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the fields of each type below a line about it; of a long list only the beginning."""
    is_one_day = len({r[n].date() for r in rows for n in ("first_seen", "last_seen")}) == 1
    moment = "%H:%M:%S" if is_one_day else "%Y-%m-%d"
    taken = 2 + _KIND + _SHARE + 2 * _DAY + 4 * 2
    names = [rich_cells.cell_len(cell(row["path"])) for row in rows[:ROWS_MAX]]
    room = max(min(max(names, default=0), width() - taken), _PATH_MIN)
    shown = 0
    for type_, fields in groupby(rows, lambda row: row["type"]):
        if shown >= ROWS_MAX:
            break
        head, *rest = fields
        if shown:
            yield ""
        yield _heading(type_, head)
        # Payloads that are all objects need no line, and those of others one that says what.
        members = rest if head["kind"] == "object" else [head, *rest]
        for row in members[: ROWS_MAX - shown]:
            yield _line(row, room, moment)
        shown += len(members) + 1
    if len(rows) > ROWS_MAX:
        yield f"\n{len(rows):,} fields in all: --type T, -o or --format csv gives the others"


def _heading(type_: str | None, payload: dict[str, Any]) -> str:
    name = "events of other types" if type_ is None else cell(type_)
    since, until = (clock(payload[n]) for n in ("first_seen", "last_seen"))
    events = many(payload["events"], "event")
    return f"{paint(name, sys.stdout, bold=True)}  {events}, {since} to {until}"


def _line(row: dict[str, Any], room: int, moment: str) -> str:
    path, kind = cell(row["path"]), row["kind"]
    if rich_cells.cell_len(path) > room:
        # The end says more: what a field is in stands in the lines above.
        while rich_cells.cell_len(path) >= room:
            path = path[1:]
        path = f"…{path}"
    kind = kind if len(kind) <= _KIND else kind[: _KIND - 1] + "…"
    kind = f"{kind:{_KIND}}"
    if row["drift"] == "conflict":
        kind = paint(kind, sys.stdout, fg="red")
    seen = (f"{row[name].strftime(moment):{_DAY}}" for name in ("first_seen", "last_seen"))
    path = rich_cells.set_cell_size(path, room)
    return "  ".join((f"  {path}", kind, f"{row['share']:6.1%}", *seen)).rstrip()


def clock(when: datetime.datetime) -> str:
    """Return a time as people read it, to the second."""
    return f"{when:%Y-%m-%d %H:%M:%S}Z"
