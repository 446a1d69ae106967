"""Rewinding branch, state directories and deployment together, whenever the process dies.

refs/rollback.json, durable before the first effect, says what is to be done; then

    1 the deployment is told its revision: only this may be refused, and then nothing was changed
    2 the branch gets its move
    3 each fresh directory is exchanged with its target
    4 what was exchanged out is deleted, refs/rollback.json becomes refs/rollbacks/<safety tag>.json

Whoever comes next after a death does what is left, which is told from the cluster, the log and the
inodes. The documents in refs/rollbacks say to `undo` what belonged together. Each names the lake
that it is of (`origin`): in a copy of it, or in one that somebody sent, nobody carries it out.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from lakelog import database
from lakelog.appends import StreamLock
from lakelog.deploy import Kubectl
from lakelog.disk import File, Folder
from lakelog.errors import Damaged, DamagedRef, DeploymentFailed, UnknownRef
from lakelog.history import BranchHistory, remove_tag
from lakelog.maintain import Sealer
from lakelog.moves import Change, publish
from lakelog.state import exchange, origin
from lakelog.state.exchange import ExchangeStep
from lakelog.store import document, machine
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Manifest
from lakelog.store.paths import encode_name
from lakelog.store.ref import Head
from lakelog.wal import Tail

KEPT = 24
"""So many safety tags are kept, and as many documents of rollbacks."""
_KIND = "before-rollback"
_SAFETY = re.compile(_KIND + r"-\d{8}-\d{6}(-[0-9a-f]{6})?(-\d+)?")
_LEDGER_LINES = 8 * KEPT
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
    newest move. With `only` the move is made if the branch still has this next_seq. `machine`,
    `lake` and `inode` say whose it is (`origin.place`)."""

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
    steps: tuple[ExchangeStep, ...] = ()
    cluster: ClusterStep | None = None
    machine: str = ""
    lake: str = ""
    inode: int = 0


@dataclass(frozen=True)
class Recovered:
    """A rollback that was interrupted and is finished now, if there was one, and what to tell."""

    intent: Intent | None = None
    notes: tuple[str, ...] = ()


def read(store: Store, path: str = "") -> Intent | None:
    """Return the rollback that is being carried out, or that of another document; None where there
    is none. Raises DamagedRef."""
    path = path or store.paths.rollback
    # Read by its own name, or by that of a finished one.
    try:
        return _intent(document.decode(File(path).read()))
    except FileNotFoundError:
        return None
    except (document.NotIntact, KeyError, TypeError) as error:
        raise DamagedRef(path, f"the note of a rollback is damaged: {error}") from None


def _intent(body: dict[str, Any]) -> Intent:
    for name in ("parts", "labels"):
        body[name] = tuple(body[name])
    body["steps"] = tuple(map(exchange.parse_step, body["steps"]))
    body["cluster"] = body["cluster"] and ClusterStep(**body["cluster"])
    return Intent(**body)


def _body(intent: Intent) -> dict[str, Any]:
    return asdict(intent) | {"steps": [exchange.note_step(step) for step in intent.steps]}


def pending_steps(store: Store) -> list[ExchangeStep]:
    """Return the steps of what is being restored or rolled back, or was when its process died."""
    with contextlib.suppress(DamagedRef):  # verify names it
        intent = read(store)
        return [*exchange.noted_steps(store), *(intent.steps if intent else ())]
    return exchange.noted_steps(store)


def find(store: Store, commit: str) -> Intent | None:
    """Return the finished rollback whose move has this commit, None if a move was all of it. It may
    be one of the lake that this one was copied from (`is_own`)."""
    for name in Folder(store.paths.rollbacks).names():
        with contextlib.suppress(DamagedRef):  # named by verify; others are still found
            intent = read(store, f"{store.paths.rollbacks}/{name}")
            if intent is not None and intent.commit == commit:
                return intent
    return None


