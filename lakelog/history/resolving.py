"""Turning what a user types into a state of the lake.

A tag, a branch (its head), a snapshot id or its first 8 or more digits, `branch@NUMBER` or
`@NUMBER` for a move, `REF~N` for N snapshots before, or a time (the state the branch had then).
Only states that a kept move, a tag or a branch names resolve; gc may delete others at any moment.
"""

from __future__ import annotations

import bisect
import contextlib
import re
from collections.abc import Iterator

from lakelog.disk import File, Folder, disk
from lakelog.errors import DamagedManifest, DamagedRef, InvalidEvent, UnknownRef
from lakelog.history.thinning import DAY, HOUR, MINUTE
from lakelog.history.window import require_kept
from lakelog.paths import FileNames, encode_name
from lakelog.refs import Move
from lakelog.runtime.closest import did_you_mean
from lakelog.store import Clock, Store
from lakelog.values import from_micros, parse_time, to_micros

_ID, _RECENT = 64, 3


def resolve(store: Store, branch: str, reference: str) -> str:
    """Return the manifest digest that a reference names. Raises UnknownRef, InvalidName,
    Damaged."""
    reference = reference.strip()
    base, _, back = reference.rpartition("~")
    if base and back.isdecimal():
        return _ancestor(store, branch, resolve(store, branch, base), int(back), reference)
    # Names first: `encode_name` refuses those that read like an id or a time.
    digest = (
        _resolve_name(store, reference)
        or _resolve_number(store, branch, reference)
        or _resolve_id(store, reference)
    )
    digest = digest or _resolve_time(store, branch, reference)
    if not digest:
        near = did_you_mean(reference, [*store.refs.tag_names(), *store.refs.branches()])
        raise UnknownRef(
            f"no tag, branch, snapshot or time {reference!r}:"
            f" {near or 'see `lakelog log` and `lakelog tag --list`'}"
        )
    require_kept(store, digest, reference)
    return digest


def moves(store: Store, branch: str) -> Iterator[Move]:
    """Yield the kept moves of a branch, the newest first; a damaged one as a move with op
    `damaged`."""
    for number in reversed(store.refs.numbers(branch)):
        try:
            yield store.refs.read(branch, number)
        except DamagedRef as error:
            yield Move(number, branch, "", "", 0, "", "damaged", error.reason, "", 0)


def _ancestor(store: Store, branch: str, digest: str, back: int, reference: str) -> str:
    """The state that is `back` parents before one; reads the moves of the branch as far back as
    needed. Where the parent was thinned out it is the newest kept state before it (F7.13)."""
    # Whether a parent is kept is found by going through the kept states, each once for all parents.
    visited, states = set[str](), _kept_states(store, branch)
    for _ in range(back):
        state = store.manifests.load(digest)
        digest = state.parent
        while digest and digest not in visited:
            name = next(states, None)
            if name is None:
                digest = ""
            else:
                visited.add(name)
        if not digest and state.parent:
            numbers = store.refs.numbers(branch)
            index = _until(store, branch, numbers, state.time - 1)
            digest = _newest_kept(store, branch, numbers, index) if index else ""
        if not digest:
            raise UnknownRef(f"{reference!r} goes back before the first kept snapshot")
        require_kept(store, digest, reference)
    return digest


def _kept_states(store: Store, branch: str) -> Iterator[str]:
    """States that moves and tags name, those of the branch first, newest first."""
    other_branches = [name for name in store.refs.branches() if name != branch]
    for name in (branch, *other_branches):
        yield from (move.snapshot for move in moves(store, name))
    yield from (tag.snapshot for tag in store.refs.tags())


def _resolve_name(store: Store, reference: str) -> str | None:
    """A tag or a branch of exactly that name."""
    try:
        encode_name(reference)
    except ValueError:
        return None
    if File(store.paths.tag(reference)).exists():
        return store.refs.tag(reference).snapshot
    if File(store.paths.head_dir(reference)).exists():
        try:
            return store.refs.head(reference).move.snapshot
        except UnknownRef:
            return None
    return None


