"""deploy: recipes that deploy a program with its lake, and revisions in a Kubernetes cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import click

import lakelog.deploy as deployments
from lakelog import remotes
from lakelog.cli.app import App, verb_group
from lakelog.cli.options import WHY, YES, argument, combined, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, write_new
from lakelog.cli.render.tables import cell
from lakelog.cli.render.terminal import confirm
from lakelog.deploy import Deployment, Kubectl
from lakelog.lake import Lake
from lakelog.rollback import rollback as rollbacks
from lakelog.store import Store

_COLUMNS = ("revision", "current", "created", "ready", "images", "state", "cause", "hash")
_NAMESPACE = option("-n, --namespace NAME", "Where it is.", shown="default")
_CONTEXT = option("--context NAME", "The cluster, by its name in kubectl's settings.", default="")

_TIMEOUT = option(
    "--timeout SECONDS", "How long to wait for its pods.", type=click.IntRange(min=1), shown=300
)


def _deployment(remote: str, **fields: Any) -> Deployment:
    return Deployment(remote=remotes.checked_url(remote) if remote else "", **fields)


_DEPLOYMENT = combined(
    _deployment,
    name=argument(),
    args=argument("[-- ARG...]", nargs=-1),
    image=option("--image IMAGE", "Has the program, and lakelog.", required=True),
    namespace=option("-n, --namespace NAME", "Of Kubernetes.", shown="default"),
    port=option("--port N", "The port that the program listens on.", type=int),
    size=option("--size SIZE", "Of the volume of the lake.", shown="10Gi"),
    storage_class=option("--storage-class NAME", "Of the volume.", default=""),
    grace=option(
        "--grace SECONDS", "For saving the state and ending the program.", type=int, shown=60
    ),
    retention=option("--retention N", "Saved states that are kept.", type=int, shown=24),
    schedule=option("--schedule CRON", "When older ones are removed.", shown="17 3 * * *"),
    user=option("--user N", "The number of the user it runs as, not root.", type=int, shown=10001),
    remote=option(
        "--remote URL",
        "Clone the lake from there onto a new volume, and push it there (Kubernetes).",
    ),
    secret=option("--secret NAME", "A Secret of variables that the remote needs.", default=""),
    push_schedule=option(
        "--push-schedule CRON",
        "When the lake is pushed, besides at the end of a pod.",
        shown="*/15 * * * *",
    ),
    probe=option("--probe PATH", "A pod is ready when this answers at its port.", default=""),
    rolling=flag(
        "--rolling", "Start the new pod before the old one ends: for programs that let one write."
    ),
    serve=flag("--serve", "Run `lakelog serve` beside the program, on loopback."),
)


@verb_group()
def deploy() -> None:
    """Deploy a program with its lake, and return to an earlier revision of it.

    `render` writes recipes that save the state of the program before each of its
    pods ends; the other commands ask a cluster through `kubectl`.
    """


@deploy.verb()
def render(
    app: App,
    deployment: Deployment = _DEPLOYMENT,
    kind: str | None = option(
        "--kind",
        "Which recipe; kubernetes by default, all with -o.",
        type=click.Choice((*deployments.KINDS, "all")),
    ),
    out: str | None = option("-o, --output DIR", "Write files into DIR."),
) -> None:
    """Print Kubernetes manifests, or a Compose file.

    Before a pod ends, it saves the state directory /data/state in the lake
    /data/lake, and one on a new volume begins with the latest saved state, with
    --remote also where the volume is lost. One pod runs at a time, with --rolling
    two during a rollout. It is a plain user whose image cannot be written to.
    What follows -- are arguments of the program.
    """
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


@deploy.verb()
def revisions(
    app: App,
    name: str = argument(),
    namespace: str = _NAMESPACE,
    context: str = _CONTEXT,
    target: OutputTarget = OUTPUT,
) -> None:
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
    emit(records, target, columns=_COLUMNS)


@deploy.verb()
def rollback(
    app: App,
    name: str = argument(),
    revision: int | None = argument(),
    namespace: str = _NAMESPACE,
    context: str = _CONTEXT,
    timeout: int = _TIMEOUT,
    why: str = WHY,
    yes: bool = YES,
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
        deployments.return_to(lake, cluster, name, earlier, why=why, seconds=timeout)
    app.say(f"deployment {name} has revision {earlier.number} again: {images}")
    # The state is saved by the pod that ends, so what belongs to the revision is asked afterwards.
    if state := _live_states(app, name, namespace).get(earlier.hash):
        app.say(f"the newest state that was saved in it is {cell(state)}")


@contextlib.contextmanager
def _lake(app: App) -> Iterator[Lake | None]:
    """Open the lake if there is one: a cluster can be asked without."""
    if not Store.is_lake(app.path):
        yield None
        return
    with app.open() as lake:
        yield lake


def _live_states(app: App, name: str, namespace: str) -> dict[str, str]:
    """The name of the newest state of each revision, by its hash."""
    with _lake(app) as lake:
        live = rollbacks.live_states(lake, name, namespace) if lake else {}
    return {digest: state.name for digest, state in live.items()}


@deploy.verb()
def status(
    app: App,
    name: str = argument(),
    namespace: str = _NAMESPACE,
    context: str = _CONTEXT,
    timeout: int = _TIMEOUT,
) -> None:
    """Wait until a rollout is complete."""
    click.echo(Kubectl(namespace, context).wait(name, timeout))
