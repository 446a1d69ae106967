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
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from lakelog import database, document
from lakelog.appends import StreamLock
from lakelog.deploy import ClusterStep, Kubectl
from lakelog.disk import File, Folder, NotIntact
from lakelog.errors import DamagedRef, DeploymentFailed
from lakelog.history import BranchHistory
from lakelog.maintain import Sealer
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.paths import encode_name
from lakelog.refs import Head
from lakelog.state import exchange, origin
from lakelog.state.exchange import ExchangeStep
from lakelog.state.safety_tags import SafetyTags
from lakelog.store import Machine, Store
from lakelog.wal import Tail

_PENDING = (
    "whether the deployment got its revision is not known; `lakelog rollback --continue` goes on,"
    " `lakelog undo` takes the rollback back"
)
_BEGUN = (
    "the rollback has begun: `lakelog rollback --continue` finishes it, `lakelog undo` takes it"
    " back"
)


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


class Rollbacks:
    """The rollbacks of a lake: the one that is being carried out, and those that are done."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def alone(self) -> contextlib.AbstractContextManager[bool]:
        """Keep two who restore or roll back apart; gives whether there is no other."""
        return exchange.alone(self._store)

    def read(self, path: str = "") -> Intent | None:
        """Return the rollback that is being carried out, or that of another document; None where
        there is none. Raises DamagedRef."""
        path = path or self._store.paths.rollback
        # Read by its own name, or by that of a finished one.
        try:
            return _parse(document.decode(File(path).read()))
        except FileNotFoundError:
            return None
        except (NotIntact, KeyError, TypeError) as error:
            raise DamagedRef(path, f"the note of a rollback is damaged: {error}") from None

    def find(self, commit: str) -> Intent | None:
        """Return the finished rollback whose move has this commit, None if a move was all of it. It
        may be one of the lake that this one was copied from (`is_own`)."""
        for name in Folder(self._store.paths.rollbacks).names():
            with contextlib.suppress(DamagedRef):  # named by verify; others are still found
                intent = self.read(f"{self._store.paths.rollbacks}/{name}")
                if intent is not None and intent.commit == commit:
                    return intent
        return None

    def pending_steps(self) -> list[ExchangeStep]:
        """Return the steps of what is restored or rolled back, or was when its process died."""
        with contextlib.suppress(DamagedRef):  # verify names it
            intent = self.read()
            return [*exchange.noted_steps(self._store), *(intent.steps if intent else ())]
        return exchange.noted_steps(self._store)

    def begin(self, intent: Intent) -> Intent:
        """Write the intent durably: from here on it is finished, not forgotten. Return it as one
        of this very lake."""
        intent = replace(intent, **origin.place(self._store))
        with self._noting_pending():
            # In refs and not in cache, which may be deleted at any time.
            File(self._store.paths.rollback).replace(document.encode(_body(intent)))
            # The directories are the intent's now; up to here they would have been deleted.
            exchange.drop_journal(self._store)
        return intent

    def recover(self) -> Recovered:
        """Finish what a process that died had begun. The caller is `alone`.
        What was begun in another lake is set aside. Raises as `carry_out`."""
        intent = self.read()
        if intent is not None and not self.is_here(intent):
            path, body = self._store.paths.rollback, asdict(intent)
            notes = (origin.set_aside(self._store, path, f"a {intent.op}", body),)
            return Recovered(None, notes + exchange.recover(self._store))
        if intent is None:
            return Recovered(None, exchange.recover(self._store))
        # The steps are in the intent; those of an older restore were its fresh trees.
        exchange.drop_journal(self._store)
        moved = self.carry_out(intent)
        return Recovered(intent if moved else None, tuple(exchange.kept_notes(intent.steps)))

    def is_here(self, intent: Intent) -> bool:
        """Whether an intent was written by this very lake, so that it is finished here."""
        return origin.is_here(self._store, asdict(intent))

    def is_own(self, intent: Intent) -> bool:
        """Whether this machine made a finished rollback, wherever the lake has been moved since."""
        return intent.machine in Machine.read(self._store.paths).keys

    def is_begun(self, intent: Intent) -> bool:
        """Whether the branch has the move of an intent, so that it can only be finished."""
        # Only moves after the one that the intent was made at: a commit is unique anyway.
        newest = self._store.refs.newest_first(intent.branch)
        later = itertools.takewhile(lambda move: move.number > intent.number, newest)
        return any(move.commit == intent.commit for move in later)

    def carry_out(self, intent: Intent) -> Head | None:
        """Do what is left of an intent; None if it was taken back because events were published
        that it did not expect. Raises DeploymentFailed (and then all is as it was, or the words say
        that it is pending), Damaged, and OSError with a note of what to do."""
        with self._noting_pending():
            return self._carry_out(intent)

    def _carry_out(self, intent: Intent) -> Head | None:
        store = self._store
        # A move with this commit may have been made just before the process died.
        if not self.is_begun(intent):
            if intent.cluster is not None:
                self._set_revision(intent, intent.cluster)

            def plan(head: Head, now: Manifest) -> Change | None:
                # Events that came since would be lost without anybody having been asked.
                if intent.only is not None and now.next_seq != intent.only:
                    return None
                # Only directories or the deployment are rewound: the branch keeps its state, and
                # the log says so.
                if not intent.target:
                    return Change(intent.op, intent.message, snapshot=head.move.snapshot)
                cursors = "cursors" in intent.parts
                return BranchHistory.rewind(
                    store, now, intent.target, intent.op, intent.message, cursors
                )

            # Under the stream's lock: versions that are given meanwhile belong to the state that is
            # left.
            with StreamLock(store, intent.branch).held():
                self._seal_versions(intent.branch)
                moved = publish(store, intent.branch, plan, commit=intent.commit)
            if moved is None:
                self.take_back(intent)
                return None
        for step in intent.steps:
            exchange.put_in_place(step)
        exchange.discard(store, intent.steps)
        Folder(store.paths.rollbacks).make_all()
        # Without its steps: whoever reads it later must find nothing to exchange.
        encoded = document.encode(_body(replace(intent, steps=())))
        File(f"{store.paths.rollbacks}/{encode_name(intent.safety)}.json").replace(encoded)
        # Last: a process that dies before this does the rest of it again, which changes nothing.
        self._drop()
        SafetyTags(store).prune()
        return store.refs.head(intent.branch)

    def _seal_versions(self, branch: str) -> None:
        """Publish versioned events that wait: they belong to the state that the branch leaves."""
        store = self._store
        if StreamLock(store, branch).has_pending():
            connect = functools.partial(database.connect, store.paths, store.settings)
            Sealer(store, branch, Tail(store.paths, store.refs, branch), connect).settle()

    @contextlib.contextmanager
    def _noting_pending(self) -> Iterator[None]:
        """Add to an OSError that the rollback is pending, if it is, and who goes on."""
        try:
            yield
        except OSError as error:
            if os.path.exists(self._store.paths.rollback):
                error.add_note(_BEGUN)
            raise

    def take_back(self, intent: Intent) -> None:
        """Forget an intent of which nothing was done."""
        exchange.discard(self._store, intent.steps)
        self._drop()

    def _drop(self) -> None:
        File(self._store.paths.rollback).remove()
        Folder(os.path.dirname(self._store.paths.rollback)).sync()

    def _set_revision(self, intent: Intent, step: ClusterStep) -> None:
        """Tell a deployment its revision, unless it has it. Raises DeploymentFailed."""
        try:
            cluster = Kubectl(step.namespace, step.context)
            revision = cluster.find(step.name, step.hash)
        except DeploymentFailed as error:
            raise DeploymentFailed(f"{error}; {_PENDING}") from None
        try:
            # Pods of it are what an undo goes back to.
            if revision is None:
                raise DeploymentFailed(
                    f"deployment {step.name} has no pods of {step.hash} any more"
                )
            if not revision.is_current:
                cluster.begin_undo(step.name, revision)
        except DeploymentFailed as error:
            # It may have been done though the answer was lost: only the cluster knows.
            try:
                current = cluster.find(step.name, step.hash)
            except DeploymentFailed:
                raise DeploymentFailed(f"{error}; {_PENDING}") from None
            if current is None or not current.is_current:
                self.take_back(intent)
                raise DeploymentFailed(f"{error}; nothing was changed") from None


def _parse(body: dict[str, Any]) -> Intent:
    for name in ("parts", "labels"):
        body[name] = tuple(body[name])
    body["steps"] = tuple(map(exchange.parse_step, body["steps"]))
    body["cluster"] = body["cluster"] and ClusterStep(**body["cluster"])
    return Intent(**body)


def _body(intent: Intent) -> dict[str, Any]:
    return asdict(intent) | {"steps": [exchange.note_step(step) for step in intent.steps]}
