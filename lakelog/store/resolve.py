"""Turning what a user types into a state of the lake.

A tag, a branch (its head), a snapshot id or its first 8 or more digits, `branch@NUMBER` or
`@NUMBER` for a move, `REF~N` for N snapshots before, or a time (the state the branch had then).
Only states that a kept move, a tag or a branch names resolve; others may be collected any moment.
"""

from __future__ import annotations

import bisect
import contextlib
import re
from collections.abc import Iterator

from lakelog.closest import did_you_mean
from lakelog.errors import DamagedManifest, DamagedRef, InvalidEvent, UnknownRef
from lakelog.event import from_micros, parse_time, to_micros
from lakelog.store import disk
from lakelog.store.bootstrap import Store
from lakelog.store.clock import AHEAD
from lakelog.store.gc import require_kept
from lakelog.store.paths import encode_name, parse_object
from lakelog.store.refs import Move
from lakelog.store.thinning import DAY, HOUR, MINUTE


def resolve(store: Store, branch: str, text: str) -> str:
    """Return the manifest digest that `text` names. Raises UnknownRef, InvalidName, Damaged."""
    text = text.strip()
    base, _, back = text.rpartition("~")
    if base and back.isdecimal():
        return _ancestor(store, branch, resolve(store, branch, base), int(back), text)
    found = _named(store, text) or _numbered(store, branch, text) or _by_id(store, text)
    found = found or _at_time(store, branch, text)
    if not found:
        near = did_you_mean(text, [*store.refs.tag_names(), *store.refs.branches()])
        raise UnknownRef(
            f"no tag, branch, snapshot or time {text!r}:"
            f" {near or 'see `lakelog log` and `lakelog tag --list`'}"
        )
    require_kept(store, found, text)
    return found


def moves(store: Store, branch: str, newest_first: bool = True) -> Iterator[Move]:
    """Yield the kept moves of a branch; a damaged one as a move with op `damaged`."""
    numbers = store.refs.numbers(branch)
    for number in reversed(numbers) if newest_first else numbers:
        try:
            yield store.refs.read(branch, number)
        except DamagedRef as error:
            yield Move(number, branch, "", "", 0, "", "damaged", error.reason, "", 0)


def _ancestor(store: Store, branch: str, digest: str, back: int, text: str) -> str:
    """The state so many parents before one; reads the moves of the branch as far back as that.
    Where the parent was thinned out it is the newest state before that was not."""
    seen, kept = set[str](), _kept(store, branch)
    for _ in range(back):
        state = store.manifests.load(digest)
        digest = state.parent
        while digest and digest not in seen:
            name = next(kept, None)
            if name is None:
                digest = ""
            else:
                seen.add(name)
        if not digest and state.parent:
            digest = _before(store, branch, state.time)
        if not digest:
            raise UnknownRef(f"{text!r} goes back before the first kept snapshot")
        require_kept(store, digest, text)
    return digest


def _before(store: Store, branch: str, moment: int) -> str:
    """The newest kept state that a branch had before a time (us), or ""."""
    numbers = store.refs.numbers(branch)
    at = _until(store, branch, numbers, moment - 1)
    return _thinned(store, branch, numbers, at) if at else ""


def _kept(store: Store, branch: str) -> Iterator[str]:
    """States that moves and tags name, those of the branch first, newest first."""
    others = [name for name in store.refs.branches() if name != branch]
    for name in (branch, *others):
        yield from (move.snapshot for move in moves(store, name))
    yield from (tag.snapshot for tag in store.refs.tags())


def _named(store: Store, text: str) -> str | None:
    """A tag or a branch of exactly that name."""
    try:
        encode_name(text)
    except ValueError:
        return None
    if disk.exists(store.paths.tag(text)):
        return store.refs.tag(text).snapshot
    if disk.exists(store.paths.head_dir(text)):
        try:
            return store.refs.head(text).move.snapshot
        except UnknownRef:
            return None
    return None


def _numbered(store: Store, branch: str, text: str) -> str | None:
    name, at, number = text.rpartition("@")
    if not at or not number.isdecimal():
        return None
    return store.refs.read(name or branch, int(number)).snapshot


def _by_id(store: Store, text: str) -> str | None:
    """A snapshot id or a unique beginning of one, among kept moves of all branches and tags."""
    if not re.fullmatch(r"[0-9a-f]{8,64}", text):
        return None
    found = {t.snapshot for t in store.refs.tags() if t.snapshot.startswith(text)}
    files = disk.listing(f"{store.paths.root}/manifests/{text[:2]}")
    there = {digest for name in files if (digest := parse_object(name)) and name.startswith(text)}
    if len(there | found) == 1 and _has_move(store, next(iter(there | found))):
        return (there | found).pop()
    found.update(name for name in store.refs.states() if name.startswith(text))
    if len(found) > 1:
        raise UnknownRef(f"{text!r} begins {len(found)} snapshot ids: give more digits")
    return found.pop() if found else None


def _has_move(store: Store, digest: str) -> bool:
    """Whether the move that published a state is found by its time, which is that of the state."""
    try:
        moment = store.manifests.load(digest).time
    except (DamagedManifest, KeyError):  # or it is a page
        return False
    for branch in store.refs.all_branches():
        with contextlib.suppress(DamagedRef, UnknownRef):
            numbers = store.refs.numbers(branch)
            at = _until(store, branch, numbers, moment)
            if at and store.refs.read(branch, numbers[at - 1]).snapshot == digest:
                return True
    return False


def _at_time(store: Store, branch: str, text: str) -> str | None:
    """The state a branch had at a time: the newest move not later than it."""
    try:
        moment = to_micros(parse_time(text))
    except InvalidEvent:
        return None
    numbers = store.refs.numbers(branch)
    at = _until(store, branch, numbers, moment)
    if at == 0:
        first = store.refs.read(branch, numbers[0]).time if numbers else 0
        raise UnknownRef(f"{text!r} is before the first kept move of {branch!r}, {_iso(first)}")
    return _thinned(store, branch, numbers, at)


def _thinned(store: Store, branch: str, numbers: list[int], at: int) -> str:
    """The state of the newest of the first `at` moves, or if it was thinned out the newest before
    it that was not: of the minute, hour or day before."""
    newest = store.refs.read(branch, numbers[at - 1])
    for span in (0, MINUTE, HOUR, DAY):
        before = at if not span else _until(store, branch, numbers, newest.time // span * span - 1)
        for number in reversed(numbers[max(before - 2, 0) : before]):
            move = store.refs.read(branch, number)
            if move.carried or disk.exists(store.paths.object("manifests", move.snapshot)):
                return move.snapshot
    return newest.snapshot


def _until(store: Store, branch: str, numbers: list[int], moment: int) -> int:
    """Return how many of the moves are not later than a time (us); reads few of them.

    Moves of a clock that was far ahead are as old as the first one after them that is not.
    """
    now = disk.now_us()
    newest = store.refs.read(branch, numbers[-1]).time if numbers else now
    latest = now if newest > now + AHEAD else max(now, newest)

    def time(at: int) -> int:
        for there in range(at, len(numbers)):
            if (said := store.refs.read(branch, numbers[there]).time) <= latest:
                return said
        return now

    return bisect.bisect_right(range(len(numbers)), moment, key=time)


def _iso(micros: int) -> str:
    return from_micros(micros).strftime("%Y-%m-%dT%H:%M:%SZ")
