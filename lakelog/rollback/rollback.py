"""One rollback for all: the branch, its cursors, state directories and the deployment together.

    1 look at everything (preflight) but directories; refuse if a piece is missing or damaged
    2 read the directories, now that nobody else saves or restores them; those that equal the
      snapshot are left as they are
    3 extract the others next to their targets
    4 save what was read, unless the branch has it, and tag the present state: the safety tag
    5 write the intent; carry it out (rewind)

Up to 5 nothing has changed. From then on whoever comes next finishes it. An undo is a rollback to
what the safety tag names, with a safety tag of its own, so it can be undone as well.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lakelog.deploy import Kubectl
from lakelog.disk import disk
from lakelog.errors import (
    AlreadyExists,
    Damaged,
    DeploymentFailed,
    MissingPackage,
    RollbackRefused,
    StateRefused,
)
from lakelog.history import BranchHistory, Snapshot
from lakelog.lake import Lake
from lakelog.moves import with_reason
from lakelog.refs import Head, Move
from lakelog.rollback.preflight import PARTS, Preflight, examine, look_at_directories
from lakelog.runtime.progress import ProgressCallback
from lakelog.state import (
    Intent,
    Present,
    RestorePlan,
    Rollbacks,
    SafetyTags,
    SavedState,
    StateCatalog,
    StateSwitch,
)
from lakelog.store import Policy

DEFAULT = ("data", "cursors")
SECONDS = 300
"""How long the pods of a deployment are waited for."""


@dataclass(frozen=True)
class RolledBack:
    """What a rollback or undo did: the state of the branch, the safety tag ("" for none), the
    directories that were written, and what could not be set."""

    snapshot: Snapshot
    message: str
    safety: str = ""
    directories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_parts(parts: Iterable[str]) -> tuple[str, ...]:
    """Return the parts of a rollback in their order. Raises RollbackRefused."""
    names = set(parts)
    if unknown := names - set(PARTS):
        raise RollbackRefused(f"there is no part {min(unknown)!r}, only {', '.join(PARTS)}")
    if not names or ("cursors" in names and "data" not in names):
        # The files would be ingested a second time, next to what they gave the first time.
        raise RollbackRefused("cursors go back with data only: name data as well")
    # In the order in which they are carried out.
    return tuple(name for name in PARTS if name in names)


def preview(
    lake: Lake, ref: str, parts: Iterable[str] = DEFAULT, *, context: str = ""
) -> Preflight:
    """Return what a rollback would do; changes nothing but to publish what is pending.

    Raises UnknownRef, RollbackRefused, Damaged.
    """
    plan = _plan(lake, ref, check_parts(parts), context)
    look_at_directories(lake, plan)
    return plan


def _plan(lake: Lake, ref: str, part_names: tuple[str, ...], context: str) -> Preflight:
    # Found before pending events are published: a time or @{1} means what it meant to the user.
    target = _history(lake).settle_ref(ref)
    lake.settle()
    return examine(lake, target, part_names, context=context)


def preview_undo(lake: Lake, always: bool = False) -> Preflight | None:
    """Return what an undo would do; None if it only moves the branch, unless `always`. Raises
    NothingToUndo, UnknownRef, Damaged."""
    head, history = lake.settle(), _history(lake)
    # What a user moved: maintenance in between is not undone.
    undone, previous = history.last_user_move()
    record = _record_of(lake, undone)
    if record is None or "data" in record.parts:
        history.require_previous(undone, previous)
    if record is not None:
        plan = _examine_undo(lake, record, previous.snapshot)
        look_at_directories(lake, plan)
    elif always:
        plan = examine(lake, previous.snapshot, DEFAULT)
    else:
        return None
    plan.undone, plan.later = undone, history.later_events(undone, head)
    return plan


def _record_of(lake: Lake, move: Move) -> Intent | None:
    """What a rollback of this machine moved besides the branch, None if nothing."""
    rollbacks = Rollbacks(lake.store)
    record = rollbacks.find(move.commit)
    # A rollback of the branch alone is undone by its move.
    if record is None or set(record.parts) <= set(DEFAULT) or not rollbacks.is_own(record):
        return None
    return record


def _left_alone(lake: Lake, move: Move) -> tuple[str, ...]:
    """Say what of a rollback is not undone, as another machine made it."""
    record = Rollbacks(lake.store).find(move.commit)
    names = sorted(set(record.parts) - set(DEFAULT)) if record else []
    return (f"another machine moved {' and '.join(names)} as well: left alone",) if names else ()


def rollback(
    lake: Lake,
    ref: str,
    parts: Iterable[str] = DEFAULT,
    *,
    name: str = "",
    verify: bool = False,
    context: str = "",
    why: str = "",
    seconds: int = SECONDS,
    progress: ProgressCallback | None = None,
) -> RolledBack:
    """Return to a snapshot with some PARTS: all of them or none. `verify` reads every byte of the
    snapshot first; `context` is the cluster, by its name in kubectl's settings; `name` is what the
    log calls the snapshot, `ref` by default.

    Raises UnknownRef, NotAllowed, RollbackRefused, StateRefused and Damaged before anything
    changes; DeploymentFailed, which says whether anything has; OSError.
    """
    chosen_parts = check_parts(parts)
    _require(lake, "rollback", chosen_parts)
    with _alone(lake) as rollbacks:
        # What died before would else be finished on top of this one.
        recovered = rollbacks.recover().notes
        plan = _plan(lake, ref, chosen_parts, context)
        plan.require()
        # Before anything is extracted, as it may take long.
        if verify:
            lake.verify(plan.target).require()
        name = name or (ref if ref != plan.target else ref[: Snapshot.SHORT])
        if set(chosen_parts) <= set(DEFAULT):  # one move, which is atomic by itself
            # Tagged first: the move may drop events that nothing else names.
            safety, _ = _save_present(lake, None, f"before rollback to {name}")
            cursors, settle = "cursors" in chosen_parts, lake.sealer().settle
            head = _history(lake).rollback(settle, plan.target, cursors, why, name)
            # After the rollback, of which the newest safety tag is.
            SafetyTags(lake.store).prune()
            return RolledBack(_described(lake, head), head.move.message, safety, notes=recovered)
        message = with_reason(f"to {name} with {', '.join(chosen_parts)}", why)
        target = plan.target if "data" in chosen_parts else ""
        intent, notes, moved = _perform(lake, plan, "rollback", message, target, None, progress)
    assert moved is not None
    return _finished(lake, intent, moved, recovered + notes, seconds)


def undo(
    lake: Lake,
    *,
    force: bool = False,
    to_branch: str | None = None,
    why: str = "",
    seconds: int = SECONDS,
    progress: ProgressCallback | None = None,
) -> RolledBack:
    """Undo the last move that a user made, with the directories and the deployment if a rollback
    moved these as well. Raises as `rollback`, NothingToUndo, WouldDropEvents."""
    store, branch = lake.store, lake.branch_name
    # Nobody may begin another one between the look and the move.
    with _alone(lake) as rollbacks:
        taken_back, all_notes = _take_back(rollbacks)
        # Taking it back is what was asked for.
        if taken_back:
            return RolledBack(_described(lake, store.refs.head(branch)), taken_back)
        lake.settle()
        undone_move, previous = _history(lake).last_user_move()
        record = _record_of(lake, undone_move)
        if record is None:
            head = _history(lake).undo(force, to_branch, why)
            all_notes += _left_alone(lake, undone_move)
            return RolledBack(_described(lake, head), head.move.message, notes=all_notes)
        _require(lake, "undo", record.parts)
        performed: list[tuple[Intent, tuple[str, ...]]] = []

        def carry_out(undone: Move, before: Move, only: int | None) -> Head | None:
            # The question of what an undo would drop was asked for this move.
            if undone.number != undone_move.number:
                raise RollbackRefused(f"branch {branch!r} was moved meanwhile: undo again")
            plan = _examine_undo(lake, record, before.snapshot)
            plan.require()
            target = before.snapshot if "data" in record.parts else ""
            # A revision that was told cannot be taken back because an event came meanwhile.
            only = None if plan.cluster else only
            message = BranchHistory.undo_message(undone, why)
            intent, notes, head = _perform(lake, plan, "undo", message, target, only, progress)
            performed.append((intent, notes))
            return head

        if "data" in record.parts:
            # The same check for events that came since as without other parts.
            head = _history(lake).undo(force, to_branch, why, carry_out)
        else:  # no event leaves the branch, so there is nothing to ask
            moved = carry_out(undone_move, previous, None)
            assert moved is not None
            head = moved
    return _finished(lake, performed[-1][0], head, all_notes + performed[-1][1], seconds)


def pending(lake: Lake) -> str:
    """Return the message of a rollback or undo of this lake that was interrupted, "" if there is
    none."""
    rollbacks = Rollbacks(lake.store)
    intent = rollbacks.read()
    is_here = intent is not None and rollbacks.is_here(intent)
    return f"{intent.op} {intent.message}" if intent and is_here else ""


def finish(lake: Lake, tell: Callable[[str], object] = lambda _: None) -> str:
    """Finish a rollback or undo that was interrupted; return its message, "" if there was none.
    `tell` gets a line about one of another lake. Raises DeploymentFailed, Damaged, OSError."""
    with _alone(lake) as rollbacks:
        recovered = rollbacks.recover()
    for line in recovered.notes:
        tell(line)
    return f"{recovered.intent.op} {recovered.intent.message}" if recovered.intent else ""


def _require(lake: Lake, operation: str, part_names: tuple[str, ...]) -> None:
    """What a part does by itself has to be allowed as well."""
    Policy.require(lake.store.paths, operation)
    # Each right is asked for by its own name: a policy may give only some.
    for name, needed in (("state", "restore"), ("deployment", "deploy")):
        if name in part_names:
            Policy.require(lake.store.paths, needed)


@contextlib.contextmanager
def _alone(lake: Lake) -> Iterator[Rollbacks]:
    rollbacks = Rollbacks(lake.store)
    with rollbacks.alone() as is_alone:
        if not is_alone:
            raise StateRefused("another process is restoring a state or rolling back: wait for it")
        yield rollbacks


def _take_back(rollbacks: Rollbacks) -> tuple[str, tuple[str, ...]]:
    """Finish what was interrupted, so that it can be undone; or take it back if the cluster does
    not let it be finished, and say so. The second is what else to tell."""
    pending = rollbacks.read()
    try:
        return "", rollbacks.recover().notes
    except (DeploymentFailed, MissingPackage):
        # It has moved the branch: only finishing it makes the parts agree.
        if pending is None or rollbacks.is_begun(pending):
            raise
        rollbacks.take_back(pending)
        return (
            f"the interrupted {pending.op} {pending.message} was taken back; see `lakelog deploy"
            " revisions` whether the deployment got its revision"
        ), ()


def _examine_undo(lake: Lake, record: Intent, target: str) -> Preflight:
    candidates = tuple(PARTS) if "data" in record.parts else record.parts
    chosen_parts = tuple(p for p in candidates if p in record.parts or p == "cursors")
    target = target if "data" in record.parts else lake.store.refs.head(record.branch).move.snapshot
    return examine(
        lake,
        target,
        chosen_parts,
        source=record.before,
        labels=record.labels,
        cluster=record.cluster,
    )


def _perform(
    lake: Lake,
    plan: Preflight,
    op: str,
    message: str,
    target: str,
    only: int | None,
    progress: ProgressCallback | None,
) -> tuple[Intent, tuple[str, ...], Head | None]:
    """Carry out a rollback while nobody saves or restores its directories; return its intent, what
    could not be done, and as `Rollbacks.carry_out`."""
    store, restore = lake.store, RestorePlan(lake)
    # Held to the end: a save must not take half of a rollback for a state.
    with restore.holding([record.path for record in plan.records]):
        paths = {record.label: record.path for record in plan.records if os.path.isdir(record.path)}
        with contextlib.ExitStack() as stack:
            captured = None
            if paths:
                # The revision that runs now: the safety tag leads back to it.
                cluster, running = plan.cluster, None
                if cluster and cluster.was:
                    place = {"name": cluster.name, "namespace": cluster.namespace}
                    running = {**place, "hash": cluster.was}
                present = Present.capture(lake, paths, deployment=running)
                captured = stack.enter_context(present)
            indices = captured.indices if captured else {}
            with _refusing():
                for record in plan.records:
                    restore.lay_out(record, record.path, indices.get(record.label))
            if restore.directories:
                StateSwitch.RESTORE.require()
            with _refusing():
                restore.extract(progress)
            # No intent names the fresh trees yet.
            with restore.discarding_on_error():
                safety, before = _save_present(lake, captured, f"before {op} {message}")
        intent = Intent(
            commit=disk.random_hex(),
            branch=lake.branch_name,
            # The number tells later whether the move was made.
            number=store.refs.head(lake.branch_name).move.number,
            op=op,
            message=message,
            parts=plan.parts,
            target=target,
            before=before,
            safety=safety,
            only=only,
            labels=tuple(sorted(paths)),
            steps=restore.steps,
            cluster=plan.cluster,
        )
        # The intent is durable before the first effect; whoever comes next finishes it.
        intent = Rollbacks(store).begin(intent)
        moved = Rollbacks(store).carry_out(intent)
    return intent, restore.remnants(), moved


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Say of what cannot be extracted that nothing was changed."""
    try:
        yield
    except (StateRefused, Damaged) as error:
        raise RollbackRefused(f"{error}; nothing was changed") from None