def _resolve_number(store: Store, branch: str, reference: str) -> str | None:
    name, separator, number = reference.rpartition("@")
    if not separator or not number.isdecimal():
        return None
    return store.refs.read(name or branch, int(number)).snapshot


def _resolve_id(store: Store, reference: str) -> str | None:
    """A snapshot id or a unique beginning of one, among kept moves of all branches and tags."""
    if not re.fullmatch(r"[0-9a-f]{8,64}", reference):
        return None
    # Of a whole id there are no others to be told from. Most are of a move that was read lately.
    if len(reference) == _ID and (
        store.refs.carried_text(reference) or _has_move(store, reference)
    ):
        return reference
    digests = {t.snapshot for t in store.refs.tags() if t.snapshot.startswith(reference)}
    files = Folder(f"{store.paths.root}/manifests/{reference[:2]}").names()
    matching = {key for key in FileNames(files).digests if key.startswith(reference)}
    # One candidate whose move is found by its time: then not all moves have to be read.
    if len(matching | digests) == 1 and _has_move(store, next(iter(matching | digests))):
        return (matching | digests).pop()
    # A file alone proves nothing, it may be a page or the state of a lost race: what moves name
    # does.
    digests.update(name for name in store.refs.states() if name.startswith(reference))
    if len(digests) > 1:
        raise UnknownRef(f"{reference!r} begins {len(digests)} snapshot ids: give more digits")
    return digests.pop() if digests else None


def _has_move(store: Store, digest: str) -> bool:
    """Whether a move with the time of a state names it: a publish gives both the same time."""
    try:
        moment = store.manifests.load(digest).time
    except (DamagedManifest, KeyError):  # or it is a page
        return False
    for branch in store.refs.all_branches():
        with contextlib.suppress(DamagedRef, UnknownRef):
            numbers = store.refs.numbers(branch)
            # Mostly it is one of the last, which are found without a search.
            newest = reversed(numbers[-_RECENT:])
            if any(store.refs.read(branch, n).snapshot == digest for n in newest):
                return True
            index = _until(store, branch, numbers, moment)
            if index and store.refs.read(branch, numbers[index - 1]).snapshot == digest:
                return True
    return False


def _resolve_time(store: Store, branch: str, reference: str) -> str | None:
    """The state a branch had at a time: the newest move not later than it."""
    try:
        moment = to_micros(parse_time(reference))
    except InvalidEvent:
        return None
    numbers = store.refs.numbers(branch)
    index = _until(store, branch, numbers, moment)
    if index == 0:
        oldest = store.refs.read(branch, numbers[0]).time if numbers else 0
        stamp = from_micros(oldest).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise UnknownRef(f"{reference!r} is before the first kept move of {branch!r}, {stamp}")
    return _newest_kept(store, branch, numbers, index)


def _newest_kept(store: Store, branch: str, numbers: list[int], index: int) -> str:
    """The state of the newest of the first `index` moves, or if it was thinned out the newest kept
    state before it: of the minute, hour or day before."""
    newest = store.refs.read(branch, numbers[index - 1])
    for span in (0, MINUTE, HOUR, DAY):
        before = (
            index if not span else _until(store, branch, numbers, newest.time // span * span - 1)
        )
        for number in reversed(numbers[max(before - 2, 0) : before]):
            move = store.refs.read(branch, number)
            if move.carried or store.manifests.obtain(move.snapshot):
                return move.snapshot
    return newest.snapshot


def _until(store: Store, branch: str, numbers: list[int], moment: int) -> int:
    """Return how many of the moves are not later than a time (us), by bisection.

    Moves of a clock that was far ahead are as old as the first one after them that is not.
    """
    now_us = disk.now_us()
    newest = store.refs.read(branch, numbers[-1]).time if numbers else now_us
    # Beyond this a time is of a clock that was wrong; F7.3 lets later moves go back to the right
    # one.
    latest = now_us if newest > now_us + Clock.AHEAD else max(now_us, newest)

    def time(index: int) -> int:
        for later in range(index, len(numbers)):
            if (stamp := store.refs.read(branch, numbers[later]).time) <= latest:
                return stamp
        return now_us

    return bisect.bisect_right(range(len(numbers)), moment, key=time)
