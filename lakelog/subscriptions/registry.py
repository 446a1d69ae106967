"""Subscriptions of a branch by name: creating one, and where one without a name begins."""

from __future__ import annotations

import itertools
import unicodedata
from dataclasses import asdict, replace

from lakelog.disk import disk
from lakelog.errors import (
    Damaged,
    InvalidSetting,
    SnapshotGone,
    SubscriptionGone,
    SubscriptionRewound,
)
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head, MergeNote, Move
from lakelog.search import expanded
from lakelog.subscriptions.branch_access import BranchAccess
from lakelog.subscriptions.delivery import NOT_DEAD
from lakelog.subscriptions.position import PARTITION_SQL, PARTITIONS, BranchPosition, Position
from lakelog.subscriptions.record import SubscriptionRecord, find
from lakelog.views import Lineage

OP = "subscription"
STARTS = ("beginning", "end")
_NAME_MAX, _DIGITS = 200, 18


def condition_of(condition: str | None, partitions: frozenset[int]) -> str:
    """Return SQL for the events of some partitions that a subscription wants."""
    conditions = [NOT_DEAD] + ([f"(\n{expanded(condition)}\n)"] if condition is not None else [])
    if len(partitions) < PARTITIONS:
        conditions.append(f"{PARTITION_SQL} IN ({', '.join(map(str, sorted(partitions)))})")
    return " AND ".join(conditions)


def register(
    access: BranchAccess, name: str, condition: str | None, start: str
) -> SubscriptionRecord:
    """Return the subscription of that name, created if it is not there.

    One that is created is published on return, at `start`; that of one which is there stays. Of two
    processes that create it at once, the position of the first counts. Raises InvalidSetting for a
    name that is none, and for another `condition` than it has.
    """
    check_name(name)
    created = SubscriptionRecord(
        name, disk.random_hex(4), condition, disk.now_us(), (Position(),) * PARTITIONS
    )
    present = find(access.store, access.state(access.head()), name)
    if present is None:
        # The number of the end is known once all is published.
        if start == "end":
            access.settle()

        def plan(_: Head, state: Manifest) -> Change | None:
            # Another process created it meanwhile: its position counts.
            if find(access.store, state, name) is not None:
                return None
            places = (start_position(start, state),) * PARTITIONS
            return Change(
                OP, f"create {name}", entries=(replace(created, positions=places).entry(),)
            )

        publish(access.store, access.branch, plan)
        present = require(access, access.state(access.head()), name)
    # The condition is part of what was handled: changed, the position would mean nothing.
    if condition is not None and present.condition != condition:
        raise InvalidSetting(
            f"the subscription {name!r} is for events where {present.condition or 'true'}: leave"
            " out the condition, choose another name, or remove it first"
        )
    return present


def start_position(start: str, state: Manifest) -> Position:
    """Return where a subscription begins: `beginning`, `end`, or the number of an event. Raises
    InvalidSetting."""
    if start == "beginning":
        return Position()
    if start == "end":
        return Position(state.next_seq)
    # Fewer digits than a 64-bit number has: more are a mistake, and would not fit.
    if start.isdecimal() and len(start) <= _DIGITS and int(start) <= state.next_seq:
        return Position(int(start))
    raise InvalidSetting(
        f"{start[:80]!r} is no place to begin: use beginning, end, or the seq of an event, of which"
        f" the next is {state.next_seq}"
    )


def require(access: BranchAccess, state: Manifest, name: str) -> SubscriptionRecord:
    """Return the subscription of that name in a state. Raises SubscriptionGone."""
    record = find(access.store, state, name)
    if record is None:
        raise SubscriptionGone(
            f"branch {access.branch!r} has no subscription {name!r}: it was removed, or is from"
            " after the state that the branch was taken back to; subscribe again to create it"
        )
    return record


def check_name(name: str) -> None:
    """Raise InvalidSetting for what is no name."""
    is_text = isinstance(name, str) and 0 < len(name) <= _NAME_MAX and name == name.strip()
    # Control characters and surrogates: names stand in files' names and in terminals.
    if not is_text or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise InvalidSetting(
            f"{str(name)[:80]!r} is no name of a subscription: use 1 to {_NAME_MAX} characters"
        )


def external_start(access: BranchAccess, start: str) -> Position:
    """Return where a subscription without a name begins. Raises InvalidSetting for the position of
    another lake or branch, SubscriptionRewound for one that the branch does not have any more,
    Unreachable where another machine gave it and the bucket is away."""
    if not start.startswith("{"):
        if start == "end":
            # Positions count published events.
            access.settle()
        return start_position(start, access.state(access.head()))
    branch_position = BranchPosition.parse(start)
    if branch_position.lake != access.store.lake_id:
        raise InvalidSetting(
            "this position is of another lake: open that one, or begin with `beginning`"
        )
    if branch_position.branch != access.branch:
        raise InvalidSetting(
            f"this position is of branch {branch_position.branch!r}: open that one, or use"
            " `beginning`"
        )
    head = access.head_since(branch_position.move)
    # Numbers of a copy that went on by itself mean other events.
    reach, commit = branch_position.position.reach, branch_position.commit
    is_of_copy = commit and not access.store.refs.was_at(head, branch_position.move, commit)
    is_same = branch_position.generation == head.move.generation
    is_later = branch_position.generation > head.move.generation or (
        is_same and reach > access.state(head).next_seq
    )
    if is_of_copy or is_later:
        raise InvalidSetting(
            f"this position is behind event {reach}, which the lake does not have: it is of a newer"
            " copy of the lake, or was changed; begin with `beginning`"
        )
    if not is_same:
        raise rewound(access, branch_position.generation, branch_position.position, head)
    return branch_position.position


def rewound(
    access: BranchAccess, generation: int | None, place: Position, head: Head
) -> SubscriptionRewound:
    """Return the error that says what a position became after the branch was rewound, or, without
    its generation, after an older copy of the lake took its place."""
    seq = 0 if generation is None else min(place.seq, _common(access, generation, head))
    position = position_text(access, head.move, Position(seq))
    return SubscriptionRewound(
        f"branch {access.branch!r} was rewound since this position was stored: events from {seq} on"
        " are others now; undo what was made of them, and go on from `error.position`",
        position,
    )


def position_text(access: BranchAccess, move: Move, place: Position) -> str:
    """Return what a program stores for a place in the state after a move."""
    position = BranchPosition(
        *(access.store.lake_id, access.branch, move.generation),
        **asdict(place),
        move=move.number,
        commit=move.commit,
    )
    return position.text()


def _common(access: BranchAccess, generation: int, head: Head) -> int:
    """Return how many events of a generation the branch surely has as they were: as many as the
    states before and after each rewind since have in common. Zero where the log does not reach back
    so far."""
    manifests, lowest = access.store.manifests, access.state(head).next_seq
    newest = access.store.refs.newest_first(access.branch)
    for later, earlier in itertools.pairwise(newest):
        if later.generation != earlier.generation and later.generation > generation:
            if note := MergeNote.of(later):
                # A merge keeps all events below its first one.
                lowest = min(lowest, note.first)
                continue
            # Not the smaller of both: a later state may have others of the same numbers.
            try:
                states = manifests.of(earlier), manifests.of(later)
                lowest = min(lowest, Lineage.shared_numbers(manifests, *states))
            except (Damaged, SnapshotGone):  # collected meanwhile
                return 0
        if earlier.generation <= generation:
            return lowest
    return 0