def _save_present(lake: Lake, captured: Present | None, message: str) -> tuple[str, str]:
    """Tag the present state, with directories that the branch does not have so; return the tag and
    snapshot."""
    tags = SafetyTags(lake.store)
    for name in tags.names(disk.now_us()):
        try:
            # Everything is saved already, so that a tag is enough.
            if captured is None or not captured.unsaved:
                snapshot = lake.tag(name, None, message).snapshot
            else:
                before = SavedState.BEFORE_ROLLBACK
                snapshot = captured.publish(lake, name, message, before=before).snapshot
        # Another process took the name in the same second.
        except AlreadyExists:
            continue
        tags.note(name)
        return name, snapshot
    raise AssertionError("there is always another name")


def _finished(
    lake: Lake, intent: Intent, head: Head, notes: tuple[str, ...], seconds: int
) -> RolledBack:
    """Wait for the pods, if there are any, and say what was done."""
    if intent.cluster is not None:
        # After the exchange: pods that start find what belongs to them.
        try:
            Kubectl(intent.cluster.namespace, intent.cluster.context).wait(
                intent.cluster.name, seconds
            )
        except DeploymentFailed as error:
            raise DeploymentFailed(
                f"{error}; all parts are back, `lakelog undo` reverts them together"
            ) from None
    targets = tuple(step.target for step in intent.steps)
    return RolledBack(_described(lake, head), intent.message, intent.safety, targets, notes)


def _history(lake: Lake) -> BranchHistory:
    return BranchHistory(lake.store, lake.branch_name, lake.settle)


def _described(lake: Lake, head: Head) -> Snapshot:
    return Snapshot.of(lake.store.manifests.of(head.move))


def live_states(lake: Lake, name: str, namespace: str) -> dict[str, SavedState]:
    """Return the newest state that was saved in each revision of a deployment, by the hash of its
    pods, of another machine only where this one saved none. Raises Damaged."""
    # Numbers of revisions change at every rollback; the hash of their pods does not.
    live: dict[str, SavedState] = {}
    # Own states first: setdefault keeps them.
    for state in sorted(StateCatalog(lake).states(), key=lambda state: not state.is_own):
        for record in state.directories:
            ran = record.deployment
            if (ran.get("name"), ran.get("namespace", "default")) == (name, namespace):
                live.setdefault(ran.get("hash", ""), state)
    return live
