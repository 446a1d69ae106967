"""omega: the older snapshot system's verbs: containers with their state, and deployments."""

from __future__ import annotations

from typing import Any

import click

from lakelog import containers
from lakelog.cli import deploy, exits
from lakelog.cli.app import App, complete_ref, verb_group
from lakelog.cli.options import MESSAGE, YES, argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record
from lakelog.cli.render.tables import Count, second
from lakelog.cli.render.terminal import confirm, many, size
from lakelog.cli.signatures import with_signatures
from lakelog.cli.state import chosen_directories
from lakelog.containers import ContainerSnapshot
from lakelog.deploy import ENGINES, Engine
from lakelog.maintain import Report
from lakelog.proofs import PublicKey
from lakelog.render import micros
from lakelog.state import StateSwitch

_LIST = ("id", "time", "containers", "tags", "bytes", "author", "message", "snapshot")
_ENGINE = option(
    "--engine", "By default the first of them that answers.", type=click.Choice(ENGINES)
)


@verb_group()
def omega() -> None:
    """The older snapshot system: containers, with their state, and deployments.

    Containers are saved by Docker or Podman. State directories alone have the verbs
    of `lakelog state`.
    """


@omega.verb()
def snapshot(
    app: App,
    container: str = argument(),
    tag: str | None = argument(),
    others: tuple[str, ...] = option("--with CONTAINER", "One more container; repeatable."),
    directories: tuple[str, ...] = option("--dir PATH", "One more directory of this host."),
    message: str = MESSAGE,
    no_pause: bool = flag("--no-pause", "Let the containers run meanwhile."),
    engine: str | None = _ENGINE,
    target: OutputTarget = OUTPUT,
) -> None:
    """Save containers and their state as one snapshot.

    Its id is its time; TAG names it, too. The state of a container is what it mounts
    below its STATE_DIRECTORY, or else its volumes. SNAPSHOT_ENABLED=false turns
    saving off.
    """
    if not StateSwitch.SAVE.is_on:
        app.say("not saved: SNAPSHOT_ENABLED is off")
        return
    # Before the lake: where no engine is installed, none is created.
    used = Engine(engine)
    with app.open_or_create() as lake, app.progress("saving", "bytes") as progress:
        result = containers.snapshot_containers(
            lake,
            [container, *others],
            tag=tag,
            directories=chosen_directories(directories) if directories else {},
            message=message,
            pause=not no_pause,
            engine=used,
            progress=progress,
        )
        # Read back by its name: what a remote or a later command finds is what is shown.
        record = _record(containers.find_snapshot(lake, result.state.name))
    if result.changed:
        app.say(f"changed while they were read: {many(len(result.changed), 'file')}", fg="yellow")
    line = f"{record['id']}: {', '.join(record['containers'])}, {size(record['bytes'])}"
    record |= {"written": result.written, "skipped": result.skipped, "changed": result.changed}
    emit_record(record, target, lambda: f"{line}; {size(result.written)} written\n")


@omega.verb()
def list_snapshots(app: App, target: OutputTarget = OUTPUT) -> None:
    """List the snapshots of containers, newest first."""
    with app.open() as lake:
        entries = containers.list_snapshots(lake)
    rows = [_row(entry) for entry in entries]
    emit([_record(entry) for entry in entries], target, rows, _LIST)


@omega.verb()
def tag_snapshot(
    app: App,
    id: str = argument(shell_complete=complete_ref),
    tag: str = argument(),
    target: OutputTarget = OUTPUT,
) -> None:
    """Give a snapshot one more name."""
    with app.open() as lake:
        entry = containers.tag_snapshot(lake, id, tag)
    emit_record(_record(entry), target, lambda: f"{entry.id} is tagged {tag}\n")


