"""Rewinding branch, state directories and deployment together, whenever the process dies.

refs/rollback.json, durable before the first effect, says what is to be done; then

    1 the deployment is told its revision: only this may be refused, and then nothing was changed
    2 the branch gets its move
    3 each fresh directory is exchanged with its target
    4 what was exchanged out is deleted, refs/rollback.json becomes refs/rollbacks/<safety tag>.json

Whoever comes next after a death does what is left, which is told from the cluster, the log and the
inodes. The documents in refs/rollbacks say to `undo` what belonged together.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from lakelog.deploy.kubectl import Kubectl
from lakelog.errors import Damaged, DamagedRef, DeploymentFailed, UnknownRef
from lakelog.state import exchange
from lakelog.state.exchange import Step
from lakelog.store import disk, document, history
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Manifest
from lakelog.store.paths import encode_name
from lakelog.store.publish import Change, publish
from lakelog.store.refs import Head

KEPT = 24
"""So many safety tags are kept, and as many documents of rollbacks."""
_SAFETY = re.compile(r"before-rollback-\d{8}-\d{6}(-\d+)?")
_STEM = len("before-rollback-20260101-000000")
_PENDING = (
    "whether the deployment got its revision is not known; `lakelog rollback --continue` goes on,"
    " `lakelog undo` takes the rollback back"
)
_BEGUN = (
    "the rollback has begun: `lakelog rollback --continue` finishes it, `lakelog undo` takes it"
    " back"
)


@dataclass(frozen=True)
class ClusterStep:
    """A revision that a deployment is to have, by the hash of its pods; `was` is the present."""

    name: str
    namespace: str
    context: str
    hash: str
    was: str


@dataclass(frozen=True)
class Intent:
    """What a rollback or undo does. `target` is a snapshot, "" if the branch keeps its own;
    `before` the snapshot of the tag `safety`; `labels` the directories that it holds; `number` the
    newest move. With `only` the move is made if the branch still has this next_seq."""

    commit: str
    branch: str
    number: int
    op: str
    message: str
    parts: tuple[str, ...]
    target: str
    before: str
    safety: str
    only: int | None = None
    labels: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    cluster: ClusterStep | None = None


def read(store: Store, path: str = "") -> Intent | None:
    """Return the rollback that is being carried out, or that of another document; None where there
    is none. Raises DamagedRef."""
    path = path or store.paths.rollback
    try:
        return _intent(document.decode(disk.read(path)))
    except FileNotFoundError:
        return None
    except (document.NotIntact, KeyError, TypeError) as error:
        raise DamagedRef(path, f"the note of a rollback is damaged: {error}") from None


def _intent(body: dict[str, Any]) -> Intent:
    for name in ("parts", "labels"):
        body[name] = tuple(body[name])
    body["steps"] = tuple(Step(**step) for step in body["steps"])
    body["cluster"] = body["cluster"] and ClusterStep(**body["cluster"])
    return Intent(**body)


def find(store: Store, commit: str) -> Intent | None:
    """Return the finished rollback whose move has this commit, None if a move was all of it."""
    for name in disk.listing(store.paths.rollbacks):
        with contextlib.suppress(DamagedRef):  # named by verify; others are still found
            done = read(store, f"{store.paths.rollbacks}/{name}")
            if done is not None and done.commit == commit:
                return done
    return None


def begin(store: Store, intent: Intent) -> None:
    """Write the intent durably: from here on it is finished, not forgotten."""
    with _noting_pending(store):
        disk.replace_whole(store.paths.rollback, document.encode(asdict(intent)))
        # The directories are the intent's now; up to here they would have been deleted.
        exchange.drop_journal(store)


def recover(store: Store) -> Intent | None:
    """Finish what a process that died had begun; return a rollback that was. The caller holds the
    lock of `exchange.alone`. Raises as `carry_out`."""
    intent = read(store)
    if intent is None:
        exchange.recover(store)
        return None
    exchange.drop_journal(store)
    return intent if carry_out(store, intent) else None


def carry_out(store: Store, intent: Intent) -> Head | None:
    """Do what is left of an intent; None if it was taken back because events were published that
    it did not expect. Raises DeploymentFailed (and then all is as it was, or the words say that it
    is pending), Damaged, and OSError with a note of what to do."""
    with _noting_pending(store):
        return _carry_out(store, intent)


def _carry_out(store: Store, intent: Intent) -> Head | None:
    if not _is_moved(store, intent):
        if intent.cluster is not None:
            _set_revision(store, intent, intent.cluster)

        def plan(head: Head, now: Manifest) -> Change | None:
            if intent.only is not None and now.next_seq != intent.only:
                return None
            if not intent.target:
                return Change(intent.op, intent.message, snapshot=head.move.snapshot)
            cursors = "cursors" in intent.parts
            return history.rewind(store, now, intent.target, intent.op, intent.message, cursors)

        if publish(store, intent.branch, plan, commit=intent.commit) is None:
            take_back(store, intent)
            return None
    for step in intent.steps:
        exchange.put_in_place(step)
    exchange.discard(store, intent.steps)
    disk.make_dirs(store.paths.rollbacks)
    # Without its steps: whoever reads it later must find nothing to exchange.
    done = document.encode(asdict(replace(intent, steps=())))
    disk.replace_whole(f"{store.paths.rollbacks}/{encode_name(intent.safety)}.json", done)
    _drop(store)
    prune(store)
    return store.refs.head(intent.branch)


@contextlib.contextmanager
def _noting_pending(store: Store) -> Iterator[None]:
    """Add to an OSError that the rollback is pending, if it is, and who goes on."""
    try:
        yield
    except OSError as error:
        if os.path.exists(store.paths.rollback):
            error.add_note(_BEGUN)
        raise


def take_back(store: Store, intent: Intent) -> None:
    """Forget an intent of which nothing was done."""
    exchange.discard(store, intent.steps)
    _drop(store)


def _drop(store: Store) -> None:
    disk.unlink(store.paths.rollback)
    disk.sync_dir(os.path.dirname(store.paths.rollback))


def _is_moved(store: Store, intent: Intent) -> bool:
    newest = store.refs.newest_first(intent.branch)
    later = itertools.takewhile(lambda move: move.number > intent.number, newest)
    return any(move.commit == intent.commit for move in later)


def is_begun(store: Store, intent: Intent) -> bool:
    """Whether the branch has the move of an intent, so that it can only be finished."""
    return _is_moved(store, intent)


def _set_revision(store: Store, intent: Intent, wanted: ClusterStep) -> None:
    """Tell a deployment its revision, unless it has it. Raises DeploymentFailed."""
    try:
        cluster = Kubectl(wanted.namespace, wanted.context)
        revision = cluster.find(wanted.name, wanted.hash)
    except DeploymentFailed as error:
        raise DeploymentFailed(f"{error}; {_PENDING}") from None
    try:
        if revision is None:
            raise DeploymentFailed(
                f"deployment {wanted.name} has no pods of {wanted.hash} any more"
            )
        if not revision.is_current:
            cluster.begin_undo(wanted.name, revision)
    except DeploymentFailed as error:
        # It may have been done though the answer was lost: only the cluster knows.
        try:
            now = cluster.find(wanted.name, wanted.hash)
        except DeploymentFailed:
            raise DeploymentFailed(f"{error}; {_PENDING}") from None
        if now is None or not now.is_current:
            take_back(store, intent)
            raise DeploymentFailed(f"{error}; nothing was changed") from None


def safety_names(store: Store, stamp: str) -> Iterator[str]:
    """Yield names for a safety tag of a time, the second and later ones with a number."""
    # Above all that there are: a name that was pruned would count as the oldest when taken again.
    first = f"before-rollback-{stamp}"
    taken = [name for name in store.refs.tag_names() if name.startswith(first)]
    numbers = [_number(name) for name in taken if _SAFETY.fullmatch(name)]
    for number in itertools.count(max(numbers, default=0) + 1):
        yield first if number == 1 else f"{first}-{number}"


def _number(name: str) -> int:
    """The number at the end of a safety tag, 1 for none."""
    return int(name[_STEM + 1 :] or 1)


def prune(store: Store) -> None:
    """Delete all but the newest safety tags and documents of rollbacks."""
    names = [name for name in store.refs.tag_names() if _SAFETY.fullmatch(name)]
    for name in _sorted(names)[:-KEPT]:
        # Another process may have deleted it, and a damaged one is for verify.
        with contextlib.suppress(UnknownRef, Damaged):
            history.remove_tag(store, name)
    files = [n.removesuffix(".json") for n in disk.listing(store.paths.rollbacks)]
    for name in _sorted([n for n in files if _SAFETY.fullmatch(n)])[:-KEPT]:
        disk.unlink(f"{store.paths.rollbacks}/{name}.json")


def _sorted(names: list[str]) -> list[str]:
    """Safety tags by their times, those of one second by their numbers."""
    return sorted(names, key=lambda name: (name[:_STEM], _number(name)))