def begin(store: Store, intent: Intent) -> None:
    """Write the intent durably: from here on it is finished, not forgotten."""
    with _noting_pending(store):
        # In refs and not in cache, which may be deleted at any time.
        File(store.paths.rollback).replace(document.encode(_body(intent)))
        # The directories are the intent's now; up to here they would have been deleted.
        exchange.drop_journal(store)


def recover(store: Store) -> Recovered:
    """Finish what a process that died had begun. The caller holds the lock of `exchange.alone`.
    What was begun in another lake is set aside. Raises as `carry_out`."""
    intent = read(store)
    if intent is not None and not is_here(store, intent):
        notes = (origin.set_aside(store, store.paths.rollback, f"a {intent.op}", asdict(intent)),)
        return Recovered(None, notes + exchange.recover(store))
    if intent is None:
        return Recovered(None, exchange.recover(store))
    # The steps are in the intent; those of an older restore were its fresh trees.
    exchange.drop_journal(store)
    moved = carry_out(store, intent)
    return Recovered(intent if moved else None, tuple(exchange.kept_notes(intent.steps)))


def is_here(store: Store, intent: Intent) -> bool:
    """Whether an intent was written by this very lake, so that it is finished here."""
    return origin.is_here(store, asdict(intent))


def is_own(store: Store, intent: Intent) -> bool:
    """Whether this machine made a finished rollback, wherever the lake has been moved since."""
    return intent.machine in machine.read(store.paths).keys


def carry_out(store: Store, intent: Intent) -> Head | None:
    """Do what is left of an intent; None if it was taken back because events were published that
    it did not expect. Raises DeploymentFailed (and then all is as it was, or the words say that it
    is pending), Damaged, and OSError with a note of what to do."""
    with _noting_pending(store):
        return _carry_out(store, intent)


def _carry_out(store: Store, intent: Intent) -> Head | None:
    # A move with this commit may have been made just before the process died.
    if not _is_moved(store, intent):
        if intent.cluster is not None:
            _set_revision(store, intent, intent.cluster)

        def plan(head: Head, now: Manifest) -> Change | None:
            # Events that came since would be lost without anybody having been asked.
            if intent.only is not None and now.next_seq != intent.only:
                return None
            # Only directories or the deployment are rewound: the branch keeps its state, and the
            # log says so.
            if not intent.target:
                return Change(intent.op, intent.message, snapshot=head.move.snapshot)
            cursors = "cursors" in intent.parts
            return BranchHistory.rewind(
                store, now, intent.target, intent.op, intent.message, cursors
            )

        # Under the stream's lock: versions that are given meanwhile belong to the state that is
        # left.
        with StreamLock(store, intent.branch).held():
            _seal_versions(store, intent.branch)
            moved = publish(store, intent.branch, plan, commit=intent.commit)
        if moved is None:
            take_back(store, intent)
            return None
    for step in intent.steps:
        exchange.put_in_place(step)
    exchange.discard(store, intent.steps)
    Folder(store.paths.rollbacks).make_all()
    # Without its steps: whoever reads it later must find nothing to exchange.
    encoded = document.encode(_body(replace(intent, steps=())))
    File(f"{store.paths.rollbacks}/{encode_name(intent.safety)}.json").replace(encoded)
    # Last: a process that dies before this does the rest of it again, which changes nothing.
    _drop(store)
    prune(store)
    return store.refs.head(intent.branch)


def _seal_versions(store: Store, branch: str) -> None:
    """Publish versioned events that wait: they belong to the state that the branch leaves."""
    if StreamLock(store, branch).has_pending():
        connect = functools.partial(database.connect, store.paths, store.settings)
        Sealer(store, branch, Tail(store.paths, store.refs, branch), connect).settle()


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
    File(store.paths.rollback).remove()
    Folder(os.path.dirname(store.paths.rollback)).sync()


def _is_moved(store: Store, intent: Intent) -> bool:
    # Only moves after the one that the intent was made at: a commit is unique anyway.
    newest = store.refs.newest_first(intent.branch)
    later = itertools.takewhile(lambda move: move.number > intent.number, newest)
    return any(move.commit == intent.commit for move in later)