@omega.verb()
def verify_snapshot(
    app: App,
    id: str = argument(shell_complete=complete_ref),
    signed_by: tuple[str, ...] = option("--signed-by KEY", "It must be signed by this public key."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Compare every byte of a snapshot with its digests.

    Exits with 3 if a byte differs, or a signature that was asked for is missing.
    """
    public = [PublicKey.load(key_text) for key_text in signed_by]
    with app.open() as lake:
        entry = containers.find_snapshot(lake, id)
        # Damage of both kinds goes into one report, so that a script looks at one list.
        report = Report((), 0, 0).with_faults(containers.verify_snapshot(lake, entry))
        if public:
            report = with_signatures(app, lake.store, report, id, public, ())
    problems = [{"path": problem.path, "reason": problem.reason} for problem in report.problems]
    for problem in problems:
        app.say(f"{problem['path']}: {problem['reason']}", fg="red")
    record = {"id": entry.id, "intact": not problems, "problems": problems}
    message = (
        f"{many(len(problems), 'problem')}" if problems else f"intact, {size(entry.state.bytes)}"
    )
    emit_record(record, target, lambda: f"{entry.id}: {message}\n")
    exits.exit_if(problems, exits.WRONG)


@omega.verb()
def push_snapshot(
    app: App,
    id: str = argument(shell_complete=complete_ref),
    repository: str = argument("REGISTRY/REPO"),
    engine: str | None = _ENGINE,
    target: OutputTarget = OUTPUT,
) -> None:
    """Send the images of a snapshot to a registry.

    They are tagged by its id. If the address is that of a remote, the snapshot is
    pushed there with its state, and the images to REPO/CONTAINER. The engine has the
    credentials: `docker login` or `podman login` first.
    """
    used = Engine(engine)
    with app.open() as lake:
        pushed = containers.push_snapshot(lake, id, repository, used)
    emit_record({"pushed": pushed}, target, lambda: "".join(f"pushed {x}\n" for x in pushed))


@omega.verb()
def restore_snapshot(
    app: App,
    id: str = argument(shell_complete=complete_ref),
    name: str | None = argument(),
    options: tuple[str, ...] = argument("[-- OPTION...]"),
    only: tuple[str, ...] = option("--container NAME", "Only this one of it."),
    replace: bool = flag("--replace", "Stop a container of that name, and rename it."),
    no_state: bool = flag("--no-state", "Leave the state directories as they are."),
    yes: bool = YES,
    engine: str | None = _ENGINE,
    target: OutputTarget = OUTPUT,
) -> None:
    """Start the containers of a snapshot, one as NAME.

    State goes back where it was, and what is there is saved before. As NAME a
    container gets places of its own for it, and publishes no ports. OPTIONs are
    those of `docker run`. RESTORE_ENABLED=false turns restoring off.
    """
    StateSwitch.RESTORE.require()
    # `restore-snapshot ID -- --network x` has no name.
    if name is not None and name.startswith("-"):
        options, name = (name, *options), None
    used = Engine(engine)
    with app.open() as lake:
        entry = containers.find_snapshot(lake, id)
        names = name or ", ".join(only or entry.containers)
        state_note = "" if no_state else " and replace its state"
        if not confirm(
            f"start {names} of {entry.id} of {second(entry.state.time)}{state_note}?", yes
        ):
            raise click.ClickException("nothing was changed")
        with app.progress("restoring", "bytes") as progress:
            started = containers.restore_snapshot(
                lake,
                id,
                name,
                only=only,
                state=not no_state,
                replace=replace,
                options=options,
                engine=used,
                progress=progress,
            )
    for launch in started:
        if launch.replaced:
            app.say(f"the container that was {launch.name} is {launch.replaced}, stopped")
        if launch.backup:
            app.say(f"the state that was there is saved as {launch.backup}")
    rows: list[dict[str, Any]] = [vars(launch) for launch in started]
    lines = "".join(f"started {x.name} of {x.image}\n" for x in started)
    emit_record({"started": rows}, target, lambda: lines)


omega.add_command(deploy.rollback)
omega.add_command(deploy.revisions, "list-revisions")
omega.add_command(deploy.status, "rollout-status")


def _record(entry: ContainerSnapshot) -> dict[str, Any]:
    return {
        "id": entry.id,
        "time": micros(entry.state.time),
        "containers": list(entry.containers),
        "tags": list(entry.tags),
        "bytes": entry.state.bytes,
        "author": entry.state.author,
        "message": entry.state.message,
        "snapshot": entry.state.snapshot,
    }


def _row(entry: ContainerSnapshot) -> dict[str, Any]:
    return {
        "id": entry.id,
        "time": second(entry.state.time),
        "containers": ", ".join(entry.containers),
        "tags": ", ".join(entry.tags),
        "size": Count(entry.state.bytes),
        "message": entry.state.message,
    }
