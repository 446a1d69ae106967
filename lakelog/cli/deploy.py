"""deploy: recipes that deploy a program with its lake, and revisions in a Kubernetes cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import click

from lakelog.cli.app import App, verb
from lakelog.cli.render.output import OutputTarget, emit, with_output, write_new
from lakelog.cli.render.tables import cell
from lakelog.cli.render.terminal import confirm
from lakelog.deploy import deployment as deployments
from lakelog.deploy.deployment import Deployment
from lakelog.deploy.kubectl import Kubectl
from lakelog.lake import Lake
from lakelog.remotes import known
from lakelog.render.formats import of_records
from lakelog.rollback.revisions import live_states, return_to
from lakelog.store import bootstrap

_COLUMNS = ("revision", "current", "created", "ready", "images", "state", "cause", "hash")
_NAMESPACE = click.option(
    "-n", "--namespace", default="default", show_default=True, metavar="NAME", help="Where it is."
)
_CONTEXT = click.option(
    "--context", default="", metavar="NAME", help="The cluster, by its name in kubectl's settings."
)

_TIMEOUT = click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its pods.",
)


@click.group(
    epilog="""\b
Examples:
  lakelog deploy render api --image registry.example.com/api:1.4 -o deploy/
  lakelog deploy revisions api
  lakelog deploy rollback api --yes
"""
)
def deploy() -> None:
    """Deploy a program with its lake, and return to an earlier revision of it.

    `render` writes recipes that save the state of the program before each of its
    pods ends; the other commands ask a cluster through `kubectl`.
    """


@verb(
    examples="""
    lakelog deploy render api --image registry.example.com/api:1.4
    lakelog deploy render api --image api:1.4 --kind compose -o deploy/
    lakelog deploy render api --image api:1.4 --port 8080 -- serve -v
"""
)
@click.argument("name")
@click.argument("args", nargs=-1, metavar="[-- ARG...]")
@click.option("--image", required=True, metavar="IMAGE", help="Has the program, and lakelog.")
@click.option(
    "--kind",
    type=click.Choice((*deployments.KINDS, "all")),
    help="Which recipe; kubernetes by default, all with -o.",
)
@click.option(
    "-n", "--namespace", default="default", show_default=True, metavar="NAME", help="Of Kubernetes."
)
@click.option("--port", type=int, metavar="N", help="The port that the program listens on.")
@click.option(
    "--size", default="10Gi", show_default=True, metavar="SIZE", help="Of the volume of the lake."
)
@click.option("--storage-class", default="", metavar="NAME", help="Of the volume.")
@click.option(
    "--grace",
    type=int,
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="For saving the state and ending the program.",
)
@click.option(
    "--retention",
    type=int,
    default=24,
    show_default=True,
    metavar="N",
    help="Saved states that are kept.",
)
@click.option(
    "--schedule",
    default="17 3 * * *",
    show_default=True,
    metavar="CRON",
    help="When older ones are removed.",
)
@click.option(
    "--user",
    type=int,
    default=10001,
    show_default=True,
    metavar="N",
    help="The number of the user it runs as, not root.",
)
@click.option(
    "--remote",
    default="",
    metavar="URL",
    help="Clone the lake from there onto a new volume, and push it there (Kubernetes).",
)
@click.option(
    "--secret", default="", metavar="NAME", help="A Secret of variables that the remote needs."
)
@click.option(
    "--push-schedule",
    default="*/15 * * * *",
    show_default=True,
    metavar="CRON",
    help="When the lake is pushed, besides at the end of a pod.",
)
@click.option(
    "--probe", default="", metavar="PATH", help="A pod is ready when this answers at its port."
)
@click.option(
    "--rolling",
    is_flag=True,
    help="Start the new pod before the old one ends: for programs that let one write.",
)
@click.option(
    "-o", "--output", "out", type=click.Path(), metavar="DIR", help="Write files into DIR."
)
def render(
    app: App,
    name: str,
    args: tuple[str, ...],
    image: str,
    kind: str | None,
    namespace: str,
    port: int | None,
    size: str,
    storage_class: str,
    grace: int,
    retention: int,
    schedule: str,
    user: int,
    remote: str,
    secret: str,
    push_schedule: str,
    probe: str,
    rolling: bool,
    out: str | None,
) -> None:
    """Print Kubernetes manifests, or a Compose file.

    Before a pod ends, it saves the state directory /data/state in the lake
    /data/lake, and one on a new volume begins with the latest saved state, with
    --remote also where the volume is lost. One pod runs at a time, with --rolling
    two during a rollout. It is a plain user whose image cannot be written to.
    What follows -- are arguments of the program.
    """
    deployment = Deployment(
        *(name, image, namespace, args, port, size, storage_class, grace, retention, schedule),
        *(user, known.checked_url(remote) if remote else "", secret, push_schedule, probe, rolling),
    )
    # What goes into a pipe, such as to `kubectl apply -f -`, has to be one recipe.
    if out is None:
        if kind == "all":
            raise click.UsageError("several recipes are files: give -o DIR")
        click.echo(deployments.render(deployment, kind or deployments.KINDS[0]), nl=False)
        return
    os.makedirs(out, exist_ok=True)
    for recipe in deployments.KINDS if kind in (None, "all") else (kind,):
        path, content = os.path.join(out, f"{recipe}.yaml"), deployments.render(deployment, recipe)
        write_new(path, content, "remove it, or name another directory")
        app.say(f"wrote {path}")


@verb(
    examples="""
    lakelog deploy revisions api
    lakelog deploy revisions api -n production --json