def is_begun(store: Store, intent: Intent) -> bool:
    """Whether the branch has the move of an intent, so that it can only be finished."""
    return _is_moved(store, intent)


def _set_revision(store: Store, intent: Intent, step: ClusterStep) -> None:
    """Tell a deployment its revision, unless it has it. Raises DeploymentFailed."""
    try:
        cluster = Kubectl(step.namespace, step.context)
        revision = cluster.find(step.name, step.hash)
    except DeploymentFailed as error:
        raise DeploymentFailed(f"{error}; {_PENDING}") from None
    try:
        # Pods of it are what an undo goes back to.
        if revision is None:
            raise DeploymentFailed(f"deployment {step.name} has no pods of {step.hash} any more")
        if not revision.is_current:
            cluster.begin_undo(step.name, revision)
    except DeploymentFailed as error:
        # It may have been done though the answer was lost: only the cluster knows.
        try:
            current = cluster.find(step.name, step.hash)
        except DeploymentFailed:
            raise DeploymentFailed(f"{error}; {_PENDING}") from None
        if current is None or not current.is_current:
            take_back(store, intent)
            raise DeploymentFailed(f"{error}; nothing was changed") from None


def safety_names(store: Store, time: int) -> Iterator[str]:
    """Yield names for a safety tag of a time, the second and later ones with a number."""
    # Two machines that save states of one remote must not give the same name.
    end = origin.suffix(store, machine.settle(store.paths).id)
    stamp = next(origin.stamps(_KIND, time, end))
    # Above all that there are: a name that was pruned would count as the oldest when taken again.
    suffixes = [
        name.removeprefix(stamp) for name in store.refs.tag_names() if name.startswith(stamp)
    ]
    numbers = [int(suffix[1:] or 1) for suffix in suffixes if re.fullmatch(r"(-\d+)?", suffix)]
    return origin.stamps(_KIND, time, end, max(numbers, default=0) + 1)


def note_safety(store: Store, name: str) -> None:
    """Note that this machine made a safety tag: their order is that of the notes."""
    line = orjson.dumps({"machine": machine.settle(store.paths).id, "tag": name}) + b"\n"
    with contextlib.suppress(OSError):  # then it stays until somebody deletes it
        File(_ledger(store)).append(line)


def _ledger(store: Store) -> str:
    return f"{store.paths.cache}/safety.jsonl"


def prune(store: Store) -> None:
    """Delete all but the newest safety tags of this machine, with the documents of rollbacks."""
    own_keys, tag_names = machine.read(store.paths).keys, set(store.refs.tag_names())
    try:
        lines = File(_ledger(store)).read().splitlines()
    except FileNotFoundError:
        return
    dropped = dict[str, None]()
    for line in lines:
        with contextlib.suppress(
            orjson.JSONDecodeError, KeyError, TypeError
        ):  # torn by a power cut
            note = orjson.loads(line)
            if (
                note["machine"] in own_keys
                and note["tag"] in tag_names
                and _SAFETY.fullmatch(note["tag"])
            ):
                # A later line of the same tag counts.
                dropped.pop(note["tag"], None)
                dropped[note["tag"]] = None
    # The newest stay, by the order of the notes and not by the clock.
    for name in list(dropped)[:-KEPT]:
        # Another process may have deleted it, and a damaged one is for verify.
        with contextlib.suppress(UnknownRef, Damaged):
            remove_tag(store, name)
        File(f"{store.paths.rollbacks}/{encode_name(name)}.json").remove()
    # Lines of tags that are gone make the file longer for nothing.
    if len(lines) > _LEDGER_LINES:
        notes = [{"machine": machine.read(store.paths).id, "tag": n} for n in list(dropped)[-KEPT:]]
        content = b"".join(orjson.dumps(note) + b"\n" for note in notes)
        with contextlib.suppress(OSError):
            File(_ledger(store)).replace(content, sync=False)
