"""remote, push, pull, clone: states that travel between lakes."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import asdict

import click

import lakelog.remotes as travel
from lakelog.cli import exits
from lakelog.cli.app import App, complete_ref, completing, verb
from lakelog.cli.options import YES, argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_done
from lakelog.cli.render.terminal import confirm, many, size
from lakelog.cli.signals import ended_by_interrupt
from lakelog.errors import DamagedRef
from lakelog.lake import Lake
from lakelog.remotes import Transfer
from lakelog.settings import span_us
from lakelog.store import Store

_REMOTE = ("remote", "url", "lake", "branches")


complete_remote = completing(lambda lake: lake.store.remote_names())


@verb()
@ended_by_interrupt()
def remote(
    app: App,
    action: str = argument(type=click.Choice(["add", "list", "check", "prune", "remove"])),
    name: str | None = argument(shell_complete=complete_remote),
    url: str | None = argument(),
    read_data: bool = flag("--read-data", "With check: read every byte there."),
    grace: str | None = option("--grace SPAN", "With prune: keep what is younger; 1d."),
    dry_run: bool = flag("--dry-run", "With prune: say what would be deleted."),
    yes: bool = flag("--yes", "With prune: do not ask."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Name other places of this lake; list, check, prune or forget them.

    URL is a directory, ssh://HOST/PATH, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX,
    gs://BUCKET/PREFIX or oci://HOST/REPOSITORY: another lake, or a place that the
    first push makes one.
    Check looks for all that the branches and tags there need, and exits with 3 if
    something is missing or damaged: `lakelog push --repair` sends it again.
    Prune deletes from a store of objects what no branch or tag there needs.
    Removing a remote forgets its address and the tags NAME/BRANCH; nothing is
    deleted there.
    """
    argument_count = {"add": 2, "list": 0, "check": 1, "prune": 1, "remove": 1}[action]
    if (grace or dry_run or yes) and action != "prune":
        raise click.UsageError("--grace, --dry-run and --yes go with remote prune")
    if read_data and action != "check":
        raise click.UsageError("--read-data goes with remote check and push --repair")
    if argument_count != (name is not None) + (url is not None):
        usage = {"add": "NAME and URL", "list": "nothing else"}.get(action, "NAME")
        raise click.UsageError(f"remote {action} takes {usage}")
    with app.open() as lake:
        if action == "list":
            records = [_record(lake.store, n) for n in lake.store.remote_names()]
            emit(records, target, columns=_REMOTE)
        elif action == "check":
            _check(app, lake, str(name), read_data, target)
        elif action == "prune":
            _prune(app, lake, str(name), span_us(grace or "1d") // 1_000_000, dry_run, yes, target)
        elif action == "add":
            added, later = travel.add_tested(lake.store, str(name), str(url))
            app.say(f"remote {added.name}: {added.url}")
            if later:
                app.say(f"it could not be tried yet, the first push does: {later}")
        else:
            # What stands in the advice where the address could not be read.
            address = "URL"
            # One whose file is damaged can be removed, too.
            with contextlib.suppress(DamagedRef):
                address = travel.load(lake.store, str(name)).url
            travel.remove(lake.store, str(name))
            advice = f"`lakelog remote add {name} {shlex.quote(address)}` brings it back"
            app.say(f"removed remote {name}; what it holds stays there; {advice}")


@verb()
@ended_by_interrupt()
def push(
    app: App,
    name: str | None = argument("[REMOTE]", shell_complete=complete_remote),
    tag_names: tuple[str, ...] = option(
        "--tag NAME", "Push this tag with its state, and no branch.", shell_complete=complete_ref
    ),
    tags: bool = flag("--tags", "Push all tags, too."),
    everything: bool = flag("--all", "Push all branches."),
    force: bool = flag("--force", "Replace what is only there; asks first."),
    repair: bool = flag("--repair", "Send again what is damaged there."),
    read_data: bool = flag("--read-data", "With --repair: read every byte there."),
    dry_run: bool = flag("--dry-run", "Say what would be sent."),
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Bring the branch to a remote: what is missing there, then its new state.

    Publishes what is pending. Refused if the branch moved on at the remote, so
    that nothing there is lost: pull first. An interrupted push goes on where it
    was. REMOTE may be left out if there is one.
    """
    if read_data and not repair:
        raise click.UsageError("--read-data goes with --repair")
    with app.open() as lake:
        place = travel.load(lake.store, name).name
        # Named by what is lost: the person who confirms must not have to think of directions.
        if force and not dry_run and not confirm(f"replace what only {place} has?", yes):
            raise click.Abort
        branches = lake.branches() if everything else [] if tag_names else [app.branch]
        # Tags of remotes say what was seen there; they mean nothing elsewhere.
        all_tags = [t for t in lake.store.refs.tag_names() if not lake.store.is_tracking(t)]
        with app.progress("pushing", "bytes") as progress:
            result = travel.push(
                lake,
                place,
                branches=branches,
                tags=all_tags if tags else tag_names,
                force=force,
                dry_run=dry_run,
                repair=repair,
                read_data=read_data,
                progress=progress,
            )
    _tell(app, result, target, "sent")


@verb()
@ended_by_interrupt()
def pull(
    app: App,
    name: str | None = argument("[REMOTE]", shell_complete=complete_remote),
    only_fetch: bool = flag("--fetch", "Receive the states; change no branch."),
    merge: bool = flag("--merge", "Where both sides have new events, join them."),
    force: bool = flag("--force", "Drop what is only here; asks first."),
    dry_run: bool = flag("--dry-run", "Say what would be received."),
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Bring the branch up to date with a remote.

    Refused if the branch has events that the remote lacks, unless --merge adds what
    is only there. `lakelog undo` undoes a pull, a forced one and a merge, too. With
    --fetch no branch changes: the states are named REMOTE/BRANCH. A tag that names
    another state here is kept. REMOTE may be left out if there is one.
    """
    if only_fetch and (force or yes or merge):
        raise click.UsageError(
            "--fetch changes no branch: --force, --merge and --yes are not for it"
        )
    if merge and (force or yes):
        raise click.UsageError("--merge drops nothing: --force and --yes are not for it")
    if only_fetch:
        _fetch(app, name, dry_run, target)
        return
    with app.open() as lake:
        remote_name = travel.load(lake.store, name).name
        # Before the first byte comes: nobody should wait an hour for a question.
        if force and not dry_run and not confirm(f"drop what {remote_name} lacks?", yes):
            raise click.Abort
        with app.progress("pulling", "bytes") as progress:
            result = travel.pull(
                lake, remote_name, force=force, merge=merge, dry_run=dry_run, progress=progress
            )
    _tell(app, result, target, "received")


@verb(hidden=True)
@ended_by_interrupt()
def fetch(
    app: App,
    name: str | None = argument("[REMOTE]", shell_complete=complete_remote),
    dry_run: bool = flag("--dry-run", "Say what would be received."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Receive the states of a remote: the older word for `lakelog pull --fetch`."""
    _fetch(app, name, dry_run, target)


def _fetch(app: App, name: str | None, dry_run: bool, target: OutputTarget) -> None:
    with app.open() as lake, app.progress("fetching", "bytes") as progress:
        remote_name = travel.load(lake.store, name).name
        result = travel.fetch(lake, remote_name, dry_run=dry_run, progress=progress)
    _tell(app, result, target, "received")


@verb()
@ended_by_interrupt()
def clone(
    app: App,
    url: str = argument(),
    directory: str | None = argument(type=click.Path()),
    if_missing: bool = flag(
        "--if-missing", "Only where no lake is yet; what the remote does not have yet begins empty."
    ),
    target: OutputTarget = OUTPUT,
) -> None:
    """Make a lake with all branches and tags of a remote, named origin there.

    DIRECTORY is that of --lake by default, else the last name of URL. The clone is a
    lake of its own: it has its own id, and what is appended to it is not seen at the
    remote before a push. An interrupted clone goes on if it is run again.
    """
    path = app.new_lake(url, directory)
    with app.progress("cloning", "bytes") as progress:
        result = travel.clone(url, path, if_missing=if_missing, progress=progress)
    # A lake that was there already is a success with --if-missing, and was not cloned.
    app.say(f"cloned into {path}" if result.refs or not if_missing else f"{path} is there")
    _tell(app, result, target, "received")


def _check(app: App, lake: Lake, name: str, read_data: bool, target: OutputTarget) -> None:
    with app.progress("reading", "bytes") as progress:
        result = travel.check(lake, name, read_data=read_data, progress=progress)
    refs, objects = (
        many(result.refs, "branch or tag", "branches and tags"),
        many(result.objects, "object"),
    )
    verb = "read" if read_data else "looked at"
    state = many(len(result.faults), "problem") if result.faults else "intact"
    app.say(f"{state}: {refs}, {objects}, {size(result.bytes)} {verb}")
    if result.faults:
        emit([asdict(fault) for fault in result.faults], target, columns=("path", "reason"))
        flag = " --read-data" if read_data else ""
        # With the option that found it: without it the push would look for less than was damaged.
        app.say(f"`lakelog push {name} --repair{flag}` sends again what this lake has of it")
        click.get_current_context().exit(exits.WRONG)


def _prune(
    app: App, lake: Lake, name: str, grace: int, dry_run: bool, yes: bool, target: OutputTarget
) -> None:
    if not dry_run and not confirm(f"delete at {name} what nothing there needs?", yes):
        raise click.Abort
    result = travel.prune(lake, name, grace=grace, dry_run=dry_run)
    if result.waits:
        note = "the first prune" if dry_run else "pushes take notice of prunes from now on;"
        app.say(f"{note} deletes from {result.waits:,} s on")
    young = f"; {many(result.young, 'younger one')} kept" if result.young else ""
    would = "would be deleted" if dry_run else "deleted"
    app.say(f"{many(result.objects, 'object')}, {size(result.bytes)} {would}{young}")
    emit_done(asdict(result), target, "")


def _tell(app: App, result: Transfer, target: OutputTarget, verb: str) -> None:
    """Write what was done: words to people, an object to programs."""
    carried = result.carried
    for ref, word in result.refs.items():
        app.say(f"{ref}: {'would be ' if result.dry_run and ' ' not in word else ''}{word}")
    if merged := result.merged:
        come = "would come" if result.dry_run else "came"
        known_note = f"; {merged.known:,} of there were known" if merged.known else ""
        app.say(f"{many(merged.events, 'event')} {come}{known_note}")
    for key in result.erased:
        app.say(f"erasure {key}: done {'there' if verb == 'sent' else 'here'}, too")
    # To count events, a dry run of a merge receives them.
    would = verb if merged or not result.dry_run else f"would be {verb}"
    existing_note = f"; {many(carried.kept, 'was there', 'were there')}" if carried.kept else ""
    signed = f", {many(carried.signatures, 'signature')}" if carried.signatures else ""
    app.say(
        f"{many(carried.objects, 'object')}, {size(carried.bytes)}{signed} {would}{existing_note}"
    )
    body = asdict(result)
    carried_record, merged_record = body.pop("carried"), body.pop("merged")
    emit_done({**body, **carried_record, **(merged_record or {})}, target, "")


def _record(store: Store, name: str) -> dict[str, object]:
    place = travel.load(store, name)
    moves_seen = {n: f"@{b.seen.number}" for n, b in place.branches.items() if b.seen}
    branches = ", ".join(f"{n} {number}" for n, number in moves_seen.items())
    return dict(zip(_REMOTE, (name, place.url, place.lake, branches), strict=True))
