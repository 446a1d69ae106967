"""machine: show whose saved states count as this machine's, and take over those of another."""

from __future__ import annotations

from typing import Any

import click

from lakelog.cli.app import App, verb
from lakelog.cli.render.output import OutputTarget, emit, with_output
from lakelog.cli.render.terminal import confirm, many
from lakelog.errors import UnknownRef
from lakelog.render.formats import of_records
from lakelog.render.values import micros, second
from lakelog.state.listing import SavedState, list_states
from lakelog.state.origin import short
from lakelog.store import machine as machines

_COLUMNS = ("machine", "is", "states", "last", "author")


@click.group(
    epilog="""\b
Examples:
  lakelog machine show
  lakelog machine adopt
  lakelog machine adopt 3fa9c1 --yes
"""
)
def machine() -> None:
    """Show whose saved states are this machine's; take over others.

    A lake that was copied, or restored from a backup, is another machine: the states
    in it were saved by the one that it was copied from.
    """


@verb(examples="lakelog machine show --json")
@with_output
def show(app: App, target: OutputTarget) -> None:
    """List the machines that saved states here; one is this one."""
    with app.open() as lake:
        found, states = machines.read(lake.store.paths), _by_machine(list_states(lake))
    rows: list[dict[str, Any]] = []
    for id in dict.fromkeys([*([found.id] if found.id else []), *states]):
        saved = states.get(id, [])
        word = "this" if id == found.id else "former" if id in found.former else "other"
        is_adopted = id != found.id and (id in found.keys or id in found.trusted)
        rows.append(
            {
                "machine": id,
                "is": "adopted" if is_adopted else word,
                "states": len(saved),
                "last": micros(saved[0].time) if saved else None,
                "author": saved[0].author if saved else "",
            }
        )
    shown = [
        {**r, "machine": short(r["machine"]), "last": second(states[r["machine"]][0].time)}
        if r["states"]
        else {**r, "machine": short(r["machine"]), "last": ""}
        for r in rows
    ]
    emit(of_records(rows, _COLUMNS), target, of_records(shown, _COLUMNS))


def _by_machine(states: list[SavedState]) -> dict[str, list[SavedState]]:
    groups: dict[str, list[SavedState]] = {}
    for state in states:
        groups.setdefault(state.machine, []).append(state)
    return groups


@verb(
    examples="""
    lakelog machine adopt
    lakelog machine adopt 3fa9c1 --yes
"""
)
@click.argument("id", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt(app: App, id: str | None, yes: bool) -> None:
    """Be the machine ID from now on, with its states.

    Without ID, the one that this lake was copied from, if there is only one. Do so
    where a lake was moved by a copy: two that share an id prune each other's states.
    With `unknown`, states that name no machine count as saved here.
    """
    with app.open() as lake:
        paths, states = lake.store.paths, _by_machine(list_states(lake))
        found = machines.read(paths)
        known = (set(states) | set(found.former)) - {*found.keys, *found.trusted}
        if id is None or id == machines.ANY:
            chosen = _only(known, found.former)
        else:
            chosen = machines.find(id, known)
        count = many(len(states.get(chosen, [])), "saved state")
        if not confirm(f"be machine {short(chosen)}, with its {count}?", yes):
            raise click.ClickException("nothing was changed")
        now = machines.adopt(paths, chosen)
    app.say(f"this is machine {short(now.id)} now; {count} more of it")


def _only(known: set[str], former: dict[str, str]) -> str:
    chosen = known.intersection(former) or known
    if len(chosen) != 1:
        names = ", ".join(sorted(map(short, chosen)))
        raise UnknownRef(
            f"name one of the machines {names}" if chosen else "no other machine has states here"
        )
    return chosen.pop()


for _command in (show, adopt):
    machine.add_command(_command)
