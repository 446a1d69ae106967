"""snapshot, tag, branch: names for the states of a lake."""

from __future__ import annotations

import datetime
import shlex
from typing import Any

import click

from lakelog import lake as lakes
from lakelog import proofs
from lakelog.cli import signatures
from lakelog.cli.app import App, complete_branch, complete_ref, verb
from lakelog.cli.history import snapshot_record
from lakelog.cli.options import MESSAGE, argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_done
from lakelog.cli.render.tables import Count, FullName, second
from lakelog.cli.render.terminal import many
from lakelog.errors import Damaged, InUse
from lakelog.history import Snapshot, delete_branch, delete_tag
from lakelog.refs import Tag
from lakelog.render import micros

_TAG = ("tag", "snapshot", "time", "author", "message", "branch")
_LIKE_VERBS = {
    "list": "without a name, all are listed",
    "delete": "--delete NAME deletes one",
    "rename": "make another, and delete this one",
}
"""What would make a tag or branch of that name where other tools have a verb."""
_BRANCH = ("branch", "move", "time", "op", "events", "snapshot")


@verb()
def snapshot(app: App, message: str = MESSAGE, target: OutputTarget = OUTPUT) -> None:
    """Record the present state as a move with a message.

    Publishes what is pending. You can return to any state; a snapshot only makes one stand out.
    """
    with app.open() as lake:
        state = lake.snapshot(message)
    app.say(f"snapshot {state.short}: {many(state.events, 'event')}")
    emit_done(snapshot_record(state), target, f"{state.id}\n")


@verb()
def tag(
    app: App,
    name: str | None = argument(shell_complete=complete_ref),
    ref: str | None = argument(shell_complete=complete_ref),
    message: str = option("-m, --message TEXT", "The message; why, if deleting."),
    key: str | None = option(
        "--sign KEY", "Sign the tag with this private key.", type=click.Path()
    ),
    listing: bool = flag("-l, --list", "List the tags (also without NAME)."),
    delete: bool = flag("-d, --delete", "Delete the tag; its state is kept until gc removes it."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Name the present state, or REF, permanently. A tag does not move.

    gc keeps what a tag names, however old.
    """
    _check_options(name, ref, listing, delete)
    if key and (name is None or listing or delete):
        raise click.UsageError("--sign signs a tag that is made: give its name")
    # Before the tag: a wrong key must not leave one without its signature.
    private = proofs.PrivateKey.load(key) if key else None
    with app.open() as lake:
        if name is None or listing:
            tags = lake.store.refs.tags()
            table = [_tag_row(t) for t in tags]
            emit([_tag_record(t) for t in tags], target, table, _TAG)
        elif delete:
            # The id goes into the message, because after the deletion only the log still has it.
            snapshot_id = delete_tag(lake.store, name, app.branch, message).snapshot[
                : Snapshot.SHORT
            ]
            recreates = f"`lakelog tag {shlex.quote(name)} {snapshot_id}` recreates it"
            app.say(f"deleted tag {name}; {recreates}")
        else:
            new_tag = lake.tag(name, ref, message)
            app.say(f"tag {name} names {new_tag.snapshot[: Snapshot.SHORT]}")
            if private:
                signatures.sign_target(app, lake, proofs.Target(name, new_tag.snapshot), private)
            emit_done(_tag_record(new_tag), target, f"{new_tag.snapshot}\n")


@verb()
def branch(
    app: App,
    name: str | None = argument(shell_complete=complete_branch),
    ref: str | None = argument(shell_complete=complete_ref),
    message: str = MESSAGE,
    listing: bool = flag("-l, --list", "List the branches (also without NAME)."),
    delete: bool = flag("-d, --delete", "Delete the branch; its log stays readable."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Create a branch at the present state, or at REF.

    No event is copied, and events that are appended to one branch do not appear on others.
    The option --branch NAME selects the branch that a verb works on.
    """
    _check_options(name, ref, listing, delete)
    with app.open() as lake:
        if name is None or listing:
            # One head after the other, and never their manifests' segments: a lake may have many
            # branches.
            records = [_branch_record(lake, n) for n in lake.store.refs.branches()]
            emit(records, target, [_branch_row(b) for b in records], _BRANCH)
        elif delete:
            _delete_branch(app, lake, name)
        else:
            # The branch comes as an open lake; here only its creation is wanted.
            lake.branch(name, ref, message).close()
            record = _branch_record(lake, name)
            app.say(f"branch {name} starts with {many(record['events'], 'event')}")
            emit_done(record, target, f"{name}\n")


def _check_options(name: str | None, ref: str | None, listing: bool, delete: bool) -> None:
    """Refuse options that do not go together, and names that look like verbs. Raises UsageError."""
    if name in _LIKE_VERBS and not delete:
        raise click.UsageError(f"{name!r} is not taken for a name: {_LIKE_VERBS[name]}")
    if listing and (name or delete):
        raise click.UsageError("--list takes no name and no --delete")
    if delete and name is None:
        raise click.UsageError("--delete needs a name")
    if delete and ref is not None:
        raise click.UsageError("--delete takes one name")


def _delete_branch(app: App, lake: lakes.Lake, name: str) -> None:
    # The lake that is open here would go on appending to a branch that is gone.
    if name == app.branch:
        raise InUse(f"{name!r} is the branch in use: choose another with --branch first")
    lake.store.refs.head(name)
    # Its pending events are published first, so that the log of the branch has them.
    with lakes.open(lake.path, create=False, branch=name) as branch_lake:
        delete_branch(lake.store, name, branch_lake.settle)
    names = f"{shlex.quote(name)} {shlex.quote(f'{name}@N')}"
    app.say(f"deleted branch {name}; `lakelog branch {names}` recreates it at move N")


def _tag_record(tag: Tag) -> dict[str, Any]:
    values = (tag.name, tag.snapshot, micros(tag.time), tag.author, tag.message, tag.branch)
    return dict(zip(_TAG, values, strict=True))


def _tag_row(tag: Tag) -> dict[str, Any]:
    return {
        "tag": FullName(tag.name),
        "snapshot": tag.snapshot[: Snapshot.SHORT],
        "time": second(tag.time),
        "message": tag.message,
        "branch": tag.branch,
    }


def _branch_record(lake: lakes.Lake, name: str) -> dict[str, Any]:
    """Return the head of a branch as an object; a damaged one is marked as such."""
    try:
        move = lake.store.refs.head(name).move
        events = lake.store.manifests.of(move).totals.events
    # One damaged branch must not hide the others.
    except Damaged:
        return dict.fromkeys(_BRANCH) | {"branch": name, "op": "damaged"}
    values = (name, move.number, micros(move.time), move.op, events, move.snapshot)
    return dict(zip(_BRANCH, values, strict=True))


def _branch_row(record: dict[str, Any]) -> dict[str, Any]:
    if record["events"] is None:
        return record
    return {
        "branch": record["branch"],
        "move": f"@{record['move']}",
        "time": datetime.datetime.fromisoformat(record["time"]).replace(microsecond=0),
        "op": record["op"],
        "events": Count(record["events"]),
        "snapshot": record["snapshot"][: Snapshot.SHORT],
    }
