"""machine: show whose saved states count as this machine's, and take over those of another."""

from __future__ import annotations

from typing import Any

import click

from lakelog.cli.app import App, verb_group
from lakelog.cli.options import YES, argument
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit
from lakelog.cli.render.tables import second
from lakelog.cli.render.terminal import confirm, many
from lakelog.errors import UnknownRef
from lakelog.render import micros
from lakelog.state import SavedState, StateCatalog
from lakelog.store import Machine

_COLUMNS = ("machine", "is", "states", "last", "author")


@verb_group()
def machine() -> None:
    """Show whose saved states are this machine's; take over others.

    A lake that was copied, or restored from a backup, is another machine: the states
    in it were saved by the one that it was copied from.
    """


@machine.verb()
def show(app: App, target: OutputTarget = OUTPUT) -> None:
    """List the machines that saved states here; one is this one."""
    with app.open() as lake:
        machine, states = Machine.read(lake.store.paths), _by_machine(StateCatalog(lake).states())
    rows: list[dict[str, Any]] = []
    # The lake's own machine comes first, even without a state; dict.fromkeys keeps this order.
    for id in dict.fromkeys([*([machine.id] if machine.id else []), *states]):
        saved_states = states.get(id, [])
        word = "this" if id == machine.id else "former" if id in machine.former else "other"
        is_adopted = id != machine.id and (id in machine.keys or id in machine.trusted)
        rows.append(
            {
                "machine": id,
                "is": "adopted" if is_adopted else word,
                "states": len(saved_states),
                "last": micros(saved_states[0].time) if saved_states else None,
                "author": saved_states[0].author if saved_states else "",
            }
        )
    table = [
        {**r, "machine": Machine.short(r["machine"]), "last": second(states[r["machine"]][0].time)}
        if r["states"]
        else {**r, "machine": Machine.short(r["machine"]), "last": ""}
        for r in rows
    ]
    emit(rows, target, table, _COLUMNS)


def _by_machine(states: list[SavedState]) -> dict[str, list[SavedState]]:
    groups: dict[str, list[SavedState]] = {}
    for state in states:
        groups.setdefault(state.machine, []).append(state)
    return groups


@machine.verb()
def adopt(app: App, id: str | None = argument(), yes: bool = YES) -> None:
    """Be the machine ID from now on, with its states.

    Without ID, the one that this lake was copied from, if there is only one. Do so
    where a lake was moved by a copy: two that share an id prune each other's states.
    With `unknown`, states that name no machine count as saved here.
    """
    with app.open() as lake:
        paths, states = lake.store.paths, _by_machine(StateCatalog(lake).states())
        machine = Machine.read(paths)
        # What was adopted before counts as this machine's already.
        known_ids = (set(states) | set(machine.former)) - {*machine.keys, *machine.trusted}
        if id is None or id == Machine.ANY:
            adopted_id = _only(known_ids, machine.former)
        else:
            adopted_id = Machine.find(id, known_ids)
        count = many(len(states.get(adopted_id, [])), "saved state")
        if not confirm(f"be machine {Machine.short(adopted_id)}, with its {count}?", yes):
            raise click.ClickException("nothing was changed")
        adoption = Machine.adopt(paths, adopted_id)
    app.say(f"this is machine {Machine.short(adoption.id)} now; {count} more of it")


# A copy names whom it was copied from: that one is meant rather than other machines of a remote.
def _only(candidates: set[str], former: dict[str, str]) -> str:
    remaining = candidates.intersection(former) or candidates
    if len(remaining) != 1:
        names = ", ".join(sorted(map(Machine.short, remaining)))
        raise UnknownRef(
            f"name one of the machines {names}" if remaining else "no other machine has states here"
        )
    return remaining.pop()
