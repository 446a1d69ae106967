"""policy: show and check who may do what in a lake."""

from __future__ import annotations

import click

from lakelog.cli import exits
from lakelog.cli.app import App, verb_group
from lakelog.cli.options import argument, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit
from lakelog.cli.render.tables import cell
from lakelog.disk import File
from lakelog.refs import author
from lakelog.store import Policy, Store

_COLUMNS = ("operation", "allowed", "users", "meaning")


@verb_group()
def policy() -> None:
    """Show and check who may do what overwrites or deletes.

    The policy is the file policy.toml in the lake, written by you. Without it
    everybody may do everything.
    """


@policy.verb()
def show(app: App, target: OutputTarget = OUTPUT) -> None:
    """List the operations, and whether you may do them."""
    store, user = Store.load(app.path), author()
    rules = Policy.of(store.paths)
    rows = [
        {
            "operation": name,
            "allowed": rules.allows(name, user),
            "users": ", ".join(rules.users(name)),
            "meaning": meaning,
        }
        for name, meaning in Policy.OPERATIONS.items()
    ]
    rule = f"by {store.paths.policy}" if rules.allow else "without a policy: everybody may do all"
    app.say(f"for {cell(user)}, {rule}")
    emit(rows, target, [{n: r[n] for n in _COLUMNS[:3]} for r in rows])


@policy.verb()
def check(
    app: App,
    operation: str | None = argument("[OPERATION]", type=click.Choice(list(Policy.OPERATIONS))),
    user: str | None = option("--user NAME", "A user as the log names them; you by default."),
) -> None:
    """Check the file, or whether a user may do OPERATION.

    Exits with 3 if not.
    """
    paths = Store.load(app.path).paths
    rules, name = Policy.of(paths), user or author()
    if operation is None:
        # A lake without the file allows everything, which a person could take for a valid policy.
        has_policy = File(paths.policy).exists()
        app.say("the policy is valid" if has_policy else f"there is no policy at {paths.policy}")
    elif rules.allows(operation, name):
        app.say(f"{cell(name)} may {Policy.OPERATIONS[operation]}")
    else:
        app.say(f"{cell(name)} may not {Policy.OPERATIONS[operation]}")
        click.get_current_context().exit(exits.WRONG)