"""
)
@click.argument("name")
@_NAMESPACE
@_CONTEXT
@with_output
def revisions(app: App, name: str, namespace: str, context: str, target: OutputTarget) -> None:
    """List the revisions of a deployment, the newest first.

    With the newest state that was saved in each, if the lake has it.
    """
    live = _live_states(app, name, namespace)
    records = [
        {
            "revision": revision.number,
            "current": revision.is_current,
            "created": revision.created,
            "ready": revision.ready,
            "images": ", ".join(revision.images),
            "state": live.get(revision.hash),
            "cause": revision.cause,
            "hash": revision.hash,
        }
        for revision in Kubectl(namespace, context).revisions(name)
    ]
    emit(of_records(records, _COLUMNS), target, of_records(records, _COLUMNS[:6]))


@verb(
    examples="""
    lakelog deploy rollback api
    lakelog deploy rollback api 3 -n production --yes
"""
)
@click.argument("name")
@click.argument("revision", type=int, required=False)
@_NAMESPACE
@_CONTEXT
@_TIMEOUT
@click.option("-m", "--message", "why", default="", metavar="TEXT", help="Why, for the log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(
    app: App,
    name: str,
    revision: int | None,
    namespace: str,
    context: str,
    timeout: int,
    why: str,
    yes: bool,
) -> None:
    """Return a deployment to an earlier revision.

    Without REVISION to the one before the current. Waits until its pods are ready.
    The lake and the state are left as they are, and the state that belongs to the
    revision is named: `lakelog rollback STATE --with data,cursors,state,deployment`
    returns all of them.
    """
    cluster = Kubectl(namespace, context)
    earlier = cluster.choose(name, revision)
    if earlier.is_current:
        app.say(f"deployment {name} has revision {earlier.number} already")
        return
    images = ", ".join(earlier.images)
    if not confirm(f"return {name} to revision {earlier.number} ({images})?", yes):
        raise click.ClickException("nothing was changed")
    # Asked first, then opened: nobody else waits for the lake while a person thinks.
    with _lake(app) as lake:
        return_to(lake, cluster, name, earlier, why=why, seconds=timeout)
    app.say(f"deployment {name} has revision {earlier.number} again: {images}")
    if state := _live_states(app, name, namespace).get(earlier.hash):
        app.say(f"the newest state that was saved in it is {cell(state)}")


@contextlib.contextmanager
def _lake(app: App) -> Iterator[Lake | None]:
    """Open the lake if there is one: a cluster can be asked without."""
    if not bootstrap.is_lake(app.path):
        yield None
        return
    with app.open() as lake:
        yield lake


def _live_states(app: App, name: str, namespace: str) -> dict[str, str]:
    """The name of the newest state of each revision, by its hash."""
    with _lake(app) as lake:
        live = live_states(lake, name, namespace) if lake else {}
    return {digest: state.name for digest, state in live.items()}


@verb(examples="    lakelog deploy status api -n production")
@click.argument("name")
@_NAMESPACE
@_CONTEXT
@_TIMEOUT
def status(app: App, name: str, namespace: str, context: str, timeout: int) -> None:
    """Wait until a rollout is complete."""
    click.echo(Kubectl(namespace, context).wait(name, timeout))


for command in (render, revisions, rollback, status):
    deploy.add_command(command)
