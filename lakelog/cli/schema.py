"""schema: the fields of payloads, by state, what changed between two states, and contracts."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

import click

from lakelog import views
from lakelog.cli import exits
from lakelog.cli.app import App, complete_ref, complete_type, state_option, verb_group
from lakelog.cli.options import flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_words
from lakelog.cli.render.results import result_of
from lakelog.cli.render.tables import ROWS_MAX, cell, fit
from lakelog.cli.render.terminal import many, paint, say, width
from lakelog.errors import UnknownRef
from lakelog.lake import Lake
from lakelog.libraries import rich_cells

_CHANGE = ("change", "type", "path", "before", "after")
_BREACH = ("type", "path", "breach", "kind", "events", "first_seen", "on_breach")
_KIND, _SHARE, _DAY = 14, 6, 10
"""Widths of columns: a kind, a share, a day or a time of day."""
_PATH_MIN = 20
_TYPE = option("--type T", "Only events of this type.", shell_complete=complete_type)
_AT = state_option("Use a tag, branch, snapshot or time.")


@verb_group(invoke_without_command=True)
def schema(
    app: App,
    type_: str | None = _TYPE,
    at: str | None = _AT,
    compared: tuple[str, str] | None = option(
        "--diff A B",
        "List the fields in which states A and B differ.",
        nargs=2,
        shell_complete=complete_ref,
    ),
    target: OutputTarget = OUTPUT,
) -> None:
    """List the fields of payloads by type of event.

    Each field has the kinds of its values, the share of events that have it, and when it
    was first and last seen. `int|text` is a conflict, `number` is int and float.
    """
    if compared and at:
        raise click.UsageError("--at and --diff do not go together: --diff names both states")
    with app.open() as lake:
        if compared:
            # The lake's own branch has its live events.
            states = (lake if r == lake.branch_name else lake.at(r) for r in compared)
            ledgers = (views.Ledger.of_table(state.schema(type_)) for state in states)
            changes = [asdict(change) for change in views.Ledger.changes(*ledgers)]
            emit(changes, target, columns=_CHANGE)
        else:
            answer = (lake.at(at) if at else lake).schema(type_)
            result = result_of(lake.engine().cursor().from_arrow(answer), target.format)
            rows = answer.drop_columns(["kinds"]).to_pylist()
            emit_words(result, target, lambda: "".join(f"{w}\n" for w in panel(rows)))
            if not rows and target.format == "table":
                say("no events", dim=True)


@schema.verb()
def pin(
    app: App,
    type_: str | None = _TYPE,
    at: str | None = _AT,
    is_open: bool = flag("--open", "Allow fields that are not there now."),
    on_breach: str = option(
        "--on-breach",
        "Only report breaches, or also quarantine such lines of files.",
        type=click.Choice(("warn", "quarantine")),
        shown="warn",
    ),
) -> None:
    """Make the present fields the contract of their type.

    A payload breaches it by another field, by a value of another kind, or without a field that
    every payload has now. Appended events are always stored, and breaches only reported.
    """
    with app.open() as lake:
        if at is None:
            lake.settle()  # the state that has the contract has the events that it was made of
        fields = views.Ledger.of_table((lake.at(at) if at else lake).schema(type_))
        types = sorted({name for name, _ in fields if name is not None})
        if not types:
            raise UnknownRef(f"no events of type {type_!r}" if type_ else "no events yet")
        pinned_contracts = [
            views.Contract.of_ledger(name, fields.values(), is_open=is_open, on_breach=on_breach)
            for name in types
        ]
        views.Contract.pin(lake.store, lake.branch_name, pinned_contracts)
    paths = sum(len(entry.fields) for entry in pinned_contracts)
    pinned = f"{many(paths, 'field')} of {many(len(pinned_contracts), 'type')}"
    app.say(f"pinned {pinned}: {on_breach} on a breach")


@schema.verb()
def unpin(app: App, type_: str | None = _TYPE) -> None:
    """Drop the contract of a type, or all; earlier states still have it."""
    with app.open() as lake:
        types = views.Contract.unpin(lake.store, lake.branch_name, type_)
    app.say(f"unpinned {', '.join(map(cell, types))}" if types else "there is no contract")


@schema.verb()
def check(
    app: App, type_: str | None = _TYPE, at: str | None = _AT, target: OutputTarget = OUTPUT
) -> None:
    """List the breaches of contracts among the events.

    Exits with 3 if there are any.
    """
    with app.open() as lake:
        contracts = contracts_of(lake, at)
        if type_ is not None:
            contracts = {name: contract for name, contract in contracts.items() if name == type_}
        breaches_now = breaches(lake, contracts, at) if contracts else []
    # Printed before the exit, so that a script that fails has the reasons.
    emit([asdict(breach) for breach in breaches_now], target, columns=_BREACH)
    if not contracts:
        app.say("there is no contract: lakelog schema pin makes one")
    exits.exit_if(breaches_now, exits.WRONG)


def contracts_of(lake: Lake, ref: str | None = None) -> dict[str, views.Contract]:
    """Return the contracts of the branch, or of a state."""
    pinned = lake.at(ref or lake.branch_name)
    return views.Contract.of_state(lake.store, lake.store.manifests.load(pinned.id))


def breaches(
    lake: Lake, contracts: dict[str, views.Contract], ref: str | None = None
) -> list[views.Breach]:
    """Return what breaches contracts among the events of the branch, or of a state."""
    # The open lake, and not its last state: breaches of what waits to be published count, too.
    state = lake.at(ref) if ref else lake
    ledger = views.Ledger.of_table(state.schema())
    protection = lake.store.paths.protection
    return [
        breach
        for name in sorted(contracts)
        for breach in contracts[name].breaches(ledger, protection)
    ]


def panel(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the fields of each type below a line about it; of a long list only the beginning."""
    is_one_day = len({r[n].date() for r in rows for n in ("first_seen", "last_seen")}) == 1
    moment = "%H:%M:%S" if is_one_day else "%Y-%m-%d"
    fixed_width = 2 + _KIND + _SHARE + 2 * _DAY + 4 * 2
    names = [rich_cells.cell_len(cell(row["path"])) for row in rows[:ROWS_MAX]]
    room = max(min(max(names, default=0), width() - fixed_width), _PATH_MIN)
    line_count = 0
    for type_, fields in groupby(rows, lambda row: row["type"]):
        if line_count >= ROWS_MAX:
            break
        head, *tail = fields
        if line_count:
            yield ""
        name = "events of other types" if type_ is None else cell(type_)
        since, until = (clock(head[n]) for n in ("first_seen", "last_seen"))
        counted = f"{many(head['events'], 'event')}, {since} to {until}"
        yield f"{paint(name, sys.stdout, bold=True)}  {counted}"
        # Payloads that are all objects need no line, and those of others one that says what.
        members = tail if head["kind"] == "object" else [head, *tail]
        for row in members[: ROWS_MAX - line_count]:
            yield _line(row, room, moment)
        line_count += len(members) + 1
    if len(rows) > ROWS_MAX:
        yield f"\n{len(rows):,} fields in all: --type T, -o or --format csv gives the others"


def _line(row: dict[str, Any], room: int, moment: str) -> str:
    path, kind_cell = cell(row["path"]), row["kind"]
    if rich_cells.cell_len(path) > room:
        # The end says more: what a field is in stands in the lines above.
        while rich_cells.cell_len(path) >= room:
            path = path[1:]
        path = f"…{path}"
    kind_cell = f"{fit(kind_cell, _KIND):{_KIND}}"
    if row["drift"] == "conflict":
        kind_cell = paint(kind_cell, sys.stdout, fg="red")
    days = (f"{row[name].strftime(moment):{_DAY}}" for name in ("first_seen", "last_seen"))
    path = rich_cells.set_cell_size(path, room)
    return "  ".join((f"  {path}", kind_cell, f"{row['share']:6.1%}", *days)).rstrip()


def clock(moment: datetime.datetime) -> str:
    """Return a time as people read it, to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
